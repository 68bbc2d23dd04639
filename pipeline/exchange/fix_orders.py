"""FIX orders: what a client asks for in FIX → the same request as the other protocols make it.

    35=D|55=BTCUSDT|54=1|40=2|59=1|38=1|44=100|11=a1    order.place {symbol: BTCUSDT, side: BUY, type: LIMIT, …}

Values keep their text; who serves the request checks them. Source: section 15 of the protocol sheet.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.fix_dictionary import AMEND, CANCEL, CANCEL_ALL, ORDER, REPLACE
from shrivenq.pipeline.exchange.requests import value_of
from shrivenq.pipeline.exchange.types import STP_MODES

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.fix_wire import Message

METHODS = {
    ORDER: "order.place",
    CANCEL: "order.cancel",
    REPLACE: "order.cancelReplace",
    AMEND: "order.amend.keepPriority",
    CANCEL_ALL: "openOrders.cancelAll",
}
"""MsgType → method."""

SIDES = {"1": "BUY", "2": "SELL"}
FORCES = {"1": "GTC", "3": "IOC", "4": "FOK"}
MODES = {str(number): mode for number, mode in enumerate(STP_MODES, 1)}
RESTRICTIONS = {"1": "ONLY_NEW", "2": "ONLY_PARTIALLY_FILLED"}
REPLACE_MODES = {"1": "STOP_ON_FAILURE", "2": "ALLOW_FAILURE"}
OVER_LIMIT_MODES = {"1": "DO_NOTHING", "2": "CANCEL_ONLY"}
WORDS: dict[int, dict[str, Any]] = {
    54: SIDES,
    59: FORCES,
    25001: MODES,
    25002: RESTRICTIONS,
    25033: REPLACE_MODES,
    25038: OVER_LIMIT_MODES,
}

_TERMS = {
    11: "newClientOrderId", 38: "quantity", 44: "price", 54: "side", 55: "symbol", 59: "timeInForce",
    111: "icebergQty", 152: "quoteOrderQty", 847: "strategyType", 1102: "stopPrice", 7940: "strategyId",
    25001: "selfTradePreventionMode", 25009: "trailingDelta",
}  # fmt: skip
_WHICH = {11: "newClientOrderId", 37: "orderId", 41: "origClientOrderId", 55: "symbol"}
PARAMETERS = {
    ORDER: _TERMS,
    CANCEL: {**_WHICH, 25002: "cancelRestrictions"},
    REPLACE: {
        **_TERMS, 37: "cancelOrderId", 41: "cancelOrigClientOrderId", 25002: "cancelRestrictions",
        25033: "cancelReplaceMode", 25034: "cancelNewClientOrderId", 25038: "orderRateLimitExceededMode",
    },
    AMEND: {**_WHICH, 38: "newQty"},
    CANCEL_ALL: {55: "symbol"},
}  # fmt: skip
"""MsgType → tag → parameter of the method."""
QUOTED = re.compile(r"'([A-Za-z]+)'")

TRIGGER, PEG = frozenset({1100, 1101, 1102, 1107, 1109, 25009}), frozenset({211, 835, 836, 1094})
NEEDED = frozenset({1100, 1101, 1107})


def parameters_of(message: Message) -> dict[str, Any]:
    """Give the parameters of what a message, which was checked, asks for. Raises ApiError."""
    names = PARAMETERS[message.kind]
    if message.kind == CANCEL_ALL:  # its id goes nowhere but into the answer
        value_of("newClientOrderId", message.get(11))
    found = {names[tag]: WORDS.get(tag, {}).get(value, value) for tag, value in message.fields if tag in names}
    if message.kind in {ORDER, REPLACE}:
        found["type"] = _type_of(dict(message.fields))
    return found


def tag_of(kind: str, text: str) -> int:
    """Find the field that an error about a parameter is about; 0 for none."""
    quoted = QUOTED.search(text)
    if quoted is None:
        return 0
    if quoted[1] == "type":
        return 40
    return next((tag for tag, name in PARAMETERS[kind].items() if name == quoted[1]), 0)


def _type_of(fields: dict[int, str]) -> str:
    """Tell the type of an order. Raises ApiError for fields that make none."""
    number = fields[40]
    if number == "P" or fields.keys() & PEG:
        raise ApiError(-1020, "This operation is not supported.")
    if 18 in fields and number != "2":
        raise ApiError(-1182, "Conflicting fields: [ExecInst (18), OrdType (40)]")
    if number in {"1", "2"}:
        if fields.keys() & TRIGGER:
            raise _component("LIMIT" if number == "2" else "MARKET", "omit it")
        return "MARKET" if number == "1" else "LIMIT_MAKER" if 18 in fields else "LIMIT"
    if not fields.keys() >= NEEDED or (1109 not in fields and 25009 not in fields):
        raise _component("STOP" if number == "3" else "STOP_LIMIT", "1100=4, 1101=1, 1107=2, 1109, 1102")
    # A stop loss that buys and a take profit that sells go off when the price goes up.
    stop = 1109 in fields and (fields[1109] == "U") == (fields[54] == "1")
    return ("STOP_LOSS" if stop else "TAKE_PROFIT") + ("_LIMIT" if number == "4" else "")


def _component(order: str, advice: str) -> ApiError:
    text = f"Component 'TriggeringInstruction' is incorrectly populated on '{order}' order. Recommendation: '{advice}'"
    return ApiError(-1174, text)
