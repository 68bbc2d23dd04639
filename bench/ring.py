"""How fast one message crosses from process to process, and how many do in a second.

Two processes on two CPUs; every message is 64 bytes whose eight words are all written and all checked. `shrivenq` is
the ring as stages use it, kernels and all; `cpp_same` the same layout and algorithm in C++, compiled here;
`cpp_rigtorp` rigtorp's SPSCQueue; `faster-fifo` and `pipe` (multiprocessing) what Python offers. The first four wait
by spinning (by yielding if there is one CPU), the pipe blocks. Round trips go through two rings, one message at a
time. `messages` is one way, flat out, eight messages a commit, as a stage publishes an ordinary event (rigtorp's queue
cannot; the Python queues go in batches of 100); `messages_single` is the same with a commit for every message. Both
are the best of 10 windows, since others on the machine can only slow a window down; all are medians of the rounds.

On a shared host two virtual CPUs are now siblings, now far apart, so the compiled cases take short turns, and
`…_ratio` is the median of ours over the peer's in the same turn: the goals are about these.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faster_fifo
import numpy as np
from report import Report, interleaved

from shrivenq.shm import ring, wait
from shrivenq.shm.clock import monotonic_ns
from shrivenq.shm.kernel import inlined, kernel

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, PYTHON_ROUNDS = 41, 5
SLOTS = 1024
EVENT = 8  # ring.cpp has the same
WINDOWS = 10
TRIPS, WINDOW = 20_000, 80_000  # compiled cases
PYTHON_TRIPS, PYTHON_WINDOW, BATCH = 1_000, 1_000, 100
MESSAGE = np.dtype([("words", "<i8", (8,))], align=True)
PACKED = struct.Struct("<8q")

CPUS = sorted(os.sched_getaffinity(0))
HERE, THERE = CPUS[0], CPUS[-1]
WAIT = wait.SPIN if len(CPUS) > 1 else wait.YIELD

Figures = dict[str, float]


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def claim(out: Any, count: int, waiting: int) -> None:
    """Wait until `count` slots are free."""
    while not ring.claim(out, count):
        wait.idle(waiting)


@inlined
def put(out: Any, ahead: int, sequence: int) -> None:
    """Write one message, all eight words."""
    words = out.slots[ring.slot_ahead(out, ahead)]["words"]
    for k in range(8):
        words[k] = sequence


@inlined
def send(out: Any, sequence: int, waiting: int) -> None:
    """Publish one message."""
    claim(out, 1, waiting)
    put(out, 0, sequence)
    ring.commit(out, 1)


@inlined
def difference(inbox: Any, index: int, sequence: int) -> int:
    """Check all eight words: 0 if they are right."""
    words = inbox.slots[index]["words"]
    found = 0
    for k in range(8):
        found |= words[k] ^ sequence
    return found


@inlined
def receive(inbox: Any, sequence: int, waiting: int, bad: Any) -> int:
    """Check whatever waits, release it at once, return how many."""
    count = ring.available(inbox)
    if count == 0:
        wait.idle(waiting)
        return 0
    for ahead in range(count):
        if difference(inbox, ring.slot_at(inbox, ahead), sequence + ahead) != 0:
            bad[0] += 1
            break  # without a way out of the loop it is vectorised across messages: gathers, slower than one by one
    ring.release(inbox, count)
    return count


@kernel
def echo(inbox: Any, out: Any, trips: int, waiting: int, bad: Any) -> None:
    """Answer every message."""
    for sequence in range(trips):
        while receive(inbox, sequence, waiting, bad) == 0:
            pass
        send(out, sequence + 1, waiting)


@kernel
def round_trips(out: Any, inbox: Any, took: Any, waiting: int, bad: Any) -> None:
    """Send and await each answer; `took` gets each round trip in ns."""
    before = monotonic_ns()
    for sequence in range(took.shape[0]):
        send(out, sequence, waiting)
        while receive(inbox, sequence + 1, waiting, bad) == 0:
            pass
        after = monotonic_ns()
        took[sequence] = after - before
        before = after


@kernel
def flood(out: Any, messages: int, waiting: int) -> None:
    """Send flat out, a commit for every message."""
    for sequence in range(messages):
        send(out, sequence, waiting)


@kernel
def flood_events(out: Any, messages: int, waiting: int) -> None:
    """Send flat out, a commit for every EVENT messages."""
    for first in range(0, messages, EVENT):
        claim(out, EVENT, waiting)
        for ahead in range(EVENT):
            put(out, ahead, first + ahead)
        ring.commit(out, EVENT)


@kernel
def drain(inbox: Any, windows: int, window: int, waiting: int, bad: Any) -> float:
    """Receive all of a flood; messages per second in the best window."""
    best = 0.0
    done = 0
    for number in range(1, windows + 1):
        first = done
        start = monotonic_ns()
        while done < number * window:
            done += receive(inbox, done, waiting, bad)
        best = max(best, (done - first) * 1e9 / (monotonic_ns() - start))
    return best


def shrivenq(trips: int = TRIPS, window: int = WINDOW) -> Figures:
    """Measure our ring."""
    bad = np.zeros(1, dtype=np.int64)
    names = [f"shrivenq.bench.{os.getpid()}.{name}" for name in ("out", "back", "singles", "events")]
    segments = [ring.create(name, MESSAGE, SLOTS) for name in names]
    try:
        out = segments[0]

        def there() -> bool:
            inbox, answers, one_by_one, by_event = ring.consumer(out), *map(ring.producer, segments[1:])
            for one in segments:
                one.lock()
            echo(inbox, answers, trips, WAIT, bad)
            flood(one_by_one, WINDOWS * window, WAIT)
            flood_events(by_event, WINDOWS * window, WAIT)
            return bool(bad[0] == 0)

        child = forked(there)
        outbox, answers, one_by_one, by_event = ring.producer(out), *map(ring.consumer, segments[1:])
        for one in segments:
            one.lock()
        took = np.full(trips, -1, dtype=np.int64)  # made after the fork: no page of it is copied on write
        round_trips(outbox, answers, took, WAIT, bad)
        single = drain(one_by_one, WINDOWS, window, WAIT, bad)
        event = drain(by_event, WINDOWS, window, WAIT, bad)
        reap(child, good=bool(bad[0] == 0))
    finally:
        for one in segments:
            one.unlink()
            one.close()
    return {**percentiles(took), "messages_single": single, "messages": event}


# ── C++ ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def compiled_peers(folder: Path) -> Path:
    """Compile ring.cpp. Raises CalledProcessError if it does not."""
    program = folder / "ring_cpp"
    source = Path(__file__).with_suffix(".cpp")
    subprocess.run(["g++", "-O3", "-march=native", "-std=c++17", "-o", program, source], check=True)
    return program


def cpp(program: Path, layout: str) -> Figures:
    """Measure one C++ layout."""
    waiting = "spin" if WAIT == wait.SPIN else "yield"
    numbers = [str(one) for one in (HERE, THERE, TRIPS, WINDOWS, WINDOW, SLOTS)]
    done = subprocess.run([program, layout, waiting, *numbers], check=True, capture_output=True, text=True)
    names = ("rtt_p50", "rtt_p99", "rtt_p999", "messages_single", "messages")
    return dict(zip(names, map(float, done.stdout.split()), strict=True))


# ── what Python offers ───────────────────────────────────────────────────────────────────────────────────────────────


def packed(sequence: int) -> bytes:
    """Write eight words."""
    return PACKED.pack(*(sequence,) * 8)


def right(message: bytes, sequence: int) -> bool:
    """Check eight words."""
    return PACKED.unpack(message) == (sequence,) * 8


def spinning_get(inbox: Any, count: int) -> list[bytes]:
    """Take up to `count` messages from a faster-fifo queue, spinning until there are some."""
    while True:
        try:
            found: list[bytes] = inbox.get_many(block=False, max_messages_to_get=count)
        except queue.Empty:
            continue
        return found


def spinning_put(out: Any, messages: list[bytes]) -> None:
    """Put messages into a faster-fifo queue, spinning while it is full."""
    while True:
        try:
            out.put_many(messages, block=False)
        except queue.Full:
            continue
        return


def python_peer(
    put: Callable[[Any, list[bytes]], None], get: Callable[[Any, int], list[bytes]], ends: tuple[Any, Any, Any, Any]
) -> Figures:
    """Measure a Python queue: `ends` are where to send here, receive there, send there, receive here."""
    outbox, there_in, there_out, inbox = ends
    good = True

    def there() -> bool:
        good = True
        for sequence in range(PYTHON_TRIPS):
            good &= right(get(there_in, 1)[0], sequence)
            put(there_out, [packed(sequence + 1)])
        for sequence in range(0, WINDOWS * PYTHON_WINDOW, BATCH):
            put(there_out, [packed(one) for one in range(sequence, sequence + BATCH)])
        return good

    child = forked(there)
    took = np.full(PYTHON_TRIPS, -1, dtype=np.int64)
    before = time.monotonic_ns()
    for sequence in range(PYTHON_TRIPS):
        put(outbox, [packed(sequence)])
        good &= right(get(inbox, 1)[0], sequence + 1)
        after = time.monotonic_ns()
        took[sequence] = after - before
        before = after
    done, rate = 0, 0.0
    for number in range(1, WINDOWS + 1):
        first, start = done, time.monotonic_ns()
        while done < number * PYTHON_WINDOW:
            for message in get(inbox, BATCH):
                good &= right(message, done)
                done += 1
        rate = max(rate, (done - first) * 1e9 / (time.monotonic_ns() - start))
    reap(child, good=good)
    return {**percentiles(took), "messages": rate}


def faster_fifo_peer() -> Figures:
    """Measure faster-fifo, spinning, without pickle."""
    out, back = (faster_fifo.Queue(SLOTS * 96, loads=bytes, dumps=bytes) for _ in range(2))
    return python_peer(spinning_put, spinning_get, (out, out, back, back))


def pipe_peer() -> Figures:
    """Measure multiprocessing.Pipe, blocking."""
    here, there = multiprocessing.Pipe()

    def put(out: Any, messages: list[bytes]) -> None:
        for message in messages:
            out.send_bytes(message)

    def get(inbox: Any, _count: int) -> list[bytes]:
        return [inbox.recv_bytes()]

    try:
        return python_peer(put, get, (here, there, there, here))
    finally:
        here.close()
        there.close()


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def forked(call: Callable[[], bool]) -> int:
    """Run `call` in a child on the other CPU; its exit status is 0 if that returns True."""
    pid = os.fork()
    if pid:
        os.sched_setaffinity(0, {HERE})
        return pid
    try:
        os.sched_setaffinity(0, {THERE})
        os._exit(0 if call() else 1)
    finally:
        os._exit(2)


def reap(child: int, *, good: bool) -> None:
    """Wait for the child. Raises RuntimeError if a message arrived damaged at either side."""
    _, status = os.waitpid(child, 0)
    if status or not good:
        raise RuntimeError("a message arrived damaged")


def percentiles(took: Any) -> Figures:
    """Name the percentiles of round trips."""
    p50, p99, p999 = np.percentile(took, (50, 99, 99.9), method="lower")
    return {"rtt_p50": float(p50), "rtt_p99": float(p99), "rtt_p999": float(p999)}


def main() -> None:
    """Measure all cases, interleaved, and print the medians."""
    report = Report("ring")
    shrivenq(100, 1_000)  # compiles
    cases: dict[str, Callable[[], Figures]] = {"shrivenq": shrivenq}
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("g++"):
            program = compiled_peers(Path(folder))
            cases["cpp_same"] = partial(cpp, program, "same")
            cases["cpp_rigtorp"] = partial(cpp, program, "rigtorp")
        else:
            report.skip("cpp_same", "g++ is not installed")
            report.skip("cpp_rigtorp", "g++ is not installed")
        rounds = interleaved(ROUNDS, cases, list)
    rounds |= interleaved(PYTHON_ROUNDS, {"faster-fifo": faster_fifo_peer, "pipe": pipe_peer}, list)
    for case, figures in rounds.items():
        for figure, values in figures.items():
            unit = "1/s" if figure.startswith("messages") else "ns"
            report.row(case, figure, unit, statistics.median(values))
    for peer in cases:
        for figure in ("rtt_p50", "messages") if peer != "shrivenq" else ():
            pairs = zip(rounds["shrivenq"][figure], rounds[peer][figure], strict=True)
            report.row(peer, f"{figure}_ratio", "ours/peer", statistics.median(ours / theirs for ours, theirs in pairs))


if __name__ == "__main__":
    main()
