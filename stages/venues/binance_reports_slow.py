"""Binance's WebSocket API, the strict slow path: what the compiled scanner does not recognise, decided here.

This is the authority on what an answer or an account event means. Keys may come in any order and keys that are not
known are passed over; numbers are exact from text to integer. What cannot be read is never guessed at: an answer to a
request of ours then is an unknown outcome of that request, and anything else is refused with one line that says why.

Sources: Binance WebSocket API, trading requests, errors, user data stream; the protocol sheet's outcome classes.
"""

from __future__ import annotations

from typing import Any

from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import Answers
from shrivenq.stages.venues.binance_events_slow import (
    ID_MAX,
    OVER,
    STATUSES,
    Desk,
    integer,
    one_of,
    read_event,
    side_of,
    time_ns,
)
from shrivenq.stages.venues.binance_slow import Refused, _field, _parse, _short
from shrivenq.stages.venues.request_ids import read_id_slow

__all__ = ["Refused", "decode_slow"]


_UNSAID = {
    m.NEW: m.REJECTED,
    m.CANCEL: m.CANCEL_REJECTED,
    m.REPLACE: m.CANCEL_REJECTED,
    m.CANCEL_ALL: m.CANCEL_REJECTED,
    m.AMEND: m.AMEND_REJECTED,
}
_TEXTS = (
    ("Account has insufficient balance for requested action.", "insufficient_balance"),
    ("Order would immediately match and take.", "would_take"),
    ("Order would trigger immediately.", "would_trigger"),
    ("Unknown order sent.", "unknown_order"),
    ("Duplicate order sent.", "duplicate"),
    ("Market is closed.", "not_tradable"),
)
_FILTERS = (
    ("PRICE_FILTER", "tick_size"),
    ("LOT_SIZE", "step_size"),
    ("MARKET_LOT_SIZE", "step_size"),
    ("NOTIONAL", "notional_range"),
    ("MIN_NOTIONAL", "notional_range"),
    ("PERCENT_PRICE", "price_collar"),
    ("MAX_NUM_", "open_orders"),
    ("EXCHANGE_MAX_NUM_", "open_orders"),
    ("MAX_POSITION", "position"),
)


def decode_slow(frame: bytes, answers: Answers, reports: Any, notes: Any) -> tuple[int, int, str]:
    """Decode `frame` into `reports` and `notes`; return how many, and what was wrong with an answer, "" for nothing.

    Arguments are those of `binance_reports.scan`, with REPORTS_MAX rows and NOTES_MAX notes. Raises Refused.
    """
    message = _parse(frame)
    desk = Desk(answers, reports, notes)
    complaint = ""
    if "event" in message:
        read_event(desk, _field(message, "event", dict, ""))
    elif "status" in message and "id" in message:
        complaint = _read_answer(desk, message)
    else:
        raise Refused(f"{_short(sorted(message))}: an answer or an event expected")
    return desk.rows, desk.count, complaint


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_answer(desk: Desk, message: dict[str, Any]) -> str:
    """Read an answer; return what is wrong with it: its request's outcome is unknown then."""
    status = integer(message, "status")
    kind, row, order_id, target_id = read_id_slow(message["id"])
    ours = kind != 0 and row < len(desk.answers.instruments) and desk.answers.symbols.table[row]["length"] != 0
    if ours:
        desk.note(a.ANSWER, kind, row, status=status, order_id=order_id, target_id=target_id)
    elif status not in (401, 418, 429):
        desk.note(a.OTHER, status=status)
    complaint = ""
    if ours:
        try:
            request = _Request(kind, row, order_id, target_id)
            if status == 200:
                _RESULTS[kind](desk, request, message)
            else:
                _read_error(desk, request, status, message)
        except Refused as refused:
            complaint = f"answer {message['id']}: {refused}"
            desk.rows = 0
            _unknown(desk, _Request(kind, row, order_id, target_id))
    _read_standing(desk, status, message)
    rates = message.get("rateLimits")
    for one in rates if type(rates) is list else []:
        _read_rate(desk, one)
    return complaint


class _Request:
    """What an answer's id says of its request; of a QUERY or TRADES `order_id` becomes the order asked about."""

    def __init__(self, kind: int, row: int, order_id: int, target_id: int) -> None:
        self.kind, self.row, self.target_id = kind, row, target_id
        self.order_id = target_id if kind in (m.QUERY, m.TRADES) else order_id


def _unknown(desk: Desk, request: _Request) -> None:
    if request.kind not in (m.CANCEL_ALL, m.TRADES):
        desk.row(m.UNKNOWN, request.order_id, request.target_id, request.row, "venue_error")


def _read_standing(desk: Desk, status: int, message: dict[str, Any]) -> None:
    """Note what the venue thinks of us."""
    if status == 401:
        desk.note(a.REVOKED, status=status)
    if status not in (418, 429):
        return
    error = message.get("error")
    data = error.get("data") if type(error) is dict else None
    try:
        until_ns = time_ns(data, "retryAfter") if type(data) is dict else 0
    except Refused:
        until_ns = 0
    desk.note(a.BANNED if status == 418 else a.THROTTLED, status=status, until_ns=until_ns)


def _read_rate(desk: Desk, one: Any) -> None:
    """Note a limit; one that cannot be read changes nothing about the answer it came with."""
    if type(one) is not dict:
        return
    kind, interval = a.LIMITS.get(str(one.get("rateLimitType"))), a.INTERVALS_NS.get(str(one.get("interval")))
    if not kind or not interval:
        return
    try:
        number, limit, count = (integer(one, key) for key in ("intervalNum", "limit", "count"))
    except Refused:
        return
    if 0 < number <= 1_000:
        desk.note(a.RATE, kind, interval_ns=interval * number, limit=limit, count=count)


def _read_placed(desk: Desk, request: _Request, result: dict[str, Any], kind: int) -> None:
    """Read ACK, RESULT or FULL of a new order."""
    if desk.instrument(result, "symbol") != request.row:
        raise Refused(f"symbol is {_short(result['symbol'])}: not the request's")
    own = desk.own_id(_field(result, "clientOrderId", str, ""))
    if own != request.order_id or own == 0:
        raise Refused(f"clientOrderId is {_short(result['clientOrderId'])}: not the request's")
    target_id = request.target_id if kind == m.REPLACED else 0
    known = {"venue_order_id": integer(result, "orderId", 1), "venue_ns": time_ns(result, "transactTime")}
    desk.row(kind, own, target_id, request.row, "none", **known)
    side = {"side": side_of(result, "side")} if "side" in result else {}
    filled = 0
    for one in _field(result, "fills", list, "") if "fills" in result else []:
        if type(one) is not dict:
            raise Refused(f"fills holds {_short(one)}: an object expected")
        filled += _read_trade(desk, request, one, ("qty", "tradeId"), {**known, **side}, filled)
    status = one_of(result, "status", STATUSES) if "status" in result else "NEW"
    if status in OVER:
        reason = "self_trade" if status == "EXPIRED_IN_MATCH" else "unfilled" if status == "EXPIRED" else "venue"
        desk.row(OVER[status], own, own, request.row, reason, **known, **side)


def _read_trade(
    desk: Desk, request: _Request, one: dict[str, Any], keys: tuple[str, str], known: dict[str, int], filled: int
) -> int:
    """Read a fill of `fills` or of myTrades; return its quantity."""
    quantity, price = desk.quantity(one, keys[0], request.row), desk.price(one, "price", request.row)
    if quantity == 0 or price == 0:
        raise Refused("a trade of nothing: price and qty are more than 0")
    fee, currency = desk.fee(one, "commission", "commissionAsset", request.row)
    found = desk.row(m.FILL, request.order_id, 0, request.row, "none", **known, filled=filled + quantity)
    found["trade_id"] = integer(one, keys[1])
    found["last_price"], found["last_quantity"] = price, quantity
    found["fee"], found["fee_currency"] = fee, currency
    found["flags"] = m.MAKER if one.get("isMaker") is True else 0
    return quantity


def _read_gone(desk: Desk, request: _Request, result: dict[str, Any], order_id: int) -> None:
    """Read the result of a cancel; `order_id` is the request, 0 for none of its own."""
    row = desk.instrument(result, "symbol")
    own = desk.own_id(_field(result, "origClientOrderId", str, ""))
    if row != request.row:
        raise Refused(f"symbol is {_short(result['symbol'])}: not the request's")
    if order_id and (own != request.target_id or own == 0):
        raise Refused(f"origClientOrderId is {_short(result['origClientOrderId'])}: not the order that was meant")
    one_of(result, "status", ("CANCELED",))
    quantity, filled = desk.quantity(result, "origQty", row), desk.quantity(result, "executedQty", row)
    if filled > quantity:
        raise Refused(f"executedQty is {result['executedQty']}: more than origQty")
    found = desk.row(m.CANCELLED, order_id or own, own, row, "by_request", filled=filled, quantity=quantity)
    found["venue_order_id"], found["venue_ns"] = integer(result, "orderId", 1), time_ns(result, "transactTime")
    found["side"], found["price"] = side_of(result, "side"), desk.price(result, "price", row)


def _on_new(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    _read_placed(desk, request, _field(message, "result", dict, ""), m.ACCEPTED)


def _on_cancel(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    _read_gone(desk, request, _field(message, "result", dict, ""), request.order_id)


def _on_replace(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    result = _field(message, "result", dict, "")
    one_of(result, "cancelResult", ("SUCCESS",))
    one_of(result, "newOrderResult", ("SUCCESS",))
    _read_gone(desk, request, _field(result, "cancelResponse", dict, ""), request.order_id)
    # One report closes the one and opens the other; what is filled is the one's.
    desk.rows -= 1
    at, filled = desk.rows, int(desk.reports[desk.rows]["filled"])
    _read_placed(desk, request, _field(result, "newOrderResponse", dict, ""), m.REPLACED)
    desk.reports[at]["filled"] = filled


def _on_amend(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    result = _field(message, "result", dict, "")
    order = _field(result, "amendedOrder", dict, "")
    row = request.row
    if (
        desk.instrument(order, "symbol") != row
        or desk.own_id(_field(order, "clientOrderId", str, "")) != request.target_id
    ):
        raise Refused("amendedOrder is not the order that was meant")
    prevented = desk.quantity(order, "preventedQty", row) if "preventedQty" in order else 0
    quantity, filled = desk.quantity(order, "qty", row) - prevented, desk.quantity(order, "executedQty", row)
    if filled > quantity:
        raise Refused(f"executedQty is {order['executedQty']}: more than is left of qty")
    found = desk.row(m.AMENDED, request.order_id, request.target_id, row, "by_request", filled=filled)
    found["venue_order_id"], found["venue_ns"] = integer(order, "orderId", 1), time_ns(result, "transactTime")
    found["quantity"], found["leaves"] = quantity, quantity - filled
    found["side"], found["price"] = side_of(order, "side"), desk.price(order, "price", row)


def _on_cancel_all(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    for one in _field(message, "result", list, ""):
        if type(one) is not dict:
            raise Refused(f"result holds {_short(one)}: an object expected")
        for order in one["orderReports"] if type(one.get("orderReports")) is list else [one]:
            if type(order) is not dict:
                raise Refused(f"orderReports holds {_short(order)}: an object expected")
            _read_gone(desk, request, order, 0)


def _on_query(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    """Tell where an order stands; its fills are a TRADES request's, if `filled` is more than what is known."""
    result = _field(message, "result", dict, "")
    row, own = request.row, request.order_id
    if desk.instrument(result, "symbol") != row:
        raise Refused(f"symbol is {_short(result['symbol'])}: not the request's")
    status = one_of(result, "status", STATUSES)
    prevented = desk.quantity(result, "preventedQuantity", row) if "preventedQuantity" in result else 0
    quantity, filled = desk.quantity(result, "origQty", row) - prevented, desk.quantity(result, "executedQty", row)
    if filled > quantity:
        raise Refused(f"executedQty is {result['executedQty']}: more than is left of origQty")
    kind = OVER.get(status, m.ACCEPTED)
    reason = {"CANCELED": "by_request", "EXPIRED": "unfilled", "EXPIRED_IN_MATCH": "self_trade"}.get(status, "none")
    target = own if kind in (m.CANCELLED, m.EXPIRED) else 0
    found = desk.row(kind, own, target, row, reason, filled=filled, quantity=quantity)
    found["venue_order_id"] = integer(result, "orderId", 1)
    found["venue_ns"] = time_ns(result, "updateTime") if "updateTime" in result else 0
    found["side"], found["price"] = side_of(result, "side"), desk.price(result, "price", row)
    found["leaves"] = quantity - filled if kind == m.ACCEPTED else 0


def _on_trades(desk: Desk, request: _Request, message: dict[str, Any]) -> None:
    filled = 0
    for one in _field(message, "result", list, ""):
        if type(one) is not dict or desk.instrument(one, "symbol") != request.row:
            raise Refused(f"result holds {_short(one)}: a trade of the request's symbol expected")
        side = m.BUY if _field(one, "isBuyer", bool, "") else m.SELL
        known = {"venue_order_id": integer(one, "orderId", 1), "venue_ns": time_ns(one, "time"), "side": side}
        filled += _read_trade(desk, request, one, ("qty", "id"), known, filled)


_RESULTS = {
    m.NEW: _on_new,
    m.CANCEL: _on_cancel,
    m.REPLACE: _on_replace,
    m.AMEND: _on_amend,
    m.CANCEL_ALL: _on_cancel_all,
    m.QUERY: _on_query,
    m.TRADES: _on_trades,
}

# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_definite(kind: int, status: int, code: int) -> bool:
    if status >= 500:
        return False
    if status in (401, 418, 429) or (code == -2038 and kind == m.AMEND):
        return True
    return code in (-1013, -1015, -1021, -1022, -2010, -2011, -2013, -2014, -2015) or -1199 <= code <= -1100


def _reason(status: int, code: int, text: str) -> str:
    """Name the reason for a definite refusal."""
    if status == 418:
        return "banned"
    if status == 429 or code == -1015:
        return "venue_rate"
    if status == 401 or code in (-1022, -2014, -2015):
        return "unauthorized"
    named = {-1021: "clock", -2013: "unknown_order", -1121: "unknown_instrument"}
    if code in named:
        return named[code]
    if code in (-2010, -2011):
        return next((reason for beginning, reason in _TEXTS if text.startswith(beginning)), "venue")
    if code == -1013 and text.startswith("Filter failure: "):
        rest = text.removeprefix("Filter failure: ")
        return next((reason for beginning, reason in _FILTERS if rest.startswith(beginning)), "venue")
    return "malformed" if -1199 <= code <= -1100 else "venue"


def _failure(error: dict[str, Any]) -> tuple[int, str]:
    """Read code and text of an error."""
    code: int = _field(error, "code", int, "error.")
    if not -ID_MAX <= code < 0:
        raise Refused(f"error.code is {_short(code)}: a negative number expected")
    return code, _field(error, "msg", str, "error.")


def _read_error(desk: Desk, request: _Request, status: int, message: dict[str, Any]) -> None:
    if not 400 <= status < 600:
        raise Refused(f"status is {status}: 200, or 400 to 599 expected")
    error = _field(message, "error", dict, "")
    code, text = _failure(error)
    desk.notes[desk.count - 1]["code"] = code
    data = error.get("data")
    if request.kind == m.REPLACE and status < 500 and type(data) is dict and "cancelResult" in data:
        _read_halves(desk, request, data)
        return
    row, own, target_id = request.row, request.order_id, request.target_id
    if request.kind == m.QUERY and status < 500 and code == -2013:
        desk.row(m.ABSENT, own, target_id, row, "unknown_order")
    elif request.kind in _UNSAID and _is_definite(request.kind, status, code):
        desk.row(_UNSAID[request.kind], own, target_id, row, _reason(status, code, text))
    else:
        _unknown(desk, request)


def _read_halves(desk: Desk, request: _Request, data: dict[str, Any]) -> None:
    """Read what became of the two halves of a cancelReplace that did not go through whole."""
    row, own, target_id = request.row, request.order_id, request.target_id
    gone = one_of(data, "cancelResult", ("SUCCESS", "FAILURE"))
    placed = one_of(data, "newOrderResult", ("SUCCESS", "FAILURE", "NOT_ATTEMPTED"))
    failed = []
    for result, key in ((gone, "cancelResponse"), (placed, "newOrderResponse")):
        code, text = _failure(_field(data, key, dict, "")) if result == "FAILURE" else (0, "")
        failed.append((result == "FAILURE", _is_definite(request.kind, 400, code), _reason(400, code, text)))
    (kept, surely_kept, kept_reason), (refused, surely_refused, refused_reason) = failed
    if (kept and not surely_kept) or (gone == "SUCCESS" and placed == "NOT_ATTEMPTED"):
        _unknown(desk, request)
    elif kept and placed == "SUCCESS":
        _read_placed(desk, request, _field(data, "newOrderResponse", dict, ""), m.ACCEPTED)
        desk.row(m.CANCEL_REJECTED, 0, target_id, row, kept_reason)
    elif kept and (not refused or surely_refused):
        desk.row(m.CANCEL_REJECTED, own, target_id, row, kept_reason)
    elif kept:
        desk.row(m.CANCEL_REJECTED, 0, target_id, row, kept_reason)
        desk.row(m.UNKNOWN, own, 0, row, "venue_error")
    else:
        _read_gone(desk, request, _field(data, "cancelResponse", dict, ""), own)
        if refused and surely_refused:
            desk.row(m.REJECTED, own, 0, row, refused_reason)
        elif refused:
            desk.row(m.UNKNOWN, own, 0, row, "venue_error")
        else:
            raise Refused("both halves went through, and it is an error")
