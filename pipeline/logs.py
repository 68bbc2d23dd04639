"""Logs: structlog in every process → one writer process → JSON lines in a file, readable lines on a terminal.

    a stage      log.info(…) ─▶ a bounded list ─▶ side thread ─▶ faster-fifo queue ─┐
    another …                                                    its own queue ─────┼─▶ writer ─▶ log.jsonl, terminal
    the supervisor ──────────────────────────────────────────────────────────── log.jsonl, terminal

Logging never blocks a stage: a full list drops lines, counted and reported. faster-fifo's mutex is not robust: whoever
is killed while holding it hangs the other end for good. So each process has a queue of its own and touches it in a
side thread only, the writer reads each in a thread of its own, and a queue whose other end has died is abandoned.
`qsize`, `full` and `empty` take that mutex without releasing the interpreter: nobody calls them.

The supervisor outlives everybody and forks, which threads do not survive: it writes its lines itself, each with a
single O_APPEND write, so that lines never mix.

What must not be logged is wrapped in `Secret`: it is redacted by its type, wherever in a record it hides.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, SimpleQueue
from typing import TYPE_CHECKING, Any

import faster_fifo
import msgspec
import numpy as np
import structlog

from shrivenq.pipeline import placement, processes, state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping, Sequence

    from shrivenq.pipeline.config import Config

QUEUE_BYTES = 1 << 16
QUEUE_COUNT = 64
"""Processes a session can have; later ones write to the file themselves."""
WAITING_MAX = 1_000
"""Lines a process keeps for its side thread; more are dropped."""
LINE_BYTES = 8_000
"""Longest line; a longer one is replaced by its beginning."""
QUEUE_WAIT_S = 0.25
END_S = 2.0
"""How long the writer empties queues at the end; one that takes longer is stuck."""
GRACE_S = 0.05
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REDACTED = "***"
COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m"}


class Secret:
    """A value that no log, message or traceback shows; `reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the value."""
        return self._value

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return REDACTED

    def __reduce__(self) -> str:
        raise TypeError("a secret is never pickled")


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does; a Secret into three stars."""
    if isinstance(value, Secret):
        return REDACTED
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def to_line(record: dict[str, Any]) -> bytes:
    """Write a record as one JSON line, newline included."""
    try:
        line = _encode(record)
    except (TypeError, ValueError, RecursionError) as error:
        line = _encode({**_core(record), "unprintable": str(error)})
    if len(line) > LINE_BYTES:
        line = _encode({**_core(record), "cut": line[: LINE_BYTES // 4].decode("utf-8", "replace")})
    return line + b"\n"


def _core(record: dict[str, Any]) -> dict[str, Any]:
    core = {key: record.get(key, "") for key in ("time", "level", "process")}
    return {**core, "event": str(record.get("event", ""))[: LINE_BYTES // 8]}


def readable(line: bytes, *, colour: bool) -> str:
    """Make a JSON line pleasant to read: time, level, process, event, the rest as key=value."""
    try:
        record = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line.decode("utf-8", "replace").rstrip()
    moment, level = str(record.pop("time", ""))[11:23], str(record.pop("level", ""))
    head = f"{moment} {level:<7} {record.pop('process', '')!s:<11} {record.pop('event', '')}"
    rest = " ".join(f"{key}={_encode(value).decode()}" for key, value in record.items())
    text = f"{head}  {rest}" if rest else head
    # A control character in somebody's text must not reach the terminal.
    text = "".join(character if character.isprintable() else "�" for character in text)
    return f"{COLOURS[level]}{text}\x1b[0m" if colour and level in COLOURS else text


@dataclass
class Output:
    """The file and the terminal; a file that cannot be written is said once, on the terminal."""

    path: Path | None
    terminal: bool
    _descriptor: int = -1
    _failed: bool = False

    def write(self, line: bytes) -> None:
        """Write one JSON line."""
        if self.path is not None and not self._failed:
            try:
                if self._descriptor < 0:
                    self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.write(self._descriptor, line)
            except OSError as error:
                self._failed = True
                print(f"{self.path}: the log cannot be written: {error.strerror}", file=sys.stderr)
        if self.terminal:
            with contextlib.suppress(OSError, ValueError):
                print(readable(line, colour=sys.stderr.isatty()), file=sys.stderr, flush=True)


class Sender:
    """A process's end of its queue: takes lines without blocking, hands them over in a side thread."""

    def __init__(self, queue: Any, cpus: set[int] | None = None) -> None:
        self.queue = queue
        self.cpus = cpus
        self.waiting: deque[bytes] = deque()
        self.dropped = 0
        self._reported = 0
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take a line, or count it as dropped."""
        if len(self.waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        self.waiting.append(line)
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait until everything was handed over; False if it was not by then."""
        deadline = time.monotonic() + seconds
        # A line leaves `waiting` only once it was sent.
        while self.waiting and time.monotonic() < deadline:
            time.sleep(0.001)
        return not self.waiting

    def _run(self) -> None:
        # The stage may be pinned and SCHED_FIFO; the thread is neither.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if self.cpus:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self.cpus)
        while True:
            self._wake.wait()
            self._wake.clear()
            while self.waiting:
                self._send(self.waiting[0])
                self.waiting.popleft()
            dropped = self.dropped - self._reported
            if dropped:
                self._send(to_line(_stamped("logs", "warning", {"event": "log lines dropped", "count": dropped})))
                self._reported += dropped

    def _send(self, line: bytes) -> None:
        while True:
            try:
                self.queue.put(line, timeout=QUEUE_WAIT_S)
            except Full:
                continue
            return


def make_queue() -> Any:
    """Make a queue for one process; what goes through it is bytes, never a pickle."""
    return faster_fifo.Queue(QUEUE_BYTES, loads=bytes, dumps=bytes)


@dataclass
class LogWriter:
    """The writer process: reads every queue, writes file and terminal."""

    queues: Sequence[Any]
    path: Path | None
    terminal: bool
    _lines: SimpleQueue[bytes] = field(default_factory=SimpleQueue)  # an empty one is the end

    def run(self, until: int | None = None) -> int:
        """Write until the last process that has the other end of the pipe `until` is gone; return 0."""
        output = Output(self.path, self.terminal)
        for queue in self.queues:
            threading.Thread(target=self._read, args=(queue,), daemon=True).start()
        if until is not None:
            threading.Thread(target=self._wait_for_end, args=(until,), daemon=True).start()
        while line := self._lines.get():
            output.write(line)
        return 0

    def _wait_for_end(self, until: int) -> None:
        os.read(until, 1)
        enders = [threading.Thread(target=self._empty, args=(queue,), daemon=True) for queue in self.queues]
        for ender in enders:
            ender.start()
        deadline = time.monotonic() + END_S
        for ender in enders:
            ender.join(max(0.0, deadline - time.monotonic()))
        # What a reader has just taken arrives within a moment.
        time.sleep(GRACE_S)
        self._lines.put(b"")

    def _empty(self, queue: Any) -> None:
        """Take what a queue still holds, now that nobody writes to it."""
        with contextlib.suppress(Empty):
            while True:
                self._put(queue.get_many_nowait())

    def _put(self, found: list[bytes]) -> None:
        for line in found:
            self._lines.put(line)

    def _read(self, queue: Any) -> None:
        """Read one queue for good; if its other end died holding the mutex, this thread never returns, alone."""
        while True:
            try:
                self._put(queue.get_many(timeout=3600.0))
            except Empty:
                continue


def _stamped(process: str, level: str, record: Mapping[str, Any]) -> dict[str, Any]:
    moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"time": moment, "level": level, "process": process, **record}


@dataclass
class _Local:
    """Where this process's lines go."""

    process: str
    sink: Any  # Output or Sender


_local: _Local | None = None
_spare: list[Any] = []  # queues for children to come
_next = 0
_direct: Output | None = None
_cpus: set[int] = set()
_hooked = False


def configure(queue: Any, process_name: str, level: str = "info") -> None:
    """Send this process's log through `queue`, or, for an Output, straight to it."""
    global _local
    sink = queue if isinstance(queue, Output) else Sender(queue, _cpus)
    _local = _Local(process_name, sink)
    structlog.configure(
        processors=[_finish],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_Logger,
        cache_logger_on_first_use=False,
    )


class _Logger:
    """What structlog calls with the finished line."""

    def __init__(self, *arguments: Any) -> None:
        """Take what structlog gives every logger."""

    def msg(self, line: bytes) -> None:
        local = _attached()
        if local is not None:
            local.sink.write(line)

    debug = info = warning = error = critical = msg


def _finish(logger: Any, level: str, record: MutableMapping[str, Any]) -> tuple[tuple[bytes], dict[str, Any]]:
    """Make the line: the last of structlog's processors."""
    local = _attached()
    failure = record.pop("exc_info", None)
    if failure:
        error = sys.exc_info()[1] if failure is True else failure
        record["exception"] = f"{type(error).__name__}: {error}"
    return (to_line(_stamped(local.process if local else "", level, record)),), {}


def _attached() -> _Local | None:
    """Find this process's sink; in a child that has none yet, take the queue that was set aside for it."""
    global _local
    if _local is None and _direct is not None:
        name = Path("/proc/self/comm").read_text().strip().removeprefix("sq-")
        index = _next - 1
        _local = _Local(name, Sender(_spare[index], _cpus) if index < len(_spare) else _direct)
    return _local


def _before_fork() -> None:
    global _next
    _next += 1


def _after_fork_in_child() -> None:
    global _local
    # The parent's sink is not ours: its thread did not survive the fork.
    _local = None


def flush(seconds: float = 1.0) -> bool:
    """Wait until this process's lines have been handed over; a process that ends by `os._exit` calls it first."""
    return _local is None or isinstance(_local.sink, Output) or bool(_local.sink.flush(seconds))


processes.AT_EXIT.append(flush)


@contextlib.contextmanager
def session(config: Config) -> Iterator[Any]:
    """Start the writer, and log from this process and every child it forks; yield the logger."""
    global _direct, _spare, _next, _cpus, _hooked, _local
    path = Path(config.logs.path) if config.logs.path else state.make_folder(config.name) / "log.jsonl"
    _cpus = os.sched_getaffinity(0)
    queues = [make_queue() for _ in range(QUEUE_COUNT)]
    reading, writing = os.pipe()

    def target() -> int:
        os.close(writing)
        placement.apply_side()
        return LogWriter(queues, path, config.logs.terminal).run(reading)

    child = processes.start("logs", target)
    os.close(reading)
    _direct, _spare, _next = Output(path, config.logs.terminal), queues, 0
    configure(_direct, "supervisor", config.logs.level)
    if not _hooked:
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
        _hooked = True
    try:
        yield structlog.get_logger()
    finally:
        # Children that are still alive keep the pipe open; the writer ends with the last of them.
        os.close(writing)
        child.wait(2.0)
        _direct, _spare, _local = None, [], None
        structlog.reset_defaults()
