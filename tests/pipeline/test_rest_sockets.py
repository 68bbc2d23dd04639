"""The REST process over sockets: answers that are none, certificates, and processes that end."""

from __future__ import annotations

import contextlib
import http.server
import json
import signal
import socket
import threading
import time
import uuid

import pytest

from shrivenq.pipeline import processes, rest, topology
from shrivenq.pipeline.assembly import Assembly
from shrivenq.pipeline.rest import HttpClient, Requests, RestError, check_instruments
from shrivenq.shm import byte_ring
from shrivenq.shm.atomics import store_word
from shrivenq.stages.live.source import Config
from tests.pipeline.pipeline_rig import rules
from tests.pipeline.test_rest import DEPTH, Log, frame
from tests.pipeline.test_venue_symbols import info
from tests.stages.live import authority


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
        found = check_instruments(config, rules(), log)
        assert found.tables.instruments[0]["quantity_max"] == 10 * 10**8
        assert [event for event, _ in log.lines] == ["instrument differs from the venue's"]
        said["symbols"][0]["filters"][0]["tickSize"] = "0.05"
        with pytest.raises(RestError, match=r"^BTCUSDT: tick is 0.01, the venue's tickSize is 0.05$"):
            check_instruments(config, rules(), log)


def test_a_venue_that_is_not_there_is_told_in_one_line():
    with serving(lambda _: (200, b"")) as url:
        pass
    with pytest.raises(RestError, match=f"^{url}: Connection refused$"):
        check_instruments(Config(rest_url=url), rules(), Log(), patience_s=0.2)


@pytest.mark.parametrize("url", ["https://[", "http://x:port"])
def test_a_url_that_is_none_is_told(url):
    with pytest.raises(RestError, match=r"^http"):
        HttpClient(url)


def test_the_process_of_a_run_serves_it_until_it_is_told_to_stop():
    found = rules()
    name = f"test-rest-{uuid.uuid4().hex[:8]}"
    assembly = Assembly.create(name, "run", *found.tables, virtual=False, fused=False, live=True)
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
    found = rules()
    name = f"test-rest-{uuid.uuid4().hex[:8]}"
    assembly = Assembly.create(name, "run", *found.tables, virtual=False, fused=False, live=True)
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
    "begin", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"]
)
def test_an_answer_that_comes_a_byte_at_a_time_is_given_up_on(monkeypatch, begin):
    monkeypatch.setattr(rest, "TIMEOUT_S", 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError), listener.accept()[0] as one:
                one.recv(1 << 16)
                one.sendall(begin)
                for _ in range(100):
                    one.sendall(b"x")
                    if over.wait(0.05):
                        break

        thread = threading.Thread(target=serve)
        thread.start()
        client = HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(RestError, match=r": no answer in 0.3 s$"):
            client.get("/")
        client.close()
        over.set()
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
