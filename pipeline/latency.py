"""The latency view: every hop of the way from tick to order, live, each against its budget."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shrivenq.pipeline.inspection import Running
from shrivenq.shm import histogram, ring
from shrivenq.shm.atomics import load_word
from shrivenq.stages import hops, stage

PERCENTILES = (50, 90, 99, 99.9)
REFRESH_S = 0.5


class LatencyError(Exception):
    """The view cannot be shown; one line says why."""


def table(running: Running) -> list[dict[str, Any]]:
    """Read every hop's figures, in ns, with its budget."""
    found = histogram.histograms(running.part("latency"))
    rows = []
    for name in hops.NAMES:
        p50, p90, p99, p999 = histogram.percentiles(found[name], PERCENTILES)
        rows.append(
            {
                "hop": name,
                "orders": histogram.count(found[name]),
                "p50_ns": p50,
                "p90_ns": p90,
                "p99_ns": p99,
                "p999_ns": p999,
                "max_ns": histogram.largest(found[name]),
                "budget_ns": hops.BUDGET_US[name] * 1000,
            }
        )
    return rows


def drops(running: Running) -> int:
    """Count the events dropped for want of room, from the stage that drops them."""
    return int(running.words("loop.market_data")[stage.DROPS])


def render(running: Running, rate: float | None = None) -> Table:
    """Draw the table once; `rate` is in orders a second, None while it is not known."""
    speed = "" if rate is None else f"{rate:,.0f} orders/s · "
    view = Table(title=f"{running.name}: tick to order, µs · {speed}{drops(running):,} events dropped")
    view.add_column("hop")
    for column in ("p50", "p90", "p99", "p99.9", "max", "budget"):
        view.add_column(column, justify="right")
    for row in table(running):
        figures = [row[key] / 1000 for key in ("p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns")]
        budget = row["budget_ns"] / 1000
        cells = [f"[{'green' if figure <= budget else 'red'}]{figure:,.2f}[/]" for figure in figures]
        view.add_row(row["hop"], *cells, f"{budget:,.0f}", style="bold" if row["hop"] == "total" else "")
    return view


def sent(running: Running) -> int:
    """Count the messages handed to the venue so far."""
    return int(load_word(running.part("to_venue").array("producer"), ring.HEAD))


def watch(running: Running, terminal: Console, *, once: bool) -> None:
    """Show the table until Ctrl-C or the pipeline's end; `once` prints it and returns."""
    if once:
        terminal.print(render(running))
        return
    before, at = sent(running), time.monotonic()
    view = Live(render(running), console=terminal, auto_refresh=False)
    with view, contextlib.suppress(KeyboardInterrupt):
        while running.control.creator_alive():
            time.sleep(REFRESH_S)
            now, count = time.monotonic(), sent(running)
            view.update(render(running, (count - before) / (now - at)), refresh=True)
            before, at = count, now


LOG_EVERY_S = 10.0


class View:
    """What `run` shows while it runs: the table on a terminal, else a log line now and then."""

    def __init__(self, terminal: Console, log: Any, *, live: bool) -> None:
        self._live = Live(console=terminal, auto_refresh=False, transient=False) if live else None
        self._log = log
        self._every_s = REFRESH_S if live else LOG_EVERY_S
        self._next = time.monotonic() + self._every_s
        self._before = (0, time.monotonic())

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, running: Running) -> None:
        """Show the figures if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every_s
        count, (before, at) = sent(running), self._before
        rate = max(0, count - before) / (now - at)
        self._before = (count, now)
        if self._live is not None:
            self._live.update(render(running, rate), refresh=True)
            return
        total = table(running)[-1]
        figures = {name: total[f"{name}_ns"] / 1000 for name in ("p50", "p99", "p999", "max")}
        self._log.info(
            "tick to order, µs", orders=total["orders"], per_s=round(rate), dropped=drops(running), **figures
        )


def plot(running: Running, path: Path) -> None:
    """Draw each hop's distribution, by percentile, to a PNG or SVG file. Raises LatencyError."""
    if path.suffix not in (".png", ".svg"):
        raise LatencyError(f"--plot {path}: expected a file ending in .png or .svg")
    found = histogram.histograms(running.part("latency"))
    if not histogram.count(found["total"]):
        raise LatencyError(f"--plot {path}: no order has been sent yet")
    import matplotlib as mpl  # noqa: PLC0415 - takes half a second, and only this needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    wanted = [1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99]
    figure, axes = plt.subplots(figsize=(9, 5))
    for name in hops.NAMES:
        values = [value / 1000 for value in histogram.percentiles(found[name], wanted)]
        axes.plot([str(one) for one in wanted], values, marker="o", label=name, linewidth=2 if name == "total" else 1)
    axes.set(xlabel="percentile", ylabel="µs", yscale="log", title=f"{running.name}: tick to order")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise LatencyError(f"--plot {path}: {error.strerror}") from None
    finally:
        plt.close(figure)


@contextlib.contextmanager
def progress(terminal: Console, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show how many frames a replay has taken; nothing when `quiet`."""
    if quiet:
        yield _silent
        return
    with Progress(
        TextColumn("{task.description}"), TextColumn("{task.completed:,} frames"), TimeElapsedColumn(), console=terminal
    ) as bar:
        task = bar.add_task("replay", total=None)
        yield lambda frames: bar.update(task, completed=frames)


def _silent(frames: int) -> None:
    """Show nothing."""
