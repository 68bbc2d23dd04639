"""The captured Binance frames, and the instruments they speak of, for the codec's tests and benchmark."""

from __future__ import annotations

import gzip

import numpy as np

from shrivenq.stages.messages import INSTRUMENT

MARKETS = {
    "spot": (b"BTCUSDT", 2, 8, 0),
    "usdm": (b"BTCUSDT", 2, 3, 1),
    "cm": (b"BTCUSD_PERP", 1, 0, 1),
}


def make_instruments(market):
    """One INSTRUMENT row with what a codec reads of it."""
    instruments = np.zeros(1, INSTRUMENT)
    symbol, price_decimals, quantity_decimals, futures = MARKETS[market]
    instruments[0]["symbol"], instruments[0]["futures"] = symbol, futures
    instruments[0]["price_decimals"], instruments[0]["quantity_decimals"] = price_decimals, quantity_decimals
    return instruments


def read_frames(data, market):
    """Every frame of a market's captures, without the receive time."""
    frames = []
    for path in sorted((data / "binance" / market).glob("*.gz")):
        with gzip.open(path) as lines:
            frames.extend(line.rstrip(b"\n").partition(b" ")[2] for line in lines)
    return frames
