"""Order lists of the slow engine: each is a plain object that knows its orders."""

from __future__ import annotations

from dataclasses import dataclass

from tests.pipeline.exchange.slow_order import LIMITED, STOPS, Order, RefusedError, base_scale, value


@dataclass(eq=False)
class OrderList:
    list_id: int
    kind: str
    orders: list
    executing: bool = True

    @property
    def pair(self):
        return {"OCO": self.orders, "OTO": [], "OTOCO": self.orders[1:]}[self.kind]

    @property
    def pending(self):
        return [] if self.kind == "OCO" else self.orders[1:]


class SlowLists:
    """What lists add to the slow engine."""

    def check_client_id(self, account, one):
        symbol = self.symbols[one.symbol]
        if one.client_id and any(
            other.client_id == one.client_id and other.account == account and other.open and other.symbol is symbol
            for other in self.orders
        ):
            raise RefusedError(-2010, "Duplicate")

    def order_of(self, number, account, one, quantity):
        """Make an order of what a client said."""
        symbol = self.symbols[one.symbol]
        order = Order(
            number, account, symbol, one.side, one.type, one.time_in_force or "GTC", one.price or 0, quantity,
            one.quote_quantity or 0, one.stop_price or 0, one.stp or symbol.stp_default, one.client_id,
            one.iceberg_quantity or 0,
        )  # fmt: skip
        order.trailing, order.lock_price = one.trailing_delta or 0, one.stop_price or self.last(symbol)
        return order

    def partner(self, order):
        """Return the other of a pair of which both are open."""
        pair = order.list.pair if order.list else []
        return next((one for one in pair if one is not order and one.open), None) if order in pair else None

    def claim(self, order):
        partner = self.partner(order)
        if partner:
            self.close(partner, "EXPIRED", "OCO_TRIGGER")
            self.say(partner, "EXPIRED")

    def pair_discount(self, account, asset):
        """Count what pairs do not lock, although each of their orders would."""
        return sum(
            min(one.locked[1] for one in every.pair)
            for every in self.lists
            if every.pair and all(one.open and one.account == account for one in every.pair)
            and every.pair[0].locked[0] == asset
        )  # fmt: skip

    def price_bound(self, one):
        return one.price if one.type == "LIMIT_MAKER" else one.stop_price or 0

    def check_list(self, account, kind, legs):
        symbol = self.symbols[legs[0].symbol]
        mine = [one for one in self.lists if one.executing and one.orders[0].account == account]
        here = [one for one in mine if one.orders[0].symbol is symbol]
        if symbol.order_lists_max and len(here) >= symbol.order_lists_max:
            raise RefusedError(-1013, ": MAX_NUM_ORDER_LISTS")
        if self.order_lists_max and len(mine) >= self.order_lists_max:
            raise RefusedError(-1013, "EXCHANGE_MAX_NUM_ORDER_LISTS")
        before = list(self.orders)
        try:
            for one in legs:
                self.check(account, one)
                self.orders.append(self.order_of(0, account, one, one.quantity))
        finally:
            self.orders[:] = before
        if kind != "OTO":
            above, below = (self.price_bound(one) for one in legs[-2:])
            last = self.last(symbol) if kind == "OCO" else 0
            if (above and below and above <= below) or (last and ((above and above <= last) or below >= last)):
                raise RefusedError(-2010, "relationship of the prices")

    def place_list(self, account, kind, legs, now_us):
        """Return the orders; raise RefusedError."""
        symbol = self.symbols[legs[0].symbol]
        for one in legs:
            self.check_client_id(account, one)
        names = [one.client_id for one in legs if one.client_id]
        if len(set(names)) < len(names):
            raise RefusedError(-2010, "Duplicate")
        self.now_us = max(now_us, self.now_us)
        self.check_list(account, kind, legs)
        now = legs if kind == "OCO" else legs[:1]
        for one in now:
            if one.stop_price and self.reached(symbol, one.side, one.type, one.stop_price):
                raise RefusedError(-2010, "would trigger")
            if one.type == "LIMIT_MAKER" and self.facing(symbol, one.side, one.price):
                raise RefusedError(-2010, "immediately match")
        asset = symbol.base if legs[0].side == "SELL" else symbol.quote
        if self.free(account, asset) < max(self.needs(symbol, one) for one in now):
            raise RefusedError(-2010, "insufficient balance")
        orders = []
        for one in legs:
            order = self.order_of(self.next_id(), account, one, one.quantity)
            order.status = "NEW" if one in now else "PENDING_NEW"
            orders.append(order)
        made = OrderList(len(self.lists) + 1, kind, orders)
        self.lists.append(made)
        for order in orders:
            order.list = made
            self.orders.append(order)
            if order.status == "NEW":
                self.follow([order])
            self.say(order, "NEW")
        self.list_log.append((made.list_id, "EXEC_STARTED"))
        self.start([one for one in orders if one.status == "NEW"])
        return orders

    def needs(self, symbol, one):
        if one.side == "SELL":
            return one.quantity * base_scale(symbol)
        return value(symbol, one.price or one.stop_price or self.last(symbol), one.quantity)

    def start(self, orders):
        """Let orders wait or work."""
        for order in orders:
            if order.type in STOPS:
                order.waiting = True
                self.waiting.append(order)
        for order in orders:
            if order.type not in STOPS:
                self.work(order)

    def may_begin(self, orders):
        symbol, account, most = orders[0].symbol, orders[0].account, 0
        for one in orders:
            if one.stop and self.reached(symbol, one.side, one.type, one.stop):
                return False
            if one.type == "LIMIT_MAKER" and self.facing(symbol, one.side, one.price):
                return False
            one.lock_price = one.stop or self.last(symbol)
            if one.side == "SELL":
                need = one.leaves * base_scale(symbol)
            elif one.type == "MARKET":
                need = self.walk(account, one.stp, symbol, "BUY", 0, one.leaves)[1]
            else:
                need = value(symbol, one.price if one.type in LIMITED else one.lock_price, one.leaves)
            most = max(most, need)
        return self.free(account, symbol.base if orders[0].side == "SELL" else symbol.quote) >= most

    def follow_up(self, one):
        waiting = [order for order in one.pending if order.status == "PENDING_NEW"]
        if waiting and not one.orders[0].open:
            filled = one.orders[0].status == "FILLED"
            if filled and self.may_begin(waiting):
                for order in waiting:
                    order.status = "NEW"
                    self.follow([order])
                    self.say(order, "NEW")
                self.start(waiting)
                self.activated.add(one.kind)
            else:
                for order in waiting:
                    self.expire(order, "REJECTED" if filled else "OTO_PHASE_ONE_EXPIRED")
        if one.executing and not any(order.open for order in one.orders):
            one.executing = False
            self.list_log.append((one.list_id, "ALL_DONE"))

    def cancel_list(self, account, name, list_id):
        found = [one for one in self.lists if one.list_id == list_id and one.orders[0].account == account]
        if not found or not found[0].executing or found[0].orders[0].symbol.name != name:
            raise RefusedError(-2011, "Unknown order list")
        return self.cancel_legs(found[0])

    def cancel_legs(self, one):
        gone = [order for order in one.orders if order.open]
        for order in gone:
            self.close(order, "CANCELED")
            self.say(order, "CANCELED")
        return gone
