"""Paper venue: fill feed and ORDER → REPORT, behind the port a real venue has.

Keeps its own book from the feed, by `book`'s own rules, and our orders beside it (`fill_model`). Stop orders wait for
the market's last trade (`venue_stops`); our orders trade with each other never (`venue_prevention`). An order acts one
latency after it was sent, on the market of that moment; what is said about it arrives one latency later. Everything
that is to happen waits in two queues, orders on their way in and reports on their way out, each in order of time.

Live, what is due goes by the clock. In lock-step replay the conductor decides: NEXT_DUE_NS says when something is due,
and a grant serves orders on their way in up to its time, but one report only, so that what follows from each report is
over before the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.atomics import load_acquire, store_release, store_word
from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import book
from shrivenq.stages import book_sync as depth
from shrivenq.stages import fill_model as model
from shrivenq.stages import messages as m
from shrivenq.stages import venue_market as market_of
from shrivenq.stages.conductor import DONE, GRANTED_NS, GRANTS, NEVER, NEXT_DUE_NS
from shrivenq.stages.control import CANCEL, kill_level
from shrivenq.stages.order_book import ASK, BID, quantity_at
from shrivenq.stages.stage import (
    FAULT_RING_FULL,
    FAULT_SEQUENCE,
    VIRTUAL,
    Setup,
    Stage,
    fault,
    time_of,
    turn,
)
from shrivenq.stages.venue_market import Market
from shrivenq.stages.venue_orders import act, cancel_all, is_live, trigger
from shrivenq.stages.venue_stops import note_price

BATCH = 1024
"""Feed records, and things due, taken in one step."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[paper_venue]`: how it fills, and how far away it is."""

    model: str = "queue"
    """One of `fill_model.MODELS`."""
    order_latency_us: int
    """From the gateway to the venue."""
    report_latency_us: int
    """From the venue to the gateway."""

    def __post_init__(self) -> None:
        """Refuse what no venue can have."""
        if self.model not in model.MODELS:
            raise ValueError(f"model is one of {', '.join(model.MODELS)}, not {self.model!r}")
        for name in ("order_latency_us", "report_latency_us"):
            if not 0 <= getattr(self, name) <= 60_000_000:
                raise ValueError(f"{name} is 0 to 60,000,000, not {getattr(self, name)}")


# Words of the context.
ORDER_LATENCY_NS = 0
ARRIVALS_HEAD, ARRIVALS_TAIL = 1, 2
LAST_ARRIVAL_NS = 3
KILLED = 4  # kill level acted on
FEED_GAPS = 5
WORDS = 8


@by_reference
class PaperVenue(NamedTuple):
    """Context of the stage."""

    fill_feed: Any
    to_venue: Any
    from_venue: Any
    market: Market
    sync: Any  # a `book.Book` without rings: what keeps the venue's book
    arrivals: Any  # ORDER, a ring; `time_ns` is when each acts
    venue: Any  # words shared with the conductor
    kill: Any
    words: Any


# ── the market ───────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _level(context: Any, tick: Any, slot: int) -> None:
    """Take one level of a depth event."""
    market, sync = context.market, context.sync
    record = tick[slot]
    i = sync.words[depth.INSTRUMENT]
    if sync.words[depth.KIND] == m.DIFF and sync.words[depth.ACTION] == depth.APPLY:
        side = ASK if record["flags"] & m.SIDE_ASK != 0 else BID
        price = record["price"]
        if model.rests_at(market, i, side, price):
            previous = quantity_at(market.books, i, side, price)
            model.on_level(market, i, side, price, previous, record["quantity"])
    depth.level(sync, record)


@inlined
def _end(context: Any, time_ns: int) -> None:
    """Finish an event: orders the book has crossed are filled."""
    market, sync = context.market, context.sync
    kind, i = sync.words[depth.KIND], sync.words[depth.INSTRUMENT]
    if (kind not in (m.SNAPSHOT, m.DIFF)) or i < 0 or i >= market.instruments.shape[0]:
        sync.words[depth.KIND] = 0
        return
    before = sync.state[i]["snapshots"]
    depth.close_depth(sync, i)
    sync.words[depth.KIND] = 0
    if is_live(context, i):
        if sync.state[i]["snapshots"] != before:
            model.requeue(market, i)
        model.on_event_end(market, i, time_ns)
        trigger(context, i, time_ns)


@inlined
def on_tick(context: Any, tick: Any, slot: int) -> None:
    """Let one record of the feed, `tick[slot]`, act on the venue's book and on our resting orders."""
    market, sync = context.market, context.sync
    kind = tick[slot]["kind"]
    if tick[slot]["flags"] & m.GAP != 0:
        context.words[FEED_GAPS] += 1
    if tick[slot]["flags"] & m.GAP != 0 or kind == m.LOST:
        only = tick[slot]["instrument"] if kind == m.LOST and tick[slot]["flags"] & m.GAP == 0 else -1
        for i in range(market.instruments.shape[0]):
            if only < 0 or only == i:
                depth.lose(sync, i)
    if kind == m.LEVEL:
        _level(context, tick, slot)
    elif kind == m.END:
        _end(context, tick[slot]["time_ns"])
    elif kind in (m.SNAPSHOT, m.DIFF):
        depth.open_event(sync, tick[slot])
    else:
        sync.words[depth.KIND] = kind
        instrument: Any = np.int64(tick[slot]["instrument"])
        if kind == m.TRADE and 0 <= instrument < market.instruments.shape[0]:
            seller_aggressed = tick[slot]["flags"] & m.SELLER_AGGRESSED != 0
            price, quantity = tick[slot]["price"], tick[slot]["quantity"]
            model.on_trade(market, instrument, price, quantity, seller_aggressed, tick[slot]["time_ns"])
            note_price(market, instrument, price)
            trigger(context, instrument, tick[slot]["time_ns"])


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def submit(context: Any, orders: Any, slot: int, time_ns: int) -> bool:
    """Put `orders[slot]`, sent at `time_ns`, on its way in; False if too many are."""
    words, arrivals = context.words, context.arrivals
    if words[ARRIVALS_TAIL] - words[ARRIVALS_HEAD] == arrivals.shape[0]:
        return False
    at = words[ARRIVALS_TAIL] & (arrivals.shape[0] - 1)
    arrivals[at] = orders[slot]
    words[LAST_ARRIVAL_NS] = max(words[LAST_ARRIVAL_NS], time_ns + words[ORDER_LATENCY_NS])
    arrivals[at]["time_ns"] = words[LAST_ARRIVAL_NS]
    words[ARRIVALS_TAIL] += 1
    return True


@inlined
def next_arrival(context: Any) -> int:
    """Tell when the next order on its way in acts."""
    words = context.words
    if words[ARRIVALS_HEAD] == words[ARRIVALS_TAIL]:
        return NEVER
    return context.arrivals[words[ARRIVALS_HEAD] & (context.arrivals.shape[0] - 1)]["time_ns"]


@inlined
def next_report(context: Any) -> int:
    """Tell when the next report on its way out arrives."""
    words, reports = context.market.words, context.market.reports
    if words[market_of.REPORTS_HEAD] == words[market_of.REPORTS_TAIL]:
        return NEVER
    return reports[words[market_of.REPORTS_HEAD] & (reports.shape[0] - 1)]["time_ns"]


@inlined
def next_due(context: Any) -> int:
    """Tell when the next thing happens here by itself."""
    return min(next_arrival(context), next_report(context))


@inlined
def has_room(context: Any, loop: Any) -> bool:
    """Check that whatever one input may cause can be reported; if not, the stage stops."""
    market = context.market
    if market_of.report_room(market) < market.words[market_of.OPEN_COUNT] + market_of.LEVELS_MAX + 64:
        fault(loop, FAULT_RING_FULL, market_of.report_room(market))
        return False
    return True


@kernel
def _act_next(context: Any) -> None:
    words = context.words
    act(context, words[ARRIVALS_HEAD] & (context.arrivals.shape[0] - 1))
    words[ARRIVALS_HEAD] += 1


@inlined
def _emit(context: Any, loop: Any) -> bool:
    """Hand the next report to the gateway; False if its ring is full."""
    out, reports = context.from_venue, context.market.reports
    if not ring.claim(out, 1):
        return False
    head = context.market.words[market_of.REPORTS_HEAD]
    position = out.own[ring.NEXT]
    slot = ring.next_slot(out)
    out.slots[slot] = reports[head & (reports.shape[0] - 1)]
    out.slots[slot]["sequence"] = position
    out.slots[slot]["time_ns"] = time_of(loop, out.slots[slot]["time_ns"])
    context.market.words[market_of.REPORTS_HEAD] = head + 1
    return True


@inlined
def _serve(context: Any, loop: Any, until_ns: int, reports: int) -> int:
    """Do what is due by `until_ns`, in order of time, until `reports` reports are out; return the number of things."""
    work = 0
    while reports > 0 and work < BATCH and has_room(context, loop):
        arrival_ns, report_ns = next_arrival(context), next_report(context)
        if min(arrival_ns, report_ns) > until_ns:
            break
        if arrival_ns <= report_ns:
            _act_next(context)
        elif _emit(context, loop):
            reports -= 1
        else:
            break
        work += 1
    ring.publish(context.from_venue)
    return work


@inlined
def _serve_grant(context: Any, loop: Any) -> int:
    """Serve the conductor's grant, if there is a new one."""
    venue = context.venue
    grants = load_acquire(venue, GRANTS)
    if venue[DONE] == grants:
        return 0
    work = _serve(context, loop, venue[GRANTED_NS], 1)
    store_release(venue, NEXT_DUE_NS, next_due(context))
    store_release(venue, DONE, grants)
    return work + 1


# ── the stage ────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _take_feed(context: Any, loop: Any) -> int:
    """Take what waits on `fill_feed`."""
    feed = context.fill_feed
    waiting = min(ring.available(feed), BATCH)
    taken = 0
    while taken < waiting:
        slot = ring.slot_at(feed, taken)
        # A level by itself fills nobody.
        if feed.slots[slot]["kind"] != m.LEVEL and not has_room(context, loop):
            break
        if feed.slots[slot]["sequence"] != feed.own[ring.TAIL] + taken:
            fault(loop, FAULT_SEQUENCE, feed.own[ring.TAIL] + taken)
            break
        on_tick(context, feed.slots, slot)
        taken += 1
    if taken > 0:
        store_release(context.venue, NEXT_DUE_NS, next_due(context))
        ring.release(feed, taken)
    return taken


@inlined
def _take_orders(context: Any, loop: Any) -> int:
    """Take what waits on `to_venue`."""
    source = context.to_venue
    waiting = min(ring.available(source), BATCH)
    taken = 0
    while taken < waiting:
        slot = ring.slot_at(source, taken)
        if source.slots[slot]["sequence"] != source.own[ring.TAIL] + taken:
            fault(loop, FAULT_SEQUENCE, source.own[ring.TAIL] + taken)
            break
        if not submit(context, source.slots, slot, time_of(loop, source.slots[slot]["time_ns"])):
            break
        taken += 1
    if taken > 0:
        store_release(context.venue, NEXT_DUE_NS, next_due(context))
        ring.release(source, taken)
    return taken


@inlined
def step(context: Any, loop: Any) -> int:
    """Take the market, then orders, then do what is due; return the number of things done."""
    work = _take_feed(context, loop) + _take_orders(context, loop)
    if loop[VIRTUAL] != 0:
        return work + _serve_grant(context, loop)
    now = time_of(loop, 0)
    level = kill_level(context.kill)
    if level != context.words[KILLED] and has_room(context, loop):
        context.words[KILLED] = level
        if level >= CANCEL:
            cancel_all(context, now)
    return work + _serve(context, loop, now, BATCH)


@kernel
def run(context: Any, loop: Any) -> None:
    """Repeat `step` until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


def build(setup: Setup) -> PaperVenue:
    """Allocate the venue's books, orders and queues."""
    config: Config = setup.config
    words = np.zeros(WORDS, np.int64)
    words[ORDER_LATENCY_NS] = config.order_latency_us * 1000
    nowhere = dict.fromkeys(("book", "touch", "fill_feed"))
    sync = book.build(
        Setup(
            config=book.Config(),
            instruments=setup.instruments,
            currencies=setup.currencies,
            producers=nowhere,  # type: ignore[arg-type]
            consumers={"tick": None},  # type: ignore[dict-item]
            loop=setup.loop,
        )
    )
    store_word(setup.shared["venue"], NEXT_DUE_NS, NEVER)
    return PaperVenue(
        fill_feed=setup.consumers["fill_feed"],
        to_venue=setup.consumers["to_venue"],
        from_venue=setup.producers["from_venue"],
        market=market_of.make_market(
            setup.instruments, setup.currencies, sync.books, model.MODELS[config.model], config.report_latency_us * 1000
        ),
        sync=sync,
        arrivals=np.zeros(1 << 14, m.ORDER),
        venue=setup.shared["venue"],
        kill=setup.shared["kill"],
        words=words,
    )


STAGE = Stage(
    name="paper_venue",
    reads=("fill_feed", "to_venue"),
    writes=("from_venue",),
    build=build,
    step=step,
    run=run,
)
