"""Back-off: longer after each failure, jittered, and never beyond the venue's limit of attempts."""

from __future__ import annotations

import random

import pytest

from shrivenq.stages.live.pace import ATTEMPTS_MAX, FIRST_NS, LONGEST_NS, WINDOW_NS, Pace


def test_after_a_connection_that_held_it_tries_again_at_once_but_not_with_everybody_else():
    waits = [Pace(random.Random(seed)).next_ns(0, 0) for seed in range(50)]
    assert 0 <= min(waits) < max(waits) <= FIRST_NS
    assert len(set(waits)) > 40


@pytest.mark.parametrize("failures", [1, 2, 5, 9, 1000])
def test_each_failure_makes_the_wait_longer_up_to_a_limit(failures):
    longest = min(LONGEST_NS, FIRST_NS * 2 ** min(failures, 20))
    for seed in range(20):
        assert longest // 2 <= Pace(random.Random(seed)).next_ns(0, failures) <= longest


@pytest.mark.parametrize(("attempts", "window_ns"), [(ATTEMPTS_MAX, WINDOW_NS), (8, 30 * 10**9)])
def test_the_venues_limit_of_attempts_holds_whatever_fails(attempts, window_ns):
    pace, now, made = Pace(random.Random(1), attempts, window_ns), 0, []
    for _ in range(3 * attempts):
        now = max(now + 1, pace.next_ns(now, 0) if len(made) % 2 else now)
        now = max(now, pace._allowed_ns(now))
        pace.attempt(now)
        made.append(now)
    for at in made:
        assert sum(at - window_ns < one <= at for one in made) <= attempts
