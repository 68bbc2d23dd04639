from __future__ import annotations

import csv
import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrivenq.pipeline import dump, topology
from shrivenq.pipeline.dump import Dump, DumpError
from shrivenq.shm import ring, segment
from shrivenq.stages import messages as m
from tests.pipeline.pipeline_rig import assembled, publish

NAME = "test-dump"


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 18))
def test_decimals_against_the_library(value, decimals):
    spelled = dump.decimal(value, decimals)
    assert Decimal(spelled) == Decimal(value).scaleb(-decimals)
    assert len(spelled.partition(".")[2]) == decimals
    assert spelled.lstrip("-")[0].isdigit()


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [(6173763, 2, "61737.63"), (5, 2, "0.05"), (-5, 2, "-0.05"), (0, 2, "0.00"), (-7, 0, "-7"), (-100, 2, "-1.00")],
)
def test_decimals_by_hand(value, decimals, expected):
    assert dump.decimal(value, decimals) == expected


@pytest.mark.parametrize("request_", ["book", "book=", "=x.csv", "nope=x.csv", "book=x.txt", "book=x", ""])
def test_a_bad_request_is_one_line(request_):
    with pytest.raises(DumpError) as caught:
        dump.parse(request_)
    assert str(caught.value).startswith(f"--dump {request_}: ")
    assert "\n" not in str(caught.value)


def test_good_requests():
    found = dump.parse_all(["book=a=b.csv", "order=c/x.jsonl"])
    assert [(name, str(path)) for name, path in found] == [("book", "a=b.csv"), ("order", "c/x.jsonl")]
    with pytest.raises(DumpError, match="ring book is dumped already"):
        dump.parse_all(["book=a.csv", "tick=b.csv", "book=c.csv"])


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DumpError, match=r"nowhere/x\.csv: cannot be written: No such file or directory$"):
        Dump("book", tmp_path / "nowhere" / "x.csv", None, None)


@pytest.fixture
def run():
    with assembled(NAME) as made:
        yield made


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def book_rows():
    rows = np.zeros(4, m.BOOK)
    rows["kind"] = m.DEPTH_BOOK, m.TRADE, m.DEPTH_BOOK, m.QUOTE
    rows["flags"] = m.VALID, 0, m.BLIND, 0
    rows["instrument"] = 0, 0, 1, 1
    rows["update_id"] = 7, 8, 9, 10
    rows["time_ns"] = 100, 101, 102, 103
    rows["bid_count"], rows["ask_count"] = 2, 1
    rows["bid_price"][:, :2] = 6000050, 6000000
    rows["bid_quantity"][:, :2] = 150_000_000, 1
    rows["ask_price"][:, 0] = 6000051
    rows["ask_quantity"][:, 0] = 10**8
    rows["ask_price"][:, 1] = 999  # beyond ask_count: stale, and not shown
    return rows


def test_book_rows(run, tmp_path):
    taps = run.observe(["book"])
    made = Dump("book", tmp_path / "book.csv", taps["book"], run.instruments)
    publish(run, "book", book_rows())
    assert made.drain() == 4
    assert made.drain() == 0
    made.close()
    first, second = read_csv(tmp_path / "book.csv")
    assert made.rows == 2
    assert first["update_id"] == "7"
    assert (first["receive_ns"], first["instrument"], first["valid"], first["blind"]) == ("100", "BTCUSDT", "1", "0")
    assert (second["update_id"], second["instrument"], second["valid"], second["blind"]) == ("9", "ETHUSDT", "0", "1")
    assert [first[f"bid_{i}_price"] for i in range(3)] == ["60000.50", "60000.00", ""]
    assert [first[f"bid_{i}_quantity"] for i in range(3)] == ["1.50000000", "0.00000001", ""]
    assert [first[f"ask_{i}_price"] for i in range(m.DEPTH)] == ["60000.51"] + [""] * 9
    assert len(first) == 5 + 4 * m.DEPTH


def report_rows(count):
    rows = np.zeros(count, m.REPORT)
    rows["sequence"] = range(count)
    rows["kind"] = m.FILL
    rows["last_price"], rows["last_quantity"], rows["price"] = 6000050, 150_000_000, -5
    rows["fee"] = 12345
    return rows


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_other_rings_are_written_field_by_field(run, tmp_path, kind):
    path = tmp_path / f"report.{kind}"
    made = Dump("report", path, run.observe(["report"])["report"], run.instruments)
    publish(run, "report", report_rows(3))
    made.close()
    if kind == "csv":
        rows = read_csv(path)
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [str(row["sequence"]) for row in rows] == ["0", "1", "2"]
    assert list(rows[0]) == list(m.REPORT.names)
    assert (rows[1]["last_price"], rows[1]["last_quantity"]) == ("60000.50", "1.50000000")
    assert (rows[1]["price"], str(rows[1]["fee"])) == ("-0.05", "12345")


@pytest.mark.parametrize("name", list(topology.RING))
def test_every_ring_can_be_dumped(run, tmp_path, name):
    path = tmp_path / "x.jsonl"
    made = Dump(name, path, run.observe([name])[name], run.instruments)
    rows = np.zeros(1, topology.RING[name].dtype)
    rows["kind"] = m.DEPTH_BOOK
    publish(run, name, rows)
    made.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["instrument"] in (0, "BTCUSDT")


@pytest.mark.parametrize("instrument", [-1, 2, 2**31 - 1])
def test_an_instrument_that_is_none_of_ours_has_no_decimals(run, tmp_path, instrument):
    made = Dump("intent", tmp_path / "x.jsonl", run.observe(["intent"])["intent"], run.instruments)
    rows = np.zeros(1, m.INTENT)
    rows["instrument"], rows["price"] = instrument, 77
    publish(run, "intent", rows)
    made.close()
    row = json.loads((tmp_path / "x.jsonl").read_text())
    assert (row["instrument"], row["price"]) == (instrument, "77")


def test_nothing_is_missed_round_and_round_the_ring(run, tmp_path):
    tap = run.observe(["touch"])["touch"]
    made = Dump("touch", tmp_path / "x.csv", tap, run.instruments)
    count = topology.RING["touch"].count
    random = np.random.default_rng(7)
    sent = 0
    while sent < 3 * count:
        rows = np.zeros(int(random.integers(1, count)), m.TOUCH)
        rows["sequence"] = range(sent, sent + len(rows))
        publish(run, "touch", rows)
        sent += len(rows)
        assert made.drain() == len(rows)
        assert tap.own[ring.TAIL] == sent
    made.close()
    found = [int(row["sequence"]) for row in read_csv(tmp_path / "x.csv")]
    assert found == list(range(sent))


def test_observers_leave_with_the_run(tmp_path):
    with assembled(NAME) as run:
        run.observe(["book", "tick"])
        assert len(segment.names(f"{NAME}.{run.run}.")) > len(topology.RINGS)
    assert not segment.names(f"{NAME}.{run.run}.")
