"""Recovery: what a start takes over from the journal of earlier runs.

Start and restart are one path: positions are rebuilt by applying every fill of the journal again, in order, through
the very kernel that applied them first. A paper venue ends with its run, so what was open then is gone. A live venue
goes on without us: it is asked about every order whose end the journal does not hold, and for every trade that might
be missing there. So a journal is either of live runs or of others, never of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm import board
from shrivenq.shm.kernel import kernel
from shrivenq.stages import id_map, journal, orders, positions
from shrivenq.stages import messages as m
from shrivenq.stages.live import ledger
from shrivenq.stages.live.venue_state import KNOWN, UNSETTLED, UNSETTLED_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shrivenq.pipeline.instruments import Tables
    from shrivenq.stages.journal_file import Contents

FUNDS = (m.BALANCE, m.MOVED)
NOTE, CURRENCIES, MODE = "instruments ", " currencies ", " mode "


class RecoveryError(Exception):
    """The journal does not fit the configuration; one line says why."""


@dataclass
class Recovered:
    """What the journal of earlier runs holds; rows name instruments and currencies as this run's tables number them."""

    fills: Any
    """REPORT rows of every fill, once."""
    looked: Any
    """REPORT rows that say from which trade on the account is ours: LOOKED. Live only."""
    funds: Any
    """REPORT rows that say what the account should hold: fills among BALANCE and MOVED, in order. Live only."""
    unsettled: Any
    """UNSETTLED rows: orders that may be open at the venue, or about to arrive there. Live only."""


def describe(tables: Tables, mode: str) -> str:
    """Spell what the rows of the tables mean, for the journal: a later run may number them otherwise."""
    rows = [
        f"{row['symbol'].decode()}:{row['price_decimals']}:{row['quantity_decimals']}" for row in tables.instruments
    ]
    money = [f"{row['code'].decode()}:{row['decimals']}" for row in tables.currencies]
    return f"{NOTE}{','.join(rows)}{CURRENCIES}{','.join(money)}{MODE}{mode}"


def _mapping(old: list[str], new: list[str]) -> Any:
    """Map row numbers of one description to those of another: int64, -1 for rows that are no longer there."""
    places = {name: row for row, name in enumerate(new)}
    return np.array([places.get(name, -1) for name in old], np.int64)


def _names(text: str) -> tuple[list[str], list[str], str]:
    """Read a description: its instruments and its currencies, row by row, and its mode."""
    rest, _, mode = text.removeprefix(NOTE).partition(MODE)
    instruments, _, currencies = rest.partition(CURRENCIES)
    return instruments.split(","), currencies.split(","), mode


def _renumbered(rows: Any, old: list[str], new: list[str]) -> Any:
    """Translate row numbers, -1 for those without a translation."""
    mapping = _mapping(old, new)
    known = (rows >= 0) & (rows < len(mapping))
    found = np.full(len(rows), -1, np.int64)
    found[known] = mapping[rows[known]]
    return found


class _Descriptions:
    """The descriptions of a journal, each for the records up to the next; `mode` is this run's."""

    def __init__(self, contents: Contents, tables: Tables, mode: str) -> None:
        self._here = _names(describe(tables, mode))
        self._end = len(contents.index)
        self._there: list[tuple[int, tuple[list[str], list[str], str]]] = [(0, ([], [], mode))]
        for note in np.flatnonzero(contents.index["kind"] == journal.NOTE).tolist():
            text = contents.payload(note).rstrip(b"\0").decode("utf-8", "replace")
            if text.startswith(NOTE):
                self._there.append((note, _names(text)))
        other = next((held for _, (*_, held) in self._there if (held == "live") != (mode == "live")), None)
        if other is not None:
            raise RecoveryError(f"the journal is of mode {other}: run mode {mode} under another name")

    def translate(self, rows: Any, places: Any, what: str) -> None:
        """Renumber rows found at these `places` of the journal. Raises RecoveryError for the first that cannot be."""
        ends = [begin for begin, _ in self._there[1:]] + [self._end]
        for (begin, (instruments, currencies, _)), end in zip(self._there, ends, strict=True):
            here = slice(*np.searchsorted(places, [begin, end]))
            found = _renumbered(rows["instrument"][here], instruments, self._here[0])
            lost = found < 0
            if "fee_currency" in rows.dtype.names:
                paid_in = rows["fee_currency"][here]
                money = _renumbered(paid_in, currencies, self._here[1])
                # Negative: no table had it when the fee was paid, and none need have it now.
                lost |= (money < 0) & (paid_in >= 0) & (rows["kind"][here] == m.FILL)
                lost &= ~np.isin(rows["kind"][here], FUNDS)  # they are of no instrument
            if lost.any():
                at = int(rows["instrument"][here][lost.argmax()])
                named = instruments[at] if 0 <= at < len(instruments) else f"row {at}"
                raise RecoveryError(
                    f"the journal holds {what} in {named}, which the configuration does not trade with those "
                    f"decimals: restore it there, or start under another name"
                )
            rows["instrument"][here] = found
            if "fee_currency" in rows.dtype.names:
                rows["fee_currency"][here] = money


def _unsettled(contents: Contents, reports: Any, sent: Any, places: Any) -> tuple[Any, Any]:
    """Find the orders whose end the journal does not hold, and their places in it."""
    kind, final = reports["kind"], reports["flags"] & m.FINAL != 0
    over = reports["order_id"][final | (kind == m.OVER)]
    # What these name as `order_id` may be the request; AMENDED ends an order that it leaves nothing to fill.
    gone = reports["target_id"][(kind == m.CANCELLED) | (kind == m.REPLACED) | ((kind == m.AMENDED) & final)]
    there = reports[np.isin(kind, (m.ACCEPTED, m.FILL, m.REPLACED))]
    open_ = np.isin(sent["kind"], (m.NEW, m.REPLACE))
    open_ &= ~np.isin(sent["order_id"], np.concatenate([over, gone]))
    begun = np.flatnonzero(contents.index["kind"] == journal.RUN)
    runs = contents.rows(journal.RUN)["run"][np.searchsorted(begun, places[open_]) - 1] if len(begun) else []
    found = np.zeros(int(open_.sum()), UNSETTLED)
    for field in ("order_id", "instrument", "time_ns"):
        found[field] = sent[field][open_]
    found["time_ns"][np.isin(found["order_id"], there["order_id"])] = 0
    for row in found:
        row["venue_order_id"] = there["venue_order_id"][there["order_id"] == row["order_id"]].max(initial=0)
    found["name"] = [m.client_order_id(run, int(one)) for run, one in zip(runs, found["order_id"], strict=True)]
    return found, places[open_]


def _funds(descriptions: _Descriptions, fills: Any, fill_places: Any, reports: Any, places: Any) -> Any:
    """Put what says how much the account should hold among the fills, in their order."""
    chosen = np.isin(reports["kind"], FUNDS)
    said = reports[chosen]
    descriptions.translate(said, places[chosen], "balances")
    order = np.argsort(np.concatenate([fill_places, places[chosen]]), kind="stable")
    return np.concatenate([fills, said])[order]


def recover(contents: Contents, tables: Tables, mode: str) -> Recovered:
    """Collect what a journal holds for a run of this mode.

    Raises RecoveryError for something in an instrument this configuration lacks, and for a journal of another mode.
    """
    descriptions = _Descriptions(contents, tables, mode)
    reports, places = contents.rows(journal.REPORT_SEEN), np.flatnonzero(contents.index["kind"] == journal.REPORT_SEEN)
    # A fill that was told twice is journaled twice, and shown to risk once.
    is_fill = (reports["kind"] == m.FILL) & (reports["sequence"] >= 0)
    fills = reports[is_fill]
    descriptions.translate(fills, places[is_fill], "fills")
    chosen = reports["kind"] == m.LOOKED
    looked, funds, unsettled = reports[chosen], fills[:0], np.zeros(0, UNSETTLED)
    if mode == "live":
        funds = _funds(descriptions, fills, places[is_fill], reports, places)
        descriptions.translate(looked, places[chosen], "a look at the trades")
        sent = contents.rows(journal.ORDER_SENT)
        asked = np.flatnonzero(contents.index["kind"] == journal.ORDER_SENT)
        unsettled, asked = _unsettled(contents, reports, sent, asked)
        descriptions.translate(unsettled, asked, "orders without an end")
        if len(unsettled) > UNSETTLED_MAX:
            raise RecoveryError(
                f"the journal holds {len(unsettled)} orders without an end, more than {UNSETTLED_MAX}: look at the "
                f"venue what became of them, and start under another name"
            )
    return Recovered(fills, looked, funds, unsettled)


@kernel
def _apply(books: Any, instruments: Any, currencies: Any, fills: Any) -> None:
    """Book fills in order."""
    for k in range(fills.shape[0]):
        positions.apply_fill(
            books, instruments, currencies, fills[k]["instrument"], fills[k]["side"], fills[k]["last_price"],
            fills[k]["last_quantity"], fills[k]["fee"], fills[k]["fee_currency"],
        )  # fmt: skip


def _remember_trades(anchors: Any, known: Any, recovered: Recovered) -> Any:
    """Say up to which trade each instrument was looked at, and remember those told behind that; return them."""
    for one in recovered.looked:
        anchors[one["instrument"]] = max(anchors[one["instrument"]], one["trade_id"])
    fills = recovered.fills[recovered.fills["trade_id"] > anchors[recovered.fills["instrument"]]]
    for one in fills[-KNOWN:]:
        id_map.remember(known, one["instrument"], orders.trade_key(one["trade_id"], one["side"]))
    return fills


def restore(contexts: Mapping[str, Any], recovered: Recovered) -> None:
    """Give risk its positions, and a strategy's `position` field, if its STATE has one, the same.

    The live venue learns from which trade on it has to ask, and about which orders; the gateway, which fills were told.

    `contexts` are those of the stages built here, by name.
    """
    fills = recovered.fills
    if "risk" in contexts:
        risk = contexts["risk"]
        if len(fills):
            _apply(risk.positions, risk.instruments, risk.currencies, fills)
        for i in range(len(risk.instruments)):
            board.write(risk.board, i, risk.positions.rows[i : i + 1])
    if "gateway" in contexts and len(recovered.looked):  # a paper venue numbers its trades anew
        _remember_trades(contexts["gateway"].anchors, contexts["gateway"].fills, recovered)
    if "live_venue" in contexts:
        venue = contexts["live_venue"]
        behind = _remember_trades(venue.anchors, venue.known, recovered)
        np.add.at(venue.told, behind["instrument"], 1)
        ledger.tally(venue.ledger, venue.instruments, venue.answers.currencies, recovered.funds)
        venue.unsettled[: len(recovered.unsettled)] = recovered.unsettled
    if "signal" in contexts:
        state = contexts["signal"].state
        if "position" in (state.dtype.names or ()):
            np.add.at(state["position"], fills["instrument"], fills["side"] * fills["last_quantity"])
