"""What a dead journal writer has left: written by its own state folder, by nobody else, and not removed before."""

from __future__ import annotations

import pytest

from shrivenq.pipeline import state, unwritten
from shrivenq.pipeline.assembly import sweep
from shrivenq.shm import segment
from shrivenq.shm.segment import Segment
from shrivenq.stages import journal, journal_file
from tests.stages.journal_rig import ENTRY, Ring, orders_of
from tests.stages.market_rig import Log

NAME = "test-unwritten"


@pytest.fixture
def ring(tmp_path, monkeypatch):
    """The journal's ring of the run `run1`, whose processes are dead, with three records in it."""
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path))
    monkeypatch.setattr(Segment, "creator_alive", lambda _: False)
    made = Ring(1 << 16, f"{segment.PREFIX}{NAME}.run1.journal")
    made.send(orders_of(3, 3))
    yield made
    if made.segment.name in segment.names(f"{NAME}."):
        made.segment.unlink()
    made.segment.close()


def begin_run(run):
    """Begin the journal of the state folder in use with a run of that name."""
    state.make_folder(NAME)
    writer = journal_file.JournalWriter(state.folder(NAME) / "journal")
    writer.begin_run(run, 1)
    writer.close()


def written():
    return len(journal_file.read_journal(state.folder(NAME) / "journal").rows(journal.ORDER_SENT))


def test_what_waits_is_written_once_and_then_swept(ring):
    begin_run(b"run1")
    log = Log()
    assert unwritten.is_unread(ring.segment)
    sweep(NAME, unfinished=False)
    unwritten.finish(NAME, log)
    assert (written(), unwritten.is_unread(ring.segment)) == (3, False)
    unwritten.finish(NAME, log)
    assert written() == 3
    assert sweep(NAME, unfinished=False) == []
    assert segment.names(f"{NAME}.") == []


@pytest.mark.parametrize("run", [b"run2", b"run10"])
def test_records_of_another_state_folder_are_refused_and_stay(ring, run):
    begin_run(run)
    with pytest.raises(unwritten.UnwrittenError, match="in no file yet: start test-unwritten with") as caught:
        unwritten.finish(NAME, Log())
    assert "\n" not in str(caught.value)
    assert (written(), ring.waits()) == (0, 3)


def test_a_damaged_record_is_told_with_what_came_before_it_written(ring):
    begin_run(b"run1")
    second = ENTRY
    ring.producer.data[second + 100] ^= 1
    log = Log()
    unwritten.finish(NAME, log)
    assert written() == 1
    assert [event for event, _ in log.lines] == ["journal records lost"]


def test_no_other_segment_is_a_journal():
    for part in ("journals", "raw"):
        made = Ring(1 << 16, f"{segment.PREFIX}{NAME}.run1.{part}")
        try:
            made.send(orders_of(3, 1))
            assert not unwritten.is_unread(made.segment)
        finally:
            made.segment.unlink()
            made.segment.close()
