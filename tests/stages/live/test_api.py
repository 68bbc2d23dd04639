"""Connections to the WebSocket API: nothing is subscribed to, every message is handed on, in order."""

from __future__ import annotations

import base64
import hashlib
import re

from shrivenq.stages.live.api import ApiConnection
from shrivenq.stages.live.connection import OPEN, Message
from shrivenq.stages.live.websocket import TEXT_WHOLE


def opened():
    connection = ApiConnection("ws://127.0.0.1:9443", (), 0)
    request = connection.data_to_send().decode()
    assert request.startswith("GET /ws-api/v3 HTTP/1.1\r\n")
    key = re.search("Sec-WebSocket-Key: (.*)\r\n", request)[1].encode()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()  # noqa: S324
    response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    connection.receive_response(f"{response}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode(), 1)
    assert connection.state == OPEN
    assert connection.data_to_send() == b""
    return connection


def test_every_message_is_handed_on():
    connection = opened()
    said = [b'{"id":1,"status":200}', b'{"stream":"x","error":{}}', b'{"code":1,"msg":"x"}', b"nonsense", b""]
    for one in said:
        connection.receive_notice(one, 2)
    assert [event.payload for event in connection.events] == said
    assert all(isinstance(event, Message) for event in connection.events)
    assert connection.state == OPEN


def test_fragments_are_joined_before():
    connection = opened()
    connection.receive_frames(bytes([0x01, 3]) + b"abc", 2)
    assert connection.strict
    connection.receive_frames(bytes([0x80, 3]) + b"def", 2)
    assert connection.events.popleft().payload == b"abcdef"


def test_what_is_sent_is_masked_and_nothing_is_sent_after_the_end():
    connection = opened()
    connection.send_text(b'{"id":"x"}')
    data = connection.data_to_send()
    assert data[0] == TEXT_WHOLE
    assert data[1] == 0x80 | 10
    assert bytes(a ^ b for a, b in zip(data[6:], data[2:6] * 3, strict=False)) == b'{"id":"x"}'
    connection.close()
    connection.data_to_send()
    connection.send_text(b"late")
    assert connection.data_to_send() == b""
