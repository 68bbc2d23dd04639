"""The REST process of live market data: snapshots, the venue's symbols and filters, its clock. Beside the path.

`book` counts the snapshots it needs; this process sees the counters, fetches, and hands the bytes to market_data
through the `rest` ring, wrapped as `{"stream":"btcusdt@snapshot","data":…}`, so that they are decoded and recorded like
any other frame. Requests are paced: jittered, fewer where they repeat, within the venue's weight limit, and none while
the venue has said to stay away (429, 418).

Symbols are compared with the configured instruments before a start (`check_instruments`) and while running
(`symbol_watch`): one that is not trading, or whose rules have become stricter, is held alone until it is as it was.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from shrivenq.pipeline import processes, topology
from shrivenq.pipeline.deadline import deadline
from shrivenq.pipeline.symbol_watch import SymbolWatch
from shrivenq.pipeline.venue_symbols import Rules, Symbol, SymbolsError, compare, read_symbols
from shrivenq.shm import byte_ring
from shrivenq.shm.atomics import load_word, store_word
from shrivenq.shm.kernel import kernel
from shrivenq.stages.frames import TEXT
from shrivenq.stages.live import away
from shrivenq.stages.live.transport import TransportError, make_tls_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.assembly import Assembly
    from shrivenq.pipeline.instruments import Tables
    from shrivenq.pipeline.processes import Process
    from shrivenq.stages.live import source

# Words of the `rest` region of the control segment (int64).
SNAPSHOTS = 0  # handed to market_data
FAILURES = 1  # requests that failed
USED_WEIGHT = 2  # of the venue's minute, as it last said
VENUE_OFFSET_NS = 3  # the venue's clock − ours
VENUE_ERROR_NS = 4  # that is this exact
WORDS = 16

TIMEOUT_S = 10.0
BODY_MAX = 1 << 26
WEIGHT_SHARE = 0.7
"""Of the venue's limit, used at most: others may share the address."""
WEIGHT_LIMIT = 6000
"""A minute, until the venue has said."""
WEIGHT_MAX = 10**9
"""What the venue may say at most."""
WEIGHT_MIN = 1000
"""Less than this is no limit the venue ever had: obeyed, it could leave us without requests for good."""
RETRY_S = 60.0
"""After a 429 or 418 that does not say how long."""
RETRY_MAX_S = 3 * 86_400.0
FIRST_WAIT_S = 0.02
"""Longest jitter before a snapshot is asked for the first time."""
REPEAT_S = 0.25
"""Shortest wait before the same snapshot is asked for again; doubled each time …"""
REPEAT_MAX_S = 30.0
"""… up to this."""
CALM_S = 30.0
"""A book that was content for this long starts anew."""
PAUSE_S = 0.01
"""Between two looks when nothing was asked for: a look takes a CPU that a stage may be using for 50 µs."""
DRIFT_NS_PER_S = 50_000
"""How far two clocks may drift apart: 50 ppm, a poor quartz."""
TIME_US_MAX = 10**17
LOOK_AGAIN_S = 5.0
"""After a look at the symbols that failed: at most."""
START_S = 10.0
"""How long a start waits for a venue that does not answer."""


class RestError(Exception):
    """A request that brought nothing; one line says why. `status` is that of HTTP, 0 for no answer at all.

    `symbol` is the one that the venue does not know, if that is why.
    """

    def __init__(self, text: str, status: int = 0, code: int = 0, symbol: str = "") -> None:
        super().__init__(text)
        self.status, self.code, self.symbol = status, code, symbol


class Client(Protocol):
    """What `Requests` needs of an HTTP client."""

    def get(self, target: str) -> tuple[int, dict[str, str], bytes]:
        """Get `target`; return status, headers in lower case, and body. Raises RestError."""


class HttpClient:
    """One kept HTTP/1.1 connection to `url`. Raises RestError for a URL or a file of certificates that is none."""

    def __init__(self, url: str, authority: str = "") -> None:
        try:
            found = urlsplit(url)
            host, port, tls = found.hostname or "", found.port, found.scheme == "https"
            context = make_tls_context(authority) if tls else None
        except (ValueError, TransportError) as error:
            raise RestError(f"{url}: {error}") from None
        self._path = found.path.rstrip("/")
        self._name = f"{found.scheme}://{found.netloc}"
        self._connection: http.client.HTTPConnection
        if context is not None:
            self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def get(self, target: str) -> tuple[int, dict[str, str], bytes]:
        """Get `target`, in TIMEOUT_S; return status, headers in lower case, and body. Raises RestError."""
        is_kept = self._connection.sock is not None
        try:
            return self._get(target)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A connection that was kept may have been closed by the venue in the meantime: a new one then.
            if not is_kept or isinstance(error, TimeoutError):
                raise RestError(f"{self._name}: {_explain(error)}") from None
        try:
            return self._get(target)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise RestError(f"{self._name}: {_explain(error)}") from None

    def _get(self, target: str) -> tuple[int, dict[str, str], bytes]:
        with deadline(TIMEOUT_S):
            self._connection.request("GET", self._path + target, headers={"X-MBX-TIME-UNIT": "MICROSECOND"})
            response = self._connection.getresponse()
            body = response.read(BODY_MAX)
        if not response.isclosed():
            raise http.client.HTTPException(f"an answer of more than {BODY_MAX:,} bytes")
        return response.status, {key.lower(): value for key, value in response.getheaders()}, body

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        self._connection.close()


def _explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT_S:g} s"
    said = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error or type(error).__name__
    return ascii(str(said)[:200])[1:-1]


@dataclass
class Requests:
    """Requests to the venue within its limits; `clock` tells ns since 1970."""

    client: Client
    clock: Callable[[], int] = time.time_ns
    weight_limit: int = WEIGHT_LIMIT
    used_weight: int = 0
    blocked_until_ns: int = 0
    blocked_why: str = ""
    _minute: int = 0

    def allows(self, weight: int) -> bool:
        """Tell whether a request of this weight may be made now."""
        now = self.clock()
        if now // 60_000_000_000 != self._minute:
            self._minute, self.used_weight = now // 60_000_000_000, 0
        return now >= self.blocked_until_ns and self.used_weight + weight <= WEIGHT_SHARE * self.weight_limit

    def get(self, target: str, weight: int) -> bytes:
        """Get what is said to cost `weight`. Raises RestError; after a 429 or 418 at once until the venue allows it."""
        if not self.allows(weight):
            raise RestError(self.blocked_why or "the share of the venue's weight limit is used up")
        self.used_weight += weight
        status, headers, body = self.client.get(target)
        used = headers.get("x-mbx-used-weight-1m", "")
        if used.isdecimal():
            self.used_weight = int(used[:18])
        if status == 200:
            return body
        code, text = _venue_error(body)
        if status in (429, 418):
            asked = headers.get("retry-after", "")
            wait_s = min(float(asked), RETRY_MAX_S) if asked.isdecimal() else RETRY_S
            self.blocked_until_ns = self.clock() + int(wait_s * 1e9)
            self.blocked_why = f"the venue has said HTTP {status}: no request for {wait_s:g} s"
            raise RestError(self.blocked_why, status)
        raise RestError(f"the venue answers HTTP {status}: {text}", status, code)


def _venue_error(body: bytes) -> tuple[int, str]:
    """Read `{"code":-1121,"msg":"Invalid symbol."}`."""
    try:
        found = json.loads(body)
        return int(found["code"]), ascii(f"{found['msg']} ({found['code']})"[:200])[1:-1]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0, ascii(body[:60])


def depth_weight(levels: int) -> int:
    """Tell what a snapshot of so many levels a side costs (protocol sheet, section 5)."""
    for most, weight in ((100, 5), (500, 25), (1000, 50)):
        if levels <= most:
            return weight
    return 250


def exchange_info(requests: Requests, symbols: list[str]) -> Any:
    """Fetch what the venue says of `symbols`. Raises RestError; for an unknown symbol it names which."""
    listed = json.dumps(symbols, separators=(",", ":")).replace('"', "%22")
    try:
        body = requests.get(f"/api/v3/exchangeInfo?symbols={listed}", 20)
    except RestError as error:
        if error.code not in (-1121, -1100):
            raise
        if len(symbols) == 1:
            raise RestError(f"{symbols[0]}: {error}", error.status, error.code, symbols[0]) from None
        for symbol in symbols:
            exchange_info(requests, [symbol])
        raise
    try:
        found = json.loads(body)
        for limit in found.get("rateLimits", ()):
            if limit["rateLimitType"] == "REQUEST_WEIGHT" and limit["interval"] == "MINUTE":
                told = int(limit["limit"]) // int(limit["intervalNum"])
                requests.weight_limit = max(WEIGHT_MIN, min(told, WEIGHT_MAX))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise RestError(f"exchangeInfo is not what was expected: {body[:60]!a}") from None
    return found


def symbols_of(tables: Tables) -> list[str]:
    """List the symbols of the instruments."""
    return [row["symbol"].decode() for row in tables.instruments]


def check_instruments(config: source.Config, rules: Rules, log: Any, *, patience_s: float = START_S) -> Rules:
    """Compare the instruments with the venue's before a start; return the stricter of both rules.

    What differs is logged. Raises RestError where the venue does not answer, knows a symbol not, or contradicts in what
    cannot be obeyed: assets, decimals, tick and step, on which strategies and books are built.
    """
    client = HttpClient(config.rest_url, config.authority)
    requests = Requests(client)
    until = time.monotonic() + patience_s
    try:
        while True:
            try:
                return _check(requests, rules, log)
            except RestError as error:
                if error.status or time.monotonic() > until:
                    raise
                time.sleep(0.1)
    finally:
        client.close()


def _check(requests: Requests, rules: Rules, log: Any) -> Rules:
    info = exchange_info(requests, symbols_of(rules.tables))
    try:
        found = compare(read_symbols(info), rules)
    except SymbolsError as error:
        raise RestError(str(error), 200) from None
    for line in (line for one in found.instruments for line in one.notes):
        log.warning("instrument differs from the venue's", what=line)
    refusals = [line for one in found.instruments for line in one.refusals]
    if refusals:
        raise RestError("; ".join(refusals), 200)
    return found.rules


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Wanted:
    """What is known of one instrument's snapshots."""

    served: int = -1  # the counter's value that was served last; -1: never, and wanted
    due_s: float = 0.0
    repeats: int = 0
    fetched_s: float = -1e9


@dataclass
class Side:
    """The REST process's work, one `step` at a time; `words` is its region, `now_s` a monotonic clock."""

    config: source.Config
    rules: Rules
    requests: Requests
    ring: byte_ring.Producer
    resync: Any  # int64, one an instrument
    streaming: Any  # int64, one an instrument: 1 while market_data is sent all its streams
    away: Any  # words of `stages/live/away.py`
    words: Any
    hold: Any
    instrument_hold: Any
    log: Any
    random: random.Random = field(default_factory=random.Random)
    now_s: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._symbols = symbols_of(self.rules.tables)
        self._wanted = [_Wanted() for _ in self._symbols]
        # A partial book is a snapshot itself, and without depth there is no book.
        self._needs_snapshots = any(one in ("depth", "depth@100ms") for one in self.config.streams)
        self._look_s = 0.0
        self._clock_s = 0.0
        self._clocks: deque[tuple[float, int, int]] = deque(maxlen=8)  # when, the venue's offset, its error
        self._unknown: list[str] = []  # symbols that the venue does not know any more
        self._watch = SymbolWatch(
            self.rules, self.hold, self.instrument_hold, self.log, period_s=self.config.exchange_info_s
        )
        self._blocked_said = 0

    def step(self) -> bool:
        """Do at most one request; tell whether one was made."""
        told_ns = int(away.until_ns(self.away))  # to a process before this one, maybe
        if told_ns > self.requests.blocked_until_ns:
            self.requests.blocked_until_ns = told_ns
            self.requests.blocked_why = "the venue has told this address to stay away"
        self._watch.wait(self.now_s())
        # Everything is held until the symbols are known: many snapshots can use up the weight of a minute.
        made = not self._watch.is_known and self._look_at_symbols()
        made = made or self._snapshot() or self._look_at_symbols() or self._look_at_clock()
        if made:
            store_word(self.words, USED_WEIGHT, self.requests.used_weight)
        return made

    def _snapshot(self) -> bool:
        """Fetch the snapshot that is due, if the streams it belongs to are being sent."""
        if not self._needs_snapshots:
            return False
        for row, wanted in enumerate(self._wanted):
            asked, now = int(load_word(self.resync, row)), self.now_s()
            if asked == wanted.served or not load_word(self.streaming, row):
                continue
            if wanted.due_s == 0.0:
                wanted.due_s = now + self._wait_s(wanted, now)
            weight = depth_weight(self.config.snapshot_levels)
            if now < wanted.due_s or not self.requests.allows(weight):
                continue
            self._fetch(row, wanted, asked, weight)
            return True
        return False

    def _wait_s(self, wanted: _Wanted, now: float) -> float:
        """Tell how long to wait with a snapshot: longer where it repeats."""
        if now - wanted.fetched_s > CALM_S:
            wanted.repeats = 0
        longest = min(REPEAT_MAX_S, REPEAT_S * 2 ** (wanted.repeats - 1)) if wanted.repeats else FIRST_WAIT_S
        return self.random.uniform(longest / 2 if wanted.repeats else 0.0, longest)

    def _fetch(self, row: int, wanted: _Wanted, asked: int, weight: int) -> None:
        symbol = self._symbols[row]
        wanted.due_s, wanted.fetched_s = 0.0, self.now_s()
        wanted.repeats += 1
        try:
            body = self.requests.get(f"/api/v3/depth?symbol={symbol}&limit={self.config.snapshot_levels}", weight)
        except RestError as error:
            self._failed("snapshot", error, symbol=symbol)
            return
        frame = b'{"stream":"%s@snapshot","data":%s}' % (symbol.lower().encode(), body.strip())
        data = np.frombuffer(frame, np.uint8)
        if len(frame) > byte_ring.length_max(len(self.ring.data)):
            self.log.error("snapshot too large", symbol=symbol, bytes=len(frame))
        elif byte_ring.append(self.ring, TEXT, data, 0, len(frame), self.requests.clock()):
            wanted.served = asked
            store_word(self.words, SNAPSHOTS, int(self.words[SNAPSHOTS]) + 1)

    def _failed(self, what: str, error: RestError, **fields: Any) -> None:
        """Tell of a failure; that the venue wants to be left alone, once."""
        store_word(self.words, FAILURES, int(self.words[FAILURES]) + 1)
        if error.status in (429, 418):
            word = away.BANNED_NS if error.status == 418 else away.LIMITED_NS
            away.tell(self.away, word, self.requests.blocked_until_ns)
        if error.status in (429, 418) and self.requests.blocked_until_ns == self._blocked_said:
            return
        self._blocked_said = self.requests.blocked_until_ns
        self.log.warning("REST request failed", what=what, reason=str(error), **fields)

    def _look_at_symbols(self) -> bool:
        """Have the venue's symbols compared with ours again."""
        now, period_s = self.now_s(), self.config.exchange_info_s
        if now < self._look_s or not self.requests.allows(20):
            return False
        try:
            self._watch.look(self._read_symbols(), now)
        except (RestError, SymbolsError) as error:
            period_s = min(period_s, LOOK_AGAIN_S)
            self._failed("exchangeInfo", error if isinstance(error, RestError) else RestError(str(error)))
        self._look_s = now + period_s * self.random.uniform(0.9, 1.1)
        return True

    def _read_symbols(self) -> dict[str, Symbol]:
        """Fetch what the venue says of our symbols. Raises RestError and SymbolsError.

        One that it does not know any more spoils the answer for all: it is asked for by itself from then on.
        """
        found: dict[str, Symbol] = {}
        for symbol in list(self._unknown):
            try:
                found |= read_symbols(exchange_info(self.requests, [symbol]))
                self._unknown.remove(symbol)
            except RestError as error:
                if not error.symbol:
                    raise
        while known := [one for one in self._symbols if one not in self._unknown]:
            try:
                return found | read_symbols(exchange_info(self.requests, known))
            except RestError as error:
                if not error.symbol:
                    raise
                self._unknown.append(error.symbol)
        return found

    def _look_at_clock(self) -> bool:
        """Estimate the venue's clock against ours: the best of the last round trips, the older the less it is worth."""
        now = self.now_s()
        if now < self._clock_s or not self.requests.allows(1):
            return False
        self._clock_s = now + self.config.exchange_info_s * self.random.uniform(0.9, 1.1)
        before = self.requests.clock()
        try:
            body = self.requests.get("/api/v3/time", 1)
            after = self.requests.clock()
            venue_us = int(json.loads(body)["serverTime"])
            if not 0 < venue_us < TIME_US_MAX:
                raise ValueError("out of range")
        except RestError as error:
            self._failed("time", error)
            return True
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            self._failed("time", RestError(f"not a time: {body[:60]!a}"))
            return True
        # Milliseconds where the venue does not know the header.
        is_us = venue_us > 10**14
        unit = 1_000 if is_us else 1_000_000
        self._clocks.append((now, venue_us * unit + unit // 2 - (before + after) // 2, (after - before + unit) // 2))
        worth = [(error + int((now - at) * DRIFT_NS_PER_S), offset) for at, offset, error in self._clocks]
        error_ns, offset = min(worth)
        store_word(self.words, VENUE_OFFSET_NS, offset)
        store_word(self.words, VENUE_ERROR_NS, error_ns)
        self.log.info("venue clock", ahead_ms=round(offset / 1e6, 3), error_ms=round(error_ns / 1e6, 3))
        return True


def start(config: source.Config, rules: Rules, assembly: Assembly, log: Any) -> Process:
    """Start the REST process of a run. Raises RestError."""
    client = HttpClient(config.rest_url, config.authority)
    ring = byte_ring.producer(assembly.segments["rest"])
    _forget(ring)
    side = Side(
        config,
        rules,
        Requests(client),
        ring,
        assembly.control_read("resync"),
        assembly.control_read("streaming"),
        assembly.control("away"),
        assembly.control("rest"),
        assembly.control("hold"),
        assembly.control("instrument_hold"),
        log,
    )
    supervisor = assembly.control_read("supervisor")
    parent = os.getpid()
    return processes.start(
        "rest", lambda: main(side, lambda: bool(load_word(supervisor, topology.STOP)) or os.getppid() != parent)
    )


@kernel
def _forget(ring: Any) -> None:
    """Forget the record in which a REST process died."""
    byte_ring.abandon(ring)


def main(side: Side, over: Callable[[], bool]) -> int:
    """Be the REST process until `over`."""
    # A book waits for this one, so it gets its share of a CPU even where all are busy; it interrupts nobody.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    while not over():
        if not side.step():
            time.sleep(PAUSE_S)
    return 0
