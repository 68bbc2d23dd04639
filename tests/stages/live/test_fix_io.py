"""FIX out and in, compiled: cut at any byte, half sent, mutated; what is read is what a slow reader reads."""

from __future__ import annotations

import itertools
import random
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shrivenq.shm import ring
from shrivenq.stages import control, live_venue, stage
from shrivenq.stages import messages as m
from shrivenq.stages.live import fix_io
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.venues import fix
from tests.stages.live.fix_peer import messages
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.venue_rig import drain, push
from tests.stages.venues.binance_answers import make_currencies, make_instruments
from tests.stages.venues.fix_messages import execution, message

ROW = fix_io.ROW


@pytest.fixture(scope="module")
def made():
    tables = SimpleNamespace(instruments=make_instruments(), currencies=make_currencies())
    rig = OrdersRig("ws://127.0.0.1:1", tables, order_entry="fix", fix_url="tcp://127.0.0.1:1", run=b"a1b2c3d4")
    yield rig
    rig.close()


@pytest.fixture
def rig(made):
    """A stage whose FIX session is up, as far as it knows."""
    made.venue.words[v.READY] = 1
    made.hold[control.HOLD] = 0
    made.venue.live.words[r.WAKE_NS] = 1 << 62
    drain(made.gateway.from_venue)
    begin_anew(made)
    return made


def begin_anew(rig):
    """Forget everything that came by FIX."""
    venue, row = rig.venue, rig.venue.live.rows[ROW]
    for name in ("stopped", "special_begin", "special_stop", "failed"):
        row[name] = 0
    row["parsed"] = row["filled"] = row["begin"]
    row["mode"] = r.DIRECT
    fix.begin(venue.fix.session, "ABCDEFGH")
    venue.fix.words[:] = 0
    venue.fix.words[v.READY] = 1
    venue.live.words[r.ATTENTION] = 0
    venue.seen.ids.entries[:] = 0
    venue.seen.ids.size[:] = 0


@pytest.fixture
def wire(rig):
    """Give the venue's end of a socket that the stage writes to."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    row = rig.venue.live.rows[ROW]
    row["descriptor"] = ours.fileno()
    rig.venue.fix.words[v.SENDS] = 1
    yield ours, theirs
    row["mode"] = r.OFF
    ours.close()
    theirs.close()


def turn(rig):
    """Let the stage take a step."""
    rig.loop[stage.DEADLINE_NS], rig.loop[stage.LOOK_NS] = time.monotonic_ns() + 1_000_000, 0
    live_venue.run(rig.venue, rig.loop)


def order(rig, **fields):
    terms = {"kind": m.NEW, "side": m.BUY, "price": 50_00, "quantity": 10**8, "order_type": m.LIMIT}
    push(rig.gateway.to_venue, **terms | {"time_in_force": m.GTC, "order_id": 5} | fields)


def got(theirs):
    """Give what the venue received: messages, each a dictionary."""
    theirs.setblocking(False)
    data = b""
    try:
        while more := theirs.recv(1 << 20):
            data += more
    except BlockingIOError:
        pass
    found, rest = messages(data)
    assert rest == b""
    return [dict(one) for one in found]


def reasons(rig):
    return [(int(one["kind"]), m.REASONS[one["reason"]]) for one in drain(rig.gateway.from_venue)]


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_goes_at_once(rig, wire):
    order(rig)
    order(rig, kind=m.CANCEL, order_id=6, target_id=5)
    turn(rig)
    assert [(one[35], one[34], one[49]) for one in got(wire[1])] == [("D", "2", "ABCDEFGH"), ("F", "3", "ABCDEFGH")]
    assert not rig.venue.fix.words[v.OUT_END]
    assert not rig.venue.live.words[r.ATTENTION]


@pytest.mark.parametrize(
    ("changed", "kind", "reason"),
    [
        ({"ready": 0}, m.REPLACE, "disconnected"),
        ({"other": 0}, m.NEW, "disconnected"),
        ({"held": control.STAGE_DOWN}, m.NEW, "held"),
        ({}, m.NEW, "malformed"),
    ],
)
def test_what_may_not_be_sent_comes_back_and_leaves_no_gap(rig, wire, changed, kind, reason):
    rig.venue.fix.words[v.READY] = changed.get("ready", 1)
    rig.venue.words[v.READY] = changed.get("other", 1)
    rig.hold[control.HOLD] = changed.get("held", 0)
    before = rig.venue.fix.session.words.copy()
    order(rig, kind=kind, quantity=0 if reason == "malformed" else 1)
    turn(rig)
    assert reasons(rig) == [(m.CANCEL_REJECTED if kind == m.REPLACE else m.REJECTED, reason)]
    assert (rig.venue.fix.session.words == before)[: fix.SECOND].all()
    assert got(wire[1]) == []


def test_ten_thousand_messages_in_ten_seconds_are_the_venue_s_limit(rig, wire):
    buckets = rig.venue.fix.buckets
    buckets.rows[0]["used"] = buckets.rows[0]["open"]
    buckets.rows[0]["interval"] = 1 << 60
    order(rig)
    order(rig, kind=m.CANCEL, order_id=6, target_id=5)
    turn(rig)
    assert reasons(rig) == [(m.REJECTED, "venue_rate")]
    assert [one[35] for one in got(wire[1])] == ["F"]
    assert (buckets.rows[0]["limit"], buckets.rows[0]["interval_ns"]) == (10_000, 10**10)
    buckets.rows[0]["used"] = buckets.rows[0]["interval"] = 0


def test_what_is_left_of_a_message_is_python_s_to_finish_and_nothing_overtakes_it(rig, wire):
    ours, theirs = wire
    filler = 0
    try:
        while True:
            filler += ours.send(b"x" * 4096)
    except BlockingIOError:
        pass
    order(rig)
    order(rig, order_id=6)
    turn(rig)
    words = rig.venue.fix.words
    assert words[v.OUT_END] > words[v.OUT_BEGIN]
    assert rig.venue.live.words[r.ATTENTION]
    assert ring.available(rig.venue.to_venue) == 1
    turn(rig)
    assert ring.available(rig.venue.to_venue) == 1
    while filler:
        filler -= len(theirs.recv(min(1 << 20, filler)))
    ours.send(rig.venue.fix.outbox[words[v.OUT_BEGIN] : words[v.OUT_END]].tobytes())  # as Python does
    words[v.OUT_BEGIN] = words[v.OUT_END] = rig.venue.live.words[r.ATTENTION] = 0
    turn(rig)
    assert [one[34] for one in got(theirs)] == ["2", "3"]


def test_questions_never_go_by_fix(rig, wire):
    rig.venue.words[v.READY] = 0
    order(rig, kind=m.QUERY, target_id=5)
    turn(rig)
    assert reasons(rig) == []
    assert got(wire[1]) == []


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

STREAM = [
    message(*execution(_11="a1b2c3d4-1-7"), sequence=1),
    message("0", sequence=2),
    message(*execution(_11="a1b2c3d4-1-8", _37=77), sequence=3),
    message(
        *("9", (11, "a1b2c3d4-1-9"), (41, "a1b2c3d4-1-8"), (55, "ETHBTC"), (25016, -2011), (58, "Unknown order sent.")),
        sequence=4,
    ),
]


def feed(rig, data):
    row = rig.venue.live.rows[ROW]
    filled = int(row["filled"])
    rig.venue.frames.data[filled : filled + len(data)] = np.frombuffer(data, np.uint8)
    row["filled"] += len(data)
    fix_io.parse(rig.venue, rig.loop, rig.venue.fix, ROW)
    return int(row["stopped"])


def found(rig):
    return [(int(one["kind"]), int(one["order_id"]) & 0xFF) for one in drain(rig.gateway.from_venue)]


EXPECTED = [(m.ACCEPTED, 7), (m.ACCEPTED, 8), (m.CANCEL_REJECTED, 9)]


def test_messages_cut_at_every_byte_are_the_same_messages(rig):
    stream = b"".join(STREAM)
    for at in range(len(stream) + 1):
        begin_anew(rig)
        assert feed(rig, stream[:at]) == r.MORE
        assert feed(rig, stream[at:]) == r.MORE
        assert found(rig) == EXPECTED, at
    assert rig.venue.fix.words[v.READY]


def test_a_byte_at_a_time(rig):
    for one in b"".join(STREAM):
        assert feed(rig, bytes([one])) == r.MORE
    assert found(rig) == EXPECTED


def test_a_message_for_python_waits_for_it_and_is_counted_once(rig):
    assert feed(rig, message("1", (112, "hello"), sequence=1) + STREAM[2].replace(b"34=3", b"34=2")) == r.NOTICE
    row = rig.venue.live.rows[ROW]
    begin, stop = int(row["special_begin"]), int(row["special_stop"])
    assert rig.venue.frames.data[begin:stop].tobytes() == message("1", (112, "hello"), sequence=1)
    for _ in range(3):
        assert feed(rig, b"") == r.NOTICE
    assert rig.venue.fix.session.words[fix.NEXT_IN] == 2
    assert found(rig) == []
    row["parsed"] = stop  # dealt with


@pytest.mark.parametrize(
    "data", [STREAM[2], b"\x00" * 30, STREAM[0][:-1] + b"x", b"8=FIX.4.2" + STREAM[0][9:]], ids=range(4)
)
def test_what_breaks_the_session_stops_everything(rig, data):
    assert feed(rig, data + b"".join(STREAM)) == r.SPECIAL
    assert not rig.venue.fix.words[v.READY]
    assert rig.venue.live.words[r.ATTENTION]
    assert feed(rig, b"") == r.SPECIAL
    assert found(rig) == []


@pytest.mark.parametrize("seed", range(4))
def test_mutated_streams_give_a_beginning_of_what_was_meant(rig, seed):
    """A sum over the message is no proof: what a mutation leaves whole is read as a reader of one message reads it."""
    generator, whole = random.Random(seed), b"".join(STREAM)
    for _ in range(300):
        begin_anew(rig)
        data, at = bytearray(whole), generator.randrange(len(whole))
        what = generator.randrange(3)
        if what == 0:
            data[at] ^= generator.randrange(1, 256)
        elif what == 1:
            del data[at : at + generator.randint(1, 20)]
        else:
            data[at:at] = bytes(generator.randrange(256) for _ in range(generator.randint(1, 20)))
        stopped = feed(rig, bytes(data))
        reports = found(rig)
        assert stopped in (r.MORE, r.SPECIAL), f"seed {seed}: {bytes(data)!r}"
        assert reports == EXPECTED[: len(reports)], f"seed {seed}: {bytes(data)!r}"
        assert stopped == r.MORE or not reports or len(reports) < len(EXPECTED) + 1


KINDS = {
    "new": execution(_11="a1b2c3d4-1-7"),
    "beat": ("0",),
    "note": ("1", (112, "x")),
    "foreign": execution(_55="XRPUSDT"),
}
GARBAGE = st.binary(min_size=24, max_size=80).filter(lambda data: not data.startswith(b"8="))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(st.sampled_from(list(KINDS)), st.tuples(st.sampled_from(list(KINDS)), st.integers(-2, 3)), GARBAGE)
    ),
    st.lists(st.integers(1, 300), min_size=1),
)
def test_any_stream_in_any_pieces_is_read_up_to_what_breaks_it(rig, items, pieces):
    """A slow reader: messages count while each is the next, and nothing counts behind the first that is not."""
    stream, expected, broken, sequence = b"", [], False, 1
    for item in items:
        if isinstance(item, bytes):
            stream, broken = stream + item, True
            continue
        kind, off = (item, 0) if isinstance(item, str) else item
        stream += message(*KINDS[kind], sequence=max(sequence + off, 1))
        broken = broken or max(sequence + off, 1) != sequence
        if not broken:
            expected.append(kind)
            sequence += 1
    begin_anew(rig)
    row, notices, at = rig.venue.live.rows[ROW], 0, 0
    for size in itertools.cycle(pieces):
        stopped = feed(rig, stream[at : at + size])
        at += size
        while stopped == r.NOTICE:  # as Python does
            notices += 1
            row["parsed"] = row["special_stop"]
            stopped = feed(rig, b"")
        if at >= len(stream) or stopped == r.SPECIAL:
            break
    assert (stopped == r.SPECIAL) == broken
    assert rig.venue.fix.session.words[fix.NEXT_IN] == len(expected) + 1
    assert notices == expected.count("note")
    assert found(rig) == [(m.ACCEPTED, 7)] * ("new" in expected)


def test_garbage_of_any_length_never_gets_through(rig):
    generator = random.Random(7)
    for size in (0, 1, 10, 23, 24, 100, 9_000):
        begin_anew(rig)
        stopped = feed(rig, bytes(generator.randrange(256) for _ in range(size)))
        assert stopped == (r.MORE if size < 24 else r.SPECIAL), size
        assert found(rig) == []


def test_a_full_ring_waits(rig):
    out = rig.venue.from_venue
    while ring.claim(out, 1):
        ring.next_slot(out)
        ring.publish(out)
    assert feed(rig, STREAM[0]) == r.FULL
    assert rig.venue.fix.session.words[fix.NEXT_IN] == 1
    assert len(drain(rig.gateway.from_venue)) == len(out.slots)
    assert feed(rig, b"") == r.MORE
    assert found(rig) == [(m.ACCEPTED, 7)]
