"""Keys and signatures: every vector of the protocol sheet's section 7."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from shrivenq.pipeline.exchange.accounts import Keyring, check_time, last_us, read_public_key, to_us
from shrivenq.pipeline.exchange.errors import ApiError
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, OTHER, OTHER_SECRET

PUBLIC = "MCowBQYDK2VwAyEAGUIKv9dSpWXBViXp2m6vAIb8QMFJYBgyFEQsFJlqgA0="
ED25519 = {
    "A\x01EXAMPLE\x01SPOT\x011\x0120240627-11:17:25.223": (
        "4MHXelVVcpkdwuLbl6n73HQUXUf1dse2PCgT1DYqW9w8AVZ1RACFGM+5UdlGPrQHrgtS3CvsRURC1oj73j8gCA=="
    ),
    "apiKey=EXAMPLEKEY&timestamp=1649729878532": (
        "xxv3sQkKJdhp2JsB+cjUY1tna6/E0430UZXZMfgRwd6GvzSbk4IgXBOM251xVL1pC8ULfmWEuQ6aZiBDfgD5Bg=="
    ),
    "apiKey=EXAMPLEKEY&price=52000.00&quantity=0.01000000&recvWindow=100&side=SELL&symbol=BTCUSDT&timeInForce=GTC"
    "&timestamp=1645423376532&type=LIMIT": (
        "GS3G+BAQbbFfKHX6KB/V+PH9yiHY9svhU0MPztMEU/U0N45iFLwdVQz8GLvfaKYnmKKAnVmZmyNpNceLNKkkAw=="
    ),
    "symbol=BTCUSDT&side=SELL&type=LIMIT&timeInForce=GTC&quantity=1&price=0.2&timestamp=1668481559918"
    "&recvWindow=5000": ("inDT086KVIP8vgUfw5sV3VTkescWztiAGlf4x8FLKHM4NInsn0c1kYVLoGMO8cyjfR6vmTku2YQE0gtfVVlfCw=="),
}
HMAC = {
    "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559": (
        "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    ),
    f"apiKey={OTHER}&price=52000.00&quantity=0.01000000&recvWindow=100&side=SELL&symbol=BTCUSDT&timeInForce=GTC"
    "&timestamp=1645423376532&type=LIMIT": "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
}


@pytest.fixture
def keyring():
    found = Keyring()
    found.add("EXAMPLEKEY", 1, public_key=PUBLIC)
    found.add(OTHER, 2, secret=OTHER_SECRET)
    return found


@pytest.mark.parametrize(("payload", "signature"), ED25519.items())
def test_ed25519_vectors(keyring, payload, signature):
    key = keyring.find("EXAMPLEKEY")
    private = load_pem_private_key(ED25519_PEM.encode(), None)
    assert base64.b64encode(private.sign(payload.encode())).decode() == signature
    assert key.verify(payload.encode(), signature)
    assert not key.verify(payload.encode() + b" ", signature)


@pytest.mark.parametrize(("payload", "signature"), HMAC.items())
def test_hmac_vectors_in_either_case(keyring, payload, signature):
    key = keyring.find(OTHER)
    assert key.verify(payload.encode(), signature)
    assert key.verify(payload.encode(), signature.upper())
    assert not key.verify(payload.encode(), signature[:-1] + "0")


@pytest.mark.parametrize("signature", ["", "é", "!!", "AAAA", "c8db", "A" * 88, "\x00"])
def test_what_is_no_signature_is_refused(keyring, signature):
    assert not keyring.find("EXAMPLEKEY").verify(b"payload", signature)
    assert not keyring.find(OTHER).verify(b"payload", signature)


def test_unknown_and_malformed_keys_are_told_apart(keyring):
    with pytest.raises(ApiError, match="API-key format invalid") as caught:
        keyring.find("")
    assert (caught.value.code, caught.value.status) == (-2014, 401)
    with pytest.raises(ApiError, match="Invalid API-key, IP, or permissions for action") as caught:
        keyring.find("nobody")
    assert (caught.value.code, caught.value.status) == (-2015, 401)


def test_a_revoked_key_is_unknown(keyring):
    keyring.remove(OTHER)
    with pytest.raises(ApiError, match="-2015"):
        keyring.find(OTHER)


def test_a_key_shows_no_secret(keyring):
    assert repr(keyring.find(OTHER)) == "Key(account=2)"


def test_a_public_key_is_read_from_its_pem_too():
    pem = f"-----BEGIN PUBLIC KEY-----\n{PUBLIC}\n-----END PUBLIC KEY-----\n"
    assert read_public_key(pem).public_bytes_raw() == read_public_key(PUBLIC).public_bytes_raw()


def test_other_public_keys_are_refused():
    other = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="not an Ed25519 key"):
        read_public_key(base64.b64encode(other).decode())
    for text in ("", "nonsense", "AAAA", "é"):
        with pytest.raises(ValueError, match="not the base64 of a public key"):
            read_public_key(text)


def test_a_timestamp_is_in_milliseconds_or_microseconds():
    assert to_us(1_660_801_715_431) == 1_660_801_715_431_000
    assert to_us(1_660_801_715_431_123) == 1_660_801_715_431_123
    assert last_us(1_660_801_715_431) == 1_660_801_715_431_999
    assert last_us(1_660_801_715_431_123) == 1_660_801_715_431_123


def test_the_window_of_a_request():
    now = 1_700_000_000_000_000
    for stamp in (now, now + 999_999, now - 5_000_000):
        check_time(stamp, 5_000_000, now)
    with pytest.raises(ApiError, match="outside of the recvWindow"):
        check_time(now - 5_000_001, 5_000_000, now)
    with pytest.raises(ApiError, match="1000ms ahead of the server's time"):
        check_time(now + 1_000_000, 5_000_000, now)
