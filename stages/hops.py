"""The hops of an order's way, tick to order, and their budgets: one histogram each, filled by the gateway.

Every order carries its whole trace, so nothing is sampled: each one sent is counted in every hop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import histogram
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel

NAMES = ("reception", "book", "signal", "risk", "order", "transmission", "total")

BUDGET_US = {
    "reception": 10,  # last byte of the frame in memory → decoded
    "book": 5,  # → book updated
    "signal": 20,  # → strategy decided
    "risk": 5,  # → admitted
    "order": 2,  # → the venue's order text is ready
    "transmission": 50,  # → handed to the venue
    "total": 100,
}


@by_reference
class Hops(NamedTuple):
    """One histogram a hop."""

    reception: Any
    book: Any
    signal: Any
    risk: Any
    order: Any
    transmission: Any
    total: Any


def private() -> Hops:
    """Make histograms in private memory, for a gateway nobody watches."""
    return Hops(*(np.zeros(histogram.SIZE, np.int64) for _ in NAMES))


@kernel
def record(hops: Any, orders: Any, row: int, ready_ns: int, sent_ns: int) -> None:
    """Count one sent order; its stamps are CLOCK_MONOTONIC readings of the processes it passed."""
    wire_ns = orders[row]["wire_ns"]
    histogram.record(hops.reception, orders[row]["decoded_ns"] - wire_ns)
    histogram.record(hops.book, orders[row]["book_ns"] - orders[row]["decoded_ns"])
    histogram.record(hops.signal, orders[row]["signal_ns"] - orders[row]["book_ns"])
    histogram.record(hops.risk, orders[row]["risk_ns"] - orders[row]["signal_ns"])
    histogram.record(hops.order, ready_ns - orders[row]["risk_ns"])
    histogram.record(hops.transmission, sent_ns - ready_ns)
    histogram.record(hops.total, sent_ns - wire_ns)
