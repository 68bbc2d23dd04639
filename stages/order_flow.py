"""Order flow: seeded traders around a wandering value, through the matching core.

Every instrument has a value that wanders and drifts home. Some traders place limit orders behind the touch and the
value, some cancel, some take for no reason, and some take because they know the value: that is how the book follows
it. The number of resting orders regulates itself, since cancels come in proportion to it.

The flow is integers only, from a table of quantiles and xoshiro128++ (Blackman and Vigna, "Scrambled linear
pseudorandom number generators", 2021): the same seed gives the same orders on every machine.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.matching import LEVELS, Matching
from shrivenq.stages.messages import BUY, GTC, IOC, LIMIT, MARKET, SELL

NS_PER_S = 1_000_000_000
EDGE_LEVELS = 20
"""A side with fewer levels than this is neither taken from nor cancelled in: it never runs empty."""
MEAN_ORDER_VALUE = 1_000
"""Quote units of an ordinary order."""
TICKS_MIN = 1_000
"""A price of fewer ticks than this leaves the value no room to wander."""
START_PRICES = {"BTCUSDT": "61800", "ETHUSDT": "2610", "BNBUSDT": "515", "SOLUSDT": "153"}
"""Where instruments begin when the config does not say; any other begins at 100,000 ticks."""

# Chances out of 65,536 that the next event of an instrument's flow is …
TAKE_INFORMED = 4_000  # an order from somebody who knows the value, if the touch is wrong enough to pay
TAKE_NOISE = 4_000  # a market order from somebody who does not
CANCEL = 26_000  # a cancel, when as many orders rest as should; in proportion to how many do

QUANTILES = 4096
FIXED = 16  # fraction bits of quantiles and of values

FLOW = np.dtype(
    [
        ("next_ns", "<i8"),  # simulated time of the next event
        ("gap_ns", "<i8"),  # mean time between events
        ("value", "<i8"),  # level, FIXED fraction bits
        ("home", "<i8"),  # level it drifts back to
        ("roam", "<i8"),  # levels it never goes further away than
        ("stride", "<i8"),  # largest move of the value in one event, FIXED fraction bits
        ("spread", "<i8"),  # scale of distances from the touch, levels
        ("lot", "<i8"),  # scale of quantities, steps
        ("step", "<i8"),  # quantity step
        ("target", "<i8"),  # orders that should rest
        ("random", "<i8", (4,)),  # 32 bits in each
    ],
    align=True,
)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[simulated_market]`: the embedded market that needs no network."""

    start_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 1_767_225_600_000_000_000
    """Simulated time of the first snapshot, ns since 1970; a paper run begins at the wall clock's instead."""
    events_per_s: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 2_000
    """Orders, cancels and takers a second, each instrument."""
    depth_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 10
    """Time between two depth events; the real venue takes 100."""
    resting_orders: Annotated[int, msgspec.Meta(ge=200, le=100_000)] = 2_000
    """Orders that rest in each book, more or less."""
    volatility_bps: Annotated[float, msgspec.Meta(ge=0, le=1_000)] = 0.8
    """Standard deviation of the value over one second, in 1/10,000 of the price."""
    spread_bps: Annotated[float, msgspec.Meta(gt=0, le=100)] = 0.4
    """Scale of the distance from the touch at which orders are placed, in 1/10,000 of the price."""
    price: dict[str, str] = {}
    """Price at which an instrument begins, in its quote currency, by symbol: `BTCUSDT = "61800"`."""


@by_reference
class OrderFlow(NamedTuple):
    """Books, and what drives them."""

    core: Matching
    flows: Any  # FLOW, one per instrument
    quantiles: Any  # int64: quantiles of the exponential distribution, FIXED fraction bits


def make_flow(instruments: Any, config: Config, seed: int, *, levels: int = LEVELS, spare_slots: int = 0) -> OrderFlow:
    """Build the books of `instruments` (INSTRUMENT rows), full of orders, at `config.start_ns`.

    The same `seed`, not negative, gives the same orders. `levels` ticks a ladder, `spare_slots` for the orders of
    others in each book. Raises ValueError for a price that is not a number of at least TICKS_MIN ticks.
    """
    flows = np.zeros(len(instruments), FLOW)
    bases = []
    for row, instrument in enumerate(instruments):
        price = _start(instrument, config)
        highest = int(instrument["price_max"]) // int(instrument["tick"])
        # Every legal price where there is room for them all, else those around the start.
        lowest = 1 if price < highest <= levels else max(1, price - levels // 2)
        home = price - lowest
        bases.append(lowest * int(instrument["tick"]))
        _set_flow(flows[row], instrument, config, price, home)
        flows[row]["roam"] = min(home, levels - home, LEVELS // 2) // 2
        flows[row]["random"] = np.random.SeedSequence([seed, row]).generate_state(4, np.uint32)
    slots = 2 * config.resting_orders + spare_slots
    core = matching.make_matching(bases, instruments["tick"].tolist(), slots, levels)
    exact = [round(-math.log1p(-(i + 0.5) / QUANTILES) * (1 << FIXED)) for i in range(QUANTILES)]
    made = OrderFlow(core, flows, np.array(exact, np.int64))
    for row in range(len(instruments)):
        _open(made, row)
    core.words[:] = 0
    return made


def _start(instrument: Any, config: Config) -> int:
    """Work out the starting price in ticks."""
    symbol, tick = instrument["symbol"].decode(), int(instrument["tick"])
    said = config.price.get(symbol) or START_PRICES.get(symbol)
    if said is None:
        return 100_000
    try:
        price = int(Decimal(said) * 10 ** int(instrument["price_decimals"])) // tick
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"simulated market: the price of {symbol} is {said!r}, not a number") from None
    if not TICKS_MIN <= price < 1 << 40:
        raise ValueError(f"simulated market: {symbol} at {said} is {price:,} ticks, allowed from {TICKS_MIN:,}")
    return price


def _set_flow(flow: Any, instrument: Any, config: Config, price: int, home: int) -> None:
    """Translate rates and basis points into the integers of one instrument's flow; `price` in ticks."""
    tick, step = int(instrument["tick"]), int(instrument["step"])
    quote = price * tick / 10 ** int(instrument["price_decimals"])
    lot = MEAN_ORDER_VALUE / quote * 10 ** int(instrument["quantity_decimals"]) / step
    # A move is uniform, so its largest is √3 standard deviations.
    stride = math.sqrt(3 / config.events_per_s) * price * config.volatility_bps / 10_000
    flow["gap_ns"] = NS_PER_S // config.events_per_s
    flow["next_ns"] = config.start_ns
    flow["value"], flow["home"] = home << FIXED, home
    # A stride beyond the ladder says no more than one across it.
    flow["stride"] = round(min(stride, LEVELS) * (1 << FIXED))
    # The mean of a squared exponential is 2.
    flow["spread"] = max(3, round(min(price * config.spread_bps / 10_000 / 2, LEVELS)))
    flow["lot"] = max(1, round(min(lot / 2, 1 << 30)))
    flow["step"] = step
    flow["target"] = config.resting_orders


@kernel
def random_bits(state: Any) -> int:
    """Draw 32 bits from xoshiro128++, its four words in int64."""
    mixed = (state[0] + state[3]) & 0xFFFFFFFF
    result = (((mixed << 7) | (mixed >> 25)) + state[0]) & 0xFFFFFFFF
    shifted = (state[1] << 9) & 0xFFFFFFFF
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = ((state[3] << 11) | (state[3] >> 21)) & 0xFFFFFFFF
    return result


@kernel
def _exponential(flow: OrderFlow, instrument: int) -> int:
    """Draw from the exponential distribution of mean 1, FIXED fraction bits."""
    return flow.quantiles[random_bits(flow.flows[instrument]["random"]) & (QUANTILES - 1)]


@kernel
def _squared(flow: OrderFlow, instrument: int, scale: int) -> int:
    """Draw `scale` times the square of an exponential: many small, a few large."""
    drawn = _exponential(flow, instrument)
    return (drawn * drawn >> FIXED) * scale >> FIXED


@kernel
def _wander(flow: OrderFlow, instrument: int) -> None:
    """Move the value by one step of a random walk that drifts home and never roams too far."""
    own = flow.flows[instrument]
    drawn = random_bits(own["random"]) - (1 << 31)
    home, roam = own["home"] << FIXED, own["roam"] << FIXED
    value = own["value"] + (drawn * (own["stride"] >> 4) >> 27) - ((own["value"] - home) >> 20)
    own["value"] = min(max(value, home - roam), home + roam)


@kernel
def _place_limit(flow: OrderFlow, instrument: int) -> None:
    """Rest an order behind the touch and behind the value, mostly near."""
    own, ladder = flow.flows[instrument], flow.core.ladders[instrument]
    value = own["value"] >> FIXED
    distance = _squared(flow, instrument, own["spread"])
    quantity = own["step"] * (1 + _squared(flow, instrument, own["lot"]))
    if random_bits(own["random"]) & 1:
        side, level = BUY, max(min(ladder["best_ask"] - 1, value) - distance, 0)
    else:
        side, level = SELL, min(max(ladder["best_bid"] + 1, value + 1) + distance, ladder["levels"] - 1)
    price = matching.price_of(flow.core, instrument, level)
    matching.place(flow.core, instrument, side, LIMIT, GTC, price, quantity, 0)


@kernel
def _cancel_any(flow: OrderFlow, instrument: int) -> None:
    """Cancel a random order of the flow's own, unless its side is thin."""
    first = instrument * (flow.core.orders.shape[0] // flow.flows.shape[0])
    slots = 2 * flow.flows[instrument]["target"]
    ladder = flow.core.ladders[instrument]
    # Low slots are given out first, and about half of these are taken: eight tries hardly ever fail.
    for _ in range(8):
        slot = first + random_bits(flow.flows[instrument]["random"]) % slots
        if flow.core.orders[slot]["leaves"] != 0 and flow.core.orders[slot]["owner"] == 0:
            levels = ladder["bid_levels"] if flow.core.orders[slot]["side"] == BUY else ladder["ask_levels"]
            if levels > EDGE_LEVELS:
                matching.cancel(flow.core, flow.core.orders[slot]["handle"])
            return


@kernel
def _take(flow: OrderFlow, instrument: int, informed: bool) -> None:
    """Take from the touch: up to the value for those who know it, one small market order for the others."""
    own, ladder = flow.flows[instrument], flow.core.ladders[instrument]
    value = own["value"] >> FIXED
    quantity = own["step"] * (1 + _squared(flow, instrument, own["lot"]))
    side = BUY if random_bits(own["random"]) & 1 else SELL
    order_type, price = MARKET, 0
    if informed:
        if ladder["best_ask"] < value:
            side = BUY
        elif ladder["best_bid"] > value:
            side = SELL
        else:
            return
        order_type, quantity = LIMIT, quantity * 16
        price = matching.price_of(flow.core, instrument, value)
    levels = ladder["ask_levels"] if side == BUY else ladder["bid_levels"]
    if levels > EDGE_LEVELS:
        matching.place(flow.core, instrument, side, order_type, IOC, price, quantity, 0)


@kernel
def act(flow: OrderFlow, instrument: int) -> None:
    """Let one thing happen in an instrument; its trades are in `core.trades`."""
    own, ladder = flow.flows[instrument], flow.core.ladders[instrument]
    flow.core.words[matching.TRADES] = 0
    _wander(flow, instrument)
    roll = random_bits(own["random"]) >> 16
    thin = min(ladder["bid_levels"], ladder["ask_levels"]) <= EDGE_LEVELS
    if thin or roll >= TAKE_INFORMED + TAKE_NOISE + CANCEL * ladder["resting"] // own["target"]:
        _place_limit(flow, instrument)
    elif roll < TAKE_INFORMED:
        _take(flow, instrument, True)
    elif roll < TAKE_INFORMED + TAKE_NOISE:
        _take(flow, instrument, False)
    else:
        _cancel_any(flow, instrument)
    own["next_ns"] += 1 + (own["gap_ns"] * _exponential(flow, instrument) >> FIXED)


@kernel
def _open(flow: OrderFlow, instrument: int) -> None:
    """Fill an empty book with orders, before anybody watches."""
    for _ in range(flow.flows[instrument]["target"]):
        _place_limit(flow, instrument)
    matching.clear_changed(flow.core, instrument)
