"""No sequence of requests goes beyond our share of any limit, and cancels find room where new orders do not."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.stages import messages as m
from shrivenq.stages import token_bucket as t
from shrivenq.stages.venues import answers as a

S = 10**9
OWN = -20
"""A request of another kind, of this weight."""
REQUESTS = (m.NEW, m.CANCEL, m.REPLACE, m.QUERY, m.AMEND, m.CANCEL_ALL, m.TRADES, OWN)
LIMITS = [(a.WEIGHT, 60 * S, 100), (a.ORDERS, 10 * S, 50), (a.ORDERS, 86_400 * S, 1_000), (a.RAW, 300 * S, 500)]
COSTS = {
    a.WEIGHT: {m.NEW: 1, m.CANCEL: 1, m.REPLACE: 1, m.QUERY: 4, m.AMEND: 4, m.CANCEL_ALL: 1, m.TRADES: 5, OWN: 20},
    a.ORDERS: dict.fromkeys(REQUESTS, 0) | {m.NEW: 1, m.REPLACE: 1},
    a.RAW: dict.fromkeys(REQUESTS, 1),
}


def note(kind, **fields):
    notes = np.zeros(1, a.NOTE)
    a.put_note(notes, 0, kind, fields.pop("what", 0), -1)
    for name, value in fields.items():
        notes[0][name] = value
    return notes


def hear(buckets, now, kind, **fields):
    t.hear(buckets, note(kind, **fields), 1, now)


def taken(buckets, request, now=0, most=10_000):
    """How many requests pass at once."""
    return next(count for count in range(most) if t.take(buckets, request, now) != t.PASS)


class Twin:
    """The same policy, slowly."""

    def __init__(self):
        self.used, self.flying, self.limits, self.cancels = {}, {}, {}, 0
        self.throttled = self.banned = self.looked = self.aged_cancels = 0
        self.aged = {}

    def age(self, now):
        """Count as used what was on its way at the look before this one."""
        if now - self.looked < t.AGE_NS:
            return
        everything, self.looked = now - self.looked >= 2 * t.AGE_NS, now
        for key in self.limits:
            lost = self.flying[key] if everything else self.aged.get(key, 0)
            self.used[key] = {max(now // key[1], *self.used[key]): self.now_used(key, now) + lost}
            self.flying[key] -= lost
            self.aged[key] = self.flying[key]
        self.cancels -= self.cancels if everything else self.aged_cancels
        self.aged_cancels = self.cancels

    def report(self, key, limit, count, now):
        self.limits[key] = limit
        self.used[key] = {now // key[1]: count}
        self.flying.setdefault(key, 0)

    def now_used(self, key, now):
        newest = max(self.used[key])
        return self.used[key][newest] if now // key[1] <= newest else 0

    def take(self, request, now):
        self.age(now)
        cancel = request in (m.CANCEL, m.CANCEL_ALL)
        if now < self.banned:
            return t.BANNED
        if now < self.throttled:
            if not cancel or self.cancels:
                return t.THROTTLED
        else:
            for key, limit in self.limits.items():
                capacity = limit * 70 // 100
                room = capacity if cancel or key[0] == a.ORDERS else capacity - capacity * 20 // 100
                cost = COSTS[key[0]][request]
                if cost and self.now_used(key, now) + self.flying[key] + cost > room:
                    return t.WAIT
        for key in self.limits:
            self.flying[key] += COSTS[key[0]][request]
        self.cancels += cancel
        return t.PASS

    def answered(self, request, now):
        for key in self.limits:
            cost = min(COSTS[key[0]][request], self.flying[key])
            self.flying[key] -= cost
            self.aged[key] = min(self.aged.get(key, 0), self.flying[key])
            self.used[key] = {max(now // key[1], *self.used[key]): self.now_used(key, now) + cost}
        if request in (m.CANCEL, m.CANCEL_ALL):
            self.cancels = max(0, self.cancels - 1)
            self.aged_cancels = min(self.aged_cancels, self.cancels)


@pytest.mark.parametrize("seed", range(8))
def test_the_twin_agrees(seed):
    rng = random.Random(seed)
    buckets, twin, now = t.make_buckets(), Twin(), 10**18
    flying = []
    for step in range(4_000):
        now += rng.choice([0, 10**6, 10**8, 3 * 10**9])
        what = rng.randrange(100)
        if what < 60:
            request = rng.choice(REQUESTS)
            verdict = t.take(buckets, request, now)
            assert verdict == twin.take(request, now), f"seed {seed} step {step}"
            if verdict == t.PASS:
                flying.append(request)
        elif what < 90 and flying:
            request = flying.pop(rng.randrange(len(flying)))
            hear(buckets, now, a.ANSWER, what=request)
            twin.answered(request, now)
        elif what < 97:
            kind, interval, limit = rng.choice(LIMITS)
            limit, count = rng.choice([limit, limit // 2]), rng.randrange(limit)
            hear(buckets, now, a.RATE, what=kind, interval_ns=interval, limit=limit, count=count)
            twin.report((kind, interval), limit, count, now)
        elif what < 99:
            until = rng.choice([0, now + 5 * S, now - S])
            hear(buckets, now, a.THROTTLED, until_ns=until)
            twin.throttled = max(twin.throttled, until or now + 60 * S)
        elif rng.randrange(4) == 0:
            until = rng.choice([0, now + 5 * S])
            hear(buckets, now, a.BANNED, until_ns=until)
            twin.banned = max(twin.banned, until or now + 120 * S)


@pytest.mark.parametrize("seed", range(5))
def test_a_venue_that_counts_sees_no_more_than_our_share(seed):
    """Answers are late or lost, others use the account too, and the venue reports what it likes."""
    rng = random.Random(seed)
    buckets, now, flying = t.make_buckets(LIMITS), 10**18, []
    counts = {}

    def count(request, now):
        for kind, interval, _ in LIMITS:
            key = (kind, interval, now // interval)
            counts[key] = counts.get(key, 0) + COSTS[kind][request]

    for _ in range(5_000):
        now += rng.choice([0, 10**5, 10**8])
        if rng.randrange(3):
            request = rng.choice(REQUESTS)
            if t.take(buckets, request, now) == t.PASS:
                count(request, now)
                flying.append(request)
        elif flying:
            hear(buckets, now, a.ANSWER, what=flying.pop(rng.randrange(len(flying))))
            if rng.randrange(2):
                for kind, interval, limit in LIMITS:
                    # Requests on their way are counted by the venue already: the report is the higher by them.
                    used = counts.get((kind, interval, now // interval), 0)
                    hear(buckets, now, a.RATE, what=kind, interval_ns=interval, limit=limit, count=used)
    for (kind, interval, _), used in counts.items():
        limit = next(limit for one, other, limit in LIMITS if (one, other) == (kind, interval))
        assert used <= limit * 70 // 100, f"seed {seed}: {kind} in {interval}: {used}"


def test_new_orders_stop_first_and_cancels_go_on():
    buckets = t.make_buckets([(a.WEIGHT, 60 * S, 100), (a.ORDERS, 10 * S, 10_000)])
    assert taken(buckets, m.NEW) == 56
    assert t.take(buckets, m.QUERY, 0) == t.WAIT
    assert taken(buckets, m.CANCEL) == 14
    assert t.take(buckets, m.CANCEL_ALL, 59 * S) == t.WAIT
    assert buckets.words[t.WAITS] == 4


def test_an_interval_ends():
    buckets = t.make_buckets([(a.ORDERS, 10 * S, 10)])
    assert taken(buckets, m.NEW, 1) == 7
    for _ in range(7):
        t.answered(buckets, m.NEW, 2)
    assert t.take(buckets, m.NEW, 10 * S - 1) == t.WAIT
    assert taken(buckets, m.NEW, 10 * S) == 7
    # What is not answered may be counted in either.
    assert t.take(buckets, m.NEW, 20 * S) == t.WAIT


def test_the_venue_is_believed():
    buckets = t.make_buckets([(a.ORDERS, 10 * S, 100)])
    hear(buckets, 5, a.RATE, what=a.ORDERS, interval_ns=10 * S, limit=100, count=69)
    assert taken(buckets, m.NEW, 6) == 1
    hear(buckets, 7, a.RATE, what=a.ORDERS, interval_ns=10 * S, limit=200, count=100)
    assert taken(buckets, m.NEW, 8) == 39
    hear(buckets, 9, a.RATE, what=a.ORDERS, interval_ns=10 * S, limit=0, count=0)
    assert taken(buckets, m.NEW, 10 * S) == 0


def test_a_limit_that_is_new_is_added_and_odd_ones_are_not():
    buckets = t.make_buckets()
    assert t.take(buckets, m.NEW, 5) == t.PASS
    hear(buckets, 5, a.RATE, what=a.ORDERS, interval_ns=10 * S, limit=2, count=1)
    assert taken(buckets, m.NEW, 6) == 0
    for fields in ({"interval_ns": 0, "limit": 1}, {"interval_ns": S, "limit": -1}, {"interval_ns": S, "count": -1}):
        hear(buckets, 5, a.RATE, what=a.RAW, **fields)
    hear(buckets, 5, a.RATE, what=a.CONNECTIONS, interval_ns=S, limit=0)
    assert buckets.words[t.COUNT] == 1
    for number in range(100):
        hear(buckets, 5, a.RATE, what=a.RAW, interval_ns=S + number, limit=10**18)
    assert buckets.words[t.COUNT] == t.BUCKETS_MAX


def test_throttled_lets_cancels_through_one_at_a_time():
    buckets = t.make_buckets([(a.WEIGHT, 60 * S, 10)])
    hear(buckets, 5, a.RATE, what=a.WEIGHT, interval_ns=60 * S, limit=10, count=11)
    hear(buckets, 5, a.THROTTLED, until_ns=30 * S)
    for request in (m.NEW, m.REPLACE, m.QUERY, m.AMEND, m.TRADES):
        assert t.take(buckets, request, 6) == t.THROTTLED
    assert t.take(buckets, m.CANCEL, 6) == t.PASS
    assert t.take(buckets, m.CANCEL, 7) == t.THROTTLED
    hear(buckets, 8, a.ANSWER, what=m.CANCEL)
    assert t.take(buckets, m.CANCEL_ALL, 9) == t.PASS
    assert t.take(buckets, m.CANCEL, 30 * S) == t.WAIT  # it is over, and the interval is not
    t.reconnected(buckets)
    assert t.take(buckets, m.NEW, 60 * S) == t.PASS


def test_what_is_never_answered_is_used_and_blocks_no_cancel():
    buckets = t.make_buckets([(a.WEIGHT, 60 * S, 100)])
    assert t.take(buckets, m.CANCEL, 60 * S) == t.PASS
    assert t.take(buckets, m.QUERY, 64 * S) == t.PASS
    hear(buckets, 64 * S, a.THROTTLED, until_ns=200 * S)
    assert t.take(buckets, m.CANCEL, 65 * S - 1) == t.THROTTLED
    assert t.take(buckets, m.CANCEL, 65 * S) == t.THROTTLED  # on its way still, as far as is known
    assert t.take(buckets, m.CANCEL, 70 * S) == t.PASS
    assert (buckets.rows[0]["used"], buckets.rows[0]["in_flight"]) == (5, 1)
    assert t.take(buckets, m.CANCEL, 80 * S) == t.PASS
    hear(buckets, 81 * S, a.ANSWER, what=m.CANCEL)
    assert (buckets.rows[0]["used"], buckets.rows[0]["in_flight"]) == (7, 0)


def test_throttled_and_banned_without_a_time():
    buckets = t.make_buckets()
    hear(buckets, 5, a.THROTTLED)
    assert t.take(buckets, m.NEW, 5 + t.THROTTLE_NS - 1) == t.THROTTLED
    assert t.take(buckets, m.NEW, 5 + t.THROTTLE_NS) == t.PASS
    hear(buckets, 5, a.BANNED)
    assert t.take(buckets, m.CANCEL, 5 + t.BAN_NS - 1) == t.BANNED
    assert t.take(buckets, m.CANCEL, 5 + t.BAN_NS) == t.PASS


def test_answers_lost_with_a_connection_stay_counted_until_the_interval_ends():
    buckets = t.make_buckets([(a.ORDERS, 10 * S, 10)])
    assert taken(buckets, m.NEW) == 7
    t.reconnected(buckets)
    assert t.take(buckets, m.NEW, 9 * S) == t.WAIT
    assert taken(buckets, m.NEW, 10 * S) == 7


def test_reading_what_the_venue_says_of_its_limits():
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100, "count": 7},
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
    ]
    found = [(a.WEIGHT, 60 * S, 6000, 0), (a.ORDERS, 10 * S, 100, 7), (a.RAW, 300 * S, 300000, 0)]
    assert t.read_limits(limits) == found
    changes = [{"interval": "WEEK"}, {"rateLimitType": "X"}, {"limit": "5"}, {"intervalNum": 0}, {"limit": None}]
    for change in [*changes, {"count": -1}, {"limit": 10**30}, {"interval": []}]:
        with pytest.raises(ValueError, match="rateLimits: "):
            t.read_limits([{**limits[0], **change}])
    for nonsense in (None, {}, [1]):
        with pytest.raises(ValueError, match="rateLimits: "):
            t.read_limits(nonsense)
