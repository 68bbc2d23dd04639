"""What one frame costs from text to integers, beside the fastest JSON parsers Python has.

Real captured frames, each once a round, all markets together:

- depth_level: every depth frame, per level; depth_10: the frames of exactly ten levels, both sides together;
- trade, book_ticker: every such frame.

All end in the same integers (checked before anything is timed). msgspec decodes into typed structs, numbers straight to
floats, which round to the scaled integers exactly at these sizes; orjson leaves strings, which go the same way. Each
figure is the best of several rounds.
"""

from __future__ import annotations

import gzip
import os
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent))
from report import Report, interleaved

from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import INSTRUMENT, TICK
from shrivenq.stages.venues.binance import EVENT_MAX, PADDING, decode
from shrivenq.stages.venues.binance_symbols import make_symbols

DATA = Path(os.environ.get("SHRIVENQ_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
MARKETS = {
    "spot": (b"BTCUSDT", 2, 8, 0),
    "usdm": (b"BTCUSDT", 2, 3, 1),
    "cm": (b"BTCUSD_PERP", 1, 0, 1),
}
ROUNDS = 7
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
        self.packed = {
            case: (
                np.frombuffer(b"".join(frames) + bytes(PADDING), np.uint8),
                np.append(0, np.cumsum([len(frame) for frame in frames])),
            )
            for case, frames in self.cases.items()
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

    def time_ours(self, case):
        """Return ns and how many frames, or levels, that was for."""
        data, edges = self.packed[case]
        begin = time.perf_counter_ns()
        records = decode_all(data, edges, self.symbols, self.instruments, self.target)
        taken = time.perf_counter_ns() - begin
        assert records > 0, f"{case}: a frame took the slow path"
        frames = len(edges) - 1
        return taken, records - 2 * frames if case == "depth_level" else frames

    def time_peer(self, decode_one, case):
        """Return ns and how many frames, or levels, that was for."""
        frames = self.cases[case]
        frames = frames[:: max(1, len(frames) // PEER_FRAMES)]
        price, quantity = self.scales
        begin = time.perf_counter_ns()
        for frame in frames:
            decode_one(frame, price, quantity)
        taken = time.perf_counter_ns() - begin
        levels = sum(frame.count(b'["') for frame in frames) if case == "depth_level" else 0
        return taken, levels or len(frames)


def main():
    report = Report("decode")
    if not (DATA / "binance").is_dir():
        for case in ("shrivenq", "msgspec", "orjson"):
            report.skip(case, "no captured frames: set SHRIVENQ_DATA")
        return
    markets = [Market(name) for name in MARKETS]
    for market in markets:
        market.check()
        for case in market.cases:
            market.time_ours(case)

    def figures(timed):
        found = {}
        for case in ("depth_level", "depth_10", "trade", "book_ticker"):
            taken, count = (sum(column) for column in zip(*(timed(market, case) for market in markets), strict=True))
            found[case] = taken / count
        return found

    cases = {
        "shrivenq": lambda: figures(Market.time_ours),
        "msgspec": lambda: figures(lambda market, case: market.time_peer(by_msgspec, case)),
        "orjson": lambda: figures(lambda market, case: market.time_peer(by_orjson, case)),
    }
    for name, row in interleaved(ROUNDS, cases, min).items():
        for figure, value in row.items():
            report.row(name, figure, "ns", round(value, 1))


if __name__ == "__main__":
    main()
