"""The pipeline's own compiled codecs against the simulator's FIX, which is built on another library.

Random orders go in as `stages/venues/fix.py` writes them; what comes back is read by `stages/venues/fix_reports.py`,
and by `stages/venues/binance_reports.py` from the WebSocket API's events about the same orders: the REPORTs are the
same.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from shrivenq.pipeline.exchange.types import NewOrder
from shrivenq.pipeline.keys import parse_key
from shrivenq.pipeline.signing import fix_logon
from shrivenq.shm.kernel import COMPILED
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import binance_reports, fix, fix_reports
from shrivenq.stages.venues.binance_reports_slow import decode_slow
from tests.pipeline.exchange.exchange_rig import ED25519_PEM
from tests.pipeline.exchange.fix_rig import Desk, DeskClient, time_text
from tests.pipeline.exchange.ws_api_rig import ALICE
from tests.stages.venues.binance_answers import RUN, make_currencies, make_instruments, padded

STEPS = 250 if COMPILED else 40
INSTRUMENTS = make_instruments()
CURRENCIES = make_currencies()
CURRENCIES["decimals"] = 8
RUN_BYTES = np.frombuffer(RUN, np.uint8)
ANSWERS = a.make_answers(INSTRUMENTS, CURRENCIES, RUN_BYTES)
TYPES = (m.LIMIT, m.LIMIT, m.LIMIT, m.LIMIT_MAKER, m.MARKET, m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT_LIMIT)
UNIT = 1_000
"""A step of BTCUSDT, in the quantities of our table."""


class Pipeline:
    """A FIX session as the gateway has one, and what it was told."""

    def __init__(self, desk):
        self.desk = desk
        self.client = DeskClient(desk, "GATEWAY")
        self.session = fix.make_session("GATEWAY", 30)
        self.buffer = np.zeros(fix.MESSAGE_MAX, np.uint8)
        key = parse_key(
            f'environment = "simulator"\npurpose = "trade"\napi_key = "{ALICE}"\nprivate_key = """\n{ED25519_PEM}"""\n',
            "a test's key",
        )
        self.take(fix_logon(key, "GATEWAY", time_text(desk.now_us() * 1000), message_handling=1))

    def take(self, data):
        """Send bytes; give the REPORTs and notes that come back, each with the MsgType it came in."""
        self.client.desk.run(self.client._take, data)
        found = []
        for raw in self.client.socket.sent:
            array = np.frombuffer(raw + b"\x01" * 64, np.uint8)
            assert fix_reports.frame(array, 0, len(raw)) == len(raw), raw
            reports, notes = np.zeros(2, m.REPORT), np.zeros(2, a.NOTE)
            now_ns = self.desk.now_us() * 1000
            rows, count = fix_reports.scan(array, 0, len(raw), ANSWERS, self.session, now_ns, reports, notes)
            assert rows >= 0, raw
            found += [(raw, row) for row in reports[:rows]] + [(raw, note) for note in notes[:count]]
        self.client.socket.sent.clear()
        return found

    def send(self, **fields):
        """Send what one ORDER asks for."""
        order = np.zeros(1, m.ORDER)
        for name, value in fields.items():
            order[0][name] = value
        now_ns = self.desk.now_us() * 1000
        begin, end = fix.encode(order, 0, INSTRUMENTS, RUN_BYTES, self.session, now_ns, self.buffer)
        assert end > begin, fields
        return self.take(self.buffer[begin:end].tobytes())


def events_of(client):
    """Give the REPORTs of a WebSocket API connection; what the fast reader leaves to the slow one, that one reads."""
    found = []
    for frame in client.sent:
        reports, notes = np.zeros(4, m.REPORT), np.zeros(16, a.NOTE)
        rows, _ = binance_reports.scan(padded(frame), 0, len(frame), ANSWERS, reports, notes)
        if rows < 0:
            rows, _, complaint = decode_slow(frame, ANSWERS, reports, notes)
            assert complaint == "", frame
        found += list(reports[:rows])
    client.sent.clear()
    return found


def random_terms(rng):
    return {
        "side": rng.choice([m.BUY, m.SELL]),
        "order_type": rng.choice(TYPES),
        "time_in_force": rng.choice([m.GTC, m.GTC, m.GTC, m.IOC, m.FOK]),
        "price": rng.randint(95_00, 105_00),
        "stop_price": rng.randint(90_00, 110_00),
        "quantity": rng.randint(10_000, 300_000) * UNIT,
        "self_trade": rng.choice([0, 0, 0, 1, 2, 3, 4, 5, 6]),
    }


def random_step(rng, pipeline, number, ours):
    """Ask for something; give what came back."""
    order_id = 3 << 40 | number
    what = rng.random()
    target = rng.choice(ours) if ours else None
    about = {"order_id": order_id, "instrument": 0}
    if target is not None:
        about["target_id"] = target[0]
        about["venue_order_id"] = rng.choice([0, target[1]])
    if target is None or what < 0.6:
        return pipeline.send(kind=m.NEW, order_id=order_id, instrument=0, **random_terms(rng))
    if what < 0.75:
        return pipeline.send(kind=m.CANCEL, **about)
    if what < 0.85:
        return pipeline.send(kind=m.REPLACE, **about, **random_terms(rng))
    if what < 0.97:
        return pipeline.send(kind=m.AMEND, **about, quantity=rng.randint(10_000, 200_000) * UNIT)
    return pipeline.send(kind=m.CANCEL_ALL, order_id=order_id, instrument=0)


def shown(row):
    """Give a REPORT as what it says."""
    return {name: row[name].item() for name in m.REPORT.names}


def stranger_trades(rng, desk):
    """Have another account place an order."""
    order = NewOrder(
        symbol="BTCUSDT",
        side=rng.choice(["BUY", "SELL"]),
        type="LIMIT",
        time_in_force="GTC",
        price=rng.randint(95_00, 105_00),
        quantity=rng.randint(10_000, 300_000),
    )
    desk.venue.engine.place(2, order, desk.now_us())
    desk.venue.drain()


def check_against_the_engine(desk, ours, last, seed):
    """Check that the last report about each order is how the engine has it."""
    for _, venue_id in ours:
        order = desk.rig.engine.order(1, "BTCUSDT", order_id=venue_id)
        row = last[venue_id]
        assert row["filled"] == order.executed * UNIT, f"seed {seed}: {order}"
        assert row["leaves"] == order.leaves * UNIT, f"seed {seed}: {order}"
        assert bool(row["flags"] & m.FINAL) is not order.is_open, f"seed {seed}: {order}"


@pytest.mark.parametrize("seed", range(3))
def test_what_fix_tells_is_what_the_websocket_api_tells(seed):
    rng, seen, ours, last = random.Random(seed), Counter(), [], {}
    with Desk(orders=100_000) as desk:
        pipeline = Pipeline(desk)
        api = desk.rig.client(ALICE, micros=True, follow=True)
        api.sent.clear()
        for number in range(1, STEPS + 1):
            stranger_trades(rng, desk)
            told = pipeline.take(b"") + random_step(rng, pipeline, number, ours)
            desk.seconds += 0.01
            reports = [row for raw, row in told if b"\x0135=8\x01" in raw and b"\x0117=" in raw]
            events = [row for row in events_of(api) if row["kind"] != m.REJECTED]  # in FIX that is its answer
            for report, event in itertools.zip_longest(reports, events):
                assert shown(report) == shown(event), f"seed {seed}, step {number}"
            for row in reports:
                if row["kind"] == m.ACCEPTED and row["order_id"]:
                    ours.append((int(row["order_id"]), int(row["venue_order_id"])))
                last[int(row["venue_order_id"])] = row
                seen[int(row["kind"])] += 1
            for _, row in told:
                seen["refused"] += row.dtype == m.REPORT and int(row["kind"]) in (m.REJECTED, m.CANCEL_REJECTED)
        check_against_the_engine(desk, ours, last, seed)
    for kind in (m.ACCEPTED, m.FILL, m.CANCELLED, m.EXPIRED, "refused", *((m.AMENDED,) if COMPILED else ())):
        assert seen[kind], (kind, seen)
