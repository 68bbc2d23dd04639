"""The checks an order passes before it may leave, each a function that returns a reason code, 0 to pass.

Limits are inclusive: what equals a limit passes; the daily loss alone stops when it *reaches* its limit. A check whose
input is missing, invalid or too old denies. `risk.py` calls them in the order in which they stand here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.money import OVERFLOW, add, mul_div, product_at_most
from shrivenq.stages.orders import has_limit, is_stop
from shrivenq.stages.positions import profit

PASS = m.REASON["none"]
NOT_ARMED, HELD = m.REASON["not_armed"], m.REASON["held"]
UNKNOWN_INSTRUMENT, NOT_TRADABLE = m.REASON["unknown_instrument"], m.REASON["not_tradable"]
MALFORMED = m.REASON["malformed"]
TICK_SIZE, PRICE_RANGE = m.REASON["tick_size"], m.REASON["price_range"]
STEP_SIZE, QUANTITY_RANGE = m.REASON["step_size"], m.REASON["quantity_range"]
NOTIONAL_RANGE = m.REASON["notional_range"]
NO_TOUCH, STALE_TOUCH, PRICE_COLLAR = m.REASON["no_touch"], m.REASON["stale_touch"], m.REASON["price_collar"]
ORDER_QUANTITY, ORDER_VALUE = m.REASON["order_quantity"], m.REASON["order_value"]
POSITION, GROSS_EXPOSURE = m.REASON["position"], m.REASON["gross_exposure"]
OPEN_ORDERS, MESSAGE_RATE = m.REASON["open_orders"], m.REASON["message_rate"]
NOT_SUPPORTED = m.REASON["not_supported"]
DUPLICATE, INTENT_AGE, DAILY_LOSS = m.REASON["duplicate"], m.REASON["intent_age"], m.REASON["daily_loss"]
OVERFLOWED, NO_CONVERSION = m.REASON["overflow"], m.REASON["no_conversion"]
SELF_TRADE, REPEATED_CAUSE = m.REASON["self_trade"], m.REASON["repeated_cause"]
REPEATED_EXECUTION, REJECT_STREAK = m.REASON["repeated_execution"], m.REASON["reject_streak"]

NUMBER_MAX = 1 << 62
"""Ids, times, prices and quantities of an INTENT stay below it, so that sums of two of them fit."""
FORCED_ID = 1 << (m.EPOCH_SHIFT - 1)
"""Order ids with this bit are risk's own."""
COLLAR_UNIT = 100_000_000
"""`collar` counts 1e-8 of the touch."""
RECENT = 8
"""Orders of an instrument that the duplicate check remembers."""

ROW_FIELDS = (
    ("bid", "<i8", 0, "best bid"),
    ("ask", "<i8", 8, "best ask"),
    ("touch_ns", "<i8", 16, "time of the touch, ns since 1970"),
    ("touch_valid", "<i8", 24, "1 if it can be relied upon"),
    ("open_buy", "<i8", 32, "quantity of open buy orders not yet filled"),
    ("open_sell", "<i8", 40, "quantity of open sell orders not yet filled"),
    ("open_orders", "<i4", 48, "open orders"),
    ("open_stops", "<i4", 52, "stop orders among them"),
    ("best_buy", "<i8", 56, "highest price of an open buy order, 0 for none"),
    ("best_sell", "<i8", 64, "lowest price of an open sell order, NUMBER_MAX for none"),
    ("first_buy", "<i4", 72, "row of the newest open buy order, -1 for none"),
    ("first_sell", "<i4", 76, "row of the newest open sell order, -1 for none"),
    ("streak", "<i8", 80, "orders executed one after another on one side, negative for sells"),
    ("recent_next", "<i4", 88, "where the next order goes in `recent`"),
    ("flatten_tries", "<i4", 92, "closing orders since the last one that was filled"),
    ("flatten_ns", "<i8", 96, "when the last of them went out, ns since 1970"),
    ("collar", "<i8", 104, "limit: 1e-8 of the touch"),
    ("order_quantity_max", "<i8", 112, "limit: contracts"),
    ("order_value_max", "<i8", 120, "limit: settle currency"),
    ("position_max", "<i8", 128, "limit: contracts either way"),
    ("gross_exposure_max", "<i8", 136, "limit: settle currency, over all its instruments"),
    ("open_orders_max", "<i8", 144, "limit: orders"),
    ("duplicate_ns", "<i8", 152, "limit: ns between two equal orders"),
    ("market_data_age_ns", "<i8", 160, "limit: ns"),
    ("intent_age_ns", "<i8", 168, "limit: ns"),
    ("daily_loss_max", "<i8", 176, "limit: settle currency, over all its instruments"),
    ("repeated_execution_max", "<i8", 184, "limit: orders"),
)
TOTAL_FIELDS = (
    ("open_value", "<i8", 0, "worth of open orders in this settlement currency"),
    ("day_start", "<i8", 8, "profit when the day began"),
)
RECENT_FIELDS = (
    ("price", "<i8", 0, "limit price"),
    ("quantity", "<i8", 8, "quantity, negative for a sell order"),
    ("time_ns", "<i8", 16, "when it was admitted"),
)


def _record(fields: Any, size: int) -> np.dtype[Any]:
    names, formats, offsets, _ = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size, "aligned": True})


ROW = _record(ROW_FIELDS, 192)
TOTAL = _record(TOTAL_FIELDS, 16)
RECENT_ORDER = _record(RECENT_FIELDS, 24)


@inlined
def reduces(rows: Any, positions: Any, i: int, side: int, quantity: int) -> bool:
    """Tell whether an order brings the position nearer to zero, even if all open orders of its side fill first."""
    if i < 0 or i >= rows.shape[0] or quantity <= 0 or quantity >= NUMBER_MAX:
        return False
    position = positions.rows[i]["position"]
    if side == m.SELL:
        return bool(position > 0 and quantity <= position - rows[i]["open_sell"])
    return bool(side == m.BUY and position < 0 and position != OVERFLOW and quantity <= -position - rows[i]["open_buy"])


@kernel
def armed(level: int, held: int, reducing: bool) -> int:
    """Refuse what is no verified reduction while killed or held: the kill level, and the hold bits, of this step.

    While the account is reconciled the position may lack fills: nothing is verified then.
    """
    if reducing:
        return HELD if held & control.RECONCILING != 0 else PASS
    if level != control.ARMED:
        return NOT_ARMED
    if held != 0:
        return HELD
    return PASS


@kernel
def instrument(instruments: Any, held: Any, i: int, reducing: bool) -> int:
    """Refuse what the instrument table does not hold or marks as not tradable.

    What is `held` alone (bits of its own, 0 for none) lets verified reductions pass, like a hold of everything.
    """
    if i < 0 or i >= instruments.shape[0]:
        return UNKNOWN_INSTRUMENT
    if instruments[i]["tradable"] == 0 or (held[i] != 0 and not reducing):
        return NOT_TRADABLE
    return PASS


@kernel
def identity(order_id: int, target_id: int, time_ns: int, named: bool) -> int:
    """Refuse ids and times that no strategy of ours can mean; `named` requests must have a target."""
    if order_id <= 0 or order_id >= NUMBER_MAX or order_id & FORCED_ID != 0:
        return MALFORMED
    if time_ns <= 0 or time_ns >= NUMBER_MAX:
        return MALFORMED
    if named and (target_id <= 0 or target_id >= NUMBER_MAX or target_id == order_id):
        return MALFORMED
    return PASS


@kernel
def well_formed(
    side: int, order_type: int, time_in_force: int, price: int, quantity: int, stop_price: int, self_trade_mode: int
) -> int:
    """Refuse fields out of their range, and combinations that mean nothing."""
    if (side != m.BUY and side != m.SELL) or quantity <= 0 or quantity >= NUMBER_MAX:  # noqa: PLR1714 - a kernel: no set
        return MALFORMED
    if order_type < m.LIMIT or order_type > m.TAKE_PROFIT_LIMIT or time_in_force < m.GTC or time_in_force > m.FOK:
        return MALFORMED
    if self_trade_mode < 0 or self_trade_mode > m.TRANSFER:
        return MALFORMED
    if is_stop(order_type):
        if stop_price <= 0 or stop_price >= NUMBER_MAX:
            return MALFORMED
    elif stop_price != 0:
        return MALFORMED
    if not has_limit(order_type):
        return PASS if price == 0 else MALFORMED
    if price <= 0 or price >= NUMBER_MAX or (order_type == m.LIMIT_MAKER and time_in_force != m.GTC):
        return MALFORMED
    return PASS


@inlined
def supported(instruments: Any, i: int, order_type: int, self_trade_mode: int, replaces: bool) -> int:
    """Refuse what the venue does not take of this instrument: an order type, a self-trade mode, replacements."""
    if instruments[i]["refused_types"] >> (order_type - 1) & 1 != 0:
        return NOT_SUPPORTED
    if self_trade_mode > 0 and instruments[i]["refused_modes"] >> (self_trade_mode - 1) & 1 != 0:
        return NOT_SUPPORTED
    return NOT_SUPPORTED if replaces and instruments[i]["refused_requests"] & m.NO_REPLACE != 0 else PASS


@inlined
def price_filter(instruments: Any, i: int, price: int) -> int:
    """Refuse a price the venue would refuse."""
    if price < instruments[i]["price_min"] or price > instruments[i]["price_max"]:
        return PRICE_RANGE
    return TICK_SIZE if price % instruments[i]["tick"] != 0 else PASS


@inlined
def filters(instruments: Any, i: int, order_type: int, price: int, quantity: int, stop_price: int) -> int:
    """Refuse prices and quantities the venue would refuse. On which side of the market a stop lies is its to judge."""
    if has_limit(order_type):
        reason = price_filter(instruments, i, price)
        if reason != PASS:
            return reason
    if is_stop(order_type):
        reason = price_filter(instruments, i, stop_price)
        if reason != PASS:
            return reason
    reason = quantity_filter(instruments, i, quantity)
    if reason == PASS and order_type == m.MARKET:
        return market_filter(instruments, i, quantity)
    return reason


@inlined
def quantity_filter(instruments: Any, i: int, quantity: int) -> int:
    """Refuse a quantity the venue would refuse."""
    if quantity < instruments[i]["quantity_min"] or quantity > instruments[i]["quantity_max"]:
        return QUANTITY_RANGE
    if quantity % instruments[i]["step"] != 0:
        return STEP_SIZE
    return PASS


@inlined
def market_filter(instruments: Any, i: int, quantity: int) -> int:
    """Refuse a quantity of a MARKET order that the venue would take of others."""
    most, step = instruments[i]["market_quantity_max"], instruments[i]["market_step"]
    if quantity < instruments[i]["market_quantity_min"] or (most > 0 and quantity > most):
        return QUANTITY_RANGE
    return STEP_SIZE if step > 0 and quantity % step != 0 else PASS


@inlined
def price_collar(rows: Any, i: int, order_type: int, price: int, stop_price: int) -> int:
    """Refuse a price further than the collar from the touch: below the bid or above the ask, whichever the side.

    The market is at its stop price when a stop order comes to trade, so that is what its limit is compared with.
    """
    if rows[i]["touch_valid"] == 0:
        return NO_TOUCH
    if not has_limit(order_type):
        return PASS
    low, high = rows[i]["bid"], rows[i]["ask"]
    if is_stop(order_type):
        low = high = stop_price
    collar = rows[i]["collar"]
    if not product_at_most(price, COLLAR_UNIT, high, COLLAR_UNIT + collar):
        return PRICE_COLLAR
    if collar < COLLAR_UNIT and not product_at_most(low, COLLAR_UNIT - collar, price, COLLAR_UNIT):
        return PRICE_COLLAR
    return PASS


@kernel
def valuation_price(rows: Any, instruments: Any, i: int, order_type: int, price: int, stop_price: int) -> int:
    """Price to value an order at: its limit, or without one the end of the collar where it is worth most.

    A stop order without a limit will trade near its stop price, or near the touch if that is reached soon: of both it
    is valued at the one where it is worth more.
    """
    if has_limit(order_type):
        return price
    collar = rows[i]["collar"]
    if instruments[i]["inverse"] != 0:
        low = rows[i]["bid"]
        if is_stop(order_type):
            low = min(low, stop_price)
        return mul_div(low, max(COLLAR_UNIT - collar, 0), COLLAR_UNIT, 0)
    return mul_div(max(rows[i]["ask"], stop_price), COLLAR_UNIT + collar, COLLAR_UNIT, 1)


@kernel
def notional_range(instruments: Any, i: int, value: int) -> int:
    """Refuse a value, in the quote currency, the venue would refuse."""
    if value == OVERFLOW:
        return OVERFLOWED
    most = instruments[i]["notional_max"]
    if value < instruments[i]["notional_min"] or (most > 0 and value > most):
        return NOTIONAL_RANGE
    return PASS


@kernel
def order_size(rows: Any, i: int, quantity: int, value: int) -> int:
    """Refuse an order too large by quantity or by value."""
    if value == OVERFLOW:
        return OVERFLOWED
    if quantity > rows[i]["order_quantity_max"]:
        return ORDER_QUANTITY
    if value > rows[i]["order_value_max"]:
        return ORDER_VALUE
    return PASS


@kernel
def worst_position(rows: Any, positions: Any, i: int, side: int, quantity: int) -> int:
    """Refuse an order after which the position could pass its limit if every open order of its side filled."""
    position = positions.rows[i]["position"]
    if position == OVERFLOW:
        return OVERFLOWED
    if side == m.BUY:
        reached = add(add(position, rows[i]["open_buy"]), quantity)
    else:
        reached = add(add(-position, rows[i]["open_sell"]), quantity)
    if reached == OVERFLOW:
        return OVERFLOWED
    return POSITION if reached > rows[i]["position_max"] else PASS


@kernel
def gross_exposure(rows: Any, totals: Any, positions: Any, i: int, currency: int, value: int) -> int:
    """Refuse an order after which positions and open orders of a currency would be worth more than the limit."""
    gross = add(add(positions.accounts[currency]["value"], totals[currency]["open_value"]), value)
    if gross == OVERFLOW:
        return OVERFLOWED
    return GROSS_EXPOSURE if gross > rows[i]["gross_exposure_max"] else PASS


@kernel
def open_orders(rows: Any, instruments: Any, i: int, order_type: int) -> int:
    """Refuse one open order, or one stop order, too many."""
    if rows[i]["open_orders"] >= rows[i]["open_orders_max"]:
        return OPEN_ORDERS
    if is_stop(order_type) and 0 < instruments[i]["stop_orders_max"] <= rows[i]["open_stops"]:
        return OPEN_ORDERS
    return PASS


@kernel
def message_rate(times: Any, newest: int, allowed: int, window_ns: int, now_ns: int) -> int:
    """Refuse a message if `allowed` of them went out within the window: in the last `window_ns`, its start excluded.

    `times` is a circle of the last messages' times, `newest` where the next goes; `allowed` ≤ its length.
    """
    at = newest - allowed
    if at < 0:
        at += times.shape[0]
    return MESSAGE_RATE if now_ns - times[at] < window_ns else PASS


@inlined
def duplicate(rows: Any, recent: Any, i: int, price: int, signed: int, now_ns: int) -> int:
    """Refuse an order equal to one of the instrument's last RECENT ones that is within the window."""
    window_ns = rows[i]["duplicate_ns"]
    for at in range(RECENT):
        if (
            recent[i, at]["price"] == price
            and recent[i, at]["quantity"] == signed
            and now_ns - recent[i, at]["time_ns"] < window_ns
        ):
            return DUPLICATE
    return PASS


@kernel
def market_data(rows: Any, i: int, now_ns: int) -> int:
    """Refuse to trade on a touch that is invalid or too old."""
    if rows[i]["touch_valid"] == 0:
        return NO_TOUCH
    return STALE_TOUCH if now_ns - rows[i]["touch_ns"] > rows[i]["market_data_age_ns"] else PASS


@kernel
def intent_age(rows: Any, i: int, time_ns: int, now_ns: int) -> int:
    """Refuse what was decided on news too old, or from the future."""
    age_ns = now_ns - time_ns
    return INTENT_AGE if age_ns < 0 or age_ns > rows[i]["intent_age_ns"] else PASS


@inlined
def daily_loss(rows: Any, totals: Any, positions: Any, i: int, currency: int) -> int:
    """Refuse to go on once the day's loss in the settlement currency has reached its limit, or may have.

    What is known of it counts although fees of unknown worth come on top.
    """
    now = profit(positions, currency)
    start = totals[currency]["day_start"]
    if now == OVERFLOW or start == OVERFLOW:  # noqa: PLR1714 - a kernel: no set
        return OVERFLOWED
    loss = add(start, -now)
    if loss == OVERFLOW:
        return OVERFLOWED
    if loss >= rows[i]["daily_loss_max"]:
        return DAILY_LOSS
    return NO_CONVERSION if positions.rows[i]["unconverted"] != 0 else PASS


@kernel
def repeated_execution(rows: Any, i: int) -> int:
    """Refuse after too many orders executed on one side without one on the other, until armed again."""
    return REPEATED_EXECUTION if abs(rows[i]["streak"]) >= rows[i]["repeated_execution_max"] else PASS


@kernel
def reject_streak(rejects: int, most: int) -> int:
    """Refuse after too many rejections and unknown outcomes without an acceptance, until armed again."""
    return REJECT_STREAK if rejects >= most else PASS


@kernel
def self_trade(rows: Any, i: int, side: int, order_type: int, price: int, mode: int) -> int:
    """Refuse an order that could trade with one of our own open ones, unless it tells the venue to prevent that.

    What a stop order will meet when it is triggered nobody knows: without a mode it is refused.
    """
    if mode > m.STP_NONE:
        return PASS
    if is_stop(order_type):
        return SELF_TRADE
    if side == m.BUY:
        best = rows[i]["best_sell"]
        return SELF_TRADE if best != NUMBER_MAX and (order_type == m.MARKET or price >= best) else PASS
    best = rows[i]["best_buy"]
    return SELF_TRADE if best != 0 and (order_type == m.MARKET or price <= best) else PASS


@kernel
def repeated_cause(order_id: int, last_id: int) -> int:
    """Refuse what was decided already: ids only grow."""
    return REPEATED_CAUSE if order_id <= last_id else PASS
