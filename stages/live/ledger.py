"""Ledger: what the account should hold of every currency, by what the venue said last and every fill since.

A row per currency, int64:

    EXPECTED   what it should hold, free and locked, at the currency's exponent
    SLACK      by how much that may be off: a unit for each amount that the currency could not hold exactly
    KNOWN      1 once the venue has said how much there was

A sum that leaves int64 is not known any more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.money import CEIL, FLOOR, OVERFLOW, add, mul_div, mul_mul_div, power_of_ten, terms
from shrivenq.stages.venues.answers import FEE_DECIMALS

EXPECTED, SLACK, KNOWN = 0, 1, 2


def make_ledger(currency_count: int) -> Any:
    """Allocate a ledger: int64[currency, 3], nothing known."""
    return np.zeros((currency_count, 3), np.int64)


@inlined
def _change(ledger: Any, currency: int, amount: int, slack: int) -> None:
    ledger[currency, EXPECTED] = add(ledger[currency, EXPECTED], amount)
    ledger[currency, SLACK] += slack
    if ledger[currency, EXPECTED] == OVERFLOW:
        ledger[currency, KNOWN] = 0


@kernel
def book(
    ledger: Any,
    instruments: Any,
    currencies: Any,
    i: int,
    side: int,
    price: int,
    quantity: int,
    fee: int,
    fee_currency: int,
) -> None:
    """Book a fill of the spot instrument `i`: base against quote, and the fee, rounded up, in any currency.

    Venues round what does not fit as they like, hence the slack; a fee in a currency that is not in the table (-1)
    changes none that is.
    """
    base, quote = instruments[i]["base_currency"], instruments[i]["quote_currency"]
    a, b, c, d = terms(instruments, i, price, quantity, currencies)
    value = mul_mul_div(a, b, c, d, FLOOR)
    unit, scale = power_of_ten(instruments[i]["quantity_decimals"]), power_of_ten(currencies[base]["decimals"])
    amount = mul_div(quantity, scale, unit, FLOOR)
    value_slack = 1 if mul_mul_div(a, b, c, d, CEIL) != value else 0
    amount_slack = 1 if mul_div(quantity, scale, unit, CEIL) != amount else 0
    _change(ledger, base, amount if side == m.BUY else -amount, amount_slack)
    _change(ledger, quote, -value if side == m.BUY else value, value_slack)
    if 0 <= fee_currency < ledger.shape[0] and fee != 0:
        coarse = currencies[fee_currency]["decimals"] < FEE_DECIMALS
        _change(ledger, fee_currency, -fee, 1 if coarse else 0)


@kernel
def tally(ledger: Any, instruments: Any, currencies: Any, reports: Any) -> None:
    """Take REPORTs in their order: BALANCE is what the venue said, MOVED what came or went, FILL what was traded."""
    for k in range(reports.shape[0]):
        currency, amount = reports[k]["fee_currency"], reports[k]["quantity"]
        if reports[k]["kind"] == m.FILL:
            book(
                ledger, instruments, currencies, reports[k]["instrument"], reports[k]["side"],
                reports[k]["last_price"], reports[k]["last_quantity"], reports[k]["fee"], currency,
            )  # fmt: skip
        elif currency < 0 or currency >= ledger.shape[0]:
            continue
        elif reports[k]["kind"] == m.MOVED:
            _change(ledger, currency, amount, 0)
        elif reports[k]["kind"] == m.BALANCE:
            ledger[currency, EXPECTED] = amount
            ledger[currency, SLACK] = 0
            ledger[currency, KNOWN] = 1
