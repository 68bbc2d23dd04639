"""Reference data: exchangeInfo, its filters, and the execution rules (protocol sheet, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.payloads import Format, multiplier_text, to_text
from shrivenq.pipeline.exchange.types import ORDER_TYPES, Symbol

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.engine import Engine
    from shrivenq.pipeline.exchange.venue import Call, Venue


def exchange_info(venue: Venue, call: Call) -> dict[str, Any]:
    """Answer exchangeInfo. Raises ApiError -1121 for a symbol there is none of."""
    values = call.values
    chosen = [values["symbol"]] if "symbol" in values else values.get("symbols", list(venue.symbols))
    for name in chosen:
        if name not in venue.symbols:
            raise ApiError(-1121, "Invalid symbol.")
    wanted = values.get("permissions")
    if wanted is not None and "SPOT" not in wanted:
        chosen = []
    status = values.get("symbolStatus")
    symbols = [venue.symbols[name] for name in chosen]
    return {
        "timezone": "UTC",
        "serverTime": call.time(call.now_us),
        "rateLimits": venue.limits.rules.as_list(),
        "exchangeFilters": exchange_filters(venue.engine),
        "symbols": [
            symbol_info(one, permission_sets=values.get("showPermissionSets", True))
            for one in symbols
            if status in (None, one.status)
        ],
    }


def symbol_info(symbol: Symbol, *, permission_sets: bool = True) -> dict[str, Any]:
    """Give all fields of one symbol."""
    return {
        "symbol": symbol.name,
        "status": symbol.status,
        "baseAsset": symbol.base,
        "baseAssetPrecision": symbol.base_decimals,
        "quoteAsset": symbol.quote,
        "quotePrecision": symbol.quote_decimals,
        "quoteAssetPrecision": symbol.quote_decimals,
        "baseCommissionPrecision": symbol.base_decimals,
        "quoteCommissionPrecision": symbol.quote_decimals,
        "orderTypes": list(ORDER_TYPES),
        "icebergAllowed": symbol.iceberg_parts_max > 0,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": symbol.quote_quantity_allowed,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": symbol.cancel_replace_allowed,
        "amendAllowed": symbol.amend_allowed,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(symbol),
        "permissions": [],
        "permissionSets": [["SPOT"]] if permission_sets else [],
        "defaultSelfTradePreventionMode": symbol.stp_default,
        "allowedSelfTradePreventionModes": list(symbol.stp_allowed),
    }


def exchange_filters(engine: Engine) -> list[dict[str, Any]]:
    """Give the filters of all symbols together, those that are switched on."""
    limits = (
        ("EXCHANGE_MAX_NUM_ORDERS", "maxNumOrders", engine.orders_max),
        ("EXCHANGE_MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders", engine.algo_orders_max),
        ("EXCHANGE_MAX_NUM_ICEBERG_ORDERS", "maxNumIcebergOrders", engine.icebergs_max),
        ("EXCHANGE_MAX_NUM_ORDER_LISTS", "maxNumOrderLists", engine.order_lists_max),
    )
    return [{"filterType": kind, name: limit} for kind, name, limit in limits if limit]


def asset_filters(engine: Engine, symbol: Symbol) -> list[dict[str, Any]]:
    """Give the filters of a symbol's two assets, those that are switched on."""
    return [
        {"filterType": "MAX_ASSET", "asset": asset, "limit": to_text(engine.asset_max[asset], engine.assets[asset])}
        for asset in (symbol.base, symbol.quote)
        if engine.asset_max.get(asset)
    ]


def filters(symbol: Symbol) -> list[dict[str, Any]]:
    """Give the filters of a symbol, those that are switched on."""
    form = Format(symbol)
    found: list[dict[str, Any]] = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": form.price(symbol.price_min),
            "maxPrice": form.price(symbol.price_max),
            "tickSize": form.price(symbol.tick),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": form.quantity(symbol.quantity_min),
            "maxQty": form.quantity(symbol.quantity_max),
            "stepSize": form.quantity(symbol.step),
        },
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": form.quantity(symbol.market_quantity_min),
            "maxQty": form.quantity(symbol.market_quantity_max),
            "stepSize": form.quantity(symbol.market_step),
        },
    ]
    found += _percent_filters(symbol) + _notional_filter(symbol, form)
    for kind, name, limit in (
        ("MAX_NUM_ORDERS", "maxNumOrders", symbol.orders_max),
        ("MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders", symbol.algo_orders_max),
        ("ICEBERG_PARTS", "limit", symbol.iceberg_parts_max),
        ("MAX_NUM_ICEBERG_ORDERS", "maxNumIcebergOrders", symbol.icebergs_max),
        ("MAX_NUM_ORDER_LISTS", "maxNumOrderLists", symbol.order_lists_max),
        ("MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends", symbol.amends_max),
    ):
        if limit:
            found.append({"filterType": kind, name: limit})
    deltas = {
        "minTrailingAboveDelta": symbol.trailing_above_min,
        "maxTrailingAboveDelta": symbol.trailing_above_max,
        "minTrailingBelowDelta": symbol.trailing_below_min,
        "maxTrailingBelowDelta": symbol.trailing_below_max,
    }
    if any(deltas.values()):
        found.append({"filterType": "TRAILING_DELTA", **deltas})
    if symbol.position_max:
        found.append({"filterType": "MAX_POSITION", "maxPosition": form.quantity(symbol.position_max)})
    return found


def _percent_filters(symbol: Symbol) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if symbol.percent_up:
        found.append(
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": multiplier_text(symbol.percent_up),
                "multiplierDown": multiplier_text(symbol.percent_down),
                "avgPriceMins": symbol.average_minutes,
            }
        )
    if symbol.bid_percent_up or symbol.ask_percent_up:
        found.append(
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": multiplier_text(symbol.bid_percent_up),
                "bidMultiplierDown": multiplier_text(symbol.bid_percent_down),
                "askMultiplierUp": multiplier_text(symbol.ask_percent_up),
                "askMultiplierDown": multiplier_text(symbol.ask_percent_down),
                "avgPriceMins": symbol.average_minutes,
            }
        )
    return found


def _notional_filter(symbol: Symbol, form: Format) -> list[dict[str, Any]]:
    if symbol.notional_filter == "MIN_NOTIONAL":
        return [
            {
                "filterType": "MIN_NOTIONAL",
                "minNotional": form.quote(symbol.notional_min),
                "applyToMarket": symbol.apply_min_to_market,
                "avgPriceMins": symbol.average_minutes,
            }
        ]
    return [
        {
            "filterType": "NOTIONAL",
            "minNotional": form.quote(symbol.notional_min),
            "applyMinToMarket": symbol.apply_min_to_market,
            "maxNotional": form.quote(symbol.notional_max),
            "applyMaxToMarket": symbol.apply_max_to_market,
            "avgPriceMins": symbol.average_minutes,
        }
    ]


def execution_rules(symbol: Symbol) -> list[dict[str, Any]]:
    """Give the execution rules of a symbol: PRICE_RANGE with the multipliers there are, or nothing."""
    multipliers = {
        "bidLimitMultUp": symbol.range_bid_up,
        "bidLimitMultDown": symbol.range_bid_down,
        "askLimitMultUp": symbol.range_ask_up,
        "askLimitMultDown": symbol.range_ask_down,
    }
    known = {name: multiplier_text(value) for name, value in multipliers.items() if value}
    return [{"ruleType": "PRICE_RANGE", **known}] if known else []
