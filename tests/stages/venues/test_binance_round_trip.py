"""Orders as they are encoded, served by the exchange simulator, and its answers as they are scanned."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from shrivenq.stages import messages as m
from shrivenq.stages import token_bucket
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_orders import ORDER_TEXT_MAX, encode
from tests.pipeline.exchange.ws_api_rig import ALICE, CAROL, LIMIT, SYMBOL, Rig
from tests.stages.venues.binance_answers import fast, slow

RUN = np.frombuffer(b"a1b2c3d4", np.uint8)
EPOCH = 3 << m.EPOCH_SHIFT


def make_instruments():
    instruments = np.zeros(1, m.INSTRUMENT)
    instruments["symbol"], instruments["price_decimals"], instruments["quantity_decimals"] = b"BTCUSDT", 2, 8
    instruments["quote_currency"] = instruments["settle_currency"] = 1
    return instruments


def make_answers():
    currencies = np.zeros(2, m.CURRENCY)
    currencies["code"], currencies["decimals"] = [b"BTC", b"USDT"], 8
    return a.make_answers(make_instruments(), currencies, RUN)


class Gateway:
    """One session: sends what the encoder makes, keeps what the scanner reads."""

    def __init__(self, rig, micros=False):
        self.client = rig.client(ALICE, follow=True, micros=micros)
        self.answers, self.instruments = make_answers(), make_instruments()
        self.number = EPOCH
        self.missed = []
        self.notes = []
        # What is compiled at the first order takes longer than its time is good for.
        encode(np.zeros(1, m.ORDER), 0, self.instruments, RUN, 0, np.zeros(ORDER_TEXT_MAX, np.uint8))
        early = rig.client(CAROL)
        for method in ("order.place", "openOrders.cancelAll"):
            early.ask(method, LIMIT if method == "order.place" else {"symbol": "BTCUSDT"})

    def send(self, kind=m.NEW, **fields):
        """Send a request; give the rows of its answer, then those of the events, and keep the notes."""
        self.number += 1
        order = np.zeros(1, m.ORDER)
        row = {"kind": kind, "order_id": self.number, "side": m.BUY, "order_type": m.LIMIT, "time_in_force": m.GTC}
        for name, value in {**row, "price": 100_00, "quantity": 10**8, **fields}.items():
            order[name] = value
        buffer = np.zeros(ORDER_TEXT_MAX, np.uint8)
        now = self.client.venue.now_us() // 1000
        count = encode(order, 0, self.instruments, RUN, now, buffer)
        assert count > 0
        asyncio.run(self.client.connection.take(buffer[:count].tobytes().decode()))
        return self.read()

    def read(self):
        """Read what came: (kind, order, target) of each row."""
        rows = []
        for frame in self.client.sent:
            found = fast(frame, self.answers)
            reports, notes, complaint = slow(frame, self.answers)
            assert complaint == ""
            if found is None:
                self.missed.append(frame)
            else:
                assert [list(one) for one in found] == [list(reports), list(notes)], frame
            rows += list(reports.copy())
            self.notes += list(notes.copy())
        self.client.sent.clear()
        self.rows = rows
        return [(int(row["kind"]), int(row["order_id"]), int(row["target_id"])) for row in rows]


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture(params=[False, True], ids=["ms", "us"])
def gateway(rig, request):
    return Gateway(rig, request.param)


def test_placing_and_cancelling(gateway):
    assert gateway.send() == [(m.ACCEPTED, gateway.number, 0)] * 2
    order, first = gateway.number, gateway.rows[0]
    assert first["venue_order_id"] == gateway.rows[1]["venue_order_id"] > 0
    assert gateway.send(m.CANCEL, target_id=order) == [(m.CANCELLED, gateway.number, order)] * 2
    assert gateway.send(m.CANCEL, target_id=order) == [(m.CANCEL_REJECTED, gateway.number, order)]
    assert m.REASONS[gateway.rows[0]["reason"]] == "unknown_order"
    gateway.send()
    order, venue_id = gateway.number, int(gateway.rows[0]["venue_order_id"])
    cancelled = gateway.send(m.CANCEL, target_id=order, venue_order_id=venue_id)
    assert cancelled == [(m.CANCELLED, gateway.number, order)] * 2
    assert gateway.missed == []


def test_replacing(rig, gateway):
    gateway.send()
    old = gateway.number
    found = gateway.send(m.REPLACE, target_id=old, price=101_00)
    new = gateway.number
    assert found == [(m.REPLACED, new, old), (m.CANCELLED, old, old), (m.ACCEPTED, new, 0)]
    assert gateway.missed == []
    assert gateway.send(m.REPLACE, target_id=old, price=102_00) == [(m.CANCEL_REJECTED, gateway.number, old)]
    # The cancel goes through, the new order does not.
    rig.client(CAROL).result("order.place", {**LIMIT, "side": "SELL", "price": "105"})
    found = gateway.send(m.REPLACE, target_id=new, price=106_00, order_type=m.LIMIT_MAKER)
    assert found[:2] == [(m.CANCELLED, gateway.number, new), (m.REJECTED, gateway.number, 0)]
    assert m.REASONS[gateway.rows[1]["reason"]] == "would_take"


def test_amending(gateway):
    gateway.send()
    order = gateway.number
    found = gateway.send(m.AMEND, target_id=order, quantity=4 * 10**7)
    assert found == [(m.AMENDED, gateway.number, order), (m.AMENDED, order, order)]
    assert [int(row["quantity"]) for row in gateway.rows] == [4 * 10**7] * 2
    assert gateway.send(m.AMEND, target_id=order, quantity=9 * 10**8)[0][0] in (m.AMEND_REJECTED, m.UNKNOWN)
    assert gateway.send(m.CANCEL, target_id=order)[0] == (m.CANCELLED, gateway.number, order)


def test_fills_and_asking(rig, gateway):
    other = rig.client(CAROL)
    other.result("order.place", {**LIMIT, "side": "SELL", "quantity": "0.4"})
    other.result("order.place", {**LIMIT, "side": "SELL", "quantity": "0.2", "price": "100.5"})
    found = gateway.send(time_in_force=m.IOC)
    order = gateway.number
    assert found[0] == (m.ACCEPTED, order, 0)
    assert (m.FILL, order, 0) in found
    assert found[-1][0] == m.EXPIRED
    assert m.REASONS[gateway.rows[-1]["reason"]] == "unfilled"
    fill = next(row for row in gateway.rows if row["kind"] == m.FILL)
    assert (fill["last_price"], fill["last_quantity"], fill["filled"], fill["leaves"]) == (
        100_00,
        4 * 10**7,
        4 * 10**7,
        6 * 10**7,
    )
    assert fill["fee"] > 0
    balances = {int(note["what"]) for note in gateway.notes if note["kind"] == a.BALANCE}
    assert balances == {0, 1}
    assert gateway.missed == []
    assert gateway.send(m.QUERY, target_id=order) == [(m.EXPIRED, order, order)]
    assert gateway.rows[0]["filled"] == 4 * 10**7
    venue_id = int(fill["venue_order_id"])
    assert gateway.send(m.TRADES, target_id=order, venue_order_id=venue_id) == [(m.FILL, order, 0)]
    told = gateway.rows[0]
    for name in ("trade_id", "last_price", "last_quantity", "fee", "fee_currency", "flags", "venue_order_id"):
        assert told[name] == fill[name], name
    assert gateway.send(m.QUERY, target_id=EPOCH + 999) == [(m.ABSENT, EPOCH + 999, EPOCH + 999)]


def test_a_resting_order_is_filled_whole(rig, gateway):
    gateway.send(order_type=m.LIMIT_MAKER)
    order = gateway.number
    rig.client(CAROL).result("order.place", {**LIMIT, "side": "SELL", "quantity": "1"})
    assert gateway.read() == [(m.FILL, order, 0)]
    assert gateway.rows[0]["flags"] == m.MAKER | m.FINAL


def test_refusals(rig, gateway):
    rig.client(CAROL).result("order.place", {**LIMIT, "side": "SELL"})
    for fields, reason in (
        ({"order_type": m.LIMIT_MAKER}, "would_take"),
        ({"quantity": 10**8 * 99_999}, "insufficient_balance"),
        ({"quantity": 1}, "malformed"),
        ({"price": 300_000_00}, "tick_size"),
    ):
        found = gateway.send(**fields)
        assert found[0] == (m.REJECTED, gateway.number, 0)
        assert m.REASONS[gateway.rows[0]["reason"]] == reason, fields
    assert gateway.missed == []


@pytest.mark.parametrize("order_type", [m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT])
def test_stop_orders_wait(rig, gateway, order_type):
    other = rig.client(CAROL)
    other.result("order.place", {**LIMIT, "side": "SELL", "price": "100"})
    other.result("order.place", {**LIMIT, "side": "BUY", "price": "100", "selfTradePreventionMode": "NONE"})
    rises = order_type in (m.STOP_LOSS, m.STOP_LOSS_LIMIT)
    found = gateway.send(order_type=order_type, stop_price=110_00 if rises else 90_00)
    assert found == [(m.ACCEPTED, gateway.number, 0)] * 2
    order = gateway.number
    assert gateway.send(m.CANCEL, target_id=order)[0] == (m.CANCELLED, gateway.number, order)


def test_cancelling_all(gateway):
    orders = [gateway.send()[0][1] for _ in range(3)]
    found = gateway.send(m.CANCEL_ALL)
    assert sorted(set(found)) == [(m.CANCELLED, order, order) for order in orders]
    assert len(found) == 6
    assert gateway.send(m.CANCEL_ALL) == [(m.CANCEL_REJECTED, gateway.number, 0)]  # nothing is open
    assert [int(note["code"]) for note in gateway.notes if note["kind"] == a.ANSWER][-1] == -2011


def test_self_trade_prevention(gateway):
    gateway.send(side=m.SELL)
    resting = gateway.number
    gateway.send(self_trade=m.EXPIRE_MAKER, quantity=5 * 10**7)
    ended = [row for row in gateway.rows if row["order_id"] == resting]
    assert [int(row["kind"]) for row in ended] == [m.EXPIRED]
    assert m.REASONS[ended[0]["reason"]] == "self_trade"


def test_limits_are_followed():
    gateway, buckets, sent = Gateway(Rig(orders=20)), token_bucket.make_buckets(), 0
    for _ in range(60):
        now_ns = gateway.client.venue.now_us() * 1000
        if token_bucket.take(buckets, m.NEW, now_ns) != token_bucket.PASS:
            continue
        sent += 1
        assert gateway.send(quantity=10**7)[0][0] == m.ACCEPTED
        token_bucket.hear(buckets, np.array(gateway.notes, a.NOTE), len(gateway.notes), now_ns)
        gateway.notes.clear()
    # 70 % of 20 in the ten seconds, and of the next ten should they have begun.
    assert 14 <= sent <= 28


def test_a_venue_that_is_not_heard_answers_with_429():
    gateway, buckets = Gateway(Rig(orders=20)), token_bucket.make_buckets()
    kinds = [gateway.send(quantity=10**7)[0][0] for _ in range(45)]
    assert m.REJECTED in kinds
    throttled = [note for note in gateway.notes if note["kind"] == a.THROTTLED]
    now_ns = gateway.client.venue.now_us() * 1000
    assert throttled
    assert 0 < throttled[0]["until_ns"] - now_ns <= 10 * 10**9
    token_bucket.hear(buckets, np.array(gateway.notes, a.NOTE), len(gateway.notes), now_ns)
    assert token_bucket.take(buckets, m.NEW, now_ns) == token_bucket.THROTTLED
    assert token_bucket.take(buckets, m.CANCEL, now_ns) == token_bucket.PASS
    assert gateway.send(m.CANCEL, target_id=EPOCH + 1)[0] == (m.CANCELLED, gateway.number, EPOCH + 1)


@pytest.mark.parametrize("seed", range(3))
def test_random_sessions_leave_nothing_unread(rig, gateway, seed):
    rng = random.Random(seed)
    other = rig.client(CAROL)
    mine = []
    for _ in range(60):
        what = rng.randrange(8)
        price = 100_00 + rng.randrange(-5, 6) * 10
        if what == 0:
            side = rng.choice(["BUY", "SELL"])
            other.ask("order.place", {**LIMIT, "side": side, "price": f"{price / 100}", "quantity": "0.3"})
            gateway.read()
        elif what < 5 or not mine:
            kind, force = rng.choice([m.LIMIT, m.LIMIT, m.LIMIT_MAKER, m.MARKET]), rng.choice([m.GTC, m.IOC, m.FOK])
            side, quantity = rng.choice([m.BUY, m.SELL]), rng.randrange(1, 9) * 10**7
            mine.append(
                gateway.send(order_type=kind, time_in_force=force, side=side, price=price, quantity=quantity)[0][1]
            )
        elif what == 5:
            gateway.send(m.CANCEL, target_id=rng.choice(mine))
        elif what == 6:
            gateway.send(m.REPLACE, target_id=rng.choice(mine), price=price)
            mine.append(gateway.number)
        else:
            gateway.send(m.QUERY, target_id=rng.choice(mine))
        assert all(row["instrument"] == 0 for row in gateway.rows), f"seed {seed}"
    unread = [frame for frame in gateway.missed if b'"event"' in frame]
    assert unread == [], f"seed {seed}"


def test_the_symbol_is_the_simulator_s():
    assert SYMBOL.name.encode() == make_instruments()[0]["symbol"]
