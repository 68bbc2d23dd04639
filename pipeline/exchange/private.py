"""Private commands: orders and accounts (protocol sheet, sections 8 and 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange import payloads, reference, requests
from shrivenq.pipeline.exchange.accounts import last_us, to_us
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.payloads import Format, rate_text, refusal, to_text
from shrivenq.pipeline.exchange.public import symbol_of
from shrivenq.pipeline.exchange.types import Error, ListOutcome, OrderView, Outcome, ReplaceOutcome, Symbol

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.venue import Call, Venue

PAGE_DEFAULT = 500


def _raise(error: Error | None) -> None:
    if error is not None:
        raise ApiError(*error)


def _ids(values: dict[str, Any]) -> dict[str, Any]:
    """Give which order is meant."""
    return {"order_id": values.get("orderId"), "client_id": values.get("origClientOrderId")}


def _place(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    order = requests.new_order(symbol, call.values)
    counts = venue.limits.orders(call.account)
    counts.check(call.now_us)
    outcome = venue.engine.place(call.account, order, call.now_us)
    _raise(outcome.error)
    counts.add(1, call.now_us)
    return payloads.new_order(outcome, venue.formats[symbol.name], call.time, requests.response_type(call.values))


def _test(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    _raise(venue.engine.test(call.account, requests.new_order(symbol, call.values), call.now_us))
    if not call.values.get("computeCommissionRates"):
        return {}
    return {
        "standardCommissionForOrder": {"maker": rate_text(symbol.maker_fee), "taker": rate_text(symbol.taker_fee)},
        "specialCommissionForOrder": {"maker": rate_text(0), "taker": rate_text(0)},
        "taxCommissionForOrder": {"maker": rate_text(0), "taker": rate_text(0)},
        "discount": {
            "enabledForAccount": False,
            "enabledForSymbol": False,
            "discountAsset": "BNB",
            "discount": rate_text(0),
        },
    }


def _cancel(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    outcome = venue.engine.cancel(
        call.account,
        symbol.name,
        call.now_us,
        **_ids(call.values),
        new_client_id=call.values.get("newClientOrderId"),
        restrictions=call.values.get("cancelRestrictions"),
    )
    _raise(outcome.error)
    return payloads.cancelled(outcome, venue.formats[symbol.name], call.time)


def _cancel_all(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    found = venue.engine.cancel_all(call.account, symbol.name, call.now_us)
    if isinstance(found, Error):
        raise ApiError(*found)
    form = venue.formats[symbol.name]
    return [
        payloads.cancelled_list(outcome, form, call.time)
        if isinstance(outcome, ListOutcome)
        else payloads.cancelled(outcome, form, call.time)
        for outcome in found
    ]


def _cancel_replace(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    values = call.values
    order = requests.new_order(symbol, values)
    counts = venue.limits.orders(call.account)
    try:
        counts.check(call.now_us)
    except ApiError as over:
        if values.get("orderRateLimitExceededMode") != "CANCEL_ONLY":
            raise
        outcome = _cancel_only(venue, call, symbol, over)
    else:
        counts.add(1, call.now_us)
        outcome = venue.engine.cancel_replace(
            call.account,
            order,
            call.now_us,
            mode=values["cancelReplaceMode"],
            cancel_order_id=values.get("cancelOrderId"),
            cancel_client_id=values.get("cancelOrigClientOrderId"),
            cancel_new_client_id=values.get("cancelNewClientOrderId"),
            restrictions=values.get("cancelRestrictions"),
        )
    body = _replace_body(outcome, venue.formats[symbol.name], call)
    if outcome.error is not None:
        data = None if outcome.cancel is None and outcome.new is None else body
        raise ApiError(*outcome.error, 409 if outcome.error.code == -2021 else 400, data)
    return body


def _cancel_only(venue: Venue, call: Call, symbol: Symbol, over: ApiError) -> ReplaceOutcome:
    """Cancel the old order although there is no room for the new one."""
    old = venue.engine.cancel(
        call.account,
        symbol.name,
        call.now_us,
        order_id=call.values.get("cancelOrderId"),
        client_id=call.values.get("cancelOrigClientOrderId"),
        new_client_id=call.values.get("cancelNewClientOrderId"),
        restrictions=call.values.get("cancelRestrictions"),
    )
    new = Outcome(Error(over.code, over.msg))
    if old.error is not None:
        return ReplaceOutcome(Error(-2022, "Order cancel-replace failed."), "FAILURE", "FAILURE", old, new)
    return ReplaceOutcome(Error(-2021, "Order cancel-replace partially failed."), "SUCCESS", "FAILURE", old, new)


def _replace_body(outcome: ReplaceOutcome, form: Format, call: Call) -> dict[str, Any]:
    """Give both halves of a cancel-replace, each its answer, its error or null."""
    old, new = outcome.cancel, outcome.new
    return {
        "cancelResult": outcome.cancel_result,
        "newOrderResult": outcome.new_result,
        "cancelResponse": None
        if old is None
        else refusal(old.error)
        if old.error is not None
        else payloads.cancelled(old, form, call.time),
        "newOrderResponse": None
        if new is None
        else refusal(new.error)
        if new.error is not None
        else payloads.new_order(new, form, call.time, requests.response_type(call.values)),
    }


def _amend(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    outcome = venue.engine.amend(
        call.account,
        symbol.name,
        call.now_us,
        **_ids(call.values),
        new_quantity=requests.scaled("newQty", call.values["newQty"], symbol.quantity_decimals),
        new_client_id=call.values.get("newClientOrderId"),
    )
    _raise(outcome.error)
    body = payloads.amended(outcome, venue.formats[symbol.name], call.time)
    if outcome.order is not None and outcome.order.list_id > 0:
        found = venue.engine.order_list(call.account, list_id=outcome.order.list_id)
        assert not isinstance(found, Error), "the list of an order that was just amended is there"
        body["listStatus"] = payloads.list_of_amended(found)
    return body


def _order(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    found = venue.engine.order(call.account, symbol.name, **_ids(call.values))
    if isinstance(found, Error):
        raise ApiError(*found)
    return payloads.order_status(found, venue.formats[symbol.name], call.time)


def _statuses(venue: Venue, call: Call, orders: list[OrderView]) -> list[dict[str, Any]]:
    return [payloads.order_status(one, venue.formats[one.symbol], call.time) for one in orders]


def _open_orders(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call).name if "symbol" in call.values else None
    return _statuses(venue, call, venue.engine.open_orders(call.account, symbol))


def _times(call: Call) -> dict[str, int | None]:
    return {
        "start_us": to_us(call.values["startTime"]) if "startTime" in call.values else None,
        "end_us": last_us(call.values["endTime"]) if "endTime" in call.values else None,
    }


def _all_orders(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    limit = call.values.get("limit", PAGE_DEFAULT)
    orders = venue.engine.all_orders(
        call.account, symbol.name, order_id=call.values.get("orderId"), limit=limit, **_times(call)
    )
    return _statuses(venue, call, orders)


def _my_trades(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    values = call.values
    fills = venue.engine.my_trades(
        call.account,
        symbol.name,
        order_id=values.get("orderId"),
        from_id=values.get("fromId"),
        limit=values.get("limit", PAGE_DEFAULT),
        **_times(call),
    )
    return [payloads.my_trade(one, venue.formats[symbol.name], call.time) for one in fills]


def _account(venue: Venue, call: Call) -> Any:
    symbol = next(iter(venue.symbols.values()))
    balances = venue.engine.balances(call.account)
    decimals = venue.asset_decimals
    return {
        "makerCommission": symbol.maker_fee // 10_000,
        "takerCommission": symbol.taker_fee // 10_000,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {
            "maker": rate_text(symbol.maker_fee),
            "taker": rate_text(symbol.taker_fee),
            "buyer": rate_text(0),
            "seller": rate_text(0),
        },
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.time(venue.updated_us.get(call.account, 0)),
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": to_text(free, decimals[asset]), "locked": to_text(locked, decimals[asset])}
            for asset, (free, locked) in balances.items()
            if free or locked or not call.values.get("omitZeroBalances")
        ],
        "permissions": ["SPOT"],
        "uid": call.account,
    }


def _order_counts(venue: Venue, call: Call) -> Any:
    return [window.as_dict(call.now_us) for window in venue.limits.orders(call.account).windows]


def _my_filters(venue: Venue, call: Call) -> Any:
    symbol = symbol_of(venue, call)
    return {
        "exchangeFilters": reference.exchange_filters(venue.engine),
        "symbolFilters": reference.filters(symbol),
        "assetFilters": reference.asset_filters(venue.engine, symbol),
    }


COMMANDS = {
    "order.place": _place,
    "order.test": _test,
    "order.cancel": _cancel,
    "order.cancelReplace": _cancel_replace,
    "order.amend.keepPriority": _amend,
    "openOrders.cancelAll": _cancel_all,
    "order.status": _order,
    "openOrders.status": _open_orders,
    "allOrders": _all_orders,
    "myTrades": _my_trades,
    "account.status": _account,
    "account.rateLimits.orders": _order_counts,
    "myFilters": _my_filters,
}
