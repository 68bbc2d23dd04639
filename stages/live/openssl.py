"""TLS in compiled code: a connection that Python's `ssl` has made and verified, then read and written without Python.

Context, handshake, certificate and host name are `ssl`'s business, over `ssl.MemoryBIO`. Once the handshake is done,
compiled code calls the same functions of the same OpenSSL on the same connection: ciphertext goes into its incoming
buffer and plain bytes come straight into the stripe; an order's frame goes in, and ciphertext from its outgoing buffer
into the socket. Both sides may be used in turns.

`address_of` finds the connection in Python's object, and believes it only where everything around it is as it should
be. Where it is not, or where Python has an OpenSSL to itself, TLS stays Python's: slower by tens of microseconds a
message, and the same otherwise.

Source: OpenSSL 3 manual, section 3; CPython 3.11 to 3.13, Modules/_ssl.c (PySSLSocket).
"""

from __future__ import annotations

import _ssl
import ctypes
import socket
from typing import TYPE_CHECKING, Any

from shrivenq.shm.kernel import COMPILED, inlined
from shrivenq.stages.live import system

if TYPE_CHECKING:
    import ssl

WANT_READ = 2
"""SSL_get_error: it goes on with the next ciphertext."""
SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

# What `send` returns where not everything has gone out.
REFUSED = -1
"""Nothing was taken: Python finds out why."""
TAKEN = -2
"""All of it was taken, and some of its ciphertext waits for Python to send it."""

_LONG, _INT = ctypes.c_int64, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "SSL_read": (_INT, (_LONG, _LONG, _INT)),
    "SSL_write": (_INT, (_LONG, _LONG, _INT)),
    "SSL_get_error": (_INT, (_LONG, _INT)),
    "SSL_get_rbio": (_LONG, (_LONG,)),
    "SSL_get_wbio": (_LONG, (_LONG,)),
    "BIO_read": (_INT, (_LONG, _LONG, _INT)),
    "BIO_write": (_INT, (_LONG, _LONG, _INT)),
    "BIO_ctrl_pending": (_LONG, (_LONG,)),
    "ERR_clear_error": (_INT, ()),
}


def _load() -> ctypes.CDLL | None:
    """Find the OpenSSL that Python's `ssl` uses; None where nobody else can call it."""
    found = ctypes.CDLL(getattr(_ssl, "__file__", None))
    return found if all(hasattr(found, name) for name in (*_FUNCTIONS, "SSL_get_version")) else None


LIBRARY = _load()


def _function(name: str) -> Any:
    """Make one of them callable, from compiled code where code is compiled."""
    result, arguments = _FUNCTIONS[name]
    # Without a library nothing calls them, but compiled code names them.
    found: Any = getattr(LIBRARY, name) if LIBRARY is not None else ctypes.CDLL(None).getpid
    if not COMPILED:
        found.restype, found.argtypes = result, arguments
        return found
    import llvmlite.binding  # noqa: PLC0415 - only where code is compiled
    from numba.core import types  # noqa: PLC0415

    llvmlite.binding.add_symbol(name, ctypes.cast(found, ctypes.c_void_p).value)
    numbers: dict[Any, Any] = {_LONG: types.int64, _INT: types.int32}
    return types.ExternalFunction(name, numbers[result](*(numbers[one] for one in arguments)))


ssl_read, ssl_write, ssl_get_error = _function("SSL_read"), _function("SSL_write"), _function("SSL_get_error")
ssl_get_rbio, ssl_get_wbio = _function("SSL_get_rbio"), _function("SSL_get_wbio")
bio_read, bio_write, bio_pending = _function("BIO_read"), _function("BIO_write"), _function("BIO_ctrl_pending")
err_clear_error = _function("ERR_clear_error")


def address_of(tls: ssl.SSLObject) -> int:
    """Find the address of a connection's `SSL`; 0 where compiled code cannot have it.

    In Python's object it stands between the socket, of which there is none, and the context, which we know.
    """
    if LIBRARY is None:
        return 0
    inner = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
    begin, word = object.__basicsize__, ctypes.sizeof(ctypes.c_void_p)
    if type(inner).__basicsize__ < begin + 3 * word:
        return 0
    beside, found, context = (ctypes.c_size_t * 3).from_address(id(inner) + begin)
    if beside != 0 or context != id(tls.context):
        return 0
    version = LIBRARY.SSL_get_version
    version.restype, version.argtypes = ctypes.c_char_p, (ctypes.c_void_p,)
    return int(found) if version(found) == str(tls.version()).encode() else 0


@inlined
def read(connection: int, sealed: int, size: int, room: int, room_size: int) -> tuple[int, bool]:
    """Turn the `size` bytes of ciphertext at the address `sealed` into plain bytes at `room`.

    Returns how many, and whether the connection goes on; where it does not, Python finds out why.
    """
    bio_write(ssl_get_rbio(connection), sealed, size)
    err_clear_error()
    count = 0
    while count < room_size:
        found = ssl_read(connection, room + count, room_size - count)
        if found <= 0:
            return count, ssl_get_error(connection, found) == WANT_READ
        count += found
    return count, True


@inlined
def send(connection: int, data: int, size: int, descriptor: int, scratch: int, scratch_size: int) -> int:
    """Send the `size` plain bytes at the address `data`; return them, or REFUSED or TAKEN.

    `scratch` is where ciphertext may lie in between.
    """
    err_clear_error()
    if ssl_write(connection, data, size) != size:
        return REFUSED
    sealed = ssl_get_wbio(connection)
    waiting = bio_pending(sealed)
    if waiting > scratch_size:
        return TAKEN
    bio_read(sealed, scratch, waiting)
    sent = system.send(descriptor, scratch, waiting, SEND_FLAGS)
    if sent == waiting:
        return size
    sent = max(sent, 0)
    bio_write(sealed, scratch + sent, waiting - sent)
    return TAKEN
