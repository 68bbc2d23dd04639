"""Whatever a client sends, it is answered or ended, the venue goes on, and nobody else notices."""

from __future__ import annotations

import contextlib
import gc
import random
import re
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.pipeline.exchange import fix_members
from shrivenq.pipeline.exchange.fix_dictionary import FORMS, KNOWN, WORDS
from shrivenq.pipeline.exchange.limits import Rule
from tests.pipeline.exchange.exchange_rig import running
from tests.pipeline.exchange.fix_rig import Desk, encode, fix_connected, logon_fields, order_fields, time_text
from tests.pipeline.exchange.test_fix_wire import framed

SILENT = {"0", "3"}
"""Kinds that ask for nothing."""
QUIET = re.compile(rb"\x0135=[03]\x01")
MUTATIONS = 1_500


@pytest.fixture(autouse=True, scope="module")
def _many_logons():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fix_members, "LOGONS", Rule("CONNECTIONS", "SECOND", 30, 1_000_000))
        yield


def bodies(rng, number):
    """Give kind and body of a message that could be good."""
    name, target = f"h{number}", f"h{rng.randrange(number + 1)}"
    about = [(11, name), (rng.choice([37, 41]), rng.choice([target, str(rng.randrange(1, 50))])), (55, "BTCUSDT")]
    return rng.choice(
        [
            ("D", order_fields(name, _54=rng.choice("12"))),
            ("D", order_fields(name, _40="1", _44=None, _59=None)),
            ("D", order_fields(name, _40="4", _1100="4", _1101="1", _1107="2", _1109="U", _1102="120")),
            ("F", about),
            ("XAK", [*about, (38, "0.5")]),
            ("XCN", order_fields(name, _25033="2", _41=target)),
            ("q", [(11, name), (55, "BTCUSDT"), (530, "1")]),
            ("XLQ", [(6136, name)]),
            ("1", [(112, name)]),
            ("0", []),
        ]
    )


def mutate(rng, data):
    """Change a few bytes of a message; most often what is in a frame that stays right."""
    body = bytearray(data[data.index(b"\x0135=") + 1 : -7])
    for _ in range(rng.randint(1, 3)):
        at, what = rng.randrange(len(body)), rng.randrange(5)
        if what == 0:
            body[at] = rng.randrange(256)
        elif what == 1:
            body[at : at + rng.randint(1, 6)] = b""
        elif what == 2:
            body[at:at] = rng.choice([b"\x01", b"=", b"0", b"-", b".", b"\x0111=x", b"9" * 25, b"\x0158=a", b"1e5"])
        elif what == 3:
            body[at] = rng.choice(b"0123456789\x01=.-AZ")
        else:
            parts = bytes(body).split(b"\x01")
            rng.shuffle(parts)
            body = bytearray(b"\x01".join(parts))
        body = body or bytearray(b"x")
    return framed(bytes(body)) if rng.random() < 0.9 else data[:20] + bytes(body) + data[-7:]


@pytest.mark.parametrize("seed", range(2))
def test_mutated_messages_are_answered_or_end_the_session(seed):
    rng, answered = random.Random(seed), 0
    with Desk(orders=1_000_000) as desk:
        witness = desk.client(_25036="2")
        client = desk.client()
        for number in range(MUTATIONS):
            kind, body = bodies(rng, number)
            sent = time_text(desk.now_us() * 1000)
            data = encode(kind, client.sequence + 1, client.sender, body, sent=sent)
            client.sequence += 1
            data = mutate(rng, data) if rng.random() < 0.7 else data
            found = client.raw(data)
            answered += bool(found)
            if not client.socket.is_open:
                assert found[-1].kind == "5", f"seed {seed}: {data!r}"
                client = desk.client()
            elif not found:
                waits = client.frames._data != b""
                assert waits or QUIET.search(data), f"seed {seed}: {data!r}"
                if waits:  # for what a wrong length promised
                    client.cut()
                    client = desk.client()
            desk.seconds += 0.001
        assert [one[112] for one in witness.send("1", (112, "alive"))] == ["alive"]
        check_money(desk)
    assert answered > MUTATIONS // 4


def check_money(desk):
    """Check that nothing was made or lost: balances, and what open orders have locked."""
    free = dict.fromkeys(("BTC", "USDT"), 0)
    for account in (1, 2, 3):
        balances = desk.rig.engine.balances(account)
        locked = {"BTC": 0, "USDT": 0}
        for order in desk.rig.engine.open_orders(account):
            leaves = order.leaves
            if order.side == "SELL":
                locked["BTC"] += leaves * 1_000
            else:
                locked["USDT"] += order.price * leaves * 10
        for asset in free:
            assert balances[asset][1] == locked[asset]
            free[asset] += sum(balances[asset])
    assert free["BTC"] <= 3 * 100_00000000
    assert free["USDT"] <= 3 * 1_000_000_00000000


def test_the_mutations_reach_the_orders():
    """The test above means something: unmutated, every message is answered."""
    rng = random.Random(7)
    with Desk(orders=1_000_000) as desk:
        client = desk.client()
        for number in range(200):
            kind, body = bodies(rng, number)
            found = client.send(kind, *body)
            assert bool(found) is (kind not in SILENT), (kind, body)
            assert all(one.kind != "3" or one[25016] == "-1100" for one in found), found
            assert client.socket.is_open


tags = st.one_of(st.sampled_from(sorted(KNOWN)), st.integers(1, 99_999))
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)
values = st.one_of(texts, st.integers(-5, 2**70).map(str), st.decimals(-5, 10**20, allow_nan=False).map(str))
random_fields = st.dictionaries(tags, values, max_size=8)


@pytest.fixture(scope="module")
def shared():
    with Desk(orders=1_000_000) as desk:
        yield desk


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([*FORMS, "X", "8"]), random_fields), min_size=1, max_size=5), st.randoms())
def test_random_fields(shared, messages, rng):
    """Every required field is there, the rest is anything."""
    with shared.client() as client:
        for kind, extra in messages:
            form = FORMS.get(kind)
            fields = {tag: rng.choice(WORDS.get(tag, "1")) for tag in (form.required if form else ())} | extra
            if client.socket.is_open:
                found = client.send(kind, *fields.items())
                assert found or kind in SILENT
                assert kind in SILENT or found[0].kind in {"3", "5", "8", "9", "r", "XAR", "XLR", "0"}


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_before_and_after_a_logon(shared, data, logged_on):
    with shared.client(logged_on=logged_on) as client:
        found = client.raw(data)
        assert client.socket.is_open or found[-1].kind == "5"


def test_a_venue_on_the_network_survives_everybody(tmp_path):
    """Garbage, giants, half messages, floods and resets from many; one who behaves notices nothing."""
    rng, problems = random.Random(3), []
    with running(tmp_path) as rig, fix_connected(rig) as witness:
        rig.call(lambda: rig.loop.set_exception_handler(lambda _, context: problems.append(context)))
        for number in range(60):
            wire = socket.create_connection(("127.0.0.1", rig.fix_port), timeout=30)
            with wire, contextlib.suppress(OSError):
                wire.sendall(attack(rng, number))
                if number % 3 == 0:
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                elif number % 3 == 1:
                    wire.shutdown(socket.SHUT_WR)
                    while wire.recv(1 << 16):
                        pass
            assert witness.order(_44=str(50 + number))[0][150] == "0"
        while rig.call(lambda: len(rig.simulator.fix._connections)) > 1:
            witness.settle()
        assert [session.logon.sender for session in rig.call(rig.simulator.fix._members.all)] == [witness.sender]
        rig.call(gc.collect)
    assert problems == []


def attack(rng, number):
    """Give what a hostile client sends at once."""
    sent = time_text()
    sender = f"BAD{number}"
    logon = encode("A", 1, sender, logon_fields(sender, sent), sent=sent)
    orders = [encode("D", at + 2, sender, order_fields(f"{sender}-{at}", _44="1")) for at in range(20)]
    return rng.choice(
        [
            rng.randbytes(5_000),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"8=FIX.4.4\x019=9999\x01" + b"x" * 100_000,
            b"8=FIX.4.4\x019=8000\x0135=A\x01",
            logon[: rng.randrange(len(logon))],
            logon + orders[0][: rng.randrange(len(orders[0]))],
            logon + logon,
            logon + b"".join(orders[::-1]),
            logon + b"".join(orders) + rng.randbytes(100),
            logon + b"".join(mutate(rng, one) for one in orders),
            logon + encode("5", 2, sender, []) + b"".join(orders),
            re.sub(rb"96=....", b"96=AAAA", logon),
            b"",
        ]
    )
