"""Vectors E and F of the protocol sheet (section 14): account events in SBE, read by a slow decoder of its tables.

ShrivenQ asks for the account's events in JSON; this shows that the sheet's layouts are right where they are wanted.
"""

from __future__ import annotations

import struct

import pytest

E = bytes.fromhex(
    "19015b020300020000401e18240a060000401e18240a0600f8f80000401e18240a060098d5a5001b4d06004e61bc00000000"
    "00000000000000008010270000000000000060defb7405000000000000000000000000000000000000000000000000000001"
    "0000000000000000000000800000000000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000001000001030101000000000000000080ffffffffffffffff0000000000000080"
    "0000000000000080000000000000000000000000000000800000000000000080000000000000008000000000000000800000"
    "0000000000800000008000000000000000800000000000000080ffffffffff000000000000008007425443555344541b4f2d"
    "32303230303130312d3030303030302d3030302d3030302d3000000000"
)
F = bytes.fromhex(
    "12005f020300020000401e18240a060000401e18240a0600ffff110003000000f800e1f50500000000000000000000000003"
    "425443f81c00000000000000000000000000000003424e42f8005039278c04000000000000000000000455534454"
)
NULLS = {"q": -(1 << 63), "H": 0xFFFF, "B": 0xFF, "i": -(1 << 31), "Q": (1 << 64) - 1}

# The sheet's table: name, offset, struct format, and `?` where a null value stands for none.
REPORT = """
eventTime 0 q · transactTime 8 q · priceExp 16 b · qtyExp 17 b · commissionExp 18 b · orderCreationTime 19 q? ·
workingTime 27 q? · orderId 35 q · orderListId 43 q? · origQty 51 q · price 59 q · origQuoteOrderQty 67 q ·
icebergQty 75 q · stopPrice 83 q · orderType 91 B · side 92 B · tif 93 B · executionType 94 B · orderStatus 95 B ·
tradeId 96 q? · executionId 104 q · executedQty 112 q · cumQuote 120 q · lastQty 128 q · lastPrice 136 q ·
quoteQty 144 q · commission 152 q · isWorking 160 B · isMaker 161 B · isBestMatch 162 B · matchType 163 B ·
stpMode 164 B · capacity 165 B · floor 166 B · usedSor 167 B · allocId 168 q? · trailingDelta 176 Q? ·
trailingTime 184 q? · tradeGroupId 192 q? · preventedQty 200 q · lastPreventedQty 208 q? · preventedMatchId 216 q? ·
preventedExecQty 224 q? · preventedExecPrice 232 q? · preventedExecQuote 240 q? · strategyType 248 i? ·
strategyId 252 q? · counterOrderId 260 q? · subscriptionId 268 H? · pegPriceType 270 B? · pegOffsetType 271 B? ·
pegOffsetValue 272 B? · peggedPrice 273 q? · expiryReason 281 B?
"""
REPORT_TEXTS = ("symbol", "clientOrderId", "origClientOrderId", "commissionAsset", "rejectReason", "counterSymbol")
POSITION = "eventTime 0 q · updateTime 8 q · subscriptionId 16 H?"
BALANCE = "exponent 0 b · free 1 q · locked 9 q"


def read_block(data, table):
    """Read the fields that the block is long enough for."""
    found = {}
    for field in table.split("·"):
        name, offset, kind = field.split()
        if int(offset) + struct.calcsize(f"<{kind[0]}") <= len(data):
            (value,) = struct.unpack_from(f"<{kind[0]}", data, int(offset))
            found[name] = None if kind.endswith("?") and value == NULLS[kind[0]] else value
    return found


def read_text(data, at):
    """Read a varString8; return it and where it ends."""
    stop = at + 1 + data[at]
    if stop > len(data):
        raise ValueError("a text is cut short")
    return data[at + 1 : stop].decode(), stop


def read_event(data):
    """Read an account event: its template, its fields, and where it ends. Raises ValueError for one cut short."""
    try:
        block, template, schema, _ = struct.unpack_from("<4H", data)
        at = 8 + block
        if schema != 3 or at > len(data):
            raise ValueError("of another schema, or cut short")
        if template == 603:
            found = read_block(data[8:at], REPORT)
            for name in REPORT_TEXTS:
                found[name], at = read_text(data, at)
            return template, found, at
        found = read_block(data[8:at], POSITION) | {"balances": []}
        size, count = struct.unpack_from("<HI", data, at)
        at += 6
        for _ in range(count):
            balance = read_block(data[at : at + size], BALANCE)
            balance["asset"], at = read_text(data, at + size)
            found["balances"].append(balance)
    except (struct.error, IndexError) as error:
        raise ValueError("cut short") from error
    return template, found, at


def test_vector_e_is_a_new_order():
    template, found, end = read_event(E)
    assert (template, end) == (603, len(E)) == (603, 329)
    wanted = {
        "eventTime": 1_700_000_000_000_000,
        "priceExp": -8,
        "qtyExp": -8,
        "commissionExp": 0,
        "orderId": 12_345_678,
        "orderListId": None,
        "origQty": 10_000,
        "price": 60_000 * 10**8,
        "orderType": 1,
        "side": 0,
        "tif": 0,
        "executionType": 0,
        "orderStatus": 0,
        "tradeId": None,
        "isWorking": 1,
        "subscriptionId": None,
        "symbol": "BTCUSDT",
        "clientOrderId": "O-20200101-000000-000-000-0",
        "origClientOrderId": "",
        "commissionAsset": "",
        "rejectReason": "",
        "counterSymbol": "",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert "expiryReason" not in found, "the block of this version ends before it"


def test_vector_f_is_three_balances():
    template, found, end = read_event(F)
    assert (template, end) == (607, len(F)) == (607, 96)
    assert (found["eventTime"], found["subscriptionId"]) == (1_700_000_000_000_000, None)
    assert found["balances"] == [
        {"exponent": -8, "free": 10**8, "locked": 0, "asset": "BTC"},
        {"exponent": -8, "free": 28, "locked": 0, "asset": "BNB"},
        {"exponent": -8, "free": 50_000 * 10**8, "locked": 0, "asset": "USDT"},
    ]


@pytest.mark.parametrize("vector", [E, F], ids=["E", "F"])
def test_cut_short_at_any_byte_it_is_refused(vector):
    for size in range(len(vector)):
        with pytest.raises(ValueError, match="cut short"):
            read_event(vector[:size])
