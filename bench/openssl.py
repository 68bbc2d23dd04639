"""OpenSSL as the server that the compiled peer is: connections of its own, over their sockets."""

from __future__ import annotations

import ctypes

from harness import BenchmarkError

from shrivenq.stages.live.openssl import LIBRARY, ssl_read, ssl_write

__all__ = ["LIBRARY", "accept", "begin", "make_context", "read", "ssl_read", "ssl_write"]

if LIBRARY is not None:
    for _name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
        getattr(LIBRARY, _name).restype = ctypes.c_void_p


def make_context(files):
    """Make the context of a server with a certificate (`pipeline.exchange.tls.Files`)."""
    context = ctypes.c_void_p(LIBRARY.SSL_CTX_new(ctypes.c_void_p(LIBRARY.TLS_server_method())))
    taken = LIBRARY.SSL_CTX_use_certificate_chain_file(context, str(files.certificate).encode())
    if taken != 1 or LIBRARY.SSL_CTX_use_PrivateKey_file(context, str(files.key).encode(), 1) != 1:
        raise BenchmarkError("OpenSSL does not take the certificate")
    return context


def begin(context, descriptor):
    """Begin the server's half of a handshake on a socket; return the address of the connection."""
    made = LIBRARY.SSL_new(context)
    LIBRARY.SSL_set_fd(ctypes.c_void_p(made), descriptor)
    return made


def accept(made):
    """Go on with the handshake; tell whether it is done."""
    return LIBRARY.SSL_accept(ctypes.c_void_p(made)) == 1


def read(made, size):
    """Read what has come on a connection."""
    buffer = ctypes.create_string_buffer(size)
    count = LIBRARY.SSL_read(ctypes.c_void_p(made), buffer, size)
    return buffer.raw[: max(count, 0)]
