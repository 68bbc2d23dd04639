"""Order text parses to exactly what the order says."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from decimal import Decimal

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.messages import BUY, CANCEL, GTC, INSTRUMENT, LIMIT, NEW, ORDER, SELL, client_order_id
from shrivenq.stages.venues.binance_orders import FRAME_MAX, ORDER_TEXT_MAX, RUN_MAX, encode, encode_frame, next_mask

METHODS = {
    m.NEW: "order.place",
    m.CANCEL: "order.cancel",
    m.REPLACE: "order.cancelReplace",
    m.QUERY: "order.status",
    m.AMEND: "order.amend.keepPriority",
    m.CANCEL_ALL: "openOrders.cancelAll",
    m.TRADES: "myTrades",
}
LETTERS = dict(zip(METHODS, "NCRQALT", strict=True))
TYPES = {
    m.LIMIT: "LIMIT",
    m.MARKET: "MARKET",
    m.LIMIT_MAKER: "LIMIT_MAKER",
    m.STOP_LOSS: "STOP_LOSS",
    m.STOP_LOSS_LIMIT: "STOP_LOSS_LIMIT",
    m.TAKE_PROFIT: "TAKE_PROFIT",
    m.TAKE_PROFIT_LIMIT: "TAKE_PROFIT_LIMIT",
}
FORCES = {m.GTC: "GTC", m.IOC: "IOC", m.FOK: "FOK"}
MODES = ("", "NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER")
RUN = b"a1b2c3d4"


def make_order(**fields):
    order = np.zeros(2, ORDER)
    given_ = {"kind": NEW, "order_id": 3 << 40 | 7, "target_id": 3 << 40 | 6, "price": 6183763, "quantity": 2000000}
    for name, value in {**given_, "side": BUY, "order_type": LIMIT, "time_in_force": GTC, **fields}.items():
        order[1][name] = value
    return order


def make_instrument(price_decimals=2, quantity_decimals=8, symbol=b"BTCUSDT"):
    instruments = np.zeros(1, INSTRUMENT)
    instruments[0]["symbol"] = symbol
    instruments[0]["price_decimals"], instruments[0]["quantity_decimals"] = price_decimals, quantity_decimals
    return instruments


def text_of(order, instruments=None, run=RUN, timestamp_ms=1723161255208):
    buffer = np.full(ORDER_TEXT_MAX + 1, 0xAA, np.uint8)
    instruments = make_instrument() if instruments is None else instruments
    count = encode(order, 1, instruments, np.frombuffer(run, np.uint8), timestamp_ms, buffer[:-1])
    assert buffer[-1] == 0xAA
    return buffer[:count].tobytes()


def plain(scaled, decimals):
    text = f"{Decimal(int(scaled)).scaleb(-decimals):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def identity(record, timestamp_ms):
    """The request's own name."""
    kind, order_id, target_id = (int(record[name]) for name in ("kind", "order_id", "target_id"))
    if kind in (m.QUERY, m.TRADES):
        order_id = timestamp_ms
    if kind in (m.NEW, m.CANCEL_ALL):
        target_id = 0
    return f"{LETTERS[kind]}{int(record['instrument']):03x}{order_id:016x}{target_id:016x}"


def terms(record, instruments, order_id):
    """Side to response type."""
    kind_of = TYPES[int(record["order_type"])]
    found = {"side": "BUY" if record["side"] == BUY else "SELL", "type": kind_of}
    price_decimals = int(instruments[0]["price_decimals"])
    if kind_of.endswith("LIMIT"):
        found["timeInForce"] = FORCES[int(record["time_in_force"])]
    if "LIMIT" in kind_of:
        found["price"] = plain(record["price"], price_decimals)
    if kind_of.startswith(("STOP", "TAKE")):
        found["stopPrice"] = plain(record["stop_price"], price_decimals)
    if record["self_trade"]:
        found["selfTradePreventionMode"] = MODES[record["self_trade"]]
    found["quantity"] = plain(record["quantity"], int(instruments[0]["quantity_decimals"]))
    return found | {"newClientOrderId": order_id, "newOrderRespType": "ACK", "recvWindow": 2000}


def expected(record, instruments, run, timestamp_ms):
    """The request, spelled out slowly."""
    kind = int(record["kind"])
    order_id, target = (client_order_id(run, int(record[name])).decode() for name in ("order_id", "target_id"))
    params = {"symbol": instruments[0]["symbol"].decode()}
    if kind in (m.CANCEL, m.QUERY, m.AMEND):
        known = int(record["venue_order_id"])
        params |= {"orderId": known} if known else {"origClientOrderId": target}
    if kind == m.CANCEL:
        params["newClientOrderId"] = order_id
    if kind == m.AMEND:
        quantity = plain(record["quantity"], int(instruments[0]["quantity_decimals"]))
        params |= {"newClientOrderId": target, "recvWindow": 2000, "newQty": quantity}
    if kind == m.TRADES:
        params |= {"limit": 1000, "orderId": int(record["venue_order_id"])}
    if kind == m.REPLACE:
        params |= {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": target}
    if kind in (m.NEW, m.REPLACE):
        params |= terms(record, instruments, order_id)
    params["timestamp"] = timestamp_ms
    return {"id": identity(record, timestamp_ms), "method": METHODS[kind], "params": params}


large = st.one_of(st.integers(1, 10**9), st.integers(1, 2**63 - 1), st.integers(1, 10**6).map(lambda n: n * 10**8))


@settings(deadline=None)
@given(st.data())
def test_random_orders_equal_the_reference(data):
    draw = data.draw
    order = make_order(
        kind=draw(st.sampled_from(list(METHODS))),
        order_id=draw(st.integers(0, 2**63 - 1)),
        target_id=draw(st.integers(0, 2**63 - 1)),
        price=draw(large),
        quantity=draw(large),
        side=draw(st.sampled_from([BUY, SELL])),
        order_type=draw(st.sampled_from(list(TYPES))),
        time_in_force=draw(st.sampled_from(list(FORCES))),
        stop_price=draw(large),
        self_trade=draw(st.integers(0, 6)),
        venue_order_id=draw(st.one_of(st.just(0), large)),
    )
    if order[1]["kind"] == m.TRADES:
        order[1]["venue_order_id"] = draw(large)
    symbol = draw(st.text("ABCXYZ0189_", min_size=1, max_size=16)).encode()
    instruments = make_instrument(draw(st.integers(0, 8)), draw(st.integers(0, 8)), symbol)
    run = draw(st.text("abcdef0123456789", min_size=1, max_size=RUN_MAX)).encode()
    timestamp_ms = draw(st.integers(0, 10**16))
    text = text_of(order, instruments, run, timestamp_ms)
    wanted = expected(order[1], instruments, run, timestamp_ms)
    assert orjson.loads(text) == wanted
    assert list(orjson.loads(text)["params"]) == list(wanted["params"])
    assert len(wanted["id"]) <= 36
    assert len(wanted["params"].get("newClientOrderId", "")) <= 36
    assert b" " not in text


def test_the_text_is_this():
    assert text_of(make_order()) == (
        b'{"id":"N00000000300000000070000000000000000","method":"order.place","params":{"symbol":"BTCUSDT",'
        b'"side":"BUY","type":"LIMIT","timeInForce":"GTC","price":"61837.63","quantity":"0.02",'
        b'"newClientOrderId":"a1b2c3d4-3-7","newOrderRespType":"ACK","recvWindow":2000,"timestamp":1723161255208}}'
    )


def test_the_longest_request_fits():
    order = make_order(
        kind=m.REPLACE, order_id=2**63 - 1, target_id=2**63 - 1, price=2**63 - 1, quantity=2**63 - 1, side=SELL
    )
    order[1]["order_type"], order[1]["stop_price"], order[1]["self_trade"] = m.TAKE_PROFIT_LIMIT, 2**63 - 1, 2
    text = text_of(order, make_instrument(8, 8, b"A" * 16), b"r" * RUN_MAX, 2**63 - 1)
    assert len(orjson.loads(text)["params"]) == 14
    assert len(text) < ORDER_TEXT_MAX - 32


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": 0},
        {"kind": m.ECHO},
        {"kind": 9},
        {"kind": -1},
        {"side": 0},
        {"order_type": 0},
        {"order_type": 9},
        {"order_type": m.STOP_LOSS_LIMIT},
        {"order_type": m.TAKE_PROFIT, "stop_price": -1},
        {"self_trade": 7},
        {"self_trade": -1},
        {"kind": m.TRADES},
        {"kind": m.AMEND, "quantity": 0},
        {"time_in_force": 0},
        {"price": 0},
        {"price": -1},
        {"quantity": 0},
        {"quantity": -5},
        {"order_id": -1},
        {"kind": CANCEL, "target_id": -1},
        {"instrument": 1},
        {"instrument": -1},
    ],
)
def test_an_order_that_is_none_has_no_text(fields):
    assert text_of(make_order(**fields)) == b""


def test_a_buffer_or_run_id_that_will_not_do_gives_no_text():
    order, run = make_order(), np.frombuffer(RUN, np.uint8)
    assert encode(order, 1, make_instrument(), run, 1, np.zeros(ORDER_TEXT_MAX - 1, np.uint8)) == 0
    assert text_of(order, run=b"r" * (RUN_MAX + 1)) == b""


def test_a_text_leaves_nothing_of_the_one_before():
    rng = random.Random(3)
    buffer, run, instruments = np.zeros(ORDER_TEXT_MAX, np.uint8), np.frombuffer(RUN, np.uint8), make_instrument()
    for _ in range(500):
        order = make_order(
            kind=rng.choice([m.NEW, m.CANCEL, m.REPLACE, m.QUERY, m.AMEND]),
            price=rng.randrange(1, 10**8),
            quantity=rng.randrange(1, 10**10),
        )
        count = encode(order, 1, instruments, run, 5, buffer)
        assert orjson.loads(buffer[:count].tobytes()) == expected(order[1], instruments, RUN, 5)


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_frame(frame):
    """Read a client's frame as the venue does."""
    reader = StreamReader()
    reader.feed_data(frame)
    parser = Frame.parse(reader.read_exact, mask=True)
    try:
        next(parser)
    except StopIteration as done:
        assert reader.buffer == b""
        return done.value
    raise AssertionError("the frame is not complete")


@settings(deadline=None)
@given(st.sampled_from(list(METHODS)), st.integers(0, 10**13), st.integers(1, 2**32 - 1), st.text("AB", max_size=16))
def test_a_frame_is_what_a_server_reads(kind, timestamp_ms, seed, symbol):
    order, masks = make_order(kind=kind, venue_order_id=7), np.array([seed])
    instruments, run = make_instrument(symbol=symbol.encode()), np.frombuffer(RUN, np.uint8)
    buffer = np.full(FRAME_MAX + 1, 0xAA, np.uint8)
    begin, end = encode_frame(order, 1, instruments, run, timestamp_ms, masks, buffer[:-1])
    frame = buffer[begin:end].tobytes()
    read = read_frame(frame)
    assert (read.opcode, read.fin, bytes(read.data)) == (
        Opcode.TEXT,
        True,
        text_of(order, instruments, RUN, timestamp_ms),
    )
    assert frame[4 - begin : 8 - begin] == int(masks[0]).to_bytes(4, "little")
    assert buffer[-1] == 0xAA


def test_short_and_long_frames_both_occur():
    lengths = set()
    for kind in (m.CANCEL_ALL, NEW):
        for timestamp_ms in (1, 1723161255208):
            buffer = np.zeros(FRAME_MAX, np.uint8)
            run, instruments = np.frombuffer(RUN, np.uint8), make_instrument(symbol=b"A")
            begin, end = encode_frame(make_order(kind=kind), 1, instruments, run, timestamp_ms, np.array([9]), buffer)
            lengths.add(end - begin - (6 if begin else 8) > 125)
            assert bool(begin) == (end - 8 <= 125)
    assert lengths == {False, True}


def test_an_order_that_is_none_has_no_frame():
    run, instruments, masks = np.frombuffer(RUN, np.uint8), make_instrument(), np.array([9])
    frame = np.zeros(FRAME_MAX, np.uint8)
    assert encode_frame(make_order(side=0), 1, instruments, run, 1, masks, frame) == (0, 0)
    assert encode_frame(make_order(), 1, instruments, run, 1, masks, frame[:-1]) == (0, 0)


@kernel
def draw(masks):
    return next_mask(masks)


def test_masks_differ_and_are_32_bits():
    masks = np.array([1])
    drawn = [draw(masks) for _ in range(10_000)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 < mask < 2**32 for mask in drawn)
    assert len({mask >> 31 for mask in drawn}) == 2


def test_plain_python_writes_the_same():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "this or fits or server"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
