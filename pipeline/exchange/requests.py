"""Requests: what clients may ask for, and its parameters checked in the venue's words; REST and WebSocket API share it.

    METHODS[name]            who may ask, which parameters, what it weighs
    check(name, params)      text or JSON values → checked Python values, or ApiError
    new_order(symbol, …)     → NewOrder in the symbol's integers, or ApiError

Methods are named as the WebSocket API names them; a REST path is another way to say the same. Source: sections 7, 8,
10 and 12 of the protocol sheet and the venue's errors document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from shrivenq.pipeline.exchange import ticker_requests as tickers
from shrivenq.pipeline.exchange.accounts import RECV_WINDOW_MAX_US, to_us
from shrivenq.pipeline.exchange.errors import ApiError, invalid, missing
from shrivenq.pipeline.exchange.klines import INTERVALS, read_zone
from shrivenq.pipeline.exchange.list_parameters import LEGS, PLAIN, parameters_of
from shrivenq.pipeline.exchange.types import (
    CancelRestrictions,
    Error,
    NewOrder,
    OrderType,
    ReplaceMode,
    Side,
    StpMode,
    Symbol,
    TimeInForce,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Security = Literal["NONE", "TRADE", "USER_DATA", "SESSION"]
"""NONE needs no key; SESSION methods look after themselves; the others are SIGNED."""

STRATEGY_TYPE_MIN = 1_000_000
LIMIT_MAX = 1000

DAY_MS = 86_400_000
INT64_MAX = (1 << 63) - 1

NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
SIGNED_NUMBER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?", re.ASCII)
WINDOW = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,3})?", re.ASCII)
CLIENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}", re.ASCII)
SYMBOL = re.compile(r"[^\s\x00-\x1fa-z]{1,50}")

WORDS: dict[str, tuple[str, ...]] = {
    "side": get_args(Side),
    "type": get_args(OrderType),
    "timeInForce": get_args(TimeInForce),
    "newOrderRespType": ("ACK", "RESULT", "FULL"),
    "selfTradePreventionMode": get_args(StpMode),
    "cancelRestrictions": get_args(CancelRestrictions),
    "cancelReplaceMode": get_args(ReplaceMode),
    "orderRateLimitExceededMode": ("DO_NOTHING", "CANCEL_ONLY"),
    "pegPriceType": ("PRIMARY_PEG", "MARKET_PEG"),
    "pegOffsetType": ("PRICE_LEVEL",),
    "symbolStatus": ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY"),
    "interval": tuple(INTERVALS),
    "tickerType": tickers.TYPES,
    "windowSize": tuple(tickers.WINDOWS),
}
WRONG_WORDS = {
    "side": Error(-1117, "Invalid side."),
    "type": Error(-1116, "Invalid orderType."),
    "timeInForce": Error(-1115, "Invalid timeInForce."),
    "cancelRestrictions": Error(-1145, "`cancelRestrictions` has to be either `ONLY_NEW` or `ONLY_PARTIALLY_FILLED`."),
    "symbolStatus": Error(-1122, "Invalid symbolStatus."),
    "interval": Error(-1120, "Invalid interval."),
    "tickerType": Error(-1139, "Invalid ticker type."),
}
DECIMALS = frozenset({"price", "quantity", "quoteOrderQty", "stopPrice", "icebergQty", "newQty"})
CLIENT_IDS = frozenset({
    "newClientOrderId", "origClientOrderId", "cancelOrigClientOrderId", "cancelNewClientOrderId", "listClientOrderId",
})  # fmt: skip
FLAGS = frozenset({"omitZeroBalances", "computeCommissionRates", "returnRateLimits", "showPermissionSets"})
LISTS = frozenset({"symbols", "permissions"})
TEXTS = frozenset({"apiKey", "signature"})
SIGNED = frozenset({"apiKey", "signature", "timestamp", "recvWindow"})

ORDER = (
    "side", "type", "timeInForce", "price", "quantity", "quoteOrderQty", "newClientOrderId", "newOrderRespType",
    "stopPrice", "trailingDelta", "icebergQty", "strategyId", "strategyType", "selfTradePreventionMode",
    "pegPriceType", "pegOffsetValue", "pegOffsetType",
)  # fmt: skip
NEEDED = {
    "LIMIT": ("timeInForce", "price", "quantity"),
    "LIMIT_MAKER": ("price", "quantity"),
    "MARKET": (),
    "STOP_LOSS": ("quantity",),
    "TAKE_PROFIT": ("quantity",),
    "STOP_LOSS_LIMIT": ("timeInForce", "price", "quantity"),
    "TAKE_PROFIT_LIMIT": ("timeInForce", "price", "quantity"),
}
STOPS = frozenset({"STOP_LOSS", "TAKE_PROFIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
PRICED = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})


class Method(NamedTuple):
    """What one method takes and costs."""

    security: Security
    weight: int
    mandatory: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    orders: int = 0
    """What an accepted call adds to the account's unfilled order count."""
    free: bool = False
    """Whether the weight is charged on failure alone."""


WHICH = ("orderId", "origClientOrderId")
PAGE = ("orderId", "startTime", "endTime", "limit")

METHODS = {
    "ping": Method("NONE", 1),
    "time": Method("NONE", 1),
    "exchangeInfo": Method(
        "NONE", 20, (), ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus")
    ),
    "depth": Method("NONE", 5, ("symbol",), ("limit",)),
    "executionRules": Method("NONE", 2, (), ("symbol", "symbols")),
    "trades.recent": Method("NONE", 25, ("symbol",), ("limit",)),
    "trades.historical": Method("NONE", 25, ("symbol",), ("limit", "fromId")),
    "trades.aggregate": Method("NONE", 4, ("symbol",), ("fromId", "startTime", "endTime", "limit")),
    "klines": Method("NONE", 2, ("symbol", "interval"), ("startTime", "endTime", "limit", "timeZone")),
    "uiKlines": Method("NONE", 2, ("symbol", "interval"), ("startTime", "endTime", "limit", "timeZone")),
    "avgPrice": Method("NONE", 2, ("symbol",)),
    "ticker": Method("NONE", 4, (), ("symbol", "symbols", "windowSize", "type", "symbolStatus")),
    "ticker.24hr": Method("NONE", 2, (), ("symbol", "symbols", "type", "symbolStatus")),
    "ticker.tradingDay": Method("NONE", 4, (), ("symbol", "symbols", "timeZone", "type", "symbolStatus")),
    "ticker.book": Method("NONE", 2, (), ("symbol", "symbols", "symbolStatus")),
    "ticker.price": Method("NONE", 2, (), ("symbol", "symbols", "symbolStatus")),
    "referencePrice": Method("NONE", 2, ("symbol",)),
    "session.logon": Method("SESSION", 2, ("apiKey", "timestamp", "signature"), ("recvWindow",)),
    "session.status": Method("SESSION", 2),
    "session.logout": Method("SESSION", 2),
    "session.subscriptions": Method("SESSION", 2),
    "userDataStream.subscribe": Method("SESSION", 2),
    "userDataStream.subscribe.signature": Method(
        "SESSION", 2, ("apiKey", "timestamp", "signature"), ("recvWindow",)
    ),
    "userDataStream.unsubscribe": Method("SESSION", 2, (), ("subscriptionId",)),
    "order.place": Method("TRADE", 1, ("symbol", "side", "type"), ORDER, orders=1, free=True),
    "order.test": Method("TRADE", 1, ("symbol", "side", "type"), (*ORDER, "computeCommissionRates")),
    "order.cancel": Method("TRADE", 1, ("symbol",), (*WHICH, "newClientOrderId", "cancelRestrictions"), free=True),
    "order.cancelReplace": Method(
        "TRADE",
        1,
        ("symbol", "cancelReplaceMode", "side", "type"),
        (
            *ORDER, "cancelOrderId", "cancelOrigClientOrderId", "cancelNewClientOrderId", "cancelRestrictions",
            "orderRateLimitExceededMode",
        ),
        orders=1,
        free=True,
    ),
    "order.amend.keepPriority": Method("TRADE", 4, ("symbol", "newQty"), (*WHICH, "newClientOrderId")),
    "openOrders.cancelAll": Method("TRADE", 1, ("symbol",), free=True),
    "order.status": Method("USER_DATA", 4, ("symbol",), WHICH),
    "openOrders.status": Method("USER_DATA", 6, (), ("symbol",)),
    "allOrders": Method("USER_DATA", 20, ("symbol",), PAGE),
    "myTrades": Method("USER_DATA", 20, ("symbol",), (*PAGE, "fromId")),
    "account.status": Method("USER_DATA", 20, (), ("omitZeroBalances",)),
    "account.commission": Method("USER_DATA", 20, ("symbol",)),
    "account.rateLimits.orders": Method("USER_DATA", 40),
    "myFilters": Method("USER_DATA", 40, ("symbol",)),
    "myPreventedMatches": Method(
        "USER_DATA", 2, ("symbol",), ("preventedMatchId", "orderId", "fromPreventedMatchId", "limit")
    ),
    "myAllocations": Method(
        "USER_DATA", 20, ("symbol",), ("startTime", "endTime", "fromAllocationId", "limit", "orderId")
    ),
    **{name: Method("TRADE", 1, *parameters_of(name), orders=len(legs), free=True) for name, legs in LEGS.items()},
    "orderList.cancel": Method(
        "TRADE", 1, ("symbol",), ("orderListId", "listClientOrderId", "newClientOrderId"), free=True
    ),
    "orderList.status": Method("USER_DATA", 4, (), ("orderListId", "origClientOrderId")),
    "openOrderLists.status": Method("USER_DATA", 6),
    "allOrderLists": Method("USER_DATA", 20, (), ("fromId", "startTime", "endTime", "limit")),
}  # fmt: skip


def weight(name: str, values: Mapping[str, Any]) -> int:
    """Weigh a request by what it asks for. `values` may be unchecked: what cannot be understood weighs the least."""
    if name == "depth":
        limit = values.get("limit", 100)
        asked = int(limit) if NUMBER.fullmatch(str(limit)) else 100
        return 5 if asked <= 100 else 25 if asked <= 500 else 50 if asked <= 1000 else 250
    if name == "openOrders.status" and "symbol" not in values:
        return 80
    if name in tickers.TYPED:
        return tickers.ticker_weight(name, values)
    if name in {"ticker.book", "ticker.price"} and "symbol" not in values:
        return 4
    if name == "myPreventedMatches" and "orderId" in values:
        return 20
    if name == "myTrades" and "orderId" in values:
        return 5
    if name == "order.test" and str(values.get("computeCommissionRates", "")).lower() == "true":
        return 20
    return METHODS[name].weight


def is_free(name: str, body: Any) -> bool:
    """Tell whether a call that succeeded with this body gets its weight back: orders do, and a last amendment."""
    if name == "order.amend.keepPriority":
        return bool(body["amendedOrder"]["status"] == "EXPIRED")
    return METHODS[name].free


def check(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Check the parameters of a method: nothing missing, unknown, empty or malformed.

    `params` holds text (REST) or JSON values (WebSocket API). Returns ints for numbers and times, bools, lists and
    words; decimals stay text, because their scale is the symbol's (`scaled`). Raises ApiError.
    """
    method = METHODS[name]
    allowed = {*method.mandatory, *method.optional, "returnRateLimits"}
    if method.security in {"TRADE", "USER_DATA"}:
        allowed |= SIGNED
    read = [key for key in params if key in allowed]
    if len(read) < len(params):
        if not read and len(allowed) == 1:
            raise ApiError(-1101, f"Too many parameters; expected '0' and received '{len(params)}'.")
        raise ApiError(
            -1104,
            f"Not all sent parameters were read; read '{len(read)}' parameter(s) but was sent '{len(params)}'.",
        )
    for key in method.mandatory:
        if key not in params:
            raise missing(key)
    words = {"type": "tickerType"} if name in tickers.TYPED else {}
    values = {key: value_of(words.get(key, key), value) for key, value in params.items()}
    _check_together(name, values)
    return values


def _either(one: str, other: str) -> ApiError:
    return ApiError(-1102, f"Param '{one}' or '{other}' must be sent, but both were empty/null!")


def _not_required(key: str) -> ApiError:
    return ApiError(-1106, f"Parameter '{key}' sent when not required.")


def _illegal(key: str, legal: str) -> ApiError:
    return ApiError(-1100, f"Illegal characters found in parameter '{key}'; legal range is '{legal}'.")


def value_of(key: str, value: Any) -> Any:
    """Check one parameter by its name. Raises ApiError."""
    if key in PLAIN:
        return _renamed(key, PLAIN[key], value)
    if value is None or value == "":
        raise ApiError(-1105, f"Parameter '{key}' was empty.")
    if key in LISTS:
        return _list_of(key, value)
    if isinstance(value, (list, dict)):
        raise invalid(key)
    if key in FLAGS:
        return _flag(key, value)
    if isinstance(value, bool):
        raise invalid(key)
    text = str(value)
    if key in WORDS:
        if text not in WORDS[key]:
            wrong = WRONG_WORDS.get(key)
            raise ApiError(*wrong) if wrong else invalid(key)
        return text
    if key in TEXTS:
        return text
    if key == "timeZone":
        try:
            return read_zone(text)
        except ValueError:
            raise invalid(key) from None
    if key in CLIENT_IDS:
        if not CLIENT_ID.fullmatch(text):
            raise _illegal(key, "^[a-zA-Z0-9-_]{1,36}$")
        return text
    if key == "symbol":
        if not SYMBOL.fullmatch(text):
            raise _illegal(key, r"^[\w\-._&&[^a-z]]{1,50}$")
        return text
    return _number(key, text)


def _renamed(name: str, plain: str, value: Any) -> Any:
    """Check a parameter that has a plain name besides, and say its own in what is wrong."""
    try:
        return value_of(plain, value)
    except ApiError as error:
        raise error.about({plain: name}) from None


def _number(key: str, text: str) -> int | str:
    """Check a number; decimals stay text, a window comes back in microseconds."""
    if key in DECIMALS:
        if not DECIMAL.fullmatch(text):
            raise _illegal(key, r"^([0-9]{1,20})(\.[0-9]{1,20})?$")
        return text
    if key == "recvWindow":
        if not WINDOW.fullmatch(text):
            raise _illegal(key, r"^[0-9]{1,5}(\.[0-9]{1,3})?$")
        whole, _, part = text.partition(".")
        window = int(whole) * 1000 + int(part.ljust(3, "0"))
        if window > RECV_WINDOW_MAX_US:
            raise ApiError(-1131, "recvWindow must be less than 60000")
        return window
    signed = key == "strategyId"
    if not (SIGNED_NUMBER if signed else NUMBER).fullmatch(text):
        raise _illegal(key, "^-?[0-9]{1,20}$" if signed else "^[0-9]{1,20}$")
    number = int(text)
    if number > INT64_MAX:
        raise ApiError(-1108, f"Parameter '{key}' overflowed.")
    return number


def _flag(key: str, value: Any) -> bool:
    if value in (True, "true", "TRUE"):
        return True
    if value in (False, "false", "FALSE"):
        return False
    raise invalid(key)


def _list_of(key: str, value: Any) -> list[str]:
    """Read a list of words: a JSON list, or its text as REST and the official client send it."""
    items = value
    if isinstance(value, str):
        items = [part.strip().strip('"') for part in value.strip().removeprefix("[").removesuffix("]").split(",")]
    if not isinstance(items, list) or not all(isinstance(item, str) and SYMBOL.fullmatch(item) for item in items):
        raise _illegal(key, r'^\[("[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}")*)?\]$')
    if len(set(items)) < len(items):
        raise ApiError(-1151, "Symbol is present multiple times in the list.")
    return items


def _check_together(name: str, values: dict[str, Any]) -> None:
    """Check what parameters say about each other."""
    if "symbol" in values and "symbols" in values:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if name in {"order.cancel", "order.status", "order.amend.keepPriority"} and not values.keys() & set(WHICH):
        raise _either("origClientOrderId", "orderId")
    if name == "order.cancelReplace" and not values.keys() & {"cancelOrderId", "cancelOrigClientOrderId"}:
        raise _either("cancelOrigClientOrderId", "cancelOrderId")
    if name in tickers.COMPUTED:
        count = tickers.count_symbols(values)
        if count is None:
            raise _either("symbol", "symbols")
        if count > tickers.SYMBOLS_MAX:
            raise ApiError(-1101, f"Too many parameters; expected '{tickers.SYMBOLS_MAX}' and received '{count}'.")
    for asked, one, other in (
        ("orderList.cancel", "orderListId", "listClientOrderId"),
        ("orderList.status", "orderListId", "origClientOrderId"),
    ):
        if name == asked and not values.keys() & {one, other}:
            raise _either(one, other)
    if "limit" in values:
        most = INT64_MAX if name == "depth" else LIMIT_MAX  # depth: whoever asks for more gets what there is
        if not 1 <= values["limit"] <= most:
            raise invalid("limit")
    start, end = (to_us(values[key]) if key in values else None for key in ("startTime", "endTime"))
    if start is not None and end is not None:
        if end < start:
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        if end - start > DAY_MS * 1000 and name not in {"klines", "uiKlines"}:
            raise ApiError(-1127, "More than 24 hours between startTime and endTime.")


def scaled(key: str, text: str, decimals: int) -> int:
    """Read a decimal as an int at `decimals`. Raises ApiError for digits that would be lost (-1111) or do not fit."""
    found = DECIMAL.fullmatch(text)
    assert found is not None, f"{key} was not checked"
    whole, part = found[1], (found[2] or "").rstrip("0")
    if len(part) > decimals:
        raise ApiError(-1111, f"Parameter '{key}' has too much precision.")
    number = int(whole + part.ljust(decimals, "0"))
    if number > INT64_MAX:
        raise ApiError(-1108, f"Parameter '{key}' overflowed.")
    return number


def check_order(values: Mapping[str, Any]) -> None:
    """Check that an order has what its type needs, and nothing that it must not have. Raises ApiError."""
    kind = values["type"]
    for key in NEEDED[kind]:
        if key not in values:
            raise missing(key)
    if kind == "MARKET" and "quantity" not in values and "quoteOrderQty" not in values:
        raise _either("quantity", "quoteOrderQty")
    if kind == "MARKET" and "quantity" in values and "quoteOrderQty" in values:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if kind in STOPS and "stopPrice" not in values and "trailingDelta" not in values:
        raise _either("stopPrice", "trailingDelta")
    if kind not in STOPS:
        for key in ("stopPrice", "trailingDelta"):
            if key in values:
                raise _not_required(key)
    if kind != "MARKET" and "quoteOrderQty" in values:
        raise _not_required("quoteOrderQty")
    if kind not in PRICED:
        for key in ("price", "icebergQty"):
            if key in values:
                raise _not_required(key)
    if "timeInForce" in values and "timeInForce" not in NEEDED[kind]:
        raise _not_required("timeInForce")
    if "icebergQty" in values and values.get("timeInForce", "GTC") != "GTC":
        raise ApiError(-1013, "Unsupported order combination")
    if any(key in values for key in ("pegPriceType", "pegOffsetValue", "pegOffsetType")):
        raise ApiError(-1020, "This operation is not supported.")
    if values.get("strategyType", STRATEGY_TYPE_MIN) < STRATEGY_TYPE_MIN:
        raise ApiError(-1134, "`strategyType` was less than 1000000.")


def new_order(symbol: Symbol, values: Mapping[str, Any]) -> NewOrder:
    """Make the engine's order of checked values: every number at the symbol's decimals. Raises ApiError."""
    check_order(values)

    def number(key: str, decimals: int) -> int | None:
        return scaled(key, values[key], decimals) if key in values else None

    return NewOrder(
        symbol=symbol.name,
        side=values["side"],
        type=values["type"],
        time_in_force=values.get("timeInForce"),
        price=number("price", symbol.price_decimals),
        quantity=number("quantity", symbol.quantity_decimals),
        quote_quantity=number("quoteOrderQty", symbol.quote_decimals),
        stop_price=number("stopPrice", symbol.price_decimals),
        trailing_delta=values.get("trailingDelta"),
        iceberg_quantity=number("icebergQty", symbol.quantity_decimals),
        client_id=values.get("newClientOrderId"),
        stp=values.get("selfTradePreventionMode"),
        strategy_id=values.get("strategyId"),
        strategy_type=values.get("strategyType"),
    )


def response_type(values: Mapping[str, Any]) -> str:
    """Tell how much an order's response says: as asked, else FULL for MARKET and LIMIT and ACK for the others."""
    asked: str | None = values.get("newOrderRespType")
    return asked or ("FULL" if values["type"] in {"MARKET", "LIMIT"} else "ACK")
