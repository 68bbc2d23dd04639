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
@pytest.mark.parametrize("together", [1, 7, 180])
def test_the_venues_limit_of_attempts_holds_whatever_fails(attempts, window_ns, together):
    """So many connections fail at one moment, again and again, each as soon as it may."""
    pace, made = Pace(random.Random(1), attempts, window_ns), []
    due = dict.fromkeys(range(together), 0)
    while len(made) < 3 * attempts:
        one = min(due, key=due.get)
        now = due[one]
        due[one] = pace.allowed_ns(now)
        if due[one] == now:
            pace.attempt(now)
            made.append(now)
            due[one] = pace.next_ns(now, 0)
    for at in made:
        assert sum(at - window_ns < one <= at for one in made) <= attempts


def test_who_is_told_to_stay_away_stays_away_and_so_do_all_others():
    pace = Pace(random.Random(1))
    pace.stay_away(50 * FIRST_NS)
    pace.stay_away(40 * FIRST_NS)
    assert pace.allowed_ns(0) == pace.next_ns(0, 0) == 50 * FIRST_NS
    assert pace.allowed_ns(60 * FIRST_NS) == 60 * FIRST_NS
