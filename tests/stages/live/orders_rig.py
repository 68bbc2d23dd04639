"""A gateway and the live venue behind it, against a simulator in this process: what risk would send is ours to send."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import time

import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shrivenq.pipeline.instruments import read_instruments
from shrivenq.shm import byte_ring, pool, ring
from shrivenq.stages import control, gateway, journal, live_venue, stage
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live import away
from shrivenq.stages.live import venue_state as v
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, TRADER
from tests.stages.venue_rig import drain, private_bytes, private_ring

PATIENCE_S = 30
EPOCHS = itertools.count(1)
"""Order ids of two rigs are never alike, so they may share an exchange."""
RUN = b"0123abcd"
WIDE = {"orders_10s": 10_000, "connections": 10_000, "request_weight": 1_000_000}
"""Limits of an exchange that nobody meets."""
LIMITS = gateway.Limits(quantity_max="100", price_min="0.1", price_max="2000")
_SIGNER = load_pem_private_key(ED25519_PEM.encode(), None)


def logon(name, timestamp_ms, api_key=TRADER):
    """Spell a logon as `pipeline.signing` does."""
    params = {"apiKey": api_key, "recvWindow": 5000, "timestamp": timestamp_ms}
    text = "&".join(f"{key}={params[key]}" for key in sorted(params))
    params["signature"] = base64.b64encode(_SIGNER.sign(text.encode())).decode()
    return json.dumps({"id": name, "method": "session.logon", "params": params}).encode()


def fix_logon(sender, sending_time, heartbeat_s, api_key=TRADER):
    """Spell a FIX Logon as `pipeline.signing` does."""
    signature = base64.b64encode(_SIGNER.sign(f"A\x01{sender}\x01SPOT\x011\x01{sending_time}".encode())).decode()
    fields = [(35, "A"), (34, 1), (49, sender), (52, sending_time), (56, "SPOT"), (95, len(signature)), (96, signature)]
    fields += [(98, 0), (108, heartbeat_s), (141, "Y"), (553, api_key), (25035, 2)]
    body = "".join(f"{tag}={value}\x01" for tag, value in fields)
    text = f"8=FIX.4.4\x019={len(body)}\x01{body}"
    return f"{text}10={sum(text.encode()) % 256:03d}\x01".encode()


class Log:
    """Keeps what is logged: (event, fields)."""

    def __init__(self):
        self.lines = []

    def _note(self, event, **fields):
        self.lines.append((event, fields))

    info = warning = error = _note

    def events(self):
        return [event for event, _ in self.lines]


class OrdersRig:
    """A gateway with a live venue; `said` is what risk is told."""

    def __init__(self, url, tables, *, unknown_after_ms=60_000, run=RUN, logon=logon, fix_logon=fix_logon, **config):
        self.instruments, self.currencies = tables.instruments, tables.currencies
        self.loop, self.gateway_loop = np.zeros(512, np.int64), np.zeros(512, np.int64)
        for loop in (self.loop, self.gateway_loop):
            loop[stage.OFFSET_NS] = time.time_ns() - time.monotonic_ns()
        self.kill, self.hold = np.zeros(512, np.int64), np.zeros(512, np.int64)
        self.hold[control.HOLD] = control.RECONCILING
        self.pool = pool.private(o.ORDER_SLOT, 64)
        self.orders, order = private_ring(m.ORDER, 256)
        to_gateway, from_venue = private_ring(m.REPORT, 1 << 12)
        report, self.reports = private_ring(m.REPORT, 1 << 12)
        to_venue, at_venue = private_ring(m.ORDER, 256)
        self.feed, fill_feed = private_ring(m.TICK, 256)
        records, self.journal = private_bytes(1 << 20)
        self.log, self.run = Log(), np.frombuffer(run, np.uint8)
        epoch = next(EPOCHS)
        self.number = epoch << m.EPOCH_SHIFT
        self.instrument_hold = np.zeros(512, np.int64)
        shared = {"kill": self.kill, "hold": self.hold, "instrument_hold": self.instrument_hold}
        shared |= {"away": np.zeros(away.WORDS, np.int64), "run": self.run, "orders": self.pool}
        limits = {row["symbol"].decode(): LIMITS for row in self.instruments}
        gateway_config = gateway.Config(unknown_after_ms=unknown_after_ms, orders_max=1000, window_ms=1, limits=limits)
        self.gateway = gateway.build(
            stage.Setup(
                gateway_config, self.instruments, self.currencies,
                {"report": report, "to_venue": to_venue, "journal": records},
                {"order": order, "from_venue": from_venue}, self.gateway_loop, shared,
            )
        )  # fmt: skip
        self.setup = stage.Setup(
            v.Config(environment="simulator", url=url, key="file:none", **config), self.instruments, self.currencies,
            {"from_venue": to_gateway}, {"to_venue": at_venue, "fill_feed": fill_feed}, self.loop,
            {**shared, "slots": self.pool.slots, "generation": self.pool.generation, "epoch": np.array([epoch]),
             "logon": logon, "fix_logon": fix_logon}, log=self.log,
        )  # fmt: skip
        self.venue = live_venue.build(self.setup)
        (self.poll,) = self.setup.polls
        self.session = self.poll.__self__
        self.told, self.records = [], []
        live_venue.run(self.venue, self.loop)  # compiled, and nothing done
        gateway.step(self.gateway, self.gateway_loop)

    def turn(self):
        """Do what the two processes do, once."""
        gateway.step(self.gateway, self.gateway_loop)
        self.loop[stage.DEADLINE_NS], self.loop[stage.LOOK_NS] = time.monotonic_ns() + 1_000_000, 0
        live_venue.run(self.venue, self.loop)
        self.poll()
        gateway.step(self.gateway, self.gateway_loop)
        assert self.loop[stage.FAULT] == self.gateway_loop[stage.FAULT] == 0
        self.records.extend(byte_ring.drain(self.journal))
        self.told.extend(drain(self.reports))

    def until(self, condition, what="it"):
        """Go on until `condition()`."""
        end = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < end, (
                f"{what} did not happen: {self.session.state}, {self.log.lines}, {self.said()}"
            )
            self.turn()
        return found

    def ready(self):
        """Go on until new orders pass."""
        self.until(lambda: control.held(self.hold) == 0, "reconciliation")
        return self

    def for_a_while(self, turns=50):
        for _ in range(turns):
            self.turn()

    def send(self, kind=m.NEW, side=m.BUY, price=50_00, quantity=1_00000000, instrument=0, **fields):
        """Let risk send an order; return its id."""
        self.number += 1
        row = np.zeros(1, m.ORDER)
        row["kind"], row["side"], row["price"], row["quantity"] = kind, side, price, quantity
        row["order_id"], row["instrument"] = self.number, instrument
        row["time_ns"] = time.time_ns()
        row["order_type"], row["time_in_force"] = m.LIMIT, m.GTC
        row["sequence"], row["slot"] = self.orders.own[ring.NEXT], -1
        for name, value in fields.items():
            row[name] = value
        if kind in (m.NEW, m.REPLACE):
            row["slot"] = slot = pool.allocate(self.pool)
            row["generation"] = self.pool.generation[slot]
            o.begin(self.pool.slots, slot, row, 0)
        assert ring.claim(self.orders, 1)
        self.orders.slots[int(ring.next_slot(self.orders))] = row[0]
        ring.publish(self.orders)
        return self.number

    def said(self):
        """Name what risk was told: (kind, order id)."""
        return [(int(one["kind"]), int(one["order_id"])) for one in self.told]

    def journaled(self):
        """List the reports that were journaled."""
        payloads = [one[journal.HEADER.itemsize :] for kind, _, one in self.records if kind == journal.REPORT_SEEN]
        return [np.frombuffer(one, m.REPORT)[0] for one in payloads]

    def wait(self, kind, order_id):
        """Go on until risk was told this; give the report."""
        self.until(lambda: (kind, order_id) in self.said(), f"{kind} of {order_id}")
        return self.told[self.said().index((kind, order_id))]

    def state(self, order_id):
        """Name the state of an order's slot."""
        found = np.flatnonzero(self.pool.slots["order_id"] == order_id)
        return o.STATES[self.pool.slots["state"][found[0]]]

    def taken(self):
        return int(pool.used(self.pool))

    def reason(self, report):
        return m.REASONS[report["reason"]]

    def age(self, order_id, seconds):
        """Let an order have been sent, and asked about, longer ago."""
        slot = self.session._orders.find(order_id)
        self.pool.slots["time_ns"][slot] -= seconds * 1_000_000_000
        for name in ("sent_ns", "ask_ns"):
            self.venue.sent[name][slot] -= seconds * 1_000_000_000

    def filled(self, order_id):
        """Add up the fills of an order that risk was told."""
        return sum(
            int(one["last_quantity"]) for one in self.told if (one["kind"], one["order_id"]) == (m.FILL, order_id)
        )

    def close(self):
        (close,) = self.setup.closes
        close()


def tables_of(rig):
    """Give the instruments of a simulator."""
    tables, errors = read_instruments(rig.simulator.config.file.parent / "instruments.toml", [])
    assert not errors
    return tables


@contextlib.contextmanager
def rigs(exchange, **fixed):
    """Give what makes rigs, ready to trade with an exchange; when it ends they are closed and the exchange cleared."""
    made = []

    def make(**options):
        made.append(OrdersRig(exchange.url, exchange.tables, **fixed, **options))
        return made[-1].ready()

    yield make
    for one in made:
        one.close()
    exchange.clear()
