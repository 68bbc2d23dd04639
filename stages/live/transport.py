"""Transports: a non-blocking TCP socket, plain or under TLS.

Neither knows what the bytes mean. Connecting and the TLS handshake are advanced step by step by `advance`; afterwards
compiled code receives from `descriptor` by itself, plain bytes into a stripe and ciphertext into `sealed`. TLS runs
over `ssl.MemoryBIO`, with certificate and host name verified; where compiled code cannot reach it (`tls` is 0),
`unseal` turns ciphertext into plain bytes.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.stages.live import openssl
from shrivenq.stages.live.receive import SEALED_BYTES

if TYPE_CHECKING:
    from pathlib import Path

SO_TIMESTAMPING = 37
RX_HARDWARE, RX_SOFTWARE, SOFTWARE, RAW_HARDWARE = 1 << 2, 1 << 3, 1 << 4, 1 << 6
RECEIVE_BYTES = 1 << 22
"""Asked of the kernel for its receive buffer: a burst waits there while a snapshot is decoded."""
UNSENT_MAX = 1 << 20
"""Bytes that may wait because the other side does not read; beyond that it is given up."""

Address = tuple[int, int, int, str, Any]


class TransportError(Exception):
    """A connection could not be made or has broken; one line says why."""


class Resolver:
    """Looks names up in a thread of its own: the one thing about a connection that can only be waited for."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def look_up(self, host: str, port: int) -> Future[list[Address]]:
        """Begin to look a host up."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, "resolver")
        return self._threads.submit(_addresses, host, port)

    def close(self) -> None:
        """End the thread."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)


def _addresses(host: str, port: int) -> list[Address]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def make_tls_context(authority: str | Path = "") -> ssl.SSLContext:
    """Make a TLS context that verifies certificate and host name, against `authority` (a PEM file) or the system's.

    Raises TransportError for a file that is none.
    """
    try:
        return ssl.create_default_context(cafile=str(authority) or None)
    except OSError as error:
        raise TransportError(f"{authority}: no file of certificates: {error.strerror or error}") from None


class Transport:
    """One TCP connection to the first of `addresses`; under TLS if there is a context for it."""

    def __init__(
        self, addresses: list[Address], host: str, context: ssl.SSLContext | None, *, timestamps: bool = True
    ) -> None:
        self._address = addresses[0][4]
        self._socket = self._make_socket(addresses[0], timestamps=timestamps)
        self.descriptor = self._socket.fileno()
        self._connected = False
        self._unsent = b""  # on its way to the socket, sealed if there is TLS
        self._plain = b""  # from before the TLS handshake was done
        self.sealed = np.zeros(SEALED_BYTES if context else 0, np.uint8)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host) if context else None
        self._secure = context is None
        self.tls = 0
        """Address of OpenSSL's connection, once it is made; 0 where compiled code cannot have it."""
        self.has_more = False
        """`unseal` has more plain bytes than fitted."""
        self.ended = ""
        """Why nothing more comes under TLS; empty while it goes on."""
        try:
            self._check(self._socket.connect_ex(self._address))
        except TransportError:
            self.close()
            raise

    def _make_socket(self, address: Address, *, timestamps: bool) -> socket.socket:
        family, kind, protocol, _, _ = address
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:
            raise TransportError(f"no socket: {error.strerror}") from None
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            if timestamps:
                wanted = RX_HARDWARE | RX_SOFTWARE | SOFTWARE | RAW_HARDWARE
                made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, wanted)
        except OSError as error:
            made.close()
            raise TransportError(f"no socket: {error.strerror}") from None
        return made

    def _check(self, code: int) -> None:
        if code not in (0, errno.EINPROGRESS):
            raise TransportError(f"{self._address[0]} port {self._address[1]}: {os.strerror(code)}")

    @property
    def ready(self) -> bool:
        """Tell whether plain bytes can be exchanged."""
        return self._connected and self._secure

    def advance(self) -> bool:
        """Go on with connecting and the TLS handshake; tell whether it is done. Raises TransportError."""
        if not self._connected:
            if not select.select([], [self._socket], [], 0)[1]:
                return False
            self._check(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            self._connected = True
        if not self._secure:
            self._receive_handshake()
            self._shake()
        if self.ready and self._plain:
            waiting, self._plain = self._plain, b""
            self.send(waiting)
        return self.ready

    def _receive_handshake(self) -> None:
        try:
            while data := self._socket.recv(SEALED_BYTES):
                self._incoming.write(data)
            self._incoming.write_eof()
        except BlockingIOError:
            pass
        except OSError as error:
            self._shake()  # what came before it may say why
            raise TransportError(f"connection lost in the TLS handshake: {error.strerror}") from None

    def _shake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
            self._secure, self.tls = True, openssl.address_of(self._tls)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            raise TransportError(f"certificate refused: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise TransportError(f"TLS handshake failed: {error.reason or error}") from None
        self._flush()

    def send(self, data: bytes) -> None:
        """Send; what does not go at once goes with the next call. Raises TransportError."""
        if not self.ready:
            self._plain += data
            return
        if self._tls is None:
            self._unsent += data
        elif data:
            self._seal(data)
        self._flush()
        if len(self._unsent) > UNSENT_MAX:
            raise TransportError("connection lost: the venue does not read what is sent")

    def _seal(self, data: bytes) -> None:
        assert self._tls is not None
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise TransportError(f"TLS failed: {error.reason or error}") from None

    @property
    def is_sending(self) -> bool:
        """Tell whether something waits to be sent."""
        return bool(self._unsent)

    def _flush(self) -> None:
        if self._tls is not None:
            self._unsent += self._outgoing.read()
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise TransportError(f"connection lost: {error.strerror}") from None

    def unseal(self, size: int, data: memoryview) -> int:
        """Turn the first `size` bytes of `sealed`, and what waited, into plain bytes in `data`; return how many.

        When the venue has ended the connection under TLS, or the ciphertext is none, `ended` says so.
        """
        assert self._tls is not None
        if size:
            self._incoming.write(self.sealed[:size].tobytes())
        count = 0
        try:
            while count < len(data):
                found = self._tls.read(len(data) - count, data[count:])
                if not found:
                    self.ended = "closed by the venue"
                    break
                count += int(found)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.ended = f"TLS failed: {error.reason or error}"
        self.has_more = count == len(data)
        self._flush()
        return count

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
