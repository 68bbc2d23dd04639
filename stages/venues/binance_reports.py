"""Binance: what the WebSocket API sends back → REPORT rows and notes, compiled.

The scanner knows the venue's own spelling of what comes often: answers to `order.place`, `order.cancel` and
`order.cancelReplace`, errors without details, and account events. It verifies every byte, so that a frame is either
read exactly or not recognised at all; what it does not recognise goes to `binance_reports_slow`, which decides. It
never raises and never reads outside the frame and the PADDING bytes behind it.

An answer of ours is a note ANSWER, the REPORTs that follow from it, and a note RATE for each limit it tells of. An
error is a definite refusal or an unknown outcome, by `refusals`.

Source: Binance WebSocket API, general information and trading requests.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import Answers, put_note, put_row, read_client_id
from shrivenq.stages.venues.binance import _decimal
from shrivenq.stages.venues.binance_events import scan_event
from shrivenq.stages.venues.binance_symbols import read_symbol
from shrivenq.stages.venues.json_values import QUOTE, integer, string_end, time_ns
from shrivenq.stages.venues.refusals import is_definite, reason_of
from shrivenq.stages.venues.request_ids import LENGTH, read_id
from shrivenq.stages.venues.text import PADDING, POWERS, matches

__all__ = ["PADDING", "scan"]

CLOSE = 125

BY_REQUEST, VENUE_ERROR = m.REASON["by_request"], m.REASON["venue_error"]

# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _rate_kind(data: Any, at: int) -> tuple[int, int]:
    """Read the name of a limit; return its number and where its quote ends, (0, -1) for one that is not known."""
    if matches(data, at, 'ORDERS"'):
        return a.ORDERS, at + 7
    if matches(data, at, 'REQUEST_WEIGHT"'):
        return a.WEIGHT, at + 15
    if matches(data, at, 'RAW_REQUESTS"'):
        return a.RAW, at + 13
    if matches(data, at, 'CONNECTIONS"'):
        return a.CONNECTIONS, at + 12
    return 0, -1


@kernel
def _interval(data: Any, at: int) -> tuple[int, int]:
    """Read the name of an interval; return its ns and where its quote ends, (0, -1) for one that is not known."""
    if matches(data, at, 'SECOND"'):
        return 1_000_000_000, at + 7
    if matches(data, at, 'MINUTE"'):
        return 60_000_000_000, at + 7
    if matches(data, at, 'HOUR"'):
        return 3_600_000_000_000, at + 5
    if matches(data, at, 'DAY"'):
        return 86_400_000_000_000, at + 4
    return 0, -1


@kernel
def _rates(data: Any, at: int, stop: int, notes: Any, count: int) -> tuple[int, int]:
    """Read what is between the brackets of `rateLimits`; return the notes there are now and where it ends."""
    while at < stop and matches(data, at, '{"rateLimitType":"'):
        kind, at = _rate_kind(data, at + 18)
        if at < 0 or not matches(data, at, ',"interval":"'):
            return 0, -1
        interval_ns, at = _interval(data, at + 13)
        if at < 0 or not matches(data, at, ',"intervalNum":'):
            return 0, -1
        number, at = integer(data, at + 15, stop)
        if at < 0 or not 0 < number <= 1_000 or not matches(data, at, ',"limit":'):
            return 0, -1
        limit, at = integer(data, at + 9, stop)
        if at < 0 or limit < 0 or not matches(data, at, ',"count":'):
            return 0, -1
        used, at = integer(data, at + 9, stop)
        if at < 0 or used < 0 or not matches(data, at, "}") or count >= min(len(notes), a.NOTES_MAX):
            return 0, -1
        put_note(notes, count, a.RATE, kind, -1)
        notes[count]["interval_ns"], notes[count]["limit"], notes[count]["count"] = interval_ns * number, limit, used
        count += 1
        at += 1
        if not matches(data, at, ",{"):
            break
        at += 1
    return count, at


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _placed(data: Any, at: int, stop: int, answers: Answers, row: int, order_id: int) -> tuple[int, int, int]:
    """Read the ACK of a new order; return the venue's id, its time and where the object ends, or -1 for that."""
    if not matches(data, at, '{"symbol":"'):
        return 0, 0, -1
    _, at = read_symbol(data, at + 11, stop, answers.symbols, row)
    if at < 0 or not matches(data, at, ',"orderId":'):
        return 0, 0, -1
    venue_id, at = integer(data, at + 11, stop)
    if at < 0 or venue_id <= 0 or not matches(data, at, ',"orderListId":-1,"clientOrderId":"'):
        return 0, 0, -1
    end = string_end(data, at + 35, stop)
    if end < 0 or read_client_id(data, at + 35, end - at - 35, answers.run) != order_id or order_id == 0:
        return 0, 0, -1
    if not matches(data, end, '","transactTime":'):
        return 0, 0, -1
    transact, at = integer(data, end + 17, stop)
    venue_ns = time_ns(transact)
    if at < 0 or venue_ns < 0 or data[at] != CLOSE:
        return 0, 0, -1
    return venue_id, venue_ns, at + 1


@inlined
def _named(data: Any, at: int, stop: int, answers: Answers) -> tuple[int, int]:
    """Read a client order id up to its closing quote; return the order id, 0 for a foreign one, and where it ends."""
    end = string_end(data, at, stop)
    if end < 0:
        return 0, -1
    return read_client_id(data, at, end - at, answers.run), end


@kernel
def _word(data: Any, at: int, stop: int) -> int:
    """Pass over a word in quotes, the first of them at `at`; return where it ends, -1 for anything else."""
    end = string_end(data, at + 1, stop) if data[at] == QUOTE else -1
    return end + 1 if end > at + 1 else -1


@kernel
def _quantity(data: Any, at: int, stop: int, decimals: int) -> tuple[int, int]:
    """Read a decimal and the quote that ends it; return it and where that is, (-1, -1) for anything else."""
    value, at = _decimal(data, at, stop, decimals, POWERS[decimals])
    if at < 0 or data[at] != QUOTE:
        return -1, -1
    return value, at


@kernel
def _cancelled(data: Any, at: int, stop: int, answers: Answers, row: int, target_id: int, reports: Any) -> int:
    """Read the result of a cancel into `reports[0]`; return where the object ends, -1 if it is not recognised."""
    price_decimals = answers.instruments[row]["price_decimals"]
    quantity_decimals = answers.instruments[row]["quantity_decimals"]
    if not matches(data, at, '{"symbol":"'):
        return -1
    _, at = read_symbol(data, at + 11, stop, answers.symbols, row)
    if at < 0 or not matches(data, at, ',"origClientOrderId":"'):
        return -1
    own, at = _named(data, at + 22, stop, answers)
    if at < 0 or own != target_id or own == 0 or not matches(data, at, '","orderId":'):
        return -1
    venue_id, at = integer(data, at + 12, stop)
    if at < 0 or venue_id <= 0 or not matches(data, at, ',"orderListId":-1,"clientOrderId":"'):
        return -1
    _, at = _named(data, at + 35, stop, answers)
    if at < 0 or not matches(data, at, '","transactTime":'):
        return -1
    transact, at = integer(data, at + 17, stop)
    venue_ns = time_ns(transact)
    if at < 0 or venue_ns < 0 or not matches(data, at, ',"price":"'):
        return -1
    price, at = _quantity(data, at + 10, stop, price_decimals)
    if at < 0 or not matches(data, at, '","origQty":"'):
        return -1
    quantity, at = _quantity(data, at + 13, stop, quantity_decimals)
    if at < 0 or not matches(data, at, '","executedQty":"'):
        return -1
    filled, at = _quantity(data, at + 17, stop, quantity_decimals)
    if at < 0 or filled > quantity or not matches(data, at, '","origQuoteOrderQty":'):
        return -1
    at = _word(data, at + 22, stop)
    if at < 0 or not matches(data, at, ',"cummulativeQuoteQty":'):
        return -1
    at = _word(data, at + 23, stop)
    if at < 0 or not matches(data, at, ',"status":"CANCELED","timeInForce":'):
        return -1
    at = _word(data, at + 35, stop)
    if at < 0 or not matches(data, at, ',"type":'):
        return -1
    at = _word(data, at + 8, stop)
    if at < 0 or not matches(data, at, ',"side":"'):
        return -1
    side = m.BUY if matches(data, at + 9, 'BUY"') else m.SELL
    if side == m.SELL and not matches(data, at + 9, 'SELL"'):
        return -1
    at += 13 if side == m.BUY else 14
    if not matches(data, at, ',"selfTradePreventionMode":'):
        return -1
    at = _word(data, at + 27, stop)
    if at < 0 or data[at] != CLOSE:
        return -1
    put_row(reports, 0, m.CANCELLED, 0, target_id, row, BY_REQUEST)
    reports[0]["venue_order_id"], reports[0]["filled"], reports[0]["venue_ns"] = venue_id, filled, venue_ns
    reports[0]["side"], reports[0]["price"], reports[0]["quantity"] = side, price, quantity
    return at + 1


@kernel
def _result(data: Any, at: int, stop: int, answers: Answers, notes: Any, reports: Any) -> int:
    """Read what follows `"result":` of the request in `notes[0]` into `reports[0]`; return where it ends, or -1."""
    kind, row = notes[0]["what"], notes[0]["instrument"]
    order_id, target_id, filled = notes[0]["order_id"], notes[0]["target_id"], 0
    if kind == m.CANCEL:
        at = _cancelled(data, at, stop, answers, row, target_id, reports)
        reports[0]["order_id"] = order_id
        return at
    if kind == m.REPLACE:
        if not matches(data, at, '{"cancelResult":"SUCCESS","newOrderResult":"SUCCESS",'):
            return -1
        if at + 53 > stop or not matches(data, at + 53, '"cancelResponse":'):
            return -1
        at = _cancelled(data, at + 70, stop, answers, row, target_id, reports)
        if at < 0 or not matches(data, at, ',"newOrderResponse":'):
            return -1
        at += 20
        filled = reports[0]["filled"]  # of the order that is gone: it is not over before its fills are known
    elif kind != m.NEW:
        return -1
    venue_id, venue_ns, at = _placed(data, at, stop, answers, row, order_id)
    if at < 0:
        return -1
    if kind == m.REPLACE:
        put_row(reports, 0, m.REPLACED, order_id, target_id, row, 0)
    else:
        put_row(reports, 0, m.ACCEPTED, order_id, 0, row, 0)
    reports[0]["venue_order_id"], reports[0]["venue_ns"], reports[0]["filled"] = venue_id, venue_ns, filled
    if kind == m.REPLACE:
        return at + 1 if data[at] == CLOSE else -1
    return at


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def refused_kind(kind: int) -> int:
    """Name the REPORT of a request that was definitely refused; UNKNOWN if it says nothing about the order."""
    if kind == m.NEW:
        return m.REJECTED
    if kind in (m.CANCEL, m.REPLACE, m.CANCEL_ALL):
        return m.CANCEL_REJECTED
    return m.AMEND_REJECTED if kind == m.AMEND else m.UNKNOWN


@kernel
def _error(data: Any, at: int, stop: int, status: int, notes: Any, reports: Any) -> int:
    """Read the error of the request in `notes[0]`, no more than code and text; return where it ends, or -1."""
    kind, row = notes[0]["what"], notes[0]["instrument"]
    code, at = integer(data, at + 16, stop)
    if at < 0 or code >= 0 or not matches(data, at, ',"msg":"'):
        return -1
    end = string_end(data, at + 8, stop)
    # What has details, or concerns more than one order, is the slow path's.
    if end < 0 or data[end + 1] != CLOSE or kind not in (m.NEW, m.CANCEL) or status in (401, 409, 418, 429):
        return -1
    order_id, target_id = notes[0]["order_id"], notes[0]["target_id"]
    if is_definite(kind, status, code):
        reason = reason_of(status, code, data, at + 8, end - at - 8)
        put_row(reports, 0, refused_kind(kind), order_id, target_id, row, reason)
    else:
        put_row(reports, 0, m.UNKNOWN, order_id, target_id, row, VENUE_ERROR)
    notes[0]["code"] = code
    return end + 2


@kernel
def _answer(data: Any, at: int, stop: int, answers: Answers, reports: Any, notes: Any) -> tuple[int, int]:
    """Read an answer from its id on; return rows and notes, (-1, -1) if it is not recognised."""
    kind, row, order_id, target_id = read_id(data, at)
    at += LENGTH
    if kind == 0 or row >= len(answers.instruments) or not matches(data, at, '","status":'):
        return -1, -1
    if answers.symbols.table[row]["length"] == 0:
        return -1, -1
    status, at = integer(data, at + 11, stop)
    if at < 0 or at > stop:
        return -1, -1
    put_note(notes, 0, a.ANSWER, kind, row)
    notes[0]["status"], notes[0]["order_id"], notes[0]["target_id"] = status, order_id, target_id
    if status == 200 and matches(data, at, ',"result":'):
        at = _result(data, at + 10, stop, answers, notes, reports)
    elif 400 <= status < 600 and matches(data, at, ',"error":{"code":'):
        at = _error(data, at + 1, stop, status, notes, reports)
    else:
        return -1, -1
    count = 1
    if at >= 0 and matches(data, at, ',"rateLimits":['):
        count, at = _rates(data, at + 15, stop, notes, count)
        if at >= 0:
            at = at + 1 if matches(data, at, "]") else -1
    if at < 0 or at + 1 != stop or data[at] != CLOSE:
        return -1, -1
    return 1, count


@kernel
def scan(data: Any, start: int, stop: int, answers: Answers, reports: Any, notes: Any) -> tuple[int, int]:
    """Read the frame `data[start:stop]`; return the REPORTs and notes it is, (-1, -1) if it is not recognised.

    `data` is a uint8 array with PADDING readable bytes behind `stop`; `reports` and `notes` are private arrays of at
    least one REPORT and 16 NOTEs, of which a frame that is not recognised may have overwritten any.
    """
    if stop - start < 40:  # none is shorter
        return -1, -1
    if matches(data, start, '{"id":"'):
        if stop - start < 60:
            return -1, -1
        return _answer(data, start + 7, stop, answers, reports, notes)
    if matches(data, start, '{"event":'):
        return scan_event(data, start + 9, stop, answers, reports, notes)
    if not matches(data, start, '{"subscriptionId":'):
        return -1, -1
    subscription, at = integer(data, start + 18, stop)
    if not 0 <= at <= stop or subscription < 0 or not matches(data, at, ',"event":'):
        return -1, -1
    return scan_event(data, at + 9, stop, answers, reports, notes)
