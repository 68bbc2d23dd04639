"""Views: rows of the engine's arrays → what `types.py` promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.types import (
    STP_MODES,
    BalanceEvent,
    Event,
    Fill,
    ListEvent,
    OrderEvent,
    OrderView,
    Prevention,
    TickerEvent,
    TradeEvent,
)
from shrivenq.stages.id_map import find
from shrivenq.stages.messages import BUY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shrivenq.pipeline.exchange.types import ListStatus, ListView, Symbol

FORCES: Any = ("GTC", "GTC", "IOC", "FOK")
"""Words for the time in force, by code; MARKET orders have none and say GTC."""
TYPES: Any = s.TYPES
STATUSES: Any = s.STATUSES
EXECUTIONS: Any = s.EXECUTIONS
EXPIRIES: Any = s.EXPIRIES
LIST_STATUSES: Any = s.LIST_STATUSES

_AT = {name: position for position, name in enumerate(s.EVENT.names or ())}
_KIND, _SYMBOL, _ACCOUNT, _TIME, _ROW = (_AT[name] for name in ("kind", "symbol", "account", "time_us", "row"))


def order_view(row: Any, client_id: str, symbols: Sequence[Symbol], groups: Any) -> OrderView:
    """Show an ORDER row, given as a tuple; `groups` is the trade group of each account."""
    (
        order_id, account, symbol, side, order_type, time_in_force, price, quantity, quote_quantity, stop_price,
        executed, cumulative_quote, status, stp, prevented, prevented_match_id, created_us, updated_us, working_us,
        expiry, strategy_id, strategy_type, amends, iceberg, trailing_delta, trailing_us, list_id, *_,
    ) = row  # fmt: skip
    return OrderView(
        account=account,
        symbol=symbols[symbol].name,
        order_id=order_id,
        client_id=client_id,
        side="BUY" if side == BUY else "SELL",
        type=TYPES[order_type],
        time_in_force=FORCES[time_in_force],
        price=price,
        quantity=quantity,
        quote_quantity=quote_quantity,
        stop_price=stop_price,
        executed=executed,
        cumulative_quote=cumulative_quote,
        status=STATUSES[status],
        stp=STP_MODES[stp],
        prevented=prevented,
        prevented_match_id=prevented_match_id,
        created_us=created_us,
        updated_us=updated_us,
        working_us=working_us,
        expiry_reason=EXPIRIES[expiry],
        strategy_id=None if strategy_id == s.MISSING else strategy_id,
        strategy_type=None if strategy_type == s.MISSING else strategy_type,
        amends=amends,
        trade_group=int(groups[account]),
        iceberg=iceberg,
        trailing_delta=trailing_delta,
        trailing_us=trailing_us,
        list_id=list_id or -1,
    )


def fill_view(row: Any, symbols: Sequence[Symbol]) -> Fill:
    """Show a FILL row, given as a tuple."""
    account, symbol, order_id, trade_id, price, quantity, quote, commission, time_us, buyer, maker, list_id = row
    one = symbols[symbol]
    return Fill(
        account=account,
        symbol=one.name,
        order_id=order_id,
        trade_id=trade_id,
        price=price,
        quantity=quantity,
        quote=quote,
        commission=commission,
        commission_asset=one.base if buyer else one.quote,
        time_us=time_us,
        is_buyer=bool(buyer),
        is_maker=bool(maker),
        list_id=list_id or -1,
    )


def _order_event(
    event: dict[str, int], order: OrderView, names: Mapping[int, tuple[str, str]], symbols: Sequence[Symbol]
) -> OrderEvent:
    """Show a REPORT."""
    execution = EXECUTIONS[event["execution"]]
    fill = None
    if execution == "TRADE":
        buyer = order.side == "BUY"
        fill = fill_view(
            (
                event["account"], event["symbol"], order.order_id, event["trade_id"], event["price"],
                event["quantity"], event["quote"], event["commission"], event["time_us"], buyer, event["maker"],
                order.list_id,
            ),
            symbols,
        )  # fmt: skip
    client_id, original = order.client_id, ""
    if execution in {"CANCELED", "REPLACED"}:
        client_id, original = names.get(event["row"], (client_id, client_id))
    prevented = execution == "TRADE_PREVENTION"
    moved = prevented and STP_MODES[event["mode"]] == "TRANSFER"
    return OrderEvent(
        account=event["account"],
        order=order,
        execution=execution,
        execution_id=event["execution_id"],
        time_us=event["time_us"],
        client_id=client_id,
        original_client_id=original,
        reject_reason="NONE",
        fill=fill,
        prevented_quantity=event["quantity"] if prevented else 0,
        counter_order_id=event["counter"] if prevented else -1,
        transferred_quantity=event["quantity"] if moved else 0,
        transferred_price=event["price"] if moved else 0,
        transferred_quote=event["quote"] if moved else 0,
    )


def show_events(
    exchange: s.Exchange,
    symbols: Sequence[Symbol],
    client_id_of: Callable[[int], str],
    names: Mapping[int, tuple[str, str]],
    show_list: Callable[[int, ListStatus], ListView],
) -> list[Event]:
    """Show all events of the kernels, in order.

    `client_id_of` a row; `show_list` shows the order list in a row; `names` are, by row, the `c` and `C` of orders that
    are being cancelled or amended.
    """
    count = int(exchange.words[s.EVENTS])
    groups = exchange.accounts["trade_group"]
    shown: list[Event] = []
    for position, row in enumerate(exchange.events[:count].tolist()):
        event = dict(zip(_AT, row, strict=True))
        one = symbols[row[_SYMBOL]]
        kind = row[_KIND]
        if kind == s.REPORT:
            order = order_view(exchange.snapshots[position].item(), client_id_of(row[_ROW]), symbols, groups)
            shown.append(_order_event(event, order, names, symbols))
        elif kind == s.POSITION:
            balances = (
                (one.base, event["base_free"], event["base_locked"]),
                (one.quote, event["quote_free"], event["quote_locked"]),
            )
            shown.append(BalanceEvent(row[_ACCOUNT], balances, row[_TIME]))
        elif kind == s.LIST_STATUS:
            shown.append(ListEvent(row[_ACCOUNT], show_list(row[_ROW], LIST_STATUSES[event["mode"]]), row[_TIME]))
        elif kind == s.MARKET_TRADE:
            maker = bool(event["maker"])
            shown.append(TradeEvent(one.name, event["trade_id"], event["price"], event["quantity"], maker, row[_TIME]))
        else:
            shown.append(
                TickerEvent(
                    one.name,
                    event["update_id"],
                    event["bid"],
                    event["bid_quantity"],
                    event["ask"],
                    event["ask_quantity"],
                    row[_TIME],
                )
            )
    return shown


def show_preventions(exchange: s.Exchange, symbols: Sequence[Symbol]) -> list[Prevention]:
    """Show the prevented matches among the events: one for each, whichever sides lost something."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    count = int(exchange.words[s.EVENTS])
    reports = exchange.events[:count]
    for position in ((reports["kind"] == s.REPORT) & (reports["execution"] == s.X_PREVENTED)).nonzero()[0]:
        event, order = reports[position], exchange.snapshots[position]
        maker = bool(event["maker"])
        key = (int(event["symbol"]), int(order["prevented_match_id"]))
        match = found.setdefault(key, {"taker_quantity": 0, "maker_quantity": 0})
        own, other = ("maker", "taker") if maker else ("taker", "maker")
        match[f"{own}_order_id"], match[f"{other}_order_id"] = int(order["order_id"]), int(event["counter"])
        match[f"{own}_quantity"] = int(event["quantity"])
        match["price"], match["time_us"] = int(event["price"]), int(event["time_us"])
        match["mode"] = STP_MODES[event["mode"]]
        taker = exchange.orders[find(exchange.ids, match["taker_order_id"], 0)]
        match["taker_account"] = int(taker["account"])
        match["trade_group"] = int(exchange.accounts[match["taker_account"]]["trade_group"])
    return [Prevention(symbol=symbols[at].name, match_id=match_id, **rest) for (at, match_id), rest in found.items()]
