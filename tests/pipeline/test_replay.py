"""Replay: real captures through the real stages, the same orders however it is run."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
import structlog

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import processes, topology
from shrivenq.pipeline.replay import replay
from shrivenq.pipeline.runner import StageError
from shrivenq.shm import segment
from shrivenq.stages import journal, journal_file, stage
from shrivenq.stages import messages as m

LINES = 4000
"""Of the spot capture, for the tests that replay it again and again."""
LINES_BESIDE_A_HOG = 300
"""A hog takes its whole time slice at every hop of every event."""

END = {
    # last update id, best bid, best ask: shared/data/README.md
    "spot": ("50093696318", "61602.01", "61602.02"),
    "usdm": ("5123135475514", "61659.70", "61659.80"),
    "cm": ("1007206781963", "61600.0", "61600.1"),
}
AGREEMENT = {"spot": (6491, 6493), "usdm": (9017 + 6547, 9017 + 6547), "cm": (44772, 44772)}


def run(config, **options):
    return replay(config, progress=int, log=structlog.get_logger(), **options)


def load(market, path, placement="fused", pace=""):
    found = configuration.load(f"replay_{market}")
    return configuration.for_replay(found, path=str(path), placement=placement, pace=pace)


@pytest.fixture(scope="module")
def short(data, tmp_path_factory):
    """The beginning of the spot capture."""
    return beginning(data, tmp_path_factory.mktemp("capture") / "short.txt", LINES)


def beginning(data, path, lines):
    with gzip.open(data / "binance/spot/btcusdt_20240808.gz", "rb") as source, path.open("wb") as target:
        for _ in range(lines):
            target.write(source.readline())
    return path


@pytest.fixture(scope="module")
def expected(short):
    return run(load("spot", short))


def test_a_replay_trades_and_leaves_nothing_behind(expected):
    assert expected.counters["frames"] == LINES
    assert expected.orders > 0
    assert expected.fills > 0
    assert not [name for name in segment.names() if name.startswith(f"{segment.PREFIX}replay-spot.")]


def test_the_same_orders_again(short, expected):
    assert run(load("spot", short)).digest == expected.digest


def test_the_same_orders_at_a_thousand_times_the_recorded_speed(short, expected):
    assert run(load("spot", short, pace="1000")).digest == expected.digest


@pytest.mark.slow
def test_the_same_orders_in_processes_of_their_own(short, expected):
    assert run(load("spot", short, "split")).digest == expected.digest


@pytest.mark.slow
def test_the_same_orders_beside_a_hog(data, tmp_path):
    path = beginning(data, tmp_path / "shorter.txt", LINES_BESIDE_A_HOG)
    expected = run(load("spot", path))
    assert expected.orders > 0
    hogs = [processes.start("hog", spin) for _ in range(os.cpu_count() or 1)]
    try:
        assert run(load("spot", path, "split")).digest == expected.digest
    finally:
        for hog in hogs:
            hog.send(signal.SIGKILL)
            hog.wait(10)


def spin() -> int:
    while True:
        pass


def test_a_dump_misses_nothing_and_changes_nothing(short, expected, tmp_path):
    book, orders = tmp_path / "book.csv", tmp_path / "orders.jsonl"
    result = run(load("spot", short), dump=[f"book={book}", f"to_venue={orders}"])
    assert result.digest == expected.digest
    rows = list(csv.DictReader(book.read_text().splitlines()))
    assert len(rows) == result.dumped["book"] > 100
    assert sum(row["valid"] == "1" for row in rows) > 100
    sent = [json.loads(line) for line in orders.read_text().splitlines()]
    assert [row["sequence"] for row in sent] == list(range(len(sent)))


def test_the_command_prints_the_digest(short, expected):
    command = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()", "replay", "replay_spot"]
    options = ["--path", str(short), "--placement", "fused", "--digest"]
    found = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert found.stdout == f"{expected.digest}\n"


@pytest.mark.slow
def test_a_stage_that_dies_ends_the_replay_with_an_error(short, monkeypatch):
    started = []
    start = processes.start

    def note(name, target):
        started.append(start(name, target))
        return started[-1]

    monkeypatch.setattr(processes, "start", note)

    def kill_book(frames):
        if frames > 100:
            next(child for child in started if child.name == "book").send(signal.SIGKILL)

    with pytest.raises(StageError, match="book: died during the replay"):
        replay(load("spot", short, "split"), progress=kill_book, log=structlog.get_logger())
    assert all(not child.alive() for child in started)
    assert not [name for name in segment.names() if name.startswith(f"{segment.PREFIX}replay-spot.")]


def replaying(short, number, until):
    """Start a split replay at recorded speed, send it a signal once `until()`; its exit code and its stages' pids."""
    command = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()", "replay", "replay_spot"]
    options = ["--path", str(short), "--placement", "split", "--pace", "recorded"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not until():
            assert process.poll() is None
            time.sleep(0.01)
        stages = [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        process.send_signal(number)
        return process.wait(), stages
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def left():
    return segment.names("replay-spot.")


def under_way():
    for name in left():
        # One that is still being made cannot be attached to.
        with contextlib.suppress(segment.SegmentError):
            held = segment.attach(name, topology.CONTROL) if name.endswith(".control") else None
            if held is not None and held.array("loop.market_data")[stage.FRAMES] > 10:
                return True
    return False


@pytest.mark.slow
def test_a_replay_told_to_end_leaves_nothing(short):
    code, stages = replaying(short, signal.SIGTERM, under_way)
    assert code == 130
    assert len(stages) == len(topology.STAGES) + 1  # and the log writer
    assert not [pid for pid in stages if segment.start_time(pid)]
    assert not left()


@pytest.mark.slow
def test_what_a_killed_replay_leaves_ends_by_itself_or_with_the_next(short, expected):
    code, stages = replaying(short, signal.SIGKILL, under_way)
    assert code == -signal.SIGKILL
    while [pid for pid in stages if segment.start_time(pid)]:
        time.sleep(0.01)
    assert left()
    assert run(load("spot", short)).digest == expected.digest
    assert not left()


def tickers(folder):
    """Read (update id, bid, bid quantity, ask, ask quantity) of every bookTicker, in order of update id."""
    rows = []
    for path in sorted(folder.glob("*.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                if "@bookTicker" in line[:70]:
                    event = json.loads(line.partition(" ")[2])["data"]
                    rows.append((event["u"], *(Fraction(event[key]) for key in "bBaA")))
    return sorted(rows, key=lambda row: row[0])


def agreement(rows, quotes):
    """Count the valid depth rows whose touch is that of the last bookTicker up to their update id."""
    agreeing, at = 0, -1
    for row in sorted((row for row in rows if row["valid"] == "1"), key=lambda row: int(row["update_id"])):
        while at + 1 < len(quotes) and quotes[at + 1][0] <= int(row["update_id"]):
            at += 1
        names = ("bid_0_price", "bid_0_quantity", "ask_0_price", "ask_0_quantity")
        agreeing += at >= 0 and quotes[at][1:] == tuple(Fraction(row[name]) for name in names)
    return agreeing


@pytest.mark.slow
@pytest.mark.parametrize("market", ["spot", "usdm", "cm"])
def test_a_whole_capture_ends_as_its_oracle_says(data, tmp_path, market):
    folder = data / "binance" / market
    book, path = tmp_path / "book.csv", tmp_path / "journal"
    result = run(load(market, folder), dump=[f"book={book}"], journal_path=path)
    rows = list(csv.DictReader(book.read_text().splitlines()))
    last = rows[-1]
    assert (last["update_id"], last["bid_0_price"], last["ask_0_price"], last["valid"]) == (*END[market], "1")
    agreeing, of = AGREEMENT[market]
    valid = sum(row["valid"] == "1" for row in rows)
    # One BOOK goes out for a snapshot and all the buffered diffs applied on top of it; the oracle counts each of those.
    buffered = of - valid
    assert 0 <= buffered <= 16
    assert agreement(rows, tickers(folder)) == agreeing - buffered
    assert result.fills >= 100
    check_conservation(path, result, market)


def check_conservation(path, result, market):
    """Sum the journal's fills exactly and compare with risk's books: position, fees, and cash by way of profit."""
    tables = configuration.load(f"replay_{market}").tables()
    instrument = tables.instruments[0]
    money = 10 ** int(tables.currencies[instrument["settle_currency"]]["decimals"])
    prices, quantities = 10 ** int(instrument["price_decimals"]), 10 ** int(instrument["quantity_decimals"])
    position, flows, fees, fills = 0, Fraction(0), 0, 0
    seen = set()
    for row in journal_file.read_journal(path).rows(journal.REPORT_SEEN):
        if row["kind"] != m.FILL:
            continue
        identity = (int(row["instrument"]), int(row["trade_id"]))
        assert identity not in seen
        seen.add(identity)
        side, price = int(row["side"]), Fraction(int(row["last_price"]), prices)
        amount = Fraction(int(row["last_quantity"]), quantities)
        position += side * int(row["last_quantity"])
        flows += side * amount * 100 / price if instrument["inverse"] else -side * amount * price
        fees += int(row["fee"])
        fills += 1
    (found,) = result.positions
    assert fills == result.fills == int(found["fills"])
    assert Fraction(found["position"]) == Fraction(position, quantities)
    # cash = realised - cost, and what is held is worth cost + unrealised: realised + unrealised = flows + worth now,
    # but for what rounding took, less than one smallest unit a fill.
    if position == 0:
        assert 0 <= flows * money - Fraction(found["realised"]) * money < fills + 1
