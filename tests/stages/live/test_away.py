"""What the venue tells one that speaks to it from here counts for all: words in shared memory, and orders that obey."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import away
from shrivenq.stages.live.away import BANNED_NS, LIMITED_NS
from tests.pipeline.exchange.exchange_rig import running
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.test_live_venue import Exchange

S_NS = 1_000_000_000


def test_words_only_grow_whoever_writes_them():
    words, highest = np.zeros(away.WORDS, np.int64), 2_000

    def write(first):
        for one in range(first, highest, 4):
            away.tell(words, LIMITED_NS, one)
            away.tell(words, BANNED_NS, highest - one)

    writers = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert (words[LIMITED_NS], words[BANNED_NS]) == (highest - 1, highest)
    assert away.until_ns(words) == highest
    away.tell(words, BANNED_NS, 1)
    assert words[BANNED_NS] == highest
    assert np.count_nonzero(words) == 2


def test_a_429_that_others_were_told_lets_cancels_pass_alone(rig):
    resting = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, resting)
    away.tell(rig.venue.away, LIMITED_NS, time.time_ns() + 60 * S_NS)
    rig.until(lambda: "the venue takes no requests but cancels" in rig.log.events(), "the line")
    assert rig.reason(rig.wait(m.REJECTED, rig.send())) == "venue_rate"
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))
    assert rig.session.state == "trading"


def test_a_ban_that_others_were_told_holds_and_nothing_is_sent_or_connected(rig, exchange):
    resting = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, resting)
    away.tell(rig.venue.away, BANNED_NS, time.time_ns() + 60 * S_NS)
    rig.until(lambda: "live orders unreachable" in rig.log.events(), "the line")
    assert control.held(rig.hold) == control.RECONCILING
    assert rig.reason(rig.wait(m.CANCEL_REJECTED, rig.send(m.CANCEL, target_id=resting))) == "banned"
    exchange.cut()
    rig.until(lambda: "venue disconnected" in rig.log.events(), "the end")
    (line,) = [fields for event, fields in rig.log.lines if event == "venue disconnected"]
    assert 50_000 < line["again_in_ms"] < 70_000


def test_a_ban_that_others_were_told_is_waited_for_before_the_first_connection(exchange):
    rig = OrdersRig(exchange.url, exchange.tables)
    away.tell(rig.venue.away, BANNED_NS, time.time_ns() + 2 * S_NS)
    began = time.monotonic()
    rig.ready()
    assert time.monotonic() - began > 2
    assert rig.log.events().count("venue disconnected") == 0
    rig.close()


def test_what_is_over_holds_nobody(make):
    rig = make()
    away.tell(rig.venue.away, BANNED_NS, time.time_ns() - S_NS)
    rig.for_a_while()
    rig.wait(m.ACCEPTED, rig.send(price=50_00))
    assert "live orders unreachable" not in rig.log.events()


@pytest.mark.parametrize(("action", "word"), [("too_many", LIMITED_NS), ("banned", BANNED_NS)])
def test_what_the_session_is_told_others_are_told(tmp_path, action, word):
    with running(tmp_path) as found:
        exchange = Exchange(found)
        rig = OrdersRig(exchange.url, exchange.tables).ready()
        exchange.faults({"on": "request", "name": "order.place", "action": action, "ms": 60_000, "times": 1})
        rig.wait(m.REJECTED, rig.send())
        rig.until(lambda: rig.venue.away[word], "the word")
        assert 50 * S_NS < int(rig.venue.away[word]) - time.time_ns() < 62 * S_NS
        rig.for_a_while()
        said = ("the venue takes no requests but cancels", "live orders unreachable")
        assert sum(rig.log.events().count(one) for one in said) == 1
        rig.close()
