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
from shrivenq.shm.kernel import kernel
from shrivenq.stages import journal, positions
from shrivenq.stages import messages as m

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shrivenq.pipeline.instruments import Tables
    from shrivenq.stages.journal_file import Contents

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


def _mapping(old: list[str], new: list[str]) -> Any:
    """Map row numbers of one description to those of another: int64, -1 for rows that are no longer there."""
    places = {name: row for row, name in enumerate(new)}
    return np.array([places.get(name, -1) for name in old], np.int64)


def _names(text: str) -> tuple[list[str], list[str]]:
    """Read a description: its instruments and its currencies, row by row."""
    instruments, _, currencies = text.removeprefix(NOTE).partition(" currencies ")
    return instruments.split(","), currencies.split(",")


def _renumbered(rows: Any, mapping: Any) -> Any:
    """Translate row numbers, -1 for those without a translation."""
    known = (rows >= 0) & (rows < len(mapping))
    found = np.full(len(rows), -1, np.int64)
    found[known] = mapping[rows[known]]
    return found


def _translate(fills: Any, there: tuple[list[str], list[str]], here: tuple[list[str], list[str]]) -> None:
    """Renumber the fills of a run described as `there`. Raises RecoveryError for the first that cannot be."""
    instruments = _renumbered(fills["instrument"], _mapping(there[0], here[0]))
    currencies = _renumbered(fills["fee_currency"], _mapping(there[1], here[1]))
    lost = np.flatnonzero((instruments < 0) | (currencies < 0))
    if len(lost):
        at = int(fills["instrument"][lost[0]])
        named = there[0][at] if 0 <= at < len(there[0]) else f"row {at}"
        raise RecoveryError(
            f"the journal holds fills in {named}, which the configuration does not trade with those decimals: "
            f"restore it there, or start under another name"
        )
    fills["instrument"], fills["fee_currency"] = instruments, currencies


def recover(contents: Contents, tables: Tables) -> Recovered:
    """Collect the fills of a journal. Raises RecoveryError for one in an instrument this configuration lacks."""
    here = _names(describe(tables))
    reports, places = contents.rows(journal.REPORT_SEEN), np.flatnonzero(contents.index["kind"] == journal.REPORT_SEEN)
    chosen = reports["kind"] == m.FILL
    fills, places = reports[chosen], places[chosen]
    there: tuple[list[str], list[str]] = ([], [])
    begin = 0
    for note in np.flatnonzero(contents.index["kind"] == journal.NOTE).tolist():
        text = contents.payload(note).rstrip(b"\0").decode("utf-8", "replace")
        if text.startswith(NOTE):
            end = int(np.searchsorted(places, note))
            _translate(fills[begin:end], there, here)
            there, begin = _names(text), end
    _translate(fills[begin:], there, here)
    return Recovered(fills)


@kernel
def _apply(books: Any, instruments: Any, currencies: Any, fills: Any) -> None:
    """Book fills in order."""
    for k in range(fills.shape[0]):
        positions.apply_fill(
            books, instruments, currencies, fills[k]["instrument"], fills[k]["side"], fills[k]["last_price"],
            fills[k]["last_quantity"], fills[k]["fee"], fills[k]["fee_currency"],
        )  # fmt: skip


def restore(contexts: Mapping[str, Any], recovered: Recovered) -> None:
    """Give risk its positions, and a strategy's `position` field, if its STATE has one, the same.

    The live venue learns from which trade on it has to ask.

    `contexts` are those of the stages built here, by name.
    """
    fills = recovered.fills
    if "risk" in contexts:
        risk = contexts["risk"]
        if len(fills):
            _apply(risk.positions, risk.instruments, risk.currencies, fills)
        for i in range(len(risk.instruments)):
            board.write(risk.board, i, risk.positions.rows[i : i + 1])
    if "live_venue" in contexts:
        np.maximum.at(contexts["live_venue"].trades, fills["instrument"], fills["trade_id"])
    if "signal" in contexts:
        state = contexts["signal"].state
        if "position" in (state.dtype.names or ()):
            np.add.at(state["position"], fills["instrument"], fills["side"] * fills["last_quantity"])
