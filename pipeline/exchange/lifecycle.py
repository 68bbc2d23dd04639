"""Lifecycle: an order begins, fills, shrinks and ends, with its balances, counts and reports."""

from __future__ import annotations

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.ledger import lock, pay_of, receive, relock
from shrivenq.pipeline.exchange.reports import report, report_position
from shrivenq.pipeline.exchange.state import Exchange, leaves_of
from shrivenq.pipeline.exchange.stops import NOBODY, follow, wait_no_longer
from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching
from shrivenq.stages.id_map import put, remove
from shrivenq.stages.messages import BUY


@kernel
def begin(exchange: Exchange, quantity: int, locked: int, at: int, status: int) -> int:
    """Open the order in `requests[0]`, of the list in row `at` or of none (-1); report it; return its row.

    The caller knows that there is a free row.
    """
    words, request = exchange.words, exchange.requests[0]
    row = exchange.queue[words[s.QUEUE_HEAD] % exchange.queue.shape[0]]
    words[s.QUEUE_HEAD] += 1
    order = exchange.orders[row]
    if order["order_id"] != 0:
        remove(exchange.ids, order["order_id"], 0)
    words[s.ORDER_ID] += 1
    order["order_id"] = words[s.ORDER_ID]
    put(exchange.ids, words[s.ORDER_ID], 0, row)
    order["account"], order["symbol"] = request["account"], request["symbol"]
    order["side"], order["type"] = request["side"], request["type"]
    order["time_in_force"], order["stp"] = request["time_in_force"], request["stp"]
    order["price"], order["quantity"], order["stop_price"] = request["price"], quantity, request["stop_price"]
    order["quote_quantity"] = request["quote_quantity"]
    order["executed"] = order["cumulative_quote"] = order["prevented"] = order["amends"] = 0
    order["status"], order["expiry"], order["prevented_match_id"] = status, s.NOT_EXPIRED, -1
    order["created_us"] = order["updated_us"] = words[s.NOW_US]
    order["working_us"] = 0 if s.is_stop(order["type"]) or status == s.PENDING else words[s.NOW_US]
    order["list"], order["list_id"] = at + 1, exchange.lists[at]["list_id"] if at >= 0 else 0
    order["strategy_id"], order["strategy_type"] = request["strategy_id"], request["strategy_type"]
    order["iceberg"] = request["iceberg"]
    order["trailing_delta"], order["trailing_us"], order["extreme"] = request["trailing_delta"], 0, 0
    order["lock_price"] = words[s.LOCK_PRICE]
    order["locked"] = order["handle"] = order["short"] = 0
    order["next"] = order["previous"] = NOBODY
    if order["trailing_delta"] != 0 and status != s.PENDING:
        follow(exchange, row, exchange.symbols[order["symbol"]]["last_price"])
    lock(exchange, row, locked)
    _count(exchange, row, 1)
    report(exchange, row, s.X_NEW)
    report_position(exchange, order["account"], order["symbol"])
    return row


@kernel
def _count(exchange: Exchange, row: int, change: int) -> None:
    """Count an order in (1) or out (-1) of its account's open ones."""
    order = exchange.orders[row]
    here, everywhere = exchange.counts[order["account"], order["symbol"]], exchange.accounts[order["account"]]
    here["orders"] += change
    everywhere["orders"] += change
    if s.is_stop(order["type"]) and order["working_us"] == 0:
        here["algo_orders"] += change
        everywhere["algo_orders"] += change
    if order["iceberg"] != 0:
        here["icebergs"] += change
        everywhere["icebergs"] += change
    if order["side"] == BUY:
        here["buying"] += change * (order["quantity"] - order["executed"] - order["prevented"])


@kernel
def is_waiting(exchange: Exchange, row: int) -> bool:
    """Tell whether an order is a stop order that waits for its price."""
    order = exchange.orders[row]
    return s.is_stop(order["type"]) and order["working_us"] == 0 and order["status"] != s.PENDING


@kernel
def stop_waiting(exchange: Exchange, row: int) -> None:
    """Turn a stop order that waits into one that works."""
    order = exchange.orders[row]
    wait_no_longer(exchange, row)
    exchange.counts[order["account"], order["symbol"]]["algo_orders"] -= 1
    exchange.accounts[order["account"]]["algo_orders"] -= 1
    order["working_us"] = order["updated_us"] = exchange.words[s.NOW_US]


@kernel
def close(exchange: Exchange, row: int, status: int, expiry: int) -> None:
    """End an order that no longer rests: count it out and free its row. What it had locked the caller frees."""
    order = exchange.orders[row]
    _count(exchange, row, -1)
    if is_waiting(exchange, row):
        wait_no_longer(exchange, row)
    order["status"], order["expiry"], order["handle"] = status, expiry, 0
    order["updated_us"] = exchange.words[s.NOW_US]
    exchange.queue[exchange.words[s.QUEUE_TAIL] % exchange.queue.shape[0]] = row
    exchange.words[s.QUEUE_TAIL] += 1
    if order["list"] != 0:
        _leave(exchange, row)


@kernel
def _leave(exchange: Exchange, row: int) -> None:
    """Have the list of an order that was closed looked at."""
    at = exchange.orders[row]["list"] - 1
    exchange.orders[row]["list"] = 0
    if exchange.lists[at]["waits"] == 0:
        exchange.lists[at]["waits"] = 1
        exchange.due[exchange.words[s.DUE_TAIL] % exchange.due.shape[0]] = at
        exchange.words[s.DUE_TAIL] += 1


@kernel
def partner_of(exchange: Exchange, row: int) -> int:
    """Find the order that may not trade if this one does, as long as both are open; -1 for none."""
    at = exchange.orders[row]["list"] - 1
    if at < 0 or exchange.lists[at]["kind"] == s.OTO:
        return NOBODY
    one = exchange.lists[at]
    pair = (one["row_0"], one["row_1"]) if one["kind"] == s.OCO else (one["row_1"], one["row_2"])
    if row != pair[0] and row != pair[1]:
        return NOBODY
    other = pair[0] + pair[1] - row
    return other if exchange.orders[other]["list"] == at + 1 else NOBODY


@kernel
def claim(exchange: Exchange, row: int) -> None:
    """Let an order be the one of its pair that trades: the other expires, and what was locked for both is its own."""
    other = partner_of(exchange, row)
    if other == NOBODY:
        return
    exchange.orders[row]["locked"] += exchange.orders[other]["locked"]
    exchange.orders[other]["locked"] = 0
    matching.cancel(exchange.core, exchange.orders[other]["handle"])
    end(exchange, other, s.EXPIRED, s.BY_OCO, s.X_EXPIRED)
    relock(exchange, row, 0)


@kernel
def end(exchange: Exchange, row: int, status: int, expiry: int, execution: int) -> None:
    """End an order that no longer rests, free what it had locked, and report it."""
    close(exchange, row, status, expiry)
    relock(exchange, row, 0)
    report(exchange, row, execution)
    report_position(exchange, exchange.orders[row]["account"], exchange.orders[row]["symbol"])


@kernel
def fill(exchange: Exchange, row: int, price: int, quantity: int, quote: int, trade_id: int, maker: int) -> None:
    """Book one trade to an order and report it; the book knows of it already, and so has its pair, if it has one."""
    order = exchange.orders[row]
    own = exchange.symbols[order["symbol"]]
    now = exchange.words[s.NOW_US]
    if order["side"] == BUY:
        exchange.counts[order["account"], order["symbol"]]["buying"] -= quantity
    order["executed"] += quantity
    order["cumulative_quote"] += quote
    order["updated_us"] = now
    if leaves_of(exchange, row) == 0 and order["short"] == 0:
        close(exchange, row, s.FILLED, s.NOT_EXPIRED)
    else:
        order["status"] = s.PARTIALLY_FILLED
    relock(exchange, row, pay_of(exchange, row, quantity, quote))
    fee = receive(exchange, row, quantity, quote, own["maker_fee"] if maker != 0 else own["taker_fee"])
    kept = exchange.fills[exchange.words[s.FILLS] % exchange.fills.shape[0]]
    exchange.words[s.FILLS] += 1
    kept["account"], kept["symbol"], kept["order_id"] = order["account"], order["symbol"], order["order_id"]
    kept["trade_id"], kept["price"], kept["quantity"] = trade_id, price, quantity
    kept["quote"], kept["commission"], kept["time_us"] = quote, fee, now
    kept["list_id"] = order["list_id"]
    kept["buyer"], kept["maker"] = 1 if order["side"] == BUY else 0, maker
    event = exchange.events[report(exchange, row, s.X_TRADE)]
    event["price"], event["quantity"], event["quote"] = price, quantity, quote
    event["trade_id"], event["commission"], event["maker"] = trade_id, fee, maker
    report_position(exchange, order["account"], order["symbol"])
