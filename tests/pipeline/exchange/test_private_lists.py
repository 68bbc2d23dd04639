"""Commands about order lists, as both protocols share them."""

from __future__ import annotations

import pytest

from tests.pipeline.exchange.test_private import Rig

OCO = {
    "symbol": "BTCUSDT", "side": "SELL", "quantity": "1", "aboveType": "LIMIT_MAKER", "abovePrice": "110",
    "belowType": "STOP_LOSS", "belowStopPrice": "90",
}  # fmt: skip


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_a_list_and_its_orders(rig):
    placed = rig.ask("orderList.place.oco", **OCO, listClientOrderId="mine")
    number = placed["orderListId"]
    assert (placed["listClientOrderId"], placed["contingencyType"], placed["symbol"]) == ("mine", "OCO", "BTCUSDT")
    assert [one["orderListId"] for one in placed["orderReports"]] == [number] * 2
    assert placed["orders"] == [
        {"symbol": "BTCUSDT", "orderId": one["orderId"], "clientOrderId": one["clientOrderId"]}
        for one in placed["orderReports"]
    ]
    assert rig.ask("orderList.status", orderListId=str(number)) == rig.ask("openOrderLists.status")[0]
    order_id = str(placed["orders"][0]["orderId"])
    amended = rig.ask("order.amend.keepPriority", symbol="BTCUSDT", orderId=order_id, newQty="0.5")
    assert amended["listStatus"]["orderListId"] == amended["amendedOrder"]["orderListId"] == number
    assert [one["origQty"] for one in rig.ask("openOrders.status")] == ["0.50000000"] * 2
    gone = rig.ask("orderList.cancel", symbol="BTCUSDT", listClientOrderId="mine", newClientOrderId="x")
    assert [one["clientOrderId"] for one in gone["orderReports"]] == ["x", "x"]
    assert rig.ask("allOrderLists", fromId="1")[0]["listStatusType"] == "ALL_DONE"
    assert rig.ask("openOrderLists.status") == []


def test_what_is_refused(rig):
    assert rig.code("orderList.status", orderListId="9") == -2018
    assert rig.code("orderList.status") == rig.code("orderList.cancel", symbol="BTCUSDT") == -1102
    assert rig.code("orderList.cancel", symbol="BTCUSDT", orderListId="9") == -2011
    assert rig.code("allOrderLists", fromId="1", startTime="1") == -1128


def test_each_order_is_counted(rig):
    now_us = rig.venue.market_us()
    rig.venue.market_us = lambda: now_us  # no interval ends
    rig.venue.limits.orders(rig.one).add(100_000 - 1, now_us)
    assert rig.code("orderList.place.oco", **OCO) == -1015
