"""What leaves a connection: in one write, up to its end, and not for ever to who does not read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from shrivenq.pipeline.exchange.fix_sockets import FixSocket


class Transport:
    """A transport that keeps what is written."""

    def __init__(self):
        self.writes = []
        self.ended = ""

    def write(self, data):
        self.writes.append(data)

    def get_write_buffer_size(self):
        return sum(len(one) for one in self.writes)

    def is_closing(self):
        return bool(self.ended)

    def close(self):
        self.ended = self.ended or "closed"

    def abort(self):
        self.ended = "aborted"


def with_socket(function, backlog_bytes=100):
    async def inside():
        transport = Transport()
        socket = FixSocket(SimpleNamespace(transport=transport), backlog_bytes)
        function(socket)
        await asyncio.sleep(0)
        return transport

    return asyncio.run(inside())


def test_messages_of_one_turn_are_one_write():
    transport = with_socket(lambda socket: [socket.send_message(one) for one in (b"a", b"b", b"c")])
    assert (transport.writes, transport.ended) == ([b"abc"], "")


def test_what_fix_does_not_have_does_not_begin_as_a_message():
    assert with_socket(lambda socket: socket.send_unknown(b"8=FIX.4.4")).writes == [b"9=0\x018=FIX.4.4"]


def test_what_was_sent_before_a_close_leaves_and_nothing_after_it():
    def act(socket):
        socket.send_message(b"a")
        assert socket.is_open
        socket.close()
        assert not socket.is_open
        socket.send_message(b"b")
        socket.close()

    transport = with_socket(act)
    assert (transport.writes, transport.ended) == ([b"a"], "closed")


def test_an_abort_takes_what_waits_with_it():
    def act(socket):
        socket.send_message(b"a")
        socket.abort()
        assert not socket.is_open

    transport = with_socket(act)
    assert (transport.writes, transport.ended) == ([], "aborted")


def test_who_does_not_read_is_cut():
    assert with_socket(lambda socket: socket.send_message(b"x" * 100)).ended == ""
    assert with_socket(lambda socket: socket.send_message(b"x" * 101)).ended == "aborted"
