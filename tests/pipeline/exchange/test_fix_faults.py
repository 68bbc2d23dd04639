"""What shall go wrong goes wrong in FIX too, by the names the other protocols have for it."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange import faults
from tests.pipeline.exchange.fix_rig import Desk, encode, order_fields, time_text
from tests.pipeline.exchange.ws_api_rig import CAROL


@pytest.fixture
def desk():
    with Desk() as found:
        yield found


def arm(desk, *rules):
    """Have things go wrong."""
    if not hasattr(desk, "faults"):
        desk.faults = faults.Faults(desk.venue, faults.Script())
    desk.run(desk.faults.arm, faults.Script(rules=[faults.Rule(**rule) for rule in rules]))


def test_an_acknowledgement_is_lost_without_a_gap(desk):
    client = desk.client()
    desk.client(key=CAROL).order("maker", _54="2", _38="0.5")
    arm(desk, {"on": "request", "name": "order.place", "action": "drop", "times": 1})
    (fill,) = client.order("a")
    assert fill.told(11, 150) == ("a", "F")
    assert client.order("b")[0].told(11, 150) == ("b", "0")


def test_a_connection_is_lost_before_the_order_comes(desk):
    client = desk.client()
    arm(desk, {"on": "request", "name": "order.place", "action": "disconnect", "times": 1})
    assert client.order("a") == []
    assert not client.socket.is_open
    assert desk.rig.engine.open_orders(1, "BTCUSDT") == []


@pytest.mark.parametrize(("action", "placed"), [("error_placed", True), ("error_not_placed", False)])
def test_an_outcome_that_is_unknown(desk, action, placed):
    client = desk.client()
    arm(desk, {"on": "request", "name": "order.place", "action": action, "times": 1})
    first, *rest = client.order("a")
    assert first.told(35, 11, 150, 25016) == ("8", "a", "8", "-1007")
    assert [one.told(11, 150) for one in rest] == ([("a", "0")] if placed else [])
    assert len(desk.rig.engine.open_orders(1, "BTCUSDT")) == placed


def test_frames_go_wrong_by_their_names(desk):
    client = desk.client()
    arm(desk, {"on": "response", "name": "order.place", "action": "drop", "times": 1})
    client.heard += 1  # a gap: the message that answers has a number
    assert client.order("a") == []
    arm(desk, {"on": "event", "name": "executionReport", "action": "disconnect"})
    assert client.order("b")[0].told(11, 150) == ("b", "0")
    desk.client(key=CAROL).order("c", _54="2")
    assert not client.socket.is_open


def test_a_report_is_repeated(desk):
    client = desk.client()
    arm(desk, {"on": "response", "action": "duplicate", "times": 1})
    client.sequence += 1
    sent = time_text(desk.now_us() * 1000)
    desk.run(client._take, encode("D", client.sequence, client.sender, order_fields("a"), sent=sent))
    assert len(client.socket.sent) == 2
    assert client.socket.sent[0] == client.socket.sent[1]


def test_a_message_can_wait_and_its_window_is_looked_at_again(desk):
    client = desk.client()
    arm(desk, {"on": "request", "name": "order.place", "action": "delay", "ms": 500, "times": 1})
    client.sequence += 1
    sent = time_text(desk.now_us() * 1000)
    message = encode("D", client.sequence, client.sender, [(25000, "100"), *order_fields("a")], sent=sent)
    client.frames.add(message)
    task = desk.loop.create_task(client.session.take(client.frames.next()))
    desk.wait(0.4)
    assert (client.new(), task.done()) == ([], False)
    desk.wait(0.3)
    (reject,) = client.new()
    assert (reject.told(25016), task.done()) == (("-1021",), True)
    assert desk.rig.engine.open_orders(1, "BTCUSDT") == []
