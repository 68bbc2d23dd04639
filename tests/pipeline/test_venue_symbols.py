"""exchangeInfo against the instruments: what is obeyed, what is refused, and what is hostile."""

from __future__ import annotations

import contextlib
import copy

import pytest

from shrivenq.pipeline.venue_symbols import SymbolsError, compare, read_symbols
from tests.hostile_json import mutations
from tests.pipeline.pipeline_rig import tables


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
    return compare(read_symbols(info(**changes)), tables())


def test_what_agrees_says_nothing():
    found = compared()
    assert found[:4] == ([], [], [], [])
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
    assert compared(**change).refusals == [said]


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
    found = compared(**change)
    assert not found.refusals
    assert len(found.stricter) == 1
    assert found.stricter[0] in found.notes[0]
    assert found.notes[0].endswith("the venue's is obeyed")
    row = found.tables.instruments[0]
    assert row[field] == value
    assert compare(read_symbols(info(**change)), found.tables).notes == [], "obeyed, it no longer differs"


def test_a_laxer_limit_of_the_venue_changes_nothing_but_is_told():
    found = compared(LOT_SIZE__maxQty="10000", NOTIONAL__minNotional="1")
    assert not found.stricter
    assert len(found.notes) == 2
    assert all(line.endswith("the configuration's is obeyed") for line in found.notes)
    assert (found.tables.instruments == tables().instruments).all()


def test_a_rule_that_is_off_or_missing_is_none():
    assert compared(PRICE_FILTER__minPrice="0", PRICE_FILTER__tickSize="0.00").notes == []
    bare = info()
    bare["symbols"][0]["filters"] = []
    assert compare(read_symbols(bare), tables())[:4] == ([], [], [], [])


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


@pytest.mark.parametrize("value", ["abc", "-1", "NaN", "Infinity", "1e99", str(1 << 70), "0." + "1" * 30, {}, [], True])
def test_a_filter_that_is_no_number_is_told(value):
    if value is True:
        assert compared(PRICE_FILTER__minPrice=value).notes
        return
    with pytest.raises(SymbolsError, match=r"^BTCUSDT: PRICE_FILTER.minPrice is [^\n]+$"):
        compared(PRICE_FILTER__minPrice=value)


@pytest.mark.parametrize(
    "hostile",
    [None, [], {}, {"symbols": None}, {"symbols": [None]}, {"symbols": [{}]}, {"symbols": [{"symbol": "A"}]},
     {"symbols": [{"symbol": 1, "status": "", "baseAsset": "", "quoteAsset": "", "filters": []}]},
     {"symbols": [{"symbol": "A", "status": "", "baseAsset": "", "quoteAsset": "", "filters": [1]}]}],
)  # fmt: skip
def test_what_is_no_exchange_info_is_told(hostile):
    with pytest.raises(SymbolsError, match=r"^exchangeInfo: [^\n]+$"):
        read_symbols(hostile)


def test_whatever_is_said_it_is_compared_or_refused():
    ours = tables()
    for hostile in mutations(info(), more=("1e500", "1e-500", "-0", "inf", str(1 << 70), 10**17)):
        with contextlib.suppress(SymbolsError):
            compare(read_symbols(hostile), ours)
