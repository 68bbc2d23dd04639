"""Whether journal, gateway, risk and venue agree on every order, fill, fee and position: what they do not agree on.

Each side is first made a plain value (`Told`: what the journal says; `Venue`: what the simulator says), so that a test
can spoil one and see it found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shrivenq.stages import journal, positions
from shrivenq.stages import messages as m

SHOWN = 20
"""Disagreements of a kind that are told one by one."""

OUTCOMES = {
    m.FILL: {"FILLED"},
    m.CANCELLED: {"CANCELED"},
    m.REPLACED: {"CANCELED"},
    m.EXPIRED: {"EXPIRED", "EXPIRED_IN_MATCH"},
    m.REJECTED: {""},
    m.DENIED: {""},
    m.CANCEL_REJECTED: {""},
}
"""How the venue calls the end of an order that a report of this kind ended; "" is one it does not know."""


class Trade(NamedTuple):
    """A fill, as both sides can tell it."""

    symbol: str
    trade_id: int
    order: str  # client order id
    price: int
    quantity: int
    side: int
    fee: int
    currency: str


class Order(NamedTuple):
    """An order at the venue."""

    name: str
    status: str
    executed: int


@dataclass
class Told:
    """What the journal says."""

    trades: list[Trade]
    names: dict[int, str]  # NEW and REPLACE, by order id: what the venue knows it as
    ends: dict[int, list[int]]  # kinds of the reports that ended an order, by its id
    epoch: int  # of the last run
    unknown: int  # orders that were unknown for a while
    repeated: int  # fills that were told more than once


@dataclass
class Venue:
    """What the simulator says of the account."""

    trades: list[Trade]
    orders: list[Order]
    gained: dict[str, int]  # by asset, since the beginning
    locked: dict[str, int]


# ── the two sides ────────────────────────────────────────────────────────────────────────────────────────────────────


def told(contents, tables) -> Told:
    """Read a journal."""
    assert contents.problem == "", contents.problem
    runs = {int(row["epoch"]): row["run"] for row in contents.rows(journal.RUN)}
    symbols = [row["symbol"].decode() for row in tables.instruments]
    codes = [row["code"].decode() for row in tables.currencies]
    sent, reports = contents.rows(journal.ORDER_SENT), contents.rows(journal.REPORT_SEEN)
    names = {
        one: m.client_order_id(runs[one >> m.EPOCH_SHIFT], one).decode()
        for one in sent["order_id"][(sent["kind"] == m.NEW) | (sent["kind"] == m.REPLACE)].tolist()
    }
    fills = reports[reports["kind"] == m.FILL]
    seen = reports[reports["sequence"] >= 0]
    return Told(
        trades=[
            Trade(symbols[one["instrument"]], int(one["trade_id"]), names.get(int(one["order_id"]), ""),
                  int(one["last_price"]), int(one["last_quantity"]), int(one["side"]), int(one["fee"]),
                  codes[one["fee_currency"]])
            for one in fills[fills["sequence"] >= 0]
        ],
        names=names,
        ends=_ends(seen),
        epoch=max(runs),
        unknown=len(np.unique(seen["order_id"][seen["kind"] == m.UNKNOWN])),
        repeated=int((fills["sequence"] < 0).sum()),
    )  # fmt: skip


def _ends(reports) -> dict[int, list[int]]:
    """Collect what risk was told of the end of each order: CANCELLED and REPLACED name it as their target."""
    ends = defaultdict(list)
    of_target = np.isin(reports["kind"], (m.CANCELLED, m.REPLACED)) & (reports["target_id"] > 0)
    for one in reports[of_target]:
        end = ends[int(one["target_id"])]
        if one["kind"] == m.CANCELLED or not end:  # a target may be told gone before it is told replaced
            end.append(int(one["kind"]))
    for one in reports[~of_target & (reports["flags"] & m.FINAL != 0)]:
        ends[int(one["order_id"])].append(int(one["kind"]))
    return ends


def venue(engine, account, begun) -> Venue:
    """Ask the simulator; `begun` are the account's balances of the beginning, by asset."""
    most = 1 << 30
    orders = [one for symbol in engine.symbols for one in engine.all_orders(account, symbol, limit=most)]
    names = {(one.symbol, one.order_id): one.client_id for one in orders}
    fills = [one for symbol in engine.symbols for one in engine.my_trades(account, symbol, limit=most)]
    balances = engine.balances(account)
    return Venue(
        trades=[
            Trade(one.symbol, one.trade_id, names[one.symbol, one.order_id], one.price, one.quantity,
                  m.BUY if one.is_buyer else m.SELL, one.commission, one.commission_asset)
            for one in fills
        ],
        orders=[Order(one.client_id, "OPEN" if one.is_open else one.status, one.executed) for one in orders],
        gained={asset: sum(pair) - begun.get(asset, 0) for asset, pair in balances.items()},
        locked={asset: locked for asset, (_, locked) in balances.items()},
    )  # fmt: skip


# ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────────


def disagreements(ours: Told, theirs: Venue, rows, taken: int, tables) -> list[str]:
    """List what they do not agree on, a line each.

    `rows` are risk's POSITION rows, `taken` the order slots of the gateway that are in use.
    """
    found = _shown("fill", _trade_lines(ours, theirs)) + _shown("order", _order_lines(ours, theirs))
    found += _position_lines(theirs, rows, tables)
    found += [f"venue: {amount} {asset} locked and nothing open" for asset, amount in theirs.locked.items() if amount]
    found += _balance_lines(ours, theirs)
    if taken:
        found.append(f"gateway: {taken} order slots are in use")
    return found


def _shown(what: str, lines: list[str]) -> list[str]:
    more = [f"{what}: and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _trade_lines(ours: Told, theirs: Venue) -> list[str]:
    mine, known = Counter(ours.trades), Counter(theirs.trades)
    return [f"fill: {count} × {one}: in the journal only" for one, count in sorted((mine - known).items())] + [
        f"fill: {count} × {one}: at the venue only" for one, count in sorted((known - mine).items())
    ]


def _order_lines(ours: Told, theirs: Venue) -> list[str]:
    """Compare the end of every order, and what was filled of it, on both sides."""
    lines, known = [], {one.name: one for one in theirs.orders}
    filled = Counter()
    for one in ours.trades:
        filled[one.order] += one.quantity
    for order_id, name in ours.names.items():
        ends, at_venue = ours.ends.get(order_id, []), known.pop(name, None)
        if at_venue is not None and at_venue.executed != filled[name]:
            lines.append(f"order: {name}: filled {filled[name]}, at the venue {at_venue.executed}")
        if order_id >> m.EPOCH_SHIFT != ours.epoch:
            if at_venue is not None and at_venue.status == "OPEN":
                lines.append(f"order: {name}: of a run before, open at the venue")
            continue
        if len(ends) != 1:
            lines.append(f"order: {name}: ended {len(ends)} times {ends}, at the venue {at_venue}")
        elif (at_venue.status if at_venue else "") not in OUTCOMES[ends[0]]:
            lines.append(f"order: {name}: ended by {ends[0]}, at the venue {at_venue}")
    return lines + [f"order: {one}: at the venue only" for one in known.values()]


def positions_of(theirs: Venue, tables) -> positions.Positions:
    """Book the venue's own trades."""
    symbols = [row["symbol"].decode() for row in tables.instruments]
    codes = [row["code"].decode() for row in tables.currencies]
    made = positions.make_positions(len(symbols), len(codes))
    for one in theirs.trades:
        positions.apply_fill(
            made, tables.instruments, tables.currencies, symbols.index(one.symbol), one.side, one.price, one.quantity,
            one.fee, codes.index(one.currency),
        )  # fmt: skip
    return made


def _position_lines(theirs: Venue, rows, tables) -> list[str]:
    """Compare risk's positions with what the venue's own trades make, in all that does not depend on their order."""
    lines = []
    for instrument, mine, expected in zip(tables.instruments, rows, positions_of(theirs, tables).rows, strict=True):
        symbol = instrument["symbol"].decode()
        lines += [
            f"risk: {symbol}.{name}: {mine[name]}, of the venue's trades {expected[name]}"
            for name in ("position", "bought", "sold", "fills", "fees", "foreign_fees", "unconverted", "residue")
            if mine[name] != expected[name]
        ]
        flows, others = int(mine["realised"] - mine["cost"]), int(expected["realised"] - expected["cost"])
        if flows != others:
            lines.append(f"risk: {symbol}: cash {flows}, of the venue's trades {others}")
    return lines


def _balance_lines(ours: Told, theirs: Venue) -> list[str]:
    """Compare what the account gained with the sum of our own fills, in every asset: base, quote and fees."""
    gained = Counter()
    for one in ours.trades:
        base, quote = one.symbol.removesuffix("USDT"), "USDT"
        gained[base] += one.side * one.quantity
        gained[quote] -= one.side * one.quantity * one.price // 100  # price: two decimals
        gained[one.currency] -= one.fee
    return [
        f"balance: {asset}: gained {amount} at the venue, {gained[asset]} by our fills"
        for asset, amount in theirs.gained.items()
        if gained[asset] != amount
    ]
