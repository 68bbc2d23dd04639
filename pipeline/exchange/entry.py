"""Entry: an order as a client sends it → a row for the kernels, or what is wrong with it.

Which parameters an order type takes, and which it must have, is the venue's table of mandatory parameters (protocol
sheet, section 8).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.refusals import error_of, missing, not_required
from shrivenq.pipeline.exchange.types import STP_MODES, Error, NewOrder
from shrivenq.stages.messages import BUY, FOK, GTC, IOC, SELL

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.types import Symbol

CLIENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}", re.ASCII)
STRATEGY_TYPE_MIN = 1_000_000
NUMBER_MAX = 1 << 62
FORCE_CODES = {None: GTC, "GTC": GTC, "IOC": IOC, "FOK": FOK}

# Parameter of the protocol → field of NewOrder.
_FIELDS = {
    "timeInForce": "time_in_force", "price": "price", "quantity": "quantity", "stopPrice": "stop_price",
    "trailingDelta": "trailing_delta",
}  # fmt: skip
_TAKES = {
    "LIMIT": ("timeInForce", "price", "quantity"),
    "LIMIT_MAKER": ("price", "quantity"),
    "MARKET": ("quantity",),
    "STOP_LOSS": ("quantity", "stopPrice", "trailingDelta"),
    "TAKE_PROFIT": ("quantity", "stopPrice", "trailingDelta"),
    "STOP_LOSS_LIMIT": ("timeInForce", "price", "quantity", "stopPrice", "trailingDelta"),
    "TAKE_PROFIT_LIMIT": ("timeInForce", "price", "quantity", "stopPrice", "trailingDelta"),
}

_INSTEAD = {"quantity": "quote_quantity", "stopPrice": "trailing_delta", "trailingDelta": "stop_price"}
"""Parameter → field that does as well; who must not have that is checked on its own."""


def _check_parameters(order: NewOrder) -> Error | None:
    """Check that an order has what its type takes, and nothing else."""
    takes = _TAKES[order.type]
    for parameter, field in _FIELDS.items():
        value = getattr(order, field)
        if parameter in takes and value is None:
            instead = _INSTEAD.get(parameter)
            if instead is not None and getattr(order, instead) is not None:
                continue
            return missing(parameter)
        if parameter not in takes and value is not None:
            return not_required(parameter)
    if order.quote_quantity is not None and (order.type != "MARKET" or order.quantity is not None):
        return not_required("quoteOrderQty")
    return None


def check_entry(order: NewOrder, symbol: Symbol) -> Error | None:
    """Check everything about an order that needs no look at the market or the account; None if it is well."""
    if order.iceberg_quantity and not symbol.iceberg_parts_max:
        return error_of("iceberg")
    problem = _check_parameters(order)
    if problem is not None:
        return problem
    if order.iceberg_quantity and ("price" not in _TAKES[order.type] or order.time_in_force in ("IOC", "FOK")):
        return error_of("combination")
    if order.quote_quantity is not None and not symbol.quote_quantity_allowed:
        return error_of("quote_quantity")
    if order.client_id is not None and not CLIENT_ID.fullmatch(order.client_id):
        return error_of("bad_client_id")
    if order.strategy_type is not None and order.strategy_type < STRATEGY_TYPE_MIN:
        return error_of("strategy_type")
    if max(abs(order.strategy_id or 0), order.strategy_type or 0) >= 1 << 63:
        return error_of("strategy_overflow")
    if order.stp is not None and order.stp not in symbol.stp_allowed:
        return error_of("stp_mode")
    numbers = (
        order.price, order.quantity, order.quote_quantity, order.stop_price, order.trailing_delta,
        order.iceberg_quantity or None,
    )  # fmt: skip
    if order.trailing_delta is not None and order.trailing_delta <= 0:
        return error_of("trailing_delta")
    for number in numbers:
        if number is not None and number >= NUMBER_MAX:
            return error_of("overflow")
        if number is not None and number <= 0:
            return error_of("nothing")
    return None


def request_row(order: NewOrder, account: int, symbol_at: int, symbol: Symbol) -> tuple[Any, ...]:
    """Make the REQUEST of an order that `check_entry` found well."""
    return (
        account,
        symbol_at,
        BUY if order.side == "BUY" else SELL,
        s.TYPES.index(order.type),
        FORCE_CODES[order.time_in_force],
        STP_MODES.index(order.stp or symbol.stp_default),
        order.price or 0,
        order.quantity or 0,
        order.quote_quantity or 0,
        order.stop_price or 0,
        s.MISSING if order.strategy_id is None else order.strategy_id,
        s.MISSING if order.strategy_type is None else order.strategy_type,
        order.iceberg_quantity or 0,
        order.trailing_delta or 0,
    )
