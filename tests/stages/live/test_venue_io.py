"""Frames out and in without a venue: half-sent ones, repeated reports, what is left to Python."""

from __future__ import annotations

import itertools
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from shrivenq.stages import messages as m
from shrivenq.stages import token_bucket
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import venue_io
from shrivenq.stages.live import venue_state as v
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import put_row
from tests.stages.live.orders_rig import OrdersRig
from tests.stages.venue_rig import currencies, drain, instruments_of


@pytest.fixture
def rig():
    made = OrdersRig("ws://127.0.0.1:1", SimpleNamespace(instruments=instruments_of(), currencies=currencies()))
    made.out = made.gateway.from_venue
    yield made
    made.close()


@pytest.fixture
def wire(rig):
    """Give the venue's end of a socket that the stage writes to."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    row = rig.venue.live.rows[0]
    row["descriptor"], row["mode"] = ours.fileno(), r.DIRECT
    rig.venue.words[v.SENDS] = 1
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.usefixtures("wire")
def test_a_whole_frame_goes_at_once(rig, wire):
    rig.venue.outbox[:5] = range(5)
    rig.venue.words[v.OUT_BEGIN], rig.venue.words[v.OUT_END] = 1, 5
    venue_io.send_out(rig.venue, rig.loop, 0, rig.venue.words, rig.venue.outbox)
    assert wire[1].recv(100) == bytes([1, 2, 3, 4])
    assert not rig.venue.words[v.OUT_END]
    assert not rig.venue.live.words[r.ATTENTION]


def test_what_is_left_of_a_frame_is_python_s_to_finish(rig, wire):
    ours, theirs = wire
    filler = b"x" * 4096
    sent = 0
    try:
        while True:
            sent += ours.send(filler)
    except BlockingIOError:
        pass
    size = len(rig.venue.outbox)
    rig.venue.outbox[:] = np.arange(size) % 251
    rig.venue.words[v.OUT_END] = size
    venue_io.send_out(rig.venue, rig.loop, 0, rig.venue.words, rig.venue.outbox)
    assert rig.venue.live.words[r.ATTENTION]
    assert (rig.venue.words[v.OUT_BEGIN], rig.venue.words[v.OUT_END]) == (0, size)
    # While it waits, no order is taken: frames never mix.
    assert rig.venue.words[v.OUT_END] != 0
    got = b""
    while len(got) < sent:
        got += theirs.recv(1 << 20)
    assert got == b"x" * sent


def test_a_broken_socket_ends_the_connection(rig, wire):
    wire[1].close()
    rig.venue.words[v.OUT_END] = 3
    venue_io.send_out(rig.venue, rig.loop, 0, rig.venue.words, rig.venue.outbox)
    row = rig.venue.live.rows[0]
    assert row["failed"] > 0
    assert row["mode"] == r.OFF
    assert rig.venue.live.words[r.ATTENTION]


def publish(rig, *rows, always=False):
    """Publish reports of these (kind, order id, target id); give what came through."""
    for at, (kind, order_id, target_id) in enumerate(rows):
        put_row(rig.venue.reports, at, kind, order_id, target_id, 0, 0)
    venue_io.publish(rig.venue, rig.loop, 0, len(rows), always)
    found = drain(rig.out)
    assert not len(found) or (np.diff(found["sequence"]) == 1).all()
    return [(int(one["kind"]), int(one["order_id"]), int(one["target_id"])) for one in found]


EVENTS = ((m.CANCELLED, 1, 1), (m.ACCEPTED, 2, 0), (m.REPLACED, 2, 1))


@pytest.mark.parametrize("order", list(itertools.permutations(EVENTS)), ids=str)
def test_answer_and_events_of_a_replacement_in_any_order_say_everything_once(rig, order):
    """What is passed on closes the old order and opens the new one, whatever comes first."""
    found = publish(rig, *order, *order)
    kinds = {kind for kind, _, _ in found}
    assert kinds >= {m.REPLACED} or kinds == {m.CANCELLED, m.ACCEPTED}
    assert len(found) <= 2
    assert len(found) == len(set(found))


def test_what_is_asked_for_is_always_told(rig):
    assert publish(rig, (m.ACCEPTED, 7, 0), (m.ACCEPTED, 7, 0)) == [(m.ACCEPTED, 7, 0)]
    assert publish(rig, (m.ACCEPTED, 7, 0), always=True) == [(m.ACCEPTED, 7, 0)]


def test_of_orders_that_are_not_ours_only_fills_matter(rig):
    put_row(rig.venue.reports, 1, m.FILL, 0, 0, 0, 0)
    assert publish(rig, (m.ACCEPTED, 0, 0), (m.CANCELLED, 0, 0)) == []
    assert publish(rig, (m.FILL, 0, 0)) == [(m.FILL, 0, 0)]


@pytest.mark.parametrize(
    ("kind", "told"),
    [(m.NEW, m.REJECTED), (m.CANCEL, m.CANCEL_REJECTED), (m.REPLACE, m.CANCEL_REJECTED), (m.QUERY, None)],
)
def test_a_refusal_is_definite_and_a_question_is_dropped(rig, kind, told):
    order = np.zeros(1, m.ORDER)
    order["kind"], order["order_id"], order["target_id"] = kind, 5, 4
    venue_io.refuse(rig.venue, rig.loop, order, 0, m.REASON["venue_rate"])
    found = drain(rig.out)
    assert [int(one["kind"]) for one in found] == ([] if told is None else [told])
    assert all(one["reason"] == m.REASON["venue_rate"] for one in found)


def frame(payload):
    return bytes([0x81, 126, len(payload) >> 8, len(payload) & 255]) + payload


def feed(rig, data):
    row = rig.venue.live.rows[0]
    filled = int(row["filled"])
    rig.venue.frames.data[filled : filled + len(data)] = np.frombuffer(data, np.uint8)
    row["filled"] += len(data)
    venue_io.parse(rig.venue, rig.loop, 0)
    return int(row["stopped"])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_understood_waits_for_python_and_so_does_all_behind_it(rig, seed):
    rng = np.random.default_rng(seed)
    garbage = bytes(rng.integers(0, 256, 200, np.uint8))
    assert feed(rig, frame(garbage) + frame(garbage)) == r.NOTICE, f"seed {seed}"
    row = rig.venue.live.rows[0]
    assert (row["special_begin"], row["special_stop"]) == (4, 204)
    assert row["parsed"] == 0
    assert rig.venue.live.words[r.ATTENTION]


def test_a_cut_frame_waits_for_its_rest_and_a_control_frame_is_the_protocol_s(rig):
    assert feed(rig, frame(b"x" * 130)[:50]) == r.MORE
    rig.venue.live.rows[0]["parsed"] = rig.venue.live.rows[0]["filled"] = 0
    assert feed(rig, b"\x89\x00") == r.SPECIAL


@pytest.mark.parametrize("kind", [a.THROTTLED, a.BANNED])
def test_who_is_limited_or_banned_may_cancel_by_fix_and_no_more(rig, kind):
    a.put_note(rig.venue.notes, 0, kind, 0, -1)
    venue_io.hear(rig.venue, rig.loop, 1)
    now, buckets = venue_io.venue_time(rig.venue, rig.loop), rig.venue.fix.buckets
    assert token_bucket.take(buckets, m.NEW, now) == token_bucket.THROTTLED
    assert token_bucket.take(buckets, m.CANCEL, now) == token_bucket.PASS
