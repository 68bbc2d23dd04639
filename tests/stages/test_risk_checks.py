"""Every check at its exact boundary."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages import risk_checks as c
from shrivenq.stages.money import OVERFLOW
from shrivenq.stages.positions import make_positions
from tests.stages.risk_desk import OTHER, SPOT, USD, make_config, tables

INSTRUMENTS, CURRENCIES = tables()
MAX = c.NUMBER_MAX


@pytest.fixture
def rows():
    made = np.zeros(3, c.ROW)
    made["bid"], made["ask"], made["touch_valid"], made["touch_ns"] = 50_000, 50_010, 1, 1_000
    made["best_sell"] = MAX
    return made


@pytest.fixture
def positions():
    return make_positions(3, 2)


@pytest.fixture
def totals():
    return np.zeros(2, c.TOTAL)


def name(reason):
    return m.REASONS[reason]


@pytest.mark.parametrize(
    ("position", "open_buy", "open_sell", "side", "quantity", "expected"),
    [
        (10, 0, 0, m.SELL, 10, True),
        (10, 0, 0, m.SELL, 11, False),
        (10, 0, 4, m.SELL, 6, True),
        (10, 0, 4, m.SELL, 7, False),
        (10, 0, 0, m.BUY, 1, False),
        (-10, 0, 0, m.BUY, 10, True),
        (-10, 3, 0, m.BUY, 8, False),
        (-10, 0, 0, m.SELL, 1, False),
        (0, 0, 0, m.SELL, 1, False),
        (10, 0, 0, m.SELL, 0, False),
        (10, 0, 0, m.SELL, -1, False),
        (10, 0, 0, 0, 1, False),
        (OVERFLOW, 0, 0, m.BUY, 1, False),
        (OVERFLOW, 0, 0, m.SELL, 1, False),
    ],
)
def test_reduces(rows, positions, position, open_buy, open_sell, side, quantity, expected):
    positions.rows[SPOT]["position"] = position
    rows[SPOT]["open_buy"], rows[SPOT]["open_sell"] = open_buy, open_sell
    assert c.reduces(rows, positions, SPOT, side, quantity) == expected


@pytest.mark.parametrize("i", [-1, 3, -(2**31), 2**31 - 1])
def test_nothing_reduces_an_unknown_instrument(rows, positions, i):
    assert not c.reduces(rows, positions, i, m.SELL, 1)


def test_armed():
    assert name(c.armed(control.ARMED, 0, False)) == "none"
    for bit in range(len(control.HOLDS)):
        assert name(c.armed(control.ARMED, 1 << bit, False)) == "held"
        reducing = "held" if 1 << bit == control.RECONCILING else "none"  # of what, is not known then
        assert name(c.armed(control.ARMED, 1 << bit, True)) == reducing
    for level in (control.HALT, control.CANCEL, control.FLATTEN):
        assert name(c.armed(level, 0, False)) == "not_armed"
        assert name(c.armed(level, 1, True)) == "none"


def test_instrument():
    instruments = INSTRUMENTS.copy()
    instruments[1]["tradable"] = 0
    expected = {
        -1: "unknown_instrument", 0: "none", 1: "not_tradable", 2: "none", 3: "unknown_instrument",
        2**31 - 1: "unknown_instrument",
    }  # fmt: skip
    for held in ([0, 0, 0], [0, control.NOT_TRADING, control.OTHER_RULES]):
        for reducing in (False, True):
            if held[2] and not reducing:
                expected = expected | {2: "not_tradable"}
            found = {i: name(c.instrument(instruments, np.array(held), i, reducing)) for i in expected}
            assert found == (expected if not reducing else expected | {2: "none"}), (held, reducing)


@pytest.mark.parametrize(
    ("order_id", "target_id", "time_ns", "named", "good"),
    [
        (1, 0, 1, False, True),
        (0, 0, 1, False, False),
        (-1, 0, 1, False, False),
        (MAX - 1, 0, 1, False, False),  # its bit 39 says that risk made it
        (c.FORCED_ID - 1, 0, 1, False, True),
        (c.FORCED_ID, 0, 1, False, False),
        (MAX, 0, 1, False, False),
        (-(2**63), 0, 1, False, False),
        (1, 0, 0, False, False),
        (1, 0, MAX - 1, False, True),
        (1, 0, MAX, False, False),
        (1, 0, 1, True, False),
        (2, 1, 1, True, True),
        (1, 1, 1, True, False),
        (1, MAX, 1, True, False),
        (1, -1, 1, True, False),
    ],
)
def test_identity(order_id, target_id, time_ns, named, good):
    assert name(c.identity(order_id, target_id, time_ns, named)) == ("none" if good else "malformed")


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"side": m.SELL}, True),
        ({"side": 0}, False),
        ({"side": 2}, False),
        ({"side": -128}, False),
        ({"order_type": 0}, False),
        ({"order_type": m.STOP_LOSS}, False),
        ({"order_type": m.STOP_LOSS, "price": 0}, False),
        ({"order_type": m.STOP_LOSS, "price": 0, "stop_price": 1}, True),
        ({"order_type": m.STOP_LOSS, "price": 1, "stop_price": 1}, False),
        ({"order_type": m.TAKE_PROFIT, "price": 0, "stop_price": MAX - 1}, True),
        ({"order_type": m.TAKE_PROFIT, "price": 0, "stop_price": MAX}, False),
        ({"order_type": m.STOP_LOSS_LIMIT, "stop_price": 1}, True),
        ({"order_type": m.STOP_LOSS_LIMIT, "stop_price": 1, "price": 0}, False),
        ({"order_type": m.TAKE_PROFIT_LIMIT, "stop_price": 1, "time_in_force": m.FOK}, True),
        ({"order_type": m.TAKE_PROFIT_LIMIT, "stop_price": -1}, False),
        ({"order_type": 8, "stop_price": 1}, False),
        ({"stop_price": 1}, False),
        ({"stop_price": -1}, False),
        ({"order_type": m.MARKET, "price": 0, "stop_price": 1}, False),
        ({"self_trade": m.STP_NONE}, True),
        ({"self_trade": m.TRANSFER}, True),
        ({"self_trade": 7}, False),
        ({"self_trade": -1}, False),
        ({"order_type": m.MARKET}, False),
        ({"order_type": m.MARKET, "price": 0}, True),
        ({"order_type": m.LIMIT_MAKER}, True),
        ({"order_type": m.LIMIT_MAKER, "time_in_force": m.IOC}, False),
        ({"time_in_force": 0}, False),
        ({"time_in_force": m.FOK}, True),
        ({"time_in_force": 4}, False),
        ({"price": 0}, False),
        ({"price": -1}, False),
        ({"price": MAX - 1}, True),
        ({"price": MAX}, False),
        ({"quantity": 0}, False),
        ({"quantity": MAX - 1}, True),
        ({"quantity": MAX}, False),
        ({"quantity": -(2**63)}, False),
    ],
)
def test_well_formed(change, good):
    fields = {"side": m.BUY, "order_type": m.LIMIT, "time_in_force": m.GTC, "price": 1, "quantity": 1}
    fields |= {"stop_price": 0, "self_trade": 0} | change
    assert name(c.well_formed(*fields.values())) == ("none" if good else "malformed")


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (10, 1_000, "none"),
        (9, 1_000, "price_range"),
        (1_000_000, 1_000, "none"),
        (1_000_010, 1_000, "price_range"),
        (15, 1_000, "tick_size"),
        (20, 900, "quantity_range"),
        (20, 1_050, "step_size"),
        (20, 1_100, "none"),
        (20, 10_000_000, "none"),
        (20, 10_000_100, "quantity_range"),
    ],
)
def test_filters(price, quantity, expected):
    assert name(c.filters(INSTRUMENTS, SPOT, m.LIMIT, price, quantity, 0)) == expected


def test_filters_of_market_orders_look_at_quantity_alone():
    assert name(c.filters(INSTRUMENTS, SPOT, m.MARKET, 0, 1_000, 0)) == "none"
    assert name(c.filters(INSTRUMENTS, SPOT, m.MARKET, 0, 1_050, 0)) == "step_size"


def test_filters_look_at_a_stop_price_too():
    for order_type, price in ((m.STOP_LOSS, 0), (m.TAKE_PROFIT_LIMIT, 20)):
        for stop_price, expected in ((10, "none"), (9, "price_range"), (1_000_010, "price_range"), (15, "tick_size")):
            assert name(c.filters(INSTRUMENTS, SPOT, order_type, price, 1_000, stop_price)) == expected
    assert name(c.filters(INSTRUMENTS, SPOT, m.STOP_LOSS_LIMIT, 15, 1_000, 20)) == "tick_size"
    assert name(c.filters(INSTRUMENTS, SPOT, m.STOP_LOSS, 0, 1_050, 20)) == "step_size"


def test_the_limit_of_a_stop_order_is_compared_with_its_stop_price(rows):
    rows["collar"] = 1_000_000  # 1 %
    for price, expected in ((29_700, "none"), (29_699, "price_collar"), (30_300, "none"), (30_301, "price_collar")):
        assert name(c.price_collar(rows, SPOT, m.STOP_LOSS_LIMIT, price, 30_000)) == expected
    assert name(c.price_collar(rows, SPOT, m.STOP_LOSS_LIMIT, 50_000, 30_000)) == "price_collar"
    assert name(c.price_collar(rows, SPOT, m.TAKE_PROFIT, 0, 30_000)) == "none"
    rows["touch_valid"] = 0
    assert name(c.price_collar(rows, SPOT, m.TAKE_PROFIT, 0, 30_000)) == "no_touch"


def test_a_stop_without_a_limit_is_valued_where_it_is_worth_more(rows):
    rows["collar"] = 1_000_000  # 1 %
    for order_type in (m.STOP_LOSS, m.TAKE_PROFIT):
        assert c.valuation_price(rows, INSTRUMENTS, 0, order_type, 0, 60_000) == 60_600
        assert c.valuation_price(rows, INSTRUMENTS, 0, order_type, 0, 40_000) == 50_511
        assert c.valuation_price(rows, INSTRUMENTS, 1, order_type, 0, 40_000) == 39_600
        assert c.valuation_price(rows, INSTRUMENTS, 1, order_type, 0, 60_000) == 49_500
        assert c.valuation_price(rows, INSTRUMENTS, 0, order_type + 1, 123, 60_000) == 123
    rows["collar"] = MAX - 1
    assert c.valuation_price(rows, INSTRUMENTS, 0, m.STOP_LOSS, 0, MAX - 1) == OVERFLOW


@pytest.mark.parametrize(("price", "good"), [(49_500, True), (49_499, False), (50_510, True), (50_511, False)])
def test_price_collar(rows, price, good):
    rows["collar"] = 1_000_000  # 1 %: from 49,500 to 50,510.1
    assert name(c.price_collar(rows, SPOT, m.LIMIT, price, 0)) == ("none" if good else "price_collar")


def test_price_collar_without_a_touch_or_beyond_it(rows):
    rows["collar"] = 2 * c.COLLAR_UNIT
    assert name(c.price_collar(rows, SPOT, m.LIMIT, 1, 0)) == "none"
    assert name(c.price_collar(rows, SPOT, m.LIMIT, 150_030, 0)) == "none"
    assert name(c.price_collar(rows, SPOT, m.LIMIT, 150_031, 0)) == "price_collar"
    assert name(c.price_collar(rows, SPOT, m.MARKET, 0, 0)) == "none"
    rows["touch_valid"] = 0
    assert name(c.price_collar(rows, SPOT, m.LIMIT, 50_000, 0)) == "no_touch"
    assert name(c.price_collar(rows, SPOT, m.MARKET, 0, 0)) == "no_touch"


def test_valuation_price(rows):
    rows["collar"] = 1_000_000
    assert c.valuation_price(rows, INSTRUMENTS, 0, m.LIMIT, 123, 0) == 123
    assert c.valuation_price(rows, INSTRUMENTS, 0, m.MARKET, 0, 0) == 50_511
    assert c.valuation_price(rows, INSTRUMENTS, 1, m.MARKET, 0, 0) == 49_500
    rows["collar"] = c.COLLAR_UNIT
    assert c.valuation_price(rows, INSTRUMENTS, 1, m.MARKET, 0, 0) == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10 * 10**8, "none"),
        (10 * 10**8 - 1, "notional_range"),
        (100_000 * 10**8, "none"),
        (100_000 * 10**8 + 1, "notional_range"),
        (OVERFLOW, "overflow"),
    ],
)
def test_notional_range(value, expected):
    assert name(c.notional_range(INSTRUMENTS, SPOT, value)) == expected


def test_order_size(rows):
    rows["order_quantity_max"], rows["order_value_max"] = 5, 70
    expected = {(5, 70): "none", (6, 70): "order_quantity", (5, 71): "order_value", (5, OVERFLOW): "overflow"}
    assert {given: name(c.order_size(rows, SPOT, *given)) for given in expected} == expected


@pytest.mark.parametrize(
    ("position", "side", "quantity", "expected"),
    [
        (0, m.BUY, 8, "none"),
        (0, m.BUY, 9, "position"),
        (3, m.BUY, 5, "none"),
        (3, m.BUY, 6, "position"),
        (-3, m.SELL, 6, "none"),
        (-3, m.SELL, 7, "position"),
        (20, m.SELL, 5, "none"),
        (20, m.BUY, 1, "position"),
        (2**63 - 1, m.BUY, 1, "overflow"),
        (OVERFLOW, m.SELL, 1, "overflow"),
    ],
)
def test_worst_position(rows, positions, position, side, quantity, expected):
    rows["open_buy"], rows["open_sell"], rows["position_max"] = 2, 1, 10
    positions.rows[SPOT]["position"] = position
    assert name(c.worst_position(rows, positions, SPOT, side, quantity)) == expected


def test_gross_exposure(rows, totals, positions):
    rows["gross_exposure_max"] = 100
    totals[USD]["open_value"], positions.accounts[USD]["value"] = 30, 50
    assert name(c.gross_exposure(rows, totals, positions, SPOT, USD, 20)) == "none"
    assert name(c.gross_exposure(rows, totals, positions, SPOT, USD, 21)) == "gross_exposure"
    positions.accounts[USD]["value"] = OVERFLOW
    assert name(c.gross_exposure(rows, totals, positions, SPOT, USD, 1)) == "overflow"


def test_open_orders(rows):
    rows["open_orders_max"] = 3
    for count, expected in ((2, "none"), (3, "open_orders")):
        rows["open_orders"] = count
        assert name(c.open_orders(rows, INSTRUMENTS, SPOT, m.LIMIT)) == expected


@pytest.mark.parametrize(
    ("most", "open_stops", "order_type", "expected"),
    [
        (0, 9, m.STOP_LOSS, "none"),
        (2, 1, m.STOP_LOSS, "none"),
        (2, 2, m.TAKE_PROFIT_LIMIT, "open_orders"),
        (2, 3, m.STOP_LOSS_LIMIT, "open_orders"),
        (2, 2, m.LIMIT, "none"),
        (2, 2, m.MARKET, "none"),
    ],
)
def test_open_stop_orders(rows, most, open_stops, order_type, expected):
    instruments = INSTRUMENTS.copy()
    instruments["stop_orders_max"], rows["open_orders_max"], rows["open_stops"] = most, 100, open_stops
    assert name(c.open_orders(rows, instruments, SPOT, order_type)) == expected


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [(2_999, "quantity_range"), (3_000, "none"), (3_001, "step_size"), (9_000, "none"), (9_001, "quantity_range")],
)
def test_market_filter(quantity, expected):
    instruments = INSTRUMENTS.copy()
    instruments["step"], instruments["market_step"] = 1, 100
    instruments["market_quantity_min"], instruments["market_quantity_max"] = 3_000, 9_000
    assert name(c.filters(instruments, SPOT, m.MARKET, 0, quantity, 0)) == expected
    assert name(c.filters(instruments, SPOT, m.LIMIT, 50_000, quantity, 0)) == "none"
    assert name(c.filters(instruments, SPOT, m.STOP_LOSS, 0, quantity, 50_000)) == "none"


@pytest.mark.parametrize("order_type", range(m.LIMIT, m.TAKE_PROFIT_LIMIT + 1))
@pytest.mark.parametrize("mode", range(m.TRANSFER + 1))
def test_supported(order_type, mode):
    instruments = INSTRUMENTS.copy()
    assert name(c.supported(instruments, SPOT, order_type, mode, True)) == "none"
    for field, value, good in (
        ("refused_types", 1 << order_type - 1, False),
        ("refused_types", 127 ^ 1 << order_type - 1, True),
        ("refused_modes", 63, mode == 0),
        ("refused_modes", 63 ^ (1 << mode - 1 if mode else 0), True),
        ("refused_requests", m.NO_REPLACE, False),
        ("refused_requests", m.NO_AMEND, True),
    ):
        instruments = INSTRUMENTS.copy()
        instruments[SPOT][field] = value
        assert name(c.supported(instruments, SPOT, order_type, mode, True)) == ("none" if good else "not_supported")
        assert name(c.supported(instruments, OTHER, order_type, mode, True)) == "none"
    assert name(c.supported(instruments, SPOT, order_type, mode, False)) == "none"


def test_message_rate_is_exact():
    seed = 17
    random = np.random.default_rng(seed)
    length, window = 7, 100
    times, newest, past, now = np.full(length, -(1 << 62), np.int64), 0, [], 0
    for _ in range(3_000):
        now += int(random.integers(0, 40))
        for allowed in (length, 5, 1):
            full = sum(now - then < window for then in past) >= allowed
            assert (name(c.message_rate(times, newest, allowed, window, now)) == "message_rate") == full, seed
        if c.message_rate(times, newest, length, window, now) == c.PASS:
            times[newest] = now
            newest = (newest + 1) % length
            past.append(now)


def test_duplicate(rows):
    rows["duplicate_ns"] = 50
    recent = np.zeros((3, c.RECENT), c.RECENT_ORDER)
    recent[SPOT, 7]["price"], recent[SPOT, 7]["quantity"], recent[SPOT, 7]["time_ns"] = 100, -5, 1_000
    expected = {
        (100, -5, 1_049): "duplicate", (100, -5, 1_050): "none", (100, 5, 1_010): "none", (101, -5, 1_010): "none",
    }  # fmt: skip
    assert {given: name(c.duplicate(rows, recent, SPOT, *given)) for given in expected} == expected
    assert name(c.duplicate(rows, recent, 1, 100, -5, 1_010)) == "none"


def test_market_data(rows):
    rows["market_data_age_ns"] = 50
    assert name(c.market_data(rows, SPOT, 1_050)) == "none"
    assert name(c.market_data(rows, SPOT, 1_051)) == "stale_touch"
    rows["touch_valid"] = 0
    assert name(c.market_data(rows, SPOT, 1_000)) == "no_touch"


def test_intent_age(rows):
    rows["intent_age_ns"] = 20
    expected = {100: "none", 80: "none", 79: "intent_age", 101: "intent_age"}
    assert {time_ns: name(c.intent_age(rows, SPOT, time_ns, 100)) for time_ns in expected} == expected


def test_daily_loss(rows, totals, positions):
    rows["daily_loss_max"] = 100
    account = positions.accounts
    account[USD]["realised"], account[USD]["unrealised"], account[USD]["charges"] = 5, -50, 4
    totals[USD]["day_start"] = 50
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "none"
    account[USD]["charges"] = 5
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "daily_loss"
    account[USD]["charges"] = OVERFLOW
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "overflow"
    account[USD]["charges"], totals[USD]["day_start"] = 0, OVERFLOW
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "overflow"
    totals[USD]["day_start"] = -45
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "none"
    positions.rows[SPOT]["unconverted"] = 1
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "no_conversion"
    totals[USD]["day_start"] = 55
    assert name(c.daily_loss(rows, totals, positions, SPOT, USD)) == "daily_loss"  # and risk kills


def test_streaks(rows):
    rows["repeated_execution_max"] = 3
    for streak, expected in ((2, "none"), (3, "repeated_execution"), (-2, "none"), (-3, "repeated_execution")):
        rows["streak"] = streak
        assert name(c.repeated_execution(rows, SPOT)) == expected
    assert name(c.reject_streak(4, 5)) == "none"
    assert name(c.reject_streak(5, 5)) == "reject_streak"


def test_self_trade(rows):
    for side in (m.BUY, m.SELL):
        assert name(c.self_trade(rows, SPOT, side, m.MARKET, 0, 0)) == "none"
        assert name(c.self_trade(rows, SPOT, side, m.LIMIT, 50_000, 0)) == "none"
    rows["best_buy"], rows["best_sell"] = 100, 110
    expected = {(m.BUY, 109): "none", (m.BUY, 110): "self_trade", (m.SELL, 101): "none", (m.SELL, 100): "self_trade"}
    for (side, price), reason in expected.items():
        assert name(c.self_trade(rows, SPOT, side, m.LIMIT, price, m.STP_NONE)) == reason
    assert name(c.self_trade(rows, SPOT, m.BUY, m.MARKET, 0, 0)) == "self_trade"
    assert name(c.self_trade(rows, SPOT, m.SELL, m.MARKET, 0, 0)) == "self_trade"


def test_an_order_that_has_the_venue_prevent_self_trades_may_meet_our_own(rows):
    rows["best_buy"], rows["best_sell"] = 100, 110
    for mode, expected in ((0, "self_trade"), (m.STP_NONE, "self_trade"), (m.EXPIRE_TAKER, "none"), (6, "none")):
        assert name(c.self_trade(rows, SPOT, m.BUY, m.LIMIT, 110, mode)) == expected
    rows["best_buy"], rows["best_sell"] = 0, MAX
    for order_type in (m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT):
        assert name(c.self_trade(rows, SPOT, m.BUY, order_type, 50, m.STP_NONE)) == "self_trade"
        assert name(c.self_trade(rows, SPOT, m.BUY, order_type, 50, m.EXPIRE_MAKER)) == "none"


def test_repeated_cause():
    assert name(c.repeated_cause(6, 5)) == "none"
    assert name(c.repeated_cause(5, 5)) == "repeated_cause"


def test_the_desk_has_limits_for_every_instrument():
    assert {row["symbol"].decode() for row in INSTRUMENTS} == set(make_config().limits)
