"""Payloads: what the engine answers → the JSON objects of the venue, the same over REST and WebSocket API.

Prices, quantities and amounts leave as text with all decimals of their asset, times in the unit a client asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.types import RATE, Error, Fill, ListOutcome, ListView, OrderView, Outcome, Symbol

if TYPE_CHECKING:
    from collections.abc import Callable


def to_text(value: int, decimals: int) -> str:
    """Write an int at `decimals` as a decimal number with all of them."""
    if value < 0:
        return "-" + to_text(-value, decimals)
    if decimals == 0:
        return str(value)
    unit = 10**decimals
    return f"{value // unit}.{value % unit:0{decimals}d}"


def rate_text(rate: int) -> str:
    """Write a fee or a multiplier, at 1e-8, with eight decimals."""
    return to_text(rate, 8)


def multiplier_text(rate: int) -> str:
    """Write a multiplier as short as it goes: `5`, `0.2`."""
    whole, fraction = divmod(rate, RATE)
    return f"{whole}.{fraction:08d}".rstrip("0").rstrip(".")


class Format:
    """How one symbol's numbers are written."""

    def __init__(self, symbol: Symbol) -> None:
        self.symbol = symbol
        self._price = 10 ** (symbol.quote_decimals - symbol.price_decimals)
        self._quantity = 10 ** (symbol.base_decimals - symbol.quantity_decimals)
        self._unit = 10 ** (symbol.price_decimals + symbol.quantity_decimals)

    def price(self, value: int) -> str:
        """Write a price."""
        return to_text(value * self._price, self.symbol.quote_decimals)

    def quantity(self, value: int) -> str:
        """Write a quantity of base."""
        return to_text(value * self._quantity, self.symbol.base_decimals)

    def quote(self, value: int) -> str:
        """Write an amount of quote."""
        return to_text(value, self.symbol.quote_decimals)

    def value(self, value: int) -> str:
        """Write price × quantity in quote, rounded down."""
        return self.quote(value * 10**self.symbol.quote_decimals // self._unit)

    def commission(self, fill: Fill) -> str:
        """Write the commission of a fill."""
        base = fill.commission_asset == self.symbol.base
        return to_text(fill.commission, self.symbol.base_decimals if base else self.symbol.quote_decimals)

    def levels(self, levels: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> list[list[str]]:
        """Write price levels."""
        return [[self.price(price), self.quantity(quantity)] for price, quantity in levels]


def _sizes(order: OrderView, form: Format) -> dict[str, Any]:
    """Give what every object about an order has in its middle."""
    return {
        "price": form.price(order.price),
        "origQty": form.quantity(order.quantity),
        "executedQty": form.quantity(order.executed),
        "origQuoteOrderQty": form.quote(order.quote_quantity),
        "cummulativeQuoteQty": form.quote(order.cumulative_quote),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
    }


def _conditional(order: OrderView, form: Format, time: Callable[[int], int]) -> dict[str, Any]:
    """Give the fields that are only there when they say something."""
    found: dict[str, Any] = {}
    if order.stop_price:
        found["stopPrice"] = form.price(order.stop_price)
    if order.trailing_delta:
        found["trailingDelta"] = order.trailing_delta
        found["trailingTime"] = time(order.trailing_us) if order.trailing_us else -1
    if order.iceberg:
        found["icebergQty"] = form.quantity(order.iceberg)
    if order.strategy_id is not None:
        found["strategyId"] = order.strategy_id
    if order.strategy_type is not None:
        found["strategyType"] = order.strategy_type
    if order.prevented:
        found["preventedMatchId"] = order.prevented_match_id
        found["preventedQuantity"] = form.quantity(order.prevented)
    if order.expiry_reason is not None:
        found["expiryReason"] = order.expiry_reason
    return found


def new_order(outcome: Outcome, form: Format, time: Callable[[int], int], response: str) -> dict[str, Any]:
    """Answer a new order: ACK, RESULT or FULL."""
    order = outcome.order
    assert order is not None, "an order that was taken is there"
    body: dict[str, Any] = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": outcome.client_id,
        "transactTime": time(outcome.time_us),
    }
    if response == "ACK":
        return body
    body |= _sizes(order, form)
    body["workingTime"] = time(order.working_us) if order.working_us else -1
    if response == "FULL":
        body["fills"] = [
            {
                "price": form.price(fill.price),
                "qty": form.quantity(fill.quantity),
                "commission": form.commission(fill),
                "commissionAsset": fill.commission_asset,
                "tradeId": fill.trade_id,
            }
            for fill in outcome.fills
        ]
    body["selfTradePreventionMode"] = order.stp
    return body | _conditional(order, form, time)


def cancelled(outcome: Outcome, form: Format, time: Callable[[int], int]) -> dict[str, Any]:
    """Answer a cancel: `clientOrderId` is the cancel's own."""
    order = outcome.order
    assert order is not None, "an order that was cancelled is there"
    return {
        "symbol": order.symbol,
        "origClientOrderId": outcome.original_client_id,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": outcome.client_id,
        "transactTime": time(outcome.time_us),
        **_sizes(order, form),
        "selfTradePreventionMode": order.stp,
        **_conditional(order, form, time),
    }


def amended(outcome: Outcome, form: Format, time: Callable[[int], int]) -> dict[str, Any]:
    """Answer an amendment that kept its priority."""
    order = outcome.order
    assert order is not None, "an order that was amended is there"
    return {
        "transactTime": time(outcome.time_us),
        "executionId": outcome.execution_id,
        "amendedOrder": {
            "symbol": order.symbol,
            "orderId": order.order_id,
            "orderListId": order.list_id,
            "origClientOrderId": outcome.original_client_id,
            "clientOrderId": outcome.client_id,
            "price": form.price(order.price),
            "qty": form.quantity(order.quantity),
            "executedQty": form.quantity(order.executed),
            "preventedQty": form.quantity(order.prevented),
            "quoteOrderQty": form.quote(order.quote_quantity),
            "cumulativeQuoteQty": form.quote(order.cumulative_quote),
            "status": order.status,
            "timeInForce": order.time_in_force,
            "type": order.type,
            "side": order.side,
            "workingTime": time(order.working_us) if order.working_us else -1,
            "selfTradePreventionMode": order.stp,
        },
    }


def order_status(order: OrderView, form: Format, time: Callable[[int], int]) -> dict[str, Any]:
    """Answer a query about an order."""
    sizes = _sizes(order, form)
    quote = sizes.pop("origQuoteOrderQty")
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        **sizes,
        "stopPrice": form.price(order.stop_price),
        "icebergQty": form.quantity(order.iceberg),
        "time": time(order.created_us),
        "updateTime": time(order.updated_us),
        "isWorking": order.working_us != 0,
        "workingTime": time(order.working_us) if order.working_us else -1,
        "origQuoteOrderQty": quote,
        "selfTradePreventionMode": order.stp,
        **_conditional(order, form, time),
    }


def my_trade(fill: Fill, form: Format, time: Callable[[int], int]) -> dict[str, Any]:
    """Give one of an account's own trades."""
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": fill.list_id,
        "price": form.price(fill.price),
        "qty": form.quantity(fill.quantity),
        "quoteQty": form.quote(fill.quote),
        "commission": form.commission(fill),
        "commissionAsset": fill.commission_asset,
        "time": time(fill.time_us),
        "isBuyer": fill.is_buyer,
        "isMaker": fill.is_maker,
        "isBestMatch": True,
    }


def list_order_status(view: ListView) -> str:
    """Tell listOrderStatus."""
    return "EXECUTING" if view.is_open else "ALL_DONE"


def list_orders(view: ListView) -> list[dict[str, Any]]:
    """Name the orders of a list."""
    return [{"symbol": view.symbol, "orderId": order_id, "clientOrderId": word} for order_id, word in view.orders]


def list_status(view: ListView, time: Callable[[int], int]) -> dict[str, Any]:
    """Answer a query about an order list."""
    return {
        "orderListId": view.list_id,
        "contingencyType": view.contingency,
        "listStatusType": view.status,
        "listOrderStatus": list_order_status(view),
        "listClientOrderId": view.client_id,
        "transactionTime": time(view.updated_us),
        "symbol": view.symbol,
        "orders": list_orders(view),
    }


def list_of_amended(view: ListView) -> dict[str, Any]:
    """Tell of what list an amended order is."""
    return {
        "orderListId": view.list_id,
        "contingencyType": view.contingency,
        "listOrderStatus": list_order_status(view),
        "listClientOrderId": view.client_id,
        "symbol": view.symbol,
        "orders": list_orders(view),
    }


def new_list(outcome: ListOutcome, form: Format, time: Callable[[int], int], response: str) -> dict[str, Any]:
    """Answer a new order list; each of its orders as if it had been placed alone."""
    assert outcome.view is not None, "a list that was taken is there"
    reports = [new_order(one, form, time, response) for one in outcome.orders]
    return {**list_status(outcome.view, time), "orderReports": reports}


def cancelled_list(outcome: ListOutcome, form: Format, time: Callable[[int], int]) -> dict[str, Any]:
    """Answer a cancel of an order list."""
    assert outcome.view is not None, "a list that was cancelled is there"
    reports = [cancelled(one, form, time) for one in outcome.orders]
    return {**list_status(outcome.view, time), "orderReports": reports}


def refusal(error: Error) -> dict[str, Any]:
    """Give an error of the engine."""
    return {"code": error.code, "msg": error.msg}
