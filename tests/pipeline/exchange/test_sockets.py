"""Sockets: frames, and what was written in one turn. The rest of what they do is tested over the network."""

from __future__ import annotations

import json
import random
import socket

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from shrivenq.pipeline.exchange.sockets import encode
from tests.pipeline.exchange.exchange_rig import running


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_a_frame_is_the_one_the_library_reads(length, text):
    payload = random.Random(length).randbytes(length)
    reader = StreamReader()
    reader.feed_data(encode(payload, text=text))
    with pytest.raises(StopIteration) as done:
        next(Frame.parse(reader.read_exact, mask=False))
    frame = done.value.value
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT if text else Opcode.BINARY, payload, True)


@pytest.fixture
def rig(tmp_path):
    with running(tmp_path) as found:
        yield found


def sockets(rig):
    return rig.call(lambda: [one.socket for one in rig.simulator.streams._all])


def test_messages_of_one_turn_arrive_in_order(rig):
    with websockets.sync.client.connect(rig.ws + "/ws") as one:
        own = sockets(rig)[0]
        rig.call(lambda: [own.send_message(json.dumps(number).encode()) for number in range(100)])
        assert [json.loads(one.recv(30)) for _ in range(100)] == list(range(100))
        rig.call(lambda: own.send_message(b"\x01\x02", text=False))
        assert one.recv(30) == b"\x01\x02"


def test_small_messages_do_not_wait_for_acknowledgements(rig):
    with websockets.sync.client.connect(rig.ws + "/ws"):
        wire = sockets(rig)[0].transport.get_extra_info("socket")
        assert rig.call(lambda: wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) != 0


def test_what_was_sent_before_a_close_arrives_before_it(rig):
    with websockets.sync.client.connect(rig.ws + "/ws") as one:
        own = sockets(rig)[0]

        def work():
            own.send_message(b"last words")
            own.close(1001, "that is all")
            own.send_message(b"never seen")
            own.close()

        rig.call(work)
        assert one.recv(30) == "last words"
        with pytest.raises(ConnectionClosed):
            one.recv(30)
        assert (one.protocol.close_code, one.protocol.close_reason) == (1001, "that is all")
    assert sockets(rig) == []


def test_an_abort_says_nothing(rig):
    with websockets.sync.client.connect(rig.ws + "/ws") as one:
        own = sockets(rig)[0]
        rig.call(lambda: (own.send_message(b"never seen"), own.abort(), own.send_message(b"neither")))
        with pytest.raises(ConnectionClosed):
            one.recv(30)
        assert one.protocol.close_code == 1006
