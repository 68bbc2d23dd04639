"""`recvmsg`, `send`, `setsockopt` and `errno` as a kernel sees them."""

from __future__ import annotations

import errno
import socket

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages.live import system
from shrivenq.stages.live.receive import CONTROL_LENGTH, IOV_BASE, IOV_LENGTH, make_receiver


@kernel
def receive(descriptor, message):
    count = system.recvmsg(descriptor, message.ctypes.data, socket.MSG_DONTWAIT)
    return count, system.errno()


def test_bytes_come_into_the_buffer_and_their_absence_is_told():
    live, frames = make_receiver(1)
    message = live.message
    message[IOV_BASE], message[IOV_LENGTH], message[CONTROL_LENGTH] = frames.data.ctypes.data, 5, 0
    ours, theirs = socket.socketpair()
    try:
        assert receive(ours.fileno(), message) == (-1, errno.EAGAIN)
        theirs.send(b"123456")
        assert receive(ours.fileno(), message)[0] == 5
        assert frames.data[:6].tobytes() == b"12345\0"
        theirs.close()
        assert receive(ours.fileno(), message)[0] == 1
        assert receive(ours.fileno(), message)[0] == 0
    finally:
        ours.close()
        theirs.close()
    assert receive(10_000_000, message) == (-1, errno.EBADF)


@kernel
def send(descriptor, data, size):
    count = system.send(descriptor, data.ctypes.data, size, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    return count, system.errno()


def test_bytes_go_out_as_far_as_they_can():
    data = np.frombuffer(bytes(range(256)) * 4096, np.uint8).copy()
    ours, theirs = socket.socketpair()
    try:
        assert send(ours.fileno(), data, 5)[0] == 5
        assert theirs.recv(100) == bytes(range(5))
        sent = 0
        while (found := send(ours.fileno(), data, len(data)))[0] > 0:
            sent += found[0]
        assert found == (-1, errno.EAGAIN)
        assert sent > 0
        theirs.close()
        assert send(ours.fileno(), data, 5) == (-1, errno.EPIPE)
    finally:
        ours.close()
        theirs.close()


@kernel
def set_option(descriptor, name, value):
    status = system.setsockopt(descriptor, socket.IPPROTO_TCP, name, value.ctypes.data, 4)
    return status, system.errno()


def test_an_option_is_set_or_refused():
    value = np.array([1], np.int64)
    with socket.socket() as one:
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert set_option(one.fileno(), socket.TCP_NODELAY, value)[0] == 0
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert set_option(one.fileno(), 10_000, value) == (-1, errno.ENOPROTOOPT)
