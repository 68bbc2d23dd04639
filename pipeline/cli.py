"""The command line.

Exit codes: 0 done, 1 it failed, 2 a mistake in the command or the configuration, 3 a kill that is not confirmed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
import typer
from rich.console import Console

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, latency, live_key, logs, state
from shrivenq.pipeline.arrival_log import LogError
from shrivenq.pipeline.config import Config, ConfigError
from shrivenq.pipeline.doctor import diagnose
from shrivenq.pipeline.dump import DumpError
from shrivenq.pipeline.inspection import InspectionError
from shrivenq.pipeline.replay import replay as run_replay
from shrivenq.pipeline.reproduce import reproduce as run_again
from shrivenq.pipeline.runner import STOPPING_ERRORS
from shrivenq.pipeline.state import StateError
from shrivenq.pipeline.supervisor import Supervisor, SupervisorError
from shrivenq.pipeline.topology import RING

FAILED, MISTAKE = 1, 2

CommandError: Any = typer.BadParameter.__mro__[2]
"""What the parser raises for any mistake on the command line: by its version typer uses click, or carries its own."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Low-latency trading in Python: five pinned processes over lock-free shared-memory rings.",
    epilog="Also: shrivenq kill halt|cancel|flatten [NAME], the kill switch. "
    "--uncompiled anywhere runs every kernel and strategy as plain Python, for a debugger.",
)
config_app = typer.Typer(no_args_is_help=True, help="Work with configuration files.")
app.add_typer(config_app, name="config")

terminal = Console()
errors = Console(stderr=True, highlight=False, soft_wrap=True)

ConfigPath = Annotated[str, typer.Argument(help="Configuration file, or the name of a shipped one.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Name = Annotated[str, typer.Argument(help="Name of the pipeline; needed when several run.")]


def _fail(code: int, lines: list[str]) -> typer.Exit:
    for line in lines:
        errors.print(f"shrivenq: {line}", markup=False)
    return typer.Exit(code)


def _load(path: str) -> Config:
    try:
        return configuration.load(path)
    except ConfigError as error:
        raise _fail(MISTAKE, error.lines) from None


@app.command()
def run(
    config: ConfigPath = "default",
    placement: Annotated[str, typer.Option(help="split or fused, instead of the configuration's.")] = "",
) -> None:
    """Start the supervised pipeline and show its latency; Ctrl-C stops it in order."""
    _run(_load(config), placement)


@app.command()
def record(
    config: ConfigPath = "default",
    path: Annotated[str, typer.Option(help="Folder for the recording, instead of the configuration's.")] = "",
    placement: Annotated[str, typer.Option(help="split or fused, instead of the configuration's.")] = "",
) -> None:
    """Start the pipeline as `run` does, and record everything that comes in."""
    try:
        loaded = configuration.for_recording(_load(config), path)
    except ConfigError as error:
        raise _fail(MISTAKE, error.lines) from None
    _run(loaded, placement)


def _run(loaded: Config, placement: str) -> None:
    if loaded.mode == "replay":
        raise _fail(MISTAKE, [f'{loaded.file}: mode: found "replay", allowed: "paper"; `shrivenq replay` replays'])
    if placement:
        loaded = _placed(loaded, placement)
    try:  # and forgotten: only the stage that uses a key holds it
        if loaded.live_venue is not None:
            live_key.load(loaded.live_venue)
        if loaded.market_data.source == "binance" and loaded.market_data.binance.key:
            live_key.load_data(loaded.market_data.binance)
    except ValueError as error:
        raise _fail(MISTAKE, [str(error)]) from None
    live = terminal.is_terminal
    if live:
        # The table owns the terminal; the lines go to the file.
        loaded = msgspec.structs.replace(loaded, logs=msgspec.structs.replace(loaded.logs, terminal=False))
        terminal.print(f"{loaded.name}: preparing; on a new machine kernels are compiled first, once. Ctrl-C stops.")
        terminal.print(f"log: {loaded.logs.path or state.folder(loaded.name) / 'log.jsonl'}", soft_wrap=True)
    try:
        with logs.session(loaded) as log, latency.View(terminal, log, live=live) as view:
            code = Supervisor(loaded, log, view.show).run()
    except (SupervisorError, StateError, *STOPPING_ERRORS) as error:
        raise _fail(FAILED, [str(error)]) from None
    raise typer.Exit(code)


def _placed(loaded: Config, placement: str) -> Config:
    try:
        return configuration.with_placement(loaded, placement)
    except ConfigError as error:
        raise _fail(MISTAKE, error.lines) from None


@app.command()
def replay(
    config: ConfigPath = "replay_spot",
    path: Annotated[str, typer.Option(help="Capture file or folder, instead of the configuration's.")] = "",
    placement: Annotated[str, typer.Option(help="split or fused, instead of the configuration's.")] = "",
    pace: Annotated[str, typer.Option(help="recorded, a multiple such as 1000, or flat (out).")] = "",
    dump: Annotated[list[str] | None, typer.Option(help="RING=FILE.csv or RING=FILE.jsonl; may be repeated.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Keep the journal here.")] = None,
    digest: Annotated[bool, typer.Option("--digest", help="Print only the digest of the orders.")] = False,
    as_json: Json = False,
) -> None:
    """Replay a capture through the pipeline, in virtual time."""
    loaded = _load(config)
    try:
        loaded = configuration.for_replay(loaded, path=path, placement=placement, pace=pace)
    except ConfigError as error:
        raise _fail(MISTAKE, error.lines) from None
    if journal is not None and journal.exists():
        # Appended to, it would give the orders of both runs, and the digest of neither.
        raise _fail(MISTAKE, [f"--journal {journal}: exists already"])
    quiet = digest or as_json or not terminal.is_terminal
    try:
        with logs.session(loaded) as log, latency.progress(terminal, quiet=quiet) as progress:
            result = run_replay(loaded, dump=dump or [], journal_path=journal, progress=progress, log=log)
    except DumpError as error:
        raise _fail(MISTAKE, [str(error)]) from None
    except (StateError, *STOPPING_ERRORS) as error:
        raise _fail(FAILED, [str(error)]) from None
    if digest:
        print(result.digest)
    elif as_json:
        print(json.dumps(result.as_dict()))
    else:
        for line in inspection.lines(result.as_dict()):
            print(line)


@app.command()
def reproduce(
    log: Annotated[Path, typer.Argument(help="Log of arrivals: FOLDER/arrivals/NAME-0001.zst of a recording.")],
    journal: Annotated[Path | None, typer.Option(help="The run's journal, if it is not its name's.")] = None,
    as_json: Json = False,
) -> None:
    """Do a recorded run again, exactly, and compare the orders; 1 if they differ."""
    quiet = as_json or not terminal.is_terminal
    try:
        with latency.progress(terminal, quiet=quiet) as progress:
            result = run_again(log, journal_path=journal, progress=progress, log=structlog.get_logger())
    except ConfigError as error:
        raise _fail(MISTAKE, error.lines) from None
    except LogError as error:
        raise _fail(MISTAKE, [str(error)]) from None
    except (StateError, *STOPPING_ERRORS) as error:
        raise _fail(FAILED, [str(error)]) from None
    _show(result.as_dict(), as_json=as_json)
    raise typer.Exit(0 if result.identical else FAILED)


@app.command()
def status(name: Name = "", as_json: Json = False) -> None:
    """Show stages, kill and hold, rings, orders and positions of a running pipeline."""
    try:
        found = inspection.status(inspection.attach(name))
    except InspectionError as error:
        raise _fail(FAILED, [str(error)]) from None
    _show(found, as_json=as_json)


@app.command("latency")
def show_latency(
    name: Name = "",
    as_json: Json = False,
    once: Annotated[bool, typer.Option("--once", help="Print the table once and end.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write the distributions to FILE.png or FILE.svg.")] = None,
) -> None:
    """Show the latency of every hop, live, each against its budget."""
    try:
        running = inspection.attach(name)
        if plot is not None:
            latency.plot(running, plot)
        elif as_json:
            print(json.dumps(latency.table(running)))
        else:
            latency.watch(running, terminal, once=once or not terminal.is_terminal)
    except latency.LatencyError as error:
        raise _fail(MISTAKE, [str(error)]) from None
    except InspectionError as error:
        raise _fail(FAILED, [str(error)]) from None


@app.command()
def tap(
    ring: str, name: Name = "", limit: Annotated[int, typer.Option(help="End after so many; 0 for never.")] = 0
) -> None:
    """Follow a ring: one JSON line a message; messages lost to lapping are counted, never silently."""
    if ring not in RING:
        raise _fail(MISTAKE, [f"tap {ring}: no such ring; expected one of {', '.join(RING)}"])
    try:
        for row in inspection.tap(inspection.attach(name), ring, limit):
            print(json.dumps(row), flush=True)
    except InspectionError as error:
        raise _fail(FAILED, [str(error)]) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except BrokenPipeError:
        # Whoever read has read enough. What is still buffered goes nowhere, or the interpreter complains as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


@app.command()
def inspect(
    segment: Annotated[str, typer.Argument(help="Segment name; all when left out.")] = "", as_json: Json = False
) -> None:
    """Say what shared-memory segments are, from their own headers."""
    try:
        found = inspection.segments(segment)
    except InspectionError as error:
        raise _fail(FAILED, [str(error)]) from None
    _show(found if as_json or not segment else found[0], as_json=as_json)


@app.command()
def arm(name: Name, reason: Annotated[str, typer.Option(help="Why it may trade again.")] = "") -> None:
    """Lift the kill: a person says why."""
    if not reason.strip():
        raise _fail(MISTAKE, ["arm: --reason TEXT is required: say why it may trade again"])
    try:
        print(inspection.arm(name, reason))
    except (StateError, InspectionError) as error:
        raise _fail(FAILED, [str(error)]) from None


@app.command()
def exchange(config: ConfigPath = "exchange") -> None:
    """Run the exchange simulator, a network server that speaks Binance Spot; Ctrl-C stops it in order."""
    # Its server is nobody else's load.
    from shrivenq.pipeline.exchange import config as exchange_config  # noqa: PLC0415
    from shrivenq.pipeline.exchange.server import run as run_exchange  # noqa: PLC0415

    try:
        run_exchange(exchange_config.load(config), lambda line: print(line, flush=True))
    except ConfigError as error:
        raise _fail(MISTAKE, error.lines) from None


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this machine: what costs latency or safety, and its fix."""
    findings = diagnose()
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings]))
        return
    for finding in findings:
        print(finding.line())


@app.command()
def version(as_json: Json = False) -> None:
    """Print the version."""
    found = package_version("shrivenq")
    print(json.dumps({"version": found}) if as_json else f"shrivenq {found}")


@config_app.command("check")
def config_check(config: ConfigPath = "default") -> None:
    """Check a configuration file; all errors at once."""
    loaded = _load(config)
    count = len(loaded.tables().instruments)
    print(f"{config}: good: {loaded.name}, {loaded.mode}, {loaded.placement}, {count} instruments")


def _show(found: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    for line in inspection.lines(found):
        print(line)


def _terminated(_number: int, _frame: object) -> None:
    """Unwind, so that what was made is removed."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a mistake on it is one line, like any other."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False)
    except CommandError as error:
        said = " ".join(error.format_message().split())  # nothing where the help was shown instead
        if said:
            errors.print(f"shrivenq: {said}", markup=False)
        code = MISTAKE
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    sys.exit(code)
