"""What the gateway knows: its configuration, its context, and the orders whose answer it awaits."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined
from shrivenq.stages.hops import Hops
from shrivenq.stages.id_map import IdMap, Recent
from shrivenq.stages.journal import Journal


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.limits.SYMBOL]`: what no order may ever exceed, in decimals, as text."""

    quantity_max: str
    price_min: str
    price_max: str


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: the second line behind risk, and how long an answer may take."""

    unknown_after_ms: int
    """An order or cancel without an answer for this long is unknown, and is asked about again each such time."""
    orders_max: int
    """New orders and replacements in any one window."""
    window_ms: int
    limits: dict[str, Limits]
    """By symbol: one for every instrument that may be traded."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, most in (("unknown_after_ms", 3_600_000), ("orders_max", 1_000_000), ("window_ms", 3_600_000)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is 1 to {most:,}, not {getattr(self, name)}")


# Words of the context.
NOW_NS = 0  # latest time seen
PENDING = 1  # 0 nothing, 1 `report` is to be journaled, 2 it is journaled and to be forwarded
FORWARD = 2  # 1 if risk is to see `report`
RELEASE = 3  # input to release once it is out: FROM_VENUE, FROM_RISK or neither
UNKNOWN_NS = 4
WINDOW_NS = 5
WINDOW_COUNT = 6  # orders sent in all, by the window's reckoning
WATCH_FIRST, WATCH_LAST = 7, 8  # ends of the list of orders whose answer is awaited, oldest first; -1 for none
RECOVERED = 9  # slots of `recovering` dealt with
SENT = 10  # messages handed to the venue
DENIED = 11
UNMATCHED = 12  # reports of orders that have no slot
REPEATED_FILLS = 13
OVERFILLS = 14  # fills beyond an order's quantity
QUERIES = 15
UNJOURNALED_CANCELS = 16
HELD = 17  # 1 while new orders are held because the journal is full
LOOK_NS, LOOK_SLOT = 18, 19  # when to ask about an order that rests, and which was asked about last
WORDS = 32

FROM_VENUE, FROM_RISK = 1, 2

WATCH = np.dtype(
    [("deadline_ns", "<i8"), ("next", "<i4"), ("previous", "<i4"), ("linked", "<i8")],
    align=True,
)


@by_reference
class Gateway(NamedTuple):
    """Context of the stage."""

    orders: Any  # consumer of `order`
    from_venue: Any
    reports: Any  # producer of `report`
    to_venue: Any
    journal: Journal
    pool: Any
    slots: Any  # ORDER_SLOT, the pool's
    ids: IdMap  # order id → slot
    fills: Recent  # (instrument, trade id)
    anchors: Any  # int64, by instrument: all fills up to this trade were told, `orders.NO_TRADE` for none
    illegal: Any  # int64[state, event]
    watch: Any  # WATCH, one per slot
    window: Any  # int64: times of the last orders sent
    limits: Any  # int64[instrument, 3]: quantity_max, price_min, price_max
    instruments: Any
    run: Any  # uint8: the run id, as client order ids spell it
    text: Any  # uint8: the venue's text of the last order
    kill: Any
    hold: Any
    instrument_hold: Any
    order: Any  # ORDER, the one being handled,
    order_words: Any  # and as int64
    report: Any  # REPORT, the one being handled,
    report_words: Any
    recovering: Any  # int64: slots taken before this gateway was built
    hops: Hops
    words: Any


# ── awaiting answers ─────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def unwatch(context: Any, slot: int) -> None:
    """Stop awaiting an answer for a slot."""
    watch, words = context.watch, context.words
    if watch[slot]["linked"] == 0:
        return
    before, after = watch[slot]["previous"], watch[slot]["next"]
    if before < 0:
        words[WATCH_FIRST] = after
    else:
        watch[before]["next"] = after
    if after < 0:
        words[WATCH_LAST] = before
    else:
        watch[after]["previous"] = before
    watch[slot]["linked"] = 0


@inlined
def await_answer(context: Any, slot: int, now: int) -> None:
    """Await an answer for a slot from now on; deadlines grow along the list, since all wait equally long."""
    watch, words = context.watch, context.words
    unwatch(context, slot)
    last = words[WATCH_LAST]
    watch[slot]["deadline_ns"] = now + words[UNKNOWN_NS]
    watch[slot]["next"] = -1
    watch[slot]["previous"] = last
    watch[slot]["linked"] = 1
    if last < 0:
        words[WATCH_FIRST] = slot
    else:
        watch[last]["next"] = slot
    words[WATCH_LAST] = slot


def _scaled(text: str, decimals: int, where: str) -> int:
    """Read a decimal as an integer at `decimals`. Raises ValueError naming `where`."""
    try:
        value = Decimal(text).scaleb(decimals)
    except InvalidOperation:
        raise ValueError(f"gateway.limits.{where}: {text!r} is no number") from None
    if not value.is_finite() or value <= 0 or value != value.to_integral_value() or value >= 2**62:
        raise ValueError(f"gateway.limits.{where}: {text} is not a positive number of {decimals} decimals at most")
    return int(value)


def limit_table(config: Config, instruments: Any) -> Any:
    """Make the table of limits; an instrument that may be traded must have its own. Raises ValueError."""
    limits = np.zeros((len(instruments), 3), np.int64)
    names = {bytes(row["symbol"]).decode() for row in instruments}
    unknown = sorted(config.limits.keys() - names)
    if unknown:
        raise ValueError(f"gateway.limits: {', '.join(unknown)}: no such instrument")
    for i, row in enumerate(instruments):
        symbol = bytes(row["symbol"]).decode()
        given = config.limits.get(symbol)
        if given is None:
            if row["tradable"]:
                raise ValueError(f"gateway.limits.{symbol}: missing, and {symbol} may be traded")
            continue
        price_decimals, quantity_decimals = int(row["price_decimals"]), int(row["quantity_decimals"])
        limits[i, 0] = _scaled(given.quantity_max, quantity_decimals, f"{symbol}.quantity_max")
        limits[i, 1] = _scaled(given.price_min, price_decimals, f"{symbol}.price_min")
        limits[i, 2] = _scaled(given.price_max, price_decimals, f"{symbol}.price_max")
    return limits
