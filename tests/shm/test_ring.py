"""The ring: against a plain model, across processes, killed at every instruction, and its page protections."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm import ring, segment
from shrivenq.shm.kernel import COMPILED, kernel
from shrivenq.shm.segment import SegmentError
from shrivenq.shm.wait import YIELD, idle

MESSAGE = np.dtype([("sequence", "<i8"), ("words", "<i8", (7,))], align=True)


@pytest.fixture
def make():
    """Make rings that are gone afterwards."""
    made = []

    def create(count, dtype=MESSAGE):
        name = f"shrivenq.test.ring.{os.getpid()}.{len(made)}"
        segment.unlink(name)
        made.append(ring.create(name, dtype, count))
        return made[-1]

    yield create
    for one in made:
        one.unlink()
        one.close()


@kernel
def send(out: Any, sequence: int) -> bool:
    """Publish one message if there is room."""
    if not ring.claim(out, 1):
        return False
    index = ring.next_slot(out)
    out.slots[index]["sequence"] = sequence
    for k in range(7):
        out.slots[index]["words"][k] = sequence * 8 + k
    ring.publish(out)
    return True


@kernel
def whole(slots: Any, index: int, sequence: int) -> bool:
    """Tell whether a slot holds message `sequence`, all of it."""
    good = slots[index]["sequence"] == sequence
    for k in range(7):
        good = good and slots[index]["words"][k] == sequence * 8 + k
    return good


@kernel
def flood(out: Any, count: int) -> None:
    """Send `count` messages, waiting while the ring is full."""
    for sequence in range(count):
        while not send(out, sequence):
            idle(YIELD)


@kernel
def drain(inbox: Any, count: int) -> int:
    """Receive `count` messages and check all words; the number of the first wrong one, or -1."""
    done = 0
    while done < count:
        waiting = ring.available(inbox)
        if waiting == 0:
            idle(YIELD)
        for ahead in range(waiting):
            if not whole(inbox.slots, ring.slot_at(inbox, ahead), done + ahead):
                return done + ahead
        ring.release(inbox, waiting)
        done += waiting
    return -1


@kernel
def fill(out: Any, value: int) -> None:
    """Take the next slot, which was claimed, and fill it."""
    out.slots[ring.next_slot(out)]["sequence"] = value


@kernel
def first(inbox: Any, ahead: int) -> int:
    """Read a waiting message."""
    return inbox.slots[ring.slot_at(inbox, ahead)]["sequence"]


# ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 5)),
        st.tuples(st.just("publish"), st.just(0)),
        st.tuples(st.just("commit"), st.integers(1, 5)),
        st.tuples(st.just("abandon"), st.just(0)),
        st.tuples(st.just("read"), st.integers(1, 5)),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, count=st.sampled_from([2, 4, 8]))
def test_ring_does_what_two_lists_do(steps, count):
    name = f"shrivenq.test.ring.model.{os.getpid()}"
    segment.unlink(name)
    made = ring.create(name, MESSAGE, count)
    made.unlink()
    out, inbox = ring.producer(made), ring.consumer(made)
    filled: list[int] = []
    published: deque[int] = deque()
    seen = 0  # how many of `published` the consumer has been told of: it looks again only when it knows of none
    value = 0
    for what, number in steps:
        if what == "write":
            room = count - len(published) - len(filled)
            assert ring.claim(out, number) == (number <= room)
            if number <= room:
                for _ in range(number):
                    fill(out, value)
                    filled.append(value)
                    value += 1
        elif what == "commit":
            if number <= count - len(published) - len(filled):
                assert ring.claim(out, number)
                for ahead in range(number):
                    out.slots[ring.slot_ahead(out, ahead)]["sequence"] = value
                    filled.append(value)
                    value += 1
                ring.commit(out, number)
                published.extend(filled)
                filled.clear()
        elif what == "publish":
            ring.publish(out)
            published.extend(filled)
            filled.clear()
        elif what == "abandon":
            ring.abandon(out)
            filled.clear()
        else:
            seen = seen or len(published)
            assert ring.available(inbox) == seen
            taken = min(number, seen)
            for ahead in range(taken):
                assert first(inbox, ahead) == published[ahead]
            ring.release(inbox, taken)
            for _ in range(taken):
                published.popleft()
            seen -= taken
    made.close()


def test_full_and_empty(make):
    made = make(4)
    out, inbox = ring.producer(made), ring.consumer(made)
    assert ring.available(inbox) == 0
    assert [send(out, n) for n in range(6)] == [True] * 4 + [False] * 2
    assert ring.available(inbox) == 4
    assert inbox.own[ring.HIGH_WATER] == 4
    ring.release(inbox, 4)
    assert ring.available(inbox) == 0
    assert not ring.claim(out, 5)
    assert ring.claim(out, 4)


def test_messages_stay_whole_over_many_wraps(make):
    made = make(8)
    out, inbox = ring.producer(made), ring.consumer(made)
    for sequence in range(100):
        assert send(out, sequence)
        assert ring.available(inbox) == 1
        assert whole(inbox.slots, sequence % 8, sequence)
        ring.release(inbox, 1)


@pytest.mark.parametrize("count", [0, 1, 3, 12, -4])
def test_slots_are_a_power_of_two(count):
    with pytest.raises(SegmentError, match=f"power of two of slots, not {count}"):
        ring.ring_layout(MESSAGE, count)


def test_positions_far_beyond_32_bits(make):
    made = make(4)
    out, inbox = ring.producer(made), ring.consumer(made)
    far = (1 << 62) + 3
    for cursors in (out.own, inbox.own):
        cursors[[0, ring.CACHED]] = far
    out.own[ring.NEXT] = far
    assert [send(out, n) for n in range(5)] == [True] * 4 + [False]
    assert drain(inbox, 4) == -1


# ── across processes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="ten million messages need compiled kernels")
def test_ten_million_messages_arrive_whole_and_in_order(make, children):
    count = 10_000_000
    made = make(1024)
    flood(ring.producer(make(2)), 0)  # compiled before the fork
    child = children.start(lambda: flood(ring.producer(made), count))
    assert drain(ring.consumer(made), count) == -1
    assert children.wait(child) == 0


@kernel
def overrun(out: Any, count: int) -> None:
    """Publish without ever waiting for a reader, as a drained ring allows: the tap is lapped."""
    for sequence in range(count):
        index = ring.next_slot(out)
        out.slots[index]["sequence"] = sequence
        for k in range(7):
            out.slots[index]["words"][k] = sequence * 8 + k
        ring.publish(out)


@kernel
def watch(tap: Any, target: Any, count: int, totals: Any) -> int:
    """Follow a ring to position `count`; totals: copied, lost, times lapped. The first torn sequence, or -1."""
    expected = 0
    while expected < count:
        got = ring.copy_next(tap, target)
        if got == 1:
            if not whole(target, 0, expected):
                return expected
            totals[0] += 1
            expected += 1
        elif got < 0:
            totals[1] -= got
            totals[2] += 1
            expected -= got
        else:
            idle(YIELD)
    return -1


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="needs a producer as fast as it gets")
def test_lapped_tap_copies_nothing_torn_and_knows_what_it_lost(make, children):
    count = 3_000_000
    made = make(16)
    target, totals = np.zeros(1, dtype=MESSAGE), np.zeros(3, dtype=np.int64)
    spare = make(2)
    overrun(ring.producer(spare), 0)
    watch(ring.tap(spare), target, 0, totals)
    tap = ring.tap(made)
    child = children.start(lambda: overrun(ring.producer(made), count))
    assert watch(tap, target, count, totals) == -1
    assert children.wait(child) == 0
    assert totals[0] + totals[1] == count
    assert totals[2] > 0, "the producer never lapped: nothing was tested"


def test_tap_window_is_capacity_less_one(make):
    made = make(8)
    out, tap = ring.producer(made), ring.tap(made)
    target = np.zeros(1, dtype=MESSAGE)
    overrun(out, 7)
    assert [ring.copy_next(tap, target) for _ in range(8)] == [1] * 7 + [0]
    for _ in range(8):  # the slot at HEAD may be half written: eight behind is lapped
        fill(out, 0)
        ring.publish(out)
    assert ring.copy_next(tap, target) == -4
    assert [ring.copy_next(tap, target) for _ in range(5)] == [1] * 4 + [0]


def test_tap_begins_at_what_is_published_next(make):
    made = make(8)
    out = ring.producer(made)
    send(out, 0)
    tap, target = ring.tap(made), np.zeros(1, dtype=MESSAGE)
    assert ring.copy_next(tap, target) == 0
    send(out, 1)
    assert ring.copy_next(tap, target) == 1
    assert target[0]["sequence"] == 1


# ── killed at every instruction ──────────────────────────────────────────────────────────────────────────────────────

PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

if COMPILED:
    from numba.core import types

    raise_signal = types.ExternalFunction("raise", types.int32(types.int32))
else:
    raise_signal = signal.raise_signal


@kernel
def send_between_stops(out: Any, sequence: int) -> None:
    """Stop, publish one message, stop: the tracer steps through what lies between."""
    raise_signal(19)
    send(out, sequence)
    raise_signal(19)


def traced(made, before):
    """Fork a producer that publishes `before` messages and then stops just before one more; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            out = ring.producer(made)
            flood(out, before)
            if _libc.ptrace(PTRACE_TRACEME, 0, None, None):
                os._exit(ctypes.get_errno())
            send_between_stops(out, before)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFEXITED(status):
        if os.WEXITSTATUS(status) == errno.EPERM:
            pytest.skip("ptrace is not permitted here")
        pytest.fail(f"the traced producer ended with {os.WEXITSTATUS(status)}")
    return pid


def step(pid):
    """Run one instruction; False when the producer has stopped itself again (SIGSTOP, not SIGTRAP)."""
    assert _libc.ptrace(PTRACE_SINGLESTEP, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    _, status = os.waitpid(pid, 0)
    assert os.WIFSTOPPED(status), f"the producer ended: {status}"
    return os.WSTOPSIG(status) == signal.SIGTRAP


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def committed(inbox, before, where):
    """Check everything below the last commit; return how many messages that is."""
    head = int(inbox.peer[ring.HEAD])
    assert before <= head <= before + 1, f"{where}: HEAD {head}, {before} messages before"
    count = inbox.slots.shape[0]
    for sequence in range(max(0, before - count + 1), head):  # the slot being written over is free
        assert whole(inbox.slots, sequence % count, sequence), f"{where}: message {sequence} is torn"
    return head


def compile_all(make):
    spare = make(8)
    flood(ring.producer(spare), 0)
    send_between_stops.compile((*[type_of(one) for one in (ring.producer(spare), 0)],))
    whole(ring.consumer(spare).slots, 0, 0)


def type_of(value):
    import numba

    return numba.typeof(value)


def stopped_producer(make, before, drained):
    """Make a ring of 8 whose producer has published `before` messages, `drained` of them read, and stopped."""
    made = make(8)
    inbox = ring.consumer(made)
    pid = traced(made, before)
    if drained:
        assert ring.available(inbox) == before
        ring.release(inbox, drained)
    return inbox, pid


@pytest.mark.skipif(not COMPILED, reason="only machine code has instructions to stop at")
@pytest.mark.parametrize(("before", "drained"), [(4, 0), (8, 8)], ids=["room", "looks_at_consumer_and_wraps"])
def test_producer_stopped_at_every_instruction_and_killed_there(make, before, drained):
    """What a consumer sees after each single instruction of a publish is what it would see had the producer died."""
    compile_all(make)
    inbox, pid = stopped_producer(make, before, drained)
    heads = []
    try:
        while step(pid):
            heads.append(committed(inbox, before, f"after instruction {len(heads) + 1}"))
    finally:
        kill(pid)
    assert heads == sorted(heads), "a commit was taken back"
    assert heads[-1] == before + 1
    commit = heads.index(before + 1) + 1

    # And really killed: at 50 places, all of those around the commit among them.
    places = sorted({*range(commit - 20, commit + 6), *range(1, len(heads), max(1, len(heads) // 40))})
    assert len(places) >= 50
    for place in places:
        inbox, pid = stopped_producer(make, before, drained)
        try:
            for _ in range(place):
                step(pid)
        finally:
            kill(pid)
        head = committed(inbox, before, f"killed after instruction {place}")
        assert head == before + (place >= commit)
        seen = ring.available(inbox)
        assert [first(inbox, ahead) for ahead in range(seen)] == list(range(drained, head))
        ring.release(inbox, seen)
        assert ring.available(inbox) == 0, "a message was repeated"


# ── protection ───────────────────────────────────────────────────────────────────────────────────────────────────────


def permissions(array):
    """Read what the kernel allows at an array's first byte, such as `r--s`."""
    address = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, allowed = line.split()[:2]
        low, high = (int(one, 16) for one in bounds.split("-"))
        if low <= address < high:
            return allowed
    raise AssertionError("not mapped")


def test_each_side_can_write_what_it_owns_and_nothing_else(make):
    made = make(8)
    out, inbox, tap = ring.producer(made), ring.consumer(made), ring.tap(made)
    assert [permissions(one) for one in out] == ["rw-s", "r--s", "rw-s"]
    assert [permissions(one) for one in inbox] == ["rw-s", "r--s", "r--s"]
    assert [permissions(one) for one in tap[1:]] == ["r--s", "r--s"]
    assert not inbox.slots.flags.writeable
    pages = {array.ctypes.data // 4096 for array in (out.own, inbox.own)}
    assert len(pages) == 2


@pytest.mark.parametrize(("end", "array"), [("producer", 1), ("consumer", 1), ("consumer", 2), ("tap", 1), ("tap", 2)])
def test_writing_what_is_not_ones_own_faults(make, children, end, array):
    made = make(8)

    def write():
        faulthandler.disable()
        ctypes.memset(getattr(ring, end)(made)[array].ctypes.data, 1, 1)

    assert children.wait(children.start(write)) == -signal.SIGSEGV
    assert made.array("slots")[0]["sequence"] == 0


def test_protection_cannot_be_lifted_by_accident(make):
    """A read-only mapping of a descriptor opened for writing could be made writable, but only by asking for it."""
    made = make(8)
    inbox = ring.consumer(made)
    with pytest.raises(ValueError, match="read-only"):
        inbox.peer[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        inbox.slots.flags.writeable = True


def test_ring_works_as_plain_python():
    program = """
import numpy as np, os
from shrivenq.shm import ring, kernel
assert not kernel.COMPILED
made = ring.create(f"shrivenq.test.ring.plain.{os.getpid()}", np.dtype([("a", "<i8")]), 4)
made.unlink()
out, inbox, tap = ring.producer(made), ring.consumer(made), ring.tap(made)
target = np.zeros(1, dtype=np.dtype([("a", "<i8")]))
for n in range(20):
    assert ring.claim(out, 1)
    out.slots[ring.next_slot(out)]["a"] = n
    ring.publish(out)
    assert ring.available(inbox) == 1
    assert inbox.slots[ring.slot_at(inbox, 0)]["a"] == n
    ring.release(inbox, 1)
    assert ring.copy_next(tap, target) == 1 and target[0]["a"] == n
print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr
