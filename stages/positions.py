"""Positions: what our fills have made of us, in integers whose sums are exact.

Every fill is a flow of money in the settle currency: a linear purchase pays its value and a sale earns it, an inverse
purchase earns contract_size ÷ price and a sale pays it. Flows are rounded against us; what rounding took is the
residue. A flow that opens goes into `cost`, one that closes takes its share of `cost` out into `realised`, so that

    cash = Σ flows = realised − cost          exactly, after every fill, and
    Σ exact flows  = cash + residue           exactly for linear instruments; an inverse one divides by the price, and
                                              its residue leaves out less than 1e-18 of the smallest unit a fill

A sum that leaves int64 becomes OVERFLOW and stays it: whoever reads it denies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY
from shrivenq.stages.money import (
    CEIL,
    FLOOR,
    OVERFLOW,
    add,
    mul_div,
    mul_mul_div,
    notional,
    power_of_ten,
    remainder,
    terms,
)

RESIDUE_UNIT = 10**18
"""`residue_part` counts this many to the currency's smallest unit."""

POSITION_FIELDS = (
    ("position", "<i8", 0, "contracts held, negative when short, at quantity_decimals"),
    ("cost", "<i8", 8, "entry value of what is held: minus its flows (settle currency)"),
    ("realised", "<i8", 16, "profit of what was closed, before fees (settle currency)"),
    ("unrealised", "<i8", 24, "profit if closed at the mark, before fees (settle currency)"),
    ("value", "<i8", 32, "worth of what is held at the mark, 0 or more (settle currency)"),
    ("fees", "<i8", 40, "paid in the settle currency"),
    ("foreign_fees", "<i8", 48, "worth in the settle currency, when paid, of fees paid in the base currency"),
    ("residue", "<i8", 56, "what rounding flows took from us, whole smallest units"),
    ("residue_part", "<i8", 64, "and its 1e-18 parts"),
    ("bought", "<i8", 72, "contracts bought so far"),
    ("sold", "<i8", 80, "contracts sold so far"),
    ("fills", "<i8", 88, "fills so far"),
    ("unconverted", "<i8", 96, "fills whose fee was in a currency of unknown worth"),
    ("mark", "<i8", 104, "price of the last valuation, 0 before the first"),
    ("time_ns", "<i8", 112, "ns since 1970: of the last fill"),
)

ACCOUNT_FIELDS = (
    ("cash", "<i8", 0, "sum of flows"),
    ("realised", "<i8", 8, "sum over the instruments that settle in it"),
    ("unrealised", "<i8", 16, "sum over the instruments that settle in it"),
    ("value", "<i8", 24, "sum over the instruments that settle in it"),
    ("fees", "<i8", 32, "paid in this currency, whatever the instrument"),
    ("charges", "<i8", 40, "fees and foreign_fees of the instruments that settle in it"),
)


def _record(fields: Any, size: int) -> np.dtype[Any]:
    names, formats, offsets, _ = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size, "aligned": True})


POSITION = _record(POSITION_FIELDS, 128)
ACCOUNT = _record(ACCOUNT_FIELDS, 64)


@by_reference
class Positions(NamedTuple):
    """A POSITION row per instrument and an ACCOUNT row per currency."""

    rows: Any
    accounts: Any


def make_positions(instrument_count: int, currency_count: int) -> Positions:
    """Allocate flat positions."""
    return Positions(np.zeros(instrument_count, POSITION), np.zeros(currency_count, ACCOUNT))


@kernel
def _flow(row: Any, instruments: Any, i: int, side: int, price: int, quantity: int, currencies: Any) -> int:
    """Compute the flow of a fill, rounded against us; adds to the residue of `row[i]` what rounding took."""
    a, b, c, d = terms(instruments, i, price, quantity, currencies)
    whole = mul_mul_div(a, b, c, d, FLOOR)
    if whole == OVERFLOW:
        return OVERFLOW
    part = remainder(a, b, c, d, whole)
    earns = (side == BUY) == (instruments[i]["inverse"] != 0)
    taken = part
    if not earns and part != 0:
        whole += 1
        taken = d - part
    rest = row[i]["residue_part"] + mul_div(taken, RESIDUE_UNIT, d, FLOOR)
    if rest >= RESIDUE_UNIT:
        rest -= RESIDUE_UNIT
        row[i]["residue"] = add(row[i]["residue"], 1)
    row[i]["residue_part"] = rest
    return whole if earns else -whole


@kernel
def _hold(row: Any, i: int, signed: int, flow: int) -> int:
    """Change the position by `signed` contracts that made `flow`; return the profit realised."""
    position, cost = row[i]["position"], row[i]["cost"]
    row[i]["position"] = add(position, signed)
    if add(flow, cost) == OVERFLOW or row[i]["position"] == OVERFLOW:
        row[i]["cost"] = OVERFLOW
        return OVERFLOW
    if position == 0 or (position > 0) == (signed > 0):
        row[i]["cost"] = add(cost, -flow)
        return 0
    held, traded = abs(position), abs(signed)
    if traded <= held:
        released = mul_div(cost, traded, held, CEIL)
        row[i]["cost"] = add(cost, -released)
        return add(flow, -released)
    # Through zero: the first part of the flow closes, the rest opens.
    closing = mul_div(flow, held, traded, FLOOR)
    row[i]["cost"] = closing - flow
    return add(closing, -cost)


@kernel
def _charge(
    positions: Positions, instruments: Any, currencies: Any, i: int, price: int, fee: int, fee_currency: int
) -> None:
    """Book a fee in its currency, and against the instrument in what that is worth in the settle currency."""
    rows, accounts = positions.rows, positions.accounts
    settle = instruments[i]["settle_currency"]
    if fee == 0:
        return
    if fee_currency < 0 or fee_currency >= accounts.shape[0]:
        rows[i]["unconverted"] += 1
        return
    accounts[fee_currency]["fees"] = add(accounts[fee_currency]["fees"], fee)
    worth = fee
    if fee_currency == settle:
        rows[i]["fees"] = add(rows[i]["fees"], fee)
    elif fee_currency == instruments[i]["base_currency"]:
        scale = power_of_ten(currencies[settle]["decimals"])
        unit = mul_div(
            power_of_ten(instruments[i]["price_decimals"]),
            power_of_ten(currencies[fee_currency]["decimals"]),
            1,
            FLOOR,
        )
        worth = mul_mul_div(fee, price, scale, unit, CEIL)
        rows[i]["foreign_fees"] = add(rows[i]["foreign_fees"], worth)
    else:
        rows[i]["unconverted"] += 1
        return
    accounts[settle]["charges"] = add(accounts[settle]["charges"], worth)


@kernel
def apply_fill(
    positions: Positions,
    instruments: Any,
    currencies: Any,
    i: int,
    side: int,
    price: int,
    quantity: int,
    fee: int,
    fee_currency: int,
) -> None:
    """Book one fill of instrument `i`: `quantity` > 0 contracts at `price`, `fee` in `fee_currency` (positive: paid).

    Revalues what is held at the last mark, or at this price before the first one.
    """
    rows, accounts = positions.rows, positions.accounts
    settle = instruments[i]["settle_currency"]
    signed = quantity if side == BUY else -quantity
    flow = _flow(rows, instruments, i, side, price, quantity, currencies)
    realised = _hold(rows, i, signed, flow)
    rows[i]["realised"] = add(rows[i]["realised"], realised)
    accounts[settle]["cash"] = add(accounts[settle]["cash"], flow)
    accounts[settle]["realised"] = add(accounts[settle]["realised"], realised)
    if side == BUY:
        rows[i]["bought"] = add(rows[i]["bought"], quantity)
    else:
        rows[i]["sold"] = add(rows[i]["sold"], quantity)
    rows[i]["fills"] += 1
    _charge(positions, instruments, currencies, i, price, fee, fee_currency)
    mark = rows[i]["mark"]
    if mark == 0:
        mark = price
    if not revalue(positions, instruments, currencies, i, mark):
        accounts[settle]["value"] = OVERFLOW


@kernel
def revalue(positions: Positions, instruments: Any, currencies: Any, i: int, mark: int) -> bool:
    """Value what is held of instrument `i` at the price `mark`; False, and nothing changed, if that overflows."""
    rows, accounts = positions.rows, positions.accounts
    position, cost = rows[i]["position"], rows[i]["cost"]
    settle = instruments[i]["settle_currency"]
    closing, unrealised = 0, 0
    if position != 0:
        # Closing sells what is held: a linear sale earns, an inverse one pays.
        held = position if instruments[i]["inverse"] == 0 or position == OVERFLOW else -position
        closing = notional(instruments, i, mark, held, currencies, FLOOR)
        unrealised = add(closing, -cost) if cost != OVERFLOW else OVERFLOW
        if closing == OVERFLOW or unrealised == OVERFLOW:  # noqa: PLR1714 - a kernel: no set
            return False
    value = abs(closing)
    accounts[settle]["value"] = add(accounts[settle]["value"], value - rows[i]["value"])
    accounts[settle]["unrealised"] = add(accounts[settle]["unrealised"], add(unrealised, -rows[i]["unrealised"]))
    rows[i]["value"] = value
    rows[i]["unrealised"] = unrealised
    rows[i]["mark"] = mark
    return True


@kernel
def mark_to_touch(positions: Positions, instruments: Any, currencies: Any, i: int, bid: int, ask: int) -> bool:
    """Value what is held where it could be closed: long at the bid, short at the ask. False as `revalue`."""
    if positions.rows[i]["position"] == 0:
        return True
    return revalue(positions, instruments, currencies, i, bid if positions.rows[i]["position"] > 0 else ask)


@kernel
def profit(positions: Positions, currency: int) -> int:
    """Total profit in a settlement currency, charges deducted; OVERFLOW if any part of it is."""
    accounts = positions.accounts
    charges = accounts[currency]["charges"]
    if charges == OVERFLOW:
        return OVERFLOW
    return add(add(accounts[currency]["realised"], accounts[currency]["unrealised"]), -charges)
