"""What a name keeps between runs: its folder, its lock, its armed file. Standard library only: the kill switch uses it.

~/.local/state/shrivenq/NAME/
    lock        held by the supervisor while it runs
    operator    held by `kill` and `arm` while they write
    armed       "armed NAME WHO WHY": anything else, or no file, means killed
    journal     what we did, see `stages.journal`
    epoch       the last epoch used in order ids
    log.jsonl

Shared memory goes by the name alone, whatever the state folder: /dev/shm/shrivenq-NAME.lock is the lock of the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


SHARED = Path("/dev/shm")  # noqa: S108 - where Linux shows POSIX shared memory
NAME = re.compile(r"[a-z0-9-]{1,24}")
"""What a pipeline may be called: it becomes part of file and segment names."""
LIVE = "venue.json"
"""In the folder of a name that has run live: where `shrivenq kill` finds its venue (`venue_cancel`)."""


class StateError(Exception):
    """The state of a name cannot be used; one line says why."""


def folder(name: str) -> Path:
    """Name the state folder of `name`: under $SHRIVENQ_STATE, $XDG_STATE_HOME/shrivenq or ~/.local/state/shrivenq.

    Raises StateError for what is no name.
    """
    if not NAME.fullmatch(name):
        raise StateError(f"{name!r}: no name of a pipeline: 1 to 24 of a-z, 0-9 and - expected")
    base = os.environ.get("SHRIVENQ_STATE")
    if base:
        return Path(base) / name
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "shrivenq" / name


def make_folder(name: str) -> Path:
    """Make the state folder, private to its owner. Raises StateError."""
    path = folder(name)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"{path}: cannot make the state folder: {error.strerror}") from None
    return path


@contextlib.contextmanager
def locked(name: str, file: str, *, wait: bool) -> Iterator[None]:
    """Hold one of the name's locks; without `wait` a lock held elsewhere raises StateError."""
    path = make_folder(name) / file
    with path.open("a") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StateError(f"{name}: is running already (another process holds {path})") from None
        yield


@contextlib.contextmanager
def claimed(name: str) -> Iterator[None]:
    """Hold the name on this machine, against every other state folder and every other user. Raises StateError.

    Forked children hold it too: stages that outlive a supervisor still use the segments that a next run would sweep.
    """
    path = SHARED / f"shrivenq-{name}.lock"
    descriptor = _claim(name, path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, state folder {folder(name)}".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: nobody else's can have this name
        os.close(descriptor)


def _claim(name: str, path: Path) -> int:
    """Open the file at `path` and lock it; return its descriptor. Raises StateError."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise StateError(_foreign(name, path, path.lstat().st_uid)) from None
        except OSError as error:
            raise StateError(f"{path}: cannot be locked: {error.strerror}") from None
        held = os.fstat(descriptor)
        try:
            if held.st_uid != os.geteuid():
                raise StateError(_foreign(name, path, held.st_uid))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(descriptor, 4096, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise StateError(f"{name}: is running already on this machine ({who} holds {path})") from None
        except StateError:
            os.close(descriptor)
            raise
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ino == held.st_ino:
                return descriptor
        os.close(descriptor)  # whoever held it has removed it since


def _foreign(name: str, path: Path, owner: int) -> str:
    return f"{name}: is a name of uid {owner} on this machine, expected {os.geteuid()} (by {path}); choose another"


def armed(name: str) -> str | None:
    """Read who armed the name and why; None, and so killed, for anything but a whole and readable `armed` line."""
    try:
        words = (folder(name) / "armed").read_text().rstrip("\n").split(" ", 3)
    except (OSError, UnicodeDecodeError):
        return None
    if len(words) != 4 or words[0] != "armed" or words[1] != name or not words[2] or not words[3].strip():
        return None
    return f"{words[2]}: {words[3]}"


def why_killed(name: str) -> str:
    """Read how far the name was killed, by whom and why; empty for a name that is armed or says nothing of it."""
    try:
        words = (folder(name) / "armed").read_text().rstrip("\n").split(" ", 4)
    except (OSError, UnicodeDecodeError, StateError):
        return ""
    return f"{words[3]} by {words[2]}: {words[4]}" if len(words) == 5 and words[:2] == ["killed", name] else ""


def begin(name: str, mode: str) -> None:
    """Write what a run begins with, if that is not what its last one ended with.

    A name without history is armed by its first start. Live a person arms every run: what was said of an earlier one,
    before a power loss maybe, says nothing of this one.
    """
    if mode == "live" and armed(name) is not None:
        write_killed(name, "halt", "a live run begins so: arm it")
    elif mode != "live" and not (folder(name) / "armed").exists():
        write_armed(name, f"first start in mode {mode}")


def write_armed(name: str, why: str) -> None:
    """Make the name armed, durably; `why` is the person's reason."""
    _write(name, f"armed {name} {getpass.getuser()} {' '.join(why.split())}\n")


def write_killed(name: str, level: str, why: str) -> None:
    """Make the name killed, durably."""
    _write(name, f"killed {name} {getpass.getuser()} {level} {' '.join(why.split())}\n")


def _write(name: str, line: str) -> None:
    """Replace the armed file in one step; a crash leaves the old one or the new one, never half of one."""
    path = make_folder(name) / "armed"
    new = path.with_suffix(".new")
    with new.open("w") as opened:
        opened.write(line)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
