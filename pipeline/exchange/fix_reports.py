"""FIX reports: what happened to an order, or was refused, as the fields of the message that says so.

Source: section 15 of the protocol sheet; ExpiryReason is numbered as in section 14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.fix_orders import FORCES, MODES, SIDES
from shrivenq.pipeline.exchange.fix_wire import Fields, Message, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shrivenq.pipeline.exchange.limits import Window
    from shrivenq.pipeline.exchange.payloads import Format
    from shrivenq.pipeline.exchange.types import OrderEvent, OrderView

REPORT, CANCEL_REJECT, AMEND_REJECT, MASS_REPORT, LIMIT_RESPONSE = "8", "9", "XAR", "r", "XLR"

SIDE = {name: number for number, name in SIDES.items()}
FORCE = {name: number for number, name in FORCES.items()}
MODE = {name: number for number, name in MODES.items()}
TYPE = {
    "MARKET": "1", "LIMIT": "2", "LIMIT_MAKER": "2", "STOP_LOSS": "3", "TAKE_PROFIT": "3", "STOP_LOSS_LIMIT": "4",
    "TAKE_PROFIT_LIMIT": "4",
}  # fmt: skip
STATUS = {
    "NEW": "0", "PARTIALLY_FILLED": "1", "FILLED": "2", "CANCELED": "4", "PENDING_CANCEL": "6", "REJECTED": "8",
    "PENDING_NEW": "A", "EXPIRED": "C", "EXPIRED_IN_MATCH": "C",
}  # fmt: skip
EXECUTION = {"NEW": "0", "CANCELED": "4", "REPLACED": "5", "REJECTED": "8", "TRADE": "F", "EXPIRED": "C"}
EXPIRY = {
    "REJECTED": "1", "EXCHANGE_CANCELED": "2", "OCO_TRIGGER": "3", "OTO_PHASE_ONE_EXPIRED": "4",
    "UNFILLED_IOC_QUANTITY_EXPIRED": "5", "UNFILLED_FOK_ORDER_EXPIRED": "6",
    "INSUFFICIENT_LIQUIDITY": "7", "EXECUTION_RULE_PRICE_RANGE_EXCEEDED": "8",
}  # fmt: skip
UNITS = {"SECOND": "s", "MINUTE": "m", "HOUR": "h", "DAY": "d"}
ECHOED = (38, 40, 54, 55, 18, 44, 59, 111, 152, 847, 7940, 25001, 1100, 1101, 1102, 1107, 1109, 25009)
"""What a report of a refused order repeats from it."""


def execution_report(event: OrderEvent, form: Format) -> Fields:
    """Report a change of an order: ExecutionReport."""
    order = event.order
    fields: Fields = [(17, str(event.execution_id)), (11, event.client_id)]
    if event.original_client_id:
        fields.append((41, event.original_client_id))
    fields += [
        (37, str(order.order_id)),
        (38, form.quantity(order.quantity)),
        (40, TYPE[order.type]),
        (54, SIDE[order.side]),
        (55, order.symbol),
    ]
    if order.list_id > 0:
        fields.append((66, str(order.list_id)))
    if order.type == "LIMIT_MAKER":
        fields.append((18, "6"))
    if order.price:
        fields.append((44, form.price(order.price)))
    fields += _trigger(order, form)
    fields += [(59, FORCE[order.time_in_force]), (60, time_text(event.time_us)), (25018, time_text(order.created_us))]
    if order.iceberg:
        fields.append((111, form.quantity(order.iceberg)))
    if order.quote_quantity:
        fields.append((152, form.quote(order.quote_quantity)))
    fields += _strategy(order)
    fields += [
        (25001, MODE[order.stp]),
        (150, _execution(event)),
        (39, STATUS[order.status]),
        (14, form.quantity(order.executed)),
        (151, form.quantity(order.leaves)),
        (25017, form.quote(order.cumulative_quote)),
        *_trade(event, form),
    ]
    if order.is_working:
        fields.append((636, "Y"))
    if order.working_us:
        fields.append((25023, time_text(order.working_us)))
    return fields + _ending(event, form)


def _execution(event: OrderEvent) -> str:
    """Give ExecType: what prevention leaves of an order is another quantity, or nothing."""
    if event.execution == "TRADE_PREVENTION":
        return "5" if event.order.is_open else "C"
    return EXECUTION[event.execution]


def _trigger(order: OrderView, form: Format) -> Fields:
    """Tell what a stop order waits for."""
    if not order.stop_price and not order.trailing_delta:
        return []
    up = order.type.startswith("STOP") == (order.side == "BUY")
    price = [(1102, form.price(order.stop_price))] if order.stop_price else []
    trailing = [(25009, str(order.trailing_delta))] if order.trailing_delta else []
    return [(1100, "4"), (1101, "1"), *price, (1107, "2"), (1109, "U" if up else "D"), *trailing]


def _strategy(order: OrderView) -> Fields:
    named = ((847, order.strategy_type), (7940, order.strategy_id))
    return [(tag, str(value)) for tag, value in named if value is not None]


def _trade(event: OrderEvent, form: Format) -> Fields:
    """Tell the trade of a report, and its fee; nothing traded in any other."""
    fill = event.fill
    if fill is None:
        return [(32, form.quantity(0))]
    return [
        (1057, "N" if fill.is_maker else "Y"),
        (1003, str(fill.trade_id)),
        (31, form.price(fill.price)),
        (32, form.quantity(fill.quantity)),
        (136, "1"),
        (137, form.commission(fill)),
        (138, fill.commission_asset),
        (139, "4"),
    ]


def _ending(event: OrderEvent, form: Format) -> Fields:
    """Tell what self-trade prevention did, and why an order expired."""
    order = event.order
    fields: Fields = []
    if order.prevented_match_id >= 0:
        fields += [(25024, str(order.prevented_match_id)), (25030, form.quantity(order.prevented))]
    if event.execution == "TRADE_PREVENTION":
        fields += [
            (25027, str(order.trade_group)),
            (25028, order.symbol),
            (25029, str(event.counter_order_id)),
            (25031, form.quantity(event.prevented_quantity)),
        ]
        if event.transferred_quantity:
            price, quantity = form.price(event.transferred_price), form.quantity(event.transferred_quantity)
            fields += [(25025, price), (25026, quantity)]
    if order.expiry_reason is not None:
        fields.append((25056, EXPIRY[order.expiry_reason]))
    return fields


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Error = dict[str, Any]
"""{code, msg}, as every protocol has it."""


def _why(error: Error) -> Fields:
    return [(25016, str(error["code"])), (58, error["msg"])]


def _echo(message: Message, tags: Iterable[int]) -> Fields:
    fields = dict(message.fields)
    return [(tag, fields[tag]) for tag in tags if tag in fields]


def order_rejected(message: Message, error: Error, now_us: int) -> Fields:
    """Say that the new order of D or XCN is none: ExecutionReport without an ExecID."""
    nothing = [(150, "8"), (39, "8"), (14, "0"), (151, "0"), (32, "0")]
    return [*_echo(message, (11, *ECHOED)), (60, time_text(now_us)), *nothing, *_why(error)]


def cancel_rejected(message: Message, error: Error) -> Fields:
    """Say that the order of F or XCN was not cancelled: OrderCancelReject."""
    name = message.get(25034) or message.get(11) or ""
    return [(11, name), *_echo(message, (41, 37, 55, 25002)), (434, "1"), *_why(error)]


def amend_rejected(message: Message, error: Error) -> Fields:
    """Say that an order was not amended: OrderAmendReject."""
    return [*_echo(message, (11, 41, 37, 55, 38)), *_why(error)]


def mass_report(message: Message, cancelled: int, error: Error | None) -> Fields:
    """Say what became of a cancel-all: OrderMassCancelReport."""
    fields = _echo(message, (55, 11, 530))
    if error is None:
        return [*fields, (531, "1"), (533, str(cancelled))]
    return [*fields, (531, "0"), (532, "99"), *_why(error)]


def limit_response(name: str, messages: Window, orders: list[Window], now_us: int) -> Fields:
    """Tell limits and their use: LimitResponse."""
    fields = [(6136, name), (25003, str(1 + len(orders)))]
    for kind, window in (("2", messages), *(("1", one) for one in orders)):
        rule = window.rule
        fields += [
            (25004, kind),
            (25005, str(window.count(now_us))),
            (25006, str(rule.limit)),
            (25007, str(rule.number)),
            (25008, UNITS[rule.unit]),
        ]
    return fields
