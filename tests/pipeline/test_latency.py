from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from shrivenq.pipeline import inspection, latency
from shrivenq.pipeline.latency import LatencyError
from shrivenq.shm import histogram
from shrivenq.stages import hops, stage
from shrivenq.stages import messages as m
from tests.pipeline.pipeline_rig import assembled, publish

NAME = "test-latency"
SEED = 5


@pytest.fixture
def run():
    with assembled(NAME) as made:
        yield made


@pytest.fixture
def recorded(run):
    """A thousand orders: every hop its own values, known exactly."""
    random = np.random.default_rng(SEED)
    values = {name: random.integers(1, 200_000, 1000) for name in hops.NAMES}
    found = histogram.histograms(run.segments["latency"], writable=True)
    for name, ones in values.items():
        for one in ones:
            histogram.record(found[name], int(one))
    return values


def printed(view):
    terminal = Console(file=io.StringIO(), width=150)
    terminal.print(view)
    return terminal.file.getvalue()


def test_the_table_is_the_sorted_values_at_their_ranks(run, recorded):
    rows = latency.table(inspection.attach(NAME))
    assert [row["hop"] for row in rows] == list(hops.NAMES)
    for row in rows:
        values = np.sort(recorded[row["hop"]])
        assert row["orders"] == 1000
        assert row["max_ns"] == values[-1]
        assert row["budget_ns"] == hops.BUDGET_US[row["hop"]] * 1000
        for key, rank in (("p50_ns", 500), ("p90_ns", 900), ("p99_ns", 990), ("p999_ns", 999)):
            exact = values[rank - 1]
            assert exact <= row[key] <= exact * 1.008, f"seed {SEED}: {row['hop']} {key}"


def test_the_table_of_a_pipeline_that_has_sent_nothing(run):
    for row in latency.table(inspection.attach(NAME)):
        assert [row[key] for key in ("orders", "p50_ns", "p999_ns", "max_ns")] == [0, 0, 0, 0]


def test_the_view_names_every_hop_its_budget_and_the_drops(run, recorded):
    run.control("loop.market_data")[stage.DROPS] = 1234
    running = inspection.attach(NAME)
    text = printed(latency.render(running, 5678.4))
    assert "5,678 orders/s" in text
    assert "1,234 events dropped" in " ".join(text.split())
    for name in hops.NAMES:
        (line,) = [one for one in text.splitlines() if f" {name} " in one]
        assert f" {hops.BUDGET_US[name]} " in line
    assert f"{recorded['total'].max() / 1000:,.2f}" in text, text
    assert "orders/s" not in printed(latency.render(running))


def test_once_prints_and_returns(run, recorded):
    terminal = Console(file=io.StringIO(), width=150)
    latency.watch(inspection.attach(NAME), terminal, once=True)
    assert terminal.file.getvalue().count("transmission") == 1


def test_watching_ends_with_the_pipeline(run, monkeypatch):
    running = inspection.attach(NAME)
    alive = iter([True, True, False])
    running.control.creator_alive = lambda: next(alive)
    clock = iter([10.0, 12.0, 14.0])

    def send(_seconds):
        publish(run, "to_venue", np.zeros(100, m.ORDER))

    monkeypatch.setattr(latency, "time", SimpleNamespace(sleep=send, monotonic=lambda: next(clock)))
    terminal = Console(file=io.StringIO(), width=150)
    latency.watch(running, terminal, once=False)
    assert latency.sent(running) == 200
    assert "50 orders/s" in terminal.file.getvalue()


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_plot_is_a_picture(run, recorded, tmp_path, kind):
    path = tmp_path / f"hops.{kind}"
    latency.plot(inspection.attach(NAME), path)
    content = path.read_bytes()
    assert len(content) > 10_000
    if kind == "png":
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(content[16:20]) >= 800
        assert content[-8:-4] == b"IEND"
    else:
        assert b"<svg" in content[:1000]
        assert content.rstrip().endswith(b"</svg>")


def test_the_plot_of_a_pipeline_that_has_sent_nothing(run, tmp_path):
    with pytest.raises(LatencyError, match=r"empty\.png: no order has been sent yet$"):
        latency.plot(inspection.attach(NAME), tmp_path / "empty.png")


@pytest.mark.parametrize("name", ["hops", "hops.jpg", "hops.txt", "png"])
def test_another_suffix_is_one_line(run, tmp_path, name):
    with pytest.raises(LatencyError, match=r"^--plot .*: expected a file ending in \.png or \.svg$"):
        latency.plot(inspection.attach(NAME), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_plot_that_cannot_be_written_is_one_line(run, recorded, tmp_path):
    with pytest.raises(LatencyError, match=r"No such file or directory$"):
        latency.plot(inspection.attach(NAME), tmp_path / "nowhere" / "hops.png")


def test_progress():
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True)
    with latency.progress(terminal, quiet=True) as tell:
        tell(5)
    assert not terminal.file.getvalue()
    with latency.progress(terminal, quiet=False) as tell:
        tell(12345)
    assert "12,345 frames" in terminal.file.getvalue()
