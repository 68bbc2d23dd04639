"""The other end of the wire, compiled: a venue that sends depth frames and takes orders, and does no more.

It reads a client's frames from a non-blocking socket that it polls, reads of each `order.place` what an answer
repeats, and answers as the venue does for an immediate-or-cancel order that meets nobody: the response, an execution
report NEW and one EXPIRED. Plain, or under TLS. Or it takes orders by FIX, and answers with the two reports alone.

It waits with `sched_yield`: on a CPU of its own that costs nothing, on a shared one it makes room.
"""

from __future__ import annotations

import socket
from errno import EAGAIN, EINTR
from typing import Any

import numpy as np
import peer_state as p
from numba.core import types
from openssl import ssl_read, ssl_write

from shrivenq.shm.atomics import load_acquire, store_release
from shrivenq.shm.clock import monotonic_ns, realtime_ns
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.shm.wait import sched_yield
from shrivenq.stages.live import system
from shrivenq.stages.venues.binance_orders import put_number
from shrivenq.stages.venues.fix import put_time
from shrivenq.stages.venues.text import load, matches, put, store

SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

recv: Any = types.ExternalFunction("recv", types.int64(types.int32, types.int64, types.int64, types.int32))


@inlined
def _read(peer: Any) -> int:
    """Read what waits on the order connection into the inbox; return the bytes, 0 for none."""
    words, inbox = peer.words, peer.inbox
    room = p.INBOX_BYTES - words[p.FILLED]
    address = inbox.ctypes.data + words[p.FILLED]
    if words[p.ORDERS_TLS] != 0:
        count = np.int64(ssl_read(words[p.ORDERS_TLS], address, room))
    else:
        count = recv(words[p.ORDERS], address, room, 0)
        if count == 0 or (count < 0 and system.errno() not in (EAGAIN, EINTR)):
            words[p.PROBLEM] = p.CLOSED
    if count > 0:
        words[p.FILLED] += count
    return max(count, 0)


@inlined
def _drop(peer: Any, size: int) -> None:
    """Forget the first bytes of the inbox."""
    peer.words[p.FILLED] -= size
    for i in range(peer.words[p.FILLED]):
        peer.inbox[i] = peer.inbox[size + i]


@kernel
def write(descriptor: int, tls: int, buffer: Any, begin: int, end: int) -> bool:
    """Write all of `buffer[begin:end]`; False if the client has gone."""
    while begin < end:
        if tls != 0:
            count = np.int64(ssl_write(tls, buffer.ctypes.data + begin, end - begin))
        else:
            count = system.send(descriptor, buffer.ctypes.data + begin, end - begin, SEND_FLAGS)
            if count < 0 and system.errno() not in (EAGAIN, EINTR):
                return False
        if count > 0:
            begin += count
        else:
            sched_yield()
    return True


@kernel
def next_frame(data: Any, at: int, end: int) -> tuple[int, int]:
    """Find the client's frame at `at` and unmask it; return where its text begins and ends, (0, 0) if it is not whole.

    An empty text is a frame that is none of ours to read.
    """
    if end - at < 6:
        return 0, 0
    length, begin = np.int64(data[at + 1] & 127), at + 6
    if length == 126:
        length, begin = np.int64(data[at + 2]) << 8 | np.int64(data[at + 3]), at + 8
    stop = begin + length
    if stop > end:
        return 0, 0
    if data[at] != 0x81:
        return stop, stop
    mask = load(data, begin - 4) & 0xFFFFFFFF
    word, at = ((mask ^ 0x80000000) - 0x80000000) << 32 | mask, begin
    while at + 8 <= stop:
        store(data, at, load(data, at) ^ word)
        at += 8
    for i in range(at, stop):  # and nothing behind it
        data[i] ^= (word >> 8 * (i - at)) & 255
    return begin, stop


@inlined
def _field_at(data: Any, at: int) -> int:
    """Tell which row of `spans` the key at `at` is; -1 for one that no answer repeats."""
    if matches(data, at, 'symbol"'):
        return p.SYMBOL
    if matches(data, at, 'side"'):
        return p.SIDE
    if matches(data, at, 'timeInForce"'):
        return p.FORCE
    if matches(data, at, 'price"'):
        return p.PRICE
    if matches(data, at, 'quantity"'):
        return p.QUANTITY
    return p.CLIENT if matches(data, at, 'newClientOrderId"') else -1


@kernel
def read_order(data: Any, begin: int, stop: int, spans: Any) -> bool:
    """Read an `order.place` into `spans`; False for anything else."""
    spans[:, :] = 0
    if stop - begin < 100 or not matches(data, begin, '{"id":"'):
        return False
    spans[p.REQUEST, 0], spans[p.REQUEST, 1] = begin + 7, begin + 43
    if not matches(data, begin + 43, '","method":"order.place","params":{'):
        return False
    at = begin + 78
    while at < stop and data[at] == 34:
        field = _field_at(data, at + 1)
        while at < stop and data[at] != 58:
            at += 1
        at += 1
        first = at + 1 if data[at] == 34 else at
        at = first
        while at < stop and data[at] != 34 and data[at] != 44 and data[at] != 125:
            at += 1
        if field >= 0:
            spans[field, 0], spans[field, 1] = first, at
        at += 2 if data[at] == 34 else 1
    missing = 0
    for field in range(p.REQUEST):
        missing += spans[field, 1] <= spans[field, 0]
    return missing == 0


@kernel
def scaled(data: Any, at: int, stop: int) -> int:
    """Read a decimal at eight decimals."""
    value, left = 0, -1
    for i in range(at, stop):
        if data[i] == 46:
            left = 8
        else:
            value = value * 10 + np.int64(data[i]) - 48
            left -= 1 if left > 0 else 0
    return value * 10 ** (8 if left < 0 else left)


@kernel
def number_of(data: Any, at: int, stop: int) -> int:
    """Read the number at the end of a client order id."""
    value, unit = 0, 1
    while stop > at and 48 <= data[stop - 1] <= 57:
        stop -= 1
        value += (np.int64(data[stop]) - 48) * unit
        unit *= 10
    return value


@inlined
def _repeat(peer: Any, at: int, field: int) -> int:
    """Write what the request said; return where it ends."""
    begin, end = peer.spans[field, 0], peer.spans[field, 1]
    for i in range(begin, end):
        peer.outbox[at + i - begin] = peer.inbox[i]
    return at + end - begin


@inlined
def _repeat_decimal(peer: Any, at: int, field: int) -> int:
    """Write a decimal with the eight decimals the venue writes; return where it ends."""
    dot, end = at, _repeat(peer, at, field)
    while dot < end and peer.outbox[dot] != 46:
        dot += 1
    if dot == end:
        peer.outbox[end] = 46
        end += 1
    while end < dot + 9:
        peer.outbox[end] = 48
        end += 1
    return end


@inlined
def _frame(buffer: Any, begin: int, end: int) -> int:
    """Write the header of a text that begins four bytes behind `begin`; return where it ends."""
    length = end - begin - 4
    buffer[begin], buffer[begin + 1] = 0x81, 126
    buffer[begin + 2], buffer[begin + 3] = length >> 8, length & 255
    return end


@kernel
def put_response(peer: Any, begin: int, order: int, now_ms: int) -> int:
    """Write the response to the request in `spans`, a frame; return where it ends."""
    out = peer.outbox
    at = put(out, begin + 4, '{"id":"')
    at = _repeat(peer, at, p.REQUEST)
    at = put(out, at, '","status":200,"result":{"symbol":"')
    at = _repeat(peer, at, p.SYMBOL)
    at = put_number(out, put(out, at, '","orderId":'), order)
    at = put(out, at, ',"orderListId":-1,"clientOrderId":"')
    at = _repeat(peer, at, p.CLIENT)
    at = put_number(out, put(out, at, '","transactTime":'), now_ms)
    at = put(
        out, at, '},"rateLimits":[{"rateLimitType":"ORDERS","interval":"SECOND","intervalNum":10,"limit":1000000000,'
    )
    at = put_number(out, put(out, at, '"count":'), order)
    at = put(out, at, '},{"rateLimitType":"ORDERS","interval":"DAY","intervalNum":1,"limit":1000000000,"count":')
    at = put(out, put_number(out, at, order), "}]}")
    return _frame(out, begin, at)


@kernel
def put_report(peer: Any, begin: int, order: int, now_ms: int, expired: bool) -> int:
    """Write an execution report about the order in `spans`, a frame; return where it ends."""
    out = peer.outbox
    at = put_number(out, put(out, begin + 4, '{"subscriptionId":0,"event":{"e":"executionReport","E":'), now_ms)
    at = _repeat(peer, put(out, at, ',"s":"'), p.SYMBOL)
    at = _repeat(peer, put(out, at, '","c":"'), p.CLIENT)
    at = _repeat(peer, put(out, at, '","S":"'), p.SIDE)
    at = _repeat(peer, put(out, at, '","o":"LIMIT","f":"'), p.FORCE)
    at = _repeat_decimal(peer, put(out, at, '","q":"'), p.QUANTITY)
    at = _repeat_decimal(peer, put(out, at, '","p":"'), p.PRICE)
    at = put(out, at, '","P":"0.00000000","F":"0.00000000","g":-1,"C":"","x":"')
    if expired:
        at = put(out, at, 'EXPIRED","X":"EXPIRED","r":"NONE","i":')
    else:
        at = put(out, at, 'NEW","X":"NEW","r":"NONE","i":')
    at = put_number(out, at, order)
    at = put(out, at, ',"l":"0.00000000","z":"0.00000000","L":"0.00000000","n":"0","N":null,"T":')
    at = put_number(out, at, now_ms)
    at = put(out, at, ',"t":-1,"I":')
    at = put_number(out, at, 2 * order + expired)
    if expired:
        at = put(out, at, ',"w":false,"m":false,"M":false,"O":')
    else:
        at = put(out, at, ',"w":true,"m":false,"M":false,"O":')
    at = put_number(out, at, now_ms)
    at = put_number(out, put(out, at, ',"Z":"0.00000000","Y":"0.00000000","Q":"0.00000000","W":'), now_ms)
    at = put(out, at, ',"V":"EXPIRE_MAKER"')
    if expired:
        at = put(out, at, ',"eR":"UNFILLED_IOC_QUANTITY_EXPIRED"')
    return _frame(out, begin, put(out, at, "}}"))


@kernel
def next_message(data: Any, at: int, end: int) -> tuple[int, int]:
    """Find the FIX message at `at`; return where its body begins and ends, (0, 0) if it is not whole."""
    begin, length = at + 12, 0
    while begin < end and data[begin] != 1:
        length = length * 10 + np.int64(data[begin]) - 48
        begin += 1
    stop = begin + 1 + length
    return (begin + 1, stop) if begin < end and stop + 7 <= end else (0, 0)


@kernel
def read_fix(data: Any, begin: int, stop: int, spans: Any) -> int:
    """Read a NewOrderSingle into `spans`; return its number, 0 for anything else."""
    spans[:, :] = 0
    if not matches(data, begin, "35=D\x01"):
        return 0
    number, at = 0, begin
    while at < stop:
        tag = np.int64(0)
        while data[at] != 61:
            tag = tag * 10 + np.int64(data[at]) - 48
            at += 1
        first = at + 1
        while data[at] != 1:
            at += 1
        for field in range(p.REQUEST):
            if tag == p.FIX_TAGS[field]:
                spans[field, 0], spans[field, 1] = first, at
        if tag == 34:
            number = number_of(data, first, at)
        at += 1
    return number


@inlined
def _now(buffer: Any, at: int, now_ns: int) -> int:
    return put(buffer, put_time(buffer, at, now_ns), "000\x01")


@kernel
def put_fix_report(peer: Any, begin: int, order: int, now_ns: int, expired: bool) -> int:
    """Write an ExecutionReport about the order in `spans`; return where it ends."""
    out, words = peer.outbox, peer.words
    body = begin + 16
    at = put_number(out, put(out, body, "35=8\x0134="), words[p.FIX_OUT])
    at = _now(out, put(out, at, "\x0149=SPOT\x0152="), now_ns)
    at = put(out, at, "56=")
    store(out, at, words[p.FIX_SENDER])
    at = put_number(out, put(out, at + 8, "\x0117="), 2 * order + expired)
    at = _repeat(peer, put(out, at, "\x0111="), p.CLIENT)
    at = put_number(out, put(out, at, "\x0137="), order)
    at = _repeat_decimal(peer, put(out, at, "\x0138="), p.QUANTITY)
    at = _repeat(peer, put(out, at, "\x0140=2\x0154="), p.SIDE)
    at = _repeat(peer, put(out, at, "\x0155="), p.SYMBOL)
    at = _repeat_decimal(peer, put(out, at, "\x0144="), p.PRICE)
    at = _repeat(peer, put(out, at, "\x0159="), p.FORCE)
    at = _now(out, put(out, at, "\x0160="), now_ns)
    at = _now(out, put(out, at, "25018="), now_ns)
    if expired:
        at = put(out, at, "25001=3\x01150=C\x0139=C\x0114=0.00000000\x01151=0.00000000\x0125017=0.00000000\x01")
        at = put(out, at, "32=0.00000000\x0125023=")
    else:
        at = put(out, at, "25001=3\x01150=0\x0139=0\x0114=0.00000000\x01151=")
        at = _repeat_decimal(peer, at, p.QUANTITY)
        at = put(out, at, "\x0125017=0.00000000\x0132=0.00000000\x01636=Y\x0125023=")
    at = _now(out, at, now_ns)
    if expired:
        at = put(out, at, "25056=5\x01")
    front = put(out, begin, "8=FIX.4.4\x019=")
    put(out, put_number(out, front, at - body), "\x01")  # always three digits
    total = np.int64(0)
    for i in range(begin, at):
        total += np.int64(out[i])
    words[p.FIX_OUT] += 1
    put_number(out, put(out, at, "10="), 1000 + (total & 255))
    for i in range(3):
        out[at + 3 + i] = out[at + 4 + i]
    return put(out, at + 6, "\x01")


@kernel
def take_order(peer: Any, begin: int, stop: int, at: int) -> int:
    """Take the order in the inbox and write its answers at `at`; return where they end."""
    words, spans = peer.words, peer.spans
    if words[p.FIX_SENDER] == 0:
        good = read_order(peer.inbox, begin, stop, spans)
    else:
        good = read_fix(peer.inbox, begin, stop, spans) == words[p.FIX_IN]
        words[p.FIX_IN] += 1
    if not good:
        words[p.PROBLEM] = p.NO_REQUEST
        return at
    number = number_of(peer.inbox, spans[p.CLIENT, 0], spans[p.CLIENT, 1])
    if words[p.LAST_NUMBER] != 0 and number != words[p.LAST_NUMBER] + 1:
        words[p.PROBLEM] = p.OUT_OF_TURN
    words[p.LAST_NUMBER] = number
    order, now_ns = words[p.RECEIVED] + 1, realtime_ns()
    if words[p.FIX_SENDER] == 0:
        at = put_response(peer, at, order, now_ns // 1_000_000)
        at = put_report(peer, at, order, now_ns // 1_000_000, False)
        at = put_report(peer, at, order, now_ns // 1_000_000, True)
    else:
        at = put_fix_report(peer, at, order, now_ns, False)
        at = put_fix_report(peer, at, order, now_ns, True)
    store_release(words, p.RECEIVED, order)
    return at


@kernel
def take(peer: Any, begin: int, stop: int, at: int) -> int:
    """Take what is in the inbox, an order or a session's look at its trades; return where its answers end."""
    if begin == stop:
        return at
    if not matches(peer.inbox, begin, '{"id":"look '):
        return take_order(peer, begin, stop, at)
    peer.spans[p.REQUEST, 0] = peer.spans[p.REQUEST, 1] = begin + 7
    while peer.inbox[peer.spans[p.REQUEST, 1]] != 34:
        peer.spans[p.REQUEST, 1] += 1
    end = _repeat(peer, put(peer.outbox, at + 4, '{"id":"'), p.REQUEST)
    end = put(peer.outbox, end, '","status":200,"result":[],"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT",')
    end = put(peer.outbox, end, '"interval":"MINUTE","intervalNum":1,"limit":1000000000,"count":1}]}')
    return _frame(peer.outbox, at, end)


@kernel
def answer(peer: Any, end: int) -> None:
    """Send what was written to the outbox."""
    words = peer.words
    if not write(words[p.ORDERS], words[p.ORDERS_TLS], peer.outbox, 0, end):
        words[p.PROBLEM] = p.CLOSED
    store_release(words, p.ANSWERED, words[p.RECEIVED])


@kernel
def send_depth(peer: Any, i: int) -> bool:
    """Send depth frame `i` with the update ids that are next; False if the client has gone."""
    words, data, index = peer.words, peer.data, peer.index
    put_number(data, index[i]["first"], words[p.UPDATE_ID] + 1)
    words[p.UPDATE_ID] += index[i]["updates"]
    put_number(data, index[i]["last"], words[p.UPDATE_ID])
    return write(words[p.MARKET], words[p.MARKET_TLS], data, index[i]["begin"], index[i]["stop"])


@kernel
def await_order(peer: Any, begun: int) -> int:
    """Wait until an order has come and take it, its answers in the outbox; return when its last byte was there."""
    words, received = peer.words, peer.words[p.RECEIVED]
    now = begun
    while words[p.RECEIVED] == received and words[p.PROBLEM] == 0:
        if _read(peer) == 0:
            sched_yield()
        now = monotonic_ns()
        begin, stop = next_frame(peer.inbox, 0, words[p.FILLED])
        if stop != 0:
            words[p.SIZE], words[p.TAKEN] = take(peer, begin, stop, 0), stop
            if words[p.RECEIVED] == received:
                answer(peer, words[p.SIZE])
                _drop(peer, stop)
        elif now > begun + p.PATIENCE_NS:
            words[p.PROBLEM] = p.NO_ORDER
    return now


@kernel
def play(peer: Any, pause_ns: int) -> None:
    """Send a frame, wait for the order it causes, answer, pause; until `rtt` is full or something is wrong."""
    words, rtt, spans = peer.words, peer.rtt, peer.spans
    frames = peer.index.shape[0] - 1
    while words[p.SAMPLES] < rtt.shape[0]:
        i = words[p.SAMPLES] % frames
        begun = monotonic_ns()
        if not send_depth(peer, i):
            words[p.PROBLEM] = p.CLOSED
        rtt[words[p.SAMPLES]] = await_order(peer, begun) - begun
        if words[p.PROBLEM] != 0:
            return
        if scaled(peer.inbox, spans[p.PRICE, 0], spans[p.PRICE, 1]) != peer.index[i]["bid"]:
            words[p.PROBLEM] = p.WRONG_PRICE
            return
        answer(peer, words[p.SIZE])
        _drop(peer, words[p.TAKEN])
        words[p.SAMPLES] += 1
        until = monotonic_ns() + pause_ns
        while monotonic_ns() < until:
            sched_yield()


@kernel
def serve(peer: Any) -> None:
    """Take orders and answer them for a while, or until told to do something else, or something is wrong."""
    words, inbox, more = peer.words, peer.inbox, True
    until = monotonic_ns() + p.CALM_NS
    while load_acquire(words, p.TASK) == p.SERVE and words[p.PROBLEM] == 0 and monotonic_ns() < until:
        if _read(peer) == 0 and not more:
            sched_yield()
            continue
        at, end, more = 0, 0, True
        while end + p.ANSWERS_BYTES < p.OUTBOX_BYTES:
            if words[p.FIX_SENDER] == 0:
                begin, stop = next_frame(inbox, at, words[p.FILLED])
            else:
                begin, stop = next_message(inbox, at, words[p.FILLED])
            if stop == 0:
                more = False
                break
            end = take(peer, begin, stop, end)
            at = stop if words[p.FIX_SENDER] == 0 else stop + 7
        _drop(peer, at)
        answer(peer, end)
