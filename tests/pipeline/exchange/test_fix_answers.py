"""Each answer of the venue becomes the right messages: all five outcomes of a cancel-replace among them."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.fix_answers import answer_to, is_reject
from shrivenq.pipeline.exchange.fix_wire import Message
from shrivenq.pipeline.exchange.venue import Answer

NOW = 1_700_000_000_000_000
FIELDS = [(34, "2"), (49, "T"), (11, "a"), (41, "b"), (37, "7"), (55, "BTCUSDT"), (38, "1"), (40, "2"), (44, "5")]
REFUSED = {"code": -2010, "msg": "Account has insufficient balance for requested action."}
UNKNOWN = {"code": -2011, "msg": "Unknown order sent."}
OLD, NEW = {"orderId": 7}, {"orderId": 8}


def reply(kind, answer, *fields):
    found = answer_to(Message(kind, [*FIELDS, *fields]), answer, NOW)
    shown = [[(kind, dict(fields)) for kind, fields in part] for part in (found.before, found.after)]
    return shown[0], found.reports, shown[1]


@pytest.mark.parametrize(
    ("kind", "body", "reports"),
    [
        ("D", NEW, {(8, "NEW")}),
        ("F", OLD, {(7, "CANCELED")}),
        ("XAK", {"amendedOrder": OLD}, {(7, "REPLACED"), (7, "EXPIRED")}),
        ("XCN", {"cancelResponse": OLD, "newOrderResponse": NEW}, {(7, "CANCELED"), (8, "NEW")}),
    ],
)
def test_what_is_done_is_answered_by_its_report(kind, body, reports):
    assert reply(kind, Answer(200, body)) == ([], reports, [])


def test_cancelling_all():
    before, reports, after = reply("q", Answer(200, [OLD, NEW]), (530, "1"))
    assert before == [("r", {55: "BTCUSDT", 11: "a", 530: "1", 531: "1", 533: "2"})]
    assert (reports, after) == ({(7, "CANCELED"), (8, "CANCELED")}, [])
    listed = {"orderListId": 1, "orderReports": [{"orderId": 9}, {"orderId": 10}]}
    before, reports, after = reply("q", Answer(200, [listed, NEW]), (530, "1"))
    assert (before[0][1][533], reports) == ("3", {(9, "CANCELED"), (10, "CANCELED"), (8, "CANCELED")})
    before, reports, after = reply("q", Answer(400, UNKNOWN), (530, "1"))
    why = {531: "0", 532: "99", 25016: "-2011", 58: UNKNOWN["msg"]}
    assert before == [("r", {55: "BTCUSDT", 11: "a", 530: "1", **why})]
    assert (reports, after) == (set(), [])


def test_an_order_that_is_refused():
    before, reports, after = reply("D", Answer(400, REFUSED))
    ((kind, fields),) = before
    assert (kind, reports, after) == ("8", set(), [])
    assert fields == {
        11: "a", 38: "1", 40: "2", 55: "BTCUSDT", 44: "5", 60: "20231114-22:13:20.000000", 150: "8", 39: "8", 14: "0",
        151: "0", 32: "0", 25016: "-2010", 58: REFUSED["msg"],
    }  # fmt: skip


def test_requests_that_are_refused():
    why = {25016: "-2011", 58: UNKNOWN["msg"]}
    assert reply("F", Answer(400, UNKNOWN)) == (
        [("9", {11: "a", 41: "b", 37: "7", 55: "BTCUSDT", 434: "1", **why})],
        set(),
        [],
    )
    assert reply("XAK", Answer(400, UNKNOWN)) == (
        [("XAR", {11: "a", 41: "b", 37: "7", 55: "BTCUSDT", 38: "1", **why})],
        set(),
        [],
    )


@pytest.mark.parametrize(
    ("cancel", "new", "before", "reports", "after"),
    [
        ("FAILURE", "NOT_ATTEMPTED", ["9"], set(), []),
        ("FAILURE", "FAILURE", ["9"], set(), ["8"]),
        ("SUCCESS", "FAILURE", [], {(7, "CANCELED")}, ["8"]),
        ("FAILURE", "SUCCESS", ["9"], {(8, "NEW")}, []),
    ],
)
def test_halves_of_a_cancel_replace(cancel, new, before, reports, after):
    halves = {
        "cancelResult": cancel,
        "newOrderResult": new,
        "cancelResponse": OLD if cancel == "SUCCESS" else UNKNOWN,
        "newOrderResponse": {"SUCCESS": NEW, "FAILURE": REFUSED, "NOT_ATTEMPTED": None}[new],
    }
    body = {"code": -2022, "msg": "Order cancel-replace failed.", "data": halves}
    found = reply("XCN", Answer(400, body), (25034, "c"))
    assert [kind for kind, _ in found[0]] == before
    assert found[1] == reports
    assert [kind for kind, _ in found[2]] == after
    for kind, fields in found[0] + found[2]:
        assert (fields[11], fields[25016]) == (("c", "-2011") if kind == "9" else ("a", "-2010"))


def test_a_cancel_replace_that_was_not_tried():
    ((kind, fields),), reports, after = reply("XCN", Answer(400, {"code": -1013, "msg": "Filter failure: LOT_SIZE"}))
    assert (kind, fields[11], fields[25016], reports, after) == ("8", "a", "-1013", set(), [])


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(400, -1102, True), (400, -1121, True), (400, -1021, True), (400, -1013, False), (400, -2010, False),
     (429, -1015, False), (504, -1007, False), (409, -2021, False)],
)  # fmt: skip
def test_what_is_wrong_with_a_message_is_a_reject(status, code, expected):
    assert is_reject(Answer(status, {"code": code, "msg": ""})) is expected


def test_an_outcome_nobody_knows_is_told_with_its_code():
    ((kind, fields),), _, _ = reply("D", Answer(504, {"code": -1007, "msg": "Timeout"}))
    assert (kind, fields[25016]) == ("8", "-1007")
