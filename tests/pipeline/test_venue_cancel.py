"""Cancelling at the venue without the pipeline: against the simulator, over the network, and what can go wrong."""

from __future__ import annotations

import json
import stat
from types import SimpleNamespace

import pytest

from shrivenq.pipeline import kill, state, venue_cancel
from shrivenq.pipeline.exchange.types import NewOrder
from shrivenq.pipeline.venue_cancel import Place, Venue, VenueError
from shrivenq.stages.venues.binance_orders import ABSENCE_MS
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, TRADER, running

NAME = "test-venue-cancel"
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
ARRIVAL_S = venue_cancel.ARRIVAL_S


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("venue")) as made:
        yield made


@pytest.fixture
def place(rig, tmp_path, monkeypatch):
    """Where the simulator is, remembered in a state folder of the test's own."""
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path))
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(
        f'environment = "simulator"\npurpose = "trade"\napi_key = "{TRADER}"\nprivate_key = """\n{ED25519_PEM}"""\n'
    )
    made = Place(rest_url=rig.rest, authority="", key=f"file:{key}", symbols=SYMBOLS)
    venue_cancel.remember(NAME, made)
    return made


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """What was on its way has arrived, and nobody waits for long."""
    monkeypatch.setattr(venue_cancel, "ARRIVAL_S", 0.0)
    monkeypatch.setattr(venue_cancel, "RETRY_S", 0.001)


def account(rig):
    return rig.simulator.accounts["trader"]


def rest_orders(rig, counts):
    """Let orders rest in the simulator, so many in each symbol."""

    def act():
        venue = rig.venue
        for symbol, count in counts.items():
            for number in range(count):
                outcome = venue.engine.place(
                    account(rig),
                    NewOrder(
                        symbol=symbol,
                        side="BUY",
                        type="LIMIT",
                        time_in_force="GTC",
                        quantity=1_000_000_000,
                        price=1000 + number,
                    ),
                    venue.market_us(),
                )
                assert outcome.error is None

    rig.call(act)


def open_orders(rig):
    return rig.call(lambda: {one: len(rig.venue.engine.open_orders(account(rig), one)) for one in SYMBOLS})


def test_nothing_arrives_later_than_it_waits_for():
    assert ARRIVAL_S == ABSENCE_MS / 1000


def test_every_order_is_cancelled_and_seen_to_be_gone(rig, place):
    rest_orders(rig, {"BTCUSDT": 3, "ETHUSDT": 2})
    found = venue_cancel.clear(NAME, lives=False, say=print)
    assert [(one["by"], one["confirmed"], one["cancelled"]) for one in found] == [
        ("venue: BTCUSDT", True, 3),
        ("venue: ETHUSDT", True, 2),
    ]
    assert open_orders(rig) == dict.fromkeys(SYMBOLS, 0)
    assert [one["cancelled"] for one in venue_cancel.clear(NAME, lives=False, say=print)] == [0, 0]


def test_the_command_of_a_pipeline_that_is_dead_cancels_at_the_venue(rig, place, capsys):
    rest_orders(rig, {"BTCUSDT": 2})
    assert kill.main(["halt", NAME]) == 0
    assert open_orders(rig)["BTCUSDT"] == 2
    capsys.readouterr()
    assert kill.main(["cancel", NAME]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{NAME}: not running; will start killed")
    assert said[1].startswith(f"{NAME}: cancel confirmed by venue: BTCUSDT after ")
    assert open_orders(rig) == dict.fromkeys(SYMBOLS, 0)


def test_a_clock_that_is_wrong_is_asked_for(rig, place):
    rest_orders(rig, {"ETHUSDT": 1})
    rig.call(lambda: setattr(rig.venue, "clock_offset_us", 3_600_000_000))
    try:
        assert all(one["confirmed"] for one in venue_cancel.clear(NAME, lives=False, say=print))
    finally:
        rig.call(lambda: setattr(rig.venue, "clock_offset_us", 0))
    assert open_orders(rig)["ETHUSDT"] == 0


def test_a_venue_that_does_not_answer_is_not_confirmed(rig, place, capsys):
    venue_cancel.remember(NAME, Place(rest_url="http://127.0.0.1:9", authority="", key=place.key, symbols=["BTCUSDT"]))
    assert kill.main(["cancel", NAME, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)["confirmed"]
    assert [one["confirmed"] for one in found] == [False]
    assert "refused" in found[0]["problem"]
    assert "signature" not in found[0]["problem"]


def test_a_symbol_the_venue_does_not_know_is_not_confirmed(rig, place):
    venue_cancel.remember(NAME, Place(rest_url=rig.rest, authority="", key=place.key, symbols=["NOSUCH"]))
    (found,) = venue_cancel.clear(NAME, lives=False, say=print)
    assert not found["confirmed"]
    assert "-1121" in found["problem"]


def test_a_key_that_cannot_be_used_is_told(rig, place, tmp_path):
    (tmp_path / "key").chmod(0o644)
    (found,) = venue_cancel.clear(NAME, lives=False, say=print)
    assert not found["confirmed"]
    assert "0600" in found["problem"] or "mode" in found["problem"]
    with pytest.raises(VenueError):
        Venue(place)


def test_what_is_remembered_is_private_and_holds_no_key(rig, place):
    path = state.folder(NAME) / state.LIVE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert TRADER not in path.read_text()
    assert venue_cancel.recall(state.folder(NAME)) == place


def test_a_pipeline_that_was_never_live_has_nothing_at_a_venue(place, tmp_path):
    assert venue_cancel.clear("never-live", lives=False, say=print) == []
    (state.folder(NAME) / state.LIVE).write_text("{")
    (found,) = venue_cancel.clear(NAME, lives=False, say=print)
    assert not found["confirmed"]


class Scripted:
    """A venue that gives each request the next answer, the last one again and again: a count, or an error."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def _next(self, what):
        self.asked.append(what)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, VenueError):
            raise answer
        return answer

    def open_orders(self, _):
        return self._next("look")

    def cancel(self, _):
        return self._next("cancel")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only waiting moves; gives the waits."""
    now, waits = [100.0], []

    def sleep(seconds):
        now[0] += seconds
        waits.append(round(seconds, 6))

    monkeypatch.setattr(venue_cancel, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return waits


def cleared(venue, *, lives):
    said = []
    (found,) = venue_cancel._Clearing(venue, ["BTCUSDT"], lives=lives, say=said.append).run()
    return found, said


def test_what_was_on_its_way_when_the_gateway_died_is_cancelled_when_it_arrives(clock, monkeypatch):
    monkeypatch.setattr(venue_cancel, "ARRIVAL_S", ABSENCE_MS / 1000)
    # Nothing; then one that the list does not show yet; then nothing until the end.
    venue = Scripted(0, 0, 0, 1, 0)
    found, said = cleared(venue, lives=False)
    assert (found["confirmed"], found["cancelled"]) == (True, 1)
    assert sum(clock) == pytest.approx(13)
    assert found["us"] == 13_000_000
    assert "13 s" in said[0]
    assert len(venue.asked) > 20


def test_of_a_gateway_that_lives_one_look_is_enough(clock):
    venue = Scripted(2, 2, 0)
    found, said = cleared(venue, lives=True)
    assert (found["confirmed"], found["cancelled"], said) == (True, 0, [])
    assert venue.asked == ["look"] * 3
    assert clock == [0, 0.05, 0.05]


def test_an_error_is_tried_again_after_a_pause_and_given_up_in_the_end(clock):
    venue = Scripted(VenueError("no"), VenueError("no"), 0)
    assert cleared(venue, lives=True)[0]["confirmed"]
    assert clock == [0, 0.001, 0.002]
    venue = Scripted(VenueError("no"))
    found, _ = cleared(venue, lives=True)
    assert (found["confirmed"], found["problem"]) == (False, "no")
    assert len(venue.asked) == venue_cancel.TRIES + 1


def test_while_the_venue_takes_no_requests_none_is_sent(clock):
    found, said = cleared(Scripted(VenueError("429", 60.0), 0), lives=True)
    assert found["confirmed"]
    assert clock == [0, 60]
    assert said == ["the venue takes no requests for 60 s"]
    venue = Scripted(VenueError("418", 7_200.0, banned=True))
    found, said = cleared(venue, lives=True)
    assert (found["confirmed"], found["problem"]) == (False, "418; no requests for 7200 s")
    assert "banned this address for 7200 s" in said[0]
    assert len(venue.asked) == 1
