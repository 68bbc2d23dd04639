"""Live market data from a venue that goes wrong, over sockets: held or invalid meanwhile, and right again later."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from shrivenq.pipeline import live_key, rest
from shrivenq.pipeline.exchange.faults import Rule, Script
from shrivenq.pipeline.instruments import read_instruments
from shrivenq.pipeline.rest import Side
from shrivenq.pipeline.venue_symbols import Rules
from shrivenq.shm import byte_ring
from shrivenq.stages import book_sync, control, market_data_state
from shrivenq.stages.live import source
from tests.pipeline.exchange.exchange_rig import FLOWING, OTHER, TRADER, running
from tests.pipeline.feed_rig import check_against_quotes, levels_of, stack_of
from tests.pipeline.pipeline_rig import rules
from tests.pipeline.test_live_key import KEY
from tests.stages.market_rig import Log


@pytest.fixture
def venue(tmp_path):
    with running(tmp_path, market=FLOWING) as rig:
        yield rig


def said(stack, event):
    return [fields for found, fields in stack.rig.log.lines + stack.side.log.lines if found == event]


def arm(venue, *rules, seed=0):
    venue.call(lambda: venue.simulator.faults.arm(Script([Rule(**rule) for rule in rules], seed)))


def comes_right(stack, venue, symbols=("BTCUSDT",)):
    """With the market standing still, every book becomes what the venue has."""
    venue.call(lambda: setattr(venue.venue.engine, "advance", lambda _now_us: None))
    for row, symbol in enumerate(symbols):
        last = venue.call(lambda symbol=symbol: venue.venue.engine.depth(symbol, 5000))
        state = stack.book.state(row)
        stack.until(
            lambda state=state, last=last: (
                state["status"] == book_sync.LIVE and state["update_id"] >= last.last_update_id
            ),
            f"the last update of {symbol}",
        )
        for found, wanted in zip(levels_of(stack, row), (last.bids, last.asks), strict=True):
            assert found[:100] == [tuple(one) for one in wanted[:100]], symbol


@pytest.mark.parametrize("encoding", ["json", "sbe"])
def test_of_two_connections_one_is_lost_and_the_other_s_book_lives_on(venue, encoding):
    symbols = (b"BTCUSDT", b"ETHUSDT")
    with stack_of(venue, encoding, symbols=symbols, streams_per_connection=3) as stack:
        states = [stack.book.state(row) for row in range(2)]
        stack.until(lambda: all(one["status"] == book_sync.LIVE for one in states), "two valid books")
        stack.source._groups[1].link._transport._socket.shutdown(2)
        stack.until(lambda: states[1]["status"] != book_sync.LIVE, "an invalid book")
        assert states[0]["status"] == book_sync.LIVE
        stack.until(lambda: states[1]["status"] == book_sync.LIVE, "both valid again")
        assert [int(one["losses"]) for one in states] == [0, 1]
        assert [int(one["snapshots"]) for one in states] == [1, 2]
        comes_right(stack, venue, ("BTCUSDT", "ETHUSDT"))


@pytest.mark.parametrize(("encoding", "seed"), [("json", 1), ("sbe", 2)])
def test_whatever_happens_to_frames_the_book_comes_right(venue, encoding, seed):
    with stack_of(venue, encoding) as stack:
        stack.until(lambda: stack.valid() >= 3, "valid books")
        streams = {"on": "market", "name": "*"}
        arm(
            venue,
            {**streams, "action": "drop", "probability": 0.03},
            {**streams, "action": "duplicate", "probability": 0.05},
            {**streams, "action": "reorder", "probability": 0.05},
            {**streams, "action": "garbage", "probability": 0.05},
            {**streams, "action": "giant", "size": 5000, "probability": 0.02},
            {**streams, "action": "disconnect", "probability": 0.004},
            {"on": "request", "name": "depth", "action": "error_not_placed", "probability": 0.3},
            {"on": "request", "name": "depth", "action": "stale_snapshot", "probability": 0.3},
            {"on": "request", "name": "exchangeInfo", "action": "drop", "probability": 0.5},
            seed=seed,
        )
        state = stack.book.state()
        before = int(stack.rig.words[market_data_state.NUMBER])
        stack.until(
            lambda: stack.rig.words[market_data_state.NUMBER] > before + 600 and state["gaps"] + state["losses"] >= 2,
            "six hundred frames and two resynchronisations",
        )
        arm(venue)
        comes_right(stack, venue)
        assert all(fields["reason"].isprintable() for fields in said(stack, "frame refused"))


def test_a_refused_key_is_told_until_it_is_replaced(venue, tmp_path):
    path = tmp_path / "data-key"

    def write(api_key, extra=""):
        path.write_text(extra + KEY.format(environment="simulator", purpose="data").replace("EXAMPLEKEY", api_key))
        path.chmod(0o600)

    write(OTHER)  # an HMAC key, at the venue
    options = {"encoding": "sbe", "key": f"file:{path}", "stream_url": f"{venue.ws}/sbe", "streams": ("depth",)}
    read_key = live_key.DataKey(source.Config(**options))
    with stack_of(venue, **options, shared={"api_key": read_key}) as stack:
        refused = "the venue answers HTTP 401 to the handshake: "
        stack.until(lambda: said(stack, "market data disconnected"), "a refusal")
        line = said(stack, "market data disconnected")[0]["reason"]
        assert line == refused + '{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'
        assert stack.shown[source.OPEN] == stack.shown[source.LOSSES] == stack.valid() == 0
        write(TRADER, "expires = 2020-01-01\n")
        stack.until(lambda: "expired" in str(stack.rig.log.lines), "an expired key")
        write(TRADER)
        stack.until(lambda: stack.valid() >= 2, "valid books")
        assert TRADER not in str(stack.rig.log.lines)
        assert OTHER not in str(stack.rig.log.lines)


def test_a_symbol_that_halts_or_changes_its_filters_is_held_and_let_go(venue, tmp_path):
    with stack_of(venue, exchange_info_s=0.1, symbols=(b"BTCUSDT", b"ETHUSDT")) as stack:
        tables, _ = read_instruments(tmp_path / "instruments.toml", ["BTCUSDT", "ETHUSDT"])
        own = Rules(tables, rules().risk)
        stack.side._watch.rules = rest._check(stack.requests, own, stack.rig.log)
        engine, hold = venue.venue.engine, stack.side.instrument_hold
        stack.until(lambda: stack.valid() >= 1 and stack.side._watch.is_known, "valid books")
        assert not hold.any()
        venue.call(lambda: engine.set_status("BTCUSDT", "HALT"))
        stack.until(lambda: hold[0] == control.NOT_TRADING, "held")
        venue.call(lambda: engine.set_status("BTCUSDT", "TRADING"))
        stack.until(lambda: not hold[0], "let go")
        symbol = engine.symbols["BTCUSDT"]
        stricter = msgspec.structs.replace(symbol, quantity_max=symbol.quantity_max // 2)
        venue.call(lambda: engine.symbols.__setitem__("BTCUSDT", stricter))
        stack.until(lambda: hold[0] == control.OTHER_RULES, "held for a stricter filter")
        venue.call(lambda: engine.symbols.__setitem__("BTCUSDT", symbol))
        stack.until(lambda: not hold[0], "let go again")
        assert not hold[1]
        lines = [fields["what"] for fields in said(stack, "held: symbol not as at the start")]
        assert lines[0] == "BTCUSDT: status HALT, orders only in TRADING"
        assert lines[-1].startswith("BTCUSDT: quantity_max is ")
        assert stack.book.state()["losses"] == 0, "the book goes on meanwhile"


def test_a_rest_process_that_begins_anew_brings_the_book_back(venue):
    with stack_of(venue) as stack:
        stack.until(lambda: stack.valid() >= 2, "valid books")
        # The old one is gone, half-way through a snapshot; meanwhile a connection is lost.
        side, out = stack.side, stack.side.ring
        byte_ring.reserve(out, 1, 10_000, 0)
        stack.side = None
        stack.source._groups[0].link._transport._socket.shutdown(2)
        stack.until(lambda: stack.book.state()["status"] == book_sync.INVALID, "an invalid book")
        stack.until(lambda: stack.streaming[0], "streams again")
        count = stack.valid()
        for _ in range(200):
            stack.turn()
        assert stack.valid() == count, "without snapshots nothing is valid"
        rest._forget(out)
        fields = ("config", "rules", "requests", "ring", "resync", "streaming", "away", "words", "hold")
        stack.side = Side(*(getattr(side, name) for name in (*fields, "instrument_hold", "log")))
        stack.until(lambda: stack.valid() > count + 3, "valid books again")
        assert check_against_quotes(np.concatenate(stack.books)) >= 3
        comes_right(stack, venue)


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>sorry</html>",
        b'{"result":null,"id":1}',
        b'{"lastUpdateId":5,"bids":[["1"]],"asks":[]}',
        b"",
        b"\xff\x00",
    ],
)
def test_a_snapshot_that_is_none_is_asked_for_again(venue, garbage):
    class Client:
        def __init__(self, client):
            self.client, self.answers = client, [garbage] * 2

        def get(self, target):
            found = self.client.get(target)
            return (200, {}, self.answers.pop()) if "depth?" in target and self.answers else found

    with stack_of(venue) as stack:
        stack.requests.client = client = Client(stack.requests.client)
        stack.until(lambda: stack.valid() >= 2, "valid books")
        assert not client.answers
        assert stack.book.state()["losses"] == 2, "each said that it is lost"
        comes_right(stack, venue)


def test_a_symbol_the_venue_has_none_of_refuses_the_start(venue, tmp_path):
    tables, _ = read_instruments(tmp_path / "instruments.toml", ["BTCUSDT", "ETHUSDT"])
    tables.instruments["symbol"][1] = b"NOSUCHUSDT"
    with pytest.raises(rest.RestError, match=r"^NOSUCHUSDT: the venue answers HTTP 400: Invalid symbol. \(-1121\)$"):
        rest.check_instruments(source.Config(rest_url=venue.rest), Rules(tables, rules().risk), Log())
