"""FIX answers: what the venue says to a request → the messages its sender gets for it.

An order that is accepted, cancelled or amended is answered by the very report that tells everybody; a refusal has a
message of its own, and goes to nobody else. Source: section 15 of the protocol sheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from shrivenq.pipeline.exchange.fix_dictionary import AMEND, CANCEL, CANCEL_ALL, ORDER, REPLACE
from shrivenq.pipeline.exchange.fix_reports import (
    AMEND_REJECT,
    CANCEL_REJECT,
    MASS_REPORT,
    REPORT,
    amend_rejected,
    cancel_rejected,
    mass_report,
    order_rejected,
)

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.fix_wire import Fields, Message
    from shrivenq.pipeline.exchange.venue import Answer

Json = dict[str, Any]
Outgoing = list[tuple[str, "Fields"]]
"""(MsgType, body), in order."""

SYNTAX = range(-1199, -1099)
"""Codes of what is wrong with a message itself: it gets a Reject."""
TIME = -1021


class Reply(NamedTuple):
    """What a request is answered with."""

    before: Outgoing
    """Goes before the reports of what the request caused."""
    reports: frozenset[tuple[int, str]]
    """(order id, execution) of the reports that are answers."""
    after: Outgoing


def is_reject(answer: Answer) -> bool:
    """Tell whether a message was refused for what it is, not for what it asks."""
    return answer.status == 400 and (answer.body["code"] in SYNTAX or answer.body["code"] == TIME)


def answer_to(message: Message, answer: Answer, now_us: int) -> Reply:
    """Answer a message that is no Reject's."""
    body = answer.body
    if answer.status == 200:
        before = (
            [(MASS_REPORT, mass_report(message, len(_cancelled(body)), None))] if message.kind == CANCEL_ALL else []
        )
        return Reply(before, _done(message.kind, body), [])
    if message.kind == CANCEL:
        return _refusal(CANCEL_REJECT, cancel_rejected(message, body))
    if message.kind == AMEND:
        return _refusal(AMEND_REJECT, amend_rejected(message, body))
    if message.kind == CANCEL_ALL:
        return _refusal(MASS_REPORT, mass_report(message, 0, body))
    halves = body.get("data")
    if halves is None:
        return _refusal(REPORT, order_rejected(message, body, now_us))
    return _halves(message, halves, now_us)


def _refusal(kind: str, fields: Fields) -> Reply:
    return Reply([(kind, fields)], frozenset(), [])


def _cancelled(body: Any) -> list[int]:
    """Name the orders that a cancel-all ended, those of order lists too."""
    return [order["orderId"] for one in body for order in one.get("orderReports", [one])]


def _done(kind: str, body: Any) -> frozenset[tuple[int, str]]:
    """Name the reports that answer what was done."""
    if kind == ORDER:
        return frozenset({(body["orderId"], "NEW")})
    if kind == CANCEL:
        return frozenset({(body["orderId"], "CANCELED")})
    if kind == CANCEL_ALL:
        return frozenset((order_id, "CANCELED") for order_id in _cancelled(body))
    if kind == REPLACE:
        return frozenset(
            {(body["cancelResponse"]["orderId"], "CANCELED"), (body["newOrderResponse"]["orderId"], "NEW")}
        )
    order_id = body["amendedOrder"]["orderId"]
    return frozenset({(order_id, "REPLACED"), (order_id, "EXPIRED")})


def _halves(message: Message, halves: Json, now_us: int) -> Reply:
    """Answer a cancel-replace of which a half was refused, or both: each half as it would be on its own."""
    old, new = halves["cancelResponse"], halves["newOrderResponse"]
    before, after, reports = [], [], set()
    if halves["cancelResult"] == "FAILURE":
        before.append((CANCEL_REJECT, cancel_rejected(message, old)))
    else:
        reports.add((old["orderId"], "CANCELED"))
    if halves["newOrderResult"] == "FAILURE":
        after.append((REPORT, order_rejected(message, new, now_us)))
    elif halves["newOrderResult"] == "SUCCESS":
        reports.add((new["orderId"], "NEW"))
    return Reply(before, frozenset(reports), after)
