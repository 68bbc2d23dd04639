"""Types: what goes into the simulator's matching engine and what comes out of it.

Every price, quantity and amount is an int: prices at `Symbol.price_decimals`, quantities at `Symbol.quantity_decimals`,
amounts of an asset (balances, commissions, quote quantities) at that asset's own decimals (`Symbol.base_decimals`,
`Symbol.quote_decimals`). Times are int microseconds since 1970. Words such as "BUY", "GTC" or "EXPIRED_IN_MATCH" are
the venue's own. Source of all of it: the venue's Spot documentation, as restated in the protocol sheet.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Side = Literal["BUY", "SELL"]
OrderType = Literal[
    "LIMIT", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT", "LIMIT_MAKER"
]
TimeInForce = Literal["GTC", "IOC", "FOK"]
StpMode = Literal["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"]
SymbolStatus = Literal["TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY"]
OrderStatus = Literal[
    "NEW",
    "PENDING_NEW",
    "PARTIALLY_FILLED",
    "FILLED",
    "CANCELED",
    "PENDING_CANCEL",
    "REJECTED",
    "EXPIRED",
    "EXPIRED_IN_MATCH",
]
Execution = Literal["NEW", "CANCELED", "REPLACED", "REJECTED", "TRADE", "EXPIRED", "TRADE_PREVENTION"]
RejectReason = Literal[
    "NONE", "INSUFFICIENT_BALANCES", "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY", "WOULD_MATCH_IMMEDIATELY"
]
ExpiryReason = Literal[
    "REJECTED",
    "EXCHANGE_CANCELED",
    "UNFILLED_IOC_QUANTITY_EXPIRED",
    "UNFILLED_FOK_ORDER_EXPIRED",
    "INSUFFICIENT_LIQUIDITY",
    "EXECUTION_RULE_PRICE_RANGE_EXCEEDED",
    "OCO_TRIGGER",
    "OTO_PHASE_ONE_EXPIRED",
]
ListKind = Literal["OCO", "OTO", "OTOCO"]
ListStatus = Literal["EXEC_STARTED", "UPDATED", "ALL_DONE"]
CancelRestrictions = Literal["ONLY_NEW", "ONLY_PARTIALLY_FILLED"]
ReplaceMode = Literal["STOP_ON_FAILURE", "ALLOW_FAILURE"]
ReplaceResult = Literal["SUCCESS", "FAILURE", "NOT_ATTEMPTED"]

STP_MODES: tuple[StpMode, ...] = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER")
ORDER_TYPES: tuple[OrderType, ...] = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)
"""What every symbol's `orderTypes` says; pegs are refused."""

RATE = 100_000_000
"""Fees and multipliers are ints in units of 1e-8: 0.1 % is 100_000, a multiplier of 5 is 500_000_000."""


class Error(NamedTuple):
    """A refusal, as the venue words it."""

    code: int
    """-2010, -1013 …"""
    msg: str


class Symbol(msgspec.Struct, frozen=True, kw_only=True):
    """One market and every filter that can bind. 0 switches a filter off, except where it says otherwise."""

    name: str
    """Upper case, "BTCUSDT"."""
    base: str
    quote: str
    price_decimals: int
    """Of every price that goes in or out."""
    quantity_decimals: int
    """Of every quantity of base that goes in or out; not above `base_decimals`."""
    base_decimals: int = 8
    """Of amounts of the base asset; an asset has the same in every symbol."""
    quote_decimals: int = 8
    """Of amounts of the quote asset: quote quantities, notionals, commissions of a seller."""
    status: SymbolStatus = "TRADING"

    tick: int
    """PRICE_FILTER tickSize, at least 1. Its minimum and maximum follow."""
    price_min: int = 0
    price_max: int = 0
    """Above 0 it also bounds the ladder of prices; see `engine.LEVELS_MAX`."""
    step: int
    """LOT_SIZE stepSize, at least 1."""
    quantity_min: int = 0
    quantity_max: int = 0
    market_step: int = 0
    """MARKET_LOT_SIZE."""
    market_quantity_min: int = 0
    market_quantity_max: int = 0
    notional_filter: Literal["NOTIONAL", "MIN_NOTIONAL"] = "NOTIONAL"
    """Which of the two the symbol carries; both use `notional_min` and `average_minutes`."""
    notional_min: int = 0
    """In quote units at `quote_decimals`."""
    notional_max: int = 0
    apply_min_to_market: bool = True
    apply_max_to_market: bool = False
    average_minutes: int = 5
    """avgPriceMins of all filters: minutes of the weighted average price, 0 for the last price; at most 60."""
    percent_up: int = 0
    """PERCENT_PRICE multiplierUp and multiplierDown, 1e-8."""
    percent_down: int = 0
    bid_percent_up: int = 0
    """PERCENT_PRICE_BY_SIDE, 1e-8."""
    bid_percent_down: int = 0
    ask_percent_up: int = 0
    ask_percent_down: int = 0
    orders_max: int = 0
    """MAX_NUM_ORDERS, an account's open orders in this symbol."""
    algo_orders_max: int = 0
    """MAX_NUM_ALGO_ORDERS."""
    position_max: int = 0
    """MAX_POSITION, base at `quantity_decimals`."""
    amends_max: int = 0
    """MAX_NUM_ORDER_AMENDS."""
    iceberg_parts_max: int = 0
    """ICEBERG_PARTS; with 0 there are no icebergs."""
    icebergs_max: int = 0
    """MAX_NUM_ICEBERG_ORDERS."""
    order_lists_max: int = 0
    """MAX_NUM_ORDER_LISTS."""
    trailing_above_min: int = 0
    """TRAILING_DELTA, bips: of a buyer's stop loss and a seller's take profit."""
    trailing_above_max: int = 0
    trailing_below_min: int = 0
    """Of the other two."""
    trailing_below_max: int = 0
    range_bid_up: int = 0
    """The PRICE_RANGE execution rule: bidLimitMultUp … askLimitMultDown, 1e-8; 0 is a missing multiplier."""
    range_bid_down: int = 0
    range_ask_up: int = 0
    range_ask_down: int = 0
    has_reference: bool = False
    """Whether the symbol has a reference price: its weighted average price. Without one PRICE_RANGE is not enforced."""

    maker_fee: int = 0
    """1e-8 of what is received."""
    taker_fee: int = 0
    stp_default: StpMode = "EXPIRE_MAKER"
    stp_allowed: tuple[StpMode, ...] = STP_MODES
    quote_quantity_allowed: bool = True
    """quoteOrderQtyMarketAllowed."""
    amend_allowed: bool = True
    cancel_replace_allowed: bool = True


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as a client sends it; what it did not send is None."""

    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce | None = None
    price: int | None = None
    quantity: int | None = None
    quote_quantity: int | None = None
    """quoteOrderQty, in quote units at `quote_decimals`."""
    stop_price: int | None = None
    trailing_delta: int | None = None
    """In bips: triggers where the price has turned back so far."""
    iceberg_quantity: int | None = None
    """icebergQty: how much of it shows at a time."""
    client_id: str | None = None
    """newClientOrderId; None has the engine make one."""
    stp: StpMode | None = None
    """selfTradePreventionMode; None is the symbol's default."""
    strategy_id: int | None = None
    strategy_type: int | None = None


class OrderView(msgspec.Struct, frozen=True, gc=False):
    """An order as it stands, or stood at the moment of an event."""

    account: int
    symbol: str
    order_id: int
    client_id: str
    """The order's own; a cancel does not change it, an amendment may."""
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: int
    """0 for orders without one."""
    quantity: int
    quote_quantity: int
    """origQuoteOrderQty, 0 if it was not asked for."""
    stop_price: int
    executed: int
    cumulative_quote: int
    """cummulativeQuoteQty, quote units."""
    status: OrderStatus
    stp: StpMode
    prevented: int
    """Quantity that self-trade prevention took away."""
    prevented_match_id: int
    """Of the last prevention, -1 for none."""
    created_us: int
    updated_us: int
    working_us: int
    """When it appeared on the book or began to match, 0 before that (a stop that waits)."""
    expiry_reason: ExpiryReason | None
    strategy_id: int | None
    strategy_type: int | None
    amends: int
    """Quantity amendments so far."""
    trade_group: int
    """The account's tradeGroupId, -1 for none."""
    iceberg: int = 0
    """icebergQty, 0 for none."""
    trailing_delta: int = 0
    """In bips, 0 for an order that does not trail."""
    trailing_us: int = 0
    """Since when it follows the price, 0 before that."""
    list_id: int = -1
    """orderListId, -1 for none."""

    @property
    def is_open(self) -> bool:
        """Tell whether it may still trade."""
        return self.status in {"PENDING_NEW", "NEW", "PARTIALLY_FILLED"}

    @property
    def is_working(self) -> bool:
        """Tell whether it rests on the book."""
        return self.is_open and self.working_us != 0

    @property
    def leaves(self) -> int:
        """Count what is still open."""
        return self.quantity - self.executed - self.prevented if self.is_open else 0


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One trade of an order: an entry of `fills[]`, of myTrades, and of a TRADE execution report."""

    account: int
    symbol: str
    order_id: int
    trade_id: int
    price: int
    quantity: int
    quote: int
    """price × quantity in quote units."""
    commission: int
    """At the decimals of `commission_asset`."""
    commission_asset: str
    time_us: int
    is_buyer: bool
    is_maker: bool
    list_id: int = -1
    """orderListId of the order, -1 for none."""


class Prevention(msgspec.Struct, frozen=True, gc=False):
    """A match that self-trade prevention prevented: an entry of `preventedMatches[]` and of myPreventedMatches."""

    symbol: str
    match_id: int
    taker_account: int
    taker_order_id: int
    maker_order_id: int
    trade_group: int
    mode: StpMode
    price: int
    taker_quantity: int
    """What the order that took lost, 0 for nothing."""
    maker_quantity: int
    time_us: int


class Outcome(msgspec.Struct, frozen=True):
    """The answer to one command: an error, or the order it left behind."""

    error: Error | None
    order: OrderView | None = None
    """Right after the command. A refused order has none."""
    fills: tuple[Fill, ...] = ()
    """Of this command, in order."""
    preventions: tuple[Prevention, ...] = ()
    """Of this command, in order."""
    client_id: str = ""
    """clientOrderId of the answer: the order's, or for a cancel the cancel's own."""
    original_client_id: str = ""
    """origClientOrderId of the answer to a cancel or an amendment."""
    time_us: int = 0
    """transactTime."""
    execution_id: int = 0
    """Of the last report this command made about the order."""


class ReplaceOutcome(msgspec.Struct, frozen=True):
    """The answer to a cancel-replace."""

    error: Error | None
    """None (200); -2021 (409), -2022 (400); anything else was refused before either half was tried."""
    cancel_result: ReplaceResult
    new_result: ReplaceResult
    cancel: Outcome | None
    """None where it was not attempted."""
    new: Outcome | None


class ListView(msgspec.Struct, frozen=True):
    """An order list as it stands, or stood at the moment of an event."""

    account: int
    symbol: str
    list_id: int
    client_id: str
    """listClientOrderId."""
    contingency: Literal["OCO", "OTO"]
    """OTO of an OTOCO too."""
    status: ListStatus
    orders: tuple[tuple[int, str], ...]
    """(order id, client id), in the order in which they were placed."""
    created_us: int
    updated_us: int

    @property
    def is_open(self) -> bool:
        """Tell whether an order of it is open."""
        return self.status != "ALL_DONE"


class ListOutcome(msgspec.Struct, frozen=True):
    """The answer to a command about an order list."""

    error: Error | None
    view: ListView | None = None
    orders: tuple[Outcome, ...] = ()
    """What became of each order, as the answer to a command about it alone."""


class Account(NamedTuple):
    """An account's own settings."""

    id: int
    trade_group: int


class Ticker(NamedTuple):
    """The best of both sides; 0 where a side is empty."""

    symbol: str
    update_id: int
    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int


class BookView(NamedTuple):
    """A depth snapshot, best first."""

    last_update_id: int
    bids: list[tuple[int, int]]
    """(price, quantity)."""
    asks: list[tuple[int, int]]


# ── events: all that happened, in order ──────────────────────────────────────────────────────────────────────────────


class TradeEvent(msgspec.Struct, frozen=True, gc=False):
    """A trade of the market, whoever made it."""

    symbol: str
    trade_id: int
    """Consecutive within a symbol."""
    price: int
    quantity: int
    buyer_is_maker: bool
    time_us: int


class TickerEvent(msgspec.Struct, frozen=True, gc=False):
    """The best bid or ask changed, in price or quantity."""

    symbol: str
    update_id: int
    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int
    time_us: int


class DepthEvent(msgspec.Struct, frozen=True):
    """Levels that changed: absolute quantities, 0 for a level that is gone; best first.

    Without gaps: `first_id` is the previous event's `last_id` + 1. One comes after each command or advance that changed
    the book; whoever publishes more slowly merges them.
    """

    symbol: str
    first_id: int
    last_id: int
    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]
    time_us: int


class OrderEvent(msgspec.Struct, frozen=True):
    """An order changed: all that an executionReport says."""

    account: int
    order: OrderView
    """Right after the change."""
    execution: Execution
    execution_id: int
    time_us: int
    client_id: str
    """`c`: the order's, or the cancel's own on a cancel."""
    original_client_id: str
    """`C`: the order's own on a cancel or an amendment, else ""."""
    reject_reason: RejectReason
    fill: Fill | None
    """TRADE only: last quantity, price, quote quantity, commission, trade id, maker side."""
    prevented_quantity: int = 0
    """TRADE_PREVENTION: last prevented quantity."""
    counter_order_id: int = -1
    """TRADE_PREVENTION: the order on the other side."""
    transferred_quantity: int = 0
    """TRADE_PREVENTION by TRANSFER between two accounts: what was moved, at which price, for how much quote."""
    transferred_price: int = 0
    transferred_quote: int = 0


class ListEvent(msgspec.Struct, frozen=True):
    """An order list began, changed or is done: all that a listStatus says."""

    account: int
    view: ListView
    time_us: int


class BalanceEvent(msgspec.Struct, frozen=True):
    """An account's balances that may have changed: an outboundAccountPosition."""

    account: int
    balances: tuple[tuple[str, int, int], ...]
    """(asset, free, locked)."""
    time_us: int


class DepositEvent(msgspec.Struct, frozen=True):
    """Money came or went from outside: a balanceUpdate."""

    account: int
    asset: str
    delta: int
    time_us: int


Event = TradeEvent | TickerEvent | DepthEvent | OrderEvent | ListEvent | BalanceEvent | DepositEvent
