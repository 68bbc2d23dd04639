"""Rate limits: intervals aligned to the clock, refusals, bans."""

import random

import pytest

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.limits import BAN_MAX_US, Address, Limits, Orders, Rule, Rules, Window

MINUTE = 60_000_000
NOW = 1_700_000_000_000_000 // MINUTE * MINUTE
RULES = Rules(
    weight=Rule("REQUEST_WEIGHT", "MINUTE", 1, 100),
    raw=Rule("RAW_REQUESTS", "MINUTE", 5, 1_000),
    orders=(Rule("ORDERS", "SECOND", 10, 3), Rule("ORDERS", "DAY", 1, 1_000)),
    connections=Rule("CONNECTIONS", "MINUTE", 5, 2),
    ban_after=3,
    ban_us=2 * MINUTE,
)


def refused(work, *arguments):
    with pytest.raises(ApiError) as caught:
        work(*arguments)
    return caught.value


def test_rules_as_exchange_info_lists_them():
    assert RULES.as_list()[0] == {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": 100,
    }
    assert [one["rateLimitType"] for one in RULES.as_list()] == ["REQUEST_WEIGHT", "ORDERS", "ORDERS", "RAW_REQUESTS"]
    assert [rule.letters for rule in (RULES.weight, *RULES.orders)] == ["1M", "10S", "1D"]


def test_a_window_against_a_list_of_everything_added():
    rule = Rule("ORDERS", "SECOND", 10, 50)
    for seed in range(20):
        dice = random.Random(seed)
        window, added, now = Window(rule), [], NOW
        for _ in range(300):
            now += dice.randrange(3_000_000)
            added.append((now, dice.randrange(5)))
            window.add(added[-1][1], now)
            begin = now // 10_000_000 * 10_000_000
            expected = sum(number for when, number in added if when >= begin)
            assert window.count(now) == expected, f"seed {seed}"
            assert window.end_us(now) == begin + 10_000_000, f"seed {seed}"
            assert window.room(1, now) == (expected < 50), f"seed {seed}"


def test_weight_is_charged_until_it_is_used_up_then_429_with_when_to_come_again():
    address = Address(RULES)
    for _ in range(10):
        address.charge(10, NOW)
    error = refused(address.charge, 1, NOW + 5)
    assert (error.status, error.code, error.retry_us) == (429, -1003, NOW + MINUTE)
    assert error.msg.startswith("Too much request weight used; current limit is 100 request weight per 1 MINUTE.")
    address.charge(100, NOW + MINUTE)


def test_raw_requests_are_limited_whatever_they_weigh():
    address = Address(RULES)
    for number in range(1_000):
        address.charge(0, NOW + number)
    assert refused(address.charge, 0, NOW).status == 429


def test_who_goes_on_after_429_is_banned_each_time_for_longer():
    address, now, lengths = Address(RULES), NOW, []
    for _ in range(14):
        address.charge(100, now)
        for _ in range(3):
            assert refused(address.charge, 1, now).status == 429
        error = refused(address.charge, 1, now)
        assert (error.status, error.code) == (418, -1003)
        assert error.msg.startswith(f"Way too much request weight used; IP banned until {error.retry_us // 1000}.")
        lengths.append(error.retry_us - now)
        assert refused(address.charge, 0, now + lengths[-1] - 1).status == 418
        assert not address.connect(now)
        now = (now + lengths[-1]) // MINUTE * MINUTE + MINUTE
    assert lengths == [min(2 * MINUTE << number, BAN_MAX_US) for number in range(14)]
    assert lengths[-1] == BAN_MAX_US == 3 * 24 * 60 * MINUTE


def test_an_accepted_request_forgives_earlier_refusals():
    address = Address(RULES)
    address.charge(100, NOW)
    for minute in range(5):
        for _ in range(3):
            assert refused(address.charge, 1, NOW + minute * MINUTE).status == 429
        address.charge(100, NOW + (minute + 1) * MINUTE)


def test_connections_are_counted_by_attempt():
    address = Address(RULES)
    assert [address.connect(NOW) for _ in range(3)] == [True, True, False]
    assert address.connect(NOW + 5 * MINUTE)


def test_orders_are_counted_by_account_and_fills_take_off():
    orders = Orders(RULES)
    for _ in range(3):
        orders.check(NOW)
        orders.add(1, NOW)
    error = refused(orders.check, NOW)
    assert (error.status, error.code, error.retry_us) == (429, -1015, NOW + 10_000_000)
    assert error.msg == "Too many new orders; current limit is 3 orders per 10 SECOND."
    orders.filled(NOW, maker=False)
    orders.check(NOW)
    assert [window.count(NOW) for window in orders.windows] == [2, 2]
    orders.filled(NOW, maker=True)
    assert [window.count(NOW) for window in orders.windows] == [0, 0]
    assert orders.windows[0].as_dict(NOW) == {
        "rateLimitType": "ORDERS",
        "interval": "SECOND",
        "intervalNum": 10,
        "limit": 3,
        "count": 0,
    }


def test_addresses_and_accounts_do_not_share():
    limits = Limits(RULES)
    limits.address("10.0.0.1").charge(100, NOW)
    limits.address("10.0.0.2").charge(100, NOW)
    limits.orders(1).add(3, NOW)
    limits.orders(2).check(NOW)
    assert limits.address("10.0.0.1") is limits.address("10.0.0.1")
    assert limits.orders(1).windows[0].count(NOW) == 3
