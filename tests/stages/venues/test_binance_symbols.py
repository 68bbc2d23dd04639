"""Names are told apart, whatever their length and whatever lies behind them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shrivenq.stages.messages import TICK
from shrivenq.stages.venues.binance import decode
from shrivenq.stages.venues.binance_slow import Refused, decode_slow
from shrivenq.stages.venues.binance_symbols import QUOTE_MARK, find, make_symbols
from shrivenq.stages.venues.text import PADDING
from tests.stages.venues.captures import make_instruments
from tests.stages.venues.test_binance import SPOT_DEPTH, SPOT_SNAPSHOT, SPOT_TRADE


def test_names_are_found_as_a_dictionary_finds_them():
    seed = 7
    rng = random.Random(seed)
    names = sorted({"".join(rng.choices("AB1_", k=rng.randint(1, 16))) for _ in range(400)})
    known = {name: row for row, name in enumerate(names) if rng.random() < 0.5}
    instruments = np.repeat(make_instruments("spot"), len(names))
    instruments["symbol"] = [name.encode() for name in names]
    symbols = make_symbols(instruments, rows=known.values())
    for name in [*names, "", "A" * 17, *(name[:-1] for name in names), *(name + "A" for name in names)]:
        for is_upper, end in ((True, QUOTE_MARK), (False, ord("@"))):
            text = (name if is_upper else name.lower()).encode() + bytes([end])
            for behind in (b"\0", b"A", text[-1:], b"\xff"):
                data = np.frombuffer(text + behind * PADDING, np.uint8)
                assert find(data, 0, end, symbols, is_upper) == known.get(name, -1), (seed, name, behind)


def test_an_empty_symbol_is_refused():
    instruments = np.repeat(make_instruments("spot"), 2)
    instruments[1]["symbol"] = b""
    with pytest.raises(ValueError, match=r"^instrument 1: symbol '' is empty"):
        make_symbols(instruments)


def test_a_thousand_symbols_are_told_apart():
    names = [
        f"{a}{b}{c}{quote}"
        for a in "ABCDEFG"
        for b in "OPQRST"
        for c in "XYZ12"
        for quote in ("USDT", "BTC", "USD_PERP", "FDUSD", "USDC", "ETH")
    ]
    instruments = np.repeat(make_instruments("spot"), len(names))
    instruments["symbol"] = [name.encode() for name in names]
    symbols = make_symbols(instruments)
    target = np.zeros(64, TICK)
    for row, name in enumerate(names):
        for frame in (SPOT_DEPTH, SPOT_TRADE):
            named = frame.replace(b"BTCUSDT", name.encode()).replace(b"btcusdt", name.lower().encode())
            bytes_ = np.frombuffer(named + bytes(PADDING), np.uint8)
            assert decode(bytes_, 0, len(named), symbols, instruments, target, 0, 0) > 0
            assert target[0]["instrument"] == row


def test_the_stream_and_the_data_must_name_the_same_instrument():
    instruments = np.repeat(make_instruments("spot"), 2)
    instruments[1]["symbol"] = b"ETHUSDT"
    symbols = make_symbols(instruments)
    frame = SPOT_DEPTH.replace(b"BTCUSDT", b"ETHUSDT")
    bytes_ = np.frombuffer(frame + bytes(PADDING), np.uint8)
    assert decode(bytes_, 0, len(frame), symbols, instruments, np.zeros(64, TICK), 0, 0) == 0
    with pytest.raises(Refused, match="not the stream's symbol"):
        decode_slow(frame, symbols, instruments, np.zeros(64, TICK), 0, 0)


def test_a_snapshot_without_symbol_belongs_to_the_instrument_named_for_it():
    instruments = np.repeat(make_instruments("spot"), 2)
    instruments[1]["symbol"] = b"ETHUSDT"
    bytes_ = np.frombuffer(SPOT_SNAPSHOT + bytes(PADDING), np.uint8)
    target = np.zeros(64, TICK)
    for row in range(2):
        symbols = make_symbols(instruments, snapshot_instrument=row)
        assert decode(bytes_, 0, len(SPOT_SNAPSHOT), symbols, instruments, target, 0, 0) == 3
        assert set(target[:3]["instrument"]) == {row}


def test_one_symbol_cannot_stand_for_two_rows_of_a_source():
    instruments = np.repeat(make_instruments("spot"), 2)
    with pytest.raises(ValueError, match="taken by another row"):
        make_symbols(instruments)
    assert make_symbols(instruments, rows=[1]).snapshot_row[0] == 1
