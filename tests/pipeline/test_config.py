"""Configurations: what ships is good, and whatever is wrong is said, all of it, one line each."""

from __future__ import annotations

import contextlib
import random
import re
import tomllib

import pytest

from shrivenq.pipeline import config, topology
from shrivenq.pipeline.config import SHIPPED, ConfigError, find, for_recording, for_replay, load, with_placement
from tests.hostile_json import mutations

DEFAULT = (SHIPPED / "default.toml").read_text()


def mistakes(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = caught.value.lines
    assert all("\n" not in one for one in lines)
    assert str(caught.value) == "\n".join(lines)
    return [one.removeprefix(f"{path}: ") for one in lines]


SHIPPED_NAMES = [
    "default",
    "live_production",
    "live_simulator",
    "live_testnet",
    "production",
    "replay_cm",
    "replay_spot",
    "replay_usdm",
    "simulator",
    "testnet",
]


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_what_ships_is_good(name):
    loaded = load(name)
    assert loaded.file == SHIPPED / f"{name}.toml"
    assert list(loaded.stage_configs()) == list(topology.stages_of(loaded.mode))
    assert len(loaded.tables().instruments) >= 1
    assert loaded.timer_ns() == 0
    assert {row["symbol"].decode() for row in loaded.tables().instruments} == set(loaded.risk.limits)


def test_every_shipped_configuration_is_tested():
    names = {one.stem for one in SHIPPED.glob("*.toml") if not one.stem.startswith(("instruments", "exchange"))}
    assert sorted(names) == SHIPPED_NAMES


def test_a_bad_table_of_a_live_source_is_told(tmp_path):
    text = (SHIPPED / "simulator.toml").read_text()
    assert mistakes(tmp_path, text.replace('"ws://127.0.0.1:9443"', '"127.0.0.1"')) == [
        'market_data.binance.stream_url: found "127.0.0.1", allowed: wss://HOST or ws://HOST'
    ]
    (line,) = mistakes(tmp_path, text.replace('"bookTicker"]', '"depth20"]'))
    assert line == "market_data.binance.streams: found depth@100ms and depth20, allowed: one kind of depth"


def test_the_default_needs_no_network_and_no_files():
    loaded = load("default")
    assert (loaded.mode, loaded.market_data.source, loaded.placement) == ("paper", "simulated", "split")


def test_the_defaults_shown_in_the_default_are_the_defaults():
    loaded = load("default")
    for table in ("book", "journal", "recorder", "logs", "supervisor"):
        assert getattr(loaded, table) == type(getattr(loaded, table))(), table


def test_a_configuration_is_found_by_name_or_path(tmp_path):
    assert find("default") == find("default.toml") == find(str(SHIPPED / "default.toml"))
    with pytest.raises(ConfigError, match="no such file, and no shipped configuration: default, exchange, live_produc"):
        find(str(tmp_path / "nothing.toml"))


def test_instrument_files_are_found_beside_the_configuration_first(tmp_path):
    text = (SHIPPED / "instruments_binance_spot.toml").read_text().replace('tick = "0.01"', 'tick = "0.10"')
    (tmp_path / "instruments_binance_spot.toml").write_text(text.replace('price_min = "0.01"', 'price_min = "0.10"'))
    (tmp_path / "c.toml").write_text(DEFAULT)
    assert load(tmp_path / "c.toml").tables().instruments["tick"].tolist() == [10, 10]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'name = "default"',
            'name = "My Name"',
            'name: found "My Name", allowed: a string that matches ^[a-z0-9-]{1,24}$',
        ),
        ('name = "default"', "", "name: missing, allowed: a string that matches"),
        (
            'mode = "paper"',
            'mode = "live"',
            'market_data.source: found "simulated", allowed: "binance" in mode live',
        ),
        (
            'mode = "paper"',
            'mode = "replay"',
            'market_data.source: found "simulated", allowed: "capture" in mode replay',
        ),
        ('placement = "split"', 'placement = "spilt"', 'placement: found "spilt", allowed: "fused" or "split"'),
        ('source = "simulated"', 'source = "capture"', "market_data.path: missing"),
        ('source = "simulated"', 'source = "simulated"\npace = -2.0', "market_data.pace: found -2"),
        (
            'source = "simulated"',
            'source = "simulated"\npace = nan',
            "market_data.pace: found nan, allowed: a finite number",
        ),
        (
            'source = "simulated"',
            'source = "simulated"\npace = 10.0',
            "market_data.pace: found 10, allowed: only in mode replay",
        ),
        (
            'source = "simulated"',
            'source = "simulated"\npace = "recorded"',
            'market_data.pace: found "recorded", allowed: only in mode replay',
        ),
        (
            'source = "simulated"',
            'source = "capture"\npath = "somewhere"',
            'market_data.source: found "capture", allowed: "simulated" in mode paper',
        ),
        ("seed = 1", "seed = -1", "market_data.seed: found -1"),
        ("window_ticks = 65536", "window_ticks = 65000", "book.window_ticks is a power of two, not 65000"),
        ("timer_ms = 0.0", "timer_ms = nan", "signal.timer_ms: found nan"),
        ("timer_ms = 0.0", "timer_ms = -1", "signal.timer_ms: found -1"),
        (
            "skew_ticks = 100",
            "",
            "signal.strategy: shrivenq.stages.strategies.market_maker: signal.params: skew_ticks: missing",
        ),
        (
            "skew_ticks = 100",
            "skew_ticks = 1.5",
            "signal.strategy: shrivenq.stages.strategies.market_maker: signal.params: ",
        ),
        (
            "strategies.market_maker",
            "strategies.nothing",
            "signal.strategy: shrivenq.stages.strategies.nothing: no such",
        ),
        ('position_max = "0.5"', "", "risk.limits.BTCUSDT.position_max: missing, allowed: a string"),
        (
            'position_max = "0.5"',
            "position_max = nan",
            "risk.limits.BTCUSDT.position_max: found nan, allowed: a finite number",
        ),
        ('position_max = "0.5"', 'position_max = "nan"', 'risk.limits.BTCUSDT.position_max: found "nan"'),
        ('position_max = "0.5"', 'position_max = "0"', 'risk.limits.BTCUSDT.position_max: found "0"'),
        (
            'position_max = "0.5"',
            'position_max = "0.123456789"',
            'risk.limits.BTCUSDT.position_max: found "0.123456789"',
        ),
        ("[risk.limits.ETHUSDT]", "[risk.limits.XRPUSDT]", "risk.limits.XRPUSDT: no such instrument, allowed: BTCUSDT"),
        ("[risk.limits.ETHUSDT]", "[risk.limits.XRPUSDT]", "risk.limits.ETHUSDT: missing"),
        ("cancel_reserve = 500", "cancel_reserve = 5000", "risk.cancel_reserve: found 5000, allowed: less than"),
        ("[gateway.limits.ETHUSDT]", "[gateway.limits.XRPUSDT]", "gateway.limits.XRPUSDT: no such instrument"),
        ("[gateway.limits.ETHUSDT]", "[gateway.limits.XRPUSDT]", "gateway.limits.ETHUSDT: missing"),
        ('\nquantity_max = "0.1"', '\nquantity_max = "-1"', 'gateway.limits.BTCUSDT.quantity_max: found "-1"'),
        ('price_min = "1000"', 'price_min = "0.001"', 'gateway.limits.BTCUSDT.price_min: found "0.001", allowed'),
        ("orders_max = 2000", "orders_max = 0", "gateway.orders_max is 1 to 1,000,000, not 0"),
        ('model = "queue"', 'model = "lucky"', "paper_venue.model is one of"),
        ("sync_ms = 5.0", "sync_ms = 0.0", "journal.sync_ms: found 0.0, allowed: a number above 0 to 600,000"),
        (
            "silence_kill_ms = 5000.0",
            "silence_kill_ms = 400.0",
            "supervisor.silence_kill_ms: found 400, allowed: above",
        ),
        ("[journal]", "[stages.bok]\n[journal]", "stages.bok: no such stage, allowed: market_data, book"),
        (
            "[journal]",
            "[stages.book]\ncpu = -1\n[journal]",
            "stages.book.cpu: found -1, allowed: a whole number from 0",
        ),
        ("[journal]", '[stages.book]\nwait = "park"\n[journal]', 'stages.book.wait: found "park", allowed: "auto" or'),
        ("[journal]", "[jornal]", "jornal: unknown, allowed: name, mode, placement, instruments"),
        ('level = "info"', 'level = "loud"', 'logs.level: found "loud"'),
        (
            "binance_spot.toml",
            "binance_none.toml",
            'instruments.file: found "instruments_binance_none.toml", allowed: a file',
        ),
        ('["BTCUSDT", "ETHUSDT"]', '["BTCUSDT", "XRP"]', "instruments: found no XRP, allowed: BTCUSDT, ETHUSDT"),
    ],
)
def test_each_mistake_is_said(tmp_path, old, new, said):
    assert old in DEFAULT
    lines = mistakes(tmp_path, DEFAULT.replace(old, new, 1))
    assert sum(said in one for one in lines) == 1, lines


@pytest.mark.parametrize("pace", ["inf", "-inf", "nan", "0", "-1", "0.0000001", "1e12", "true", '"fast"'])
def test_a_pace_that_is_none_is_refused(tmp_path, pace):
    text = (SHIPPED / "replay_spot.toml").read_text()
    assert 'pace = "flat"' in text
    (line,) = mistakes(tmp_path, text.replace('pace = "flat"', f"pace = {pace}"))
    assert line.startswith("market_data.pace: found ")
    assert ", allowed: " in line


@pytest.mark.parametrize("pace", ["inf", "-inf", "nan", "0", "-1", "1e12", "fast"])
def test_a_pace_that_is_none_is_refused_on_the_command_line_too(pace):
    with pytest.raises(ConfigError, match=f'--pace: found "{pace}", allowed: "recorded", "flat", or a multiple from'):
        for_replay(load("replay_spot"), pace=pace)


@pytest.mark.parametrize(("pace", "found"), [("1000", 1000.0), ("0.5", 0.5), ('"recorded"', "recorded")])
def test_a_pace_is_kept(tmp_path, pace, found):
    text = (SHIPPED / "replay_spot.toml").read_text().replace('pace = "flat"', f"pace = {pace}")
    (tmp_path / "c.toml").write_text(text)
    assert load(tmp_path / "c.toml").market_data.pace == found


def test_all_mistakes_are_said_at_once(tmp_path):
    text = DEFAULT.replace('mode = "paper"', 'mode = "demo"').replace(
        'price_collar_bps = "100"', "price_collar_bps = 1"
    )
    text = text.replace("far_levels = 8192", "far_levels = 8000").replace('model = "queue"', 'modle = "queue"')
    text = text.replace('order_quantity_max = "0.1"', 'order_quantity_max = "x"').replace("unknown_after_ms = 2000", "")
    lines = mistakes(tmp_path, text)
    keys = sorted(re.split(r"[: ]", one)[0] for one in lines)
    assert keys == [
        "book.far_levels",
        "gateway.unknown_after_ms",
        "mode",
        "paper_venue.modle",
        "risk.limits.BTCUSDT.order_quantity_max",
        "risk.limits.BTCUSDT.price_collar_bps",
        "risk.limits.ETHUSDT.price_collar_bps",
    ]


LIMITS = re.findall(r"^(\w+) = ", DEFAULT.split("[risk]")[1].split("[risk.limits.ETHUSDT]")[0], re.MULTILINE)


@pytest.mark.parametrize("key", LIMITS)
def test_a_missing_limit_refuses(tmp_path, key):
    head, risk = DEFAULT.split("[risk]")
    lines = mistakes(tmp_path, head + "[risk]" + re.sub(rf"^{key} = .*$", "", risk, count=1, flags=re.MULTILINE))
    assert len(lines) == 1, lines
    assert f".{key}: missing" in lines[0]


def test_files_that_are_none_are_said(tmp_path):
    assert mistakes(tmp_path, "name = ")[0].startswith("is not TOML: Invalid value")
    assert mistakes(tmp_path, 'name = "a"\nname = "b"')[0].startswith("is not TOML: Cannot overwrite a value")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path / "binary.toml")
    everything = mistakes(tmp_path, "")
    assert {one.split(":")[0] for one in everything} >= {
        "name",
        "mode",
        "instruments",
        "market_data",
        "risk",
        "gateway",
    }


def test_the_command_line_has_its_say():
    loaded = load("replay_spot")
    assert with_placement(loaded, "fused").placement == "fused"
    told = for_replay(load("default"), path="somewhere", placement="fused", pace="12.5")
    assert (told.mode, told.market_data.source, told.market_data.path) == ("replay", "capture", "somewhere")
    assert (told.placement, told.market_data.pace) == ("fused", 12.5)
    assert for_replay(loaded).market_data.path == loaded.market_data.path
    assert for_replay(loaded, pace="recorded").market_data.pace == "recorded"
    with pytest.raises(ConfigError, match=r'--placement: found "both"'):
        with_placement(loaded, "both")
    with pytest.raises(ConfigError) as caught:
        for_replay(load("default"), placement="both", pace="nan")
    assert [one.split(":")[0] for one in caught.value.lines][1:] == ["--pace", "--placement"]


def test_a_recording_needs_a_folder():
    loaded = load("default")
    told = for_recording(loaded, "somewhere")
    assert told.recorder.path == "somewhere"
    assert for_recording(told).recorder.path == "somewhere"
    with pytest.raises(ConfigError, match=r"recorder\.path: missing"):
        for_recording(loaded)


def test_a_live_run_needs_a_venue_of_one_environment_and_nothing_else_may_have_one(tmp_path):
    shipped = (config.SHIPPED / "live_simulator.toml").read_text()
    table = shipped[shipped.index("\n[live_venue]") : shipped.index("# [stages.book]")]

    def errors(text):
        with pytest.raises(config.ConfigError) as caught:
            write(tmp_path, text)
        return "\n".join(caught.value.lines)

    assert "live_venue: missing" in errors(shipped.replace(table, ""))
    other = shipped.replace('url = "ws://127.0.0.1:9443"  ', 'url = "wss://ws-api.binance.com:443"')
    assert 'live_venue.url: is of production, live_venue.environment: found "simulator"' in errors(other)
    other = shipped.replace('rest_url = "http://127.0.0.1:9443"', 'rest_url = "https://api.binance.com"')
    assert "market_data.binance.rest_url: is of production" in errors(other)
    assert "market_data.binance.stream_url: is of simulator" in errors(
        shipped.replace('environment = "simulator"', 'environment = "testnet"')
    )
    assert "live_venue.environment: found" in errors(shipped.replace('environment = "simulator"', 'environment = "x"'))
    paper = shipped.replace('mode = "live"', 'mode = "paper"')
    found = errors(paper)
    assert "paper_venue: missing" in found
    assert "live_venue: found a table, allowed: only in mode live, this is mode paper" in found


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", 'live_venue.fix_url: found "", allowed: tcp+tls://HOST:PORT'),
        ("ws://127.0.0.1:9000", "live_venue.fix_url: found"),
        ("tcp+tls://fix-oe.binance.com:9000", 'is of production, live_venue.environment: found "simulator"'),
        ("tcp://127.0.0.1:9000", ""),
        ("tcp+tls://localhost:9000", ""),
    ],
)
def test_the_address_of_fix_order_entry_is_of_the_same_environment(tmp_path, url, said):
    text = (config.SHIPPED / "live_simulator.toml").read_text()
    text = text.replace('order_entry = "websocket_api"', 'order_entry = "fix"').replace("tcp://127.0.0.1:9000", url)
    if not said:
        assert write(tmp_path, text).live_venue.order_entry == "fix"
        return
    with pytest.raises(config.ConfigError) as caught:
        write(tmp_path, text)
    assert any(said in line for line in caught.value.lines)


def test_a_real_venue_is_spoken_to_under_tls(tmp_path):
    text = (config.SHIPPED / "live_simulator.toml").read_text()
    text = text.replace('environment = "simulator"', 'environment = "testnet"')
    text = text.replace("tcp://127.0.0.1:9000", "tcp://fix-oe.testnet.binance.vision:9000")
    with pytest.raises(config.ConfigError, match=r"allowed: tcp\+tls:// but for the simulator"):
        write(tmp_path, text)


def test_a_live_configuration_is_what_it_was_after_being_spelled():
    loaded = load("live_simulator")
    again = config.check(config.as_document(loaded), loaded.file)
    assert again.live_venue == loaded.live_venue
    assert again.paper_venue is None


def write(folder, text):
    """Check a configuration with this text."""
    (folder / "config.toml").write_text(text)
    return config.load(folder / "config.toml")


@pytest.mark.parametrize("name", ["default", "live_simulator", "replay_spot"])
def test_whatever_stands_where_something_else_should_is_good_or_told(name):
    rng, file = random.Random(1), find(name)
    for hostile in mutations(tomllib.loads(file.read_text()), more=(float("inf"), float("nan"), -1.5, 1e300)):
        if isinstance(hostile, dict) and rng.random() < 0.05:
            with contextlib.suppress(ConfigError):
                config.check(hostile, file)
