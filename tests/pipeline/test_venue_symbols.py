"""exchangeInfo against the instruments: what is obeyed, what is refused, and what is hostile."""

from __future__ import annotations

import contextlib
import copy
import re

import pytest

from shrivenq.pipeline.venue_symbols import Comparison, SymbolsError, compare, read_symbols
from shrivenq.stages import control
from tests.hostile_json import mutations
from tests.pipeline.pipeline_rig import tables

NOTHING = Comparison([], [], [], [])


def info(**changes):
    """What the venue would say of the shipped instruments; `changes` of BTCUSDT: status, or FILTER__key."""
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "maxNotional": "9000000.00000000"},
        {"filterType": "ICEBERG_PARTS", "limit": 100},
    ]
    made = []
    for base, step in (("BTC", "0.00001"), ("ETH", "0.0001")):
        own = copy.deepcopy(filters)
        own[1]["stepSize"] = own[1]["minQty"] = step
        made.append({
            "symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT", "filters": own,
        })  # fmt: skip
    for key, value in changes.items():
        where, _, name = key.partition("__")
        if name:
            next(one for one in made[0]["filters"] if one["filterType"] == where)[name] = value
        else:
            made[0][key] = value
    return {"symbols": made}


def compared(**changes):
    """Compare BTCUSDT; ETHUSDT, of which nothing is changed, must agree."""
    found = compare(read_symbols(info(**changes)), tables())
    assert found.instruments[1] == NOTHING
    return found.instruments[0]


def test_what_agrees_says_nothing():
    found = compare(read_symbols(info()), tables())
    assert found.instruments == [NOTHING, NOTHING]
    assert found.instruments[0].holds() == 0
    assert (found.tables.instruments == tables().instruments).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PRICE_FILTER__tickSize": "0.1"}, "BTCUSDT: tick is 0.01, the venue's tickSize is 0.1"),
        ({"PRICE_FILTER__tickSize": "0.001"}, "BTCUSDT: price_decimals is 2, the venue's tickSize 0.001 needs more"),
        ({"LOT_SIZE__stepSize": "0.1"}, "BTCUSDT: step is 0.00001, the venue's stepSize is 0.1"),
        ({"baseAsset": "XBT"}, "BTCUSDT: base is BTC, the venue's is XBT"),
        ({"symbol": "NEWUSDT"}, "BTCUSDT: the venue has no such symbol"),
    ],
)
def test_what_everything_is_built_on_refuses(change, said):
    found = compared(**change)
    assert found.refusals == [said]
    assert found.holds() == control.OTHER_RULES


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"PRICE_FILTER__minPrice": "10"}, "price_min", 1000),
        ({"PRICE_FILTER__maxPrice": "999.999"}, "price_max", 99_999),
        ({"LOT_SIZE__minQty": "0.5"}, "quantity_min", 50_000_000),
        ({"LOT_SIZE__maxQty": "10"}, "quantity_max", 1_000_000_000),
        ({"NOTIONAL__minNotional": "10"}, "notional_min", 1_000_000_000),
        ({"NOTIONAL__maxNotional": "100"}, "notional_max", 10_000_000_000),
    ],
)
def test_the_stricter_limit_is_obeyed_and_told(change, field, value):
    found, obeyed = compare(read_symbols(info(**change)), tables())
    assert found[1] == NOTHING
    assert not found[0].refusals
    assert len(found[0].stricter) == 1
    assert found[0].stricter[0] in found[0].notes[0]
    assert found[0].notes[0].endswith("the venue's is obeyed")
    assert found[0].holds() == control.OTHER_RULES
    assert obeyed.instruments[0][field] == value
    assert compare(read_symbols(info(**change)), obeyed).instruments[0] == NOTHING, "obeyed, it no longer differs"


def test_a_laxer_limit_of_the_venue_changes_nothing_but_is_told():
    (found, _), obeyed = compare(read_symbols(info(LOT_SIZE__maxQty="10000", NOTIONAL__minNotional="1")), tables())
    assert found.holds() == 0
    assert len(found.notes) == 2
    assert all(line.endswith("the configuration's is obeyed") for line in found.notes)
    assert (obeyed.instruments == tables().instruments).all()


def test_a_rule_that_is_off_or_missing_is_none():
    assert compared(PRICE_FILTER__minPrice="0", PRICE_FILTER__tickSize="0.00") == NOTHING
    assert compared(filters=[]) == NOTHING


def test_no_highest_notional_of_ours_is_laxer_than_any():
    free = tables()
    free.instruments["notional_max"] = 0
    assert compare(read_symbols(info()), free).tables.instruments[0]["notional_max"] == 900_000_000_000_000


@pytest.mark.parametrize("status", ["HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY", "SOMETHING_NEW"])
def test_a_symbol_that_is_not_trading_is_told(status):
    found = compared(status=status)
    assert found.halted == [f"BTCUSDT: status {status}, orders only in TRADING"]
    assert found.notes == found.halted
    assert not found.refusals
    assert found.holds() == control.NOT_TRADING


@pytest.mark.parametrize("name", ["PRICE_FILTER__minPrice", "LOT_SIZE__stepSize", "NOTIONAL__maxNotional"])
@pytest.mark.parametrize(
    "value", ["abc", "-1", "NaN", "Infinity", "1e99", str(1 << 70), "0." + "1" * 30, {}, [], True, None, 0.1]
)
def test_a_filter_that_is_no_number_is_refused_in_one_line(name, value):
    found = compared(**{name: value})
    (line,) = found.refusals
    assert re.fullmatch(rf"BTCUSDT: {name.replace('__', '.')} is [^\n]+", line)
    assert found.holds() == control.OTHER_RULES


@pytest.mark.parametrize(
    "hostile",
    [None, [], {}, {"symbols": None}, {"symbols": [None]}, {"symbols": [{}]}, {"symbols": [{"symbol": 1}]}],
)
def test_what_is_no_exchange_info_is_told(hostile):
    with pytest.raises(SymbolsError, match=r"^exchangeInfo: [^\n]+$"):
        read_symbols(hostile)


@pytest.mark.parametrize("change", [{"status": 1}, {"baseAsset": None}, {"quoteAsset": []}, {"filters": [1]},
                                    {"filters": {}}, {"filters": None}, {"filters": [{"filterType": 7}]}])  # fmt: skip
def test_a_symbol_that_makes_no_sense_is_refused_alone(change):
    found = compared(**change)
    if change == {"filters": {}}:
        assert found == NOTHING
        return
    (line,) = found.refusals
    assert re.fullmatch(r"BTCUSDT: exchangeInfo is not what was expected: [^\n]+", line)
    assert found.holds() == control.OTHER_RULES


def test_whatever_is_said_it_is_compared_or_refused():
    ours = tables()
    for hostile in mutations(info(), more=("1e500", "1e-500", "-0", "inf", str(1 << 70), 10**17)):
        with contextlib.suppress(SymbolsError):
            compare(read_symbols(hostile), ours)
