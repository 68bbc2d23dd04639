"""The venue's own client library, pointed at the simulator by its URL settings, does not notice the difference."""

from __future__ import annotations

import asyncio
import logging

import pytest
from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_common.constants import TimeUnit
from binance_common.errors import BadRequestError, TooManyRequestsError, UnauthorizedError
from binance_sdk_spot.spot import Spot

from tests.pipeline.exchange.exchange_rig import ED25519_PEM, FLOWING, OTHER, OTHER_SECRET, TRADER, running

pytestmark = [
    # The library's own habits, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SYMBOL = "BTCUSDT"
LIMIT = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 1.0, "price": 500.0}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    fast = {"reference_ms": 50, "ticker_ms": 50, "kline_ms": 50}
    with running(tmp_path_factory.mktemp("official"), market=FLOWING, limits={"messages_s": 0}, streams=fast) as found:
        yield found


def client(rig, *, hmac=False, unit=None):
    own = {"api_key": OTHER, "api_secret": OTHER_SECRET} if hmac else {"api_key": TRADER, "private_key": ED25519_PEM}
    return Spot(
        config_rest_api=ConfigurationRestAPI(**own, base_path=rig.rest, retries=0, timeout=10_000, time_unit=unit),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=rig.ws, time_unit=unit),
    )


@pytest.mark.parametrize("hmac", [False, True])
def test_it_trades(rig, hmac):
    rest = client(rig, hmac=hmac).rest_api
    placed = rest.new_order(**LIMIT)
    order = placed.data()
    assert (order.status, order.orig_qty, order.price) == ("NEW", "1.00000000", "500.00000000")
    assert {(one.rateLimitType, one.interval) for one in placed.rate_limits} == {
        ("REQUEST_WEIGHT", "MINUTE"),
        ("ORDERS", "SECOND"),
        ("ORDERS", "DAY"),
    }
    assert rest.get_order(symbol=SYMBOL, order_id=order.order_id).data().client_order_id == order.client_order_id
    amended = rest.order_amend_keep_priority(symbol=SYMBOL, order_id=order.order_id, new_qty=0.5).data()
    assert amended.amended_order.qty == "0.50000000"
    replaced = rest.order_cancel_replace(
        **LIMIT | {"price": 501.0}, cancel_replace_mode="STOP_ON_FAILURE", cancel_order_id=order.order_id
    ).data()
    assert (replaced.cancel_result, replaced.new_order_result) == ("SUCCESS", "SUCCESS")
    bought = rest.new_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=2.0).data()
    assert (bought.status, bought.executed_qty) == ("FILLED", "2.00000000")
    fills = rest.my_trades(symbol=SYMBOL, order_id=bought.order_id).data()
    assert {one.id for one in fills} == {one.trade_id for one in bought.fills}
    trailing = rest.new_order(symbol=SYMBOL, side="SELL", type="STOP_LOSS", quantity=1.0, trailing_delta=2000).data()
    shown = rest.get_order(symbol=SYMBOL, order_id=trailing.order_id).data()
    assert (shown.status, shown.to_dict()["trailingDelta"]) == ("NEW", 2000)
    assert rest.delete_order(symbol=SYMBOL, order_id=trailing.order_id).data().status == "CANCELED"
    second = rest.new_order(**LIMIT, new_client_order_id="mine-2").data()
    cancelled = rest.delete_order(symbol=SYMBOL, orig_client_order_id="mine-2").data()
    assert (cancelled.status, cancelled.order_id) == ("CANCELED", second.order_id)
    assert [one.price for one in rest.get_open_orders(symbol=SYMBOL).data()] == ["501.00000000"]
    gone = rest.delete_open_orders(symbol=SYMBOL).data()
    assert len(gone) == 1
    assert rest.get_open_orders().data() == []
    statuses = {one.order_id: one.status for one in rest.all_orders(symbol=SYMBOL).data()}
    assert statuses[bought.order_id] == "FILLED"
    assert statuses[second.order_id] == "CANCELED"


def test_it_reads_the_account(rig):
    rest = client(rig).rest_api
    account = rest.get_account(omit_zero_balances=True).data()
    assert account.can_trade
    assert {one.asset for one in account.balances} == {"BTC", "ETH", "USDT"}
    assert [one.interval for one in rest.rate_limit_order().data()] == ["SECOND", "DAY"]
    assert rest.my_filters(symbol=SYMBOL).data().symbol_filters
    rates = rest.account_commission(symbol=SYMBOL).data()
    assert (rates.symbol, rates.standard_commission.maker, rates.tax_commission.taker) == (
        SYMBOL, "0.00100000", "0.00000000",
    )  # fmt: skip
    assert rest.my_allocations(symbol=SYMBOL).data() == []
    assert rest.order_test(**LIMIT).data() is not None


def test_it_reads_the_market(rig):
    rest = client(rig).rest_api
    assert rest.ping().data() is not None
    info = rest.exchange_info(symbols=["BTCUSDT", "ETHUSDT"]).data()
    assert [one.symbol for one in info.symbols] == ["BTCUSDT", "ETHUSDT"]
    assert {type(one.actual_instance).__name__ for one in info.symbols[0].filters} >= {
        "PriceFilter",
        "LotSizeFilter",
        "MarketLotSizeFilter",
        "NotionalFilter",
        "PercentPriceBySideFilter",
        "MaxNumOrdersFilter",
        "TrailingDeltaFilter",
    }
    depth = rest.depth(symbol=SYMBOL, limit=5).data()
    assert len(depth.bids) == len(depth.asks) == 5
    assert float(depth.bids[0][0]) < float(depth.asks[0][0])
    assert rest.execution_rules(symbol=SYMBOL).data().symbol_rules[0].rules[0].rule_type == "PRICE_RANGE"
    assert rest.reference_price(symbol=SYMBOL).data().symbol == SYMBOL
    assert rest.ticker_price(symbol=SYMBOL).data().actual_instance.symbol == SYMBOL
    assert rest.ticker_book_ticker().data().actual_instance
    assert rest.avg_price(symbol=SYMBOL).data().mins == 5
    trades = rest.get_trades(symbol=SYMBOL, limit=10).data()
    older = rest.historical_trades(symbol=SYMBOL, from_id=trades[0].id, limit=10).data()
    assert [one.id for one in older] == [one.id for one in trades]
    assert rest.agg_trades(symbol=SYMBOL, limit=3).data()[-1].p


def test_it_reads_the_matches_that_were_prevented(tmp_path):
    with running(tmp_path) as quiet:
        rest = client(quiet).rest_api
        maker = rest.new_order(**LIMIT).data()
        rest.new_order(**LIMIT | {"side": "SELL"}, self_trade_prevention_mode="EXPIRE_MAKER")
        (one,) = rest.my_prevented_matches(symbol=SYMBOL, order_id=maker.order_id).data()
        assert (one.maker_order_id, one.maker_prevented_quantity) == (maker.order_id, "1.00000000")
        again = rest.my_prevented_matches(symbol=SYMBOL, prevented_match_id=one.prevented_match_id).data()
        assert again[0].self_trade_prevention_mode == "EXPIRE_MAKER"


def test_it_reads_tickers_and_klines(rig):
    rest = client(rig).rest_api
    rest.new_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=1.0)
    day = rest.ticker24hr(symbol=SYMBOL).data().actual_instance
    assert day.close_time - day.open_time == 86_400_000
    assert day.last_id - day.first_id + 1 == day.count > 0
    assert float(day.low_price) <= float(day.weighted_avg_price) <= float(day.high_price)
    assert float(day.bid_price) < float(day.ask_price)
    minis = rest.ticker24hr(type="MINI").data().actual_instance
    assert [one.symbol for one in minis] == ["BTCUSDT", "ETHUSDT"]
    assert minis[0].price_change is None
    window = rest.ticker(symbols=["ETHUSDT", SYMBOL], window_size="7d").data().actual_instance
    assert [one.symbol for one in window] == ["ETHUSDT", SYMBOL]
    assert window[1].open_time % 60_000 == 0
    trading = rest.ticker_trading_day(symbol=SYMBOL, time_zone="8").data().actual_instance
    assert (trading.open_time % 86_400_000, trading.close_time - trading.open_time) == (57_600_000, 86_399_999)
    for ask in (rest.klines, rest.ui_klines):
        for interval in ("1s", "3d", "1M"):
            assert ask(symbol=SYMBOL, interval=interval, limit=1, time_zone="-1:00").data()[0][8] > 0


def test_times_in_microseconds(rig):
    assert client(rig, unit=TimeUnit.MICROSECOND.value).rest_api.time().data().server_time > 10**15


def test_it_understands_refusals(rig):
    rest = client(rig).rest_api
    with pytest.raises(BadRequestError, match="Order does not exist"):
        rest.get_order(symbol=SYMBOL, order_id=1 << 40)
    with pytest.raises(BadRequestError, match="Filter failure: LOT_SIZE"):
        rest.new_order(**LIMIT | {"quantity": 10_000.0})
    with pytest.raises(BadRequestError, match="Signature for this request is not valid"):
        Spot(
            config_rest_api=ConfigurationRestAPI(api_key=OTHER, api_secret="wrong", base_path=rig.rest)  # noqa: S106
        ).rest_api.get_account()
    with pytest.raises(UnauthorizedError, match="Invalid API-key"):
        Spot(
            config_rest_api=ConfigurationRestAPI(api_key="nobody", api_secret="x", base_path=rig.rest)  # noqa: S106
        ).rest_api.get_account()


def test_it_understands_429(tmp_path):
    with running(tmp_path, limits={"request_weight": 20}) as rig:
        rig.stop_clock()  # the minute does not end
        rest = client(rig).rest_api
        for _ in range(4):
            rest.depth(symbol=SYMBOL)
        with pytest.raises(TooManyRequestsError, match="Too much request weight used") as caught:
            rest.depth(symbol=SYMBOL)
        assert 1 <= caught.value.retry_after <= 60


@pytest.mark.parametrize("unit", [None, TimeUnit.MICROSECOND])
def test_it_follows_the_streams(rig, caplog, unit):
    caplog.set_level(logging.ERROR)
    wanted = {
        "trade": {},
        "agg_trade": {},
        "book_ticker": {},
        "diff_book_depth": {"update_speed": "100ms"},
        "partial_book_depth": {"levels": "5", "update_speed": "100ms"},
        "reference_price": {},
        "mini_ticker": {},
        "ticker": {},
        "avg_price": {},
        "kline": {"interval": "1M"},
        "kline_offset": {"interval": "3d"},
    }

    async def follow():
        connection = await client(rig, unit=unit).websocket_streams.create_connection()
        block = await connection.block_trade(symbol="btcusdt")
        block.on("message", lambda _message: pytest.fail("nobody trades blocks here"))
        found = {}
        complete = asyncio.Event()

        def take(name, message):
            found.setdefault(name, message)
            if len(found) == len(wanted) + 1:
                complete.set()

        try:
            for name, chosen in wanted.items():
                stream = await getattr(connection, name)(symbol="btcusdt", **chosen)
                stream.on("message", lambda message, name=name: take(name, message))
            everything = await connection.all_mini_ticker()
            everything.on("message", lambda message: take("all_mini_ticker", message))
            await asyncio.wait_for(complete.wait(), 60)
            listed = await connection.list_subscribe()
            assert len(listed["result"]) == len(wanted) + 2
            await stream.unsubscribe()
        finally:
            await connection.close_connection(close_session=True)
        return found

    found = asyncio.run(follow())
    assert found["trade"].e == "trade"
    assert found["agg_trade"].e == "aggTrade"
    assert (found["trade"].T > 10**15) == (unit is not None)
    assert found["book_ticker"].s == SYMBOL
    assert found["diff_book_depth"].u >= found["diff_book_depth"].U
    assert len(found["partial_book_depth"].bids) == 5
    assert found["reference_price"].s == SYMBOL
    assert (found["mini_ticker"].e, found["ticker"].e) == ("24hrMiniTicker", "24hrTicker")
    span = found["ticker"].C - found["ticker"].O
    assert span == 86_400_000 * (1 if unit is None else 1_000)
    assert (found["avg_price"].i, found["avg_price"].T > 0) == ("5m", True)
    assert [found[name].k.i for name in ("kline", "kline_offset")] == ["1M", "3d"]
    assert found["all_mini_ticker"]
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
