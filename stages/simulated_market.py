"""Simulated market: order flow → the text Binance Spot would send.

No network and no files. What leaves is raw JSON in the combined form, in a `Frames`: one snapshot per instrument
first, `@trade` and `@bookTicker` as they happen, `@depth@100ms` at a fixed interval. Ids are consistent as the venue's
are: a depth event's `u` and a bookTicker's `u` count the same changes of levels, without a gap.

A REST snapshot names no symbol, so it comes wrapped: `{"stream":"btcusdt@snapshot","data":{"lastUpdateId":…}}`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching, order_flow
from shrivenq.stages.frames import COUNT, TAKEN, TEXT, USED, Frames
from shrivenq.stages.matching import LEVELS
from shrivenq.stages.messages import BUY, SELL
from shrivenq.stages.order_flow import Config, OrderFlow
from shrivenq.stages.venues.text import put

__all__ = ["Config", "Market", "SimulatedMarket", "fill", "make_market", "request_snapshot"]

NS_PER_MS = 1_000_000
DECIMALS = 8
"""Binance Spot writes every price and quantity with eight decimals."""
SNAPSHOT_LEVELS = 1000
ENTRY_BYTES = 48
"""At most, of one price level in JSON: `["`, 19 digits and a dot, `","`, the same again, `"],`."""
FRAME_BYTES = 400
"""At most, of everything in a frame that is not a level."""
NEVER = (1 << 63) - 1
AHEAD_NS = 50 * NS_PER_MS
"""A live market is simulated this far ahead of the clock; the stage releases each frame at its own time."""

# Words (int64).
NOW_NS = 0  # simulated time
ACTIVE = 1  # instrument of the event whose frames are being written
TRADES_WRITTEN = 2  # of the trades of that event
QUOTE_DUE = 3  # 1: the touch changed, a bookTicker has to be written
DEPTH_DUE = 4  # 1: the interval is over, a depth event has to be written

FEED = np.dtype(
    [
        ("depth_ns", "<i8"),  # simulated time of the next depth event
        ("depth_gap_ns", "<i8"),
        ("depth_id", "<i8"),  # last update id already in a depth event
        ("price_unit", "<i8"),  # 10 ** price_decimals
        ("price_scale", "<i8"),  # 10 ** (DECIMALS − price_decimals)
        ("quantity_unit", "<i8"),
        ("quantity_scale", "<i8"),
        ("sent_bid", "<i8"),  # touch of the last bookTicker: level and quantity
        ("sent_bid_quantity", "<i8"),
        ("sent_ask", "<i8"),
        ("sent_ask_quantity", "<i8"),
        ("snapshot_due", "<i8"),  # 1: a snapshot has to be written
        ("length", "<i8"),  # of the symbol
        ("stream", "u1", (16,)),  # the symbol in lower case
        ("symbol", "u1", (16,)),  # in upper case
    ],
    align=True,
)


@by_reference
class Market(NamedTuple):
    """The simulated market: order flow, and what is still to be written."""

    flow: OrderFlow
    feeds: Any  # FEED, one per instrument
    shown: Any  # int8 per level: the side a depth event last showed it on
    words: Any  # int64


def make_market(instruments: Any, config: Config, seed: int) -> Market:
    """Build the market of `instruments` (INSTRUMENT rows) at `config.start_ns`.

    The same `seed` gives the same bytes. Raises ValueError for an instrument that is no spot instrument of at most
    DECIMALS decimals, or for a bad price.
    """
    count = len(instruments)
    feeds = np.zeros(count, FEED)
    for row, instrument in enumerate(instruments):
        symbol = instrument["symbol"].decode()
        decimals = int(instrument["price_decimals"]), int(instrument["quantity_decimals"])
        if instrument["futures"] or max(decimals) > DECIMALS:
            raise ValueError(f"simulated market: {symbol} is not a spot instrument of at most {DECIMALS} decimals")
        feed = feeds[row]
        feed["depth_gap_ns"] = config.depth_ms * NS_PER_MS
        feed["depth_ns"] = config.start_ns + config.depth_ms * NS_PER_MS
        feed["price_unit"], feed["price_scale"] = 10 ** decimals[0], 10 ** (DECIMALS - decimals[0])
        feed["quantity_unit"], feed["quantity_scale"] = 10 ** decimals[1], 10 ** (DECIMALS - decimals[1])
        feed["snapshot_due"] = 1
        feed["length"] = len(symbol)
        feed["stream"][: len(symbol)] = np.frombuffer(symbol.lower().encode(), np.uint8)
        feed["symbol"][: len(symbol)] = np.frombuffer(symbol.encode(), np.uint8)
    flow = order_flow.make_flow(instruments, config, seed)
    # Ids of a venue that has been open for years, different for each instrument.
    flow.core.ladders["update_id"] = 50_000_000_000 + 1_000_000_000 * np.arange(count)
    flow.core.ladders["trade_id"] = 3_700_000_000 + 100_000_000 * np.arange(count)
    feeds["depth_id"] = flow.core.ladders["update_id"]
    market = Market(flow, feeds, np.zeros(count * LEVELS, np.int8), np.zeros(8, np.int64))
    market.words[NOW_NS] = config.start_ns
    for row in range(count):
        _show_all(market, row)
    return market


@kernel
def _show_all(market: Market, instrument: int) -> None:
    """Note every level as shown on its side: the first snapshot tells them."""
    for level in range(LEVELS):
        market.shown[instrument * LEVELS + level] = matching.side_of(market.flow.core, instrument, level)


@kernel
def _touch_changed(market: Market, instrument: int) -> int:
    """Compare the touch with what the last bookTicker said, and remember it; return 1 if it differs."""
    feed, ladder = market.feeds[instrument], market.flow.core.ladders[instrument]
    bid, ask = ladder["best_bid"], ladder["best_ask"]
    bid_quantity = market.flow.core.levels[instrument * LEVELS + bid]["quantity"]
    ask_quantity = market.flow.core.levels[instrument * LEVELS + ask]["quantity"]
    same = bid == feed["sent_bid"] and ask == feed["sent_ask"]
    if same and bid_quantity == feed["sent_bid_quantity"] and ask_quantity == feed["sent_ask_quantity"]:
        return 0
    feed["sent_bid"], feed["sent_bid_quantity"] = bid, bid_quantity
    feed["sent_ask"], feed["sent_ask_quantity"] = ask, ask_quantity
    return 1


# ── text ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _begin(frames: Frames, size: int) -> int:
    """Find where a frame of at most `size` bytes can be written, -1 if it does not fit."""
    full = frames.words[COUNT] == frames.index.shape[0] or frames.words[USED] + size > frames.data.shape[0]
    return -1 if full else frames.words[USED]


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
def _put_decimal(data: Any, at: int, number: int, unit: int, scale: int) -> int:
    """Write `number` / `unit` with all DECIMALS decimals; `scale` is 10 ** DECIMALS / `unit`."""
    at = _put_integer(data, at, number // unit)
    data[at] = 46
    fraction = number % unit * scale
    for position in range(DECIMALS, 0, -1):
        data[at + position] = 48 + fraction % 10
        fraction //= 10
    return at + 1 + DECIMALS


@kernel
def _put_name(data: Any, at: int, name: Any, length: int) -> int:
    """Write a symbol."""
    for position in range(length):
        data[at + position] = name[position]
    return at + length


@kernel
def _put_stream(market: Market, data: Any, at: int, instrument: int) -> int:
    """Write the beginning of every frame, up to the `@` of the stream's name."""
    feed = market.feeds[instrument]
    at = put(data, at, '{"stream":"')
    return _put_name(data, at, feed["stream"], feed["length"])


@kernel
def _put_symbol(market: Market, data: Any, at: int, instrument: int) -> int:
    """Write `,"s":"BTCUSDT"`."""
    feed = market.feeds[instrument]
    at = put(data, at, ',"s":"')
    at = _put_name(data, at, feed["symbol"], feed["length"])
    return put(data, at, '"')


@kernel
def _put_price(market: Market, data: Any, at: int, instrument: int, level: int) -> int:
    feed = market.feeds[instrument]
    price = matching.price_of(market.flow.core, instrument, level)
    return _put_decimal(data, at, price, feed["price_unit"], feed["price_scale"])


@kernel
def _put_quantity(market: Market, data: Any, at: int, instrument: int, quantity: int) -> int:
    feed = market.feeds[instrument]
    return _put_decimal(data, at, quantity, feed["quantity_unit"], feed["quantity_scale"])


@kernel
def _put_level(market: Market, data: Any, at: int, instrument: int, level: int, quantity: int) -> int:
    """Write `["price","quantity"],`."""
    at = put(data, at, '["')
    at = _put_price(market, data, at, instrument, level)
    at = put(data, at, '","')
    at = _put_quantity(market, data, at, instrument, quantity)
    return put(data, at, '"],')


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
    at = _begin(frames, FRAME_BYTES)
    if at < 0:
        return False
    data, trade = frames.data, market.flow.core.trades[position]
    feed = market.feeds[instrument]
    at = _put_stream(market, data, at, instrument)
    at = put(data, at, '@trade","data":{"e":"trade","E":')
    at = _put_integer(data, at, market.words[NOW_NS] // NS_PER_MS)
    at = _put_symbol(market, data, at, instrument)
    at = put(data, at, ',"t":')
    at = _put_integer(data, at, trade["trade_id"])
    at = put(data, at, ',"p":"')
    at = _put_decimal(data, at, trade["price"], feed["price_unit"], feed["price_scale"])
    at = put(data, at, '","q":"')
    at = _put_quantity(market, data, at, instrument, trade["quantity"])
    at = put(data, at, '","T":')
    at = _put_integer(data, at, market.words[NOW_NS] // NS_PER_MS)
    # The buyer was the maker when the aggressor sold.
    at = put(data, at, ',"m":true,"M":true}}') if trade["side"] == SELL else put(data, at, ',"m":false,"M":true}}')
    _finish(market, frames, at)
    return True


@kernel
def _write_quote(market: Market, frames: Frames, instrument: int) -> bool:
    """Write one `@bookTicker`; False if it does not fit."""
    at = _begin(frames, FRAME_BYTES)
    if at < 0:
        return False
    data, feed = frames.data, market.feeds[instrument]
    at = _put_stream(market, data, at, instrument)
    at = put(data, at, '@bookTicker","data":{"u":')
    at = _put_integer(data, at, market.flow.core.ladders[instrument]["update_id"])
    at = _put_symbol(market, data, at, instrument)
    at = put(data, at, ',"b":"')
    at = _put_price(market, data, at, instrument, feed["sent_bid"])
    at = put(data, at, '","B":"')
    at = _put_quantity(market, data, at, instrument, feed["sent_bid_quantity"])
    at = put(data, at, '","a":"')
    at = _put_price(market, data, at, instrument, feed["sent_ask"])
    at = put(data, at, '","A":"')
    at = _put_quantity(market, data, at, instrument, feed["sent_ask_quantity"])
    at = put(data, at, '"}}')
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
    now = matching.side_of(market.flow.core, instrument, level)
    row = instrument * LEVELS + level
    if now == side:
        return _put_level(market, data, at, instrument, level, market.flow.core.levels[row]["quantity"])
    if market.shown[row] == side:
        return _put_level(market, data, at, instrument, level, 0)
    return at


@kernel
def _write_depth(market: Market, frames: Frames, instrument: int) -> bool:
    """Write one `@depth` with what changed since the last, best prices first; False if it does not fit."""
    core, data = market.flow.core, frames.data
    count = core.ladders[instrument]["changed"]
    # A level that changed sides is written on both.
    at = _begin(frames, FRAME_BYTES + 2 * count * ENTRY_BYTES)
    if at < 0:
        return False
    feed = market.feeds[instrument]
    last_id = core.ladders[instrument]["update_id"]
    first = instrument * LEVELS
    _sort(core.changed, first, count)
    at = _put_stream(market, data, at, instrument)
    at = put(data, at, '@depth@100ms","data":{"e":"depthUpdate","E":')
    at = _put_integer(data, at, market.words[NOW_NS] // NS_PER_MS)
    at = _put_symbol(market, data, at, instrument)
    at = put(data, at, ',"U":')
    at = _put_integer(data, at, feed["depth_id"] + 1)
    at = put(data, at, ',"u":')
    at = _put_integer(data, at, last_id)
    empty = at = put(data, at, ',"b":[')
    for position in range(first + count - 1, first - 1, -1):
        at = _put_change(market, data, at, instrument, BUY, core.changed[position])
    at = put(data, at if at == empty else at - 1, '],"a":[')
    empty = at
    for position in range(first, first + count):
        at = _put_change(market, data, at, instrument, SELL, core.changed[position])
    at = put(data, at if at == empty else at - 1, "]}}")
    for position in range(first, first + count):
        level = core.changed[position]
        market.shown[first + level] = matching.side_of(core, instrument, level)
    matching.clear_changed(core, instrument)
    feed["depth_id"] = last_id
    _finish(market, frames, at)
    return True


@kernel
def _write_snapshot(market: Market, frames: Frames, instrument: int) -> bool:
    """Write the whole book, at most SNAPSHOT_LEVELS a side; False if it does not fit."""
    core, data = market.flow.core, frames.data
    ladder = core.ladders[instrument]
    count = min(ladder["bid_levels"], SNAPSHOT_LEVELS) + min(ladder["ask_levels"], SNAPSHOT_LEVELS)
    at = _begin(frames, FRAME_BYTES + count * ENTRY_BYTES)
    if at < 0:
        return False
    first = instrument * LEVELS
    at = _put_stream(market, data, at, instrument)
    at = put(data, at, '@snapshot","data":{"lastUpdateId":')
    at = _put_integer(data, at, ladder["update_id"])
    at = put(data, at, ',"bids":[')
    level = ladder["best_bid"]
    for _ in range(min(ladder["bid_levels"], SNAPSHOT_LEVELS)):
        at = _put_level(market, data, at, instrument, level, core.levels[first + level]["quantity"])
        level = matching.occupied_below(core, instrument, level - 1)
    at = put(data, at - 1, '],"asks":[')
    level = ladder["best_ask"]
    for _ in range(min(ladder["ask_levels"], SNAPSHOT_LEVELS)):
        at = _put_level(market, data, at, instrument, level, core.levels[first + level]["quantity"])
        level = matching.occupied_above(core, instrument, level + 1)
    at = put(data, at - 1, "]}}")
    _finish(market, frames, at)
    return True


# ── filling frames ───────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _write_due(market: Market, frames: Frames) -> bool:
    """Write whatever is due; False if something did not fit and stays due."""
    words = market.words
    for instrument in range(market.feeds.shape[0]):
        if market.feeds[instrument]["snapshot_due"] != 0:
            if not _write_snapshot(market, frames, instrument):
                return False
            market.feeds[instrument]["snapshot_due"] = 0
    while words[TRADES_WRITTEN] < market.flow.core.words[matching.TRADES]:
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
    flows, feeds, words = market.flow.flows, market.feeds, market.words
    acting, telling = 0, 0
    for instrument in range(1, feeds.shape[0]):
        if flows[instrument]["next_ns"] < flows[acting]["next_ns"]:
            acting = instrument
        if feeds[instrument]["depth_ns"] < feeds[telling]["depth_ns"]:
            telling = instrument
    act_ns, tell_ns = flows[acting]["next_ns"], feeds[telling]["depth_ns"]
    if min(act_ns, tell_ns) > until_ns:
        return False
    words[NOW_NS] = min(act_ns, tell_ns)
    words[TRADES_WRITTEN] = 0
    if tell_ns <= act_ns:
        market.flow.core.words[matching.TRADES] = 0
        feeds[telling]["depth_ns"] += feeds[telling]["depth_gap_ns"]
        words[ACTIVE] = telling
        words[DEPTH_DUE] = 1 if market.flow.core.ladders[telling]["changed"] != 0 else 0
        return True
    order_flow.act(market.flow, acting)
    words[ACTIVE] = acting
    words[QUOTE_DUE] = _touch_changed(market, acting)
    return True


@kernel
def request_snapshot(market: Market, instrument: int) -> None:
    """Have the next `fill` begin with a fresh snapshot of an instrument, as a REST request would bring one."""
    market.feeds[instrument]["snapshot_due"] = 1


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


class SimulatedMarket:
    """The simulated market as a source of frames for the market_data stage."""

    eager = True
    damage = ""

    def __init__(self, instruments: Any, seed: int, *, offset_ns: int | None, config: Config | None = None) -> None:
        """Make the market; `offset_ns` None is virtual time, as fast as frames are taken, from `config.start_ns`.

        Otherwise it begins now and runs with the clock, CLOCK_MONOTONIC + `offset_ns`. Raises ValueError.
        """
        config = config or Config()
        self.offset_ns = offset_ns
        if offset_ns is not None:
            config = msgspec.structs.replace(config, start_ns=clock_ns() + offset_ns)
        self.market = make_market(instruments, config, seed)
        # It is due as it is: this loads the machine code now, and not in the middle of a run.
        self.request_snapshot(0)

    def fill(self, frames: Frames) -> None:
        """Put the next frames into the buffer, from its beginning."""
        until_ns = NEVER if self.offset_ns is None else clock_ns() + self.offset_ns + AHEAD_NS
        fill(self.market, frames, until_ns)

    def request_snapshot(self, instrument: int) -> None:
        """Bring a fresh snapshot of an instrument with the next frames."""
        request_snapshot(self.market, instrument)


@kernel
def clock_ns() -> int:
    """Read CLOCK_MONOTONIC through the very function the kernels use."""
    return monotonic_ns()
