"""A venue and connections of its WebSocket API, without a network: what a client sends goes straight in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from types import SimpleNamespace

import orjson
from cryptography.hazmat.primitives.serialization import load_der_private_key

from shrivenq.pipeline.exchange.accounts import Keyring
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.limits import Rule, Rules
from shrivenq.pipeline.exchange.requests import METHODS
from shrivenq.pipeline.exchange.sessions import payload
from shrivenq.pipeline.exchange.types import Symbol
from shrivenq.pipeline.exchange.user_data import UserData
from shrivenq.pipeline.exchange.venue import Venue
from shrivenq.pipeline.exchange.ws_api import Connection

PRIVATE = load_der_private_key(
    base64.b64decode("MC4CAQAwBQYDK2VwBCIEIIJEYWtGBrhACmb9Dvy+qa8WEf0lQOl1s4CLIAB9m89u"), None
)
"""The protocol sheet's test key."""
PUBLIC = "MCowBQYDK2VwAyEAGUIKv9dSpWXBViXp2m6vAIb8QMFJYBgyFEQsFJlqgA0="
SECRET = "a secret of the tests"  # noqa: S105
ALICE, BOB, CAROL = "ALICEKEY", "BOBKEY", "CAROLKEY"
"""API keys: Ed25519, HMAC, Ed25519; Carol is in one trade group with Alice."""

SYMBOL = Symbol(
    name="BTCUSDT", base="BTC", quote="USDT", price_decimals=2, quantity_decimals=5, tick=1, price_max=200_000_00,
    step=1, quantity_max=100_000_00000, notional_min=5_00000000, amends_max=2, maker_fee=100_000, taker_fee=200_000,
    stp_default="NONE", stp_allowed=("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"),
)  # fmt: skip
LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "100", "quantity": "1"}


def make_rules(**changed):
    """Make rate limits; `weight`, `orders` and `ban_after` may be given."""
    return Rules(
        weight=Rule("REQUEST_WEIGHT", "MINUTE", 1, changed.get("weight", 6000)),
        raw=Rule("RAW_REQUESTS", "MINUTE", 5, 300_000),
        orders=(
            Rule("ORDERS", "SECOND", 10, changed.get("orders", 100)),
            Rule("ORDERS", "DAY", 1, 200_000),
        ),
        connections=Rule("CONNECTIONS", "MINUTE", 5, 300),
        ban_after=changed.get("ban_after", 10),
        ban_us=120_000_000,
    )


class Rig:
    """A venue with three accounts, whose time stands still until a test moves it."""

    def __init__(self, **limits):
        self.engine = Engine([SYMBOL], seed=1, orders_kept=1 << 12, book_slots=1 << 10)
        money = {"BTC": 100_00000000, "USDT": 1_000_000_00000000}
        keyring = Keyring()
        keyring.add(ALICE, self.engine.open_account(money, trade_group=7), public_key=PUBLIC)
        keyring.add(BOB, self.engine.open_account(money), secret=SECRET)
        keyring.add(CAROL, self.engine.open_account(money, trade_group=7), public_key=PUBLIC)
        self.venue = Venue(self.engine, [SYMBOL], keyring, make_rules(**limits))
        self.user_data = UserData(self.venue)

    def client(self, key=None, *, follow=False, **choices):
        """Connect; with a `key` logged on, and with `follow` subscribed to its account."""
        client = Client(self, **choices)
        if key:
            assert client.ask("session.logon", signed=key)["status"] == 200
        if follow:
            assert client.ask("userDataStream.subscribe")["status"] == 200
        return client


class Client:
    """A connection and what it was sent."""

    def __init__(self, rig, *, micros=False, limits=True, host="10.0.0.1"):
        self.venue = rig.venue
        self.sent = []
        self.is_closed = False
        self.number = 0
        websocket = SimpleNamespace(client=SimpleNamespace(host=host), scope={"state": {"socket": self}})
        self.connection = Connection(rig.venue, rig.user_data, websocket, micros=micros, limits=limits)

    def send_message(self, message, *, text=True):
        """Take what the venue sends."""
        assert text
        self.sent.append(message)

    def close(self, code=1000, reason=""):
        """Take the venue's close."""
        self.is_closed = (code, reason)

    def abort(self):
        """Take the venue's abrupt end."""
        self.is_closed = True

    def take(self, text):
        """Send a message as it is, None for a binary one; give the first thing that comes back."""
        before = len(self.sent)
        asyncio.run(self.connection.take(text))
        return orjson.loads(self.sent.pop(before))

    def ask(self, method, params=None, *, signed=None):
        """Ask, with a timestamp and, by the key `signed`, a signature; give the response, which comes first."""
        self.number += 1
        params = dict(params or {})
        if signed or METHODS[method].security in {"TRADE", "USER_DATA"}:
            params.setdefault("timestamp", self.venue.now_us() // 1000)
        if signed:
            params["apiKey"] = signed
            params["signature"] = sign(params, signed)
        message = {"id": self.number, "method": method, "params": params}
        answer = self.take(orjson.dumps(message).decode())
        assert answer["id"] == self.number, answer
        return answer

    def result(self, method, params=None, *, signed=None):
        """Ask, and give the result."""
        answer = self.ask(method, params, signed=signed)
        assert answer["status"] == 200, answer
        return answer["result"]

    def error(self, method, params=None, *, signed=None):
        """Ask, and give status and code of the refusal."""
        answer = self.ask(method, params, signed=signed)
        assert "result" not in answer, answer
        return answer["status"], answer["error"]["code"]

    def events(self, name=None):
        """Give the events that came, of one kind."""
        found = [orjson.loads(one)["event"] for one in self.sent]
        self.sent.clear()
        return [one for one in found if name in (None, one["e"])]


def sign(params, key):
    """Sign as the key's owner would."""
    if key == BOB:
        return hmac.new(SECRET.encode(), payload(params), hashlib.sha256).hexdigest()
    return base64.b64encode(PRIVATE.sign(payload(params))).decode()
