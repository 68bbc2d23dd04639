"""The session with the venue: Python's edge of the live venue, between turns.

    (none) ──connect──▶ LOGGING_ON ──▶ FOLLOWING ──▶ RECONCILING ──agrees──▶ TRADING
       ▲   time, session.logon ┘           │             └ orders may be cancelled, new ones are held
       └── close, error, silence, revoked ─┴ limits, userDataStream.subscribe

Requests are within the venue's limits (`asking`), bear its time (`venue_clock`), and wait while it wants none. Nothing
is sent twice: what was on its way when a connection ended is unknown until the gateway's questions are answered.
There is no replay of missed events, so every new session is reconciled before new orders pass. Where orders go by FIX
(`fix_session`), that session counts as well: WAITING is reconciled and without it.
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
from shrivenq.stages.live.asking import ANSWER_NS, S_NS, Asking
from shrivenq.stages.live.fix_session import FixSession
from shrivenq.stages.live.foreign import Foreign
from shrivenq.stages.live.funds import Funds
from shrivenq.stages.live.opening import KEY_AGAIN_NS, Opening
from shrivenq.stages.live.pace import Pace
from shrivenq.stages.live.reconcile import Orders, Reconciliation
from shrivenq.stages.live.standing import Standings
from shrivenq.stages.live.trades import Trades
from shrivenq.stages.live.transport import Resolver, TransportError, make_tls_context
from shrivenq.stages.live.venue_clock import VenueClock
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_reports_slow import Refused, decode_slow

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

COMPARISON = "reconciliation"
"""Name of the wait, as long as for any answer, for the next of everything asked."""
SILENT_NS = 65 * S_NS
"""A connection without a byte for this long is dead: the venue pings every 20 s."""
CLOCKS_NS = S_NS
"""Longer than a ban says: its end is told in milliseconds of the venue's clock, and who is early is sent away."""
HELD_NS = 60 * S_NS
"""A session that lasted this long starts the back-off anew."""
CLOCK_LOOK_NS = 60 * S_NS
"""Between two looks at a clock of ours that is wrong."""
TIMESTAMP = -1021
LIMITED = (418, 429)
LAG_NS = S_NS // 2
"""Until the venue's lists are compared again that did not agree with each other."""
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
        self._orders = orders
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
        self._clock = VenueClock(context, loop)
        self._asking = Asking(context, self._clock, self._send_text, log)
        self._opening = Opening(context, self._clock, self._asking, logon, self._send_text, self._close, log)
        self._foreign = Foreign(context, loop, self._asking.ask, log)
        self._funds = Funds(context, loop, log)
        self._look_ns = 0
        self._reconciliation: Reconciliation | None = None
        self._trades = Trades(context, self._asking.ask)
        self._standings = Standings(
            context, loop, orders, self._asking.ask_by, self._send_bytes, self._placed, self._unsaid, log
        )
        self._fix: FixSession | None = None
        self._again = False  # FIX came up, or nonsense, while a comparison was running: another has to follow
        self.state = DOWN
        venue_io.load(context, loop)
        if fix is not None:
            epoch, fix_logon = fix
            self._fix = FixSession(
                config, context, loop, epoch, fix_logon, self._resolver, self._random, self._fix_changed, log
            )

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
        self._asking.serve()
        if self._asking.is_waiting and self._reconciliation is not None:
            self._asking.pending[COMPARISON] = now_ns + ANSWER_NS
        overdue = [name for name, due_ns in self._asking.pending.items() if now_ns >= due_ns]
        if overdue:
            link.close(f"no answer in time: {overdue[0]}")
        elif now_ns - self._bytes_ns > SILENT_NS:
            link.close(f"nothing received for {SILENT_NS // S_NS} s")
        elif now_ns >= self._roll_ns or link.is_restarting:
            link.close("the connection is renewed")
        elif self.state == RECONCILING:
            self._look_again(now_ns)
        elif (self._again and self.state == WAITING) or (
            self.state == TRADING and (self._context.words[v.STRANGE] or not self._trades.look(now_ns))
        ):
            self._reconcile()
        elif self.state == TRADING and now_ns >= self._clock.due_ns:
            self._ask_time()

    def _wake_ns(self, now_ns: int) -> int:
        link = self._link
        if link is None:
            return max(self._try_ns, now_ns + 1)
        wakes = [self._bytes_ns + SILENT_NS + 1, *self._asking.wakes(now_ns)] if link.is_open else []
        wakes += [self._roll_ns] if link.is_open else []
        wakes += [self._look_ns] if self._look_ns and self.state == RECONCILING else []
        wakes += [self._trades.wake_ns(), self._clock.due_ns] if self.state == TRADING else []
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
        words[v.READY] = words[v.SENDS] = words[v.OUT_BEGIN] = words[v.OUT_END] = 0
        control.hold(self._context.hold, control.RECONCILING)
        token_bucket.reconnected(self._context.buckets)
        held = bool(self._opened_ns) and now_ns - self._opened_ns > HELD_NS
        self._try_ns = self._pace.next_ns(now_ns, 0 if held else self._failures)
        self._failures = 1 if held else self._failures + 1
        buckets = self._context.buckets.words
        until_ns = int(max(buckets[token_bucket.BANNED_NS], buckets[token_bucket.THROTTLED_NS]))
        limited_ns = until_ns + CLOCKS_NS - self._clock.now_ns()
        refused_ns = KEY_AGAIN_NS if self._opening.is_refused else 0
        self._try_ns = max(self._try_ns, now_ns + max(limited_ns, refused_ns, link.closed.retry_after_s * S_NS))
        self._log.warning(
            "venue disconnected", reason=link.closed.reason, state=self.state,
            again_in_ms=(self._try_ns - now_ns) // 1_000_000,
        )  # fmt: skip
        self._asking.clear()
        self._standings.clear()
        self._foreign.clear()
        self._funds.clear()
        self._reconciliation = self._link = None
        self._look_ns = self._opened_ns = 0
        self._again = self._opening.is_refused = False
        self.state = DOWN

    def _log_on(self, now_ns: int) -> None:
        self._opened_ns = self._bytes_ns = now_ns
        roll_ns = int(self._config.roll_h * 3600 * S_NS)
        self._roll_ns = now_ns + roll_ns - self._random.randint(0, roll_ns // 50)
        self.state = LOGGING_ON
        self._ask_time()

    def _ask_time(self) -> None:
        self._asking.ask("time", "time", {})

    def _send_text(self, payload: bytes) -> None:
        assert self._link is not None
        self._link.send_text(payload)

    def _send_bytes(self, frame: bytes) -> None:
        assert self._link is not None
        self._link.send_bytes(frame)

    def _close(self, reason: str) -> None:
        assert self._link is not None
        self._link.close(reason)

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
        kind = note["kind"]
        if kind == a.REVOKED:
            self._close("the venue has logged the session off")
        elif kind == a.STREAM_ENDED:
            self._close("the venue has ended the account's events")
        elif kind == a.SHUTDOWN:
            self._roll_ns = 0  # it is about to cut the connection
        elif kind == a.THROTTLED:
            self._asking.say_limited()
        elif kind == a.MOVED:
            self._funds.move(note)
        elif kind == a.BANNED:
            self._asking.say_banned()
            if self.state == TRADING:
                self._reconcile()

    def _on_answer(self, note: Any, rows: int, payload: bytes) -> None:
        """Take the answer to an order's request."""
        context, kind, order_id = self._context, int(note["what"]), int(note["target_id"])
        if note["status"] != 200 and kind not in (m.QUERY, m.TRADES):
            self._log.warning("venue refuses", order=int(note["order_id"]), text=_shown(payload))
        if note["code"] == TIMESTAMP:
            self._log.error("the venue refuses our time: held, and measured again", **self._clock.said())
            if self.state == TRADING or self._look_ns:
                self._reconcile()
            else:
                self._ask_time()
        if kind == m.QUERY:
            self._standings.take(order_id, rows)
        elif kind == m.TRADES:
            self._standings.take_trades(order_id, rows, answered=note["status"] == 200)
        else:
            venue_io.publish(context, self._loop, 0, rows, False)

    def _placed(self, standing: Any) -> None:
        if self._reconciliation is not None:
            order_id, venue_order_id = int(standing["order_id"]), int(standing["venue_order_id"])
            is_open = bool(standing["kind"] == m.ACCEPTED and standing["leaves"] > 0)
            self._reconciliation.placed(order_id, int(standing["instrument"]), venue_order_id, is_open=is_open)
            self._compare()

    def _unsaid(self, order_id: int) -> None:
        """Take note that the venue could not say where an order stands: both sides agree only once it has."""
        reconciliation = self._reconciliation
        if reconciliation is not None and not reconciliation.unsaid(order_id):
            self._close(f"the venue does not say where order {order_id} stands")
        self._compare()

    # ── requests of our own ──────────────────────────────────────────────────────────────────────────────────────

    def _on_own(self, message: dict[str, Any], payload: bytes) -> None:
        """Take the answer to a request of the session itself."""
        name = message.get("id")
        if not self._asking.take(name):
            return
        if message["status"] in LIMITED and name != "logon":
            self._asking.again(name)
            return
        if name.startswith("look "):
            self._look_at(name, message)
            return
        if name.startswith("cancel "):
            self._look_ns = 1 if message["status"] == 200 else self._look_ns  # see what is open now
            return
        if name == "time" and message["status"] != 200 and self.state == TRADING:
            return  # it is measured again
        reconciliation = self._reconciliation
        if message["status"] != 200:
            error = message.get("error")
            code = error.get("code") if type(error) is dict else None
            if name == "logon":
                self._opening.refused(message["status"], code, _shown(payload))
            if reconciliation is not None and reconciliation.refused(name, code):
                self._compare()
            else:
                self._close(f"{name} refused: {_shown(payload)}")
        elif name == "time":
            self._on_time(message.get("result"))
        elif name == "logon":
            self.state = FOLLOWING
            self._opening.ask_limits()
        elif name == "limits":
            self._opening.take_limits(message.get("result"))
        elif name == "follow":
            self._context.words[v.READY] = 1
            self._reconcile()
        elif reconciliation is not None:
            self._take_result(reconciliation, name, message.get("result"))

    def _on_time(self, result: Any) -> None:
        """Take the venue's time: what waited for it goes on."""
        try:
            self._clock.take(result)
        except Refused as refused:
            self._close(f"time cannot be read: {refused}")
            return
        if self.state == LOGGING_ON:
            self._opening.log_on()
        elif self.state == RECONCILING and self._reconciliation is None:
            self._begin()

    # ── reconciliation ───────────────────────────────────────────────────────────────────────────────────────────

    def _reconcile(self) -> None:
        control.hold(self._context.hold, control.RECONCILING)
        self.state, self._again = RECONCILING, False
        self._context.words[v.STRANGE] = self._look_ns = 0
        self._reconciliation = None
        self._asking.pending.pop(COMPARISON, None)
        self._ask_time()

    def _begin(self) -> None:
        """Compare, now that it is known what time it is."""
        self._context.words[v.LEFT] = int((self._context.unsettled["order_id"] != 0).sum())
        self._reconciliation = Reconciliation(
            self._context, self._orders, self._asking.ask, self._standings.ask, self._trades, time_of(self._loop, 0)
        )
        self._asking.pending[COMPARISON] = time.monotonic_ns() + ANSWER_NS
        self._reconciliation.begin()

    def _take_result(self, reconciliation: Reconciliation, name: str, result: Any) -> None:
        try:
            rows = reconciliation.take(name, result)
        except Refused as refused:
            self._close(f"{name} cannot be read: {refused}")
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
        reconciliation = self._reconciliation
        if reconciliation is None:
            return
        if not reconciliation.is_answered:
            if reconciliation.has_moved():
                self._asking.pending[COMPARISON] = time.monotonic_ns() + ANSWER_NS
            return
        self._reconciliation = None
        del self._asking.pending[COMPARISON]
        wait_ns = self._foreign.take(reconciliation)
        if wait_ns:
            self._look_ns = time.monotonic_ns() + wait_ns
            return
        if not self._is_whole(reconciliation):
            return
        self.state = TRADING
        self._trades.begin(time.monotonic_ns())
        self._failures = 0
        control.unhold(self._context.hold, control.RECONCILING)
        self._log.info(
            "venue reconciled", url=self._config.url, adopted_fills=reconciliation.adopted_fills,
            balances=reconciliation.balances(),
        )  # fmt: skip

    # ── order entry by FIX ───────────────────────────────────────────────────────────────────────────────────────

    def _fix_changed(self) -> None:
        """Take note that the FIX session came up, or was lost: what was on its way then has to be asked for."""
        assert self._fix is not None
        if not self._fix.is_up:
            self.state = WAITING if self.state == TRADING else self.state
        elif self.state in (WAITING, RECONCILING):
            self._again = True

    def _is_whole(self, reconciliation: Reconciliation) -> bool:
        """Tell whether both sides agree on everything that went by FIX too, and on the time."""
        if self._again:
            self._reconcile()
            return False
        if reconciliation.unlisted:
            self._log.info("held: the venue's list of open orders lags", orders=len(reconciliation.unlisted))
            self._look_ns = time.monotonic_ns() + LAG_NS
            return False
        if not self._funds.agree(time.monotonic_ns()):
            self._look_ns = time.monotonic_ns() + LAG_NS
            return False
        if self._clock.is_wrong:
            self._log.error("held: our clock is wrong", **self._clock.said(), fix="set it (NTP), then restart")
            self._look_ns = time.monotonic_ns() + CLOCK_LOOK_NS
            return False
        if self._fix is not None and not self._fix.is_up:
            self.state = WAITING
            return False
        return True

    def _look_again(self, now_ns: int) -> None:
        """Cancel, if a person has asked for it, and look again, at once if an order has come that is not ours."""
        self._foreign.look()
        is_due = now_ns >= self._look_ns or self._context.words[v.STRANGE]
        if self._look_ns and self._reconciliation is None and is_due:
            self._reconcile()


def _shown(payload: bytes) -> str:
    return payload[:SHOWN].decode("utf-8", "replace")
