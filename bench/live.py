"""A pipeline in mode live as `shrivenq run` runs it, supervisor and all, against the venue of `venue.py`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import msgspec
import structlog
from harness import BenchmarkError, wide_open

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, processes, state, topology
from shrivenq.pipeline.kill import control_segments
from shrivenq.pipeline.supervisor import Supervisor
from shrivenq.shm import segment
from shrivenq.shm.atomics import load_word
from shrivenq.stages import control, journal_file, stage

READY_S, STOP_S = 60.0, 20.0
SYMBOL = "BTCUSDT"
KEY = """environment = "simulator"
purpose = "trade"
api_key = "EXAMPLEKEY"
private_key = '''
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIIJEYWtGBrhACmb9Dvy+qa8WEf0lQOl1s4CLIAB9m89u
-----END PRIVATE KEY-----
'''
"""
"""The one the venue's own documentation publishes."""


def live_config(folder, *, fused, strategy, params):
    """Make the configuration of a live pipeline of one instrument, wide open; the addresses are missing still."""
    shipped = configuration.load("live_simulator")
    document = configuration.as_document(shipped)
    document["instruments"]["symbols"] = [SYMBOL]
    for table in (document["risk"], document["gateway"]):
        table["limits"] = {SYMBOL: table["limits"][SYMBOL]}
    feed = {"streams": ["depth@100ms"], "exchange_info_s": 86_400, "snapshot_levels": 1000, "silent_ms": 60_000}
    document["market_data"]["binance"] |= feed
    document["placement"] = "fused" if fused else "split"
    document["exchange"]["file"] = ""
    key = folder / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    document["live_venue"] |= {"key": f"file:{key}"}
    # A machine that is busy elsewhere is no reason to hold, or to end, anything here.
    document["supervisor"] |= {"silence_hold_ms": 30_000, "silence_kill_ms": 60_000, "feed_stale_ms": 60_000}
    return wide_open(configuration.check(document, shipped.file), strategy=strategy, params=params)


def _at(config, venue):
    """Say where the venue is."""
    replace = msgspec.structs.replace
    authority = str(venue.tls_files.authority) if venue.tls_files else ""
    feed = replace(config.market_data.binance, stream_url=venue.url, rest_url=venue.rest_url, authority=authority)
    return replace(
        config,
        market_data=replace(config.market_data, binance=feed),
        live_venue=replace(
            config.live_venue,
            url=venue.url,
            authority=authority,
            fix_url=venue.fix_url,
            order_entry="fix" if venue.by_fix else "websocket_api",
        ),
    )


_warm = set()
"""Placements whose machine code this process has."""


class Live:
    """One run of it, in a state folder of its own; a context manager that leaves nothing behind."""

    def __init__(self, config, venue):
        self.config, self.venue = _at(config, venue), venue
        self.folder = Path(tempfile.mkdtemp(prefix="shrivenq-", dir="/var/tmp"))

    def __enter__(self):
        os.environ["SHRIVENQ_STATE"] = str(self.folder)
        supervisor = Supervisor(self.config, structlog.get_logger(), lambda _: None)
        if self.config.placement not in _warm:
            supervisor.warm_up()  # here, so that every run forked from here has it
            _warm.add(self.config.placement)
        self.process = processes.start("supervisor", supervisor.run)
        try:
            self._until(self._is_free, "not reconciled")
            inspection.arm(self.config.name, "a benchmark")
            self.venue.let_market_in()
            self._until(self._has_book, "no book")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self):
        """Stop it as Ctrl-C would; its journal is whole then."""
        self.process.send(signal.SIGINT)
        processes.stop([self.process], STOP_S)

    def _until(self, condition, what):
        deadline = time.monotonic() + READY_S
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the pipeline: {what} in {READY_S:.0f} s")
            time.sleep(0.001)

    def _control(self):
        """Attach to its control segment; None while there is none."""
        for name in control_segments(self.config.name):
            if not name.split(".")[2].endswith("-warm"):
                with contextlib.suppress(segment.SegmentError):
                    return segment.attach(name, topology.CONTROL)
        return None

    def _is_free(self):
        """Tell whether it runs and nothing holds orders: the venue is reconciled with."""
        held = self._control()
        gone = held is not None and held.array("supervisor")[topology.GO] == 1
        return bool(gone and load_word(held.array("hold"), control.HOLD) == 0)

    def _has_book(self):
        """Tell whether there is a valid book; fused, all stages share the first one's page."""
        held = self._control()
        pages = [held.array(f"loop.{one}") for one in ("book", "market_data")] if held else []
        return any(load_word(page, stage.BOOKS_VALID) for page in pages)

    def check(self):
        """Raise BenchmarkError if it has ended, or the venue has found something wrong."""
        if not self.process.alive():
            raise BenchmarkError(f"the pipeline has ended: exit code {self.process.status}")
        self.venue.check()

    def journal(self):
        """Read its journal, once it has stopped."""
        contents = journal_file.read_journal(state.folder(self.config.name) / "journal")
        if contents.problem:
            raise BenchmarkError(f"the journal: {contents.problem}")
        return contents
