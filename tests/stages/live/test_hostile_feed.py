"""Market data over sockets that go wrong: one line says what, and it comes back when the cause ends."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import ssl
import threading
import time

import numpy as np
import pytest
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from shrivenq.stages.frames import BINARY, TEXT
from shrivenq.stages.live import away
from shrivenq.stages.live import link as live_link
from shrivenq.stages.live import receive as r
from shrivenq.stages.live.transport import Transport
from tests.stages.live import authority
from tests.stages.live.live_rig import Driver, Server, trade
from tests.stages.venues import sbe_frames

PASS, SILENT, CLOSE, RESET = "pass", "silent", "close", "reset"


class Front:
    """Stands in front of a server and treats each connection as `script` says, the last one for good.

    PASS hands it on; SILENT keeps it and says nothing; CLOSE and RESET end it at once; bytes are said once something
    was heard, and then it is closed.
    """

    def __init__(self, port, *script):
        self.script, self._to, self._open = list(script), port, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                self._open.append(one)
                self.accepted += 1
                what = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                threading.Thread(target=self._treat, args=(one, what), daemon=True).start()

    def _treat(self, one, what):
        with contextlib.suppress(OSError):
            if what == PASS:
                other = socket.create_connection(("127.0.0.1", self._to))
                self._open.append(other)
                threading.Thread(target=self._pipe, args=(other, one), daemon=True).start()
                self._pipe(one, other)
            elif what == RESET:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.close()
            elif what == CLOSE:
                one.close()
            elif what != SILENT:
                one.recv(1 << 16)
                one.sendall(what)
                one.shutdown(socket.SHUT_WR)

    @staticmethod
    def _pipe(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self):
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def stack():
    with contextlib.ExitStack() as made:
        yield made


def serve(stack, *script, **options):
    """A server, behind a front with a script if there is one; the port to connect to comes last."""
    server = Server(**options)
    stack.callback(server.close)
    if not script:
        return server, None, server.port
    front = Front(server.port, *script)
    stack.callback(front.close)
    return server, front, front.port


def drive(stack, port, scheme="ws", **options):
    driver = Driver(f"{scheme}://127.0.0.1:{port}", **options)
    stack.callback(driver.close)
    return driver


def reasons(driver):
    return [fields["reason"] for event, fields in driver.lines if event == "market data disconnected"]


def comes_back(driver, server, what):
    """The connection opens in the end, and brings what is sent; nothing was lost of what never came."""
    driver.until(lambda: driver.source.is_open and server.sessions, what)
    server.sessions[-1].send(trade(7))
    driver.until(lambda: trade(7) in driver.taken, "a trade")
    assert driver.taken == [trade(7)]
    (reason, *_) = reasons(driver)
    assert reason.isprintable()
    assert len(reason) <= 310
    return reason


# ── handshakes ───────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED_KEY = (
    b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 75\r\n\r\n"
    b'{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action.   "}\r\n'
)


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (CLOSE, " by "),  # or reset, where the request was not read
        (RESET, "reset by peer"),
        (b"", "closed by the venue"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>\n<h1>502</h1>\n", "HTTP 502 to the handshake: <html> <h1>502</h1>"),
        (REFUSED_KEY, "HTTP 401 to the handshake: " + REFUSED_KEY.partition(b"\r\n\r\n")[2].strip().decode()),
        (b"\x00\x01\x02\x03" * 40_000, "not a WebSocket server"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "not a WebSocket server"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n{}", "HTTP 200 to the handshake: {}"),
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", "not a WebSocket server"),
    ],
)
def test_a_handshake_that_fails_is_told_and_tried_again(stack, peer, said):
    server, _, port = serve(stack, peer, PASS)
    driver = drive(stack, port)
    assert said in comes_back(driver, server, "the second attempt")


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "no-such-host.invalid"])
def test_a_host_that_is_none_is_told_and_tried_again(stack, host):
    driver = Driver(f"ws://{host}:1")
    stack.callback(driver.close)
    driver.until(lambda: len(reasons(driver)) >= 2, "two failures")
    assert all(one.startswith(f"{host}: ") for one in reasons(driver))
    assert driver.taken == []


def test_without_a_descriptor_it_waits_for_one(stack, monkeypatch):
    server, _, port = serve(stack)
    driver = drive(stack, port)
    made = socket.socket
    errors = [OSError(errno.EMFILE, "Too many open files")] * 2

    def make(*args, **options):
        if errors:
            raise errors.pop()
        return made(*args, **options)

    monkeypatch.setattr("shrivenq.stages.live.transport.socket.socket", make)
    assert comes_back(driver, server, "a descriptor") == "no socket: Too many open files"


def test_a_ban_is_obeyed(stack):
    server, front, port = serve(
        stack, b"HTTP/1.1 418 I'm a teapot\r\nRetry-After: 1\r\ncontent-length: 0\r\n\r\n", PASS
    )
    driver = drive(stack, port)
    assert "HTTP 418" in comes_back(driver, server, "the end of the ban")
    (line,) = [fields for event, fields in driver.lines if event == "market data disconnected"]
    assert 2000 <= line["again_in_ms"] <= 2100, "a second more than was asked for"
    assert front.accepted == 2


def test_a_ban_is_obeyed_by_the_other_connections_too(stack):
    server, front, port = serve(stack, b"HTTP/1.1 418 no\r\nRetry-After: 99\r\ncontent-length: 0\r\n\r\n", PASS)
    driver = drive(stack, port, symbols=["AUSDT", "BUSDT"], streams_per_connection=1)
    driver.until(lambda: server.sessions and reasons(driver), "one open, one banned")
    server.sessions[0].connection.socket.shutdown(socket.SHUT_RDWR)
    driver.until(lambda: len(reasons(driver)) == 2, "the other lost")
    waits = [fields["again_in_ms"] for event, fields in driver.lines if event == "market data disconnected"]
    assert min(waits) > 50_000
    assert front.accepted == 2
    assert driver.source._away[away.BANNED_NS] > time.time_ns() + 50 * 10**9


def test_a_ban_that_others_were_told_is_waited_for(stack):
    server, front, port = serve(stack, PASS)
    told = np.zeros(away.WORDS, np.int64)
    began = time.time_ns()
    away.tell(told, away.BANNED_NS, began + 2 * 10**9)
    driver = drive(stack, port, told=told)
    driver.until(lambda: server.sessions, "a connection")
    assert time.time_ns() > began + 2 * 10**9
    away.tell(told, away.LIMITED_NS, time.time_ns() + 99 * 10**9)
    server.sessions[0].connection.socket.shutdown(socket.SHUT_RDWR)
    driver.until(lambda: reasons(driver), "the end")
    for _ in range(500):
        driver.step()
    assert front.accepted == 1, "nobody connects while another is to stay away"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_silent_handshake_is_given_up_on_and_stalls_nobody(stack, tmp_path, scheme):
    path, context = authority.make(tmp_path)
    server, front, port = serve(stack, PASS, SILENT, PASS, **({"ssl": context} if scheme == "wss" else {}))
    options = {"authority": str(path)} if scheme == "wss" else {}
    driver = drive(stack, port, scheme, symbols=["AUSDT", "BUSDT"], streams_per_connection=1, **options)
    groups = driver.source._groups
    driver.until(
        lambda: any(one.is_open for one in groups) and server.sessions and front.accepted == 2, "one open, one silent"
    )
    (silent,) = [one.link for one in groups if not one.is_open]
    for number in range(20):
        server.sessions[0].send(trade(number, "ausdt"))
        driver.until(lambda number=number: trade(number, "ausdt") in driver.taken, "a trade in the meantime")
    # Time passes for the silent one.
    silent._began_ns -= live_link.CONNECT_NS
    if silent.connection is not None:
        silent.connection._answer_by_ns = 0
    driver.live.words[r.WAKE_NS] = 0
    driver.until(lambda: reasons(driver), "giving up")
    assert reasons(driver)[0].startswith("no answer in 10 s" if scheme == "ws" else f"127.0.0.1 port {port}: no conn")
    assert sum(one.is_open for one in groups) == 1
    driver.until(lambda: driver.source.is_open, "both")
    assert driver.taken == [trade(one, "ausdt") for one in range(20)], "nothing was lost"


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"address": "127.0.0.2"}, "certificate refused: IP address mismatch"),
        ({"days": -1}, "certificate refused: certificate has expired"),
        ({}, "certificate refused: unable to get local issuer certificate"),
    ],
    ids=["other name", "expired", "other authority"],
)
def test_a_wrong_certificate_is_refused_until_the_right_one_is_there(stack, tmp_path, wrong, said):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
    path, _ = authority.make(good)
    trusted, context = authority.make(bad, **wrong)
    if wrong:  # by an authority that is trusted as well
        path.write_bytes(path.read_bytes() + trusted.read_bytes())
    server, _, port = serve(stack, ssl=context)
    driver = drive(stack, port, "wss", authority=str(path))
    driver.until(lambda: len(reasons(driver)) >= 2, "two refusals")
    assert not server.sessions
    context.load_cert_chain(good / "certificate.pem", good / "key.pem")
    assert said in comes_back(driver, server, "the right certificate")


def test_a_refusal_under_tls_counts_although_its_body_is_cut_short(stack, tmp_path):
    path, context = authority.make(tmp_path)
    answers = [Response(418, "no", Headers({"Content-Length": "100", "Retry-After": "7"}), b"banned")]
    _, _, port = serve(stack, ssl=context, process_request=lambda *_: answers.pop() if answers else None)
    driver = drive(stack, port, "wss", authority=str(path))
    driver.until(lambda: reasons(driver), "a refusal")
    assert reasons(driver) == ["the venue answers HTTP 418 to the handshake: banned"]
    (line,) = [fields for event, fields in driver.lines if event == "market data disconnected"]
    assert 8000 <= line["again_in_ms"] <= 8100, "the ban is known"
    assert driver.taken == []


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (CLOSE, "TLS handshake failed: "),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP on a TLS port", "TLS handshake failed: "),
        (b"\x15\x03\x03\x00\x02\x02\x28", "TLS handshake failed: "),
        (b"\x16\x03\x03\xff\xff" + b"\x00" * 70_000, "TLS handshake failed: "),
        (RESET, "reset by peer"),
    ],
    ids=["closed", "no TLS", "alert", "garbage", "reset"],
)
def test_a_tls_handshake_that_fails_is_told_and_tried_again(stack, tmp_path, peer, said):
    path, context = authority.make(tmp_path)
    server, _, port = serve(stack, peer, PASS, ssl=context)
    driver = drive(stack, port, "wss", authority=str(path))
    found = comes_back(driver, server, "the second attempt")
    assert any(one in found for one in (said, "reset by peer", "Broken pipe"))


def test_connections_are_made_a_step_at_a_time(stack, tmp_path, monkeypatch):
    """Six at once: no look of Python makes more than one step of a handshake, and all open."""
    path, context = authority.make(tmp_path)
    server, _, port = serve(stack, ssl=context)
    steps = [0]
    advance = Transport.advance

    def counted(self):
        steps[-1] += not self.ready
        return advance(self)

    monkeypatch.setattr(Transport, "advance", counted)
    symbols = [f"S{number}USDT" for number in range(6)]
    driver = drive(stack, port, "wss", authority=str(path), symbols=symbols, streams_per_connection=1)
    fill = driver.source.fill

    def looked(frames):
        steps.append(0)
        fill(frames)

    driver.source.fill = looked
    driver.until(lambda: driver.source.is_open and len(server.sessions) == 6, "six connections")
    assert max(steps) == 1
    assert sum(steps) >= 6


def test_versions_of_tls_that_are_broken_are_not_spoken(stack, tmp_path):
    path, context = authority.make(tmp_path)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    _, _, port = serve(stack, ssl=context)
    driver = drive(stack, port, "wss", authority=str(path))
    driver.until(lambda: len(reasons(driver)) >= 1, "a refusal")
    assert "PROTOCOL" in reasons(driver)[0]


# ── what is lost is lost for its instruments ─────────────────────────────────────────────────────────────────────────


def test_a_lost_connection_says_so_of_its_own_instruments(stack):
    server, _, port = serve(stack)
    driver = drive(
        stack, port, symbols=["AUSDT", "BUSDT", "CUSDT"], streams=("trade", "depth@100ms"), streams_per_connection=5
    )
    driver.until(lambda: driver.source.is_open and len(server.sessions) == 2, "two connections")
    assert sorted(len(one.streams) for one in server.sessions) == [2, 4], "an instrument's streams stay together"
    assert driver.source._streaming.tolist() == [1, 1, 1]
    taken = []
    driver.take_raw = taken.append
    (first,) = [one for one in server.sessions if len(one.streams) == 4]
    first.connection.close()
    driver.until(lambda: len(taken) >= 2, "the losses")
    assert taken == [b'{"stream":"ausdt@lost","data":{}}', b'{"stream":"busdt@lost","data":{}}']
    assert driver.source._streaming.tolist() == [0, 0, 1]
    driver.until(lambda: driver.source.is_open, "open again")
    assert driver.source._streaming.tolist() == [1, 1, 1]


def test_more_losses_than_find_room_come_later_and_before_anything_new(stack, monkeypatch):
    monkeypatch.setattr(r, "INDEX_COUNT", 4)
    server, _, port = serve(stack)
    symbols = [f"S{number}USDT" for number in range(11)]
    driver = drive(stack, port, symbols=symbols)
    driver.until(lambda: driver.source.is_open and server.sessions, "open")
    taken = []
    driver.take_raw = taken.append
    server.sessions[0].connection.close()
    driver.until(lambda: len(server.sessions) == 2 and driver.source.is_open, "open again")
    server.sessions[1].send(trade(1, "s0usdt"))
    driver.until(lambda: trade(1, "s0usdt") in taken, "a trade")
    assert taken == [b'{"stream":"%s@lost","data":{}}' % one.lower().encode() for one in symbols] + [trade(1, "s0usdt")]


# ── SBE ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sbe(stack, port, read_key=lambda: "KEY", **options):
    options = {"encoding": "sbe", "key": "file:x", "read_key": read_key} | options
    return drive(stack, port, streams=("depth", "trade"), **options)


def test_binary_messages_come_whole_in_order_and_say_what_they_are(stack):
    server, _, port = serve(stack)
    driver = sbe(stack, port)
    driver.until(lambda: driver.source.is_open and server.sessions, "open")
    session = server.sessions[0]
    assert session.connection.request.headers["X-MBX-APIKEY"] == "KEY"
    frames = [sbe_frames.depth(n, n, [(9_500_011, 5)] * n, []) for n in range(1, 40)]
    for number, frame in enumerate(frames):
        pieces = [frame[:9], frame[9:20], frame[20:]] if number % 5 == 2 else frame
        session.connection.send(pieces)
        if number % 9 == 4:
            session.connection.ping(b"%03d" % number + b"p" * 122)
    session.send(trade(1))
    driver.until(lambda: len(driver.taken) > len(frames), "all frames")
    assert driver.taken == [*frames, trade(1)]
    assert driver.flags == [BINARY] * len(frames) + [TEXT]


@pytest.mark.parametrize(
    "notice", ['{"e":"serverShutdown","E":1}', '{"stream":"!serverShutdown","data":{"e":"serverShutdown"}}']
)
def test_a_switch_of_binary_streams_leaves_none_out(stack, notice):
    server, _, port = serve(stack)
    driver = sbe(stack, port)
    driver.until(lambda: driver.source.is_open and server.sessions, "open")
    server.sessions[0].send(notice)
    number, said = 0, []
    while not said:
        for session in list(server.sessions)[:2]:
            session.connection.send(sbe_frames.trades([(2 * number + i, 9_500_011, 5, 1) for i in range(2)]))
        number += 1
        for _ in range(200):
            driver.step()
        said = [fields for event, fields in driver.lines if event == "market data switched to a new connection"]
        assert number < 100_000
    assert said[0]["overlapping"]
    server.sessions[1].connection.send(sbe_frames.trades([(2 * number, 9_500_011, 5, 1)]))
    last = sbe_frames.trades([(2 * number, 9_500_011, 5, 1)])
    driver.until(lambda: last in driver.taken, "the last trade")
    wanted = [sbe_frames.trades([(2 * one + i, 9_500_011, 5, 1) for i in range(2)]) for one in range(number)]
    assert driver.taken == [*wanted, last]
    assert set(driver.flags) == {BINARY}


def test_a_key_that_cannot_be_read_is_told_until_it_can(stack):
    server, _, port = serve(stack)
    answers = [ValueError("key file x: expired on 2020-01-01"), ValueError("key file x: cannot be read")]

    def read_key():
        if answers:
            raise answers.pop(0)
        return "FRESH"

    driver = sbe(stack, port, read_key)
    assert comes_back(driver, server, "a key") == "key file x: expired on 2020-01-01"
    assert len(server.sessions) == 1
    assert server.sessions[0].connection.request.headers["X-MBX-APIKEY"] == "FRESH"
    assert not any("FRESH" in str(line) for line in driver.lines)


# ── bytes that are damaged ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["json", "sbe"])
def test_damaged_bytes_end_a_connection_or_pass_and_never_more(stack, encoding):
    """Streams of frames with a few bytes changed, each over a new connection: it goes on, and one line says why."""
    rng = random.Random(encoding)
    server, _, port = serve(stack)
    driver = sbe(stack, port) if encoding == "sbe" else drive(stack, port)
    for turn in range(12):
        driver.until(lambda turn=turn: driver.source.is_open and len(server.sessions) > turn, f"connection {turn}")
        made = bytearray()
        for number in range(30):
            frame = trade(number) if encoding == "json" else sbe_frames.depth(number, number, [(9_500_011, 5)] * 3, [])
            first = Opcode.TEXT if encoding == "json" else Opcode.BINARY
            made += Frame(first, frame).serialize(mask=False)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(made))
            made[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        taken = len(driver.taken)
        connection = server.sessions[turn].connection
        with contextlib.suppress(OSError):
            connection.socket.sendall(made)
            connection.socket.shutdown(socket.SHUT_RDWR)
        driver.until(lambda turn=turn: len(reasons(driver)) > turn, f"the end of connection {turn}")
        driver.until(lambda taken=taken: None in driver.taken[taken:], "the loss")
        driver.source._groups[0].failures = 0  # no longer waits than after the first
    assert all(one.isprintable() and len(one) <= 310 for one in reasons(driver))
    assert sum(one is None for one in driver.taken) == 12, "each loss said once"
