"""List parameters: how requests for order lists name what each of their orders says.

    workingPrice, pendingAboveStopPrice     the `price` of the working order, the `stopPrice` of the one above

`PLAIN` gives the plain name, under which a parameter is checked; legs are in the order in which they are placed.
"""

from __future__ import annotations

_TERMS = {
    "ClientOrderId": "newClientOrderId", "Price": "price", "StopPrice": "stopPrice", "TrailingDelta": "trailingDelta",
    "IcebergQty": "icebergQty", "TimeInForce": "timeInForce", "StrategyId": "strategyId",
    "StrategyType": "strategyType", "PegPriceType": "pegPriceType", "PegOffsetType": "pegOffsetType",
    "PegOffsetValue": "pegOffsetValue",
}  # fmt: skip
_OWN = {"Type": "type", "Side": "side", "Quantity": "quantity"}

LEGS = {
    "orderList.place.oco": ("above", "below"),
    "orderList.place.oto": ("working", "pending"),
    "orderList.place.otoco": ("working", "pendingAbove", "pendingBelow"),
}
SHARED = {
    "above": ("side", "quantity"), "below": ("side", "quantity"), "working": (), "pending": (),
    "pendingAbove": ("pendingSide", "pendingQuantity"), "pendingBelow": ("pendingSide", "pendingQuantity"),
}  # fmt: skip
"""Parameters of a leg that it has with the other of its pair."""
OF_ALL = ("listClientOrderId", "newOrderRespType", "selfTradePreventionMode")
PLAIN = {leg + word: name for legs in LEGS.values() for leg in legs for word, name in (_TERMS | _OWN).items()}


def names_of(leg: str) -> dict[str, str]:
    """Give the parameters that describe a leg, each with its plain name."""
    own = {} if SHARED[leg] else _OWN
    shared = {name: PLAIN.get(name, name) for name in SHARED[leg]}
    return shared | {leg + word: name for word, name in (_TERMS | own | {"Type": "type"}).items()}


def parameters_of(method: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the parameters a list must have, without its symbol, and those it may have."""
    known = {name: plain for leg in LEGS[method] for name, plain in names_of(leg).items()}
    needed = {"type", "side", "quantity"}
    mandatory = [name for name, plain in known.items() if plain in needed]
    if "workingType" in known:
        mandatory.append("workingPrice")
    optional = [name for name in known if name not in mandatory]
    return ("symbol", *mandatory), (*optional, *OF_ALL)
