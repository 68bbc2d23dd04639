"""Names are one session's at a time; who parts without a word waits; accounts have limits of their own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shrivenq.pipeline.exchange.fix_dictionary import RefusedError
from shrivenq.pipeline.exchange.fix_members import AT_ONCE, LOGONS, Members


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now = 1_000.0
        self.members = Members(SimpleNamespace(market_us=lambda: round(self.now * 1e6)), lambda: self.now)

    def enter(self, account, sender, session="session"):
        self.members.enter(account, sender, session)

    def refused(self, account, sender):
        with pytest.raises(RefusedError) as caught:
            self.enter(account, sender)
        assert caught.value.ends
        return caught.value.code, caught.value.text


@pytest.fixture
def clock():
    return Clock()


def test_a_name_is_one_session_s_within_an_account(clock):
    clock.enter(1, "A", "one")
    clock.enter(2, "A", "two")
    clock.enter(1, "B", "three")
    assert clock.members.of(1) == ["one", "three"]
    assert clock.members.of(2) == ["two"]
    assert clock.members.of(3) == []
    assert sorted(clock.members.all()) == ["one", "three", "two"]
    code, text = clock.refused(1, "A")
    assert (code, "in use" in text) == (-1178, True)
    clock.members.leave(1, "A", 0.0)
    clock.enter(1, "A")


def test_a_name_that_went_without_a_logout_is_blocked(clock):
    clock.enter(1, "A")
    clock.members.leave(1, "A", 10.0)
    clock.now += 9.9
    assert clock.refused(1, "A")[0] == -1178
    clock.enter(2, "A")
    clock.enter(1, "B")
    clock.now += 0.2
    clock.enter(1, "A")
    clock.members.leave(1, "A", 0.0)
    assert clock.members._blocked == {}  # names that are free again are forgotten


def test_sessions_at_once(clock):
    for number in range(AT_ONCE):
        clock.enter(1, f"S{number}")
    assert clock.refused(1, "X") == (-1034, "Too many concurrent connections; current limit is '10'.")
    clock.enter(2, "X")
    clock.members.leave(1, "S3", 0.0)
    clock.enter(1, "X")


def test_logons_in_an_interval(clock):
    clock.now = 30.0 * 50
    for number in range(LOGONS.limit):
        clock.enter(1, f"S{number}")
        clock.members.leave(1, f"S{number}", 0.0)
    text = "Too many connection attempts for account; current limit is 15 per '30 SECOND'."
    assert clock.refused(1, "X") == (-1034, text)
    clock.enter(2, "X")
    clock.now += 29
    assert clock.refused(1, "X")[0] == -1034
    clock.now += 1
    clock.enter(1, "X")


def test_attempts_that_are_refused_count_too(clock):
    clock.now = 30.0 * 50
    clock.enter(1, "A")
    for _ in range(LOGONS.limit - 1):
        assert clock.refused(1, "A")[0] == -1178
    assert clock.refused(1, "B")[0] == -1034
