"""A link over TLS: what differs from the plain one that `test_source` drives."""

from __future__ import annotations

import os
import random
import socket

import pytest

from shrivenq.stages.live import openssl
from shrivenq.stages.live import receive as r
from tests.stages.live import authority
from tests.stages.live.live_rig import Driver, Server, trade


@pytest.fixture(params=["compiled", "python"])
def rig(request, tmp_path, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(openssl, "LIBRARY", None)
    path, context = authority.make(tmp_path)
    server = Server(ssl=context)
    driver = Driver(f"wss://127.0.0.1:{server.port}", authority=str(path))
    yield driver, server
    driver.close()
    server.close()


def test_messages_come_whole_under_tls_more_than_a_stripe_of_them(rig):
    driver, server = rig
    driver.until(lambda: driver.source.is_open and server.sessions, "open")
    rng = random.Random(1)
    wanted = []
    for number in range(120):
        payload = b'{"stream":"b@trade","n":%d,"x":"' % number + b"x" * rng.choice((1, 500, 20_000, 90_000)) + b'"}'
        wanted.append(payload)
        server.sessions[0].send(payload)
        if number % 7 == 0:
            server.sessions[0].send(payload.decode()[:5])  # a notice that is none
            wanted.append(payload[:5])
        driver.step()
    driver.until(lambda: len(driver.taken) >= len(wanted), "all messages")
    assert driver.taken == wanted
    assert sum(map(len, wanted)) > r.STRIPE_BYTES // 2


def test_a_close_under_tls_is_a_loss_and_the_connection_comes_back(rig):
    driver, server = rig
    driver.until(lambda: driver.source.is_open and server.sessions, "open")
    server.sessions[0].send(trade(1))
    server.sessions[0].connection.close()
    driver.until(lambda: len(server.sessions) == 2 and driver.source.is_open, "open again")
    assert driver.taken == [trade(1), None]
    assert [fields["reason"] for event, fields in driver.lines if event == "market data disconnected"] == [
        "closed by the venue: 1000 (OK)"
    ]


def test_a_record_that_is_none_ends_the_connection_and_the_next_one_is_made(rig):
    driver, server = rig
    driver.until(lambda: driver.source.is_open and server.sessions, "open")
    server.sessions[0].send(trade(1))
    secured = server.sessions[0].connection.socket
    with socket.socket(fileno=os.dup(secured.fileno())) as raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    driver.until(lambda: len(server.sessions) == 2 and driver.source.is_open, "open again")
    assert driver.taken == [trade(1), None]
    (reason,) = [fields["reason"] for event, fields in driver.lines if event == "market data disconnected"]
    assert reason.startswith("TLS failed: ")


def test_a_wrong_certificate_is_told_and_tried_again(tmp_path):
    path, _ = authority.make(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    server = Server(ssl=authority.make(other)[1])
    driver = Driver(f"wss://127.0.0.1:{server.port}", authority=str(path))
    try:
        driver.until(lambda: len(driver.lines) == 2, "two refusals")
        assert {fields["reason"].partition(":")[0] for _, fields in driver.lines} == {"certificate refused"}
        assert driver.taken == []
    finally:
        driver.close()
        server.close()
