"""FIX connections as a state machine without I/O, and addresses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages.live import connection as c
from shrivenq.stages.live import fix_link
from shrivenq.stages.live.connection import Closed, Message
from shrivenq.stages.venues import fix
from tests.stages.live.fix_peer import messages

S_NS = 1_000_000_000
NOW = 1_719_487_045 * S_NS


class Clock:
    def __init__(self):
        self.now_ns = NOW

    def __call__(self):
        return self.now_ns


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connection(clock):
    made = fix_link.FixConnection(fix.make_session("CLIENT", 10), b"LOGON", 5, clock)
    assert made.data_to_send() == b"LOGON"
    return made


def said(connection):
    found, rest = messages(connection.data_to_send())
    assert rest == b""
    return [dict(one) for one in found]


def test_addresses():
    read = fix_link.read_address
    assert read("tcp+tls://fix-oe.binance.com:9000") == ("fix-oe.binance.com", 9000, True)
    assert read("tcp://127.0.0.1:1") == ("127.0.0.1", 1, False)
    assert read("tcp://[::1]:65535") == ("::1", 65535, False)


@pytest.mark.parametrize(
    "url",
    ["", "tcp://", "tcp://h", "tcp://h:", "tcp://h:0", "tcp://h:65536", "tcp://h:1/", "tcp://h:1?x", "tcp://a@h:1",
     "ws://h:1", "TCP://h:1", "tcp://h h:1", "tcp://h:1\n", "tcp://ü:1", "tcp://h:١"],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match="allowed: tcp"):
        fix_link.read_address(url)


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_message_is_shown_on_one_line(data):
    text = fix_link.shown(data)
    assert text.isprintable()
    assert len(text) <= fix_link.SHOWN
    assert all(isinstance(tag, bytes) for tag, _ in fix_link.fields_of(data))


def test_a_logon_is_waited_for(connection):
    assert connection.deadline_ns() == 5 + c.ANSWER_NS
    connection.tick(4 + c.ANSWER_NS)
    assert not connection.events
    connection.tick(5 + c.ANSWER_NS)
    assert connection.events.popleft() == Closed("no answer to the logon in 10 s")
    assert said(connection) == []  # nobody to say goodbye to
    assert connection.state == c.CLOSED


def test_silence(connection, clock):
    connection.opened()
    connection.tick(0)
    assert said(connection) == []
    clock.now_ns += 10 * S_NS
    connection.tick(0)
    assert [one[35] for one in said(connection)] == ["1"]
    clock.now_ns += 10 * S_NS - 1
    connection.tick(0)
    assert not connection.events
    clock.now_ns += 1
    connection.tick(0)
    assert connection.events.popleft() == Closed("the venue does not answer a TestRequest")
    assert [one[35] for one in said(connection)] == ["5"]
    connection.tick(0)
    assert not connection.events


def test_heartbeats_and_questions_are_numbered(connection, clock):
    connection.opened()
    connection.heartbeat(b"abc")
    connection.heartbeat(b"")
    connection.ask_limits()
    found = said(connection)
    assert [one[34] for one in found] == ["2", "3", "4"]
    assert (found[0][112], found[2][35], found[2][6136]) == ("abc", "XLQ", "4")
    assert 112 not in found[1]


def test_leaving(connection):
    connection.leave("too early", 0)
    assert said(connection) == []
    connection.opened()
    connection.leave("old", 100)
    connection.leave("again", 200)
    assert [one[35] for one in said(connection)] == ["5"]
    assert connection.leaving == "old"
    assert connection.deadline_ns() == 100 + fix_link.GOODBYE_NS
    connection.tick(99 + fix_link.GOODBYE_NS)
    assert connection.state == c.OPEN
    connection.tick(100 + fix_link.GOODBYE_NS)
    assert connection.events.popleft() == Closed("old")
    assert said(connection) == []  # once is enough


def test_a_connection_that_ends_while_we_leave_ended_for_our_reason(connection):
    connection.opened()
    connection.receive_notice(b"x", 0)
    assert connection.events.popleft() == Message(b"x")
    connection.leave("old", 0)
    connection.receive_eof(0, "closed by the venue")
    assert connection.events.popleft() == Closed("old")
    connection.receive_eof(0, "closed by the venue")
    assert not connection.events


def test_what_broke_the_session_is_told(connection):
    connection.opened()
    connection.receive_frames(b"8=FIX.4.4\x01\n\xff", 0)
    assert connection.events.popleft().reason.endswith("none at all: 8=FIX.4.4|?\ufffd")
    assert not connection.strict
