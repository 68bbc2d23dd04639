"""Funds: what the account should hold (`ledger`) against what the venue says it holds, at every reconciliation.

What was taken from the venue goes into the journal as BALANCE reports, in their place among the fills, so that a later
run adds up the same. What differs, and still does after a while (the venue's answers lag), is told and becomes the new
base. More than expected, or of a currency that is not traded, is no more than that: a deposit, a reward. Less of a
currency that is traded, base or quote, may be a fill that was never told, or a venue that has lost its state: then
positions may be wrong, and it kills (`halt`) until a person arms.

Source: Binance user data stream, outboundAccountPosition and balanceUpdate; account.status.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from shrivenq.shm import ring
from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import ledger, venue_io
from shrivenq.stages.venues.answers import FEE_DECIMALS, put_row

if TYPE_CHECKING:
    from shrivenq.stages.live.venue_state import LiveVenue

SETTLE_NS = 3_000_000_000
"""A difference that all comparisons of this long have shown, the last two alike, is none of time."""
COARSE = 2
"""Units by which balances differ that are told finer than our currency: both parts of both were rounded."""
MOVES = 256
"""Movements by which a repeated one is recognised: while the session is renewed both connections tell them."""


class Funds:
    """The comparison of balances, and what came or went from outside."""

    def __init__(self, context: LiveVenue, loop: Any, log: Any) -> None:
        self._context, self._loop, self._log = context, loop, log
        instruments = context.instruments[context.instruments["tradable"] != 0]
        self._traded = {int(one[key]) for one in instruments for key in ("base_currency", "quote_currency")}
        self._found: dict[int, int] = {}  # differences of the last comparison
        self._since_ns = 0
        self._moves: deque[tuple[int, int, int]] = deque(maxlen=MOVES)
        # Load the machine code now, and not when it is needed.
        ledger.tally(context.ledger, context.instruments, context.answers.currencies, context.reports[:0])
        ring.claim(context.from_venue, 1)

    def clear(self) -> None:
        """Begin anew: what differed before a connection ended has to be seen again."""
        self._found = {}

    def agree(self, now_ns: int) -> bool:
        """Compare; False if that has to be done again. What does not agree in the end is told and adopted."""
        held = [int(pair.sum()) for pair in self._context.balances]
        known = self._context.ledger[:, ledger.KNOWN] != 0
        new = [row for row in range(len(held)) if not known[row]]
        found = {row: held[row] - self._expected(row) for row in range(len(held)) if known[row]}
        found = {row: by for row, by in found.items() if abs(by) > self._slack(row)}
        if not self._is_settled(found, now_ns) or not ring.claim(self._context.from_venue, len(held)):
            return False
        for row, by in found.items():
            self._tell(row, held[row], by)
        if new:
            taken = {self._code(row): self._spelt(row, held[row]) for row in new}
            self._log.info("balances taken as they are", balances=taken)
        self._note(m.BALANCE, {row: held[row] for row in [*new, *found]})
        return True

    def _expected(self, row: int) -> int:
        return int(self._context.ledger[row, ledger.EXPECTED])

    def _slack(self, row: int) -> int:
        coarse = self._context.answers.currencies[row]["decimals"] < FEE_DECIMALS
        return int(self._context.ledger[row, ledger.SLACK]) + (COARSE if coarse else 0)

    def _is_settled(self, found: dict[int, int], now_ns: int) -> bool:
        """Tell whether nothing differs, or what differs will not go away by itself."""
        if found and not self._found:
            self._since_ns = now_ns
            self._log.info("held: balances do not agree yet", currencies=[self._code(row) for row in found])
        is_same, self._found = found == self._found, found
        if found and (not is_same or now_ns - self._since_ns < SETTLE_NS):
            return False
        self._found = {}
        return True

    def _tell(self, row: int, held: int, by: int) -> None:
        said = {
            "currency": self._code(row), "expected": self._spelt(row, held - by), "found": self._spelt(row, held),
            "difference": self._spelt(row, by),
        }  # fmt: skip
        if by < 0 and row in self._traded:
            control.raise_kill(self._context.kill, control.HALT)
            self._log.error(
                "killed: the account holds less than it should", **said,
                fix="was it withdrawn, or spent otherwise? Then arm; else compare positions with the venue first",
            )  # fmt: skip
        else:
            self._log.warning("balance differs: adopted", **said)

    def move(self, note: Any) -> None:
        """Take note that money came or went, told by an event (`answers.MOVED`); the caller has claimed room."""
        row, amount = int(note["what"]), int(note["free"])
        one = (row, amount, int(note["venue_ns"]))
        if one in self._moves or not self._context.ledger[row, ledger.KNOWN]:
            return
        self._moves.append(one)
        self._log.info("deposit or withdrawal", currency=self._code(row), amount=self._spelt(row, amount))
        self._note(m.MOVED, {row: amount})

    def _note(self, kind: int, amounts: dict[int, int]) -> None:
        """Take BALANCE or MOVED amounts by currency, and have the journal hold them; the caller has claimed room."""
        context = self._context
        for at, (row, amount) in enumerate(amounts.items()):
            put_row(context.reports, at, kind, 0, 0, 0, 0)
            context.reports[at]["fee_currency"], context.reports[at]["quantity"] = row, amount
        ledger.tally(context.ledger, context.instruments, context.answers.currencies, context.reports[: len(amounts)])
        venue_io.publish(context, self._loop, 0, len(amounts), True)

    def _code(self, row: int) -> str:
        return str(self._context.answers.currencies[row]["code"].decode())

    def _spelt(self, row: int, amount: int) -> str:
        return f"{Decimal(amount).scaleb(-int(self._context.answers.currencies[row]['decimals'])):f}"
