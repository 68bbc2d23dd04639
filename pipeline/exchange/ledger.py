"""Ledger: what accounts have free and locked, and what moves when an order trades.

A buyer locks price × quantity, rounded up, a seller the quantity; a market buyer locks what the book will charge. Both
sides of a trade move the same amount of quote, price × quantity rounded down, so that nothing is made or lost by
rounding; what a limit locked beyond that comes free. The fee is taken from what is received, rounded down, and kept in
`fees`. Sums over all accounts, the synthetic flow's and the fees therefore never change.
"""

from __future__ import annotations

from shrivenq.pipeline.exchange.state import Exchange, has_limit, leaves_of
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY
from shrivenq.stages.money import CEIL, FLOOR, OVERFLOW, RATE, mul_div, mul_mul_div

AMOUNT_MAX = 1 << 62
"""No balance, lock or notional may be larger."""


@kernel
def value_of(exchange: Exchange, symbol: int, price: int, quantity: int, rounding: int) -> int:
    """Value a quantity in quote units; OVERFLOW if that is beyond int64."""
    own = exchange.symbols[symbol]
    return mul_mul_div(price, quantity, own["multiplier"], own["divisor"], rounding)


@kernel
def affordable(exchange: Exchange, symbol: int, price: int, budget: int) -> int:
    """Find the largest quantity with price × quantity within `budget` quote units."""
    own = exchange.symbols[symbol]
    found = mul_div(budget, own["divisor"], price * own["multiplier"], FLOOR)
    return AMOUNT_MAX if found == OVERFLOW else found


@kernel
def locking(exchange: Exchange, symbol: int, side: int, price: int, quantity: int) -> int:
    """Work out what an order locks: quote units of a buyer, base units of a seller; OVERFLOW beyond AMOUNT_MAX."""
    if side == BUY:
        amount = value_of(exchange, symbol, price, quantity, CEIL)
    else:
        amount = mul_div(quantity, exchange.symbols[symbol]["base_scale"], 1, FLOOR)
    return OVERFLOW if amount > AMOUNT_MAX else amount


@kernel
def locked_asset(exchange: Exchange, symbol: int, side: int) -> int:
    """Name the asset that orders of a side lock."""
    return exchange.symbols[symbol]["quote"] if side == BUY else exchange.symbols[symbol]["base"]


@kernel
def lock(exchange: Exchange, row: int, amount: int) -> None:
    """Set what is locked for an order; the account has it free."""
    order = exchange.orders[row]
    asset = locked_asset(exchange, order["symbol"], order["side"])
    balance = exchange.balances[order["account"], asset]
    balance["free"] -= amount - order["locked"]
    balance["locked"] += amount - order["locked"]
    order["locked"] = amount


@kernel
def relock(exchange: Exchange, row: int, paid: int) -> None:
    """Take `paid` from what is locked for an order, and free what it needs no longer."""
    order = exchange.orders[row]
    leaves = leaves_of(exchange, row)
    needed = 0
    if leaves > 0:
        if order["side"] == BUY and not has_limit(order["type"]):
            needed = order["locked"] - paid
        else:
            needed = locking(exchange, order["symbol"], order["side"], order["price"], leaves)
    asset = locked_asset(exchange, order["symbol"], order["side"])
    balance = exchange.balances[order["account"], asset]
    released = order["locked"] - needed
    balance["locked"] -= released
    balance["free"] += released - paid
    order["locked"] = needed


@kernel
def receive(exchange: Exchange, row: int, quantity: int, quote: int, rate: int) -> int:
    """Credit what an order bought or was paid, less the fee; return the fee."""
    order = exchange.orders[row]
    own = exchange.symbols[order["symbol"]]
    asset, amount = own["quote"], quote
    if order["side"] == BUY:
        asset, amount = own["base"], quantity * own["base_scale"]
    fee = mul_div(amount, rate, RATE, FLOOR)
    exchange.balances[order["account"], asset]["free"] += amount - fee
    exchange.fees[asset] += fee
    return fee


@kernel
def pay_of(exchange: Exchange, row: int, quantity: int, quote: int) -> int:
    """Work out what an order pays for a trade, in the asset it locks."""
    order = exchange.orders[row]
    return quote if order["side"] == BUY else quantity * exchange.symbols[order["symbol"]]["base_scale"]


@kernel
def settle_flow(exchange: Exchange, symbol: int, side: int, quantity: int, quote: int) -> None:
    """Book one side of a trade to the synthetic flow, which owes and owns without limit."""
    own = exchange.symbols[symbol]
    sign = 1 if side == BUY else -1
    exchange.balances[0, own["base"]]["free"] += sign * quantity * own["base_scale"]
    exchange.balances[0, own["quote"]]["free"] -= sign * quote
