"""Live orders and a venue that is not as it should be: a clear line, no new orders, nothing lost; over real sockets."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import subprocess
import threading
import time
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.sync.server import serve

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline.exchange.tls import generate
from shrivenq.shm import segment
from shrivenq.stages import control
from shrivenq.stages import messages as m
from shrivenq.stages.live import asking, receive
from tests.pipeline.command_rig import MAIN
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, TRADER, running
from tests.stages.live.orders_rig import OrdersRig, logon
from tests.stages.test_live_venue import ONE, Exchange
from tests.stages.venue_rig import currencies, instruments_of

TABLES = SimpleNamespace(instruments=instruments_of(price_decimals=2, quantity_decimals=8), currencies=currencies())
NAMES = ["localhost", "127.0.0.1"]


@pytest.fixture
def make():
    """Make gateways with a live venue: `make(url, tables)`."""
    made = []

    def rig(url, tables=TABLES, **options):
        made.append(OrdersRig(url, tables, **options))
        return made[-1]

    yield rig
    for one in made:
        one.close()


def reasons(rig):
    return [fields["reason"] for event, fields in rig.log.lines if event == "venue disconnected"]


def refused(rig, said):
    """Wait until a venue is given up; new orders are held, none is sent, and it will be tried again."""
    rig.until(lambda: reasons(rig), "the refusal")
    assert said in reasons(rig)[0], reasons(rig)
    assert "\n" not in reasons(rig)[0]
    assert control.held(rig.hold) == control.RECONCILING
    order = rig.send(flags=m.FORCED)
    assert rig.reason(rig.wait(m.REJECTED, order)) == "disconnected"
    assert rig.taken() == 0
    assert dict(rig.log.lines)["venue disconnected"]["again_in_ms"] >= 0
    return dict(rig.log.lines)["venue disconnected"]["again_in_ms"]


# ── certificates ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "days", "trusted", "said"),
    [
        (NAMES, 0, False, "certificate refused: unable to get local issuer certificate"),
        (["elsewhere.test"], 0, True, "certificate refused: IP address mismatch"),
        (NAMES, -60, True, "certificate refused: certificate has expired"),
        (NAMES, 60, True, "certificate refused: certificate is not yet valid"),
    ],
)
def test_a_certificate_that_is_not_the_venue_s(tmp_path, make, names, days, trusted, said):
    files = generate(tmp_path / "made", names, now=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
    with running(tmp_path, tls={"certificate": "made/certificate.pem", "key": "made/key.pem"}) as venue:
        rig = make(venue.ws.replace("ws:", "wss:"), authority=str(files.authority) if trusted else "")
        refused(rig, said)
        assert venue.call(lambda: len(venue.simulator.ws_api.connections)) == 0


def test_a_venue_without_tls_where_tls_is_asked_for_and_the_reverse(tmp_path, make):
    with running(tmp_path) as venue:
        refused(make(venue.ws.replace("ws:", "wss:")), "TLS handshake failed")
    other = tmp_path / "other"
    other.mkdir()
    with running(other, tls={"generate": "tls"}) as venue:
        refused(make(venue.ws), "")


def test_nobody_there(make):
    refused(make("ws://127.0.0.1:9"), "Connection refused")


# ── a venue that answers otherwise ───────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def impostor(talk=None, response=None):
    """Serve WebSocket connections: `talk(connection)`, or a response to the handshake; give the URL."""
    refuse = None if response is None else lambda *_: response

    def handle(connection):
        with contextlib.suppress(ConnectionClosed):
            talk(connection)

    with serve(handle, "127.0.0.1", 0, process_request=refuse, ping_interval=None, close_timeout=1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def answering(replies, asked=None):
    """Make a venue that answers each method with what it finds in `replies`: (status, body), or raw text."""

    def talk(connection):
        for text in connection:
            request = json.loads(text)
            if asked is not None:
                asked.append(request["method"])
            usual = {
                "time": (200, {"serverTime": time.time_ns() // 1_000_000}),
                "account.rateLimits.orders": (200, []),
            }
            found = (usual | replies).get(request["method"], (200, {}))
            if isinstance(found, tuple):
                status, body = found
                shape = {"id": request["id"], "status": status, "result" if status == 200 else "error": body}
                found = json.dumps(shape)
            connection.send(found)

    return talk


@pytest.mark.parametrize(
    ("status", "headers", "said", "least_ms"),
    [
        (403, {}, "HTTP 403", 0),
        (429, {"Retry-After": "7"}, "HTTP 429", 6_900),
        (418, {"Retry-After": "100"}, "HTTP 418", 99_000),
        (418, {}, "HTTP 418", 119_000),
        (418, {"Retry-After": "9" * 5_000}, "HTTP 418", 119_000),
        (429, {"Retry-After": "soon"}, "HTTP 429", 0),
        (503, {}, "HTTP 503", 0),
        (302, {"Location": "ws://127.0.0.1:9"}, "HTTP 302", 0),
        (200, {}, "HTTP 200", 0),
    ],
)
def test_a_handshake_that_is_refused(make, status, headers, said, least_ms):
    body = b'{"code":-1003,"msg":"no"}'
    answer = Response(status, HTTPStatus(status).phrase, Headers(headers | {"Content-Length": str(len(body))}), body)
    with impostor(response=answer) as url:
        assert refused(make(url), said) >= least_ms


LOGON_ERRORS = [
    (400, -1000, "An unknown error occurred while processing the request."),
    (400, -1002, "You are not authorized to execute this request."),
    (429, -1003, "Too much request weight used."),
    (418, -1003, "Way too much request weight used; IP banned."),
    (400, -1021, "Timestamp for this request is outside of the recvWindow."),
    (400, -1022, "Signature for this request is not valid."),
    (400, -1100, "Illegal characters found in parameter 'apiKey'."),
    (400, -1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed."),
    (400, -2014, "API-key format invalid."),
    (401, -2015, "Invalid API-key, IP, or permissions for action."),
    (400, -4056, "HMAC_SHA256 API key is not supported."),
    (403, -1, "firewall"),
    (503, -1008, "Server is currently overloaded with other requests."),
    (500, -1016, "This service is no longer available."),
]


@pytest.mark.parametrize(("status", "code", "text"), LOGON_ERRORS)
def test_a_logon_that_is_refused(make, status, code, text):
    asked = []
    with impostor(answering({"session.logon": (status, {"code": code, "msg": text})}, asked)) as url:
        rig = make(url)
        again_ms = refused(rig, str(code))
        assert asked == ["time", "session.logon"]
        if status == 418:
            assert again_ms >= 119_000
        is_key = status == 401 or code in (-1002, -1022, -2014)
        assert (again_ms >= 900_000) == is_key == ("held: the venue refuses the key" in rig.log.events())


@pytest.mark.parametrize(
    "method",
    [
        "time",
        "account.rateLimits.orders",
        "userDataStream.subscribe",
        "account.status",
        "openOrders.status",
        "myTrades",
    ],
)
def test_a_venue_that_does_not_let_us_look(make, method):
    good = {"account.status": (200, {"balances": []}), "openOrders.status": (200, []), "myTrades": (200, [])}
    refusal = {method: (400, {"code": -1121, "msg": "Invalid symbol."})}
    with impostor(answering(good | refusal)) as url:
        refused(make(url), "-1121")


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("time", {"serverTime": "now"}),
        ("account.rateLimits.orders", {}),
        ("account.status", []),
        ("account.status", {"balances": [{"asset": "USD", "free": "-1", "locked": "0"}]}),
        ("account.status", {"balances": {"USD": "1"}}),
        ("openOrders.status", {}),
        ("openOrders.status", [{"orderId": "1"}]),
        ("openOrders.status", [{"orderId": 1, "clientOrderId": None}]),
        ("myTrades", [[]]),
        ("myTrades", [{"id": "x"}]),
        ("myTrades", [{}]),
        ("myTrades", "nothing"),
    ],
)
def test_a_comparison_that_makes_no_sense(make, method, body):
    good = {"account.status": (200, {"balances": []}), "openOrders.status": (200, []), "myTrades": (200, [])}
    with impostor(answering(good | {method: (200, body)})) as url:
        refused(make(url), "cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 50_000,
        '{"id":"logon","status":"200"}',
        '{"id":"logon","status":200,"status":200}',
        '{"id":"logon","status":1e400}',
        '{"id":{"logon":1},"status":200,"result":{}}',
        '{"id":"logon","status":500,"error":null}',
        '{"event":{"e":"executionReport"}}',
        '{"event":{"e":"serverShutdown"}}',
        "x" * 100_000,
        b"\x00\xff" * 50,
        b"",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_no_answer_but_something_else(make, monkeypatch, text):
    monkeypatch.setattr(asking, "ANSWER_NS", 300_000_000)
    with impostor(answering({"session.logon": text})) as url:
        refused(make(url), "")


def test_a_frame_that_never_ends_and_one_too_large(make):
    def giant(connection):
        connection.recv()
        connection.send("x" * (receive.SIZE_MAX + 1))
        connection.recv()

    with impostor(giant) as url:
        refused(make(url), "exceeds limit")

    def endless(connection):
        connection.recv()
        connection.send("x" * 65_536 for _ in range(2 + receive.SIZE_MAX // 65_536))
        connection.recv()

    with impostor(endless) as url:
        refused(make(url), "exceeds limit")


def test_a_flood_of_pings_and_of_nonsense_does_not_stop_a_session(tmp_path, make):
    """What is not ours to understand is told; the session goes on, is compared again, and its orders live."""
    with running(tmp_path, limits={"messages_s": 0, "connections": 10_000}) as found:
        exchange = Exchange(found)
        rig = make(exchange.url, exchange.tables).ready()
        order = rig.send(price=50_00)
        rig.wait(m.ACCEPTED, order)

        def flood():
            for connection in exchange.rig.simulator.ws_api.connections:
                for number in range(300):
                    connection.socket.send_message(b'{"id":%d,"status":200,"result":{}}' % number, text=True)
                connection.socket.send_message(b'{"event":{"e":"tomorrow"}}', text=True)

        exchange.rig.call(flood)
        rig.until(lambda: "venue not understood" in rig.log.events(), "the event that nobody knows")
        rig.ready()
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
        assert not reasons(rig)


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "garbage"},
        {"action": "giant", "size": 1 << 24},
        {"action": "disconnect"},
    ],
    ids=lambda fault: fault["action"],
)
def test_an_answer_that_cannot_be_read_loses_no_order(tmp_path, make, fault):
    with running(tmp_path, limits={"connections": 10_000}) as found:
        exchange = Exchange(found)
        rig = make(exchange.url, exchange.tables, unknown_after_ms=200).ready()
        exchange.faults(
            {"on": "response", "name": "order.place", "times": 1, **fault},
            {"on": "event", "name": "executionReport", "action": "drop", "times": 1},
        )
        order = rig.send(price=50_00)
        rig.wait(m.ACCEPTED, order)
        rig.ready()
        assert len(exchange.open_orders()) == rig.taken() == 1
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
        assert exchange.open_orders() == []


# ── symbols that change ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    limits = {"orders_10s": 10_000, "connections": 10_000, "request_weight": 1_000_000}
    with running(tmp_path_factory.mktemp("exchange"), limits=limits) as rig:
        yield Exchange(rig)


@pytest.fixture
def trading(exchange, make):
    yield make(exchange.url, exchange.tables).ready()
    exchange.rig.call(lambda: exchange.rig.venue.engine.set_status("BTCUSDT", "TRADING"))
    exchange.clear()


@pytest.mark.parametrize("status", ["HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY"])
def test_a_symbol_that_is_halted(trading, exchange, status):
    rig, engine = trading, exchange.rig.venue.engine
    order = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, order)
    exchange.rig.call(lambda: engine.set_status("BTCUSDT", status))
    assert rig.reason(rig.wait(m.REJECTED, rig.send(price=51_00))) == "not_tradable"
    assert [fields["text"] for event, fields in rig.log.lines if event == "venue refuses"]
    cancel = rig.send(m.CANCEL, target_id=order)
    if status == "BREAK":
        assert rig.reason(rig.wait(m.CANCEL_REJECTED, cancel)) == "not_tradable"
        assert (rig.state(order), len(exchange.open_orders())) == ("accepted", 1)
        exchange.rig.call(lambda: engine.set_status("BTCUSDT", "TRADING"))
        cancel = rig.send(m.CANCEL, target_id=order)
    rig.wait(m.CANCELLED, cancel)
    exchange.rig.call(lambda: engine.set_status("BTCUSDT", "TRADING"))
    again = rig.send(price=50_00)
    rig.wait(m.ACCEPTED, again)
    assert rig.taken() == len(exchange.open_orders()) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tick": 10}, "tick_size"),
        ({"price_max": 40_00}, "tick_size"),
        ({"step": 3_000}, "step_size"),
        ({"quantity_min": 2 * ONE}, "step_size"),
        ({"notional_min": 10**12}, "notional_range"),
        ({"orders_max": 1}, "open_orders"),
        ({"position_max": 1}, "position"),
    ],
)
def test_a_filter_that_changes_while_we_trade(trading, exchange, changes, reason):
    """The order that was right a moment ago is refused, and only that: what rests goes on, and can be cancelled."""
    rig, own = trading, exchange.rig.venue.engine.exchange.symbols[0]
    resting = rig.send(price=50_01, quantity=ONE + 1_000)
    rig.wait(m.ACCEPTED, resting)
    before = {name: int(own[name]) for name in changes}

    def change(to):
        exchange.rig.call(lambda: [own.__setitem__(name, value) for name, value in to.items()])

    change(changes)
    try:
        order = rig.send(price=50_01, quantity=ONE + 1_000)
        assert rig.reason(rig.wait(m.REJECTED, order)) == reason
        replacement = rig.send(m.REPLACE, price=50_03, quantity=ONE + 1_000, target_id=resting)
        rig.until(lambda: {(m.REJECTED, replacement), (m.CANCEL_REJECTED, replacement)} & set(rig.said()), "an answer")
        kept = rig.taken()
        assert kept == len(exchange.open_orders())
        if kept:
            rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=resting))
        assert exchange.open_orders() == []
        assert "venue refuses" in rig.log.events()
    finally:
        change(before)


def test_a_symbol_the_venue_does_not_have(exchange, make):
    """A wrong instrument file is found by the first comparison: nothing trades, and the line names the symbol."""
    instruments = exchange.tables.instruments.copy()
    instruments["symbol"][1] = b"NOSUCHUSDT"
    rig = make(exchange.url, SimpleNamespace(instruments=instruments, currencies=exchange.tables.currencies))
    refused(rig, "orders NOSUCHUSDT refused")
    assert "Invalid symbol" in reasons(rig)[0]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"api_key": "NOBODY"}, "Invalid API-key"),
        ({"api_key": "!"}, "API-key format invalid"),
    ],
)
def test_a_key_that_the_venue_does_not_know(exchange, make, key, said):
    rig = make(exchange.url, exchange.tables, logon=lambda name, ms: logon(name, ms, **key))
    refused(rig, said)


def test_a_clock_that_is_wrong(exchange, make):
    """Nobody trades with it: the logon itself is refused, and says why."""
    rig = make(exchange.url, exchange.tables, logon=lambda name, ms: logon(name, ms - 60_000))
    refused(rig, "-1021")


def test_a_clock_that_goes_wrong_while_we_trade(trading, exchange):
    rig = trading
    order, other = rig.send(price=50_00), rig.send(price=51_00)
    for one in (order, other):
        rig.wait(m.ACCEPTED, one)
    exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 3_600_000_000))
    try:
        assert rig.reason(rig.wait(m.REJECTED, rig.send(price=49_00))) == "clock"
        rig.until(lambda: "held: our clock is wrong" in rig.log.events(), "the hold")
        assert control.held(rig.hold) == control.RECONCILING
        rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=order))
    finally:
        exchange.rig.call(lambda: setattr(exchange.rig.venue, "clock_offset_us", 0))
    cancel = rig.wait(m.CANCEL_REJECTED, rig.send(m.CANCEL, target_id=other))
    assert rig.reason(cancel) == "clock"
    assert (rig.state(other), len(exchange.open_orders())) == ("accepted", 1)
    rig.ready()
    rig.wait(m.CANCELLED, rig.send(m.CANCEL, target_id=other))


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Run the shipped live configuration against a simulator, with these texts replaced; give code and lines."""
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(
        f'environment = "simulator"\npurpose = "trade"\napi_key = "{TRADER}"\nprivate_key = """\n{ED25519_PEM}"""\n'
    )

    def run(venue, *changes):
        folder = tmp_path / "run"
        folder.mkdir()
        instruments = (tmp_path / "instruments.toml").read_text()
        text = (configuration.SHIPPED / "live_simulator.toml").read_text()
        for found, other in (
            ('name = "live-simulator"', 'name = "test-live-hostile"'),
            ("127.0.0.1:9443", f"127.0.0.1:{venue.port}"),
            ("file:~/.config/shrivenq/simulator.key", f"file:{key}"),
            ("instruments_binance_spot.toml", "instruments.toml"),
            ('file = "exchange"  ', 'file = ""'),
            *changes,
        ):
            assert found in text + instruments, found
            text, instruments = text.replace(found, other), instruments.replace(found, other)
        (folder / "instruments.toml").write_text(instruments)
        (folder / "live.toml").write_text(text)
        line = [*MAIN, "run", str(folder / "live.toml")]
        found = subprocess.run(line, check=False, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in found.stderr, found.stderr
        assert not segment.names("test-live-hostile.")
        return found.returncode, [one for one in found.stderr.splitlines() if one.startswith("shrivenq: ")]

    return run


@pytest.mark.slow
def test_a_live_run_with_a_symbol_the_venue_does_not_have_does_not_start(tmp_path, start):
    with running(tmp_path) as venue:
        code, lines = start(venue, ("ETHUSDT", "NOSUCHUSDT"))
        assert venue.call(lambda: len(venue.simulator.ws_api.connections)) == 0
    assert code == 1
    assert "NOSUCHUSDT: the venue answers HTTP 400: Invalid symbol. (-1121)" in lines[-1]
