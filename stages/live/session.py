"""The session with the venue: Python's edge of the live venue, between turns.

    (none) ──connect──▶ LOGGING_ON ──▶ FOLLOWING ──▶ RECONCILING ──agrees──▶ TRADING
       ▲  session.logon, signed ┘           │             └ orders may be cancelled, new ones are held
       └── close, error, silence, revoked ──┴ userDataStream.subscribe

Nothing is ever sent twice: what was on its way when a connection ended is unknown until the gateway's questions are
answered. There is no replay of missed events, so every new session is reconciled before new orders pass. Where orders
go by FIX (`fix_session`), that session counts as well: WAITING is reconciled and without it.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import orjson
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from shrivenq.shm import ring
from shrivenq.stages import control, token_bucket
from shrivenq.stages import messages as m
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_io
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.api import ApiLink
from shrivenq.stages.live.fix_session import FixSession
from shrivenq.stages.live.pace import Pace
from shrivenq.stages.live.reconcile import OpenOrder, Orders, Reconciliation
from shrivenq.stages.live.standing import Standings
from shrivenq.stages.live.trades import Trades
from shrivenq.stages.live.transport import Resolver, TransportError, make_tls_context
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import put_row
from shrivenq.stages.venues.binance_orders import ABSENCE_MS
from shrivenq.stages.venues.binance_reports_slow import Refused, decode_slow

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

S_NS = 1_000_000_000
ANSWER_NS = 10 * S_NS
"""Longest wait for an answer to a request of the session itself."""
COMPARISON = "reconciliation"
"""Name of the wait, as long as for any answer, for the next of everything asked."""
SILENT_NS = 65 * S_NS
"""A connection without a byte for this long is dead: the venue pings every 20 s."""
LOOK_AGAIN_NS = 5 * S_NS
"""Between two looks at open orders that are not ours."""
CLOCKS_NS = S_NS
"""Longer than a ban says: its end is told in milliseconds of the venue's clock, and who is early is sent away."""
HELD_NS = 60 * S_NS
"""A session that lasted this long starts the back-off anew."""
SHOWN = 300
"""Characters of a message of the venue's that are logged."""

DOWN, LOGGING_ON, FOLLOWING, RECONCILING, TRADING = "down", "logging on", "following", "reconciling", "trading"
WAITING = "waiting for FIX"


class Session:
    """Keeps one session; `logon(name, timestamp_ms)` spells its signed first request.

    Raises ValueError for a configuration that cannot be used.
    """

    def __init__(
        self,
        config: v.Config,
        context: v.LiveVenue,
        loop: Any,
        orders: Orders,
        logon: Callable[[str, int], bytes],
        log: Any,
        seed: int | None = None,
        fix: tuple[int, Callable[[str, str, int], bytes]] | None = None,
    ) -> None:
        self._config, self._context, self._loop, self._log = config, context, loop, log
        self._orders, self._logon = orders, logon
        try:
            self._uri = parse_uri(config.url)
            self._tls: ssl.SSLContext | None = make_tls_context(config.authority) if self._uri.secure else None
        except (InvalidURI, TransportError) as error:
            raise ValueError(f"live_venue.url: {error}") from None
        self._random = random.Random(seed)
        self._pace, self._resolver = Pace(self._random), Resolver()
        self._link: ApiLink | None = None
        self._attempts = self._failures = 0
        self._try_ns = self._opened_ns = self._roll_ns = 0
        self._bytes, self._bytes_ns = 0, 0
        self._pending: dict[str, int] = {}  # our own requests, and when their answers are overdue
        self._foreign: list[OpenOrder] = []
        self._look_ns = 0
        self._reconciliation: Reconciliation | None = None
        self._trades = Trades(context, self._ask)
        self._standings = Standings(context, loop, orders, self._send_frame, self._placed, self._over_limits, log)
        self._fix: FixSession | None = None
        self._again = False  # FIX came up, or nonsense, while a comparison was running: another has to follow
        self.state = DOWN
        self._load()
        if fix is not None:
            epoch, fix_logon = fix
            self._fix = FixSession(
                config, context, loop, epoch, fix_logon, self._resolver, self._random, self._fix_changed, log
            )

    def _load(self) -> None:
        """Load the machine code now, and not when the first message comes."""
        context, loop = self._context, self._loop
        venue_io.parse(context, loop)
        venue_io.hear(context, loop, 0)
        venue_io.publish(context, loop, 0, 0, False)
        token_bucket.take(context.buckets, m.QUERY, 0)
        token_bucket.reconnected(context.buckets)
        control.kill_level(context.kill)
        time_of(loop, 0)

    # ── between turns ────────────────────────────────────────────────────────────────────────────────────────────

    def poll(self) -> None:
        """Look after the connection, if anything asks for it."""
        words, now_ns = self._context.live.words, time.monotonic_ns()
        if not words[r.STARTED] or (not words[r.ATTENTION] and now_ns < words[r.WAKE_NS]):
            return
        words[r.ATTENTION] = 0
        if self._fix is not None:
            self._fix.serve(now_ns)
        if self._link is None and now_ns >= self._try_ns:
            self._connect(now_ns)
        if self._link is not None:
            self._serve(self._link, now_ns)
        words[r.WAKE_NS] = self._wake_ns(now_ns)
        if self._fix is not None:
            words[r.WAKE_NS] = min(words[r.WAKE_NS], self._fix.wake_ns(now_ns))

    def close(self) -> None:
        """End in order: a FIX session is to be logged out."""
        if self._fix is not None:
            self._fix.close()
        if self._link is not None:
            self._link.close("stopped")
        self._resolver.close()

    def _serve(self, link: ApiLink, now_ns: int) -> None:
        words = self._context.words
        if words[v.OUT_END]:
            link.send_bytes(self._context.outbox[words[v.OUT_BEGIN] : words[v.OUT_END]].tobytes())
            words[v.OUT_BEGIN] = words[v.OUT_END] = 0
        words[v.SENDS] = 0
        link.serve(self._context.frames, now_ns, time.time_ns())
        if link.closed is None and link.is_open:
            if self.state == DOWN:
                self._log_on(now_ns)
            self._watch(link, now_ns)
        if link.closed is not None:
            self._lost(link, now_ns)
            return
        words[v.SENDS] = self._context.live.rows[0]["mode"] == r.DIRECT and not link.is_sending

    def _watch(self, link: ApiLink, now_ns: int) -> None:
        """End what is silent or old; look at foreign orders again."""
        received = int(self._context.live.rows[0]["bytes"])
        if received != self._bytes:
            self._bytes, self._bytes_ns = received, now_ns
        overdue = [name for name, due_ns in self._pending.items() if now_ns >= due_ns]
        if overdue:
            link.close(f"no answer in time: {overdue[0]}")
        elif now_ns - self._bytes_ns > SILENT_NS:
            link.close(f"nothing received for {SILENT_NS // S_NS} s")
        elif now_ns >= self._roll_ns or link.is_restarting:
            link.close("the connection is renewed")
        elif self._look_ns and self.state == RECONCILING:
            self._look_again(now_ns)
        elif (self._again and self.state == WAITING) or (
            self.state == TRADING and (self._context.words[v.STRANGE] or not self._trades.look(now_ns))
        ):
            self._reconcile()

    def _wake_ns(self, now_ns: int) -> int:
        link = self._link
        if link is None:
            return max(self._try_ns, now_ns + 1)
        wakes = [self._bytes_ns + SILENT_NS + 1, *self._pending.values()] if link.is_open else []
        wakes += [self._roll_ns] if link.is_open else []
        wakes += [self._look_ns] if self._look_ns and self.state == RECONCILING else []
        wakes += [self._trades.wake_ns()] if self.state == TRADING else []
        deadline = link.deadline_ns(now_ns)
        wakes += [deadline] if deadline else []
        return max(min(wakes, default=now_ns + S_NS), now_ns + 1)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self, now_ns: int) -> None:
        control.hold(self._context.hold, control.RECONCILING)
        self._pace.attempt(now_ns)
        self._attempts += 1
        self._link = ApiLink(
            self._context, self._loop, self._uri, self._config.url, self._resolver, self._tls, now_ns, self._attempts,
            self._take,
        )  # fmt: skip

    def _lost(self, link: ApiLink, now_ns: int) -> None:
        """Let a connection that has ended go: what was on its way has no answer from here on."""
        assert link.closed is not None
        words = self._context.words
        words[v.READY] = words[v.SENDS] = words[v.OUT_BEGIN] = words[v.OUT_END] = words[v.FOREIGN_OPEN] = 0
        control.hold(self._context.hold, control.RECONCILING)
        token_bucket.reconnected(self._context.buckets)
        held = bool(self._opened_ns) and now_ns - self._opened_ns > HELD_NS
        self._try_ns = self._pace.next_ns(now_ns, 0 if held else self._failures)
        self._failures = 1 if held else self._failures + 1
        banned_ns = int(self._context.buckets.words[token_bucket.BANNED_NS]) + CLOCKS_NS - time.time_ns()
        self._try_ns = max(self._try_ns, now_ns + max(banned_ns, link.closed.retry_after_s * S_NS))
        self._log.warning(
            "venue disconnected", reason=link.closed.reason, state=self.state,
            again_in_ms=(self._try_ns - now_ns) // 1_000_000,
        )  # fmt: skip
        self._pending.clear()
        self._standings.clear()
        self._foreign, self._reconciliation, self._link = [], None, None
        self._look_ns = 0
        self._opened_ns = 0
        self._again = False
        self.state = DOWN

    def _log_on(self, now_ns: int) -> None:
        assert self._link is not None
        self._opened_ns = self._bytes_ns = now_ns
        roll_ns = int(self._config.roll_h * 3600 * S_NS)
        self._roll_ns = now_ns + roll_ns - self._random.randint(0, roll_ns // 50)
        self.state = LOGGING_ON
        try:
            request = self._logon("logon", time.time_ns() // 1_000_000)
        except ValueError as error:
            self._link.close(f"no logon: {error}")
            return
        self._pending["logon"] = now_ns + ANSWER_NS
        self._link.send_text(request)

    def _ask(self, name: str, method: str, params: dict[str, Any]) -> None:
        """Send a request of the session itself."""
        assert self._link is not None
        now_ns = time.monotonic_ns()
        self._pending[name] = now_ns + ANSWER_NS
        signed = {} if method.startswith("userDataStream.") else {"timestamp": time.time_ns() // 1_000_000}
        self._link.send_text(orjson.dumps({"id": name, "method": method, "params": params | signed}))

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, payload: bytes) -> bool:
        """Take a message that compiled code left; False while its reports might find no room."""
        context = self._context
        if not ring.claim(context.from_venue, a.REPORTS_MAX):
            return False
        context.words[v.SLOW] += 1
        try:
            rows, count, complaint = decode_slow(payload, context.answers, context.reports, context.notes)
        except Refused as refused:
            self._doubt(f"a message that cannot be read: {refused}", payload)
            return True
        venue_io.hear(context, self._loop, count)
        if complaint:
            self._log.error("answer not understood", problem=complaint)
        noted = [context.notes[at].copy() for at in range(count)]
        if noted and noted[0]["kind"] == a.ANSWER:
            self._on_answer(noted[0], rows, payload)
        elif noted and noted[0]["kind"] in (a.OTHER, a.REVOKED, a.THROTTLED, a.BANNED):
            self._on_own(orjson.loads(payload), payload)
        else:
            venue_io.publish(context, self._loop, 0, rows, False)
        for note in noted:
            self._on_note(note)
        return True

    def _doubt(self, why: str, payload: bytes) -> None:
        """Something may have been said that we do not know: compare everything again."""
        self._log.error("venue not understood", problem=why, text=_shown(payload))
        if self.state == TRADING:
            self._reconcile()
        elif self.state == RECONCILING:
            self._again = True

    def _on_note(self, note: Any) -> None:
        """Take what a note says of the session; limits and balances were taken already."""
        assert self._link is not None
        kind = note["kind"]
        if kind == a.REVOKED:
            self._link.close("the venue has logged the session off")
        elif kind == a.STREAM_ENDED:
            self._link.close("the venue has ended the account's events")
        elif kind == a.SHUTDOWN:
            self._link.is_restarting = True
        elif kind in (a.THROTTLED, a.BANNED):
            word = token_bucket.BANNED_NS if kind == a.BANNED else token_bucket.THROTTLED_NS
            until = int(self._context.buckets.words[word])
            self._log.error("venue refuses requests", banned=kind == a.BANNED, until_ns=until)

    def _on_answer(self, note: Any, rows: int, payload: bytes) -> None:
        """Take the answer to an order's request."""
        context, kind, order_id = self._context, int(note["what"]), int(note["target_id"])
        if note["status"] != 200 and kind not in (m.QUERY, m.TRADES):
            self._log.warning("venue refuses", order=int(note["order_id"]), text=_shown(payload))
        if kind == m.QUERY:
            self._standings.take(order_id, rows)
        elif kind == m.TRADES:
            self._standings.take_trades(order_id, rows, answered=note["status"] == 200)
        else:
            venue_io.publish(context, self._loop, 0, rows, False)

    def _placed(self, standing: Any) -> None:
        if self._reconciliation is not None:
            order_id, venue_order_id = int(standing["order_id"]), int(standing["venue_order_id"])
            self._reconciliation.placed(order_id, int(standing["instrument"]), venue_order_id)
            self._compare()

    def _over_limits(self) -> None:
        if self._reconciliation is not None and self._link is not None:
            self._link.close("over the venue's limits while reconciling")

    def _send_frame(self, frame: bytes) -> None:
        assert self._link is not None
        self._link.send_bytes(frame)

    # ── requests of our own ──────────────────────────────────────────────────────────────────────────────────────

    def _on_own(self, message: dict[str, Any], payload: bytes) -> None:
        """Take the answer to a request of the session itself."""
        assert self._link is not None
        name = message.get("id")
        if not isinstance(name, str) or self._pending.pop(name, None) is None:
            return
        if name.startswith("look "):
            self._look_at(name, message)
            return
        if name.startswith("cancel "):
            if message["status"] == 200:
                self._look_ns = 1  # see what is open now
            return
        reconciliation = self._reconciliation
        if message["status"] != 200:
            error = message.get("error")
            code = error.get("code") if type(error) is dict else None
            if reconciliation is not None and reconciliation.refused(name, code):
                self._compare()
            else:
                self._link.close(f"{name} refused: {_shown(payload)}")
        elif name == "logon":
            self.state = FOLLOWING
            self._ask("follow", "userDataStream.subscribe", {})
        elif name == "follow":
            self._context.words[v.READY] = 1
            self._reconcile()
        elif reconciliation is not None:
            self._take_result(reconciliation, name, message.get("result"))

    # ── reconciliation ───────────────────────────────────────────────────────────────────────────────────────────

    def _reconcile(self) -> None:
        control.hold(self._context.hold, control.RECONCILING)
        self.state, self._again = RECONCILING, False
        self._context.words[v.STRANGE] = self._look_ns = 0
        self._context.words[v.LEFT] = int((self._context.unsettled["order_id"] != 0).sum())
        self._reconciliation = Reconciliation(
            self._context,
            self._orders,
            self._ask,
            self._standings.ask,
            self._trades,
            time_of(self._loop, 0),
        )
        self._pending[COMPARISON] = time.monotonic_ns() + ANSWER_NS
        self._reconciliation.begin()

    def _take_result(self, reconciliation: Reconciliation, name: str, result: Any) -> None:
        assert self._link is not None
        try:
            rows = reconciliation.take(name, result)
        except Refused as refused:
            self._link.close(f"{name} cannot be read: {refused}")
            return
        venue_io.publish(self._context, self._loop, 0, rows, True)
        reconciliation.went_on(name)
        self._compare()

    def _look_at(self, name: str, message: dict[str, Any]) -> None:
        """Take the trades asked for while orders pass; one refused is looked at again later."""
        row, result = self._trades.row_of(name), message.get("result")
        try:
            whole = message["status"] != 200 or self._trades.is_whole(row, result)
            rows = self._trades.take(row, result, self._orders.owner) if whole and result is not None else 0
        except Refused as refused:
            self._doubt(f"trades that cannot be read: {refused}", b"")
            return
        venue_io.publish(self._context, self._loop, 0, rows, False)
        if not whole and self.state == TRADING:
            self._log.warning("a fill was not told", symbol=name.removeprefix("look "))
            self._reconcile()

    def _compare(self) -> None:
        """Let new orders pass if both sides agree."""
        reconciliation, words = self._reconciliation, self._context.words
        if reconciliation is None:
            return
        if not reconciliation.is_answered:
            if reconciliation.has_moved():
                self._pending[COMPARISON] = time.monotonic_ns() + ANSWER_NS
            return
        self._reconciliation = None
        del self._pending[COMPARISON]
        self._settle(reconciliation.settled())
        foreign, expected = reconciliation.open_orders, reconciliation.expected
        if foreign and foreign != self._foreign:
            self._log.warning(
                "held: open orders that are not this run's",
                orders=[f"{one.symbol} {one.venue_order_id} {one.name}" for one in foreign],
                fix="ours, left behind or refused, are cancelled; others: shrivenq kill cancel, or at the venue",
            )
        self._foreign = foreign
        words[v.FOREIGN_OPEN] = len(foreign)
        if foreign or expected or words[v.LEFT]:
            over_ns = min(expected, default=0) + ABSENCE_MS * 1_000_000 - time_of(self._loop, 0)
            self._look_ns = time.monotonic_ns() + max(0, min(LOOK_AGAIN_NS, over_ns) if expected else LOOK_AGAIN_NS)
            if expected:
                self._log.info("held: orders of an earlier run may yet arrive at the venue", orders=len(expected))
            self._cancel_foreign()
            return
        if not self._is_whole():
            return
        self.state = TRADING
        self._trades.begin(time.monotonic_ns())
        self._failures = 0
        control.unhold(self._context.hold, control.RECONCILING)
        self._log.info(
            "venue reconciled", url=self._config.url, adopted_fills=reconciliation.adopted_fills,
            balances=self._said_balances(),
        )  # fmt: skip

    # ── order entry by FIX ───────────────────────────────────────────────────────────────────────────────────────

    def _fix_changed(self) -> None:
        """Take note that the FIX session came up, or was lost: what was on its way then has to be asked for."""
        assert self._fix is not None
        if not self._fix.is_up:
            self.state = WAITING if self.state == TRADING else self.state
        elif self.state in (WAITING, RECONCILING):
            self._again = True

    def _is_whole(self) -> bool:
        """Tell whether both sides agree on everything that went by FIX too."""
        if self._again:
            self._reconcile()
            return False
        if self._fix is not None and not self._fix.is_up:
            self.state = WAITING
            return False
        return True

    def _settle(self, over: list[Any]) -> None:
        """Have the journal hold that these orders of earlier runs are over; their fills are told."""
        context = self._context
        for one in over:
            if not ring.claim(context.from_venue, 1):
                return  # told after the next comparison
            put_row(context.reports, 0, m.OVER, one["order_id"], 0, one["instrument"], 0)
            context.reports[0]["venue_order_id"] = one["venue_order_id"]
            venue_io.publish(context, self._loop, 0, 1, True)
            context.unsettled[context.unsettled["order_id"] == one["order_id"]] = 0
            context.words[v.LEFT] -= 1

    def _look_again(self, now_ns: int) -> None:
        """Cancel, if a person has asked for it, and look again, at once if an order has come that is not ours."""
        words = self._context.words
        level = control.kill_level(self._context.kill)
        if level >= control.CANCEL and words[v.ASKED_LEVEL] < level:
            self._cancel_foreign()
        words[v.ASKED_LEVEL] = level
        if self._reconciliation is None and (now_ns >= self._look_ns or words[v.STRANGE]):
            self._reconcile()

    def _cancel_foreign(self) -> None:
        """Cancel what an earlier run left behind, and at kill level `cancel` every other order too."""
        everything = control.kill_level(self._context.kill) >= control.CANCEL
        for one in self._foreign:
            if one.left_behind or everything:
                name = f"cancel {one.symbol} {one.venue_order_id}"
                self._ask(name, "order.cancel", {"symbol": one.symbol, "orderId": one.venue_order_id})

    def _said_balances(self) -> dict[str, int]:
        context = self._context
        codes = [row["code"].decode() for row in context.answers.currencies]
        return {code: int(sum(pair)) for code, pair in zip(codes, context.balances.tolist(), strict=True)}


def _shown(payload: bytes) -> str:
    return payload[:SHOWN].decode("utf-8", "replace")
