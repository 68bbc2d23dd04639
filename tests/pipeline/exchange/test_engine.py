"""The engine against a slow, obvious one, under random commands."""

from __future__ import annotations

import random

import pytest

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import ORDER_TYPES, STP_MODES, NewOrder, OrderEvent
from tests.pipeline.exchange.engine_rig import ROUND, START_US, STRICT, Mirror
from tests.pipeline.exchange.slow_engine import LIMITED, STOPS, RefusedError, SlowEngine


class Twins:
    """Both engines, given the same commands."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        symbols = [STRICT, ROUND]
        self.fast = Engine(symbols, seed=seed, orders_kept=1 << 14, book_slots=256, orders_max=14, algo_orders_max=5)
        self.slow = SlowEngine({one.name: one for one in symbols}, orders_max=14, algo_orders_max=5)
        for group, rich in ((-1, 50), (5, 50), (5, 50), (-1, 1)):
            balances = {"ABC": 40_000 * rich, "USD": 12_000_000 * rich, "XYZ": 60_000 * rich}
            assert self.fast.open_account(balances, trade_group=group) == self.slow.open_account(balances, group)
        self.sums = {asset: self.sum_of(asset) for asset in self.fast.assets}
        self.mirrors = [Mirror(self.fast, one.name) for one in symbols]
        self.now_us = START_US
        self.seen = set()  # what happened at all

    def sum_of(self, asset):
        accounts = self.fast.exchange.balances[:, list(self.fast.assets).index(asset)]
        return int(accounts["free"].sum() + accounts["locked"].sum()) + self.fast.fees()[asset]

    def some_order(self):
        """Make an order that may be anything."""
        draw = self.random
        symbol = draw.choice([STRICT, STRICT, ROUND])
        order_type = draw.choices(ORDER_TYPES, (12, 3, 4, 1, 1, 1, 1))[0]
        middle = self.fast.last_price(symbol.name) or (200 if symbol is STRICT else 35_000)
        ticks = max(int(draw.gauss(0, 4)) + middle // symbol.tick, 1)
        wild = draw.random() < 0.03
        step = 1 if wild else symbol.step
        quantity = draw.choice([draw.randint(1, 12), draw.randint(1, 60), draw.randint(1, 200)]) * step
        if symbol is ROUND:
            quantity *= draw.choice([1, 1, 37])
        by_value = order_type == "MARKET" and draw.random() < 0.4
        stops = order_type in STOPS
        return NewOrder(
            symbol=symbol.name,
            side=draw.choice(["BUY", "SELL"]),
            type=order_type,
            time_in_force=draw.choice(["GTC", "GTC", "GTC", "IOC", "FOK"])
            if order_type in LIMITED - {"LIMIT_MAKER"}
            else None,
            price=draw.randint(1, 2_000) if wild else ticks * symbol.tick,
            quantity=None if by_value else quantity,
            quote_quantity=draw.randint(1, 40) * 10_000 if by_value else None,
            stop_price=max(int(draw.gauss(0, 7)) + middle // symbol.tick, 1) * symbol.tick if stops else None,
            client_id=draw.choice(["one", "two", "three"]) if draw.random() < 0.1 else None,
            stp=draw.choice(STP_MODES) if draw.random() < 0.8 else None,
        )

    def compare(self, do_fast, do_slow):
        """Let both do the same."""
        outcome = do_fast()
        code, word, wanted = 0, "", None
        try:
            wanted = do_slow()
        except RefusedError as refused:
            code, word = refused.args
        if wanted is None:
            assert outcome.error is not None, word
            assert outcome.error.code == code, (word, outcome)
            assert word in outcome.error.msg, (word, outcome)
            self.seen.add(word)
            return
        assert outcome.error is None, (outcome.error, wanted.shown)
        assert shown(outcome.order) == wanted.shown
        self.slow.settle_down(wanted.symbol)

    def step(self):
        draw, slow = self.random, self.slow
        self.now_us += draw.randint(0, 15_000_000)
        account = draw.randint(1, 4)
        mine = [one for one in slow.orders if one.account == account and one.open]
        roll = draw.random()
        if roll < 0.75 or not mine:
            order = self.some_order()
            if order.type not in LIMITED:
                order = NewOrder(**{name: getattr(order, name) for name in order.__struct_fields__} | {"price": None})
            self.compare(
                lambda: self.fast.place(account, order, self.now_us), lambda: slow.place(account, order, self.now_us)
            )
            return
        slow.now_us = max(slow.now_us, self.now_us)
        target = draw.choice(mine)
        name, order_id = target.symbol.name, target.order_id
        if roll < 0.88:
            if draw.random() < 0.05:
                order_id = draw.randint(1, 2 * order_id)
            only = draw.choice([None, None, None, "ONLY_NEW", "ONLY_PARTIALLY_FILLED"])
            self.compare(
                lambda: self.fast.cancel(account, name, self.now_us, order_id=order_id, restrictions=only),
                lambda: slow.cancel(account, name, order_id, only),
            )
        else:
            step = target.symbol.step
            quantity = draw.randint(1, target.quantity // step + 1) * step
            self.compare(
                lambda: self.fast.amend(account, name, self.now_us, order_id=order_id, new_quantity=quantity),
                lambda: slow.amend(account, name, order_id, quantity),
            )

    def check(self):
        """Compare everything that can be seen."""
        fast, slow = self.fast, self.slow
        events = fast.take_events()
        assert [said(one) for one in events if isinstance(one, OrderEvent)] == slow.log
        self.seen |= {one[0] for one in slow.log} | {one.expiry for one in slow.orders[-3:]}
        self.seen |= {one.status for one in slow.orders[-3:]} | {one.stp for one in slow.orders[-3:] if one.prevented}
        slow.log.clear()
        for mirror in self.mirrors:
            mirror.apply(events)
            mirror.check()
        for account in range(1, 5):
            wanted = slow.balances(account)
            assert fast.balances(account) == wanted, account
            assert min(min(pair) for pair in wanted.values()) >= 0
            open_ids = [one.order_id for one in slow.orders if one.account == account and one.open]
            assert [one.order_id for one in fast.open_orders(account)] == open_ids
        for name, symbol in slow.symbols.items():
            view = fast.depth(name, 1000)
            for side, levels in (("BUY", view.bids), ("SELL", view.asks)):
                wanted = {}
                for one in slow.book:
                    if one.symbol is symbol and one.side == side:
                        wanted[one.price] = wanted.get(one.price, 0) + one.leaves
                assert dict(levels) == wanted
        for asset, before in self.sums.items():
            assert self.sum_of(asset) == before
        assert fast.fees() == {asset: slow.fees.get(asset, 0) for asset in fast.fees()}


def shown(order):
    """What the slow engine shows of an order."""
    return (
        order.order_id, order.account, order.symbol, order.side, order.type, order.price, order.quantity,
        order.executed, order.cumulative_quote, order.prevented, order.status, order.expiry_reason, order.amends,
    )  # fmt: skip


def said(event):
    """What the slow engine says about a change of an order."""
    more = ()
    if event.execution == "TRADE":
        fill = event.fill
        more = (fill.price, fill.quantity, fill.quote, fill.trade_id, fill.commission)
    elif event.execution == "TRADE_PREVENTION":
        more = (event.prevented_quantity,)
    return (event.execution, *shown(event.order), *more)


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
    SEEN[seed] = twins.seen
    assert len(twins.slow.trades) > 100, seed


def test_the_random_commands_met_everything():
    if len(SEEN) < len(SEEDS):
        pytest.skip("needs what the test above saw")
    wanted = {
        "LOT_SIZE", "PRICE_FILTER", "NOTIONAL", "PERCENT_PRICE", "MAX_NUM_ORDERS", "MAX_NUM_ALGO_ORDERS",
        "MAX_NUM_ORDER_AMENDS", "MARKET_LOT_SIZE", "insufficient balance", "immediately match", "would trigger",
        "Duplicate", "Unknown order", "restrictions", "new quantity", "symbol minimum",
        "NEW", "TRADE", "CANCELED", "REPLACED", "EXPIRED", "TRADE_PREVENTION", "EXPIRED_IN_MATCH",
        "UNFILLED_FOK_ORDER_EXPIRED", "UNFILLED_IOC_QUANTITY_EXPIRED", "INSUFFICIENT_LIQUIDITY",
        "EXECUTION_RULE_PRICE_RANGE_EXCEEDED", *STP_MODES[1:],
    }  # fmt: skip
    seen = set().union(*SEEN.values())
    assert seen >= wanted, wanted - seen
