"""Switching: whatever the interleaving of two connections, every message is passed on once, in order."""

from __future__ import annotations

import json
import random

import pytest

from shrivenq.stages.live.switch import NEW, OLD, Switch, ids_of


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


def test_ids_are_read_from_every_kind_of_message():
    found = [ids_of(event(kind, 4)) for kind in ("depth", "trade", "agg", "partial", "quote")]
    assert [one[1:] for one in found] == [(12, 14, 1), (4, 4, 1), (4, 4, 1), (20, 20, 0), (28, 28, 0)]
    for hostile in (
        b"",
        b"[]",
        b'{"stream":"x"}',
        b'{"stream":"x","data":{"u":[]}}',
        b"\x00\xff",
        b'{"stream":1,"data":7}',
    ):
        assert ids_of(hostile) is None


@pytest.mark.parametrize("seed", range(200))
def test_everything_once_and_in_order(seed):
    """The server sends the same to both from when the new one subscribed; each connection lags as it likes."""
    rng = random.Random(seed)
    kinds = ("depth", "trade", "agg", "partial", "quote")
    counts = dict.fromkeys(kinds, 100)
    sent = []
    for _ in range(120):
        kind = rng.choice(kinds)
        counts[kind] += 1
        sent.append(event(kind, counts[kind]))
    subscribed = rng.randrange(20)
    old, new = list(sent), sent[subscribed:]
    before = rng.randrange(subscribed + 3)  # taken before anybody looked
    old = old[before:]
    # Half a second later the new one has brought those as well, and the old one what came before the subscription.
    new_left, old_left = len(new) - max(0, before - subscribed), len(new)
    switch, passed = Switch(), []
    while old or new:
        if switch.state == OLD and old and rng.random() < 0.5:
            one = old.pop(0)
            assert switch.take_old(one)
            passed.append(one)
        elif new:
            one = new.pop(0)
            if switch.take_new(one):
                passed.append(one)
        elif switch.state == NEW:
            break
        settled = len(new) <= new_left and len(old) <= old_left
        if switch.state == OLD and settled and switch.is_due() and rng.random() < 0.3:
            passed += switch.change()
            if switch.is_over():
                passed += new
                break
        elif switch.state == NEW and switch.is_over():
            passed += new
            break
    for kind in ("depth", "trade", "agg", "partial", "quote"):
        mark = {"agg": b"@aggTrade", "partial": b"@depth5", "quote": b"@bookTicker"}.get(kind, f'@{kind}"'.encode())
        got = [one for one in passed if mark in one]
        want = [one for one in sent if mark in one]
        assert got == want[len(want) - len(got) :], f"seed {seed}: {kind}"


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
    assert switch.change() == [event("trade", 13)]
    assert not switch.take_old(event("trade", 13))
    assert switch.is_over()
