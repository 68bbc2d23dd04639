"""What risk knows: its context, its words, the clock of its day, and the way back to the strategy."""

from __future__ import annotations

from typing import Any, NamedTuple

from shrivenq.shm import board, pool, ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import control, id_map, open_orders
from shrivenq.stages import positions as p
from shrivenq.stages import risk_checks as c
from shrivenq.stages.arrivals import Arrivals

DAY_NS = 86_400_000_000_000

# Words of `Risk.words` (int64).
TIME_NS = 0  # the latest time known, ns since 1970
DAY_END_NS = 1
LAST_ID = 2  # greatest order id decided
REJECTS = 3  # by the venue, and outcomes it could not tell, since the last acceptance
NEWEST = 4  # where the next message's time goes
FORCED_NUMBER = 5
LEVEL = 6  # kill level acted on: read once a step, raised by what risk itself sees
SPARED = 7  # open orders marked so
EPOCH = 8
MESSAGE_MAX = 9
WINDOW_NS = 10
RESERVE = 11
REJECTS_MAX = 12
ADMITTED = 16  # counts
DENIED = 17
FORCED = 18
REPEATED_FILLS = 19
UNKNOWN_REPORTS = 20  # about orders that are not open
BAD_FILLS = 21  # fills that make no sense: not booked
FEEDBACK_LOST = 22
ORDER_FULL = 23  # intents denied for want of room on `order`
HELD = 24  # hold bits acted on: read once a step
LEVEL_READ = 25  # both as they were read, and whether that differs from what was acted on before
HELD_READ = 26
CHANGED = 27
SWEPT_NS = 28  # when a kill last cancelled an order
CHANGES = 29  # of `instrument_hold`, up to which `held` has them
WORDS = 32


@by_reference
class Risk(NamedTuple):
    """Ring ends, tables, limits and state; see the modules each array comes from."""

    touch: ring.Consumer
    report: ring.Consumer
    intent: ring.Consumer
    order: ring.Producer
    feedback: ring.Producer
    instruments: Any
    currencies: Any
    positions: p.Positions
    rows: Any  # risk_checks.ROW per instrument
    totals: Any  # risk_checks.TOTAL per currency
    recent: Any  # risk_checks.RECENT_ORDER, a few per instrument
    times: Any  # int64: times of the last messages
    open: open_orders.OpenOrders
    fills: id_map.Recent
    slots: pool.Pool
    board: board.BoardWriter
    kill: Any
    holds: Any
    instrument_hold: Any
    held: Any  # int64 per instrument: `instrument_hold` as it was read
    words: Any
    arrivals: Arrivals


@kernel
def advance_time(words: Any, totals: Any, positions: p.Positions, time_ns: int) -> None:
    """Note the time, never backwards; at midnight UTC the day's profit begins anew."""
    if time_ns > words[TIME_NS]:
        words[TIME_NS] = time_ns
    if time_ns >= words[DAY_END_NS]:
        words[DAY_END_NS] = (time_ns // DAY_NS + 1) * DAY_NS
        for currency in range(totals.shape[0]):
            totals[currency]["day_start"] = p.profit(positions, currency)


@kernel
def raise_kill(kill: Any, words: Any, level: int) -> None:
    """Kill, and act on it at once."""
    control.raise_kill(kill, level)
    words[LEVEL] = max(words[LEVEL], level)


@inlined
def watch_loss(context: Risk, i: int) -> None:
    """Kill when the day's loss reaches its limit."""
    currency = context.instruments[i]["settle_currency"]
    if c.daily_loss(context.rows, context.totals, context.positions, i, currency) == c.DAILY_LOSS:
        raise_kill(context.kill, context.words, control.CANCEL)


@kernel
def note_message(times: Any, words: Any, now_ns: int) -> None:
    """Count a message that goes out towards the rate."""
    newest = words[NEWEST]
    times[newest] = now_ns
    words[NEWEST] = newest + 1 if newest + 1 < times.shape[0] else 0


@inlined
def next_feedback(feedback: Any, holds: Any, words: Any) -> int:
    """Claim a slot of `feedback`; -1 if the strategy does not read: it is held until it is built anew."""
    if not ring.claim(feedback, 1):
        words[FEEDBACK_LOST] += 1
        control.hold(holds, control.STRATEGY_DEAF)
        words[HELD] |= control.STRATEGY_DEAF
        return -1
    return ring.next_slot(feedback)
