"""A FIX client, as plain as it can be: messages built and read with `simplefix`, over a TCP connection that blocks."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import socket
import time
from datetime import UTC, datetime

import simplefix

from tests.pipeline.exchange.exchange_rig import TRADER
from tests.pipeline.exchange.ws_api_rig import PRIVATE

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
        """Place an order; `_TAG=value` changes a field, None leaves it out. Give what came of it up to now."""
        fields = {11: f"o{self.sequence}", 38: "1", 40: "2", 44: "100", 54: "1", 55: "BTCUSDT", 59: "1"}
        fields |= {int(tag[1:]): value for tag, value in changed.items()}
        self.send("D", *fields.items())
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
