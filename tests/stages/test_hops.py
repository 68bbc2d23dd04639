from __future__ import annotations

import numpy as np

from shrivenq.shm import histogram
from shrivenq.shm.kernel import kernel
from shrivenq.stages import hops
from shrivenq.stages import messages as m

STAMPS = ("wire_ns", "decoded_ns", "book_ns", "signal_ns", "risk_ns")


@kernel
def record_all(held, orders, ready_ns, sent_ns):
    for row in range(orders.shape[0]):
        hops.record(held, orders, row, ready_ns[row], sent_ns[row])


def test_every_order_is_counted_in_every_hop_and_the_hops_add_up():
    generator = np.random.default_rng(5)
    orders = np.zeros(1000, m.ORDER)
    at = np.full(1000, 10**15)
    for name in STAMPS:
        orders[name] = at
        at = at + generator.integers(1, 200, 1000)
    ready_ns, sent_ns = at, at + generator.integers(1, 200, 1000)
    held = hops.Hops(*(np.zeros(histogram.SIZE, np.int64) for _ in hops.NAMES))
    record_all(held, orders, ready_ns, sent_ns)
    assert [histogram.count(one) for one in held] == [1000] * len(hops.NAMES)
    assert sum(int(one[histogram.SUM]) for one in held[:-1]) == int(held.total[histogram.SUM])
    assert histogram.largest(held.total) == int((sent_ns - orders["wire_ns"]).max())
    assert histogram.largest(held.risk) == int((orders["risk_ns"] - orders["signal_ns"]).max())


def test_every_hop_has_a_budget_and_the_whole_is_under_100_us():
    assert tuple(hops.BUDGET_US) == hops.NAMES == hops.Hops._fields
    assert sum(hops.BUDGET_US[name] for name in hops.NAMES[:-1]) <= hops.BUDGET_US["total"] == 100
