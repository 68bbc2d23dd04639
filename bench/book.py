"""What one level costs the book stage: a capture's events from `tick` to `book`, `touch` and `fill_feed`.

`one`: the COIN-M capture, decoded beforehand, through the stage's own step, in rings of the sizes the pipeline uses.
`thousand`: the same events dealt to 1,000 instruments at distinct prices, a stretch and a snapshot of its beginning
each, and interleaved at random. Time in `step` alone, over the levels in the events: quotes, trades and BOOKs
with ten levels a side after each depth event are in it. The records are put into the ring between two timed steps.
"""

from __future__ import annotations

import gzip
import os
from functools import partial
from pathlib import Path

import numpy as np
from report import Report, interleaved

from shrivenq.shm import ring
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import kernel
from shrivenq.stages import book, book_sync
from shrivenq.stages import messages as m
from shrivenq.stages.stage import FAULT, Setup
from shrivenq.stages.venues import binance
from shrivenq.stages.venues.binance_symbols import make_symbols

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHRIVENQ_DATA") or ROOT.parent / "shared" / "data")
TICKS, BOOKS, TOUCHES, FILLS = 1 << 14, 1 << 10, 1 << 12, 1 << 15
ROUNDS = 9
INSTRUMENTS = 1_000
LEVELS = 100  # levels a side of each of the thousand's snapshots


def instruments_of(count, *, futures):
    table = np.zeros(count, m.INSTRUMENT)
    table["symbol"] = b"BTCUSD_PERP"
    table["tick"], table["step"], table["price_decimals"], table["futures"] = 1, 1, 1, futures
    return table


def decoded():
    """Decode the capture: TICK records, and where each event begins."""
    instruments = instruments_of(1, futures=1)
    symbols = make_symbols(instruments)
    event = np.zeros(binance.EVENT_MAX, m.TICK)
    events = []
    for path in sorted((DATA / "binance" / "cm").glob("*.gz")):
        text = gzip.decompress(path.read_bytes())
        data = np.frombuffer(text + bytes(binance.PADDING), np.uint8)
        at = 0
        while at < len(text):
            space, end = text.index(b" ", at), text.index(b"\n", at)
            time_ns = int(text[at:space])
            count = binance.decode(data, space + 1, end, symbols, instruments, event, time_ns, len(events))
            if count == 0:
                raise RuntimeError(f"{path}: the decoder does not recognise {text[at:end][:80]!r}")
            events.append(event[:count].copy())
            at = end + 1
    return events


def joined(events):
    """Concatenate TICK records; numpy's own would give the fields that share an offset places of their own."""
    return np.concatenate([event.view(np.int64) for event in events]).view(m.TICK)


def snapshot_of(sides, like):
    """Write the best levels of both sides ({price: quantity}) as a SNAPSHOT event, its header taken from `like`."""
    levels = [(0, price) for price in sorted(sides[0], reverse=True)[:LEVELS]]
    levels += [(m.SIDE_ASK, price) for price in sorted(sides[1])[:LEVELS]]
    event = np.zeros(len(levels) + 2, m.TICK)
    event["cause"], event["time_ns"] = like["cause"][0], like["time_ns"][0]
    event["kind"] = [m.SNAPSHOT, *[m.LEVEL] * len(levels), m.END]
    event["flags"][1:-1] = [side for side, _ in levels]
    event["price"][1:-1] = [price for _, price in levels]
    event["quantity"][1:-1] = [sides[side][price] for side, price in levels]
    event["count"][-1] = len(levels) + 1
    return event


def put(sides, event):
    """Apply the levels of an event to both sides ({price: quantity})."""
    levels = event[event["kind"] == m.LEVEL]
    for flags, price, quantity in zip(*(levels[name].tolist() for name in ("flags", "price", "quantity")), strict=True):
        if quantity:
            sides[flags & m.SIDE_ASK][price] = quantity
        else:
            sides[flags & m.SIDE_ASK].pop(price, None)


def dealt(events):
    """Deal the events to many instruments: a stretch of the capture each, behind a snapshot of where it begins.

    Returns the snapshots, and the events with the instruments interleaved at random; prices are moved apart and update
    ids renumbered.
    """
    rng = np.random.default_rng(1)
    start = next(event for event in events if event["kind"][0] == m.SNAPSHOT)
    kinds = [event["kind"][0] for event in events]
    # Diffs from before the snapshot was received belong to it, or are applied to it.
    rest = [
        event
        for event, kind in zip(events, kinds, strict=True)
        if kind != m.SNAPSHOT and (kind != m.DIFF or event["last_id"][0] >= start["last_id"][0])
    ]
    sides = ({}, {})
    put(sides, start)
    opening, decks = [], []
    for number, event in enumerate(rest):
        if number * INSTRUMENTS // len(rest) == len(decks):
            opening.append(moved(snapshot_of(sides, event), len(decks), 0))
            decks.append([])
        decks[-1].append(moved(event, len(decks) - 1, len(decks[-1]) + 1))
        put(sides, event)
    dealer = rng.permutation(np.repeat(np.arange(INSTRUMENTS), [len(deck) for deck in decks]))
    hands = [iter(deck) for deck in decks]
    return joined(opening), joined([next(hands[i]) for i in dealer])


def moved(event, instrument, update_id):
    """Copy an event to another instrument, `update_id` its last id, prices far from everybody else's."""
    own = event.copy()
    own["instrument"] = instrument
    own["price"][np.isin(own["kind"], (m.LEVEL, m.TRADE, m.QUOTE))] += instrument * 100_000
    if own["kind"][0] == m.SNAPSHOT:
        own["last_id"][0] = update_id
    elif own["kind"][0] == m.DIFF:
        # Ids count all the instrument's events, so that a diff names what came before it as its first.
        own["first_id"][0], own["last_id"][0], own["previous_id"][0] = 0, update_id, -1
    return own


def ring_of(dtype, count):
    """Make both ends of a ring in private memory, typed like the real ones: the other side's words read-only."""

    def read_only(array):
        view = array.view()
        view.flags.writeable = False
        return view

    head, tail, slots = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(count, dtype)
    return ring.Producer(head, read_only(tail), slots), ring.Consumer(tail, read_only(head), read_only(slots))


@kernel
def drive(records, context, loop, tick, out, touch, fill_feed):
    """Put the records on `tick` in bunches, empty the other rings, and return the ns spent in `step`."""
    spent = 0
    at = 0
    while at < records.shape[0]:
        count = min(book.BATCH, records.shape[0] - at)
        for i in range(at, at + count):
            position = tick.own[ring.NEXT]
            slot = ring.next_slot(tick)
            tick.slots[slot] = records[i]
            tick.slots[slot]["sequence"] = position
        ring.publish(tick)
        start = monotonic_ns()
        taken = book.step(context, loop)
        spent += monotonic_ns() - start
        if taken != count:
            return -1
        at += count
        ring.release(out, out.peer[ring.HEAD] - out.own[ring.TAIL])
        ring.release(touch, touch.peer[ring.HEAD] - touch.own[ring.TAIL])
        ring.release(fill_feed, fill_feed.peer[ring.HEAD] - fill_feed.own[ring.TAIL])
    return spent


def measure(instruments, config, opening, events):
    """Measure the ns per level of one pass over the events, on fresh books that `opening` filled."""
    tick, reading = ring_of(m.TICK, TICKS)
    out, books = ring_of(m.BOOK, BOOKS)
    touch, touches = ring_of(m.TOUCH, TOUCHES)
    fill_feed, fills = ring_of(m.TICK, FILLS)
    loop = np.zeros(512, np.int64)
    producers = {"book": out, "touch": touch, "fill_feed": fill_feed}
    context = book.build(Setup(config, instruments, None, producers, {"tick": reading}, loop))
    # As in production, no page is touched for the first time on the path.
    for array in (context.books.rows, context.buffers):
        array.reshape(-1).view(np.int64)[::512] += 0
    ends = (context, loop, tick, books, touches, fills)
    drive(opening, *ends)
    spent = drive(events, *ends)
    state = context.state
    if spent < 0 or loop[FAULT] or not (state["status"] == book_sync.LIVE).all() or state["gaps"].any():
        raise RuntimeError(f"the stage did not take the events: fault {loop[FAULT]}, {state['status'].tolist()[:10]}")
    return {"update": spent / int((events["kind"] == m.LEVEL).sum())}


def main():
    report = Report("book")
    if not DATA.is_dir():
        for case in ("one", "thousand"):
            report.skip(case, f"no captured data in {DATA}: set SHRIVENQ_DATA")
        return
    events = decoded()
    start = 1 + next(i for i, event in enumerate(events) if event["kind"][0] == m.SNAPSHOT)
    small = book.Config(window_ticks=4_096, far_levels=512, buffer_ticks=64)
    cases = {
        "one": (instruments_of(1, futures=1), book.Config(), joined(events[:start]), joined(events[start:])),
        "thousand": (instruments_of(INSTRUMENTS, futures=0), small, *dealt(events)),
    }
    calls = {case: partial(measure, *one) for case, one in cases.items()}
    for call in calls.values():
        call()  # compiles, and touches what is shared
    for case, figures in interleaved(ROUNDS, calls, min).items():
        report.row(case, "update", "ns", figures["update"])


if __name__ == "__main__":
    main()
