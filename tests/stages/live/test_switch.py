"""Switching: whatever the interleaving of two connections, every message is passed on once, in order."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shrivenq.stages.frames import BINARY, TEXT
from shrivenq.stages.live.switch import NEW, OLD, Switch, ids_of
from tests.stages.venues import sbe_frames


def message(stream, **data):
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def event(kind, number):
    if kind == "depth":
        return message("b@depth", e="depthUpdate", U=3 * number, u=3 * number + 2, b=[], a=[])
    if kind == "trade":
        return message("b@trade", e="trade", t=number)
    if kind == "agg":
        return message("b@aggTrade", e="aggTrade", a=number)
    if kind == "partial":
        return message("b@depth5", lastUpdateId=5 * number)
    return message("b@bookTicker", u=7 * number, b="1", B="1", a="2", A="1")


def binary(kind, number):
    """The same in SBE; some events have several trades."""
    if kind == "depth":
        return sbe_frames.depth(3 * number, 3 * number + 2, [(9_500_011, 5)] * (number % 3), [])
    if kind == "trade":
        return sbe_frames.trades([(4 * number + i, 9_500_011, 5, 1) for i in range(4)])
    if kind == "partial":
        return sbe_frames.depth20(5 * number, [(9_500_011, 5)], [(9_500_012, 5)])
    return sbe_frames.best(7 * number, (9_500_011, 5), (9_500_012, 5))


ENCODINGS = {
    TEXT: (event, ("depth", "trade", "agg", "partial", "quote")),
    BINARY: (binary, ("depth", "trade", "partial", "quote")),
}


def test_ids_are_read_from_every_kind_of_message():
    found = [ids_of(event(kind, 4)) for kind in ("depth", "trade", "agg", "partial", "quote")]
    assert [one[1:] for one in found] == [(12, 14, 1), (4, 4, 1), (4, 4, 1), (20, 20, 0), (28, 28, 0)]
    found = [ids_of(binary(kind, 4), BINARY) for kind in ("depth", "trade", "partial", "quote")]
    assert [one[1:] for one in found] == [(12, 14, 1), (16, 19, 1), (20, 20, 0), (28, 28, 0)]
    assert [one[0] for one in found] == ["BTCUSDT@10003", "BTCUSDT@10000", "BTCUSDT@10002", "BTCUSDT@10001"]
    found = {ids_of(sbe_frames.depth(1, 2, [], [], symbol=name), BINARY).stream for name in (b"A", b"B", b"\xff")}
    assert len(found) == 3
    for hostile in (
        b"",
        b"[]",
        b'{"stream":"x"}',
        b'{"stream":"x","data":{"u":[]}}',
        b"\x00\xff",
        b'{"stream":1,"data":7}',
    ):
        assert ids_of(hostile) is None
        assert ids_of(hostile, BINARY) is None
    whole = binary("depth", 2)
    assert not any(ids_of(whole[:size], BINARY) for size in range(len(whole)))
    assert ids_of(sbe_frames.trades([]), BINARY) is None
    assert ids_of(whole, TEXT) is None


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("flags", ENCODINGS)
def test_everything_once_and_in_order(flags, seed):
    """The server sends the same to both from when the new one subscribed; each connection lags as it likes.

    Some streams fall silent, many before the new one is there: they hold nothing up.
    """
    rng = random.Random(seed)
    spell, kinds = ENCODINGS[flags]
    counts = dict.fromkeys(kinds, 100)
    silent, silent_from = rng.sample(kinds, rng.randrange(len(kinds))), rng.randrange(40)
    sent = []
    for number in range(120):
        kind = rng.choice([one for one in kinds if number < silent_from or one not in silent])
        counts[kind] += 1
        sent.append(spell(kind, counts[kind]))
    subscribed = rng.randrange(20)
    old, new = list(sent), sent[subscribed:]
    before = rng.randrange(subscribed + 1)  # taken before anybody looked
    old = old[before:]
    old_left = len(new)  # half a second later the old one has brought what came before the subscription
    switch, passed = Switch(), []
    while old or new:
        if switch.state == OLD and old and (rng.random() < 0.5 or not new):
            one = old.pop(0)
            assert switch.take_old(one, flags)
            passed.append(one)
        elif new:
            one = new.pop(0)
            if switch.take_new(one, flags):
                passed.append(one)
        else:
            break
        if switch.state == OLD and len(old) <= old_left and switch.is_due() and rng.random() < 0.3:
            passed += [payload for payload, found in switch.change() if found == flags]
        if switch.state == NEW and switch.is_over():
            passed += new
            break
    assert switch.state == NEW or switch.is_proven(), f"seed {seed}: it never comes to it"
    for stream in {ids_of(one, flags).stream for one in sent}:
        got = [one for one in passed if ids_of(one, flags).stream == stream]
        want = [one for one in sent[before:] if ids_of(one, flags).stream == stream]
        assert got == want, f"seed {seed}: {stream}"


def test_streams_are_judged_one_by_one():
    switch = Switch()
    for old in (event("trade", 10), event("quote", 4)):
        assert switch.take_old(old)
    assert switch.missing() == ["b@trade", "b@bookTicker"], "the new one has said nothing"
    assert not switch.take_new(event("trade", 10))
    assert switch.is_proven(), "the other is quiet"
    assert not switch.take_new(event("depth", 4))
    assert switch.missing() == ["b@depth"], "the old one will bring it too"
    assert switch.take_old(event("depth", 4))
    assert switch.is_due()


def test_it_waits_while_the_new_one_does_not_reach_back():
    switch = Switch()
    assert switch.is_due()
    assert not switch.is_proven(), "nobody has said anything"
    assert switch.take_old(event("trade", 10))
    assert not switch.is_due()
    assert not switch.take_new(event("trade", 13))
    assert not switch.is_due()
    assert switch.take_old(event("trade", 11))
    assert not switch.is_due()
    assert switch.take_old(event("trade", 12))
    assert switch.is_proven()
    assert switch.change() == [(event("trade", 13), TEXT)]
    assert not switch.take_old(event("trade", 13))
    assert switch.is_over()


# ── hostile input ────────────────────────────────────────────────────────────────────────────────────────────────────


def mutated(rng, payload):
    """Change, cut, double or insert a few bytes."""
    made = bytearray(payload)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(made) + 1)
        draw = rng.randrange(4)
        if draw == 0 and at < len(made):
            made[at] = rng.randrange(256)
        elif draw == 1:
            del made[at : at + rng.choice((1, 2, 8, 1000))]
        elif draw == 2:
            made[at:at] = made[at : at + rng.choice((1, 8, 40))]
        else:
            made[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(made)


def drive(steps, spell):
    """Feed a switch: whatever comes, it answers, changes over when it says it may, and passes nothing on twice."""
    switch, passed, changed = Switch(), [], False
    for number, (is_old, payload, flags) in enumerate(steps):
        was_changed = changed
        taken = switch.take_old(payload, flags) if is_old else switch.take_new(payload, flags)
        if taken:
            passed.append((is_old, number))
        if not changed and switch.is_due() and number % 5 == 4:
            changed = True
            kept = switch.change()
            assert all(found in (TEXT, BINARY) for _, found in kept), spell
        assert not (was_changed and is_old and taken), spell
    switch.is_over()
    assert len(set(passed)) == len(passed), spell


def test_mutated_captures_leave_it_standing(data):
    """Real frames in JSON and built ones in SBE, damaged, on both connections."""
    (first, *_) = sorted((data / "binance" / "spot").glob("*.gz"))
    with gzip.open(first) as lines:
        real = [next(lines).rstrip(b"\n").partition(b" ")[2] for _ in range(400)]
    for seed in range(60):
        rng = random.Random(seed)
        steps = []
        for _ in range(60):
            flags = rng.choice((TEXT, BINARY))
            whole = rng.choice(real) if flags == TEXT else binary(rng.choice(ENCODINGS[BINARY][1]), rng.randrange(9))
            steps.append((rng.random() < 0.5, mutated(rng, whole) if rng.random() < 0.7 else whole, flags))
        drive(steps, f"seed {seed}")


IDS = st.integers(-(1 << 63), (1 << 63) - 1)
FRAMES = st.one_of(
    st.tuples(st.binary(max_size=120), st.sampled_from((TEXT, BINARY))),
    st.builds(lambda first, last: (sbe_frames.depth(first, last, [(1, 1)], []), BINARY), IDS, IDS),
    st.builds(lambda ids: (sbe_frames.trades([(one, 1, 1, 0) for one in ids]), BINARY), st.lists(IDS, max_size=4)),
    st.builds(lambda one: (sbe_frames.best(one, (1, 1), (2, 1)), BINARY), IDS),
    st.builds(lambda first, u: (message("b@depth", e="depthUpdate", U=first, u=u), TEXT), st.integers(), st.integers()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), FRAMES), max_size=40))
@example([(True, (b'{"stream":"a","data":{"u":1e999}}', TEXT)), (False, (b'{"stream":null,"data":{"u":1}}', TEXT))])
@example([(False, (b'{"stream":[1],"data":{"u":1}}', TEXT))])
def test_hypothesis_finds_nothing_that_it_does_not_bear(steps):
    drive([(is_old, payload, flags) for is_old, (payload, flags) in steps], "hypothesis")
