"""Faults: which frame meets which fault, and that a seed decides it."""

from __future__ import annotations

import asyncio
import gc
import json

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from shrivenq.pipeline.exchange import faults
from shrivenq.pipeline.exchange.faults import Faults, Rule, Script
from shrivenq.pipeline.exchange.limits import Limits, Rules
from shrivenq.pipeline.exchange.limits import Rule as LimitRule
from shrivenq.pipeline.exchange.payloads import Format
from shrivenq.pipeline.exchange.types import BookView, Symbol
from shrivenq.pipeline.exchange.venue import Answer, Request, nobody
from tests.hostile_json import mutations

SYMBOL = Symbol(name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, step=1)
MINUTE = LimitRule("REQUEST_WEIGHT", "MINUTE", 1, 6000)


class StubEngine:
    """A book that is another one each time."""

    update_id = 0

    def depth(self, name, limit):
        assert name == "BTCUSDT"
        self.update_id += 1
        return BookView(self.update_id, [(100, 1), (99, 2)][:limit], [(101, 3)][:limit])


class StubVenue:
    """As much of a venue as faults need."""

    def __init__(self):
        self.engine = StubEngine()
        self.symbols = {"BTCUSDT": SYMBOL}
        self.formats = {"BTCUSDT": Format(SYMBOL)}
        self.limits = Limits(Rules(weight=MINUTE, raw=MINUTE, orders=(), connections=MINUTE, ban_after=9, ban_us=1))
        self.clock_offset_us = 0
        self.outgoing = None

    def market_us(self):
        return 1_000_000_000


class StubSocket:
    """A connection that keeps what it is sent."""

    def __init__(self, until):
        self.sent = []
        self.aborted = False
        self.until = until
        self.arrived = asyncio.Event()

    def send_message(self, payload, *, text):
        assert text
        self.sent.append(payload.decode(errors="replace"))
        if len(self.sent) >= self.until:
            self.arrived.set()

    def send_unknown(self, payload):
        self.sent.append(payload)

    def abort(self):
        self.aborted = True


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self):
        return self.now


def armed(*rules, seed=0, clock=None):
    return Faults(StubVenue(), Script([Rule(**rule) for rule in rules], seed), clock or Clock())


def sent(door, names, kind="event", until=0):
    """Send a frame for each name, and give what arrived, at once or when `until` frames have."""

    async def run():
        socket = StubSocket(until)
        for name in names:
            door.frame(socket, kind, name, name.encode())
        if until:
            await asyncio.wait_for(socket.arrived.wait(), 10)
        return socket

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("action", "arrived"),
    [("drop", "ac"), ("duplicate", "abbc"), ("reorder", "acb")],
)
def test_one_frame_of_three(action, arrived):
    assert sent(armed({"on": "event", "name": "b", "action": action}), "abc").sent == list(arrived)


def test_delayed_frames_hold_up_what_follows():
    door = armed({"on": "event", "name": "b", "action": "delay", "ms": 20})
    assert sent(door, "abc").sent == ["a"]
    door = armed(*({"on": "event", "name": name, "action": "delay", "ms": ms} for name, ms in (("b", 1), ("d", 2))))
    assert sent(door, "abcde", until=5).sent == list("abcde")


def test_late_frames_are_overtaken():
    door = armed({"on": "event", "name": "b", "action": "late", "ms": 1})
    assert sent(door, "abc", until=3).sent == ["a", "c", "b"]


def test_two_reordered_in_a_row_lose_nothing():
    door = armed({"on": "event", "name": "[bc]", "action": "reorder"})
    assert sorted(sent(door, "abcd").sent) == list("abcd")


def test_a_disconnect_takes_the_frame_along():
    socket = sent(armed({"on": "event", "name": "b", "action": "disconnect"}), "ab")
    assert socket.sent == ["a"]
    assert socket.aborted


def test_garbage_is_of_the_same_length_and_of_the_seed():
    rule = {"on": "event", "action": "garbage"}
    first, again, other = (sent(armed(rule, seed=seed), ["executionReport"]).sent for seed in (1, 1, 2))
    assert first == again != other
    assert first != ["executionReport"]
    assert len(first[0]) == len("executionReport")


def test_frames_that_the_protocol_does_not_have():
    door = armed(
        {"on": "event", "name": "a", "action": "bad_text"}, {"on": "event", "name": "b", "action": "bad_opcode"}
    )
    assert sent(door, "abc").sent == ["\ufffd\ufffda", b"b", "c"]


def test_a_giant_frame_comes_before_the_true_one():
    arrived = sent(armed({"on": "event", "action": "giant", "size": 1000}), "a").sent
    assert [len(one) for one in arrived] == [len('{"giant":""}') + 1000, 1]


def test_which_frames_a_rule_is_about():
    door = armed({"on": "market", "name": "*@depth*", "action": "drop", "skip": 1, "times": 2})
    names = ["a@trade", "a@depth", "b@depth@100ms", "b@trade", "c@depth", "d@depth"]
    assert sent(door, names, "market").sent == ["a@trade", "a@depth", "b@trade", "d@depth"]
    assert sent(door, names, "event").sent == names
    assert door.report()["rules"][0]["seen"] == 4
    assert door.report()["rules"][0]["acted"] == 2


def test_rules_have_their_time():
    clock = Clock()
    door = armed({"on": "event", "action": "drop", "from_ms": 1000, "until_ms": 2000}, clock=clock)
    arrived = []
    for clock.now in (0.0, 0.999, 1.0, 1.999, 2.0):
        arrived += sent(door, [str(clock.now)]).sent
    assert arrived == ["0.0", "0.999", "2.0"]


def test_the_seed_decides_and_rules_do_not_disturb_each_other():
    chance = {"on": "event", "name": "[0-9]*", "action": "drop", "probability": 0.5}
    other = {"on": "market", "action": "drop", "probability": 0.5}
    names = [str(number) for number in range(100)]
    passed = []
    for seed in range(5):
        alone, disturbed = armed(chance, seed=seed), armed(chance, other, seed=seed)
        sent(disturbed, "b" * 20, "market")
        passed.append(sent(alone, names).sent)
        assert passed[-1] == sent(disturbed, names).sent, f"seed {seed}"
        assert 25 < len(passed[-1]) < 75, f"seed {seed}"
    assert len({tuple(one) for one in passed}) == 5


def answered(door, name="order.place", params=None):
    """Serve a request; gives the answer and whether it was carried out."""
    acts = []

    def act():
        acts.append(name)
        body = {"lastUpdateId": 9, "bids": [["1", "1"]], "asks": []} if name == "depth" else {}
        return Answer(200, body)

    request = Request(name, params or {}, "h", nobody, micros=False)
    return asyncio.run(door.answer(request, act)), bool(acts)


def test_without_a_rule_requests_are_served():
    assert answered(armed()) == (Answer(200, {}), True)


def test_the_client_cannot_tell_whether_an_order_was_placed():
    placed, was = answered(armed({"on": "request", "action": "error_placed"}))
    refused, was_not = answered(armed({"on": "request", "action": "error_not_placed"}))
    assert placed == refused
    assert (placed.status, placed.body["code"]) == (504, -1007)
    assert (was, was_not) == (True, False)


@pytest.mark.parametrize(("code", "status"), [(-1000, 500), (-1001, 500), (-1006, 502), (-1008, 503)])
def test_there_are_other_ways_not_to_know(code, status):
    for action, placed in (("error_placed", True), ("error_not_placed", False)):
        answer, was = answered(armed({"on": "request", "action": action, "code": code}))
        assert (answer.status, answer.body["code"], was) == (status, code, placed)


def test_a_dropped_request_was_served():
    assert answered(armed({"on": "request", "action": "drop"})) == (None, True)


def test_too_many():
    answer, was = answered(armed({"on": "request", "action": "too_many", "ms": 3000}))
    assert (answer.status, answer.body["code"], answer.retry_us, was) == (429, -1003, 1_003_000_000, False)


def test_a_ban_is_the_addresss():
    door = armed({"on": "request", "action": "banned", "ms": 3000})
    answered(door)
    assert door._venue.limits.address("h").banned_until_us == 1_003_000_000


def test_a_slow_venue_serves_later():
    assert answered(armed({"on": "request", "action": "delay", "ms": 1})) == (Answer(200, {}), True)


def test_a_wrong_clock_is_set_right_when_the_script_ends():
    door = armed({"on": "request", "action": "clock_offset", "ms": -1500})
    answered(door)
    assert door._venue.clock_offset_us == -1_500_000
    door.arm(Script())
    assert door._venue.clock_offset_us == 0


def test_a_stale_snapshot_is_the_book_of_before():
    door = armed({"on": "request", "name": "depth", "action": "stale_snapshot"})
    answer, _ = answered(door, "depth", {"symbol": "BTCUSDT"})
    assert answer.body == {"lastUpdateId": 1, "bids": [["1.00000000", "0.00001000"]], "asks": []}


def test_connections_that_are_gone_are_forgotten():
    async def run():
        socket = StubSocket(0)
        door = armed({"on": "event", "action": "delay", "ms": 1})
        door.frame(socket, "event", "a", b"a")
        assert len(door._lanes) == 1
        del socket
        gc.collect()
        assert len(door._lanes) == 0
        await asyncio.sleep(0.01)  # the timer finds nobody

    asyncio.run(run())


def test_without_rules_the_venue_has_its_own_door():
    door = armed()
    assert door._venue.outgoing is None
    door.arm(Script([Rule(on="event", action="drop")]))
    assert door._venue.outgoing is door
    door.arm(Script())
    assert door._venue.outgoing is None


def test_what_waits_is_sent_when_the_script_ends():
    async def run():
        socket = StubSocket(0)
        door = armed(
            {"on": "event", "name": "a", "action": "reorder"},
            {"on": "event", "name": "b", "action": "delay", "ms": 5},
        )
        for name in "bca":
            door.frame(socket, "event", name, name.encode())
        assert socket.sent == []
        door.arm(Script())
        assert sorted(socket.sent) == list("abc")
        assert socket.sent[:2] == ["b", "c"]
        await asyncio.sleep(0.01)  # the timer of what was delayed finds nothing
        assert len(socket.sent) == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rules]]\non = "event"\naction = "delay"', "needs ms, above 0"),
        ('[[rules]]\non = "event"\naction = "giant"', "needs size"),
        ('[[rules]]\non = "event"\naction = "error_placed"', "is not for 'event', which takes delay, late"),
        ('[[rules]]\non = "request"\naction = "reorder"', "is not for 'request', which takes delay, drop"),
        ('[[rules]]\non = "event"\naction = "explode"', "$.rules[0].action"),
        ('[[rules]]\non = "event"\naction = "drop"\nprobability = 2', "$.rules[0].probability"),
        ('[[rules]]\non = "event"\naction = "drop"\nskip = -1', "$.rules[0].skip"),
        ('[[rules]]\non = "event"\naction = "drop"\nsikp = 1', "sikp"),
        ('[[rules]]\non = "event"\naction = "giant"\nsize = 1000000000000', "$.rules[0].size"),
        ('[[rules]]\non = "request"\naction = "clock_offset"\nms = 9000000000000000000', "$.rules[0].ms"),
        ('[[rules]]\non = "request"\naction = "error_placed"\ncode = -2010', "$.rules[0].code"),
        ("rules = 7", "$.rules"),
        ("rules = [", "Invalid value"),
        ("\xff", "utf-8"),
    ],
)
def test_a_bad_script_is_one_line(tmp_path, text, said):
    path = tmp_path / "faults.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as refused:
        faults.read_script(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_script_is_read(tmp_path):
    path = tmp_path / "faults.toml"
    path.write_text('seed = 7\n[[rules]]\non = "event"\naction = "drop"\n')
    assert faults.read_script(path) == Script([Rule(on="event", action="drop")], 7)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        faults.read_script(tmp_path / "other.toml")


def test_whatever_a_script_says_it_is_armed_or_refused():
    rules = [
        {"on": "request", "name": "*", "action": "clock_offset", "ms": 5, "times": 1, "probability": 0.5},
        {"on": "event", "action": "giant", "size": 5, "skip": 1, "from_ms": 1, "until_ms": 9},
    ]
    door = armed()
    for hostile in mutations({"rules": rules, "seed": 7}, more=(10**15, -(10**15), 1e308, "[", "\ud800")):
        try:
            script = msgspec.json.decode(json.dumps(hostile), type=Script)
        except msgspec.DecodeError as error:
            assert "\n" not in str(error), hostile  # noqa: PT017 - whether there is one is not the question
            continue
        door.arm(script)
        door.report()


def test_the_control_endpoint():
    door = armed()

    async def run():
        transport = httpx.ASGITransport(app=Starlette(routes=faults.routes(door)))
        async with httpx.AsyncClient(transport=transport, base_url="http://venue") as client:
            script = msgspec.json.encode(Script([Rule(on="event", action="drop")]))
            made = await client.post("/control/faults", content=script)
            assert made.status_code == 200
            assert len(door.triggers) == 1
            bad = await client.post("/control/faults", content=b'{"rules": [{"on": "event"}]}')
            assert bad.status_code == 400
            assert "action" in bad.json()["error"]
            assert (await client.post("/control/faults", content=b"{")).status_code == 400
            assert (await client.get("/control/faults")).json()["rules"][0]["action"] == "drop"
            assert (await client.delete("/control/faults")).json() == {"rules": []}

    asyncio.run(run())
