"""What the tests of the journal file share: rings to write from, and records in them."""

from __future__ import annotations

import os
import random

import numpy as np

from shrivenq.shm import byte_ring
from shrivenq.stages import journal
from shrivenq.stages import messages as m

ENTRY = 16 + 48 + 192
"""Bytes of an order's record in a ring."""


class Ring:
    """A byte ring, both ends of it."""

    def __init__(self, size, name=""):
        self.segment = byte_ring.create(name or f"shrivenq.test-journal-file-{os.getpid()}-{id(self)}", size)
        self.producer, self.consumer = byte_ring.producer(self.segment), byte_ring.consumer(self.segment)
        self.journal = journal.make_journal(self.producer)

    def put(self, *records):
        for record in records:
            data = np.frombuffer(record, np.uint8)
            assert byte_ring.append(self.producer, journal.ORDER_SENT, data, 0, len(data), 0)

    def send(self, orders, source=0):
        """Append orders as the gateway does; return how many found room."""
        words = orders.view(np.int64)
        self.journal.counts[journal.SOURCE] = source
        for row in range(len(orders)):
            if not journal.append(self.journal, journal.ORDER_SENT, words, 24 * row, 24, row):
                return row
        return len(orders)

    def waits(self):
        return len(byte_ring.waiting(self.consumer)[0])


def orders_of(seed, count):
    orders = np.frombuffer(random.Random(seed).randbytes(count * m.ORDER.itemsize), m.ORDER).copy()
    orders["kind"] = m.NEW
    return orders


def records_of(seed, count):
    orders = orders_of(seed, count)
    return [journal.make_record(journal.ORDER_SENT, orders[i].tobytes(), i, i) for i in range(count)]
