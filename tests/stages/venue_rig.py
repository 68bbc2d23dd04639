"""Gateway and paper venue on rings in private memory, driven by hand: what the tests of both share."""

from __future__ import annotations

import numpy as np

from shrivenq.shm import byte_ring, ring
from shrivenq.stages import messages as m
from shrivenq.stages import paper_venue, stage
from shrivenq.stages.conductor import GRANTED_NS, GRANTS, NEVER, NEXT_DUE_NS


def private_ring(dtype, count):
    """Make both ends of a ring."""
    own, peer, slots = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(count, dtype)
    return ring.Producer(own, peer, slots), ring.Consumer(peer, own, slots)


def private_bytes(size):
    """Make both ends of a byte ring."""
    own, peer, data = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(size, np.uint8)
    words = data.view(np.int64)
    return byte_ring.Producer(own, peer, data, words), byte_ring.Consumer(peer, own, data, words)


def instruments_of(count=1, **fields):
    """Make instruments with a tick of 10 and a step of 2."""
    made = np.zeros(count, m.INSTRUMENT)
    made["symbol"] = [f"SYM{i}" for i in range(count)]
    made["tick"], made["step"], made["tradable"] = 10, 2, 1
    made["price_min"], made["price_max"] = 10, 10**9
    made["quantity_min"], made["quantity_max"] = 2, 10**9
    made["price_decimals"], made["quantity_decimals"], made["contract_size"] = 1, 2, 100
    made["maker_fee"], made["taker_fee"] = 10_000, 40_000
    made["base_currency"], made["quote_currency"], made["settle_currency"] = 1, 0, 0
    for name, value in fields.items():
        made[name] = value
    return made


def currencies():
    made = np.zeros(2, m.CURRENCY)
    made["code"], made["decimals"] = [b"USD", b"SYM"], 8
    return made


def fill_row(target, fields):
    """Write fields into a zeroed row."""
    target[()] = np.zeros((), target.dtype)
    for name, value in fields.items():
        target[name] = value


def push(producer, **fields):
    """Publish one message."""
    assert ring.claim(producer, 1)
    slot = int(ring.next_slot(producer))
    fill_row(producer.slots[slot : slot + 1][0:1].reshape(()), {"sequence": int(producer.own[ring.NEXT]) - 1, **fields})
    ring.publish(producer)


def drain(consumer):
    """Take every message."""
    count = int(ring.available(consumer))
    rows = np.array([consumer.slots[int(ring.slot_at(consumer, i))] for i in range(count)], consumer.slots.dtype)
    ring.release(consumer, count)
    return rows


class VenueRig:
    """A paper venue in virtual time, one instrument or more."""

    def __init__(self, model="queue", order_us=0, report_us=0, instruments=None, virtual=True):
        self.instruments = instruments_of() if instruments is None else instruments
        self.feed, feed = private_ring(m.TICK, 1 << 12)
        self.to_venue, to_venue = private_ring(m.ORDER, 1 << 10)
        from_venue, self.from_venue = private_ring(m.REPORT, 1 << 12)
        self.loop = np.zeros(512, np.int64)
        self.loop[stage.VIRTUAL] = 1 if virtual else 0
        self.venue, self.kill = np.zeros(512, np.int64), np.zeros(512, np.int64)
        self.context = paper_venue.build(
            stage.Setup(
                config=paper_venue.Config(model=model, order_latency_us=order_us, report_latency_us=report_us),
                instruments=self.instruments,
                currencies=currencies(),
                producers={"from_venue": from_venue},
                consumers={"fill_feed": feed, "to_venue": to_venue},
                loop=self.loop,
                shared={"venue": self.venue, "kill": self.kill},
            )
        )
        self.now = 1_000_000
        self.update_id = 100
        self.number = 0

    def step(self):
        while paper_venue.step(self.context, self.loop):
            pass
        assert self.loop[stage.FAULT] == 0

    def tick(self, **fields):
        push(self.feed, time_ns=self.now, **fields)

    def snapshot(self, bids, asks, instrument=0):
        self.tick(kind=m.SNAPSHOT, instrument=instrument, last_id=self.update_id)
        self.levels(bids, asks, instrument)

    def diff(self, bids=(), asks=(), instrument=0):
        first = self.update_id + 1
        self.update_id += 3
        self.tick(kind=m.DIFF, instrument=instrument, first_id=first, last_id=self.update_id, previous_id=-1)
        self.levels(bids, asks, instrument)

    def levels(self, bids, asks, instrument):
        for flags, side in ((0, bids), (m.SIDE_ASK, asks)):
            for price, quantity in side:
                self.tick(kind=m.LEVEL, instrument=instrument, flags=flags, price=price, quantity=quantity)
        self.tick(kind=m.END, instrument=instrument)
        self.step()

    def trade(self, price, quantity, side, instrument=0):
        """Let the market trade; `side` is the aggressor's."""
        flags = m.SELLER_AGGRESSED if side == m.SELL else 0
        self.tick(kind=m.TRADE, instrument=instrument, flags=flags, price=price, quantity=quantity, id=1)
        self.tick(kind=m.END, instrument=instrument)
        self.step()

    def send(self, kind=m.NEW, side=m.BUY, price=0, quantity=2, order_type=m.LIMIT, tif=m.GTC, **fields):
        """Send an order or request to the venue; returns its id."""
        self.number += 1
        order_id = fields.pop("order_id", self.number)
        push(
            self.to_venue,
            time_ns=self.now,
            kind=kind,
            side=side,
            price=price,
            quantity=quantity,
            order_type=order_type,
            time_in_force=tif,
            order_id=order_id,
            **fields,
        )
        self.step()
        return order_id

    def buy(self, price, quantity, **fields):
        return self.send(m.NEW, m.BUY, price, quantity, **fields)

    def sell(self, price, quantity, **fields):
        return self.send(m.NEW, m.SELL, price, quantity, **fields)

    def grant(self, until):
        """Serve everything due by `until`, a grant at a time; returns the reports."""
        found = []
        while self.venue[NEXT_DUE_NS] <= until:
            self.venue[GRANTED_NS] = self.venue[NEXT_DUE_NS]
            self.venue[GRANTS] += 1
            self.step()
            got = drain(self.from_venue)
            assert len(got) <= 1
            found.extend(got)
        return found

    def settle(self):
        """Serve everything that is due at all; returns the reports."""
        return self.grant(NEVER - 1)

    def said(self):
        """Settle, and name what was said: (kind, order id, quantity, price) of each report."""
        return [
            (int(one["kind"]), int(one["order_id"]), int(one["last_quantity"]), int(one["last_price"]))
            for one in self.settle()
        ]
