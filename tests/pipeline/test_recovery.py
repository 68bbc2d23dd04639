from __future__ import annotations

import os
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import recovery, topology
from shrivenq.pipeline.instruments import read_instruments
from shrivenq.pipeline.recovery import RecoveryError
from shrivenq.shm import board, byte_ring
from shrivenq.stages import id_map, journal, journal_file, positions
from shrivenq.stages import messages as m
from shrivenq.stages.live import ledger
from shrivenq.stages.live.venue_state import KNOWN, NEVER_LOOKED, NO_TRADES, UNSETTLED, UNSETTLED_MAX
from shrivenq.stages.orders import NO_TRADE, trade_key
from tests.pipeline.pipeline_rig import assembled

NAME = "test-recovery"
SPOT = configuration.SHIPPED / "instruments_binance_spot.toml"


def recover(contents, tables, mode="paper"):
    return recovery.recover(contents, tables, mode)


def tables_of(*symbols):
    found, problems = read_instruments(SPOT, list(symbols))
    assert not problems
    return found


BOTH, TURNED, ONE = tables_of("BTCUSDT", "ETHUSDT"), tables_of("ETHUSDT", "BTCUSDT"), tables_of("ETHUSDT")

FILLS = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from([m.BUY, m.SELL]), st.integers(1, 10**7), st.integers(1, 10**9),
        st.integers(-(10**6), 10**6), st.integers(0, 2),
    ),
    max_size=30,
)  # fmt: skip


def fill_rows(fills):
    rows = np.zeros(len(fills), m.REPORT)
    rows["kind"] = m.FILL
    for row, values in zip(rows, fills, strict=True):
        row["instrument"], row["side"], row["last_price"], row["last_quantity"], row["fee"], row["fee_currency"] = (
            values
        )
    return rows


def records(tables, rows, mode="paper"):
    """Spell the journal of a run: what its rows mean, then its reports, those that are no fills among them."""
    noise = np.zeros(1, m.REPORT)
    noise["kind"], noise["last_quantity"] = m.ACCEPTED, 99
    found = [(journal.NOTE, b"armed by somebody"), (journal.NOTE, recovery.describe(tables, mode).encode())]
    for row in rows:
        found += [(journal.REPORT_SEEN, noise.tobytes()), (journal.REPORT_SEEN, row.tobytes())]
    return found


def contents(*runs):
    """Put the records of runs in memory as a file has them, unchained."""
    made = [journal.make_record(kind, payload, i, 0) for run in runs for i, (kind, payload) in enumerate(run)]
    index = np.zeros(len(made), journal_file.INDEX)
    index["kind"] = [kind for run in runs for kind, _ in run]
    index["length"] = [len(record) - journal.HEADER.itemsize for record in made]
    index["offset"] = np.cumsum([0, *map(len, made)])[:-1]
    return journal_file.Contents(np.frombuffer(b"".join(made), np.int64), index, 0, 0, "", 0)


def named(tables, rows):
    """Say each fill in words that do not depend on how the rows of a table are numbered."""
    return [
        (
            tables.instruments[row["instrument"]]["symbol"],
            tables.currencies[row["fee_currency"]]["code"],
            *(int(row[key]) for key in ("side", "last_price", "last_quantity", "fee")),
        )
        for row in rows
    ]


@settings(deadline=None)
@given(FILLS, FILLS)
def test_fills_of_every_run_in_order_whatever_their_rows_were_called(first, second):
    first, second = fill_rows(first), fill_rows(second)
    found = recover(contents(records(BOTH, first), records(TURNED, second)), TURNED)
    assert named(TURNED, found.fills) == named(BOTH, first) + named(TURNED, second)


@pytest.fixture(scope="module")
def run():
    with assembled(NAME) as made:
        yield made


def holder(run, tables):
    """Stand in for a runner with risk and signal in it."""
    risk = SimpleNamespace(
        positions=positions.make_positions(len(tables.instruments), len(tables.currencies)),
        instruments=tables.instruments,
        currencies=tables.currencies,
        board=board.writer(run.segments["positions"]),
    )
    state = np.zeros(len(tables.instruments), [("position", "<i8"), ("other", "<i8")])
    contexts = {"risk": risk, "signal": SimpleNamespace(state=state)}
    return SimpleNamespace(names=list(contexts), context=contexts.__getitem__)


def check(run, fills):
    rows = fill_rows(fills)
    held = holder(run, TURNED)
    recovery.restore({name: held.context(name) for name in held.names}, recover(contents(records(BOTH, rows)), TURNED))
    direct = positions.make_positions(2, len(TURNED.currencies))
    twin = {b"BTCUSDT": [0, Fraction(0)], b"ETHUSDT": [0, Fraction(0)]}
    for symbol, code, side, price, quantity, fee in named(BOTH, rows):
        at = list(TURNED.instruments["symbol"]).index(symbol)
        money = list(TURNED.currencies["code"]).index(code)
        positions.apply_fill(direct, TURNED.instruments, TURNED.currencies, at, side, price, quantity, fee, money)
        twin[symbol][0] += side * quantity
        twin[symbol][1] -= Fraction(side * price * quantity, 10**2)  # prices 2, quantities and money 8 decimals
    risk = held.context("risk")
    assert risk.positions.rows.tobytes() == direct.rows.tobytes()
    assert risk.positions.accounts.tobytes() == direct.accounts.tobytes()
    for at, row in enumerate(risk.positions.rows):
        position, flows = twin[TURNED.instruments[at]["symbol"]]
        assert int(row["position"]) == position == int(held.context("signal").state[at]["position"])
        cash = Fraction(int(row["realised"]) - int(row["cost"]))
        residue = int(row["residue"]) + Fraction(int(row["residue_part"]), positions.RESIDUE_UNIT)
        assert cash + residue == flows
        assert not int(held.context("signal").state[at]["other"])
    assert run.positions().tobytes() == direct.rows.tobytes()


def test_positions_are_those_of_the_fills(run):
    @settings(max_examples=50, deadline=None)
    @given(FILLS)
    def each(fills):
        check(run, fills)

    each()


def test_a_strategy_without_a_position_and_a_process_without_risk_are_left_alone(run):
    held = holder(run, BOTH)
    held.context("signal").state = np.zeros(2, [("mine", "<i8")])
    held.names = ["signal"]
    recovery.restore(
        {name: held.context(name) for name in held.names},
        recover(contents(records(BOTH, fill_rows([(0, m.BUY, 1, 1, 0, 0)]))), BOTH),
    )
    assert not held.context("signal").state["mine"].any()
    assert not held.context("risk").positions.rows["fills"].any()


def test_an_empty_journal_is_flat():
    assert len(recover(contents(), BOTH).fills) == 0


def test_an_instrument_that_is_no_longer_there_is_refused():
    with pytest.raises(RecoveryError) as caught:
        recover(contents(records(BOTH, fill_rows([(1, m.BUY, 1, 1, 0, 0), (0, m.BUY, 1, 1, 0, 0)]))), ONE)
    assert str(caught.value).startswith("the journal holds fills in BTCUSDT:2:8, which the configuration does not")
    assert "\n" not in str(caught.value)
    # Without a fill in it nothing is missed.
    found = recover(contents(records(BOTH, fill_rows([(1, m.BUY, 1, 1, 0, 0)]))), ONE)
    assert found.fills["instrument"].tolist() == [0]


def test_other_decimals_are_another_instrument():
    changed = BOTH._replace(instruments=BOTH.instruments.copy())
    changed.instruments["price_decimals"][0] = 3
    with pytest.raises(RecoveryError, match="BTCUSDT:2:8"):
        recover(contents(records(BOTH, fill_rows([(0, m.BUY, 1, 1, 0, 0)]))), changed)


def test_a_fee_in_a_currency_that_no_table_has_is_no_reason_not_to_start():
    fills = fill_rows([(0, m.BUY, 100, 100, 5, -1)])
    assert recover(contents(records(BOTH, fills)), BOTH).fills["fee_currency"].tolist() == [-1]
    # One that the table of then had is wanted.
    without = BOTH._replace(currencies=BOTH.currencies[:2])
    with pytest.raises(RecoveryError, match="BTCUSDT:2:8"):
        recover(contents(records(BOTH, fill_rows([(0, m.BUY, 100, 100, 5, 2)]))), without)


def test_fills_before_any_description_are_refused():
    fills = [one for one in records(BOTH, fill_rows([(0, m.BUY, 1, 1, 0, 0)])) if one[0] != journal.NOTE]
    with pytest.raises(RecoveryError, match="fills in "):
        recover(contents(fills), BOTH)


def through_a_file(folder, before, after, rows):
    """Write the journal of a run with the tables `before`, and recover it with `after`."""
    writer = journal_file.JournalWriter(folder / "journal")
    writer.begin_run(b"run", 1)
    writer.note(recovery.describe(before, "paper"))
    made = byte_ring.create(f"shrivenq.{NAME}-{os.getpid()}", 1 << 18)
    try:
        book = journal.make_journal(byte_ring.producer(made))
        for row in range(len(rows)):
            assert journal.append(book, journal.REPORT_SEEN, rows.view(np.int64), 24 * row, 24, row)
        assert writer.drain(byte_ring.consumer(made)) == len(rows)
    finally:
        made.unlink()
        made.close()
    writer.close()
    return recover(journal_file.read_journal(folder / "journal"), after).fills


def test_through_a_file(tmp_path):
    rows = fill_rows([(0, m.BUY, 6000000, 10**8, 7, 2), (0, m.SELL, 6000100, 10**7, 7, 2)])
    assert named(TURNED, through_a_file(tmp_path, BOTH, TURNED, rows)) == named(BOTH, rows)


def test_as_many_instruments_as_there_can_be(tmp_path):
    """With the longest of names, each settled in a currency of its own."""
    count = topology.INSTRUMENTS_MAX - 1
    instruments, currencies = np.zeros(count, m.INSTRUMENT), np.zeros(2 * count, m.CURRENCY)
    instruments["symbol"] = [f"INSTRUMENT{i:06}" for i in range(count)]
    instruments["price_decimals"] = instruments["quantity_decimals"] = 12
    currencies["code"] = [f"CODE{i:04}" for i in range(2 * count)]
    currencies["decimals"] = 18
    before = BOTH._replace(instruments=instruments, currencies=currencies)
    after = BOTH._replace(instruments=instruments[::-1], currencies=currencies[::-1])
    assert len(recovery.describe(before, "paper")) > 2 * journal.PAYLOAD_MAX
    rows = fill_rows([(i, m.BUY, 1, 1, 0, 2 * i + 1) for i in range(count)])
    fills = through_a_file(tmp_path, before, after, rows)
    assert named(after, fills) == named(before, rows)
    assert fills["instrument"].tolist() == list(range(count - 1, -1, -1))


RUN = np.array([(b"0123abcd", 7, 0, 0)], journal.RUN_RECORD)


def venue():
    count = len(BOTH.instruments)
    return SimpleNamespace(
        anchors=np.full(count, NEVER_LOOKED),
        known=id_map.make_recent(KNOWN),
        told=np.zeros(count, np.int64),
        unsettled=np.zeros(UNSETTLED_MAX, UNSETTLED),
        ledger=ledger.make_ledger(len(BOTH.currencies)),
        instruments=BOTH.instruments,
        answers=SimpleNamespace(currencies=BOTH.currencies),
    )


def looks(*last):
    rows = np.zeros(len(last), m.REPORT)
    rows["kind"], rows["instrument"], rows["trade_id"], rows["sequence"] = m.LOOKED, range(len(last)), last, -1
    return rows


def test_live_it_is_known_up_to_which_trade_was_looked_and_what_was_told_behind_it():
    rows = fill_rows([(0, m.BUY, 1, 1, 0, 0), (0, m.SELL, 1, 1, 0, 0), (0, m.SELL, 1, 1, 0, 0), (1, m.BUY, 1, 1, 0, 0)])
    rows["trade_id"] = [7, 9, 7, 4]
    rows = [*looks(3, NO_TRADES), *rows, *looks(7)]
    held, gateway = venue(), SimpleNamespace(anchors=np.full(2, NO_TRADE), fills=id_map.make_recent(KNOWN))
    found = recover(contents(records(BOTH, rows, "live")), BOTH, "live")
    recovery.restore({"live_venue": held, "gateway": gateway}, found)
    assert held.anchors.tolist() == gateway.anchors.tolist() == [7, NO_TRADES]
    assert held.told.tolist() == [1, 1]
    known = [(0, trade_key(9, m.SELL)), (1, trade_key(4, m.BUY)), (0, trade_key(7, m.BUY))]
    for memory in (held.known, gateway.fills):
        assert [id_map.find(memory.ids, *one) != id_map.ABSENT for one in known] == [True, True, False]


def funds(kind, currency, amount):
    row = np.zeros(1, m.REPORT)
    row["kind"], row["fee_currency"], row["quantity"], row["sequence"] = kind, currency, amount, -1
    return row[0]


def test_live_it_is_known_what_the_account_should_hold():
    """By what the venue said last, and fills and movements behind that, however rows were numbered then."""
    fill, repeated = fill_rows([(0, m.BUY, 2_00, 10**8, 3, 0), (0, m.BUY, 2_00, 10**8, 3, 0)])
    repeated["sequence"] = -1
    codes = [row["code"].decode() for row in BOTH.currencies]
    first = [fill, *(funds(m.BALANCE, row, 10**9) for row in range(len(codes) - 1)), fill, repeated]
    first += [funds(m.MOVED, codes.index("ETH"), -7), funds(m.BALANCE, len(codes) - 1, 5)]
    held = venue()
    found = recover(
        contents(records(BOTH, first, "live"), records(TURNED, [funds(m.MOVED, 0, 1)], "live")), BOTH, "live"
    )
    recovery.restore({"live_venue": held}, found)
    # The first currency of the second run's table came in, by one.
    moved = codes.index(TURNED.currencies[0]["code"].decode())
    want = {"BTC": 10**9 + 10**8 - 3, "ETH": 10**9 - 7, "USDT": 10**9 - 2 * 10**8, codes[-1]: 5}
    want[codes[moved]] += 1
    assert dict(zip(codes, held.ledger[:, ledger.EXPECTED].tolist(), strict=True)) == want
    assert held.ledger[:, ledger.KNOWN].all()


def test_balances_of_what_the_configuration_does_not_name_any_more_are_forgotten():
    rows = [funds(m.BALANCE, row, 10**9) for row in range(len(BOTH.currencies))]
    found = recover(contents(records(BOTH, rows, "live")), ONE, "live")
    kept = [row["code"] for row in ONE.currencies]
    there = [ONE.currencies[row]["code"] for row in found.funds["fee_currency"] if row >= 0]
    assert sorted(there) == sorted(set(kept) & {row["code"] for row in BOTH.currencies})


def test_a_fill_that_was_told_twice_counts_once():
    rows = fill_rows([(0, m.BUY, 1, 5, 0, 0), (0, m.BUY, 1, 5, 0, 0)])
    rows["sequence"] = [4, -1]
    assert recover(contents(records(BOTH, rows)), BOTH).fills["last_quantity"].tolist() == [5]


def sent(*orders):
    """Spell ORDER records: (number, kind, target's number)."""
    rows = np.zeros(len(orders), m.ORDER)
    for row, (number, kind, target) in zip(rows, orders, strict=True):
        row["order_id"], row["kind"] = 7 << m.EPOCH_SHIFT | number, kind
        row["target_id"] = 7 << m.EPOCH_SHIFT | target if target else 0
        row["time_ns"], row["instrument"] = 1_000 + number, number % 2
    return [(journal.ORDER_SENT, row.tobytes()) for row in rows]


def said(*reports):
    """Spell REPORT records: (kind, number, target's number, flags)."""
    rows = np.zeros(len(reports), m.REPORT)
    for row, (kind, number, target, flags) in zip(rows, reports, strict=True):
        row["kind"], row["order_id"], row["flags"] = kind, 7 << m.EPOCH_SHIFT | number, flags
        row["target_id"] = 7 << m.EPOCH_SHIFT | target if target else 0
        row["venue_order_id"] = 900 + number
    return [(journal.REPORT_SEEN, row.tobytes()) for row in rows]


def test_orders_without_an_end_are_found_by_the_names_the_venue_knows_them_by():
    run = [
        (journal.RUN, RUN.tobytes()),
        (journal.NOTE, recovery.describe(BOTH, "live").encode()),
        *sent((1, m.NEW, 0), (2, m.NEW, 0), (3, m.NEW, 0), (4, m.CANCEL, 3), (5, m.NEW, 0), (6, m.NEW, 0)),
        *said((m.ACCEPTED, 1, 0, 0), (m.ACCEPTED, 3, 0, 0), (m.CANCELLED, 4, 3, m.FINAL), (m.OVER, 6, 0, 0)),
        *sent((7, m.REPLACE, 1), (8, m.NEW, 0), (9, m.NEW, 0)),
        *said((m.REPLACED, 7, 1, 0), (m.REJECTED, 8, 0, m.FINAL), (m.FILL, 9, 0, m.FINAL), (m.UNKNOWN, 5, 0, 0)),
    ]
    found = recover(contents(run), TURNED, "live").unsettled
    told = [
        (one["name"].decode(), int(one["venue_order_id"]), int(one["instrument"]), int(one["time_ns"])) for one in found
    ]
    assert told == [
        ("0123abcd-7-2", 0, 1, 1_002),
        ("0123abcd-7-5", 0, 0, 1_005),
        ("0123abcd-7-7", 907, 0, 0),
    ]
    held = venue()
    recovery.restore({"live_venue": held}, recover(contents(run), TURNED, "live"))
    assert held.unsettled["order_id"].astype(bool).tolist() == [True] * 3 + [False] * (UNSETTLED_MAX - 3)


def test_a_journal_is_of_one_kind_of_mode():
    live, paper = contents(records(BOTH, [], "live")), contents(records(BOTH, [], "paper"))
    with pytest.raises(RecoveryError, match=r"^the journal is of mode paper: run mode live under another name$"):
        recover(paper, BOTH, "live")
    with pytest.raises(RecoveryError, match=r"^the journal is of mode live: run mode paper under another name$"):
        recover(live, BOTH, "paper")


def test_more_orders_without_an_end_than_can_be_asked_about_are_refused():
    run = [
        (journal.RUN, RUN.tobytes()),
        (journal.NOTE, recovery.describe(BOTH, "live").encode()),
        *sent(*[(number, m.NEW, 0) for number in range(1, UNSETTLED_MAX + 2)]),
    ]
    with pytest.raises(RecoveryError, match=f"^the journal holds {UNSETTLED_MAX + 1} orders without an end"):
        recover(contents(run), BOTH, "live")
