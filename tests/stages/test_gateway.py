"""The gateway: the second line, the kill word, unknown outcomes, the journal, recovery."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.shm import pool, ring
from shrivenq.stages import control, gateway, gateway_state, journal, stage
from shrivenq.stages import messages as m
from tests.stages.gateway_rig import LIMITS, GatewayRig
from tests.stages.venue_rig import VenueRig, drain, instruments_of, push

A, F, C, RJ, E, CR, RP = m.ACCEPTED, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED, m.CANCEL_REJECTED, m.REPLACED


@pytest.fixture
def rig():
    return GatewayRig()


def test_an_order_goes_out_journaled_encoded_and_stamped(rig):
    order = rig.send(price=1010, quantity=14)
    assert rig.sent() == [(m.NEW, order, 0)]
    text = bytes(rig.context.text).split(b"\0")[0]
    assert text.startswith(b'{"id":"N000%016x%016x","method":"order.place"' % (order, 0))
    assert b'"newClientOrderId":"f00d-1-1"' in text
    assert b'"symbol":"SYM0"' in text
    assert b'"price":"101"' in text
    assert b'"quantity":"0.14"' in text
    ((kind, payload),) = rig.journaled()
    assert kind == journal.ORDER_SENT
    assert np.frombuffer(payload, m.ORDER)["order_id"][0] == order
    assert rig.state(order) == "sent"
    rig.answer(A, order, venue_order_id=7)
    (report,) = drain(rig.reports)
    assert (report["kind"], report["venue_order_id"], report["price"], report["quantity"]) == (A, 7, 1010, 14)
    assert (report["leaves"], report["slot"], report["wire_ns"], report["cause"]) == (14, 0, 11, 5)
    assert 0 < report["ready_ns"] <= report["sent_ns"] <= report["acknowledged_ns"]
    assert rig.state(order) == "accepted"
    ((kind, payload),) = rig.journaled()
    assert kind == journal.REPORT_SEEN
    assert payload[8:] == report.tobytes()[8:]  # but for its position in the ring


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quantity": 10_002}, "second_line"),
        ({"quantity": 0}, "second_line"),
        ({"price": 90}, "second_line"),
        ({"price": 10_010}, "second_line"),
        ({"instrument": 3}, "second_line"),
        ({"generation": 99}, "no_slot"),
        ({"slot": 40}, "no_slot"),
        ({"kind": m.QUERY, "slot": -1}, "malformed"),
    ],
)
def test_the_second_line(rig, change, reason):
    order = rig.send(**change)
    assert rig.sent() == []
    (report,) = drain(rig.reports)
    assert (report["kind"], report["order_id"], m.REASONS[report["reason"]]) == (m.DENIED, order, reason)
    if reason == "second_line":
        assert report["flags"] & m.FINAL
        assert rig.taken() == 0
    assert [kind for kind, _ in rig.journaled()] == [journal.REPORT_SEEN]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"order_type": m.STOP_LOSS, "price": 0, "stop_price": 1010}, None),
        ({"order_type": m.STOP_LOSS, "price": 0, "stop_price": 90}, "second_line"),
        ({"order_type": m.TAKE_PROFIT_LIMIT, "price": 1010, "stop_price": 10_010}, "second_line"),
        ({"order_type": m.TAKE_PROFIT_LIMIT, "price": 90, "stop_price": 1010}, "second_line"),
        ({"order_type": 9}, "second_line"),
        ({"self_trade": 9}, "malformed"),
    ],
)
def test_the_second_line_looks_at_stop_prices(rig, change, reason):
    order = rig.send(**change)
    told = [(int(one["order_id"]), m.REASONS[one["reason"]]) for one in drain(rig.reports)]
    assert told == ([] if reason is None else [(order, reason)])
    assert len(rig.sent()) == (reason is None)


def test_an_amendment_names_the_venue_s_order_and_passes_a_stop(rig):
    order = rig.send(quantity=10)
    rig.answer(A, order, venue_order_id=77)
    rig.kill[control.OPERATOR] = control.HALT
    rig.hold[control.HOLD] = control.RECONCILING
    drain(rig.to_venue)
    amend = rig.send(m.AMEND, target_id=order, quantity=6)
    (sent,) = drain(rig.to_venue)
    assert (sent["kind"], sent["order_id"], sent["venue_order_id"], sent["quantity"]) == (m.AMEND, amend, 77, 6)
    assert b'"order.amend.keepPriority"' in bytes(rig.context.text)
    assert b'"orderId":77' in bytes(rig.context.text)
    assert rig.state(order) == "cancel_sent"
    assert np.frombuffer(rig.journaled()[-1][1], m.ORDER)["venue_order_id"][0] == 77
    cancel = rig.send(m.CANCEL, target_id=order)
    (sent,) = drain(rig.to_venue)
    assert (sent["order_id"], sent["venue_order_id"]) == (cancel, 77)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quantity": 10}, "second_line"),
        ({"quantity": 0}, "second_line"),
        ({"quantity": -2}, "second_line"),
        ({"target_id": 99}, "unknown_order"),
        ({"instrument": 5}, "unknown_order"),
        ({"kind": m.CANCEL_ALL, "instrument": 5}, "second_line"),
        ({"kind": m.CANCEL_ALL, "instrument": -1}, "second_line"),
    ],
)
def test_the_second_line_of_amendments_and_cancel_all(rig, change, reason):
    order = rig.send(quantity=10)
    rig.sent()
    request = rig.send(**({"kind": m.AMEND, "target_id": order, "quantity": 6} | change))
    (report,) = drain(rig.reports)
    assert (report["kind"], report["order_id"], m.REASONS[report["reason"]]) == (m.DENIED, request, reason)
    assert not report["flags"] & m.FINAL
    assert (rig.state(order), rig.taken(), rig.sent()) == ("sent", 1, [])


def test_a_cancel_all_awaits_every_order_of_its_instrument():
    rig = GatewayRig(instruments=instruments_of(2), limits={"SYM0": LIMITS["SYM0"], "SYM1": LIMITS["SYM0"]})
    first, second, other = rig.send(), rig.send(), rig.send(instrument=1)
    rig.answer(A, first, venue_order_id=7)
    rig.sent()
    rig.later(500)
    request = rig.send(m.CANCEL_ALL, price=0, quantity=0, side=0, order_type=0, time_in_force=0)
    assert rig.sent() == [(m.CANCEL_ALL, request, 0)]
    assert b'"openOrders.cancelAll"' in bytes(rig.context.text)
    later = rig.send()
    assert [rig.state(one) for one in (first, second, other, later)] == ["cancel_sent", "cancel_sent", "sent", "sent"]
    rig.answer(C, first, first)
    rig.answer(A, other, venue_order_id=8)
    rig.answer(A, later, venue_order_id=9)
    rig.sent()
    rig.later(1001)
    rig.step()
    assert rig.sent() == [(m.QUERY, second, second)]
    rig.answer(A, second, venue_order_id=10)
    assert rig.state(second) == "accepted"
    assert rig.said() == [(A, first), (C, first), (A, other), (A, later), (m.UNKNOWN, second), (A, second)]


def test_an_id_is_used_once(rig):
    order = rig.send()
    rig.send(order_id=order)
    assert rig.said() == [(m.DENIED, order)]
    rig.answer(A, order, venue_order_id=3)
    assert rig.said() == [(A, order)]
    assert rig.taken() == 1


def test_the_message_rate():
    rig = GatewayRig(orders_max=3, window_ms=100)
    for _ in range(4):
        rig.send()
    assert len(rig.sent()) == 3
    assert [kind for kind, _ in rig.said()] == [m.DENIED]
    rig.send(m.CANCEL, target_id=1)
    rig.send(flags=m.FORCED)
    assert len(rig.sent()) == 2
    rig.later(101)
    rig.send()
    assert len(rig.sent()) == 1


def test_the_kill_word_stops_new_orders_only(rig):
    order = rig.send()
    rig.kill[control.OPERATOR] = control.HALT
    denied = rig.send()
    replaced = rig.send(m.REPLACE, target_id=order)
    reducing = rig.send(flags=m.REDUCING)
    forced = rig.send(flags=m.FORCED)
    cancel = rig.send(m.CANCEL, target_id=order)
    assert [order_id for _, order_id, _ in rig.sent()] == [order, reducing, forced, cancel]
    assert rig.said() == [(m.DENIED, denied), (m.DENIED, replaced)]
    assert rig.loop[stage.KILL_SEEN] == control.HALT + 1
    assert rig.loop[stage.KILL_SEEN_NS] > 0
    kinds = [kind for kind, _ in rig.journaled()]
    assert kinds.count(journal.ORDER_SENT) == 6
    assert kinds.count(journal.REPORT_SEEN) == 2


def test_no_answer_is_unknown_until_the_venue_tells(rig):
    order = rig.send()
    rig.sent()
    rig.later(999)
    rig.step()
    assert rig.said() == []
    rig.later(2)
    rig.step()
    assert rig.said() == [(m.UNKNOWN, order)]
    assert rig.sent() == [(m.QUERY, order, order)]
    assert rig.state(order) == "unknown"
    assert rig.taken() == 1
    rig.later(1001)
    rig.step()
    assert rig.said() == []  # said once, asked again
    assert rig.sent() == [(m.QUERY, order, order)]
    rig.answer(F, order, last_quantity=4)
    rig.answer(A, order, venue_order_id=8)
    assert rig.said() == [(F, order), (A, order)]
    assert rig.state(order) == "partly_filled"
    rig.later(5000)
    rig.step()
    assert rig.sent() == []


def test_orders_that_rest_are_asked_about_one_after_the_other(rig):
    orders = [rig.send() for _ in range(2)]
    for order in orders:
        rig.answer(A, order, venue_order_id=order & 7)
    rig.later(gateway.REST_NS // 10**6 - 5_000)
    rig.step()
    assert rig.sent() == [(m.NEW, order, 0) for order in orders]
    rig.said()
    rig.later(5_000)
    asked = []
    for _ in range(3):
        rig.later(gateway.LOOK_NS // 10**6)
        rig.step()
        rig.step()
        asked += rig.sent()
    assert asked == [(m.QUERY, order, order) for order in (*orders, orders[0])]
    # It rests: risk knows. It is gone: nobody had said so.
    rig.answer(A, orders[0], venue_order_id=orders[0] & 7)
    rig.answer(m.CANCELLED, orders[1], orders[1])
    assert rig.said() == [(m.CANCELLED, orders[1])]
    assert rig.state(orders[0]) == "accepted"
    rig.later(10_000)
    rig.step()
    assert rig.said() == []  # a question about what rests makes nothing unknown


def test_a_cancel_without_answer_is_unknown_too(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=8)
    rig.later(5000)
    rig.send(m.CANCEL, target_id=order)
    rig.later(1001)
    rig.step()
    assert rig.said() == [(A, order), (m.UNKNOWN, order)]
    rig.answer(A, order, venue_order_id=8)
    assert rig.state(order) == "accepted"


def test_the_oldest_unanswered_order_is_asked_about_first(rig):
    ids = []
    for _ in range(5):
        ids.append(rig.send())
        rig.later(100)
    rig.answer(A, ids[1], venue_order_id=1)
    rig.sent()
    rig.later(600)
    rig.step()
    rig.later(150)
    rig.step()
    assert [order for kind, order, _ in rig.sent()] == [ids[0], ids[2]]
    assert [order for kind, order in rig.said() if kind == m.UNKNOWN] == [ids[0], ids[2]]


def test_a_full_journal_denies_and_holds():
    rig = GatewayRig(journal_bytes=1024)
    orders = [rig.send() for _ in range(6)]
    sent = [order for _, order, _ in rig.sent()]
    assert sent == orders[: len(sent)]
    assert 0 < len(sent) < 6
    assert control.held(rig.hold) == control.JOURNAL_LAG
    assert rig.said() == []  # not even the denial is said before it is journaled
    while True:
        rig.journaled()
        if rig.step() == 0 and rig.context.words[gateway_state.PENDING] == 0:
            break
    told = [order for _, order in rig.said()]
    sent += [order for _, order, _ in rig.sent()]
    assert sorted(sent + told) == orders
    assert control.held(rig.hold) == 0, "the hold ends by itself: held, risk lets no order through that could end it"


def test_a_hold_of_one_instrument_stops_its_new_orders_on_their_way_and_no_others():
    limits = {"SYM0": LIMITS["SYM0"], "SYM1": LIMITS["SYM0"]}
    rig = GatewayRig(instruments=instruments_of(2), limits=limits)
    order = rig.send()
    rig.instrument_hold[0] = control.NOT_TRADING
    denied, other = rig.send(), rig.send(instrument=1)
    reducing = rig.send(flags=m.REDUCING)
    cancel = rig.send(m.CANCEL_ALL, target_id=order)
    assert [order_id for _, order_id, _ in rig.sent()] == [order, other, reducing, cancel]
    assert rig.said() == [(m.DENIED, denied)]
    assert rig.context.report[0]["reason"] == m.REASON["not_tradable"]
    rig.instrument_hold[0] = 0
    allowed = rig.send()
    assert [order_id for _, order_id, _ in rig.sent()] == [allowed]


def test_a_hold_stops_new_orders_on_their_way(rig):
    order = rig.send()
    rig.hold[control.HOLD] = control.STAGE_DOWN
    denied = rig.send()
    reducing = rig.send(flags=m.REDUCING)
    cancel = rig.send(m.CANCEL_ALL, target_id=order)
    assert [order_id for _, order_id, _ in rig.sent()] == [order, reducing, cancel]
    assert rig.said() == [(m.DENIED, denied)]
    rig.hold[control.HOLD] = 0
    allowed = rig.send()
    assert [order_id for _, order_id, _ in rig.sent()] == [allowed]


def test_in_replay_our_own_words_go_through_the_venue():
    rig = GatewayRig(virtual=True)
    order = rig.send(quantity=0)
    assert rig.said() == []
    (echo,) = drain(rig.to_venue)
    assert (echo["kind"], echo["echo"], m.REASONS[echo["reason"]]) == (m.ECHO, m.DENIED, "second_line")
    rig.answer(m.DENIED, order, slot=int(echo["slot"]), generation=int(echo["generation"]), reason=int(echo["reason"]))
    (report,) = drain(rig.reports)
    assert (report["kind"], bool(report["flags"] & m.FINAL)) == (m.DENIED, True)
    assert rig.taken() == 0


def test_in_replay_a_full_journal_waits():
    rig = GatewayRig(virtual=True, journal_bytes=1024)
    orders = [rig.send() for _ in range(6)]
    sent = []
    while len(sent) < 6:
        sent += [order for _, order, _ in rig.sent()]
        rig.journaled()
        rig.step()
    assert sent == orders
    assert rig.said() == []


def test_unknown_in_replay_is_said_only_if_it_still_is():
    rig = GatewayRig(virtual=True)
    order = rig.send()
    rig.later(1500)
    rig.send()  # time passes with messages
    sent = drain(rig.to_venue)
    assert [int(one["kind"]) for one in sent] == [m.NEW, m.QUERY, m.ECHO, m.NEW]
    rig.answer(A, order, venue_order_id=3)
    rig.answer(m.UNKNOWN, order)
    assert rig.said() == [(A, order)]


def test_wrong_sequence_stops_the_stage(rig):
    rig.from_venue.slots[0]["sequence"] = 5
    rig.from_venue.own[ring.NEXT] += 1
    ring.publish(rig.from_venue)
    gateway.step(rig.context, rig.loop)
    assert rig.loop[stage.FAULT] == stage.FAULT_SEQUENCE


class Pair:
    """A gateway and the paper venue, joined by hand; whoever dies is built anew."""

    def __init__(self, **latencies):
        self.venue = VenueRig(instruments=instruments_of(), **latencies)
        self.venue.snapshot([(1000 - 10 * i, 20) for i in range(9)], [(1010 + 10 * i, 20) for i in range(9)])
        self.gateway = GatewayRig(virtual=True)
        self.told = []

    def pass_on(self):
        self.gateway.step()
        self.gateway.journaled()
        for one in drain(self.gateway.to_venue):
            fields = {name: one[name] for name in one.dtype.names if name != "sequence"}
            push(self.venue.to_venue, **fields)
        self.venue.step()

    def until(self, time_ns):
        while self.venue.venue[0] <= time_ns:
            for one in self.venue.grant(self.venue.venue[0]):
                fields = {name: one[name] for name in one.dtype.names if name != "sequence"}
                push(self.gateway.from_venue, **fields)
                self.pass_on()
        self.told += list(drain(self.gateway.reports))


@pytest.mark.parametrize("seed", range(3))
def test_every_order_ends_and_every_fill_is_told_once(seed):
    """Random orders, cancels and replaces against the venue: risk's story of each order is the venue's."""
    chance = random.Random(seed)
    pair = Pair(order_us=3, report_us=2)
    desk, venue = pair.gateway, pair.venue
    ids = []
    for _ in range(300):
        venue.now += chance.randrange(4_000)
        pair.until(venue.now)
        desk.now = venue.now
        action = chance.randrange(10)
        side = chance.choice((m.BUY, m.SELL))
        if action <= 2 and desk.taken() < 30:
            fields = {"order_type": chance.choice((1, 3)), "time_in_force": chance.choice((1, 1, 2, 3))}
            fields["self_trade"] = chance.randrange(7)
            ids.append(desk.send(m.NEW, side, 1000 + 10 * chance.randrange(-3, 5), 2 * chance.randrange(9), **fields))
        elif action == 3 and ids:
            desk.send(m.CANCEL, target_id=chance.choice(ids))
        elif action == 4 and ids and desk.taken() < 30:
            ids.append(desk.send(m.REPLACE, side, 1000 + 10 * chance.randrange(-3, 5), 4, target_id=chance.choice(ids)))
        elif action == 5 and ids:
            desk.send(m.AMEND, target_id=chance.choice(ids), quantity=2 * chance.randrange(1, 8))
        elif action == 6 and desk.taken() < 30:
            fields = {"order_type": chance.choice((4, 6)), "stop_price": 1000 + 10 * chance.randrange(-3, 5)}
            ids.append(desk.send(m.NEW, side, 0, 2 * chance.randrange(1, 9), **fields, self_trade=chance.randrange(7)))
        elif action == 7 and chance.random() < 0.1:
            desk.send(m.CANCEL_ALL)
        elif action == 8:
            venue.trade(1000 + 10 * chance.randrange(-2, 4), chance.randrange(1, 40), side)
        else:
            venue.diff(bids=[(1000, chance.randrange(30))], asks=[(1010, chance.randrange(30))])
        pair.pass_on()
    for order in ids:
        desk.send(m.CANCEL, target_id=order, step=False)
        pair.pass_on()
        pair.until(1 << 61)
    assert desk.taken() == 0, f"seed {seed}"
    ends: dict[int, int] = {}
    filled: dict[int, int] = {}
    for one in pair.told:
        order = int(one["target_id"] if one["kind"] in (C, RP, m.AMENDED) else one["order_id"])
        if one["kind"] == F:
            filled[order] = filled.get(order, 0) + int(one["last_quantity"])
        if one["kind"] == RP or one["flags"] & m.FINAL:
            ends[order] = ends.get(order, 0) + 1
    assert ends == dict.fromkeys(ids, 1), f"seed {seed}"
    table = venue.context.market.orders
    assert filled == {int(row["order_id"]): int(row["filled"]) for row in table if row["filled"]}, f"seed {seed}"
    assert desk.context.illegal.sum() == 0, f"seed {seed}"
    assert desk.context.words[gateway_state.REPEATED_FILLS] == 0


def test_a_new_gateway_recovers_what_the_old_one_left():
    pair = Pair()
    old = pair.gateway
    resting = old.send(price=1000, quantity=10)
    gone = old.send(price=990, quantity=10)
    pair.pass_on()
    pair.until(1 << 61)
    pair.venue.send(m.CANCEL, target_id=gone)
    pair.venue.trade(1000, 24, m.SELL)
    pair.venue.settle()  # the old gateway dies and never hears of it
    never_arrived = old.send(price=980, quantity=10)
    unsent = old.send(price=980, quantity=10, step=False)
    assert [old.state(order) for order in (resting, gone, never_arrived, unsent)] == [
        "accepted",
        "accepted",
        "sent",
        "new",
    ]

    new = pair.gateway = GatewayRig(slots=old.pool)
    pair.told = []
    pair.pass_on()
    pair.until(1 << 61)
    story: dict[int, list[str]] = {}
    names = {m.UNKNOWN: "unknown", m.DENIED: "denied", A: "accepted", F: "fill", C: "cancelled", RJ: "rejected"}
    for one in pair.told:
        order = int(one["target_id"] if one["kind"] == C else one["order_id"])
        story.setdefault(order, []).append(names[int(one["kind"])])
    assert story == {
        resting: ["unknown", "fill", "accepted"],
        gone: ["unknown", "cancelled"],
        never_arrived: ["unknown", "rejected"],
        unsent: ["denied"],
    }
    assert new.taken() == 1
    assert new.state(resting) == "partly_filled"
    assert new.pool.slots["filled"][0] == 4
    assert pool.generation_of(new.pool, 0) & 1
