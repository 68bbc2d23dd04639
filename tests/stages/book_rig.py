"""The book stage between rings in private memory, and TICK records to feed it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shrivenq.shm import ring
from shrivenq.stages import book, book_sync, order_book
from shrivenq.stages import messages as m
from shrivenq.stages.stage import FAULT, FAULT_DETAIL, VIRTUAL, Setup
from tests.stages.naive_book import Diff, Quote, Snapshot, Trade

MARKETS = {
    # symbol, tick, step, price decimals, quantity decimals, futures
    "spot": (b"BTCUSDT", 1, 1000, 2, 8, 0),
    "usdm": (b"BTCUSDT", 10, 1, 2, 3, 1),
    "cm": (b"BTCUSD_PERP", 1, 1, 1, 0, 1),
}


def instruments_of(*markets):
    table = np.zeros(len(markets), m.INSTRUMENT)
    for row, market in zip(table, markets, strict=True):
        symbol, tick, step, price_decimals, quantity_decimals, futures = MARKETS[market]
        row["symbol"], row["tick"], row["step"] = symbol, tick, step
        row["price_decimals"], row["quantity_decimals"], row["futures"] = price_decimals, quantity_decimals, futures
    return table


def ring_of(dtype, count):
    """Both ends of a ring in private memory."""

    def read_only(array):
        view = array.view()
        view.flags.writeable = False
        return view

    head, tail, slots = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(count, dtype)
    return ring.Producer(head, read_only(tail), slots), ring.Consumer(tail, read_only(head), read_only(slots))


class Rig(NamedTuple):
    """The stage between rings in private memory, and the far ends of those."""

    context: book.Book
    loop: np.ndarray
    tick: ring.Producer
    book: ring.Consumer
    touch: ring.Consumer
    fill_feed: ring.Consumer

    def state(self, instrument=0):
        return self.context.state[instrument]


def make_rig(instruments, config=None, *, virtual=1, ticks=1 << 10, books=1 << 8, touches=1 << 8, fills=1 << 12):
    rings = {
        "tick": ring_of(m.TICK, ticks),
        "book": ring_of(m.BOOK, books),
        "touch": ring_of(m.TOUCH, touches),
        "fill_feed": ring_of(m.TICK, fills),
    }
    loop = np.zeros(512, np.int64)
    loop[VIRTUAL] = virtual
    config = config or book.Config(window_ticks=1024, far_levels=256, buffer_ticks=256)
    setup = Setup(
        config,
        instruments,
        None,
        {name: rings[name][0] for name in book.STAGE.writes},
        {"tick": rings["tick"][1]},
        loop,
    )
    return Rig(
        book.STAGE.build(setup),
        loop,
        rings["tick"][0],
        rings["book"][1],
        rings["touch"][1],
        rings["fill_feed"][1],
    )


def drain(consumer):
    """Take everything published, as a copy; check the positions in it."""
    head, tail = int(consumer.peer[ring.HEAD]), int(consumer.own[ring.TAIL])
    found = consumer.slots[np.arange(tail, head) & (len(consumer.slots) - 1)].copy()
    assert found["sequence"].tolist() == list(range(tail, head))
    consumer.own[ring.TAIL] = head
    return found


def send(rig, records, *, gap=False):
    """Put records on `tick`, as many as fit at once, and step until all are taken; return what came out."""
    found = ([], [], [])
    records = records.copy()
    if gap:
        records[0]["flags"] |= m.GAP
    mask = len(rig.tick.slots) - 1
    sent = 0
    while True:
        head, tail = int(rig.tick.own[ring.HEAD]), int(rig.tick.peer[ring.TAIL])
        count = min(len(records) - sent, mask + 1 - (head - tail))
        positions = np.arange(head, head + count)
        rig.tick.slots[positions & mask] = records[sent : sent + count]
        rig.tick.slots["sequence"][positions & mask] = positions
        rig.tick.own[ring.HEAD] = rig.tick.own[ring.NEXT] = head + count
        sent += count
        taken = book.step(rig.context, rig.loop)
        for bucket, consumer in zip(found, (rig.book, rig.touch, rig.fill_feed), strict=True):
            bucket.append(drain(consumer))
        if sent == len(records) and int(rig.tick.peer[ring.TAIL]) == head + count:
            return tuple(bucket[0] if len(bucket) == 1 else np.concatenate(bucket) for bucket in found)
        assert taken or rig.loop[FAULT] == 0, f"fault {rig.loop[FAULT]} at {rig.loop[FAULT_DETAIL]}"


def ticks_of(event, instrument=0, cause=0):
    """Write an event of the naive reader as TICK records."""
    if isinstance(event, Quote):
        rows = [(m.QUOTE, 0, *event.bid), (m.QUOTE, m.SIDE_ASK, *event.ask)]
    elif isinstance(event, Trade):
        rows = [(m.TRADE, m.SELLER_AGGRESSED * event.seller_aggressed, event.price, event.quantity)]
    else:
        kind = m.DIFF if isinstance(event, Diff) else m.SNAPSHOT
        rows = [(kind, 0, 0, 0), *((m.LEVEL, side, price, quantity) for side, price, quantity in event.levels)]
    records = np.zeros(len(rows) + 1, m.TICK)
    records["cause"], records["time_ns"], records["instrument"] = cause, event.time_ns, instrument
    body = records[:-1]
    body["kind"], body["flags"], body["price"], body["quantity"] = np.array(rows, np.int64).T
    if isinstance(event, Quote | Trade):
        body["id"], body["venue_ns"] = event.id, event.venue_ns
    else:
        body[0]["last_id"], body[0]["venue_ns"] = event.last, event.venue_ns
        if isinstance(event, Diff):
            body[0]["first_id"], body[0]["previous_id"] = event.first, event.previous
    records[-1]["kind"], records[-1]["count"] = m.END, len(rows)
    records[-1]["wire_ns"], records[-1]["decoded_ns"] = cause * 10 + 1, cause * 10 + 2
    return records


def marker(kind, instrument=0):
    records = np.zeros(2, m.TICK)
    records["kind"] = kind, m.END
    records["instrument"] = instrument
    return records


def top_ten(message):
    """Read both sides of a BOOK; beyond the counts everything is 0."""
    sides = []
    for side in ("bid", "ask"):
        count = int(message[f"{side}_count"])
        prices, quantities = message[f"{side}_price"].tolist(), message[f"{side}_quantity"].tolist()
        assert not any(prices[count:]), message
        assert not any(quantities[count:]), message
        sides.append(list(zip(prices[:count], quantities[:count], strict=True)))
    return sides


def check_depth(twin, depth, touch, event, where):
    """Compare what the stage published after a depth event with the twin."""
    assert bool(depth["flags"] & m.VALID) == bool(touch["flags"] & m.VALID) == twin.live, where
    assert bool(depth["flags"] & m.BLIND) == bool(touch["flags"] & m.BLIND) == (twin.live and twin.look()), where
    assert top_ten(depth) == [twin.bids.top(10), twin.asks.top(10)], where
    bid, ask = twin.bids.best(), twin.asks.best()
    assert (touch["bid_price"], touch["bid_quantity"]) == bid, where
    assert (touch["ask_price"], touch["ask_quantity"]) == ask, where
    assert depth["time_ns"] == touch["time_ns"] == event.time_ns, where
    assert depth["venue_ns"] == event.venue_ns, where
    assert depth["update_id"] == (twin.last if twin.live else event.last), where


def levels(*, bid=100, ask=101, quantity=1):
    return [(order_book.BID, bid, quantity), (order_book.ASK, ask, quantity)]


def live_rig(config=None, **options):
    rig = make_rig(instruments_of("spot"), config, **options)
    send(rig, ticks_of(Snapshot(10, levels())))
    assert rig.state()["status"] == book_sync.LIVE
    return rig
