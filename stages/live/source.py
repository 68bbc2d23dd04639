"""Live market data as a source of frames: connections to Binance, kept open, rolled over and replaced.

Streams are spread over as many connections as the venue's limit asks for. A connection that ends, that is silent for
too long, or that breaks the protocol is replaced after a jittered wait. For each instrument that it carried a frame of
our own, `{"stream":"btcusdt@lost","data":{}}`, says that something is missing until `book` has had its snapshot; what
came over other connections is untouched. Before its 24 hours are over, or when the server says that it will restart,
another connection is opened beside it and takes over where their messages overlap.

Connecting is done in steps, of one connection in a turn: the longest step of a TLS handshake takes a millisecond or
two, in which nobody is served.

Snapshots come through the REST process's ring (`pipeline/rest.py`), which sees by itself what `book` asks for.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from shrivenq.shm.atomics import store_word
from shrivenq.stages.frames import COUNT, FRAME, TAKEN, TEXT, USED, Frames
from shrivenq.stages.live import away
from shrivenq.stages.live import receive as r
from shrivenq.stages.live.link import Link
from shrivenq.stages.live.pace import Pace
from shrivenq.stages.live.switch import Switch
from shrivenq.stages.live.transport import Resolver, TransportError, make_tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from shrivenq.shm import byte_ring

S_NS = 1_000_000_000
SWITCH_NS = 10 * S_NS
"""Longest time two connections are compared; after it the new one takes over, with LOST where it does not reach."""
MARGIN_NS = S_NS
"""More than what the venue says of how long to stay away: who comes too early is sent away for longer."""
SETTLE_NS = S_NS // 2
"""A new connection is listened to at least this long before it may take over."""
CATCH_UP_NS = S_NS
"""Time without a repetition after which a new connection counts as caught up, whichever streams have fallen silent."""
SHOW_EVERY_NS = S_NS // 20
HELD_NS = 60 * S_NS
"""A connection that was open this long starts the back-off anew."""

# Words of the `live` region of the control segment, written by market_data (int64).
OPEN = 0  # 1 while every stream is being sent
CONNECTS = 1  # connections opened so far
LOSSES = 2  # of those, ended with something missing
CLOCK_OFFSET_NS = 3  # CLOCK_REALTIME − CLOCK_MONOTONIC by which receive stamps were converted
CLOCK_ERROR_NS = 4  # that is this exact
CLOCK = 5  # which clock receive stamps come from: index into frames.CLOCKS
SHOWN_WORDS = 16

Text = Annotated[str, msgspec.Meta(max_length=200)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[market_data.binance]`: where live market data comes from."""

    stream_url: Text = "wss://stream.binance.com:9443"
    """A path in it stays in front of `/stream`."""
    rest_url: Text = "https://api.binance.com"
    encoding: Literal["json", "sbe"] = "json"
    """`sbe` is binary, five times as often, and served at a host of its own to who names a key."""
    key: Text = ""
    """SBE: where the Ed25519 key lies, `credential:NAME`, `file:PATH` or `environment` (see `pipeline/keys.py`)."""
    streams: tuple[Text, ...] = ("depth@100ms", "trade", "bookTicker")
    """Of every instrument: depth, depth@100ms, trade, aggTrade, bookTicker, or depth5, 10 or 20 in depth's place; in
    SBE depth, trade, bestBidAsk, or depth20 in depth's place."""
    authority: Text = ""
    """TLS: a file of certificates to trust instead of the system's."""
    streams_per_connection: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1024
    roll_h: Annotated[float, msgspec.Meta(gt=0, le=23.9)] = 23.5
    """A connection is replaced after this long; the venue cuts it at 24 h."""
    silent_ms: Annotated[float, msgspec.Meta(ge=10, le=600_000)] = 10_000.0
    """A connection without a message for this long is replaced."""
    snapshot_levels: Annotated[int, msgspec.Meta(ge=5, le=5000)] = 5000
    """Levels a side of a snapshot; above 1,000 it costs a fifth of a minute's share of a full minute's weight."""
    exchange_info_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 60.0
    """How often symbols and filters are looked at."""


PARTIAL = tuple(f"depth{levels}{speed}" for levels in (5, 10, 20) for speed in ("", "@100ms"))
STREAMS = {
    "json": ("depth", "depth@100ms", "trade", "aggTrade", "bookTicker", *PARTIAL),
    "sbe": ("depth", "depth20", "trade", "bestBidAsk"),
}


def check(config: Config) -> list[str]:
    """Say what is wrong with a configuration that its types do not say, each line beginning with its key."""
    errors = []
    for key, schemes in (("stream_url", ("ws", "wss")), ("rest_url", ("http", "https"))):
        found = getattr(config, key)
        if found.partition("://")[0] not in schemes or not found.partition("://")[2] or "?" in found or "#" in found:
            errors.append(f'{key}: found "{found}", allowed: {schemes[1]}://HOST or {schemes[0]}://HOST')
    allowed = STREAMS[config.encoding]
    errors += [
        f'streams: found "{one}", allowed with encoding "{config.encoding}": {", ".join(allowed)}'
        for one in config.streams
        if one not in allowed
    ]
    if config.encoding == "sbe" and not config.key:
        errors.append('key: missing, allowed with encoding "sbe": credential:NAME, file:PATH or environment')
    if config.encoding != "sbe" and config.key:
        errors.append(f'key: found one, allowed: only with encoding "sbe", this is "{config.encoding}"')
    books = [one for one in config.streams if one.startswith("depth")]
    if len(books) > 1:
        errors.append(f"streams: found {' and '.join(books)}, allowed: one kind of depth")
    if not config.streams or len(set(config.streams)) != len(config.streams):
        errors.append("streams: found none, or one twice, allowed: each once")
    return errors


def stream_names(config: Config, instruments: Any) -> list[tuple[int, str]]:
    """List the streams of all instruments, as the venue names them, each with the instrument's row."""
    return [
        (row, f"{one['symbol'].decode().lower()}@{kind}")
        for row, one in enumerate(instruments)
        for kind in config.streams
    ]


class _Group:
    """The connection that carries some of the streams, and at times the one that will replace it."""

    def __init__(self, streams: Sequence[tuple[int, str]], rows: tuple[int, int]) -> None:
        self.streams, self.rows = [name for _, name in streams], rows
        self.instruments = sorted({row for row, _ in streams})
        symbols = dict.fromkeys(name.partition("@")[0] for name in self.streams)
        self.losses = {symbol: b'{"stream":"%s@lost","data":{}}' % symbol.encode() for symbol in symbols}
        self.link: Link | None = None
        self.next: Link | None = None
        self.switch: Switch | None = None
        self.switch_ns = 0  # when the new one was open, and then when it took over
        self.failures = 0
        self.try_ns = 0
        self.opened_ns = 0
        self.roll_ns = 0

    def free_row(self) -> int:
        return next(row for row in self.rows if self.link is None or self.link.row != row)

    def links(self) -> list[Link]:
        return [link for link in (self.link, self.next) if link is not None]

    @property
    def is_open(self) -> bool:
        return self.link is not None and self.link.is_open


class LiveSource:
    """The venue's streams as a source for the market_data stage; `make_receiver` beside it is its `live` and `frames`.

    `shown` and `streaming` (a word an instrument: 1 while all its streams are being sent) are for other processes to
    read; `told` is where all that speak to the venue note that it wants no requests (`away`). `read_key` gives the API
    key when a connection is made, or raises ValueError. Raises ValueError for a configuration that cannot be used.
    """

    eager = False
    damage = ""

    def __init__(
        self,
        config: Config,
        instruments: Any,
        rest: byte_ring.Consumer | None,
        log: Any,
        shown: Any = None,
        streaming: Any = None,
        read_key: Callable[[], str] | None = None,
        told: Any = None,
        seed: int | None = None,
    ) -> None:
        errors = check(config)
        if errors:
            raise ValueError("; ".join(errors))
        self._config, self._log, self._read_key = config, log, read_key
        self._shown = np.zeros(SHOWN_WORDS, np.int64) if shown is None else shown
        self._away = np.zeros(away.WORDS, np.int64) if told is None else told
        self._count = len(instruments)
        self._streaming = np.zeros(self._count, np.int64) if streaming is None else streaming
        try:
            self._uri = parse_uri(config.stream_url)
            self._context: ssl.SSLContext | None = make_tls_context(config.authority) if self._uri.secure else None
        except (InvalidURI, TransportError) as error:
            raise ValueError(str(error)) from None
        self._random = random.Random(seed)
        self._pace, self._resolver = Pace(self._random), Resolver()
        streams, size, kinds = stream_names(config, instruments), config.streams_per_connection, len(config.streams)
        if size > kinds:
            size -= size % kinds  # an instrument's streams stay together
        self._groups = [
            _Group(streams[at : at + size], (2 * number, 2 * number + 1))
            for number, at in enumerate(range(0, len(streams), size))
        ]
        self.live, self.frames = r.make_receiver(2 * len(self._groups), rest)
        self._scratch = Frames(self.frames.data, np.zeros(len(self.frames.index), FRAME), np.zeros(16, np.int64))
        self._attempts = 0
        self._show_ns = 0
        self._late: deque[tuple[bytes, int]] = deque()  # our own and a switch's messages that found no room yet
        self._open: list[bool] = []  # of each group, as shown
        self._connecting = 0  # the group whose connection may take the next step of being made
        # The machine code is loaded now, and not when the first message comes.
        r.parse(self.live, self.frames, 0, 0)
        r.enter_bytes(self.live, self.frames, b"", TEXT, 0, 0)
        r.sample_offset(self.live.words, 0)
        away.tell(self._away, away.LIMITED_NS, 0)
        away.until_ns(self._away)
        self.frames.words[COUNT] = self.live.words[r.CLOCK_LOOK_NS] = 0
        self._show()

    def request_snapshot(self, instrument: int) -> None:
        """Do nothing: the REST process reads what `book` asks for."""

    @property
    def is_open(self) -> bool:
        """Tell whether every stream is being sent."""
        return all(group.is_open for group in self._groups)

    def fill(self, frames: Frames) -> None:
        """Look after the connections, and enter what compiled code left to Python; all frames must have been taken."""
        words = self.live.words
        if not words[r.STARTED]:
            return  # the stage is only being built
        now_ns, time_ns = time.monotonic_ns(), 0  # a live frame's time is that of its being taken
        frames.words[COUNT] = frames.words[TAKEN] = frames.words[USED] = 0
        words[r.SIDE_USED], words[r.ATTENTION] = words[r.SIDE_BEGIN], 0
        self._enter_late(frames, now_ns, time_ns)
        wake_ns = [now_ns + S_NS * 3600]
        self._choose_connecting()
        for group in self._groups:
            if not self._late:
                self._serve(group, frames, now_ns, time_ns)
            wake_ns += self._wakes(group, now_ns)
        if self._late:
            words[r.ATTENTION] = 1
        words[r.WAKE_NS] = min(wake_ns)
        if now_ns >= self._show_ns or [group.is_open for group in self._groups] != self._open:
            self._show_ns = now_ns + SHOW_EVERY_NS
            self._show()

    def _enter_late(self, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Enter what has waited for room, as much as there is."""
        while self._late and r.enter_bytes(self.live, frames, *self._late[0], time_ns, now_ns):
            self._late.popleft()

    def _choose_connecting(self) -> None:
        """Let one connection that is being made take its next step in this turn, each in its turn."""
        waiting = [link for group in self._groups for link in group.links() if link.is_connecting]
        self._connecting += 1
        for number, link in enumerate(waiting):
            link.may_connect = number == self._connecting % len(waiting)

    def _show(self) -> None:
        """Tell other processes how the connections are."""
        rows, words = self.live.rows, self.live.words
        found = [group.is_open for group in self._groups]
        if found != self._open:
            self._open = found
            shut = {row for group in self._groups if not group.is_open for row in group.instruments}
            for row in range(self._count):
                store_word(self._streaming, row, int(row not in shut))
        shown = {OPEN: self.is_open, CLOCK_OFFSET_NS: words[r.CLOCK_OFFSET_NS], CLOCK_ERROR_NS: words[r.CLOCK_ERROR_NS]}
        shown[CLOCK] = rows["clock"].max()
        for word, value in shown.items():
            store_word(self._shown, word, int(value))

    def _wakes(self, group: _Group, now_ns: int) -> list[int]:
        """List when a group wants to be looked at, whatever comes."""
        found = [deadline for link in group.links() if (deadline := link.deadline_ns(now_ns))]
        link = group.link
        if link is None:
            found.append(group.try_ns)
        elif link.is_open:
            found.append(now_ns - link.data_age_ns(now_ns) + self._silent_ns)
            if group.next is None:
                found.append(max(0 if link.is_restarting else group.roll_ns, group.try_ns))
        if group.switch is not None:
            found.append(now_ns + S_NS // 100)
        return [one if one > now_ns else now_ns + 1 for one in found]

    @property
    def _silent_ns(self) -> int:
        return int(self._config.silent_ms * 1e6)

    def _serve(self, group: _Group, frames: Frames, now_ns: int, time_ns: int) -> None:
        if group.link is None and self._may_connect(group, now_ns):
            group.link = self._connect(group, now_ns)
        if group.switch is not None:
            self._compare(group, frames, now_ns, time_ns)
            return
        self._scratch.words[COUNT] = 0  # what a connection says before it is compared with is not kept
        for link in group.links():
            was_open = link.is_open
            link.serve(frames if link is group.link else self._scratch, now_ns, time_ns)
            if link.is_open and not was_open and link is group.link:
                self._opened(group, now_ns)
        self._watch(group, frames, now_ns, time_ns)

    def _watch(self, group: _Group, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Replace what has ended or is silent; begin and end switches."""
        link = group.link
        if link is not None and link.is_open and link.data_age_ns(now_ns) > self._silent_ns:
            link.close(f"no market data for {self._config.silent_ms:g} ms")
        if link is not None and link.closed is not None:
            self._lost(group, link, frames, now_ns, time_ns)
            return
        if group.next is not None and group.next.closed is not None:
            self._log.warning("market data: no connection to switch to", reason=group.next.closed.reason)
            self._failed(group, group.next, now_ns)
            group.next = None
        is_due = now_ns >= group.roll_ns or (link is not None and link.is_restarting)
        if link is not None and link.is_open and group.next is None and is_due and self._may_connect(group, now_ns):
            group.next = self._connect(group, now_ns)
            group.next.is_watched = True
        if group.next is not None and not group.next.is_connecting and link is not None:
            # It has just asked: what it will bring, the old one has not brought yet.
            link.is_watched = True
            group.switch, group.switch_ns = Switch(), now_ns
            self.live.words[r.ATTENTION] = 1  # the old one is looked at from the next message on

    def _may_connect(self, group: _Group, now_ns: int) -> bool:
        """Tell whether it is time for a group to connect, and nothing that others did in the meantime forbids it."""
        if now_ns >= group.try_ns:
            self._pace.stay_away(now_ns + int(away.until_ns(self._away)) - time.time_ns())
            group.try_ns = self._pace.allowed_ns(now_ns)
        return now_ns >= group.try_ns

    def _connect(self, group: _Group, now_ns: int) -> Link:
        self._pace.attempt(now_ns)
        self._attempts += 1
        link = Link(
            self.live, group.free_row(), self._uri, self._config.stream_url, group.streams, self._resolver,
            self._context, now_ns, self._attempts, self._read_key,
        )  # fmt: skip
        link.may_connect = False
        return link

    def _opened(self, group: _Group, now_ns: int) -> None:
        group.opened_ns = now_ns
        store_word(self._shown, CONNECTS, int(self._shown[CONNECTS]) + 1)
        roll_ns = int(self._config.roll_h * 3600e9)
        # Not all connections at once.
        group.roll_ns = now_ns + roll_ns - self._random.randint(0, roll_ns // 50)
        self._log.info("market data connected", streams=len(group.streams), url=self._config.stream_url)

    def _failed(self, group: _Group, link: Link, now_ns: int) -> None:
        """Work out when to try again."""
        closed = link.closed
        assert closed is not None
        held = group.opened_ns and now_ns - group.opened_ns > HELD_NS
        if closed.retry_after_s:
            wait_ns = closed.retry_after_s * S_NS + MARGIN_NS
            self._pace.stay_away(now_ns + wait_ns)
            away.tell(self._away, away.BANNED_NS if closed.is_ban else away.LIMITED_NS, time.time_ns() + wait_ns)
        group.try_ns = self._pace.next_ns(now_ns, 0 if held else group.failures)
        group.failures = 1 if held else group.failures + 1

    def _lost(self, group: _Group, link: Link, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Let a connection that has ended go; what it carried is missing from here on."""
        assert link.closed is not None
        if link.has_data:
            store_word(self._shown, LOSSES, int(self._shown[LOSSES]) + 1)
            self._say_lost(group, frames, now_ns, time_ns)
        self._failed(group, link, now_ns)
        self._log.warning(
            "market data disconnected", reason=link.closed.reason, again_in_ms=(group.try_ns - now_ns) // 1_000_000
        )
        group.link, group.opened_ns, group.switch = None, 0, None
        self.live.words[r.ATTENTION] = 1
        if group.next is not None:
            # Whatever it kept is older than the loss.
            group.link, group.next = group.next, None
            group.link.is_watched = False
            if group.link.is_open:
                self._opened(group, now_ns)

    def _say_lost(
        self, group: _Group, frames: Frames, now_ns: int, time_ns: int, symbols: set[str] | None = None
    ) -> None:
        """Say of each instrument of a group, or of `symbols`, that something is missing from here on."""
        self._late += [(frame, TEXT) for symbol, frame in group.losses.items() if symbols is None or symbol in symbols]
        self._enter_late(frames, now_ns, time_ns)

    # ── switching ────────────────────────────────────────────────────────────────────────────────────────────────

    def _compare(self, group: _Group, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Take what both connections of a group bring, one message after the other, and change over when it is due."""
        switch, old, new = group.switch, group.link, group.next
        assert switch is not None
        assert old is not None
        if new is None:  # it has taken over and is catching up
            repeats = switch.repeats
            self._collect(old, switch.take_new, frames, now_ns, time_ns)
            if switch.repeats != repeats:
                group.switch_ns = now_ns
            if old.closed is not None or switch.is_over() or now_ns > group.switch_ns + CATCH_UP_NS:
                group.switch, old.is_watched = None, False
                self.live.words[r.ATTENTION] = 1  # from here on it is compiled code's
                self._watch(group, frames, now_ns, time_ns)
            return
        self._collect(old, switch.take_old, frames, now_ns, time_ns)
        self._collect(new, switch.take_new, frames, now_ns, time_ns)
        if old.closed is not None or new.closed is not None:
            self._give_up(group, frames, now_ns, time_ns)
            return
        if not new.is_open:
            group.switch_ns = now_ns
            return
        is_late = now_ns > group.switch_ns + SWITCH_NS
        if is_late or (switch.is_due() and now_ns > group.switch_ns + SETTLE_NS):
            if is_late:
                missing = {stream.partition("@")[0].lower() for stream in switch.missing()}
                self._say_lost(group, frames, now_ns, time_ns, missing)
            self._change(group, switch, frames, now_ns, time_ns)
            self._log.info("market data switched to a new connection", overlapping=not is_late)

    def _change(self, group: _Group, switch: Switch, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Let the new connection take over."""
        old, new = group.link, group.next
        assert old is not None
        assert new is not None
        old.close("replaced")
        self._late += switch.change()
        self._enter_late(frames, now_ns, time_ns)
        group.link, group.next, group.switch_ns = new, None, now_ns
        self._opened(group, now_ns)
        group.failures = 0

    def _give_up(self, group: _Group, frames: Frames, now_ns: int, time_ns: int) -> None:
        """One of the two has ended too early: go on with the other."""
        switch, old, new = group.switch, group.link, group.next
        assert switch is not None
        assert old is not None
        assert new is not None
        if old.closed is not None and new.closed is None and switch.is_proven():
            self._change(group, switch, frames, now_ns, time_ns)
            return
        group.switch, old.is_watched = None, False
        self.live.words[r.ATTENTION] = 1
        self._watch(group, frames, now_ns, time_ns)

    def _collect(self, link: Link, wanted: Any, frames: Frames, now_ns: int, time_ns: int) -> None:
        """Serve a connection, and pass on what of its messages is wanted: of them no more than there is room for."""
        room = len(frames.index) - int(frames.words[COUNT])
        scratch = self._scratch._replace(index=self._scratch.index[:room])
        scratch.words[COUNT] = 0
        link.serve(scratch, now_ns, time_ns)
        for frame in scratch.index[: int(scratch.words[COUNT])]:
            begin = int(frame["offset"])
            if wanted(frames.data[begin : begin + int(frame["length"])].tobytes(), int(frame["flags"])):
                frames.index[int(frames.words[COUNT])] = frame
                frames.words[COUNT] += 1

    def close(self) -> None:
        """Close every connection."""
        for group in self._groups:
            for link in group.links():
                link.close("stopping")
        self._resolver.close()
