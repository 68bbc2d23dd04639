"""Order types, times in force, cancels, amendments and symbol statuses."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import OrderEvent
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, changed, limit, market, order


def texts(events):
    return [(one.execution, one.order.order_id, one.order.status) for one in events if isinstance(one, OrderEvent)]


def asks(engine, *levels, account=2):
    for price, quantity in levels:
        assert engine.place(account, limit("SELL", price, quantity), START_US).error is None
    engine.take_events()


def test_a_limit_order_takes_what_it_can_and_rests():
    engine = market()
    asks(engine, (100, 5), (101, 5), (103, 5))
    outcome = engine.place(1, limit("BUY", 102, 12), START_US + 1)
    assert [(one.price, one.quantity) for one in outcome.fills] == [(100, 5), (101, 5)]
    assert (outcome.order.status, outcome.order.executed, outcome.order.leaves) == ("PARTIALLY_FILLED", 10, 2)
    assert engine.depth(PLAIN.name).bids == [(102, 2)]
    assert texts(engine.take_events()) == [
        ("NEW", 4, "NEW"), ("TRADE", 1, "FILLED"), ("TRADE", 4, "PARTIALLY_FILLED"),
        ("TRADE", 2, "FILLED"), ("TRADE", 4, "PARTIALLY_FILLED"),
    ]  # fmt: skip


def test_the_oldest_at_the_best_price_trades_first():
    engine = market(accounts=4)
    for account, price in ((1, 101), (2, 100), (3, 100)):
        engine.place(account, limit("SELL", price, 5), START_US)
    engine.place(4, order("BUY", "MARKET", quantity=12), START_US)
    fills = [one.fill for one in engine.take_events() if isinstance(one, OrderEvent) and one.fill]
    assert [(one.account, one.quantity) for one in fills if one.is_maker] == [(2, 5), (3, 5), (1, 2)]


def test_ioc_expires_with_what_it_did_not_get():
    engine = market()
    asks(engine, (100, 5))
    one = engine.place(1, limit("BUY", 100, 8, time_in_force="IOC"), START_US).order
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 5, "UNFILLED_IOC_QUANTITY_EXPIRED")
    assert engine.balances(1)["USDT"][1] == 0


def test_fok_trades_all_of_it_or_nothing():
    engine = market()
    asks(engine, (100, 5), (101, 5))
    one = engine.place(1, limit("BUY", 101, 11, time_in_force="FOK"), START_US).order
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 0, "UNFILLED_FOK_ORDER_EXPIRED")
    assert engine.place(1, limit("BUY", 100, 6, time_in_force="FOK"), START_US).order.executed == 0
    assert engine.place(1, limit("BUY", 101, 10, time_in_force="FOK"), START_US).order.status == "FILLED"
    assert engine.depth(PLAIN.name).asks == []


def test_fok_does_not_count_on_ones_own_orders():
    engine = market()
    asks(engine, (100, 5))
    asks(engine, (101, 5), account=1)
    for stp in ("EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"):
        one = engine.place(1, limit("BUY", 101, 8, time_in_force="FOK", stp=stp), START_US).order
        assert (one.status, one.executed) == ("EXPIRED", 0), stp
    assert engine.depth(PLAIN.name).asks == [(100, 5), (101, 5)]


def iceberg(side, price, quantity, part):
    return limit(side, price, quantity, iceberg_quantity=part)


def test_an_iceberg_shows_a_part_and_the_next_one_waits_behind_the_others():
    engine = market(accounts=3, iceberg_parts_max=10)
    assert engine.place(1, iceberg("SELL", 100, 10, 4), START_US).order.iceberg == 4
    engine.place(2, limit("SELL", 100, 5), START_US)
    assert engine.depth(PLAIN.name).asks == [(100, 9)]
    assert engine.balances(1)["BTC"][1] == 10 * 1000
    engine.take_events()
    outcome = engine.place(3, limit("BUY", 100, 12), START_US)
    fills = [one.fill for one in engine.take_events() if isinstance(one, OrderEvent) and one.fill]
    assert [(one.account, one.quantity) for one in fills if one.is_maker] == [(1, 4), (2, 5), (1, 3)]
    assert outcome.order.status == "FILLED"
    # One of its second part is left, and two that are hidden.
    assert engine.depth(PLAIN.name).asks == [(100, 1)]
    assert engine.order(1, PLAIN.name, order_id=1).leaves == 3
    engine.place(3, limit("BUY", 100, 1), START_US)
    assert engine.depth(PLAIN.name).asks == [(100, 2)]
    assert engine.cancel(1, PLAIN.name, START_US, order_id=1).order.executed == 8
    assert engine.depth(PLAIN.name).asks == []
    assert engine.balances(1)["BTC"][1] == 0


def test_an_iceberg_that_is_amended_or_prevented_loses_what_is_hidden_first():
    engine = market(accounts=2, iceberg_parts_max=10)
    engine.place(1, iceberg("SELL", 100, 10, 4), START_US)
    engine.place(2, limit("SELL", 100, 5), START_US)
    engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=8)
    assert engine.depth(PLAIN.name).asks == [(100, 9)]
    engine.place(1, limit("BUY", 100, 3, stp="DECREMENT"), START_US)
    assert engine.depth(PLAIN.name).asks == [(100, 9)]
    engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=6)
    assert engine.depth(PLAIN.name).asks == [(100, 8)]
    engine.place(2, limit("BUY", 100, 1, stp="NONE"), START_US)
    assert engine.order(1, PLAIN.name, order_id=1).executed == 1, "it kept its place"


def test_a_fok_order_counts_on_what_is_hidden():
    engine = market(iceberg_parts_max=10)
    engine.place(2, iceberg("SELL", 100, 10, 4), START_US)
    assert engine.place(1, limit("BUY", 100, 11, time_in_force="FOK"), START_US).order.executed == 0
    assert engine.place(1, limit("BUY", 100, 10, time_in_force="FOK"), START_US).order.status == "FILLED"


def test_an_order_that_meets_more_parts_than_can_be_told_of_ends():
    engine = Engine([changed(PLAIN, iceberg_parts_max=10_000)], seed=1, book_slots=8)
    for _ in range(2):
        engine.open_account({"BTC": 10**15, "USDT": 10**15})
    engine.place(2, iceberg("SELL", 100, 2_000, 1), START_US)
    one = engine.place(1, limit("BUY", 100, 2_000), START_US).order
    assert (one.status, one.expiry_reason) == ("EXPIRED", "EXCHANGE_CANCELED")
    assert 500 < one.executed < 2_000
    while one.status != "FILLED":
        one = engine.place(1, limit("BUY", 100, engine.order(2, PLAIN.name, order_id=1).leaves), START_US).order
    assert engine.depth(PLAIN.name).asks == []


def test_a_limit_maker_that_would_take_is_refused():
    engine = market()
    asks(engine, (100, 5))
    outcome = engine.place(1, order("BUY", "LIMIT_MAKER", price=100, quantity=1), START_US)
    assert outcome.error == (-2010, "Order would immediately match and take.")
    assert engine.place(1, order("BUY", "LIMIT_MAKER", price=99, quantity=1), START_US).order.status == "NEW"


def test_a_market_order_expires_when_the_book_is_dry():
    engine = market()
    asks(engine, (100, 5))
    one = engine.place(1, order("BUY", "MARKET", quantity=8), START_US).order
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 5, "INSUFFICIENT_LIQUIDITY")
    one = engine.place(1, order("SELL", "MARKET", quantity=8), START_US).order
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 0, "INSUFFICIENT_LIQUIDITY")


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_a_quote_quantity_spends_or_brings_in_no_more_than_that(side):
    engine = market(step=2)
    for price, quantity in ((100, 4), (101 if side == "BUY" else 99, 40)):
        engine.place(2, limit("SELL" if side == "BUY" else "BUY", price, quantity), START_US)
    before = engine.balances(1)["USDT"][0]
    budget = 10_000  # 4 × 100 and 6 × 101 (or 99) are 10 × (400 + 606 or 594)
    one = engine.place(1, order(side, "MARKET", quote_quantity=budget), START_US).order
    assert (one.status, one.quote_quantity) == ("FILLED", budget)
    assert one.quantity == one.executed == (8 if side == "BUY" else 10)
    assert abs(engine.balances(1)["USDT"][0] - before) == one.cumulative_quote <= budget
    assert engine.balances(1)["USDT"][1] == 0


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_a_quote_quantity_that_is_worth_the_whole_book_is_filled(side):
    other, last = ("SELL", 101) if side == "BUY" else ("BUY", 99)
    # Exactly; what is left buys no step; a step more would have been bought.
    for more, status in ((0, "FILLED"), (19, "FILLED"), (10 * last * 2, "EXPIRED")):
        engine = market(step=2)
        for price in (100, last):
            engine.place(2, limit(other, price, 4), START_US)
        budget = 10 * 4 * (100 + last) + more
        one = engine.place(1, order(side, "MARKET", quote_quantity=budget), START_US).order
        assert (one.status, one.executed, one.quantity) == (status, 8, 8)
    # One's own order behind the book's would end it; it is not reached.
    engine = market()
    engine.place(2, limit(other, 100, 4), START_US)
    engine.place(1, limit(other, last, 4), START_US)
    one = engine.place(1, order(side, "MARKET", quote_quantity=4_000, stp="EXPIRE_TAKER"), START_US).order
    assert (one.status, one.executed) == ("FILLED", 4)


@pytest.mark.parametrize("side", ["BUY", "SELL"])
@pytest.mark.parametrize("mode", ["DECREMENT", "TRANSFER"])
def test_a_quote_quantity_trades_with_what_prevention_leaves_of_it(side, mode):
    engine = market(accounts=3, groups=(7, 7, -1))
    other = "SELL" if side == "BUY" else "BUY"
    engine.place(2, limit(other, 100, 5, stp=mode), START_US)
    engine.place(3, limit(other, 100, 100), START_US)
    one = engine.place(1, order(side, "MARKET", quote_quantity=10_000, stp=mode), START_US).order
    assert (one.status, one.quantity, one.prevented, one.executed) == ("FILLED", 10, 5, 5)
    assert engine.balances(1)["USDT"][1] == 0


def test_a_quote_quantity_needs_a_book():
    engine = market(quantity_min=4)
    quote = order("BUY", "MARKET", quote_quantity=10**6)
    assert engine.place(1, quote, START_US).error.msg.endswith("less than symbol minimum quantity.")
    asks(engine, (100, 5))
    one = engine.place(1, quote, START_US).order
    assert (one.status, one.executed, one.expiry_reason) == ("EXPIRED", 5, "INSUFFICIENT_LIQUIDITY")
    asks(engine, (100, 4))
    engine.place(1, limit("BUY", 100, 1 + 3), START_US)
    asks(engine, (100, 6))
    engine.amend(2, PLAIN.name, START_US, order_id=5, new_quantity=4)
    assert (
        engine.place(1, order("BUY", "MARKET", quote_quantity=1000), START_US).error.msg == "Filter failure: LOT_SIZE"
    )


def test_without_the_money_nothing_is_placed():
    engine = market()
    poor = engine.open_account({"USDT": 9_999, "BTC": 4_999})
    asks(engine, (100, 50))
    refused = (-2010, "Account has insufficient balance for requested action.")
    for side in ("BUY", "SELL"):
        price = 100 if side == "BUY" else 200
        assert engine.place(poor, limit(side, price, 10), START_US).error == refused
        assert engine.place(poor, order(side, "MARKET", quantity=10), START_US).error == refused
    assert engine.place(poor, order("BUY", "MARKET", quote_quantity=10_000), START_US).error == refused
    stop = order("BUY", "STOP_LOSS", stop_price=200, quantity=5)
    assert engine.place(poor, stop, START_US).error == refused
    assert engine.take_events() == []
    assert engine.place(poor, limit("BUY", 99, 10), START_US).error is None
    assert engine.balances(poor)["USDT"] == (99, 9_900)


def test_cancel_by_either_id_and_its_restrictions():
    engine = market()
    engine.place(1, limit("BUY", 100, 10, client_id="mine"), START_US)
    only = {"order_id": 1, "restrictions": "ONLY_PARTIALLY_FILLED"}
    assert engine.cancel(1, PLAIN.name, START_US, **only).error.msg.endswith("due to cancel restrictions.")
    engine.place(2, limit("SELL", 100, 4), START_US)
    only["restrictions"] = "ONLY_NEW"
    assert engine.cancel(1, PLAIN.name, START_US, **only).error.code == -2011
    assert engine.cancel(1, PLAIN.name, START_US, order_id=1, client_id="other").error.code == -2011
    assert engine.cancel(2, PLAIN.name, START_US, order_id=1).error == (-2011, "Unknown order sent.")
    assert engine.cancel(1, PLAIN.name, START_US).error.code == -1102
    engine.take_events()
    outcome = engine.cancel(1, PLAIN.name, START_US, client_id="mine", new_client_id="bye")
    assert (outcome.order.status, outcome.order.executed) == ("CANCELED", 4)
    assert (outcome.client_id, outcome.original_client_id, outcome.order.client_id) == ("bye", "mine", "mine")
    said = next(one for one in engine.take_events() if isinstance(one, OrderEvent))
    assert (said.execution, said.client_id, said.original_client_id) == ("CANCELED", "bye", "mine")
    assert engine.cancel(1, PLAIN.name, START_US, order_id=1).error == (-2011, "Unknown order sent.")
    assert engine.balances(1)["USDT"][1] == 0


def test_cancel_all_takes_one_account_in_one_symbol():
    engine = market()
    for account in (1, 2, 1):
        engine.place(account, limit("BUY", 100, 10), START_US)
    engine.place(1, order("SELL", "STOP_LOSS", stop_price=50, quantity=1), START_US)
    found = engine.cancel_all(1, PLAIN.name, START_US)
    assert [(one.order.order_id, one.order.status) for one in found] == [(number, "CANCELED") for number in (1, 3, 4)]
    assert engine.open_orders(1) == []
    assert len(engine.open_orders(2)) == 1
    assert engine.cancel_all(1, PLAIN.name, START_US) == (-2011, "Unknown order sent.")


def test_an_amended_order_keeps_its_place_and_loses_nothing():
    engine = market(accounts=3)
    for account in (1, 2):
        engine.place(account, limit("BUY", 100, 10, client_id="first"), START_US)
    engine.place(3, limit("SELL", 100, 3), START_US)
    engine.take_events()
    outcome = engine.amend(1, PLAIN.name, START_US + 5, order_id=1, new_quantity=6)
    assert (outcome.order.quantity, outcome.order.executed, outcome.order.amends) == (6, 3, 1)
    assert outcome.original_client_id == "first"
    assert outcome.client_id == outcome.order.client_id != "first"
    assert engine.balances(1)["USDT"][1] == 100 * 3 * 10
    said = next(one for one in engine.take_events() if isinstance(one, OrderEvent))
    assert (said.execution, said.client_id, said.original_client_id) == ("REPLACED", outcome.client_id, "first")
    engine.place(3, limit("SELL", 100, 5), START_US)
    fills = [one.fill for one in engine.take_events() if isinstance(one, OrderEvent) and one.fill]
    assert [(one.account, one.quantity) for one in fills if one.is_maker] == [(1, 3), (2, 2)]
    assert engine.order(1, PLAIN.name, client_id="first").code == -2013
    assert engine.order(1, PLAIN.name, client_id=outcome.client_id).status == "FILLED"


def test_an_amendment_that_is_none_is_refused_and_changes_nothing():
    engine = market()
    engine.place(1, limit("BUY", 100, 10, client_id="mine"), START_US)
    engine.place(1, limit("BUY", 100, 10, client_id="other"), START_US)
    engine.place(2, limit("SELL", 100, 4), START_US)
    engine.take_events()
    for quantity in (-1, 0, 3, 10, 11, 1 << 70):
        assert engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=quantity).error.code == -2038, quantity
    again = {"order_id": 1, "new_quantity": 8, "new_client_id": "other"}
    assert engine.amend(1, PLAIN.name, START_US, **again).error == (-2038, "Duplicate order sent.")
    assert engine.take_events() == []
    again["new_client_id"] = "mine"
    assert engine.amend(1, PLAIN.name, START_US, **again).order.client_id == "mine"
    # What has been executed is all there is left: it expires.
    assert engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=4).order.status == "EXPIRED"
    assert engine.depth(PLAIN.name).bids == [(100, 10)]


def test_what_each_status_of_a_symbol_allows():
    for status, cancels in (("HALT", True), ("END_OF_DAY", True), ("CANCEL_ONLY", True), ("BREAK", False)):
        engine = market()
        engine.place(1, limit("BUY", 100, 10), START_US)
        engine.set_status(PLAIN.name, status)
        assert engine.symbols[PLAIN.name].status == status
        assert engine.place(1, limit("BUY", 100, 10), START_US).error == (-2010, "Market is closed.")
        assert engine.amend(1, PLAIN.name, START_US, order_id=1, new_quantity=5).error.code == -2038
        error = engine.cancel(1, PLAIN.name, START_US, order_id=1).error
        assert error == (None if cancels else (-2011, "Market is closed."))
        if not cancels:
            assert engine.cancel_all(1, PLAIN.name, START_US).code == -2011
        engine.set_status(PLAIN.name, "TRADING")
        assert engine.place(1, limit("BUY", 100, 10), START_US).error is None


def test_a_market_without_room_says_so():
    engine = market()
    for _ in range(1024):
        assert engine.place(1, limit("BUY", 100, 1), START_US).error is None
    assert engine.place(1, limit("BUY", 99, 1), START_US).error.msg == "Filter failure: EXCHANGE_MAX_NUM_ORDERS"
    # What would not rest needs no room.
    for taker in (order("SELL", "MARKET", quantity=1), limit("BUY", 99, 1, time_in_force="IOC")):
        assert engine.test(2, taker, START_US) is None
    assert engine.cancel(1, PLAIN.name, START_US, order_id=7).error is None
    assert engine.place(1, limit("BUY", 99, 1), START_US).error is None
