"""Our own limits under the venue's: how much may still be sent before the venue refuses, or bans us.

The venue counts in fixed intervals of its own clock, several at once (weight a minute, orders in 10 s and a day). A
bucket is one of them: what is used in the running interval, as the venue last reported it, and what is on its way and
not yet counted there. A request passes if it fits every bucket to a share of the venue's limit (70 %), of which a part
is kept for cancels. An answer that is long overdue does not come: its request counts as used then.

After a 429 nothing passes until the time the venue named but cancels, one at a time; after a 418 nothing at all.

Source: Binance, limits; the policy is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a

if TYPE_CHECKING:
    from collections.abc import Iterable

# Verdicts.
PASS = 0
WAIT = 1  # it does not fit our share of a limit now
THROTTLED = 2  # 429: until the venue's time has come
BANNED = 3  # 418

BUCKETS_MAX = 16
NUMBER_MAX = 10**15
SHARE_PERCENT = 70
RESERVE_PERCENT = 20
"""Of our share, kept for cancels."""
THROTTLE_NS = 60 * 10**9
"""How long a 429 lasts that does not say: the longest interval it can be about, but for the day's."""
BAN_NS = 120 * 10**9
"""How long a 418 lasts that does not say: the venue's shortest."""

AGE_NS = 5 * 10**9
"""What was on its way at two looks so far apart is not any more."""

BUCKET = np.dtype(
    [
        ("kind", "<i8"),  # answers.WEIGHT, ORDERS, RAW
        ("interval_ns", "<i8"),
        ("limit", "<i8"),  # the venue's
        ("capacity", "<i8"),  # our share of it
        ("open", "<i8"),  # of that, what is not kept for cancels
        ("used", "<i8"),  # in the running interval
        ("in_flight", "<i8"),  # sent, and not yet answered
        ("aged", "<i8"),  # of that, what was on its way when it was last looked at
        ("interval", "<i8"),  # number of the interval `used` is of
    ],
    align=True,
)

# Words.
COUNT = 0  # buckets there are
THROTTLED_NS = 1  # until when, ns since 1970
BANNED_NS = 2
CANCELS = 3  # cancels on their way
WAITS = 4  # requests that did not pass, ever
AGED_CANCELS = 5  # of the cancels, those on their way when it was last looked
LOOKED_NS = 6
WORDS = 8


@by_reference
class Buckets(NamedTuple):
    """All limits of one connection."""

    rows: Any  # BUCKET
    words: Any


def make_buckets(limits: Iterable[tuple[int, int, int]] = ()) -> Buckets:
    """Make buckets of (kind, interval in ns, limit); what the venue reports later is added."""
    buckets = Buckets(np.zeros(BUCKETS_MAX, BUCKET), np.zeros(WORDS, np.int64))
    for kind, interval_ns, limit in limits:
        report(buckets, kind, interval_ns, limit, 0, 0)
    return buckets


def read_limits(rate_limits: Any) -> list[tuple[int, int, int, int]]:
    """Read what the venue says of its limits: (kind, interval in ns, limit, used) of each.

    Raises ValueError for what is none.
    """
    found = []
    if type(rate_limits) is not list or any(type(one) is not dict for one in rate_limits):
        raise ValueError(f"rateLimits: {str(rate_limits)[:80]}: a list of objects expected")
    for one in rate_limits:
        named = [str(one.get(key)) for key in ("rateLimitType", "interval")]  # whatever it is, it can be looked up
        kind, interval_ns = a.LIMITS.get(named[0]), a.INTERVALS_NS.get(named[1])
        number, limit, count = one.get("intervalNum"), one.get("limit"), one.get("count", 0)
        if kind is None or interval_ns is None or not all(type(value) is int for value in (number, limit, count)):
            raise ValueError(f"rateLimits: {str(one)[:80]}: a known limit and interval expected")
        if not (0 < number < NUMBER_MAX and 0 < limit < NUMBER_MAX and 0 <= count < NUMBER_MAX):
            raise ValueError(f"rateLimits: {str(one)[:80]}: intervalNum and limit are 1 or more, count 0 or more")
        found.append((kind, interval_ns * number, limit, count))
    return found


@inlined
def _cost(kind: int, request: int) -> int:
    """Tell what a request costs at most in a bucket of this kind: NEW, CANCEL …, of another kind minus its weight."""
    if kind == a.RAW:
        return 1
    if kind == a.ORDERS:
        return 1 if request in (m.NEW, m.REPLACE) else 0
    if kind != a.WEIGHT:
        return 0
    if request < 0:
        return -request
    if request in (m.AMEND, m.QUERY):
        return 4
    return 5 if request == m.TRADES else 1


@inlined
def _is_cancel(request: int) -> bool:
    return request in (m.CANCEL, m.CANCEL_ALL)


@inlined
def _roll(rows: Any, at: int, now_ns: int) -> None:
    """Begin a new interval if its time has come."""
    interval = now_ns // rows[at]["interval_ns"]
    if interval > rows[at]["interval"]:
        rows[at]["interval"] = interval
        rows[at]["used"] = 0


@inlined
def _age(rows: Any, words: Any, now_ns: int) -> None:
    """Count as used what is so long on its way that its answer is lost."""
    since_ns = now_ns - words[LOOKED_NS]
    if 0 <= since_ns < AGE_NS:
        return
    words[LOOKED_NS] = now_ns
    everything = since_ns >= 2 * AGE_NS
    for at in range(words[COUNT]):
        _roll(rows, at, now_ns)
        lost = rows[at]["in_flight"] if everything else rows[at]["aged"]
        rows[at]["used"] += lost
        rows[at]["in_flight"] -= lost
        rows[at]["aged"] = rows[at]["in_flight"]
    words[CANCELS] -= words[CANCELS] if everything else words[AGED_CANCELS]
    words[AGED_CANCELS] = words[CANCELS]


@kernel
def take(buckets: Buckets, request: int, now_ns: int) -> int:
    """Ask to send a request at `now_ns`, the venue's time; return a verdict, and count what passes.

    `request` is NEW, CANCEL …; minus its weight if it is of another kind.
    """
    rows, words = buckets.rows, buckets.words
    _age(rows, words, now_ns)
    cancel = _is_cancel(request)
    if now_ns < words[BANNED_NS]:
        words[WAITS] += 1
        return BANNED
    if now_ns < words[THROTTLED_NS]:
        if not cancel or words[CANCELS] > 0:
            words[WAITS] += 1
            return THROTTLED
    else:
        for at in range(words[COUNT]):
            _roll(rows, at, now_ns)
            cost = _cost(rows[at]["kind"], request)
            room = rows[at]["capacity"] if cancel else rows[at]["open"]
            if cost > 0 and rows[at]["used"] + rows[at]["in_flight"] + cost > room:
                words[WAITS] += 1
                return WAIT
    for at in range(words[COUNT]):
        rows[at]["in_flight"] += _cost(rows[at]["kind"], request)
    if cancel:
        words[CANCELS] += 1
    return PASS


@kernel
def answered(buckets: Buckets, request: int, now_ns: int) -> None:
    """Count a request as used: it was answered, or nobody will say when it is."""
    rows, words = buckets.rows, buckets.words
    for at in range(words[COUNT]):
        _roll(rows, at, now_ns)
        cost = min(_cost(rows[at]["kind"], request), rows[at]["in_flight"])
        rows[at]["in_flight"] -= cost
        rows[at]["aged"] = min(rows[at]["aged"], rows[at]["in_flight"])
        rows[at]["used"] += cost
    if _is_cancel(request) and words[CANCELS] > 0:
        words[CANCELS] -= 1
        words[AGED_CANCELS] = min(words[AGED_CANCELS], words[CANCELS])


@kernel
def report(buckets: Buckets, kind: int, interval_ns: int, limit: int, count: int, now_ns: int) -> None:
    """Believe the venue: `count` of `limit` are used in the running interval; a limit not known yet is added."""
    rows, words = buckets.rows, buckets.words
    if interval_ns <= 0 or limit < 0 or count < 0 or kind == a.CONNECTIONS:
        return
    at = 0
    while at < words[COUNT] and (rows[at]["kind"] != kind or rows[at]["interval_ns"] != interval_ns):
        at += 1
    if at == rows.shape[0]:
        return
    if at == words[COUNT]:
        words[COUNT] += 1
        rows[at]["kind"] = kind
        rows[at]["interval_ns"] = interval_ns
        rows[at]["in_flight"] = 0
        rows[at]["aged"] = 0
    rows[at]["limit"] = limit
    # Divided first: a limit of any size has a share.
    rows[at]["capacity"] = limit // 100 * SHARE_PERCENT + limit % 100 * SHARE_PERCENT // 100
    kept = rows[at]["capacity"] // 100 * RESERVE_PERCENT + rows[at]["capacity"] % 100 * RESERVE_PERCENT // 100
    rows[at]["open"] = rows[at]["capacity"] - (0 if kind == a.ORDERS else kept)
    rows[at]["interval"] = now_ns // interval_ns
    rows[at]["used"] = count


@kernel
def throttle(buckets: Buckets, until_ns: int) -> None:
    """Let nothing but cancels pass until then."""
    buckets.words[THROTTLED_NS] = max(buckets.words[THROTTLED_NS], until_ns)


@kernel
def hear(buckets: Buckets, notes: Any, count: int, now_ns: int) -> None:
    """Take what `notes[:count]` (NOTE) say of limits, in their order."""
    words = buckets.words
    for at in range(count):
        kind, until_ns = notes[at]["kind"], notes[at]["until_ns"]
        if kind == a.ANSWER:
            answered(buckets, notes[at]["what"], now_ns)
        elif kind == a.RATE:
            report(buckets, notes[at]["what"], notes[at]["interval_ns"], notes[at]["limit"], notes[at]["count"], now_ns)
        elif kind == a.THROTTLED:
            throttle(buckets, until_ns if until_ns > 0 else now_ns + THROTTLE_NS)
        elif kind == a.BANNED:
            words[BANNED_NS] = max(words[BANNED_NS], until_ns if until_ns > 0 else now_ns + BAN_NS)


@kernel
def reconnected(buckets: Buckets) -> None:
    """Count all that was on its way as used: its answers went with the connection."""
    rows, words = buckets.rows, buckets.words
    for at in range(words[COUNT]):
        rows[at]["used"] += rows[at]["in_flight"]
        rows[at]["in_flight"] = rows[at]["aged"] = 0
    words[CANCELS] = words[AGED_CANCELS] = 0
