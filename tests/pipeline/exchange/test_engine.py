"""The engine against a slow, obvious one, under random commands."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import STP_MODES, NewOrder, OrderEvent
from shrivenq.shm.kernel import COMPILED
from shrivenq.stages.messages import BUY
from tests.pipeline.exchange.engine_driver import drive
from tests.pipeline.exchange.engine_rig import (
    PLAIN,
    ROUND,
    START_US,
    changed,
    limit,
    market,
    order,
)
from tests.pipeline.exchange.twins import Twins

SEEN = {}
COMMANDS = 1_000
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_the_slow_engine_on_random_commands(seed):
    twins = Twins(seed)
    for number in range(COMMANDS):
        try:
            twins.step()
            twins.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, command {number}: {error}") from error
    SEEN[seed] = twins.seen | twins.slow.turned | twins.slow.activated
    assert len(twins.slow.trades) > 100, seed


def test_the_random_commands_met_everything():
    if len(SEEN) < len(SEEDS):
        pytest.skip("needs what the test above saw")
    wanted = {
        "LOT_SIZE", "PRICE_FILTER", "NOTIONAL", "PERCENT_PRICE", "MAX_NUM_ORDERS", "MAX_NUM_ALGO_ORDERS",
        "MAX_NUM_ORDER_AMENDS", "MARKET_LOT_SIZE", "insufficient balance", "immediately match", "would trigger",
        "ICEBERG_PARTS", ": MAX_NUM_ICEBERG_ORDERS", "EXCHANGE_MAX_NUM_ICEBERG_ORDERS",
        ": MAX_NUM_ORDER_LISTS", "EXCHANGE_MAX_NUM_ORDER_LISTS", "relationship of the prices", "Unknown order list",
        "OTO", "OTOCO", "OCO_TRIGGER", "OTO_PHASE_ONE_EXPIRED", "REJECTED", "PENDING_NEW", "EXEC_STARTED", "UPDATED",
        "ALL_DONE",
        "TRAILING_DELTA", ("BUY", False), ("BUY", True), ("SELL", False), ("SELL", True),
        "MAX_POSITION", "MAX_ASSET", ("SUCCESS", "SUCCESS"), ("SUCCESS", "FAILURE"), ("FAILURE", "SUCCESS"),
        ("FAILURE", "FAILURE"), ("FAILURE", "NOT_ATTEMPTED"), ("NOT_ATTEMPTED", "NOT_ATTEMPTED"),
        "Duplicate", "Unknown order", "restrictions", "new quantity", "symbol minimum",
        "NEW", "TRADE", "CANCELED", "REPLACED", "EXPIRED", "TRADE_PREVENTION", "EXPIRED_IN_MATCH",
        "UNFILLED_FOK_ORDER_EXPIRED", "UNFILLED_IOC_QUANTITY_EXPIRED", "INSUFFICIENT_LIQUIDITY",
        "EXECUTION_RULE_PRICE_RANGE_EXCEEDED", *STP_MODES[1:],
    }  # fmt: skip
    seen = set().union(*SEEN.values())
    assert seen >= wanted, wanted - seen


# ── conservation ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_million_random_commands_neither_make_nor_lose_anything():
    rounded = changed(ROUND, notional_min=0, price_max=700_000, iceberg_parts_max=50)
    exact = changed(PLAIN, maker_fee=100_000, taker_fee=250_000, iceberg_parts_max=50)
    engine = Engine([exact, rounded], seed=1, accounts_max=8, orders_kept=1 << 12, book_slots=1 << 11)
    for number in range(8):
        plenty = {"BTC": 10**15, "USDT": 10**16, "XYZ": 10**14, "USD": 10**16}
        engine.open_account(plenty, trade_group=(-1, 3)[number % 2])
    exchange = engine.exchange
    balances = exchange.balances
    before = balances["free"].sum(0)
    seed = np.random.SeedSequence(3).generate_state(4, np.uint32).astype(np.int64)
    count = 1_000_000 if COMPILED else 3_000
    assert drive(exchange, seed, count, 5_000) > count // 2
    assert exchange.words[s.FILLS] > count // 10
    assert (balances["free"].sum(0) + balances["locked"].sum(0) + exchange.fees == before).all()
    assert exchange.fees.min() >= 0
    assert exchange.fees.sum() > 0
    assert balances["free"].min() >= 0
    trailing = exchange.orders[exchange.orders["trailing_delta"] > 0]
    assert (trailing["executed"] > 0).sum() > 10
    listed = exchange.orders[exchange.orders["list_id"] > 0]
    assert {s.OPEN, s.FILLED, s.CANCELED, s.EXPIRED, s.EXPIRED_IN_MATCH} <= set(listed["status"].tolist())
    assert {s.BY_OCO, s.BY_OTO, s.BY_REJECTION} <= set(listed["expiry"].tolist())
    assert (exchange.orders["list"][exchange.orders["status"] > s.PARTIALLY_FILLED] == 0).all()
    assert set(exchange.lists["list_id"][exchange.lists["executing"] == 1].tolist()) == set(
        listed["list_id"][listed["status"] <= s.PARTIALLY_FILLED].tolist()
    )
    icebergs = exchange.orders[exchange.orders["iceberg"] > 0]
    assert (icebergs["executed"] > icebergs["iceberg"]).sum() > 10
    # What is locked is what open orders lock, and what rests is what they have left.
    orders = exchange.orders[exchange.orders["order_id"] > 0]
    still = orders[orders["status"] <= s.PARTIALLY_FILLED]
    assert (orders["locked"][orders["status"] > s.PARTIALLY_FILLED] == 0).all()
    for asset in range(len(engine.assets)):
        symbols = exchange.symbols[still["symbol"]]
        own = np.where(still["side"] == BUY, symbols["quote"], symbols["base"]) == asset
        for account in range(1, 9):
            locked = still["locked"][own & (still["account"] == account)].sum()
            assert locked == balances[account, asset]["locked"], (account, asset)
    for symbol in range(2):
        rest = exchange.core.orders[exchange.core.orders["leaves"] > 0]
        mine = still[(still["symbol"] == symbol) & (still["handle"] != 0)]
        leaves = mine["quantity"] - mine["executed"] - mine["prevented"]
        assert (
            dict(zip(mine["handle"].tolist(), leaves.tolist(), strict=True)).items()
            <= dict(zip(rest["handle"].tolist(), (rest["leaves"] + rest["hidden"]).tolist(), strict=True)).items()
        )
        assert exchange.core.ladders[symbol]["hiding"] == (mine["iceberg"] > 0).sum()
        assert exchange.core.ladders[symbol]["resting"] == len(mine)
    # The counts that filters use are those of the open orders.
    for account in range(1, 9):
        for symbol in range(2):
            mine = still[(still["account"] == account) & (still["symbol"] == symbol)]
            buyers = mine[mine["side"] == BUY]
            counted = exchange.counts[account, symbol]
            assert counted["orders"] == len(mine)
            assert counted["icebergs"] == (mine["iceberg"] > 0).sum()
            assert counted["algo_orders"] == ((mine["working_us"] == 0) & (mine["type"] >= s.STOP_LOSS)).sum()
            lists = exchange.lists[(exchange.lists["account"] == account) & (exchange.lists["symbol"] == symbol)]
            assert counted["order_lists"] == lists["executing"].sum()
            assert counted["buying"] == (buyers["quantity"] - buyers["executed"] - buyers["prevented"]).sum()


# ── cancel-replace: the five rows of the venue's table, and what comes before them ──────────────────────────────────


def resting():
    """Open a market with one order of account 1, which has little besides."""
    engine = Engine([PLAIN], seed=1)
    engine.open_account({"USDT": 100 * 10 * 10 + 500})
    assert engine.place(1, limit("BUY", 100, 10, client_id="old"), START_US).error is None
    engine.take_events()
    return engine


DEAR = limit("BUY", 200, 10)


@pytest.mark.parametrize("mode", ["STOP_ON_FAILURE", "ALLOW_FAILURE"])
def test_replace_both_succeed(mode):
    engine = resting()
    found = engine.cancel_replace(1, limit("BUY", 101, 9), START_US, mode=mode, cancel_order_id=1)
    assert (found.error, found.cancel_result, found.new_result) == (None, "SUCCESS", "SUCCESS")
    assert (found.cancel.order.status, found.new.order.order_id) == ("CANCELED", 2)
    assert [one.order_id for one in engine.open_orders(1)] == [2]


@pytest.mark.parametrize("mode", ["STOP_ON_FAILURE", "ALLOW_FAILURE"])
def test_replace_cancels_and_cannot_place(mode):
    engine = resting()
    found = engine.cancel_replace(1, DEAR, START_US, mode=mode, cancel_client_id="old")
    assert found.error == (-2021, "Order cancel-replace partially failed.")
    assert (found.cancel_result, found.new_result) == ("SUCCESS", "FAILURE")
    assert found.new.error.code == -2010
    assert engine.open_orders(1) == []
    last = [one for one in engine.take_events() if isinstance(one, OrderEvent)][-1]
    assert (last.execution, last.order.status, last.reject_reason) == ("REJECTED", "REJECTED", "INSUFFICIENT_BALANCES")
    assert (last.order.price, last.order.quantity, last.order.side) == (200, 10, "BUY")


def test_replace_cannot_cancel_and_stops():
    engine = resting()
    found = engine.cancel_replace(1, limit("BUY", 50, 1), START_US, mode="STOP_ON_FAILURE", cancel_order_id=9)
    assert found.error == (-2022, "Order cancel-replace failed.")
    assert (found.cancel_result, found.new_result, found.new) == ("FAILURE", "NOT_ATTEMPTED", None)
    assert found.cancel.error == (-2011, "Unknown order sent.")
    assert len(engine.open_orders(1)) == 1


def test_replace_cannot_cancel_and_places():
    engine = resting()
    found = engine.cancel_replace(1, limit("BUY", 50, 1), START_US, mode="ALLOW_FAILURE", cancel_order_id=9)
    assert found.error == (-2021, "Order cancel-replace partially failed.")
    assert (found.cancel_result, found.new_result) == ("FAILURE", "SUCCESS")
    assert len(engine.open_orders(1)) == 2


def test_replace_can_do_neither():
    engine = resting()
    found = engine.cancel_replace(1, DEAR, START_US, mode="ALLOW_FAILURE", cancel_order_id=9)
    assert found.error == (-2022, "Order cancel-replace failed.")
    assert (found.cancel_result, found.new_result) == ("FAILURE", "FAILURE")
    assert engine.take_events() == []


def test_replace_obeys_the_restrictions_of_its_cancel():
    engine = resting()
    found = engine.cancel_replace(
        1,
        limit("BUY", 50, 1),
        START_US,
        mode="STOP_ON_FAILURE",
        cancel_order_id=1,
        restrictions="ONLY_PARTIALLY_FILLED",
    )
    assert found.cancel.error == (-2011, "Order was not canceled due to cancel restrictions.")


def test_replace_looks_at_filters_and_parameters_before_it_cancels():
    engine = resting()
    wrong = [limit("BUY", 100, 10**15), NewOrder(symbol="BTCUSDT", side="BUY", type="LIMIT", price=1, quantity=1)]
    for new, code in zip(wrong, (-1013, -1102), strict=True):
        found = engine.cancel_replace(1, new, START_US, mode="ALLOW_FAILURE", cancel_order_id=1)
        assert found.error.code == code
        assert (found.cancel_result, found.new_result) == ("NOT_ATTEMPTED", "NOT_ATTEMPTED")
    assert len(engine.open_orders(1)) == 1


def test_replace_may_take_over_the_client_id():
    engine = resting()
    new = limit("BUY", 99, 1, client_id="old")
    assert engine.cancel_replace(1, new, START_US, mode="STOP_ON_FAILURE", cancel_order_id=1).error is None
    assert engine.order(1, PLAIN.name, client_id="old").order_id == 2


# ── the facade ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_client_ids_are_free_again_when_their_order_is_closed():
    engine = market()
    new = limit("BUY", 100, 1, client_id="mine")
    assert engine.place(1, new, START_US).client_id == "mine"
    assert engine.place(1, new, START_US).error == (-2010, "Duplicate order sent.")
    assert engine.place(2, new, START_US).error is None, "of another account"
    engine.cancel(1, PLAIN.name, START_US, client_id="mine")
    assert engine.place(1, new, START_US).order.order_id == 3
    assert engine.order(1, PLAIN.name, client_id="mine").order_id == 3
    assert engine.order(1, PLAIN.name, order_id=1).client_id == "mine"


def test_the_same_seed_makes_the_same_client_ids():
    found = [[market().place(1, limit("BUY", 100, 1), START_US).client_id for _ in range(3)] for _ in range(2)]
    assert found[0] == found[1]
    assert len(found[0][0]) == 22


def test_a_test_order_is_not_placed():
    engine = market()
    assert engine.test(1, limit("BUY", 100, 1), START_US) is None
    assert engine.take_events() == []
    assert engine.open_orders(1) == []


def test_unknown_symbols_are_values_too():
    engine = market()
    nothing = limit("BUY", 100, 1, symbol="NOTHING")
    assert engine.place(1, nothing, START_US).error == (-1121, "Invalid symbol.")
    assert engine.test(1, nothing, START_US).code == -1121
    assert engine.cancel(1, "NOTHING", START_US, order_id=1).error.code == -1121
    assert engine.cancel_all(1, "NOTHING", START_US).code == -1121
    assert engine.amend(1, "NOTHING", START_US, order_id=1, new_quantity=1).error.code == -1121
    found = engine.cancel_replace(1, nothing, START_US, mode="ALLOW_FAILURE", cancel_order_id=1)
    assert found.error.code == -1121


def test_accounts_deposits_and_what_they_may_not_be():
    engine = market()
    assert engine.deposit(1, "BTC", 5, START_US)
    assert not engine.deposit(1, "BTC", -(10**16), START_US)
    events = engine.take_events()
    assert [type(one).__name__ for one in events] == ["DepositEvent", "BalanceEvent"]
    assert events[1].balances == (("BTC", 10**15 + 5, 0),)
    assert engine.trade_group(1) == -1
    with pytest.raises(ValueError, match="balances of DOGE"):
        engine.open_account({"DOGE": 1})
    for _ in range(62):
        engine.open_account({})
    with pytest.raises(ValueError, match="no room for more than 64"):
        engine.open_account({})


@pytest.mark.parametrize("number", [-(1 << 70), -1, 0, 7, (1 << 63) - 1, 1 << 63, 1 << 70])
def test_no_number_is_too_strange_for_an_answer(number):
    engine = market()
    engine.place(1, limit("BUY", 100, 10), START_US)
    assert engine.cancel(1, PLAIN.name, START_US, order_id=number).error == (-2011, "Unknown order sent.")
    assert engine.order(1, PLAIN.name, order_id=number).code == -2013
    assert engine.amend(1, PLAIN.name, START_US, order_id=number, new_quantity=5).error.code == -2038
    for field in ("price", "quantity", "strategy_id", "strategy_type"):
        fields = {"price": 50, "quantity": 1, field: number}
        found = engine.place(1, limit("BUY", **fields), START_US)
        assert found.error is None or found.error.code in {-1013, -1108, -1134, -2010}, field
    engine.place(1, order("BUY", "MARKET", quote_quantity=number), START_US)
    engine.place(1, order("BUY", "STOP_LOSS", stop_price=number, quantity=1), START_US)
    assert engine.order(1, PLAIN.name, order_id=1).leaves == 10
    engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=number)
    for field in ("order_id", "start_us", "end_us"):
        engine.all_orders(1, PLAIN.name, **{field: number})
        engine.my_trades(1, PLAIN.name, **{field: number})


def test_time_never_goes_back():
    engine = market()
    engine.place(1, limit("BUY", 100, 1), START_US)
    engine.place(1, limit("BUY", 100, 1), START_US - 5)
    assert engine.order(1, PLAIN.name, order_id=2).created_us == START_US
