"""Transports: connecting, TLS with what it refuses, and bytes both ways."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time

import pytest

from shrivenq.stages.live.transport import Resolver, Transport, TransportError, make_tls_context
from tests.stages.live import authority
from tests.stages.live.live_rig import PATIENCE_S


@contextlib.contextmanager
def echo(context=None):
    """Send back what comes, to one client after another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    plain.settimeout(PATIENCE_S)
                    with contextlib.suppress(OSError), plain:
                        ours = context.wrap_socket(plain, server_side=True) if context else plain
                        with ours:
                            while data := ours.recv(1 << 16):
                                ours.sendall(data)
                            if context:
                                ours.unwrap()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect(port, context=None, host="127.0.0.1"):
    resolver = Resolver()
    try:
        return Transport(resolver.look_up("127.0.0.1", port).result(), host, context)
    finally:
        resolver.close()


def ready(transport):
    end = time.monotonic() + PATIENCE_S
    while not transport.advance():
        assert time.monotonic() < end
    return transport


def receive(transport, size):
    """Receive as the compiled code does, and unseal."""
    found, end = bytearray(), time.monotonic() + PATIENCE_S
    room = bytearray(10_000)
    while len(found) < size:
        assert time.monotonic() < end
        if transport.is_sending:
            transport.send(b"")
        if not select.select([transport.descriptor], [], [], 0.01)[0] and not transport.has_more:
            continue
        with socket.socket(fileno=transport.descriptor) as one:
            try:
                if len(transport.sealed):
                    with contextlib.suppress(BlockingIOError):
                        count = 0
                        count = one.recv_into(memoryview(transport.sealed))
                    count = transport.unseal(count, memoryview(room))
                    found += room[:count]
                else:
                    found += one.recv(1 << 16)
            finally:
                one.detach()
    return bytes(found)


@pytest.mark.parametrize("tls", [False, True])
def test_bytes_go_both_ways(tmp_path, tls):
    path, server = authority.make(tmp_path)
    with echo(server if tls else None) as port:
        transport = connect(port, make_tls_context(path) if tls else None)
        transport.send(b"before it is connected ")
        ready(transport)
        transport.send(b"and after " * 30_000)
        wanted = b"before it is connected " + b"and after " * 30_000
        assert receive(transport, len(wanted)) == wanted
        transport.close()


def flood(transport):
    """Send more than a peer takes that sends it all back, and waits for us to read that."""
    for _ in range(10_000):
        transport.send(bytes(1 << 16))


@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_does_not_read_is_given_up(tmp_path, tls):
    path, server = authority.make(tmp_path)
    with echo(server if tls else None) as port:
        transport = ready(connect(port, make_tls_context(path) if tls else None))
        with pytest.raises(TransportError, match="the venue does not read what is sent"):
            flood(transport)
        transport.close()


def refusal(port, context):
    transport = connect(port, context)
    with pytest.raises(TransportError) as found:
        ready(transport)
    transport.close()
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path):
    with echo(authority.make(tmp_path)[1]) as port:
        assert refusal(port, make_tls_context()) == "certificate refused: unable to get local issuer certificate"


def test_a_certificate_for_another_host_is_refused(tmp_path):
    path, server = authority.make(tmp_path, address="127.0.0.2")
    with echo(server) as port:
        assert "certificate refused: IP address mismatch" in refusal(port, make_tls_context(path))


def test_a_certificate_that_has_expired_is_refused(tmp_path):
    path, server = authority.make(tmp_path, days=-1)
    with echo(server) as port:
        assert refusal(port, make_tls_context(path)) == "certificate refused: certificate has expired"


def test_a_server_without_tls_is_refused():
    with echo() as port:
        assert refusal(port, make_tls_context()).startswith("TLS handshake failed: ")


def test_nobody_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert refusal(port, None) == f"127.0.0.1 port {port}: Connection refused"


def test_old_tls_is_refused(tmp_path):
    path, _ = authority.make(tmp_path)
    assert make_tls_context(path).minimum_version >= ssl.TLSVersion.TLSv1_2
    assert make_tls_context(path).check_hostname


def test_a_file_of_certificates_that_is_none_is_told(tmp_path):
    (tmp_path / "empty.pem").write_bytes(b"")
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(TransportError, match=f"^{path}: no file of certificates: "):
            make_tls_context(path)


def test_a_name_that_is_none_is_told():
    resolver = Resolver()
    with pytest.raises(socket.gaierror):
        resolver.look_up("no such host.invalid", 1).result()
    resolver.close()
