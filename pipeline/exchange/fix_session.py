"""FIX session: one connection from Logon to Logout, its numbers, its heartbeats, and what it asks of the venue.

Every message of the client is answered before the next is read. Reports of the account's orders go to every session of
it, wherever the orders came from; what a request causes is sent after its answer. Source: section 15 of the protocol
sheet.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from shrivenq.pipeline.exchange import fix_dictionary as words
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.fix_answers import Reply, answer_to, is_reject
from shrivenq.pipeline.exchange.fix_dictionary import RefusedError, check, refused
from shrivenq.pipeline.exchange.fix_logon import VENUE, Logon, check_sent, check_sequence, read_logon
from shrivenq.pipeline.exchange.fix_orders import METHODS, parameters_of, tag_of
from shrivenq.pipeline.exchange.fix_pulse import Pulse
from shrivenq.pipeline.exchange.fix_reports import LIMIT_RESPONSE, REPORT, execution_report, limit_response
from shrivenq.pipeline.exchange.fix_wire import Fields, GarbledError, Message, write
from shrivenq.pipeline.exchange.limits import Rule, Window
from shrivenq.pipeline.exchange.venue import Answer, Request

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.fix_members import Members
    from shrivenq.pipeline.exchange.fix_sockets import FixSocket
    from shrivenq.pipeline.exchange.types import OrderEvent
    from shrivenq.pipeline.exchange.venue import Venue

MESSAGES = Rule("MESSAGES", "SECOND", 10, 10_000)
SECOND_S = 1.0
"""What HeartBtInt counts; tests have shorter ones."""
KIND_MAX = 16
"""Of a MsgType that is told again."""
STRANGER = "UNKNOWN"
"""TargetCompID of what is said to who has said no name."""
FAREWELL = "Your connection is about to be closed. Please reconnect."


class FixSession:
    """One connection, with or without a logon."""

    def __init__(self, venue: Venue, members: Members, socket: FixSocket, host: str) -> None:
        self._venue = venue
        self._members = members
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._messages = Window(MESSAGES)
        self._received = 0
        self._sent = 0
        self._held: list[OrderEvent] | None = None
        self._parted = False
        self._beating: asyncio.TimerHandle | None = None
        self.socket = socket
        self.logon: Logon | None = None
        self.pulse = Pulse(SECOND_S, self._loop.time())

    # ── what leaves ──────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, kind: str, fields: Fields, way: str = "control", name: str = "") -> None:
        """Send a message as the next one; `way` and `name` are what faults choose it by."""
        self._sent += 1
        self.pulse.sent = self._loop.time()
        target = self.logon.sender if self.logon else STRANGER
        payload = write(kind, VENUE, target, self._sent, self._venue.now_us(), fields)
        self._venue.outgoing.frame(self.socket, way, name, payload)

    def _report(self, event: OrderEvent, way: str, name: str) -> None:
        self.send(REPORT, execution_report(event, self._venue.formats[event.order.symbol]), way, name)

    def take_event(self, event: OrderEvent) -> None:
        """Report on an order of the account; while a request is being served, after its answer."""
        if self._held is not None:
            self._held.append(event)
        elif self.logon is not None and self.logon.everything:
            self._report(event, "event", "executionReport")

    def _reject(self, message: Message, error: RefusedError) -> None:
        """Say that a message is not what it should be."""
        sequence = message.get(34)
        fields: Fields = [(45, sequence)] if sequence and sequence.isascii() and sequence.isdigit() else []
        if error.tag:
            fields.append((371, str(error.tag)))
        fields += [(372, message.kind[:KIND_MAX]), (373, str(error.reason)), (25016, str(error.code)), (58, error.text)]
        self.send(words.REJECT, fields, "response", METHODS.get(message.kind, "session.logon"))

    def end(self, text: str) -> None:
        """Log the client out, and close."""
        self.send(words.LOGOUT, [(58, text)], name="Logout")
        self.socket.close()

    def warn(self) -> None:
        """Say that the venue is about to stop."""
        self.send(words.NEWS, [(148, FAREWELL)], "notice", "serverShutdown")

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, message: Message) -> None:
        """Answer one message."""
        try:
            if self.logon is None:
                self._log_on(message)
            else:
                self._received += 1
                self._check(message, self.logon)
                self.pulse.heard = self._loop.time()
                await self._act(message, self.logon)
        except RefusedError as error:
            self._reject(message, error)
            if error.ends:
                self.end(error.text)

    def take_garbled(self, error: GarbledError) -> None:
        """Answer what is no message: nothing behind it can be trusted."""
        fields = [(373, str(words.REASONS.get(error.code, words.OTHER))), (25016, str(error.code)), (58, error.text)]
        self.send(words.REJECT, fields, "response")
        self.end(error.text)

    def _log_on(self, message: Message) -> None:
        """Take the first message. Raises RefusedError, which ends the session."""
        try:
            logon = read_logon(message, self._venue.keyring, self._venue.now_us())
            self._members.enter(logon.key.account, logon.sender, self)
        except RefusedError as error:
            error.ends = True
            raise
        self.logon = logon
        self._received = 1
        self._messages.add(1, self._venue.market_us())
        self.pulse = Pulse(logon.beat_s * SECOND_S, self._loop.time())
        fields: Fields = [(98, "0"), (108, str(logon.beat_s)), (25037, str(uuid.uuid4()))]
        self.send(words.LOGON, fields, "response", "session.logon")
        self._beat()

    def _check(self, message: Message, logon: Logon) -> None:
        """Check what every message must be. Raises RefusedError."""
        if self._messages.add(1, self._venue.market_us()) > MESSAGES.limit:
            limit = f"current limit is '{MESSAGES.limit}' messages per '{MESSAGES.number} {MESSAGES.unit}'"
            raise RefusedError(-1181, f"Too many messages; {limit}.", ends=True)
        check_sequence(message, self._received)
        if message.get(49) != logon.sender:
            text = (
                "`SenderCompId(49)` contains an incorrect value. "
                "The SenderCompID value should not change throughout the lifetime of a session."
            )
            raise RefusedError(-1178, text, 49, ends=True)
        try:
            self._venue.keyring.find(logon.key.api_key)
        except ApiError as error:
            raise refused(error, ends=True) from None
        check(message)
        if message.get(56) != VENUE:
            raise RefusedError(-1130, "Data sent for parameter '56' is not valid.", 56)
        check_sent(message, self._venue.now_us())

    async def _act(self, message: Message, logon: Logon) -> None:
        """Do what a message asks. Raises RefusedError."""
        if message.kind in METHODS:
            await self._serve(message, logon)
        elif message.kind == words.LIMITS:
            orders = self._venue.limits.orders(logon.key.account).windows
            asked = dict(message.fields)[6136]
            fields = limit_response(asked, self._messages, orders, self._venue.market_us())
            self.send(LIMIT_RESPONSE, fields, "response", "account.rateLimits.orders")
        elif message.kind == words.TEST:
            self.send(words.HEARTBEAT, [(112, dict(message.fields)[112])], name="Heartbeat")
        elif message.kind == words.HEARTBEAT:
            self.pulse.answered(message.get(112))
        elif message.kind == words.LOGOUT:
            self._parted = True
            self.end("Logout acknowledgment.")
        elif message.kind == words.LOGON:
            raise RefusedError(-1176, "Logon `A` should only be sent once.", 35)

    async def _serve(self, message: Message, logon: Logon) -> None:
        """Have the venue do what a message asks, and answer it. Raises RefusedError."""

        def authorise(now_us: int) -> int:
            check_sent(message, now_us)  # again: it may have waited
            return logon.key.account

        try:
            asked = parameters_of(message)
        except ApiError as error:
            raise refused(error, tag_of(message.kind, error.msg)) from None
        request = Request(
            METHODS[message.kind], asked, self._host, authorise, micros=True, weighs=False, socket=self.socket
        )
        served: Answer | None = None

        def act() -> Answer:
            nonlocal served
            self._held = []
            served = self._venue.serve(request)
            return served

        try:
            answer = await self._venue.outgoing.answer(request, act)
        finally:
            held, self._held = self._held or [], None
        seen = served if answer is None else answer
        if seen is None:
            return
        if answer is not None and is_reject(answer):
            text = answer.body["msg"]
            raise RefusedError(answer.body["code"], text, tag_of(message.kind, text))
        reply = answer_to(message, seen, self._venue.now_us())
        self._tell(request.name, reply, held, logon, lost=answer is None)

    def _tell(self, name: str, reply: Reply, held: list[OrderEvent], logon: Logon, *, lost: bool) -> None:
        """Send what a request is answered with, unless that is lost, and what else it caused."""
        answers = set(reply.reports)
        if not lost:
            for kind, fields in reply.before:
                self.send(kind, fields, "response", name)
        for event in held:
            key = event.order.order_id, event.execution
            if key not in answers:
                if logon.everything:
                    self._report(event, "event", "executionReport")
                continue
            answers.remove(key)
            if not lost:
                self._report(event, "response", name)
        if not lost:
            for kind, fields in reply.after:
                self.send(kind, fields, "response", name)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _beat(self) -> None:
        """Do what silence asks for, and look again when it may ask for more."""
        now = self._loop.time()
        need = self.pulse.need(now)
        if not self.socket.is_open:
            return
        if need == "end":
            self.end("No Heartbeat came in answer to a TestRequest.")
            return
        if need == "test":
            self.send(words.TEST, [(112, self.pulse.ask(now))], name="TestRequest")
        elif need == "heartbeat":
            self.send(words.HEARTBEAT, [], name="Heartbeat")
        self._beating = self._loop.call_at(self.pulse.due(), self._beat)

    def leave(self) -> None:
        """Let go of everything: the connection is gone."""
        if self._beating is not None:
            self._beating.cancel()
        if self.logon is not None:
            block_s = 0.0 if self._parted else 2 * self.pulse.interval_s
            self._members.leave(self.logon.key.account, self.logon.sender, block_s)
            self.logon = None
