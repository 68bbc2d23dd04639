"""What a venue holds: lists of resting orders, rows that are used again, accounts, the queue of reports."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.stages import id_map, order_book, venue_market
from shrivenq.stages import messages as m
from tests.stages.venue_rig import currencies, instruments_of


def market_of(count=64, latency_ns=0, instruments=None):
    instruments = instruments_of(2) if instruments is None else instruments
    books = order_book.make_books(instruments, 64, 64)
    return venue_market.make_market(instruments, currencies(), books, 0, latency_ns, count=count)


def enter(market, order_id, instrument=0, side=m.BUY, price=1000, quantity=10):
    row = venue_market.enter(market, order_id)
    order = market.orders[row : row + 1]
    order["instrument"], order["side"], order["price"], order["quantity"] = instrument, side, price, quantity
    return row


def listed(market, instrument, side):
    head = market.lists[2 * instrument + venue_market.side_of(side)]
    found, row = [], int(head["first"])
    while row != venue_market.NONE:
        found.append(row)
        row = int(market.orders[row]["next"])
    prices = [int(market.orders[row]["price"]) for row in found]
    assert int(head["last"]) == (found[-1] if found else venue_market.NONE)
    bounds = (min(prices, default=venue_market.NO_LOW), max(prices, default=venue_market.NO_HIGH))
    assert (int(head["low"]), int(head["high"])) == bounds
    return found


@pytest.mark.parametrize("seed", range(3))
def test_lists_are_lists(seed):
    chance = random.Random(seed)
    market = market_of()
    twin = {(i, side): [] for i in (0, 1) for side in (m.BUY, m.SELL)}
    for number in range(1, 800):
        everything = [(key, row) for key, rows in twin.items() for row in rows]
        if everything and (len(everything) > 40 or chance.random() < 0.45):
            key, row = chance.choice(everything)
            twin[key].remove(row)
            venue_market.unlink(market, row)
            venue_market.close(market, row, venue_market.CANCELLED)
        else:
            key = chance.choice(list(twin))
            row = enter(market, number, *key, price=1000 + 10 * chance.randrange(5))
            venue_market.rest(market, row)
            twin[key].append(row)
        for key, rows in twin.items():
            assert listed(market, *key) == rows, f"seed {seed}, order {number}"
        assert market.words[venue_market.OPEN_COUNT] == sum(len(rows) for rows in twin.values())


def test_the_order_over_for_longest_makes_room():
    market = market_of(count=4)
    rows = [enter(market, number) for number in (1, 2, 3, 4)]
    assert venue_market.enter(market, 5) == venue_market.NONE
    for row in (rows[2], rows[0]):
        venue_market.close(market, row, venue_market.EXPIRED)
    assert id_map.find(market.ids, 3, 0) == rows[2]
    assert enter(market, 5) == rows[2]
    assert id_map.find(market.ids, 3, 0) == id_map.ABSENT
    assert id_map.find(market.ids, 1, 0) == rows[0]
    assert enter(market, 6) == rows[0]
    assert venue_market.enter(market, 7) == venue_market.NONE


def test_a_fill_is_accounted_charged_and_reported():
    market = market_of(latency_ns=50)
    row = enter(market, 9, quantity=10)
    venue_market.fill(market, row, 1010, 4, True, 1_000)
    venue_market.fill(market, row, 1020, 6, False, 1_010)
    assert market.orders[row]["state"] == venue_market.FILLED
    first, last = market.reports[:2]
    assert (first["kind"], first["time_ns"], first["venue_ns"]) == (m.FILL, 1_050, 1_000)
    assert (first["trade_id"], first["last_price"], first["last_quantity"]) == (1, 1010, 4)
    assert (first["filled"], first["leaves"], first["flags"]) == (4, 6, m.MAKER)
    assert (last["filled"], last["leaves"], last["flags"]) == (10, 0, m.FINAL)
    assert first["fee"] == 40_400  # 101.0 × 0.04 × 0.0001, at eight decimals
    assert last["fee"] == 244_800  # 102.0 × 0.06 × 0.0004


def test_reports_never_go_back_in_time():
    market = market_of(latency_ns=10)
    for time_ns in (100, 90, 120):
        venue_market.queue_report(market, m.ABSENT, 1, 2, 0, time_ns)
    assert market.reports["time_ns"][:3].tolist() == [110, 110, 130]
    assert venue_market.report_room(market) == len(market.reports) - 3


def test_a_report_carries_nothing_of_the_one_before_it_in_its_row():
    market = market_of(count=2)
    market.reports.view(np.int8)[:] = 0x7F
    at = venue_market.queue_report(market, m.ABSENT, 1, 2, 3, 4)
    said = {name: int(market.reports[at][name]) for name in ("trade_id", "last_quantity", "fee", "filled", "leaves")}
    assert set(said.values()) == {0}
