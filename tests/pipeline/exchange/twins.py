"""The engine and the slow one, given the same random commands, and compared."""

from __future__ import annotations

import random

import msgspec

from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import ORDER_TYPES, STP_MODES, ListEvent, NewOrder, OrderEvent
from tests.pipeline.exchange.engine_rig import ROUND, START_US, STRICT, Mirror, changed
from tests.pipeline.exchange.slow_engine import SlowEngine
from tests.pipeline.exchange.slow_order import LIMITED, STOPS, RefusedError, down

TIGHT = changed(
    STRICT,
    orders_max=7,
    iceberg_parts_max=7,
    icebergs_max=2,
    position_max=20_100,
    order_lists_max=2,
    trailing_above_min=100,
    trailing_above_max=500,
    trailing_below_min=80,
    trailing_below_max=400,
    range_bid_up=110_000_000,
    range_ask_down=90_000_000,
)
"""What an account may hold is not far from what it has at the start, and the range of prices is narrow."""


class Twins:
    """Both engines, given the same commands."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        symbols = [TIGHT, changed(ROUND, iceberg_parts_max=30)]
        limits = {
            "orders_max": 14,
            "algo_orders_max": 5,
            "icebergs_max": 3,
            "order_lists_max": 3,
            "asset_max": {"ABC": 60_000, "XYZ": 6_000, "USD": 13_000_000},
        }
        self.fast = Engine(symbols, seed=seed, orders_kept=1 << 14, book_slots=256, **limits)
        self.slow = SlowEngine({one.name: one for one in symbols}, **limits)
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

    def some_budget(self, account, symbol, side, stp):
        """Choose a quote quantity: any, or exactly what the first orders in the book, or all of them, are worth."""
        draw = self.random
        if draw.random() < 0.5:
            return draw.randint(1, 40) * draw.choice([10_000, 10_000, 400_000])
        reach = list(self.slow.reach(account, stp or symbol.stp_default, symbol, side, 0))
        some = reach[: draw.choice([1, 2, 3, len(reach)])]
        return max(sum(down(symbol, price, leaves) for price, leaves, _ in some) + draw.choice([0, 0, 1]), 1)

    def some_order(self, account, symbol=None):
        """Make an order that may be anything."""
        draw = self.random
        symbol = symbol or draw.choice([TIGHT, TIGHT, self.slow.symbols[ROUND.name]])
        order_type = draw.choices(ORDER_TYPES, (12, 3, 4, 1, 1, 1, 1))[0]
        side, stp = draw.choice(["BUY", "SELL"]), draw.choice(STP_MODES) if draw.random() < 0.8 else None
        middle = self.fast.last_price(symbol.name) or (200 if symbol is TIGHT else 35_000)
        ticks = max(int(draw.gauss(0, 4)) + middle // symbol.tick, 1)
        wild = draw.random() < 0.03
        step = 1 if wild else symbol.step
        quantity = draw.choice([draw.randint(1, 12), draw.randint(1, 60), draw.randint(1, 200)]) * step
        if symbol is not TIGHT:
            quantity *= draw.choice([1, 1, 37])
        by_value = order_type == "MARKET" and draw.random() < 0.4
        stops = order_type in STOPS
        force = draw.choice(["GTC", "GTC", "GTC", "IOC", "FOK"]) if order_type in LIMITED - {"LIMIT_MAKER"} else None
        hides = order_type in LIMITED and force in (None, "GTC") and draw.random() < 0.3
        part = max(quantity // draw.randint(1, 9) // step, 1) * step + (draw.random() < 0.02)
        stop_price = max(int(draw.gauss(0, 7)) + middle // symbol.tick, 1) * symbol.tick if stops else None
        delta = draw.randint(70, 520) if stops and draw.random() < 0.5 else None
        return NewOrder(
            symbol=symbol.name,
            side=side,
            type=order_type,
            time_in_force=force,
            price=None if order_type not in LIMITED else draw.randint(1, 2_000) if wild else ticks * symbol.tick,
            quantity=None if by_value else quantity,
            quote_quantity=self.some_budget(account, symbol, side, stp) if by_value else None,
            stop_price=None if delta and draw.random() < 0.5 else stop_price,
            trailing_delta=delta,
            iceberg_quantity=part if hides else None,
            client_id=draw.choice(["one", "two", "three"]) if draw.random() < 0.1 else None,
            stp=stp,
        )

    def some_pair(self, account, symbol):
        """Make two orders that may be a pair: the market between them, mostly."""
        draw = self.random
        first, second = self.some_order(account, symbol), self.some_order(account, symbol)
        middle = self.fast.last_price(symbol.name) or (200 if symbol is TIGHT else 35_000)
        sides = {"SELL": ("TAKE_PROFIT", "STOP_LOSS"), "BUY": ("STOP_LOSS", "TAKE_PROFIT")}[first.side]
        made = []
        for one, kind, way in zip((first, second), sides, (1, -1), strict=True):
            order_type = draw.choice([kind, kind + "_LIMIT", *["LIMIT_MAKER"] * 2 * kind.startswith("TAKE")])
            price = (middle // symbol.tick + way * draw.randint(0, 6)) * symbol.tick
            limited, stops = order_type in LIMITED, order_type in STOPS
            delta = draw.randint(70, 520) if stops and draw.random() < 0.3 else None
            made.append(
                msgspec.structs.replace(
                    one, side=first.side, type=order_type, quantity=first.quantity or symbol.step * 20,
                    time_in_force="GTC" if limited and stops else None, price=price if limited else None,
                    stop_price=None if not stops or (delta and draw.random() < 0.5) else price, trailing_delta=delta,
                    quote_quantity=None, iceberg_quantity=None, stp=first.stp,
                )
            )  # fmt: skip
        return made

    def some_list(self, account):
        """Make a list of orders that may be anything."""
        draw = self.random
        symbol = draw.choice([TIGHT, TIGHT, self.slow.symbols[ROUND.name]])
        kind = draw.choice(["OCO", "OCO", "OTO", "OTOCO"])
        if kind == "OCO":
            return kind, self.some_pair(account, symbol)
        working = self.some_order(account, symbol)
        while working.type not in {"LIMIT", "LIMIT_MAKER"}:
            working = self.some_order(account, symbol)
        if kind == "OTOCO":
            return kind, [working, *self.some_pair(account, symbol)]
        pending = self.some_order(account, symbol)
        while pending.quote_quantity:
            pending = self.some_order(account, symbol)
        return kind, [working, pending]

    def compare_lists(self, symbol, do_fast, do_slow):
        """Let both do the same with a list."""
        outcome = do_fast()
        try:
            wanted = do_slow()
        except RefusedError as refused:
            code, word = refused.args
            assert outcome.error is not None, word
            assert (outcome.error.code, word in outcome.error.msg) == (code, True), (word, outcome)
            self.seen.add(word)
            return
        assert outcome.error is None, outcome
        assert [shown(one.order) for one in outcome.orders] == [one.shown for one in wanted]
        self.slow.settle_down(symbol)

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

    def replace(self, account, symbol, order_id, only):
        """Let both cancel an order and place another."""
        order, mode = self.some_order(account, symbol), self.random.choice(["STOP_ON_FAILURE", "ALLOW_FAILURE"])
        found = self.fast.cancel_replace(
            account, order, self.now_us, mode=mode, cancel_order_id=order_id, restrictions=only
        )
        code, cancelled, placed, wanted = self.slow.cancel_replace(account, order, self.now_us, mode, order_id, only)
        results = (cancelled, placed)
        assert (found.error.code if found.error else 0, found.cancel_result, found.new_result) == (code, *results)
        self.seen.add(results)
        if wanted is not None:
            assert shown(found.new.order) == wanted.shown
            self.slow.settle_down(wanted.symbol)

    def step(self):
        draw, slow = self.random, self.slow
        self.now_us += draw.randint(0, 15_000_000)
        account = draw.randint(1, 4)
        mine = [one for one in slow.orders if one.account == account and one.open]
        roll = draw.random()
        if roll < 0.12:
            kind, legs = self.some_list(account)
            self.compare_lists(
                slow.symbols[legs[0].symbol],
                lambda: self.fast.place_list(account, kind, legs, self.now_us),
                lambda: slow.place_list(account, kind, legs, self.now_us),
            )
            return
        if roll < 0.7 or not mine:
            order = self.some_order(account)
            self.compare(
                lambda: self.fast.place(account, order, self.now_us), lambda: slow.place(account, order, self.now_us)
            )
            return
        slow.now_us = max(slow.now_us, self.now_us)
        target = draw.choice(mine)
        name, order_id = target.symbol.name, target.order_id
        if target.list and draw.random() < 0.3:
            number = draw.choice([target.list.list_id] * 9 + [1])
            self.compare_lists(
                target.symbol,
                lambda: self.fast.cancel_list(account, name, self.now_us, list_id=number),
                lambda: slow.cancel_list(account, name, number),
            )
            return
        if draw.random() < 0.05:
            order_id = draw.randint(1, 2 * order_id)
        only = draw.choice([None, None, None, "ONLY_NEW", "ONLY_PARTIALLY_FILLED"])
        if roll < 0.78:
            self.replace(account, target.symbol, order_id, only)
        elif roll < 0.88:
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
        assert [(one.view.list_id, one.view.status) for one in events if isinstance(one, ListEvent)] == slow.list_log
        self.seen |= {one[1] for one in slow.list_log}
        slow.list_log.clear()
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
                        wanted[one.price] = wanted.get(one.price, 0) + one.visible
                assert dict(levels) == wanted
        for asset, before in self.sums.items():
            assert self.sum_of(asset) == before
        assert fast.fees() == {asset: slow.fees.get(asset, 0) for asset in fast.fees()}


def shown(order):
    """What the slow engine shows of an order."""
    return (
        order.order_id, order.account, order.symbol, order.side, order.type, order.price, order.quantity,
        order.executed, order.cumulative_quote, order.prevented, order.status, order.expiry_reason, order.amends,
        order.iceberg, order.trailing_delta, order.trailing_us != 0, order.list_id,
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
