"""All stages in one loop on one core: the same steps `split` placement runs in processes of their own."""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import kernel
from shrivenq.stages import book, gateway, market_data, paper_venue, risk, signal
from shrivenq.stages.stage import turn


@kernel
def run(
    market_context: Any,
    book_context: Any,
    signal_context: Any,
    risk_context: Any,
    gateway_context: Any,
    venue_context: Any,
    loop: Any,
) -> None:
    """Run every stage's step, in path order, until the turn is over; `loop` is the page of the first stage."""
    work = 0
    while turn(loop, work):
        work = market_data.step(market_context, loop)
        work += book.step(book_context, loop)
        work += signal.step(signal_context, loop)
        work += risk.step(risk_context, loop)
        work += gateway.step(gateway_context, loop)
        work += paper_venue.step(venue_context, loop)
