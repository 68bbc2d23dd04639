"""The session with the venue: Python's edge of the live venue, between turns.

    DOWN ──an opening is ready──▶ RECONCILING ──agrees──▶ TRADING ◀─┐ another opening is ready: it
      ▲                               └ orders may be cancelled,  └──┘ takes over, and nothing is held
      └── close, error, silence, revoked            new ones are held

Connections come and go (`renewal`): where one takes over from another orders go on; where there was none, both sides
are compared first.

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

from shrivenq.shm import ring
from shrivenq.shm.atomics import load_word
from shrivenq.stages import control, token_bucket
from shrivenq.stages import messages as m
from shrivenq.stages.live import away, venue_io
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.live.asking import ANSWER_NS, S_NS, Asking, shown
from shrivenq.stages.live.fix_renewal import FixSessions
from shrivenq.stages.live.fix_session import Endpoint
from shrivenq.stages.live.foreign import Foreign
from shrivenq.stages.live.funds import Funds
from shrivenq.stages.live.opening import LIMITED
from shrivenq.stages.live.reconcile import Orders, Reconciliation
from shrivenq.stages.live.renewal import Connections
from shrivenq.stages.live.standing import Standings
from shrivenq.stages.live.trades import Trades
from shrivenq.stages.live.transport import Resolver
from shrivenq.stages.live.venue_clock import VenueClock
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_reports_slow import Refused, decode_slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.api import ApiLink

COMPARISON = "reconciliation"
"""Name of the wait, as long as for any answer, for the next of everything asked."""
CLOCK_LOOK_NS = 15 * S_NS
"""Between two looks at a clock of ours that is wrong."""
TIMESTAMP = -1021
LAG_NS = S_NS // 2
"""Until the venue's lists are compared again that did not agree with each other."""
DOWN, RECONCILING, TRADING = "down", "reconciling", "trading"
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
        generator, self._resolver = random.Random(seed), Resolver()
        self._clock = VenueClock(context, loop)
        self._connections = Connections(
            config, context, loop, self._clock, logon, self, self._resolver, generator, log
        )  # fmt: skip
        self._asking = Asking(context, self._clock, self._send_text, log)
        self._foreign = Foreign(context, loop, self._asking.ask, log)
        self._funds = Funds(context, loop, log)
        self._look_ns = 0
        self._reconciliation: Reconciliation | None = None
        self._trades = Trades(context, self._asking.ask)
        self._standings = Standings(
            context, loop, orders, self._asking.ask_by, self._send_bytes, self._placed, self._unsaid, log
        )
        self._fix: FixSessions | None = None
        self._again = False  # FIX came up, or nonsense, while a comparison was running: another has to follow
        self.state = DOWN
        venue_io.load(context, loop)
        if fix is not None:
            epoch, fix_logon = fix
            endpoint = Endpoint(config, context.run.tobytes(), epoch, fix_logon, self._resolver, generator)
            self._fix = FixSessions(config, context, loop, endpoint, generator, self._fix_changed, log)

    # ── between turns ────────────────────────────────────────────────────────────────────────────────────────────

    def poll(self) -> None:
        """Look after the connections, if anything asks for it."""
        words, now_ns = self._context.live.words, time.monotonic_ns()
        if not words[r.STARTED] or (not words[r.ATTENTION] and now_ns < words[r.WAKE_NS]):
            return
        words[r.ATTENTION] = 0
        if self._context.words[v.AWAY] != away.seen(self._context.away):
            self._obey(now_ns)
        if self._fix is not None:
            self._fix.serve(now_ns)
        self._connections.serve(now_ns)
        words[r.WAKE_NS] = max(min([*self._wakes(now_ns), *self._connections.wakes(now_ns)]), now_ns + 1)
        if self._fix is not None:
            words[r.WAKE_NS] = min(words[r.WAKE_NS], self._fix.wake_ns(now_ns))

    def close(self) -> None:
        """End in order: a FIX session is to be logged out."""
        if self._fix is not None:
            self._fix.close()
        self._connections.close("stopped")
        self._resolver.close()

    def watch(self, link: ApiLink, now_ns: int) -> None:
        """Ask what is due; end a connection that does not answer; look at foreign orders again."""
        self._asking.serve()
        if self._asking.is_waiting and self._reconciliation is not None:
            self._asking.pending[COMPARISON] = now_ns + ANSWER_NS
        overdue = [name for name, due_ns in self._asking.pending.items() if now_ns >= due_ns]
        if overdue:
            link.close(f"no answer in time: {overdue[0]}")
        elif self.state == RECONCILING:
            self._look_again(now_ns)
        elif (self._again and self.state == WAITING) or (
            self.state == TRADING and (self._context.words[v.STRANGE] or not self._trades.look(now_ns))
        ):
            self._reconcile()
        elif self.state == TRADING and now_ns >= self._clock.due_ns:
            self._ask_time()

    def _wakes(self, now_ns: int) -> list[int]:
        if self._connections.link is None:
            return []
        wakes = self._asking.wakes(now_ns)
        wakes += [self._look_ns] if self._look_ns and self.state == RECONCILING else []
        wakes += [self._trades.wake_ns(), self._clock.due_ns] if self.state == TRADING else []
        return wakes

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def is_idle(self) -> bool:
        """Tell whether no request of the session itself is on its way, or waits."""
        return not self._asking.pending and not self._asking.is_waiting and self._reconciliation is None

    def is_awaiting(self) -> bool:
        """Tell whether the answer to any order is on its way, or not known."""
        return self._orders.awaited()

    def began(self) -> None:
        """Compare: there was no connection."""
        self._reconcile()

    def lost(self) -> str:
        """Forget what was asked; say what the session was doing."""
        state, self.state = self.state, DOWN
        self._asking.clear()
        self._standings.clear()
        self._foreign.clear()
        self._funds.clear()
        self._reconciliation = None
        self._look_ns, self._again = 0, False
        return state

    def _ask_time(self) -> None:
        self._asking.ask("time", "time", {})

    def _send_text(self, payload: bytes) -> None:
        assert self._connections.link is not None
        self._connections.link.send_text(payload)

    def _send_bytes(self, frame: bytes) -> None:
        assert self._connections.link is not None
        self._connections.link.send_bytes(frame)

    def _close(self, reason: str) -> None:
        assert self._connections.link is not None
        self._connections.link.close(reason)

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, payload: bytes, link: ApiLink) -> bool:
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
            opening = self._connections.opening
            if opening is not None and link is opening.link:
                opening.take(orjson.loads(payload), payload)
            else:
                self._on_own(orjson.loads(payload), payload)
        else:
            venue_io.publish(context, self._loop, 0, rows, False)
        for note in noted:
            self._on_note(note, link)
        return True

    def _doubt(self, why: str, payload: bytes) -> None:
        """Something may have been said that we do not know: compare everything again."""
        self._log.error("venue not understood", problem=why, text=shown(payload))
        if self.state == TRADING:
            self._reconcile()
        elif self.state == RECONCILING:
            self._again = True

    def _on_note(self, note: Any, link: ApiLink) -> None:
        """Take what a note says of the session; limits and balances were taken already."""
        kind = note["kind"]
        if kind == a.REVOKED:
            link.close("the venue has logged the session off")
        elif kind == a.STREAM_ENDED:
            link.close("the venue has ended the account's events")
        elif kind == a.SHUTDOWN:
            link.is_restarting = True  # it is about to cut the connection
        elif kind == a.THROTTLED:
            self._asking.say_limited()
            self._warn(away.LIMITED_NS, token_bucket.THROTTLED_NS)
        elif kind == a.MOVED:
            self._funds.move(note)
        elif kind == a.BANNED:
            self._asking.say_banned()
            self._warn(away.BANNED_NS, token_bucket.BANNED_NS)
            if self.state == TRADING:
                self._reconcile()

    def _on_answer(self, note: Any, rows: int, payload: bytes) -> None:
        """Take the answer to an order's request."""
        context, kind, order_id = self._context, int(note["what"]), int(note["target_id"])
        if note["status"] != 200 and kind not in (m.QUERY, m.TRADES):
            self._log.warning("venue refuses", order=int(note["order_id"]), text=shown(payload))
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
        if message["status"] in LIMITED:
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
            if reconciliation is not None and reconciliation.refused(name, code):
                self._compare()
            else:
                self._close(f"{name} refused: {shown(payload)}")
        elif name == "time":
            self._on_time(message.get("result"))
        elif reconciliation is not None:
            self._take_result(reconciliation, name, message.get("result"))

    def _on_time(self, result: Any) -> None:
        """Take the venue's time: what waited for it goes on."""
        try:
            self._clock.take(result, self._asking.time_asked_ns)
        except Refused as refused:
            self._close(f"time cannot be read: {refused}")
            return
        if self.state == RECONCILING and self._reconciliation is None:
            self._begin()

    def _warn(self, word: int, bucket: int) -> None:
        """Tell all that speak to the venue from here what it has told us: until when it wants no requests."""
        ahead_ns = time.time_ns() - self._clock.now_ns()
        away.tell(self._context.away, word, int(self._context.buckets.words[bucket]) + ahead_ns)

    def _obey(self, now_ns: int) -> None:
        """Take what the venue has told others at this address."""
        context, time_ns = self._context, time.time_ns()
        buckets, context.words[v.AWAY] = context.buckets.words, away.seen(context.away)
        pairs = ((away.LIMITED_NS, token_bucket.THROTTLED_NS), (away.BANNED_NS, token_bucket.BANNED_NS))
        for word, bucket in pairs:
            left_ns = int(load_word(context.away, word)) - time_ns
            until_ns = self._clock.now_ns() + left_ns
            if left_ns <= 0 or until_ns < buckets[bucket] + S_NS:
                continue  # over, or what we were told ourselves
            buckets[bucket] = until_ns
            for by in (context.fix, context.other_fix):
                token_bucket.throttle(by.buckets, until_ns)
            self._connections.stay_away(now_ns + left_ns)
            if word == away.LIMITED_NS:
                self._asking.say_limited()
                continue
            self._asking.say_banned()
            if self.state == TRADING:
                self._reconcile()

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
        self._connections.failures = 0
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
            self._clock.check_ours()
            self._log.error("held: our clock is wrong", **self._clock.said(), fix="set it (NTP): it is seen then")
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
