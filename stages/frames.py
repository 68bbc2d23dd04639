"""Frames: raw venue messages in memory, waiting to be decoded.

Every source of market data (a capture, the simulated market, a socket) fills the same thing: a byte buffer, and an
index that says where each frame lies and when it was received. Decoders and the recorder read it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from shrivenq.shm.context import by_reference

COUNT = 0  # frames in the index
TAKEN = 1  # of those, frames already decoded
USED = 2  # bytes of `data` in use
ENDED = 3  # 1 when the source has nothing more, ever

FRAME = np.dtype(
    [
        ("time_ns", "<i8"),  # ns since 1970: when it was received
        ("wire_ns", "<i8"),  # stamp: last byte in memory, CLOCK_MONOTONIC; 0 where the source did not take one
        ("offset", "<i8"),  # of its first byte in `data`
        ("length", "<i4"),  # bytes
        ("flags", "<i4"),  # TEXT, BINARY or LOST
        ("raw_ns", "<i8"),  # when its last packet came in, as that was said, 0 for not at all …
        ("clock", "<i8"),  # … by this clock: index into CLOCKS
    ],
    align=True,
)
CLOCKS = ("none", "CLOCK_REALTIME", "hardware")
"""Names of the clocks of raw receive stamps: none, the kernel's, the network card's own."""
TEXT, LOST, BINARY = 1, 2, 4
"""What a frame is: the venue's JSON; nothing, because what should be here is damaged or missing; the venue's SBE."""
STAMPED = 8
"""On the way to the recorder: `raw_ns` and `clock` stand in front of the frame."""
STAMP_BYTES = 16
"""Length of those."""


@by_reference
class Frames(NamedTuple):
    """Bytes, their index, and the words above."""

    data: Any  # uint8
    index: Any  # FRAME
    words: Any  # int64, 16 of them


def make_frames(size: int, count: int) -> Frames:
    """Allocate room for `size` bytes and `count` frames."""
    return Frames(np.zeros(size, np.uint8), np.zeros(count, FRAME), np.zeros(16, np.int64))


class Source(Protocol):
    """Whatever fills frames: sets COUNT, TAKEN and USED anew, and ENDED when there will be nothing more."""

    eager: bool
    damage: str
    """What was first found damaged, in one line; empty for nothing."""

    def fill(self, frames: Frames) -> None:
        """Put the next frames into the buffer, from its beginning."""

    def request_snapshot(self, instrument: int) -> None:
        """Bring a fresh snapshot of an instrument, where the source can."""
