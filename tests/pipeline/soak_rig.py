"""A soak: thousands of live orders over real sockets, against a simulator in which one thing after another goes wrong.

    with Soak(folder, seed) as soak:
        soak.run(orders=200_000, deaths=10)      # faults all the while; then everything is cancelled, and stopped
    soak.told, soak.venue, soak.disagreements()

The pipeline is a supervisor and its processes, placement split, mode live; the exchange runs in a thread of this one.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import time
from collections import Counter

import httpx
import msgspec
import numpy as np

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, kill, state
from shrivenq.pipeline.exchange import config as exchange_config
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.shm import board
from shrivenq.stages import control, journal_file
from shrivenq.stages import orders as o
from shrivenq.stages import positions as p
from tests.pipeline import soak_agreement, soak_faults
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, FLOWING, TRADER, Rig, make_config
from tests.pipeline.test_supervisor import Run

NAME = "test-soak"
KEPT = 1 << 20
"""Orders and fills that the simulator remembers."""
PHASE_S = 4.0
"""How long a script of faults lasts."""
SCRIPTS_MIN = 6
"""Scripts of faults, however soon there are enough orders: one alone may hold little that goes wrong."""
SAY_S = 20.0
STILL_S = 60.0
"""Longest time without a new order."""
BALANCES = {"BTC": "1000000", "ETH": "10000000", "USDT": "1000000000"}
HERE = "tests.pipeline.soak_strategy"

CONFIG = """
name = "{name}"
mode = "live"
placement = "split"

[instruments]
file = "instruments.toml"

[market_data]
source = "binance"

[market_data.binance]
stream_url = "ws://127.0.0.1:{port}"
rest_url = "http://127.0.0.1:{port}"
streams = ["depth@100ms", "trade", "bookTicker"]
silent_ms = 5000.0

[signal]
strategy = "{strategy}"
timer_ms = {timer_ms}

[signal.params]
seed = {seed}
value = 3000                      # 30.00
position_value = 300000
per_turn = {per_turn}

[risk]
message_rate_max = 100000
message_window_ms = 1000
cancel_reserve = 1000
reject_streak_max = 10000000
{risk}
[gateway]
unknown_after_ms = 1000
orders_max = 100000
window_ms = 1000
{gateway}
[live_venue]
environment = "simulator"
url = "ws://127.0.0.1:{port}"
key = "file:{key}"

[logs]
terminal = false

[supervisor]
silence_hold_ms = 5000.0
silence_kill_ms = 120000.0
stop_cancel_ms = 20000.0
"""
RISK = """
[risk.limits.{symbol}]
price_collar_bps = "300"
order_quantity_max = "100"
order_value_max = "10000"
position_max = "10000"
gross_exposure_max = "10000000"
open_orders_max = 1000
duplicate_window_ms = 1
market_data_age_ms_max = 5000
intent_age_ms_max = 2000
daily_loss_max = "10000000"
repeated_execution_max = 10000000
"""
GATEWAY = """
[gateway.limits.{symbol}]
quantity_max = "100"
price_min = "0.1"
price_max = "2000"
"""
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def exchange_of(folder, seed):
    """Make a simulator that refuses nobody for sending much, and forgets nothing."""
    most = 10_000_000
    engine = exchange_config.Engine
    exchange_config.Engine = functools.partial(Engine, orders_kept=KEPT)
    try:
        return Rig(
            make_config(
                folder,
                seed=seed,
                market=FLOWING | {"spread_bps": 5.0, "volatility_bps": 10.0, "events_per_s": 200},
                accounts={"trader": {"balances": BALANCES}, "other": {"balances": BALANCES}},
                symbols={one: {"orders_max": 0, "algo_orders_max": 0} for one in SYMBOLS},
                limits={
                    "request_weight": most, "raw_requests": most, "orders_10s": most, "orders_day": most,
                    "connections": most,
                },
            )
        )  # fmt: skip
    finally:
        exchange_config.Engine = engine


class Soak:
    """One soak, of its beginning to its end."""

    def __init__(self, folder, seed, *, timer_ms=2.0, per_turn=6, say=lambda _: None):
        self.dice, self.say, self.folder = random.Random(seed), say, folder
        self.exchange = exchange_of(folder, seed)
        key = folder / "key"
        key.write_text(
            f'environment = "simulator"\npurpose = "trade"\napi_key = "{TRADER}"\nprivate_key = """\n{ED25519_PEM}"""\n'
        )
        key.chmod(0o600)
        self.path = folder / "soak.toml"
        self.path.write_text(
            CONFIG.format(
                name=NAME, port=self.exchange.port, strategy=HERE, seed=seed, key=key, timer_ms=timer_ms,
                per_turn=per_turn, risk="".join(RISK.format(symbol=one) for one in SYMBOLS),
                gateway="".join(GATEWAY.format(symbol=one) for one in SYMBOLS),
            )
        )  # fmt: skip
        self.tables = configuration.load(self.path).tables()
        self.faults, self.scripts = Counter(), 0
        self.pipeline = None

    def __enter__(self):
        self.exchange.__enter__()
        try:
            self.account = self.exchange.simulator.accounts["trader"]
            self.begun = {asset: sum(pair) for asset, pair in self._engine().balances(self.account).items()}
            self.pipeline = Run(self.path, "--placement", "split")
        except BaseException:
            self.exchange.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        try:
            if self.pipeline.process.poll() is None:
                self.pipeline.stop()
        finally:
            self.exchange.__exit__()

    # ── the venue ────────────────────────────────────────────────────────────────────────────────────────────────

    def _engine(self):
        return self.exchange.venue.engine

    def _at_venue(self, question):
        """Ask the engine, in its own loop."""
        return self.exchange.call(lambda: question(self._engine()))

    def orders(self):
        """Count the orders that the venue knows."""
        return self._at_venue(lambda engine: int(np.count_nonzero(engine.exchange.orders["account"] == self.account)))

    def open_orders(self):
        return self._at_venue(lambda engine: engine.open_orders(self.account))

    def _arm_faults(self, script):
        """Begin another script over the control endpoint; what the last one did is counted."""
        url = f"{self.exchange.rest}/control/faults"
        self.faults += soak_faults.acted(httpx.get(url, timeout=30).json())
        httpx.post(url, content=msgspec.json.encode(script), timeout=30).raise_for_status()
        self.scripts += bool(script.rules)

    # ── the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────

    def _status(self):
        return inspection.status(inspection.attach(NAME))

    def _reconciled(self):
        found = self._status()
        return found["holds"] == [] and all(one["state"] == "running" for one in found["stages"])

    def taken(self):
        """Count the order slots in use, by state."""
        held = inspection.attach(NAME).part("orders")
        rows = held.array("slots")[held.array("generation") & 1 == 1]
        return Counter(o.STATES[one] for one in rows["state"].tolist())

    def positions(self):
        """Read risk's POSITION rows."""
        found = np.zeros(len(SYMBOLS), p.POSITION)
        reader = board.reader(inspection.attach(NAME).part("positions"))
        for row in range(len(found)):
            assert board.read(reader, row, found[row : row + 1])
        return found

    # ── a soak ───────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, orders, deaths=0):
        """Trade until the venue has seen so many orders, and then end in order; the gateway dies so often meanwhile."""
        self.pipeline.until(self._reconciled)
        inspection.arm(NAME, "the soak")
        begun = time.monotonic()
        for part in range(deaths):
            self._until(orders * (part + 1) // (deaths + 1))
            self._kill_gateway()
        self._until(orders)
        self.seconds = time.monotonic() - begun
        self._arm_faults(soak_faults.Script())
        self._settle()
        errors = self.pipeline.stop()
        assert self.pipeline.process.returncode == 0, errors
        contents = journal_file.read_journal(state.folder(NAME) / "journal")
        self.told = soak_agreement.told(contents, self.tables)
        self.venue = self._at_venue(lambda engine: soak_agreement.venue(engine, self.account, self.begun))

    def _until(self, orders):
        """Let one script of faults follow the other; orders must go on coming."""
        count, last, said = 0, time.monotonic(), time.monotonic()
        while count < orders or self.scripts < SCRIPTS_MIN:
            self._arm_faults(soak_faults.draw(self.dice))
            time.sleep(PHASE_S)
            before, count = count, self.orders()
            now = time.monotonic()
            last = now if count > before else last
            assert self.pipeline.process.poll() is None, self.log()[-5:]
            assert now - last < STILL_S, f"no order for {STILL_S:.0f} s: {self._status()}, {self.log()[-5:]}"
            if now - said > SAY_S:
                said = now
                self.say(f"{count:,} orders, faults {sum(self.faults.values()):,}")

    def _kill_gateway(self):
        """Let the gateway die where it stands, and wait until another one trades."""
        found = self._status()
        (gateway,) = [one for one in found["stages"] if one["stage"] == "gateway"]
        os.kill(gateway["pid"], signal.SIGKILL)
        self.faults["gateway killed"] += 1
        self.pipeline.until(lambda: self._status()["run"] != found["run"] and self._reconciled())

    def _settle(self):
        """Have the pipeline cancel everything, and wait until it holds nothing; what stays is compared all the same."""
        for one in kill.control_segments(NAME):
            kill.Control(one).raise_to(control.CANCEL)
        deadline = time.monotonic() + STILL_S
        self.left = self.taken()
        while time.monotonic() < deadline and (self.open_orders() or self.left or not self._reconciled()):
            time.sleep(0.05)
            self.left = self.taken()  # what is compared: a kill lets reductions pass, another may follow
        self.rows = self.positions()

    def log(self):
        """Read the pipeline's log."""
        return [json.loads(line) for line in (state.folder(NAME) / "log.jsonl").read_text().splitlines()]

    def disagreements(self):
        """List what the four do not agree on."""
        return soak_agreement.disagreements(self.told, self.venue, self.rows, sum(self.left.values()), self.tables)

    def figures(self):
        """Tell what the soak was."""
        known, events = self.venue.orders, Counter(one["event"] for one in self.log())
        return {
            "orders": len(known),
            "ends": dict(Counter(one.status for one in known)),
            "never_placed": len(self.told.names) - len(known),
            "fills": len(self.venue.trades),
            "fees": dict(Counter(one.currency for one in self.venue.trades)),
            "were_unknown": self.told.unknown,
            "fills_repeated": self.told.repeated,
            "scripts": self.scripts,
            "faults": dict(sorted(self.faults.items())),
            "events": dict(events),
            "slots_left": dict(self.left),
            "seconds": round(self.seconds, 1),
            "orders_per_s": round(len(known) / self.seconds),
        }
