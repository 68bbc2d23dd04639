"""Limits: what is refused, and in which words."""

from __future__ import annotations

import msgspec
import pytest

from shrivenq.stages import risk_checks as c
from shrivenq.stages.risk_limits import Config, Limits, check_instruments, limit_rows
from tests.stages.risk_desk import LIMITS, PERPETUAL, SPOT, make_config, tables

AMOUNTS = [key for key, value in LIMITS.items() if isinstance(value, str)]
COUNTS = [key for key, value in LIMITS.items() if isinstance(value, int)]


@pytest.mark.parametrize("key", AMOUNTS)
@pytest.mark.parametrize("found", ["nan", "inf", "-1", "0", "0.000", "", " 1", "1e3", "1.", ".5", "١"])
def test_amounts_are_positive_decimals(key, found):
    with pytest.raises(ValueError, match=rf'^{key}: found "{found}", allowed: a decimal number above 0 in quotes'):
        Limits(**(LIMITS | {key: found}))


@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("found", [0, -1, 2**40])
def test_counts_are_positive(key, found):
    with pytest.raises(ValueError, match=rf"^{key}: found {found}, allowed: a whole number from 1 to \d+$"):
        Limits(**(LIMITS | {key: found}))


def test_the_reserve_leaves_room_for_orders():
    with pytest.raises(ValueError, match=r"^cancel_reserve: found 100, allowed: less than message_rate_max, 100$"):
        make_config(cancel_reserve=100)


@pytest.mark.parametrize("key", LIMITS)
def test_a_missing_limit_is_refused(key):
    table = {"limits": {"SPOT": {name: value for name, value in LIMITS.items() if name != key}}}
    table |= {"message_rate_max": 100, "message_window_ms": 1, "cancel_reserve": 1, "reject_streak_max": 1}
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.convert(table, Config)


def test_an_unknown_key_and_a_float_are_refused():
    for table in (LIMITS | {"colour": "1"}, LIMITS | {"position_max": float("nan")}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(table, Limits)


def test_limits_become_integers():
    instruments, currencies = tables()
    rows = limit_rows(make_config({"price_collar_bps": "12.5"}), instruments, currencies)
    assert rows[SPOT]["collar"] == 125_000  # of 1e8
    assert rows[SPOT]["order_quantity_max"] == 5 * 10**6
    assert rows[SPOT]["order_value_max"] == 30_000 * 10**8
    assert rows[PERPETUAL]["order_quantity_max"] == 500
    assert rows[PERPETUAL]["daily_loss_max"] == 10**8
    assert rows[SPOT]["intent_age_ns"] == 20_000_000
    assert rows[SPOT]["best_sell"] == c.NUMBER_MAX


def test_a_limit_too_fine_or_too_large_is_refused():
    instruments, currencies = tables()
    with pytest.raises(
        ValueError, match=r'^risk\.limits\.PERP\.position_max: found "0.5", allowed: at most 0 decimals'
    ):
        limit_rows(make_config(perpetual={"position_max": "0.5"}), instruments, currencies)
    with pytest.raises(ValueError, match=r"^risk\.limits\.SPOT\.order_value_max: found "):
        limit_rows(make_config({"order_value_max": "1" + "0" * 20}), instruments, currencies)


def test_limits_and_instruments_must_match():
    instruments, currencies = tables()
    config = make_config()
    fewer = msgspec.structs.replace(config, limits={"SPOT": config.limits["SPOT"]})
    with pytest.raises(ValueError, match=r"^risk\.limits\.PERP: missing"):
        limit_rows(fewer, instruments, currencies)
    with pytest.raises(ValueError, match=r"^risk\.limits\.OTHER: no such instrument, allowed: SPOT, PERP$"):
        limit_rows(config, instruments[:2], currencies)


def test_instruments_the_arithmetic_cannot_do_are_refused():
    instruments, _ = tables()
    check_instruments(instruments)
    for key, value, words in (("settle_currency", 0, "linear instruments settle"), ("tick", 0, r"SPOT\.tick: found 0")):
        broken = instruments.copy()
        broken[SPOT][key] = value
        with pytest.raises(ValueError, match=words):
            check_instruments(broken)
