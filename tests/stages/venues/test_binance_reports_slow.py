"""What became of a request: accepted, refused or unknown, in every way the venue can say it."""

from __future__ import annotations

import contextlib
import json
import random

import numpy as np
import pytest

from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_reports_slow import Refused, decode_slow
from tests.hostile_json import mutations
from tests.stages.venues.binance_answers import (
    ANSWERS,
    FRAMES,
    OTHER,
    OWN,
    REQUEST,
    answer,
    compact,
    gone,
    named,
    placed,
    replaced,
    slow,
    spelled,
)

NOT_THERE = {"code": -2011, "msg": "Unknown order sent."}
NO_MONEY = {"code": -2010, "msg": "Account has insufficient balance for requested action."}
SHARE = 0.1
"""Of the hostile messages: all of them take a while."""
SILENT = {"code": -1007, "msg": "Timeout waiting for response from backend server."}


def said(frame):
    """Kinds and ids of the rows of an answer nothing is wrong with."""
    rows, _, complaint = slow(frame)
    assert complaint == ""
    return [(int(row["kind"]), int(row["order_id"]), int(row["target_id"])) for row in rows]


def reason(frame):
    return m.REASONS[slow(frame)[0][0]["reason"]]


def kinds(frame):
    return [int(note["kind"]) for note in slow(frame)[1]]


# ── spelling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FRAMES)
def test_key_order_white_space_escapes_and_new_keys_do_not_matter(name):
    message = json.loads(FRAMES[name])
    expected = slow(FRAMES[name])

    def turned(value):
        if isinstance(value, dict):
            return {"new": [1, {}], **{key: turned(value[key]) for key in reversed(value)}}
        return [turned(one) for one in value] if isinstance(value, list) else value

    for frame in (
        compact(turned(message)),
        json.dumps(message, indent=2).encode(),
        FRAMES[name].replace(b"S", b"\\u0053"),
    ):
        assert [list(one) for one in slow(frame)] == [list(one) for one in expected]


@pytest.mark.parametrize(
    "frame", [b"", b"[]", b"{}", b'{"id":1}', b'{"status":200}', b"\xff", b'{"id":1,"id":1,"status":200}']
)
def test_what_is_neither_answer_nor_event_is_refused(frame):
    with pytest.raises(Refused):
        decode_slow(frame, ANSWERS, None, None)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_answer_tells_of_fills():
    fills = [
        {"price": "100.5", "qty": "0.1", "commission": "0.00001", "commissionAsset": "BTC", "tradeId": 5},
        {"price": "100.6", "qty": "0.2", "commission": "0.1234567", "commissionAsset": "USDT", "tradeId": 6},
        {"price": "100.6", "qty": "0.2", "commission": "0.00002", "commissionAsset": "BNB", "tradeId": 7},
    ]
    full = {**placed(), "side": "BUY", "status": "EXPIRED", "fills": fills}
    frame = answer(m.NEW, result=full, target_id=0)
    ids = (REQUEST, 0)
    assert said(frame) == [(m.ACCEPTED, *ids), *[(m.FILL, *ids)] * 3, (m.EXPIRED, REQUEST, REQUEST)]
    rows = slow(frame)[0][1:4]
    assert list(rows["trade_id"]) == [5, 6, 7]
    assert list(rows["filled"]) == [10_000_000, 30_000_000, 50_000_000]
    assert list(rows["last_price"]) == [10050, 10060, 10060]
    assert list(rows["fee"]) == [1000, 123457, 2000]  # rounded up: USDT has six decimals here
    assert list(rows["fee_currency"]) == [0, 3, -1]
    assert set(rows["side"]) == {m.BUY}


def test_amending():
    order = {
        "symbol": "BTCUSDT", "orderId": 5, "origClientOrderId": spelled(OWN), "clientOrderId": spelled(OWN),
        "price": "6.0", "qty": "5.0", "executedQty": "1.5", "preventedQty": "0.5", "status": "NEW", "side": "BUY",
    }  # fmt: skip
    frame = answer(m.AMEND, result={"transactTime": 1741924229819, "executionId": 60, "amendedOrder": order})
    assert said(frame) == [(m.AMENDED, REQUEST, OWN)]
    row = slow(frame)[0][0]
    assert (row["quantity"], row["filled"], row["leaves"]) == (450_000_000, 150_000_000, 300_000_000)
    refused = answer(m.AMEND, status=400, code=-2038, text="The requested action would change no state; rejecting.")
    assert said(refused) == [(m.AMEND_REJECTED, REQUEST, OWN)]
    assert said(answer(m.AMEND, status=500, code=-1000)) == [(m.UNKNOWN, REQUEST, OWN)]


def test_cancelling_all():
    foreign = {**gone(), "origClientOrderId": "by-hand"}
    result = [gone(), {"orderListId": 1, "orderReports": [gone(OTHER), foreign]}]
    frame = answer(m.CANCEL_ALL, result=result, target_id=0)
    assert said(frame) == [(m.CANCELLED, OWN, OWN), (m.CANCELLED, OTHER, OTHER), (m.CANCELLED, 0, 0)]
    nothing = answer(m.CANCEL_ALL, status=400, code=-2011, text="Unknown order sent.", target_id=0)
    assert said(nothing) == [(m.CANCEL_REJECTED, REQUEST, 0)]
    assert slow(nothing)[1][0]["code"] == -2011
    assert said(answer(m.CANCEL_ALL, status=504, code=-1007)) == []


STATUS = {
    "symbol": "BTCUSDT", "orderId": 5, "clientOrderId": spelled(OWN), "price": "6.0", "origQty": "5.0",
    "executedQty": "1.5", "status": "NEW", "side": "SELL", "updateTime": 1660801715639,
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind", "reason_", "leaves"),
    [
        ("NEW", m.ACCEPTED, "none", 350_000_000),
        ("PARTIALLY_FILLED", m.ACCEPTED, "none", 350_000_000),
        ("FILLED", m.ACCEPTED, "none", 350_000_000),
        ("CANCELED", m.CANCELLED, "by_request", 0),
        ("EXPIRED", m.EXPIRED, "unfilled", 0),
        ("EXPIRED_IN_MATCH", m.EXPIRED, "self_trade", 0),
        ("REJECTED", m.REJECTED, "none", 0),
    ],
)
def test_a_query_tells_where_an_order_stands(status, kind, reason_, leaves):
    frame = answer(m.QUERY, result={**STATUS, "status": status}, order_id=1723161255208)
    assert said(frame) == [(kind, OWN, OWN if kind in (m.CANCELLED, m.EXPIRED) else 0)]
    row = slow(frame)[0][0]
    assert (m.REASONS[row["reason"]], row["filled"], row["leaves"]) == (reason_, 150_000_000, leaves)


def test_a_query_that_failed_says_nothing_unless_the_order_is_not_there():
    assert said(answer(m.QUERY, status=400, code=-2013, text="Order does not exist.")) == [(m.ABSENT, OWN, OWN)]
    for status, code in ((400, -1021), (429, -1003), (500, -2013), (400, -1100)):
        assert said(answer(m.QUERY, status=status, code=code)) == [(m.UNKNOWN, OWN, OWN)]


def test_trades_of_an_order():
    trade = {
        "symbol": "BTCUSDT", "id": 9, "orderId": 5, "price": "6.5", "qty": "1.5", "commission": "0.01",
        "commissionAsset": "USDT", "time": 1660801715793, "isBuyer": False, "isMaker": True,
    }  # fmt: skip
    frame = answer(m.TRADES, result=[trade, {**trade, "id": 10}], order_id=1723161255208)
    assert said(frame) == [(m.FILL, OWN, 0)] * 2
    rows = slow(frame)[0]
    assert list(rows["trade_id"]) == [9, 10]
    assert list(rows["filled"]) == [150_000_000, 300_000_000]
    assert (rows[0]["side"], rows[0]["flags"], rows[0]["fee"]) == (m.SELL, m.MAKER, 10_000)
    assert said(answer(m.TRADES, status=500, code=-1000)) == []


# ── cancelReplace ────────────────────────────────────────────────────────────────────────────────────────────────────


def halves(cancel, new, cancel_response=None, new_response=None):
    return {
        "cancelResult": cancel,
        "newOrderResult": new,
        "cancelResponse": cancel_response,
        "newOrderResponse": new_response,
    }


LOST, KEPT, GONE = ((kind, REQUEST, OWN) for kind in (m.UNKNOWN, m.CANCEL_REJECTED, m.CANCELLED))
PLACED, REFUSED, NEW_LOST = ((kind, REQUEST, 0) for kind in (m.ACCEPTED, m.REJECTED, m.UNKNOWN))
ONLY_KEPT = (m.CANCEL_REJECTED, 0, OWN)


@pytest.mark.parametrize(
    ("status", "code", "data", "expected"),
    [
        (400, -2022, halves("FAILURE", "NOT_ATTEMPTED", NOT_THERE), [KEPT]),
        (400, -2022, halves("FAILURE", "FAILURE", NOT_THERE, NO_MONEY), [KEPT]),
        (409, -2021, halves("SUCCESS", "FAILURE", gone(), NO_MONEY), [GONE, REFUSED]),
        (409, -2021, halves("FAILURE", "SUCCESS", NOT_THERE, placed()), [PLACED, ONLY_KEPT]),
        (429, -1015, halves("SUCCESS", "FAILURE", gone(), NO_MONEY), [GONE, REFUSED]),
        (429, -1015, None, [KEPT]),
        (400, -1102, None, [KEPT]),
        (400, -2021, None, [LOST]),
        (400, -2022, None, [LOST]),
        (400, -2022, halves("FAILURE", "NOT_ATTEMPTED", SILENT), [LOST]),
        (409, -2021, halves("SUCCESS", "FAILURE", gone(), SILENT), [GONE, NEW_LOST]),
        (400, -2022, halves("FAILURE", "FAILURE", NOT_THERE, SILENT), [ONLY_KEPT, NEW_LOST]),
        (409, -2021, halves("SUCCESS", "NOT_ATTEMPTED", gone()), [LOST]),
        (503, -1008, halves("SUCCESS", "FAILURE", gone(), NO_MONEY), [LOST]),
    ],
)
def test_the_rows_of_the_table(status, code, data, expected):
    assert said(answer(m.REPLACE, status=status, code=code, data=data)) == expected


def test_both_halves():
    assert said(answer(m.REPLACE, result=replaced())) == [(m.REPLACED, REQUEST, OWN)]


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code", "text", "expected"),
    [
        (400, -2010, "Account has insufficient balance for requested action.", "insufficient_balance"),
        (400, -2010, "Order would immediately match and take.", "would_take"),
        (400, -2010, "Order would trigger immediately.", "would_trigger"),
        (400, -2010, "Duplicate order sent.", "duplicate"),
        (400, -2010, "Market is closed.", "not_tradable"),
        (400, -2010, "This action is disabled on this account.", "venue"),
        (400, -2010, "", "venue"),
        (400, -2011, "Unknown order sent.", "unknown_order"),
        (400, -1013, "Filter failure: PRICE_FILTER", "tick_size"),
        (400, -1013, "Filter failure: LOT_SIZE", "step_size"),
        (400, -1013, "Filter failure: MARKET_LOT_SIZE", "step_size"),
        (400, -1013, "Filter failure: NOTIONAL", "notional_range"),
        (400, -1013, "Filter failure: MIN_NOTIONAL", "notional_range"),
        (400, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE", "price_collar"),
        (400, -1013, "Filter failure: MAX_NUM_ORDERS", "open_orders"),
        (400, -1013, "Filter failure: EXCHANGE_MAX_NUM_ALGO_ORDERS", "open_orders"),
        (400, -1013, "Filter failure: MAX_POSITION", "position"),
        (400, -1013, "Filter failure: ICEBERG_PARTS", "venue"),
        (400, -1013, "Invalid quantity.", "venue"),
        (400, -1021, "Timestamp for this request is outside of the recvWindow.", "clock"),
        (400, -1022, "Signature for this request is not valid.", "unauthorized"),
        (401, -2015, "Invalid API-key, IP, or permissions for action.", "unauthorized"),
        (400, -1121, "Invalid symbol.", "unknown_instrument"),
        (400, -1111, "Precision is over the maximum defined for this asset.", "malformed"),
        (429, -1015, "Too many new orders.", "venue_rate"),
        (429, -1003, "Too much request weight used.", "venue_rate"),
        (418, -1003, "Way too much request weight used.", "banned"),
    ],
)
def test_reasons(status, code, text, expected):
    frame = answer(m.NEW, status=status, code=code, text=text, target_id=0)
    assert said(frame) == [(m.REJECTED, REQUEST, 0)]
    assert reason(frame) == expected


@pytest.mark.parametrize("code", [-1000, -1001, -1006, -1007, -1008])
@pytest.mark.parametrize("kind", [m.NEW, m.CANCEL, m.REPLACE, m.AMEND])
def test_what_the_venue_cannot_say_is_unknown(kind, code):
    for status in (400, 500, 503, 504):
        assert said(answer(kind, status=status, code=code)) == [(m.UNKNOWN, REQUEST, OWN)]


def test_throttled_banned_and_revoked():
    data = {"serverTime": 1659899999999, "retryAfter": 1660000000000}
    for status, kind in ((429, a.THROTTLED), (418, a.BANNED)):
        frame = answer(m.NEW, status=status, code=-1003, data=data)
        assert kinds(frame) == [a.ANSWER, kind, a.RATE, a.RATE, a.RATE]
        assert slow(frame)[1][1]["until_ns"] == 1660000000000 * 10**6
        for odd in ({}, {"retryAfter": "x"}, {"retryAfter": -1}, {"retryAfter": 2**70}):
            assert slow(answer(m.NEW, status=status, code=-1003, data=odd))[1][1]["until_ns"] == 0
        unnamed = compact({"id": None, "status": status, "error": {"code": -1003, "msg": "", "data": data}})
        assert kinds(unnamed) == [kind]
    revoked = {"id": None, "status": 401, "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions."}}
    assert kinds(compact(revoked)) == [a.REVOKED]
    assert kinds(answer(m.NEW, status=401, code=-2015, rates=None)) == [a.ANSWER, a.REVOKED]


def test_answers_to_others_are_left_to_them():
    assert kinds(compact({"id": "logon", "status": 200, "result": {}, "rateLimits": []})) == [a.OTHER]
    assert kinds(compact({"id": 7, "status": 400, "error": {"code": -1, "msg": ""}})) == [a.OTHER]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"result": None}, "result is None: an object expected"),
        ({"result": {**placed(), "symbol": "ETHBTC"}}, "symbol is ETHBTC: not the request's"),
        ({"result": {**placed(), "clientOrderId": "x"}}, "clientOrderId is x: not the request's"),
        ({"result": {**placed(), "orderId": 0}}, "orderId is 0"),
        ({"result": {**placed(), "orderId": True}}, "orderId is True: an integer expected"),
        ({"result": {**placed(), "transactTime": 10**14 - 1}}, "a time in ms or µs expected"),
        ({"result": {**placed(), "fills": [1]}}, "fills holds 1"),
        ({"result": {**placed(), "fills": [{"qty": "0", "price": "1"}]}}, "a trade of nothing"),
        ({"result": {**placed(), "status": "ODD"}}, "status is ODD"),
        ({"status": 302}, "status is 302: 200, or 400 to 599 expected"),
        ({"status": 400}, "error is missing"),
        ({"status": 400, "error": {"code": 0, "msg": ""}}, "error.code is 0: a negative number expected"),
        ({"status": 400, "error": {"code": -1}}, "error.msg is missing"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_unknown_outcome(change, complaint):
    message = {"id": named(m.NEW, target_id=0), "status": 200, "result": placed(), **change}
    rows, notes, found = slow(compact(message))
    assert complaint in found
    assert found.startswith(f"answer {named(m.NEW, target_id=0)}: ")
    assert [(int(row["kind"]), int(row["order_id"])) for row in rows] == [(m.UNKNOWN, REQUEST)]
    assert notes[0]["kind"] == a.ANSWER


def test_a_limit_that_cannot_be_read_changes_nothing():
    odd = [1, {}, {"rateLimitType": "ORDERS", "interval": "WEEK"}, {"rateLimitType": "ORDERS", "interval": "DAY"}]
    frame = answer(m.NEW, result=placed(), rates=odd, target_id=0)
    assert said(frame) == [(m.ACCEPTED, REQUEST, 0)]
    assert kinds(frame) == [a.ANSWER]


def test_more_than_there_is_room_for():
    many = answer(m.CANCEL_ALL, result=[gone()] * (a.REPORTS_MAX + 1), target_id=0)
    rows, _, complaint = slow(many)
    assert len(rows) == 0
    assert "more than 1024 reports" in complaint


@pytest.mark.parametrize("seed", range(2))
def test_whatever_stands_where_something_else_should_is_read_or_refused(seed):
    """Values of every answer and event, replaced by hostile ones."""
    rng = random.Random(seed)
    reports, notes = np.zeros(8, m.REPORT), np.zeros(16, a.NOTE)
    trade = {
        "symbol": "BTCUSDT", "id": 9, "orderId": 5, "price": "6.5", "qty": "1.5", "commission": "0.01",
        "commissionAsset": "USDT", "time": 1660801715793, "isBuyer": False, "isMaker": True,
    }  # fmt: skip
    more = (
        answer(m.QUERY, result=STATUS, order_id=1723161255208),
        answer(m.TRADES, result=[trade], order_id=1723161255208),
        answer(m.CANCEL_ALL, result=[gone(), {"orderReports": [gone()]}], target_id=0),
        answer(m.REPLACE, status=409, code=-2021, data=halves("SUCCESS", "FAILURE", gone(), NO_MONEY)),
        answer(m.REPLACE, status=409, code=-2021, data=halves("FAILURE", "SUCCESS", NOT_THERE, placed())),
        answer(m.NEW, status=429, code=-1003, data={"serverTime": 1, "retryAfter": 1660000000000}),
    )
    for frame in (*FRAMES.values(), *more):
        for hostile in mutations(json.loads(frame)):
            if rng.random() > SHARE:
                continue
            with contextlib.suppress(Refused):
                decode_slow(compact(hostile), ANSWERS, reports, notes)
