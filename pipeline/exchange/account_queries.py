"""Account queries: what an account may ask about itself that no order is placed by (protocol sheet, section 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.payloads import rate_text
from shrivenq.pipeline.exchange.public import symbol_of
from shrivenq.pipeline.exchange.types import Error, Prevention

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.venue import Call, Venue

PAGE_DEFAULT = 500


def _rates(maker: int, taker: int) -> dict[str, str]:
    return {"maker": rate_text(maker), "taker": rate_text(taker), "buyer": rate_text(0), "seller": rate_text(0)}


def _commission(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    return {
        "symbol": symbol.name,
        "standardCommission": _rates(symbol.maker_fee, symbol.taker_fee),
        "specialCommission": _rates(0, 0),
        "taxCommission": _rates(0, 0),
        "discount": {
            "enabledForAccount": False,
            "enabledForSymbol": False,
            "discountAsset": "BNB",
            "discount": rate_text(0),
        },
    }


def _prevented_matches(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    values = call.values
    _check_combination(values)
    form = venue.formats[symbol.name]
    found = [one for one in venue.engine.preventions if one.symbol == symbol.name and _is_asked_for(one, values)]
    mine = [one for one in found if _takes_part(venue, call.account, one)]
    return [
        {
            "symbol": one.symbol,
            "preventedMatchId": one.match_id,
            "takerOrderId": one.taker_order_id,
            "makerSymbol": one.symbol,
            "makerOrderId": one.maker_order_id,
            "tradeGroupId": one.trade_group,
            "selfTradePreventionMode": one.mode,
            "price": form.price(one.price),
            **({"takerPreventedQuantity": form.quantity(one.taker_quantity)} if one.taker_quantity else {}),
            **({"makerPreventedQuantity": form.quantity(one.maker_quantity)} if one.maker_quantity else {}),
            "transactTime": call.time(one.time_us),
        }
        for one in mine[: values.get("limit", PAGE_DEFAULT)]
    ]


def _check_combination(values: dict[str, Any]) -> None:
    """Check what names the matches: one of them, or an order, from a match on if one likes. Raises ApiError."""
    if not values.keys() & {"preventedMatchId", "orderId"}:
        raise ApiError(-1102, "Param 'preventedMatchId' or 'orderId' must be sent, but both were empty/null!")
    if "preventedMatchId" in values and values.keys() & {"orderId", "fromPreventedMatchId", "limit"}:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if "limit" in values and "fromPreventedMatchId" not in values:
        raise ApiError(-1128, "Combination of optional parameters invalid.")


def _is_asked_for(one: Prevention, values: dict[str, Any]) -> bool:
    if "preventedMatchId" in values:
        return bool(one.match_id == values["preventedMatchId"])
    ordered = values["orderId"] in (one.taker_order_id, one.maker_order_id)
    return ordered and one.match_id >= values.get("fromPreventedMatchId", 0)


def _takes_part(venue: Venue, account: int, one: Prevention) -> bool:
    """Tell whether one of the two orders is the account's."""
    orders = (one.taker_order_id, one.maker_order_id)
    return any(not isinstance(venue.engine.order(account, one.symbol, order_id=number), Error) for number in orders)


def _allocations(venue: Venue, call: Call) -> Any:
    """There are none: no order is routed elsewhere."""
    symbol_of(venue, call)
    return []


COMMANDS = {
    "account.commission": _commission,
    "myPreventedMatches": _prevented_matches,
    "myAllocations": _allocations,
}
