"""FIX clients, as plain as they can be: messages built with `simplefix`, and read field by field.

`fix_connected` speaks over the network to a simulator that runs; a `Desk` has a venue and its sessions without a
network, in a time that moves when a test says so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import re
import socket
import time
from datetime import UTC, datetime

import simplefix

from shrivenq.pipeline.exchange.fix_members import Members
from shrivenq.pipeline.exchange.fix_server import FixServer
from shrivenq.pipeline.exchange.fix_session import FixSession
from shrivenq.pipeline.exchange.fix_wire import Frames, GarbledError
from tests.pipeline.exchange.exchange_rig import TRADER
from tests.pipeline.exchange.ws_api_rig import ALICE, PRIVATE, Rig

NAMES = (f"T{number}" for number in itertools.count())
"""SenderCompIDs nobody has had."""


def time_text(now_ns=None):
    """Write a moment in milliseconds, by default now."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    moment = datetime.fromtimestamp(now_ns // 10**9, UTC)
    return f"{moment:%Y%m%d-%H:%M:%S}.{now_ns // 10**6 % 1000:03d}"


def encode(kind, sequence, sender, fields, *, target="SPOT", sent=None):
    """Write a message; a field whose value is None is left out."""
    message = simplefix.FixMessage()
    header = [(8, "FIX.4.4"), (35, kind), (34, sequence), (49, sender), (52, sent or time_text()), (56, target)]
    for tag, value in (*header, *fields):
        message.append_pair(tag, value)
    return message.encode()


def sign(sender, sent, sequence=1, target="SPOT"):
    """Sign a Logon."""
    payload = "\x01".join(("A", sender, target, str(sequence), sent))
    return base64.b64encode(PRIVATE.sign(payload.encode())).decode()


def logon_fields(sender, sent, key=TRADER, **changed):
    """Give the body of a Logon; `_TAG=value` changes a field, None leaves it out."""
    signature = sign(sender, sent)
    fields = {95: len(signature), 96: signature, 98: 0, 108: 30, 141: "Y", 553: key, 25035: 2}
    fields |= {int(tag[1:]): value for tag, value in changed.items()}
    return list(fields.items())


class Received:
    """One message, field by field."""

    def __init__(self, raw):
        body = raw.split(b"\x01")[:-1]
        self.fields = [(int(tag), value.decode()) for tag, _, value in (part.partition(b"=") for part in body)]
        self.kind = dict(self.fields)[35]
        assert self.fields[0] == (8, "FIX.4.4"), raw
        length = raw.index(b"\x01", raw.index(b"9="))
        assert int(dict(self.fields)[9]) == len(raw) - 7 - length - 1, raw
        assert int(dict(self.fields)[10]) == sum(raw[:-7]) % 256, raw

    def __getitem__(self, tag):
        """Give the value of a field, None for none."""
        return dict(self.fields).get(tag)

    def __repr__(self):
        """Write it as people do."""
        return "|".join(f"{tag}={value}" for tag, value in self.fields)

    def told(self, *tags):
        """Give the values of some fields."""
        return tuple(self[tag] for tag in tags)


ORDER = {38: "1", 40: "2", 44: "100", 54: "1", 55: "BTCUSDT", 59: "1"}


def order_fields(name, **changed):
    """Give the body of an order; `_TAG=value` changes a field, None leaves it out."""
    return list({11: name, **ORDER, **{int(tag[1:]): value for tag, value in changed.items()}}.items())


class FixClient:
    """One connection."""

    def __init__(self, wire, sender=None):
        self.wire = wire
        self.wire.settimeout(30)
        self.sender = sender or next(NAMES)
        self.sequence = 0
        self.heard = 0
        self.buffer = b""

    def raw(self, data):
        """Send bytes."""
        self.wire.sendall(data)

    def send(self, kind, *fields, **options):
        """Send a message as the next one; give its number."""
        self.sequence += 1
        self.raw(encode(kind, self.sequence, self.sender, fields, **options))
        return self.sequence

    def next(self):
        """Give the next message, None once the venue has closed. Its number is the next."""
        while (found := re.match(rb"8=.*?\x0110=[0-9]{3}\x01", self.buffer, re.DOTALL)) is None:
            data = self.wire.recv(1 << 16)
            if not data:
                assert self.buffer == b"", self.buffer
                return None
            self.buffer += data
        self.buffer = self.buffer[found.end() :]
        message = Received(found[0])
        self.heard += 1
        assert int(message[34]) == self.heard, message
        return message

    def until(self, kind):
        """Give all messages up to the first of a kind."""
        found = [self.next()]
        while found[-1].kind != kind:
            found.append(self.next())
        return found

    def rest(self):
        """Give all messages until the venue closes."""
        found = []
        with contextlib.suppress(ConnectionResetError):
            while (message := self.next()) is not None:
                found.append(message)
        return found

    def settle(self):
        """Give all messages up to now: what comes before the answer to a TestRequest."""
        name = f"settle-{self.sequence}"
        self.send("1", (112, name))
        found = [self.next()]
        while (found[-1].kind, found[-1][112]) != ("0", name):
            found.append(self.next())
        return found[:-1]

    def log_on(self, **changed):
        """Log on; give the answer."""
        sent = changed.pop("sent", None) or time_text()
        self.send("A", *logon_fields(self.sender, sent, **changed), sent=sent)
        return self.next()

    def log_out(self):
        """Log out, and wait for the end."""
        self.send("5")
        self.until("5")
        assert self.next() is None

    def order(self, **changed):
        """Place an order; give what came of it up to now."""
        self.send("D", *order_fields(f"o{self.sequence}", **changed))
        return self.settle()


@contextlib.contextmanager
def fix_connected(rig, sender=None, *, logged_on=True, **changed):
    """Connect to the FIX port of a simulator that runs; with `logged_on` it logs on, and out at the end."""
    with socket.create_connection(("127.0.0.1", rig.fix_port), timeout=30) as wire:
        client = FixClient(wire, sender)
        if logged_on:
            assert client.log_on(**changed).kind == "A"
        yield client
        if logged_on:
            with contextlib.suppress(OSError):
                client.log_out()


# ── without a network ────────────────────────────────────────────────────────────────────────────────────────────────


class Desk:
    """A venue with FIX sessions, whose time stands still until a test moves it."""

    def __init__(self, **limits):
        self.rig = Rig(**limits)
        self.venue = self.rig.venue
        self.seconds = 1_000.0
        self.start_us = 1_700_000_000_000_000
        self.venue.now_us = self.venue.market_us = self.now_us
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: self.seconds
        self.server = FixServer(self.venue, 1 << 20)
        self.server._members = Members(self.venue, lambda: self.seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.loop.close()

    def now_us(self):
        """Give the venue's time."""
        return self.start_us + round(self.seconds * 1e6)

    def run(self, function, *arguments):
        """Run a function in the loop, and a turn of it afterwards."""

        async def inside():
            found = function(*arguments)
            if asyncio.iscoroutine(found):
                await found
            for _ in range(3):
                await asyncio.sleep(0)

        self.loop.run_until_complete(inside())

    def wait(self, seconds):
        """Let time pass, a tenth of a second at a time."""
        for _ in range(round(seconds * 10)):
            self.seconds += 0.1
            self.run(lambda: None)

    def client(self, sender=None, *, key=ALICE, logged_on=True, **changed):
        """Connect; with `logged_on` log on."""
        client = DeskClient(self, sender or next(NAMES))
        if logged_on:
            found = client.log_on(key=key, **changed)
            assert [one.kind for one in found] == ["A"], found
        return client


class DeskSocket:
    """A connection's way out: keeps what it is sent."""

    def __init__(self):
        self.sent = []
        self.is_open = True

    def send_message(self, payload, *, text=True):
        """Take what the venue sends."""
        assert text
        if self.is_open:
            self.sent.append(payload)

    def close(self):
        """Take the venue's close."""
        self.is_open = False

    abort = close


class DeskClient:
    """One connection of a Desk."""

    def __init__(self, desk, sender):
        self.desk = desk
        self.sender = sender
        self.sequence = 0
        self.heard = 0
        self.socket = DeskSocket()
        self.frames = Frames()
        desk.run(self._open)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.socket.is_open:
            self.cut()

    def _open(self):
        self.session = FixSession(self.desk.venue, self.desk.server._members, self.socket, "10.0.0.1")

    def new(self):
        """Give what was sent since it was last asked; numbers follow each other."""
        found = [Received(raw) for raw in self.socket.sent]
        self.socket.sent.clear()
        for message in found:
            self.heard += 1
            assert int(message[34]) == self.heard, found
        return found

    def raw(self, data):
        """Send bytes, as the server's loop takes them; give what comes back."""
        self.desk.run(self._take, data)
        return self.new()

    async def _take(self, data):
        self.frames.add(data)
        try:
            while self.socket.is_open and (message := self.frames.next()) is not None:
                await self.session.take(message)
        except GarbledError as error:
            self.session.take_garbled(error)
        if not self.socket.is_open:
            self.session.leave()

    def send(self, kind, *fields, **options):
        """Send a message as the next one; give what comes back."""
        self.sequence += 1
        options.setdefault("sent", time_text(self.desk.now_us() * 1000))
        return self.raw(encode(kind, self.sequence, self.sender, fields, **options))

    def log_on(self, *, key=ALICE, sent=None, **changed):
        """Log on; give what comes back."""
        sent = sent or time_text(self.desk.now_us() * 1000)
        return self.send("A", *logon_fields(self.sender, sent, key, **changed), sent=sent)

    def order(self, name="", **changed):
        """Place an order; give what comes back."""
        return self.send("D", *order_fields(name or f"o{self.sequence}", **changed))

    def cut(self):
        """Be gone without a word."""
        self.socket.close()
        self.session.leave()
