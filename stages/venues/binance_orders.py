"""Binance: ORDER → a request of the WebSocket API, compiled, into a buffer that is there already.

NEW is `order.place`, CANCEL `order.cancel`, REPLACE `order.cancelReplace` with STOP_ON_FAILURE, AMEND
`order.amend.keepPriority`, CANCEL_ALL `openOrders.cancelAll`, QUERY `order.status`, TRADES `myTrades`. The session is
logged on: a request carries its time and no signature. Its `id` says what its answer is about (`request_ids`). Prices
and quantities carry no trailing zeros: the venue refuses more decimals than tick and step have (-1111).

`encode` writes the text alone, `encode_frame` the masked WebSocket frame around it, ready for the socket.

Sources: Binance WebSocket API, trading requests; RFC 6455, sections 5.2 and 5.3.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.messages import (
    AMEND,
    BUY,
    CANCEL,
    CANCEL_ALL,
    DECREMENT,
    EPOCH_SHIFT,
    EXPIRE_BOTH,
    EXPIRE_MAKER,
    EXPIRE_TAKER,
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
    STOP_LOSS,
    STOP_LOSS_LIMIT,
    STP_NONE,
    TAKE_PROFIT,
    TAKE_PROFIT_LIMIT,
    TRADES,
    TRANSFER,
)
from shrivenq.stages.venues.request_ids import INSTRUMENTS_MAX, put_id
from shrivenq.stages.venues.text import POWERS, load, put, store

ORDER_TEXT_MAX = 640
"""Bytes the buffer of `encode` must hold; the longest request, a cancelReplace, is shorter."""

FRAME_HEADER_MAX = 8
FRAME_MAX = FRAME_HEADER_MAX + ORDER_TEXT_MAX
"""Bytes the buffer of `encode_frame` must hold."""

RUN_MAX = 14
"""Longest run id: with epoch and number the client order id then keeps within the venue's 36 characters."""

RECEIVE_WINDOW_MS = 2_000
"""`recvWindow` of what places or changes an order: the venue forwards nothing to its engine later than that."""

ENGINE_TIMEOUT_MS = 10_000
ABSENCE_MS = RECEIVE_WINDOW_MS + ENGINE_TIMEOUT_MS + 1_000
"""An order that the venue does not know this long after its request's `timestamp` was never placed."""

DIGIT_ZERO, DASH, DOT = 48, 45, 46


@inlined
def put_number(buffer: Any, at: int, value: int) -> int:
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
def put_decimal(buffer: Any, at: int, value: int, decimals: int) -> int:
    """Write a non-negative scaled integer as a decimal without trailing zeros; return where it ends."""
    whole = value // POWERS[decimals]
    part = value - whole * POWERS[decimals]
    at = put_number(buffer, at, whole)
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
def put_client_id(buffer: Any, at: int, run: Any, order_id: int) -> int:
    """Write `run-epoch-number` (`messages.client_order_id`); return where it ends."""
    for index in range(len(run)):
        buffer[at + index] = run[index]
    at += len(run)
    buffer[at] = DASH
    at = put_number(buffer, at + 1, order_id >> EPOCH_SHIFT)
    buffer[at] = DASH
    return put_number(buffer, at + 1, order_id & ((1 << EPOCH_SHIFT) - 1))


@inlined
def put_symbol(buffer: Any, at: int, instruments: Any, instrument: int) -> int:
    """Write an instrument's symbol; return where it ends."""
    symbol = instruments[instrument]["symbol"]
    for index in range(len(symbol)):
        buffer[at + index] = symbol[index]
    return at + len(symbol)


@inlined
def _type(buffer: Any, at: int, order_type: int) -> int:
    """Write the type; -1 for one that is none."""
    if order_type == LIMIT:
        return put(buffer, at, '"type":"LIMIT","timeInForce":"')
    if order_type == LIMIT_MAKER:
        return put(buffer, at, '"type":"LIMIT_MAKER",')
    if order_type == MARKET:
        return put(buffer, at, '"type":"MARKET",')
    if order_type == STOP_LOSS:
        return put(buffer, at, '"type":"STOP_LOSS",')
    if order_type == STOP_LOSS_LIMIT:
        return put(buffer, at, '"type":"STOP_LOSS_LIMIT","timeInForce":"')
    if order_type == TAKE_PROFIT:
        return put(buffer, at, '"type":"TAKE_PROFIT",')
    if order_type == TAKE_PROFIT_LIMIT:
        return put(buffer, at, '"type":"TAKE_PROFIT_LIMIT","timeInForce":"')
    return -1


@inlined
def _time_in_force(buffer: Any, at: int, time_in_force: int) -> int:
    if time_in_force == GTC:
        return put(buffer, at, 'GTC",')
    if time_in_force == IOC:
        return put(buffer, at, 'IOC",')
    if time_in_force == FOK:
        return put(buffer, at, 'FOK",')
    return -1


@inlined
def _self_trade(buffer: Any, at: int, mode: int) -> int:
    """Write the self-trade prevention mode, nothing for the symbol's own; -1 for one that is none."""
    if mode == 0:
        return at
    at = put(buffer, at, '"selfTradePreventionMode":"')
    if mode == STP_NONE:
        return put(buffer, at, 'NONE",')
    if mode == EXPIRE_TAKER:
        return put(buffer, at, 'EXPIRE_TAKER",')
    if mode == EXPIRE_MAKER:
        return put(buffer, at, 'EXPIRE_MAKER",')
    if mode == EXPIRE_BOTH:
        return put(buffer, at, 'EXPIRE_BOTH",')
    if mode == DECREMENT:
        return put(buffer, at, 'DECREMENT",')
    if mode == TRANSFER:
        return put(buffer, at, 'TRANSFER",')
    return -1


@kernel
def _terms(buffer: Any, at: int, order: Any, row: int, instruments: Any, run: Any) -> int:
    """Write what `order.place` and `order.cancelReplace` share: side to response type; -1 for an order that is none."""
    side, order_type = order[row]["side"], order[row]["order_type"]
    instrument = order[row]["instrument"]
    price_decimals = instruments[instrument]["price_decimals"]
    if side == BUY:
        at = put(buffer, at, '","side":"BUY",')
    elif side == SELL:
        at = put(buffer, at, '","side":"SELL",')
    else:
        return -1
    at = _type(buffer, at, order_type)
    if at < 0:
        return -1
    if order_type in (LIMIT, STOP_LOSS_LIMIT, TAKE_PROFIT_LIMIT):
        at = _time_in_force(buffer, at, order[row]["time_in_force"])
        if at < 0:
            return -1
    if order_type not in (MARKET, STOP_LOSS, TAKE_PROFIT):
        if order[row]["price"] <= 0:
            return -1
        at = put(buffer, at, '"price":"')
        at = put_decimal(buffer, at, order[row]["price"], price_decimals)
        at = put(buffer, at, '",')
    if order_type >= STOP_LOSS:
        if order[row]["stop_price"] <= 0:
            return -1
        at = put(buffer, at, '"stopPrice":"')
        at = put_decimal(buffer, at, order[row]["stop_price"], price_decimals)
        at = put(buffer, at, '",')
    at = _self_trade(buffer, at, order[row]["self_trade"])
    if at < 0 or order[row]["quantity"] <= 0:
        return -1
    at = put(buffer, at, '"quantity":"')
    at = put_decimal(buffer, at, order[row]["quantity"], instruments[instrument]["quantity_decimals"])
    at = put(buffer, at, '","newClientOrderId":"')
    at = put_client_id(buffer, at, run, order[row]["order_id"])
    return put(buffer, at, '","newOrderRespType":"ACK","recvWindow":2000')


assert RECEIVE_WINDOW_MS == 2_000, "the text says so"


@inlined
def _target(buffer: Any, at: int, order: Any, row: int, run: Any) -> int:
    """Name the order meant: by the venue's own id where it is known, which it finds faster."""
    if order[row]["venue_order_id"] > 0:
        at = put(buffer, at, '","orderId":')
        return put_number(buffer, at, order[row]["venue_order_id"])
    at = put(buffer, at, '","origClientOrderId":"')
    at = put_client_id(buffer, at, run, order[row]["target_id"])
    return put(buffer, at, '"')


@kernel
def _about(buffer: Any, at: int, order: Any, row: int, instruments: Any, run: Any) -> int:
    """Write what a request about an order, or about all of them, has behind its symbol; -1 for one that is none."""
    kind, instrument = order[row]["kind"], order[row]["instrument"]
    if kind == CANCEL_ALL:
        return put(buffer, at, '"')
    if kind == TRADES:
        if order[row]["venue_order_id"] <= 0:
            return -1
        at = put(buffer, at, '","limit":1000,"orderId":')
        return put_number(buffer, at, order[row]["venue_order_id"])
    at = _target(buffer, at, order, row, run)
    if kind == CANCEL:
        at = put(buffer, at, ',"newClientOrderId":"')
        at = put_client_id(buffer, at, run, order[row]["order_id"])
        return put(buffer, at, '"')
    if kind == AMEND:
        if order[row]["quantity"] <= 0:
            return -1
        # It keeps the name it has, and so its place in every table of ours.
        at = put(buffer, at, ',"newClientOrderId":"')
        at = put_client_id(buffer, at, run, order[row]["target_id"])
        at = put(buffer, at, '","recvWindow":2000,"newQty":"')
        at = put_decimal(buffer, at, order[row]["quantity"], instruments[instrument]["quantity_decimals"])
        at = put(buffer, at, '"')
    return at


@inlined
def _method(buffer: Any, at: int, kind: int) -> int:
    """Write the method, and all up to the symbol; -1 for a kind that is not sent."""
    if kind == NEW:
        return put(buffer, at, '","method":"order.place","params":{"symbol":"')
    if kind == CANCEL:
        return put(buffer, at, '","method":"order.cancel","params":{"symbol":"')
    if kind == REPLACE:
        return put(buffer, at, '","method":"order.cancelReplace","params":{"symbol":"')
    if kind == AMEND:
        return put(buffer, at, '","method":"order.amend.keepPriority","params":{"symbol":"')
    if kind == CANCEL_ALL:
        return put(buffer, at, '","method":"openOrders.cancelAll","params":{"symbol":"')
    if kind == QUERY:
        return put(buffer, at, '","method":"order.status","params":{"symbol":"')
    if kind == TRADES:
        return put(buffer, at, '","method":"myTrades","params":{"symbol":"')
    return -1


@kernel
def _request(buffer: Any, at: int, order: Any, row: int, instruments: Any, run: Any, timestamp_ms: int) -> int:
    """Write a request at `at`; return where it ends, 0 for one that is none."""
    kind, instrument = order[row]["kind"], order[row]["instrument"]
    order_id, target_id = order[row]["order_id"], order[row]["target_id"]
    if len(run) > RUN_MAX or not 0 <= instrument < min(len(instruments), INSTRUMENTS_MAX):
        return 0
    if order_id < 0 or target_id < 0 or timestamp_ms < 0:
        return 0
    at = put(buffer, at, '{"id":"')
    if kind in (QUERY, TRADES):
        order_id = timestamp_ms
    if kind in (NEW, CANCEL_ALL):
        target_id = 0
    # The letter of a kind that is not sent is refused right behind it.
    at = put_id(buffer, at, kind if 0 < kind <= TRADES else 0, instrument, order_id, target_id)
    at = _method(buffer, at, kind)
    if at < 0:
        return 0
    at = put_symbol(buffer, at, instruments, instrument)
    if kind == REPLACE:
        at = put(buffer, at, '","cancelReplaceMode":"STOP_ON_FAILURE","cancelOrigClientOrderId":"')
        at = put_client_id(buffer, at, run, target_id)
    if kind in (NEW, REPLACE):
        at = _terms(buffer, at, order, row, instruments, run)
    else:
        at = _about(buffer, at, order, row, instruments, run)
    if at < 0:
        return 0
    at = put(buffer, at, ',"timestamp":')
    at = put_number(buffer, at, timestamp_ms)
    return put(buffer, at, "}}")


@kernel
def encode(order: Any, row: int, instruments: Any, run: Any, timestamp_ms: int, buffer: Any) -> int:
    """Write the request for `order[row]` into `buffer`; return its bytes, 0 if the order or the buffer will not do.

    `order` is an ORDER array, `run` the run id (uint8, at most RUN_MAX), `timestamp_ms` the venue's time, ms since
    1970, `buffer` uint8 of at least ORDER_TEXT_MAX bytes.
    """
    if len(buffer) < ORDER_TEXT_MAX:
        return 0
    return _request(buffer, 0, order, row, instruments, run, timestamp_ms)


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def next_mask(state: Any) -> int:
    """Draw a frame's mask, 32 bits and never 0, from `state`, one int64 of 1 … 2³²−1 (Marsaglia's xorshift).

    Masks keep a page's script from spelling another protocol to a proxy; our frames are our own, so they need not be
    unguessable, only different.
    """
    value = state[0]
    value ^= (value << 13) & 0xFFFFFFFF
    value ^= value >> 17
    value ^= (value << 5) & 0xFFFFFFFF
    state[0] = value
    return value


@kernel
def mask_frame(buffer: Any, end: int, mask: int) -> int:
    """Make the text at FRAME_HEADER_MAX … `end` a masked text frame; return where its header begins.

    `buffer` holds at least 8 bytes behind `end`, `mask` is 32 bits.
    """
    length = end - FRAME_HEADER_MAX
    begin = 0 if length > 125 else 2
    buffer[begin] = 0x81
    if length > 125:
        buffer[1] = 0x80 | 126
        buffer[2] = length >> 8
        buffer[3] = length & 255
    else:
        buffer[3] = 0x80 | length
    for index in range(4):
        buffer[4 + index] = (mask >> (8 * index)) & 255
    word = ((mask ^ 0x80000000) - 0x80000000) << 32 | mask
    for at in range(FRAME_HEADER_MAX, end, 8):
        store(buffer, at, load(buffer, at) ^ word)
    return begin


@kernel
def encode_frame(
    order: Any, row: int, instruments: Any, run: Any, timestamp_ms: int, masks: Any, buffer: Any
) -> tuple[int, int]:
    """Write the request for `order[row]` as a client's WebSocket frame; return where it begins and ends, (0, 0) as 0.

    Arguments are those of `encode`; `masks` is the state of `next_mask`, `buffer` at least FRAME_MAX bytes.
    """
    if len(buffer) < FRAME_MAX:
        return 0, 0
    end = _request(buffer, FRAME_HEADER_MAX, order, row, instruments, run, timestamp_ms)
    if end == 0:
        return 0, 0
    return mask_frame(buffer, end, next_mask(masks)), end
