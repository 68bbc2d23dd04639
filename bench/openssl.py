"""The system's OpenSSL for the compiled peer: its functions are called like any C function."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import llvmlite.binding
from harness import BenchmarkError
from numba.core import types


def _load():
    """Load it and make what compiled code calls known; None if there is none."""
    found = ctypes.util.find_library("ssl")
    library = ctypes.CDLL(found) if found else None
    for name in ("SSL_read", "SSL_write"):
        # Without one nothing calls them, but compiled code names them.
        function = getattr(library or ctypes.CDLL(None), name if library else "getpid")
        llvmlite.binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    if library is not None:
        for name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, name).restype = ctypes.c_void_p
    return library


LIBRARY = _load()
ssl_read: Any = types.ExternalFunction("SSL_read", types.int32(types.int64, types.int64, types.int32))
ssl_write: Any = types.ExternalFunction("SSL_write", types.int32(types.int64, types.int64, types.int32))


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
