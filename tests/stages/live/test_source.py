"""Live market data against a server: subscriptions, losses, silence, restarts and roll-over."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from functools import partial
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosed

from shrivenq.stages import stage
from shrivenq.stages.live import connection
from shrivenq.stages.live import receive as r
from shrivenq.stages.live import source as live_source
from shrivenq.stages.live.pace import WINDOW_NS, Pace
from shrivenq.stages.live.source import Config, LiveSource, check
from tests.stages.live.live_rig import Driver, Server, trade


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def drive(server):
    made = []

    def make(**options):
        made.append(Driver(f"ws://127.0.0.1:{server.port}", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def opened(driver, server, count=1):
    driver.until(lambda: driver.source.is_open and len(server.sessions) >= count, "open")
    return server.sessions[-1]


def said(driver, event):
    return [fields for found, fields in driver.lines if found == event]


def test_nothing_is_connected_before_the_stage_runs(server, drive):
    driver = drive()
    driver.source.fill(driver.frames)
    assert not driver.live.words[r.STARTED]
    assert not server.sessions
    assert opened(driver, server).streams == ["btcusdt@trade"]


def test_messages_come_whole_and_in_order_with_pings_and_fragments_between(server, drive):
    driver = drive()
    session = opened(driver, server)
    wanted = []
    for number in range(60):
        wanted.append(trade(number))
        text = trade(number).decode()
        session.send([text[:7], text[7:40], text[40:]] if number % 7 == 3 else text)
        if number % 10 == 5:
            pong = session.connection.ping(b"%03d" % number + b"p" * 122)
    driver.until(lambda: len(driver.taken) >= 60 and pong.is_set(), "sixty trades and the pong")
    assert driver.taken == wanted
    assert driver.live.rows["frames"].sum() == 60
    began_ns = time.monotonic_ns()
    session.send([text[:40], text[40:]])
    driver.until(lambda: len(driver.taken) > 60, "it")
    (link,) = driver.source._groups[0].links()
    now_ns = time.monotonic_ns()
    assert link.data_age_ns(now_ns) < now_ns - began_ns, "or the connection would be cut as silent"


def test_many_streams_are_spread_over_connections_and_asked_for_in_messages(server, drive):
    symbols = [f"S{number}USDT" for number in range(700)]
    driver = drive(symbols=symbols, streams=("trade",), streams_per_connection=400)
    driver.until(lambda: driver.source.is_open, "both open")
    wanted = [f"{symbol.lower()}@trade" for symbol in symbols]
    assert sorted(wanted) == sorted(one for session in server.sessions for one in session.streams)
    assert sorted(len(session.streams) for session in server.sessions) == [300, 400]
    assert any(session.requests for session in server.sessions)
    for session in server.sessions:
        times = [at for at, _ in session.requests]
        assert all(later - earlier > 0.25 for earlier, later in pairwise(times))


def test_a_lost_connection_says_lost_and_comes_back(server, drive):
    driver = drive()
    opened(driver, server).connection.close(1001, "going away")
    driver.until(lambda: len(server.sessions) == 2 and driver.source.is_open, "the second connection")
    server.sessions[1].send(trade(2))
    driver.until(lambda: len(driver.taken) == 2, "a trade after the loss")
    assert driver.taken == [None, trade(2)]
    assert "1001" in said(driver, "market data disconnected")[0]["reason"]


def test_garbage_ends_the_connection_and_says_why(server, drive):
    driver = drive()
    opened(driver, server).connection.socket.sendall(b"\xc1\x00")
    driver.until(lambda: len(server.sessions) == 2 and driver.source.is_open, "the second connection")
    assert driver.taken == [None]
    assert "protocol error: " in said(driver, "market data disconnected")[0]["reason"]


def test_a_connection_without_data_is_replaced(server, drive):
    driver = drive(silent_ms=100)
    opened(driver, server)
    driver.until(lambda: len(server.sessions) >= 2 and None in driver.taken, "a second connection after silence")
    assert said(driver, "market data disconnected")[0]["reason"] == "no market data for 100 ms"


def test_a_server_that_is_not_there_is_tried_again_and_again(server, drive):
    driver = drive()
    session = opened(driver, server)
    port = server.port
    server.close()
    session.connection.close()
    driver.until(lambda: len(said(driver, "market data disconnected")) >= 2, "a second failure")
    assert driver.taken == [None], "a connection that was never there loses nothing"
    assert "refused" in said(driver, "market data disconnected")[1]["reason"]
    assert str(port) in said(driver, "market data disconnected")[1]["reason"]


def test_what_finds_no_room_while_connections_are_compared_waits(server, drive, monkeypatch):
    """Bursts on two groups that switch, each larger than the index: nothing is lost, and the index is kept to."""
    monkeypatch.setattr(r, "INDEX_COUNT", 8)
    monkeypatch.setattr(live_source, "SETTLE_NS", 1 << 60)
    monkeypatch.setattr(live_source, "SWITCH_NS", 1 << 60)
    driver = drive(symbols=["AUSDT", "BUSDT"], streams_per_connection=1)
    opened(driver, server, 2)
    sent = dict.fromkeys(("ausdt", "busdt"), 0)

    def burst():
        for symbol in sent:
            wanted = [trade(number, symbol) for number in range(sent[symbol], sent[symbol] + 30)]
            sent[symbol] += 30
            for session in list(server.sessions):
                if session.streams == [f"{symbol}@trade"]:
                    with contextlib.suppress(ConnectionClosed):  # the old one of a switch that is over
                        for one in wanted:
                            session.send(one)

    def taken(symbol):
        return [one for one in driver.taken if one is not None and symbol.encode() in one]

    for session in list(server.sessions):
        session.send('{"e":"serverShutdown","E":1}')
    driver.until(lambda: all(group.switch is not None for group in driver.source._groups), "two comparisons")
    for settle_ns in (1 << 60, 0, *[0] * 20):
        burst()
        driver.until(lambda: len(driver.taken) >= sum(sent.values()), "all trades")
        monkeypatch.setattr(live_source, "SETTLE_NS", settle_ns)
        if len(said(driver, "market data switched to a new connection")) == 2:
            break
    assert {symbol: taken(symbol) for symbol in sent} == {
        symbol: [trade(number, symbol) for number in range(count)] for symbol, count in sent.items()
    }
    assert [one["overlapping"] for one in said(driver, "market data switched to a new connection")] == [True, True]


def test_all_connections_together_keep_to_the_venues_limit_of_attempts(server, drive, monkeypatch):
    monkeypatch.setattr(live_source, "Pace", partial(Pace, attempts_max=5))
    driver = drive(symbols=["AUSDT", "BUSDT", "CUSDT"], streams_per_connection=1)
    server.close()
    groups = driver.source._groups
    driver.until(
        lambda: all(group.link is None and group.try_ns > time.monotonic_ns() + WINDOW_NS // 2 for group in groups),
        "nobody tries any more",
    )
    assert len(said(driver, "market data disconnected")) == driver.source._attempts == 5


@pytest.mark.parametrize("why", ["age", "restart"])
def test_a_new_connection_takes_over_without_a_gap_and_without_a_repetition(server, drive, why):
    driver = drive(roll_h=0.8 / 3600 if why == "age" else 23)
    first = opened(driver, server)
    number = 0
    if why == "restart":
        first.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
    end = time.monotonic() + 20
    while not said(driver, "market data switched to a new connection"):
        assert time.monotonic() < end, driver.lines
        sessions = list(server.sessions)[:2]
        for session in sessions:
            session.send(trade(number))
        number += 1
        for _ in range(200):
            driver.step()
    for _ in range(5):
        server.sessions[1].send(trade(number))
        number += 1
    driver.until(lambda: trade(number - 1) in driver.taken, "the last trade")
    assert driver.taken == [trade(one) for one in range(number)]
    assert said(driver, "market data switched to a new connection")[0]["overlapping"]


def switching(driver, server, monkeypatch):
    """Have one connection follow another, and hold back the answer to what it asks for; return both sessions."""
    monkeypatch.setattr(connection, "PATH_BYTES", 0)
    monkeypatch.setattr(live_source, "SETTLE_NS", 0)
    first = opened(driver, server)
    server.answer = False
    first.send('{"e":"serverShutdown","E":1}')
    driver.until(lambda: len(server.sessions) == 2 and server.sessions[1].requests, "a request for streams")
    return first, server.sessions[1]


def grant(session):
    session.send(json.dumps({"result": None, "id": session.requests[0][1]["id"]}))


def test_a_stream_that_falls_silent_while_the_new_connection_opens_holds_nothing_up(server, drive, monkeypatch):
    """Its last message came over the old one before the new one was open, and comes over that one afterwards."""
    monkeypatch.setattr(live_source, "SWITCH_NS", 1 << 60)
    driver = drive()
    (group,) = driver.source._groups
    first, second = switching(driver, server, monkeypatch)
    first.send(trade(5))
    driver.until(lambda: trade(5) in driver.taken, "the last trade for now")
    grant(second)
    driver.until(lambda: group.next is None or group.next.is_open, "the new connection open")
    second.send(trade(5))
    driver.until(lambda: said(driver, "market data switched to a new connection"), "the switch")
    second.send(trade(6))
    driver.until(lambda: trade(6) in driver.taken, "the next trade")
    assert driver.taken == [trade(5), trade(6)]


def test_a_new_connection_that_is_far_behind_repeats_nothing_however_long_it_takes(server, drive, monkeypatch):
    monkeypatch.setattr(r, "INDEX_COUNT", 4)
    monkeypatch.setattr(live_source, "SWITCH_NS", 1 << 60)
    driver = drive()
    (group,) = driver.source._groups
    first, second = switching(driver, server, monkeypatch)
    for number in range(60):
        first.send(trade(number))
    driver.until(lambda: trade(59) in driver.taken, "sixty trades")
    grant(second)
    driver.until(lambda: group.next.is_open, "the new connection open")
    for number in range(60):
        second.send(trade(number))
    slow = count(step=live_source.CATCH_UP_NS // 3)  # what each look takes of a machine that is busy elsewhere
    clock = SimpleNamespace(monotonic_ns=lambda: time.monotonic_ns() + next(slow))
    monkeypatch.setattr(live_source, "time", clock)
    driver.until(lambda: said(driver, "market data switched to a new connection"), "the switch")
    second.send(trade(60))
    driver.until(lambda: trade(60) in driver.taken, "the next trade")
    assert driver.taken == [trade(number) for number in range(61)]


def test_only_the_streams_that_do_not_overlap_are_lost(server, drive, monkeypatch):
    driver = drive(symbols=["AUSDT", "BUSDT"])
    first, second = switching(driver, server, monkeypatch)
    monkeypatch.setattr(live_source, "SWITCH_NS", 0)
    lost = []
    driver.take_raw = lambda payload: lost.append(payload) if b"@lost" in payload else None
    first.send(trade(5, "ausdt"))
    driver.until(lambda: trade(5, "ausdt") in driver.taken, "a trade over the old one")
    second.send(trade(5, "ausdt"))
    second.send(trade(9, "busdt"))
    grant(second)
    driver.until(lambda: trade(9, "busdt") in driver.taken, "the switch")
    assert lost == [b'{"stream":"busdt@lost","data":{}}']
    assert driver.taken == [trade(5, "ausdt"), None, trade(9, "busdt")]


def test_a_switch_whose_old_connection_ends_too_early_goes_on_with_the_new_one(server, drive, monkeypatch):
    monkeypatch.setattr(live_source, "SETTLE_NS", 1 << 60)
    monkeypatch.setattr(live_source, "SWITCH_NS", 1 << 60)
    driver = drive()
    first = opened(driver, server)
    first.send(trade(1))
    first.send('{"e":"serverShutdown","E":1}')
    driver.until(lambda: len(server.sessions) == 2, "the second connection")
    driver.until(lambda: driver.source._groups[0].switch is not None, "a comparison")
    first.send(trade(2))
    driver.until(lambda: trade(2) in driver.taken, "what only the old one has said")
    first.connection.socket.shutdown(socket.SHUT_RDWR)
    driver.until(lambda: None in driver.taken, "a loss")
    server.sessions[1].send(trade(7))
    driver.until(lambda: trade(7) in driver.taken, "the new connection's trade")
    assert driver.taken == [trade(1), trade(2), None, trade(7)]


def test_how_the_connections_are_is_shown(server, drive):
    driver = drive()
    session = opened(driver, server)
    shown = driver.source._shown
    assert (shown[live_source.OPEN], shown[live_source.CONNECTS], shown[live_source.LOSSES]) == (1, 1, 0)
    session.connection.close()
    driver.until(lambda: shown[live_source.LOSSES] == 1, "a loss")
    driver.until(lambda: shown[live_source.OPEN] == 1, "open again")
    assert shown[live_source.CONNECTS] == 2


def test_python_is_not_needed_while_market_data_flows(server, drive):
    driver = drive()
    session = opened(driver, server)
    for _ in range(5):
        driver.step()
    for number in range(50):
        session.send(trade(number))
    returns = 0
    while len(driver.taken) < 50:
        driver.step()
        returns += driver.loop[stage.DEADLINE_NS] == 0
    assert returns == 0


SBE = {"encoding": "sbe", "key": "file:x", "stream_url": "ws://localhost:1/sbe", "streams": ("depth", "trade")}


def test_good_configurations_are_accepted():
    assert check(Config()) == []
    assert check(Config(streams=("depth20@100ms", "aggTrade"), stream_url="ws://localhost:1")) == []
    assert check(Config(**SBE)) == []
    assert check(Config(**SBE | {"streams": ("depth20",)})) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stream_url": "https://x"}, 'stream_url: found "https://x", allowed: wss://HOST or ws://HOST'),
        ({"rest_url": "api.binance.com"}, "rest_url: found"),
        ({"streams": ("depht",)}, 'streams: found "depht", allowed with encoding "json": depth, '),
        ({"streams": ("bestBidAsk",)}, 'streams: found "bestBidAsk", allowed with encoding "json": depth, '),
        (SBE | {"streams": ("aggTrade",)}, 'streams: found "aggTrade", allowed with encoding "sbe": depth, depth20, '),
        (SBE | {"streams": ("depth@100ms",)}, 'allowed with encoding "sbe": depth, depth20, trade, bestBidAsk'),
        (SBE | {"streams": ("depth", "depth20")}, "streams: found depth and depth20, allowed: one kind of depth"),
        (SBE | {"key": ""}, 'key: missing, allowed with encoding "sbe": credential:NAME'),
        ({"key": "file:x"}, 'key: found one, allowed: only with encoding "sbe"'),
        ({"stream_url": "ws://x/sbe?streams=y"}, 'stream_url: found "ws://x/sbe?streams=y", allowed: wss://HOST'),
        ({"streams": ("depth", "depth5")}, "streams: found depth and depth5, allowed: one kind of depth"),
        ({"streams": ()}, "streams: found none"),
        ({"streams": ("trade", "trade")}, "one twice"),
        ({"authority": "/no/such/file"}, ""),
    ],
)
def test_bad_configurations_are_refused_in_one_line(options, said):
    if said:
        (line,) = check(Config(**options))
        assert line.startswith(said) or said in line
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        LiveSource(Config(**options), [], None, None)
