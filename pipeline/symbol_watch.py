"""The watch over the venue's symbols while a pipeline runs: what it finds holds one instrument, or all of them.

An instrument that the venue does not trade, or not by the rules of the start, is held alone, until it is as it was.
What the venue says being unreadable, or not to be had for long, holds everything: nobody knows then what trades.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.venue_symbols import Comparison, Rules, Symbol, compare
from shrivenq.shm.atomics import and_word, load_word, or_word, store_word
from shrivenq.stages import control

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOKS_MISSED = 5
"""After so many periods without a look that succeeded nothing is known."""


class SymbolWatch:
    """Compares what the venue says of its symbols with what the pipeline was started with.

    `hold` and `instrument_hold` are regions of the control segment; of CHANGES and `instrument_hold` this is the one
    writer. Nothing is known before the first look.
    """

    def __init__(self, rules: Rules, hold: Any, instrument_hold: Any, log: Any, *, period_s: float) -> None:
        self.rules = rules
        self.is_known = False
        self._hold, self._instrument_hold, self._log = hold, instrument_hold, log
        self._patience_s = LOOKS_MISSED * period_s
        self._seen_s: float | None = None
        self._lines: list[list[str]] = [[] for _ in rules.tables.instruments]

    def look(self, symbols: Mapping[str, Symbol], now_s: float) -> None:
        """Hold and let go by what the venue says now."""
        for row, found in enumerate(compare(symbols, self.rules).instruments):
            self._settle(row, found)
        self._seen_s, self.is_known = now_s, True
        if load_word(self._hold, control.HOLD) & control.SYMBOLS_UNKNOWN:
            and_word(self._hold, control.HOLD, ~control.SYMBOLS_UNKNOWN)
            self._log.info("the venue's symbols are known")

    def wait(self, now_s: float) -> None:
        """Hold everything once the last look is too long ago."""
        if self._seen_s is None:
            self._seen_s = now_s  # those of a process before us count for as long as our own
        is_held = load_word(self._hold, control.HOLD) & control.SYMBOLS_UNKNOWN
        if is_held or now_s - self._seen_s <= self._patience_s:
            return
        self.is_known = False
        or_word(self._hold, control.HOLD, control.SYMBOLS_UNKNOWN)
        self._log.warning("held: the venue's symbols are unknown", for_s=round(now_s - self._seen_s))

    def _settle(self, row: int, found: Comparison) -> None:
        """Hold one instrument for what was found, or let it go; what changes is told."""
        before, causes = int(load_word(self._instrument_hold, row)), found.holds()
        lines = [*found.halted, *found.refusals, *found.stricter]
        if lines != self._lines[row]:
            self._lines[row] = lines
            self._tell(found)
        if causes == before:
            return
        store_word(self._instrument_hold, row, causes)
        store_word(self._hold, control.CHANGES, int(load_word(self._hold, control.CHANGES)) + 1)
        if not causes:
            symbol = self.rules.tables.instruments[row]["symbol"].decode()
            self._log.info("symbol as at the start again: new orders pass", symbol=symbol)

    def _tell(self, found: Comparison) -> None:
        event = "held: symbol not as at the start"
        for line in found.halted:
            self._log.warning(event, what=line, fix="none needed: it is let go when it trades again")
        for line in found.refusals:
            self._log.warning(event, what=line, fix="compare the instrument file with the venue, and restart")
        for line in found.stricter:
            self._log.warning(event, what=line, fix="restart to obey it")
