"""Private commands about order lists (the venue's pages on them; errors as in `list_requests.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange import payloads
from shrivenq.pipeline.exchange.accounts import last_us, to_us
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.list_requests import KINDS, list_orders
from shrivenq.pipeline.exchange.public import symbol_of
from shrivenq.pipeline.exchange.types import Error

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.venue import Call, Venue

PAGE_DEFAULT = 500


def _place(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    orders = list_orders(call.name, symbol, call.values)
    counts = venue.limits.orders(call.account)
    counts.check(call.now_us, len(orders))
    outcome = venue.engine.place_list(
        call.account, KINDS[call.name], orders, call.now_us, client_id=call.values.get("listClientOrderId")
    )
    if outcome.error is not None:
        raise ApiError(*outcome.error)
    counts.add(len(orders), call.now_us)
    response = call.values.get("newOrderRespType", "RESULT")
    return payloads.new_list(outcome, venue.formats[symbol.name], call.time, response)


def _cancel(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    outcome = venue.engine.cancel_list(
        call.account,
        symbol.name,
        call.now_us,
        list_id=call.values.get("orderListId"),
        client_id=call.values.get("listClientOrderId"),
        new_client_id=call.values.get("newClientOrderId"),
    )
    if outcome.error is not None:
        raise ApiError(*outcome.error)
    return payloads.cancelled_list(outcome, venue.formats[symbol.name], call.time)


def _status(venue: Venue, call: Call) -> Any:
    found = venue.engine.order_list(
        call.account, list_id=call.values.get("orderListId"), client_id=call.values.get("origClientOrderId")
    )
    if isinstance(found, Error):
        raise ApiError(*found)
    return payloads.list_status(found, call.time)


def _open(venue: Venue, call: Call) -> Any:
    return [payloads.list_status(one, call.time) for one in venue.engine.open_lists(call.account)]


def _all(venue: Venue, call: Call) -> Any:
    values = call.values
    if "fromId" in values and values.keys() & {"startTime", "endTime"}:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    found = venue.engine.all_lists(
        call.account,
        from_id=values.get("fromId"),
        start_us=to_us(values["startTime"]) if "startTime" in values else None,
        end_us=last_us(values["endTime"]) if "endTime" in values else None,
        limit=values.get("limit", PAGE_DEFAULT),
    )
    return [payloads.list_status(one, call.time) for one in found]


COMMANDS = {
    **dict.fromkeys(KINDS, _place),
    "orderList.cancel": _cancel,
    "orderList.status": _status,
    "openOrderLists.status": _open,
    "allOrderLists": _all,
}
