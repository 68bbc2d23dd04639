"""Binance: ORDER → the text of a WebSocket API request, compiled, into a buffer that is there already.

NEW is `order.place`, CANCEL `order.cancel`, REPLACE `order.cancelReplace` with STOP_ON_FAILURE, QUERY `order.status`.
The request's `id` is the client order id of `order_id`, so that an answer names the order it belongs to. Prices and
quantities carry no trailing zeros: the venue refuses more decimals than tick and step have (-1111).

Source: Binance WebSocket API, trading requests.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.messages import (
    BUY,
    CANCEL,
    EPOCH_SHIFT,
    FOK,
    GTC,
    IOC,
    LIMIT,
    LIMIT_MAKER,
    MARKET,
    NEW,
    QUERY,
    REPLACE,
    SELL,
)
from shrivenq.stages.venues.text import POWERS, put

ORDER_TEXT_MAX = 512
"""Bytes the buffer must hold; the longest request, a cancelReplace, is shorter."""

RUN_MAX = 14
"""Longest run id: with epoch and number the client order id then keeps within the venue's 36 characters."""

DIGIT_ZERO, DASH, DOT = 48, 45, 46


@inlined
def _number(buffer: Any, at: int, value: int) -> int:
    """Write a non-negative integer; return where it ends."""
    end = at + 1
    for exponent in range(1, 19):
        if value < POWERS[exponent]:
            break
        end += 1
    for index in range(end - 1, at - 1, -1):
        rest = value // 10
        buffer[index] = DIGIT_ZERO + (value - rest * 10)
        value = rest
    return end


@kernel
def _decimal(buffer: Any, at: int, value: int, decimals: int) -> int:
    """Write a non-negative scaled integer as a decimal without trailing zeros; return where it ends."""
    whole = value // POWERS[decimals]
    part = value - whole * POWERS[decimals]
    at = _number(buffer, at, whole)
    if part == 0:
        return at
    buffer[at] = DOT
    end = at + 1 + decimals
    for index in range(end - 1, at, -1):
        rest = part // 10
        digit = part - rest * 10
        buffer[index] = DIGIT_ZERO + digit
        if digit == 0 and index == end - 1:
            end = index
        part = rest
    return end


@kernel
def _client_order_id(buffer: Any, at: int, run: Any, order_id: int) -> int:
    """Write `run-epoch-number` (`messages.client_order_id`); return where it ends."""
    for index in range(len(run)):
        buffer[at + index] = run[index]
    at += len(run)
    buffer[at] = DASH
    at = _number(buffer, at + 1, order_id >> EPOCH_SHIFT)
    buffer[at] = DASH
    return _number(buffer, at + 1, order_id & ((1 << EPOCH_SHIFT) - 1))


@kernel
def _terms(buffer: Any, at: int, order: Any, row: int, instruments: Any, run: Any) -> int:
    """Write what `order.place` and `order.cancelReplace` share: side to response type; -1 for an order that is none."""
    side, order_type = order[row]["side"], order[row]["order_type"]
    instrument = order[row]["instrument"]
    if side == BUY:
        at = put(buffer, at, '"side":"BUY",')
    elif side == SELL:
        at = put(buffer, at, '"side":"SELL",')
    else:
        return -1
    if order_type == LIMIT:
        time_in_force = order[row]["time_in_force"]
        if time_in_force == GTC:
            at = put(buffer, at, '"type":"LIMIT","timeInForce":"GTC","price":"')
        elif time_in_force == IOC:
            at = put(buffer, at, '"type":"LIMIT","timeInForce":"IOC","price":"')
        elif time_in_force == FOK:
            at = put(buffer, at, '"type":"LIMIT","timeInForce":"FOK","price":"')
        else:
            return -1
    elif order_type == LIMIT_MAKER:
        at = put(buffer, at, '"type":"LIMIT_MAKER","price":"')
    elif order_type == MARKET:
        at = put(buffer, at, '"type":"MARKET","quantity":"')
    else:
        return -1
    if order_type != MARKET:
        if order[row]["price"] <= 0:
            return -1
        at = _decimal(buffer, at, order[row]["price"], instruments[instrument]["price_decimals"])
        at = put(buffer, at, '","quantity":"')
    if order[row]["quantity"] <= 0:
        return -1
    at = _decimal(buffer, at, order[row]["quantity"], instruments[instrument]["quantity_decimals"])
    at = put(buffer, at, '","newClientOrderId":"')
    at = _client_order_id(buffer, at, run, order[row]["order_id"])
    return put(buffer, at, '","newOrderRespType":"ACK"')


@kernel
def encode(order: Any, row: int, instruments: Any, run: Any, timestamp_ms: int, buffer: Any) -> int:
    """Write the request for `order[row]` into `buffer`; return its bytes, 0 if the order or the buffer will not do.

    `order` is an ORDER array, `run` the run id (uint8, at most RUN_MAX), `timestamp_ms` ms since 1970, `buffer` uint8
    of at least ORDER_TEXT_MAX bytes.
    """
    kind, instrument = order[row]["kind"], order[row]["instrument"]
    order_id, target_id = order[row]["order_id"], order[row]["target_id"]
    if len(buffer) < ORDER_TEXT_MAX or len(run) > RUN_MAX or not 0 <= instrument < len(instruments):
        return 0
    if order_id < 0 or target_id < 0 or timestamp_ms < 0:
        return 0
    at = put(buffer, 0, '{"id":"')
    at = _client_order_id(buffer, at, run, order_id)
    if kind == NEW:
        at = put(buffer, at, '","method":"order.place","params":{"symbol":"')
    elif kind == CANCEL:
        at = put(buffer, at, '","method":"order.cancel","params":{"symbol":"')
    elif kind == REPLACE:
        at = put(buffer, at, '","method":"order.cancelReplace","params":{"symbol":"')
    elif kind == QUERY:
        at = put(buffer, at, '","method":"order.status","params":{"symbol":"')
    else:
        return 0
    symbol = instruments[instrument]["symbol"]
    for index in range(len(symbol)):
        buffer[at + index] = symbol[index]
    at += len(symbol)
    if kind == NEW:
        at = put(buffer, at, '",')
    elif kind == REPLACE:
        at = put(buffer, at, '","cancelReplaceMode":"STOP_ON_FAILURE","cancelOrigClientOrderId":"')
        at = _client_order_id(buffer, at, run, target_id)
        at = put(buffer, at, '",')
    else:
        at = put(buffer, at, '","origClientOrderId":"')
        at = _client_order_id(buffer, at, run, target_id)
        at = put(buffer, at, '"')
    if kind == CANCEL:
        at = put(buffer, at, ',"newClientOrderId":"')
        at = _client_order_id(buffer, at, run, order_id)
        at = put(buffer, at, '"')
    if kind in (NEW, REPLACE):
        at = _terms(buffer, at, order, row, instruments, run)
        if at < 0:
            return 0
    at = put(buffer, at, ',"timestamp":')
    at = _number(buffer, at, timestamp_ms)
    return put(buffer, at, "}}")
