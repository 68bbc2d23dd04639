"""WebSocket API: every method as it should be used and as it should not."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.pipeline.exchange import requests
from tests.pipeline.exchange.ws_api_rig import ALICE, BOB, CAROL, LIMIT, PUBLIC, Rig, sign

BTC = {"symbol": "BTCUSDT"}
SELL = {**LIMIT, "side": "SELL"}
RESULT_KEYS = [
    "symbol", "orderId", "orderListId", "clientOrderId", "transactTime", "price", "origQty", "executedQty",
    "origQuoteOrderQty", "cummulativeQuoteQty", "status", "timeInForce", "type", "side", "workingTime",
    "selfTradePreventionMode",
]  # fmt: skip


@pytest.fixture
def rig():
    return Rig()


# ── envelope ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [1, -(1 << 62), "a b", "x" * 36, "", None, 0])
def test_ids_are_echoed(rig, number):
    answer = rig.client().take(orjson.dumps({"id": number, "method": "ping"}).decode())
    assert answer == {"id": number, "status": 200, "result": {}, "rateLimits": answer["rateLimits"]}


@pytest.mark.parametrize(
    ("text", "number", "code"),
    [
        (None, None, -1135),
        ("", None, -1135),
        ("{", None, -1135),
        ("[]", None, -1135),
        ('"ping"', None, -1135),
        ("null", None, -1135),
        ('{"id": NaN, "method": "ping"}', None, -1135),
        ('{"id": "\\ud800", "method": "ping"}', None, -1135),
        ("[" * 100_000, None, -1135),
        ('{"id": 1, "method": "ping", "params": ' + '{"a":' * 20_000 + "1" + "}" * 20_001, None, -1135),
        ('{"id": 1, "id": 2, "method": "ping"}', None, -1101),
        ('{"id": 1, "method": "time", "params": {"a": 1, "a": 1}}', None, -1101),
        ('{"id": 1.5, "method": "ping"}', "1.5", 0),
        ('{"id": true, "method": "ping"}', None, -1130),
        ('{"id": [], "method": "ping"}', None, -1130),
        ('{"id": 99999999999999999999, "method": "ping"}', None, -1130),
        ('{"method": "ping"}', None, -1102),
        ('{"id": 1}', 1, -1102),
        ('{"id": 1, "method": 7}', 1, -1130),
        ('{"id": 1, "method": "ping", "params": []}', 1, -1130),
        ('{"id": 1, "method": "ping", "params": null}', 1, -1130),
        ('{"id": 1, "method": "ping", "extra": 1}', 1, -1104),
        ('{"id": 1, "method": "order.explode"}', 1, -5000),
        ('{"id": 1, "method": "v4/ping"}', 1, -5000),
        ('{"id": 1, "method": "v3/ping"}', 1, 0),
        ('{"id": 1, "method": "ping", "params": {"symbol": "BTCUSDT"}}', 1, -1101),
    ],
)
def test_what_is_no_request_is_answered(rig, text, number, code):
    client = rig.client()
    answer = client.take(text)
    assert answer["id"] == number
    assert (answer["status"], answer.get("error", {}).get("code", 0)) == ((400, code) if code else (200, 0))
    assert client.ask("ping")["status"] == 200


def test_rate_limits_are_told_unless_not_wanted(rig):
    client = rig.client(ALICE)
    kinds = [(one["rateLimitType"], one["interval"]) for one in client.ask("order.place", LIMIT)["rateLimits"]]
    assert kinds == [("ORDERS", "SECOND"), ("ORDERS", "DAY"), ("REQUEST_WEIGHT", "MINUTE")]
    assert [one["rateLimitType"] for one in client.ask("ping")["rateLimits"]] == ["REQUEST_WEIGHT"]
    assert "rateLimits" not in client.ask("ping", {"returnRateLimits": False})
    assert "rateLimits" not in client.ask("ping", {"returnRateLimits": "false"})
    quiet = rig.client(limits=False)
    assert "rateLimits" not in quiet.ask("ping")
    assert "rateLimits" in quiet.ask("ping", {"returnRateLimits": True})


def test_times_are_in_the_unit_of_the_connection(rig):
    coarse, fine = rig.client(ALICE, follow=True), rig.client(ALICE, follow=True, micros=True)
    placed = coarse.result("order.place", LIMIT)["transactTime"]
    seen = [client.events("executionReport")[0]["T"] for client in (coarse, fine)]
    assert placed == seen[0] == seen[1] // 1000
    assert fine.result("time")["serverTime"] > 10**15


# ── sessions and signatures ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_from_logon_to_logout(rig):
    client = rig.client()
    nobody = client.result("session.status")
    assert (nobody["apiKey"], nobody["authorizedSince"], nobody["userDataStream"]) == (None, None, False)
    assert client.error("order.place", LIMIT) == (400, -1102)
    made = client.result("session.logon", signed=ALICE)
    assert list(made) == [
        "apiKey", "authorizedSince", "connectedSince", "returnRateLimits", "serverTime", "userDataStream",
    ]  # fmt: skip
    assert made["apiKey"] == ALICE
    assert made["connectedSince"] <= made["authorizedSince"] <= made["serverTime"]
    assert client.result("order.place", LIMIT)["status"] == "NEW"
    client.result("userDataStream.subscribe")
    assert client.result("session.status")["userDataStream"] is True
    gone = client.result("session.logout")
    assert (gone["apiKey"], gone["userDataStream"]) == (None, False)
    assert [one["e"] for one in client.events()][-1] == "eventStreamTerminated"
    assert client.error("order.place", LIMIT) == (400, -1102)
    assert client.error("userDataStream.subscribe") == (400, -1002)


def test_only_ed25519_logs_on(rig):
    assert rig.client().error("session.logon", signed=BOB) == (400, -4056)


def test_a_timestamp_is_needed_all_the_same(rig):
    client = rig.client(ALICE)
    assert client.take('{"id": 1, "method": "order.status", "params": {"symbol": "BTCUSDT", "orderId": 1}}')[
        "error"
    ] == {"code": -1102, "msg": "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."}
    now_ms = rig.venue.now_us() // 1000
    for stamp, code in ((now_ms - 6000, -1021), (now_ms + 1500, -1021), ("x", -1100), (0, -1021)):
        assert client.error("order.place", {**LIMIT, "timestamp": stamp}) == (400, code)
    assert client.result("order.place", {**LIMIT, "timestamp": now_ms * 1000})["status"] == "NEW"
    assert client.error("account.status", {"recvWindow": 60001}) == (400, -1131)


def test_logging_on_again_takes_another_key(rig):
    client = rig.client(ALICE, follow=True)
    client.result("session.logon", signed=CAROL)
    assert [one["e"] for one in client.events()] == ["eventStreamTerminated"]
    assert client.result("order.place", LIMIT)["orderId"]
    assert client.result("account.status")["uid"] == rig.venue.keyring.find(CAROL).account


@pytest.mark.parametrize("key", [ALICE, BOB])
def test_requests_with_a_signature_of_their_own(rig, key):
    client = rig.client()
    assert client.result("order.place", {**LIMIT, "price": "100.50", "recvWindow": 4000}, signed=key)["status"] == "NEW"
    assert client.result("openOrders.status", signed=key)[0]["price"] == "100.50000000"
    assert client.error("openOrders.status", {"apiKey": key, "signature": "00"}) == (400, -1022)
    assert client.error("openOrders.status", {"apiKey": "nobody", "signature": "00"}) == (401, -2015)
    assert client.error("openOrders.status", {"apiKey": "not a key", "signature": "00"}) == (401, -2014)


def test_a_signature_of_its_own_goes_before_the_session(rig):
    client = rig.client(ALICE)
    client.result("order.place", LIMIT, signed=BOB)
    assert client.result("openOrders.status") == []
    assert len(client.result("openOrders.status", signed=BOB)) == 1
    assert client.error("order.place", {**LIMIT, "signature": "00"}) == (400, -1102)


def test_floats_are_signed_as_they_were_sent(rig):
    params = {**LIMIT, "price": 100.10, "timestamp": rig.venue.now_us() // 1000, "apiKey": BOB}
    signature = sign({**params, "price": "100.10"}, BOB)
    text = json.dumps({"id": 1, "method": "order.place", "params": {**params, "signature": signature}})
    assert rig.client().take(text.replace("100.1,", "100.10,"))["result"]["price"] == "100.10000000"


def test_a_revoked_key_ends_the_session(rig):
    client = rig.client(ALICE, follow=True)
    rig.venue.keyring.remove(ALICE)
    client.sent.clear()
    assert client.take('{"id": 9, "method": "ping"}')["event"]["e"] == "eventStreamTerminated"
    assert orjson.loads(client.sent.pop()) == {
        "id": None,
        "status": 401,
        "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
    }
    assert client.result("session.status")["apiKey"] is None
    rig.venue.keyring.add(ALICE, 1, public_key=PUBLIC)
    assert client.result("session.logon", signed=ALICE)["apiKey"] == ALICE


# ── public ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_public_methods(rig):
    client = rig.client()
    maker = rig.client(ALICE)
    maker.result("order.place", LIMIT)
    maker.result("order.place", {**SELL, "price": "101", "quantity": "2"})
    rig.client().result("order.place", {**SELL, "quantity": "0.5"}, signed=BOB)
    assert client.result("ping") == {}
    assert abs(client.result("time")["serverTime"] - rig.venue.now_us() // 1000) < 10_000
    assert client.result("exchangeInfo", {"symbols": ["BTCUSDT"]})["symbols"][0]["symbol"] == "BTCUSDT"
    book = client.result("depth", BTC)
    assert book["bids"] == [["100.00000000", "0.50000000"]]
    assert book["asks"] == [["101.00000000", "2.00000000"]]
    assert client.result("ticker.book", BTC) == {
        "symbol": "BTCUSDT", "bidPrice": "100.00000000", "bidQty": "0.50000000", "askPrice": "101.00000000",
        "askQty": "2.00000000",
    }  # fmt: skip
    trade = client.result("trades.recent", BTC)[0]
    assert (trade["price"], trade["qty"], trade["quoteQty"]) == ("100.00000000", "0.50000000", "50.00000000")
    assert trade["isBuyerMaker"] is True


@pytest.mark.parametrize("method", [name for name, one in requests.METHODS.items() if "symbol" in one.mandatory])
def test_unknown_symbols(rig, method):
    params = {"symbol": "NOPE", "orderId": 1, "cancelOrderId": 1, "cancelReplaceMode": "STOP_ON_FAILURE", "newQty": "1"}
    params |= {"interval": "1m", "orderListId": 1, "aboveType": "LIMIT_MAKER", "belowType": "STOP_LOSS"}
    params |= {"workingType": "LIMIT", "workingSide": "BUY", "workingPrice": "1", "workingQuantity": "1"}
    params |= {"pendingType": "MARKET", "pendingSide": "SELL", "pendingQuantity": "1"}
    params |= {"pendingAboveType": "LIMIT_MAKER", "pendingBelowType": "STOP_LOSS"}
    row = requests.METHODS[method]
    allowed = {*row.mandatory, *row.optional}
    params = {key: value for key, value in {**LIMIT, **params}.items() if key in allowed}
    assert rig.client(ALICE).error(method, params) == (400, -1121)


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_how_much_a_response_says(rig):
    client = rig.client(ALICE)
    for kind, keys in (("ACK", RESULT_KEYS[:5]), ("RESULT", RESULT_KEYS), ("FULL", [*RESULT_KEYS, "fills"])):
        assert sorted(client.result("order.place", {**LIMIT, "newOrderRespType": kind})) == sorted(keys)
    assert "fills" in client.result("order.place", LIMIT)
    maker = {key: value for key, value in LIMIT.items() if key != "timeInForce"} | {"type": "LIMIT_MAKER"}
    assert list(client.result("order.place", maker)) == RESULT_KEYS[:5]


def test_a_market_order_and_its_fills(rig):
    rig.client(ALICE).result("order.place", LIMIT)
    made = rig.client().result("order.place", {**BTC, "side": "SELL", "type": "MARKET", "quantity": "0.3"}, signed=BOB)
    assert (made["status"], made["executedQty"], made["cummulativeQuoteQty"]) == ("FILLED", "0.30000000", "30.00000000")
    assert made["fills"] == [
        {
            "price": "100.00000000", "qty": "0.30000000", "commission": "0.06000000", "commissionAsset": "USDT",
            "tradeId": 1,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"price": "100.001"}, -1111), ({"quantity": "0.000001"}, -1111), ({"price": "300000"}, -1013),
        ({"quantity": "0.00001"}, -1013), ({"quantity": "99999"}, -2010), ({"price": "0"}, -2010),
        ({"icebergQty": "0.1"}, -2010), ({"selfTradePreventionMode": "SOME"}, -1130),
        ({"type": "STOP_LOSS"}, -1102), ({"newClientOrderId": ""}, -1105),
    ],
)  # fmt: skip
def test_orders_that_are_refused(rig, changed, code):
    client = rig.client(ALICE)
    for method in ("order.place", "order.test"):
        assert client.error(method, {**LIMIT, **changed}) == (400, code), method
    assert client.result("openOrders.status", BTC) == []


def test_a_tested_order_is_not_placed(rig):
    client = rig.client(ALICE)
    assert client.result("order.test", LIMIT) == {}
    assert "standardCommissionForOrder" in client.result("order.test", {**LIMIT, "computeCommissionRates": True})
    assert client.result("openOrders.status") == []


def test_a_stop_waits_and_triggers(rig):
    client = rig.client(ALICE, follow=True)
    maker = rig.client(CAROL)
    maker.result("order.place", LIMIT)
    rig.client().result("order.place", {**SELL, "quantity": "0.1"}, signed=BOB)
    stop = {**BTC, "side": "SELL", "type": "STOP_LOSS", "quantity": "0.2", "stopPrice": "99"}
    made = client.result("order.place", {**stop, "newOrderRespType": "FULL"})
    assert (made["status"], made["stopPrice"], made["workingTime"]) == ("NEW", "99.00000000", -1)
    assert client.events("executionReport")[0]["w"] is False
    maker.result("order.place", {**LIMIT, "price": "98"})
    rig.client().result("order.place", {**SELL, "price": "98", "quantity": "1"}, signed=BOB)
    reports = client.events("executionReport")
    assert [one["x"] for one in reports][-1] == "TRADE"
    assert client.error("order.place", {**stop, "stopPrice": "120"}) == (400, -2010)
    assert client.events() == [], "a refused order is told to nobody else"


def test_a_client_id_is_taken_while_its_order_is_open(rig):
    client = rig.client(ALICE)
    assert client.result("order.place", {**LIMIT, "newClientOrderId": "mine"})["clientOrderId"] == "mine"
    assert client.error("order.place", {**LIMIT, "newClientOrderId": "mine"}) == (400, -2010)
    gone = client.result("order.cancel", {**BTC, "origClientOrderId": "mine", "newClientOrderId": "bye"})
    assert (gone["origClientOrderId"], gone["clientOrderId"], gone["status"]) == ("mine", "bye", "CANCELED")
    assert client.error("order.cancel", {**BTC, "origClientOrderId": "mine"}) == (400, -2011)
    assert client.result("order.status", {**BTC, "origClientOrderId": "mine"})["status"] == "CANCELED"
    assert client.error("order.status", {**BTC, "origClientOrderId": "nobodys"}) == (400, -2013)


def test_cancels_with_restrictions(rig):
    client = rig.client(ALICE)
    number = client.result("order.place", LIMIT)["orderId"]
    which = {**BTC, "orderId": number}
    assert client.error("order.cancel", {**which, "cancelRestrictions": "ONLY_PARTIALLY_FILLED"}) == (400, -2011)
    assert client.result("order.cancel", {**which, "cancelRestrictions": "ONLY_NEW"})["orderId"] == number


def test_nobody_touches_anothers_order(rig):
    number = rig.client(ALICE).result("order.place", LIMIT)["orderId"]
    other = rig.client()
    assert other.error("order.cancel", {**BTC, "orderId": number}, signed=BOB) == (400, -2011)
    assert other.error("order.status", {**BTC, "orderId": number}, signed=BOB) == (400, -2013)


def test_all_open_orders_at_once(rig):
    client = rig.client(ALICE)
    assert client.error("openOrders.cancelAll", BTC) == (400, -2011)
    for price in ("100", "99", "98"):
        client.result("order.place", {**LIMIT, "price": price})
    assert len(client.result("openOrders.status", BTC)) == 3
    gone = client.result("openOrders.cancelAll", BTC)
    assert [one["status"] for one in gone] == ["CANCELED"] * 3
    assert client.result("openOrders.status") == []
    assert [one["status"] for one in client.result("allOrders", BTC)] == ["CANCELED"] * 3


def test_what_an_account_did_and_has(rig):
    client = rig.client(ALICE)
    number = client.result("order.place", LIMIT)["orderId"]
    rig.client().result("order.place", {**SELL, "quantity": "0.25"}, signed=BOB)
    assert client.result("myTrades", BTC) == client.result("myTrades", {**BTC, "orderId": number})
    trade = client.result("myTrades", BTC)[0]
    assert {key: trade[key] for key in ("orderId", "qty", "quoteQty", "commission", "commissionAsset", "isMaker")} == {
        "orderId": number, "qty": "0.25000000", "quoteQty": "25.00000000", "commission": "0.00025000",
        "commissionAsset": "BTC", "isMaker": True,
    }  # fmt: skip
    balances = {one["asset"]: one for one in client.result("account.status")["balances"]}
    assert balances["BTC"] == {"asset": "BTC", "free": "100.24975000", "locked": "0.00000000"}
    assert balances["USDT"]["locked"] == "75.00000000"
    counts = client.result("account.rateLimits.orders")
    assert [(one["rateLimitType"], one["intervalNum"]) for one in counts] == [("ORDERS", 10), ("ORDERS", 1)]


@pytest.mark.parametrize(
    ("changed", "status", "code", "cancel", "new"),
    [
        ({}, 200, None, "SUCCESS", "SUCCESS"),
        ({"cancelOrderId": 77}, 400, -2022, "FAILURE", "NOT_ATTEMPTED"),
        (
            {"cancelOrderId": 77, "cancelReplaceMode": "ALLOW_FAILURE", "quantity": "99999"},
            400,
            -2022,
            "FAILURE",
            "FAILURE",
        ),
        ({"quantity": "99999"}, 409, -2021, "SUCCESS", "FAILURE"),
        ({"cancelOrderId": 77, "cancelReplaceMode": "ALLOW_FAILURE"}, 409, -2021, "FAILURE", "SUCCESS"),
    ],
)
def test_the_five_outcomes_of_cancel_replace(rig, changed, status, code, cancel, new):
    client = rig.client(ALICE)
    number = client.result("order.place", LIMIT)["orderId"]
    params = {**LIMIT, "price": "99", "cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": number, **changed}
    answer = client.ask("order.cancelReplace", params)
    assert answer["status"] == status
    body = answer["result"] if status == 200 else answer["error"]["data"]
    assert answer.get("error", {}).get("code") == code
    assert (body["cancelResult"], body["newOrderResult"]) == (cancel, new)
    for half, result in (("cancelResponse", cancel), ("newOrderResponse", new)):
        if result == "NOT_ATTEMPTED":
            assert body[half] is None
        else:
            assert ("code" in body[half]) == (result == "FAILURE")
    left = {one["price"] for one in client.result("openOrders.status")}
    assert ("100.00000000" in left, "99.00000000" in left) == (cancel == "FAILURE", new == "SUCCESS")
    assert client.ask("order.place", LIMIT)["rateLimits"][0]["count"] == 3, "each attempt counts"


def test_an_order_shrinks_and_keeps_its_place(rig):
    client = rig.client(ALICE, follow=True)
    first = client.result("order.place", {**LIMIT, "newClientOrderId": "first"})["orderId"]
    second = rig.client(CAROL).result("order.place", LIMIT)["orderId"]
    client.events()
    made = client.result("order.amend.keepPriority", {**BTC, "orderId": first, "newQty": "0.6"})
    assert list(made) == ["transactTime", "executionId", "amendedOrder"]
    order = made["amendedOrder"]
    assert (order["qty"], order["origClientOrderId"], order["status"]) == ("0.60000000", "first", "NEW")
    report = client.events("executionReport")[0]
    assert (report["x"], report["q"], report["C"], report["c"]) == (
        "REPLACED", "0.60000000", "first", order["clientOrderId"],
    )  # fmt: skip
    rig.client().result("order.place", {**SELL, "quantity": "0.6"}, signed=BOB)
    assert client.result("order.status", {**BTC, "orderId": first})["status"] == "FILLED"
    for quantity, code in (("0.7", -2038), ("0", -2038), ("1", -2038)):
        assert client.error("order.amend.keepPriority", {**BTC, "orderId": second, "newQty": quantity}) == (400, code)
    assert client.error("order.amend.keepPriority", {**BTC, "newQty": "1"}) == (400, -1102)


@pytest.mark.parametrize(
    ("mode", "taker", "maker"),
    [
        ("EXPIRE_TAKER", "EXPIRED_IN_MATCH", "NEW"), ("EXPIRE_MAKER", "NEW", "EXPIRED_IN_MATCH"),
        ("EXPIRE_BOTH", "EXPIRED_IN_MATCH", "EXPIRED_IN_MATCH"), ("DECREMENT", "EXPIRED_IN_MATCH", "NEW"),
    ],
)  # fmt: skip
def test_nobody_trades_with_himself(rig, mode, taker, maker):
    client = rig.client(ALICE, follow=True)
    resting = client.result("order.place", LIMIT)["orderId"]
    client.events()
    made = client.result("order.place", {**SELL, "quantity": "0.4", "selfTradePreventionMode": mode})
    assert made["status"] == taker
    assert client.result("order.status", {**BTC, "orderId": resting})["status"] == maker
    reports = client.events("executionReport")
    prevented = [one for one in reports if one["x"] == "TRADE_PREVENTION"]
    assert prevented, [one["x"] for one in reports]
    for one in prevented:
        assert {"v", "A", "B", "u", "U", "Cs"} <= one.keys()
        assert one["u"] == 7
    assert not any(one["x"] == "TRADE" for one in reports)


def test_transfer_between_accounts_of_one_group(rig):
    client, other = rig.client(ALICE, follow=True), rig.client(CAROL, follow=True)
    transfer = {"selfTradePreventionMode": "TRANSFER"}
    other.result("order.place", {**LIMIT, **transfer})
    client.result("order.place", {**SELL, "quantity": "0.4", **transfer})
    report = next(one for one in client.events("executionReport") if one["x"] == "TRADE_PREVENTION")
    assert (report["pl"], report["pL"], report["pY"]) == ("0.40000000", "100.00000000", "40.00000000")


# ── anything ─────────────────────────────────────────────────────────────────────────────────────────────────────────

VALUES = (
    "BTCUSDT", "btcusdt", "", "BUY", "SELL", "LIMIT", "MARKET", "STOP_LOSS_LIMIT", "GTC", "IOC", "1", "0.5", "100",
    "0", "-1", "1e9", "\N{SNOWMAN}", "x" * 200, 1, 0, -1, 100, 1 << 62, 1 << 63, 1.5, True, None, [], ["BTCUSDT"], {},
    {"a": [1]}, "EXPIRE_BOTH", "FULL", "STOP_ON_FAILURE", "ALLOW_FAILURE", 1234567890123,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_is_asked_is_answered_and_nothing_is_lost(chance):
    rig = Rig(weight=10**9, orders=10**9)
    clients = [rig.client(ALICE, follow=True), rig.client(CAROL)]
    names = sorted({name for row in requests.METHODS.values() for name in (*row.mandatory, *row.optional)})
    good = {**LIMIT, "cancelReplaceMode": "ALLOW_FAILURE", "cancelOrderId": 1, "orderId": 1, "newQty": "0.5"}
    for _ in range(25):
        method = chance.choice(sorted(requests.METHODS.keys() - {"session.logout"}))
        row = requests.METHODS[method]
        params = {key: value for key, value in good.items() if key in {*row.mandatory, *row.optional}}
        for name in chance.sample(names, chance.randrange(3)):
            params[name] = chance.choice(VALUES)
        client = chance.choice(clients)
        client.ask(method, params)
        client.sent.clear()
    total = sum(sum(rig.engine.balances(account)["USDT"]) for account in (1, 2, 3))
    assert total <= 3 * 1_000_000_00000000, "fees may go, nothing may come"


@given(st.text() | st.binary().map(lambda one: one.decode("latin-1")) | st.none())
@settings(max_examples=50, deadline=None)
def test_whatever_is_sent_is_answered(text):
    client = Rig().client()
    assert client.take(text)["status"] in {200, 400}
    assert client.ask("ping")["status"] == 200
