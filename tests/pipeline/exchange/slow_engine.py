"""A slow, obvious engine: plain lists searched from end to end, totals from which locks are subtracted."""

from __future__ import annotations

from dataclasses import dataclass, field

from shrivenq.pipeline.exchange.types import RATE
from tests.pipeline.exchange.slow_lists import SlowLists
from tests.pipeline.exchange.slow_order import LIMITED, STOPS, RefusedError, base_scale, down, exact, value
from tests.pipeline.exchange.slow_stops import SlowStops


@dataclass
class SlowEngine(SlowStops, SlowLists):
    symbols: dict
    orders_max: int = 0
    algo_orders_max: int = 0
    icebergs_max: int = 0
    order_lists_max: int = 0
    asset_max: dict = field(default_factory=dict)
    totals: list = field(default_factory=lambda: [{}])
    groups: list = field(default_factory=lambda: [-1])
    fees: dict = field(default_factory=dict)
    orders: list = field(default_factory=list)  # every order ever, in order of arrival
    book: list = field(default_factory=list)  # those that rest, in order of arrival in the book
    waiting: list = field(default_factory=list)
    trades: list = field(default_factory=list)  # (symbol name, price, quantity, minute)
    trade_ids: dict = field(default_factory=dict)
    log: list = field(default_factory=list)  # what order events should say
    turned: set = field(default_factory=set)  # trailing stops that were triggered: (side, whether by a stop price)
    lists: list = field(default_factory=list)
    due: list = field(default_factory=list)  # lists of which an order was closed
    list_log: list = field(default_factory=list)  # what list events should say
    activated: set = field(default_factory=set)
    now_us: int = 0
    last_id: int = 0

    # ── accounts ──

    def open_account(self, balances, group):
        self.totals.append(dict(balances))
        self.groups.append(group)
        return len(self.totals) - 1

    def balances(self, account):
        found = {}
        for asset, total in self.totals[account].items():
            locked = sum(
                one.locked[1] for one in self.orders if one.account == account and one.locked[0] == asset and one.open
            )
            locked -= self.pair_discount(account, asset)
            found[asset] = (total - locked, locked)
        return found

    def free(self, account, asset):
        return self.balances(account).get(asset, (0, 0))[0]

    # ── prices ──

    def last(self, symbol):
        return next((price for name, price, _, _ in reversed(self.trades) if name == symbol.name), 0)

    def reference(self, symbol):
        minute = self.now_us // 60_000_000
        mine = [
            one for one in self.trades if one[0] == symbol.name and minute - symbol.average_minutes < one[3] <= minute
        ]
        shift = symbol.quote_decimals - symbol.price_decimals - symbol.quantity_decimals
        scale = 10 ** max(-shift, 0)
        quantity = sum(one[2] for one in mine)
        if not quantity:
            return self.last(symbol)
        return max(sum(one[1] * one[2] // scale for one in mine) * scale // quantity, 1)

    def range_reference(self, symbol):
        return self.reference(symbol) if symbol.has_reference else 0

    @staticmethod
    def allowed(symbol, side, price, reference):
        """Apply the price-range rule; the reference is that of the moment when an order begins to take."""
        if not reference:
            return True
        up, low = (symbol.range_bid_up, symbol.range_bid_down) if side == "BUY" else (
            symbol.range_ask_up, symbol.range_ask_down,
        )  # fmt: skip
        return (not up or price * RATE <= reference * up) and (not low or price * RATE >= reference * low)

    # ── checks ──

    def check_price(self, symbol, price):
        if price < symbol.price_min or (symbol.price_max and price > symbol.price_max) or price % symbol.tick:
            raise RefusedError(-1013, "PRICE_FILTER")

    def check_lot(self, symbol, order_type, quantity):
        if quantity < symbol.quantity_min or quantity > symbol.quantity_max or quantity % symbol.step or not quantity:
            raise RefusedError(-1013, "LOT_SIZE")
        if order_type == "MARKET" and (
            quantity < symbol.market_quantity_min
            or (symbol.market_quantity_max and quantity > symbol.market_quantity_max)
            or (symbol.market_step and quantity % symbol.market_step)
        ):
            raise RefusedError(-1013, "MARKET_LOT_SIZE")

    def check_notional(self, symbol, order_type, price, quantity, quote_quantity=0):
        market = order_type not in LIMITED
        if quote_quantity:
            low = high = quote_quantity
        else:
            if market:
                price = self.reference(symbol)
            if not price:
                return
            low, high = down(symbol, price, quantity), value(symbol, price, quantity)
        if low < symbol.notional_min and (not market or symbol.apply_min_to_market):
            raise RefusedError(-1013, symbol.notional_filter)
        if symbol.notional_max and high > symbol.notional_max and (not market or symbol.apply_max_to_market):
            raise RefusedError(-1013, symbol.notional_filter)

    def check(self, account, one):
        """Apply every filter."""
        symbol = self.symbols[one.symbol]
        if one.stop_price:
            self.check_price(symbol, one.stop_price)
        if one.type in LIMITED:
            self.check_price(symbol, one.price)
            reference = self.reference(symbol)
            if reference:
                up, low = (symbol.bid_percent_up, symbol.bid_percent_down) if one.side == "BUY" else (
                    symbol.ask_percent_up, symbol.ask_percent_down,
                )  # fmt: skip
                for name, most, least in (
                    ("PERCENT_PRICE", symbol.percent_up, symbol.percent_down),
                    ("PERCENT_PRICE_BY_SIDE", up, low),
                ):
                    if (most and one.price * RATE > reference * most) or one.price * RATE < reference * least:
                        raise RefusedError(-1013, name)
        if one.trailing_delta:
            least, most = symbol.trailing_below_min, symbol.trailing_below_max
            if self.rises(one.side, one.type):
                least, most = symbol.trailing_above_min, symbol.trailing_above_max
            if one.trailing_delta < least or one.trailing_delta > (most or one.trailing_delta):
                raise RefusedError(-1013, "TRAILING_DELTA")
        if one.quote_quantity is None:
            self.check_lot(symbol, one.type, one.quantity)
        self.check_notional(symbol, one.type, one.price, one.quantity, one.quote_quantity or 0)
        mine = [other for other in self.orders if other.account == account and other.open]
        here = [other for other in mine if other.symbol is symbol]
        if symbol.orders_max and len(here) >= symbol.orders_max:
            raise RefusedError(-1013, "MAX_NUM_ORDERS")
        if self.orders_max and len(mine) >= self.orders_max:
            raise RefusedError(-1013, "EXCHANGE_MAX_NUM_ORDERS")
        if one.type in STOPS:
            if symbol.algo_orders_max and sum(other.algo for other in here) >= symbol.algo_orders_max:
                raise RefusedError(-1013, "MAX_NUM_ALGO_ORDERS")
            if self.algo_orders_max and sum(other.algo for other in mine) >= self.algo_orders_max:
                raise RefusedError(-1013, "EXCHANGE_MAX_NUM_ALGO_ORDERS")
        part = one.iceberg_quantity
        if part:
            if part < symbol.quantity_min or part > symbol.quantity_max or part % symbol.step:
                raise RefusedError(-1013, "LOT_SIZE")
            if part * symbol.iceberg_parts_max < one.quantity:
                raise RefusedError(-1013, "ICEBERG_PARTS")
            if symbol.icebergs_max and sum(bool(other.iceberg) for other in here) >= symbol.icebergs_max:
                raise RefusedError(-1013, ": MAX_NUM_ICEBERG_ORDERS")
            if self.icebergs_max and sum(bool(other.iceberg) for other in mine) >= self.icebergs_max:
                raise RefusedError(-1013, "EXCHANGE_MAX_NUM_ICEBERG_ORDERS")
        worth = one.quote_quantity or value(symbol, one.price or self.reference(symbol), one.quantity)
        self.check_amounts(account, one, one.quantity or 0, worth)

    def check_amounts(self, account, one, quantity, worth):
        symbol = self.symbols[one.symbol]
        held = self.totals[account].get(symbol.base, 0) // base_scale(symbol)
        buying = sum(
            other.leaves
            for other in self.orders
            if other.account == account and other.open and other.symbol is symbol and other.side == "BUY"
        )
        if one.side == "BUY" and symbol.position_max and held + buying + quantity > symbol.position_max:
            raise RefusedError(-1013, "MAX_POSITION")
        for asset, amount in ((symbol.base, quantity * base_scale(symbol)), (symbol.quote, worth)):
            if amount > self.asset_max.get(asset, amount):
                raise RefusedError(-1013, "MAX_ASSET")

    # ── meeting ──

    def facing(self, symbol, side, limit):
        """List what an order may meet, best first, oldest first."""
        others = [one for one in self.book if one.symbol is symbol and one.side != side]
        if limit:
            others = [one for one in others if (one.price <= limit if side == "BUY" else one.price >= limit)]
        return sorted(others, key=lambda one: one.price if side == "BUY" else -one.price)

    def mode(self, account, stp, maker):
        group = self.groups[account]
        if stp == "NONE" or (maker.account != account and (group == -1 or group != self.groups[maker.account])):
            return "NONE"
        if stp == "TRANSFER" and (maker.account == account or maker.stp != "TRANSFER"):
            return "DECREMENT"
        return stp

    def reach(self, account, stp, symbol, side, limit):
        """List what an order would trade with, or lose to prevention: (price, quantity, whether it trades)."""
        reference = self.range_reference(symbol)
        facing = self.facing(symbol, side, limit)
        for price in dict.fromkeys(one.price for one in facing):
            if not self.allowed(symbol, side, price, reference):
                return
            # What shows goes before what is hidden; what prevention takes it takes at once.
            hidden = []
            for one in facing:
                mode = self.mode(account, stp, one)
                if one.price != price or mode == "EXPIRE_MAKER":
                    continue
                if mode in {"EXPIRE_TAKER", "EXPIRE_BOTH"}:
                    return
                if mode == "NONE":
                    yield price, one.visible, True
                    hidden.append(one.leaves - one.visible)
                else:
                    yield price, one.leaves, False
            yield from ((price, leaves, True) for leaves in hidden if leaves)

    def walk(self, account, stp, symbol, side, limit, quantity):
        """Return how much of a quantity would trade, and what all of it costs at most."""
        found = cost = 0
        for price, leaves, trades in self.reach(account, stp, symbol, side, limit):
            taken = min(leaves, quantity)
            quantity -= taken
            cost += down(symbol, price, taken)
            found += taken if trades else 0
        return found, cost

    def spend(self, account, stp, symbol, side, budget):
        """Return the quantity whose value is within a budget, and whether the book held less than that."""
        quantity, short, step = 0, True, max(symbol.step, symbol.market_step)
        for price, leaves, _ in self.reach(account, stp, symbol, side, 0):
            top, bottom = exact(symbol, price, 1)
            taken = min(leaves, budget * bottom // top)
            quantity += taken
            budget -= down(symbol, price, taken)
            short = taken == leaves and budget * bottom // top >= step
            if taken < leaves:
                break
        return quantity - quantity % step, short

    def say(self, order, execution, *more):
        self.log.append((execution, *order.shown, *more))

    def close(self, order, status, expiry=None):
        order.status, order.expiry = status, expiry
        order.resting = order.waiting = False
        if order in self.book:
            self.book.remove(order)
        if order in self.waiting:
            self.waiting.remove(order)
        if order.list and order.list not in self.due:
            self.due.append(order.list)

    def fill(self, order, price, quantity, quote, trade_id, rate):
        symbol, total = order.symbol, self.totals[order.account]
        order.executed += quantity
        order.quote += quote
        base = quantity * base_scale(symbol)
        got, gave = (symbol.base, symbol.quote) if order.side == "BUY" else (symbol.quote, symbol.base)
        received, paid = (base, quote) if order.side == "BUY" else (quote, base)
        fee = received * rate // RATE
        total[got] = total.get(got, 0) + received - fee
        total[gave] = total.get(gave, 0) - paid
        self.fees[got] = self.fees.get(got, 0) + fee
        if order.leaves == 0 and not getattr(order, "short", False):
            self.close(order, "FILLED")
        else:
            order.status = "PARTIALLY_FILLED"
        self.say(order, "TRADE", price, quantity, quote, trade_id, fee)

    def prevent(self, taker, maker, mode):
        losses = {
            "EXPIRE_TAKER": (0, taker.leaves),
            "EXPIRE_MAKER": (maker.leaves, 0),
            "EXPIRE_BOTH": (maker.leaves, taker.leaves),
        }.get(mode, (min(maker.leaves, taker.leaves),) * 2)
        for order, quantity in zip((maker, taker), losses, strict=True):
            if not quantity:
                continue
            if mode == "TRANSFER":
                symbol, total = order.symbol, self.totals[order.account]
                sign = 1 if order.side == "BUY" else -1
                total[symbol.base] += sign * quantity * base_scale(symbol)
                total[symbol.quote] -= sign * down(symbol, maker.price, quantity)
            order.prevented += quantity
            if order.leaves == 0:
                self.close(order, "EXPIRED_IN_MATCH")
            self.say(order, "TRADE_PREVENTION", quantity)

    def take(self, order):
        symbol = order.symbol
        reference = self.range_reference(symbol)
        while order.open and order.leaves:
            facing = self.facing(symbol, order.side, order.price)
            if not facing:
                return "DRY"
            maker = facing[0]
            if not self.allowed(symbol, order.side, maker.price, reference):
                return "RANGE"
            mode = self.mode(order.account, order.stp, maker)
            if mode != "EXPIRE_TAKER":
                self.claim(maker)
            if mode != "NONE":
                self.prevent(order, maker, mode)
                continue
            quantity = min(order.leaves, maker.visible)
            self.trade_ids[symbol.name] = trade_id = self.trade_ids.get(symbol.name, 0) + 1
            quote = down(symbol, maker.price, quantity)
            self.trades.append((symbol.name, maker.price, quantity, self.now_us // 60_000_000))
            self.follow([one for one in self.waiting if one.symbol is symbol])
            maker.part -= quantity
            self.fill(maker, maker.price, quantity, quote, trade_id, symbol.maker_fee)
            if not maker.part and maker.open:
                maker.part = maker.iceberg
                self.book.remove(maker)
                self.book.append(maker)
            self.fill(order, maker.price, quantity, quote, trade_id, symbol.taker_fee)
        return "DONE"

    def expire(self, order, expiry):
        self.close(order, "EXPIRED", expiry)
        self.say(order, "EXPIRED")

    def work(self, order):
        if order.force == "FOK" and order.type in LIMITED:
            found, _ = self.walk(order.account, order.stp, order.symbol, order.side, order.price, order.leaves)
            if found < order.leaves:
                self.expire(order, "UNFILLED_FOK_ORDER_EXPIRED")
                return
        why = self.take(order)
        if not order.open:
            return
        if why == "RANGE":
            self.expire(order, "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")
        elif why == "DONE" or order.type not in LIMITED:
            self.expire(order, "INSUFFICIENT_LIQUIDITY")
        elif order.force == "IOC":
            self.expire(order, "UNFILLED_IOC_QUANTITY_EXPIRED")
        elif order.force == "FOK":
            self.expire(order, "UNFILLED_FOK_ORDER_EXPIRED")
        else:
            order.resting = True
            order.part = order.iceberg or order.leaves
            self.book.append(order)

    def settle_down(self, symbol):
        while self.due or self.triggered(symbol):
            if self.due:
                self.follow_up(self.due.pop(0))
                continue
            order = self.triggered(symbol)
            self.claim(order)
            order.triggered = True
            if order.trailing:
                self.turned.add((order.side, bool(order.stop)))
            self.waiting.remove(order)
            order.waiting = False
            self.say(order, "NEW")
            if order.type not in LIMITED and order.side == "BUY":
                cost = self.walk(order.account, order.stp, symbol, "BUY", 0, order.leaves)[1]
                if self.free(order.account, symbol.quote) < cost:
                    self.expire(order, "REJECTED")
                    continue
            self.work(order)

    # ── commands ──

    def place(self, account, one, now_us):
        """Return the order, as it is before stop orders follow; raise RefusedError."""
        symbol = self.symbols[one.symbol]
        self.check_client_id(account, one)
        self.now_us = max(now_us, self.now_us)
        self.check(account, one)
        stp = one.stp or symbol.stp_default
        quantity, short = one.quantity, False
        if one.quote_quantity is not None:
            quantity, short = self.spend(account, stp, symbol, one.side, one.quote_quantity)
            if short and not quantity:
                raise RefusedError(-2010, "symbol minimum")
            try:
                self.check_lot(symbol, "MARKET", quantity)
            except RefusedError as refused:
                if short:
                    raise RefusedError(-2010, f"{refused.args[1]} filter minimum") from None
                raise
            self.check_amounts(account, one, quantity, one.quote_quantity)
        if one.stop_price and self.reached(symbol, one.side, one.type, one.stop_price):
            raise RefusedError(-2010, "would trigger")
        if one.type == "LIMIT_MAKER" and self.facing(symbol, one.side, one.price):
            raise RefusedError(-2010, "immediately match")
        if one.side == "SELL":
            asset, needed = symbol.base, quantity * base_scale(symbol)
        else:
            asset = symbol.quote
            if one.quote_quantity is not None:
                needed = one.quote_quantity
            elif one.type == "MARKET":
                needed = self.walk(account, stp, symbol, "BUY", 0, quantity)[1]
            else:
                needed = value(symbol, one.price or one.stop_price or self.last(symbol), quantity)
        if self.free(account, asset) < needed:
            raise RefusedError(-2010, "insufficient balance")
        order = self.order_of(self.next_id(), account, one, quantity)
        order.short = short
        self.orders.append(order)
        self.follow([order])
        self.say(order, "NEW")
        self.start([order])
        return order

    def next_id(self):
        self.last_id += 1
        return self.last_id

    def cancel_replace(self, account, one, now_us, mode, order_id, restrictions=None):
        """Return the error's code, the results of both halves, and the new order."""
        symbol = self.symbols[one.symbol]
        self.now_us = max(now_us, self.now_us)
        try:
            self.check(account, one)
        except RefusedError as refused:
            return refused.args[0], "NOT_ATTEMPTED", "NOT_ATTEMPTED", None
        results = ["SUCCESS", "SUCCESS"]
        try:
            self.cancel(account, one.symbol, order_id, restrictions)
            self.settle_down(symbol)
        except RefusedError:
            results[0] = "FAILURE"
            if mode == "STOP_ON_FAILURE":
                return -2022, "FAILURE", "NOT_ATTEMPTED", None
        order = None
        try:
            order = self.place(account, one, now_us)
        except RefusedError:
            results[1] = "FAILURE"
        if results == ["SUCCESS", "FAILURE"]:
            # The one refusal that is reported.
            refused = self.order_of(self.next_id(), account, one, one.quantity or 0)
            refused.status = "REJECTED"
            self.say(refused, "REJECTED")
        code = 0 if results == ["SUCCESS"] * 2 else -2022 if results == ["FAILURE"] * 2 else -2021
        return code, *results, order

    def cancel(self, account, name, order_id, restrictions=None):
        found = [one for one in self.orders if one.order_id == order_id and one.account == account and one.open]
        if not found or found[0].symbol.name != name:
            raise RefusedError(-2011, "Unknown order")
        order = found[0]
        if restrictions and (restrictions == "ONLY_NEW") != (order.status == "NEW"):
            raise RefusedError(-2011, "restrictions")
        if order.list:
            self.cancel_legs(order.list)
            return order
        self.close(order, "CANCELED")
        self.say(order, "CANCELED")
        return order

    def amend(self, account, name, order_id, quantity):
        found = [one for one in self.orders if one.order_id == order_id and one.account == account and one.open]
        if not found or found[0].symbol.name != name:
            raise RefusedError(-2038, "Unknown order")
        order = found[0]
        if not order.executed + order.prevented <= quantity < order.quantity or not quantity:
            raise RefusedError(-2038, "new quantity")
        partner = self.partner(order)
        for one in [order, *([partner] if partner else [])]:
            self.check_amend(one, quantity)
        for one in [*([partner] if partner else []), order]:
            one.quantity = quantity
            one.amends += 1
        order.client_id = None  # the engine made it a new one
        if partner:
            self.say(partner, "REPLACED")
        if order.leaves:
            self.say(order, "REPLACED")
            if order.list:
                self.list_log.append((order.list.list_id, "UPDATED"))
        else:
            self.expire(order, None)
        return order

    def check_amend(self, order, quantity):
        symbol = order.symbol
        if symbol.amends_max and order.amends >= symbol.amends_max:
            raise RefusedError(-2038, "MAX_NUM_ORDER_AMENDS")
        try:
            self.check_lot(symbol, order.type, quantity)
            self.check_notional(symbol, order.type, order.price, quantity)
        except RefusedError as refused:
            raise RefusedError(-2038, f"failure: {refused.args[1].removeprefix('MARKET_')}") from None
