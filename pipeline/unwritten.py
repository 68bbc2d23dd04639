"""Records that no journal holds yet: what a journal writer that died has left in its ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline import state
from shrivenq.shm import byte_ring, segment
from shrivenq.shm.atomics import load_word
from shrivenq.shm.ring import HEAD, TAIL
from shrivenq.stages import journal, journal_file
from shrivenq.stages.journal import JournalError

if TYPE_CHECKING:
    from shrivenq.shm.segment import Segment


class UnwrittenError(Exception):
    """The records are another's to write; one line says whose."""


def is_unread(held: Segment) -> bool:
    """Tell whether a segment is a journal's ring in which records wait for a writer."""
    if held.name.split(".")[3:] != ["journal"]:
        return False
    ring = byte_ring.consumer(held)
    return int(load_word(ring.peer, HEAD)) != int(load_word(ring.own, TAIL))


def write(name: str, held: Segment, log: Any) -> None:
    """Write what waits in a journal's ring of the pipeline `name`, before the ring is gone."""
    if not is_unread(held):
        return
    try:
        writer = journal_file.JournalWriter(state.folder(name) / "journal")
        records = writer.drain(byte_ring.consumer(held))
        writer.close()
    except JournalError as error:
        log.error("journal records lost", reason=str(error))  # noqa: TRY400 - it is one line
    else:
        log.warning("journal finished for its writer", records=records)


def finish(name: str, log: Any) -> None:
    """Do so for a run whose supervisor was killed together with its writer; the name is ours.

    Raises UnwrittenError where such a run kept its journal in another state folder.
    """
    runs = journal_file.read_journal(state.folder(name) / "journal").rows(journal.RUN)
    last = runs[-1]["run"].decode() if len(runs) else ""
    for one in segment.names(f"{name}."):
        try:
            held = segment.attach(one)
        except segment.SegmentError:
            continue  # not ours, or not finished: nobody wrote to it
        if not held.creator_alive() and is_unread(held):
            if one.split(".")[2] != last:
                raise UnwrittenError(
                    f"{one}: records of a run with another state folder, which are in no file yet:"
                    f" start {name} with that folder ($SHRIVENQ_STATE) first"
                )
            write(name, held, log)
        held.close()
