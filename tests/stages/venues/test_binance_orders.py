"""Order text parses to exactly what the order says."""

from __future__ import annotations

import random
from decimal import Decimal

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages.messages import (
    BUY,
    CANCEL,
    FOK,
    GTC,
    INSTRUMENT,
    IOC,
    LIMIT,
    LIMIT_MAKER,
    MARKET,
    NEW,
    ORDER,
    QUERY,
    REPLACE,
    SELL,
    client_order_id,
)
from shrivenq.stages.venues.binance_orders import ORDER_TEXT_MAX, RUN_MAX, encode

METHODS = {NEW: "order.place", CANCEL: "order.cancel", REPLACE: "order.cancelReplace", QUERY: "order.status"}
TYPES = {LIMIT: "LIMIT", MARKET: "MARKET", LIMIT_MAKER: "LIMIT_MAKER"}
FORCES = {GTC: "GTC", IOC: "IOC", FOK: "FOK"}
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


def expected(record, instruments, run, timestamp_ms):
    """The request, spelled out slowly."""
    kind = int(record["kind"])
    order_id, target = (client_order_id(run, int(record[name])).decode() for name in ("order_id", "target_id"))
    params = {"symbol": instruments[0]["symbol"].decode()}
    if kind in (CANCEL, QUERY):
        params["origClientOrderId"] = target
    if kind == CANCEL:
        params["newClientOrderId"] = order_id
    if kind == REPLACE:
        params |= {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrigClientOrderId": target}
    if kind in (NEW, REPLACE):
        params["side"] = "BUY" if record["side"] == BUY else "SELL"
        params["type"] = TYPES[int(record["order_type"])]
        if record["order_type"] == LIMIT:
            params["timeInForce"] = FORCES[int(record["time_in_force"])]
        if record["order_type"] != MARKET:
            params["price"] = plain(record["price"], int(instruments[0]["price_decimals"]))
        params["quantity"] = plain(record["quantity"], int(instruments[0]["quantity_decimals"]))
        params |= {"newClientOrderId": order_id, "newOrderRespType": "ACK"}
    return {"id": order_id, "method": METHODS[kind], "params": params | {"timestamp": timestamp_ms}}


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
    )
    symbol = draw(st.text("ABCXYZ0189_", min_size=1, max_size=16)).encode()
    instruments = make_instrument(draw(st.integers(0, 8)), draw(st.integers(0, 8)), symbol)
    run = draw(st.text("abcdef0123456789", min_size=1, max_size=RUN_MAX)).encode()
    timestamp_ms = draw(st.integers(0, 10**16))
    text = text_of(order, instruments, run, timestamp_ms)
    wanted = expected(order[1], instruments, run, timestamp_ms)
    assert orjson.loads(text) == wanted
    assert list(orjson.loads(text)["params"]) == list(wanted["params"])
    assert len(wanted["id"]) <= 36
    assert b" " not in text


def test_the_text_is_this():
    assert text_of(make_order()) == (
        b'{"id":"a1b2c3d4-3-7","method":"order.place","params":{"symbol":"BTCUSDT","side":"BUY","type":"LIMIT",'
        b'"timeInForce":"GTC","price":"61837.63","quantity":"0.02","newClientOrderId":"a1b2c3d4-3-7",'
        b'"newOrderRespType":"ACK","timestamp":1723161255208}}'
    )


def test_the_longest_request_fits():
    order = make_order(
        kind=REPLACE, order_id=2**63 - 1, target_id=2**63 - 1, price=2**63 - 1, quantity=2**63 - 1, side=SELL
    )
    text = text_of(order, make_instrument(8, 8, b"A" * 16), b"r" * RUN_MAX, 2**63 - 1)
    assert len(orjson.loads(text)["params"]) == 11


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": 0},
        {"kind": 5},
        {"side": 0},
        {"order_type": 0},
        {"order_type": 9},
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
            kind=rng.choice(list(METHODS)), price=rng.randrange(1, 10**8), quantity=rng.randrange(1, 10**10)
        )
        count = encode(order, 1, instruments, run, 5, buffer)
        assert orjson.loads(buffer[:count].tobytes()) == expected(order[1], instruments, RUN, 5)
