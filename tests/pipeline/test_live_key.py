"""Keys of live venues: held against the configuration, loaded late, never shown."""

from __future__ import annotations

import json

import pytest

from shrivenq.pipeline import live_key
from shrivenq.stages.live import source
from shrivenq.stages.live_venue import Config
from tests.pipeline.exchange.exchange_rig import ED25519_PEM

KEY = f'''environment = "{{environment}}"
purpose = "{{purpose}}"
api_key = "EXAMPLEKEY"
private_key = """
{ED25519_PEM}"""
'''


@pytest.fixture
def configured(tmp_path):
    def make(text="", environment="simulator", purpose="trade", **config):
        path = tmp_path / "key"
        path.write_text(text or KEY.format(environment=environment, purpose=purpose))
        path.chmod(0o600)
        config = {"environment": "simulator", "url": "ws://127.0.0.1:1", "key": f"file:{path}"} | config
        return Config(**config)

    return make


def test_a_logon_is_signed_by_the_key_of_the_file(configured):
    spelled = json.loads(live_key.Logon(configured())("logon", 1_700_000_000_000))
    assert spelled["method"] == "session.logon"
    assert spelled["params"]["apiKey"] == "EXAMPLEKEY"
    assert len(spelled["params"]["signature"]) == 88


def test_a_fix_logon_is_signed_by_the_same_key(configured):
    spelled = live_key.Logon(configured()).fix("EXAMPLE", "20240627-11:17:25.223", 30).decode().split("\x01")
    # The signature is the venue's own test vector.
    assert "96=4MHXelVVcpkdwuLbl6n73HQUXUf1dse2PCgT1DYqW9w8AVZ1RACFGM+5UdlGPrQHrgtS3CvsRURC1oj73j8gCA==" in spelled
    assert {"49=EXAMPLE", "553=EXAMPLEKEY", "108=30", "141=Y", "25035=2"} <= set(spelled)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"order_entry": "fix", "fix_url": "tcp+tls://fix-oe.binance.com:9000"}, "is for simulator, the endpoint"),
        ({"environment": "production"}, "is for production, the endpoint"),
        ({"purpose": "data"}, 'purpose is "data"'),
        ({"url": "wss://ws-api.binance.com:443"}, "is for simulator, the endpoint"),
        ({"url": "ws://example.org"}, "unknown"),
        ({"key": "file:/nowhere/key"}, "cannot be read"),
        (
            {"text": 'environment = "simulator"\npurpose = "trade"\napi_key = "A"\nhmac_secret = "B"\n'},
            "allowed: an Ed25519 key",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_refused_in_one_line(configured, changed, said):
    config = configured(**changed)
    with pytest.raises(ValueError) as caught:
        live_key.load(config)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "MC4CAQ" not in str(caught.value)


def test_endpoints_are_somebody_s():
    urls = (
        "ws://localhost:9",
        "wss://ws-api.binance.com:443",
        "wss://ws-api.testnet.binance.vision",
        "ws://example.org",
    )
    assert live_key.environments(*urls) == ["simulator", "production", "testnet", "nobody we know"]


@pytest.fixture
def streaming(tmp_path):
    def make(text="", environment="simulator", purpose="data", **config):
        path = tmp_path / "data-key"
        path.write_text(text or KEY.format(environment=environment, purpose=purpose))
        path.chmod(0o600)
        config = {"encoding": "sbe", "stream_url": "ws://127.0.0.1:1/sbe", "key": f"file:{path}"} | config
        return source.Config(streams=("depth", "trade"), **config)

    return make


def test_the_key_of_market_data_is_read_for_each_connection(streaming):
    read = live_key.DataKey(streaming())
    assert read() == "EXAMPLEKEY"
    streaming(KEY.format(environment="simulator", purpose="data").replace("EXAMPLEKEY", "ANOTHER"))
    assert read() == "ANOTHER"
    streaming("expires = 2020-01-01\n" + KEY.format(environment="simulator", purpose="data"))
    with pytest.raises(ValueError, match=r"^[^\n]*expired on 2020-01-01$"):
        read()
    assert "ANOTHER" not in repr(read)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"environment": "production"}, "is for production, market_data.binance.stream_url is of simulator"),
        ({"purpose": "trade"}, 'market data takes a key of purpose "data"'),
        ({"stream_url": "wss://stream-sbe.binance.com:9443"}, "is for simulator, market_data.binance.stream_url"),
        ({"stream_url": "ws://example.org"}, "unknown"),
        ({"key": "file:/nowhere/key"}, "cannot be read"),
        (
            {"text": 'environment = "simulator"\npurpose = "data"\napi_key = "A"\nhmac_secret = "B"\n'},
            "allowed: an Ed25519 key",
        ),
    ],
)
def test_a_key_that_does_not_fit_market_data_is_refused_in_one_line(streaming, changed, said):
    with pytest.raises(ValueError) as caught:
        live_key.load_data(streaming(**changed))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "MC4CAQ" not in str(caught.value)
