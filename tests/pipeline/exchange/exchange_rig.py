"""A simulator on an ephemeral port of this machine, in a thread of this process, for tests that speak over the network.

with running() as rig:
    rig.rest      # "http://127.0.0.1:PORT"
    rig.ws        # "ws://127.0.0.1:PORT"
    rig.simulator, rig.venue
    rig.call(function)      # runs in the simulator's loop, gives what it returns
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import tomllib
from pathlib import Path

from shrivenq.pipeline.exchange import config as configuration
from shrivenq.pipeline.exchange.server import Simulator
from shrivenq.pipeline.exchange.warm import warm

ED25519_PEM = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIIJEYWtGBrhACmb9Dvy+qa8WEf0lQOl1s4CLIAB9m89u
-----END PRIVATE KEY-----
"""
"""The test key that the protocol sheet gives."""
TRADER = "EXAMPLEKEY"
OTHER = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
OTHER_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"  # noqa: S105

INSTRUMENTS = """
[currencies]
BTC = 8
ETH = 8
USDT = 8
"""
INSTRUMENT = """
[instruments.{symbol}]
kind = "spot"
base = "{base}"
quote = "USDT"
price_decimals = 2
quantity_decimals = 8
tick = "0.01"
step = "0.00001"
price_min = "0.01"
price_max = "2000"
quantity_min = "0.00001"
quantity_max = "9000"
notional_min = "5"
notional_max = "9000000"
contract_size = "1"
maker_fee_bps = "10"
taker_fee_bps = "10"
"""
"""Prices are low, so that a ladder of them is small."""


def make_config(folder: Path, **tables) -> configuration.Config:
    """Make a configuration: the shipped one on a free port, with the `tables` given instead of its own."""
    shipped = tomllib.loads(configuration.pipeline_config.find("exchange").read_text())
    text = INSTRUMENTS + "".join(INSTRUMENT.format(symbol=base + "USDT", base=base) for base in ("BTC", "ETH"))
    (folder / "instruments.toml").write_text(text)
    shipped["port"] = 0
    shipped["fix"] = {"port": 0}
    shipped["instruments"] = {"file": "instruments.toml"}
    shipped["market"] = {"source": "none"}
    for name, table in tables.items():
        if isinstance(table, dict) and name not in {"accounts", "keys"}:
            shipped[name] = shipped.get(name, {}) | table
        else:
            shipped[name] = table
    return configuration.check(shipped, folder / "exchange.toml")


FLOWING = {"source": "synthetic", "events_per_s": 500, "price": {"BTCUSDT": "600", "ETHUSDT": "30"}}
"""`[market]` of a venue where others trade too."""


class Rig:
    """A simulator that runs."""

    def __init__(self, config: configuration.Config) -> None:
        warm()
        self.simulator = Simulator(config)
        self.venue = self.simulator.venue
        self.server = self.simulator.server()
        self.socket = self.simulator.listen()
        self.port = self.socket.getsockname()[1]
        self.fix_port = self.simulator.fix_port
        self.rest = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exchange")

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        serving = asyncio.ensure_future(self.server.serve(sockets=[self.socket]))
        while not self.server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets no event
            await asyncio.sleep(0.001)
        self._started.set()
        await serving

    def call(self, function):
        """Run `function` in the simulator's loop; give what it returns."""

        async def inside():
            return function()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(30)

    def stop_clock(self) -> int:
        """Let the venue's time stand still, so that no interval ends; give it."""
        now_us = self.venue.now_us()
        for name in ("now_us", "market_us"):
            self.call(lambda name=name: setattr(self.venue, name, lambda: now_us))
        return now_us

    def stop(self) -> None:
        """Stop the simulator in order."""
        self.server.should_exit = True

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(60), "the simulator did not start"
        return self

    def wait(self) -> None:
        """Wait until it has stopped."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the simulator did not stop"

    def __exit__(self, *_error):
        self.stop()
        self.wait()


@contextlib.contextmanager
def running(folder: Path, **tables):
    """Run a simulator; connections are accepted as soon as this gives it."""
    with Rig(make_config(folder, **tables)) as rig:
        yield rig
