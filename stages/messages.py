"""The one schema: every message between stages, every field with its unit and meaning.

Prices and quantities are int64 at the instrument's own decimal exponents (`price_decimals`, `quantity_decimals`);
money is int64 at its currency's exponent; times are int64 nanoseconds. A message is a fixed-size record: a 32-byte
header, then the body. Fields that share an offset are alternatives, told apart by `kind`.

`time_ns` is the time strategies, risk and the paper venue reason with: live and paper the moment of receipt (the wall
clock at start plus monotonic time since, so that it never jumps), in replay and backtest the capture's own. Stamps
(`wire_ns` … `acknowledged_ns`) are CLOCK_MONOTONIC readings for latency measurement, and decide nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DEPTH = 10
"""Levels a side in a BOOK message."""

# ── kinds ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# TICK: one frame of the venue is one event: records of the kinds below, closed by END.
SNAPSHOT = 1  # opens a full book: the LEVELs that follow replace everything
DIFF = 2  # opens a depth update: the LEVELs that follow are absolute quantities, 0 deletes
LEVEL = 3  # one price level; SIDE_ASK in flags for asks
TRADE = 4  # one trade; SELLER_AGGRESSED in flags when the buyer was resting
QUOTE = 5  # one side of a best bid and offer (bookTicker): two records, bid then ask
TIMER = 6  # the strategy's period has passed (an event of its own, END included)
END = 7  # closes every event; carries the stamps
LOST = 8  # what came before is incomplete (disconnect, damaged capture): book of `instrument` invalid, -1: of all
# BOOK ring kinds: DEPTH_BOOK below, QUOTE, TRADE, TIMER.
DEPTH_BOOK = 16

# INTENT and ORDER.
NEW = 1
CANCEL = 2
REPLACE = 3  # cancel `target_id`, then place `order_id` if that succeeded (Binance cancelReplace STOP_ON_FAILURE)
QUERY = 4  # ask the venue what became of `target_id` (gateway → venue only)
ECHO = 5  # replay: say this back as a report of kind `echo` after the venue's latency (gateway → paper venue only)
AMEND = 6  # lower the quantity of `target_id` to `quantity`, filled part included, its place in the queue kept
CANCEL_ALL = 7  # cancel every open order of `instrument`
TRADES = 8  # ask for the trades of `target_id`, by `venue_order_id` (gateway → venue only)

# REPORT.
ACCEPTED = 1
FILL = 2  # one trade: `last_price`, `last_quantity`, `fee`; `leaves` 0 makes the order terminal
CANCELLED = 3
REPLACED = 4  # `target_id` is gone and `order_id` is open: closes the one and accepts the other
REJECTED = 5  # refused by the venue
EXPIRED = 6  # the unfilled rest of IOC, FOK or MARKET
CANCEL_REJECTED = 7  # `target_id` was not there to be cancelled
UNKNOWN = 8  # no answer: the order stays in flight and keeps its exposure until it is resolved
DENIED = 9  # refused by ourselves (risk or gateway); `reason` says why
ABSENT = 10  # answer to QUERY: the venue has never seen the order
AMENDED = 11  # the order lives on with another `quantity`: an AMEND, or self-trade prevention that took a part of it
AMEND_REJECTED = 12  # `target_id` is as it was
LOOKED = 13  # for the journal: the account's trades up to `trade_id` were looked at; the first time, taken as they are
OVER = 14  # for the journal: an order of an earlier run is over, and its fills are told
BALANCE = 15  # for the journal: the account holds `quantity` of `fee_currency`, free and locked, as the venue says
MOVED = 16  # for the journal: `quantity` of `fee_currency` came from outside, or went there if negative

# ── flags ────────────────────────────────────────────────────────────────────────────────────────────────────────────

SIDE_ASK = 1  # TICK LEVEL and QUOTE
SELLER_AGGRESSED = 2  # TICK and BOOK TRADE
VALID = 4  # BOOK and TOUCH: the book is whole, in sequence and not crossed
BLIND = 8  # BOOK and TOUCH: the touch has left the range the snapshot covered
GAP = 16  # the ring dropped whole events before this record
BUILDING = 32  # SNAPSHOT chunk with more to come
REDUCING = 64  # ORDER: verified by risk to reduce a position; passes a halt
FORCED = 128  # INTENT and ORDER made by risk itself (kill, flatten), not by the strategy
MAKER = 256  # REPORT FILL: our order was resting
FINAL = 512  # REPORT: the order is terminal after this report

# ── enumerations in order-entry fields ───────────────────────────────────────────────────────────────────────────────

BUY, SELL = 1, -1  # `side`, also the sign of a position
LIMIT, MARKET, LIMIT_MAKER = 1, 2, 3  # `order_type`; LIMIT_MAKER is post-only
STOP_LOSS, STOP_LOSS_LIMIT, TAKE_PROFIT, TAKE_PROFIT_LIMIT = 4, 5, 6, 7  # MARKET or LIMIT once `stop_price` trades
GTC, IOC, FOK = 1, 2, 3  # `time_in_force`
# `self_trade`: who goes when two orders of one account would meet; 0 is the instrument's default.
STP_NONE, EXPIRE_TAKER, EXPIRE_MAKER, EXPIRE_BOTH, DECREMENT, TRANSFER = 1, 2, 3, 4, 5, 6
NO_AMEND, NO_REPLACE = 1, 2  # INSTRUMENT `refused_requests`

REASONS = (
    "none",
    "not_armed",  # killed, held, or not yet armed
    "held",
    "unknown_instrument",
    "not_tradable",
    "malformed",  # a field out of its range
    "tick_size",
    "price_range",
    "step_size",
    "quantity_range",
    "notional_range",
    "no_touch",  # no market data, or an invalid book
    "stale_touch",
    "price_collar",
    "order_quantity",
    "order_value",
    "position",
    "gross_exposure",
    "open_orders",
    "message_rate",
    "duplicate",
    "intent_age",
    "daily_loss",
    "no_slot",
    "unknown_order",
    "ring_full",
    "overflow",  # a product left 64 bits after scaling
    "repeated_cause",  # an intent of this id was decided already
    "self_trade",
    "repeated_execution",
    "reject_streak",
    "no_conversion",
    "would_take",  # LIMIT_MAKER that would match at once
    "no_liquidity",
    "unfilled",
    "by_request",
    "killed",
    "journal",  # the order could not be journaled
    "second_line",  # refused by the gateway's own re-check
    "venue",  # the venue's own reason, in the log
    "lost",  # never journaled: died with a stage
    "insufficient_balance",
    "would_trigger",  # a stop order whose price was reached already
    "venue_rate",  # over the venue's limits (429)
    "banned",  # by the venue (418)
    "clock",  # the request was too old or too new for the venue (-1021)
    "unauthorized",  # key, signature, permission or session
    "venue_error",  # the venue cannot say what became of it
    "disconnected",  # there is no session with the venue: nothing was sent
    "not_supported",  # an order type, self-trade mode or request that the venue does not take of this instrument
)
REASON = {name: code for code, name in enumerate(REASONS)}

# ── dtypes ───────────────────────────────────────────────────────────────────────────────────────────────────────────

HEADER_FIELDS: tuple[tuple[str, str, int, str], ...] = (
    ("sequence", "<i8", 0, "position in its ring, from 0: a check"),
    ("cause", "<i8", 8, "sequence of the message that led to this one; in TICK, BOOK and TOUCH the frame's number"),
    ("time_ns", "<i8", 16, "ns since 1970: the time to reason with; never goes back"),
    ("instrument", "<i4", 24, "row of the instrument table"),
    ("kind", "<i2", 28, "what the record is"),
    ("flags", "<i2", 30, "bits"),
)

TICK_FIELDS = (
    *HEADER_FIELDS,
    ("price", "<i8", 32, "LEVEL, TRADE, QUOTE: price"),
    ("quantity", "<i8", 40, "LEVEL, TRADE, QUOTE: quantity; LEVEL 0 deletes"),
    ("id", "<i8", 48, "TRADE: trade id; QUOTE: update id"),
    ("venue_ns", "<i8", 56, "SNAPSHOT, DIFF, TRADE, QUOTE: venue's event time, ns since 1970, 0 if it sent none"),
    ("first_id", "<i8", 32, "DIFF: first update id (U)"),
    ("last_id", "<i8", 40, "SNAPSHOT, DIFF: last update id (u)"),
    ("previous_id", "<i8", 48, "DIFF: previous event's last update id (pu), -1 where the venue sends none"),
    ("wire_ns", "<i8", 32, "END: stamp, last byte of the frame in memory"),
    ("decoded_ns", "<i8", 40, "END: stamp, frame decoded"),
    ("count", "<i8", 48, "END: records of the event before this one"),
)

_LEVELS = f"({DEPTH},)<i8"
BOOK_FIELDS = (
    *HEADER_FIELDS,
    ("update_id", "<i8", 32, "DEPTH_BOOK, QUOTE: venue's update id"),
    ("trade_id", "<i8", 32, "TRADE: venue's trade id"),
    ("venue_ns", "<i8", 40, "venue's event time, ns since 1970, 0 if it sent none"),
    ("wire_ns", "<i8", 48, "stamp: last byte of the frame in memory"),
    ("decoded_ns", "<i8", 56, "stamp: frame decoded"),
    ("book_ns", "<i8", 64, "stamp: book updated"),
    ("bid_count", "<i4", 72, "levels in bid_price, best first"),
    ("ask_count", "<i4", 76, "levels in ask_price, best first"),
    ("bid_price", _LEVELS, 80, "prices, best first, 0 beyond bid_count; QUOTE: [0] only"),
    ("bid_quantity", _LEVELS, 160, "quantities"),
    ("ask_price", _LEVELS, 240, "prices, best first, 0 beyond ask_count; QUOTE: [0] only"),
    ("ask_quantity", _LEVELS, 320, "quantities"),
    ("price", "<i8", 80, "TRADE: price"),
    ("quantity", "<i8", 160, "TRADE: quantity"),
)

TOUCH_FIELDS = (
    *HEADER_FIELDS,
    ("bid_price", "<i8", 32, "best bid, 0 for none"),
    ("bid_quantity", "<i8", 40, "quantity at the best bid"),
    ("ask_price", "<i8", 48, "best ask, 0 for none"),
    ("ask_quantity", "<i8", 56, "quantity at the best ask"),
)

_TRACE_TO_SIGNAL = (
    ("venue_ns", "<i8", 32, "venue's event time of the cause, ns since 1970"),
    ("wire_ns", "<i8", 40, "stamp: last byte of the frame in memory"),
    ("decoded_ns", "<i8", 48, "stamp: frame decoded"),
    ("book_ns", "<i8", 56, "stamp: book updated"),
    ("signal_ns", "<i8", 64, "stamp: strategy decided"),
)

_ENTRY = (
    ("order_id", "<i8", 72, "epoch << 40 | number: names this request, and for NEW and REPLACE the order"),
    ("target_id", "<i8", 80, "CANCEL, REPLACE, QUERY, AMEND, TRADES: the order meant"),
    ("price", "<i8", 88, "limit price; 0 for MARKET"),
    ("quantity", "<i8", 96, "quantity"),
    ("side", "i1", 104, "BUY or SELL"),
    ("order_type", "i1", 105, "LIMIT, MARKET, LIMIT_MAKER, STOP_LOSS, …"),
    ("time_in_force", "i1", 106, "GTC, IOC, FOK"),
    ("self_trade", "i1", 107, "STP_NONE, EXPIRE_TAKER, …; 0 for the instrument's default"),
)

INTENT_FIELDS = (
    *HEADER_FIELDS,
    *_TRACE_TO_SIGNAL,
    *_ENTRY,
    ("stop_price", "<i8", 112, "price that sets a stop order off, 0 for others"),
)

ORDER_FIELDS = (
    *HEADER_FIELDS,
    *_TRACE_TO_SIGNAL,
    *_ENTRY,
    ("slot", "<i4", 108, "slot of the order pool; CANCEL, AMEND: the target's; CANCEL_ALL: -1"),
    ("generation", "<i8", 112, "generation of the slot when it was taken"),
    ("risk_ns", "<i8", 120, "stamp: admitted by risk"),
    ("target_slot", "<i4", 128, "REPLACE: slot of the order that goes"),
    ("reason", "<i2", 132, "ECHO: code: REASONS"),
    ("echo", "<i2", 134, "ECHO: kind of the REPORT"),
    ("stop_price", "<i8", 136, "price that sets a stop order off, 0 for others"),
    ("venue_order_id", "<i8", 144, "CANCEL, AMEND, TRADES: the venue's own id of `target_id`, 0 if not known"),
)

REPORT_FIELDS = (
    *HEADER_FIELDS,
    ("order_id", "<i8", 32, "the order or request reported on"),
    (
        "target_id",
        "<i8",
        40,
        "CANCELLED, REPLACED, AMENDED and their refusals: the order that was to go or to change",
    ),
    ("venue_order_id", "<i8", 48, "venue's own order id, 0 while unknown"),
    ("trade_id", "<i8", 56, "FILL: venue's trade id: with instrument and side, the fill's identity"),
    ("last_price", "<i8", 64, "FILL: price"),
    ("last_quantity", "<i8", 72, "FILL: quantity"),
    ("filled", "<i8", 80, "quantity filled so far"),
    ("leaves", "<i8", 88, "quantity still open"),
    ("fee", "<i8", 96, "FILL: fee at the currency's exponent, positive is paid"),
    ("venue_ns", "<i8", 104, "venue's transaction time, ns since 1970"),
    ("wire_ns", "<i8", 112, "stamp of the ORDER: last byte of the frame that caused it"),
    ("ready_ns", "<i8", 120, "stamp: order text encoded"),
    ("sent_ns", "<i8", 128, "stamp: order handed to the venue"),
    ("acknowledged_ns", "<i8", 136, "stamp: this report received"),
    ("slot", "<i4", 144, "slot of the order pool, -1 for none"),
    ("fee_currency", "<i4", 148, "row of the currency table"),
    ("side", "i1", 152, "BUY or SELL"),
    ("reason", "<i2", 154, "code: REASONS"),
    ("price", "<i8", 160, "the order's limit price"),
    ("quantity", "<i8", 168, "the order's quantity; BALANCE, MOVED: money at the currency's exponent"),
    ("generation", "<i8", 176, "generation of the slot"),
)

INSTRUMENT_FIELDS = (
    ("symbol", "S16", 0, "venue's symbol, upper case"),
    ("tick", "<i8", 16, "price step of our own orders"),
    ("step", "<i8", 24, "quantity step of our own orders"),
    ("price_min", "<i8", 32, "lowest price of our own orders"),
    ("price_max", "<i8", 40, "highest price of our own orders"),
    ("quantity_min", "<i8", 48, "smallest quantity of our own orders"),
    ("quantity_max", "<i8", 56, "largest quantity of our own orders"),
    ("notional_min", "<i8", 64, "smallest price × quantity, quote currency at its exponent"),
    ("notional_max", "<i8", 72, "largest price × quantity, 0 for none"),
    ("contract_size", "<i8", 80, "a contract: base at quantity_decimals (linear), quote at its exponent (inverse)"),
    ("maker_fee", "<i8", 88, "1e-8 of the notional, negative is a rebate"),
    ("taker_fee", "<i8", 96, "1e-8 of the notional"),
    ("price_decimals", "<i4", 104, "decimal exponent of prices"),
    ("quantity_decimals", "<i4", 108, "decimal exponent of quantities"),
    ("base_currency", "<i4", 112, "row of the currency table"),
    ("quote_currency", "<i4", 116, "row of the currency table"),
    ("settle_currency", "<i4", 120, "row of the currency table: PnL and fees"),
    ("inverse", "i1", 124, "1 if profit is contract_size × (1/entry − 1/exit), settled in the base currency"),
    ("tradable", "i1", 125, "1 if orders may be sent"),
    ("futures", "i1", 126, "1 if depth events follow the futures rules (pu)"),
    ("refused_types", "i1", 127, "bit order_type − 1: the venue takes no such order"),
    ("market_quantity_min", "<i8", 128, "smallest quantity of a MARKET order beside quantity_min"),
    ("market_quantity_max", "<i8", 136, "largest, beside quantity_max; 0 for none"),
    ("market_step", "<i8", 144, "quantity step of MARKET orders, a multiple of step; 0 for none but that"),
    ("stop_orders_max", "<i4", 152, "most open stop orders, 0 for no limit"),
    ("refused_modes", "i1", 156, "bit self_trade − 1: the venue takes no such mode"),
    ("refused_requests", "i1", 157, "NO_AMEND, NO_REPLACE: the venue takes no such request"),
)

CURRENCY_FIELDS = (
    ("code", "S8", 0, "BTC, USDT …"),
    ("decimals", "<i4", 8, "decimal exponent of money in it"),
)


def _record(fields: Any, size: int) -> np.dtype[Any]:
    """Build an aligned dtype from (name, format, offset, meaning) rows; later alternatives may share an offset."""
    dtype = np.dtype(
        {
            "names": [row[0] for row in fields],
            "formats": [row[1] for row in fields],
            "offsets": [row[2] for row in fields],
            "itemsize": size,
            "aligned": True,
        }
    )
    assert dtype.isalignedstruct
    return dtype


TICK = _record(TICK_FIELDS, 64)
BOOK = _record(BOOK_FIELDS, 448)
TOUCH = _record(TOUCH_FIELDS, 64)
INTENT = _record(INTENT_FIELDS, 128)
ORDER = _record(ORDER_FIELDS, 192)
REPORT = _record(REPORT_FIELDS, 192)
INSTRUMENT = _record(INSTRUMENT_FIELDS, 192)
CURRENCY = _record(CURRENCY_FIELDS, 16)

MESSAGES = {
    "TICK": (TICK, TICK_FIELDS),
    "BOOK": (BOOK, BOOK_FIELDS),
    "TOUCH": (TOUCH, TOUCH_FIELDS),
    "INTENT": (INTENT, INTENT_FIELDS),
    "ORDER": (ORDER, ORDER_FIELDS),
    "REPORT": (REPORT, REPORT_FIELDS),
    "INSTRUMENT": (INSTRUMENT, INSTRUMENT_FIELDS),
    "CURRENCY": (CURRENCY, CURRENCY_FIELDS),
}

EPOCH_SHIFT = 40
"""An order id is `epoch << EPOCH_SHIFT | number`: a restarted signal never repeats one."""


def client_order_id(run: bytes, order_id: int) -> bytes:
    """Spell an order id as the venue's client order id: `run-epoch-number`, at most 36 characters of [a-zA-Z0-9-]."""
    return b"%s-%d-%d" % (run, order_id >> EPOCH_SHIFT, order_id & ((1 << EPOCH_SHIFT) - 1))
