"""Refusals: why the engine does not do what it was asked, as codes for kernels and as the venue's words for clients.

Texts and codes: the venue's errors page ("Messages for -1010, -2010, -2011", "Filter failures").
"""

from __future__ import annotations

from shrivenq.pipeline.exchange.types import Error, RejectReason

_BALANCE = "Account has insufficient balance for requested action."
_TABLE: tuple[tuple[str, int, str], ...] = (
    ("none", 0, ""),
    ("price_filter", -1013, "Filter failure: PRICE_FILTER"),
    ("percent_price", -1013, "Filter failure: PERCENT_PRICE"),
    ("percent_price_by_side", -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
    ("lot_size", -1013, "Filter failure: LOT_SIZE"),
    ("market_lot_size", -1013, "Filter failure: MARKET_LOT_SIZE"),
    ("min_notional", -1013, "Filter failure: MIN_NOTIONAL"),
    ("notional", -1013, "Filter failure: NOTIONAL"),
    ("max_num_orders", -1013, "Filter failure: MAX_NUM_ORDERS"),
    ("max_num_algo_orders", -1013, "Filter failure: MAX_NUM_ALGO_ORDERS"),
    ("exchange_max_num_orders", -1013, "Filter failure: EXCHANGE_MAX_NUM_ORDERS"),
    ("exchange_max_num_algo_orders", -1013, "Filter failure: EXCHANGE_MAX_NUM_ALGO_ORDERS"),
    ("iceberg_parts", -1013, "Filter failure: ICEBERG_PARTS"),
    ("max_num_iceberg_orders", -1013, "Filter failure: MAX_NUM_ICEBERG_ORDERS"),
    ("exchange_max_num_iceberg_orders", -1013, "Filter failure: EXCHANGE_MAX_NUM_ICEBERG_ORDERS"),
    ("max_position", -1013, "Filter failure: MAX_POSITION"),
    ("max_asset", -1013, "Filter failure: MAX_ASSET"),
    ("max_num_order_lists", -1013, "Filter failure: MAX_NUM_ORDER_LISTS"),
    ("exchange_max_num_order_lists", -1013, "Filter failure: EXCHANGE_MAX_NUM_ORDER_LISTS"),
    ("trailing_delta", -1013, "Filter failure: TRAILING_DELTA"),
    ("max_amends", -2038, "Filter failure: MAX_NUM_ORDER_AMENDS"),
    ("stp_mode", -1013, "This symbol does not allow the specified self-trade prevention mode."),
    ("market_closed", -2010, "Market is closed."),
    ("balance", -2010, _BALANCE),
    ("nothing", -2010, "Price * QTY is zero or less."),
    ("would_trigger", -2010, "Order would trigger immediately."),
    ("would_match", -2010, "Order would immediately match and take."),
    ("oco_prices", -2010, "The relationship of the prices for the orders is not correct."),
    ("duplicate", -2010, "Duplicate order sent."),
    ("iceberg", -2010, "Iceberg orders are not supported for this symbol."),
    ("quote_quantity", -2010, "Quote order qty market orders are not support for this symbol."),
    ("cancel_replace", -2010, "Order cancel-replace is not supported for this symbol."),
    ("thin_book", -2010, "Order book liquidity is less than LOT_SIZE filter minimum quantity."),
    ("thin_market_book", -2010, "Order book liquidity is less than MARKET_LOT_SIZE filter minimum quantity."),
    ("empty_book", -2010, "Order book liquidity is less than symbol minimum quantity."),
    ("overflow", -1108, "Parameter 'quantity' overflowed."),
    ("strategy_overflow", -1108, "Parameter 'strategyId' overflowed."),
    ("unknown_order", -2011, "Unknown order sent."),
    ("unknown_list", -2011, "Unknown order list sent."),
    ("cancel_closed", -2011, "Market is closed."),
    ("restricted", -2011, "Order was not canceled due to cancel restrictions."),
    ("ids_differ", -2039, "Client order id does not match the order id."),
    ("amend_unknown", -2038, "Unknown order sent."),
    ("amend_closed", -2038, "Market is closed."),
    ("amend_quantity", -2038, "The new quantity must be above zero and below the quantity of the order."),
    ("amend_filter", -2038, "Filter failure: LOT_SIZE"),
    ("amend_notional", -2038, "Filter failure: NOTIONAL"),
    ("amend_min_notional", -2038, "Filter failure: MIN_NOTIONAL"),
    ("amend_forbidden", -2038, "Order amend is not supported for this symbol."),
    ("amend_duplicate", -2038, "Duplicate order sent."),
    ("no_such_order", -2013, "Order does not exist."),
    ("no_such_list", -2018, "Order list does not exist."),
    ("replace_partly", -2021, "Order cancel-replace partially failed."),
    ("replace_failed", -2022, "Order cancel-replace failed."),
    ("bad_symbol", -1121, "Invalid symbol."),
    ("bad_client_id", -1100, ("Illegal characters found in parameter 'newClientOrderId'; legal range is "
     "'^[a-zA-Z0-9-_]{1,36}$'.")),
    ("bad_restrictions", -1145, "cancelRestrictions has to be either ONLY_NEW or ONLY_PARTIALLY_FILLED."),
    ("no_id", -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"),
    ("combination", -1014, "Unsupported order combination."),
    ("strategy_type", -1134, "strategyType was less than 1000000."),
)  # fmt: skip

CODE = {name: code for code, (name, _, _) in enumerate(_TABLE)}
"""Name → the code that kernels return; 0 is no refusal."""

ERRORS: tuple[Error | None, ...] = (None, *(Error(code, text) for _, code, text in _TABLE[1:]))
"""What a client is told, by that code."""

REJECTIONS: dict[int, RejectReason] = {
    CODE["balance"]: "INSUFFICIENT_BALANCES",
    CODE["would_trigger"]: "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
    CODE["would_match"]: "WOULD_MATCH_IMMEDIATELY",
}
"""Reject reason of an executionReport, by that code; NONE for all others."""


def error_of(name: str) -> Error:
    """Name an error by its word in the table."""
    found = ERRORS[CODE[name]]
    assert found is not None
    return found


def missing(parameter: str) -> Error:
    """Word the error for a mandatory parameter that was not sent."""
    return Error(-1102, f"Mandatory parameter '{parameter}' was not sent, was empty/null, or malformed.")


def not_required(parameter: str) -> Error:
    """Word the error for a parameter that this kind of order does not take."""
    return Error(-1106, f"Parameter '{parameter}' sent when not required.")
