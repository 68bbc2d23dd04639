"""Wire to wire: from a depth frame's first byte on its way until the last byte of the order it causes is back.

A compiled peer on the other CPU sends a frame on a loopback WebSocket, polls the order connection, and sends the next
50 µs after it has answered the order. Frames are real depth messages of the Spot capture, all their levels, in each of
which the best bid was made to move; every client keeps the book and answers with one immediate-or-cancel order at the
new best bid, as an `order.place` of the WebSocket API. A frame without an order, or with one at another price, ends it.

`fused`, `split`, `fused_tls`: `shrivenq run` in mode live, whole: logged on and reconciled, risk's checks, the journal
kept on disk, the supervisor beside it. `picows_msgspec_spin`: picows on a uvloop that never waits, msgspec, sorted
lists; `picows_msgspec`: the same on an ordinary uvloop; `websockets_orjson`: `websockets` on asyncio, orjson. Those
check and journal nothing. `bare`: compiled code that reads no frame and sends orders written beforehand, the floor.

Figures are medians over the rounds; ratios are of the same round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import openssl
import peer_state as p
from clients import CLIENTS, Client
from harness import CAPTURE, STRATEGIES, BenchmarkError, percentile, quiet_logs
from live import Live, live_config
from report import Report, interleaved
from venue import Market, Venue

from shrivenq.pipeline.exchange import tls

ROUNDS = 9
SAMPLES = 8_000
WARM_UP = 1_000
"""Samples at the beginning that count for nothing."""
PAUSE_NS = 50_000
FIGURES = {"rtt_p50": 50, "rtt_p99": 99, "rtt_p999": 99.9}
RATIOS = {"bare": ("rtt_p50",), "picows_msgspec_spin": ("rtt_p50", "rtt_p99"), "picows_msgspec": ("rtt_p50",)}
"""Figures of a peer that those of `fused` are divided by."""
LIMIT_S = 120.0


def play(venue, client):
    """Let the peer play against a client that is connected; return the figures."""
    venue.task(p.PLAY)
    deadline = time.monotonic() + LIMIT_S
    while venue.count(p.STATE) != p.PLAYED:
        client.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"not over in {LIMIT_S:.0f} s")
        time.sleep(0.01)
    venue.check()
    rtt = venue.rtt[WARM_UP:]
    return {figure: percentile(rtt, value) for figure, value in FIGURES.items()}


def ours(market, config, *, tls_files=None):
    """Measure one round of a pipeline."""
    with (
        Venue(market, config.tables(), samples=SAMPLES, tls_files=tls_files, pause_ns=PAUSE_NS) as venue,
        Live(config, venue) as pipeline,
    ):
        return play(venue, pipeline)


def theirs(market, tables, name):
    """Measure one round of a peer."""
    with Venue(market, tables, samples=SAMPLES, pause_ns=PAUSE_NS) as venue, Client(name, venue) as client:
        return play(venue, client)


def main():
    report = Report("wire")
    market = Market()
    with tempfile.TemporaryDirectory(prefix="shrivenq-") as found, quiet_logs():
        folder = Path(found)
        files = tls.generate(folder, ["127.0.0.1"])
        chosen = {"strategy": STRATEGIES / "follow_bid.py", "params": {"quantity": 10_000}}
        fused, split = (live_config(folder, fused=one, **chosen) for one in (True, False))
        tables = fused.tables()
        cases = {
            "fused": lambda: ours(market, fused),
            "split": lambda: ours(market, split),
            "fused_tls": lambda: ours(market, fused, tls_files=files),
        }
        if openssl.LIBRARY is None:
            del cases["fused_tls"]
        cases |= {name: lambda name=name: theirs(market, tables, name) for name in CLIENTS}
        rounds = interleaved(ROUNDS, cases, choose=list)
    if not CAPTURE.is_dir():
        report.row("fused", "note", "text", "no captured data: depth frames are made up")
    for case, figures in rounds.items():
        for figure, values in figures.items():
            report.row(case, figure, "ns", statistics.median(values))
    if openssl.LIBRARY is None:
        report.skip("fused_tls", "no OpenSSL for the peer")
    for case, figures in RATIOS.items():
        for figure in figures:
            pairs = zip(rounds["fused"][figure], rounds[case][figure], strict=True)
            report.row(case, f"{figure}_ratio", "ours/peer", statistics.median(one / other for one, other in pairs))


if __name__ == "__main__":
    main()
