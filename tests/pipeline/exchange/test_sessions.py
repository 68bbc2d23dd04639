"""Sessions: the protocol sheet's signing vectors for WebSocket requests, and whose request is whose."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange import sessions
from shrivenq.pipeline.exchange.accounts import Keyring
from shrivenq.pipeline.exchange.errors import ApiError

PUBLIC = "MCowBQYDK2VwAyEAGUIKv9dSpWXBViXp2m6vAIb8QMFJYBgyFEQsFJlqgA0="
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"  # noqa: S105  (the sheet's)
HMAC_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
ORDER = {
    "symbol": "BTCUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01000000",
    "price": "52000.00", "recvWindow": 100, "timestamp": 1645423376532,
}  # fmt: skip
VECTORS = [
    (
        {"apiKey": HMAC_KEY, **ORDER},
        "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
    ),
    (
        {"apiKey": "EXAMPLEKEY", "timestamp": 1649729878532},
        "xxv3sQkKJdhp2JsB+cjUY1tna6/E0430UZXZMfgRwd6GvzSbk4IgXBOM251xVL1pC8ULfmWEuQ6aZiBDfgD5Bg==",
    ),
    (
        {"apiKey": "EXAMPLEKEY", **ORDER},
        "GS3G+BAQbbFfKHX6KB/V+PH9yiHY9svhU0MPztMEU/U0N45iFLwdVQz8GLvfaKYnmKKAnVmZmyNpNceLNKkkAw==",
    ),
]


class StubVenue:
    """As much of a venue as a session needs."""

    def __init__(self):
        self.keyring = Keyring()
        self.keyring.add("EXAMPLEKEY", 1, public_key=PUBLIC)
        self.keyring.add(HMAC_KEY, 2, secret=SECRET)

    def now_us(self):
        return 0


@pytest.fixture
def session():
    return sessions.Session(StubVenue(), None, None)


@pytest.mark.parametrize(("params", "signature"), VECTORS)
def test_the_sheets_vectors(session, params, signature):
    signed = {**params, "signature": signature}
    now_us = params["timestamp"] * 1000
    assert session.authorise(signed, now_us).api_key == params["apiKey"]
    for sent in (signature.replace("a", "b", 1), signature[:-4], "", "é", 7, None, ["x"]):
        with pytest.raises(ApiError) as refused:
            session.authorise({**signed, "signature": sent}, now_us)
        assert refused.value.code == -1022
    with pytest.raises(ApiError) as refused:
        session.authorise({**signed, "recvWindow": 101}, now_us)
    assert refused.value.code == -1022


def test_what_is_signed_is_sorted_and_not_encoded():
    params = {"b": True, "a": "x y&=é", "signature": "s", "c": 7, "B": "0.10"}
    assert sessions.payload(params) == "B=0.10&a=x y&=é&b=true&c=7".encode()


@pytest.mark.parametrize(
    ("late_us", "window", "code"),
    [
        (0, 100, 0), (100_000, 100, 0), (100_001, 100, -1021), (-999_999, 100, 0), (-1_000_000, 100, -1021),
    ],
)  # fmt: skip
def test_when_a_request_was_made(session, late_us, window, code):
    session.key = session.keyring.find(HMAC_KEY)
    stamp_us = 1645423376532000
    for stamp in (stamp_us, stamp_us // 1000):
        params = {"timestamp": stamp, "recvWindow": window}
        if code:
            with pytest.raises(ApiError) as refused:
                session.authorise(params, stamp_us + late_us)
            assert refused.value.code == code
        else:
            assert session.authorise(params, stamp_us + late_us).account == 2


def test_a_session_still_says_the_time(session):
    session.key = session.keyring.find("EXAMPLEKEY")
    with pytest.raises(ApiError, match="'timestamp'"):
        session.authorise({}, 0)


@pytest.mark.parametrize("given", [{}, {"apiKey": "EXAMPLEKEY"}, {"signature": "x"}])
def test_without_a_session_key_and_signature_are_needed(session, given):
    with pytest.raises(ApiError) as refused:
        session.authorise({"timestamp": 1, **given}, 1)
    assert refused.value.code == -1102


def test_keys_nobody_has(session):
    for api_key, code in (("NOBODYS", -2015), ("bad key!", -2014), (7, -2015)):
        with pytest.raises(ApiError) as refused:
            session.authorise({"timestamp": 1, "apiKey": api_key, "signature": "x"}, 1)
        assert (refused.value.code, refused.value.status) == (code, 401)
