"""Several stages in one loop on one core: the same steps that run in processes of their own elsewhere.

All of them in `fused` placement; in mode live the gateway and its venue in either placement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.shm.atomics import store_release
from shrivenq.shm.kernel import kernel
from shrivenq.stages import book, gateway, live_venue, market_data, paper_venue, risk, signal
from shrivenq.stages.stage import DEADLINE_NS, KILL_SEEN, KILL_SEEN_NS, LOOK_EVERY_NS, NOW_NS, turn

if TYPE_CHECKING:
    from collections.abc import Callable


@kernel
def mirror(loop: Any, pages: Any) -> None:
    """Tell on every page what was told on the first: the heartbeat, and the kill level seen."""
    for page in pages:
        for i in range(DEADLINE_NS):
            page[i] = loop[i]
        page[KILL_SEEN_NS] = loop[KILL_SEEN_NS]
        store_release(page, KILL_SEEN, loop[KILL_SEEN])


@kernel
def run(
    market_context: Any,
    book_context: Any,
    signal_context: Any,
    risk_context: Any,
    gateway_context: Any,
    venue_context: Any,
    pages: Any,
    loop: Any,
) -> None:
    """Run every stage's step, in path order, until the turn is over.

    `loop` is the page of the first stage, which all of them use; `pages` are the others', kept alike for observers.
    """
    work = 0
    while turn(loop, work):
        if loop[NOW_NS] >= pages[0][NOW_NS] + LOOK_EVERY_NS:
            mirror(loop, pages)
        work = market_data.step(market_context, loop)
        work += book.step(book_context, loop)
        work += signal.step(signal_context, loop)
        work += risk.step(risk_context, loop)
        work += gateway.step(gateway_context, loop)
        work += paper_venue.step(venue_context, loop)


@kernel
def run_live(
    market_context: Any,
    book_context: Any,
    signal_context: Any,
    risk_context: Any,
    gateway_context: Any,
    venue_context: Any,
    pages: Any,
    loop: Any,
) -> None:
    """Do the same with the live venue in the paper venue's place."""
    work = 0
    while turn(loop, work):
        if loop[NOW_NS] >= pages[0][NOW_NS] + LOOK_EVERY_NS:
            mirror(loop, pages)
        work = market_data.step(market_context, loop)
        work += book.step(book_context, loop)
        work += signal.step(signal_context, loop)
        work += risk.step(risk_context, loop)
        work += gateway.step(gateway_context, loop)
        work += live_venue.step(venue_context, loop)


@kernel
def run_gateway(gateway_context: Any, venue_context: Any, pages: Any, loop: Any) -> None:
    """Run gateway and live venue, the end of the path in `split` placement."""
    work = 0
    while turn(loop, work):
        if loop[NOW_NS] >= pages[0][NOW_NS] + LOOK_EVERY_NS:
            mirror(loop, pages)
        work = gateway.step(gateway_context, loop)
        work += live_venue.step(venue_context, loop)


LOOPS: dict[tuple[str, str], Callable[..., None]] = {
    ("market_data", "paper_venue"): run,
    ("market_data", "live_venue"): run_live,
    ("gateway", "live_venue"): run_gateway,
}
"""The loops by the first and the last stage of those that they run."""
