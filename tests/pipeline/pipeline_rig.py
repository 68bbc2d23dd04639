"""What the pipeline's tests share: a run's segments without a pipeline behind them, and a small capture."""

from __future__ import annotations

import contextlib
import json
import uuid

import numpy as np

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline.assembly import Assembly
from shrivenq.pipeline.venue_symbols import Rules
from shrivenq.shm import ring
from shrivenq.shm.atomics import store_word

START_NS = 1_723_161_254_000_000_000
START_MS = START_NS // 1_000_000


def tables():
    return configuration.load("default").tables()


def rules():
    """What the shipped configuration obeys."""
    found = configuration.load("default")
    return Rules(found.tables(), found.risk)


@contextlib.contextmanager
def assembled(name):
    """Make the segments of a run of `name` for BTCUSDT and ETHUSDT, and unlink them afterwards."""
    found = tables()
    made = Assembly.create(name, uuid.uuid4().hex[:8], found.instruments, found.currencies, virtual=True, fused=False)
    try:
        yield made
    finally:
        made.unlink()


def publish(assembly, name, rows):
    """Put rows on a ring as its producer would, looking neither for room nor for a consumer."""
    held = assembly.segments[name]
    words = held.array("producer", writable=True)
    head = int(words[ring.HEAD])
    slots = held.array("slots", writable=True)
    last = rows[-len(slots) :]  # more than the ring holds: the cursor still counts all of them
    slots[(head + len(rows) - len(last) + np.arange(len(last))) % len(slots)] = last
    store_word(words, ring.HEAD, head + len(rows))


def snapshot():
    """Spell a REST snapshot of BTCUSDT: twenty levels a side, a whole unit apart, 60000 / 60001."""
    bids = [[f"{60000 - i}.00", "2.00000000"] for i in range(20)]
    asks = [[f"{60001 + i}.00", "2.00000000"] for i in range(20)]
    return json.dumps({"lastUpdateId": 100, "bids": bids, "asks": asks}, separators=(",", ":"))


def _event(stream, **event):
    return json.dumps({"stream": f"btcusdt@{stream}", "data": event}, separators=(",", ":"))


def capture_lines(rounds=10):
    """Write a capture: a snapshot, then a trade and a diff in each round of 20 ms."""
    lines = [f"{START_NS} {snapshot()}\n"]
    for i in range(rounds):
        at = START_MS + 10 + 20 * i
        seller = i % 2 == 1
        trade = _event(
            "trade", e="trade", E=at, s="BTCUSDT", t=i + 1, p="60000.00" if seller else "60001.00", q="0.10000000",
            T=at, m=seller, M=True,
        )  # fmt: skip
        diff = _event(
            "depth@100ms", e="depthUpdate", E=at + 10, s="BTCUSDT", U=101 + 2 * i, u=102 + 2 * i,
            b=[[f"{59990 - i % 5}.00", f"{1 + i % 3}.00000000"]], a=[[f"{60010 + i % 5}.00", f"{1 + i % 4}.00000000"]],
        )  # fmt: skip
        lines += [f"{at * 1_000_000} {trade}\n", f"{(at + 10) * 1_000_000} {diff}\n"]
    return lines
