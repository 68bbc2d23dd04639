"""A gateway on rings in private memory, driven by hand."""

from __future__ import annotations

import time

import numpy as np

from shrivenq.shm import byte_ring, pool, ring
from shrivenq.stages import gateway, stage
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from tests.stages.venue_rig import currencies, drain, instruments_of, private_bytes, private_ring, push

LIMITS = {"SYM0": gateway.Limits(quantity_max="100", price_min="10", price_max="1000")}


class GatewayRig:
    """A gateway; what is said to it and what it says are ours."""

    def __init__(self, virtual=False, journal_bytes=1 << 16, report_count=256, slots=None, instruments=None, **config):
        self.instruments = instruments_of() if instruments is None else instruments
        self.orders, order = private_ring(m.ORDER, 256)
        self.from_venue, from_venue = private_ring(m.REPORT, 256)
        report, self.reports = private_ring(m.REPORT, report_count)
        to_venue, self.to_venue = private_ring(m.ORDER, 256)
        journal, self.journal = private_bytes(journal_bytes)
        self.pool = pool.private(o.ORDER_SLOT, 32) if slots is None else slots
        self.loop = np.zeros(512, np.int64)
        self.loop[stage.VIRTUAL] = 1 if virtual else 0
        self.kill, self.hold, self.instrument_hold = (np.zeros(512, np.int64) for _ in range(3))
        self.context = gateway.build(
            stage.Setup(
                config=gateway.Config(
                    **{
                        "unknown_after_ms": 1000,
                        "orders_max": 100,
                        "window_ms": 1000,
                        "limits": LIMITS,
                        **config,
                    }
                ),
                instruments=self.instruments,
                currencies=currencies(),
                producers={"report": report, "to_venue": to_venue, "journal": journal},
                consumers={"order": order, "from_venue": from_venue},
                loop=self.loop,
                shared={
                    "orders": self.pool,
                    "run": np.frombuffer(b"f00d", np.uint8),
                    "kill": self.kill,
                    "hold": self.hold,
                    "instrument_hold": self.instrument_hold,
                },
            )
        )
        self.now = 1_000_000_000
        self.loop[stage.OFFSET_NS] = 0 if virtual else self.now - time.monotonic_ns()
        self.number = 1 << 40
        self.trade_id = 0

    def step(self):
        work = gateway.step(self.context, self.loop)
        assert self.loop[stage.FAULT] == 0
        return work

    def later(self, ms):
        """Let time pass."""
        self.now += ms * 1_000_000
        self.loop[stage.OFFSET_NS] += ms * 1_000_000

    def send(self, kind=m.NEW, side=m.BUY, price=1000, quantity=10, step=True, **fields):
        """Let risk send an order; returns its id."""
        self.number += 1
        row = np.zeros(1, m.ORDER)
        row["kind"], row["side"], row["price"], row["quantity"] = kind, side, price, quantity
        row["order_id"], row["time_ns"], row["order_type"], row["time_in_force"] = self.number, self.now, m.LIMIT, m.GTC
        row["sequence"], row["wire_ns"], row["cause"] = self.orders.own[ring.NEXT], 11, 5
        row["slot"] = -1
        if kind in (m.NEW, m.REPLACE):
            row["slot"] = slot = pool.allocate(self.pool)
            row["generation"] = self.pool.generation[slot]
        for name, value in fields.items():
            row[name] = value
        if kind in (m.NEW, m.REPLACE):
            o.begin(self.pool.slots, slot, row, 0)
        assert ring.claim(self.orders, 1)
        self.orders.slots[int(ring.next_slot(self.orders))] = row[0]
        ring.publish(self.orders)
        if step:
            self.step()
        return int(row["order_id"][0])

    def answer(self, kind, order_id, target_id=0, step=True, **fields):
        """Let the venue say something."""
        if kind == m.FILL and "trade_id" not in fields:
            self.trade_id += 1
            fields["trade_id"] = self.trade_id
        push(self.from_venue, time_ns=self.now, kind=kind, order_id=order_id, target_id=target_id, **fields)
        if step:
            self.step()

    def state(self, order_id):
        """Name the state of an order's slot, however it may have been given back since."""
        (slot,) = np.flatnonzero(self.pool.slots["order_id"] == order_id)
        return o.STATES[self.pool.slots["state"][slot]]

    def taken(self):
        """Count the slots in use."""
        return int(pool.used(self.pool))

    def said(self):
        """Name what risk was told: (kind, order id) of each report."""
        return [(int(one["kind"]), int(one["order_id"])) for one in drain(self.reports)]

    def sent(self):
        """Name what went to the venue: (kind, order id, target id)."""
        return [(int(one["kind"]), int(one["order_id"]), int(one["target_id"])) for one in drain(self.to_venue)]

    def journaled(self):
        """Take the journal's records: (kind, payload)."""
        return [(kind, payload[48:]) for kind, _, payload in byte_ring.drain(self.journal)]
