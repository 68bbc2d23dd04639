"""Orders and accounts: each command against what the engine says happened."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.venue import Request
from tests.pipeline.exchange.exchange_rig import make_config

BTC = {"symbol": "BTCUSDT"}
BUY = BTC | {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "100"}
SELL = BUY | {"side": "SELL"}


class Rig:
    """A venue and two accounts."""

    def __init__(self, folder):
        limits = {"orders_10s": 100_000, "request_weight": 10_000_000}
        filters = {"orders_max": 500, "asset_max": {"USDT": "8000000.5"}}
        self.simulator = Simulator(make_config(folder, limits=limits, filters=filters))
        self.venue = self.simulator.venue
        self.one, self.other = self.simulator.accounts.values()

    def ask(self, name, account=None, **params):
        """Ask, and give the result."""
        answer = self.serve(name, account, **params)
        assert answer.status == 200, answer
        return answer.body

    def serve(self, name, account=None, **params):
        """Ask, and give the answer."""
        return self.venue.serve(Request(name, params, "10.0.0.1", lambda _now: account or self.one, micros=True))

    def code(self, name, account=None, **params):
        """Ask for what is refused, and give the code."""
        return self.serve(name, account, **params).body["code"]

    def balance(self, account, asset):
        """Give what an account has of an asset, free and locked."""
        found = {one["asset"]: one for one in self.ask("account.status", account)["balances"]}[asset]
        return Decimal(found["free"]), Decimal(found["locked"])


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_a_trade_between_two_accounts(rig):
    maker = rig.ask("order.place", **BUY, newClientOrderId="maker")
    assert rig.balance(rig.one, "USDT") == (Decimal(999_900), Decimal(100))
    taker = rig.ask("order.place", rig.other, **SELL | {"quantity": "0.4"})
    assert (taker["status"], taker["fills"][0]["commission"], taker["fills"][0]["commissionAsset"]) == (
        "FILLED",
        "0.04000000",
        "USDT",
    )
    assert rig.ask("order.status", **BTC, orderId=str(maker["orderId"]))["status"] == "PARTIALLY_FILLED"
    assert rig.balance(rig.one, "USDT") == (Decimal(999_900), Decimal(60))
    assert rig.balance(rig.one, "BTC") == (Decimal("10.3996"), Decimal(0))
    assert rig.balance(rig.other, "USDT") == (Decimal("1000039.96"), Decimal(0))
    mine = rig.ask("myTrades", **BTC)
    assert [(one["isMaker"], one["isBuyer"], one["qty"], one["commissionAsset"]) for one in mine] == [
        (True, True, "0.40000000", "BTC")
    ]
    theirs = rig.ask("myTrades", rig.other, **BTC, orderId=str(taker["orderId"]))
    assert [(one["id"], one["isMaker"]) for one in theirs] == [(mine[0]["id"], False)]
    assert rig.ask("myTrades", rig.other, **BTC, fromId=str(mine[0]["id"] + 1)) == []


def test_queries_by_either_id_and_of_others_orders(rig):
    placed = rig.ask("order.place", **BUY, newClientOrderId="mine")
    by_id = rig.ask("order.status", **BTC, orderId=str(placed["orderId"]))
    assert by_id == rig.ask("order.status", **BTC, origClientOrderId="mine")
    assert rig.code("order.status", rig.other, **BTC, orderId=str(placed["orderId"])) == -2013
    assert rig.code("order.cancel", rig.other, **BTC, orderId=str(placed["orderId"])) == -2011
    assert rig.code("order.status", **BTC) == -1102
    assert rig.ask("openOrders.status", rig.other) == []
    assert [one["symbol"] for one in rig.ask("openOrders.status")] == ["BTCUSDT"]
    assert rig.ask("openOrders.status", symbol="ETHUSDT") == []


def test_a_client_id_is_unique_while_open(rig):
    rig.ask("order.place", **BUY, newClientOrderId="mine")
    assert rig.code("order.place", **BUY, newClientOrderId="mine") == -2010
    rig.ask("order.cancel", **BTC, origClientOrderId="mine")
    rig.ask("order.place", **BUY, newClientOrderId="mine")


def test_cancel_restrictions(rig):
    placed = rig.ask("order.place", **BUY)
    which = BTC | {"orderId": str(placed["orderId"])}
    assert rig.code("order.cancel", **which, cancelRestrictions="ONLY_PARTIALLY_FILLED") == -2011
    assert rig.code("order.cancel", **which, cancelRestrictions="WISH") == -1145
    done = rig.ask("order.cancel", **which, cancelRestrictions="ONLY_NEW", newClientOrderId="the-cancel")
    assert (done["clientOrderId"], done["origClientOrderId"]) == ("the-cancel", placed["clientOrderId"])


def test_cancel_all_is_of_one_symbol(rig):
    for _ in range(3):
        rig.ask("order.place", **BUY)
    rig.ask("order.place", **BUY | {"symbol": "ETHUSDT"})
    assert [one["status"] for one in rig.ask("openOrders.cancelAll", **BTC)] == ["CANCELED"] * 3
    assert rig.code("openOrders.cancelAll", **BTC) == -2011
    assert len(rig.ask("openOrders.status")) == 1


def test_amending(rig):
    placed = rig.ask("order.place", **BUY)
    which = BTC | {"orderId": str(placed["orderId"])}
    done = rig.ask("order.amend.keepPriority", **which, newQty="0.5")["amendedOrder"]
    assert (done["qty"], done["origClientOrderId"]) == ("0.50000000", placed["clientOrderId"])
    for quantity in ("0.5", "0.6", "0"):
        assert rig.code("order.amend.keepPriority", **which, newQty=quantity) in {-2038, -1013, -1102}
    assert rig.code("order.amend.keepPriority", **BTC, orderId="99", newQty="0.1") in {-2038, -2013}


def test_stop_orders_wait_and_work(rig):
    rig.ask("order.place", **BUY)
    rig.ask("order.place", rig.other, **SELL | {"quantity": "0.1"})
    stop = BTC | {"side": "SELL", "type": "STOP_LOSS_LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "90"}
    placed = rig.ask("order.place", rig.other, **stop, stopPrice="95")
    assert set(placed) == {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"}
    waiting = rig.ask("order.status", rig.other, **BTC, orderId=str(placed["orderId"]))
    assert (waiting["status"], waiting["isWorking"], waiting["workingTime"], waiting["stopPrice"]) == (
        "NEW",
        False,
        -1,
        "95.00000000",
    )


def test_a_trailing_stop_as_a_client_sees_it(rig):
    stop = BTC | {"side": "SELL", "type": "STOP_LOSS", "quantity": "1", "newOrderRespType": "RESULT"}
    assert rig.code("order.place", rig.other, **stop) == -1102
    assert rig.serve("order.place", rig.other, **stop, trailingDelta="2001").body == {
        "code": -1013,
        "msg": "Filter failure: TRAILING_DELTA",
    }
    placed = rig.ask("order.place", rig.other, **stop, trailingDelta="2000")
    assert (placed["trailingDelta"], placed["trailingTime"], "stopPrice" in placed) == (2000, -1, False)
    rig.ask("order.place", **BUY)
    rig.ask("order.place", rig.other, **SELL | {"quantity": "0.1"})
    found = rig.ask("order.status", rig.other, **BTC, orderId=str(placed["orderId"]))
    assert (found["isWorking"], found["trailingTime"] > 0) == (False, True)


def test_pages_of_orders(rig):
    ids = [rig.ask("order.place", **BUY)["orderId"] for _ in range(6)]
    for one in ids[:3]:
        rig.ask("order.cancel", **BTC, orderId=str(one))

    def page(**chosen):
        return [one["orderId"] for one in rig.ask("allOrders", **BTC, **chosen)]

    assert page() == ids
    assert page(limit="2") == ids[-2:]
    assert page(orderId=str(ids[1]), limit="3") == ids[1:4]
    assert page(startTime="1", endTime="2") == []
    assert rig.code("allOrders", **BTC, startTime="1", endTime=str(86_400_002)) == -1127
    assert rig.code("allOrders", **BTC, limit="1001") == -1130


def test_the_account_as_the_venue_shows_it(rig):
    found = rig.ask("account.status", omitZeroBalances="true")
    assert found["commissionRates"] == {
        "maker": "0.00100000",
        "taker": "0.00100000",
        "buyer": "0.00000000",
        "seller": "0.00000000",
    }
    assert (found["makerCommission"], found["accountType"], found["permissions"]) == (10, "SPOT", ["SPOT"])
    assert {one["asset"] for one in found["balances"]} == {"BTC", "ETH", "USDT"}
    found = rig.ask("myFilters", **BTC)
    assert found["symbolFilters"][0]["filterType"] == "PRICE_FILTER"
    assert found["exchangeFilters"] == [{"filterType": "EXCHANGE_MAX_NUM_ORDERS", "maxNumOrders": 500}]
    assert found["assetFilters"] == [{"filterType": "MAX_ASSET", "asset": "USDT", "limit": "8000000.50000000"}]
    assert [one["limit"] for one in rig.ask("account.rateLimits.orders")] == [100_000, 200_000]


def test_an_iceberg_says_how_much_of_it_shows_and_the_book_shows_it(rig):
    placed = rig.ask("order.place", **BUY, icebergQty="0.25")
    assert placed["icebergQty"] == "0.25000000"
    assert rig.ask("order.status", **BTC, orderId=str(placed["orderId"]))["icebergQty"] == "0.25000000"
    assert rig.ask("depth", **BTC)["bids"] == [["100.00000000", "0.25000000"]]
    assert rig.code("order.place", **BUY, icebergQty="0.001") == -1013
    info = rig.ask("exchangeInfo", **BTC)["symbols"][0]
    assert info["icebergAllowed"]
    assert {"filterType": "ICEBERG_PARTS", "limit": 100} in info["filters"]
    assert {"filterType": "MAX_NUM_ICEBERG_ORDERS", "maxNumIcebergOrders": 10} in info["filters"]


def test_nothing_is_made_or_lost_whatever_is_asked(rig):
    """Random commands of both accounts: money, coins and fees add up to what there was."""
    for seed in range(3):
        dice = random.Random(seed)
        for step in range(300):
            account = dice.choice((rig.one, rig.other))
            price, quantity = f"{dice.randrange(9_900, 10_100) / 100:.2f}", f"{dice.randrange(1, 200) / 100:.2f}"
            order = BTC | {"side": dice.choice(("BUY", "SELL")), "quantity": quantity}
            roll = dice.random()
            if roll < 0.5:
                kind = dice.choice(("GTC", "IOC", "FOK"))
                rig.serve("order.place", account, **order, type="LIMIT", timeInForce=kind, price=price)
            elif roll < 0.6:
                rig.serve("order.place", account, **order, type="MARKET")
            elif roll < 0.7:
                rig.serve("order.place", account, **order, type="STOP_LOSS", stopPrice=price)
            elif roll < 0.95:
                which = dice.choice(rig.ask("openOrders.status", account) or [{"orderId": 1}])["orderId"]
                name = dice.choice(("order.cancel", "order.amend.keepPriority", "order.cancelReplace"))
                extra = {
                    "order.cancel": {"orderId": str(which)},
                    "order.amend.keepPriority": {"orderId": str(which), "newQty": "0.3"},
                    "order.cancelReplace": order
                    | {"type": "LIMIT", "timeInForce": "GTC", "price": price, "cancelOrderId": str(which)}
                    | {"cancelReplaceMode": dice.choice(("STOP_ON_FAILURE", "ALLOW_FAILURE"))},
                }[name]
                rig.serve(name, account, **BTC | extra)
            else:
                rig.serve("openOrders.cancelAll", account, **BTC)
            if step % 50 == 49:
                fees = rig.venue.engine.fees()
                for asset, total in (("BTC", 20), ("USDT", 2_000_000), ("ETH", 200)):
                    held = sum(sum(rig.balance(one, asset)) for one in (rig.one, rig.other))
                    assert held + Decimal(fees[asset]) / 10**8 == total, f"seed {seed}, step {step}, {asset}"
    assert rig.ask("myTrades", **BTC)
