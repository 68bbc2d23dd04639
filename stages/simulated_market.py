"""Simulated market: seeded order flow → matching core → the text Binance Spot would send.

No network and no files: every instrument has a value that wanders, traders who place, cancel and take around it, and
the book that comes of it. What leaves is raw JSON in the combined form, in a `Frames`: one snapshot per instrument
first, `@trade` and `@bookTicker` as they happen, `@depth@100ms` at a fixed interval. Ids are consistent as the venue's
are: a depth event's `u` and a bookTicker's `u` count the same changes of levels, without a gap.

A REST snapshot names no symbol, so it comes wrapped: `{"stream":"btcusdt@snapshot","data":{"lastUpdateId":…}}`.

The flow is integers only, from tables and xoshiro128++ (Blackman and Vigna, 2019): the same seed gives the same bytes
on every machine.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.frames import COUNT, TAKEN, TEXT, USED, Frames
from shrivenq.stages.matching import LEVELS, Matching
from shrivenq.stages.messages import BUY, GTC, IOC, LIMIT, MARKET, SELL

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
DECIMALS = 8
"""Binance Spot writes every price and quantity with eight decimals."""
EDGE_LEVELS = 20
"""A side with fewer levels than this is neither taken from nor cancelled in: it never runs empty."""
SNAPSHOT_LEVELS = 1000
ENTRY_BYTES = 48
"""At most, of one price level in JSON: `["`, 19 digits and a dot, `","`, the same again, `"],`."""
FRAME_BYTES = 400
"""At most, of everything in a frame that is not a level."""
MEAN_ORDER_VALUE = 1_000
"""Quote units of an ordinary order."""

# Chances out of 65,536 that the next event of an instrument's flow is …
TAKE_INFORMED = 4_000  # an order from somebody who knows the value, if the touch is wrong enough to pay
TAKE_NOISE = 4_000  # a market order from somebody who does not
CANCEL = 26_000  # a cancel, when as many orders rest as should; in proportion to how many do

# Words (int64).
NOW_NS = 0  # simulated time
ACTIVE = 1  # instrument of the event whose frames are being written
TRADES_WRITTEN = 2  # of the trades of that event
QUOTE_DUE = 3  # 1: the touch changed, a bookTicker has to be written
DEPTH_DUE = 4  # 1: the interval is over, a depth event has to be written

QUANTILES = 4096
FIXED = 16  # fraction bits of quantiles and of values

FLOW = np.dtype(
    [
        ("next_ns", "<i8"),  # simulated time of the next event
        ("depth_ns", "<i8"),  # simulated time of the next depth event
        ("gap_ns", "<i8"),  # mean time between events
        ("depth_gap_ns", "<i8"),
        ("value", "<i8"),  # level, FIXED fraction bits
        ("home", "<i8"),  # level it drifts back to
        ("roam", "<i8"),  # levels it never goes further away than
        ("stride", "<i8"),  # largest move of the value in one event, FIXED fraction bits
        ("spread", "<i8"),  # scale of distances from the touch, levels
        ("lot", "<i8"),  # scale of quantities, steps
        ("step", "<i8"),  # quantity step
        ("target", "<i8"),  # orders that should rest
        ("price_pad", "<i8"),  # zeros written after a price
        ("quantity_pad", "<i8"),
        ("price_decimals", "<i8"),
        ("quantity_decimals", "<i8"),
        ("depth_id", "<i8"),  # last update id already in a depth event
        ("sent_bid", "<i8"),  # touch of the last bookTicker: level and quantity
        ("sent_bid_quantity", "<i8"),
        ("sent_ask", "<i8"),
        ("sent_ask_quantity", "<i8"),
        ("snapshot_due", "<i8"),  # 1: a snapshot has to be written
        ("random", "<i8", (4,)),  # 32 bits in each
    ],
    align=True,
)

# Fixed text, one row per instrument.
TEXT_SNAPSHOT, TEXT_DEPTH, TEXT_TRADE, TEXT_QUOTE, TEXT_SYMBOL, TEXT_KINDS = 0, 1, 2, 3, 4, 5
TEXT_BYTES = 96

# Fixed text, the same for all.
UPDATE = np.frombuffer(b',"U":', np.uint8)
FINAL = np.frombuffer(b',"u":', np.uint8)
BIDS = np.frombuffer(b',"b":[', np.uint8)
ASKS = np.frombuffer(b'],"a":[', np.uint8)
ENTRY = np.frombuffer(b'["', np.uint8)
BETWEEN = np.frombuffer(b'","', np.uint8)
ENTRY_END = np.frombuffer(b'"],', np.uint8)
DEPTH_END = np.frombuffer(b"]}}", np.uint8)
SNAPSHOT_BIDS = np.frombuffer(b',"bids":[', np.uint8)
SNAPSHOT_ASKS = np.frombuffer(b'],"asks":[', np.uint8)
TRADE_ID = np.frombuffer(b',"t":', np.uint8)
TRADE_PRICE = np.frombuffer(b',"p":"', np.uint8)
TRADE_QUANTITY = np.frombuffer(b'","q":"', np.uint8)
TRADE_TIME = np.frombuffer(b'","T":', np.uint8)
MAKER_BOUGHT = np.frombuffer(b',"m":true,"M":true}}', np.uint8)
MAKER_SOLD = np.frombuffer(b',"m":false,"M":true}}', np.uint8)
QUOTE_BID = np.frombuffer(b',"b":"', np.uint8)
QUOTE_BID_QUANTITY = np.frombuffer(b'","B":"', np.uint8)
QUOTE_ASK = np.frombuffer(b'","a":"', np.uint8)
QUOTE_ASK_QUANTITY = np.frombuffer(b'","A":"', np.uint8)
QUOTE_END = np.frombuffer(b'"}}', np.uint8)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[simulated_market]`: the embedded market that needs no network."""

    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 63)] = 1
    """The same seed gives the same market, byte for byte."""
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
    price: dict[str, str]
    """Price at which each simulated instrument begins, in its quote currency."""


class Market(NamedTuple):
    """The simulated market: books, flow, and what is still to be written."""

    core: Matching
    flows: Any  # FLOW, one per instrument
    shown: Any  # int8 per level: the side a depth event last showed it on
    text: Any  # uint8[instruments, TEXT_KINDS, TEXT_BYTES]
    lengths: Any  # int64[instruments, TEXT_KINDS]
    quantiles: Any  # int64: quantiles of the exponential distribution, FIXED fraction bits
    words: Any  # int64


def make_market(instruments: Any, config: Config) -> Market:
    """Build the books of `instruments` (INSTRUMENT rows), full of orders, at `config.start_ns`.

    Raises ValueError for an instrument that has no price in the config, is a futures contract, or whose price is too
    close to zero for its tick.
    """
    count = len(instruments)
    flows = np.zeros(count, FLOW)
    text = np.zeros((count, TEXT_KINDS, TEXT_BYTES), np.uint8)
    lengths = np.zeros((count, TEXT_KINDS), np.int64)
    bases, ticks = [], []
    for row, instrument in enumerate(instruments):
        home, base = _home(instrument, config)
        bases.append(base)
        ticks.append(int(instrument["tick"]))
        _set_flow(flows[row], instrument, config, home, base)
        flows[row]["random"] = np.random.SeedSequence([config.seed, row]).generate_state(4, np.uint32)
        _set_text(text[row], lengths[row], instrument["symbol"].decode())
    slots = 2 * config.resting_orders
    core = matching.make_matching(bases, ticks, slots)
    # Ids of a venue that has been open for years, different for each instrument.
    core.ladders["update_id"] = 50_000_000_000 + 1_000_000_000 * np.arange(count)
    core.ladders["trade_id"] = 3_700_000_000 + 100_000_000 * np.arange(count)
    exact = [round(-math.log1p(-(i + 0.5) / QUANTILES) * (1 << FIXED)) for i in range(QUANTILES)]
    market = Market(
        core,
        flows,
        np.zeros(count * LEVELS, np.int8),
        text,
        lengths,
        np.array(exact, np.int64),
        np.zeros(8, np.int64),
    )
    market.words[NOW_NS] = config.start_ns
    for row in range(count):
        _open(market, row)
    core.words[:] = 0
    return market


def _home(instrument: Any, config: Config) -> tuple[int, int]:
    """Work out the starting price in ticks from the ladder's base, and that base."""
    symbol = instrument["symbol"].decode()
    if symbol not in config.price:
        raise ValueError(f"simulated market: no price for {symbol}")
    if instrument["futures"] or max(instrument["price_decimals"], instrument["quantity_decimals"]) > DECIMALS:
        raise ValueError(f"simulated market: {symbol} is not a spot instrument of at most {DECIMALS} decimals")
    tick = int(instrument["tick"])
    price = int(Decimal(config.price[symbol]) * 10 ** int(instrument["price_decimals"])) // tick
    if price < 1_000:
        raise ValueError(f"simulated market: {symbol} at {config.price[symbol]} is less than 1,000 ticks")
    lowest = max(1, price - LEVELS // 2)
    return price - lowest, lowest * tick


def _set_flow(flow: Any, instrument: Any, config: Config, home: int, base: int) -> None:
    """Translate rates and basis points into the integers of one instrument's flow."""
    tick, step = int(instrument["tick"]), int(instrument["step"])
    price = home + base // tick
    quote = price * tick / 10 ** int(instrument["price_decimals"])
    lot = MEAN_ORDER_VALUE / quote * 10 ** int(instrument["quantity_decimals"]) / step
    # A move is uniform, so its largest is √3 standard deviations.
    stride = math.sqrt(3 / config.events_per_s) * price * config.volatility_bps / 10_000
    flow["gap_ns"] = NS_PER_S // config.events_per_s
    flow["depth_gap_ns"] = config.depth_ms * NS_PER_MS
    flow["next_ns"] = config.start_ns
    flow["depth_ns"] = config.start_ns + config.depth_ms * NS_PER_MS
    flow["value"], flow["home"] = home << FIXED, home
    flow["roam"] = min(home, LEVELS // 2) // 2
    flow["stride"] = round(stride * (1 << FIXED))
    # The mean of a squared exponential is 2.
    flow["spread"] = max(3, round(price * config.spread_bps / 10_000 / 2))
    flow["lot"] = max(1, round(lot / 2))
    flow["step"] = step
    flow["target"] = config.resting_orders
    flow["price_decimals"] = instrument["price_decimals"]
    flow["quantity_decimals"] = instrument["quantity_decimals"]
    flow["price_pad"] = DECIMALS - int(instrument["price_decimals"])
    flow["quantity_pad"] = DECIMALS - int(instrument["quantity_decimals"])
    flow["snapshot_due"] = 1


def _set_text(text: Any, lengths: Any, symbol: str) -> None:
    """Write the beginnings of an instrument's frames."""
    stream = f'{{"stream":"{symbol.lower()}@'
    for kind, line in (
        (TEXT_SNAPSHOT, stream + 'snapshot","data":{"lastUpdateId":'),
        (TEXT_DEPTH, stream + 'depth@100ms","data":{"e":"depthUpdate","E":'),
        (TEXT_TRADE, stream + 'trade","data":{"e":"trade","E":'),
        (TEXT_QUOTE, stream + 'bookTicker","data":{"u":'),
        (TEXT_SYMBOL, f',"s":"{symbol}"'),
    ):
        lengths[kind] = len(line)
        text[kind, : len(line)] = np.frombuffer(line.encode(), np.uint8)


# ── the flow ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
def _exponential(market: Market, instrument: int) -> int:
    """Draw from the exponential distribution of mean 1, FIXED fraction bits."""
    return market.quantiles[random_bits(market.flows[instrument]["random"]) & (QUANTILES - 1)]


@kernel
def _squared(market: Market, instrument: int, scale: int) -> int:
    """Draw `scale` times the square of an exponential: many small, a few large."""
    drawn = _exponential(market, instrument)
    return (drawn * drawn >> FIXED) * scale >> FIXED


@kernel
def _wander(market: Market, instrument: int) -> None:
    """Move the value by one step of a random walk that drifts home and never roams too far."""
    flow = market.flows[instrument]
    drawn = random_bits(flow["random"]) - (1 << 31)
    home, roam = flow["home"] << FIXED, flow["roam"] << FIXED
    value = flow["value"] + (drawn * (flow["stride"] >> 4) >> 27) - ((flow["value"] - home) >> 20)
    flow["value"] = min(max(value, home - roam), home + roam)


@kernel
def _place_limit(market: Market, instrument: int) -> None:
    """Rest an order behind the touch and behind the value, mostly near."""
    flow, ladder = market.flows[instrument], market.core.ladders[instrument]
    value = flow["value"] >> FIXED
    distance = _squared(market, instrument, flow["spread"])
    quantity = flow["step"] * (1 + _squared(market, instrument, flow["lot"]))
    if random_bits(flow["random"]) & 1:
        side, level = BUY, max(min(ladder["best_ask"] - 1, value) - distance, 0)
    else:
        side, level = SELL, min(max(ladder["best_bid"] + 1, value + 1) + distance, LEVELS - 1)
    price = matching.price_of(market.core, instrument, level)
    matching.place(market.core, instrument, side, LIMIT, GTC, price, quantity, 0)


@kernel
def _cancel_any(market: Market, instrument: int) -> None:
    """Cancel a random order, unless its side is thin."""
    slots = market.core.orders.shape[0] // market.flows.shape[0]
    ladder = market.core.ladders[instrument]
    # About half the slots are taken: eight tries hardly ever fail.
    for _ in range(8):
        slot = instrument * slots + random_bits(market.flows[instrument]["random"]) % slots
        if market.core.orders[slot]["leaves"] != 0:
            levels = ladder["bid_levels"] if market.core.orders[slot]["side"] == BUY else ladder["ask_levels"]
            if levels > EDGE_LEVELS:
                matching.cancel(market.core, market.core.orders[slot]["handle"])
            return


@kernel
def _take(market: Market, instrument: int, informed: bool) -> None:
    """Take from the touch: up to the value for those who know it, one small market order for the others."""
    flow, ladder = market.flows[instrument], market.core.ladders[instrument]
    value = flow["value"] >> FIXED
    quantity = flow["step"] * (1 + _squared(market, instrument, flow["lot"]))
    side = BUY if random_bits(flow["random"]) & 1 else SELL
    order_type, price = MARKET, 0
    if informed:
        if ladder["best_ask"] < value:
            side = BUY
        elif ladder["best_bid"] > value:
            side = SELL
        else:
            return
        order_type, quantity = LIMIT, quantity * 16
        price = matching.price_of(market.core, instrument, value)
    levels = ladder["ask_levels"] if side == BUY else ladder["bid_levels"]
    if levels > EDGE_LEVELS:
        matching.place(market.core, instrument, side, order_type, IOC, price, quantity, 0)


@kernel
def _act(market: Market, instrument: int) -> None:
    """Let one thing happen in an instrument, and note what has to be written about it."""
    flow, ladder = market.flows[instrument], market.core.ladders[instrument]
    market.core.words[matching.TRADES] = 0
    _wander(market, instrument)
    roll = random_bits(flow["random"]) >> 16
    thin = min(ladder["bid_levels"], ladder["ask_levels"]) <= EDGE_LEVELS
    if thin or roll >= TAKE_INFORMED + TAKE_NOISE + CANCEL * ladder["resting"] // flow["target"]:
        _place_limit(market, instrument)
    elif roll < TAKE_INFORMED:
        _take(market, instrument, True)
    elif roll < TAKE_INFORMED + TAKE_NOISE:
        _take(market, instrument, False)
    else:
        _cancel_any(market, instrument)
    market.words[ACTIVE] = instrument
    market.words[TRADES_WRITTEN] = 0
    market.words[QUOTE_DUE] = _touch_changed(market, instrument)
    flow["next_ns"] += 1 + (flow["gap_ns"] * _exponential(market, instrument) >> FIXED)


@kernel
def _touch_changed(market: Market, instrument: int) -> int:
    """Compare the touch with what the last bookTicker said, and remember it; return 1 if it differs."""
    flow, ladder = market.flows[instrument], market.core.ladders[instrument]
    bid, ask = ladder["best_bid"], ladder["best_ask"]
    bid_quantity = market.core.levels[instrument * LEVELS + bid]["quantity"]
    ask_quantity = market.core.levels[instrument * LEVELS + ask]["quantity"]
    same = bid == flow["sent_bid"] and ask == flow["sent_ask"]
    if same and bid_quantity == flow["sent_bid_quantity"] and ask_quantity == flow["sent_ask_quantity"]:
        return 0
    flow["sent_bid"], flow["sent_bid_quantity"] = bid, bid_quantity
    flow["sent_ask"], flow["sent_ask_quantity"] = ask, ask_quantity
    return 1


@kernel
def _open(market: Market, instrument: int) -> None:
    """Fill an empty book with orders, before anybody watches."""
    for _ in range(market.flows[instrument]["target"]):
        _place_limit(market, instrument)
    for level in range(LEVELS):
        market.shown[instrument * LEVELS + level] = matching.side_of(market.core, instrument, level)
    matching.clear_changed(market.core, instrument)
    market.flows[instrument]["depth_id"] = market.core.ladders[instrument]["update_id"]


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _put(data: Any, at: int, text: Any) -> int:
    """Write fixed text; return where the next byte goes."""
    for position in range(text.shape[0]):
        data[at + position] = text[position]
    return at + text.shape[0]


@kernel
def _put_own(market: Market, data: Any, at: int, instrument: int, kind: int) -> int:
    """Write a fixed text of the instrument."""
    length = market.lengths[instrument, kind]
    for position in range(length):
        data[at + position] = market.text[instrument, kind, position]
    return at + length


@kernel
def _put_integer(data: Any, at: int, number: int) -> int:
    """Write a number that is not negative."""
    digits = 1
    rest = number // 10
    while rest != 0:
        digits += 1
        rest //= 10
    for position in range(digits):
        data[at + digits - 1 - position] = 48 + number % 10
        number //= 10
    return at + digits


@kernel
def _put_decimal(data: Any, at: int, number: int, decimals: int, pad: int) -> int:
    """Write `number` / 10^`decimals`, with `pad` zeros more."""
    unit = 1
    for _ in range(decimals):
        unit *= 10
    at = _put_integer(data, at, number // unit)
    data[at] = 46
    fraction = number % unit
    for position in range(decimals):
        data[at + decimals - position] = 48 + fraction % 10
        fraction //= 10
    at += 1 + decimals
    for position in range(pad):
        data[at + position] = 48
    return at + pad


@kernel
def _put_price(market: Market, data: Any, at: int, instrument: int, level: int) -> int:
    flow = market.flows[instrument]
    price = matching.price_of(market.core, instrument, level)
    return _put_decimal(data, at, price, flow["price_decimals"], flow["price_pad"])


@kernel
def _put_quantity(market: Market, data: Any, at: int, instrument: int, quantity: int) -> int:
    flow = market.flows[instrument]
    return _put_decimal(data, at, quantity, flow["quantity_decimals"], flow["quantity_pad"])


@kernel
def _put_level(market: Market, data: Any, at: int, instrument: int, level: int, quantity: int) -> int:
    """Write `["price","quantity"],`."""
    at = _put(data, at, ENTRY)
    at = _put_price(market, data, at, instrument, level)
    at = _put(data, at, BETWEEN)
    at = _put_quantity(market, data, at, instrument, quantity)
    return _put(data, at, ENTRY_END)


@kernel
def _begin(market: Market, frames: Frames, size: int) -> int:
    """Find where a frame of at most `size` bytes can be written, -1 if it does not fit."""
    full = frames.words[COUNT] == frames.index.shape[0] or frames.words[USED] + size > frames.data.shape[0]
    return -1 if full else frames.words[USED]


@kernel
def _finish(market: Market, frames: Frames, end: int) -> None:
    """Enter the frame that ends before `end` into the index."""
    row = frames.words[COUNT]
    frames.index[row]["time_ns"] = market.words[NOW_NS]
    frames.index[row]["wire_ns"] = 0
    frames.index[row]["offset"] = frames.words[USED]
    frames.index[row]["length"] = end - frames.words[USED]
    frames.index[row]["flags"] = TEXT
    frames.words[USED] = end
    frames.words[COUNT] = row + 1


@kernel
def _write_trade(market: Market, frames: Frames, instrument: int, position: int) -> bool:
    """Write one `@trade`; False if it does not fit."""
    at = _begin(market, frames, FRAME_BYTES)
    if at < 0:
        return False
    data, trade = frames.data, market.core.trades[position]
    flow = market.flows[instrument]
    at = _put_own(market, data, at, instrument, TEXT_TRADE)
    at = _put_integer(data, at, market.words[NOW_NS] // NS_PER_MS)
    at = _put_own(market, data, at, instrument, TEXT_SYMBOL)
    at = _put(data, at, TRADE_ID)
    at = _put_integer(data, at, trade["trade_id"])
    at = _put(data, at, TRADE_PRICE)
    at = _put_decimal(data, at, trade["price"], flow["price_decimals"], flow["price_pad"])
    at = _put(data, at, TRADE_QUANTITY)
    at = _put_quantity(market, data, at, instrument, trade["quantity"])
    at = _put(data, at, TRADE_TIME)
    at = _put_integer(data, at, market.words[NOW_NS] // NS_PER_MS)
    at = _put(data, at, MAKER_BOUGHT if trade["side"] == SELL else MAKER_SOLD)
    _finish(market, frames, at)
    return True


@kernel
def _write_quote(market: Market, frames: Frames, instrument: int) -> bool:
    """Write one `@bookTicker`; False if it does not fit."""
    at = _begin(market, frames, FRAME_BYTES)
    if at < 0:
        return False
    data, flow = frames.data, market.flows[instrument]
    at = _put_own(market, data, at, instrument, TEXT_QUOTE)
    at = _put_integer(data, at, market.core.ladders[instrument]["update_id"])
    at = _put_own(market, data, at, instrument, TEXT_SYMBOL)
    at = _put(data, at, QUOTE_BID)
    at = _put_price(market, data, at, instrument, flow["sent_bid"])
    at = _put(data, at, QUOTE_BID_QUANTITY)
    at = _put_quantity(market, data, at, instrument, flow["sent_bid_quantity"])
    at = _put(data, at, QUOTE_ASK)
    at = _put_price(market, data, at, instrument, flow["sent_ask"])
    at = _put(data, at, QUOTE_ASK_QUANTITY)
    at = _put_quantity(market, data, at, instrument, flow["sent_ask_quantity"])
    at = _put(data, at, QUOTE_END)
    _finish(market, frames, at)
    return True


@kernel
def _sort(values: Any, first: int, count: int) -> None:
    """Sort `count` integers from `first` on, in place (Shell's sort, gaps of Knuth)."""
    gap = 1
    while gap < count:
        gap = 3 * gap + 1
    while gap > 0:
        for position in range(first + gap, first + count):
            value = values[position]
            hole = position
            while hole - gap >= first and values[hole - gap] > value:
                values[hole] = values[hole - gap]
                hole -= gap
            values[hole] = value
        gap //= 3


@kernel
def _put_change(market: Market, data: Any, at: int, instrument: int, side: int, level: int) -> int:
    """Write a changed level as `side` sees it: its quantity, 0 if it was there and is gone, nothing otherwise."""
    now = matching.side_of(market.core, instrument, level)
    row = instrument * LEVELS + level
    if now == side:
        return _put_level(market, data, at, instrument, level, market.core.levels[row]["quantity"])
    if market.shown[row] == side:
        return _put_level(market, data, at, instrument, level, 0)
    return at


@kernel
def _write_depth(market: Market, frames: Frames, instrument: int) -> bool:
    """Write one `@depth` with what changed since the last, best prices first; False if it does not fit."""
    core, data = market.core, frames.data
    count = core.ladders[instrument]["changed"]
    # A level that changed sides is written on both.
    at = _begin(market, frames, FRAME_BYTES + 2 * count * ENTRY_BYTES)
    if at < 0:
        return False
    flow = market.flows[instrument]
    last_id = core.ladders[instrument]["update_id"]
    first = instrument * LEVELS
    _sort(core.changed, first, count)
    at = _put_own(market, data, at, instrument, TEXT_DEPTH)
    at = _put_integer(data, at, market.words[NOW_NS] // NS_PER_MS)
    at = _put_own(market, data, at, instrument, TEXT_SYMBOL)
    at = _put(data, at, UPDATE)
    at = _put_integer(data, at, flow["depth_id"] + 1)
    at = _put(data, at, FINAL)
    at = _put_integer(data, at, last_id)
    empty = at = _put(data, at, BIDS)
    for position in range(first + count - 1, first - 1, -1):
        at = _put_change(market, data, at, instrument, BUY, core.changed[position])
    at = _put(data, at if at == empty else at - 1, ASKS)
    empty = at
    for position in range(first, first + count):
        at = _put_change(market, data, at, instrument, SELL, core.changed[position])
    at = _put(data, at if at == empty else at - 1, DEPTH_END)
    for position in range(first, first + count):
        level = core.changed[position]
        market.shown[first + level] = matching.side_of(core, instrument, level)
    matching.clear_changed(core, instrument)
    flow["depth_id"] = last_id
    _finish(market, frames, at)
    return True


@kernel
def _write_snapshot(market: Market, frames: Frames, instrument: int) -> bool:
    """Write the whole book, at most SNAPSHOT_LEVELS a side; False if it does not fit."""
    core, data = market.core, frames.data
    ladder = core.ladders[instrument]
    count = min(ladder["bid_levels"], SNAPSHOT_LEVELS) + min(ladder["ask_levels"], SNAPSHOT_LEVELS)
    at = _begin(market, frames, FRAME_BYTES + count * ENTRY_BYTES)
    if at < 0:
        return False
    first = instrument * LEVELS
    at = _put_own(market, data, at, instrument, TEXT_SNAPSHOT)
    at = _put_integer(data, at, ladder["update_id"])
    at = _put(data, at, SNAPSHOT_BIDS)
    level = ladder["best_bid"]
    for _ in range(min(ladder["bid_levels"], SNAPSHOT_LEVELS)):
        at = _put_level(market, data, at, instrument, level, core.levels[first + level]["quantity"])
        level = matching.occupied_below(core, instrument, level - 1)
    at = _put(data, at - 1, SNAPSHOT_ASKS)
    level = ladder["best_ask"]
    for _ in range(min(ladder["ask_levels"], SNAPSHOT_LEVELS)):
        at = _put_level(market, data, at, instrument, level, core.levels[first + level]["quantity"])
        level = matching.occupied_above(core, instrument, level + 1)
    at = _put(data, at - 1, DEPTH_END)
    _finish(market, frames, at)
    return True


# ── filling frames ───────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _write_due(market: Market, frames: Frames) -> bool:
    """Write whatever is due; False if something did not fit and stays due."""
    words = market.words
    for instrument in range(market.flows.shape[0]):
        if market.flows[instrument]["snapshot_due"] != 0:
            if not _write_snapshot(market, frames, instrument):
                return False
            market.flows[instrument]["snapshot_due"] = 0
    while words[TRADES_WRITTEN] < market.core.words[matching.TRADES]:
        if not _write_trade(market, frames, words[ACTIVE], words[TRADES_WRITTEN]):
            return False
        words[TRADES_WRITTEN] += 1
    if words[QUOTE_DUE] != 0:
        if not _write_quote(market, frames, words[ACTIVE]):
            return False
        words[QUOTE_DUE] = 0
    if words[DEPTH_DUE] != 0:
        if not _write_depth(market, frames, words[ACTIVE]):
            return False
        words[DEPTH_DUE] = 0
    return True


@kernel
def _advance(market: Market, until_ns: int) -> bool:
    """Let the next thing happen if it is due by `until_ns`; at one instant depth events come before the flow."""
    flows = market.flows
    first, depth = 0, False
    time_ns = flows[0]["next_ns"] + 1
    for instrument in range(flows.shape[0]):
        if flows[instrument]["next_ns"] < time_ns:
            first, depth, time_ns = instrument, False, flows[instrument]["next_ns"]
        if flows[instrument]["depth_ns"] <= time_ns and not (depth and flows[instrument]["depth_ns"] == time_ns):
            first, depth, time_ns = instrument, True, flows[instrument]["depth_ns"]
    if time_ns > until_ns:
        return False
    market.words[NOW_NS] = time_ns
    if not depth:
        _act(market, first)
        return True
    flows[first]["depth_ns"] += flows[first]["depth_gap_ns"]
    market.words[ACTIVE] = first
    market.words[TRADES_WRITTEN] = market.core.words[matching.TRADES]
    market.words[DEPTH_DUE] = 1 if market.core.ladders[first]["changed"] != 0 else 0
    return True


@kernel
def request_snapshot(market: Market, instrument: int) -> None:
    """Have the next `fill` begin with a fresh snapshot of an instrument, as a REST request would bring one."""
    market.flows[instrument]["snapshot_due"] = 1


@kernel
def fill(market: Market, frames: Frames, until_ns: int) -> int:
    """Advance simulated time to `until_ns` (ns since 1970), or until `frames` is full; return the frames added.

    Begins the buffer anew when every frame in it was taken. Returns -1 if a frame is larger than the whole buffer.
    """
    if frames.words[TAKEN] == frames.words[COUNT]:
        frames.words[TAKEN] = frames.words[COUNT] = frames.words[USED] = 0
    before = frames.words[COUNT]
    while _write_due(market, frames):
        if not _advance(market, until_ns):
            market.words[NOW_NS] = max(market.words[NOW_NS], until_ns)
            return frames.words[COUNT] - before
    return frames.words[COUNT] - before if frames.words[COUNT] != 0 else -1
