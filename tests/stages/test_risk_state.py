"""The clock of risk's day, its losses, its message times, and a strategy that does not read."""

from __future__ import annotations

import numpy as np

from shrivenq.stages import control, risk_state, stage
from shrivenq.stages import messages as m
from shrivenq.stages.positions import make_positions
from shrivenq.stages.risk_checks import TOTAL
from tests.stages.risk_desk import MS, NOON, Desk, hold_position


def test_losses_pull_the_kill_and_count_from_midnight():
    desk = hold_position(4_000_000)
    desk.touch(bid=25_010, ask=25_020)
    desk.step()
    assert desk.kill[control.MACHINE] == 0
    desk.touch(bid=25_000, ask=25_010)  # 4 × 250.00: the limit exactly
    desk.step()
    assert desk.kill[control.MACHINE] & control.LEVEL_MASK == control.CANCEL
    desk.kill[control.MACHINE] = 1 << control.GENERATION_SHIFT
    assert desk.ask(price=25_000, quantity=100_000) == "daily_loss"
    assert desk.ask(price=25_010, quantity=100_000, side=m.SELL)["flags"] == m.REDUCING
    desk.now += 12 * 3_600_000 * MS
    desk.touch(bid=25_000, ask=25_010)
    assert desk.ask(price=25_000, quantity=100_000)["kind"] == m.NEW


def test_a_full_feedback_holds_when_live_and_waits_in_replay():
    desk = Desk(rings={"feedback": 4})
    for _ in range(6):
        desk.intent(price=7)
    assert desk.step() == 0
    desk.loop[stage.VIRTUAL] = 0
    assert desk.step() == 6
    assert len(desk.read("feedback")) == 4
    assert desk.context.words[risk_state.FEEDBACK_LOST] == 2
    assert desk.hold[control.HOLD] == control.STRATEGY_DEAF


def test_the_time_never_goes_backwards_and_a_day_begins_once():
    words, totals, positions = np.zeros(risk_state.WORDS, np.int64), np.zeros(2, TOTAL), make_positions(1, 2)
    positions.accounts["realised"] = 700, -900
    midnight = NOON + risk_state.DAY_NS // 2
    latest, day_end, expected = 0, 0, [0, 0]
    for n, time_ns in enumerate((NOON, NOON - 1, midnight - 1, NOON, midnight, midnight - 1, midnight + 1)):
        positions.accounts["realised"] += 1
        if time_ns >= day_end:
            day_end, expected = (midnight, midnight + risk_state.DAY_NS)[n > 0], [701 + n, -899 + n]
        latest = max(latest, time_ns)
        risk_state.advance_time(words, totals, positions, time_ns)
        assert (words[risk_state.TIME_NS], words[risk_state.DAY_END_NS]) == (latest, day_end), n
        assert list(totals["day_start"]) == expected, n


def test_message_times_hold_the_latest():
    times, words = np.full(3, -1, np.int64), np.zeros(risk_state.WORDS, np.int64)
    for sent in range(1, 9):
        risk_state.note_message(times, words, 10 * sent)
        assert set(times) == {10 * n if n > 0 else -1 for n in range(sent - 2, sent + 1)}
        assert times[words[risk_state.NEWEST]] == min(times)  # the next to be overwritten is the oldest
