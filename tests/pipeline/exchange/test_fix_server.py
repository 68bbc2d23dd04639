"""FIX over the network: a port of its own, TLS, orders beside the other protocols, and an ordered stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from types import SimpleNamespace

import pytest

from shrivenq.pipeline.config import ConfigError
from shrivenq.pipeline.exchange import faults, fix_members, fix_server, fix_session
from shrivenq.pipeline.exchange.limits import Rule
from shrivenq.pipeline.exchange.server import Simulator
from tests.pipeline.exchange.exchange_rig import make_config, running
from tests.pipeline.exchange.fix_rig import FixClient, fix_connected, order_fields
from tests.pipeline.exchange.wire_rig import connected


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fix_members, "LOGONS", Rule("CONNECTIONS", "SECOND", 30, 10_000))
        with running(tmp_path_factory.mktemp("exchange")) as found:
            yield found


def connect(rig):
    return socket.create_connection(("127.0.0.1", rig.fix_port), timeout=30)


def test_an_order_over_fix_is_seen_everywhere_and_the_other_way_round(rig):
    with fix_connected(rig) as client, fix_connected(rig) as second, connected(rig) as api:
        (report,) = client.order(_44="90")
        assert report.told(35, 150, 39) == ("8", "0", "0")
        event = api.next()["event"]
        assert (event["x"], event["c"], str(event["i"])) == ("NEW", report[11], report[37])
        assert second.next()[37] == report[37]
        api.ask("order.cancel", {"symbol": "BTCUSDT", "orderId": report[37]})
        for one in (client, second):
            assert one.next().told(150, 37) == ("4", report[37])


def test_a_port_of_its_own_or_none(tmp_path, rig):
    assert rig.fix_port not in (0, rig.port)
    config = make_config(tmp_path, fix=None)
    assert config.fix is None
    assert Simulator(config).fix_port == 0
    with pytest.raises(ConfigError, match=r"fix\.port: found 5001, allowed: another than port"):
        make_config(tmp_path, port=5001, fix={"port": 5001})
    with pytest.raises(ConfigError, match=r"fix\.port: found 70000"):
        make_config(tmp_path, fix={"port": 70_000})
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{rig.fix_port}: cannot listen: Address already in use"):
        Simulator(make_config(tmp_path, fix={"port": rig.fix_port})).listen()


def test_with_tls(tmp_path):
    with running(tmp_path, tls={"generate": "tls"}) as rig:
        context = ssl.create_default_context(cafile=tmp_path / "tls" / "authority.pem")
        with connect(rig) as plain, context.wrap_socket(plain, server_hostname="localhost") as wire:
            client = FixClient(wire)
            assert client.log_on().kind == "A"
            assert client.order(_44="90")[0][150] == "0"
            client.log_out()
        with connect(rig) as plain:  # who does not speak TLS is refused
            plain.sendall(b"8=FIX.4.4\x019=5\x01")
            with contextlib.suppress(ConnectionResetError):
                assert b"8=FIX" not in plain.recv(100)


def test_who_goes_without_a_word_is_forgotten_and_his_name_blocked(rig):
    for reset in (False, True):
        name = f"GONE{reset:d}"
        with fix_connected(rig, name, logged_on=False) as client:
            assert client.log_on().kind == "A"
            if reset:
                client.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        with fix_connected(rig) as other:
            while rig.call(lambda: len(rig.simulator.fix._members.all())) > 1:
                other.settle()
        with fix_connected(rig, name, logged_on=False) as client:
            assert client.log_on().told(35, 25016) == ("3", "-1178")
            assert [one.kind for one in client.rest()] == ["5"]
    with fix_connected(rig, "CLEAN"):
        pass
    with fix_connected(rig, "CLEAN"):
        pass


def test_ten_sessions_at_once_and_fifteen_logons_in_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(fix_members, "LOGONS", fix_members.LOGONS._replace(limit=15))
    with running(tmp_path) as rig, contextlib.ExitStack() as stack:
        rig.stop_clock()
        for _ in range(fix_members.AT_ONCE):
            stack.enter_context(fix_connected(rig))
        for number in range(fix_members.LOGONS.limit - fix_members.AT_ONCE + 1):
            with fix_connected(rig, logged_on=False) as client:
                reject = client.log_on()
                expected = "attempts" if number == 5 else "concurrent"
                assert (reject[25016], expected in reject[58]) == ("-1034", True), reject
                client.rest()


def test_a_connection_that_does_not_log_on_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(fix_server, "LOGON_S", 0.05)
    with running(tmp_path) as rig, connect(rig) as wire:
        assert wire.recv(100) == b""


def test_heartbeats_of_a_real_clock(rig, monkeypatch):
    monkeypatch.setattr(fix_session, "SECOND_S", 0.05)
    with fix_connected(rig, logged_on=False) as client:
        assert client.log_on(_108="5").kind == "A"
        test = client.until("1")[-1]
        client.send("0", (112, test[112]))
        second = client.until("1")[-1]
        assert second[112] != test[112]
        last = client.rest()[-1]  # which is not answered
        assert last.told(35, 58) == ("5", "No Heartbeat came in answer to a TestRequest.")


def test_ten_thousand_messages_in_ten_seconds(rig):
    with fix_connected(rig, logged_on=False) as client:
        assert client.log_on().kind == "A"
        rig.call(lambda: rig.simulator.fix._members.all()[0]._messages.add(9_990, rig.venue.market_us()))
        with contextlib.suppress(OSError):
            for _ in range(50):
                client.send("0")
        reject, logout = client.rest()[-2:]
        assert (reject[25016], logout.kind) == ("-1181", "5")


def test_who_reads_too_slowly_is_cut_and_nobody_waits_for_him(rig, monkeypatch):
    monkeypatch.setattr(rig.simulator.fix, "_backlog_bytes", 20_000)
    with fix_connected(rig, logged_on=False) as slow, fix_connected(rig) as client:
        assert slow.log_on().kind == "A"
        sessions = rig.simulator.fix._members.all
        with contextlib.suppress(OSError):
            for _ in range(5_000):
                slow.send("XLQ", (6136, "x" * 8_000))
        while rig.call(lambda: len(sessions())) > 1:
            client.settle()
        assert client.order(_44="80")[0][150] == "0"


def test_an_ordered_stop(tmp_path):
    with running(tmp_path) as rig, fix_connected(rig, logged_on=False) as client, connect(rig):
        assert client.log_on().kind == "A"
        rig.stop()
        news, logout = client.rest()
        assert news.told(35, 148) == ("B", "Your connection is about to be closed. Please reconnect.")
        assert logout.kind == "5"
    rig.wait()


def test_a_stop_does_not_wait_for_a_session_that_is_held_up(tmp_path, monkeypatch):
    monkeypatch.setattr(fix_server, "STOP_S", 0.05)
    with running(tmp_path) as rig, fix_connected(rig, logged_on=False) as client:
        assert client.log_on().kind == "A"
        rule = faults.Rule(on="request", name="order.place", action="delay", ms=600_000)
        rig.call(lambda: rig.simulator.faults.arm(faults.Script(rules=[rule])))
        client.send("D", *order_fields("a"))
        while rig.call(lambda: rig.simulator.faults.triggers[0].acted) == 0:
            pass
        rig.stop()
        assert [one.kind for one in client.rest()] == ["B", "5"]
    rig.wait()


def test_a_peer_that_is_gone_before_it_is_looked_at(rig):
    """Its address cannot be told any more."""

    async def serve():
        reader = asyncio.StreamReader()
        reader.feed_eof()
        transport = SimpleNamespace(is_closing=lambda: False, close=lambda: None, abort=lambda: None)
        writer = SimpleNamespace(transport=transport, get_extra_info=lambda _: None)
        await rig.simulator.fix._serve(reader, writer)
        return "served"

    assert asyncio.run_coroutine_threadsafe(serve(), rig.loop).result(30) == "served"
