"""Configuration: one TOML file, strictly typed, every mistake said at once.

A stage's table is the `Config` of its own file; what belongs to no stage is defined here. There is no default for a
risk limit: what is missing refuses to start.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from shrivenq.pipeline import live_key
from shrivenq.pipeline.instruments import DECIMAL, NUMBER_MAX, Tables, read_instruments
from shrivenq.pipeline.tables import read_table
from shrivenq.stages import book, gateway, live_venue, market_data, paper_venue, risk_limits, signal
from shrivenq.stages.live import fix_link
from shrivenq.stages.live import source as live_source

if TYPE_CHECKING:
    from collections.abc import Iterable

SHIPPED = Path(__file__).resolve().parent.parent / "configs"
STAGE_NAMES = ("market_data", "book", "signal", "risk", "gateway", "paper_venue")
LIVE_STAGE_NAMES = (*STAGE_NAMES[:-1], "live_venue")

PACE_MIN, PACE_MAX = 1e-6, 1e9
PACES = '"recorded", "flat", or a multiple from 0.000001 to 1,000,000,000'

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,24}$")]
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=600_000)]
Number = Annotated[int, msgspec.Meta(ge=0, le=4095)]


class ConfigError(Exception):
    """A configuration cannot be used; `lines` says everything that is wrong, one line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Instruments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[instruments]`: what is traded."""

    file: Annotated[str, msgspec.Meta(max_length=200)]
    """Instrument file, beside this configuration or shipped with ShrivenQ."""
    symbols: list[str] = []
    """Those of the file to trade; all of them if none is named."""


class StagePlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[stages.NAME]`: where a stage runs; what is not said is worked out from the machine."""

    cpu: Number | None = None
    node: Number | None = None
    wait: Literal["auto", "spin", "yield"] = "auto"
    """`auto` spins on a CPU of its own and yields on a shared one."""
    scheduler: Literal["other", "fifo"] = "other"
    """`fifo` only for a stage alone on its CPU, with a CPU left for the rest of the machine."""


class Journal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[journal]`: the record of our own orders."""

    sync_ms: Milliseconds = 5.0
    """Longest time a record waits to be on disk; it survives any process at once."""


class Recorder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[recorder]`: everything that comes in, as raw frames."""

    path: str = ""
    """Folder for recordings; nothing is recorded without one."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[exchange]`: an exchange simulator of our own, started before the pipeline and stopped after it."""

    file: str = ""
    """Its configuration, a file or the name of a shipped one; none is started without."""


class Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[logs]`: JSON lines in a file, readable lines on the terminal."""

    path: str = ""
    """By default `log.jsonl` in the state folder of the name."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    terminal: bool = True


class SupervisorTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[supervisor]`: how long silence is borne. Death needs no time: it is noticed at once."""

    silence_hold_ms: Milliseconds = 500.0
    """A stage that has not turned for this long holds new orders."""
    silence_kill_ms: Milliseconds = 5_000.0
    """… and after this long it is killed and everything is rebuilt."""
    feed_stale_ms: Milliseconds = 5_000.0
    """Market data that has brought nothing for this long holds new orders."""
    stop_cancel_ms: Milliseconds = 500.0
    """How long an ordered stop waits for open orders to be cancelled."""

    def __post_init__(self) -> None:
        """Refuse a kill before a hold."""
        if self.silence_kill_ms <= self.silence_hold_ms:
            raise ValueError(
                f"silence_kill_ms: found {self.silence_kill_ms:g}, "
                f"allowed: above silence_hold_ms, {self.silence_hold_ms:g}"
            )


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    name: Name
    """Of this pipeline: its lock, its armed file and its journal go by it."""
    mode: Literal["replay", "paper", "live"]
    placement: Literal["split", "fused"] = "split"
    instruments: Instruments
    market_data: market_data.Config
    book: book.Config = book.Config()
    signal: signal.Config
    risk: risk_limits.Config
    gateway: gateway.Config
    paper_venue: paper_venue.Config | None = None
    """Required but in mode live."""
    live_venue: live_venue.Config | None = None
    """Only in mode live, and required there."""
    stages: dict[str, StagePlace] = {}
    journal: Journal = Journal()
    recorder: Recorder = Recorder()
    exchange: Exchange = Exchange()
    logs: Logs = Logs()
    supervisor: SupervisorTimes = SupervisorTimes()


class Config(Document, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration that was checked, with its instruments."""

    file: Path
    loaded: Tables

    def tables(self) -> Tables:
        """Give the instrument and currency tables."""
        return self.loaded

    def stage_configs(self) -> dict[str, Any]:
        """Give each stage its table."""
        names = LIVE_STAGE_NAMES if self.mode == "live" else STAGE_NAMES
        return {name: getattr(self, name) for name in names}

    def timer_ns(self) -> int:
        """Period of the strategy's timer, 0 for none."""
        return round(self.signal.timer_ms * 1e6)


def as_document(config: Config) -> dict[str, Any]:
    """Spell a configuration as the plain values `check` reads."""
    values = {name: getattr(config, name) for name in Document.__struct_fields__}
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
    return found


def find(path: str) -> Path:
    """Find a configuration: a file, or the name of a shipped one. Raises ConfigError naming those there are."""
    if Path(path).is_file():
        return Path(path)
    shipped = SHIPPED / f"{path.removesuffix('.toml')}.toml"
    if shipped.is_file():
        return shipped
    names = sorted(one.stem for one in SHIPPED.glob("*.toml") if not one.stem.startswith("instruments"))
    raise ConfigError([f"{path}: no such file, and no shipped configuration: {', '.join(names)}"])


def load(path: str | Path) -> Config:
    """Read and check a configuration file, or a shipped one by name. Raises ConfigError with every mistake in it."""
    file = find(str(path))
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: is not TOML: {error}"]) from None
    return check(document, file)


def check(document: dict[str, Any], file: Path) -> Config:
    """Check a document read from `file`. Raises ConfigError with every mistake in it."""
    good, errors = read_table(document, Document, "")
    tables, problems = _read_tables(document.get("instruments"), file)
    errors = [f"{file}: {one}" for one in errors] + problems
    limits, _ = read_table(document.get("risk"), risk_limits.Config, "risk")
    if tables is not None and limits is not None:
        errors += [f"{file}: {one}" for one in _check_limits(limits, tables)]
    second, _ = read_table(document.get("gateway"), gateway.Config, "gateway")
    if tables is not None and second is not None:
        errors += [f"{file}: {one}" for one in _check_second_line(second, tables)]
    if good is not None:
        errors += [f"{file}: {one}" for one in _contradictions(good)]
    if errors or good is None or tables is None:
        raise ConfigError(errors)
    values = {name: getattr(good, name) for name in Document.__struct_fields__}
    return Config(**values, file=file, loaded=tables)


def _read_tables(found: Any, file: Path) -> tuple[Tables | None, list[str]]:
    """Read the instrument file a configuration names; what is wrong with the table itself was said already."""
    chosen, errors = read_table(found, Instruments, "instruments")
    if chosen is None or errors:
        return None, []
    for path in (file.parent / chosen.file, SHIPPED / chosen.file):
        if path.is_file():
            return read_instruments(path, chosen.symbols)
    return None, [f'{file}: instruments.file: found "{chosen.file}", allowed: a file beside it or in {SHIPPED}']


def _check_limits(limits: risk_limits.Config, tables: Tables) -> list[str]:
    """Check that every instrument has limits that fit its decimals, and that no limit is for nothing."""
    symbols = _symbols(tables)
    errors = _unknown("risk.limits", limits.limits, symbols)
    for row, symbol in enumerate(symbols):
        own = {symbol: limits.limits[symbol]} if symbol in limits.limits else {}
        try:
            risk_limits.limit_rows(
                msgspec.structs.replace(limits, limits=own), tables.instruments[row : row + 1], tables.currencies
            )
        except ValueError as error:
            errors.append(str(error))
    return errors


def _check_second_line(second: gateway.Config, tables: Tables) -> list[str]:
    """Check the same of the gateway's limits."""
    errors = _unknown("gateway.limits", second.limits, _symbols(tables))
    for row, symbol in zip(tables.instruments, _symbols(tables), strict=True):
        own = second.limits.get(symbol)
        if own is None:
            errors.append(f"gateway.limits.{symbol}: missing, every instrument needs limits of its own")
            continue
        for key in own.__struct_fields__:
            text = getattr(own, key)
            decimals = int(row["quantity_decimals" if key.startswith("quantity") else "price_decimals"])
            value = Decimal(text) * 10**decimals if DECIMAL.fullmatch(text) else Decimal(0)
            if not 0 < value < NUMBER_MAX or value != int(value):
                errors.append(
                    f'gateway.limits.{symbol}.{key}: found "{text}", '
                    f"allowed: a decimal number in quotes, above 0, at most {decimals} decimals"
                )
    return errors


def _symbols(tables: Tables) -> list[str]:
    return [row["symbol"].decode() for row in tables.instruments]


def _unknown(key: str, found: Iterable[str], symbols: list[str]) -> list[str]:
    return [f"{key}.{one}: no such instrument, allowed: {', '.join(symbols)}" for one in found if one not in symbols]


def _contradictions(one: Document) -> list[str]:
    """Check what no table can see by itself."""
    errors = []
    errors += _check_venue(one)
    if one.mode == "replay" and one.market_data.source != "capture":
        errors.append(
            f'market_data.source: found "{one.market_data.source}", allowed: "capture" in mode replay, which has to end'
        )
    if one.mode == "paper" and one.market_data.source == "capture":
        errors.append(
            'market_data.source: found "capture", allowed: "simulated" in mode paper: '
            "a capture's time is over, mode replay brings it back"
        )
    if one.market_data.source == "capture" and not one.market_data.path:
        errors.append("market_data.path: missing, allowed: a capture file, or a folder of them")
    if one.market_data.source == "binance":
        errors += [f"market_data.binance.{error}" for error in live_source.check(one.market_data.binance)]
    errors += _check_pace(one)
    for key, value in (("market_data.seed", one.market_data.seed), ("market_data.drain_ms", one.market_data.drain_ms)):
        if value < 0:
            errors.append(f"{key}: found {value:g}, allowed: 0 or more")
    if not 0 <= one.signal.timer_ms <= 86_400_000:
        errors.append(f"signal.timer_ms: found {one.signal.timer_ms:g}, allowed: 0 (never) to 86,400,000")
    names = STAGE_NAMES[:-1] if one.mode == "live" else STAGE_NAMES  # live_venue is where the gateway is
    errors += [f"stages.{name}: no such stage, allowed: {', '.join(names)}" for name in one.stages if name not in names]
    try:
        signal.fill_params(signal.load_strategy(one.signal.strategy), one.signal.params)
    except signal.StrategyError as error:
        errors.append(f"signal.strategy: {error}")
    return errors


def _check_venue(one: Document) -> list[str]:
    """Check that the venue is there, and that no real one is where none is meant."""
    if one.mode != "live":
        errors = [] if one.paper_venue is not None else ["paper_venue: missing, allowed: a table"]
        if one.live_venue is not None:
            errors.append(f"live_venue: found a table, allowed: only in mode live, this is mode {one.mode}")
        return errors
    errors = []
    if one.market_data.source != "binance":
        errors.append(f'market_data.source: found "{one.market_data.source}", allowed: "binance" in mode live')
    if one.live_venue is None:
        return [*errors, "live_venue: missing, allowed: a table"]
    feed = one.market_data.binance
    urls = {
        "live_venue.url": one.live_venue.url,
        "market_data.binance.stream_url": feed.stream_url,
        "market_data.binance.rest_url": feed.rest_url,  # `kill` cancels there
    }
    if one.live_venue.order_entry == "fix" or one.live_venue.fix_url:
        errors += _check_fix(one.live_venue)
        urls["live_venue.fix_url"] = one.live_venue.fix_url
    for key, environment in zip(urls, live_key.environments(*urls.values()), strict=True):
        if environment != one.live_venue.environment:
            errors.append(f'{key}: is of {environment}, live_venue.environment: found "{one.live_venue.environment}"')
    return errors


def _check_fix(venue: live_venue.Config) -> list[str]:
    """Check the address of FIX order entry."""
    try:
        address = fix_link.read_address(venue.fix_url)
    except ValueError as error:
        return [f"live_venue.fix_url: {error}"]
    if not address.secure and venue.environment != "simulator":
        return [f'live_venue.fix_url: found "{venue.fix_url}", allowed: tcp+tls:// but for the simulator']
    return []


def _check_pace(one: Document) -> list[str]:
    """Check the pace of a replay; nothing else has one."""
    pace = one.market_data.pace
    if not isinstance(pace, str) and not PACE_MIN <= pace <= PACE_MAX:
        return [f"market_data.pace: found {pace:g}, allowed: {PACES}"]
    if one.mode != "replay" and pace != "flat":
        said = f'"{pace}"' if isinstance(pace, str) else f"{pace:g}"
        return [f"market_data.pace: found {said}, allowed: only in mode replay, the simulated market keeps the clock"]
    return []


def with_placement(config: Config, placement: str) -> Config:
    """Replace the placement. Raises ConfigError for an unknown one."""
    if placement not in ("split", "fused"):
        raise ConfigError([f'--placement: found "{placement}", allowed: "split" or "fused"'])
    return msgspec.structs.replace(config, placement=placement)


def for_recording(config: Config, path: str = "") -> Config:
    """Have what comes in recorded, to `path` or where the configuration says. Raises ConfigError without either."""
    path = path or config.recorder.path
    if not path:
        raise ConfigError([f"{config.file}: recorder.path: missing, allowed: a folder; or --path FOLDER"])
    return msgspec.structs.replace(config, recorder=Recorder(path=path))


def for_replay(config: Config, *, path: str = "", placement: str = "", pace: str = "") -> Config:
    """Turn a configuration into one for a replay, with what the command line says instead. Raises ConfigError."""
    errors = []
    feed = msgspec.structs.replace(config.market_data, source="capture", path=path or config.market_data.path)
    if not feed.path:
        errors.append(f"{config.file}: market_data.path: missing, allowed: a capture file, or a folder of them")
    if pace in ("flat", "recorded"):
        feed = msgspec.structs.replace(feed, pace=pace)
    elif pace:
        try:
            multiple = float(pace)
        except ValueError:
            multiple = 0.0
        if not PACE_MIN <= multiple <= PACE_MAX:
            errors.append(f'--pace: found "{pace}", allowed: {PACES}')
        feed = msgspec.structs.replace(feed, pace=multiple)
    if placement not in ("", "split", "fused"):
        errors.append(f'--placement: found "{placement}", allowed: "split" or "fused"')
    if errors:
        raise ConfigError(errors)
    return msgspec.structs.replace(config, mode="replay", market_data=feed, placement=placement or config.placement)
