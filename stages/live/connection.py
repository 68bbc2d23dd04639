"""One connection to a market-data server as a state machine without I/O: bytes and time in, bytes and events out.

`websockets`' own protocol does the opening handshake, control frames, fragments and the closing handshake; it never
sees the messages that `websocket` and `receive` take. What it is given are whole control frames and fragments, or, once
a header broke the protocol, everything: then it says what is wrong and closes.

    UPGRADING ──response──▶ SUBSCRIBING ──all acknowledged──▶ OPEN ──close, error, end──▶ CLOSED

Streams go into the URL as far as they fit; the rest are asked for by SUBSCRIBE, paced so that the venue's limit of five
messages a second is kept with room for a pong.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from shrivenq.stages.live.receive import SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

UPGRADING, SUBSCRIBING, OPEN, CLOSED = "upgrading", "subscribing", "open", "closed"

PATH_BYTES = 4000
"""Longest path of the URL; servers and proxies begin to refuse at 8,000."""
SUBSCRIBE_STREAMS = 100
"""Streams asked for by one SUBSCRIBE."""
SUBSCRIBE_GAP_NS = 300_000_000
"""Between two of our messages: the venue takes five a second, pongs included."""
ANSWER_NS = 10_000_000_000
"""Longest wait for the handshake, and then for an acknowledgement."""
BANNED = 418
STAY_AWAY_S = {BANNED: "120", 429: "60"}
"""How long the venue wants us away if it does not say: its shortest ban, its limits' interval."""
RETRY_MAX_S = 3 * 86_400
"""Longest ban the venue knows."""
DIGITS_MAX = 9
RESPONSE_MAX = 1 << 16
"""Bytes of a response to the handshake."""
REASON_MAX = 300
"""Characters of a reason."""
ACCEPTED = re.compile(rb"HTTP/1\.1 101[ \r]")
BODY_BYTES = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
BODY_FRAMING = re.compile(rb"\r\n(?:content-length|transfer-encoding):[^\r\n]*(?=\r\n)", re.IGNORECASE)

SERVER_SHUTDOWN = "serverShutdown"
DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
KEY_HEADER = "X-MBX-APIKEY"

# At level debug the protocol would log every header, a key too.
_SILENT = logging.getLogger("shrivenq.websockets")
_SILENT.disabled = True


class Message(NamedTuple):
    """A message that came in fragments, or one that is neither market data nor an answer to us."""

    payload: bytes
    is_binary: bool = False


class Restarting(NamedTuple):
    """The server has announced that it will close: another connection is needed at once."""


class Closed(NamedTuple):
    """The connection is over; `reason` is one line. The venue may have said how long to stay away, and banned us."""

    reason: str
    retry_after_s: int = 0
    is_ban: bool = False


class Connection:
    """The state machine of one connection to `url` (`ws://` or `wss://`) for `streams`.

    A path in `url` stays in front of ours. An `api_key` is named in the handshake; nothing is signed with it.
    """

    PATH = "/stream"

    def __init__(self, url: str, streams: Sequence[str], now_ns: int, api_key: str = "") -> None:
        fitting = _fitting(streams)
        path = self.PATH + (f"?streams={'/'.join(streams[:fitting])}" if fitting else "")
        self._protocol = ClientProtocol(parse_uri(url.rstrip("/") + path), max_size=SIZE_MAX, logger=_SILENT)
        self._unasked = deque(_batches(streams[fitting:]))
        self._unanswered: set[int] = set()
        self._ids = itertools.count(1)
        self._fragments: list[bytes] = []
        self._is_binary = False  # the message that is coming in fragments
        self._answer_by_ns = now_ns + ANSWER_NS
        self._ask_ns = 0
        self.state = UPGRADING
        self.events: deque[Message | Restarting | Closed] = deque()
        request = self._protocol.connect()
        if api_key:
            request.headers[KEY_HEADER] = api_key
        self._protocol.send_request(request)

    @property
    def strict(self) -> bool:
        """Tell whether every frame is the protocol's business, because a fragmented message is not finished."""
        return bool(self._fragments)

    def data_to_send(self) -> bytes:
        """Take what is to be written to the transport."""
        return b"".join(self._protocol.data_to_send())

    def deadline_ns(self) -> int:
        """Tell when `tick` has something to do, at the latest; 0 for never."""
        waiting = [self._ask_ns] if self._unasked and self.state == SUBSCRIBING else []
        if self.state in (UPGRADING, SUBSCRIBING):
            waiting.append(self._answer_by_ns)
        return min(waiting, default=0)

    def receive_response(self, data: bytes, now_ns: int, *, is_all: bool = False) -> int:
        """Take the response to the handshake from what has arrived; return the bytes of it, 0 while it is cut short.

        With `is_all` nothing more comes: a refusal counts although its body is cut short.
        """
        end = data.find(b"\r\n\r\n")
        if end < 0 and len(data) <= RESPONSE_MAX:
            return 0
        took = end + 4 if end >= 0 else len(data)
        if ACCEPTED.match(data) is None:
            found = BODY_BYTES.search(data[:took])
            if found and not is_all and len(data) < min(took + int(found[1]), RESPONSE_MAX):
                return 0
            # What is said of the body no longer matters: it is what is there, up to the end.
            self._protocol.receive_data(BODY_FRAMING.sub(b"", data[:took]) + data[took:])
            self._protocol.receive_eof()
            took = len(data)
        else:
            self._protocol.receive_data(data[:took])
        self._look(now_ns)
        return took

    def receive_frames(self, data: bytes, now_ns: int) -> None:
        """Take whole control frames and fragments, or what broke the protocol."""
        if self.state != CLOSED:
            self._protocol.receive_data(data)
            self._look(now_ns)

    def receive_notice(self, payload: bytes, now_ns: int) -> None:
        """Take a text message that is no market data: an answer to us, or the server's announcement."""
        try:
            found = json.loads(payload)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.events.append(Message(payload))
            return
        data = found.get("data")
        event = data.get("e") if isinstance(data, dict) else found.get("e")
        if event == SERVER_SHUTDOWN:
            self.events.append(Restarting())
        elif "error" in found or ("code" in found and "msg" in found):
            self._close(f"the venue refuses: {payload[:200].decode('utf-8', 'replace')}")
        elif found.get("result", 0) is None and isinstance(found.get("id"), int):
            self._unanswered.discard(found["id"])
            self._subscribe(now_ns)
        else:
            self.events.append(Message(payload))

    def receive_eof(self, now_ns: int, reason: str) -> None:
        """Take the end of the transport; `reason` is said unless the protocol knows better."""
        if self.state == CLOSED:
            return
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()
        self._look(now_ns, reason)
        self._close(reason)

    def tick(self, now_ns: int) -> None:
        """Do what is due: the next SUBSCRIBE, giving up on an answer."""
        if self.state == SUBSCRIBING:
            self._subscribe(now_ns)
        if self.state in (UPGRADING, SUBSCRIBING) and now_ns >= self._answer_by_ns:
            self._close(f"no answer in {ANSWER_NS // 1_000_000_000} s while {self.state}")

    def close(self) -> None:
        """Say goodbye."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
        self.state = CLOSED

    def _subscribe(self, now_ns: int) -> None:
        """Ask for the next streams if the pace allows; OPEN once all were granted."""
        if self.state != SUBSCRIBING:
            return
        if self._unasked and now_ns >= self._ask_ns:
            number = next(self._ids)
            request = {"method": "SUBSCRIBE", "params": self._unasked.popleft(), "id": number}
            self._protocol.send_text(json.dumps(request, separators=(",", ":")).encode())
            self._unanswered.add(number)
            self._ask_ns = now_ns + SUBSCRIBE_GAP_NS
            self._answer_by_ns = now_ns + ANSWER_NS
        if not self._unasked and not self._unanswered:
            self.state = OPEN

    def _look(self, now_ns: int, reason: str = "") -> None:
        """Turn what the protocol has found into events."""
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event, now_ns)
            elif isinstance(event, Response) and event.status_code == 101 and self._protocol.handshake_exc is None:
                self.state = SUBSCRIBING
                self._answer_by_ns = now_ns + ANSWER_NS
                self._subscribe(now_ns)
        if self._protocol.handshake_exc is not None:
            error = self._protocol.handshake_exc
            asked, status = "", 0
            if isinstance(error, InvalidStatus):
                status = error.response.status_code
                asked = error.response.headers.get("Retry-After", STAY_AWAY_S.get(status, ""))
            retry_after_s = min(int(asked[:DIGITS_MAX]), RETRY_MAX_S) if asked.isdecimal() else 0
            self._close(_explain(error, reason), retry_after_s, is_ban=status == BANNED)
        elif self._protocol.close_rcvd is not None:
            self._close(f"closed by the venue: {self._protocol.close_rcvd}")
        elif self._protocol.parser_exc is not None and not isinstance(self._protocol.parser_exc, EOFError):
            self._close(f"protocol error: {self._protocol.parser_exc}")

    def _take_frame(self, frame: Frame, now_ns: int) -> None:
        """Join fragments; control frames were answered by the protocol."""
        if frame.opcode not in DATA_OPCODES:
            return
        if frame.opcode is not Opcode.CONT:
            self._is_binary = frame.opcode is Opcode.BINARY
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        payload, self._fragments = b"".join(self._fragments), []
        self._take_message(payload, now_ns)

    def _take_message(self, payload: bytes, now_ns: int) -> None:
        """Sort a message that did not come through the compiled parser."""
        if self._is_binary or (payload.startswith(b'{"stream":"') and payload[11:12] != b"!"):
            self.events.append(Message(payload, self._is_binary))
        else:
            self.receive_notice(payload, now_ns)

    def _close(self, reason: str, retry_after_s: int = 0, *, is_ban: bool = False) -> None:
        if self.state != CLOSED:
            self.close()
            self.events.append(Closed(_one_line(reason), retry_after_s, is_ban))


def _explain(error: Exception, reason: str) -> str:
    """Say in one line why a connection did not open."""
    if isinstance(error, InvalidStatus):
        said = (error.response.body or b"")[:200].decode("utf-8", "replace")
        return f"the venue answers HTTP {error.response.status_code} to the handshake{said and ': '}{said}"
    return reason or f"not a WebSocket server: {error.__cause__ or error}"


def _one_line(text: str) -> str:
    """Spell what a stranger has a part in so that it stays on one line."""
    return "".join(one if one.isprintable() else " " for one in text[:REASON_MAX]).strip()


def _fitting(streams: Sequence[str]) -> int:
    """Count the streams that fit into the URL."""
    used = len("/stream?streams=")
    for count, one in enumerate(streams):
        used += len(one) + 1
        if used > PATH_BYTES:
            return count
    return len(streams)


def _batches(streams: Sequence[str]) -> list[list[str]]:
    return [list(streams[at : at + SUBSCRIBE_STREAMS]) for at in range(0, len(streams), SUBSCRIBE_STREAMS)]
