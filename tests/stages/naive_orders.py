"""The slow, obvious twin of what a paper venue does with orders: stops, amendments, prevented self-trades."""

from __future__ import annotations

from shrivenq.stages import messages as m
from tests.stages.naive_fills import Naive

LIMITED = (m.LIMIT, m.LIMIT_MAKER, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT_LIMIT)
STOPS = (m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT)


class NaiveVenue(Naive):
    """One instrument; `told` says in order what happened: (what, order id, quantity, price)."""

    def __init__(self, model):
        super().__init__(model)
        self.last, self.waiting, self.told = 0, [], []

    def tell(self, kind, order, quantity=0, price=0):
        self.told.append((kind, order["id"], quantity, price))

    def fill(self, order, price, quantity, maker):
        super().fill(order, price, quantity, maker)
        order["filled"] += quantity
        self.tell(m.FILL, order, quantity, price)

    def end(self, kind, order):
        order["left"] = 0
        self.tell(kind, order)

    def rises(self, order):
        return (order["side"] == m.BUY) == (order["type"] in (m.STOP_LOSS, m.STOP_LOSS_LIMIT))

    def is_reached(self, order):
        return self.last and (self.last >= order["stop"] if self.rises(order) else self.last <= order["stop"])

    def trigger(self):
        while due := [one for one in self.waiting if one["left"] and self.is_reached(one)]:
            # Those that wait for a rise come first, the nearest stop price before others, then the oldest.
            rising = [one for one in due if self.rises(one)]
            first = min(rising, key=lambda one: one["stop"]) if rising else max(due, key=lambda one: one["stop"])
            self.waiting.remove(first)
            self.work(first)

    def traded(self, price, quantity, aggressor):
        self.trade(price, quantity, aggressor)
        self.last = price
        self.trigger()

    def changed(self):
        self.event_end()
        self.trigger()

    def met(self, order):
        """Our resting order that this one would meet first."""
        if order["mode"] <= m.STP_NONE:
            return None
        crossed = [
            one
            for one in self.resting(-order["side"])
            if order["type"] not in LIMITED or (one["price"] - order["price"]) * order["side"] <= 0
        ]
        return min(crossed, key=lambda one: one["price"] * order["side"], default=None)

    def offers(self, order, met):
        """(price, quantity) of the market's that the order reaches before it meets `met`, best first."""
        side, found = order["side"], []
        for price in sorted(self.levels[-side], key=lambda one: one * side):
            quantity = self.levels[-side][price]
            if order["type"] in LIMITED and (price - order["price"]) * side > 0:
                break
            if met and (price - met["price"]) * side > 0:
                break
            if met and price == met["price"]:
                quantity = min(quantity, met["ahead"])
            found.append((price, quantity))
        return found

    def take(self, order, met):
        for price, quantity in self.offers(order, met):
            taken = min(order["left"], quantity)
            if not taken:
                return
            if met and price == met["price"]:
                met["ahead"] -= taken
            self.levels[-order["side"]][price] -= taken
            if not self.levels[-order["side"]][price]:
                del self.levels[-order["side"]][price]
            self.fill(order, price, taken, False)

    def prevent(self, taker, maker):
        mode, both = taker["mode"], min(taker["left"], maker["left"])
        lost = {
            m.EXPIRE_TAKER: (0, taker["left"]),
            m.EXPIRE_MAKER: (maker["left"], 0),
            m.EXPIRE_BOTH: (maker["left"], taker["left"]),
        }.get(mode, (both, both))
        for order, quantity in zip((maker, taker), lost, strict=True):
            if quantity and quantity == order["left"]:
                self.end(m.EXPIRED, order)
            elif quantity:
                order["left"] -= quantity
                order["size"] -= quantity
                self.tell(m.AMENDED, order, order["size"])

    def work(self, order):
        met, enough = self.met(order), True
        if order["tif"] == m.FOK and order["type"] != m.LIMIT_MAKER:
            before = None if order["mode"] == m.EXPIRE_MAKER else met
            enough = sum(quantity for _, quantity in self.offers(order, before)) >= order["left"]
        while order["left"] and enough and order["type"] != m.LIMIT_MAKER:
            met = self.met(order)
            self.take(order, met)
            if not met:
                break
            if order["left"]:
                self.prevent(order, met)
        if not order["left"]:
            return
        if order["type"] in LIMITED and (order["tif"] == m.GTC or order["type"] == m.LIMIT_MAKER):
            order["ahead"] = self.levels[order["side"]].get(order["price"], 0)
            self.orders.append(order)
        else:
            self.end(m.EXPIRED, order)

    def new(self, order_id, side, price, quantity, order_type, tif, stop=0, mode=0):
        order = {"id": order_id, "side": side, "price": price, "left": quantity, "size": quantity, "filled": 0}
        order |= {"traded": 0, "type": order_type, "tif": tif, "stop": stop, "mode": mode}
        best = min(self.levels[-side], key=lambda one: one * side, default=None)
        taking = best is not None and (best - price) * side <= 0
        refused = taking or self.met(order) if order_type == m.LIMIT_MAKER else False
        if refused or (order_type in STOPS and self.is_reached(order)):
            self.tell(m.REJECTED, order)
        else:
            self.tell(m.ACCEPTED, order)
            if order_type in STOPS:
                self.waiting.append(order)
            else:
                self.work(order)

    def open(self):
        return [one for one in (*self.orders, *self.waiting) if one["left"]]

    def find(self, order_id):
        return next((one for one in self.open() if one["id"] == order_id), None)

    def cancel(self, request, target):
        order = self.find(target)
        self.tell(m.CANCELLED if order else m.CANCEL_REJECTED, {"id": request})
        if order:
            order["left"] = 0

    def cancel_all(self, request):
        for order in (found := self.open()):
            self.end(m.CANCELLED, order)
        if not found:
            self.tell(m.CANCEL_REJECTED, {"id": request})

    def amend(self, request, target, quantity):
        order = self.find(target)
        if order is None or not order["filled"] <= quantity < order["size"] or quantity < 2 or quantity % 2:
            self.tell(m.AMEND_REJECTED, {"id": request})
            return
        order["left"] -= order["size"] - quantity
        order["size"] = quantity
        self.tell(m.AMENDED, {"id": request}, quantity)
