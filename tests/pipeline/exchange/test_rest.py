"""REST over the network: parameters, signatures, times, limits, headers; what the venue says to each mistake."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.pipeline.exchange.requests import METHODS
from shrivenq.pipeline.exchange.rest import ROUTES, split_signature
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, OTHER, OTHER_SECRET, TRADER, running

PRIVATE = load_pem_private_key(ED25519_PEM.encode(), None)
LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "100"}
SIGNED = [route for route, name in ROUTES.items() if METHODS[name].security != "NONE"]


class Client:
    """A client that signs by hand."""

    def __init__(self, rig):
        self.http = httpx.Client(base_url=rig.rest + "/api/v3/")

    def ask(self, method, path, params=None, *, key=None, body=None, headers=None, **changed):
        """Send a request, signed if a key is named; `changed` may set timestamp, recvWindow or signature."""
        params = dict(params or {})
        headers = dict(headers or {})
        query = urlencode(params)
        if key:
            headers["X-MBX-APIKEY"] = key
            own = {"timestamp": int(time.time() * 1000)} | {k: v for k, v in changed.items() if k != "signature"}
            query = urlencode({k: v for k, v in (params | own).items() if v is not None})
            payload = query + (body or "")
            signature = changed.get("signature", self.sign(key, payload))
            if signature is not None:
                query += "&signature=" + quote(signature, safe="")
        return self.http.request(
            method,
            path + ("?" + query if query else ""),
            content=body,
            headers=headers | ({"Content-Type": "application/x-www-form-urlencoded"} if body else {}),
        )

    @staticmethod
    def sign(key, payload):
        """Sign with Ed25519 for the one key and HMAC for the other."""
        if key == TRADER:
            return base64.b64encode(PRIVATE.sign(payload.encode())).decode()
        return hmac.new(OTHER_SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("rest"), limits={"request_weight": 1_000_000, "orders_10s": 100_000}) as found:
        yield found


@pytest.fixture
def client(rig):
    found = Client(rig)
    yield found
    for key in (TRADER, OTHER):
        found.ask("DELETE", "openOrders", {"symbol": "BTCUSDT"}, key=key)
    found.http.close()


def wrong(response, status, code, msg=None):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json;charset=UTF-8"
    assert response.json()["code"] == code, response.text
    if msg is not None:
        assert response.json()["msg"] == msg


def test_what_anybody_may_ask(client):
    assert client.ask("GET", "ping").json() == {}
    answer = client.ask("GET", "time").json()
    assert abs(answer["serverTime"] - time.time() * 1000) < 60_000
    assert client.ask("GET", "depth", {"symbol": "ETHUSDT"}).json() == {"lastUpdateId": 0, "bids": [], "asks": []}
    info = client.ask("GET", "exchangeInfo").json()
    assert [one["symbol"] for one in info["symbols"]] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize("key", [TRADER, OTHER])
def test_an_order_lives_and_dies(client, key):
    placed = client.ask("POST", "order", LIMIT | {"newClientOrderId": "my-1"}, key=key)
    assert placed.status_code == 200
    assert placed.json()["status"] == "NEW"
    assert placed.headers["x-mbx-order-count-10s"].isdigit()
    assert placed.headers["x-mbx-order-count-1d"].isdigit()
    which = {"symbol": "BTCUSDT", "orderId": placed.json()["orderId"]}
    assert client.ask("GET", "order", which, key=key).json()["clientOrderId"] == "my-1"
    assert [one["orderId"] for one in client.ask("GET", "openOrders", key=key).json()] == [which["orderId"]]
    amended = client.ask("PUT", "order/amend/keepPriority", which | {"newQty": "0.5"}, key=key).json()
    assert amended["amendedOrder"]["qty"] == "0.50000000"
    cancelled = client.ask("DELETE", "order", which, key=key).json()
    assert (cancelled["status"], cancelled["origQty"]) == ("CANCELED", "0.50000000")
    wrong(client.ask("DELETE", "order", which, key=key), 400, -2011, "Unknown order sent.")
    assert client.ask("GET", "openOrders", key=key).json() == []
    assert client.ask("GET", "allOrders", {"symbol": "BTCUSDT"}, key=key).json()[-1]["orderId"] == which["orderId"]


def test_parameters_may_come_in_the_body_or_on_both_sides(client):
    body = urlencode({k: LIMIT[k] for k in ("quantity", "price", "timeInForce")})
    query = {k: LIMIT[k] for k in ("symbol", "side", "type")}
    answer = client.ask("POST", "order", query, key=TRADER, body=body)
    assert answer.json()["price"] == "100.00000000"
    # The query wins where both have one.
    answer = client.ask("POST", "order", LIMIT, key=TRADER, body="price=90")
    assert answer.json()["price"] == "100.00000000"


def test_a_signature_in_the_body():
    assert split_signature("a=1", "b=2&signature=x%2By") == (b"a=1b=2", "x+y")
    assert split_signature("a=1&signature=x+y", "") == (b"a=1", "x+y")
    assert split_signature("signature=z&a=1", "b=2") == (b"a=1b=2", "z")
    assert split_signature("", "") == (b"", "")


def test_the_sheet_s_rest_signature_covers_the_query_as_it_was_sent(rig):
    query = "symbol=BTCUSDT&side=SELL&type=LIMIT&timeInForce=GTC&quantity=1&price=0.2&timestamp=1668481559918"
    signature = "inDT086KVIP8vgUfw5sV3VTkescWztiAGlf4x8FLKHM4NInsn0c1kYVLoGMO8cyjfR6vmTku2YQE0gtfVVlfCw=="
    payload, found = split_signature(query + "&recvWindow=5000&signature=" + quote(signature, safe=""), "")
    assert found == signature
    assert rig.venue.keyring.find(TRADER).verify(payload, found)


@pytest.mark.parametrize(("method", "path"), SIGNED)
def test_nothing_private_without_a_good_signature(client, method, path):
    wrong(client.ask(method, path, {"symbol": "BTCUSDT"}), 401, -2014, "API-key format invalid.")
    unknown = client.ask(method, path, headers={"X-MBX-APIKEY": "nobody"})
    wrong(unknown, 401, -2015, "Invalid API-key, IP, or permissions for action.")
    wrong(
        client.ask(method, path, key=TRADER, signature="AAAA"), 400, -1022, "Signature for this request is not valid."
    )
    said = "Mandatory parameter 'signature' was not sent, was empty/null, or malformed."
    wrong(client.ask(method, path, key=TRADER, signature=None), 400, -1102, said)
    said = "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."
    wrong(client.ask(method, path, key=TRADER, timestamp=None), 400, -1102, said)


def test_when_a_request_was_written(client):
    now = int(time.time() * 1000)
    late = "Timestamp for this request is outside of the recvWindow."
    wrong(client.ask("GET", "account", key=TRADER, timestamp=now - 10_000), 400, -1021, late)
    wrong(client.ask("GET", "account", key=TRADER, timestamp=now - 10_000, recvWindow=5), 400, -1021, late)
    early = "Timestamp for this request was 1000ms ahead of the server's time."
    wrong(client.ask("GET", "account", key=TRADER, timestamp=now + 100_000), 400, -1021, early)
    wrong(client.ask("GET", "account", key=TRADER, recvWindow=60_001), 400, -1131)
    wrong(client.ask("GET", "account", key=TRADER, recvWindow="5.1234"), 400, -1100)
    wrong(client.ask("GET", "account", key=TRADER, timestamp="soon"), 400, -1100)
    assert client.ask("GET", "account", key=TRADER, timestamp=now - 10_000, recvWindow=60_000).status_code == 200
    assert client.ask("GET", "account", key=TRADER, timestamp=time.time_ns() // 1000).status_code == 200


def test_times_in_the_unit_that_is_asked_for(client):
    assert client.ask("GET", "time").json()["serverTime"] < 10**14
    micros = client.ask("GET", "time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"}).json()
    assert micros["serverTime"] > 10**15
    said = "Invalid value for time unit; expected either MICROSECOND or MILLISECOND."
    wrong(client.ask("GET", "time", headers={"X-MBX-TIME-UNIT": "HOUR"}), 400, -1194, said)


MISTAKES = [
    ({"symbol": None}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    ({"symbol": "NOSUCH"}, -1121, "Invalid symbol."),
    ({"symbol": "btcusdt"}, -1100, None),
    ({"symbol": ""}, -1105, "Parameter 'symbol' was empty."),
    ({"side": "HOLD"}, -1117, "Invalid side."),
    ({"type": "WISH"}, -1116, "Invalid orderType."),
    ({"timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
    ({"timeInForce": None}, -1102, "Mandatory parameter 'timeInForce' was not sent, was empty/null, or malformed."),
    ({"price": None}, -1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed."),
    ({"price": "1e2"}, -1100, None),
    ({"price": "-1"}, -1100, None),
    ({"price": "100.123456789"}, -1111, "Parameter 'price' has too much precision."),
    ({"price": "99999999999999999999"}, -1108, "Parameter 'price' overflowed."),
    ({"price": "2000.01"}, -1013, "Filter failure: PRICE_FILTER"),
    ({"quantity": None}, -1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed."),
    ({"quantity": "0.000001"}, -1013, "Filter failure: LOT_SIZE"),
    ({"quantity": "0.123456789"}, -1111, "Parameter 'quantity' has too much precision."),
    ({"quantity": "0.001"}, -1013, "Filter failure: NOTIONAL"),
    ({"quantity": "4000", "price": "1999"}, -2010, None),
    ({"quoteOrderQty": "5"}, -1106, "Parameter 'quoteOrderQty' sent when not required."),
    ({"stopPrice": "5"}, -1106, "Parameter 'stopPrice' sent when not required."),
    ({"newClientOrderId": "a b"}, -1100, None),
    ({"newClientOrderId": "x" * 37}, -1100, None),
    ({"newOrderRespType": "LONG"}, -1130, "Data sent for parameter 'newOrderRespType' is not valid."),
    ({"strategyType": "5"}, -1134, None),
    ({"selfTradePreventionMode": "MAYBE"}, -1130, None),
    ({"foo": "bar"}, -1104, None),
    ({"pegPriceType": "PRIMARY_PEG"}, -1020, "This operation is not supported."),
    ({"type": "MARKET"}, -1106, None),
    ({"type": "STOP_LOSS_LIMIT"}, -1102, None),
]


@pytest.mark.parametrize(("change", "code", "msg"), MISTAKES)
def test_mistakes_in_an_order(client, change, code, msg):
    params = {name: value for name, value in (LIMIT | change).items() if value is not None}
    for path in ("order", "order/test"):
        if code != -2010 or path == "order":
            wrong(client.ask("POST", path, params, key=OTHER), 400, code, msg)
    assert client.ask("GET", "openOrders", key=OTHER).json() == []


def test_an_order_that_is_only_tested_is_not_placed(client):
    assert client.ask("POST", "order/test", LIMIT, key=TRADER).json() == {}
    rates = client.ask("POST", "order/test", LIMIT | {"computeCommissionRates": "true"}, key=TRADER).json()
    assert rates["standardCommissionForOrder"] == {"maker": "0.00100000", "taker": "0.00100000"}
    assert client.ask("GET", "openOrders", key=TRADER).json() == []


def test_what_is_sent_twice_or_too_much(client):
    wrong(client.http.get("depth?symbol=BTCUSDT&symbol=BTCUSDT"), 400, -1101)
    wrong(client.ask("GET", "ping", {"a": 1}), 400, -1101, "Too many parameters; expected '0' and received '1'.")
    said = "Not all sent parameters were read; read '1' parameter(s) but was sent '2'."
    wrong(client.ask("GET", "depth", {"symbol": "BTCUSDT", "x": 1}), 400, -1104, said)
    wrong(client.ask("POST", "order", body="x" * 70_000), 413, -1101)
    assert client.ask("GET", "nothing").status_code == 404
    assert client.ask("PUT", "ping").status_code == 405
    assert client.ask("POST", "order", body="\xff", headers={"X-MBX-APIKEY": TRADER}).status_code == 400


def test_garbage_on_the_wire_harms_nobody(rig, client):
    for seed in range(60):
        dice = random.Random(seed)
        junk = dice.randbytes(dice.randrange(1, 400))
        if seed % 3 == 0:
            junk = b"GET /api/v3/depth?" + junk.replace(b"\n", b"") + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        with socket.create_connection(("127.0.0.1", rig.port), timeout=30) as wire:
            wire.sendall(junk)
            wire.shutdown(socket.SHUT_WR)
            first = wire.recv(65_536)
            assert not first.startswith((b"HTTP/1.1 5", b"HTTP/1.1 2")), f"seed {seed}: {first!r}"
    assert client.ask("GET", "ping").status_code == 200


def test_nasty_values_never_end_in_a_5xx(client):
    nasty = ["", " ", "\x00", "🙂", "%zz", "[]", "null", "-1", "9" * 30, "NaN"]
    for path, params in (("depth", "symbol limit"), ("exchangeInfo", "symbol symbols permissions symbolStatus")):
        for name in params.split():
            for value in nasty:
                answer = client.http.get(f"{path}?{name}={quote(value)}")
                assert answer.status_code in {200, 400}, (path, name, value, answer.text)
    for name in LIMIT | {"stopPrice": "", "icebergQty": "", "strategyId": "", "trailingDelta": ""}:
        for value in nasty:
            answer = client.ask("POST", "order", LIMIT | {name: value}, key=TRADER)
            assert answer.status_code in {200, 400}, (name, value, answer.text)


def test_cancel_replace_tells_both_halves(client):
    first = client.ask("POST", "order", LIMIT, key=TRADER).json()["orderId"]
    replace = LIMIT | {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": first, "price": "101"}
    done = client.ask("POST", "order/cancelReplace", replace, key=TRADER).json()
    assert (done["cancelResult"], done["newOrderResult"]) == ("SUCCESS", "SUCCESS")
    assert done["cancelResponse"]["orderId"] == first
    second = done["newOrderResponse"]["orderId"]
    failed = client.ask("POST", "order/cancelReplace", replace, key=TRADER)
    wrong(failed, 400, -2022, "Order cancel-replace failed.")
    assert failed.json()["data"] == {
        "cancelResult": "FAILURE",
        "newOrderResult": "NOT_ATTEMPTED",
        "cancelResponse": {"code": -2011, "msg": "Unknown order sent."},
        "newOrderResponse": None,
    }
    go_on = client.ask("POST", "order/cancelReplace", replace | {"cancelReplaceMode": "ALLOW_FAILURE"}, key=TRADER)
    wrong(go_on, 409, -2021, "Order cancel-replace partially failed.")
    assert go_on.json()["data"]["newOrderResult"] == "SUCCESS"
    poor = replace | {"cancelOrderId": second, "quantity": "4000", "price": "1999"}
    partly = client.ask("POST", "order/cancelReplace", poor, key=TRADER)
    wrong(partly, 409, -2021)
    assert (partly.json()["data"]["cancelResult"], partly.json()["data"]["newOrderResult"]) == ("SUCCESS", "FAILURE")
    assert partly.json()["data"]["newOrderResponse"]["code"] == -2010
    poor["cancelReplaceMode"] = "ALLOW_FAILURE"
    both = client.ask("POST", "order/cancelReplace", poor, key=TRADER)
    wrong(both, 400, -2022)
    assert (both.json()["data"]["cancelResult"], both.json()["data"]["newOrderResult"]) == ("FAILURE", "FAILURE")


def test_weight_used_up_is_429_then_418_with_retry_after(tmp_path):
    with running(tmp_path, limits={"request_weight": 100, "ban_after": 2, "ban_s": 60}) as rig:
        client = Client(rig)
        rig.stop_clock()  # the minute does not end
        used = 0
        for _ in range(100):
            answer = client.ask("GET", "trades", {"symbol": "BTCUSDT"})
            if answer.status_code != 200:
                break
            used = int(answer.headers["x-mbx-used-weight-1m"])
            assert used == int(answer.headers["x-mbx-used-weight"])
        assert used == 100
        wrong(answer, 429, -1003)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert [client.ask("GET", "time").status_code for _ in range(2)] == [429, 418]
        banned = client.ask("GET", "time")
        wrong(banned, 418, -1003)
        assert 1 <= int(banned.headers["retry-after"]) <= 60
        client.http.close()


def test_too_many_orders_and_what_is_free(tmp_path):
    with running(tmp_path, limits={"orders_10s": 100_000, "orders_day": 3}) as rig:
        client = Client(rig)
        for number in range(3):
            answer = client.ask("POST", "order", LIMIT, key=TRADER)
            assert answer.headers["x-mbx-order-count-1d"] == str(number + 1)
            assert answer.headers["x-mbx-used-weight-1m"] == "0", "a success costs nothing"
        over = client.ask("POST", "order", LIMIT, key=TRADER)
        wrong(over, 429, -1015, "Too many new orders; current limit is 3 orders per 1 DAY.")
        assert int(over.headers["retry-after"]) >= 1
        counts = client.ask("GET", "rateLimit/order", key=TRADER).json()
        assert [(one["interval"], one["count"]) for one in counts] == [("SECOND", 3), ("DAY", 3)]
        assert client.ask("POST", "order", LIMIT, key=OTHER).status_code == 200
        orders = client.ask("GET", "openOrders", key=TRADER).json()
        replace = LIMIT | {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": orders[0]["orderId"]}
        wrong(client.ask("POST", "order/cancelReplace", replace, key=TRADER), 429, -1015)
        replace["orderRateLimitExceededMode"] = "CANCEL_ONLY"
        partly = client.ask("POST", "order/cancelReplace", replace, key=TRADER)
        wrong(partly, 409, -2021)
        assert partly.json()["data"]["cancelResult"] == "SUCCESS"
        assert partly.json()["data"]["newOrderResponse"]["code"] == -1015
        wrong(client.ask("POST", "order/cancelReplace", replace, key=TRADER), 400, -2022)
        client.http.close()


def test_a_dropped_answer_leaves_the_order_placed(rig, client):
    rig.call(lambda: rig.simulator.faults.arm(Script([Rule(on="request", name="order.place", action="drop", times=1)])))
    with pytest.raises(httpx.TransportError):
        client.ask("POST", "order", LIMIT | {"newClientOrderId": "lost"}, key=TRADER)
    found = client.ask("GET", "order", {"symbol": "BTCUSDT", "origClientOrderId": "lost"}, key=TRADER).json()
    assert found["status"] == "NEW"
    rig.call(lambda: rig.simulator.faults.arm(Script()))


def test_many_clients_at_once(rig):
    def work(number):
        one = Client(rig)
        for step in range(20):
            name = f"c{number}-{step}"
            placed = one.ask("POST", "order", LIMIT | {"newClientOrderId": name, "price": "50"}, key=TRADER)
            assert placed.json()["clientOrderId"] == name
            gone = one.ask("DELETE", "order", {"symbol": "BTCUSDT", "origClientOrderId": name}, key=TRADER)
            assert gone.json()["orderId"] == placed.json()["orderId"]
        one.http.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
