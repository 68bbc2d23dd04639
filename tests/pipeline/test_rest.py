"""The REST process: snapshots when they are wanted, limits kept, symbols watched; against a fake and a real server."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import signal
import socket
import threading
import time
import uuid

import numpy as np
import pytest

from shrivenq.pipeline import processes, rest, topology
from shrivenq.pipeline.assembly import Assembly
from shrivenq.pipeline.rest import HttpClient, Requests, RestError, Side, check_instruments, exchange_info
from shrivenq.shm import byte_ring, segment
from shrivenq.shm.atomics import store_word
from shrivenq.stages import control
from shrivenq.stages.live.source import Config
from tests.hostile_json import mutations
from tests.pipeline.pipeline_rig import tables
from tests.pipeline.test_venue_symbols import info
from tests.stages.live import authority

S = 1_000_000_000
DEPTH = b'{"lastUpdateId":100,"bids":[["1.00","2"]],"asks":[["3.00","4"]]}'


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, event, **fields):
        self.lines.append((event, fields))

    info = error = warning


class Venue:
    """A client that answers by itself; `answers` come first."""

    def __init__(self):
        self.asked, self.answers, self.info, self.now_ns = [], [], info(), 1_700_000_000 * S

    def get(self, target):
        self.asked.append(target)
        if self.answers:
            found = self.answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found
        if "/depth" in target:
            return 200, {}, DEPTH
        if "/exchangeInfo" in target:
            return 200, {}, json.dumps(self.info).encode()
        return 200, {}, json.dumps({"serverTime": self.now_ns // 1000 + 5000}).encode()


class World:
    """A Side with everything around it driven by hand."""

    def __init__(self, **config):
        self.venue, self.log, self.now_s = Venue(), Log(), 0.0
        self.segment = byte_ring.create(f"{segment.PREFIX}test-rest-{uuid.uuid4().hex[:12]}", 1 << 16)
        self.reader = byte_ring.consumer(self.segment)
        self.resync, self.streaming, self.words, self.hold = (np.zeros(512, np.int64) for _ in range(4))
        self.streaming[:2] = 1
        self.requests = Requests(self.venue, clock=lambda: self.venue.now_ns)
        self.side = Side(
            Config(**config), tables(), self.requests, byte_ring.producer(self.segment), self.resync, self.streaming,
            self.words, self.hold, self.log, random.Random(1), lambda: self.now_s,
        )  # fmt: skip

    def run(self, seconds):
        """Let time pass, a millisecond a step; return the snapshots that came, with their times."""
        found = []
        for _ in range(int(seconds * 1000)):
            self.now_s += 0.001
            self.venue.now_ns += 1_000_000
            self.side.step()
            found += [(self.now_s, payload) for _, _, payload in byte_ring.drain(self.reader)]
        return found

    def asked(self, what):
        return [one for one in self.venue.asked if what in one]

    def close(self):
        self.segment.close()
        self.segment.unlink()


@pytest.fixture
def world():
    made = World()
    yield made
    made.close()


def frame(symbol):
    return b'{"stream":"%s@snapshot","data":%s}' % (symbol, DEPTH)


def test_every_instrument_gets_a_snapshot_once_its_streams_are_open(world):
    world.streaming[:2] = 0
    assert world.run(0.1) == []
    world.streaming[:2] = 1
    assert sorted(payload for _, payload in world.run(0.2)) == [frame(b"btcusdt"), frame(b"ethusdt")]
    assert world.asked("depth")[0].endswith("&limit=5000")
    assert world.run(5) == []
    assert world.words[rest.SNAPSHOTS] == 2


def test_an_instrument_whose_connection_is_lost_waits_for_it_alone(world):
    world.streaming[0] = 0
    assert [payload for _, payload in world.run(0.2)] == [frame(b"ethusdt")]
    world.streaming[0] = 1
    assert [payload for _, payload in world.run(0.2)] == [frame(b"btcusdt")]


def test_what_book_asks_for_is_fetched_and_repeats_wait_longer(world):
    world.run(40)
    times = []
    for _ in range(5):
        world.resync[1] += 1
        asked = world.now_s
        ((at, payload),) = world.run(6)[:1]
        assert payload == frame(b"ethusdt")
        times.append(at - asked)
    assert times[0] < 0.05
    assert all(wait >= 0.1 for wait in times[1:])
    assert times[4] >= 0.9
    world.run(40)
    world.resync[1] += 1
    asked = world.now_s
    assert world.run(1)[0][0] - asked < 0.05, "a book that was content for long starts anew"


@pytest.mark.parametrize("streams", [("depth20@100ms",), ("trade", "bookTicker")])
def test_without_diffs_no_snapshot_is_fetched(streams):
    world = World(streams=streams)
    try:
        world.run(1)
        assert not world.asked("depth?")
    finally:
        world.close()


def test_a_failure_is_told_and_tried_again(world):
    world.venue.answers = [RestError("no answer"), (503, {}, b"<html>"), (200, {}, DEPTH), (200, {}, DEPTH)]
    assert len(world.run(3)) == 2
    reasons = [fields["reason"] for event, fields in world.log.lines if event == "REST request failed"]
    assert reasons == ["no answer", "the venue answers HTTP 503: b'<html>'"]
    assert world.words[rest.FAILURES] == 2


@pytest.mark.parametrize(("status", "header", "seconds"), [(429, {"retry-after": "7"}, 7), (418, {}, rest.RETRY_S)])
def test_the_venue_is_left_alone_when_it_says_so(world, status, header, seconds):
    world.run(1)
    count = len(world.venue.asked)
    world.venue.answers = [(status, header, b"")]
    world.resync[0] += 1
    world.run(seconds - 1)
    assert len(world.venue.asked) == count + 1, "not one request while it is blocked"
    assert world.words[rest.BLOCKED_UNTIL_NS] > world.venue.now_ns
    assert len([one for one in world.log.lines if "HTTP" in str(one)]) == 1
    assert len(world.run(8)) == 1


def test_the_weight_limit_is_kept(world):
    world.venue.info["rateLimits"] = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1000}
    ]
    spent, minute = 0, None
    for _ in range(150):
        before = len(world.venue.asked)
        world.resync[0] += 1
        world.run(1)
        if world.venue.now_ns // (60 * S) != minute:
            minute, spent = world.venue.now_ns // (60 * S), 0
        spent += 250 * sum("depth" in one for one in world.venue.asked[before:])
        assert spent <= 750 + 250, "70 % of 1000, counted a second late at a minute's end"
    assert world.asked("depth")


def test_the_venues_own_count_is_believed():
    venue = Venue()
    requests = Requests(venue, clock=lambda: venue.now_ns, weight_limit=1000)
    venue.answers = [(200, {"x-mbx-used-weight-1m": "690"}, b"{}")]
    requests.get("/x", 1)
    assert requests.allows(10)
    assert not requests.allows(11)
    with pytest.raises(RestError, match="weight limit is used up"):
        requests.get("/x", 11)
    venue.now_ns += 60 * S
    assert requests.allows(11)


def test_a_symbol_that_halts_holds_until_it_trades_again(world):
    world.run(1)
    assert not world.hold[control.HOLD]
    world.venue.info = info(status="HALT")
    world.run(70)
    assert world.hold[control.HOLD] == control.NOT_TRADING
    held = [fields["what"] for event, fields in world.log.lines if event.startswith("held")]
    assert held == ["BTCUSDT: status HALT, orders only in TRADING"], "said once"
    world.venue.info = info()
    world.run(70)
    assert not world.hold[control.HOLD]


def test_what_a_process_before_has_held_and_was_told_holds_for_the_next(world):
    world.hold[control.HOLD] = control.NOT_TRADING | control.RECONCILING
    world.words[rest.BLOCKED_UNTIL_NS] = world.venue.now_ns + 5 * S
    side, fields = world.side, ("config", "tables", "requests", "ring", "resync", "streaming", "words", "hold", "log")
    world.requests = side.requests = Requests(world.venue, clock=lambda: world.venue.now_ns)
    world.side = Side(*(getattr(side, name) for name in fields), random.Random(1), lambda: world.now_s)
    world.run(4.9)
    assert not world.venue.asked, "the ban is not forgotten"
    assert len(world.run(2)) == 2
    assert world.hold[control.HOLD] == control.RECONCILING, "and neither is the hold, which is over"


@pytest.mark.parametrize("change", [{"PRICE_FILTER__tickSize": "0.1"}, {"LOT_SIZE__maxQty": "1"}, {"symbol": "GONE"}])
def test_stricter_rules_while_running_hold(world, change):
    world.venue.info = info(**change)
    world.run(1)
    assert world.hold[control.HOLD] == control.NOT_TRADING


@pytest.mark.parametrize("garbage", [b"", b"[]", b"\xff", b'{"symbols":[1]}', b"[" * 100_000, b'{"rateLimits":7}'])
def test_garbage_is_told_and_holds_nothing(world, garbage):
    world.venue.answers = [(200, {}, garbage)] * 8
    world.run(1)
    assert world.words[rest.FAILURES]
    assert not world.hold[control.HOLD]


def test_the_venues_clock_is_estimated(world):
    world.run(1)
    assert abs(int(world.words[rest.VENUE_OFFSET_NS]) - 5_000_000) <= int(world.words[rest.VENUE_ERROR_NS]) <= 1_000_000
    (said,) = [fields for event, fields in world.log.lines if event == "venue clock"]
    assert said["ahead_ms"] == pytest.approx(5, abs=0.01)


def test_an_unknown_symbol_is_named():
    venue = Venue()
    invalid = (400, {}, b'{"code":-1121,"msg":"Invalid symbol."}')
    venue.answers = [invalid, (200, {}, b"{}"), invalid]
    with pytest.raises(RestError, match=r"^ETHUSDT: the venue answers HTTP 400: Invalid symbol. \(-1121\)$"):
        exchange_info(Requests(venue), ["BTCUSDT", "ETHUSDT"])


def test_whatever_exchange_info_says_it_is_taken_or_refused():
    venue = Venue()
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1000}
    for hostile in mutations({"rateLimits": [limit], "symbols": []}, more=(float("inf"), "9" * 5_000)):
        venue.answers = [(200, {}, json.dumps(hostile).encode())]
        requests = Requests(venue, clock=lambda: venue.now_ns)
        with contextlib.suppress(RestError):
            exchange_info(requests, ["BTCUSDT"])
        requests.allows(20)


# ── over a socket ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def serving(answer, context=None):
    """Serve `answer(path)` → (status, body) over HTTP/1.1, or HTTPS with a context."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_kept_connection_that_the_venue_has_closed_is_made_anew(tmp_path):
    path, context = authority.make(tmp_path)
    with serving(lambda path: (200, path.encode()), context) as url:
        client = HttpClient(url + "/base/", str(path))
        assert client.get("/x?y=1")[2] == b"/base/x?y=1"
        client._connection.sock.shutdown(2)
        assert client.get("/z")[::2] == (200, b"/base/z")
        client.close()
        stranger = HttpClient(url)
        with pytest.raises(RestError, match="unable to get local issuer certificate"):
            stranger.get("/")
        stranger.close()


def test_instruments_are_checked_at_a_start():
    log, said = Log(), info(LOT_SIZE__maxQty="10")
    with serving(lambda _: (200, json.dumps(said).encode())) as url:
        config = Config(rest_url=url)
        found = check_instruments(config, tables(), log)
        assert found.instruments[0]["quantity_max"] == 10 * 10**8
        assert [event for event, _ in log.lines] == ["instrument differs from the venue's"]
        said["symbols"][0]["filters"][0]["tickSize"] = "0.05"
        with pytest.raises(RestError, match=r"^BTCUSDT: tick is 0.01, the venue's tickSize is 0.05$"):
            check_instruments(config, tables(), log)


def test_a_venue_that_is_not_there_is_told_in_one_line():
    with serving(lambda _: (200, b"")) as url:
        pass
    with pytest.raises(RestError, match=f"^{url}: Connection refused$"):
        check_instruments(Config(rest_url=url), tables(), Log(), patience_s=0.2)


@pytest.mark.parametrize("url", ["https://[", "http://x:port"])
def test_a_url_that_is_none_is_told(url):
    with pytest.raises(RestError, match=r"^http"):
        HttpClient(url)


def test_the_process_ends_when_it_is_told(world, monkeypatch):
    monkeypatch.setattr(rest.os, "sched_setscheduler", lambda *_: None)
    turns = iter([False] * 3)
    assert rest.main(world.side, lambda: next(turns, True)) == 0
    assert world.venue.asked


def test_the_process_of_a_run_serves_it_until_it_is_told_to_stop():
    found = tables()
    name = f"test-rest-{uuid.uuid4().hex[:8]}"
    assembly = Assembly.create(name, "run", found.instruments, found.currencies, virtual=False, fused=False, live=True)
    started = None
    try:
        with serving(lambda path: (200, DEPTH if "/depth" in path else b"{}")) as url:
            reader = byte_ring.consumer(assembly.segments["rest"])
            for row in range(2):
                store_word(assembly.control("streaming"), row, 1)
            started = rest.start(Config(rest_url=url), found, assembly, Log())
            frames, end = [], time.monotonic() + 20
            while len(frames) < 2:
                assert time.monotonic() < end, "no snapshots"
                frames += [payload for _, _, payload in byte_ring.drain(reader)]
                time.sleep(0.001)
            assert sorted(frames) == [frame(b"btcusdt"), frame(b"ethusdt")]
            store_word(assembly.control("supervisor"), topology.STOP, 1)
            assert started.wait(20)
            assert started.status == 0
    finally:
        if started is not None:
            processes.stop([started], 0.0)
        assembly.unlink()


def test_a_process_that_was_killed_in_the_middle_of_an_answer_is_replaced_and_serves_everything():
    found = tables()
    name = f"test-rest-{uuid.uuid4().hex[:8]}"
    assembly = Assembly.create(name, "run", found.instruments, found.currencies, virtual=False, fused=False, live=True)
    asked, go_on = threading.Event(), threading.Event()

    def answer(path):
        if "symbol=ETHUSDT" in path and not asked.is_set():
            asked.set()
            go_on.wait(20)
        return 200, DEPTH if "/depth" in path else b"{}"

    started = []
    try:
        with serving(answer) as url:
            reader = byte_ring.consumer(assembly.segments["rest"])
            for row in range(2):
                store_word(assembly.control("streaming"), row, 1)
            started.append(rest.start(Config(rest_url=url), found, assembly, Log()))
            assert asked.wait(20)
            started[0].send(signal.SIGKILL)
            assert started[0].wait(20)
            go_on.set()
            byte_ring.drain(reader)
            started.append(rest.start(Config(rest_url=url), found, assembly, Log()))
            frames, end = [], time.monotonic() + 20
            while len(frames) < 2:
                assert time.monotonic() < end, "no snapshots"
                frames += [payload for _, _, payload in byte_ring.drain(reader)]
                time.sleep(0.001)
            assert sorted(frames) == [frame(b"btcusdt"), frame(b"ethusdt")], "the new one begins with all of them"
    finally:
        go_on.set()
        processes.stop(started, 0.0)
        assembly.unlink()


HUGE = b"9" * 5000


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x02 garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 99999 what\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 500 \x1b[31m\r\nContent-Length: 6\r\n\r\n\n\x1b[31m",
        b"HTTP/1.1 429 No\r\nContent-Length: 2\r\nX-MBX-USED-WEIGHT-1M: "
        + HUGE
        + b"\r\nRetry-After: "
        + HUGE
        + b"\r\n\r\n{}",
        b'HTTP/1.1 400 No\r\nContent-Length: 26\r\n\r\n{"code":1e999,"msg":"\\n\\n"}',
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
    ],
)
def test_an_answer_that_is_none_is_one_line(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as one:
                        one.recv(1 << 16)
                        one.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        client = HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            with pytest.raises(RestError) as caught:
                Requests(client).get("/api/v3/time", 1)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 400
        finally:
            client.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("wrong", "said"), [({"address": "127.0.0.2"}, "IP address mismatch"), ({"days": -1}, "certificate has expired")]
)
def test_a_wrong_certificate_is_one_line(tmp_path, wrong, said):
    path, context = authority.make(tmp_path, **wrong)
    with serving(lambda _: (200, b"{}"), context) as url:
        client = HttpClient(url, str(path))
        with pytest.raises(RestError, match=rf"^{url}: {said}"):
            client.get("/")
        client.close()


@pytest.mark.parametrize(
    "text",
    [
        b'{"code":1e999,"msg":"x"}',
        b'{"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","limit":1e999,"intervalNum":1}]}',
    ],
)
def test_numbers_beyond_all_are_refused(world, text):
    world.venue.answers = [(200, {}, text), (400, {}, text), (200, {}, b'{"serverTime":1e999}')] * 3
    world.run(1)
    assert world.words[rest.FAILURES]
