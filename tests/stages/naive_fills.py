"""The slow, obvious twin of the fill models: one instrument, levels in dicts, orders in a list."""

from __future__ import annotations

from shrivenq.stages import messages as m

BUY, SELL = m.BUY, m.SELL


class Naive:
    """A market of one instrument: levels in dicts, orders in a list."""

    def __init__(self, model):
        self.model = model
        self.levels = {BUY: {}, SELL: {}}
        self.orders = []
        self.fills = []  # (order id, price, quantity, maker)

    def fill(self, order, price, quantity, maker):
        order["left"] -= quantity
        self.fills.append((order["id"], price, quantity, maker))

    def resting(self, side):
        return [one for one in self.orders if one["side"] == side and one["left"]]

    def through(self, side, price):
        for one in self.resting(side):
            if (one["price"] - price) * side > 0:
                self.fill(one, one["price"], one["left"], True)

    def level(self, side, price, quantity):
        before = self.levels[side].pop(price, 0)
        if quantity:
            self.levels[side][price] = quantity
        for one in self.resting(side):
            if one["price"] == price:
                cancelled = max(0, before - quantity - one["traded"])
                one["ahead"] = max(0, min(one["ahead"] - cancelled, quantity))
                one["traded"] = 0

    def event_end(self):
        if self.levels[SELL]:
            self.through(BUY, min(self.levels[SELL]) - 1)
        if self.levels[BUY]:
            self.through(SELL, max(self.levels[BUY]) + 1)

    def trade(self, price, quantity, aggressor):
        self.through(BUY, price)
        self.through(SELL, price)
        sides = {"queue": [-aggressor], "touch": [BUY, SELL], "trade_through": []}[self.model]
        for side in sides:
            left = quantity
            for one in self.resting(side):
                if one["price"] != price:
                    continue
                mine = left
                if self.model == "queue":
                    mine = max(0, left - one["ahead"])
                    one["ahead"] = max(0, one["ahead"] - left)
                    one["traded"] += quantity
                mine = min(mine, one["left"])
                if mine:
                    left -= mine
                    self.fill(one, price, mine, True)

    def order(self, order_id, side, price, quantity, order_type, tif):
        order = {"id": order_id, "side": side, "price": price, "left": quantity, "traded": 0}
        others = self.levels[-side]
        reachable = sorted(
            (one for one in others if order_type == m.MARKET or (price - one) * side >= 0), key=lambda one: one * side
        )
        if tif != m.FOK or sum(others[one] for one in reachable) >= quantity:
            for one in reachable:
                taken = min(order["left"], others[one])
                if taken:
                    self.fill(order, one, taken, False)
                    others[one] -= taken
                    if not others[one]:
                        del others[one]
        if order["left"] and order_type == m.LIMIT and tif == m.GTC:
            order["ahead"] = self.levels[side].get(price, 0)
            self.orders.append(order)
