"""The least a client can do: two sockets in compiled code, a frame received, an order sent that was written beforehand.

The same system calls as the pipeline's, by the same function, and nothing of what makes a trading system: no frame is
read, no book kept, nothing decided, checked or journaled. What is left is the kernel's, and this benchmark's peer.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from shrivenq.shm.kernel import kernel
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import system
from shrivenq.stages.live.transport import RX_SOFTWARE, SO_TIMESTAMPING, SOFTWARE

MARKET, ORDERS = 0, 1
SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _connect(url: str) -> socket.socket:
    """Open a WebSocket connection; nothing has been received of it but the answer to its handshake."""
    protocol, at = ClientProtocol(parse_uri(url)), urlsplit(url)
    connected = socket.create_connection((at.hostname or "", at.port or 0))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
    protocol.send_request(protocol.connect())
    connected.sendall(b"".join(protocol.data_to_send()))
    while protocol.state is State.CONNECTING:
        protocol.receive_data(connected.recv(1))
    connected.setblocking(False)
    return connected


@kernel
def exchange(live: Any, frames: Any, sizes: Any, orders: Any, ends: Any) -> int:
    """Answer frame after frame with the order written for it, until the venue closes; return how many that was.

    `sizes` are those of the venue's frames; a frame of another size before the first one belongs to no order.
    """
    taken, arrived, begin, out = 0, 0, 0, live.rows[ORDERS]
    while live.words[r.ATTENTION] == 0:
        for c in range(live.rows.shape[0]):
            row = live.rows[c]
            count = r.receive(live, frames, c)
            row["parsed"] = row["filled"]
            if c == ORDERS:
                continue
            arrived += count
            if taken == 0 and arrived != sizes[0]:
                arrived = 0
            if taken < ends.shape[0] and arrived >= sizes[taken % sizes.shape[0]]:
                system.send(out["descriptor"], orders.ctypes.data + begin, ends[taken] - begin, SEND_FLAGS)
                arrived, begin = 0, ends[taken]
                taken += 1
    return taken


def _framed(text: bytes) -> bytes:
    """Make a client's frame of a text; its mask changes nothing."""
    return b"\x81\xfe" + len(text).to_bytes(2) + bytes(4) + text


def run(venue: Any, write: Any) -> None:
    """Connect to a venue and exchange until it closes; `write(number, bid)` spells the order at that best bid."""
    index = venue.market.index[:-1]
    sizes = (index["stop"] - index["begin"]).astype(np.int64)
    bids = [int(one) / 1e8 for one in index["bid"]]
    texts = [_framed(write(number + 1, bids[number % len(bids)])) for number in range(len(venue.rtt))]
    ends = np.cumsum([len(one) for one in texts]).astype(np.int64)
    orders = np.frombuffer(b"".join(texts), np.uint8)
    live, frames = r.make_receiver(2)
    live.words[r.ATTENTION] = 1
    exchange(live, frames, sizes, orders, ends)  # compiled before anybody waits for it
    sockets = [_connect(f"{venue.url}{path}") for path in ("/stream", "/ws-api/v3")]
    live.rows["descriptor"] = [one.fileno() for one in sockets]
    live.words[r.ATTENTION] = 0
    exchange(live, frames, sizes, orders, ends)
