"""The kill switch: `shrivenq kill LEVEL NAME`.

Sets the operator's word in shared memory and the armed file, waits until risk and gateway say that they saw it, and
kills the gateway through its pidfd if it does not within 50 ms, healthy or not: whoever pulls the switch wants
certainty. Until then nothing but the standard library and posix_ipc is loaded, and nobody is asked.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

import posix_ipc

from shrivenq.pipeline import state

LEVELS = ("armed", "halt", "cancel", "flatten")
ACKNOWLEDGE_S = 0.050
PAGE = 4096
HEADER_SIZE = 4 * PAGE

# Offsets that `stages.control` and `stages.stage` define; a test holds them equal.
OPERATOR = 0
HOLD, RECONCILING = 0, 16
GO, STOP = 0, 8
NOW_NS, PID, KILL_SEEN, KILL_SEEN_NS = 0, 11 * 8, 13 * 8, 14 * 8
WORDS_SIZE = 80
WORDS = 208

USAGE = """Usage: shrivenq kill LEVEL [NAME] [--reason TEXT] [--json]

  halt      no new orders; cancels and verified reductions pass
  cancel    halt, and cancel every open order; live, look at the venue, and cancel there what is left
  flatten   cancel, and close every position

Stays in force, over restarts too, until `shrivenq arm NAME --reason TEXT`."""


class Control:
    """The control segment of a running name, mapped without numpy."""

    def __init__(self, name: str) -> None:
        memory = posix_ipc.SharedMemory("/" + name)
        self.map = mmap.mmap(memory.fd, 0)
        memory.close_fd()
        size = self.word(WORDS_SIZE)
        _, regions = json.loads(self.map[WORDS : WORDS + size])
        self.offsets, offset = {}, HEADER_SIZE
        for region, count, _ in regions:
            self.offsets[region] = offset
            offset += -(-count * 8 // PAGE) * PAGE

    def word(self, offset: int) -> int:
        """Read one int64."""
        return memoryview(self.map)[offset : offset + 8].cast("q")[0]

    def store(self, offset: int, value: int) -> None:
        """Write one int64: an aligned 8-byte store."""
        memoryview(self.map)[offset : offset + 8].cast("q")[0] = value

    def stage(self, stage: str, offset: int) -> int:
        """Read a word of a stage's page."""
        return self.word(self.offsets[f"loop.{stage}"] + offset)

    @property
    def follows_its_account(self) -> bool:
        """Tell whether the pipeline has a session with its venue, and has compared."""
        return not self.word(self.offsets["hold"] + HOLD) & RECONCILING

    def raise_to(self, level: int) -> bool:
        """Raise the operator's word; False if it was at least that high."""
        place = self.offsets["kill"] + OPERATOR
        found = self.word(place)
        if found & 255 >= level:
            return False
        self.store(place, found & ~255 | level)
        return True


def control_segments(name: str) -> list[str]:
    """List the control segments of runs of `name`."""
    found = Path("/dev/shm").glob("shrivenq.*.*.control")  # noqa: S108 - where Linux shows shared memory
    return sorted(path.name for path in found if path.name.split(".")[1] == name)  # the name is no pattern


def running_names() -> list[str]:
    """List the names that have a control segment."""
    return sorted({path.name.split(".")[1] for path in Path("/dev/shm").glob("shrivenq.*.*.control")})  # noqa: S108


def _confirm(control: Control, level: int, since_ns: int) -> list[dict[str, object]]:
    """Wait for risk and gateway to act on the level; kill a gateway that does not."""
    found: dict[str, dict[str, object]] = {}
    deadline = time.monotonic() + ACKNOWLEDGE_S
    while len(found) < 2 and time.monotonic() < deadline:
        for stage in ("risk", "gateway"):
            if stage not in found and control.stage(stage, KILL_SEEN) > level:
                seen = max(0, control.stage(stage, KILL_SEEN_NS) - since_ns)
                found[stage] = {"by": stage, "confirmed": True, "us": seen // 1000}
    for stage in ("risk", "gateway"):
        if stage not in found:
            found[stage] = {"by": stage, "confirmed": False, "pid": control.stage(stage, PID)}
    if not found["gateway"]["confirmed"]:
        found["gateway"]["killed"] = _kill_process(control.stage("gateway", PID))
    return list(found.values())


def _kill_process(pid: int) -> bool:
    """Kill a stage through its pidfd; False if it was dead already (then it sends nothing either)."""
    if pid <= 0:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not Path(f"/proc/{pid}/comm").read_text().startswith("sq-"):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _arguments(arguments: list[str]) -> tuple[int, str, str, bool]:
    """Read the command line by hand: an option parser is one more thing to load. Raises ValueError with one line."""
    reason, as_json, plain = "by hand", False, []
    rest = iter(arguments)
    for one in rest:
        if one == "--json":
            as_json = True
        elif one == "--reason":
            reason = next(rest, "")
        elif one.startswith("-"):
            raise ValueError(f"{one}: unknown option; expected --reason TEXT or --json")
        else:
            plain.append(one)
    if not plain or plain[0] not in LEVELS[1:]:
        found = plain[0] if plain else "nothing"
        raise ValueError(f"level {found}: expected halt, cancel or flatten")
    if len(plain) > 2:
        raise ValueError(f"{plain[2]}: unexpected; expected LEVEL [NAME]")
    names = running_names()
    if len(plain) == 2:
        name = plain[1]
    elif len(names) == 1:
        name = names[0]
    else:
        raise ValueError(f"which name? running: {', '.join(names) or 'none'}")
    return LEVELS.index(plain[0]), name, reason, as_json


def main(arguments: list[str]) -> int:
    """Run the command; exit 0 when everything is confirmed, 3 when something is not, 2 for a mistake."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0 if arguments else 2
    try:
        level, name, reason, as_json = _arguments(arguments)
    except ValueError as error:
        print(f"shrivenq kill: {error}", file=sys.stderr)
        return 2
    controls: list[Control] = []
    confirmed: list[dict[str, object]] = []
    problems: list[str] = []
    follows = True
    for segment in control_segments(name):
        try:
            controls.append(Control(segment))
            since_ns = time.monotonic_ns()
            controls[-1].raise_to(level)
            confirmed += _confirm(controls[-1], level, since_ns)
            follows = follows and controls[-1].follows_its_account
        except (OSError, ValueError, KeyError, posix_ipc.Error) as error:
            problems.append(f"{segment}: {error}")
    known = state.NAME.fullmatch(name) is not None and state.folder(name).is_dir()
    if not controls and not problems and not known:
        print(f"shrivenq kill: {name}: no such name; running: {', '.join(running_names()) or 'none'}", file=sys.stderr)
        return 2
    # The word first, the file second: processes stop at once, and a restart finds the file. Whoever arms does so under
    # the same lock: had somebody armed from the old file meanwhile, the second raise undoes it.
    try:
        with state.locked(name, "operator", wait=True):
            lowered = [control for control in controls if control.raise_to(level)]
            state.write_killed(name, LEVELS[level], reason)
        for control in lowered:
            confirmed += _confirm(control, level, time.monotonic_ns())
    except (OSError, state.StateError) as error:
        problems.append(f"armed file not changed: {error}")
    if not as_json:
        if not confirmed:
            print(f"{name}: not running; will start killed ({LEVELS[level]}) until it is armed")
        _say(name, level, confirmed)
    if known and LEVELS[level] != "halt":
        lives = bool(confirmed) and not problems and all(one["confirmed"] for one in confirmed)
        found = _at_the_venue(name, lives=lives and follows)
        confirmed += found
        if not as_json:
            _say(name, level, found)
    complete = not problems and all(one["confirmed"] for one in confirmed)
    if as_json:
        print(json.dumps({"name": name, "level": LEVELS[level], "confirmed": confirmed, "problems": problems}))
    else:
        for problem in problems:
            print(f"shrivenq kill: {problem}", file=sys.stderr)
    return 0 if complete else 3


def _at_the_venue(name: str, *, lives: bool) -> list[dict[str, object]]:
    """See to it that a live pipeline has no order open; one that lives gets a moment to do it first."""
    if not (state.folder(name) / "venue.json").exists():
        return []
    # The word is set: from here on it may load what it needs.
    from shrivenq.pipeline import venue_cancel  # noqa: PLC0415

    return venue_cancel.clear(name, lives=lives, say=lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True))


def _say(name: str, level: int, confirmed: list[dict[str, object]]) -> None:
    """Say what is confirmed, by whom, in how many µs, and what is not."""
    for one in confirmed:
        if one["confirmed"]:
            print(f"{name}: {LEVELS[level]} confirmed by {one['by']} after {one['us']} µs")
        elif one.get("killed"):
            print(
                f"{name}: {one['by']} did not answer in {ACKNOWLEDGE_S * 1e3:.0f} ms and was killed (pid {one['pid']})"
            )
        else:
            why = one.get("problem") or f"pid {one['pid']}"
            print(f"{name}: {LEVELS[level]} NOT confirmed by {one['by']} ({why})")
    sys.stdout.flush()
