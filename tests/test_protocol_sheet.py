"""The examples of the protocol sheet as they stand there: what reads them, and the simulator beside them.

Each example is read by the compiled decoder and by the slow one, and the simulator's own message of the same name must
have the same keys in the same order, with values of the same kinds. SBE, signatures, FIX and the user data event have
their vectors beside their modules: test_binance_sbe, test_sbe, test_signing, test_accounts, test_sessions, test_fix,
test_user_data.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import websockets.sync.client

from shrivenq.stages import messages as m
from shrivenq.stages.venues.binance import EVENT_MAX, PADDING, decode
from shrivenq.stages.venues.binance_slow import decode_slow
from shrivenq.stages.venues.binance_symbols import make_symbols
from tests.pipeline.exchange.exchange_rig import FLOWING, running
from tests.pipeline.exchange.ws_api_rig import ALICE, BOB, CAROL, LIMIT, Rig

# ── section 4: market streams ────────────────────────────────────────────────────────────────────────────────────────

MS = 1672515782136
MARKET = {
    "trade": (
        '{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}',
        [(m.TRADE, m.SELLER_AGGRESSED, 100_000, 100_00000000)],
    ),
    "aggTrade": (
        (
            '{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,'
            '"T":1672515782136,"m":true,"M":true}'
        ),
        [(m.TRADE, m.SELLER_AGGRESSED, 100_000, 100_00000000)],
    ),
    "bookTicker": (
        '{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}',
        [(m.QUOTE, 0, 25_35190000, 31_21000000), (m.QUOTE, m.SIDE_ASK, 25_36520000, 40_66000000)],
    ),
    "depth@100ms": (
        '{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026","100"]]}',
        [(m.DIFF, 0, 157, 160), (m.LEVEL, 0, 240_000, 10_00000000), (m.LEVEL, m.SIDE_ASK, 260_000, 100_00000000)],
    ),
    "depth5@100ms": (
        '{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}',
        [(m.SNAPSHOT, 0, 0, 160), (m.LEVEL, 0, 240_000, 10_00000000), (m.LEVEL, m.SIDE_ASK, 260_000, 100_00000000)],
    ),
    "referencePrice": ('{"e":"referencePrice","s":"BAZUSD","r":"1.00","t":1770313263917}', None),
}
"""As the sheet has them, and what they become: kind, flags, price, quantity; its two dots stand for these numbers."""
SNAPSHOT = (
    '{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}',
    [
        (m.SNAPSHOT, 0, 0, 1027024),
        (m.LEVEL, 0, 4_00000000, 431_00000000),
        (m.LEVEL, m.SIDE_ASK, 4_00000200, 12_00000000),
    ],
)
"""Section 10."""
DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")


def shape(value):
    """Describe a JSON value: keys in their order, and what kind of value each has."""
    if isinstance(value, dict):
        return [(key, shape(one)) for key, one in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "decimal" if isinstance(value, str) and DECIMAL.fullmatch(value) else type(value).__name__


def make_instruments():
    instruments = np.zeros(2, m.INSTRUMENT)
    instruments["symbol"] = [b"BNBBTC", b"BNBUSDT"]
    instruments["price_decimals"] = instruments["quantity_decimals"] = 8
    return instruments


def records(text, name):
    """Decode both ways what a combined stream carries; the records but the last, which ends the event."""
    symbol = json.loads(text).get("s", "BNBBTC").lower()
    frame = f'{{"stream":"{symbol}@{name}","data":{text}}}'.encode()
    instruments = make_instruments()
    fast, slow = np.zeros(EVENT_MAX, m.TICK), np.zeros(EVENT_MAX, m.TICK)
    data = np.frombuffer(frame + bytes(PADDING), np.uint8)
    count = decode(data, 0, len(frame), make_symbols(instruments), instruments, fast, 7, 1)
    assert decode_slow(frame, make_symbols(instruments), instruments, slow, 7, 1) == count > 0
    assert fast.tobytes() == slow.tobytes()
    assert fast[count - 1]["kind"] == m.END
    return fast[: count - 1]


@pytest.mark.parametrize(("name", "text", "expected"), [
    *((name, *one) for name, one in MARKET.items() if one[1]), ("snapshot", *SNAPSHOT),
])  # fmt: skip
def test_a_market_message_becomes_these_records(name, text, expected):
    found = records(text, name)
    assert [(int(row["kind"]), int(row["flags"]), int(row["price"]), int(row["quantity"])) for row in found] == expected
    times = {int(row["venue_ns"]) for row in found if row["kind"] in (m.TRADE, m.DIFF)}
    assert times <= {MS * 10**6}
    if found[0]["kind"] == m.TRADE:
        assert found[0]["id"] == 12345
    if found[0]["kind"] == m.QUOTE:
        assert (found[0]["id"], found[0]["venue_ns"]) == (400900217, 0)


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    fast = {"reference_ms": 50}
    with running(tmp_path_factory.mktemp("sheet"), market=FLOWING, limits={"messages_s": 0}, streams=fast) as rig:
        yield rig


def test_the_simulator_s_market_messages_have_their_keys(venue):
    names = [f"btcusdt@{name}" for name in MARKET]
    found = {}
    with websockets.sync.client.connect(f"{venue.ws}/stream?streams={'/'.join(names)}", max_size=None) as one:
        while len(found) < len(names):
            message = json.loads(one.recv(30))
            assert list(message) == ["stream", "data"]
            data = message["data"]
            if all(data.get(side) for side in ("a", "b") if side in data):  # both sides are in the example
                found[message["stream"].partition("@")[2]] = data
        venue.call(venue.simulator.streams.shut_down)
        while (message := json.loads(one.recv(30)))["stream"] != "!serverShutdown":
            pass
    assert shape(message) == [("stream", "str"), ("data", [("e", "str"), ("E", "int")])]
    for name, (text, _) in MARKET.items():
        assert shape(found[name]) == shape(json.loads(text)), name


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            '{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","btcusdt@depth"],"id":1}',
            '{"result":null,"id":1}',
        ),
        ('{"method":"SET_PROPERTY","params":["combined",true],"id":"a1"}', '{"result":null,"id":"a1"}'),
        ('{"method":"SET_PROPERTY","params":["speed",true],"id":null}', 0),
        ('{"method":"SET_PROPERTY","params":["combined","true"],"id":1}', 1),
        ('{"method":"WISH","id":1}', 2),
        ("{", 3),
    ],
)
def test_control_messages(venue, request_, answer):
    with websockets.sync.client.connect(f"{venue.ws}/ws") as one:
        one.send(request_)
        found = json.loads(one.recv(30))
        while not {"result", "error", "code"} & found.keys():
            found = json.loads(one.recv(30))
    if isinstance(answer, int):
        error = found.get("error", found)
        assert (error["code"], shape(error["msg"])) == (answer, "str")
    else:
        assert found == json.loads(answer)


# ── section 8: the WebSocket API ─────────────────────────────────────────────────────────────────────────────────────

LOGON = (
    '{"apiKey":"..","authorizedSince":1649729873021,"connectedSince":1649729873021,"returnRateLimits":false,'
    '"serverTime":1649729873630,"userDataStream":false}'
)
ACK = (
    '{"symbol":"BTCUSDT","orderId":12569099453,"orderListId":-1,"clientOrderId":"4d96324ff9d44481926157ec08158a40",'
    '"transactTime":1660801715639}'
)
RESULT = [
    "price", "origQty", "executedQty", "origQuoteOrderQty", "cummulativeQuoteQty", "status", "timeInForce", "type",
    "side", "workingTime", "selfTradePreventionMode",
]  # fmt: skip
FILL = ["price", "qty", "commission", "commissionAsset", "tradeId"]
CANCELLED = [
    "symbol", "origClientOrderId", "orderId", "orderListId", "clientOrderId", "transactTime", "price", "origQty",
    "executedQty", "origQuoteOrderQty", "cummulativeQuoteQty", "status", "timeInForce", "type", "side",
    "selfTradePreventionMode",
]  # fmt: skip
POSITION = '{"e":"a","E":1,"u":1,"B":[{"a":"ETH","f":"10000.000000","l":"0.000000"}]}'


def test_a_logon_and_the_three_lengths_of_an_answer():
    client = Rig().client()
    assert shape(client.result("session.logon", signed=ALICE)) == shape(json.loads(LOGON))
    ack = client.result("order.place", {**LIMIT, "newOrderRespType": "ACK"})
    assert shape(ack) == shape(json.loads(ACK))
    result = client.result("order.place", {**LIMIT, "newOrderRespType": "RESULT"})
    assert list(result) == [*ack, *RESULT]
    client.result("order.place", {**LIMIT, "side": "SELL", "price": "99", "selfTradePreventionMode": "NONE"})
    full = client.result("order.place", {**LIMIT, "price": "99"})  # LIMIT: FULL is the default
    assert full.keys() == {*result, "fills"}
    stop = {"type": "STOP_LOSS_LIMIT", "stopPrice": "200", "price": "200"}
    assert list(client.result("order.place", {**LIMIT, **stop})) == list(ack)  # and ACK is that of the others


def test_a_fill_a_cancel_and_their_events():
    rig = Rig()
    client, other = rig.client(ALICE, follow=True), rig.client()
    order = client.result("order.place", LIMIT)
    client.sent.clear()
    sold = other.result("order.place", {**LIMIT, "side": "SELL", "quantity": "0.4"}, signed=BOB)
    assert [list(one) for one in sold["fills"]] == [FILL]
    fill, position = client.events()
    assert (fill["x"], fill["X"], fill["t"]) == ("TRADE", "PARTIALLY_FILLED", sold["fills"][0]["tradeId"])
    assert shape(position) == shape(json.loads(POSITION))
    cancelled = client.result("order.cancel", {"symbol": "BTCUSDT", "orderId": order["orderId"]})
    assert list(cancelled) == CANCELLED
    event = client.events("executionReport")[0]
    # Both carry the cancel's id, and the order's as the original.
    assert cancelled["clientOrderId"] == event["c"] != order["clientOrderId"]
    assert cancelled["origClientOrderId"] == event["C"] == order["clientOrderId"]
    assert (event["x"], event["X"], event["z"], cancelled["executedQty"]) == (
        "CANCELED",
        "CANCELED",
        "0.40000000",
        "0.40000000",
    )


def test_subscriptions_errors_and_the_end_of_a_session():
    rig = Rig()
    client = rig.client(ALICE)
    assert client.result("userDataStream.subscribe") == {"subscriptionId": 0}
    assert client.error("userDataStream.subscribe") == (400, -2035)
    wrong = client.ask("order.cancel", {"symbol": "BTCUSDT", "orderId": 7})
    assert list(wrong) == ["id", "status", "error", "rateLimits"]
    assert (wrong["status"], wrong["error"]) == (400, {"code": -2011, "msg": "Unknown order sent."})
    rig.venue.keyring.remove(ALICE)
    first = client.take('{"id":1,"method":"session.status"}')
    (revoked,) = [one for one in (first, *map(json.loads, client.sent)) if "status" in one]
    assert (revoked["id"], revoked["status"], revoked["error"]["code"]) == (None, 401, -2015)


@pytest.mark.parametrize(
    ("mode", "cancels", "places", "status", "code"),
    [
        ("STOP_ON_FAILURE", "SUCCESS", "SUCCESS", 200, None),
        ("STOP_ON_FAILURE", "FAILURE", "NOT_ATTEMPTED", 400, -2022),
        ("ALLOW_FAILURE", "FAILURE", "FAILURE", 400, -2022),
        ("ALLOW_FAILURE", "SUCCESS", "FAILURE", 409, -2021),
        ("ALLOW_FAILURE", "FAILURE", "SUCCESS", 409, -2021),
    ],
)
@pytest.mark.parametrize("key", [ALICE, BOB])
def test_the_five_rows_of_cancel_replace(key, mode, cancels, places, status, code):
    rig = Rig()
    client = rig.client()
    rig.client(CAROL).result("order.place", {**LIMIT, "side": "SELL", "price": "150"})
    number = client.result("order.place", LIMIT, signed=key)["orderId"] + (7 if cancels == "FAILURE" else 0)
    new = {**LIMIT, "type": "LIMIT_MAKER", "price": "160" if places == "FAILURE" else "101"}
    del new["timeInForce"]
    wanted = {**new, "cancelReplaceMode": mode, "cancelOrderId": number}
    answer = client.ask("order.cancelReplace", wanted, signed=key)
    detail = answer["result"] if status == 200 else answer["error"]["data"]
    assert answer["status"] == status
    assert list(detail) == ["cancelResult", "newOrderResult", "cancelResponse", "newOrderResponse"]
    assert (detail["cancelResult"], detail["newOrderResult"]) == (cancels, places)
    assert code is None or answer["error"]["code"] == code
    assert (detail["newOrderResponse"] is None) == (places == "NOT_ATTEMPTED")
    left = {one["price"] for one in client.result("openOrders.status", {"symbol": "BTCUSDT"}, signed=key)}
    assert left == {"100.00000000"} - ({"100.00000000"} if cancels == "SUCCESS" else set()) | (
        {"101.00000000"} if places == "SUCCESS" else set()
    )
