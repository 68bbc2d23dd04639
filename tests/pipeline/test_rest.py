"""The REST process: snapshots when they are wanted, limits kept, symbols watched; against a fake and a real server."""

from __future__ import annotations

import contextlib
import json
import random
import re
import uuid

import numpy as np
import pytest

from shrivenq.pipeline import rest
from shrivenq.pipeline.rest import Requests, RestError, Side, exchange_info
from shrivenq.shm import byte_ring, segment
from shrivenq.stages import control
from shrivenq.stages.live import away
from shrivenq.stages.live.source import Config
from tests.hostile_json import mutations
from tests.pipeline.pipeline_rig import rules
from tests.pipeline.test_venue_symbols import info

S = 1_000_000_000
DEPTH = b'{"lastUpdateId":100,"bids":[["1.00","2"]],"asks":[["3.00","4"]]}'


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, event, **fields):
        self.lines.append((event, fields))

    info = error = warning


class Venue:
    """A client that answers by itself; `answers` come first."""

    def __init__(self):
        self.asked, self.answers, self.info, self.now_ns = [], [], info(), 1_700_000_000 * S

    def get(self, target):
        self.asked.append(target)
        if self.answers:
            found = self.answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found
        if "/depth" in target:
            return 200, {}, DEPTH
        if "/exchangeInfo" in target:
            listed = [one["symbol"] for one in self.info["symbols"]]
            if not all(one in listed for one in re.findall(r"%22(\w+)%22", target)):
                return 400, {}, b'{"code":-1121,"msg":"Invalid symbol."}'
            return 200, {}, json.dumps(self.info).encode()
        return 200, {}, json.dumps({"serverTime": self.now_ns // 1000 + 5000}).encode()


class World:
    """A Side with everything around it driven by hand."""

    def __init__(self, **config):
        self.venue, self.log, self.now_s = Venue(), Log(), 0.0
        self.segment = byte_ring.create(f"{segment.PREFIX}test-rest-{uuid.uuid4().hex[:12]}", 1 << 16)
        self.reader = byte_ring.consumer(self.segment)
        self.resync, self.streaming, self.away, self.words = (np.zeros(512, np.int64) for _ in range(4))
        self.hold, self.instrument_hold = np.zeros(512, np.int64), np.zeros(512, np.int64)
        self.streaming[:2], self.hold[control.HOLD] = 1, control.SYMBOLS_UNKNOWN
        self.requests = Requests(self.venue, clock=lambda: self.venue.now_ns)
        self.side = Side(
            Config(**config), rules(), self.requests, byte_ring.producer(self.segment), self.resync, self.streaming,
            self.away, self.words, self.hold, self.instrument_hold, self.log, random.Random(1), lambda: self.now_s,
        )  # fmt: skip

    def run(self, seconds):
        """Let time pass, a millisecond a step; return the snapshots that came, with their times."""
        found = []
        for _ in range(int(seconds * 1000)):
            self.now_s += 0.001
            self.venue.now_ns += 1_000_000
            self.side.step()
            found += [(self.now_s, payload) for _, _, payload in byte_ring.drain(self.reader)]
        return found

    def held(self):
        """What holds everything, and what each instrument."""
        return int(self.hold[control.HOLD]), self.instrument_hold[:2].tolist()

    def said(self, event):
        return [fields["what"] for found, fields in self.log.lines if found.startswith(event)]

    def asked(self, what):
        return [one for one in self.venue.asked if what in one]

    def close(self):
        self.segment.close()
        self.segment.unlink()


@pytest.fixture
def world():
    made = World()
    yield made
    made.close()


def frame(symbol):
    return b'{"stream":"%s@snapshot","data":%s}' % (symbol, DEPTH)


def test_every_instrument_gets_a_snapshot_once_its_streams_are_open(world):
    world.streaming[:2] = 0
    assert world.run(0.1) == []
    world.streaming[:2] = 1
    assert sorted(payload for _, payload in world.run(0.2)) == [frame(b"btcusdt"), frame(b"ethusdt")]
    assert world.asked("depth")[0].endswith("&limit=5000")
    assert world.run(5) == []
    assert world.words[rest.SNAPSHOTS] == 2


def test_an_instrument_whose_connection_is_lost_waits_for_it_alone(world):
    world.streaming[0] = 0
    assert [payload for _, payload in world.run(0.2)] == [frame(b"ethusdt")]
    world.streaming[0] = 1
    assert [payload for _, payload in world.run(0.2)] == [frame(b"btcusdt")]


def test_what_book_asks_for_is_fetched_and_repeats_wait_longer(world):
    world.run(40)
    times = []
    for _ in range(5):
        world.resync[1] += 1
        asked = world.now_s
        ((at, payload),) = world.run(6)[:1]
        assert payload == frame(b"ethusdt")
        times.append(at - asked)
    assert times[0] < 0.05
    assert all(wait >= 0.1 for wait in times[1:])
    assert times[4] >= 0.9
    world.run(40)
    world.resync[1] += 1
    asked = world.now_s
    assert world.run(1)[0][0] - asked < 0.05, "a book that was content for long starts anew"


@pytest.mark.parametrize("streams", [("depth20@100ms",), ("trade", "bookTicker")])
def test_without_diffs_no_snapshot_is_fetched(streams):
    world = World(streams=streams)
    try:
        world.run(1)
        assert not world.asked("depth?")
    finally:
        world.close()


def test_a_failure_is_told_and_tried_again(world):
    world.run(1)
    world.resync[:2] += 1
    world.venue.answers = [RestError("no answer"), (503, {}, b"<html>"), (200, {}, DEPTH), (200, {}, DEPTH)]
    assert len(world.run(3)) == 2
    reasons = [fields["reason"] for event, fields in world.log.lines if event == "REST request failed"]
    assert reasons == ["no answer", "the venue answers HTTP 503: b'<html>'"]
    assert world.words[rest.FAILURES] == 2


def test_a_snapshot_too_large_is_told_and_tried_again(world):
    world.run(1)
    world.venue.answers = [(200, {}, DEPTH + b" " * (1 << 16) + b"0")]
    world.resync[0] += 1
    assert [payload for _, payload in world.run(3)] == [frame(b"btcusdt")]
    assert [event for event, _ in world.log.lines if event == "snapshot too large"] == ["snapshot too large"]


@pytest.mark.parametrize(("status", "header", "seconds"), [(429, {"retry-after": "7"}, 7), (418, {}, rest.RETRY_S)])
def test_the_venue_is_left_alone_when_it_says_so(world, status, header, seconds):
    world.run(1)
    count = len(world.venue.asked)
    world.venue.answers = [(status, header, b"")]
    world.resync[0] += 1
    world.run(seconds - 1)
    assert len(world.venue.asked) == count + 1, "not one request while it is blocked"
    told = (world.away[away.LIMITED_NS], world.away[away.BANNED_NS])
    assert (told[0] > world.venue.now_ns, told[1] > world.venue.now_ns) == (status == 429, status == 418)
    assert len([one for one in world.log.lines if "HTTP" in str(one)]) == 1
    assert len(world.run(8)) == 1


@pytest.mark.parametrize("word", [away.LIMITED_NS, away.BANNED_NS])
def test_what_the_venue_has_said_to_others_counts_too(world, word):
    world.away[word] = world.venue.now_ns + 7 * S
    world.run(6.9)
    assert not world.venue.asked
    assert len(world.run(1)) == 2


def test_the_weight_limit_is_kept(world):
    world.venue.info["rateLimits"] = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1000}
    ]
    spent, minute = 0, None
    for _ in range(150):
        before = len(world.venue.asked)
        world.resync[0] += 1
        world.run(1)
        if world.venue.now_ns // (60 * S) != minute:
            minute, spent = world.venue.now_ns // (60 * S), 0
        spent += 250 * sum("depth" in one for one in world.venue.asked[before:])
        assert spent <= 750 + 250, "70 % of 1000, counted a second late at a minute's end"
    assert world.asked("depth")


@pytest.mark.parametrize("limit", [0, -5, 10])
def test_a_limit_that_is_none_does_not_silence_us_for_good(world, limit):
    world.venue.info["rateLimits"] = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit}
    ]
    world.run(1)
    assert world.requests.weight_limit == rest.WEIGHT_MIN
    world.run(70)
    assert len(world.asked("exchangeInfo")) == 2


def test_the_venues_own_count_is_believed():
    venue = Venue()
    requests = Requests(venue, clock=lambda: venue.now_ns, weight_limit=1000)
    venue.answers = [(200, {"x-mbx-used-weight-1m": "690"}, b"{}")]
    requests.get("/x", 1)
    assert requests.allows(10)
    assert not requests.allows(11)
    with pytest.raises(RestError, match="weight limit is used up"):
        requests.get("/x", 11)
    venue.now_ns += 60 * S
    assert requests.allows(11)


def test_a_symbol_that_halts_is_held_alone_until_it_trades_again(world):
    world.run(1)
    assert world.held() == (0, [0, 0])
    assert not world.hold[control.CHANGES]
    world.venue.info = info(status="HALT")
    world.run(70)
    assert world.held() == (0, [control.NOT_TRADING, 0])
    world.run(70)
    assert world.hold[control.CHANGES] == 1
    assert world.said("held") == ["BTCUSDT: status HALT, orders only in TRADING"], "said once"
    world.venue.info = info()
    world.run(70)
    assert world.held() == (0, [0, 0])
    assert world.hold[control.CHANGES] == 2
    assert ("symbol as at the start again: new orders pass", {"symbol": "BTCUSDT"}) in world.log.lines


def test_a_symbol_that_is_listed_no_more_is_held_and_the_others_are_watched_as_ever(world):
    world.run(1)
    world.venue.info["symbols"].pop(0)
    world.run(70)
    assert world.held() == (0, [control.OTHER_RULES, 0])
    world.venue.info["symbols"][0]["status"] = "HALT"
    world.venue.asked.clear()
    world.run(66)
    assert world.held() == (0, [control.OTHER_RULES, control.NOT_TRADING])
    gone = "BTCUSDT: the venue has no such symbol"
    assert world.said("held") == [gone, "ETHUSDT: status HALT, orders only in TRADING"]
    assert len(world.asked("exchangeInfo")) == 2, "the others with one request, as ever, and it with another"
    world.venue.info = info()
    world.run(70)
    assert world.held() == (0, [0, 0])
    world.venue.asked.clear()
    world.run(66)
    assert len(world.asked("exchangeInfo")) == 1


def test_what_a_process_before_has_held_and_was_told_holds_for_the_next(world):
    world.hold[control.HOLD] = control.SYMBOLS_UNKNOWN | control.RECONCILING
    world.instrument_hold[1] = control.NOT_TRADING
    world.away[away.LIMITED_NS] = world.venue.now_ns + 5 * S
    side = world.side
    fields = ("config", "rules", "requests", "ring", "resync", "streaming", "away", "words", "hold", "instrument_hold")
    world.requests = side.requests = Requests(world.venue, clock=lambda: world.venue.now_ns)
    world.side = Side(*(getattr(side, name) for name in fields), world.log, random.Random(1), lambda: world.now_s)
    world.run(4.9)
    assert not world.venue.asked, "the ban is not forgotten"
    assert len(world.run(2)) == 2
    assert world.held() == (control.RECONCILING, [0, 0]), "and neither are the holds, which are over"


@pytest.mark.parametrize("change", [{"PRICE_FILTER__tickSize": "0.1"}, {"LOT_SIZE__maxQty": "1"}, {"symbol": "GONE"}])
def test_stricter_rules_while_running_hold_their_symbol(world, change):
    world.venue.info = info(**change)
    world.run(1)
    assert world.held() == (0, [control.OTHER_RULES, 0])
    (said,) = [fields for event, fields in world.log.lines if event == "held: symbol not as at the start"]
    assert said["what"].startswith("BTCUSDT: ")
    assert "restart" in said["fix"]


@pytest.mark.parametrize("value", ["x", "-1", None])
def test_a_rule_that_makes_no_sense_holds_its_symbol(world, value):
    world.venue.info = info(LOT_SIZE__maxQty=value)
    world.run(1)
    assert world.held() == (0, [control.OTHER_RULES, 0])
    (line,) = world.said("held")
    assert line.startswith("BTCUSDT: LOT_SIZE.maxQty is ")


@pytest.mark.parametrize("answer", [(503, {}, b""), (429, {"retry-after": "25"}, b""), (200, {}, b"{}")])
def test_symbols_that_are_unknown_for_long_hold_everything(answer):
    world = World(exchange_info_s=2.0)
    try:
        world.run(1)
        assert world.held() == (0, [0, 0])
        get = world.venue.get
        world.venue.get = lambda target: answer if "exchangeInfo" in target else get(target)
        world.run(8)
        assert world.held() == (0, [0, 0]), "now and then a request fails"
        world.run(5)
        assert world.held() == (control.SYMBOLS_UNKNOWN, [0, 0])
        world.run(5)
        assert sum(event == "held: the venue's symbols are unknown" for event, _ in world.log.lines) == 1
        world.venue.get = get
        world.run(30)
        assert world.held() == (0, [0, 0])
    finally:
        world.close()


@pytest.mark.parametrize("garbage", [b"", b"[]", b"\xff", b'{"symbols":[1]}', b"[" * 100_000, b'{"rateLimits":7}'])
def test_until_the_symbols_are_known_everything_is_held(world, garbage):
    world.venue.answers = [(200, {}, garbage)] * 4
    world.run(1)
    assert world.words[rest.FAILURES]
    assert world.held() == (control.SYMBOLS_UNKNOWN, [0, 0])
    world.run(6)
    assert world.held() == (0, [0, 0])


def test_the_venues_clock_is_estimated(world):
    world.run(1)
    assert abs(int(world.words[rest.VENUE_OFFSET_NS]) - 5_000_000) <= int(world.words[rest.VENUE_ERROR_NS]) <= 1_000_000
    (said,) = [fields for event, fields in world.log.lines if event == "venue clock"]
    assert said["ahead_ms"] == pytest.approx(5, abs=0.01)


def test_the_shortest_round_trip_counts_until_it_is_old(world):
    """The venue is 5 ms ahead; an answer that takes long says little, and what is old says less each minute."""
    trips_ms = [40, 2, 300, 300, 300]
    get = world.venue.get

    def slowly(target):
        if "/time" in target and trips_ms:
            world.venue.now_ns += trips_ms[0] * 1_000_000  # all of it on the way there
            trips_ms.pop(0)
        return get(target)

    world.venue.get = slowly
    errors = []
    for left in range(4, -1, -1):
        while len(trips_ms) > left:
            world.run(1)
        errors.append(int(world.words[rest.VENUE_ERROR_NS]) / 1e6)
        assert abs(int(world.words[rest.VENUE_OFFSET_NS]) / 1e6 - 5) <= errors[-1]
    assert errors[0] == pytest.approx(20, abs=0.1)
    assert errors[1] == pytest.approx(1, abs=0.1)
    assert 1 < errors[2] < errors[3] < errors[4] < 15


@pytest.mark.parametrize("time", [b"0", b"-1", b"99999999999999999999999999", b"1e999", b'"x"', b"null"])
def test_a_time_that_is_none_is_told(world, time):
    world.venue.answers = [(200, {}, b'{"serverTime":%s}' % time)] * 4
    world.run(1)
    assert any("not a time" in str(line) for line in world.log.lines)
    assert not world.words[rest.VENUE_OFFSET_NS]


def test_an_unknown_symbol_is_named():
    venue = Venue()
    invalid = (400, {}, b'{"code":-1121,"msg":"Invalid symbol."}')
    venue.answers = [invalid, (200, {}, b"{}"), invalid]
    with pytest.raises(RestError, match=r"^ETHUSDT: the venue answers HTTP 400: Invalid symbol. \(-1121\)$"):
        exchange_info(Requests(venue), ["BTCUSDT", "ETHUSDT"])


def test_whatever_exchange_info_says_it_is_taken_or_refused():
    venue = Venue()
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1000}
    for hostile in mutations({"rateLimits": [limit], "symbols": []}, more=(float("inf"), "9" * 5_000)):
        venue.answers = [(200, {}, json.dumps(hostile).encode())]
        requests = Requests(venue, clock=lambda: venue.now_ns)
        with contextlib.suppress(RestError):
            exchange_info(requests, ["BTCUSDT"])
        requests.allows(20)


def test_the_process_ends_when_it_is_told(world, monkeypatch):
    monkeypatch.setattr(rest.os, "sched_setscheduler", lambda *_: None)
    turns = iter([False] * 3)
    assert rest.main(world.side, lambda: next(turns, True)) == 0
    assert world.venue.asked


@pytest.mark.parametrize(
    "text",
    [
        b'{"code":1e999,"msg":"x"}',
        b'{"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","limit":1e999,"intervalNum":1}]}',
    ],
)
def test_numbers_beyond_all_are_refused(world, text):
    world.venue.answers = [(200, {}, text), (400, {}, text), (200, {}, b'{"serverTime":1e999}')] * 3
    world.run(1)
    assert world.words[rest.FAILURES]
