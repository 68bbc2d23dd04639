"""The simulated market's text: what the venue sends, and a book that follows from it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from bisect import bisect_right
from itertools import islice

import numpy as np
import pytest

from shrivenq.stages import matching, simulated_market
from shrivenq.stages.frames import COUNT, TAKEN, USED, make_frames
from shrivenq.stages.messages import BUY, INSTRUMENT
from shrivenq.stages.order_flow import EDGE_LEVELS
from shrivenq.stages.simulated_market import Config, SimulatedMarket, fill, make_market, request_snapshot

PRICES = {"BTCUSDT": "61234.56", "ETHUSDT": "2512.05"}


def instruments():
    table = np.zeros(2, INSTRUMENT)
    table["symbol"] = [b"BTCUSDT", b"ETHUSDT"]
    table["tick"], table["step"] = 1, [1000, 10]
    table["price_decimals"], table["quantity_decimals"] = 2, [8, 4]
    return table


def run(config, duration_ns, *, seed=1, slice_ns=50_000_000, size=1 << 20, count=1 << 12, asked=()):
    """Collect (time_ns, text) of every frame; snapshots of instrument 0 are requested at the times `asked`."""
    market, frames = make_market(instruments(), config, seed), make_frames(size, count)
    collected, until = [], config.start_ns
    end = config.start_ns + duration_ns
    asked = list(asked)
    while True:
        added = fill(market, frames, until)
        assert added >= 0
        assert added == frames.words[COUNT]
        for time_ns, _, offset, length, *_ in frames.index[:added].tolist():
            collected += [(time_ns, bytes(frames.data[offset : offset + length]))]
        frames.words[TAKEN] = frames.words[COUNT]
        if added == 0 and until == end:
            return market, collected
        if added == 0:
            until = min(until + slice_ns, end)
            if asked and until >= asked[0]:
                asked.pop(0)
                request_snapshot(market, 0)


class Book:
    """The documented way to keep a book, with dictionaries."""

    def __init__(self):
        self.sides = {"b": {}, "a": {}}
        self.last_id = None
        self.touches = []  # (u, touch) after each depth event
        self.quotes = []  # (u, touch)
        self.trade_id = None

    def take(self, stream, data):
        if stream.endswith("@snapshot"):
            self.sides = {"b": dict(data["bids"]), "a": dict(data["asks"])}
            self.last_id = data["lastUpdateId"]
        elif stream.endswith("@depth@100ms"):
            assert data["U"] <= self.last_id + 1
            if data["u"] <= self.last_id:
                return
            self.last_id = data["u"]
            for side, levels in self.sides.items():
                for price, quantity in data[side]:
                    if float(quantity) == 0:
                        levels.pop(price, None)
                    else:
                        levels[price] = quantity
            self.touches.append((self.last_id, self.touch()))
        elif stream.endswith("@bookTicker"):
            self.quotes.append((data["u"], (data["b"], data["B"], data["a"], data["A"])))
        else:
            assert stream.endswith("@trade")
            assert self.trade_id in {None, data["t"] - 1}
            self.trade_id = data["t"]

    def touch(self):
        bid, ask = max(self.sides["b"], key=float), min(self.sides["a"], key=float)
        assert float(bid) < float(ask)
        return bid, self.sides["b"][bid], ask, self.sides["a"][ask]


def rebuild(collected):
    books = {}
    for _, line in collected:
        frame = json.loads(line)
        symbol = frame["stream"].partition("@")[0]
        books.setdefault(symbol, Book()).take(frame["stream"], frame["data"])
    return books


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rebuilt_book_agrees_with_every_quote(seed):
    config = Config(price=PRICES)
    asked = (config.start_ns + 700_000_000, config.start_ns + 1_900_000_000)
    market, collected = run(config, 3_000_000_000, asked=asked, seed=seed)
    times = [time_ns for time_ns, _ in collected]
    assert times == sorted(times)
    assert sum(b"@snapshot" in line for _, line in collected) == 4
    books = rebuild(collected)
    assert sorted(books) == ["btcusdt", "ethusdt"]
    for row, book in enumerate(books[name] for name in sorted(books)):
        assert len(book.touches) > 250, f"seed {seed}"
        quotes = dict(book.quotes)
        ids = sorted(quotes)
        for last_id, touch in book.touches:
            known = bisect_right(ids, last_id)
            if known:
                assert quotes[ids[known - 1]] == touch, f"seed {seed} u {last_id}"
        # The book at the end is the core's own, as far as depth events tell it.
        assert market.flow.core.ladders[row]["bid_levels"] > EDGE_LEVELS
        first = row * matching.LEVELS
        shown = market.shown[first : first + matching.LEVELS]
        assert len(book.sides["b"]) == int((shown == BUY).sum()), f"seed {seed}"
        assert len(book.sides["a"]) == int((shown == -BUY).sum()), f"seed {seed}"
        assert book.trade_id == market.flow.core.ladders[row]["trade_id"]


def test_each_stream_looks_like_the_captured_one(data):
    def shape(line):
        # Numbers become N, so what remains is keys, order, spacing and decimals.
        line = re.sub(rb'\d+\.(\d{8})"', b'N.8"', line)
        line = re.sub(rb"(true|false)", b"B", re.sub(rb":\d+", b":N", line))
        return re.sub(rb'(\["N\.8","N\.8"\],?)+', b"L", line)

    wanted = {}
    with gzip.open(data / "binance/spot/btcusdt_20240808.gz") as capture:
        for line in islice(capture, 2_000):
            text = line.split(b" ", 1)[1].rstrip()
            if text.startswith(b'{"stream"'):
                wanted.setdefault(text.split(b'"')[3], set()).add(shape(text))
            else:
                wanted[b"btcusdt@snapshot"] = {b'{"stream":"btcusdt@snapshot","data":' + shape(text) + b"}"}
    _, collected = run(Config(price=PRICES), 500_000_000)
    found = {}
    for _, text in collected:
        if b"btcusdt" in text:
            found.setdefault(text.split(b'"')[3], set()).add(shape(text))
    assert sorted(found) == sorted(wanted)
    for stream, shapes in found.items():
        assert shapes <= wanted[stream], stream


def digest(collected):
    return hashlib.sha256(b"\n".join(b"%d %s" % one for one in collected)).hexdigest()


def test_the_seed_decides_every_byte_however_the_frames_are_fetched():
    config = Config(price=PRICES, resting_orders=300, events_per_s=20_000)
    expected = digest(run(config, 300_000_000)[1])
    assert digest(run(config, 300_000_000, slice_ns=1_234_567)[1]) == expected
    assert digest(run(config, 300_000_000, size=1 << 16)[1]) == expected
    assert digest(run(config, 300_000_000, count=1)[1]) == expected
    assert digest(run(config, 300_000_000, seed=2)[1]) != expected


PLAIN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("told", sys.argv[1])
told = importlib.util.module_from_spec(spec)
spec.loader.exec_module(told)
config = told.Config(price=told.PRICES, resting_orders=200)
print(told.digest(told.run(config, 40_000_000, size=1 << 17, count=64)[1]))
"""


def test_interpreted_it_writes_the_same_bytes():
    config = Config(price=PRICES, resting_orders=200)
    compiled = digest(run(config, 40_000_000)[1])
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == compiled


def test_a_frame_larger_than_the_buffer_is_said():
    market = make_market(instruments(), Config(price=PRICES), 1)
    assert fill(market, make_frames(1000, 10), 1 << 62) == -1


def test_as_a_source_it_runs_with_the_clock_or_as_fast_as_it_is_read():
    config = Config(price=PRICES, resting_orders=300)
    frames = make_frames(1 << 20, 1 << 12)
    virtual = SimulatedMarket(instruments(), 1, offset_ns=None, config=config)
    virtual.fill(frames)
    assert frames.index[0]["time_ns"] == config.start_ns
    # The buffer is full: of bytes, or of frames.
    assert frames.words[COUNT] == 1 << 12 or frames.words[USED] > 1 << 19
    frames.words[TAKEN] = frames.words[COUNT]
    offset_ns = 10**18
    before = simulated_market.clock_ns() + offset_ns
    live = SimulatedMarket(instruments(), 1, offset_ns=offset_ns, config=config)
    live.fill(frames)
    after = simulated_market.clock_ns() + offset_ns + simulated_market.AHEAD_NS
    times = frames.index[: frames.words[COUNT]]["time_ns"]
    assert before <= times.min() <= times.max() <= after
    frames.words[TAKEN] = frames.words[COUNT]
    live.request_snapshot(1)
    live.fill(frames)
    assert bytes(frames.data[:40]).startswith(b'{"stream":"ethusdt@snapshot"')


@pytest.mark.parametrize(
    ("prices", "changes", "said"),
    [
        ({"BTCUSDT": "1"}, {}, "BTCUSDT at 1 is 100 ticks, allowed from 1,000"),
        (PRICES, {"futures": 1}, "BTCUSDT is not a spot instrument"),
        (PRICES, {"price_decimals": 9}, "BTCUSDT is not a spot instrument"),
    ],
)
def test_instruments_it_cannot_play_are_refused(prices, changes, said):
    table = instruments()
    for name, value in changes.items():
        table[name] = value
    with pytest.raises(ValueError, match=said):
        make_market(table, Config(price=prices), 1)
