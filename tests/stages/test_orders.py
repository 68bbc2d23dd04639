"""The transition table against a plain dict of what may follow what, and slots against their ORDERs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.stages import messages as m
from shrivenq.stages import orders as o

LIVE = ("sent", "accepted", "partly_filled", "cancel_sent", "unknown")
ENDS = {"full_fill": "filled", "cancel": "cancelled", "replace": "replaced", "expire": "expired"}
FOLLOWS = {
    **{(state, event): after for state in LIVE for event, after in ENDS.items()},
    **{(state, "reject"): "rejected" for state in ("new", "sent", "cancel_sent", "unknown")},
    **{(state, "absence"): "rejected" for state in ("sent", "cancel_sent", "unknown")},
    **{(state, "silence"): "unknown" for state in ("sent", "cancel_sent", "unknown")},
    **{(state, "part_fill"): "partly_filled" for state in LIVE},
    **{(state, "send_cancel"): "cancel_sent" for state in LIVE},
    **{(state, "refuse_cancel"): "open" for state in ("accepted", "partly_filled", "cancel_sent")},
    **{(state, "accept"): "open" for state in LIVE},
    **{(state, "amend"): "open" for state in LIVE},
    ("new", "send"): "sent",
    ("sent", "accept"): "accepted",
    ("accepted", "accept"): "accepted",
    ("cancel_sent", "accept"): "cancel_sent",
    ("cancel_sent", "part_fill"): "cancel_sent",
    ("unknown", "send_cancel"): "unknown",
    ("unknown", "refuse_cancel"): "unknown",
}


class Twin:
    """One order, slowly."""

    def __init__(self):
        self.state, self.filled, self.known = "new", 0, False

    def advance(self, event):
        after = FOLLOWS.get((self.state, event))
        if after is None:
            return False
        if after == "open":
            after = "partly_filled" if self.filled else "accepted" if self.known else "sent"
        self.state = after
        return True


def slots_of(**fields):
    slots = np.zeros(2, o.ORDER_SLOT)
    for name, value in fields.items():
        slots[name] = value
    return slots


@pytest.mark.parametrize("state", range(len(o.STATES)))
@pytest.mark.parametrize("event", range(len(o.EVENTS)))
@pytest.mark.parametrize(("filled", "venue_order_id"), [(0, 0), (0, 7), (3, 7)])
def test_every_event_in_every_state(state, event, filled, venue_order_id):
    slots, illegal = slots_of(state=state, filled=filled, venue_order_id=venue_order_id), o.make_illegal()
    twin = Twin()
    twin.state, twin.filled, twin.known = o.STATES[state], filled, bool(venue_order_id)
    assert o.advance(slots, 1, event, illegal) == twin.advance(o.EVENTS[event])
    assert o.STATES[slots["state"][1]] == twin.state
    assert slots["state"][0] == state
    assert illegal.sum() == illegal[state, event] == ((o.STATES[state], o.EVENTS[event]) not in FOLLOWS)


@pytest.mark.parametrize("seed", range(5))
def test_random_lives(seed):
    chance = random.Random(seed)
    illegal = o.make_illegal()
    refused = 0
    for _ in range(300):
        slots, twin = slots_of(), Twin()
        for event in ["send"] * chance.randrange(2) + chance.choices(o.EVENTS, k=12):
            if event == "accept":
                slots["venue_order_id"], twin.known = 5, True
            done = twin.advance(event)
            assert o.advance(slots, 1, o.EVENTS.index(event), illegal) == done, f"seed {seed}"
            refused += not done
            if done and event in ("part_fill", "full_fill"):
                slots["filled"][1] += 1
                twin.filled += 1
            assert o.STATES[slots["state"][1]] == twin.state, f"seed {seed}"
            assert o.is_terminal(slots, 1) == (twin.state in (*ENDS.values(), "rejected")), f"seed {seed}"
    assert illegal.sum() == refused, f"seed {seed}"


def test_terminal_states_never_change():
    for state in range(len(o.STATES)):
        assert (o.TRANSITIONS[state] == -1).all() == (o.STATES[state] in (*ENDS.values(), "rejected"))


def test_a_slot_full_of_rubbish_is_not_obeyed():
    for state in (-1, 11, 127):
        slots, illegal = slots_of(state=state), o.make_illegal()
        assert not o.advance(slots, 0, o.ACCEPT, illegal)
        assert slots["state"][0] == state
        assert illegal.sum() == 1


def test_a_slot_begins_as_its_order():
    orders = np.frombuffer(random.Random(1).randbytes(3 * m.ORDER.itemsize), m.ORDER)
    slots = np.frombuffer(bytearray(random.Random(2).randbytes(2 * o.ORDER_SLOT.itemsize)), o.ORDER_SLOT)
    before = slots[:1].tobytes()
    o.begin(slots, 1, orders, 2)
    same = (set(o.ORDER_SLOT.names) & set(m.ORDER.names)) - {"venue_order_id"}  # not before the venue said
    assert {"order_id", "price", "side", "wire_ns", "risk_ns", "generation", "cause"} <= same
    for name in o.ORDER_SLOT.names:
        assert slots[name][1] == (orders[name][2] if name in same else 0), name
    assert slots[:1].tobytes() == before


def test_layout():
    assert o.ORDER_SLOT.itemsize == 192
    assert o.ORDER_SLOT.fields["order_id"][1] == 0
