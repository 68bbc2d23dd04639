"""Capture: recorded frames, read back from files.

A capture is lines of `<receive ns> <payload>` (docs/capture-format.md), plain, gzip or zstd, in one file or in a folder
whose files are read in name order. Binary frames are written in base64. It is streamed: whatever its length, memory
holds one buffer of it.

A capture that cannot be read on is an error of one line. What is damaged inside, a line that is none or one longer than
LINE_MAX, becomes a frame flagged LOST: the book must not go on as if nothing had been there.
"""

from __future__ import annotations

import gzip
import zlib
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages.frames import BINARY, COUNT, ENDED, LOST, TAKEN, TEXT, USED, Frames
from shrivenq.stages.venues.text import PADDING, POWERS, before, digits, load, matches, store, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_MAX = 4 << 20
"""Longest line, in bytes; a venue's largest snapshot is a tenth of it."""

BLOCK = 1 << 20  # bytes handed on at a time
COMPRESSED_BLOCK = 1 << 12  # zstd: small, because a hostile block grows 30,000-fold

BACK_NS = 1_000_000_000
"""A receive time may go back this far (the clock was set); it is then held. Further is damage."""

AHEAD_NS = 86_400_000_000_000
"""A receive time may go ahead this far from one line to the next of a file."""

TIME_MAX = 9_223_372_036_854_775
"""The first 16 digits of a 19-digit time must be less, so that it fits in int64."""

# Words of the reader's state.
START, STOP, LINE, LAST_NS, PREVIOUS_NS, SKIPPING, DAMAGED, DAMAGED_LINE = range(8)

# What `split` stopped for.
MORE, FULL, NOT_A_CAPTURE, WENT_BACK = range(4)

NEWLINE, SPACE, EQUALS, AT = 10, 32, ord("="), ord("@")

STAMP_MAX = 40
"""Longest raw stamp behind a receive time, `@` included."""

MARK = b"base64:"
"""What a payload begins with that stands for a binary frame; no JSON text does."""

DIGITS = np.full(256, -1, np.int64)
"""Value of each character of base64 (RFC 4648, section 4), -1 for any other."""
DIGITS[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")] = range(64)


class CaptureError(Exception):
    """A capture that cannot be read; its text is one line: file, line, what was found and expected."""


def format_line(time_ns: int, payload: bytes, kind: int = TEXT, stamp: bytes = b"") -> bytes:
    """Spell one line of a capture: the receive time (ns since 1970) and the frame as it came, BINARY or TEXT.

    `stamp` is what the kernel or the network card said of its arrival, `@CLOCK:ns`; nothing reads it back.

    Text without a byte says that frames are missing here. A newline in JSON is white space; it becomes a blank. Text
    that looks like a binary frame, which JSON never does, gets a blank in front.
    """
    if kind == BINARY:
        return b"%d%s %s%s\n" % (time_ns, stamp, MARK, b64encode(payload))
    blank = b" " if payload.startswith(MARK) else b""
    return b"%d%s %s%s\n" % (time_ns, stamp, blank, payload.replace(b"\n", b" "))


@inlined
def _newline(buffer: Any, start: int, stop: int) -> int:
    """Find the first newline in `buffer[start:stop]`; `stop` if there is none. Reads up to 7 bytes more."""
    for at in range(start, stop, 8):
        count = before(load(buffer, at), NEWLINE)
        if count < 8:
            return min(at + count, stop)
    return stop


@inlined
def _receive_time(buffer: Any, start: int) -> tuple[int, int]:
    """Read the receive time; return it and where the payload begins, (0, -1) if it is none. Reads 60 bytes."""
    at, time_ns = start, 0
    for _ in range(2):
        word = load(buffer, at)
        count = digits(word)
        time_ns = time_ns * POWERS[count] + whole(word, count)
        at += count
        if count < 8:
            break
    if at == start + 16:
        word = load(buffer, at)
        count = digits(word)
        if count > 3 or (count == 3 and time_ns >= TIME_MAX):
            return 0, -1
        time_ns = time_ns * POWERS[count] + whole(word, count)
        at += count
    if at != start and buffer[at] == AT:
        longest = at + STAMP_MAX
        while at < longest and buffer[at] != SPACE:
            at += 1
    if at == start or buffer[at] != SPACE:
        return 0, -1
    return time_ns, at + 1


@inlined
def _add(frames: Frames, time_ns: int, length: int, flags: int) -> None:
    index = frames.words[COUNT]
    frames.index[index]["time_ns"] = time_ns
    frames.index[index]["wire_ns"] = 0
    frames.index[index]["offset"] = frames.words[USED]
    frames.index[index]["length"] = length
    frames.index[index]["flags"] = flags
    frames.words[USED] += length
    frames.words[COUNT] = index + 1


@inlined
def _add_damaged(frames: Frames, state: Any) -> None:
    if state[DAMAGED] == 0:
        state[DAMAGED_LINE] = state[LINE]
    state[DAMAGED] += 1
    _add(frames, state[LAST_NS], 0, LOST)


@kernel
def _unpack(buffer: Any, start: int, stop: int, target: Any, used: int) -> int:
    """Decode the base64 text `buffer[start:stop]` into `target` from `used` on; return its bytes, -1 if it is none.

    `target` has room for three bytes for every four characters. Only what `b64encode` writes is accepted.
    """
    if (stop - start) & 3 != 0:
        return -1
    at = used
    for quad in range(start, stop, 4):
        padding = 0
        if quad + 4 == stop and buffer[stop - 1] == EQUALS:
            padding = 2 if buffer[stop - 2] == EQUALS else 1
        bits = 0
        for place in range(4 - padding):
            bits = bits << 6 | DIGITS[buffer[quad + place]]
        bits <<= 6 * padding
        # A character that is none makes all bits ones above its own: the number is negative.
        if bits < 0 or bits & ((1 << 8 * padding) - 1) != 0:
            return -1
        target[at] = bits >> 16
        target[at + 1] = (bits >> 8) & 0xFF
        target[at + 2] = bits & 0xFF
        at += 3 - padding
    return at - used


@inlined
def _take(buffer: Any, stop: int, state: Any, frames: Frames) -> int:
    """Make a frame of the line `buffer[state[START]:stop]`; return MORE, or what stands in the way."""
    room = len(frames.data) - PADDING
    time_ns, payload = _receive_time(buffer, state[START])
    is_first = state[LINE] == 0
    if payload < 0 or payload > stop:
        if is_first:
            return NOT_A_CAPTURE
        state[LINE] += 1
        _add_damaged(frames, state)
        return MORE
    is_back = time_ns < state[PREVIOUS_NS] - BACK_NS
    if is_first and is_back:
        return WENT_BACK
    length = stop - payload
    is_binary = length >= len(MARK) and matches(buffer, payload, "base64:")
    if is_binary:
        payload += len(MARK)
        length = (stop - payload) // 4 * 3
    if frames.words[USED] + length > room and frames.words[COUNT] > 0:
        return FULL
    is_ahead = not is_first and time_ns > state[PREVIOUS_NS] + AHEAD_NS
    state[LINE] += 1
    state[PREVIOUS_NS] = time_ns
    if is_back or is_ahead or length > room:
        _add_damaged(frames, state)
        return MORE
    used = frames.words[USED]
    if is_binary:
        length = _unpack(buffer, payload, stop, frames.data, used)
        if length < 0:
            _add_damaged(frames, state)
            return MORE
    else:
        for at in range(0, length, 8):  # the last word may reach into the padding
            store(frames.data, used + at, load(buffer, payload + at))
    state[LAST_NS] = max(state[LAST_NS], time_ns)
    _add(frames, state[LAST_NS], length, BINARY if is_binary else TEXT if length > 0 else LOST)
    return MORE


@kernel
def split(buffer: Any, state: Any, frames: Frames, is_end: bool) -> int:
    """Move whole lines from `buffer[START:STOP]` to `frames`; return why it stopped.

    `is_end`: no bytes of this file follow, so that the rest is a line too.
    """
    while frames.words[COUNT] < len(frames.index):
        start, end = state[START], state[STOP]
        stop = _newline(buffer, start, end)
        if stop == end and not is_end:
            if end - start > LINE_MAX:
                state[SKIPPING] = 1
            if state[SKIPPING] != 0:
                state[START] = end
            return MORE
        if start == end and state[SKIPPING] == 0:
            return MORE
        if state[SKIPPING] != 0 or stop - start > LINE_MAX:
            state[SKIPPING] = 0
            state[LINE] += 1
            _add_damaged(frames, state)
        else:
            answer = _take(buffer, stop, state, frames)
            if answer != MORE:
                return answer
        state[START] = min(stop + 1, end)
    return FULL


def _files(path: Path) -> list[Path]:
    """List the files of a capture. Raises CaptureError if there is none."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            raise CaptureError(f"{path}: a folder without files, captures expected")
        return files
    if not path.is_file():
        raise CaptureError(f"{path}: no such file")
    return [path]


def _blocks(path: Path) -> Iterator[bytes]:
    """Read a file, decompressed as its first bytes say, at most BLOCK bytes at a time."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as lines:
                while block := lines.read(BLOCK):
                    yield block
        elif magic == b"\x28\xb5\x2f\xfd":
            yield from _zstd_blocks(file)
        else:
            while block := file.read(BLOCK):
                yield block


def _zstd_blocks(file: Any) -> Iterator[bytes]:
    """Decompress zstd frames one behind the other. Raises EOFError if the last is cut short."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    rest = b""
    while compressed := rest or file.read(COMPRESSED_BLOCK):
        if decompressor.eof:
            decompressor = zstandard.ZstdDecompressor().decompressobj()
        text = decompressor.decompress(compressed)
        rest = decompressor.unused_data
        for at in range(0, len(text), BLOCK):
            yield text[at : at + BLOCK]
    if not decompressor.eof:
        raise EOFError


class Capture:
    """A source of frames: a capture file, or a folder of them in name order.

    `damaged` counts lines that became LOST, `damage` says in one line what the first was ("" for none).
    Raises CaptureError if there is no such file or the folder is empty.
    """

    eager = True
    """More can be had at any time."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._waiting = _files(self._path)
        self._file = self._before = self._waiting[0]
        self._blocks: Iterator[bytes] | None = None
        self._is_end = True  # of the file in hand
        self._buffer = np.zeros(LINE_MAX + 2 * BLOCK + PADDING, np.uint8)
        self._state = np.zeros(8, np.int64)
        self._lines = 0  # of the files before
        self._error: CaptureError | None = None
        self.damage = ""

    @property
    def damaged(self) -> int:
        """Count the lines that were replaced by LOST."""
        return int(self._state[DAMAGED])

    def request_snapshot(self, instrument: int) -> None:
        """Do nothing: a capture holds the snapshots it holds."""

    def fill(self, frames: Frames) -> None:
        """Put as many of the next lines into `frames` as fit, from its beginning; set ENDED when there are no more.

        Raises CaptureError where the capture cannot be read on, once all frames before that were handed out.
        """
        words = frames.words
        words[COUNT] = words[TAKEN] = words[USED] = 0
        try:
            if self._error is None:
                self._fill(frames)
        except CaptureError as error:
            self._error = error
        if self._error is not None and words[COUNT] == 0:
            raise self._error

    def _fill(self, frames: Frames) -> None:
        while True:
            answer = split(self._buffer, self._state, frames, self._is_end)
            self._note_damage()
            if answer == FULL:
                return
            if answer == NOT_A_CAPTURE:
                start = int(self._state[START])
                found = self._buffer[start : start + 30].tobytes().partition(b"\n")[0]
                raise CaptureError(f"{self._file}: line 1 begins {found!r}: '<receive ns> <payload>' expected")
            if answer == WENT_BACK:
                raise CaptureError(
                    f"{self._file}: line 1 was received before the end of {self._before.name}: files in order of time "
                    f"expected, by name"
                )
            if self._is_end and not self._next_file():
                if self._lines == 0:
                    raise CaptureError(f"{self._path}: not one line in it")
                frames.words[ENDED] = 1
                return
            self._read()

    def _note_damage(self) -> None:
        if self._state[DAMAGED] and not self.damage:
            self.damage = (
                f"{self._file}: line {self._state[DAMAGED_LINE]}: damaged, '<receive ns> <payload>' of at most "
                f"{LINE_MAX} bytes and a time near the last one expected"
            )

    def _next_file(self) -> bool:
        self._lines += int(self._state[LINE])
        if not self._waiting:
            self._state[LINE] = 0
            return False
        self._before, self._file = self._file, self._waiting.pop(0)
        self._blocks = _blocks(self._file)
        self._state[START] = self._state[STOP] = self._state[LINE] = 0
        self._is_end = False
        return True

    def _read(self) -> None:
        """Append the next block of the file to the buffer, behind the part of a line that is left there."""
        assert self._blocks is not None
        try:
            block = next(self._blocks, b"")
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            reason = "ends too early" if isinstance(error, EOFError) else f"is damaged ({error})"
            raise CaptureError(f"{self._file}: the compressed data {reason} after line {self._state[LINE]}") from error
        except OSError as error:
            raise CaptureError(f"{self._file}: cannot be read: {error.strerror}") from error
        self._is_end = not block
        start, stop = int(self._state[START]), int(self._state[STOP])
        if stop + len(block) > len(self._buffer) - PADDING:
            self._buffer[: stop - start] = self._buffer[start:stop].copy()
            start, stop = 0, stop - start
        self._buffer[stop : stop + len(block)] = np.frombuffer(block, np.uint8)
        self._state[START], self._state[STOP] = start, stop + len(block)
