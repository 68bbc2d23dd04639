"""The market_data stage against its slow twin: free and in lock-step, with rings that fill and frames that fail."""

from __future__ import annotations

import gzip
import random
import time
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pytest

from shrivenq.shm import ring
from shrivenq.stages import capture, conductor, market_data, market_data_state, stage
from shrivenq.stages import messages as m
from tests.stages.market_rig import (
    REFUSED,
    SILENT,
    SLOW,
    Rig,
    Source,
    Twin,
    check_stream,
    diff,
    joined,
    snapshot,
    trade,
    without_stamps,
)

T0 = 1_700_000_000_000_000_000
HOUR = 3_600_000_000_000


@contextmanager
def rig_of(source, **options):
    made = Rig(source, **options)
    try:
        yield made
    finally:
        made.close()


def same(found, expected, where=""):
    """Compare streams byte for byte, except for stamps and positions."""
    expected = joined([one for one in expected if one is not None])
    assert len(found) == len(expected), where
    assert without_stamps(found).tobytes() == expected.tobytes(), where


def some_frames(rng, count, start=T0, gap=1000, back=0.1):
    """Frames of every kind, good and bad, at times that sometimes go back."""
    made, at = [], start
    for number in range(1, count + 1):
        at += rng.randrange(gap)
        payload = rng.choice(
            (trade(number), diff(number, number + 2, rng.randrange(5)), SLOW, REFUSED, SILENT, None, trade(number))
        )
        made.append((at - rng.randrange(gap) if rng.random() < back else at, payload))
    return made


# ── lock-step ────────────────────────────────────────────────────────────────────────────────────────────────────────


def naive_order(twin, frames, period, due, drain_ns):
    """Everything that happens, in order of (time, kind): events, and the times of grants."""
    frames, due = list(frames), list(due)
    events, grants, timer = [], [], None
    while True:
        frame_at = max(frames[0][0], twin.last_ns) if frames else None
        timer_at = timer if frames else None
        venue_at = due[0] if due else None
        if frame_at is None:
            limit = twin.last_ns + drain_ns
            return events, [*grants, *(at for at in due if at <= limit)]
        first = min(at for at in (frame_at, venue_at, timer_at) if at is not None)
        if frame_at == first:
            if period and timer is None:
                timer = first + period
            events.append(twin.frame(first, frames.pop(0)[1]))
        elif venue_at == first:
            grants.append(due.pop(0))
            twin.last_ns = max(twin.last_ns, first)
        else:
            timer += period
            events.append(twin.timer(first))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("period", [0, 700])
def test_lock_step_is_the_order_of_time_and_waits_for_everybody(seed, period):
    rng = random.Random(seed)
    frames = some_frames(rng, 150)
    due = sorted(T0 + rng.randrange(150_000) for _ in range(30))
    drain_ns = 20_000
    config = market_data.Config(source="simulated", drain_ms=drain_ns / 1e6)
    with rig_of(Source(frames, rng.randint(1, 9)), virtual=True, timer_ns=period, config=config) as rig:
        expected, grants = naive_order(Twin(rig.instruments), frames, period, due, drain_ns)
        found, granted, waiting = [], [], list(due)
        rig.venue[conductor.NEXT_DUE_NS] = waiting[0]
        idle = 0
        while not rig.loop[stage.FINISHED]:
            before = int(rig.venue[conductor.GRANTS])
            if rig.step():
                idle = 0
            else:
                idle += 1
                assert idle < 50, f"seed {seed}: stuck"
            assert int(ring.available(rig.reader)) <= 14, f"seed {seed}: more than one event at a time"
            if int(rig.venue[conductor.GRANTS]) > before:
                # Nothing more until the venue has served the grant and everything it led to was taken.
                for _ in range(3):
                    assert rig.step() == 0, f"seed {seed}"
                assert not len(rig.take())
                while waiting and waiting[0] <= rig.venue[conductor.GRANTED_NS]:
                    granted.append(waiting.pop(0))
                rig.venue[conductor.NEXT_DUE_NS] = waiting[0] if waiting else conductor.NEVER
                rig.venue[conductor.DONE] = rig.venue[conductor.GRANTS]
            elif ring.available(rig.reader):
                for _ in range(rng.randrange(3)):
                    assert rig.step() == 0, f"seed {seed}: went on before the event was taken"
                found.append(rig.take())
        found = joined(found)
        same(found, expected, f"seed {seed}")
        check_stream(found)
        assert granted == grants, f"seed {seed}"
        assert rig.step() == 0
        assert int(rig.loop[stage.FRAMES]) == len(frames)


def test_lock_step_waits_for_room_and_drops_nothing():
    frames = [(T0, snapshot(1, 3000)), (T0 + 1, trade(2))]
    with rig_of(Source(frames), virtual=True) as rig:
        found = []
        while not rig.loop[stage.FINISHED]:
            rig.step()
            found.append(rig.take(random.Random(1).randrange(1, 900)))
        found = joined(found)
        twin = Twin(rig.instruments)
        same(found, [twin.frame(*one) for one in frames])
        check_stream(found)
        assert (rig.words[market_data_state.DROPPED], rig.loop[stage.DROPS]) == (0, 0)


def everything(rig):
    """Run a lock-step replay without a venue to its end; returns what was sent."""
    found = []
    while not rig.loop[stage.FINISHED]:
        rig.step()
        found.append(rig.take())
    return joined(found)


def test_timers_begin_with_the_first_frame_and_end_with_the_last():
    with rig_of(Source([(T0, trade(1)), (T0 + 10, trade(2)), (T0 + 35, trade(3))]), virtual=True, timer_ns=10) as rig:
        rows = everything(rig)
        heads = rows[rows["kind"] != m.END]
        assert [(int(row["kind"]), int(row["time_ns"]) - T0) for row in heads] == [
            (m.TRADE, 0), (m.TRADE, 10), (m.TIMER, 10), (m.TIMER, 20), (m.TIMER, 30), (m.TRADE, 35),
        ]  # fmt: skip


@pytest.mark.parametrize(("pace", "days"), [("recorded", 1), (1000.0, 200), (0.001, 1), (1e9, 3000)])
def test_a_paced_replay_keeps_its_time_however_long_it_is(pace, days):
    gap = days * 24 * HOUR
    config = market_data.Config(source="simulated", pace=pace)
    with rig_of(Source([(T0, trade(1)), (T0 + gap, trade(2))]), virtual=True, config=config) as rig:
        for _ in range(5):
            rig.step()
        assert len(rig.take()) == 2, "the first frame begins the time"
        real = int(gap / (1.0 if pace == "recorded" else pace))
        began = int(rig.words[market_data_state.START_MONO_NS])
        assert began > 0
        # As though most of the time had passed; the clock itself adds far less than what is left.
        for share, count in ((0.1, 0), (0.5, 0), (1.0, 2)):
            rig.words[market_data_state.START_MONO_NS] = time.monotonic_ns() - int(real * share)
            if share < 1 and real < HOUR:
                continue
            for _ in range(5):
                rig.step()
            assert len(rig.take()) == count, share


def test_real_frames_are_what_the_slow_path_says(data):
    frames = []
    with gzip.open(data / "binance/spot/btcusdt_20240808.gz") as lines:
        for line in islice(lines, 1500):
            at, _, payload = line.rstrip(b"\n").partition(b" ")
            frames.append((int(at), payload))
    with rig_of(Source(frames, 100), virtual=True) as rig:
        rows = everything(rig)
        check_stream(rows)
        twin = Twin(rig.instruments)
        same(rows, [twin.frame(*one) for one in frames])
        assert rig.words[market_data_state.SLOW] == rig.words[market_data_state.REFUSED] == 0


# ── free ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def settle(rig):
    """Let the stage do all it can now."""
    while rig.step() or rig.words[market_data_state.UNRECOGNISED]:
        pass
    rig.step()


def test_a_live_frame_goes_at_its_time_and_carries_the_clocks():
    with rig_of(Source([(T0 + i * HOUR, trade(i)) for i in range(4)], 1), virtual=False) as rig:
        for number in range(4):
            rig.set_clock(T0 + number * HOUR - HOUR // 2)
            settle(rig)
            assert not len(rig.take())
            rig.set_clock(T0 + number * HOUR + HOUR // 4)
            settle(rig)
            rows = rig.take()
            check_stream(rows, 2 * number)
            assert rows["id"].tolist()[0] == number
            late = int(rows[0]["time_ns"]) - (T0 + number * HOUR)
            assert HOUR // 4 <= late < HOUR // 2
        assert rig.loop[stage.FINISHED] == 1


def test_live_time_does_not_follow_a_clock_that_was_set_back():
    with rig_of(Source([(T0, trade(1)), (T0, trade(2))]), virtual=False) as rig:
        rig.set_clock(T0 + HOUR)
        rig.step()
        rig.step()
        first = int(rig.take()[0]["time_ns"])
        rig.set_clock(T0 + HOUR // 2)
        settle(rig)
        assert not len(rig.take()), "not before the time reached"
        rig.set_clock(T0 + 2 * HOUR)
        settle(rig)
        assert int(rig.take()[0]["time_ns"]) > first


def test_live_timers_keep_the_clock_without_making_up_for_silence():
    with rig_of(Source([(T0, trade(1)), (T0 + 1000 * HOUR, trade(2))], 1), virtual=False, timer_ns=HOUR) as rig:
        rig.set_clock(T0 + 10 * HOUR)
        settle(rig)
        rows = rig.take()
        assert rows["kind"].tolist() == [m.TRADE, m.END], "none before the first frame"
        began = int(rows[0]["time_ns"])
        for hours, count in ((0.5, 0), (1.5, 1), (2.5, 1), (6.5, 1), (7.0, 0), (7.6, 1)):
            rig.set_clock(began + int(hours * HOUR))
            settle(rig)
            rows = rig.take()
            assert rows["kind"].tolist() == [m.TIMER, m.END] * count, hours
        rig.set_clock(T0 + 2000 * HOUR)
        settle(rig)
        kinds = rig.take()["kind"].tolist()
        assert kinds == [m.TIMER, m.END, m.TRADE, m.END]


def test_live_timers_go_on_while_the_market_is_silent():
    source = Source([(T0, trade(1)), (T0, trade(2))], 1)
    with rig_of(source, virtual=False, timer_ns=HOUR) as rig:
        rig.set_clock(T0)
        rig.feed.poll()
        # A socket: nothing there does not mean the end.
        source.batch = 0
        settle(rig)
        assert rig.take()["kind"].tolist() == [m.TRADE, m.END]
        rig.set_clock(T0 + 3 * HOUR // 2)
        settle(rig)
        assert rig.take()["kind"].tolist() == [m.TIMER, m.END]


class NaiveRing:
    """What a live stage may put where: whole events or none, a snapshot in chunks."""

    def __init__(self, size):
        self.room, self.dropped, self.gap, self.rest = size, 0, False, []

    def send(self, event):
        """Take an event; returns what is published of it now."""
        self.is_snapshot = event[0]["kind"] == m.SNAPSHOT
        if not self.is_snapshot and len(event) > self.room:
            self.dropped += 1
            self.gap = True
            return []
        if self.is_snapshot and self.room < min(len(event), market_data.CHUNK):
            self.rest = event
            return []
        if self.gap:
            event = event.copy()
            event[0]["flags"] |= m.GAP
            self.gap = False
        self.rest = event
        return self.more()

    def more(self):
        """Publish what waits, as far as there is room."""
        count = len(self.rest)
        if count > self.room:
            count = market_data.CHUNK
        if count > self.room:
            return []
        out, self.rest = self.rest[:count], self.rest[count:]
        self.room -= count
        return [out]


def waiting_in(rig):
    """Records of the event in hand that are not published yet."""
    pending = int(rig.words[market_data_state.PENDING])
    return pending and pending - int(rig.words[market_data_state.SENT])


@pytest.mark.parametrize("seed", range(6))
def test_a_full_ring_drops_whole_events_and_says_so_and_snapshots_wait(seed):
    rng = random.Random(seed)
    frames = [
        (
            T0,
            rng.choice(
                (snapshot(i, rng.choice((40, 900, 1500))), *[diff(i, i, rng.randrange(400))] * 6, trade(i), None)
            ),
        )
        for i in range(1, 250)
    ]
    with rig_of(Source(frames, 11), virtual=False) as rig:
        rig.set_clock(T0 + HOUR)
        twin, naive, expected, found = Twin(rig.instruments), NaiveRing(2048), [], []
        rig.feed.poll()
        waiting = list(frames)
        while waiting or len(naive.rest):
            where = f"seed {seed}, {len(waiting)} to go"
            if len(naive.rest):
                out = naive.send(naive.rest) if naive.gap else naive.more()
            else:
                out = naive.send(twin.frame(*waiting.pop(0)))
            expected += out
            rig.step()
            assert int(rig.words[market_data_state.DROPPED]) == int(rig.loop[stage.DROPS]) == naive.dropped, where
            assert waiting_in(rig) == len(naive.rest), where
            if rng.random() < 0.4:
                rows = rig.take(rng.choice((1, 100, 700, 2048)))
                naive.room += len(rows)
                found.append(rows)
        found += [rig.take(), rig.take()]  # the first may see only what was there at its last look
        found = joined(found)
        untimed = joined(expected)
        found["time_ns"], untimed["time_ns"] = T0, T0
        same(found, [untimed], f"seed {seed}")
        check_stream(found)
        assert naive.dropped > 5, f"seed {seed}: nothing was dropped"
        assert (found["flags"] & m.GAP).any(), f"seed {seed}"


# ── the Python-level edge ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_turn_ends_where_python_is_needed():
    with rig_of(Source([(T0, REFUSED), (T0, trade(1))]), virtual=True) as rig:
        for _ in range(3):
            rig.loop[stage.DEADLINE_NS] = 1 << 62
            market_data.run(rig.context, rig.loop)  # returns: an empty buffer, then an unknown frame, end the turn
            rig.feed.poll()
            rig.take()
            if rig.words[market_data_state.REFUSED]:
                break
        assert rig.words[market_data_state.REFUSED] == 1


def test_a_request_for_a_snapshot_reaches_the_source_once():
    source = Source([(T0, trade(1))])
    with rig_of(source, virtual=True) as rig:
        rig.feed.poll()
        assert source.asked == []
        rig.resync[0] += 2
        rig.resync[3] += 1  # of no instrument
        rig.feed.poll()
        rig.feed.poll()
        assert source.asked == [0]
        rig.resync[0] += 1
        rig.feed.poll()
        assert source.asked == [0, 0]
        # The compiled loop returns to Python when there is a new one, and only then.
        rig.loop[stage.LOOK_NS] = rig.loop[stage.DEADLINE_NS] = 1 << 62
        rig.step()
        assert rig.loop[stage.DEADLINE_NS] != 0
        rig.resync[0] += 1
        rig.loop[stage.NOW_NS] += stage.LOOK_EVERY_NS
        rig.step()
        assert rig.loop[stage.DEADLINE_NS] == 0


def test_the_simulated_market_is_a_source_and_gives_fresh_snapshots():
    with rig_of(None, virtual=True) as rig:
        snapshots = 0
        for step in range(400):
            rig.step()
            rows = rig.take()
            snapshots += int((rows["kind"] == m.SNAPSHOT).sum())
            if step == 200:
                assert snapshots == 1
                rig.resync[0] += 1
                rig.feed.poll()
                rig.context.frames.words[1] = rig.context.frames.words[0]  # the rest of this buffer is not waited for
        assert snapshots == 2


def test_a_capture_is_a_source(tmp_path):
    path = tmp_path / "capture"
    frames = [(T0 + i, trade(i)) for i in range(1, 20)]
    path.write_bytes(b"".join(capture.format_line(*one) for one in frames))
    with rig_of(None, virtual=True, config=market_data.Config(source="capture", path=str(path))) as rig:
        twin = Twin(rig.instruments)
        same(everything(rig), [twin.frame(*one) for one in frames])


def test_a_capture_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(capture.CaptureError, match="no such file"):
        Rig(None, virtual=True, config=market_data.Config(source="capture", path=str(tmp_path / "none"))).close()


# ── virtual time without lock-step ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("period", [0, 700])
@pytest.mark.parametrize("seed", range(3))
def test_free_virtual_time_is_the_frames_and_the_venue_is_let_on_behind_it(seed, period):
    rng = random.Random(seed)
    frames = some_frames(rng, 200)
    with rig_of(Source(frames), virtual=True, timer_ns=period) as rig:
        rig.words[market_data_state.LOCKSTEP] = 0
        rig.venue[conductor.NEXT_DUE_NS] = T0 + 1
        found, before = [], 0
        while not rig.words[market_data_state.ENDED]:
            rig.step()
            found.append(rig.take())
            grants, granted = int(rig.venue[conductor.GRANTS]), int(rig.venue[conductor.GRANTED_NS])
            assert granted <= rig.words[market_data_state.LAST_NS], seed
            if grants != before:
                assert grants == before + 1
                assert granted >= rig.venue[conductor.NEXT_DUE_NS], "let on to what is not due"
                before = grants
                if rng.random() < 0.5:  # the venue serves the grant, and has something for a little later
                    rig.venue[conductor.NEXT_DUE_NS] = granted + rng.randrange(3000)
                    rig.venue[conductor.DONE] = grants
            elif rig.venue[conductor.DONE] != grants and rng.random() < 0.3:
                rig.venue[conductor.DONE] = grants
        assert before > 5
        rows = joined(found)
        assert rig.loop[stage.FINISHED] == 1
        check_stream(rows)
        assert int(rows["time_ns"][-1]) <= max(at for at, _ in frames)
        twin = Twin(rig.instruments)
        expected = [twin.frame(at, payload) for at, payload in frames]
        timers = rows["kind"] == m.TIMER
        if not period:
            assert not timers.any()
            same(rows, expected, f"seed {seed}")
        else:
            assert (np.diff(rows["time_ns"][timers]) >= period).all()
            assert timers.sum() > 10


def test_free_virtual_time_waits_for_room_and_drops_nothing():
    frames = [(T0 + at, diff(at + 1, at + 1, 40)) for at in range(60)]
    with rig_of(Source(frames), virtual=True, count=64) as rig:
        rig.words[market_data_state.LOCKSTEP] = 0
        found = []
        for _ in range(2_000):
            rig.step()
            found.append(rig.take(7))
        found.append(rig.take())
        twin = Twin(rig.instruments)
        same(joined(found), [twin.frame(at, payload) for at, payload in frames])
        assert rig.loop[stage.DROPS] == 0
        assert rig.loop[stage.FINISHED] == 1
