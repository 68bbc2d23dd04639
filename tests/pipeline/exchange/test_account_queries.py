"""What an account may ask about itself: its rates, the matches that were prevented, its allocations."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.requests import METHODS, weight
from tests.pipeline.exchange.ws_api_rig import ALICE, BOB, CAROL, LIMIT, Rig

BTC = {"symbol": "BTCUSDT"}


@pytest.fixture
def rig():
    return Rig()


def test_rates_are_those_an_order_pays(rig):
    nothing = {"maker": "0.00000000", "taker": "0.00000000", "buyer": "0.00000000", "seller": "0.00000000"}
    client = rig.client(ALICE)
    assert client.result("account.commission", BTC) == {
        "symbol": "BTCUSDT",
        "standardCommission": nothing | {"maker": "0.00100000", "taker": "0.00200000"},
        "specialCommission": nothing,
        "taxCommission": nothing,
        "discount": {
            "enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0.00000000",
        },
    }  # fmt: skip
    assert client.error("account.commission", {"symbol": "XRPUSDT"}) == (400, -1121)
    assert client.error("account.commission") == (400, -1102)


def cross(client, stp, quantity="1"):
    """Buy, then sell to oneself; give both order ids."""
    bought = client.result("order.place", LIMIT)["orderId"]
    sold = client.result("order.place", LIMIT | {"side": "SELL", "quantity": quantity, "selfTradePreventionMode": stp})
    client.ask("openOrders.cancelAll", BTC)
    return bought, sold["orderId"]


def test_prevented_matches_by_id_and_by_order(rig):
    alice = rig.client(ALICE)
    pairs = [cross(alice, stp) for stp in ("EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")]
    pairs.append(cross(alice, "DECREMENT", "0.4"))
    lost = [{"taker": 1}, {"maker": 1}, {"taker": 1, "maker": 1}, {"taker": 0.4, "maker": 0.4}]
    for (maker, taker), modes, quantities in zip(
        pairs, ("EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"), lost, strict=True
    ):
        (one,) = alice.result("myPreventedMatches", BTC | {"orderId": taker})
        assert one == {
            "symbol": "BTCUSDT",
            "preventedMatchId": one["preventedMatchId"],
            "takerOrderId": taker,
            "makerSymbol": "BTCUSDT",
            "makerOrderId": maker,
            "tradeGroupId": 7,
            "selfTradePreventionMode": modes,
            "price": "100.00000000",
            **{f"{who}PreventedQuantity": f"{quantity:.8f}" for who, quantity in quantities.items()},
            "transactTime": one["transactTime"],
        }
        assert alice.result("myPreventedMatches", BTC | {"orderId": maker}) == [one]
        assert alice.result("myPreventedMatches", BTC | {"preventedMatchId": one["preventedMatchId"]}) == [one]
        assert one["transactTime"] == alice.result("order.status", BTC | {"orderId": taker})["time"]


def test_an_order_prevented_often_is_told_page_by_page(rig):
    alice = rig.client(ALICE)
    for price in ("100", "101", "102"):
        alice.result("order.place", LIMIT | {"price": price})
    taker = alice.result("order.place", LIMIT | {"side": "SELL", "selfTradePreventionMode": "EXPIRE_MAKER"})["orderId"]
    found = alice.result("myPreventedMatches", BTC | {"orderId": taker})
    ids = [one["preventedMatchId"] for one in found]
    assert len(ids) == 3
    assert ids == sorted(ids)
    page = BTC | {"orderId": taker, "fromPreventedMatchId": ids[1]}
    assert alice.result("myPreventedMatches", page) == found[1:]
    assert alice.result("myPreventedMatches", page | {"limit": 1}) == found[1:2]


def test_both_sides_of_a_trade_group_see_the_match_and_nobody_else(rig):
    alice, bob, carol = (rig.client() for _ in range(3))
    alice.ask("session.logon", signed=ALICE)
    carol.ask("session.logon", signed=CAROL)
    alice.result("order.place", LIMIT)
    taker = carol.result("order.place", LIMIT | {"side": "SELL", "selfTradePreventionMode": "EXPIRE_TAKER"})["orderId"]
    (one,) = carol.result("myPreventedMatches", BTC | {"orderId": taker})
    asked = BTC | {"preventedMatchId": one["preventedMatchId"]}
    assert alice.result("myPreventedMatches", asked) == [one]
    assert bob.result("myPreventedMatches", asked, signed=BOB) == []


def test_which_parameters_go_together(rig):
    alice = rig.client(ALICE)
    assert alice.error("myPreventedMatches", BTC) == (400, -1102)
    assert alice.error("myPreventedMatches", BTC | {"fromPreventedMatchId": 1}) == (400, -1102)
    for wrong in (
        {"preventedMatchId": 1, "orderId": 1},
        {"preventedMatchId": 1, "limit": 5},
        {"orderId": 1, "limit": 5},
    ):
        assert alice.error("myPreventedMatches", BTC | wrong) == (400, -1128)
    assert alice.result("myPreventedMatches", BTC | {"orderId": 1 << 40}) == []
    assert alice.error("myPreventedMatches", {"symbol": "XRPUSDT", "orderId": 1}) == (400, -1121)


def test_there_are_no_allocations(rig):
    alice = rig.client(ALICE)
    assert alice.result("myAllocations", BTC | {"orderId": 1, "fromAllocationId": 1, "limit": 5}) == []
    assert alice.error("myAllocations", {"symbol": "XRPUSDT"}) == (400, -1121)
    assert alice.error("myAllocations", BTC | {"startTime": 1, "endTime": 86_400_002}) == (400, -1127)


def test_weights():
    assert (METHODS["account.commission"].weight, METHODS["myAllocations"].weight) == (20, 20)
    assert weight("myPreventedMatches", {"preventedMatchId": 1}) == 2
    assert weight("myPreventedMatches", {"orderId": 1}) == 20
