"""Open orders against a dictionary of them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.shm import slab
from shrivenq.stages import open_orders
from shrivenq.stages import risk_checks as c
from shrivenq.stages.messages import BUY, SELL

ROOM = 24


def compare(book, rows, totals, twin):
    for i in range(2):
        ours = [order for order in twin.values() if order["i"] == i]
        assert rows[i]["open_orders"] == len(ours)
        for side, key in ((BUY, "open_buy"), (SELL, "open_sell")):
            assert rows[i][key] == sum(order["leaves"] for order in ours if order["side"] == side)
        bids = [order["price"] for order in ours if order["side"] == BUY and order["price"]]
        asks = [order["price"] for order in ours if order["side"] == SELL and order["price"]]
        assert rows[i]["best_buy"] == max(bids, default=0)
        assert rows[i]["best_sell"] == min(asks, default=c.NUMBER_MAX)
        bound = sum(-(-order["value"] * order["leaves"] // order["quantity"]) for order in ours)
        assert totals[i]["open_value"] == bound
    assert slab.used(book.slab) == book.ids.size[0] == len(twin)
    for order_id, order in twin.items():
        at = open_orders.find(book, order_id)
        assert book.slab.slots[at]["order_id"] == order_id
        assert open_orders.size_now(book, at) == order["size"]


@pytest.mark.parametrize("seed", range(5))
def test_against_a_dictionary(seed):
    pick = random.Random(seed)
    book = open_orders.make_open_orders(ROOM)
    rows, totals = np.zeros(2, c.ROW), np.zeros(2, c.TOTAL)
    rows["best_sell"] = c.NUMBER_MAX
    rows["first_buy"] = rows["first_sell"] = -1
    twin, next_id = {}, (1 << 40) + 1
    for _ in range(1_500):
        order_id = pick.choice(sorted(twin)) if twin else 0
        at = open_orders.find(book, order_id)
        act = pick.random()
        if act < 0.5:
            i, side, price = pick.randrange(2), pick.choice((BUY, SELL)), pick.choice((0, *range(95, 106)))
            quantity, value = pick.randint(1, 1_000), pick.randint(0, 10**12)
            entered = open_orders.enter(book, rows, totals, i, i, next_id, side, price, quantity, value)
            assert (entered == open_orders.NONE) == (len(twin) == ROOM), seed
            if entered != open_orders.NONE:
                twin[next_id] = {"i": i, "side": side, "price": price, "quantity": quantity, "value": value}
                twin[next_id]["leaves"] = twin[next_id]["size"] = quantity
            next_id += 1
        elif act < 0.6 and twin:
            one, quantity = twin[order_id], pick.randint(0, 1_200)
            open_orders.lower(book, rows, totals, at, quantity)
            cut = max(0, min(one["size"] - quantity, one["leaves"]))
            one["size"] -= cut
            one["leaves"] -= cut
        elif act < 0.8 and twin:
            quantity = pick.randint(1, 1_200)
            open_orders.fill(book, rows, totals, at, quantity)
            twin[order_id]["leaves"] -= min(quantity, twin[order_id]["leaves"])
        elif twin:
            open_orders.leave(book, rows, totals, at)
            del twin[order_id]
            assert open_orders.find(book, order_id) == open_orders.NONE, seed
        compare(book, rows, totals, twin)
