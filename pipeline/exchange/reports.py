"""Reports: what the kernels write down for the world, in the order in which it happened.

Events go into `events`, and with each REPORT a copy of the order as it then was into `snapshots`. Levels that changed
are not events: `collect` lists them after a command, since the last time it did, with their update ids.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.state import Exchange
from shrivenq.pipeline.exchange.stops import NOBODY, trail
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.messages import BUY, SELL
from shrivenq.stages.money import FLOOR, mul_div

EVENTS_SPARE = 2048
"""Nobody but a client acts while there is less room than this for events."""
TRADE_SPARE = 64
MINUTE_US = 60_000_000
VALUE_MAX = 1 << 62


@kernel
def has_room(exchange: Exchange, symbol: int) -> bool:
    """Tell whether whatever may happen next in a symbol can be reported."""
    ladder, most = exchange.core.ladders[symbol], exchange.events.shape[0]
    # Parts that are hidden may make more trades than there are orders: nothing less than all of the room will do.
    needed = most if ladder["hiding"] != 0 else min(8 * ladder["resting"] + EVENTS_SPARE, most)
    return exchange.words[s.EVENTS] + needed <= most


@kernel
def has_room_to_go_on(exchange: Exchange) -> bool:
    """Tell whether one more trade of a command can be reported, and its end."""
    return exchange.words[s.EVENTS] + TRADE_SPARE <= exchange.events.shape[0]


@kernel
def _event(exchange: Exchange, kind: int, symbol: int) -> int:
    """Begin an event; the facade has made sure that there is room."""
    at = exchange.words[s.EVENTS]
    exchange.words[s.EVENTS] = at + 1
    exchange.events[at]["kind"] = kind
    exchange.events[at]["symbol"] = symbol
    exchange.events[at]["time_us"] = exchange.words[s.NOW_US]
    return at


@kernel
def report(exchange: Exchange, row: int, execution: int) -> int:
    """Report on an order as it now is; return the event, for what else there is to say."""
    order = exchange.orders[row]
    at = _event(exchange, s.REPORT, order["symbol"])
    exchange.words[s.EXECUTION_ID] += 1
    event = exchange.events[at]
    event["account"] = order["account"]
    event["row"] = row
    event["execution"] = execution
    event["execution_id"] = exchange.words[s.EXECUTION_ID]
    event["price"] = event["quantity"] = event["quote"] = event["commission"] = 0
    event["trade_id"] = event["counter"] = -1
    event["maker"] = event["mode"] = 0
    exchange.snapshots[at] = exchange.orders[row]
    return at


@kernel
def report_position(exchange: Exchange, account: int, symbol: int) -> None:
    """Report the balances of both assets of a symbol."""
    at = _event(exchange, s.POSITION, symbol)
    base = exchange.balances[account, exchange.symbols[symbol]["base"]]
    quote = exchange.balances[account, exchange.symbols[symbol]["quote"]]
    event = exchange.events[at]
    event["account"] = account
    event["base_free"], event["base_locked"] = base["free"], base["locked"]
    event["quote_free"], event["quote_locked"] = quote["free"], quote["locked"]


@kernel
def report_list(exchange: Exchange, at: int, status: int) -> None:
    """Report on an order list."""
    one = exchange.lists[at]
    event = exchange.events[_event(exchange, s.LIST_STATUS, one["symbol"])]
    event["account"], event["row"], event["mode"] = one["account"], at, status


@kernel
def _add_volume(exchange: Exchange, symbol: int, price: int, quantity: int) -> None:
    """Add a trade to its minute, for the weighted average price."""
    minute = exchange.words[s.NOW_US] // MINUTE_US
    row = exchange.minutes[symbol, minute % s.MINUTES]
    if row["minute"] != minute:
        row["minute"], row["quantity"], row["value"] = minute, 0, 0
    own = exchange.symbols[symbol]
    # More precise than quote units would be where these are coarse; a busy minute is halved, which keeps the average.
    value = mul_div(price, quantity, max(own["divisor"] // own["multiplier"], 1), FLOOR)
    if value < 0 or value > VALUE_MAX // s.MINUTES:
        return
    while row["value"] > VALUE_MAX // s.MINUTES - value or row["quantity"] > VALUE_MAX // s.MINUTES - quantity:
        row["value"] >>= 1
        row["quantity"] >>= 1
    row["value"] += value
    row["quantity"] += quantity


@kernel
def average_price(exchange: Exchange, symbol: int, minutes: int) -> int:
    """Weigh the trades of the last `minutes` by quantity; the last price if there were none (or for 0 minutes).

    0 before the first trade.
    """
    own = exchange.symbols[symbol]
    now = exchange.words[s.NOW_US] // MINUTE_US
    quantity, value = 0, 0
    for minute in range(now - minutes + 1, now + 1):
        row = exchange.minutes[symbol, minute % s.MINUTES]
        if row["minute"] == minute:
            quantity += row["quantity"]
            value += row["value"]
    if quantity == 0:
        return own["last_price"]
    found = mul_div(value, max(own["divisor"] // own["multiplier"], 1), quantity, FLOOR)
    return max(found, 1)


@kernel
def report_trade(exchange: Exchange, symbol: int, trade_id: int, price: int, quantity: int, taker_side: int) -> None:
    """Tell the market of a trade, and remember it."""
    buyer_is_maker = 1 if taker_side == SELL else 0
    at = _event(exchange, s.MARKET_TRADE, symbol)
    event = exchange.events[at]
    event["trade_id"], event["price"], event["quantity"] = trade_id, price, quantity
    event["maker"] = buyer_is_maker
    kept = exchange.trades[symbol, trade_id % s.TRADES_KEPT]
    kept["trade_id"], kept["price"], kept["quantity"] = trade_id, price, quantity
    kept["buyer_is_maker"], kept["time_us"] = buyer_is_maker, exchange.words[s.NOW_US]
    own = exchange.symbols[symbol]
    own["last_price"] = price
    if own["trailing"] != NOBODY:
        trail(exchange, symbol, price)
    _add_volume(exchange, symbol, price, quantity)


@kernel
def report_touch(exchange: Exchange, symbol: int) -> None:
    """Tell the market if the best bid or ask changed since it was last told."""
    core, own = exchange.core, exchange.symbols[symbol]
    ladder = core.ladders[symbol]
    bid, ask = ladder["best_bid"], ladder["best_ask"]
    bid_quantity, ask_quantity = 0, 0
    if bid >= 0:
        bid_quantity = core.levels[ladder["first"] + bid]["quantity"]
    if ask < ladder["levels"]:
        ask_quantity = core.levels[ladder["first"] + ask]["quantity"]
    else:
        ask = -1
    same = bid == own["touch_bid"] and ask == own["touch_ask"]
    if same and bid_quantity == own["touch_bid_quantity"] and ask_quantity == own["touch_ask_quantity"]:
        return
    own["touch_bid"], own["touch_bid_quantity"] = bid, bid_quantity
    own["touch_ask"], own["touch_ask_quantity"] = ask, ask_quantity
    event = exchange.events[_event(exchange, s.TOUCH, symbol)]
    event["update_id"] = ladder["update_id"]
    event["bid"] = matching.price_of(core, symbol, bid) if bid >= 0 else 0
    event["ask"] = matching.price_of(core, symbol, ask) if ask >= 0 else 0
    event["bid_quantity"], event["ask_quantity"] = bid_quantity, ask_quantity


@kernel
def show_all(exchange: Exchange, symbol: int) -> None:
    """Take a book as it is for shown."""
    core = exchange.core
    first, levels = core.ladders[symbol]["first"], core.ladders[symbol]["levels"]
    level = core.ladders[symbol]["best_bid"]
    while level >= 0:
        exchange.shown[first + level] = BUY
        level = matching.occupied_below(core, symbol, level - 1)
    level = core.ladders[symbol]["best_ask"]
    while level < levels:
        exchange.shown[first + level] = SELL
        level = matching.occupied_above(core, symbol, level + 1)
    matching.clear_changed(core, symbol)
    exchange.symbols[symbol]["shown_id"] = core.ladders[symbol]["update_id"]


@kernel
def collect(exchange: Exchange, symbol: int) -> int:
    """List the levels that changed since the last call in `changes`, as either side sees them; return how many.

    They span the update ids from `shown_id` + 1 to the book's own, which becomes `shown_id`.
    """
    core = exchange.core
    first = core.ladders[symbol]["first"]
    count = 0
    for position in range(core.ladders[symbol]["changed"]):
        level = core.changed[first + position]
        now = matching.side_of(core, symbol, level)
        before = exchange.shown[first + level]
        for side in (BUY, SELL):
            if side != now and side != before:  # noqa: PLR1714 - a kernel: the two are of different types
                continue
            change = exchange.changes[count]
            change["side"] = side
            change["price"] = matching.price_of(core, symbol, level)
            change["quantity"] = core.levels[first + level]["quantity"] if now == side else 0
            count += 1
        exchange.shown[first + level] = now
    matching.clear_changed(core, symbol)
    exchange.symbols[symbol]["shown_id"] = core.ladders[symbol]["update_id"]
    return count
