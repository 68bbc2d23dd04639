"""Faults: what goes wrong on demand, by rule and by seed. Whatever enters or leaves the venue is asked about here.

    [[rules]]                     # a script, `[faults] script` of the configuration; /control/faults takes it as JSON
    on = "event"                  # request | response, event (WebSocket API, FIX) | market, control (streams) | notice
    name = "executionReport"      # method, event or stream; a shell pattern, by default every one
    action = "duplicate"
    skip = 3                      # let three pass first
    times = 1                     # then act once

| wanted | rule |
|---|---|
| sequence gap | on market, name `*@depth*`, drop |
| stale snapshot | on request, name depth, stale_snapshot: the book as it was when the script was armed |
| acknowledgement lost | on response, name order.place, drop; on request, drop for REST too (it loses the connection) |
| fill before acknowledgement | on response, name order.place, late |
| duplicate report | on event, name executionReport, duplicate |
| connection lost, order placed or not | on response, name order.place, disconnect; on request, disconnect |
| 5xx, order placed or not | on request, error_placed, error_not_placed: the client sees the same of both; `code` says |
| slow reader | on request, delay: the venue reads nothing more from that connection meanwhile |

A FIX message has its number when it goes wrong: one that is dropped, repeated or late ends the session, as it would.
A request that is dropped is done and not answered, and leaves no gap; `control` names Heartbeat, TestRequest, Logout.

Rules are tried in order, and the first that acts is the only one. Each draws from a generator of its own, so that the
same frames meet the same faults whatever the other rules do.
"""

from __future__ import annotations

import asyncio
import random
import time
import tomllib
from collections import deque
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary, ref

import msgspec
from starlette.responses import JSONResponse
from starlette.routing import Route

from shrivenq.pipeline.exchange.venue import Answer, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request as HttpRequest

    from shrivenq.pipeline.exchange.types import BookView
    from shrivenq.pipeline.exchange.venue import Request, Socket, Venue

FrameAction = Literal[
    "delay", "late", "drop", "duplicate", "reorder", "disconnect", "garbage", "bad_text", "bad_opcode", "giant"
]
"""`delay` holds up what follows as well, `late` is overtaken, `reorder` changes places with the next frame; `garbage`
(of letters), `bad_text` (which is no UTF-8) and `bad_opcode` (a frame of a kind there is none of) take a frame's place,
`giant` goes before it."""
RequestAction = Literal[
    "delay",
    "drop",
    "disconnect",
    "error_placed",
    "error_not_placed",
    "too_many",
    "banned",
    "clock_offset",
    "stale_snapshot",
]
FRAME_ACTIONS, REQUEST_ACTIONS = get_args(FrameAction), get_args(RequestAction)
IN_TIME = ("delay", "late", "too_many", "banned")
PRINTABLE = range(32, 127)
NO_TEXT = b"\xff\xfe"
TIMER_S = 0.001
"""A timer of the loop may be this early."""

UNKNOWN = {
    -1000: (500, "An unknown error occurred while processing the request."),
    -1001: (500, "Internal error; unable to process your request. Please try again."),
    -1006: (502, "An unexpected response was received from the message bus. Execution status unknown."),
    -1007: (504, "Timeout waiting for response from backend server. Send status unknown; execution status unknown."),
    -1008: (503, "Server is currently overloaded with other requests. Please try again in a few minutes."),
}
"""What a 5xx says, by code."""
TOO_MANY = {
    "code": -1003,
    "msg": "Too many requests; please use WebSocket Streams for live updates to avoid polling the API.",
}

Natural = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
YEAR_MS, GIANT_MAX = 366 * 86_400_000, 1 << 28


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault and when it happens."""

    on: Literal["request", "response", "event", "market", "control", "notice"]
    action: FrameAction | RequestAction
    name: str = "*"
    skip: Natural = 0
    times: Natural = 0
    """How often it acts, 0 without end."""
    probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    from_ms: Natural = 0
    """Since the script was armed."""
    until_ms: Natural = 0
    """0 without end."""
    ms: Annotated[int, msgspec.Meta(ge=-YEAR_MS, le=YEAR_MS)] = 0
    """How long `delay` and `late` take, when a client may come again (`too_many`, `banned`), by how much the venue's
    clock is wrong (`clock_offset`)."""
    code: Literal[-1000, -1001, -1006, -1007, -1008] = -1007
    """What `error_placed` and `error_not_placed` say, with the status that goes with it."""
    size: Annotated[int, msgspec.Meta(ge=0, le=GIANT_MAX)] = 0
    """Bytes of a giant frame."""

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense."""
        allowed = REQUEST_ACTIONS if self.on == "request" else FRAME_ACTIONS
        if self.action not in allowed:
            raise ValueError(f"action {self.action!r} is not for {self.on!r}, which takes {', '.join(allowed)}")
        if self.action in IN_TIME and self.ms <= 0:
            raise ValueError(f"action {self.action!r} needs ms, above 0")
        if self.action == "giant" and not self.size:
            raise ValueError("action 'giant' needs size, in bytes")


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of faults and the seed of their chances."""

    rules: list[Rule] = []
    seed: int = 0


def read_script(path: Path) -> Script:
    """Read a script. Raises ValueError of one line: file, key, what was found, what is allowed."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Script)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}: {error}") from None


class Trigger:
    """A rule and how far it has got."""

    def __init__(self, rule: Rule, seed: str) -> None:
        self.rule = rule
        self.random = random.Random(seed)
        self.seen = 0
        self.acted = 0

    def pull(self, on: str, name: str, elapsed_ms: float) -> bool:
        """Say whether the rule acts on this one, and count it."""
        rule = self.rule
        if on != rule.on or not fnmatchcase(name, rule.name):
            return False
        if elapsed_ms < rule.from_ms or (rule.until_ms and elapsed_ms >= rule.until_ms):
            return False
        self.seen += 1
        if self.seen <= rule.skip or (rule.times and self.acted >= rule.times):
            return False
        if self.random.random() >= rule.probability:
            return False
        self.acted += 1
        return True


class Frame(NamedTuple):
    """One message on its way."""

    payload: bytes
    text: bool
    known: bool = True
    """Whether it leaves in a frame of a kind there is."""


class Lane:
    """What waits to leave through one socket, in order."""

    def __init__(self, socket: Socket) -> None:
        self._socket = ref(socket)  # the lane must not keep alive what it is found by
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, Frame]] = deque()
        self._swapped: Frame | None = None

    @property
    def is_busy(self) -> bool:
        """Tell whether something waits."""
        return bool(self._waiting) or self._swapped is not None

    def send(self, frame: Frame, delay_s: float = 0.0) -> None:
        """Send a frame behind all that wait, `delay_s` from now at the soonest."""
        if delay_s or self._waiting:
            due = self._loop.time() + delay_s
            if self._waiting:
                due = max(due, self._waiting[-1][0])
            else:
                self._loop.call_at(due, self._release)
            self._waiting.append((due, frame))
        else:
            self._send(frame)
        swapped, self._swapped = self._swapped, None
        if swapped is not None:
            self.send(swapped)

    def swap(self, frame: Frame) -> None:
        """Send a frame after the next one."""
        if self._swapped is None:
            self._swapped = frame
        else:
            self.send(frame)

    def send_late(self, frame: Frame, delay_s: float) -> None:
        """Send a frame in a while; others may overtake it."""
        self._loop.call_later(delay_s, self._send, frame)

    def flush(self) -> None:
        """Send all that waits now."""
        if self._swapped is not None:
            self._waiting.append((0.0, self._swapped))
            self._swapped = None
        while self._waiting:
            self._send_first()

    def _release(self) -> None:
        now = self._loop.time() + TIMER_S
        while self._waiting and self._waiting[0][0] <= now:
            self._send_first()
        if self._waiting:
            self._loop.call_at(self._waiting[0][0], self._release)

    def _send_first(self) -> None:
        self._send(self._waiting.popleft()[1])

    def _send(self, frame: Frame) -> None:
        socket = self._socket()
        if socket is None:
            return
        if frame.known:
            socket.send_message(frame.payload, text=frame.text)
        else:
            socket.send_unknown(frame.payload)


class Faults(Outgoing):
    """The door of the venue when things shall go wrong; without rules the venue has the one it had before."""

    def __init__(self, venue: Venue, script: Script, clock: Callable[[], float] = time.monotonic) -> None:
        self._venue = venue
        self._plain = venue.outgoing
        self._clock = clock
        self._lanes: WeakKeyDictionary[Socket, Lane] = WeakKeyDictionary()
        self.triggers: list[Trigger] = []
        self._books: dict[str, BookView] = {}
        self.arm(script)

    def arm(self, script: Script) -> None:
        """Forget the rules so far and begin with these."""
        for lane in self._lanes.values():
            lane.flush()
        self._armed = self._clock()
        self._venue.outgoing = self if script.rules else self._plain
        self._venue.clock_offset_us = 0
        self.triggers = [Trigger(rule, f"{script.seed}/{number}") for number, rule in enumerate(script.rules)]
        self._books = {}
        if any(rule.action == "stale_snapshot" for rule in script.rules):
            self._books = {name: self._venue.engine.depth(name, 5000) for name in self._venue.symbols}

    def pick(self, on: str, name: str) -> Trigger | None:
        """Find the rule that acts now."""
        elapsed_ms = (self._clock() - self._armed) * 1000
        return next((trigger for trigger in self.triggers if trigger.pull(on, name, elapsed_ms)), None)

    @property
    def is_open(self) -> bool:
        """Tell whether no rule is armed, and nothing waits because of one that was."""
        return not self.triggers and not any(lane.is_busy for lane in self._lanes.values())

    def frame(self, socket: Socket, kind: str, name: str, payload: bytes, *, text: bool = True) -> None:
        """Send one message, or what the rules make of it."""
        if socket not in self._lanes:
            self._lanes[socket] = Lane(socket)
        lane, frame = self._lanes[socket], Frame(payload, text)
        trigger = self.pick(kind, name)
        action = trigger.rule.action if trigger else None
        if trigger is None:
            lane.send(frame)
        elif action == "delay":
            lane.send(frame, trigger.rule.ms / 1000)
        elif action == "late":
            lane.send_late(frame, trigger.rule.ms / 1000)
        elif action == "duplicate":
            lane.send(frame)
            lane.send(frame)
        elif action == "reorder":
            lane.swap(frame)
        elif action == "disconnect":
            socket.abort()
        elif action == "garbage":
            lane.send(Frame(bytes(trigger.random.choices(PRINTABLE, k=len(payload))), text))
        elif action == "bad_text":
            lane.send(Frame(NO_TEXT + payload, text))
        elif action == "bad_opcode":
            lane.send(Frame(payload, text, known=False))
        elif action == "giant":
            lane.send(Frame(b'{"giant":"' + b"x" * trigger.rule.size + b'"}', text=True))
            lane.send(frame)

    async def answer(self, request: Request, act: Callable[[], Answer]) -> Answer | None:
        """Serve a request, or do to it what the rules say. None: there is no answer."""
        trigger = self.pick("request", request.name)
        if trigger is None:
            return act()
        rule, now_us = trigger.rule, self._venue.market_us()
        if rule.action == "error_not_placed":
            return _unknown(rule)
        if rule.action == "disconnect":
            if request.socket is not None:
                request.socket.abort()
            return None
        if rule.action == "too_many":
            return Answer(429, dict(TOO_MANY), now_us + rule.ms * 1000)
        if rule.action == "delay":
            await asyncio.sleep(rule.ms / 1000)
        elif rule.action == "banned":
            self._venue.limits.address(request.host).ban(rule.ms * 1000, now_us)
        elif rule.action == "clock_offset":
            self._venue.clock_offset_us = rule.ms * 1000
        answer = act()
        if rule.action == "drop":
            return None
        if rule.action == "error_placed":
            return _unknown(rule)
        if rule.action == "stale_snapshot" and request.name == "depth" and answer.status == 200:
            return self._stale(request, len(answer.body["bids"]), len(answer.body["asks"]))
        return answer

    def _stale(self, request: Request, bids: int, asks: int) -> Answer:
        """Answer with the book as it was when the script was armed."""
        name = request.params["symbol"]
        book, form = self._books[name], self._venue.formats[name]
        body = {
            "lastUpdateId": book.last_update_id,
            "bids": form.levels(book.bids[:bids]),
            "asks": form.levels(book.asks[:asks]),
        }
        return Answer(200, body)

    def report(self) -> dict[str, Any]:
        """Tell every rule, how often it matched and how often it acted."""
        return {
            "rules": [{**msgspec.to_builtins(one.rule), "seen": one.seen, "acted": one.acted} for one in self.triggers]
        }


def _unknown(rule: Rule) -> Answer:
    """Answer that nobody knows what became of the request."""
    status, text = UNKNOWN[rule.code]
    return Answer(status, {"code": rule.code, "msg": text})


def routes(faults: Faults) -> list[Route]:
    """Give the control endpoint: POST arms a script, GET tells what became of it, DELETE ends it."""

    async def control(request: HttpRequest) -> JSONResponse:
        if request.method == "DELETE":
            faults.arm(Script())
        elif request.method == "POST":
            try:
                faults.arm(msgspec.json.decode(await request.body(), type=Script))
            except msgspec.DecodeError as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(faults.report())

    return [Route("/control/faults", control, methods=["GET", "POST", "DELETE"])]
