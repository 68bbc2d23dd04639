"""A FIX venue that does what a test tells it, and what its own rules are where it is told nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from datetime import UTC, datetime

from shrivenq.stages.live import receive
from tests.stages.live.orders_rig import OrdersRig, tables_of

SOH = b"\x01"


def spell(kind, sequence, *fields, sender="SPOT", target="CLIENT"):
    """Build a whole message."""
    now = f"{datetime.now(UTC):%Y%m%d-%H:%M:%S.%f}"
    head = [(35, kind), (34, sequence), (49, sender), (52, now), (56, target)]
    body = b"".join(f"{tag}={value}".encode() + SOH for tag, value in [*head, *fields])
    text = b"8=FIX.4.4" + SOH + b"9=%d" % len(body) + SOH + body
    return text + b"10=%03d" % (sum(text) % 256) + SOH


def messages(data):
    """Take whole messages off the front: (fields of each, the rest)."""
    found = []
    while (end := data.find(SOH + b"10=")) >= 0 and len(data) >= end + 8:
        text, data = data[: end + 8], data[end + 8 :]
        found.append(
            [(int(tag), value.decode()) for tag, _, value in (one.partition(b"=") for one in text.split(SOH)[:-1])]
        )
    return found, data


class Client:
    """One connection of ours, as the venue sees it."""

    def __init__(self, peer, connection):
        self.peer, self.socket = peer, connection
        self.sequence, self.got, self.is_over = 1, [], False

    def send(self, kind, *fields, sequence=None):
        """Send a message, the next unless another number is given."""
        self.raw(spell(kind, self.sequence if sequence is None else sequence, *fields))
        self.sequence += 1

    def raw(self, data):
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def kinds(self):
        return [dict(one)[35] for one in self.got]

    def of(self, kind):
        return [dict(one) for one in self.got if dict(one)[35] == kind]

    def answer(self, fields):
        """Do what any venue does: the Logon, limits, heartbeats, Logout."""
        kind = fields[35]
        if kind in self.peer.mute:
            return
        if kind == "A":
            self.send("A", (98, 0), (108, fields[108]), (25037, "x"))
        elif kind == "XLQ":
            self.send("XLR", (6136, fields[6136]), *self.peer.limits)
        elif kind == "1":
            self.send("0", (112, fields[112]))
        elif kind == "5":
            self.send("5", (58, "Logout acknowledgment."))
            self.cut()

    def cut(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def run(self):
        data = b""
        with contextlib.suppress(OSError):
            while more := self.socket.recv(1 << 16):
                found, data = messages(data + more)
                for one in found:
                    self.got.append(one)
                    self.answer(dict(one))
        self.is_over = True
        self.socket.close()


LIMITS = ((25003, 2), (25004, 1), (25005, 3), (25006, 1000), (25007, 10), (25008, "s"),
          (25004, 2), (25005, 2), (25006, 10_000), (25007, 10), (25008, "s"))  # fmt: skip


class Peer:
    """Listens; `mute` are the kinds of messages it does not answer by itself."""

    def __init__(self, tls=None, mute=()):
        self.mute, self.limits, self.clients = set(mute), LIMITS, []
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"tcp{'+tls' if tls else ''}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection):
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except (ssl.SSLError, OSError):
                return
        client = Client(self, connection)
        self.clients.append(client)
        client.run()

    @property
    def client(self):
        return self.clients[-1]

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self.clients:
            one.cut()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def rigs_with_peers(exchange):
    """Give what makes rigs whose orders go by FIX to a peer, which they come with."""
    made = []

    def make(peer=None, **options):
        peer = peer or Peer()
        made.extend([OrdersRig(exchange.ws, tables_of(exchange), order_entry="fix", fix_url=peer.url, **options), peer])
        return made[-2], peer

    yield make
    for one in made:
        one.close()


def reasons(rig):
    return [fields["reason"] for event, fields in rig.log.lines if event == "fix disconnected"]


def look(rig):
    rig.venue.live.words[receive.ATTENTION] = 1


def execution(order, kind=0, **changes):
    """Spell the fields of an ExecutionReport of an order the peer was sent."""
    done = {tag: order[tag] for tag in (11, 38, 44, 54, 55)} | {14: "0", 151: order[38], 150: kind, 39: kind}
    done |= {37: 76, 40: 2, 59: 1, 60: "20240627-11:17:25.223456"}
    return [(tag, value) for tag, value in {**done, **{int(tag[1:]): one for tag, one in changes.items()}}.items()]
