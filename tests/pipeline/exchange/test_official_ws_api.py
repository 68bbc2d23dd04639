"""The venue's own client library over the WebSocket API: it trades and follows its account, and never knows."""

from __future__ import annotations

import asyncio

import pytest
from binance_common.configuration import ConfigurationWebSocketAPI
from binance_common.constants import TimeUnit
from binance_sdk_spot.spot import Spot
from binance_sdk_spot.websocket_api.models import EventStreamTerminated, ExecutionReport, OutboundAccountPosition

from tests.pipeline.exchange.exchange_rig import ED25519_PEM, OTHER, OTHER_SECRET, TRADER, running

pytestmark = pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")
"""The library asks aiohttp in the old way."""

BTC = "BTCUSDT"


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("exchange")) as rig:
        yield rig


def ed25519(rig, **choices):
    return ConfigurationWebSocketAPI(
        api_key=TRADER, private_key=ED25519_PEM, stream_url=f"{rig.ws}/ws-api/v3", reconnect_delay=10, **choices
    )


def hmac(rig):
    return ConfigurationWebSocketAPI(api_key=OTHER, api_secret=OTHER_SECRET, stream_url=f"{rig.ws}/ws-api/v3")


def with_client(configuration, use):
    """Run `use(api)` with a connection of the official client."""

    async def run():
        api = Spot(config_ws_api=configuration).websocket_api
        connection = await api.create_connection()
        try:
            return await asyncio.wait_for(use(connection), 60)
        finally:
            await connection.close_connection(close_session=True)
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()  # the library leaves its reconnection timer behind
            await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


async def result(awaitable):
    """Give the result of a call, as the library's own model."""
    answer = (await awaitable).data()
    assert not isinstance(answer, dict), answer
    return answer.result


async def error(awaitable):
    """Give the error of a call."""
    answer = (await awaitable).data()
    assert isinstance(answer, dict), answer
    return answer["error"]["code"]


def test_public_questions(rig):
    async def use(api):
        assert (await result(api.ping())) is not None
        assert (await result(api.time())).server_time > 0
        info = (await api.exchange_info(symbol=BTC)).data()
        symbol = info.additional_properties["result"]["symbols"][0]  # the library's model is that of REST
        assert symbol["symbol"] == BTC
        assert {one["filterType"] for one in symbol["filters"]} >= {"PRICE_FILTER", "LOT_SIZE", "NOTIONAL"}
        assert (await result(api.depth(symbol=BTC))).last_update_id >= 0
        assert (await result(api.avg_price(symbol=BTC))).mins == 5

    with_client(ed25519(rig), use)


def test_tickers_klines_and_what_an_account_asks(tmp_path):
    async def use(api):
        await result(api.session_logon())
        order = {"symbol": BTC, "type": "LIMIT", "time_in_force": "GTC", "price": 300.0, "quantity": 1.0}
        maker = await result(api.order_place(side="SELL", **order))
        await result(api.order_place(side="BUY", self_trade_prevention_mode="EXPIRE_TAKER", **order))
        (match,) = await result(api.my_prevented_matches(symbol=BTC, order_id=maker.order_id))
        assert (match.maker_order_id, match.self_trade_prevention_mode) == (maker.order_id, "EXPIRE_TAKER")
        await asyncio.to_thread(with_client, hmac(rig), buy)
        for ask in (api.ticker24hr, api.ticker, api.ticker_trading_day):
            one = (await ask(symbol=BTC)).data().actual_instance.result
            assert (one.last_price, one.volume, one.count) == ("300.00000000", "1.00000000", 1)
            several = (await ask(symbols=[BTC, "ETHUSDT"], type="MINI")).data().actual_instance.result
            assert [one.symbol for one in several] == [BTC, "ETHUSDT"]
        for ask in (api.klines, api.ui_klines):
            for interval in ("3d", "1M"):
                (row,) = await result(ask(symbol=BTC, interval=interval, limit=1))
                assert row[1] == "300.00000000", row
        assert (await result(api.account_commission(symbol=BTC))).standard_commission.taker == "0.00100000"
        assert await result(api.my_allocations(symbol=BTC)) == []

    async def buy(api):
        bought = await result(api.order_place(symbol=BTC, side="BUY", type="MARKET", quantity=1.0))
        assert bought.status == "FILLED"

    with running(tmp_path) as rig:
        with_client(ed25519(rig), use)


@pytest.mark.parametrize("logged_on", [True, False])
def test_a_life_of_orders(rig, logged_on):
    async def use(api):
        if logged_on:
            assert (await result(api.session_logon())).api_key == TRADER
            assert (await result(api.session_status())).authorized_since > 0
        placed = await result(
            api.order_place(
                symbol=BTC, side="BUY", type="LIMIT", time_in_force="GTC", price=100.5, quantity=1.0,
                new_client_order_id="official-1", new_order_resp_type="FULL",
            )
        )  # fmt: skip
        assert (placed.client_order_id, placed.status, placed.price) == ("official-1", "NEW", "100.50000000")
        which = {"symbol": BTC, "order_id": placed.order_id}
        assert (await result(api.order_status(**which))).orig_qty == "1.00000000"
        amended = await result(api.order_amend_keep_priority(new_qty=0.5, **which))
        assert amended.amended_order.qty == "0.50000000"
        replaced = await result(
            api.order_cancel_replace(
                symbol=BTC, cancel_replace_mode="STOP_ON_FAILURE", cancel_order_id=placed.order_id, side="BUY",
                type="LIMIT", time_in_force="GTC", price=99.0, quantity=2.0,
            )
        )  # fmt: skip
        assert (replaced.cancel_result, replaced.new_order_result) == ("SUCCESS", "SUCCESS")
        number = replaced.new_order_response.order_id
        open_orders = await result(api.open_orders_status(symbol=BTC))
        assert [one.order_id for one in open_orders] == [number]
        cancelled = await result(api.order_cancel(symbol=BTC, order_id=number))
        assert cancelled.status == "CANCELED"
        assert await error(api.order_cancel(symbol=BTC, order_id=number)) == -2011
        assert await error(api.order_status(symbol=BTC, orig_client_order_id="nobodys")) == -2013
        await result(api.order_test(symbol=BTC, side="SELL", type="MARKET", quantity=0.1))
        for price in (90.0, 91.0):
            await result(
                api.order_place(symbol=BTC, side="BUY", type="LIMIT", time_in_force="GTC", price=price, quantity=1.0)
            )
        assert len(await result(api.open_orders_cancel_all(symbol=BTC))) == 2
        statuses = {one.status for one in await result(api.all_orders(symbol=BTC))}
        assert statuses == {"CANCELED"}
        account = await result(api.account_status(omit_zero_balances=True))
        assert {one.asset for one in account.balances} >= {"USDT"}
        limits = await result(api.account_rate_limits_orders())
        assert {one.rate_limit_type for one in limits} == {"ORDERS"}
        if logged_on:
            assert (await result(api.session_logout())).api_key is None

    with_client(ed25519(rig), use)


def test_hmac_keys_trade_and_do_not_log_on(rig):
    async def use(api):
        assert await error(api.session_logon()) == -4056
        placed = await result(
            api.order_place(symbol=BTC, side="BUY", type="LIMIT", time_in_force="GTC", price=50.0, quantity=1.0)
        )
        assert (await result(api.order_cancel(symbol=BTC, order_id=placed.order_id))).status == "CANCELED"

    with_client(hmac(rig), use)


def test_an_account_is_followed(rig):
    async def follow(api):
        await result(api.session_logon())
        subscribed = await api.user_data_stream_subscribe()
        seen = asyncio.Queue()
        subscribed.stream.on("message", lambda event: seen.put_nowait(event.actual_instance))
        placed = await result(
            api.order_place(symbol=BTC, side="BUY", type="LIMIT", time_in_force="GTC", price=200.0, quantity=1.0)
        )
        await asyncio.to_thread(with_client, hmac(rig), sell)
        await result(api.order_cancel(symbol=BTC, order_id=placed.order_id))
        events = [await seen.get() for _ in range(6)]
        reports = [one for one in events if isinstance(one, ExecutionReport)]
        assert [(one.x, one.X) for one in reports] == [
            ("NEW", "NEW"), ("TRADE", "PARTIALLY_FILLED"), ("CANCELED", "CANCELED"),
        ]  # fmt: skip
        assert (reports[1].l, reports[1].L, reports[1].m) == ("0.40000000", "200.00000000", True)
        balances = [one for one in events if isinstance(one, OutboundAccountPosition)]
        assert [one.a for one in balances[0].B] == ["BTC", "USDT"]
        assert len(balances) == len(reports) == 3
        assert (await result(api.my_trades(symbol=BTC)))[0].id == reports[1].t
        assert (await result(api.session_subscriptions()))[0].subscription_id == 0
        await result(api.user_data_stream_unsubscribe())
        return await seen.get()

    async def sell(api):
        sold = await result(api.order_place(symbol=BTC, side="SELL", type="MARKET", quantity=0.4))
        assert (sold.status, sold.fills[0].qty) == ("FILLED", "0.40000000")

    last = with_client(ed25519(rig, time_unit=TimeUnit.MICROSECOND), follow)
    assert isinstance(last, EventStreamTerminated)
    assert last.E > 10**15


def test_without_a_session_an_account_is_followed_by_a_signature(rig):
    async def follow(api):
        with pytest.raises(ValueError, match="-1002"):
            await api.user_data_stream_subscribe()
        subscribed = await api.user_data_stream_subscribe_signature()
        seen = asyncio.Queue()
        subscribed.stream.on("message", lambda event: seen.put_nowait(event.actual_instance))
        placed = await result(
            api.order_place(symbol=BTC, side="BUY", type="LIMIT", time_in_force="GTC", price=60.0, quantity=1.0)
        )
        report = await seen.get()
        assert (report.x, report.i, report.c) == ("NEW", placed.order_id, placed.client_order_id)
        amended = await result(api.order_amend_keep_priority(symbol=BTC, order_id=placed.order_id, new_qty=0.4))
        events = [one for one in [await seen.get() for _ in range(3)] if isinstance(one, ExecutionReport)]
        assert [(one.x, one.q) for one in events] == [("REPLACED", amended.amended_order.qty)]
        assert len(await result(api.open_orders_cancel_all(symbol=BTC))) == 1

    with_client(hmac(rig), follow)


def test_what_only_half_succeeds_is_understood(rig):
    """The old order is gone, and the new one is refused: 409, and both halves are told."""

    async def use(api):
        limit = {"symbol": BTC, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 1.0}
        placed = await result(api.order_place(**limit, price=70.0))
        answer = await api.order_cancel_replace(
            **limit | {"quantity": 9000.0}, price=500.0, cancel_replace_mode="ALLOW_FAILURE",
            cancel_order_id=placed.order_id,
        )  # fmt: skip
        failed = answer.data()["error"]
        assert failed["code"] == -2021
        data = failed["data"]
        assert (data["cancelResult"], data["newOrderResult"]) == ("SUCCESS", "FAILURE")
        assert data["newOrderResponse"]["code"] == -2010
        assert await result(api.open_orders_status(symbol=BTC)) == []

    with_client(ed25519(rig), use)
