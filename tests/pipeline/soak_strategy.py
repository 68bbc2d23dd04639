"""The soak's strategy: many small orders in flight, placed, moved and cancelled in every way there is, for ever.

Each instrument has SLOTS slots, each an order and a request about it on its way. On every timer some of them do what a
dice says: an idle one places an order, one that rests is cancelled, replaced, or left where it is. It makes no money.
"""

import numpy as np

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy, cancel, replace, sell

SLOTS = 128

PARAMS = np.dtype(
    [
        ("seed", "<i8"),
        ("value", "<i8"),  # of an order: price × quantity in units of the price
        ("position_value", "<i8"),  # from here on orders lean against the position
        ("per_turn", "<i8"),  # slots looked at on a timer, in each instrument
    ],
    align=True,
)

STATE = np.dtype(
    [
        ("position", "<i8"),
        ("random", "<i8"),
        ("bid", "<i8"),  # 0 while the book is not valid
        ("ask", "<i8"),
        ("next", "<i8"),  # slot to look at
        ("order_id", "<i8", (SLOTS,)),  # 0 for none
        ("request_id", "<i8", (SLOTS,)),  # on its way, 0 for none
        ("side", "<i8", (SLOTS,)),
    ],
    align=True,
)


@kernel
def _roll(mine, sides):
    """Throw a dice: 0 to `sides` − 1. A linear congruence, Knuth's MMIX."""
    mine["random"] = mine["random"] * 6364136223846793005 + 1442695040888963407
    return (mine["random"] >> 33) % sides


@kernel
def _side(mine, params):
    """Choose a side: against a large position, else any."""
    value = mine["position"] * mine["bid"] // 100_000_000
    if value > params["position_value"]:
        return m.SELL
    if value < -params["position_value"]:
        return m.BUY
    return m.BUY if _roll(mine, 2) == 0 else m.SELL


@kernel
def _quantity(orders, params, mine, instrument):
    """Size an order, each a little different."""
    step = orders.instruments[instrument]["step"]
    value = params["value"] * (10 + _roll(mine, 10)) // 10
    return value * 100_000_000 // mine["bid"] // step * step


@kernel
def _ask_for(orders, instrument, side, price, quantity, order_type, time_in_force):
    if side == m.BUY:
        return buy(orders, instrument, price, quantity, order_type, time_in_force)
    return sell(orders, instrument, price, quantity, order_type, time_in_force)


@kernel
def _place(orders, params, mine, instrument, side):
    """Place an order of one kind or another; return its id."""
    tick = orders.instruments[instrument]["tick"]
    quantity = _quantity(orders, params, mine, instrument)
    own = mine["bid"] if side == m.BUY else mine["ask"]
    other = mine["ask"] if side == m.BUY else mine["bid"]
    what = _roll(mine, 16)
    away = side * tick * (1 + _roll(mine, 20))
    if what < 6:
        return _ask_for(orders, instrument, side, own - away, quantity, m.LIMIT_MAKER, m.GTC)
    if what < 9:
        return _ask_for(orders, instrument, side, own, quantity, m.LIMIT, m.GTC)
    if what == 9:
        return _ask_for(orders, instrument, side, other, quantity, m.LIMIT_MAKER, m.GTC)  # refused, if it is in time
    if what == 10:
        return _ask_for(orders, instrument, side, 0, quantity, m.MARKET, m.GTC)
    if what == 11:
        return _ask_for(orders, instrument, side, other, quantity, m.LIMIT, m.FOK)
    if what == 12:
        return _ask_for(orders, instrument, side, own - away, quantity, m.LIMIT, m.IOC)  # nothing to take there
    if what == 13:
        return _ask_for(orders, instrument, side, other, quantity, m.LIMIT, m.GTC)
    return _ask_for(orders, instrument, side, other, quantity, m.LIMIT, m.IOC)


@kernel
def _act(orders, params, mine, instrument, k):
    """Let one slot do something."""
    if mine["request_id"][k] != 0:
        return
    if mine["order_id"][k] == 0:
        side = _side(mine, params)
        mine["side"][k] = side
        mine["order_id"][k] = mine["request_id"][k] = _place(orders, params, mine, instrument, side)
        return
    what = _roll(mine, 4)
    if what == 0:
        mine["request_id"][k] = cancel(orders, instrument, mine["order_id"][k])
    elif what == 1:
        side = mine["side"][k]
        price = mine["bid"] if side == m.BUY else mine["ask"]
        price -= side * orders.instruments[instrument]["tick"] * _roll(mine, 10)
        quantity = _quantity(orders, params, mine, instrument)
        kind = m.LIMIT_MAKER if _roll(mine, 2) == 0 else m.LIMIT
        mine["request_id"][k] = replace(orders, instrument, mine["order_id"][k], side, price, quantity, kind)


def on_start(params, state, event, orders):
    """Give each instrument a dice of its own."""
    for i in range(state.shape[0]):
        state[i]["random"] = params["seed"] * 1_000_003 + i


def on_book(params, state, event, orders):
    """Note where the market is."""
    mine = state[event["instrument"]]
    mine["bid"] = mine["ask"] = 0
    if event["flags"] & m.VALID and event["bid_count"] > 0 and event["ask_count"] > 0:
        mine["bid"] = event["bid_price"][0]
        mine["ask"] = event["ask_price"][0]


def on_quote(params, state, event, orders):
    """Note where the market is, while the book is known."""
    mine = state[event["instrument"]]
    if mine["bid"] != 0 and event["bid_count"] > 0 and event["ask_count"] > 0:
        mine["bid"] = event["bid_price"][0]
        mine["ask"] = event["ask_price"][0]


def on_timer(params, state, event, orders):
    """Let some slots of every instrument act."""
    for i in range(state.shape[0]):
        mine = state[i]
        if mine["bid"] == 0:
            continue
        for _ in range(params["per_turn"]):
            k = mine["next"]
            mine["next"] = (k + 1) % SLOTS
            _act(orders, params, mine, i, k)


def on_report(params, state, event, orders):
    """Follow position, orders and requests."""
    mine = state[event["instrument"]]
    kind, named = event["kind"], event["order_id"]
    if kind == m.FILL:
        mine["position"] += event["side"] * event["last_quantity"]
    final = event["flags"] & m.FINAL != 0
    gone = event["target_id"] if kind == m.CANCELLED and event["target_id"] != 0 else named
    for k in range(SLOTS):
        if mine["request_id"][k] != 0 and mine["request_id"][k] == named and kind != m.UNKNOWN:
            mine["request_id"][k] = 0
            if kind == m.ACCEPTED or kind == m.REPLACED or kind == m.FILL:  # noqa: PLR1714 - a kernel
                mine["order_id"][k] = named
        if mine["order_id"][k] == 0:
            continue
        if mine["order_id"][k] == gone and (final or kind == m.CANCELLED):
            mine["order_id"][k] = 0
        elif mine["order_id"][k] == named and kind == m.ACCEPTED:
            mine["request_id"][k] = 0  # the venue, asked about it, says that the request came to nothing
