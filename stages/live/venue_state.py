"""What the live venue knows: its configuration, its context, and the words it and its Python edge share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from shrivenq.shm.context import by_reference
from shrivenq.stages.frames import Frames
from shrivenq.stages.id_map import Recent
from shrivenq.stages.live.receive import Receiver
from shrivenq.stages.token_bucket import Buckets
from shrivenq.stages.venues.answers import Answers

Text = Annotated[str, msgspec.Meta(max_length=200)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[live_venue]`: where orders go in mode live, and with which key."""

    environment: Literal["simulator", "testnet", "production"]
    """Whose venue it is: key and address must both be of it."""
    url: Text
    """WebSocket API: `wss://ws-api.binance.com:443`, `ws://127.0.0.1:9443`; without a path."""
    key: Text
    """Where the key is: `credential:NAME`, `file:PATH`, or `environment` (testnet and simulator only)."""
    authority: Text = ""
    """TLS: a file of certificates to trust instead of the system's."""
    roll_h: Annotated[float, msgspec.Meta(gt=0, le=23.9)] = 23.5
    """The connection is renewed after this long; the venue cuts it at 24 h."""


# Words of the context (int64).
READY = 0  # 1: the session is logged on and follows its account: requests may go
SENDS = 1  # 1: compiled code writes to the socket; 0: it is Python's (TLS, or something of Python's is on its way)
OUT_BEGIN, OUT_END = 2, 3  # the frame in `outbox` that is not sent yet; both 0 for none
SENT = 4  # requests handed to the socket
REFUSED = 5  # orders refused here: not connected, stopped, over a limit
SCANNED = 6  # frames read by compiled code
SLOW = 7  # frames read by Python
REPEATED = 8  # reports dropped because they say nothing new
FOREIGN_OPEN = 9  # open orders of the account that are not this run's
KILLED = 10  # kill level Python was told of
ASKED_LEVEL = 11  # kill level at which open orders that are not ours were cancelled
WORDS = 16

NEVER_LOOKED, NO_TRADES = -2, -1
"""In `trades`: what the venue's last trade is was never asked; there is none."""


@by_reference
class LiveVenue(NamedTuple):
    """Context of the stage."""

    fill_feed: Any
    to_venue: Any
    from_venue: Any
    live: Receiver
    frames: Frames
    answers: Answers
    buckets: Buckets
    reports: Any  # REPORT: those of the frame in hand
    notes: Any  # NOTE: likewise
    outbox: Any  # uint8: one frame
    masks: Any  # state of `next_mask`
    seen: Recent  # (order id, kind) of reports that are not to be repeated
    trades: Any  # int64, by instrument: id of the last trade known
    balances: Any  # int64[currency, 2]: free and locked, as the venue last said
    instruments: Any
    run: Any
    kill: Any
    hold: Any
    words: Any
