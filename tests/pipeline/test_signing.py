"""Signatures equal the venue's own examples, and a server that checks them as documented agrees."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qsl, unquote

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.pipeline import signing
from shrivenq.pipeline.keys import parse_key

PEM = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIIJEYWtGBrhACmb9Dvy+qa8WEf0lQOl1s4CLIAB9m89u
-----END PRIVATE KEY-----
"""
PUBLIC = load_der_public_key(base64.b64decode("MCowBQYDK2VwAyEAGUIKv9dSpWXBViXp2m6vAIb8QMFJYBgyFEQsFJlqgA0="))
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"  # noqa: S105 - the venue's example
API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
FIX_KEY = "sBRXrJx2DsOraMXOaUovEhgVRcjOvCtQwnWj8VxkOh1xqboS02SPGfKi2h8spZJb"
HEAD = 'environment = "simulator"\npurpose = "trade"\n'


def ed25519(api_key="EXAMPLEKEY"):
    return parse_key(f"{HEAD}api_key = '{api_key}'\nprivate_key = '''{PEM}'''", "k")


def hmac(api_key=API_KEY):
    return parse_key(f"{HEAD}api_key = '{api_key}'\nhmac_secret = '{SECRET}'", "k")


ORDER = {
    "symbol": "BTCUSDT",
    "side": "SELL",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.01000000",
    "price": "52000.00",
    "recvWindow": 100,
}

# ── the venue's examples ─────────────────────────────────────────────────────────────────────────────────────────────


def test_hmac_rest():
    params = {
        "symbol": "LTCBTC",
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": 1,
        "price": "0.1",
        "recvWindow": 5000,
    }
    assert signing.rest_query(hmac(), params, 1499827319559) == (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
        "&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    )


def test_hmac_websocket():
    params = signing.websocket_params(hmac(), ORDER, 1645423376532)
    assert signing.websocket_payload(params) == (
        f"apiKey={API_KEY}&price=52000.00&quantity=0.01000000&recvWindow=100&side=SELL&symbol=BTCUSDT"
        "&timeInForce=GTC&timestamp=1645423376532&type=LIMIT"
    )
    assert params["signature"] == "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"


def test_ed25519_fix_logon():
    time = "20240627-11:17:25.223"
    payload = signing.fix_payload("EXAMPLE", "SPOT", 1, time)
    assert payload == "A\x01EXAMPLE\x01SPOT\x011\x0120240627-11:17:25.223"
    assert ed25519().sign(payload.encode()) == (
        "4MHXelVVcpkdwuLbl6n73HQUXUf1dse2PCgT1DYqW9w8AVZ1RACFGM+5UdlGPrQHrgtS3CvsRURC1oj73j8gCA=="
    )
    assert (
        signing.fix_logon(ed25519(FIX_KEY), "EXAMPLE", time)
        == (
            "8=FIX.4.4|9=247|35=A|34=1|49=EXAMPLE|52=20240627-11:17:25.223|56=SPOT|95=88|"
            "96=4MHXelVVcpkdwuLbl6n73HQUXUf1dse2PCgT1DYqW9w8AVZ1RACFGM+5UdlGPrQHrgtS3CvsRURC1oj73j8gCA==|98=0|108=30|"
            f"141=Y|553={FIX_KEY}|25035=2|10=227|"
        )
        .replace("|", "\x01")
        .encode()
    )


def test_ed25519_websocket_logon():
    params = signing.websocket_params(ed25519(), {}, 1649729878532)
    assert signing.websocket_payload(params) == "apiKey=EXAMPLEKEY&timestamp=1649729878532"
    assert params["signature"] == (
        "xxv3sQkKJdhp2JsB+cjUY1tna6/E0430UZXZMfgRwd6GvzSbk4IgXBOM251xVL1pC8ULfmWEuQ6aZiBDfgD5Bg=="
    )


def test_ed25519_websocket_order():
    params = signing.websocket_params(ed25519(), ORDER, 1645423376532)
    assert params["signature"] == (
        "GS3G+BAQbbFfKHX6KB/V+PH9yiHY9svhU0MPztMEU/U0N45iFLwdVQz8GLvfaKYnmKKAnVmZmyNpNceLNKkkAw=="
    )


def test_ed25519_rest():
    payload = (
        "symbol=BTCUSDT&side=SELL&type=LIMIT&timeInForce=GTC&quantity=1&price=0.2"
        "&timestamp=1668481559918&recvWindow=5000"
    )
    signature = "inDT086KVIP8vgUfw5sV3VTkescWztiAGlf4x8FLKHM4NInsn0c1kYVLoGMO8cyjfR6vmTku2YQE0gtfVVlfCw=="
    assert signing.rest_payload(dict(parse_qsl(payload))) == payload
    assert ed25519().sign(payload.encode()) == signature
    query = signing.rest_query(ed25519(), {"a": 1}, 5)
    assert query.startswith("a=1&timestamp=5&signature=")
    assert not set("+/=") & set(query.rpartition("signature=")[2])


# ── any request ──────────────────────────────────────────────────────────────────────────────────────────────────────

params_of = st.dictionaries(
    st.text("abcXYZ", min_size=1, max_size=6).filter(lambda name: name not in ("signature", "timestamp")),
    st.one_of(st.text(max_size=8), st.integers(0, 2**60), st.booleans()),
    max_size=6,
)


@settings(deadline=None)
@given(params_of, st.integers(0, 2**53))
def test_a_server_that_checks_rest_agrees(params, timestamp_ms):
    query = signing.rest_query(ed25519(), params, timestamp_ms)
    payload, _, signature = query.rpartition("&signature=")
    PUBLIC.verify(base64.b64decode(unquote(signature)), payload.encode())
    found = dict(parse_qsl(payload, keep_blank_values=True, strict_parsing=True))
    spelled = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in params.items()}
    assert found == {**spelled, "timestamp": str(timestamp_ms)}
    assert payload.isascii()


@settings(deadline=None)
@given(params_of, st.integers(0, 2**53))
def test_a_server_that_checks_the_websocket_agrees(params, timestamp_ms):
    request = json.loads(signing.websocket_request("x", "m", signing.websocket_params(ed25519(), params, timestamp_ms)))
    found = request["params"]
    signature = found.pop("signature")
    spelled = [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in sorted(found.items())
    ]
    PUBLIC.verify(base64.b64decode(signature), "&".join(spelled).encode())
    assert found == {**params, "apiKey": "EXAMPLEKEY", "timestamp": timestamp_ms}


def test_a_logon_request():
    request = json.loads(signing.logon_request(ed25519(), "l", 7))
    assert (request["id"], request["method"]) == ("l", "session.logon")
    assert request["params"].keys() == {"apiKey", "recvWindow", "timestamp", "signature"}
    assert json.loads(signing.websocket_request(1, "time", {})) == {"id": 1, "method": "time"}


def test_hmac_keys_log_no_session_on():
    with pytest.raises(ValueError, match="an HMAC key cannot log a session on"):
        signing.logon_request(hmac(), 1, 1)
    with pytest.raises(ValueError, match="an HMAC key cannot log on to FIX"):
        signing.fix_logon(hmac(), "EXAMPLE", "20240627-11:17:25.223")


@settings(deadline=None)
@given(st.text("ABC=|ü", max_size=20))
def test_fix_framing(text):
    message = signing.fix_message([(35, "0"), (112, text)])
    fields = message.split(b"\x01")
    assert fields[0] == b"8=FIX.4.4"
    body = message[message.index(b"35=") : message.rindex(b"10=")]
    assert fields[1] == b"9=%d" % len(body)
    assert fields[-2] == b"10=%03d" % (sum(message[: message.rindex(b"10=")]) % 256)
