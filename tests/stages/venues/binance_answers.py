"""Frames as the venue spells them, for tests of what reads them."""

from __future__ import annotations

import json

import numpy as np

from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.binance_events_slow import Refused
from shrivenq.stages.venues.binance_reports import PADDING, scan
from shrivenq.stages.venues.binance_reports_slow import decode_slow
from shrivenq.stages.venues.request_ids import KINDS

RUN = b"a1b2c3d4"
OWN, OTHER, REQUEST = 3 << 40 | 7, 3 << 40 | 8, 3 << 40 | 9
TIME = 1499405658657


def make_instruments():
    instruments = np.zeros(3, m.INSTRUMENT)
    for row, symbol in enumerate((b"BTCUSDT", b"ETHBTC", b"LTCUSDT")):
        instruments[row]["symbol"] = symbol
        instruments[row]["price_decimals"], instruments[row]["quantity_decimals"] = (8 if row == 1 else 2), 8
        instruments[row]["base_currency"], instruments[row]["quote_currency"] = row, 3
        instruments[row]["settle_currency"] = 3
    return instruments


def make_currencies():
    currencies = np.zeros(5, m.CURRENCY)
    for row, (code, decimals) in enumerate(((b"BTC", 8), (b"ETH", 8), (b"LTC", 8), (b"USDT", 6), (b"LONGCODE", 4))):
        currencies[row]["code"], currencies[row]["decimals"] = code, decimals
    return currencies


ANSWERS = a.make_answers(make_instruments(), make_currencies(), np.frombuffer(RUN, np.uint8))


def spelled(order_id, run=RUN):
    return m.client_order_id(run, order_id).decode()


def padded(frame):
    return np.frombuffer(frame + b'"' * PADDING, np.uint8)


def fast(frame, answers=ANSWERS):
    """What the scanner makes of a frame: rows and notes, or None."""
    reports, notes = np.zeros(1, m.REPORT), np.zeros(16, a.NOTE)
    rows, count = scan(padded(frame), 0, len(frame), answers, reports, notes)
    return None if rows < 0 else (reports[:rows], notes[:count])


def slow(frame, answers=ANSWERS):
    """What the slow path makes of it: rows, notes and complaint, or None."""
    reports, notes = np.zeros(a.REPORTS_MAX, m.REPORT), np.zeros(a.NOTES_MAX, a.NOTE)
    try:
        rows, count, complaint = decode_slow(frame, answers, reports, notes)
    except Refused as refused:
        rows, count, complaint = -1, 0, str(refused)
    assert "\n" not in complaint
    if rows < 0:
        return None
    return reports[:rows], notes[:count], complaint


def agree(frame):
    """Read a frame both ways: what is recognised is what the slow path says, without complaint. Give the rows."""
    found, expected = fast(frame), slow(frame)
    if found is None:
        return None
    assert expected is not None, frame
    rows, notes, complaint = expected
    assert complaint == "", frame
    assert [list(one) for one in found] == [list(rows), list(notes)], frame
    return found


def compact(message):
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


EXECUTION = {
    "e": "executionReport", "E": 1499405658658, "s": "ETHBTC", "c": spelled(OWN), "S": "BUY", "o": "LIMIT", "f": "GTC",
    "q": "1.00000000", "p": "0.10264410", "P": "0.00000000", "F": "0.00000000", "g": -1, "C": "", "x": "NEW",
    "X": "NEW", "r": "NONE", "i": 4293153, "l": "0.00000000", "z": "0.00000000", "L": "0.00000000", "n": "0", "N": None,
    "T": TIME, "t": -1, "I": 8641984, "w": True, "m": False, "M": False, "O": TIME, "Z": "0.00000000",
    "Y": "0.00000000", "Q": "0.00000000", "W": TIME, "V": "NONE",
}  # fmt: skip
TRADE = {
    "x": "TRADE", "X": "PARTIALLY_FILLED", "l": "0.25000000", "z": "0.50000000", "L": "0.10264000", "n": "0.00002500",
    "N": "ETH", "t": 77, "m": True,
}  # fmt: skip


def event(change=None, base=EXECUTION):
    return compact({"subscriptionId": 0, "event": {**base, **(change or {})}})


POSITION = {
    "e": "outboundAccountPosition", "E": TIME, "u": TIME, "B": [
        {"a": "ETH", "f": "10000.000000", "l": "0.5"}, {"a": "BNB", "f": "1.5", "l": "0"},
        {"a": "LONGCODE", "f": "0.1234", "l": "0.00000000"},
    ],
}  # fmt: skip

RATES = [
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 50, "count": 12},
    {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 160000, "count": 4043},
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000, "count": 321},
]


def named(kind, order_id=REQUEST, target_id=OWN, instrument=0):
    return f"{KINDS[kind]}{instrument:03x}{order_id:016x}{target_id:016x}"


def answer(kind, *, result=None, status=200, code=None, text="", data=None, rates=RATES, **ids):
    message = {"id": named(kind, **ids), "status": status}
    if code is None:
        message["result"] = result
    else:
        message["error"] = {"code": code, "msg": text, **({"data": data} if data is not None else {})}
    return compact({**message, **({"rateLimits": rates} if rates is not None else {})})


def placed(order_id=REQUEST):
    return {
        "symbol": "BTCUSDT", "orderId": 12569099453, "orderListId": -1, "clientOrderId": spelled(order_id),
        "transactTime": 1660801715639,
    }  # fmt: skip


def gone(order_id=OWN):
    return {
        "symbol": "BTCUSDT", "origClientOrderId": spelled(order_id), "orderId": 12569099453, "orderListId": -1,
        "clientOrderId": spelled(REQUEST), "transactTime": 1684804350068, "price": "23416.10000000",
        "origQty": "0.00847000", "executedQty": "0.00100000", "origQuoteOrderQty": "0.000000",
        "cummulativeQuoteQty": "23.41610000", "status": "CANCELED", "timeInForce": "GTC", "type": "LIMIT",
        "side": "SELL", "selfTradePreventionMode": "NONE",
    }  # fmt: skip


def replaced():
    return {
        "cancelResult": "SUCCESS", "newOrderResult": "SUCCESS", "cancelResponse": gone(), "newOrderResponse": placed(),
    }  # fmt: skip


FRAMES = {
    "new": event(),
    "trade": event(TRADE),
    "last trade": event({**TRADE, "X": "FILLED", "z": "1.00000000", "N": None, "n": "0"}),
    "canceled": event({"x": "CANCELED", "X": "CANCELED", "c": spelled(REQUEST), "C": spelled(OWN)}),
    "expired": event({"x": "EXPIRED", "X": "EXPIRED", "f": "IOC", "eR": "UNFILLED_IOC_QUANTITY_EXPIRED"}),
    "rejected": event({"x": "REJECTED", "X": "REJECTED", "r": "INSUFFICIENT_BALANCES"}),
    "amended": event({"x": "REPLACED", "C": spelled(OWN), "q": "0.5"}),
    "prevented": event({"x": "TRADE_PREVENTION", "X": "EXPIRED_IN_MATCH", "v": 3, "A": "1.0", "B": "1.0", "u": 1}),
    "position": event(base=POSITION),
    "ended": event(base={"e": "eventStreamTerminated", "E": TIME}),
    "shutdown": compact({"event": {"e": "serverShutdown", "E": TIME}}),
    "placed": answer(m.NEW, result=placed(), target_id=0),
    "cancelled": answer(m.CANCEL, result=gone()),
    "replaced": answer(m.REPLACE, result=replaced()),
    "refused": answer(m.NEW, status=400, code=-2010, text="Account has insufficient balance for requested action."),
    "not there": answer(m.CANCEL, status=400, code=-2011, text="Unknown order sent.", rates=None),
    "timeout": answer(m.NEW, status=504, code=-1007, text="Timeout waiting for response from backend server."),
}
"""What the scanner must know, in the venue's own spelling."""
