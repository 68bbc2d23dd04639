"""Receiving by compiled code: stripes, stamps, the REST ring, and what is left to Python."""

from __future__ import annotations

import errno
import random
import socket
import sys
import time
import uuid

import numpy as np
import pytest

from shrivenq.shm import byte_ring, segment
from shrivenq.stages import frames as f
from shrivenq.stages import stage
from shrivenq.stages.live import receive as r
from shrivenq.stages.live.transport import RX_SOFTWARE, SO_TIMESTAMPING, SOFTWARE
from tests.stages.live.live_rig import trade


def text(payload):
    size = len(payload)
    return (b"\x81" + bytes([size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2) if size < 1 << 16 else
            b"\x81\x7f" + size.to_bytes(8)) + payload  # fmt: skip


class Rig:
    """Connections over socket pairs, open from the beginning."""

    def __init__(self, count=1, mode=r.DIRECT, rest=None):
        self.live, self.frames = r.make_receiver(count, rest)
        self.pairs = [socket.socketpair() for _ in range(count)]
        for row, (ours, theirs) in zip(self.live.rows, self.pairs, strict=True):
            ours.setblocking(False)
            theirs.setblocking(False)
            row["descriptor"], row["mode"] = ours.fileno(), mode
        self.loop = np.zeros(512, np.int64)
        self.live.words[r.WAKE_NS] = 1 << 62
        self.live.words[r.STARTED] = 1

    def send(self, data, to=0):
        return self.pairs[to][1].send(data)

    def poll(self):
        self.loop[stage.NOW_NS] = time.monotonic_ns()
        self.loop[stage.DEADLINE_NS] = 1
        count = int(r.poll(self.live, self.frames, self.loop))
        found = [self.payload(row) for row in range(count)]
        self.frames.words[f.TAKEN] = count
        return found

    def payload(self, row):
        frame = self.frames.index[row]
        begin = int(frame["offset"])
        return self.frames.data[begin : begin + int(frame["length"])].tobytes()

    @property
    def returns(self):
        return self.loop[stage.DEADLINE_NS] == 0

    def close(self):
        for pair in self.pairs:
            for one in pair:
                one.close()


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


def test_the_first_poll_only_returns_to_python(rig):
    rig.live.words[r.STARTED] = 0
    rig.send(text(trade(1)))
    assert rig.poll() == []
    assert rig.returns
    assert rig.poll() == [trade(1)]
    assert not rig.returns


def test_python_is_woken_when_it_wants(rig):
    rig.live.words[r.WAKE_NS] = time.monotonic_ns() - 1
    rig.send(text(trade(1)))
    assert rig.poll() == []
    assert rig.returns


@pytest.mark.parametrize("seed", range(20))
def test_messages_of_all_sizes_come_whole_and_in_order_however_they_are_cut(rig, seed):
    rng = random.Random(seed)
    wanted = []
    for number in range(200):
        size = rng.choice((0, 10, 120, 130, 3000, 70_000, 300_000) if number % 40 == 0 else (0, 10, 120, 130, 3000))
        wanted.append(b'{"stream":"b@trade","x":"' + b"x" * size + b'"}')
    stream, found, at = b"".join(map(text, wanted)), [], 0
    while len(found) < len(wanted):
        size = rng.choice((1, 3, 1000, 60_000, 200_000))
        if at < len(stream):
            at += rig.send(stream[at : at + size])
        found += rig.poll()
    assert found == wanted, f"seed {seed}"
    assert int(rig.live.rows[0]["frames"]) == len(wanted)
    assert int(rig.live.rows[0]["bytes"]) == len(stream)


def test_a_full_index_goes_on_where_it_stopped(rig, monkeypatch):
    monkeypatch.setattr(r, "INDEX_COUNT", 4)
    live, frames = r.make_receiver(1)
    live.rows["descriptor"], live.rows["mode"] = rig.pairs[0][0].fileno(), r.DIRECT
    live.words[[r.STARTED, r.WAKE_NS]] = 1, 1 << 62
    rig.live, rig.frames = live, frames
    wanted = [trade(number) for number in range(11)]
    rig.send(b"".join(map(text, wanted)))
    found = [rig.poll() for _ in range(3)]
    assert [len(one) for one in found] == [4, 4, 3]
    assert [*found[0], *found[1], *found[2]] == wanted


def test_what_is_no_market_data_waits_for_python_behind_what_came_before(rig):
    rig.send(text(trade(1)) + b"\x89\x02hi" + text(trade(2)))
    assert rig.poll() == [trade(1)]
    assert not rig.returns, "there is something to decode first"
    row = rig.live.rows[0]
    assert row["stopped"] == r.SPECIAL
    found = rig.frames.data[int(row["special_begin"]) : int(row["special_stop"])].tobytes()
    assert found == b"\x89\x02hi"
    assert rig.poll() == []
    assert rig.returns
    row["parsed"] = row["special_stop"]
    r.parse(rig.live, rig.frames, 0, 0)
    assert rig.payload(0) == trade(2)


@pytest.mark.parametrize(
    "payload",
    [b'{"result":null,"id":1}', b"", b"garbage", b'{"stream":"!serverShutdown","data":{"e":"serverShutdown"}}'],
)
def test_text_that_is_no_market_data_is_a_notice(rig, payload):
    rig.send(text(payload))
    assert rig.poll() == []
    assert rig.returns
    row = rig.live.rows[0]
    assert row["stopped"] == r.NOTICE
    assert rig.frames.data[int(row["special_begin"]) : int(row["special_stop"])].tobytes() == payload


def test_binary_messages_are_market_data_and_say_what_they_are(rig):
    rig.send(b"\x82\x03\x00\x01\x02")
    assert rig.poll() == [b"\x00\x01\x02"]
    assert rig.frames.index[0]["flags"] == f.BINARY


def test_between_fragments_everything_is_for_python(rig):
    rig.live.rows[0]["strict"] = 1
    rig.send(text(trade(1)))
    assert rig.poll() == []
    assert rig.live.rows[0]["stopped"] == r.SPECIAL


def test_a_held_connection_is_received_from_and_not_parsed():
    rig = Rig(mode=r.HELD)
    try:
        rig.send(text(trade(1)))
        assert rig.poll() == []
        assert rig.returns
        assert rig.live.rows[0]["filled"] == len(text(trade(1)))
    finally:
        rig.close()


def test_ciphertext_goes_to_its_own_buffer(rig):
    sealed = np.zeros(r.SEALED_BYTES, np.uint8)
    rig.live.rows[0]["sealed"], rig.live.rows[0]["mode"] = sealed.ctypes.data, r.HELD
    rig.send(b"sealed")
    assert rig.poll() == []
    rig.live.words[r.ATTENTION] = 0
    rig.send(b" more")
    rig.poll()
    assert sealed[:11].tobytes() == b"sealed more"
    assert rig.live.rows[0]["sealed_filled"] == 11


def test_an_end_and_an_error_turn_the_connection_off_behind_its_last_messages(rig):
    rig.send(text(trade(1)))
    rig.pairs[0][1].close()
    assert rig.poll() == [trade(1)]
    assert rig.poll() == []
    assert rig.returns
    assert (rig.live.rows[0]["mode"], rig.live.rows[0]["failed"]) == (r.OFF, -1)


def test_a_descriptor_that_is_none_is_an_error(rig):
    rig.live.rows[0]["descriptor"] = 10_000_000
    rig.poll()
    assert rig.live.rows[0]["failed"] == errno.EBADF


def test_connections_share_the_index_and_not_their_stripes():
    rig = Rig(3)
    try:
        for to in range(3):
            rig.send(text(trade(to)) + text(trade(10 + to))[:30], to)
        assert rig.poll() == [trade(0), trade(1), trade(2)]
        for to in (2, 0, 1):
            rig.send(text(trade(10 + to))[30:], to)
        assert rig.poll() == [trade(10), trade(11), trade(12)]
    finally:
        rig.close()


# ── acknowledgements ─────────────────────────────────────────────────────────────────────────────────────────────────

TCP_INFO_UNACKED = 24
"""Offset of `tcpi_unacked` in the kernel's `tcp_info`."""


def owed(sender):
    """Count the segments that the other end has not acknowledged."""
    info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_UNACKED + 4)
    return int.from_bytes(info[TCP_INFO_UNACKED:], sys.byteorder)


def test_what_was_received_is_acknowledged_once_nothing_waits_and_not_before():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    rig = Rig()
    try:
        ours.setblocking(False)
        rig.live.rows[0]["descriptor"] = ours.fileno()
        seen = []
        for number in range(40):
            theirs.send(text(trade(number)))
            while not rig.poll():
                pass
            before = owed(theirs)
            assert rig.poll() == []
            seen.append((before, owed(theirs)))
        # Where the machine stalls, the kernel's own timer comes first.
        assert seen.count((1, 0)) > 20, seen
    finally:
        rig.close()
        ours.close()
        theirs.close()


# ── receive stamps ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_kernels_stamp_is_kept_raw_and_converted():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    rig = Rig()
    try:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
        rig.live.rows[0]["descriptor"] = ours.fileno()
        before, before_real = time.monotonic_ns(), time.time_ns()
        theirs.send(text(trade(1)))
        while not rig.poll():
            pass
        after, after_real = time.monotonic_ns(), time.time_ns()
        frame = rig.frames.index[0]
        if frame["clock"] == 0:
            pytest.skip("this kernel gives no receive stamps")
        assert f.CLOCKS[int(frame["clock"])] == "CLOCK_REALTIME"
        error = int(rig.live.words[r.CLOCK_ERROR_NS])
        assert 0 < error < 1_000_000_000
        assert before_real <= frame["raw_ns"] <= after_real
        assert before - error <= frame["wire_ns"] <= after
        # The next bytes bring their own.
        theirs.send(text(trade(2)))
        while not rig.poll():
            pass
        assert rig.frames.index[0]["raw_ns"] > before_real
    finally:
        rig.close()
        ours.close()
        theirs.close()


def test_without_a_stamp_the_moment_of_copying_counts(rig):
    rig.send(text(trade(1)))
    before = time.monotonic_ns()
    rig.poll()
    assert rig.frames.index[0]["clock"] == 0
    assert before <= rig.frames.index[0]["wire_ns"] <= time.monotonic_ns()


# ── the REST process's ring, and what Python enters ──────────────────────────────────────────────────────────────────


def test_snapshots_come_through_the_ring_and_the_largest_that_it_takes_finds_room():
    held = byte_ring.create(f"{segment.PREFIX}test-receive-{uuid.uuid4().hex[:12]}", 2 * r.STRIPE_BYTES)
    try:
        out = byte_ring.producer(held)
        rig = Rig(rest=byte_ring.consumer(held))
        try:
            small, large = b"s" * 1000, b"l" * byte_ring.length_max(2 * r.STRIPE_BYTES)
            for payload in (small, large):
                assert byte_ring.append(out, f.TEXT, np.frombuffer(payload, np.uint8), 0, len(payload), 0)
            rig.send(text(trade(1)))
            assert rig.poll() == [small, trade(1)], "the second does not fit beside the first"
            assert rig.poll() == [large]
            assert rig.poll() == []
            assert rig.live.words[r.RESTED] == 2
        finally:
            rig.close()
    finally:
        held.close()
        held.unlink()


def test_what_python_enters_is_a_frame_like_any_other(rig):
    for flags in (f.TEXT, f.BINARY):
        assert r.enter_bytes(rig.live, rig.frames, b"abc", flags, 8, 9)
    assert rig.frames.words[f.COUNT] == 2
    assert rig.frames.index["flags"][:2].tolist() == [f.TEXT, f.BINARY]
    assert rig.payload(0) == rig.payload(1) == b"abc"
    assert not r.enter_bytes(rig.live, rig.frames, b"x" * r.STRIPE_BYTES, f.TEXT, 0, 0)


def test_a_stage_without_live_data_has_nothing_in_its_place():
    live, _ = r.make_receiver(0)
    assert not live.words[r.ENABLED]
    assert len(live.rows) == 0
