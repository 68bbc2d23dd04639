"""What one frame costs from text to integers, beside the fastest JSON parsers Python has.

Real captured frames, each once a round, all markets together:

- depth_level: every depth frame, per level; depth_10: the frames of exactly ten levels, both sides together;
- trade, book_ticker: every such frame;
- sbe_…: the spot frames in the venue's binary form, every number at exponent -8, so that prices must be divided; beside
  Python's own `struct`.

All end in the same integers (checked before anything is timed). msgspec decodes into typed structs, numbers straight to
floats, which round to the scaled integers exactly at these sizes; orjson leaves strings, which go the same way. Each
figure is the best of several rounds.
"""

from __future__ import annotations

import gzip
import os
import struct
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report import Report, interleaved

from shrivenq.pipeline.exchange import sbe
from shrivenq.pipeline.exchange.types import DepthEvent, Symbol, TickerEvent, TradeEvent
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import INSTRUMENT, TICK
from shrivenq.stages.venues import binance_sbe
from shrivenq.stages.venues.binance import EVENT_MAX, PADDING, decode
from shrivenq.stages.venues.binance_symbols import make_symbols

DATA = Path(os.environ.get("SHRIVENQ_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
MARKETS = {
    "spot": (b"BTCUSDT", 2, 8, 0),
    "usdm": (b"BTCUSDT", 2, 3, 1),
    "cm": (b"BTCUSD_PERP", 1, 0, 1),
}
ROUNDS = 7
SBE_BYTES = 50  # of a binary depth frame without levels
PEER_FRAMES = 4000  # a case and market: the peers' cost does not depend on how many there are


class Depth(msgspec.Struct):
    """What of a depthUpdate is needed."""

    E: int
    s: str
    U: int
    u: int
    b: list[tuple[float, float]]
    a: list[tuple[float, float]]
    pu: int = -1


class Trade(msgspec.Struct):
    """What of a trade is needed."""

    E: int
    s: str
    t: int
    p: float
    q: float
    m: bool


class Ticker(msgspec.Struct):
    """What of a bookTicker is needed."""

    u: int
    s: str
    b: float
    B: float
    a: float
    A: float
    E: int = 0


class DepthFrame(msgspec.Struct):
    """The combined form."""

    data: Depth


class TradeFrame(msgspec.Struct):
    """The combined form."""

    data: Trade


class TickerFrame(msgspec.Struct):
    """The combined form."""

    data: Ticker


TYPES = {b"d": DepthFrame, b"t": TradeFrame, b"b": TickerFrame}
DECODERS = {kind: msgspec.json.Decoder(made, strict=False).decode for kind, made in TYPES.items()}


def kind_of(frame):
    """Tell the kind by the letter behind the stream's symbol, the cheapest way there is."""
    at = frame.index(b"@") + 1
    return frame[at : at + 1]


def by_msgspec(frame, price, quantity):
    """Decode one frame into integers: header fields, then price and quantity by turns."""
    kind = kind_of(frame)
    event = DECODERS[kind](frame).data
    if kind == b"d":
        found = [event.E, event.U, event.u, event.pu]
        for side in (event.b, event.a):
            for level in side:
                found.append(round(level[0] * price))
                found.append(round(level[1] * quantity))
        return found
    if kind == b"t":
        return [event.E, event.t, event.m, round(event.p * price), round(event.q * quantity)]
    return [
        event.E, event.u, round(event.b * price), round(event.B * quantity), round(event.a * price),
        round(event.A * quantity),
    ]  # fmt: skip


def by_orjson(frame, price, quantity):
    """Decode one frame into the same integers."""
    kind, event = kind_of(frame), orjson.loads(frame)["data"]
    if kind == b"d":
        found = [event["E"], event["U"], event["u"], event.get("pu", -1)]
        for side in (event["b"], event["a"]):
            for level in side:
                found.append(round(float(level[0]) * price))
                found.append(round(float(level[1]) * quantity))
        return found
    if kind == b"t":
        return [
            event["E"], event["t"], event["m"], round(float(event["p"]) * price), round(float(event["q"]) * quantity),
        ]  # fmt: skip
    return [
        event.get("E", 0), event["u"], round(float(event["b"]) * price), round(float(event["B"]) * quantity),
        round(float(event["a"]) * price), round(float(event["A"]) * quantity),
    ]  # fmt: skip


def by_shrivenq(frame, symbols, instruments, target):
    """Decode one frame with the compiled scanner and spell the event the same way."""
    data = np.frombuffer(frame + bytes(PADDING), np.uint8)
    event = target[: decode(data, 0, len(frame), symbols, instruments, target, 0, 0) - 1]
    opening, pairs = event[0], np.stack((event["price"], event["quantity"]), axis=1)
    if b"@depth" in frame[:60]:
        head = [opening["venue_ns"] // 10**6, opening["first_id"], opening["last_id"], opening["previous_id"]]
        return [int(value) for value in (*head, *pairs[1:].ravel())]
    head = [opening["venue_ns"] // 10**6, opening["id"]]
    if b"@trade" in frame[:60]:
        head.append(opening["flags"] != 0)
    return [int(value) for value in (*head, *pairs.ravel())]


@kernel
def decode_all(data, edges, symbols, instruments, target):
    """Decode frames that lie one behind the other; return the records, -1 if one was not recognised."""
    records = 0
    for index in range(len(edges) - 1):
        count = decode(data, edges[index], edges[index + 1], symbols, instruments, target, 0, index)
        if count == 0:
            return -1
        records += count
    return records


@kernel
def decode_all_sbe(data, edges, symbols, instruments, target):
    """Decode binary frames that lie one behind the other; return the records, -1 if one was not recognised."""
    records = 0
    for index in range(len(edges) - 1):
        count = binance_sbe.decode(data, edges[index], edges[index + 1], symbols, instruments, target, 0, index)
        if count == 0:
            return -1
        records += count
    return records


EIGHT = Symbol(name="BTCUSDT", base="BTC", quote="USDT", price_decimals=8, quantity_decimals=8, tick=1, step=1)


def to_sbe(frame):
    """Write a spot frame in SBE, every number at exponent -8."""

    def pairs(levels):
        return [tuple(round(float(number) * 10**8) for number in level) for level in levels]

    kind, event = kind_of(frame), orjson.loads(frame)["data"]
    if kind == b"d":
        said = DepthEvent("BTCUSDT", event["U"], event["u"], pairs(event["b"]), pairs(event["a"]), 0)
        return sbe.depth(EIGHT, said, event["E"] * 1000)
    if kind == b"t":
        ((price, quantity),) = pairs([(event["p"], event["q"])])
        said = TradeEvent("BTCUSDT", event["t"], price, quantity, event["m"], event["T"] * 1000)
        return sbe.trades(EIGHT, [said], event["E"] * 1000)
    bid, ask = pairs([(event["b"], event["B"]), (event["a"], event["A"])])
    return sbe.best_bid_ask(EIGHT, TickerEvent("BTCUSDT", event["u"], *bid, *ask, 0), 0)


def by_struct(frame, price, quantity):
    """Decode one binary frame into the integers that its JSON gives."""
    template = int.from_bytes(frame[2:4], "little")
    if template == binance_sbe.DEPTH:
        event_us, first_id, last_id, price_exponent, quantity_exponent = struct.unpack_from("<qqqbb", frame, 8)
        price_over, quantity_over = 10**-price_exponent // price, 10**-quantity_exponent // quantity
        found, at = [event_us // 1000, first_id, last_id, -1], 34
        for _ in range(2):
            size, count = struct.unpack_from("<HH", frame, at)
            for level in struct.iter_unpack("<qq", frame[at + 4 : at + 4 + size * count]):
                found.append(level[0] // price_over)
                found.append(level[1] // quantity_over)
            at += 4 + size * count
        return found
    if template == binance_sbe.TRADES:
        event_us, _, price_exponent, quantity_exponent = struct.unpack_from("<qqbb", frame, 8)
        trade_id, traded, size, is_buyer_maker = struct.unpack_from("<qqqB", frame, 32)
        price_over, quantity_over = 10**-price_exponent // price, 10**-quantity_exponent // quantity
        return [event_us // 1000, trade_id, is_buyer_maker == 1, traded // price_over, size // quantity_over]
    event_us, update_id, price_exponent, quantity_exponent, *sides = struct.unpack_from("<qqbbqqqq", frame, 8)
    price_over, quantity_over = 10**-price_exponent // price, 10**-quantity_exponent // quantity
    bid, bid_quantity, ask, ask_quantity = sides
    return [
        event_us // 1000, update_id, bid // price_over, bid_quantity // quantity_over, ask // price_over,
        ask_quantity // quantity_over,
    ]  # fmt: skip


class Market:
    """One market's frames, and what its decoders need."""

    def __init__(self, name):
        symbol, price_decimals, quantity_decimals, futures = MARKETS[name]
        self.instruments = np.zeros(1, INSTRUMENT)
        row = self.instruments[0]
        row["symbol"], row["futures"] = symbol, futures
        row["price_decimals"], row["quantity_decimals"] = price_decimals, quantity_decimals
        self.symbols = make_symbols(self.instruments)
        self.scales = (10**price_decimals, 10**quantity_decimals)
        self.target = np.zeros(EVENT_MAX, TICK)
        self.cases = {"depth_level": [], "depth_10": [], "trade": [], "book_ticker": []}
        self.levels = 0
        for path in sorted((DATA / "binance" / name).glob("*.gz")):
            with gzip.open(path) as lines:
                for line in lines:
                    self._sort(line.rstrip(b"\n").partition(b" ")[2])
        self.sbe = {
            f"sbe_{case}": [to_sbe(frame) for frame in frames] for case, frames in self.cases.items() if name == "spot"
        }
        self.packed = {
            case: (
                np.frombuffer(b"".join(frames) + bytes(PADDING), np.uint8),
                np.append(0, np.cumsum([len(frame) for frame in frames])),
            )
            for case, frames in (self.cases | self.sbe).items()
        }

    def _sort(self, frame):
        if b"@trade" in frame[:60]:
            self.cases["trade"].append(frame)
        elif b"@bookTicker" in frame[:60]:
            self.cases["book_ticker"].append(frame)
        elif b"@depth" in frame[:60]:
            self.cases["depth_level"].append(frame)
            if frame.count(b'["') == 10:
                self.cases["depth_10"].append(frame)

    def check(self):
        """All three decoders give the same integers."""
        for frames in self.cases.values():
            for frame in frames[:: max(1, len(frames) // 1000)]:
                ours = by_shrivenq(frame, self.symbols, self.instruments, self.target)
                assert ours == by_msgspec(frame, *self.scales) == by_orjson(frame, *self.scales), frame
        for case, frames in self.sbe.items():
            for frame, binary in list(zip(self.cases[case[4:]], frames, strict=True))[:: max(1, len(frames) // 1000)]:
                expected = by_shrivenq(frame, self.symbols, self.instruments, self.target)
                assert by_struct(binary, *self.scales) == expected, frame
                data = np.frombuffer(binary + bytes(PADDING), np.uint8)
                records, self.target[:] = self.target.copy(), 0
                count = binance_sbe.decode(data, 0, len(binary), self.symbols, self.instruments, self.target, 0, 0)
                assert self.target[:count].tobytes() == records[:count].tobytes(), frame

    def time_ours(self, case):
        """Return ns and how many frames, or levels, that was for."""
        data, edges = self.packed[case]
        decode_them = decode_all_sbe if case in self.sbe else decode_all
        begin = time.perf_counter_ns()
        records = decode_them(data, edges, self.symbols, self.instruments, self.target)
        taken = time.perf_counter_ns() - begin
        assert records > 0, f"{case}: a frame took the slow path"
        frames = len(edges) - 1
        return taken, records - 2 * frames if case.endswith("depth_level") else frames

    def time_peer(self, decode_one, case):
        """Return ns and how many frames, or levels, that was for."""
        frames = self.cases.get(case) or self.sbe[case]
        frames = frames[:: max(1, len(frames) // PEER_FRAMES)]
        price, quantity = self.scales
        begin = time.perf_counter_ns()
        for frame in frames:
            decode_one(frame, price, quantity)
        taken = time.perf_counter_ns() - begin
        if case == "depth_level":
            return taken, sum(frame.count(b'["') for frame in frames)
        if case == "sbe_depth_level":
            return taken, sum((len(frame) - SBE_BYTES) // 16 for frame in frames)
        return taken, len(frames)


def main():
    report = Report("decode")
    if not (DATA / "binance").is_dir():
        for case in ("shrivenq", "msgspec", "orjson", "struct"):
            report.skip(case, "no captured frames: set SHRIVENQ_DATA")
        return
    markets = [Market(name) for name in MARKETS]
    for market in markets:
        market.check()
        for case in market.packed:
            market.time_ours(case)

    texts, binaries = tuple(markets[0].cases), tuple(markets[0].sbe)

    def figures(names, timed):
        found = {}
        for case in names:
            having = [market for market in markets if case in market.packed]
            taken, count = (sum(column) for column in zip(*(timed(market, case) for market in having), strict=True))
            found[case] = taken / count
        return found

    cases = {
        "shrivenq": lambda: figures(texts + binaries, Market.time_ours),
        "msgspec": lambda: figures(texts, lambda market, case: market.time_peer(by_msgspec, case)),
        "orjson": lambda: figures(texts, lambda market, case: market.time_peer(by_orjson, case)),
        "struct": lambda: figures(binaries, lambda market, case: market.time_peer(by_struct, case)),
    }
    for name, row in interleaved(ROUNDS, cases, min).items():
        for figure, value in row.items():
            report.row(name, figure, "ns", round(value, 1))


if __name__ == "__main__":
    main()
