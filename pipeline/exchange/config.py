"""Configuration of the exchange simulator: one TOML file, strictly typed, every mistake said at once."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from shrivenq.pipeline import config as pipeline_config
from shrivenq.pipeline.config import SHIPPED, ConfigError, Instruments
from shrivenq.pipeline.exchange.accounts import API_KEY, Keyring, read_public_key
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.faults import Script, read_script
from shrivenq.pipeline.exchange.limits import Rule, Rules
from shrivenq.pipeline.exchange.listing import LEVELS_MAX
from shrivenq.pipeline.exchange.types import RATE, STP_MODES, StpMode, Symbol
from shrivenq.pipeline.instruments import DECIMAL, NUMBER_MAX, Tables, read_instruments
from shrivenq.pipeline.tables import read_table
from shrivenq.stages import order_flow
from shrivenq.stages.capture import CaptureError

Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Few = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=604_800)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=60_000)]


class Filters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[symbols.SYMBOL]`: filters that an instrument file does not carry. Numbers are strings."""

    orders_max: Few = 200
    """MAX_NUM_ORDERS; 0 switches any of these off."""
    algo_orders_max: Few = 5
    amends_max: Few = 10
    iceberg_parts_max: Few = 100
    """ICEBERG_PARTS; with 0 there are no icebergs."""
    icebergs_max: Few = 10
    order_lists_max: Few = 20
    """MAX_NUM_ORDER_LISTS."""
    trailing_above_min: Few = 10
    """TRAILING_DELTA, in bips: of a buyer's stop loss and a seller's take profit."""
    trailing_above_max: Few = 2_000
    trailing_below_min: Few = 10
    """Of the other two."""
    trailing_below_max: Few = 2_000
    position_max: str = "0"
    """MAX_POSITION, in base currency."""
    market_quantity_min: str = "0"
    """MARKET_LOT_SIZE, in base currency."""
    market_quantity_max: str = "0"
    market_step: str = "0"
    notional_filter: Literal["NOTIONAL", "MIN_NOTIONAL"] = "NOTIONAL"
    """Which of the two carries the instrument's notional_min; MIN_NOTIONAL has no highest."""
    percent_filter: Literal["PERCENT_PRICE_BY_SIDE", "PERCENT_PRICE"] = "PERCENT_PRICE_BY_SIDE"
    percent_up: str = "5"
    """Of that filter, on both sides: multiples of the average price."""
    percent_down: str = "0.2"
    range_up: str = "0"
    """PRICE_RANGE execution rule, both sides: multiples of the reference price."""
    range_down: str = "0"
    reference_price: bool = False
    """Whether the symbol has one; without it PRICE_RANGE is not enforced."""
    average_minutes: Annotated[int, msgspec.Meta(ge=0, le=60)] = 5
    """Of the weighted average price in percent and notional filters; 0 is the last price."""
    stp_default: Literal["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"] = (
        "EXPIRE_MAKER"
    )
    stp_allowed: list[StpMode] = msgspec.field(default_factory=lambda: list(STP_MODES))
    status: Literal["TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY"] = "TRADING"


class ExchangeFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[filters]`: those of no symbol. 0 switches one off."""

    orders_max: Few = 0
    """EXCHANGE_MAX_NUM_ORDERS: an account's open orders in all symbols."""
    algo_orders_max: Few = 0
    """EXCHANGE_MAX_NUM_ALGO_ORDERS."""
    icebergs_max: Few = 0
    """EXCHANGE_MAX_NUM_ICEBERG_ORDERS."""
    order_lists_max: Few = 0
    """EXCHANGE_MAX_NUM_ORDER_LISTS."""
    asset_max: dict[str, str] = {}
    """MAX_ASSET, by asset: the most of it in one order, `BTC = "100"`."""


class AccountTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[accounts.NAME]`: who trades."""

    balances: dict[str, str]
    """Free at the start, by asset: `USDT = "100000"`."""
    trade_group: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)] = -1
    """Accounts of one group do not trade with each other; −1 for none."""


class KeyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[keys.NAME]`: an API key of an account, with what its signatures are checked against."""

    account: str
    api_key: str
    public_key: str = ""
    """Ed25519: the base64 body of the public key's PEM."""
    secret: str = ""
    """HMAC-SHA256."""


class LimitTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[limits]`: what clients may use."""

    request_weight: Count = 6_000
    """A minute, by IP address."""
    raw_requests: Count = 300_000
    """Five minutes, by IP address."""
    orders_10s: Count = 100
    """By account."""
    orders_day: Count = 200_000
    connections: Count = 300
    """Attempts in five minutes, by IP address."""
    messages_s: Few = 5
    """Incoming on a market stream connection; 0 for any number."""
    streams: Count = 1_024
    """On one connection."""
    ban_after: Count = 10
    """Requests refused in a row with a 429, and the next is a 418."""
    ban_s: Seconds = 120.0
    """First ban; each further one is twice as long."""


class SessionTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[sessions]`: WebSocket connections."""

    lifetime_s: Seconds = 86_400.0
    ping_s: Seconds = 20.0
    pong_s: Seconds = 60.0
    """A connection that has not answered a ping for so long is cut."""
    backlog_bytes: Annotated[int, msgspec.Meta(ge=1_000, le=1 << 30)] = 1 << 22
    """Unsent bytes at which a client has read too slowly, and is cut."""


class MarketTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[market]`: who else trades."""

    source: Literal["synthetic", "capture", "none"] = "synthetic"
    """Seeded traders, a spot capture in whose queues the clients' orders wait, or nobody: books begin empty."""
    path: str = ""
    """Capture file or folder."""
    events_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 500
    """Synthetic orders, cancels and takers a second, each symbol; what follows is theirs too."""
    resting_orders: Annotated[int, msgspec.Meta(ge=200, le=100_000)] = 2_000
    volatility_bps: Annotated[float, msgspec.Meta(ge=0, le=1_000)] = 0.8
    spread_bps: Annotated[float, msgspec.Meta(gt=0, le=100)] = 0.4
    price: dict[str, str] = {}
    """Price at which a symbol begins: `BTCUSDT = "61800"`."""


class StreamTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[streams]`: how often what is not sent at once is sent."""

    depth_ms: Milliseconds = 100
    """`@depth@100ms` and the partial books like it."""
    depth_slow_ms: Milliseconds = 1_000
    """`@depth` and the partial books without a speed."""
    sbe_depth_ms: Milliseconds = 20
    """`@depth` in SBE."""
    sbe_partial_ms: Milliseconds = 50
    """`@depth20` in SBE."""
    reference_ms: Milliseconds = 1_000
    ticker_ms: Milliseconds = 1_000
    """`@ticker`, `@miniTicker`, `!miniTicker@arr`, `@avgPrice`."""
    kline_1s_ms: Milliseconds = 1_000
    """`@kline_1s`."""
    kline_ms: Milliseconds = 2_000
    """All other klines."""
    step_ms: Milliseconds = 5
    """The background market acts so often."""


class TlsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tls]`: a certificate and its key, or a local authority made for the occasion. Without either, no TLS."""

    certificate: str = ""
    key: str = ""
    generate: str = ""
    """Folder in which authority, certificate and key are made; clients trust its `authority.pem`."""
    names: list[str] = msgspec.field(default_factory=lambda: ["localhost", "127.0.0.1", "::1"])
    """Host names and addresses of the certificate that is made."""


class FixTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[fix]`: order entry in FIX 4.4, at the venue's host and with its certificate. Without the table, no FIX."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    """0 takes a free one and says which."""


class FaultTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[faults]`: what shall go wrong from the start on; `faults.py` says what can be said."""

    script: str = ""
    """File beside this one; none, and nothing goes wrong."""


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9_443
    """0 takes a free one and says which."""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    """Of the background market: the same seed, the same orders."""
    instruments: Instruments
    symbols: dict[str, Filters] = {}
    filters: ExchangeFilters = ExchangeFilters()
    accounts: dict[str, AccountTable]
    keys: dict[str, KeyTable]
    limits: LimitTable = LimitTable()
    sessions: SessionTable = SessionTable()
    streams: StreamTable = StreamTable()
    market: MarketTable = MarketTable()
    fix: FixTable | None = None
    tls: TlsTable = TlsTable()
    faults: FaultTable = FaultTable()


class Config(Document, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration that was checked, with its symbols."""

    file: Path
    markets: list[Symbol]
    balances: dict[str, dict[str, int]]
    """Balances at the start as integers, by account and asset."""
    asset_max: dict[str, int]
    """MAX_ASSET as integers."""
    script: Script
    """What shall go wrong from the start on."""

    def engine(self) -> tuple[Engine, dict[str, int]]:
        """Open the market and its accounts; returns the engine, and account ids by name. Raises ConfigError."""
        market = self.market
        flow = order_flow.Config(
            events_per_s=market.events_per_s,
            resting_orders=market.resting_orders,
            volatility_bps=market.volatility_bps,
            spread_bps=market.spread_bps,
            price=market.price,
        )
        try:
            engine = Engine(
                self.markets,
                seed=self.seed,
                flow=flow if market.source == "synthetic" else None,
                capture=self.file.parent / market.path if market.source == "capture" else None,
                orders_max=self.filters.orders_max,
                algo_orders_max=self.filters.algo_orders_max,
                icebergs_max=self.filters.icebergs_max,
                order_lists_max=self.filters.order_lists_max,
                asset_max=self.asset_max,
            )
            accounts = {
                name: engine.open_account(self.balances[name], trade_group=table.trade_group)
                for name, table in self.accounts.items()
            }
        except (ValueError, CaptureError) as error:
            raise ConfigError([f"{self.file}: {error}"]) from None
        return engine, accounts

    def rules(self) -> Rules:
        """Give the rate limits."""
        return Rules(
            weight=Rule("REQUEST_WEIGHT", "MINUTE", 1, self.limits.request_weight),
            raw=Rule("RAW_REQUESTS", "MINUTE", 5, self.limits.raw_requests),
            orders=(
                Rule("ORDERS", "SECOND", 10, self.limits.orders_10s),
                Rule("ORDERS", "DAY", 1, self.limits.orders_day),
            ),
            connections=Rule("CONNECTIONS", "MINUTE", 5, self.limits.connections),
            ban_after=self.limits.ban_after,
            ban_us=round(self.limits.ban_s * 1e6),
        )

    def keyring(self, accounts: dict[str, int]) -> Keyring:
        """Make the keyring; `accounts` are ids by name."""
        keyring = Keyring()
        for key in self.keys.values():
            keyring.add(key.api_key, accounts[key.account], public_key=key.public_key, secret=key.secret)
        return keyring


def load(path: str | Path) -> Config:
    """Read and check a configuration file, or a shipped one by name. Raises ConfigError with every mistake in it."""
    file = pipeline_config.find(str(path))
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
    errors = [f"{file}: {one}" for one in errors]
    tables = None
    chosen, problems = read_table(document.get("instruments"), Instruments, "instruments")
    if chosen is not None and not problems:
        tables, problems = _read_instruments(chosen, file)
        errors += problems
    if good is None or tables is None:
        raise ConfigError(errors)
    said: list[str] = []
    markets = _markets(good, tables, said)
    decimals = {one.base: one.base_decimals for one in markets} | {one.quote: one.quote_decimals for one in markets}
    balances = _balances(good, decimals, said)
    asset_max = _amounts(good.filters.asset_max, decimals, "filters.asset_max", said)
    _check_keys(good, said)
    _check_tls(good, file, said)
    script = _script(good, file, said)
    if good.fix is not None and good.fix.port == good.port != 0:
        said.append(f"fix.port: found {good.fix.port}, allowed: another than port")
    if (good.market.source == "capture") != bool(good.market.path):
        said.append('market.path: allowed: a capture file or folder, with source = "capture" and only then')
    errors += [f"{file}: {one}" for one in said]
    if errors:
        raise ConfigError(errors)
    values = {name: getattr(good, name) for name in Document.__struct_fields__}
    return Config(**values, file=file, markets=markets, balances=balances, asset_max=asset_max, script=script)


def _read_instruments(chosen: Instruments, file: Path) -> tuple[Tables | None, list[str]]:
    for path in (file.parent / chosen.file, SHIPPED / chosen.file):
        if path.is_file():
            return read_instruments(path, chosen.symbols)
    return None, [f'{file}: instruments.file: found "{chosen.file}", allowed: a file beside it or in {SHIPPED}']


def _markets(document: Document, tables: Tables, errors: list[str]) -> list[Symbol]:
    """Make a Symbol of each instrument and its filters."""
    names = [row["symbol"].decode() for row in tables.instruments]
    errors += [
        f"{key}.{name}: no such instrument, allowed: {', '.join(names)}"
        for key, table in (("symbols", document.symbols), ("market.price", document.market.price))
        for name in table
        if name not in names
    ]
    markets = []
    for row, name in zip(tables.instruments, names, strict=True):
        if row["futures"]:
            errors.append(f"instruments.symbols: {name} is no spot instrument, allowed: spot")
            continue
        markets.append(_market(row, name, tables, document.symbols.get(name, Filters()), errors))
    return markets


def _market(row: Any, name: str, tables: Tables, own: Filters, errors: list[str]) -> Symbol:
    base, quote = (tables.currencies[row[f"{side}_currency"]] for side in ("base", "quote"))

    def number(key: str, decimals: int) -> int:
        return _integer(getattr(own, key), decimals, f"symbols.{name}.{key}", errors)

    quantity_decimals = int(row["quantity_decimals"])
    market_step = number("market_step", quantity_decimals)
    if market_step % int(row["step"]):
        errors.append(f'symbols.{name}.market_step: found "{own.market_step}", allowed: a multiple of the step')
    # What exchangeInfo says is what a book of prices can hold.
    price_limit = LEVELS_MAX * int(row["tick"])
    return Symbol(
        name=name,
        base=base["code"].decode(),
        quote=quote["code"].decode(),
        price_decimals=int(row["price_decimals"]),
        quantity_decimals=quantity_decimals,
        base_decimals=int(base["decimals"]),
        quote_decimals=int(quote["decimals"]),
        status=own.status if row["tradable"] else "BREAK",
        tick=int(row["tick"]),
        price_min=int(row["price_min"]),
        price_max=min(int(row["price_max"]) or price_limit, price_limit),
        step=int(row["step"]),
        quantity_min=int(row["quantity_min"]),
        quantity_max=int(row["quantity_max"]),
        market_step=market_step,
        market_quantity_min=number("market_quantity_min", quantity_decimals),
        market_quantity_max=number("market_quantity_max", quantity_decimals),
        notional_filter=own.notional_filter,
        notional_min=int(row["notional_min"]),
        notional_max=int(row["notional_max"]) if own.notional_filter == "NOTIONAL" else 0,
        average_minutes=own.average_minutes,
        orders_max=own.orders_max,
        algo_orders_max=own.algo_orders_max,
        position_max=number("position_max", quantity_decimals),
        amends_max=own.amends_max,
        iceberg_parts_max=own.iceberg_parts_max,
        icebergs_max=own.icebergs_max,
        order_lists_max=own.order_lists_max,
        trailing_above_min=own.trailing_above_min,
        trailing_above_max=own.trailing_above_max,
        trailing_below_min=own.trailing_below_min,
        trailing_below_max=own.trailing_below_max,
        has_reference=own.reference_price,
        maker_fee=int(row["maker_fee"]),
        taker_fee=int(row["taker_fee"]),
        stp_default=own.stp_default,
        stp_allowed=tuple(own.stp_allowed),
        **_multipliers(own, name, errors),
    )


def _multipliers(own: Filters, name: str, errors: list[str]) -> dict[str, Any]:
    """Give the fields of a Symbol that are multiples of a price: of the percent filter and of the PRICE_RANGE rule."""
    found = {
        key: _integer(getattr(own, key), 8, f"symbols.{name}.{key}", errors)
        for key in ("percent_up", "percent_down", "range_up", "range_down")
    }
    for kind in ("percent", "range"):
        up, down = found[f"{kind}_up"], found[f"{kind}_down"]
        if up and up < max(down, RATE):
            errors.append(f'symbols.{name}.{kind}_up: found "{getattr(own, f"{kind}_up")}", allowed: "0", or 1 or more')
    if found["percent_down"] and not found["percent_up"]:
        # The filter has no way to say so.
        errors.append(f'symbols.{name}.percent_up: found "0", allowed: only with percent_down = "0"')
    percent = {key: found[key] for key in ("percent_up", "percent_down")}
    if own.percent_filter == "PERCENT_PRICE_BY_SIDE":
        percent = {f"{side}_{key}": value for side in ("bid", "ask") for key, value in percent.items()}
    bounds = {f"range_{side}_{way}": found[f"range_{way}"] for side in ("bid", "ask") for way in ("up", "down")}
    return percent | bounds


def _integer(text: str, decimals: int, key: str, errors: list[str]) -> int:
    """Turn a decimal number into an int at `decimals`; what is wrong with it goes to `errors`."""
    value = Decimal(text) * 10**decimals if DECIMAL.fullmatch(text) else Decimal(-1)
    if value != int(value) or not 0 <= value < NUMBER_MAX:
        errors.append(f'{key}: found "{text}", allowed: a decimal number in quotes, 0 or more, {decimals} decimals')
        return 0
    return int(value)


def _balances(document: Document, decimals: dict[str, int], errors: list[str]) -> dict[str, dict[str, int]]:
    if not document.accounts:
        errors.append("accounts: found none, allowed: tables [accounts.NAME]")
    return {
        name: _amounts(account.balances, decimals, f"accounts.{name}.balances", errors)
        for name, account in document.accounts.items()
    }


def _amounts(texts: dict[str, str], decimals: dict[str, int], key: str, errors: list[str]) -> dict[str, int]:
    """Turn amounts of assets into ints at their decimals."""
    found = {}
    for asset, text in texts.items():
        if asset not in decimals:
            errors.append(f"{key}.{asset}: no such asset, allowed: {', '.join(decimals)}")
            continue
        found[asset] = _integer(text, decimals[asset], f"{key}.{asset}", errors)
    return found


def _check_keys(document: Document, errors: list[str]) -> None:
    seen: dict[str, str] = {}
    for name, key in document.keys.items():
        if key.account not in document.accounts:
            errors.append(f'keys.{name}.account: found "{key.account}", allowed: {", ".join(document.accounts)}')
        if not API_KEY.fullmatch(key.api_key):
            errors.append(f"keys.{name}.api_key: allowed: 1 to 64 of A-Z, a-z and 0-9")
        if key.api_key in seen:
            errors.append(f"keys.{name}.api_key: the same as that of keys.{seen[key.api_key]}")
        seen[key.api_key] = name
        if bool(key.public_key) == bool(key.secret):
            errors.append(f"keys.{name}: allowed: exactly one of public_key and secret")
        if key.public_key:
            try:
                read_public_key(key.public_key)
            except ValueError as error:
                errors.append(f"keys.{name}.public_key: {error}, allowed: the base64 body of an Ed25519 public key")


def _script(document: Document, file: Path, errors: list[str]) -> Script:
    if document.faults.script:
        try:
            return read_script(file.parent / document.faults.script)
        except ValueError as error:
            errors.append(f"faults.script: {error}")
    return Script()


def _check_tls(document: Document, file: Path, errors: list[str]) -> None:
    tls = document.tls
    if bool(tls.certificate) != bool(tls.key):
        errors.append("tls: certificate and key go together")
    if tls.certificate and tls.generate:
        errors.append("tls.generate: allowed: only without certificate and key")
    for name in ("certificate", "key"):
        path = getattr(tls, name)
        if path and not (file.parent / path).is_file():
            errors.append(f'tls.{name}: found "{path}", allowed: a file')
