"""Configuration: what ships is good, and every mistake is said at once, one line each."""

from __future__ import annotations

import contextlib
import random
import re
import tomllib

import msgspec
import pytest

from shrivenq.pipeline.config import SHIPPED, ConfigError
from shrivenq.pipeline.exchange.config import check, load
from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.pipeline.exchange.requests import ORDER
from shrivenq.pipeline.exchange.types import STP_MODES
from tests.hostile_json import mutations
from tests.pipeline.exchange.engine_rig import START_US, limit
from tests.pipeline.exchange.exchange_rig import OTHER, TRADER, make_config

TEXT = (SHIPPED / "exchange.toml").read_text()


def mistakes(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all("\n" not in one for one in caught.value.lines)
    assert all(one.startswith(f"{path}: ") for one in caught.value.lines)
    return [one.removeprefix(f"{path}: ") for one in caught.value.lines]


def test_what_ships_is_good():
    loaded = load("exchange")
    assert (loaded.host, loaded.port, loaded.fix.port) == ("127.0.0.1", 9443, 9000)
    btc, eth = loaded.markets
    assert (btc.name, btc.base, btc.quote, btc.tick, btc.step) == ("BTCUSDT", "BTC", "USDT", 1, 1000)
    assert (btc.price_decimals, btc.quantity_decimals, btc.base_decimals, btc.quote_decimals) == (2, 8, 8, 8)
    assert (btc.notional_min, btc.maker_fee, btc.taker_fee) == (5 * 10**8, 100_000, 100_000)
    assert (btc.bid_percent_up, btc.ask_percent_down, btc.range_bid_up) == (5 * 10**8, 2 * 10**7, 15 * 10**7)
    assert (btc.has_reference, eth.has_reference, eth.range_bid_up) == (True, False, 0)
    assert (btc.stp_default, btc.stp_allowed) == ("EXPIRE_MAKER", STP_MODES)
    assert loaded.balances["trader"] == {"BTC": 10 * 10**8, "ETH": 100 * 10**8, "USDT": 10**6 * 10**8}


def test_every_filter_of_the_engine_can_be_had(tmp_path):
    both = {
        "percent_filter": "PERCENT_PRICE", "notional_filter": "MIN_NOTIONAL", "market_quantity_min": "0.001",
        "market_step": "0.0001", "position_max": "5", "trailing_above_min": 1, "trailing_above_max": 2,
        "order_lists_max": 6, "trailing_below_min": 3, "trailing_below_max": 4,
    }  # fmt: skip
    limits = {"order_lists_max": 7, "orders_max": 9, "algo_orders_max": 3, "asset_max": {"USDT": "1000.5"}}
    loaded = make_config(tmp_path, symbols={"BTCUSDT": both}, filters=limits)
    btc = loaded.markets[0]
    assert (btc.percent_up, btc.percent_down, btc.bid_percent_up, btc.ask_percent_down) == (5 * 10**8, 2 * 10**7, 0, 0)
    assert (btc.notional_filter, btc.notional_min, btc.notional_max) == ("MIN_NOTIONAL", 5 * 10**8, 0)
    assert (btc.market_quantity_min, btc.market_step, btc.position_max) == (10**5, 10**4, 5 * 10**8)
    assert (btc.trailing_above_min, btc.trailing_above_max) == (1, 2)
    assert (btc.trailing_below_min, btc.trailing_below_max) == (3, 4)
    engine, _ = loaded.engine()
    assert (btc.order_lists_max, engine.order_lists_max) == (6, 7)
    assert (engine.orders_max, engine.algo_orders_max, engine.asset_max) == (9, 3, {"USDT": 1000 * 10**8 + 5 * 10**7})


@pytest.mark.parametrize("begins_at", ["61800", "150000"])
def test_every_price_that_is_said_to_be_legal_can_be_had(begins_at):
    loaded = load("exchange")
    market = msgspec.structs.replace(loaded.market, price={"BTCUSDT": begins_at})
    engine, _ = msgspec.structs.replace(loaded, market=market).engine()
    account = engine.open_account(dict.fromkeys(engine.assets, 1 << 60))
    for one in loaded.markets:
        for price, said in ((one.price_min, None), (one.price_max, None), (one.price_max + one.tick, "PRICE_FILTER")):
            quantity = 5 * one.notional_min * 100 // price // one.step * one.step
            order = limit("BUY", price, quantity, symbol=one.name)
            error = engine.test(account, order, START_US)
            assert (error and error.msg) == (said and f"Filter failure: {said}"), (one.name, price)


def test_limits_and_keys_become_rules_and_a_keyring(tmp_path):
    loaded = make_config(tmp_path, limits={"ban_s": 1.5})
    rules = loaded.rules()
    found = [(rule.kind, rule.interval_us // 10**6, rule.limit) for rule in (rules.weight, rules.raw, *rules.orders)]
    assert found == [
        ("REQUEST_WEIGHT", 60, 6_000),
        ("RAW_REQUESTS", 300, 300_000),
        ("ORDERS", 10, 100),
        ("ORDERS", 86_400, 200_000),
    ]
    assert (rules.connections.interval_us, rules.connections.limit) == (300 * 10**6, 300)
    assert (rules.ban_after, rules.ban_us) == (10, 1_500_000)
    engine, accounts = loaded.engine()
    keyring = loaded.keyring(accounts)
    assert keyring.find(TRADER).account == accounts["trader"]
    assert keyring.find(OTHER).account == accounts["other"]
    assert engine.balances(accounts["other"])["ETH"] == (100 * 10**8, 0)


def test_the_defaults_shown_are_the_defaults():
    shown = tomllib.loads(TEXT)
    bare = {name: shown[name] for name in ("seed", "instruments", "accounts", "keys")}
    given, default = load("exchange"), check(bare, SHIPPED / "exchange.toml")
    for table in ("filters", "limits", "sessions", "streams", "tls"):
        assert getattr(given, table) == getattr(default, table), table


def test_all_mistakes_at_once(tmp_path):
    text = (
        TEXT.replace("seed = 7 ", "sede = 7 ")
        .replace("port = 9443 ", 'port = "high" ')
        .replace("orders_max = 200", "orders_max = -1")
        .replace("request_weight = 6000", "request_weight = 0")
        .replace("lifetime_s = 86400", "lifetime_s = nan")
    )
    said = mistakes(tmp_path, text)
    keys = [re.split(r"[:,]", one)[0] for one in said]
    assert sorted(keys) == sorted(
        ["sede", "seed", "port", "symbols.BTCUSDT.orders_max", "limits.request_weight", "sessions.lifetime_s"]
    )


MISTAKES = [
    ("[symbols.BTCUSDT]", "[symbols.XRPUSDT]", "symbols.XRPUSDT: no such instrument, allowed: BTCUSDT, ETHUSDT"),
    ('percent_up = "5"', 'percent_up = "five"', 'symbols.BTCUSDT.percent_up: found "five", allowed: a decimal number'),
    ('percent_up = "5"', 'percent_up = "0.5"', 'symbols.BTCUSDT.percent_up: found "0.5", allowed: "0", or 1 or more'),
    ('percent_up = "5"', 'percent_up = "0"', 'symbols.BTCUSDT.percent_up: found "0", allowed: only with percent_down'),
    (
        'market_step = "0"',
        'market_step = "0.000015"',
        'symbols.BTCUSDT.market_step: found "0.000015", allowed: a multi',
    ),
    ("asset_max = {}", 'asset_max = { DOGE = "1" }', "filters.asset_max.DOGE: no such asset, allowed: BTC, ETH, USDT"),
    ('range_up = "1.5"', 'range_up = "-1"', 'symbols.BTCUSDT.range_up: found "-1", allowed: a decimal number'),
    ('range_up = "1.5"', 'range_up = "1e3"', 'symbols.BTCUSDT.range_up: found "1e3", allowed: a decimal number'),
    ('BTC = "10"', 'DOGE = "10"', "accounts.trader.balances.DOGE: no such asset, allowed: BTC, ETH, USDT"),
    ('BTC = "10"', 'BTC = "0.123456789"', 'accounts.trader.balances.BTC: found "0.123456789", allowed: a decimal'),
    ('account = "trader"', 'account = "nobody"', 'keys.trader.account: found "nobody", allowed: trader, other'),
    ('api_key = "EXAMPLEKEY"', 'api_key = "a key"', "keys.trader.api_key: allowed: 1 to 64 of A-Z, a-z and 0-9"),
    ('api_key = "EXAMPLEKEY"', f'api_key = "{OTHER}"', "keys.other.api_key: the same as that of keys.trader"),
    ('public_key = "MCow', 'public_key = "XXow', "keys.trader.public_key: not the base64 of a public key, allowed:"),
    ('public_key = "MCow', 'secret = "x"\npublic_key = "MCow', "keys.trader: allowed: exactly one of public_key and"),
    ("# [tls]", '[tls]\ncertificate = "c.pem"', "tls: certificate and key go together"),
    ("# [tls]", '[tls]\ncertificate = "c.pem"\nkey = "k.pem"', 'tls.certificate: found "c.pem", allowed: a file'),
    ("# [tls]", '[tls]\ncertificate = "c"\nkey = "k"\ngenerate = "d"', "tls.generate: allowed: only without"),
    ('symbols = ["BTCUSDT", "ETHUSDT"]', 'symbols = ["XRPUSDT"]', None),
    ('file = "instruments_binance_spot.toml"', 'file = "nowhere.toml"', 'instruments.file: found "nowhere.toml"'),
    ('price = { BTCUSDT = "61800"', 'price = { XRPUSDT = "1"', "market.price.XRPUSDT: no such instrument, allowed:"),
    ('source = "synthetic"', 'source = "capture"', "market.path: allowed: a capture file or folder"),
    ('source = "synthetic"', 'source = "none"\npath = "x"', "market.path: allowed: a capture file or folder"),
    ("step_ms = 5", "step_ms = 0", "streams.step_ms: found 0, allowed: a whole number from 1 to 60,000"),
]


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_each_mistake_has_its_line(tmp_path, old, new, said):
    assert old in TEXT
    path = tmp_path / "c.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert any((said or "XRPUSDT") in one for one in caught.value.lines), caught.value.lines


def test_a_script_of_faults_is_read_and_what_is_wrong_with_it_is_one_line(tmp_path):
    script = tmp_path / "faults.toml"
    script.write_text('seed = 7\n[[rules]]\non = "event"\naction = "drop"\n')
    assert make_config(tmp_path, faults={"script": "faults.toml"}).script == Script(
        [Rule(on="event", action="drop")], 7
    )
    script.write_text('[[rules]]\non = "event"\naction = "explode"\n')
    text = TEXT + '[faults]\nscript = "faults.toml"\n'
    (said,) = mistakes(tmp_path, text)
    assert said.startswith(f"faults.script: {script}: Invalid enum value 'explode'")
    (said,) = mistakes(tmp_path, text.replace('faults.toml"\n', 'none.toml"\n'))
    assert said == f"faults.script: {tmp_path / 'none.toml'}: cannot be read: No such file or directory"


def test_futures_are_no_market_of_this_venue(tmp_path):
    text = TEXT.replace("instruments_binance_spot", "instruments_binance_usdm").replace(
        '"BTCUSDT", "ETHUSDT"', '"BTCUSDT"'
    )
    assert "instruments.symbols: BTCUSDT is no spot instrument, allowed: spot" in mistakes(tmp_path, text)


def test_what_is_no_toml_and_what_is_not_there(tmp_path):
    assert mistakes(tmp_path, "host = ")[0].startswith("is not TOML")
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nothing.toml")


def test_what_the_engine_does_not_take_is_one_line(tmp_path):
    loaded = make_config(tmp_path, market={"source": "synthetic", "price": {"BTCUSDT": "much"}})
    with pytest.raises(ConfigError) as caught:
        loaded.engine()
    assert len(caught.value.lines) == 1


def test_a_capture_may_be_the_market(tmp_path, data):
    engine, _ = make_config(tmp_path, market={"source": "none"}).engine()
    assert engine.capture is None
    chosen = tomllib.loads(TEXT) | {"market": {"source": "capture", "path": str(data / "binance" / "spot")}}
    chosen["instruments"]["symbols"] = ["BTCUSDT"]
    for account in chosen["accounts"].values():
        account["balances"].pop("ETH")
    engine, _ = check(chosen, tmp_path / "c.toml").engine()
    assert len(engine.depth("BTCUSDT", 5_000).bids) > 100
    chosen["market"]["path"] = "nothing"
    with pytest.raises(ConfigError, match="nothing"):
        check(chosen, tmp_path / "c.toml").engine()


def test_an_order_has_all_parameters_of_the_sheet():
    assert set(ORDER) >= {"side", "type", "timeInForce", "selfTradePreventionMode", "newOrderRespType", "pegPriceType"}


@pytest.mark.parametrize("seed", range(2))
def test_whatever_stands_where_something_else_should_is_good_or_told(tmp_path, seed):
    rng = random.Random(seed)
    for hostile in mutations(tomllib.loads(TEXT), more=(float("inf"), float("nan"), -1.5, 1e300)):
        if isinstance(hostile, dict) and rng.random() < 0.05:
            with contextlib.suppress(ConfigError):
                check(hostile, SHIPPED / "exchange.toml")
