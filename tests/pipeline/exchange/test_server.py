"""The whole server: the command, its ordered stop, everything at once."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from threading import Thread

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client

from shrivenq.pipeline.config import ConfigError
from shrivenq.pipeline.exchange.config import SHIPPED
from shrivenq.pipeline.exchange.server import Simulator, run
from tests.pipeline.exchange.exchange_rig import FLOWING, INSTRUMENT, INSTRUMENTS, make_config, running

COMMAND = [sys.executable, "-c", "from shrivenq.pipeline.main import main; main()", "exchange"]


def write_config(folder, port=0):
    """Write a configuration file, as a user would."""
    text = INSTRUMENTS + "".join(INSTRUMENT.format(symbol=base + "USDT", base=base) for base in ("BTC", "ETH"))
    (folder / "instruments.toml").write_text(text)
    text = (SHIPPED / "exchange.toml").read_text()
    text = (
        text.replace("port = 9443", f"port = {port}")
        .replace("port = 9000", "port = 0")
        .replace("instruments_binance_spot.toml", "instruments.toml")
    )
    text = text.replace('BTCUSDT = "61800", ETHUSDT = "2610"', 'BTCUSDT = "600", ETHUSDT = "30"')
    (folder / "exchange.toml").write_text(text)
    return str(folder / "exchange.toml")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(tmp_path, number):
    process = subprocess.Popen(
        [*COMMAND, write_config(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("exchange: BTCUSDT, ETHUSDT at http://127.0.0.1:"), line + process.stderr.read()
        assert re.search(r", FIX at tcp://127\.0\.0\.1:[1-9][0-9]*; Ctrl-C stops$", line.strip())
        url = line.split(" at ")[1].split(",")[0]
        # The line comes before the loop runs; the socket listens already.
        assert httpx.get(url + "/api/v3/ping", timeout=60).json() == {}
        with websockets.sync.client.connect(url.replace("http", "ws") + "/ws/btcusdt@trade") as one:
            process.send_signal(number)
            seen = []
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                seen.extend(json.loads(one.recv(60)) for _ in range(1 << 20))
        # The market goes on until the connection is closed.
        assert "serverShutdown" in [event["e"] for event in seen[-20:]]
        assert process.wait(60) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_a_mistake_is_one_line_and_no_traceback(tmp_path):
    path = write_config(tmp_path, port=70_000)
    done = subprocess.run([*COMMAND, path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == f"shrivenq: {path}: port: found 70000, allowed: a whole number from 0 to 65,535\n"


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = make_config(tmp_path, port=port)
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: cannot listen: Address already in use"):
            run(config, print)
    with pytest.raises(ConfigError, match=r"nowhere\.invalid:0: cannot listen"):
        run(make_config(tmp_path, host="nowhere.invalid"), print)


def test_a_certificate_that_is_none(tmp_path):
    (tmp_path / "c.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="tls: "):
        run(make_config(tmp_path, tls={"certificate": "c.pem", "key": "c.pem"}), print)


def test_a_script_of_faults_is_armed_from_the_start(tmp_path):
    rule = 'on = "request"\nname = "ping"\naction = "error_not_placed"\ncode = -1008\ntimes = 1'
    (tmp_path / "faults.toml").write_text(f"[[rules]]\n{rule}\n")
    with running(tmp_path, faults={"script": "faults.toml"}) as rig:
        found = [httpx.get(rig.rest + "/api/v3/ping").status_code for _ in range(2)]
    assert found == [503, 200]


def test_an_ordered_stop_tells_every_connection_before_it_is_closed(tmp_path):
    with running(tmp_path, market=FLOWING) as rig:
        paths = {
            "/ws/btcusdt@bookTicker": lambda one: one.get("e"),
            "/stream?streams=btcusdt@depth@100ms": lambda one: one["data"].get("e"),
            "/ws-api/v3": lambda one: one.get("event", {}).get("e"),
        }
        ends, connected = {}, []

        def follow(path, read):
            with websockets.sync.client.connect(rig.ws + path) as one:
                connected.append(path)
                try:
                    while True:
                        ends[path] = read(json.loads(one.recv(60)))
                except websockets.exceptions.ConnectionClosed:
                    ends[path] = ends[path], one.protocol.close_code

        threads = [Thread(target=follow, args=one) for one in paths.items()]
        for one in threads:
            one.start()
        while len(connected) < len(paths) or len(ends) < 2:
            httpx.get(rig.rest + "/api/v3/ping")
        rig.stop()
        for one in threads:
            one.join(60)
        assert ends == dict.fromkeys(paths, ("serverShutdown", 1012))
    with pytest.raises(httpx.ConnectError):
        httpx.get(rig.rest + "/api/v3/ping")


def test_a_market_that_fails_stops_the_server(tmp_path):
    def fail(_now_us):
        raise RuntimeError("the market broke")

    with running(tmp_path) as rig:
        rig.call(lambda: setattr(rig.venue.engine, "advance", fail))
        rig.wait()
        assert str(rig.simulator.failure) == "the market broke"


def test_the_same_seed_is_the_same_market(tmp_path):
    books = []
    for _ in range(2):
        simulator = Simulator(make_config(tmp_path, market=FLOWING))
        events = []
        simulator.venue.listen(events.extend)
        for time_us in range(10**15, 10**15 + 3_000_000, 10_000):
            simulator.venue.engine.advance(time_us)
            simulator.venue.drain()
        books.append((events, simulator.venue.engine.depth("BTCUSDT", 5_000)))
    assert len(books[0][0]) > 1_000
    assert books[0] == books[1]
