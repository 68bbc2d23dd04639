"""WebSocket frames, found in a byte buffer by compiled code (RFC 6455 section 5.2).

`read_frame` tells whole data messages, which is nearly everything a market-data server sends, from everything else:
control frames, fragments, and what no client may accept. The latter go to `websockets`' own parser, as bytes, which
decides about them (`connection`).
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import inlined

DATA, PARTIAL, OTHER = 1, 2, 3

TEXT_WHOLE, BINARY_WHOLE = 0x81, 0x82  # first byte: final, no reserved bit, opcode
FINAL, RESERVED, OPCODE = 0x80, 0x70, 0x0F
CONTROL = 0x08  # bit of every control opcode
OPCODE_BINARY, OPCODE_PONG, OPCODE_CLOSE = 0x02, 0x0A, 0x08
MASKED = 0x80
CONTROL_MAX = 125
HEADER_MAX = 10


@inlined
def _length(data: Any, at: int, size: int) -> int:
    """Read a length of `size` (2 or 8) bytes, big endian; what is beyond int64 becomes the greatest of it."""
    value = 0
    for i in range(size):
        value = (value << 8) | int(data[at + i])
        if value >= 1 << 55:
            return (1 << 63) - 1
    return value


@inlined
def read_frame(data: Any, at: int, end: int, size_max: int) -> tuple[int, int, int]:
    """Look at the frame that begins at `at`; bytes before `end` have arrived. Returns (kind, begin, stop).

    DATA: an unmasked, unfragmented text or binary message of at most `size_max` bytes, its payload `data[begin:stop]`.
    PARTIAL: more bytes are needed, up to `stop` as far as is known. OTHER: `data[begin:stop]` is one whole control
    frame or fragment; or, where the header breaks the protocol or the limit, everything that has arrived.
    """
    if end - at < 2:
        return PARTIAL, at, at + 2
    first, second = int(data[at]), int(data[at + 1])
    opcode = first & OPCODE
    known = opcode <= OPCODE_BINARY or OPCODE_CLOSE <= opcode <= OPCODE_PONG
    if not known or first & RESERVED != 0 or second & MASKED != 0:
        return OTHER, at, end
    length, begin = second, at + 2
    if second > CONTROL_MAX:
        size = 2 if second == CONTROL_MAX + 1 else 8
        if end - begin < size:
            return PARTIAL, at, begin + size
        length = _length(data, begin, size)
        begin += size
    if length > size_max or (opcode & CONTROL != 0 and (length > CONTROL_MAX or first & FINAL == 0)):
        return OTHER, at, end
    stop = begin + length
    if stop > end:
        return PARTIAL, at, stop
    if first in (TEXT_WHOLE, BINARY_WHOLE):
        return DATA, begin, stop
    return OTHER, at, stop
