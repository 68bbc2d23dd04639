"""The watch over living stages: silence, a feed that stands still, a deaf strategy, a kill of their own, foreign fees.

Death is not its business: a pidfd tells that at once. Silence is not death. It holds new orders after one time and ends
the stage after a longer one, and is not told from our own while we were not scheduled ourselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline import state
from shrivenq.shm.atomics import and_word, load_word, or_word
from shrivenq.stages import control, stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shrivenq.pipeline.assembly import Assembly
    from shrivenq.pipeline.config import SupervisorTimes

CYCLE_S = 0.02
"""Between two looks of the supervisor."""
CYCLE_NS = 20_000_000
FEES_NS = 1_000_000_000
"""Between two looks at fees."""
NS_PER_MS = 1_000_000


class Watch:
    """What is known of the stages from look to look; `stages` are those whose heartbeat is their own."""

    def __init__(self, limits: SupervisorTimes, stages: Sequence[str], log: Any) -> None:
        self._limits, self._stages, self._log = limits, stages, log
        self._began_ns = 0
        self._looked_ns = 0
        self._frames, self._fed_ns = 0, 0  # market data's count when it last moved, and when that was
        self._ending: list[str] = []  # told already: it takes a while until they are gone
        self._killed = control.ARMED  # by the stages, as far as it was noted
        self._fees_ns = 0
        self._charged: set[int] = set()  # instruments whose foreign fees were told

    def begin(self, now_ns: int) -> None:
        """Begin: the stages have been let go. None has turned, and nothing has been fed, before that."""
        self._began_ns = self._looked_ns = self._fed_ns = now_ns

    def look(self, assembly: Assembly, now_ns: int) -> list[str]:
        """Look at all stages, hold and let go; return those that must end."""
        late_ns = now_ns - self._looked_ns - 2 * CYCLE_NS
        self._looked_ns = now_ns
        hold = assembly.control("hold")
        self._feed(assembly, hold, now_ns)
        self._kill(assembly)
        self._fees(assembly, now_ns)
        ending = [] if late_ns > 0 else self._silent(assembly, hold, now_ns)
        if load_word(hold, control.HOLD) & control.STRATEGY_DEAF:
            self._log.error("the strategy does not read its reports: stopped")
            ending.append("signal")
        return ending

    def _silent(self, assembly: Assembly, hold: Any, now_ns: int) -> list[str]:
        """Hold while a stage has not turned for the configured time; name those silent for the longer one."""
        silent = {}
        for name in self._stages:
            age_ns = now_ns - max(self._began_ns, int(load_word(assembly.loop(name), stage.NOW_NS)))
            if age_ns > self._limits.silence_hold_ms * NS_PER_MS:
                silent[name] = age_ns
        held = load_word(hold, control.HOLD) & control.STAGE_SILENT
        if silent and not held:
            or_word(hold, control.HOLD, control.STAGE_SILENT)
            self._log.warning("held: stage silent", stages=sorted(silent))
        elif held and not silent:
            and_word(hold, control.HOLD, ~control.STAGE_SILENT)
            self._log.info("all stages answer again")
        ending = [name for name, age_ns in silent.items() if age_ns > self._limits.silence_kill_ms * NS_PER_MS]
        for name in ending:
            if name not in self._ending:
                self._log.error("stage silent for too long: stopped", stage=name, ms=silent[name] // NS_PER_MS)
        self._ending = ending
        return ending

    def _feed(self, assembly: Assembly, hold: Any, now_ns: int) -> None:
        """Hold while market data has brought nothing for the configured time."""
        frames = int(load_word(assembly.loop("market_data"), stage.FRAMES))
        if frames != self._frames:
            self._frames, self._fed_ns = frames, now_ns
        held = load_word(hold, control.HOLD) & control.FEED_STALE
        stale = now_ns - self._fed_ns > self._limits.feed_stale_ms * NS_PER_MS
        if stale and not held:
            or_word(hold, control.HOLD, control.FEED_STALE)
            self._log.warning("held: market data silent", ms=(now_ns - self._fed_ns) // NS_PER_MS)
        elif held and not stale:
            and_word(hold, control.HOLD, ~control.FEED_STALE)
            self._log.info("market data again")

    def _kill(self, assembly: Assembly) -> None:
        """Write down a kill that a stage has raised: it outlives the stages and this process, as an operator's does."""
        words = assembly.control("kill")
        if _level(words, control.MACHINE) > self._killed:
            with state.locked(assembly.name, "operator", wait=True):  # whoever arms does so under this lock
                level = _level(words, control.MACHINE)
                if level > _level(words, control.OPERATOR):
                    state.write_killed(assembly.name, control.LEVELS[level], "the pipeline itself: its log says why")
            self._log.error("killed by a stage", level=control.LEVELS[level])
        self._killed = _level(words, control.MACHINE)

    def _fees(self, assembly: Assembly, now_ns: int) -> None:
        """Say once of an instrument that its fees are in a currency of unknown worth: risk opens nothing there."""
        if now_ns - self._fees_ns < FEES_NS:
            return
        self._fees_ns = now_ns
        for row in assembly.positions()["unconverted"].nonzero()[0].tolist():
            if row not in self._charged:
                self._charged.add(row)
                self._log.error(
                    "fees in a currency of unknown worth: no new orders but reductions",
                    symbol=assembly.instruments[row]["symbol"].decode(),
                    fix="have the venue take fees in the currencies traded (Binance: do not pay with BNB)",
                )


def _level(words: Any, word: int) -> int:
    return int(load_word(words, word)) & control.LEVEL_MASK
