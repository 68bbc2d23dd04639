"""The venue's own client library places, asks for and cancels each kind of order list, over REST and WebSocket API."""

from __future__ import annotations

import asyncio

import pytest
from binance_common.configuration import ConfigurationRestAPI
from binance_common.errors import BadRequestError
from binance_sdk_spot.spot import Spot
from binance_sdk_spot.websocket_api.models import ExecutionReport, ListStatus

from tests.pipeline.exchange.exchange_rig import ED25519_PEM, TRADER, running
from tests.pipeline.exchange.test_official_ws_api import ed25519, error, hmac, result, with_client

pytestmark = [
    # The library's own habits, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BTC = "BTCUSDT"
PAIR = {
    "above_type": "LIMIT_MAKER", "above_price": 700.0, "above_client_order_id": "up",
    "below_type": "STOP_LOSS_LIMIT", "below_price": 400.0, "below_stop_price": 410.0, "below_time_in_force": "GTC",
}  # fmt: skip
WORKING = {
    "working_type": "LIMIT", "working_side": "BUY", "working_price": 300.0, "working_quantity": 1.0,
    "working_time_in_force": "GTC",
}  # fmt: skip
LISTS = {
    "oco": {"side": "SELL", "quantity": 1.0, **PAIR},
    "oto": {**WORKING, "pending_type": "STOP_LOSS", "pending_side": "SELL", "pending_quantity": 1.0,
            "pending_trailing_delta": 500},
    "otoco": {**WORKING, "pending_side": "SELL", "pending_quantity": 1.0,
              **{f"pending_{name}": value for name, value in PAIR.items()}},
}  # fmt: skip
STATUSES = {"oco": ["NEW", "NEW"], "oto": ["NEW", "PENDING_NEW"], "otoco": ["NEW", "PENDING_NEW", "PENDING_NEW"]}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running(tmp_path_factory.mktemp("lists"), limits={"messages_s": 0}) as found:
        yield found


@pytest.mark.parametrize("kind", LISTS)
def test_over_rest(rig, kind):
    own = ConfigurationRestAPI(api_key=TRADER, private_key=ED25519_PEM, base_path=rig.rest, retries=0, timeout=10_000)
    rest = Spot(config_rest_api=own).rest_api
    before = sum(one.count for one in rest.rate_limit_order().data())
    place = getattr(rest, f"order_list_{kind}")
    placed = place(symbol=BTC, list_client_order_id=f"{kind}-1", **LISTS[kind]).data()
    assert (placed.contingency_type, placed.list_status_type, placed.list_order_status) == (
        "OCO" if kind == "oco" else "OTO",
        "EXEC_STARTED",
        "EXECUTING",
    )
    assert [one.status for one in placed.order_reports] == STATUSES[kind]
    assert {one.order_list_id for one in placed.order_reports} == {placed.order_list_id}
    assert sum(one.count for one in rest.rate_limit_order().data()) - before == 2 * len(STATUSES[kind])
    number = placed.order_list_id
    found = rest.get_order_list(order_list_id=number).data()
    assert (found.list_client_order_id, len(found.orders)) == (f"{kind}-1", len(STATUSES[kind]))
    assert rest.get_order_list(orig_client_order_id=f"{kind}-1").data().order_list_id == number
    assert [one.order_list_id for one in rest.open_order_list().data()] == [number]
    assert {one.order_list_id for one in rest.get_open_orders(symbol=BTC).data()} == {number}
    gone = rest.delete_order_list(symbol=BTC, order_list_id=number).data()
    assert (gone.list_status_type, [one.status for one in gone.order_reports]) == (
        "ALL_DONE",
        ["CANCELED"] * len(STATUSES[kind]),
    )
    assert rest.open_order_list().data() == []
    assert rest.all_order_list().data()[-1].list_order_status == "ALL_DONE"
    place(symbol=BTC, **LISTS[kind])
    assert len(rest.delete_open_orders(symbol=BTC).data()) == 1
    with pytest.raises(BadRequestError, match="Unknown order list sent"):
        rest.delete_order_list(symbol=BTC, order_list_id=number)


def test_it_knows_the_filters(rig):
    own = ConfigurationRestAPI(api_key=TRADER, private_key=ED25519_PEM, base_path=rig.rest)
    symbol = Spot(config_rest_api=own).rest_api.exchange_info(symbol=BTC).data().symbols[0]
    assert (symbol.oco_allowed, symbol.oto_allowed, symbol.allow_trailing_stop) == (True, True, True)
    assert {type(one.actual_instance).__name__ for one in symbol.filters} >= {"MaxNumOrderListsFilter"}


@pytest.mark.parametrize("kind", LISTS)
def test_over_the_websocket_api(rig, kind):
    async def use(api):
        await result(api.session_logon())
        subscribed = await api.user_data_stream_subscribe()
        seen = asyncio.Queue()
        subscribed.stream.on("message", lambda event: seen.put_nowait(event.actual_instance))
        place = getattr(api, f"order_list_place_{kind}")
        placed = await result(place(symbol=BTC, new_order_resp_type="RESULT", **LISTS[kind]))
        assert [one.status for one in placed.order_reports] == STATUSES[kind]
        number = placed.order_list_id
        assert (await result(api.order_list_status(order_list_id=number))).list_order_status == "EXECUTING"
        assert [one.order_list_id for one in await result(api.open_order_lists_status())] == [number]
        gone = await result(api.order_list_cancel(symbol=BTC, order_list_id=number))
        assert gone.list_order_status == "ALL_DONE"
        assert (await result(api.all_order_lists()))[-1].order_list_id == number
        assert await error(api.order_list_cancel(symbol=BTC, order_list_id=number)) == -2011
        await result(place(symbol=BTC, **LISTS[kind]))
        assert len(await result(api.open_orders_cancel_all(symbol=BTC))) == 1
        found = []
        while len([one for one in found if isinstance(one, ListStatus)]) < 4:
            found.append(await seen.get())
        reports = [one for one in found if isinstance(one, ExecutionReport)]
        assert {one.g for one in reports} == {number, number + 1}
        lists = [(one.g, one.l, one.L) for one in found if isinstance(one, ListStatus)]
        assert lists == [
            (which, *status)
            for which in (number, number + 1)
            for status in (("EXEC_STARTED", "EXECUTING"), ("ALL_DONE", "ALL_DONE"))
        ]

    with_client(ed25519(rig), use)


def test_a_pair_that_is_hit(rig):
    async def use(api):
        await result(api.session_logon())
        subscribed = await api.user_data_stream_subscribe()
        seen = asyncio.Queue()
        subscribed.stream.on("message", lambda event: seen.put_nowait(event.actual_instance))
        await result(api.order_list_place_oco(symbol=BTC, **LISTS["oco"]))
        await asyncio.to_thread(with_client, hmac(rig), buy)
        found = []
        while len([one for one in found if isinstance(one, ListStatus)]) < 2:
            found.append(await seen.get())
        reports = [one for one in found if isinstance(one, ExecutionReport)][2:]
        assert [(one.x, one.eR) for one in reports] == [
            ("EXPIRED", "OCO_TRIGGER"),
            ("TRADE", None),
        ]

    async def buy(api):
        bought = await result(api.order_place(symbol=BTC, side="BUY", type="MARKET", quantity=1.0))
        assert bought.fills[0].price == "700.00000000"

    with_client(ed25519(rig), use)
