"""Receiving: sockets and the REST process's ring → frames, busy-polled by compiled code.

Each connection has a stripe of the frames' buffer. Bytes are received straight into it, whole messages are entered into
the index where they lie, and nothing is copied or made in Python. What compiled code does not take asks for attention:
handshakes, control frames, fragments, answers to subscriptions, a closed or broken socket. Ciphertext is made plain on
its way into the stripe (`openssl`).

    ┌ stripe of connection 0 ────────────────────────┬ stripe 1 ┬ … ┬ side ───────────────┬ PADDING ┐
    │ taken │ whole messages │ part of one │  room    │          │   │ snapshots by REST,  │         │
    └───────┴────────────────┴─────────────┴──────────┴──────────┴───┤ reassembled messages├─────────┘
    begin              parsed ▲      filled ▲      limit ▲           └─────────────────────┘

The index is filled only when every frame in it was taken, so what was received may then be moved or overwritten.

The kernel says when the last packet of what was received came in (SO_TIMESTAMPING). That is the frame's `wire_ns`,
CLOCK_REALTIME converted to CLOCK_MONOTONIC by a sampled offset; its `raw_ns` is what the kernel said, as it said it.
Without a stamp `wire_ns` is the moment the bytes had been copied.
"""

from __future__ import annotations

import socket
from errno import EAGAIN, EINTR
from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm import byte_ring
from shrivenq.shm.clock import monotonic_ns, realtime_ns
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.frames import BINARY, COUNT, TAKEN, TEXT, USED, Frames, make_frames
from shrivenq.stages.live import openssl, system
from shrivenq.stages.live.websocket import BINARY_WHOLE, OTHER, PARTIAL, read_frame
from shrivenq.stages.stage import NOW_NS, OFFSET_NS, return_soon
from shrivenq.stages.venues.text import PADDING, load, matches, store

STRIPE_BYTES = 1 << 22
SIZE_MAX = 1 << 20
"""Longest message taken, in bytes; a venue's largest depth event is a tenth of it."""
SEALED_BYTES = 1 << 17
"""Ciphertext received at a time."""
ROOM_MIN = SEALED_BYTES + (1 << 16)
"""Bytes of room a stripe must have left to be received into; otherwise what is in it moves to its beginning. Ciphertext
received at a time, and a record that began before, become fewer plain bytes than that."""
INDEX_COUNT = 1 << 14
OFFSET_EVERY_NS = 1_000_000_000
STAMP_AGE_MAX_NS = 10_000_000_000
"""A receive stamp older than this says that the wall clock was set, not that the bytes waited."""
EXCLAMATION = 33

# What compiled code does with a connection (`mode`).
OFF, HELD, DIRECT = 0, 1, 2
"""Nothing; receive and ask for attention; receive, and enter messages into the index."""

# Why the last look at a stripe stopped (`stopped`).
MORE, FULL, SPECIAL, NOTICE = 0, 1, 2, 3
"""Bytes are missing; the index is full; `special` is for the protocol; `special` is text that is no market data."""

CONNECTION = np.dtype(
    [
        ("mode", "<i8"),
        ("descriptor", "<i8"),
        ("begin", "<i8"),  # of its stripe
        ("limit", "<i8"),
        ("parsed", "<i8"),  # offset up to which messages were entered into the index
        ("filled", "<i8"),  # offset up to which bytes have arrived
        ("stopped", "<i8"),
        ("special_begin", "<i8"),  # what it stopped at
        ("special_stop", "<i8"),
        ("strict", "<i8"),  # 1 between fragments: every frame is the protocol's business
        ("sealed", "<i8"),  # address of the buffer for ciphertext, 0 for a plain connection
        ("sealed_filled", "<i8"),  # ciphertext that waits for Python
        ("tls", "<i8"),  # address of OpenSSL's connection, 0 where TLS is Python's or there is none
        ("failed", "<i8"),  # errno of the socket, -1 once the venue has closed it
        ("data_ns", "<i8"),  # CLOCK_MONOTONIC: last message entered
        ("frames", "<i8"),  # messages entered
        ("bytes", "<i8"),  # received
        ("wire_ns", "<i8"),  # stamp of the bytes received last, CLOCK_MONOTONIC
        ("raw_ns", "<i8"),  # the same as the kernel said it
        ("clock", "<i8"),  # what clock that is: frames.CLOCKS
        ("unacknowledged", "<i8"),  # 1: bytes were received since TCP was last told to acknowledge
    ],
    align=True,
)

# Words (int64).
ENABLED = 0  # 1: there are connections to look after
STARTED = 1  # 1 once the loop has run: nothing is connected before
ATTENTION = 2  # 1: something waits for Python
WAKE_NS = 3  # CLOCK_MONOTONIC at which Python wants to look
SIDE_BEGIN = 4
SIDE_USED = 5
SIDE_LIMIT = 6
DATA_ADDRESS = 7
CLOCK_OFFSET_NS = 8  # CLOCK_REALTIME − CLOCK_MONOTONIC
CLOCK_ERROR_NS = 9  # that offset is this exact
CLOCK_LOOK_NS = 10  # when it is sampled next
RESTED = 11  # snapshots taken from the REST process
WORDS = 16

# `msghdr`, `iovec` and the control buffer, as words of one array (x86-64 and AArch64 Linux).
IOV, IOV_COUNT, CONTROL, CONTROL_LENGTH, FLAGS = 2, 3, 4, 5, 6
IOV_BASE, IOV_LENGTH = 8, 9
CONTROL_AT, CONTROL_WORDS = 12, 16
ACK_NOW, ACK_LATER = 28, 29  # what TCP_QUICKACK is set to: see `_acknowledge`
TIMESTAMPING = 1 | 37 << 32  # SOL_SOCKET, SCM_TIMESTAMPING
STAMPED = 2  # control words before the first of three timespecs


@by_reference
class Receiver(NamedTuple):
    """The connections of the market_data stage, and the ring the REST process answers through."""

    rows: Any  # CONNECTION
    words: Any
    message: Any  # int64: see IOV
    rest: byte_ring.Consumer


def make_receiver(count: int, rest: byte_ring.Consumer | None = None) -> tuple[Receiver, Frames]:
    """Make room for `count` connections; with none, what a stage without live market data has in its place."""
    frames = make_frames((count + 1) * STRIPE_BYTES + PADDING if count else PADDING, INDEX_COUNT if count else 1)
    rest = nobody() if rest is None else rest
    assert byte_ring.length_max(len(rest.data)) <= STRIPE_BYTES  # whatever it brings fits, when nothing else is there
    live = Receiver(
        rows=np.zeros(count, CONNECTION),
        words=np.zeros(WORDS, np.int64),
        message=np.zeros(32, np.int64),
        rest=rest,
    )
    live.rows["begin"] = live.rows["parsed"] = live.rows["filled"] = np.arange(count) * STRIPE_BYTES
    live.rows["limit"] = live.rows["begin"] + STRIPE_BYTES
    words, message = live.words, live.message
    words[ENABLED] = count > 0
    words[SIDE_BEGIN] = words[SIDE_USED] = count * STRIPE_BYTES
    words[SIDE_LIMIT] = words[SIDE_BEGIN] + (STRIPE_BYTES if count else 0)
    words[DATA_ADDRESS] = frames.data.ctypes.data
    message[IOV], message[IOV_COUNT] = message[IOV_BASE:].ctypes.data, 1
    message[CONTROL] = message[CONTROL_AT:].ctypes.data
    message[ACK_NOW] = 2
    return live, frames


def nobody() -> byte_ring.Consumer:
    """Make the reading end of a ring that nobody writes to, typed like any other, so that kernels compile once."""
    peer, data = np.zeros(512, np.int64), np.zeros(byte_ring.SIZE_MIN, np.uint8)
    peer.flags.writeable = data.flags.writeable = False
    return byte_ring.Consumer(np.zeros(512, np.int64), peer, data, data.view(np.int64))


@inlined
def _enter(frames: Frames, begin: int, stop: int, flags: int, time_ns: int, wire_ns: int) -> int:
    """Enter a frame into the index; return its row."""
    i = frames.words[COUNT]
    frames.index[i]["time_ns"] = time_ns
    frames.index[i]["wire_ns"] = wire_ns
    frames.index[i]["offset"] = begin
    frames.index[i]["length"] = stop - begin
    frames.index[i]["flags"] = flags
    frames.index[i]["raw_ns"] = 0
    frames.index[i]["clock"] = 0
    frames.words[COUNT] = i + 1
    return i


def enter_bytes(live: Receiver, frames: Frames, payload: bytes, flags: int, time_ns: int, wire_ns: int) -> bool:
    """Copy a message, TEXT or BINARY, into the side stripe and enter it; False where there is no room for it now."""
    begin = int(live.words[SIDE_USED])
    stop = begin + len(payload)
    if stop > live.words[SIDE_LIMIT] or frames.words[COUNT] == len(frames.index):
        return False
    frames.data[begin:stop] = np.frombuffer(payload, np.uint8)
    live.words[SIDE_USED] = stop
    _enter(frames, begin, stop, flags, time_ns, wire_ns)
    return True


@kernel
def sample_offset(words: Any, now: int) -> None:
    """Measure how far the wall clock is ahead of the monotonic one, with the error of the best of three attempts."""
    words[CLOCK_LOOK_NS] = now + OFFSET_EVERY_NS
    best = 1 << 62
    for _ in range(3):
        before = monotonic_ns()
        real = realtime_ns()
        half = (monotonic_ns() - before) // 2
        if half < best:
            best = half
            words[CLOCK_OFFSET_NS] = real - before - half
            words[CLOCK_ERROR_NS] = half + 1


@inlined
def _stamp(live: Any, row: Any) -> None:
    """Note when the bytes just received came in: as the kernel says, else now."""
    message, words = live.message, live.words
    now = monotonic_ns()
    row["wire_ns"], row["raw_ns"], row["clock"] = now, 0, 0
    if message[CONTROL_LENGTH] < (STAMPED + 6) * 8 or message[CONTROL_AT + 1] != TIMESTAMPING:
        return
    if now >= words[CLOCK_LOOK_NS]:
        sample_offset(words, now)
    at = CONTROL_AT + STAMPED
    software = message[at] * 1_000_000_000 + message[at + 1]
    hardware = message[at + 4] * 1_000_000_000 + message[at + 5]
    row["raw_ns"] = hardware if hardware != 0 else software
    row["clock"] = 2 if hardware != 0 else 1
    converted = software - words[CLOCK_OFFSET_NS]
    if now - STAMP_AGE_MAX_NS < converted < now:
        row["wire_ns"] = converted


@inlined
def _room(row: Any, data: Any) -> None:
    """Make room in a stripe whose messages were all taken."""
    begin, parsed, filled = row["begin"], row["parsed"], row["filled"]
    if parsed == filled:
        row["parsed"] = row["filled"] = begin
    elif row["limit"] - filled < ROOM_MIN or (row["limit"] - parsed < SIZE_MAX + ROOM_MIN):
        for at in range(0, filled - parsed, 8):  # forwards and towards the beginning: what is read was not overwritten
            store(data, begin + at, load(data, parsed + at))
        row["parsed"], row["filled"] = begin, begin + filled - parsed


@inlined
def _acknowledge(live: Any, row: Any) -> None:
    """Have TCP acknowledge what was received: now that nothing waits, and no longer before it is read.

    By itself Linux sends the acknowledgement from inside `recvmsg`, before it returns the bytes: a packet's whole way
    down, microseconds, between a message and the order it causes. It does not on a connection that it takes for
    interactive, which setting TCP_QUICKACK to 0 makes of one; an even number sends what is owed. Both, since in some
    states the first leaves it the other way round. Source: Linux, net/ipv4/tcp.c, `__tcp_sock_set_quickack`.
    """
    row["unacknowledged"] = 0
    value = live.message.ctypes.data
    system.setsockopt(row["descriptor"], socket.IPPROTO_TCP, socket.TCP_QUICKACK, value + 8 * ACK_NOW, 4)
    system.setsockopt(row["descriptor"], socket.IPPROTO_TCP, socket.TCP_QUICKACK, value + 8 * ACK_LATER, 4)


@kernel
def receive(live: Any, frames: Frames, c: int) -> int:
    """Receive what waits on a connection's socket; return the bytes, 0 for none. All frames must have been taken."""
    row, message, words = live.rows[c], live.message, live.words
    if row["sealed"] == 0 or row["tls"] != 0:
        _room(row, frames.data)
    room = row["limit"] - row["filled"]
    if row["sealed"] != 0:
        message[IOV_BASE] = row["sealed"] + row["sealed_filled"]
        message[IOV_LENGTH] = SEALED_BYTES - row["sealed_filled"]
    else:
        message[IOV_BASE] = words[DATA_ADDRESS] + row["filled"]
        message[IOV_LENGTH] = room
    if message[IOV_LENGTH] == 0 or (row["tls"] != 0 and room < ROOM_MIN):
        words[ATTENTION] = 1
        return 0
    message[CONTROL_LENGTH] = CONTROL_WORDS * 8
    message[FLAGS] = 0
    count = system.recvmsg(row["descriptor"], message.ctypes.data, socket.MSG_DONTWAIT)
    if count <= 0:
        if count < 0:
            problem = system.errno()
            if problem in (EAGAIN, EINTR):
                if row["unacknowledged"] != 0:
                    _acknowledge(live, row)
                return 0
            row["failed"] = problem
        else:
            row["failed"] = -1
        row["mode"] = OFF
        words[ATTENTION] = 1
        return 0
    _stamp(live, row)
    row["unacknowledged"] = 1
    row["bytes"] += count
    if row["tls"] != 0:
        plain, goes_on = openssl.read(row["tls"], row["sealed"], count, words[DATA_ADDRESS] + row["filled"], room)
        row["filled"] += plain
        if not goes_on:
            words[ATTENTION] = 1
    elif row["sealed"] != 0:
        row["sealed_filled"] += count
    else:
        row["filled"] += count
    return count


@inlined
def _is_notice(data: Any, begin: int, stop: int) -> bool:
    """Tell text that is no market data: not of the combined form, or the server's own announcement."""
    is_event = stop - begin > 12 and matches(data, begin, '{"stream":"') and data[begin + 11] != EXCLAMATION
    return not is_event


@kernel
def parse(live: Any, frames: Frames, c: int, time_ns: int) -> None:
    """Enter the whole messages of a stripe into the index, up to the first thing that is none."""
    row = live.rows[c]
    before = frames.words[COUNT]
    while True:
        if frames.words[COUNT] == frames.index.shape[0]:
            row["stopped"] = FULL
            break
        at = row["parsed"]
        kind, begin, stop = read_frame(frames.data, at, row["filled"], SIZE_MAX)
        if kind == PARTIAL:
            row["stopped"] = MORE
            break
        special = OTHER if kind == OTHER or row["strict"] != 0 else 0
        is_binary = frames.data[at] == BINARY_WHOLE
        notice = special == 0 and not is_binary and _is_notice(frames.data, begin, stop)
        if special != 0 or notice:
            row["stopped"] = NOTICE if notice else SPECIAL
            row["special_begin"] = begin if notice else at
            row["special_stop"] = stop
            live.words[ATTENTION] = 1
            break
        i = _enter(frames, begin, stop, BINARY if is_binary else TEXT, time_ns, row["wire_ns"])
        frames.index[i]["raw_ns"] = row["raw_ns"]
        frames.index[i]["clock"] = row["clock"]
        row["parsed"] = stop
    if frames.words[COUNT] != before:
        row["data_ns"] = row["wire_ns"]
        row["frames"] += frames.words[COUNT] - before


@kernel
def _take_rest(live: Any, frames: Frames, time_ns: int, now: int) -> None:
    """Copy what the REST process has brought into the side stripe."""
    words, rest = live.words, live.rest
    while frames.words[COUNT] < frames.index.shape[0]:
        at = byte_ring.peek(rest)
        if at < 0:
            return
        length = byte_ring.length_of(rest, at)
        begin = words[SIDE_USED]
        if begin + length > words[SIDE_LIMIT]:
            return  # the next time, when the side stripe is empty
        for i in range(length):
            frames.data[begin + i] = rest.data[at + i]
        byte_ring.consume(rest)
        words[SIDE_USED] = begin + length
        words[RESTED] += 1
        _enter(frames, begin, begin + length, TEXT, time_ns, now)


@kernel
def poll(live: Any, frames: Frames, loop: Any) -> int:
    """Fill the index anew, all of which was taken, with what has arrived; return the frames in it.

    Asks the loop to return to Python where there is something for it to do and nothing to decode.
    """
    words, now = live.words, loop[NOW_NS]
    for word in (COUNT, TAKEN, USED):
        frames.words[word] = 0
    words[SIDE_USED] = words[SIDE_BEGIN]
    if words[STARTED] == 0 or words[ATTENTION] != 0 or now >= words[WAKE_NS]:
        words[STARTED] = 1
        return_soon(loop)
        return 0
    time_ns = now + loop[OFFSET_NS]
    _take_rest(live, frames, time_ns, now)
    for c in range(live.rows.shape[0]):
        row = live.rows[c]
        if row["mode"] == OFF:
            continue
        waiting = row["stopped"] == FULL
        row["stopped"] = MORE
        if not waiting and receive(live, frames, c) == 0:
            continue
        if row["mode"] == DIRECT:
            parse(live, frames, c, time_ns)
        else:
            words[ATTENTION] = 1
    if words[ATTENTION] != 0 and frames.words[COUNT] == 0:
        return_soon(loop)
    return frames.words[COUNT]
