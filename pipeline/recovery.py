"""Recovery: what a start takes over from the journal of earlier runs.

Start and restart are one path: positions are rebuilt by applying every fill of the journal again, in order, through
the very kernel that applied them first. Orders are not taken over: the paper venue ends with its run, so what was open
then is gone; a live venue will be reconciled instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm import board
from shrivenq.stages import journal, positions
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from shrivenq.pipeline.instruments import Tables
    from shrivenq.pipeline.runner import Runner

NOTE = "instruments "


class RecoveryError(Exception):
    """The journal does not fit the configuration; one line says why."""


@dataclass
class Recovered:
    """Fills of earlier runs, as REPORT rows whose `instrument` and `fee_currency` are of this run's tables."""

    fills: Any


def describe(tables: Tables) -> str:
    """Spell what the rows of the tables mean, for the journal: a later run may number them otherwise."""
    rows = [
        f"{row['symbol'].decode()}:{row['price_decimals']}:{row['quantity_decimals']}" for row in tables.instruments
    ]
    money = [f"{row['code'].decode()}:{row['decimals']}" for row in tables.currencies]
    return f"{NOTE}{','.join(rows)} currencies {','.join(money)}"


def _mapping(old: str, new: str) -> dict[int, int]:
    """Map row numbers of one description to those of another; rows that are no longer there are left out."""
    rows = new.split(",")
    return {i: rows.index(one) for i, one in enumerate(old.split(",")) if one in rows}


def recover(contents: journal.Contents, tables: Tables) -> Recovered:
    """Collect the fills of a journal. Raises RecoveryError for one in an instrument this configuration lacks."""
    here, _, money_here = describe(tables).removeprefix(NOTE).partition(" currencies ")
    instruments: dict[int, int] = {}
    currencies: dict[int, int] = {}
    there = ""
    fills = []
    for record in contents.records:
        if record.kind == journal.NOTE:
            text = record.payload.rstrip(b"\0").decode("utf-8", "replace")
            if text.startswith(NOTE):
                there, _, money_there = text.removeprefix(NOTE).partition(" currencies ")
                instruments, currencies = _mapping(there, here), _mapping(money_there, money_here)
        elif record.kind == journal.REPORT_SEEN:
            fill = np.frombuffer(record.payload, m.REPORT).copy()
            if fill["kind"][0] != m.FILL:
                continue
            at, money = int(fill["instrument"][0]), int(fill["fee_currency"][0])
            if at not in instruments or money not in currencies:
                named = there.split(",")[at] if at < len(there.split(",")) else f"row {at}"
                raise RecoveryError(
                    f"the journal holds fills in {named}, which the configuration does not trade with those decimals: "
                    f"restore it there, or start under another name"
                )
            fill["instrument"], fill["fee_currency"] = instruments[at], currencies[money]
            fills.append(fill)
    return Recovered(np.concatenate(fills) if fills else np.zeros(0, m.REPORT))


def restore(held: Runner, recovered: Recovered) -> None:
    """Give risk its positions, and a strategy's `position` field, if its STATE has one, the same."""
    if "risk" in held.names:
        risk = held.context("risk")
        for fill in recovered.fills:
            positions.apply_fill(
                risk.positions, risk.instruments, risk.currencies, int(fill["instrument"]), int(fill["side"]),
                int(fill["last_price"]), int(fill["last_quantity"]), int(fill["fee"]), int(fill["fee_currency"]),
            )  # fmt: skip
        for i in range(len(risk.instruments)):
            board.write(risk.board, i, risk.positions.rows[i : i + 1])
    if "signal" in held.names:
        state = held.context("signal").state
        if "position" in (state.dtype.names or ()):
            for fill in recovered.fills:
                state[int(fill["instrument"])]["position"] += int(fill["side"]) * int(fill["last_quantity"])
