"""Orders by FIX, from risk's side of the gateway to the exchange simulator and back, with and without faults."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive
from shrivenq.stages.live import venue_state as v
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.test_live_venue import Exchange

ONE = 1_00000000


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    limits = {"orders_10s": 10_000, "connections": 10_000, "request_weight": 1_000_000}
    with running(tmp_path_factory.mktemp("exchange"), limits=limits) as rig:
        yield Exchange(rig)


@pytest.fixture
def make(exchange):
    made = []

    def rig(**options):
        url = f"tcp://127.0.0.1:{exchange.rig.fix_port}"
        exchange.rig.call(exchange.rig.simulator.fix._members._logons.clear)  # its limit of connects is not the subject
        made.append(OrdersRig(exchange.url, exchange.tables, order_entry="fix", fix_url=url, **options))
        return made[-1].ready()

    yield rig
    for one in made:
        one.close()
    exchange.clear()


@pytest.fixture
def rig(make):
    return make()


def lost(rig):
    return [fields["reason"] for event, fields in rig.log.lines if event == "fix disconnected"]


def agreed(rig, exchange):
    """Every order is over on our side, or open on both; no fill was counted twice."""
    rig.for_a_while()
    assert rig.taken() == len(exchange.open_orders())
    assert not rig.gateway.illegal.any()
    trades = [int(one["trade_id"]) for one in rig.told if one["kind"] == m.FILL]
    assert len(set(trades)) == len(trades)


def test_orders_are_placed_replaced_filled_and_cancelled(rig, exchange):
    first = rig.send(price=50_00)
    assert rig.wait(m.ACCEPTED, first)["venue_order_id"] > 0
    second = rig.send(m.REPLACE, price=49_00, target_id=first)
    rig.wait(m.ACCEPTED, second)
    exchange.place(exchange.other, "SELL", 49_00, ONE // 4)
    fill = rig.wait(m.FILL, second)
    assert (fill["last_price"], fill["last_quantity"], fill["leaves"]) == (49_00, ONE // 4, ONE * 3 // 4)
    assert fill["flags"] & m.MAKER
    assert fill["fee"] > 0
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=second))
    agreed(rig, exchange)
    assert rig.taken() == 0
    assert rig.venue.words[v.REPEATED] > 0  # each thing is said twice, by FIX and by the account's events
    assert rig.venue.words[v.SENT] == 0
    assert rig.venue.fix.words[v.SENT] == 3
    assert rig.filled(second) == ONE // 4
    assert len(set(rig.said())) == len(rig.said())


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"time_in_force": m.IOC, "quantity": 2 * ONE}, "unfilled"),
        ({"time_in_force": m.FOK, "quantity": 2 * ONE}, "unfilled"),
        ({"order_type": m.MARKET, "price": 0, "quantity": 2 * ONE}, "no_liquidity"),
    ],
    ids=["ioc", "fok", "market"],
)
def test_what_takes_and_expires(rig, exchange, terms, reason):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    taker = rig.send(**{"price": 61_00} | terms)
    assert rig.reason(rig.wait(m.EXPIRED, taker)) == reason
    agreed(rig, exchange)
    assert rig.filled(taker) == (0 if terms.get("time_in_force") == m.FOK else ONE)


def test_the_venue_s_refusals_are_definite_and_logged(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    assert rig.reason(rig.wait(m.REJECTED, rig.send(quantity=1000))) == "notional_range"
    assert rig.reason(rig.wait(m.REJECTED, rig.send(price=60_00, order_type=m.LIMIT_MAKER))) == "would_take"
    assert rig.log.events().count("venue refuses") == 2
    missing = rig.send(m.CANCEL, target_id=rig.number - 1000)
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, missing)) == "unknown_order"
    late = rig.send(m.REPLACE, target_id=rig.number - 1000)
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, late)) == "unknown_order"
    assert rig.taken() == 0
    assert not lost(rig)


def test_a_replacement_that_is_refused_takes_the_old_order_with_it(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    old = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, old)
    new = rig.send(m.REPLACE, price=60_00, order_type=m.LIMIT_MAKER, target_id=old)
    assert rig.reason(rig.wait(m.REJECTED, new)) == "would_take"
    rig.until(lambda: rig.taken() == 0, "the end of both")
    agreed(rig, exchange)


def test_a_report_of_the_account_before_the_one_by_fix(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    exchange.faults({"on": "response", "name": "order.place", "action": "delay", "ms": 60})
    taker = rig.send(price=60_00)
    rig.wait(m.FILL, taker)
    rig.for_a_while(150)
    agreed(rig, exchange)
    assert rig.filled(taker) == ONE


def test_a_message_that_is_missing_ends_the_session_and_nothing_is_lost(make, exchange):
    rig = make(unknown_after_ms=300)
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    # Two messages that never come, and the account's events neither: what happened is found by asking.
    exchange.faults(
        {"on": "response", "name": "order.place", "action": "drop", "times": 1},
        {"on": "event", "action": "drop", "times": 30},
    )
    taker = rig.send(price=60_00)
    rig.wait(m.FILL, taker)
    exchange.faults()
    resting = rig.send(price=40_00, flags=m.FORCED)
    outcomes = {(kind, resting) for kind in (m.ACCEPTED, m.REJECTED, m.DENIED)}
    rig.until(lambda: outcomes & set(rig.said()), "an outcome")
    rig.ready()
    agreed(rig, exchange)
    assert rig.filled(taker) == ONE


def test_a_message_told_twice_ends_the_session_and_counts_once(rig, exchange):
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    exchange.faults({"on": "event", "name": "executionReport", "action": "duplicate", "times": 10})
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    rig.wait(m.FILL, order)
    rig.until(lambda: lost(rig), "the end")
    rig.ready()
    agreed(rig, exchange)
    assert rig.filled(order) == ONE


def test_what_happens_while_the_connection_is_cut_is_learned_by_the_account(rig, exchange):
    filled, resting = rig.send(price=50_00), rig.send(price=30_00)
    rig.wait(m.ACCEPTED, filled)
    rig.wait(m.ACCEPTED, resting)
    exchange.rig.call(exchange.rig.simulator.fix.shut_down)
    exchange.place(exchange.other, "SELL", 50_00, ONE)
    rig.wait(m.FILL, filled)
    rig.until(lambda: lost(rig), "the end")
    rig.ready()
    assert rig.filled(filled) == ONE
    assert rig.state(resting) == "accepted"
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))
    agreed(rig, exchange)


@pytest.mark.parametrize("action", ["drop", "disconnect", "garbage", "giant"])
def test_orders_on_their_way_when_a_session_ends_have_an_outcome(make, exchange, action):
    rig = make(unknown_after_ms=300)
    fault = {"on": "response", "name": "order.place", "action": action, "times": 1}
    exchange.faults(fault | ({"size": 100_000} if action == "giant" else {}))
    orders = [rig.send(price=50_00 + at) for at in range(10)]
    rig.until(lambda: lost(rig), "the end")
    exchange.faults()
    for one in orders:
        if rig.session._orders.find(one) >= 0:
            rig.age(one, 14)  # so long ago that the venue would refuse it
    for one in orders:
        outcomes = {(kind, one) for kind in (m.ACCEPTED, m.REJECTED, m.DENIED)}
        rig.until(lambda outcomes=outcomes: outcomes & set(rig.said()), "an outcome")
    rig.ready()
    agreed(rig, exchange)
    accepted = {number for kind, number in rig.said() if kind == m.ACCEPTED}
    assert len(accepted) == len(exchange.open_orders()) > 0


WRONG = (
    {"on": "response", "action": "drop"},
    {"on": "response", "name": "order.place", "action": "disconnect"},
    {"on": "response", "name": "order.cancel", "action": "garbage"},
    {"on": "event", "name": "executionReport", "action": "duplicate"},
    {"on": "event", "name": "executionReport", "action": "disconnect"},
    {"on": "response", "name": "order.place", "action": "late", "ms": 30},
    {"on": "request", "name": "order.place", "action": "error_placed"},
)


def anything(rig, exchange, generator, sent):
    """Let one thing happen: to our orders, on the other side of the market, or to the connections."""
    what, price = generator.randrange(10), generator.randrange(50_00, 60_00)
    if what < 4:
        sent.append(rig.send(price=price, side=generator.choice((m.BUY, m.SELL))))
    elif what < 6 and sent:
        rig.send(m.CANCEL, target_id=generator.choice(sent))
    elif what < 7 and sent:
        sent.append(rig.send(m.REPLACE, price=price, target_id=generator.choice(sent)))
    elif what < 9:
        exchange.place(exchange.other, generator.choice(("BUY", "SELL")), price, ONE // generator.randint(1, 4))
    elif generator.random() < 0.5:
        exchange.faults(generator.choice(WRONG) | {"times": 1})


@pytest.mark.parametrize("seed", [2, 4])
def test_whatever_goes_wrong_both_sides_agree_in_the_end(make, exchange, seed):
    generator, sent = random.Random(seed), []
    rig = make(unknown_after_ms=150)
    for _ in range(150):
        anything(rig, exchange, generator, sent)
        rig.for_a_while(generator.randrange(6))
        if rig.taken() > 40:
            rig.ready()
    exchange.faults()
    end = f"seed {seed}"

    def settled():
        for slot in rig.session._orders.taken():
            order = rig.pool.slots["order_id"][slot]
            if rig.state(order) == "unknown":
                rig.age(order, 14)  # so long ago that it can arrive no more
        awaited = {"sent", "unknown", "cancel_sent"}
        held = control.held(rig.hold)
        return not held and not awaited & {
            rig.state(one) for one in rig.pool.slots["order_id"][rig.session._orders.taken()]
        }

    rig.until(settled, end)
    rig.for_a_while(100)
    rig.until(settled, end)
    theirs = {
        one.client_id: one
        for one in exchange.rig.call(
            lambda: exchange.rig.venue.engine.all_orders(exchange.trader, "BTCUSDT", limit=100_000)
        )
    }
    placed = [one for one in sent if m.client_order_id(rig.run.tobytes(), one).decode() in theirs]
    assert len(placed) > 10, end
    for one in placed:
        assert rig.filled(one) == theirs[m.client_order_id(rig.run.tobytes(), one).decode()].executed, f"{end}: {one}"
    agreed(rig, exchange)


def test_under_tls_the_same(tmp_path):
    with running(tmp_path, tls={"generate": "tls"}) as found:
        url, secure = found.ws.replace("ws://", "wss://"), f"tcp+tls://127.0.0.1:{found.fix_port}"
        authority = str(tmp_path / "tls" / "authority.pem")
        rig = OrdersRig(url, Exchange(found).tables, order_entry="fix", fix_url=secure, authority=authority).ready()
        orders = [rig.send(price=40_00 + at) for at in range(5)]
        for one in orders:
            rig.wait(m.ACCEPTED, one)
            rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=one))
        assert not lost(rig)
        rig.close()


def test_kill_cancel_leaves_nothing_open(rig, exchange):
    orders = [rig.send(price=50_00 + at) for at in range(10)]
    for one in orders:
        rig.wait(m.ACCEPTED, one)
    control.raise_kill(rig.kill, control.CANCEL)
    assert rig.reason(rig.wait(m.DENIED, rig.send())) == "killed"
    for one in orders:  # as risk does
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=one))
    assert exchange.open_orders() == []
    agreed(rig, exchange)


def test_stops_and_modes_are_understood(rig, exchange):
    exchange.place(exchange.other, "SELL", 60_00, ONE)
    exchange.place(exchange.trader, "BUY", 60_00, ONE)  # a last price; not our order, so the account is looked at again
    rig.wait(m.FILL, 0)
    rig.for_a_while()
    rig.ready()
    for terms in (
        {"order_type": m.STOP_LOSS_LIMIT, "side": m.BUY, "stop_price": 70_00, "price": 71_00},
        {"order_type": m.TAKE_PROFIT_LIMIT, "side": m.BUY, "stop_price": 50_00, "price": 51_00},
        {"self_trade": m.EXPIRE_TAKER, "price": 40_00},
    ):
        order = rig.send(**terms)
        rig.wait(m.ACCEPTED, order)
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
    agreed(rig, exchange)


def test_limits_of_the_account_are_the_venue_s(tmp_path):
    with running(tmp_path, limits={"orders_10s": 10}) as found:
        exchange = Exchange(found)
        url = f"tcp://127.0.0.1:{found.fix_port}"
        rig = OrdersRig(exchange.url, exchange.tables, order_entry="fix", fix_url=url).ready()
        found.stop_clock()
        orders = [rig.send(price=50_00) for _ in range(12)]
        rig.until(lambda: len(rig.told) == 12, "the outcomes")
        kinds = [int(one["kind"]) for one in rig.told]
        assert sorted(kinds) == sorted([m.ACCEPTED] * 7 + [m.REJECTED] * 5)
        for one in orders[:7]:
            rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=one))
        rig.close()


def test_orders_go_on_while_both_connections_are_renewed(rig, exchange):
    orders, fills, events = [], [], rig.log.events
    for turn in range(1, 4):
        rig.session._fix.now.roll_ns = rig.session._connections.roll_ns = 0
        rig.venue.live.words[receive.ATTENTION] = 1
        while min(len(lost(rig)), events().count("the connection before has ended")) < turn:
            order = rig.send(price=50_00)
            rig.wait(m.ACCEPTED, order)
            if len(fills) < turn:
                fills.append(order)
                sold = exchange.place(exchange.other, "SELL", 50_00, ONE // 8)
                assert (sold.error, sold.order.status) == (None, "FILLED"), sold
                rig.until(lambda order=order: rig.filled(order), "the fill")
            rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
            assert control.held(rig.hold) == 0
            orders.append(order)
    assert lost(rig) == ["another session has taken over"] * 3
    assert [rig.filled(one) for one in orders] == [ONE // 8 * (one in fills) for one in orders]
    assert not [one for one in rig.told if one["kind"] in (m.REJECTED, m.DENIED, m.UNKNOWN, m.CANCEL_REJECTED)]
    assert events().count("venue reconciled") == 1
    agreed(rig, exchange)
