"""FIX messages as the venue spells them, and a slow reader of what they mean."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np

from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import fix
from shrivenq.stages.venues.binance_reports_slow import _is_definite, _reason
from shrivenq.stages.venues.fix_reports import frame, scan
from tests.stages.venues.binance_answers import ANSWERS, OWN, REQUEST, make_currencies, make_instruments, spelled

SOH = b"\x01"
INSTRUMENTS, CURRENCIES = make_instruments(), make_currencies()
SYMBOLS = [bytes(row["symbol"]).decode() for row in INSTRUMENTS]
CODES = [bytes(row["code"]).decode() for row in CURRENCIES]
NOW = 1719487045223 * 10**6


def message(*fields, sequence=1):
    """Build a whole message; `fields` begin with the type."""
    (kind, *rest) = fields
    head = [(35, kind), (34, sequence), (49, "SPOT"), (52, "20240627-11:17:25.223456"), (56, "EXAMPLE")]
    return whole(b"".join(f"{tag}={value}".encode() + SOH for tag, value in [*head, *rest]))


def whole(body):
    text = b"8=FIX.4.4" + SOH + b"9=%d" % len(body) + SOH + body
    return text + b"10=%03d" % (sum(text) % 256) + SOH


def make_session():
    session = fix.make_session("EXAMPLE", 30)
    for kind, order_id, target_id in ((m.NEW, OWN, 0), (m.CANCEL, REQUEST, OWN), (m.CANCEL_ALL, REQUEST, 0)):
        sequence = int(session.words[fix.NEXT_OUT])
        session.sent[sequence] = (sequence, order_id, target_id, kind, 1)
        session.words[fix.NEXT_OUT] += 1
    return session


def fast(text, session=None, sequence=1):
    """What the scanner makes of a message: rows and notes, or None."""
    session = session or make_session()
    session.words[fix.NEXT_IN] = sequence
    data = np.frombuffer(text + b"\x01" * 64, np.uint8)
    if frame(data, 0, len(text)) != len(text):
        return None
    reports, notes = np.zeros(1, m.REPORT), np.zeros(1, a.NOTE)
    rows, count = scan(data, 0, len(text), ANSWERS, session, NOW, reports, notes)
    assert bool(session.words[fix.BROKEN]) == (rows < 0)
    return None if rows < 0 else (reports[:rows], notes[:count])


EXECUTION = (
    (17, 5), (11, spelled(OWN)), (37, 76), (38, "1.5"), (40, 2), (54, 1), (55, "ETHBTC"), (44, "0.1"), (59, 1),
    (60, "20240627-11:17:25.223456"), (150, 0), (39, 0), (14, "0.0"), (151, "1.5"), (25017, "0.0"), (1057, "Y"),
)  # fmt: skip


def execution(**changes):
    """An ExecutionReport with fields changed (`_150="F"`), added, or removed (None)."""
    fields = dict(EXECUTION)
    for name, value in changes.items():
        fields[int(name[1:])] = value
    return ("8", *[(tag, value) for tag, value in fields.items() if value is not None])


TRADE = {
    "_150": "F", "_39": 1, "_14": "0.5", "_151": "1.0", "_31": "0.1", "_32": "0.25", "_1003": 9, "_136": 1,
    "_137": "0.00025", "_138": "ETH", "_139": 4, "_1057": "N",
}  # fmt: skip

MESSAGES = {
    "new": message(*execution()),
    "trade": message(*execution(**TRADE)),
    "filled": message(*execution(**{**TRADE, "_39": 2, "_14": "1.5", "_151": "0"})),
    "cancelled": message(*execution(_150=4, _39=4, _11=spelled(REQUEST), _41=spelled(OWN), _151="0")),
    "amended": message(*execution(_150=5, _38="1.0", _151="1.0", _41=spelled(OWN))),
    "expired": message(*execution(_150="C", _39="C", _151="0", _59=3, _25056=5)),
    "self-trade": message(*execution(_150="C", _39="C", _151="0", _25024=0, _25030="1.5", _25031="1.5")),
    "partly prevented": message(*execution(_150=5, _151="1.0", _25024=0, _25030="0.5", _25031="0.5")),
    "refused": message(*execution(_150=8, _39=8, _17=None, _25016=-2010, _58="Market is closed.")),
    "unknown": message(*execution(_150=8, _39=8, _17=None, _25016=-1007, _58="Timeout.")),
    "not cancelled": message(
        "9", (11, spelled(REQUEST)), (41, spelled(OWN)), (55, "ETHBTC"), (25016, -2011), (58, "Unknown order sent.")
    ),
    "not amended": message("XAR", (11, spelled(OWN)), (41, spelled(OWN)), (55, "ETHBTC"), (25016, -2038), (58, "No.")),
    "reject": message("3", (45, 3), (371, 38), (372, "F"), (373, 5), (25016, -1100), (58, "Bad.")),
    "mass": message("r", (11, spelled(REQUEST)), (55, "ETHBTC"), (530, 1), (531, 1), (533, 3)),
    "heartbeat": message("0", (112, "7")),
    "test": message("1", (112, "hello")),
    "logout": message("5", (58, "Bye.")),
    "news": message("B", (148, "Your connection is about to be closed. Please reconnect.")),
    "logon": message("A", (98, 0), (108, 30), (25037, "x")),
}  # fmt: skip
"""What the scanner must know."""


# ── the slow reader ──────────────────────────────────────────────────────────────────────────────────────────────────


class Nonsense(Exception):  # noqa: N818
    """What makes no sense."""


def split(text, sequence):
    """Take a message apart, checking all that its frame promises."""
    found = re.fullmatch(rb"8=FIX\.4\.4\x019=([0-9]{1,4})\x01(.*)10=([0-9]{3})\x01", text, re.DOTALL)
    if not found or len(found[2]) != int(found[1]) or int(found[3]) != sum(text[:-7]) % 256:
        raise Nonsense
    fields = {}
    for part in found[2].split(SOH)[:-1]:
        field = re.fullmatch(rb"([1-9][0-9]{0,4})=(.+)", part, re.DOTALL)
        if not field:
            raise Nonsense
        if int(field[1]) in fields and int(field[1]) in KNOWN:
            raise Nonsense
        fields[int(field[1])] = field[2].decode("latin-1")
    if not found[2].endswith(SOH) or 35 not in fields or integer(fields, 34) != sequence:
        raise Nonsense
    return fields


KNOWN = {
    35, 34, 11, 41, 37, 38, 40, 54, 55, 44, 59, 60, 150, 39, 14, 151, 1057, 1003, 31, 32, 25016, 58, 136, 137, 138, 112,
    531, 533, 45, 25056, 25030, 25031,
}  # fmt: skip


def integer(fields, tag, default=None):
    if tag not in fields:
        if default is None:
            raise Nonsense
        return default
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", fields[tag], re.ASCII):
        raise Nonsense
    return int(fields[tag])


def amount(fields, tag, decimals):
    text = fields.get(tag, "")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII):
        raise Nonsense
    value = Decimal(text).scaleb(decimals)
    if value != int(value) or value >= 10**18:
        raise Nonsense
    return int(value)


def rounded_up(fields, tag, decimals):
    text = fields.get(tag, "")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII):
        raise Nonsense
    value = math.ceil(Decimal(text).scaleb(decimals))
    if value >= 10**18:
        raise Nonsense
    return value


def own(fields, tag):
    found = re.fullmatch(r"a1b2c3d4-(0|[1-9][0-9]{0,12})-(0|[1-9][0-9]{0,12})", fields.get(tag, ""), re.ASCII)
    if not found or int(found[1]) >= 1 << 23 or int(found[2]) >= 1 << 40 or len(fields[tag]) > 36:
        return 0
    return int(found[1]) << 40 | int(found[2])


def refused(fields, kind, row, order_id, target_id):
    code = integer(fields, 25016, 0)
    if not -1_000_000 <= code <= 0:
        raise Nonsense
    if code and not _is_definite(kind, 400, code):
        return {
            "kind": m.UNKNOWN,
            "order_id": order_id,
            "target_id": target_id,
            "instrument": row,
            "reason": "venue_error",
        }
    reports = {m.NEW: m.REJECTED, m.AMEND: m.AMEND_REJECTED}
    reports |= dict.fromkeys((m.CANCEL, m.REPLACE, m.CANCEL_ALL), m.CANCEL_REJECTED)
    reason = _reason(400, code, fields.get(58, ""))
    return {"kind": reports[kind], "order_id": order_id, "target_id": target_id, "instrument": row, "reason": reason}


def expiry(fields):
    if 25031 in fields:
        return "self_trade"
    if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", fields.get(25056, ""), re.ASCII) and int(fields[25056]) >= 0:
        return {5: "unfilled", 6: "unfilled", 7: "no_liquidity", 8: "price_range"}.get(int(fields[25056]), "venue")
    if fields.get(40) == "1":
        return "no_liquidity"
    return "unfilled" if fields.get(59) in ("3", "4") else "venue"


def time_of(text):
    found = re.fullmatch(r"([0-9]{8}-[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{3}|[0-9]{6}))?", text, re.ASCII)
    if not found:
        raise Nonsense
    year, month, day = int(found[1][:4]), int(found[1][4:6]), int(found[1][6:8])
    hour, minute, second = (int(found[1][at : at + 2]) for at in (9, 12, 15))
    if not (1970 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise Nonsense
    # Days a month does not have, and second 60, are what the next ones are called.
    first = int(datetime(year, month, 1, tzinfo=UTC).timestamp())
    seconds = first + (day - 1) * 86_400 + hour * 3_600 + minute * 60 + second
    return seconds * 10**9 + int((found[2] or "0").ljust(9, "0"))


def slow_execution(fields):
    if 11 not in fields or 55 not in fields:
        raise Nonsense
    if fields[55] not in SYMBOLS:
        return None
    row = SYMBOLS.index(fields[55])
    request, order_id = own(fields, 11), own(fields, 41) if 41 in fields else own(fields, 11)
    if fields.get(150) == "8":
        return refused(fields, m.NEW, row, request, 0)
    kinds = {"F": m.FILL, "0": m.ACCEPTED, "4": m.CANCELLED, "5": m.AMENDED, "C": m.EXPIRED}
    if fields.get(150) not in kinds or fields.get(54) not in ("1", "2"):
        raise Nonsense
    kind, decimals = kinds[fields[150]], int(INSTRUMENTS[row]["quantity_decimals"])
    quantity, filled, leaves = (amount(fields, tag, decimals) for tag in (38, 14, 151))
    venue_id = integer(fields, 37)
    venue_ns = time_of(fields.get(60, ""))
    prevented = amount(fields, 25030, decimals) if 25030 in fields else 0
    if quantity < filled + max(leaves, prevented) or venue_id <= 0:
        raise Nonsense
    price_decimals = int(INSTRUMENTS[row]["price_decimals"])
    price = amount(fields, 44, price_decimals) if 44 in fields else 0
    named = kind in (m.CANCELLED, m.AMENDED, m.EXPIRED)
    reason = "self_trade" if 25031 in fields else "by_request"
    reason = reason if kind in (m.CANCELLED, m.AMENDED) else expiry(fields) if kind == m.EXPIRED else "none"
    final = kind in (m.CANCELLED, m.EXPIRED) or (kind == m.FILL and fields.get(39) == "2")
    found = {
        "kind": kind, "order_id": (request or order_id) if kind == m.CANCELLED else order_id,
        "target_id": order_id if named else 0, "instrument": row, "reason": reason, "venue_order_id": venue_id,
        "venue_ns": venue_ns, "side": m.BUY if fields[54] == "1" else m.SELL, "price": price, "filled": filled,
        "quantity": quantity - prevented if final else filled + leaves, "leaves": 0 if final else leaves,
        "flags": m.FINAL if final else 0,
    }  # fmt: skip
    return {**found, **slow_fill(fields, row, found)} if kind == m.FILL else found


def slow_fill(fields, row, found):
    last = amount(fields, 31, int(INSTRUMENTS[row]["price_decimals"]))
    quantity, trade = amount(fields, 32, int(INSTRUMENTS[row]["quantity_decimals"])), integer(fields, 1003)
    if last == 0 or quantity == 0 or trade < 0 or fields.get(1057) not in ("Y", "N"):
        raise Nonsense
    fee, currency = 0, int(INSTRUMENTS[row]["settle_currency"])
    if 136 in fields:
        if fields[136] != "1" or 138 not in fields:
            raise Nonsense
        currency = CODES.index(fields[138]) if fields[138] in CODES else -1
        fee = rounded_up(fields, 137, a.FEE_DECIMALS if currency < 0 else int(CURRENCIES[currency]["decimals"]))
    flags = found["flags"] | (m.MAKER if fields[1057] == "N" else 0)
    return {
        "last_price": last, "last_quantity": quantity, "trade_id": trade, "fee": fee, "fee_currency": currency,
        "flags": flags,
    }  # fmt: skip


def slow(text, sequence=1):
    """The REPORT's fields, {} for a message that is none, or None for nonsense."""
    try:
        fields = split(text, sequence)
        kind = fields[35]
        if kind == "8":
            return slow_execution(fields) or {}
        if kind in ("9", "XAR"):
            if 11 not in fields:
                raise Nonsense
            row, order_id = SYMBOLS.index(fields[55]) if fields.get(55) in SYMBOLS else -1, own(fields, 11)
            if kind == "XAR":
                return refused(fields, m.AMEND, row, order_id, order_id)
            if order_id == REQUEST:  # what it was is remembered
                return refused(fields, m.CANCEL, 1, REQUEST, OWN)
            return refused(fields, m.CANCEL, row, order_id, own(fields, 41))
        if kind == "r" and fields.get(531) not in ("0", "1"):
            raise Nonsense
        if kind == "r" and fields[531] == "0" and fields.get(55) in SYMBOLS and own(fields, 11):
            return refused(fields, m.CANCEL_ALL, SYMBOLS.index(fields[55]), own(fields, 11), 0)
        if kind == "3":
            sent = {2: (m.NEW, OWN, 0), 3: (m.CANCEL, REQUEST, OWN)}
            found = re.fullmatch(r"[1-9][0-9]{0,17}", fields.get(45, ""), re.ASCII)
            if found and int(fields[45]) in sent:
                one, order_id, target_id = sent[int(fields[45])]
                return refused(fields, one, 1, order_id, target_id)
    except Nonsense:
        return None
    return {}


def agree(text, sequence=1):
    """Read a message both ways: the same or nothing. Give what was found."""
    found, expected = fast(text, sequence=sequence), slow(text, sequence)
    if found is None:
        assert expected is None, text
        return None
    rows, notes = found
    assert expected is not None, text
    assert len(rows) + len(notes) == 1, text
    assert len(rows) == bool(expected), text
    if expected:
        row = {name: int(rows[0][name]) for name in m.REPORT.names}
        final = m.FINAL if expected["kind"] == m.REJECTED else 0
        wanted = {"slot": -1, "flags": final, **expected, "reason": m.REASON[expected["reason"]]}
        assert row == {name: wanted.get(name, 0) for name in m.REPORT.names}, text
    return found
