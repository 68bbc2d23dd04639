"""TLS by compiled code: the same bytes as Python's, both ways, in turns with Python, and what ends it."""

from __future__ import annotations

import random
import socket
import ssl

import numpy as np
import pytest

from shrivenq.shm.kernel import kernel
from shrivenq.stages.live import openssl, receive
from tests.stages.live import authority


@kernel
def read(connection, sealed, size, room, room_size):
    return openssl.read(connection, sealed.ctypes.data, size, room.ctypes.data, room_size)


@kernel
def send(connection, data, begin, size, descriptor, scratch):
    at = data.ctypes.data + begin
    return openssl.send(connection, at, size, descriptor, scratch.ctypes.data, scratch.shape[0])


class Pair:
    """A client and a server that have shaken hands; only what `send` sends goes through a socket."""

    def __init__(self, folder, *, version=ssl.TLSVersion.TLSv1_3):
        path, server = authority.make(folder)
        client = ssl.create_default_context(cafile=path)
        client.maximum_version = version
        self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.to_client, self.to_server, server_hostname="127.0.0.1")
        self.server = server.wrap_bio(self.to_server, self.to_client, server_side=True)
        for _ in range(4):
            for one in (self.client, self.server):
                try:
                    one.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        self.ours, self.theirs = socket.socketpair()
        for one in (self.ours, self.theirs):
            one.setblocking(False)
        self.address = openssl.address_of(self.client)
        self.scratch = np.zeros(receive.SEALED_BYTES, np.uint8)
        self.room = np.zeros(1 << 20, np.uint8)

    def ciphertext(self, payload):
        """Let the server seal something."""
        self.server.write(payload)
        return self.to_client.read()

    def read(self, sealed, room=None):
        """Unseal as compiled code does; the plain bytes, and whether it goes on."""
        room = self.room if room is None else room
        self.scratch[: len(sealed)] = np.frombuffer(sealed, np.uint8)
        count, goes_on = read(self.address, self.scratch, len(sealed), room, len(room))
        return room[:count].tobytes(), goes_on

    def send(self, payload):
        data = np.frombuffer(payload, np.uint8)
        return send(self.address, data, 0, len(data), self.ours.fileno(), self.scratch)

    def received(self):
        """Take what has come through the socket, in plain bytes."""
        found = b""
        try:
            while data := self.theirs.recv(1 << 16):
                self.to_server.write(data)
        except BlockingIOError:
            pass
        try:
            while part := self.server.read(1 << 16):
                found += part
        except ssl.SSLWantReadError:
            return found
        return found

    def close(self):
        self.ours.close()
        self.theirs.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def pair(request, tmp_path):
    made = Pair(tmp_path, version=request.param)
    yield made
    made.close()


def test_the_connection_of_pythons_object_is_found(pair):
    assert pair.address != 0
    assert pair.client.version() == pair.server.version()
    assert openssl.address_of(pair.server) not in (0, pair.address)


def test_a_connection_over_a_socket_or_one_nobody_can_call_is_not_taken(pair, tmp_path, monkeypatch):
    context = ssl.create_default_context()
    with context.wrap_socket(socket.socket(), server_hostname="x") as one:
        one._sslobj = context._wrap_socket(one, server_side=False, server_hostname="x", owner=one)
        assert openssl.address_of(one) == 0
    monkeypatch.setattr(openssl, "LIBRARY", None)
    assert openssl.address_of(pair.client) == 0


def test_any_bytes_in_any_pieces_come_out_as_they_went_in(pair):
    rng = random.Random(7)
    payloads = [rng.randbytes(rng.choice((1, 5, 300, 16_384, 16_385, 70_000))) for _ in range(60)]
    stream = b"".join(map(pair.ciphertext, payloads))
    found = b""
    while stream:
        size = rng.choice((1, 4, 5, 29, 1_000, 20_000, receive.SEALED_BYTES))
        plain, goes_on = pair.read(stream[:size])
        assert goes_on
        found, stream = found + plain, stream[size:]
        if rng.random() < 0.1:  # Python may look in between
            with pytest.raises(ssl.SSLWantReadError):
                pair.client.read(1)
    assert found == b"".join(payloads)


def test_what_does_not_fit_waits(pair):
    sealed = pair.ciphertext(b"a" * 100)
    first, goes_on = pair.read(sealed, np.zeros(60, np.uint8))
    assert (first, goes_on) == (b"a" * 60, True)
    assert pair.read(b"") == (b"a" * 40, True)


def test_what_is_sent_arrives_in_order_whoever_sends_it(pair):
    rng = random.Random(3)
    wanted = b""
    for _ in range(50):
        payload = rng.randbytes(rng.randint(1, 700))
        wanted += payload
        if rng.random() < 0.5:
            assert pair.send(payload) == len(payload)
        else:
            pair.client.write(payload)
            pair.ours.send(pair.to_server.read())
    assert pair.received() == wanted


def test_what_the_socket_does_not_take_waits_for_python(pair):
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    payloads = [bytes([at]) * 3_000 for at in range(200)]
    sent = [pair.send(one) for one in payloads]
    assert openssl.TAKEN in sent
    assert set(sent) == {3_000, openssl.TAKEN}
    waiting, found = pair.to_server.read(), b""  # what `Transport` takes as unsent
    while len(found) < 600_000:
        found += pair.received()
        try:
            waiting = waiting[pair.ours.send(waiting) :] if waiting else b""
        except BlockingIOError:
            continue
    assert found == b"".join(payloads)


def test_the_end_is_left_to_python(pair):
    sealed = pair.ciphertext(b"the last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    assert pair.read(sealed + pair.to_client.read()) == (b"the last", False)
    assert pair.client.read(1) == b""


def test_a_record_that_was_tampered_with_ends_it(pair):
    good, bad = pair.ciphertext(b"good"), bytearray(pair.ciphertext(b"bad"))
    bad[-1] ^= 1
    assert pair.read(good + bad) == (b"good", False)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad[ _]record[ _]mac"):
        pair.client.read(1)
    assert pair.send(b"no more") == openssl.REFUSED
