"""Silence is answered with heartbeats, test requests and an end, each at its time."""

from __future__ import annotations

import random

from shrivenq.pipeline.exchange.fix_pulse import Pulse


def test_a_quiet_session_beats_and_asks():
    pulse = Pulse(10, 100)
    assert (pulse.need(109.9), pulse.due()) == ("nothing", 110)
    assert pulse.need(110) == "test"
    assert pulse.ask(110) == "1"
    pulse.sent = 110
    assert (pulse.need(115), pulse.due()) == ("nothing", 120)
    assert pulse.need(120) == "end"


def test_a_heartbeat_answers_only_the_test_request_it_names():
    pulse = Pulse(10, 100)
    pulse.ask(110)
    pulse.heard = pulse.sent = 111
    for wrong in (None, "", "0", "2"):
        pulse.answered(wrong)
        assert pulse.need(120) == "end", wrong
    pulse.answered("1")
    assert pulse.need(120) == "nothing"
    pulse.ask(121)
    pulse.answered("1")  # of the one before
    assert pulse.need(131) == "end"


def test_who_hears_only_has_nothing_to_say_but_heartbeats():
    pulse = Pulse(5, 0)
    pulse.heard = 4
    assert pulse.need(5) == "heartbeat"


def test_it_is_never_too_late_when_looked_at_when_due():
    """Whatever happens, something is done exactly when it is due, and nothing before."""
    for seed in range(50):
        rng = random.Random(seed)
        pulse, now = Pulse(rng.choice([5, 30, 60]), 0), 0
        for _ in range(200):
            need = pulse.need(now)
            assert (need == "nothing") == (now < pulse.due()), f"seed {seed}"
            if need == "end":
                break
            if need == "test":
                pulse.ask(now)
            if need != "nothing":
                pulse.sent = now
            if rng.random() < 0.3:
                pulse.heard = now
            if rng.random() < 0.1:
                pulse.answered(str(pulse._asks))
            now += rng.randint(1, 5)
