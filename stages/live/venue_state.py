"""What the live venue knows: its configuration, its context, and the words it and its Python edge share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.stages.frames import Frames
from shrivenq.stages.id_map import Recent
from shrivenq.stages.live.receive import Receiver
from shrivenq.stages.token_bucket import Buckets, make_buckets
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import fix
from shrivenq.stages.venues.answers import Answers

Text = Annotated[str, msgspec.Meta(max_length=200)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[live_venue]`: where orders go in mode live, and with which key."""

    environment: Literal["simulator", "testnet", "production"]
    """Whose venue it is: key and address must both be of it."""
    url: Text
    """WebSocket API: `wss://ws-api.binance.com:443`, `ws://127.0.0.1:9443`; without a path."""
    order_entry: Literal["websocket_api", "fix"] = "websocket_api"
    """What orders go by. Logon, the account's events and every question go by the WebSocket API either way."""
    fix_url: Text = ""
    """FIX order entry: `tcp+tls://fix-oe.binance.com:9000`; `tcp://127.0.0.1:9000` for a simulator without TLS."""
    key: Text
    """Where the key is: `credential:NAME`, `file:PATH`, or `environment` (testnet and simulator only)."""
    authority: Text = ""
    """TLS: a file of certificates to trust instead of the system's."""
    roll_h: Annotated[float, msgspec.Meta(gt=0, le=23.9)] = 23.5
    """Another connection takes over after this long; the venue cuts it at 24 h."""


# Words of the context (int64).
READY = 0  # 1: the session is logged on and follows its account: requests may go
SENDS = 1  # 1: compiled code writes to the socket; 0: it is Python's (something of Python's is on its way)
OUT_BEGIN, OUT_END = 2, 3  # the frame in `outbox` that is not sent yet; both 0 for none
SENT = 4  # requests handed to the socket
REFUSED = 5  # orders refused here: not connected, stopped, over a limit
SCANNED = 6  # frames read by compiled code
SLOW = 7  # frames read by Python
REPEATED = 8  # reports dropped because they say nothing new
FOREIGN_OPEN = 9  # open orders of the account that are not this run's
KILLED = 10  # kill level Python was told of
ASKED_LEVEL = 11  # kill level at which open orders that are not ours were cancelled
STRANGE = 12  # 1: an order that is not this run's was accepted; the account is to be looked at again
BY_FIX = 13  # FIX or OTHER_FIX: orders go by that; 0: by the WebSocket API
LEFT = 14  # orders of earlier runs that are not settled
CLOCK_NS = 15  # the venue's clock − the stage's time
BEGAN_NS = 16  # when this process began: what another has sent, it has sent before
AWAY = 18  # what others were told of staying away, as Python last saw it
ROW = 17  # row of the receiver of the connection that requests go by
WORDS = 24

FIX, OTHER_FIX = 1, 2

NEVER_LOOKED, NO_TRADES = -2, -1
"""Anchors: which trades there were before us was never asked; there were none."""
LOOK_AFTER = 500
"""Trades of one instrument told since it was looked at, upon which it is looked at again."""
TOLD_MAX = 4_000
"""Trades told since they were looked at, upon which new orders are held until they are."""
KNOWN = 1 << 13
"""Trades remembered."""

SENT_ORDER = np.dtype(
    [
        ("generation", "<i8"),  # of the slot the rest is about
        ("sent_ns", "<i8"),  # when the order's request was made
        ("ask_ns", "<i8"),  # the gateway does not ask about it before
        ("pause_ns", "<i8"),  # between its last two questions
    ],
    align=True,
)
"""What was done about the order in a slot of the pool."""

UNSETTLED = np.dtype(
    [
        ("name", "S40"),  # client order id
        ("order_id", "<i8"),  # 0 for a row not used
        ("venue_order_id", "<i8"),  # 0 if the journal does not know it
        ("instrument", "<i8"),
        ("time_ns", "<i8"),  # when it was sent, ns since 1970; 0 if the venue has answered since
    ],
    align=True,
)
"""An order of an earlier run whose end the journal does not hold."""
UNSETTLED_MAX = 1 << 12


@by_reference
class Fix(NamedTuple):
    """A FIX connection; nothing is done with it where orders do not go by FIX."""

    session: fix.Session
    buckets: Buckets
    outbox: Any  # uint8: one message
    words: Any  # READY to SCANNED above, of this connection


FIX_NAME_LENGTH = 8
HEARTBEAT_S = 10
"""HeartBtInt: a venue that says nothing is given up after two of them."""
FIX_LIMITS = ((a.RAW, 10 * 10**9, 10_000),)
"""Messages of one connection: the venue ends it beyond that. Others it tells when asked."""


def make_fix() -> Fix:
    """Allocate what a FIX connection needs; its session is begun anew at every logon."""
    return Fix(
        session=fix.make_session("0" * FIX_NAME_LENGTH, HEARTBEAT_S),
        buckets=make_buckets(FIX_LIMITS),
        outbox=np.zeros(fix.MESSAGE_MAX, np.uint8),
        words=np.zeros(WORDS, np.int64),
    )


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
    anchors: Any  # int64, by instrument: id of the last trade up to which all were looked at
    known: Recent  # (instrument, `orders.trade_key`) of trades told
    told: Any  # int64, by instrument: trades told since they were looked at
    unsettled: Any  # UNSETTLED: orders of earlier runs
    balances: Any  # int64[currency, 2]: free and locked, as the venue last said
    ledger: Any  # int64[currency, 3]: what they should add up to, see `ledger`
    sent: Any  # SENT_ORDER, by slot of the order pool
    instruments: Any
    run: Any
    kill: Any
    hold: Any
    away: Any  # words of `away`
    fix: Fix
    other_fix: Fix  # takes over from it, and it from this one
    words: Any
