"""What the compiled peer knows: its words, the depth frames, and its memory.

An edit here is not noticed by the machine code of `peer` on disk: save that file too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from harness import shared

from shrivenq.shm.context import by_reference
from shrivenq.stages.venues.text import PADDING

INBOX_BYTES = OUTBOX_BYTES = 1 << 20
ANSWERS_BYTES = 4096
"""Room the answers to one order need."""

# Words, shared with the process that measures (int64).
STATE = 0  # CONNECTING …
TASK = 1  # set from outside: IDLE …
PROBLEM = 2
MARKET, MARKET_TLS, ORDERS, ORDERS_TLS = 3, 4, 5, 6  # descriptors, and addresses of their SSL objects
UPDATE_ID = 7  # last one sent
RECEIVED = 8  # orders taken
ANSWERED = 9  # of those, answered
LAST_NUMBER = 10  # of the order id taken last
FILLED = 11  # bytes in the inbox
SAMPLES = 12  # of `rtt` that are there
FIX_SENDER = 13  # the client's name, eight characters; 0: orders come by the WebSocket API
FIX_IN, FIX_OUT = 14, 15  # numbers of the next message expected and sent
SIZE, TAKEN = 16, 17  # bytes of the answers in the outbox, and of what they answer in the inbox
WORDS = 24

CONNECTING, CONNECTED, PLAYED = 0, 1, 2
IDLE, PLAY, SERVE, LEAVE = 0, 1, 2, 3
PROBLEMS = (
    "", "a frame brought no order", "an order at another price than the new best bid", "not a whole new order",
    "an order out of its turn", "the client has closed",
)  # fmt: skip
NO_ORDER, WRONG_PRICE, NO_REQUEST, OUT_OF_TURN, CLOSED = 1, 2, 3, 4, 5

FRAME = np.dtype(
    [
        ("begin", "<i8"),  # of its WebSocket header
        ("stop", "<i8"),
        ("first", "<i8"),  # where the digits of its first and last update id are
        ("last", "<i8"),
        ("updates", "<i8"),
        ("bid", "<i8"),  # best bid after it, at eight decimals; 0: does not move it
    ],
    align=True,
)
ID_DIGITS = 12
CALM_NS = 20_000_000
"""Between two depth frames that move nothing, while nothing is timed."""
PATIENCE_NS = 10_000_000_000
"""Longest wait for an order."""

# What an answer repeats: rows of `spans`.
SYMBOL, SIDE, FORCE, PRICE, QUANTITY, CLIENT, REQUEST = 0, 1, 2, 3, 4, 5, 6
FIX_TAGS = (55, 54, 59, 44, 38, 11)


@by_reference
class Peer(NamedTuple):
    """Everything the kernels work on."""

    words: Any
    inbox: Any
    outbox: Any
    spans: Any  # int64[7, 2]: begin and end in the inbox
    data: Any  # text of the depth frames
    index: Any  # FRAME; the last one moves nothing
    rtt: Any  # int64, ns


def make_peer(data, index, samples):
    """Make a peer of depth frames, in memory that is shared with processes forked later."""
    return Peer(
        words=shared(WORDS, np.int64),
        inbox=np.zeros(INBOX_BYTES + PADDING, np.uint8),
        outbox=np.zeros(OUTBOX_BYTES + PADDING, np.uint8),
        spans=np.zeros((7, 2), np.int64),
        data=data,
        index=index,
        rtt=shared(samples, np.int64),
    )
