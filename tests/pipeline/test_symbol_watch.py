"""The watch over the venue's symbols: whatever is found, each instrument is held by itself, and each change is told."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.pipeline.symbol_watch import LOOKS_MISSED, SymbolWatch
from shrivenq.pipeline.venue_symbols import read_symbols
from shrivenq.stages import control
from tests.pipeline.pipeline_rig import rules
from tests.pipeline.test_venue_symbols import info

PERIOD_S = 10.0
SYMBOLS = ("BTCUSDT", "ETHUSDT")


class Log:
    def __init__(self):
        self.lines = []

    def info(self, event, **fields):
        self.lines.append((event, fields))

    warning = info

    def take(self):
        found, self.lines = self.lines, []
        return found


class World:
    """A watch and the words it writes, which somebody else writes too."""

    def __init__(self):
        self.hold, self.instrument_hold, self.log = np.zeros(512, np.int64), np.zeros(512, np.int64), Log()
        self.hold[control.HOLD] = control.SYMBOLS_UNKNOWN | control.RECONCILING
        self.watch = self.anew()

    def anew(self):
        return SymbolWatch(rules(), self.hold, self.instrument_hold, self.log, period_s=PERIOD_S)

    def look(self, now_s=0.0, **changes):
        self.watch.look(read_symbols(info(**changes)), now_s)

    def words(self):
        return int(self.hold[control.HOLD]), self.instrument_hold[: len(SYMBOLS)].tolist()


@pytest.fixture
def world():
    return World()


FOUND = (
    ({}, 0),
    ({"status": "HALT"}, control.NOT_TRADING),
    ({"status": "CANCEL_ONLY"}, control.NOT_TRADING),
    ({"isSpotTradingAllowed": False}, control.NOT_TRADING),
    ({"LOT_SIZE__maxQty": "1"}, control.OTHER_RULES),
    ({"MAX_NUM_ORDERS__maxNumOrders": 1}, control.OTHER_RULES),
    ({"PERCENT_PRICE__multiplierUp": "1.0001"}, control.OTHER_RULES),
    ({"LOT_SIZE__maxQty": "none"}, control.OTHER_RULES),
    ({"symbol": "GONE"}, control.OTHER_RULES),
    ({"status": "BREAK", "orderTypes": ["LIMIT"]}, control.NOT_TRADING | control.OTHER_RULES),
    ({"LOT_SIZE__maxQty": "10000"}, 0),
)


@pytest.mark.parametrize("seed", range(3))
def test_the_words_follow_what_the_venue_says_and_each_change_is_told(seed):
    world, pick = World(), random.Random(seed)
    before, said, changes = 0, {}, 0
    for at in range(200):
        if pick.random() < 0.1:
            world.watch, said = world.anew(), {}  # the process died: what it held is held on
        change, causes = pick.choice(FOUND)
        world.look(at, **change)
        changes += causes != before
        assert world.words() == (control.RECONCILING, [causes, 0]), change
        assert world.hold[control.CHANGES] == changes
        told = world.log.take()
        held = [fields for event, fields in told if event == "held: symbol not as at the start"]
        assert all(one["what"].startswith("BTCUSDT: ") and one["fix"] for one in held)
        assert bool(held) == (causes != 0 and said != change), (change, told)
        freed = [fields for event, fields in told if event == "symbol as at the start again: new orders pass"]
        assert freed == ([{"symbol": "BTCUSDT"}] if before and not causes else [])
        before, said = causes, change


def test_nothing_is_known_before_the_first_look(world):
    for now_s in (0.0, 1e6):
        world.watch.wait(now_s)
    assert not world.watch.is_known
    assert world.words() == (control.SYMBOLS_UNKNOWN | control.RECONCILING, [0, 0])
    world.look()
    assert world.watch.is_known
    assert world.words() == (control.RECONCILING, [0, 0])


def test_a_look_too_long_ago_holds_everything_until_the_next(world):
    world.look(100.0, status="HALT")
    world.log.take()
    world.watch.wait(100.0 + LOOKS_MISSED * PERIOD_S)
    assert world.words() == (control.RECONCILING, [control.NOT_TRADING, 0])
    for later in (0.001, 1.0, 1e6):
        world.watch.wait(100.0 + LOOKS_MISSED * PERIOD_S + later)
    assert world.words() == (control.SYMBOLS_UNKNOWN | control.RECONCILING, [control.NOT_TRADING, 0])
    assert world.log.take() == [("held: the venue's symbols are unknown", {"for_s": 50})]
    world.look(2e6)
    assert world.words() == (control.RECONCILING, [0, 0])
    assert ("the venue's symbols are known", {}) in world.log.take()


def test_a_process_that_cannot_look_holds_everything_after_as_long(world):
    world.hold[control.HOLD] = 0  # one before it had looked
    world.watch.wait(100.0)
    world.watch.wait(100.0 + LOOKS_MISSED * PERIOD_S)
    assert world.words() == (0, [0, 0])
    world.watch.wait(101.0 + LOOKS_MISSED * PERIOD_S)
    assert world.words() == (control.SYMBOLS_UNKNOWN, [0, 0])
