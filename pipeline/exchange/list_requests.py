"""List requests: checked parameters of an order list → the orders it is made of, or what does not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.errors import ApiError, invalid
from shrivenq.pipeline.exchange.list_parameters import LEGS, names_of
from shrivenq.pipeline.exchange.requests import STOPS, new_order
from shrivenq.pipeline.exchange.types import Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shrivenq.pipeline.exchange.types import ListKind, NewOrder, Symbol

KINDS: dict[str, ListKind] = {
    "orderList.place.oco": "OCO", "orderList.place.oto": "OTO", "orderList.place.otoco": "OTOCO",
}  # fmt: skip
IN_PAIRS = STOPS | {"LIMIT_MAKER"}
WORKING = ("LIMIT", "LIMIT_MAKER")
# Of a pair: (side, which leg, kind of order) that may not be.
MISPLACED = {
    ("BUY", "above", "LIMIT"): Error(-1165, "A limit order in a buy OCO must be below."),
    ("SELL", "below", "LIMIT"): Error(-1166, "A limit order in a sell OCO must be above."),
    ("BUY", "below", "STOP"): Error(-1196, "A stop loss order in a buy OCO must be above."),
    ("SELL", "above", "STOP"): Error(-1197, "A stop loss order in a sell OCO must be below."),
    ("BUY", "above", "TAKE"): Error(-1198, "A take profit order in a buy OCO must be below."),
    ("SELL", "below", "TAKE"): Error(-1199, "A take profit order in a sell OCO must be above."),
}


def list_orders(method: str, symbol: Symbol, values: Mapping[str, Any]) -> list[NewOrder]:
    """Make the engine's orders of a list, in the order in which they are placed. Raises ApiError."""
    legs = LEGS[method]
    if legs[0] == "working" and values["workingType"] not in WORKING:
        raise invalid("workingType")
    _check_pair(values, legs[-2:])
    return [_order(symbol, values, leg) for leg in legs]


def _order(symbol: Symbol, values: Mapping[str, Any], leg: str) -> NewOrder:
    """Make the order of one leg; what is wrong with it is said in the list's own names."""
    names = names_of(leg)
    own = {plain: values[name] for name, plain in names.items() if name in values}
    if "selfTradePreventionMode" in values:
        own["selfTradePreventionMode"] = values["selfTradePreventionMode"]
    if "icebergQty" in own and own.get("timeInForce", "GTC") != "GTC":
        raise ApiError(-1160, f"Parameter '{leg}IcebergQty' is not supported if `{leg}TimeInForce` is not GTC.")
    try:
        return new_order(symbol, own)
    except ApiError as error:
        raise error.about({plain: name for name, plain in names.items() if name != plain}) from None


def _check_pair(values: Mapping[str, Any], legs: tuple[str, ...]) -> None:
    """Check that one order of a pair takes a profit and the other stops a loss, each on its side of the market."""
    side = values.get("side", values.get("pendingSide"))
    types = [values.get(leg + "Type") for leg in legs]
    if not legs[0].lower().endswith("above"):
        return
    if any(one not in IN_PAIRS for one in types):
        raise ApiError(-1158, "Order type not supported in OCO.")
    if types == ["LIMIT_MAKER", "LIMIT_MAKER"]:
        raise ApiError(-1168, "At least one OCO order must be contingent.")
    for leg, kind in zip(("above", "below"), types, strict=True):
        wrong = MISPLACED.get((str(side), leg, str(kind).split("_", 1)[0]))
        if wrong is not None:
            raise ApiError(*wrong)
