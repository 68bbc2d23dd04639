"""The connection's state machine, with the server side of `websockets` as its peer."""

from __future__ import annotations

import json
import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from shrivenq.stages.live import connection as c
from shrivenq.stages.live.connection import Closed, Connection, Message, Restarting

S = 1_000_000_000
NOTICES = [
    b'{"result":null,"id":1}',
    b'{"result":null,"id":9999999999999999999999}',
    b'{"result":null,"id":[1]}',
    b'{"e":"serverShutdown"}',
    b'{"data":{"e":"serverShutdown"}}',
    b'{"code":2,"msg":"a\\nb"}',
    b'{"error":null}',
    b'{"data":7}',
    b"\x88\x00",
    b"\x89\x00",
    b"\x01\x01a",
    b"\x80\x01b",
]

BANNED = "the venue answers HTTP 418 to the handshake"


class Peer:
    """A server without I/O."""

    def __init__(self, streams=("a@trade",), now=0, url="ws://localhost:1", api_key=""):
        self.connection = Connection(url, list(streams), now, api_key)
        self.protocol = ServerProtocol()
        self.protocol.receive_data(self.connection.data_to_send())
        (self.request,) = self.protocol.events_received()

    def accept(self, now=0, cut=None):
        self.protocol.send_response(self.protocol.accept(self.request))
        data = b"".join(self.protocol.data_to_send())
        took = self.connection.receive_response(data[:cut], now)
        if cut is not None:
            assert took == 0
            took = self.connection.receive_response(data + b"\x81\x00", now)
        assert took == len(data)
        return self

    def heard(self):
        """What the client has sent since."""
        self.protocol.receive_data(self.connection.data_to_send())
        return [one for one in self.protocol.events_received() if isinstance(one, Frame)]


def test_it_opens_with_every_stream_in_the_url():
    peer = Peer(["btcusdt@trade", "btcusdt@depth@100ms"]).accept(cut=40)
    assert peer.request.path == "/stream?streams=btcusdt@trade/btcusdt@depth@100ms"
    assert peer.connection.state == c.OPEN
    assert not peer.connection.events
    assert peer.connection.deadline_ns() == 0


def test_a_path_of_the_url_stays_in_front_and_the_key_is_named_in_the_handshake_alone(caplog):
    caplog.set_level(logging.DEBUG)
    peer = Peer(url="ws://localhost:1/sbe/", api_key="canary0key").accept()
    assert peer.request.path == "/sbe/stream?streams=a@trade"
    assert peer.request.headers[c.KEY_HEADER] == "canary0key"
    assert c.KEY_HEADER not in Peer().request.headers
    said = [one.getMessage() for one in caplog.records if one.name != "websockets.server"]
    assert not any("canary0key" in one for one in said)
    assert not any("canary0key" in repr(event) for event in peer.connection.events)


def test_streams_that_do_not_fit_are_asked_for_at_a_pace_the_venue_bears():
    streams = [f"symbol{number}@depth@100ms" for number in range(600)]
    peer = Peer(streams).accept()
    asked, now = peer.request.path.partition("=")[2].split("/"), 0
    assert len(peer.request.path) <= c.PATH_BYTES
    times, open_ids = [], []
    while peer.connection.state == c.SUBSCRIBING:
        for frame in peer.heard():
            request = json.loads(frame.data)
            assert request["method"] == "SUBSCRIBE"
            asked += request["params"]
            times.append(now)
            open_ids.append(request["id"])
        while len(open_ids) > 2 or (open_ids and len(asked) == 600):
            peer.connection.receive_notice(json.dumps({"result": None, "id": open_ids.pop(0)}).encode(), now)
        now += S // 50
        peer.connection.tick(now)
        assert now < 60 * S
    assert peer.connection.state == c.OPEN
    assert asked == streams
    for first, sixth in zip(times, times[4:], strict=False):
        assert sixth - first >= S


def test_no_answer_is_given_up_on():
    peer = Peer(now=5)
    assert peer.connection.deadline_ns() == 5 + c.ANSWER_NS
    peer.connection.tick(4 + c.ANSWER_NS)
    assert not peer.connection.events
    peer.connection.tick(5 + c.ANSWER_NS)
    assert peer.connection.events.pop() == Closed("no answer in 10 s while upgrading")


def test_a_subscription_without_an_answer_is_given_up_on():
    peer = Peer([f"symbol{number}@depth@100ms" for number in range(260)]).accept(now=S)
    peer.connection.tick(S + c.ANSWER_NS)
    assert peer.connection.events.pop() == Closed("no answer in 10 s while subscribing")


@pytest.mark.parametrize(
    ("response", "reason", "retry"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno", "HTTP 429", 7),
        (b"HTTP/1.1 418 I'm a teapot\r\nRetry-After: 99999999999\r\n\r\n", "HTTP 418", c.RETRY_MAX_S),
        (b"HTTP/1.1 200 OK\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", "HTTP 200", 0),
        (b"hello\r\n\r\n", "not a WebSocket server", 0),
        (b"\x00" * (c.RESPONSE_MAX + 1), "not a WebSocket server", 0),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not a WebSocket server", 0),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "not a WebSocket server", 0),
        (
            b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 30\r\n\r\n{"code":-2015,"msg":"Invalid"}',
            'the venue answers HTTP 401 to the handshake: {"code":-2015,"msg":"Invalid"}',
            0,
        ),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsorry\r\n0\r\n\r\n", "HTTP 503", 0),
        (b"HTTP/1.1 403 No\r\nContent-Type: text/html\r\n\r\n<html>\n\x1b[31m<p>", "handshake: <html>  [31m<p>", 0),
        (b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere\r\n\r\n", "HTTP 302", 0),
        (b"HTTP/1.1 999 \xff\r\n\r\n", "not a WebSocket server", 0),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not a WebSocket server", 0),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n", "not a WebSocket server", 0),
    ],
)
def test_a_refused_handshake_says_why_and_for_how_long(response, reason, retry):
    peer = Peer()
    assert peer.connection.receive_response(response, 0) == len(response)
    closed = peer.connection.events.popleft()
    assert reason in closed.reason
    assert closed.retry_after_s == retry
    assert "\n" not in closed.reason
    assert peer.connection.state == c.CLOSED


def test_a_refusal_waits_for_its_body_and_counts_without_it():
    head, body = b"HTTP/1.1 418 I'm a teapot\r\ncontent-length:  6\r\nRetry-After: 33\r\n\r\n", b"banned"
    peer = Peer()
    for size in range(len(body)):
        assert peer.connection.receive_response(head + body[:size], 0) == 0
    assert peer.connection.state == c.UPGRADING
    assert peer.connection.receive_response(head + body, 0) == len(head + body)
    assert peer.connection.events.pop() == Closed(
        "the venue answers HTTP 418 to the handshake: banned", 33, is_ban=True
    )
    peer = Peer()
    assert peer.connection.receive_response(head + b"ba", 0, is_all=True) == len(head) + 2
    assert peer.connection.events.pop() == Closed(f"{BANNED}: ba", 33, is_ban=True)


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_answer_to_the_handshake_opens_or_closes_in_one_line(seed):
    rng = random.Random(seed)
    for _ in range(10):
        peer = Peer()
        peer.protocol.send_response(peer.protocol.accept(peer.request))
        answer = bytearray(b"".join(peer.protocol.data_to_send()))
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(answer))
            answer[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        took = peer.connection.receive_response(bytes(answer), 0)
        assert 0 <= took <= len(answer), f"seed {seed}"
        if took == 0:
            peer.connection.receive_eof(0, "closed by the venue")
        assert peer.connection.state in (c.OPEN, c.CLOSED), f"seed {seed}"
        for event in peer.connection.events:
            assert "\n" not in event.reason, f"seed {seed}"
            assert event.reason.isprintable(), f"seed {seed}"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(NOTICES)), max_size=12), st.booleans())
def test_whatever_comes_it_says_one_line_or_passes_it_on(pieces, as_notice):
    peer = Peer(["a@trade"] * 300).accept()
    for number, piece in enumerate(pieces):
        if as_notice:
            peer.connection.receive_notice(piece, number)
        else:
            peer.connection.receive_frames(piece, number)
        peer.connection.tick(number)
        peer.connection.data_to_send()
    closed = [event for event in peer.connection.events if isinstance(event, Closed)]
    assert len(closed) == (peer.connection.state == c.CLOSED)
    assert all("\n" not in one.reason for one in closed)


def test_fragments_of_binary_stay_binary():
    peer = Peer().accept()
    pieces = [(Opcode.BINARY, b'{"stream":"', False), (Opcode.CONT, b"\x00\x01", True), (Opcode.BINARY, b"", True)]
    for opcode, payload, fin in pieces:
        peer.connection.receive_frames(Frame(opcode, payload, fin=fin).serialize(mask=False), 0)
    assert list(peer.connection.events) == [
        Message(b'{"stream":"\x00\x01', is_binary=True),
        Message(b"", is_binary=True),
    ]
    for opcode, payload, fin in [(Opcode.TEXT, b'{"stream":"b@trade"', False), (Opcode.CONT, b"}", True)]:
        peer.connection.receive_frames(Frame(opcode, payload, fin=fin).serialize(mask=False), 0)
    assert peer.connection.events.pop() == Message(b'{"stream":"b@trade"}')


def test_a_ping_is_answered_between_the_fragments_of_a_message():
    peer = Peer().accept()
    payload = b'{"stream":"a@trade","data":{}}'
    frames = [
        Frame(Opcode.TEXT, payload[:9], fin=False), Frame(Opcode.PING, b"p" * 125),
        Frame(Opcode.CONT, payload[9:11], fin=False), Frame(Opcode.CONT, payload[11:]),
    ]  # fmt: skip
    for frame in frames:
        assert peer.connection.strict == (frame.opcode in (Opcode.PING, Opcode.CONT))
        peer.connection.receive_frames(frame.serialize(mask=False), 0)
    assert not peer.connection.strict
    assert list(peer.connection.events) == [Message(payload)]
    (pong,) = peer.heard()
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"p" * 125)


def test_a_close_is_answered_and_told():
    peer = Peer().accept()
    peer.connection.receive_frames(Frame(Opcode.CLOSE, b"\x03\xf0too slow").serialize(mask=False), 0)
    assert peer.connection.events.pop() == Closed("closed by the venue: 1008 (policy violation) too slow")
    (goodbye,) = peer.heard()
    assert goodbye.opcode is Opcode.CLOSE
    peer.connection.receive_frames(b"\x81\x01x", 0)
    peer.connection.receive_eof(0, "end")
    assert not peer.connection.events


@pytest.mark.parametrize("data", [b"\xc1\x00", b"\x81\x84mmmmabcd", b"\x83\x00", b"\x80\x00", b"\x09\x00"])
def test_what_breaks_the_protocol_closes_the_connection(data):
    peer = Peer().accept()
    peer.connection.receive_frames(data, 0)
    closed = peer.connection.events.pop()
    assert closed.reason.startswith("protocol error: ")
    (goodbye,) = peer.heard()
    assert goodbye.data[:2] == (1002).to_bytes(2)


def test_an_end_without_goodbye_is_told():
    peer = Peer().accept()
    peer.connection.receive_eof(0, "connection reset by peer")
    assert peer.connection.events.pop() == Closed("connection reset by peer")


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (b'{"e":"serverShutdown","E":1}', Restarting()),
        (b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}', Restarting()),
        (b"garbage \xff", Message(b"garbage \xff")),
        (b"[1]", Message(b"[1]")),
        (b"[" * 100_000, Message(b"[" * 100_000)),
        (b'{"what":1}', Message(b'{"what":1}')),
    ],
)
def test_announcements_are_told_and_what_is_unknown_is_passed_on(text, event):
    peer = Peer().accept()
    peer.connection.receive_notice(text, 0)
    assert peer.connection.events.pop() == event
    assert peer.connection.state == c.OPEN


@pytest.mark.parametrize("text", [b'{"code":2,"msg":"Invalid request"}', b'{"error":{"code":2,"msg":"no"},"id":1}'])
def test_a_refusal_of_the_venue_closes(text):
    peer = Peer().accept()
    peer.connection.receive_notice(text, 0)
    assert peer.connection.events.pop().reason == f"the venue refuses: {text.decode()}"
