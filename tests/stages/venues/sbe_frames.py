"""SBE frames built field by field, and the protocol sheet's vectors."""

from __future__ import annotations

import struct

from shrivenq.stages.venues.binance_sbe import BEST, DEPTH, DEPTH20, TRADES

VECTORS = {
    "trades": bytes.fromhex(
        "12001027010000004082423dce4906000882423dce490600fefb190002000000414b4c00000000006cf5900000000000f049020000000000"
        "01424b4c00000000006df5900000000000c409000000000000000742544355534454"
    ),
    "best": bytes.fromhex(
        "32001127010000004082423dce49060001c28eed11000000fefb6cf5900000000000f0490200000000006df5900000000000c40900000000"
        "00000742544355534454"
    ),
    "depth20": bytes.fromhex(
        "12001227010000004082423dce49060001c28eed11000000fefb100001006cf5900000000000f049020000000000100001006df590000000"
        "0000c4090000000000000742544355534454"
    ),
    "depth": bytes.fromhex(
        "1a001327010000004082423dce49060002c28eed1100000005c28eed11000000fefb100002006cf590000000000000000000000000006bf5"
        "900000000000581b000000000000100000000742544355534454"
    ),
}
EVENT_US, TRANSACT_US = 1_770_000_000_123_456, 1_770_000_000_123_400


def message(template, root, rest, *, longer=0, schema=1, version=0):
    """A header, the root block with `longer` unknown bytes at its end, and what follows it."""
    block = root + b"\xee" * longer
    return struct.pack("<HHHH", len(block), template, schema, version) + block + rest


def group(dimension, entries, *, longer=0, size=None, count=None):
    """A repeating group; `size` and `count` are what it says of itself where that is not the truth."""
    entries = [entry + b"\xee" * longer for entry in entries]
    size = (len(entries[0]) if entries else 0) if size is None else size
    return struct.pack(dimension, size, len(entries) if count is None else count) + b"".join(entries)


def name_of(symbol):
    return bytes([len(symbol)]) + symbol


def levels(pairs, **lie):
    return group("<HH", [struct.pack("<qq", *pair) for pair in pairs], **lie)


def trades(rows, *, exponents=(-2, -5), symbol=b"BTCUSDT", event_us=EVENT_US, longer=0, **lie):
    """Rows are (id, price, quantity, is_buyer_maker)."""
    root = struct.pack("<qqbb", event_us, TRANSACT_US, *exponents)
    entries = group("<HI", [struct.pack("<qqqB", *row) for row in rows], longer=longer, **lie)
    return message(TRADES, root, entries + name_of(symbol), longer=longer)


def best(update_id, bid, ask, *, exponents=(-2, -5), symbol=b"BTCUSDT", event_us=EVENT_US, longer=0):
    root = struct.pack("<qqbbqqqq", event_us, update_id, *exponents, *bid, *ask)
    return message(BEST, root, name_of(symbol), longer=longer)


def depth20(update_id, bids, asks, *, exponents=(-2, -5), symbol=b"BTCUSDT", event_us=EVENT_US, longer=0):
    root = struct.pack("<qqbb", event_us, update_id, *exponents)
    sides = levels(bids, longer=longer) + levels(asks, longer=longer)
    return message(DEPTH20, root, sides + name_of(symbol), longer=longer)


def depth(first_id, last_id, bids, asks, *, exponents=(-2, -5), symbol=b"BTCUSDT", event_us=EVENT_US, longer=0, **lie):
    root = struct.pack("<qqqbb", event_us, first_id, last_id, *exponents)
    sides = levels(bids, longer=longer, **lie) + levels(asks, longer=longer)
    return message(DEPTH, root, sides + name_of(symbol), longer=longer)
