"""Instrument files: what ships, and what is refused."""

from __future__ import annotations

import gzip
import re
from itertools import islice

import pytest

from shrivenq.pipeline.config import SHIPPED
from shrivenq.pipeline.instruments import read_instruments
from shrivenq.stages.risk_limits import check_instruments

SPOT = (SHIPPED / "instruments_binance_spot.toml").read_text()
CM = (SHIPPED / "instruments_binance_cm.toml").read_text()


def read(tmp_path, text, symbols=()):
    path = tmp_path / "i.toml"
    path.write_text(text)
    tables, errors = read_instruments(path, symbols)
    assert (tables is None) == bool(errors)
    assert all(one.startswith(f"{path}: ") and "\n" not in one for one in errors)
    return tables, [one.removeprefix(f"{path}: ") for one in errors]


def shipped(venue, symbol):
    tables, errors = read_instruments(SHIPPED / f"instruments_binance_{venue}.toml", [symbol])
    assert errors == []
    assert len(tables.instruments) == 1
    check_instruments(tables.instruments)
    return tables.instruments[0], tables.currencies


def test_spot_in_integers():
    row, currencies = shipped("spot", "BTCUSDT")
    assert row["symbol"] == b"BTCUSDT"
    assert (row["tick"], row["price_decimals"]) == (1, 2)
    assert (row["step"], row["quantity_decimals"]) == (1000, 8)
    assert (row["contract_size"], row["notional_min"]) == (10**8, 5 * 10**8)
    assert (row["maker_fee"], row["taker_fee"]) == (100_000, 100_000)  # 10 bps = 0.001 = 100,000 × 1e-8
    codes = [currencies[row[key]]["code"] for key in ("base_currency", "quote_currency", "settle_currency")]
    assert codes == [b"BTC", b"USDT", b"USDT"]
    assert (row["inverse"], row["futures"], row["tradable"]) == (0, 0, 1)


def test_linear_futures_in_integers():
    row, _ = shipped("usdm", "BTCUSDT")
    assert (row["tick"], row["step"], row["contract_size"]) == (10, 1, 1000)
    assert (row["inverse"], row["futures"]) == (0, 1)


def test_inverse_futures_in_integers():
    row, currencies = shipped("cm", "BTCUSD_PERP")
    assert (row["tick"], row["step"], row["quantity_decimals"]) == (1, 1, 0)
    assert row["contract_size"] == 100 * 10**8  # USD, at its eight decimals
    assert currencies[row["settle_currency"]]["code"] == b"BTC"
    assert (row["inverse"], row["futures"]) == (1, 1)


@pytest.mark.parametrize(
    ("venue", "symbol", "file"),
    [
        ("spot", "BTCUSDT", "btcusdt_20240808.gz"),
        ("usdm", "BTCUSDT", "btcusdt_20240808.gz"),
        ("cm", "BTCUSD_PERP", "btcusd_perp_20240808.gz"),
    ],
)
def test_captured_numbers_have_the_decimals_told_and_prices_lie_on_ticks(data, venue, symbol, file):
    row, _ = shipped(venue, symbol)
    seen = 0
    with gzip.open(data / "binance" / venue / file, "rt") as capture:
        for line in islice(capture, 3_000):
            for price, quantity in re.findall(r'\["([\d.]+)","([\d.]+)"\]', line):
                whole, _, fraction = price.partition(".")
                decimals = int(row["price_decimals"])
                assert not fraction[decimals:].strip("0"), line[:80]
                assert int(whole + fraction.ljust(decimals, "0")[:decimals]) % row["tick"] == 0
                assert not quantity.partition(".")[2][int(row["quantity_decimals"]) :].strip("0")
                seen += 1
    assert seen > 10_000


def test_symbols_are_chosen_in_order(tmp_path):
    tables, _ = read(tmp_path, SPOT, ["ETHUSDT", "BTCUSDT"])
    assert tables.instruments["symbol"].tolist() == [b"ETHUSDT", b"BTCUSDT"]
    assert read(tmp_path, SPOT, ["XRPUSDT"])[1] == ["instruments: found no XRPUSDT, allowed: BTCUSDT, ETHUSDT"]
    assert read(tmp_path, SPOT, ["BTCUSDT", "BTCUSDT"])[1] == ["instruments: BTCUSDT asked for twice"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'tick = "0.01"',
            'tick = "0.001"',
            'tick: found "0.001", allowed: a decimal number in quotes, above 0, at most 2',
        ),
        ('tick = "0.01"', 'tick = "0"', 'tick: found "0", allowed: a decimal number in quotes, above 0'),
        ('tick = "0.01"', 'tick = "-0.01"', 'tick: found "-0.01"'),
        ('tick = "0.01"', 'tick = "nan"', 'tick: found "nan"'),
        ('tick = "0.01"', 'tick = "1e-2"', 'tick: found "1e-2"'),
        ('tick = "0.01"', 'tick = "٠.٠١"', 'tick: found "٠.٠١"'),
        ('tick = "0.01"', "tick = 0.01", "tick: found 0.01, allowed: a string"),
        ('tick = "0.01"', "", "tick: missing, allowed: a string"),
        ('tick = "0.01"', 'tick = "0.03"', 'price_min: found "0.01", allowed: a multiple of tick = "0.03"'),
        ('step = "0.00001"', 'step = "0.00007"', "quantity_min:"),
        ('price_min = "0.01"', 'price_min = "2000000"', 'price_min: found "2000000", allowed: not above price_max'),
        ('quantity_max = "9000"', 'quantity_max = "99999999999999"', "quantity_max: found"),
        ('notional_min = "5"', 'notional_min = "9000001"', "notional_min:"),
        ('contract_size = "1"', 'contract_size = "2"', 'contract_size: found "2", allowed: "1" for spot'),
        ('taker_fee_bps = "10"', 'taker_fee_bps = "-1"', 'taker_fee_bps: found "-1"'),
        ('maker_fee_bps = "10"', 'maker_fee_bps = "0.00001"', 'maker_fee_bps: found "0.00001"'),
        ("price_decimals = 2", "price_decimals = 19", "price_decimals: found 19, allowed: a whole number from 0 to 18"),
        ("quantity_decimals = 8", 'quantity_decimals = "8"', 'quantity_decimals: found "8"'),
        ('base = "BTC"', 'base = "XBT"', 'base: found "XBT", allowed: a currency of this file: BTC, ETH, USDT'),
        ('kind = "spot"', 'kind = "option"', 'kind: found "option", allowed: "inverse" or "linear" or "spot"'),
        ('kind = "spot"', 'kind = "spot"\ncolour = 1', "colour: unknown, allowed: kind, base"),
    ],
)
def test_each_mistake_is_said(tmp_path, old, new, said):
    _, errors = read(tmp_path, SPOT.replace(old, new, 1))
    matching = [one for one in errors if one.startswith(f"instruments.BTCUSDT.{said}")]
    assert len(matching) == 1, errors
    assert all(one.startswith("instruments.BTCUSDT.") for one in errors)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["currencies: found nothing", "instruments: found nothing"]),
        ("x = 1\n" + SPOT, ["x: unknown, allowed: currencies, instruments"]),
        ("[broken", ["is not TOML"]),
        (SPOT.replace("BTC = 8", "BTC = 13"), ["currencies.BTC: found 13, allowed: 0 to 12 decimals"]),
        (SPOT.replace("BTC = 8", "btc = 8"), ["currencies.btc: not a code", "instruments.BTCUSDT.base"]),
        (SPOT.replace("[instruments.BTCUSDT]", '[instruments."btc/usdt"]'), ["instruments.btc/usdt: not a symbol"]),
        (SPOT.replace("[instruments.BTCUSDT]", f"[instruments.{'B' * 17}]"), [f"instruments.{'B' * 17}: not a symbol"]),
        (CM.replace('contract_size = "100"', 'contract_size = "0"'), ["instruments.BTCUSD_PERP.contract_size"]),
    ],
)
def test_mistakes_of_the_file_itself_are_said(tmp_path, text, said):
    _, errors = read(tmp_path, text)
    assert len(errors) == len(said), errors
    assert all(any(one.startswith(start) for one in errors) for start in said), errors


def test_all_mistakes_are_said_at_once(tmp_path):
    text = SPOT.replace('tick = "0.01"', 'tick = "x"').replace('step = "0.00001"', 'step = "0"').replace("ETH = 8", "")
    _, errors = read(tmp_path, text)
    assert sorted(one.split(":")[0] for one in errors) == [
        "instruments.BTCUSDT.step",
        "instruments.BTCUSDT.tick",
        "instruments.ETHUSDT.base",
    ]


def test_a_file_that_is_not_there_is_said(tmp_path):
    assert read_instruments(tmp_path / "no.toml")[1] == [
        f"{tmp_path}/no.toml: cannot be read: No such file or directory"
    ]
