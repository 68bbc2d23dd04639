"""Messages are what a slow FIX reader makes of them, field by field; sessions count and keep time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import messages as m
from shrivenq.stages.venues import fix
from shrivenq.stages.venues.binance_orders import RUN_MAX
from tests.stages.venues.binance_answers import OWN, REQUEST, RUN, make_instruments, spelled

S = 10**9
NOW = 1719487045223 * 10**6
TYPES = {m.NEW: "D", m.CANCEL: "F", m.REPLACE: "XCN", m.AMEND: "XAK", m.CANCEL_ALL: "q"}
INSTRUMENTS = make_instruments()
ORDER_TYPES = (m.LIMIT, m.MARKET, m.LIMIT_MAKER, m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT)


def make_order(**fields):
    order = np.zeros(2, m.ORDER)
    given_ = {"kind": m.NEW, "order_id": REQUEST, "target_id": OWN, "price": 1000, "quantity": 500_000_000}
    for name, value in {**given_, "side": m.BUY, "order_type": m.LIMIT, "time_in_force": m.FOK, **fields}.items():
        order[1][name] = value
    return order


def fields_of(text):
    """Take a message apart as any FIX engine does: (tag, value) in order, frame checked."""
    found = re.fullmatch(rb"8=FIX\.4\.4\x019=([1-9][0-9]*)\x01(.*\x01)10=([0-9]{3})\x01", text, re.DOTALL)
    assert found, text
    assert len(found[2]) == int(found[1])
    assert sum(text[:-7]) % 256 == int(found[3])
    pairs = [part.split(b"=", 1) for part in found[2].split(b"\x01")[:-1]]
    return [(int(tag), value.decode()) for tag, value in pairs]


def written(order, session=None, run=RUN, now=NOW, instruments=INSTRUMENTS):
    session = session or fix.make_session("EXAMPLE", 30)
    buffer = np.full(fix.MESSAGE_MAX + 1, 0xAA, np.uint8)
    begin, end = fix.encode(order, 1, instruments, np.frombuffer(run, np.uint8), session, now, buffer[:-1])
    assert buffer[-1] == 0xAA
    return buffer[begin:end].tobytes()


def plain(scaled, decimals):
    text = f"{Decimal(int(scaled)).scaleb(-decimals):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def header(kind, sequence, now=NOW, sender="EXAMPLE"):
    moment = datetime.fromtimestamp(now // 10**9, UTC)
    time = f"{moment:%Y%m%d-%H:%M:%S}.{now // 10**6 % 1000:03d}"
    return [(35, kind), (34, str(sequence)), (49, sender), (52, time), (56, "SPOT")]


def terms(record):
    """ClOrdID to self-trade prevention, spelled out slowly."""
    kind, instrument = int(record["order_type"]), INSTRUMENTS[record["instrument"]]
    found = [(11, spelled(int(record["order_id"]))), (38, plain(record["quantity"], 8))]
    limit = kind in (m.LIMIT, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT_LIMIT)
    number = {m.MARKET: 1, m.LIMIT: 2, m.LIMIT_MAKER: 2, m.STOP_LOSS: 3, m.TAKE_PROFIT: 3}.get(kind, 4)
    found.append((40, str(number)))
    if limit:
        found.append((59, {m.GTC: "1", m.IOC: "3", m.FOK: "4"}[int(record["time_in_force"])]))
    if kind == m.LIMIT_MAKER:
        found.append((18, "6"))
    if limit or kind == m.LIMIT_MAKER:
        found.append((44, plain(record["price"], int(instrument["price_decimals"]))))
    found += [(54, "1" if record["side"] == m.BUY else "2"), (55, instrument["symbol"].decode())]
    if kind >= m.STOP_LOSS:
        rises = {
            (m.STOP_LOSS, m.BUY),
            (m.STOP_LOSS_LIMIT, m.BUY),
            (m.TAKE_PROFIT, m.SELL),
            (m.TAKE_PROFIT_LIMIT, m.SELL),
        }
        up = "U" if (kind, int(record["side"])) in rises else "D"
        stop = plain(record["stop_price"], int(instrument["price_decimals"]))
        found += [(1100, "4"), (1101, "1"), (1107, "2"), (1109, up), (1102, stop)]
    return found + ([(25001, str(record["self_trade"]))] if record["self_trade"] else [])


def expected(record, sequence):
    kind = int(record["kind"])
    found = header(TYPES[kind], sequence)
    if kind in (m.NEW, m.REPLACE, m.AMEND):
        found.append((25000, "2000"))
    known = int(record["venue_order_id"])
    target = (37, str(known)) if known else (41, spelled(int(record["target_id"])))
    if kind == m.REPLACE:
        found += [(25033, "1"), target]
    if kind in (m.NEW, m.REPLACE):
        return found + terms(record)
    found.append((11, spelled(int(record["target_id" if kind == m.AMEND else "order_id"]))))
    if kind == m.AMEND:
        found.append((38, plain(record["quantity"], 8)))
    found.append((530, "1") if kind == m.CANCEL_ALL else target)
    return [*found, (55, INSTRUMENTS[record["instrument"]]["symbol"].decode())]


large = st.one_of(st.integers(1, 10**9), st.integers(1, 2**63 - 1))


@settings(deadline=None)
@given(st.data())
def test_random_orders_equal_the_reference(data):
    draw = data.draw
    order = make_order(
        kind=draw(st.sampled_from(list(TYPES))),
        order_id=draw(st.integers(0, 2**63 - 1)),
        target_id=draw(st.integers(0, 2**63 - 1)),
        price=draw(large),
        stop_price=draw(large),
        quantity=draw(large),
        side=draw(st.sampled_from([m.BUY, m.SELL])),
        order_type=draw(st.sampled_from(ORDER_TYPES)),
        time_in_force=draw(st.sampled_from([m.GTC, m.IOC, m.FOK])),
        self_trade=draw(st.integers(0, 6)),
        venue_order_id=draw(st.one_of(st.just(0), large)),
        instrument=draw(st.integers(0, 2)),
    )
    session = fix.make_session("EXAMPLE", 30)
    session.words[fix.NEXT_OUT] = sequence = draw(st.integers(1, 2**32 - 1))
    assert fields_of(written(order, session)) == expected(order[1], sequence)
    assert session.words[fix.NEXT_OUT] == sequence + 1
    assert session.words[fix.SENT_NS] == NOW
    kept = session.sent[sequence % fix.SENT_MAX]
    assert (kept["sequence"], kept["kind"], kept["instrument"]) == tuple(
        int(value) for value in (sequence, order[1]["kind"], order[1]["instrument"])
    )


def test_the_body_is_the_venue_s_example():
    """`11=1718096506197867067|38=5|40=2|44=10|54=1|55=LTCBNB|59=4`, in our own order of fields."""
    instruments = make_instruments()
    instruments[0]["symbol"] = b"LTCBNB"
    assert (
        written(make_order(), instruments=instruments)
        == (
            "8=FIX.4.4|9=117|35=D|34=2|49=EXAMPLE|52=20240627-11:17:25.223|56=SPOT|25000=2000|11=a1b2c3d4-3-9|38=5|40=2|"
            "59=4|44=10|54=1|55=LTCBNB|10=234|"
        )
        .replace("|", "\x01")
        .encode()
    )


def test_the_longest_and_the_shortest_message_fit():
    order = make_order(kind=m.REPLACE, order_id=2**63 - 1, target_id=2**63 - 1, price=2**63 - 1, quantity=2**63 - 1)
    order[1]["order_type"], order[1]["stop_price"], order[1]["self_trade"] = m.TAKE_PROFIT_LIMIT, 2**63 - 1, 6
    instruments = make_instruments()
    instruments[0]["symbol"] = b"A" * 16
    session = fix.make_session("12345678", 30)
    session.words[fix.NEXT_OUT] = 2**32 - 1
    text = written(order, session, b"r" * RUN_MAX, instruments=instruments)
    assert fields_of(text)
    assert len(text) < fix.MESSAGE_MAX - fix.BODY_AT - 32
    short = make_order(kind=m.CANCEL_ALL)
    assert fields_of(written(short, fix.make_session("A", 30), b"r"))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": m.QUERY},
        {"kind": m.TRADES},
        {"kind": 0},
        {"kind": 99},
        {"side": 0},
        {"order_type": 0},
        {"order_type": 9},
        {"time_in_force": 0},
        {"price": 0},
        {"quantity": 0},
        {"kind": m.AMEND, "quantity": 0},
        {"order_type": m.STOP_LOSS},
        {"self_trade": 7},
        {"self_trade": -1},
        {"order_id": -1},
        {"target_id": -1},
        {"instrument": 3},
        {"instrument": -1},
    ],
)
def test_an_order_that_is_none_has_no_message_and_no_number(fields):
    session = fix.make_session("EXAMPLE", 30)
    assert written(make_order(**fields), session) == b""
    assert session.words[fix.NEXT_OUT] == 2
    assert session.sent[2]["sequence"] == 0


def test_a_buffer_that_is_too_small():
    session, run = fix.make_session("EXAMPLE", 30), np.frombuffer(RUN, np.uint8)
    small = np.zeros(fix.MESSAGE_MAX - 1, np.uint8)
    assert fix.encode(make_order(), 1, INSTRUMENTS, run, session, NOW, small) == (0, 0)
    assert fix.encode_heartbeat(session, NOW, small, 0, 0, small) == (0, 0)
    assert fix.encode_test(session, NOW, small) == fix.encode_logout(session, NOW, small) == (0, 0)
    assert fix.encode_limits(session, NOW, small) == (0, 0)
    assert session.words[fix.NEXT_OUT] == 2


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_session_messages():
    session, buffer = fix.make_session("A-b_9", 30), np.zeros(fix.MESSAGE_MAX, np.uint8)
    data = np.frombuffer(b"..hello..", np.uint8)

    def text(ends):
        return fields_of(buffer[slice(*ends)].tobytes())

    assert text(fix.encode_heartbeat(session, NOW, data, 0, 0, buffer)) == header("0", 2, sender="A-b_9")
    answer = text(fix.encode_heartbeat(session, NOW, data, 2, 5, buffer))
    assert answer == [*header("0", 3, sender="A-b_9"), (112, "hello")]
    assert fix.encode_heartbeat(session, NOW, data, 0, fix.TEXT_MAX + 1, buffer) == (0, 0)
    assert text(fix.encode_test(session, NOW, buffer)) == [*header("1", 4, sender="A-b_9"), (112, "4")]
    assert text(fix.encode_logout(session, NOW, buffer)) == header("5", 5, sender="A-b_9")
    assert text(fix.encode_limits(session, NOW, buffer)) == [*header("XLQ", 6, sender="A-b_9"), (6136, "6")]
    assert session.words[fix.NEXT_OUT] == 7


def test_what_was_not_sent_leaves_no_gap():
    session = fix.make_session("A", 30)
    session.words[fix.SENT_NS] = 5
    assert fields_of(written(make_order(), session))[1] == (34, "2")
    fix.take_back(session, 5)
    assert (session.words[fix.NEXT_OUT], session.words[fix.SENT_NS]) == (2, 5)
    assert fields_of(written(make_order(), session))[1] == (34, "2")


def test_a_session_is_begun_anew():
    session = fix.make_session("first", 30)
    written(make_order(), session)
    session.words[fix.BROKEN] = 1
    fix.begin(session, "other")
    assert fields_of(written(make_order(), session))[:3] == [(35, "D"), (34, "2"), (49, "other")]
    assert not session.sent[3:]["sequence"].any()
    assert not session.words[fix.BROKEN]
    assert session.words[fix.HEARTBEAT_NS] == 30 * S
    with pytest.raises(ValueError, match="SenderCompID"):
        fix.begin(session, "a b c")


def test_silence_is_tested_then_given_up():
    session, buffer = fix.make_session("A", 30), np.zeros(fix.MESSAGE_MAX, np.uint8)
    words = session.words
    words[fix.SENT_NS] = words[fix.RECEIVED_NS] = NOW
    assert fix.due(session, NOW + 30 * S - 1) == fix.NOTHING
    assert fix.due(session, NOW + 30 * S) == fix.SEND_TEST
    fix.encode_test(session, NOW + 30 * S, buffer)
    assert fix.due(session, NOW + 59 * S) == fix.NOTHING
    assert fix.due(session, NOW + 60 * S) == fix.GIVE_UP
    words[fix.RECEIVED_NS] = NOW + 45 * S
    assert fix.due(session, NOW + 60 * S) == fix.SEND_HEARTBEAT
    assert words[fix.TESTED_NS] == 0
    fix.encode_heartbeat(session, NOW + 60 * S, buffer, 0, 0, buffer)
    assert fix.due(session, NOW + 60 * S) == fix.NOTHING


def test_the_next_moment_that_matters():
    session = fix.make_session("A", 30)
    words = session.words
    words[fix.SENT_NS], words[fix.RECEIVED_NS] = NOW + 5, NOW + 7
    for tested, expected in ((0, NOW + 5 + 30 * S), (NOW + 3, NOW + 3 + 30 * S)):
        words[fix.TESTED_NS] = tested
        assert fix.due_ns(session) == expected


@pytest.mark.parametrize(
    ("sender", "heartbeat", "reason"),
    [
        ("", 30, "SenderCompID"),
        ("123456789", 30, "SenderCompID"),
        ("a b", 30, "SenderCompID"),
        ("\u00e9", 30, "SenderCompID"),
        ("A\x01", 30, "SenderCompID"),
        ("A", 4, "HeartBtInt: found 4, allowed: 5 to 60 s"),
        ("A", 61, "HeartBtInt"),
    ],
)
def test_sessions_that_the_venue_would_refuse(sender, heartbeat, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        fix.make_session(sender, heartbeat)


@settings(deadline=None)
@given(st.integers(0, 4_102_444_800_000_000_000))
def test_times(now):
    buffer = np.zeros(32, np.uint8)
    end = fix.put_time(buffer, 1, now)
    moment = datetime.fromtimestamp(now // 10**9, UTC)
    assert buffer[1:end].tobytes().decode() == f"{moment:%Y%m%d-%H:%M:%S}.{now // 10**6 % 1000:03d}"


def test_a_session_s_messages_tell_the_time_whichever_way_it_goes():
    session, buffer = fix.make_session("ABC", 30), np.zeros(fix.MESSAGE_MAX, np.uint8)
    moment = 1_700_000_000_000_000_000
    for step in (0, 1_000_000, 998_000_000, 1_000_000, 86_400 * 10**9, -1_000_000, -3_600 * 10**9, 5 * 10**8):
        moment += step
        begin, end = fix.encode_test(session, moment, buffer)
        expected = np.zeros(32, np.uint8)
        expected = expected[: fix.put_time(expected, 0, moment)].tobytes()
        assert b"\x0152=" + expected + b"\x0156=SPOT\x01" in buffer[begin:end].tobytes()


def test_plain_python_writes_the_same():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "random or fit or session",
    ]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
