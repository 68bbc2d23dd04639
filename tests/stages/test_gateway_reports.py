"""What the venue says: states, fills counted once, races, replacements, rings that are full."""

from __future__ import annotations

import pytest

from shrivenq.stages import control, gateway_state, journal
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from tests.stages.gateway_rig import GatewayRig
from tests.stages.venue_rig import drain

A, F, C, RJ, E, CR, RP = m.ACCEPTED, m.FILL, m.CANCELLED, m.REJECTED, m.EXPIRED, m.CANCEL_REJECTED, m.REPLACED


@pytest.fixture
def rig():
    return GatewayRig()


def test_the_slot_is_back_before_risk_hears_of_the_end(rig):
    order = rig.send()
    rig.answer(F, order, last_quantity=10, last_price=1000)
    assert rig.taken() == 0
    (report,) = drain(rig.reports)
    assert report["flags"] & m.FINAL
    assert (report["filled"], report["leaves"]) == (10, 0)


def test_fill_before_acknowledgement(rig):
    order = rig.send()
    rig.answer(F, order, last_quantity=4)
    rig.answer(A, order, venue_order_id=3)
    assert rig.state(order) == "partly_filled"
    rig.answer(F, order, last_quantity=6)
    rig.answer(A, order, venue_order_id=3)  # late: nobody is told
    assert rig.said() == [(F, order), (A, order), (F, order)]
    assert rig.context.words[gateway_state.UNMATCHED] == 1


def test_fill_after_cancel_was_sent(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=3)
    cancel = rig.send(m.CANCEL, target_id=order)
    assert rig.state(order) == "cancel_sent"
    rig.answer(F, order, last_quantity=4)
    assert rig.state(order) == "cancel_sent"
    rig.answer(C, cancel, order)
    report = drain(rig.reports)[-1]
    assert (report["kind"], report["order_id"], report["target_id"], report["filled"]) == (C, cancel, order, 4)
    assert report["flags"] & m.FINAL
    assert rig.taken() == 0


def test_cancel_loses_the_race(rig):
    order = rig.send()
    cancel = rig.send(m.CANCEL, target_id=order)
    rig.answer(F, order, last_quantity=10)
    rig.answer(CR, cancel, order)
    reports = drain(rig.reports)
    assert [(int(one["kind"]), int(one["order_id"]), int(one["slot"])) for one in reports] == [
        (F, order, 0),
        (CR, cancel, -1),
    ]


@pytest.mark.parametrize(
    ("first", "state"), [((), "sent"), (((A, 0),), "accepted"), (((A, 0), (F, 4)), "partly_filled")]
)
def test_a_refused_cancel_restores_the_state(rig, first, state):
    order = rig.send()
    for kind, quantity in first:
        rig.answer(kind, order, venue_order_id=9, last_quantity=quantity)
    rig.answer(CR, rig.send(m.CANCEL, target_id=order), order)
    assert rig.state(order) == state
    assert not drain(rig.reports)[-1]["flags"] & m.FINAL


def test_repeated_fills_count_once(rig):
    order = rig.send()
    for trade_id in (1, 1, 2, 1, 2):
        rig.answer(F, order, last_quantity=3, trade_id=trade_id)
    assert rig.said() == [(F, order)] * 2
    assert rig.context.words[gateway_state.REPEATED_FILLS] == 3
    assert rig.pool.slots["filled"][0] == 6


def test_a_fill_that_is_older_than_its_order_counts_and_kills(rig):
    """Trades are numbered anew: the venue is another, and what was looked at says nothing about its trades."""
    rig.answer(m.LOOKED, 0, trade_id=1_000)
    order = rig.send(quantity=10)
    rig.answer(m.ACCEPTED, order, venue_order_id=1)
    for _ in range(2):
        rig.answer(m.FILL, order, trade_id=3, last_quantity=4, last_price=1000)
    assert rig.said() == [(m.ACCEPTED, order), (m.FILL, order)]
    assert control.kill_level(rig.kill) == control.HALT


def test_a_fill_of_an_order_that_is_over_still_moves_the_position(rig):
    order = rig.send()
    rig.answer(C, order, order)
    rig.answer(F, order, last_quantity=4, price=1000, side=m.BUY)
    report = drain(rig.reports)[-1]
    assert (report["kind"], report["slot"], report["last_quantity"]) == (F, -1, 4)
    assert rig.context.words[gateway_state.UNMATCHED] == 1


def test_replace(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=3)
    successor = rig.send(m.REPLACE, target_id=order, price=990, quantity=6)
    assert (rig.state(order), rig.state(successor)) == ("cancel_sent", "sent")
    rig.answer(RP, successor, order, venue_order_id=4)
    report = drain(rig.reports)[-1]
    assert (report["kind"], report["order_id"], report["target_id"]) == (RP, successor, order)
    assert (report["venue_order_id"], report["price"], report["leaves"]) == (4, 990, 6)
    assert not report["flags"] & m.FINAL
    assert (rig.state(order), rig.state(successor)) == ("replaced", "accepted")
    assert rig.taken() == 1


def test_a_replaced_order_is_not_over_before_its_last_fill(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=3)
    successor = rig.send(m.REPLACE, target_id=order, price=990, quantity=6)
    rig.said()
    rig.answer(RP, successor, order, venue_order_id=4, filled=7)
    assert rig.said() == [(A, successor)]
    assert (rig.state(order), rig.state(successor), rig.taken()) == ("cancel_sent", "accepted", 2)
    assert rig.pool.slots["venue_order_id"][rig.pool.slots["order_id"] == successor].tolist() == [4]
    rig.answer(F, order, last_quantity=7, last_price=1000)
    assert rig.said() == [(F, order)]
    # Nobody says again that it is gone: it is asked about.
    rig.sent()
    rig.later(1001)
    rig.step()
    assert rig.sent() == [(m.QUERY, order, order)]
    rig.answer(C, order, order, filled=7)
    assert (rig.state(order), rig.taken()) == ("cancelled", 1)


def test_replace_that_finds_nothing(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=3)
    successor = rig.send(m.REPLACE, target_id=order)
    rig.answer(CR, successor, order)
    report = drain(rig.reports)[-1]
    assert (report["kind"], report["order_id"], bool(report["flags"] & m.FINAL)) == (CR, successor, True)
    assert (rig.state(order), rig.state(successor)) == ("accepted", "rejected")
    assert rig.taken() == 1


def test_replace_whose_order_is_refused(rig):
    order = rig.send()
    successor = rig.send(m.REPLACE, target_id=order)
    rig.answer(C, successor, order)
    rig.answer(RJ, successor)
    assert rig.said() == [(C, successor), (RJ, successor)]
    assert rig.taken() == 0


def amended(rig):
    """Amend an accepted order from 10 to 6; the ids of both."""
    order = rig.send(quantity=10)
    rig.answer(A, order, venue_order_id=3, quantity=10)
    amend = rig.send(m.AMEND, target_id=order, quantity=6)
    drain(rig.reports)
    return order, amend


def test_an_amendment_is_told_once_however_often_the_venue_says_it(rig):
    for first in ("answer", "event"):
        order, amend = amended(rig)
        for named in (amend, order) if first == "answer" else (order, amend):
            rig.answer(m.AMENDED, named, order, venue_order_id=3, quantity=6, reason=m.REASON["by_request"])
        (report,) = drain(rig.reports)
        assert (report["order_id"], report["target_id"], report["kind"]) == (amend, order, m.AMENDED), first
        assert (report["quantity"], report["leaves"], report["flags"] & m.FINAL) == (6, 6, 0)
        assert rig.state(order) == "accepted"
        rig.answer(F, order, last_quantity=6)
        (report,) = drain(rig.reports)
        assert (report["leaves"], bool(report["flags"] & m.FINAL)) == (0, True)
    assert not rig.context.illegal.any()


def test_a_refused_amendment_leaves_the_order_as_it_was(rig):
    order, amend = amended(rig)
    rig.answer(m.AMEND_REJECTED, amend, order, reason=m.REASON["venue"])
    (report,) = drain(rig.reports)
    assert (report["kind"], report["order_id"], report["quantity"]) == (m.AMEND_REJECTED, amend, 10)
    assert rig.state(order) == "accepted"
    rig.answer(C, rig.send(m.CANCEL, target_id=order), order)
    rig.answer(m.AMEND_REJECTED, amend, order)  # late: of an order that is over
    report = drain(rig.reports)[-1]
    assert (report["slot"], report["target_id"]) == (-1, order)


def test_a_refused_amendment_may_be_named_by_its_order(rig):
    order, amend = amended(rig)
    rig.answer(m.AMEND_REJECTED, order, order, reason=m.REASON["venue"])
    (report,) = drain(rig.reports)
    assert (report["kind"], report["order_id"], report["target_id"]) == (m.AMEND_REJECTED, amend, order)
    assert rig.state(order) == "accepted"


def test_an_amendment_to_what_is_filled_already_ends_the_order(rig):
    order, amend = amended(rig)
    rig.answer(F, order, last_quantity=6)
    rig.answer(m.AMENDED, amend, order, quantity=6)
    rig.answer(E, order, order)  # the venue's event of the same
    fill, report = drain(rig.reports)
    assert not fill["flags"] & m.FINAL
    assert (report["kind"], report["leaves"], bool(report["flags"] & m.FINAL)) == (m.AMENDED, 0, True)
    assert (rig.state(order), rig.taken()) == ("filled", 0)


@pytest.mark.parametrize("quantity", [6, 10])
def test_an_unanswered_amendment_is_resolved_by_where_the_order_stands(rig, quantity):
    order, amend = amended(rig)
    rig.later(1001)
    rig.step()
    assert rig.state(order) == "unknown"
    assert rig.sent()[-1] == (m.QUERY, order, order)
    rig.answer(A, order, venue_order_id=3, quantity=quantity)
    _, report = drain(rig.reports)
    assert rig.state(order) == "accepted"
    if quantity == 6:
        assert (report["kind"], report["order_id"], report["target_id"]) == (m.AMENDED, amend, order)
    else:
        assert (report["kind"], report["order_id"]) == (A, order)
    assert (report["quantity"], report["leaves"]) == (quantity, quantity)


def test_an_unheard_amendment_of_an_order_that_was_filled_since(rig):
    order, _ = amended(rig)
    rig.answer(F, order, last_quantity=6)
    rig.later(1001)
    rig.step()
    rig.answer(A, order, venue_order_id=3, quantity=6, filled=6)  # where it stands: nothing is left of six
    report = drain(rig.reports)[-1]
    assert (report["kind"], report["leaves"], bool(report["flags"] & m.FINAL)) == (m.AMENDED, 0, True)
    assert rig.taken() == 0


@pytest.mark.parametrize("pending", [None, m.CANCEL, m.AMEND])
def test_self_trade_prevention_takes_a_part_and_answers_nothing(rig, pending):
    order = rig.send(quantity=10)
    rig.answer(A, order, venue_order_id=3)
    request = rig.send(pending, target_id=order, quantity=6) if pending else 0
    drain(rig.reports)
    for _ in range(2):
        rig.answer(m.AMENDED, order, order, venue_order_id=3, quantity=6, reason=m.REASON["self_trade"])
    (report,) = drain(rig.reports)
    assert (report["kind"], report["order_id"], report["leaves"]) == (m.AMENDED, order, 6)
    assert rig.state(order) == ("cancel_sent" if pending else "accepted")
    if pending == m.AMEND:
        rig.answer(m.AMEND_REJECTED, request, order)
    rig.answer(F, order, last_quantity=6)
    assert rig.taken() == 0


def test_the_answer_to_an_earlier_request_does_not_end_the_wait_for_a_later_one(rig):
    order, amend = amended(rig)
    cancel = rig.send(m.CANCEL, target_id=order)
    rig.answer(m.AMENDED, amend, order, venue_order_id=3, quantity=6)
    assert rig.state(order) == "cancel_sent"
    other, amend = amended(rig)
    rig.send(m.CANCEL, target_id=other)
    rig.answer(m.AMEND_REJECTED, amend, other)
    assert rig.state(other) == "cancel_sent"
    rig.answer(C, cancel, order)
    rig.sent()
    rig.later(1001)
    rig.step()
    assert rig.sent() == [(m.QUERY, other, other)]


def test_a_late_acceptance_does_not_undo_an_amendment(rig):
    order = rig.send(quantity=10)
    amend = rig.send(m.AMEND, target_id=order, quantity=6)
    rig.answer(m.AMENDED, amend, order, venue_order_id=3, quantity=6)
    rig.answer(A, order, venue_order_id=3, quantity=10)
    assert [int(one["leaves"]) for one in drain(rig.reports)] == [6, 6]
    assert rig.pool.slots["quantity"][0] == 6


def test_a_refused_cancel_all_restores_every_order(rig):
    first, second = rig.send(), rig.send()
    rig.answer(A, first, venue_order_id=3)
    rig.answer(A, second, venue_order_id=4)
    request = rig.send(m.CANCEL_ALL)
    third = rig.send(m.NEW)
    rig.answer(CR, request, 0, reason=m.REASON["disconnected"])
    assert [rig.state(one) for one in (first, second, third)] == ["accepted", "accepted", "sent"]
    report = drain(rig.reports)[-1]
    assert (report["kind"], report["order_id"], report["target_id"], report["slot"]) == (CR, request, 0, -1)
    assert not rig.context.illegal.any()


def test_orders_are_asked_about_where_a_cancel_all_finds_none(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=3)
    rig.answer(CR, rig.send(m.CANCEL_ALL), 0, reason=m.REASON["unknown_order"])
    assert rig.state(order) == "cancel_sent"
    rig.sent()
    rig.later(1001)
    rig.step()
    assert rig.sent() == [(m.QUERY, order, order)]


def test_amended_of_an_order_that_is_over_is_not_passed_on(rig):
    order, amend = amended(rig)
    rig.answer(C, order, order)
    rig.answer(m.AMENDED, amend, order, quantity=6)
    assert rig.said() == [(C, order)]
    assert rig.context.words[gateway_state.UNMATCHED] == 1


def test_illegal_reports_are_counted_and_not_passed_on(rig):
    order = rig.send()
    rig.answer(A, order, venue_order_id=3)
    rig.answer(RJ, order)
    rig.answer(RP, 12345, 54321)
    assert rig.said() == [(A, order)]
    assert rig.context.illegal[o.ACCEPTED, o.REJECT] == 1
    assert rig.state(order) == "accepted"


@pytest.mark.parametrize(
    ("answer", "state"), [(m.ABSENT, "rejected"), (RJ, "rejected"), (E, "expired"), (C, "cancelled"), (F, "filled")]
)
def test_unknown_resolved(rig, answer, state):
    order = rig.send()
    rig.later(1001)
    rig.step()
    rig.answer(answer, order, order, last_quantity=10)
    assert rig.state(order) == state
    report = drain(rig.reports)[-1]
    assert report["kind"] == (RJ if answer == m.ABSENT else answer)
    assert report["flags"] & m.FINAL
    assert rig.taken() == 0


def test_what_the_venue_cannot_tell_is_unknown_at_once_and_asked_about_in_time(rig):
    order = rig.send()
    rig.sent()
    rig.answer(m.UNKNOWN, order, reason=m.REASON["venue_error"])
    assert (rig.said(), rig.sent(), rig.state(order)) == ([(m.UNKNOWN, order)], [], "unknown")
    rig.later(1001)
    rig.step()
    assert (rig.said(), rig.sent()) == ([], [(m.QUERY, order, order)])
    rig.answer(A, order, venue_order_id=8)
    rig.said()
    rig.answer(m.UNKNOWN, order, reason=m.REASON["venue_error"])  # an old answer: it is known by now
    assert (rig.said(), rig.state(order)) == ([], "accepted")


def test_a_full_report_ring_stops_the_reading_and_loses_nothing():
    rig = GatewayRig(report_count=2)
    orders = [rig.send() for _ in range(5)]
    for order in orders:
        rig.answer(A, order, venue_order_id=order)
    told = rig.said()
    assert len(told) == 2
    while len(told) < 5:
        rig.step()
        told += rig.said()
    assert told == [(A, order) for order in orders]
    assert [kind for kind, _ in rig.journaled()] == [journal.ORDER_SENT] * 5 + [journal.REPORT_SEEN] * 5
