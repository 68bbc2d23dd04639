"""An order of the slow engine, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass

LIMITED = {"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"}
STOPS = {"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"}


class RefusedError(Exception):
    """A code and a word of its text."""


@dataclass(eq=False)
class Order:
    order_id: int
    account: int
    symbol: object
    side: str
    type: str
    force: str
    price: int
    quantity: int
    quote_quantity: int
    stop: int
    stp: str
    client_id: str | None
    iceberg: int = 0
    part: int = 0  # what shows of it
    executed: int = 0
    quote: int = 0
    prevented: int = 0
    status: str = "NEW"
    expiry: str | None = None
    waiting: bool = False
    resting: bool = False
    amends: int = 0
    list: object = None
    triggered: bool = False
    trailing: int = 0  # bips
    extreme: int = 0  # best price since it follows, 0 before that
    lock_price: int = 0

    @property
    def open(self):
        return self.status in {"PENDING_NEW", "NEW", "PARTIALLY_FILLED"}

    @property
    def algo(self):
        return self.type in STOPS and not self.triggered

    @property
    def leaves(self):
        return self.quantity - self.executed - self.prevented

    @property
    def visible(self):
        return min(self.part, self.leaves)

    @property
    def shown(self):
        return (
            self.order_id, self.account, self.symbol.name, self.side, self.type, self.price, self.quantity,
            self.executed, self.quote, self.prevented, self.status, self.expiry, self.amends, self.iceberg,
            self.trailing, bool(self.extreme), self.list.list_id if self.list else -1,
        )  # fmt: skip

    @property
    def locked(self):
        """Return (asset, amount)."""
        if not self.open or not (self.resting or self.waiting):
            return self.symbol.quote, 0
        if self.side == "SELL":
            return self.symbol.base, self.leaves * base_scale(self.symbol)
        return self.symbol.quote, value(self.symbol, self.price or self.lock_price, self.leaves)


def base_scale(symbol):
    return 10 ** (symbol.base_decimals - symbol.quantity_decimals)


def exact(symbol, price, quantity):
    """Return the value as a fraction (numerator, denominator)."""
    shift = symbol.quote_decimals - symbol.price_decimals - symbol.quantity_decimals
    return price * quantity * 10 ** max(shift, 0), 10 ** max(-shift, 0)


def down(symbol, price, quantity):
    top, bottom = exact(symbol, price, quantity)
    return top // bottom


def value(symbol, price, quantity):
    """Round up."""
    top, bottom = exact(symbol, price, quantity)
    return -(-top // bottom)
