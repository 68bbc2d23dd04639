"""A market stream connection: control messages and their mistakes, limits, pings, its end."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest
import websockets.exceptions
import websockets.sync.client
from websockets.frames import Frame, Opcode

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.stream_sessions import read_time_unit
from tests.pipeline.exchange.exchange_rig import FLOWING, running


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    limits = {"messages_s": 0, "streams": 20, "connections": 100_000}
    with running(tmp_path_factory.mktemp("sessions"), market=FLOWING, limits=limits) as found:
        yield found


def connect(rig, path="/ws", **options):
    return websockets.sync.client.connect(rig.ws + path, max_size=None, max_queue=None, **options)


def ask(connection, message):
    """Send a control message; give its answer, which events may come before."""
    connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
    while True:
        answer = json.loads(connection.recv(30))
        if "result" in answer or "error" in answer:
            return answer


def test_subscribing_and_unsubscribing(rig):
    with connect(rig) as one:
        names = ["btcusdt@trade", "btcusdt@depth@100ms"]
        assert ask(one, {"method": "SUBSCRIBE", "params": names, "id": 1}) == {"result": None, "id": 1}
        assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": "a-1"}) == {"result": names, "id": "a-1"}
        answer = ask(one, {"method": "UNSUBSCRIBE", "params": names[:1], "id": None})
        assert answer == {"result": None, "id": None}
        assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": -(1 << 63)})["result"] == names[1:]
        assert ask(one, {"method": "UNSUBSCRIBE", "params": ["ethusdt@trade"], "id": 2})["result"] is None
        assert ask(one, b'{"method": "LIST_SUBSCRIPTIONS", "id": 3}')["id"] == 3


def test_streams_named_in_the_url(rig):
    for path, names in (
        ("/ws/btcusdt@trade", ["btcusdt@trade"]),
        ("/ws/btcusdt@trade/ethusdt@bookTicker", ["btcusdt@trade", "ethusdt@bookTicker"]),
        ("/stream?streams=btcusdt@trade/ethusdt@depth@100ms", ["btcusdt@trade", "ethusdt@depth@100ms"]),
        ("/stream", []),
        ("/ws/", []),
    ):
        with connect(rig, path) as one:
            assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": 1})["result"] == names


def test_raw_becomes_combined_and_back(rig):
    with connect(rig, "/ws/btcusdt@bookTicker") as one:
        assert "u" in json.loads(one.recv(30))
        assert ask(one, {"method": "GET_PROPERTY", "params": ["combined"], "id": 1})["result"] is False
        assert ask(one, {"method": "SET_PROPERTY", "params": ["combined", True], "id": 2})["result"] is None
        assert ask(one, {"method": "GET_PROPERTY", "params": ["combined"], "id": 3})["result"] is True
        assert json.loads(one.recv(30))["stream"] == "btcusdt@bookTicker"


MISTAKES = [
    ("{", 3, "Invalid JSON: expected value at line 1 column"),
    ("", 3, "Invalid JSON"),
    (b"\xff\xfe", 3, "Invalid JSON"),
    ("[" * 5_000, 3, "Invalid JSON"),
    ("[]", 2, "Invalid request"),
    ("5", 2, "Invalid request"),
    ({"id": 1}, 2, "Invalid request: missing field `method`"),
    ({"method": "WISH", "id": 1}, 2, "Invalid request: unknown variant `WISH`, expected one of `SUBSCRIBE`"),
    ({"method": ["SUBSCRIBE"], "id": 1}, 2, "Invalid request: unknown variant"),
    ({"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 1}, 2, "Invalid request: params must be an array"),
    ({"method": "SUBSCRIBE", "params": [1], "id": 1}, 2, "Invalid request: stream name must be a string"),
    ({"method": "SUBSCRIBE", "params": ["nonsense"], "id": 1}, 2, "Invalid request: invalid stream"),
    ({"method": "LIST_SUBSCRIPTIONS", "id": 1 << 63}, 2, "Invalid request: request ID"),
    ({"method": "LIST_SUBSCRIPTIONS", "id": 1.5}, 2, "Invalid request: request ID"),
    ({"method": "LIST_SUBSCRIPTIONS", "id": True}, 2, "Invalid request: request ID"),
    ({"method": "LIST_SUBSCRIPTIONS", "id": "x" * 37}, 2, "Invalid request: request ID"),
    ({"method": "GET_PROPERTY", "params": [], "id": 1}, 2, "Invalid request: property name must be a string"),
    ({"method": "GET_PROPERTY", "params": ["speed"], "id": 1}, 0, "Unknown property"),
    ({"method": "GET_PROPERTY", "params": ["combined", 1], "id": 1}, 2, "Invalid request: too many parameters"),
    ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1, "Invalid value type: expected Boolean"),
    ({"method": "SET_PROPERTY", "params": ["combined"], "id": 1}, 1, "Invalid value type: expected Boolean"),
]


def test_mistakes_are_answered_and_harm_nobody(rig):
    with connect(rig) as one:
        for message, code, said in MISTAKES:
            answer = ask(one, message)
            assert answer["error"]["code"] == code, (message, answer)
            assert answer["error"]["msg"].startswith(said), (message, answer)
        assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": 1}) == {"result": [], "id": 1}


def test_too_many_streams_end_the_connection(rig):
    names = [f"btcusdt@depth{number}" for number in range(21)]
    with connect(rig) as one:
        assert ask(one, {"method": "SUBSCRIBE", "params": names[:20], "id": 1})["result"] is None
        one.send(json.dumps({"method": "SUBSCRIBE", "params": names[20:], "id": 2}))
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as caught:
            ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": 3})
        assert caught.value.rcvd.code == 1008
    with (
        pytest.raises(websockets.exceptions.InvalidStatus, match="400"),
        connect(rig, "/stream?streams=" + "/".join(names)),
    ):
        pass


def test_the_time_unit(rig):
    assert (read_time_unit(""), read_time_unit("timeUnit=millisecond")) == (False, False)
    assert read_time_unit("streams=a@trade&timeUnit=MICROSECOND")
    with pytest.raises(ApiError, match="-1194"):
        read_time_unit("timeUnit=HOUR")
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught, connect(rig, "/ws?timeUnit=HOUR"):
        pass
    assert (caught.value.response.status_code, json.loads(caught.value.response.body)["code"]) == (400, -1194)


def test_six_messages_within_a_second_end_the_connection_pings_too(tmp_path):
    with running(tmp_path, limits={"messages_s": 5}) as rig:
        for opcode in (Opcode.TEXT, Opcode.PING, Opcode.PONG):
            with silent(rig) as wire:
                # Six of these fall within one second.
                wire.sendall(Frame(opcode, b"").serialize(mask=True) * 11)
                received = b""
                while not received.endswith(b"\x88\x13\x03\xf0Too many requests"):
                    chunk = wire.recv(65_536)
                    assert chunk, received
                    received += chunk


def test_too_many_attempts_to_connect_are_refused(tmp_path):
    with running(tmp_path, limits={"connections": 3}) as rig:
        now_us = rig.stop_clock()
        for _ in range(3):
            with connect(rig):
                pass
        with pytest.raises(websockets.exceptions.InvalidStatus, match="429"), connect(rig):
            pass
        rig.call(lambda: rig.venue.limits.address("127.0.0.1").ban(60_000_000, now_us))
        with pytest.raises(websockets.exceptions.InvalidStatus, match="418") as caught, connect(rig):
            pass
        assert caught.value.response.headers["Retry-After"] == "60"


def test_a_session_has_its_time(tmp_path):
    with running(tmp_path, sessions={"lifetime_s": 0.2}) as rig, connect(rig) as one:
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            one.recv(30)
        assert one.protocol.close_code == 1000


def test_who_does_not_answer_a_ping_is_cut(tmp_path):
    with running(tmp_path, sessions={"ping_s": 0.1, "pong_s": 0.3}, limits={"messages_s": 0}) as rig:
        with connect(rig, ping_interval=None) as one:  # it answers, and stays
            before = time.monotonic()
            while time.monotonic() - before < 1:
                assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": 1})["result"] == []
                with pytest.raises(TimeoutError):
                    one.recv(0.3)
        with silent(rig) as wire:  # it reads, and says nothing
            received = b""
            while chunk := wire.recv(65_536):
                received += chunk
            assert received[:1] == bytes([0x89]), "a ping"
            assert b"keepalive ping timeout" in received


@pytest.mark.parametrize("path", ["/ws", "/ws-api/v3"])
def test_pongs_that_nobody_asked_for_keep_no_connection_alive(tmp_path, path):
    with (
        running(tmp_path, sessions={"ping_s": 0.1, "pong_s": 0.3}, limits={"messages_s": 0}) as rig,
        silent(rig, path) as wire,
    ):
        received = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while chunk := wire.recv(65_536):
                received += chunk
                wire.sendall(Frame(Opcode.PONG, b"").serialize(mask=True))
        assert b"keepalive ping timeout" in received


def silent(rig, path="/ws"):
    """Connect without a library that would answer pings."""
    wire = socket.create_connection(("127.0.0.1", rig.port), timeout=60)
    wire.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += wire.recv(1)
    assert b" 101 " in head
    return wire


def test_who_reads_too_slowly_is_cut_and_nobody_waits(tmp_path):
    market = FLOWING | {"events_per_s": 20_000}
    with running(tmp_path, market=market, sessions={"backlog_bytes": 50_000}) as rig:
        wire = silent(rig, "/stream?streams=btcusdt@trade/btcusdt@bookTicker/btcusdt@depth@100ms")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with wire, connect(rig, "/ws/btcusdt@depth@100ms") as quick:
            while rig.call(lambda: len(rig.simulator.streams._all)) > 1:
                assert "U" in json.loads(quick.recv(30))
            for _ in range(5):
                assert "U" in json.loads(quick.recv(30))


@pytest.mark.parametrize(
    "raw",
    [
        b"\xc1\x80\x00\x00\x00\x00",  # a reserved bit
        b"\x83\x80\x00\x00\x00\x00",  # a reserved opcode
        b"\x81\x05hello",  # not masked
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",  # 2^63 − 1 bytes announced
        b"\x89\xfe\x00\x80\x00\x00\x00\x00",  # a ping longer than 125 bytes
        b"\x00" * 500,
        b"GET / HTTP/1.1\r\n\r\n",
        Frame(Opcode.TEXT, b"\xff\xff").serialize(mask=True),  # no UTF-8
        Frame(Opcode.TEXT, b"x" * ((1 << 20) + 1)).serialize(mask=True),  # too long
    ],
)
def test_garbage_frames_end_only_their_connection(rig, raw):
    with connect(rig) as other:
        with silent(rig) as wire, contextlib.suppress(ConnectionError):  # it may be reset while we still send
            wire.sendall(raw)
            with contextlib.suppress(OSError):  # it has no other end any more
                wire.shutdown(socket.SHUT_WR)
            while wire.recv(65_536):
                pass
        assert ask(other, {"method": "LIST_SUBSCRIPTIONS", "id": 1})["result"] == []
