"""Filters: every rule of exchangeInfo that can bind an order, in integers.

Each check looks at `requests[0]` and answers with a code of `refusals.py`, 0 for none. Rules that are 0 are off.
Source: the venue's page on filters, as restated in the protocol sheet, section 3.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange.ledger import AMOUNT_MAX, value_of
from shrivenq.pipeline.exchange.refusals import CODE
from shrivenq.pipeline.exchange.reports import average_price
from shrivenq.pipeline.exchange.state import ALGO_ORDERS_MAX as EXCHANGE_ALGO_ORDERS_MAX
from shrivenq.pipeline.exchange.state import ICEBERGS_MAX, ORDER_LISTS_MAX, ORDERS_MAX, Exchange, has_limit, is_stop
from shrivenq.pipeline.exchange.stops import waits_for_rise
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY, MARKET
from shrivenq.stages.money import CEIL, FLOOR, OVERFLOW, RATE, product_at_most

NONE = 0
PRICE_FILTER = CODE["price_filter"]
PERCENT_PRICE = CODE["percent_price"]
PERCENT_PRICE_BY_SIDE = CODE["percent_price_by_side"]
LOT_SIZE = CODE["lot_size"]
MARKET_LOT_SIZE = CODE["market_lot_size"]
MIN_NOTIONAL = CODE["min_notional"]
NOTIONAL = CODE["notional"]
MAX_NUM_ORDERS = CODE["max_num_orders"]
MAX_NUM_ALGO_ORDERS = CODE["max_num_algo_orders"]
EXCHANGE_MAX_NUM_ORDERS = CODE["exchange_max_num_orders"]
EXCHANGE_MAX_NUM_ALGO_ORDERS = CODE["exchange_max_num_algo_orders"]
ICEBERG_PARTS = CODE["iceberg_parts"]
MAX_NUM_ICEBERG_ORDERS = CODE["max_num_iceberg_orders"]
EXCHANGE_MAX_NUM_ICEBERG_ORDERS = CODE["exchange_max_num_iceberg_orders"]
MAX_POSITION = CODE["max_position"]
MAX_ASSET = CODE["max_asset"]
TRAILING_DELTA = CODE["trailing_delta"]
MAX_NUM_ORDER_LISTS = CODE["max_num_order_lists"]
EXCHANGE_MAX_NUM_ORDER_LISTS = CODE["exchange_max_num_order_lists"]
OVERFLOWS = CODE["overflow"]


@kernel
def is_outside(number: int, lowest: int, highest: int, step: int) -> bool:
    """Tell whether a number is out of its range or off its grid; a bound or a step of 0 is none."""
    if number < lowest or (highest > 0 and number > highest):
        return True
    return step > 0 and number % step != 0


@kernel
def check_price(exchange: Exchange, symbol: int, price: int) -> int:
    """PRICE_FILTER, and that the ladder reaches so far."""
    own, ladder = exchange.symbols[symbol], exchange.core.ladders[symbol]
    if price <= 0 or price < own["price_min"] or (own["price_max"] > 0 and price > own["price_max"]):
        return PRICE_FILTER
    if price % own["tick"] != 0:
        return PRICE_FILTER
    if price < ladder["base"] or (price - ladder["base"]) // ladder["tick"] >= ladder["levels"]:
        return PERCENT_PRICE_BY_SIDE
    return NONE


@kernel
def is_within(price: int, reference: int, down: int, up: int) -> bool:
    """Tell whether reference × down ≤ price ≤ reference × up; a multiplier (1e-8) of 0 is none."""
    if up > 0 and not product_at_most(price, RATE, reference, up):
        return False
    return down <= 0 or product_at_most(reference, down, price, RATE)


@kernel
def reference_price(exchange: Exchange, symbol: int) -> int:
    """Find what percent and notional rules refer to: the average price; 0 before the first trade."""
    return average_price(exchange, symbol, exchange.symbols[symbol]["average_minutes"])


@kernel
def check_percent(exchange: Exchange, symbol: int, side: int, price: int) -> int:
    """PERCENT_PRICE and PERCENT_PRICE_BY_SIDE."""
    own = exchange.symbols[symbol]
    up, down = own["bid_percent_up"], own["bid_percent_down"]
    if side != BUY:
        up, down = own["ask_percent_up"], own["ask_percent_down"]
    if up == 0 and down == 0 and own["percent_up"] == 0 and own["percent_down"] == 0:
        return NONE
    reference = reference_price(exchange, symbol)
    if reference == 0:
        return NONE
    if not is_within(price, reference, own["percent_down"], own["percent_up"]):
        return PERCENT_PRICE
    return NONE if is_within(price, reference, down, up) else PERCENT_PRICE_BY_SIDE


@kernel
def check_trailing(exchange: Exchange) -> int:
    """TRAILING_DELTA of the trailing stop order in `requests[0]`: "above" is for those that wait for a rise."""
    order = exchange.requests[0]
    own = exchange.symbols[order["symbol"]]
    lowest, highest = own["trailing_below_min"], own["trailing_below_max"]
    if waits_for_rise(order["side"], order["type"]):
        lowest, highest = own["trailing_above_min"], own["trailing_above_max"]
    return TRAILING_DELTA if is_outside(order["trailing_delta"], lowest, highest, 0) else NONE


@kernel
def check_quantity(exchange: Exchange, symbol: int, order_type: int, quantity: int) -> int:
    """LOT_SIZE, for MARKET orders also MARKET_LOT_SIZE."""
    own = exchange.symbols[symbol]
    if quantity <= 0 or is_outside(quantity, own["quantity_min"], own["quantity_max"], own["step"]):
        return LOT_SIZE
    # The bound keeps the sum over a full level of the book in 64 bits.
    if quantity > AMOUNT_MAX // max(exchange.core.trades.shape[0], own["base_scale"]):
        return OVERFLOWS
    if order_type == MARKET and is_outside(
        quantity, own["market_quantity_min"], own["market_quantity_max"], own["market_step"]
    ):
        return MARKET_LOT_SIZE
    return NONE


@kernel
def check_value(exchange: Exchange, symbol: int, lowest: int, highest: int, for_market: bool) -> int:
    """NOTIONAL or MIN_NOTIONAL of a value rounded down (`lowest`) and up (`highest`)."""
    own = exchange.symbols[symbol]
    code = NOTIONAL if own["notional_is_range"] != 0 else MIN_NOTIONAL
    if lowest < own["notional_min"] and (not for_market or own["min_to_market"] != 0):
        return code
    if own["notional_max"] > 0 and highest > own["notional_max"] and (not for_market or own["max_to_market"] != 0):
        return code
    return NONE


@kernel
def valuing_price(exchange: Exchange, symbol: int, order_type: int, price: int) -> int:
    """Choose the price an order is valued at: its limit, or the reference price, which is 0 before the first trade."""
    return price if has_limit(order_type) else reference_price(exchange, symbol)


@kernel
def check_notional(exchange: Exchange, symbol: int, order_type: int, price: int, quantity: int) -> int:
    """NOTIONAL or MIN_NOTIONAL, where there is a price to value the order at."""
    price = valuing_price(exchange, symbol, order_type, price)
    if price == 0:
        return NONE
    lowest = value_of(exchange, symbol, price, quantity, FLOOR)
    highest = value_of(exchange, symbol, price, quantity, CEIL)
    if highest == OVERFLOW or highest > AMOUNT_MAX:
        return OVERFLOWS
    return check_value(exchange, symbol, lowest, highest, not has_limit(order_type))


@kernel
def check_counts(exchange: Exchange, account: int, symbol: int, order_type: int) -> int:
    """MAX_NUM_ORDERS, MAX_NUM_ALGO_ORDERS and the two of the whole exchange."""
    own, words = exchange.symbols[symbol], exchange.words
    here, everywhere = exchange.counts[account, symbol], exchange.accounts[account]
    if own["orders_max"] > 0 and here["orders"] >= own["orders_max"]:
        return MAX_NUM_ORDERS
    if words[ORDERS_MAX] > 0 and everywhere["orders"] >= words[ORDERS_MAX]:
        return EXCHANGE_MAX_NUM_ORDERS
    if is_stop(order_type):
        if own["algo_orders_max"] > 0 and here["algo_orders"] >= own["algo_orders_max"]:
            return MAX_NUM_ALGO_ORDERS
        if words[EXCHANGE_ALGO_ORDERS_MAX] > 0 and everywhere["algo_orders"] >= words[EXCHANGE_ALGO_ORDERS_MAX]:
            return EXCHANGE_MAX_NUM_ALGO_ORDERS
    return NONE


@kernel
def check_lists(exchange: Exchange, account: int, symbol: int) -> int:
    """MAX_NUM_ORDER_LISTS and that of the whole exchange."""
    most, most_of_all = exchange.symbols[symbol]["order_lists_max"], exchange.words[ORDER_LISTS_MAX]
    if most > 0 and exchange.counts[account, symbol]["order_lists"] >= most:
        return MAX_NUM_ORDER_LISTS
    if most_of_all > 0 and exchange.accounts[account]["order_lists"] >= most_of_all:
        return EXCHANGE_MAX_NUM_ORDER_LISTS
    return NONE


@kernel
def check_iceberg(exchange: Exchange) -> int:
    """LOT_SIZE and ICEBERG_PARTS of what shows of the order in `requests[0]`, and how many such orders there are."""
    order, words = exchange.requests[0], exchange.words
    account, symbol, part = order["account"], order["symbol"], order["iceberg"]
    own = exchange.symbols[symbol]
    if part == 0:
        return NONE
    if is_outside(part, own["quantity_min"], own["quantity_max"], own["step"]):
        return LOT_SIZE
    if (order["quantity"] + part - 1) // part > own["iceberg_parts_max"]:
        return ICEBERG_PARTS
    if own["icebergs_max"] > 0 and exchange.counts[account, symbol]["icebergs"] >= own["icebergs_max"]:
        return MAX_NUM_ICEBERG_ORDERS
    if words[ICEBERGS_MAX] > 0 and exchange.accounts[account]["icebergs"] >= words[ICEBERGS_MAX]:
        return EXCHANGE_MAX_NUM_ICEBERG_ORDERS
    return NONE


@kernel
def check_position(exchange: Exchange, account: int, symbol: int, quantity: int) -> int:
    """MAX_POSITION of a buyer: what it holds, what it is buying, and this."""
    own = exchange.symbols[symbol]
    if own["position_max"] == 0:
        return NONE
    base = exchange.balances[account, own["base"]]
    held = (base["free"] + base["locked"]) // own["base_scale"]
    return MAX_POSITION if held + exchange.counts[account, symbol]["buying"] + quantity > own["position_max"] else NONE


@kernel
def check_amounts(exchange: Exchange, quantity: int, value: int) -> int:
    """MAX_POSITION and MAX_ASSET, the largest amount of either asset in one order, of the order in `requests[0]`."""
    order = exchange.requests[0]
    symbol = order["symbol"]
    own = exchange.symbols[symbol]
    if order["side"] == BUY and check_position(exchange, order["account"], symbol, quantity) != NONE:
        return MAX_POSITION
    if own["base_max"] > 0 and quantity * own["base_scale"] > own["base_max"]:
        return MAX_ASSET
    return MAX_ASSET if own["quote_max"] > 0 and value > own["quote_max"] else NONE


@kernel
def check(exchange: Exchange) -> int:
    """Check the order in `requests[0]` against every filter.

    What a quote quantity buys is not known yet: who finds out checks that with `check_amounts`.
    """
    order = exchange.requests[0]
    symbol, order_type, value = order["symbol"], order["type"], order["quote_quantity"]
    if order["stop_price"] > 0:
        code = check_price(exchange, symbol, order["stop_price"])
        if code != NONE:
            return code
    if has_limit(order_type):
        code = check_price(exchange, symbol, order["price"])
        if code == NONE:
            code = check_percent(exchange, symbol, order["side"], order["price"])
        if code != NONE:
            return code
    if order["trailing_delta"] > 0 and check_trailing(exchange) != NONE:
        return TRAILING_DELTA
    if value > 0:
        code = check_value(exchange, symbol, value, value, True)
    else:
        code = check_quantity(exchange, symbol, order_type, order["quantity"])
        if code == NONE:
            code = check_notional(exchange, symbol, order_type, order["price"], order["quantity"])
        if code == NONE:
            price = valuing_price(exchange, symbol, order_type, order["price"])
            value = value_of(exchange, symbol, price, order["quantity"], CEIL)
    if code == NONE:
        code = check_counts(exchange, order["account"], symbol, order_type)
    if code == NONE:
        code = check_iceberg(exchange)
    return check_amounts(exchange, order["quantity"], value) if code == NONE else code
