"""A strategy called by hand, uncompiled: books and reports in, the intents it wrote out."""

from __future__ import annotations

import numpy as np

from shrivenq.shm import ring
from shrivenq.stages import messages as m
from shrivenq.stages import strategy
from tests.stages.venue_rig import drain, private_ring

TICK = 10
INSTRUMENT = 1


class Desk:
    """One strategy on instrument 1 of two."""

    def __init__(self, module, count=16, **params):
        producer, self.intents = private_ring(m.INTENT, count)
        instruments = np.zeros(2, m.INSTRUMENT)
        instruments["tick"] = [1, TICK]
        words = np.zeros(strategy.WORDS, np.int64)
        words[strategy.NEXT_ID] = 1000
        self.orders = strategy.Orders(producer, words, instruments)
        self.module = module
        self.params = np.zeros(1, module.PARAMS)
        assert set(params) == set(module.PARAMS.names)
        for name, value in params.items():
            self.params[name] = value
        self.state = np.zeros(2, module.STATE)
        self.now = 10**15

    @property
    def mine(self):
        return self.state[INSTRUMENT]

    def book(self, bids, asks, flags=m.VALID, instrument=INSTRUMENT):
        """Show a book; (price, quantity) best first. Returns the intents it led to."""
        event = np.zeros(1, m.BOOK)
        event["kind"], event["instrument"], event["flags"], event["time_ns"] = m.DEPTH_BOOK, instrument, flags, self.now
        for side, levels in (("bid", bids), ("ask", asks)):
            event[f"{side}_count"] = len(levels)
            for level, (price, quantity) in enumerate(levels):
                event[f"{side}_price"][0, level] = price
                event[f"{side}_quantity"][0, level] = quantity
        self.module.on_book(self.params[0], self.state, event[0], self.orders)
        return self.taken()

    def book_without_room(self, bids, asks):
        """Show a book while the intent ring is full; returns how many requests found no room."""
        before = int(self.orders.words[strategy.REFUSED])
        self.orders.intents.own[ring.NEXT] += len(self.orders.intents.slots)
        self.book(bids, asks)
        return int(self.orders.words[strategy.REFUSED]) - before

    def report(self, kind, order_id, **fields):
        """Report on an order or request; a report never leads to an order here."""
        event = np.zeros(1, m.REPORT)
        event["kind"], event["order_id"], event["instrument"] = kind, order_id, INSTRUMENT
        for name, value in fields.items():
            event[name] = value
        self.module.on_report(self.params[0], self.state, event[0], self.orders)
        assert not self.taken()

    def taken(self):
        ring.publish(self.orders.intents)
        return list(drain(self.intents))
