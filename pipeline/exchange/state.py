"""State: the arrays the simulator's matching engine works on, all of them allocated at start.

    requests[0] ──▶ kernels ──▶ events, snapshots       what happened, in order, until the facade takes it
                       │
                       ├── flow.core    the books (stages/matching.py); an order's `owner` is its row here + 1,
                       │                0 for the synthetic flow
                       ├── orders       every open order, and the last closed ones: a row is used again when the
                       │                `queue` of free rows, first in first out, comes round to it
                       ├── lists        order lists, and the last of those that are done
                       ├── balances     free and locked, per account and asset; account 0 is the synthetic flow's
                       └── fills, trades   the last ones, in rings

All numbers are int64. Units are those of `types.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages.id_map import IdMap, make_map
from shrivenq.stages.matching import Matching
from shrivenq.stages.messages import LIMIT, LIMIT_MAKER, MARKET
from shrivenq.stages.order_flow import OrderFlow

MISSING = -(2**63)
"""A strategy id or type that was not sent."""

# ── codes; the words for them are in `types.py`, in this order ───────────────────────────────────────────────────────

TYPES = ("", "LIMIT", "MARKET", "LIMIT_MAKER", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
STOP_LOSS, STOP_LOSS_LIMIT, TAKE_PROFIT, TAKE_PROFIT_LIMIT = 4, 5, 6, 7
assert (TYPES[LIMIT], TYPES[MARKET], TYPES[LIMIT_MAKER]) == ("LIMIT", "MARKET", "LIMIT_MAKER")

STP_NONE, EXPIRE_TAKER, EXPIRE_MAKER, EXPIRE_BOTH, DECREMENT, TRANSFER = range(6)

STATUSES = ("PENDING_NEW", "NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH", "REJECTED")
PENDING, OPEN, PARTIALLY_FILLED, FILLED, CANCELED, EXPIRED, EXPIRED_IN_MATCH, REJECTED = range(8)

EXECUTIONS = ("NEW", "CANCELED", "REPLACED", "REJECTED", "TRADE", "EXPIRED", "TRADE_PREVENTION")
X_NEW, X_CANCELED, X_REPLACED, X_REJECTED, X_TRADE, X_EXPIRED, X_PREVENTED = range(7)

EXPIRIES = (
    None,
    "REJECTED",
    "EXCHANGE_CANCELED",
    "UNFILLED_IOC_QUANTITY_EXPIRED",
    "UNFILLED_FOK_ORDER_EXPIRED",
    "INSUFFICIENT_LIQUIDITY",
    "EXECUTION_RULE_PRICE_RANGE_EXCEEDED",
    "OCO_TRIGGER",
    "OTO_PHASE_ONE_EXPIRED",
)
NOT_EXPIRED, BY_REJECTION, BY_EXCHANGE, BY_IOC, BY_FOK, BY_LIQUIDITY, BY_RANGE, BY_OCO, BY_OTO = range(9)

SYMBOL_STATUSES = ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY")
TRADING, END_OF_DAY, HALT, BREAK, CANCEL_ONLY = range(5)

# Kinds of events.
MARKET_TRADE, TOUCH, REPORT, POSITION, LIST_STATUS = range(1, 6)

# Kinds of order lists, and what is said of them.
OCO, OTO, OTOCO = range(1, 4)
LIST_STATUSES = ("EXEC_STARTED", "UPDATED", "ALL_DONE")
STARTED, UPDATED, ALL_DONE = range(3)

# Words.
EVENTS = 0  # events not taken yet
ORDER_ID = 1  # the last one given out
EXECUTION_ID = 2
FILLS = 3  # fills ever
QUEUE_HEAD, QUEUE_TAIL = 4, 5  # rows ever taken from and given to the queue
NOW_US = 6  # time of the command
ROW = 7  # row of the order the last command was about, -1 for none
SURVEYED, COST, SHORT = 8, 9, 10  # what `survey` found: quantity, quote units, 1 if the book did not hold enough
ORDERS_MAX, ALGO_ORDERS_MAX = 11, 12  # EXCHANGE_MAX_NUM_ORDERS, EXCHANGE_MAX_NUM_ALGO_ORDERS; 0 for none
FLOWING = 13  # 1 once the synthetic flow has begun
ICEBERGS_MAX = 14  # EXCHANGE_MAX_NUM_ICEBERG_ORDERS
LOCK_PRICE = 15  # price at which the order that `admit` looked at locks
ORDER_LISTS_MAX = 16  # EXCHANGE_MAX_NUM_ORDER_LISTS
LIST_ID = 17  # the last one given out
LIST = 18  # row of the list that the last command placed
DUE_HEAD, DUE_TAIL = 19, 20  # lists ever taken from and given to `due`
WORDS = 24

TRADES_KEPT = 1 << 12
"""Trades of the market that are kept, per symbol."""
LEGS_MAX = 3
"""Orders of a list."""
MINUTES = 64
"""Minutes of volume that are kept, per symbol."""


def _record(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, "<i8") for name in names])


SYMBOL = _record(
    "base", "quote",  # assets
    "status",  # TRADING …
    "tick", "price_min", "price_max", "step", "quantity_min", "quantity_max",
    "market_step", "market_quantity_min", "market_quantity_max",
    "notional_is_range",  # 1 for the filter NOTIONAL, 0 for MIN_NOTIONAL
    "notional_min", "notional_max", "min_to_market", "max_to_market", "average_minutes",
    "percent_up", "percent_down", "bid_percent_up", "bid_percent_down", "ask_percent_up", "ask_percent_down",
    "orders_max", "algo_orders_max", "position_max", "amends_max", "iceberg_parts_max", "icebergs_max",
    "order_lists_max",
    "base_max", "quote_max",  # MAX_ASSET: amounts of the two assets, 0 for none
    "trailing_above_min", "trailing_above_max", "trailing_below_min", "trailing_below_max",  # bips
    "range_bid_up", "range_bid_down", "range_ask_up", "range_ask_down", "has_reference",
    "maker_fee", "taker_fee",
    "base_scale",  # base units in one of quantity
    "multiplier", "divisor",  # quote units = price × quantity × multiplier ÷ divisor
    "last_price",  # of the last trade, 0 before the first
    "prevented",  # prevented matches ever
    "rising", "falling",  # first stop order that waits for the price to rise, or to fall; -1 for none
    "trailing",  # first trailing stop order that waits; -1 for none
    "shown_id",  # update id of the last depth event
    "touch_bid", "touch_bid_quantity", "touch_ask", "touch_ask_quantity",  # last shown: levels, -1 for none
)  # fmt: skip

ORDER = _record(
    "order_id",  # 0 for a row never used
    "account", "symbol", "side", "type", "time_in_force",
    "price", "quantity", "quote_quantity", "stop_price", "executed", "cumulative_quote", "status", "stp",
    "prevented", "prevented_match_id", "created_us", "updated_us", "working_us", "expiry",
    "strategy_id", "strategy_type", "amends",
    "iceberg",  # how much of it shows at a time, 0 for all of it
    "trailing_delta",  # bips, 0 for a stop order that does not trail
    "trailing_us",  # since when it follows the price, 0 before that
    "list_id",  # the order list it belongs to, 0 for none
    "list",  # its row + 1, as long as the order is open
    "extreme",  # the best price since then: lowest of a buyer, highest of a seller
    "lock_price",  # at which a stop order without a limit locks what it may cost
    "locked",  # what is locked for it: quote units of a buyer, base units of a seller
    "handle",  # in the book, 0 while it does not rest
    "next", "previous",  # among the stop orders that wait
    "short",  # 1 if its quote quantity asked for more than the book held
)  # fmt: skip

REQUEST = _record(
    "account", "symbol", "side", "type", "time_in_force", "stp", "price", "quantity", "quote_quantity", "stop_price",
    "strategy_id", "strategy_type", "iceberg", "trailing_delta",
)  # fmt: skip

EVENT = _record(
    "kind", "symbol", "account", "time_us",
    "row", "execution", "execution_id",  # REPORT; the order as it then was is in `snapshots`
    "price", "quantity", "quote", "trade_id", "commission",  # REPORT: of a fill, or of what was prevented; MARKET_TRADE
    "maker",  # REPORT: 1 if it rested; MARKET_TRADE: 1 if the buyer did
    "counter",  # REPORT: order id on the other side of a prevented match
    "mode",  # REPORT: the mode that prevented a match
    "update_id", "bid", "bid_quantity", "ask", "ask_quantity",  # TOUCH
    "base_free", "base_locked", "quote_free", "quote_locked",  # POSITION
)  # fmt: skip

BALANCE = _record("free", "locked")
ACCOUNT = _record("trade_group", "orders", "algo_orders", "icebergs", "order_lists")
# An account's open orders in one symbol, quantity of the buyers, and its order lists.
COUNT = _record("orders", "algo_orders", "icebergs", "buying", "order_lists")
ORDER_LIST = _record(
    "list_id",  # 0 for a row never used
    "account", "symbol", "kind",  # OCO …
    "legs",  # orders: above and below; working and pending; working, pending above, pending below
    "row_0", "row_1", "row_2", "id_0", "id_1", "id_2",
    "executing",  # 1 until all of its orders are closed
    "waits",  # 1 while it stands in `due`
    "created_us", "updated_us",
)  # fmt: skip
FILL = _record(
    "account", "symbol", "order_id", "trade_id", "price", "quantity", "quote", "commission", "time_us", "buyer",
    "maker", "list_id",
)  # fmt: skip
TRADE = _record("trade_id", "price", "quantity", "buyer_is_maker", "time_us")
MINUTE = _record("minute", "quantity", "value")
CHANGE = _record("side", "price", "quantity")


@by_reference
class Exchange(NamedTuple):
    """Everything the kernels work on."""

    flow: OrderFlow  # its core holds the books
    core: Matching  # the same books
    symbols: Any  # SYMBOL
    accounts: Any  # ACCOUNT; row 0 is the synthetic flow
    balances: Any  # BALANCE[account, asset]
    counts: Any  # COUNT[account, symbol]
    fees: Any  # int64, collected, per asset
    orders: Any  # ORDER
    ids: IdMap  # order id → row
    lists: Any  # ORDER_LIST
    due: Any  # int64: rows of lists of which an order was closed
    queue: Any  # int64: free rows
    events: Any  # EVENT
    snapshots: Any  # ORDER, beside each REPORT
    fills: Any  # FILL: the last ones
    trades: Any  # TRADE[symbol, TRADES_KEPT]: the last ones, at trade id mod TRADES_KEPT
    minutes: Any  # MINUTE[symbol, MINUTES]
    shown: Any  # int8, for each level of the books: the side last shown there, 0 for none
    changes: Any  # CHANGE: what `collect` found
    requests: Any  # REQUEST: the first is the order that is looked at, the others are those of a list
    words: Any  # int64


def make_exchange(flow: OrderFlow, symbols: Any, accounts: int, assets: int, orders: int) -> Exchange:
    """Allocate an exchange over the books of `flow`: `symbols` is filled in SYMBOL, `orders` rows of orders."""
    core = flow.core
    slots = core.orders.shape[0] // len(symbols)
    queue = np.arange(orders, dtype=np.int64)
    made = Exchange(
        flow=flow,
        core=core,
        symbols=symbols,
        accounts=np.zeros(accounts + 1, ACCOUNT),
        balances=np.zeros((accounts + 1, assets), BALANCE),
        counts=np.zeros((accounts + 1, len(symbols)), COUNT),
        fees=np.zeros(assets, np.int64),
        orders=np.zeros(orders, ORDER),
        ids=make_map(orders),
        lists=np.zeros(orders, ORDER_LIST),
        due=np.zeros(orders, np.int64),
        queue=queue,
        # Every order of a book trades, five events each; parts that were hidden may end a command sooner.
        events=np.zeros(8 * slots + 4096, EVENT),
        snapshots=np.zeros(8 * slots + 4096, ORDER),
        fills=np.zeros(orders, FILL),
        trades=np.zeros((len(symbols), TRADES_KEPT), TRADE),
        minutes=np.zeros((len(symbols), MINUTES), MINUTE),
        shown=np.zeros(core.levels.shape[0], np.int8),
        changes=np.zeros(4 * slots + 4096, CHANGE),
        requests=np.zeros(1 + LEGS_MAX, REQUEST),
        words=np.zeros(WORDS, np.int64),
    )
    made.accounts["trade_group"] = -1
    made.symbols["rising"] = made.symbols["falling"] = made.symbols["trailing"] = -1
    made.symbols["touch_bid"] = made.symbols["touch_ask"] = -1
    made.words[QUEUE_TAIL] = orders
    return made


@kernel
def leaves_of(exchange: Exchange, row: int) -> int:
    """Count what an order may still trade; 0 for a closed one."""
    order = exchange.orders[row]
    if order["status"] > PARTIALLY_FILLED:
        return 0
    return order["quantity"] - order["executed"] - order["prevented"]


@kernel
def has_limit(order_type: int) -> bool:
    """Tell whether orders of a type have a limit price."""
    return order_type in (LIMIT, LIMIT_MAKER, STOP_LOSS_LIMIT, TAKE_PROFIT_LIMIT)


@kernel
def is_stop(order_type: int) -> bool:
    """Tell whether orders of a type wait for a price."""
    return order_type >= STOP_LOSS
