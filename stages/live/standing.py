"""Where orders stand: the venue is asked, and asked for the fills that it counts and we do not know.

What the venue says of an order is told only once its fills are: it might close the order, and a fill must find it.

Source: Binance WebSocket API, order.status and myTrades.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm import ring
from shrivenq.stages import messages as m
from shrivenq.stages.live import venue_io
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.stage import time_of
from shrivenq.stages.venues.binance_orders import ABSENCE_MS, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.stages.live.reconcile import Orders
    from shrivenq.stages.live.venue_state import LiveVenue


class Standings:
    """Asks about orders in the pool.

    `ask_by(name, request, send, after_ns=…)` lets a question wait for the venue's limits; `send` takes a whole frame;
    `placed` is told each answer that says all there is, `unsaid` the order that one left open. An order that the venue
    had accepted and does not know any more means that it is not the venue it was (a testnet is reset now and then):
    that is logged, and the gateway kills.
    """

    def __init__(
        self,
        context: LiveVenue,
        loop: Any,
        orders: Orders,
        ask_by: Callable[..., None],
        send: Callable[[bytes], None],
        placed: Callable[[Any], None],
        unsaid: Callable[[int], None],
        log: Any,
    ) -> None:
        self._context, self._loop, self._orders, self._log = context, loop, orders, log
        self._ask_by, self._send, self._placed, self._unsaid = ask_by, send, placed, unsaid
        self._waiting: dict[int, Any] = {}  # answers, told once the trades they count are known
        # Load the machine code now, and not when it is needed.
        self._encode(0, 0, 0, 0)
        ring.claim(context.from_venue, 1)

    def clear(self) -> None:
        """Forget what was asked: no answer will come."""
        self._waiting.clear()

    def ask(self, slot: int, after_ns: int) -> None:
        """Ask where the order in `slot` stands."""
        self._request(m.QUERY, slot, 0, after_ns)

    def take(self, order_id: int, rows: int) -> None:
        """Take where an order stands, the first of `rows` in `context.reports`; ask for the fills we do not know."""
        standing = self._context.reports[0].copy()
        slot = self._orders.find(order_id)
        if not rows or slot < 0:
            self._placed(standing)
            return
        if standing["kind"] == m.UNKNOWN:
            self._unsaid(order_id)
            return
        if standing["kind"] == m.ABSENT:
            row, was_accepted = self._orders.slots[slot], self._orders.slots["venue_order_id"][slot] != 0
            if time_of(self._loop, 0) - self._sent_ns(slot) < ABSENCE_MS * 1_000_000:
                # The venue may still be about to learn of it; where it knew already, a comparison has to wait for that.
                if was_accepted:
                    self._unsaid(order_id)
                else:
                    self._placed(standing)
                return
            if was_accepted:
                self._log.error(
                    "killed: the venue does not know an order that it had accepted",
                    order=order_id, venue_order=int(row["venue_order_id"]),
                    fix="compare positions with the venue; if it was reset, go on under another name",
                )  # fmt: skip
        if standing["filled"] > self._orders.slots["filled"][slot]:
            self._waiting[order_id] = standing
            self._request(m.TRADES, slot, int(standing["venue_order_id"]))
            return
        self._tell(standing)

    def take_trades(self, order_id: int, rows: int, *, answered: bool) -> None:
        """Take an order's trades, `rows` in `context.reports`, and tell where it stands if they were `answered`."""
        standing = self._waiting.pop(order_id, None)
        if not answered:
            self._unsaid(order_id)
            return
        venue_io.publish(self._context, self._loop, 0, self._leave_out_told(rows), True)
        if standing is not None:
            self._tell(standing)

    def _leave_out_told(self, rows: int) -> int:
        """Leave out of an order's trades those that were looked at: told, maybe longer ago than anybody remembers."""
        reports, anchors = self._context.reports, self._context.anchors
        found = reports[:rows].copy()
        found = found[(found["kind"] != m.FILL) | (found["trade_id"] > anchors[found["instrument"]])]
        reports[: len(found)] = found
        return len(found)

    def _sent_ns(self, slot: int) -> int:
        """Tell when the order was sent, the later of risk's time and its request's; by another process, before us."""
        sent = self._context.sent[slot]
        mine = sent["generation"] == self._orders.generation[slot]
        request_ns = sent["sent_ns"] if mine else self._context.words[v.BEGAN_NS]
        return max(int(self._orders.slots["time_ns"][slot]), int(request_ns))

    def _tell(self, standing: Any) -> None:
        """Report where an order stands; one that is filled was closed by its fills, unless it was amended unheard."""
        slot = self._orders.find(int(standing["order_id"]))
        amended = slot >= 0 and 0 < standing["quantity"] < self._orders.slots["quantity"][slot]
        if standing["kind"] != m.ACCEPTED or standing["leaves"] > 0 or amended:
            self._context.reports[0] = standing
            venue_io.publish(self._context, self._loop, 0, 1, True)
        self._placed(standing)

    def _request(self, kind: int, slot: int, venue_order_id: int, after_ns: int = 0) -> None:
        """Send a QUERY or TRADES about the order in `slot`, once the venue's limits allow."""
        instrument, order_id = (int(self._orders.slots[key][slot]) for key in ("instrument", "order_id"))
        self._ask_by(
            f"{kind} {order_id}",
            kind,
            lambda: self._send(self._encode(kind, instrument, order_id, venue_order_id)),
            after_ns=after_ns,
        )

    def _encode(self, kind: int, instrument: int, order_id: int, venue_order_id: int) -> bytes:
        """Spell a question as a frame; `outbox` may hold one that is not sent whole yet."""
        order = np.zeros(1, m.ORDER)
        order["kind"], order["instrument"] = kind, instrument
        order["order_id"] = order["target_id"] = order_id
        order["venue_order_id"] = venue_order_id
        context = self._context
        frame = context.outbox.copy()
        begin, end = encode_frame(
            order, 0, context.instruments, context.run, venue_io.venue_time(context, self._loop) // 1_000_000,
            context.masks, frame,
        )  # fmt: skip
        return frame[begin:end].tobytes()
