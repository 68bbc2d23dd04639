"""What compiled code asks of the operating system about a socket: `recvmsg`, `send`, `setsockopt`, and why it failed.

The names are plain C functions, so that kernels that call them stay cached on disk.
"""

from __future__ import annotations

import ctypes
from typing import Any

from shrivenq.shm.kernel import COMPILED, intrinsic

if COMPILED:
    from llvmlite import ir
    from numba.core import cgutils, types

    recvmsg: Any = types.ExternalFunction("recvmsg", types.int64(types.int32, types.int64, types.int32))

    send: Any = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))

    setsockopt: Any = types.ExternalFunction(
        "setsockopt", types.int32(types.int32, types.int32, types.int32, types.int64, types.int32)
    )

    @intrinsic
    def errno(typingctx: Any) -> Any:
        """Read why the last system call of this thread failed."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(32)
            kind = ir.FunctionType(word.as_pointer(), [])
            location = cgutils.get_or_insert_function(builder.module, kind, "__errno_location")
            return builder.sext(builder.load(builder.call(location, [])), ir.IntType(64))

        return types.int64(), emit

else:
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.recvmsg.restype = ctypes.c_ssize_t
    _libc.recvmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    _libc.send.restype = ctypes.c_ssize_t
    _libc.send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _libc.setsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)

    def recvmsg(descriptor: int, message: int, flags: int) -> int:
        """Receive into what the `msghdr` at the address `message` describes."""
        return int(_libc.recvmsg(int(descriptor), int(message), int(flags)))

    def send(descriptor: int, data: int, size: int, flags: int) -> int:
        """Send `size` bytes at the address `data`."""
        return int(_libc.send(int(descriptor), int(data), int(size), int(flags)))

    def setsockopt(descriptor: int, level: int, name: int, value: int, size: int) -> int:
        """Set an option to the `size` bytes at the address `value`."""
        return int(_libc.setsockopt(int(descriptor), int(level), int(name), int(value), int(size)))

    def errno() -> int:
        """Read why the last system call of this thread failed."""
        return ctypes.get_errno()
