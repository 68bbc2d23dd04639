"""The account's trades: what was not told is found, in whatever order it happened, and booked once."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import id_map
from shrivenq.stages import messages as m
from shrivenq.stages import orders as o
from shrivenq.stages.live import trades as t
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_reports_slow import Refused
from tests.hostile_json import mutations
from tests.stages.venue_rig import currencies, instruments_of

OURS = 42


def trade(number, buyer=True, **changed):
    one = {"symbol": "SYM0", "id": number, "orderId": 55, "price": "100.0", "qty": "2.00", "commission": "0.1"}
    return one | {"commissionAsset": "USD", "time": 1_700_000_000_000, "isBuyer": buyer, "isMaker": True} | changed


class Desk:
    """The trades of two instruments."""

    def __init__(self):
        instruments = instruments_of(2)
        self.context = SimpleNamespace(
            instruments=instruments,
            answers=a.make_answers(instruments, currencies(), np.frombuffer(b"0123abcd", np.uint8)),
            reports=np.zeros(a.REPORTS_MAX, m.REPORT),
            notes=np.zeros(a.NOTES_MAX, a.NOTE),
            anchors=np.full(2, v.NEVER_LOOKED),
            known=id_map.make_recent(v.KNOWN),
            told=np.zeros(2, np.int64),
        )
        self.asked = []
        self.trades = t.Trades(self.context, lambda name, _, params: self.asked.append((name, params)))

    def tell(self, number, side=m.BUY, row=0):
        """Tell a fill as the account's events do."""
        self.context.told[row] += id_map.remember(self.context.known, row, o.trade_key(number, side))

    def take(self, result, row=0):
        """Take an answer; give what it makes: (kind, trade, side, order)."""
        rows = self.trades.take(row, result, lambda _, venue_order_id: OURS if venue_order_id == 55 else 0)
        found = self.context.reports[:rows]
        for one in found[found["kind"] == m.FILL]:
            self.tell(int(one["trade_id"]), int(one["side"]), row)
        return [tuple(int(one[key]) for key in ("kind", "trade_id", "side", "order_id")) for one in found]


@pytest.fixture
def desk():
    return Desk()


@pytest.mark.parametrize(("result", "last"), [([trade(90)], 90), ([], v.NO_TRADES)])
def test_of_an_account_never_looked_at_only_the_last_trade_is_noted(desk, result, last):
    assert desk.trades.ask(0) == "trades SYM0"
    assert desk.take(result) == [(m.LOOKED, last, 0, 0)]
    desk.trades.ask(0)
    params = {"symbol": "SYM0", "limit": 1}, {"symbol": "SYM0", "limit": t.PAGE, "fromId": last + 1}
    assert desk.asked == [("trades SYM0", one) for one in params]


def test_a_trade_that_was_not_told_is_found_however_many_were_told_behind_it(desk):
    desk.context.anchors[0] = 10
    told = [number for number in range(11, 900) if number != 239]
    for number in told:
        desk.tell(number)
    assert desk.trades.is_whole(0, [trade(number) for number in told])
    everything = [trade(number) for number in range(11, 900)]
    assert not desk.trades.is_whole(0, everything)
    assert desk.take(everything) == [(m.FILL, 239, m.BUY, OURS), (m.LOOKED, 899, 0, 0)]
    assert (desk.context.anchors[0], desk.context.told[0]) == (899, 1)
    assert desk.take(everything) == []
    assert desk.trades.is_whole(0, [])


def test_both_sides_of_a_trade_with_ourselves_are_two_fills(desk):
    desk.context.anchors[0] = 0
    desk.tell(5, m.SELL)
    assert desk.take([trade(5, False), trade(5, True, orderId=7)]) == [(m.FILL, 5, m.BUY, 0), (m.LOOKED, 5, 0, 0)]


def test_a_page_may_end_between_the_two_sides(desk):
    desk.context.anchors[0] = 0
    first = [trade(number) for number in range(1, t.PAGE + 1)]
    assert desk.take(first)[-1] == (m.LOOKED, t.PAGE - 1, 0, 0)
    assert desk.take([trade(t.PAGE), trade(t.PAGE, False)]) == [
        (m.FILL, t.PAGE, m.SELL, OURS),
        (m.LOOKED, t.PAGE, 0, 0),
    ]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_is_told_when_every_trade_counts_once(data):
    """Against a venue that is a list: told in any order, some never, some twice, looked at now and then."""
    desk = Desk()
    desk.take([])
    venue, untold, booked = [], [], []
    for number in range(data.draw(st.integers(0, 40))):
        side = data.draw(st.sampled_from([m.BUY, m.SELL]))
        venue.append((number, side))
        untold.append((number, side))
        for one in data.draw(st.permutations(untold))[: data.draw(st.integers(0, 3))]:
            if data.draw(st.booleans()):
                desk.tell(*one)
                booked.append(one)
            untold.remove(one)  # or lost
        if data.draw(st.integers(0, 5)) == 0:
            answer = [trade(*one[:1], one[1] == m.BUY) for one in venue if one[0] > desk.context.anchors[0]]
            found = [one[1:3] for one in desk.take(answer) if one[0] == m.FILL]
            booked += found
            untold = []
    booked += [one[1:3] for one in desk.take([trade(n, side == m.BUY) for n, side in venue]) if one[0] == m.FILL]
    assert sorted(booked) == sorted(venue)


def test_instruments_take_turns_and_one_of_which_much_was_told_comes_first(desk):
    desk.context.anchors[:] = 0
    desk.trades.begin(0)
    assert desk.trades.look(t.LOOK_NS - 1)
    assert desk.asked == []
    assert desk.trades.wake_ns() == t.LOOK_NS
    for turn in range(1, 4):
        assert desk.trades.look(turn * t.LOOK_NS)
    assert [name for name, _ in desk.asked] == ["look SYM1", "look SYM0", "look SYM1"]
    desk.context.told[1] = v.LOOK_AFTER
    now = 3 * t.LOOK_NS
    assert desk.trades.wake_ns() == now + t.AGAIN_NS
    assert desk.trades.look(now + t.AGAIN_NS - 1)
    assert len(desk.asked) == 3
    for turn in (1, 2):
        assert desk.trades.look(now + turn * t.AGAIN_NS)
    assert [name for name, _ in desk.asked[3:]] == ["look SYM1", "look SYM1"]


def test_when_too_much_was_told_unseen_looking_comes_first(desk):
    desk.context.told[:] = v.TOLD_MAX // 2
    assert not desk.trades.look(0)
    assert desk.asked == []
    assert v.TOLD_MAX + t.PAGE < v.KNOWN  # or what was told might be forgotten before it is looked at


@pytest.mark.parametrize(
    "result",
    [None, {}, [1], [{}], [trade(1, symbol="SYM1")], [trade(1, qty="-1")], [trade(-1)], [trade(1, isBuyer=1)]],
)
def test_what_cannot_be_read_is_refused(desk, result):
    desk.context.anchors[0] = 0
    with pytest.raises(Refused):
        desk.take(result)
    assert desk.context.anchors[0] == 0


def test_a_name_says_which_instrument_it_is_about(desk):
    assert [desk.trades.row_of(name) for name in ("trades SYM1", "look SYM0")] == [1, 0]


@pytest.mark.parametrize("anchor", [v.NEVER_LOOKED, 10])
@pytest.mark.parametrize("take", ["take", "is_whole"])
def test_whatever_stands_in_an_answer_it_is_taken_or_refused(desk, anchor, take):
    for hostile in mutations([trade(11), trade(12, isBuyer=False)]):
        desk.context.anchors[0] = anchor
        with contextlib.suppress(Refused):
            desk.take(hostile) if take == "take" else desk.trades.is_whole(0, hostile)


@pytest.mark.parametrize("anchor", [v.NEVER_LOOKED, 10])
def test_more_trades_than_were_asked_for_are_refused(desk, anchor):
    """There is room for those asked for, and for what is noted behind them."""
    desk.context.anchors[0] = anchor
    for count in (t.PAGE + 1, a.REPORTS_MAX, 2 * a.REPORTS_MAX):
        with pytest.raises(Refused, match="a list of at most 1000"):
            desk.take([trade(11 + number) for number in range(count)])
    assert len(desk.take([trade(11 + number) for number in range(t.PAGE)])) == (t.PAGE + 1 if anchor == 10 else 1)
