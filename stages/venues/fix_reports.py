"""FIX 4.4 from Binance → REPORT rows and notes, compiled.

`frame` finds a whole message in what was received and checks its length and sum; `scan` reads it. Fields may come in
any order and those that are not known are passed over. A message that is not the session's next, or that cannot be
read, breaks the session: the venue sends nothing again, so what was missed is found by reconciliation.

ExecutionReport, OrderCancelReject and OrderAmendReject are REPORTs; a Reject is found by the number it names. Refusals
are definite or leave the outcome unknown, by `refusals`, as in every protocol of this venue.

Sources: Binance FIX API; FIX 4.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import Answers, find_currency, put_note, put_row, read_client_id
from shrivenq.stages.venues.binance import _decimal
from shrivenq.stages.venues.binance_reports import refused_kind
from shrivenq.stages.venues.binance_symbols import find
from shrivenq.stages.venues.fix import BROKEN, NEXT_IN, NEXT_OUT, RECEIVED_NS, SENT_MAX, TEXT_MAX, Session
from shrivenq.stages.venues.json_values import integer
from shrivenq.stages.venues.refusals import is_definite, reason_of
from shrivenq.stages.venues.text import POWERS, before, digits, load, matches, whole

SOH, EQUALS, POINT, ZERO = 1, 61, 46, 48
MESSAGE_MAX = 8_192
"""Longest message taken."""
INCOMPLETE, GARBLED = 0, -1

UNFILLED, NO_LIQUIDITY = m.REASON["unfilled"], m.REASON["no_liquidity"]
PRICE_RANGE, VENUE = m.REASON["price_range"], m.REASON["venue"]
BY_REQUEST, VENUE_ERROR, SELF_TRADE = m.REASON["by_request"], m.REASON["venue_error"], m.REASON["self_trade"]

# ── framing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def frame(data: Any, start: int, stop: int) -> int:
    """Measure the message at `start` of what was received up to `stop`; INCOMPLETE, or GARBLED, if there is none.

    It begins with BeginString and BodyLength and ends with a CheckSum that is right. 64 bytes behind `stop` are
    readable.
    """
    if stop - start < 24:  # none is shorter
        return INCOMPLETE
    if not matches(data, start, "8=FIX.4.4\x019="):
        return GARBLED
    word = load(data, start + 12)
    count = digits(word)
    if count == 0 or count > 4 or data[start + 12 + count] != SOH:
        return GARBLED
    body = start + 13 + count
    end = body + whole(word, count)
    if end - start > MESSAGE_MAX:
        return GARBLED
    if end + 7 > stop:
        return INCOMPLETE
    total = 0
    for index in range(start, end):
        total += int(data[index])
    total &= 255
    if not matches(data, end, "10=") or data[end + 6] != SOH or data[end - 1] != SOH:
        return GARBLED
    if digits(load(data, end + 3)) != 3 or whole(load(data, end + 3), 3) != total:
        return GARBLED
    return end + 7 - start


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────────

TAGS = (
    35, 34, 11, 41, 37, 38, 40, 54, 55, 44, 59, 60, 150, 39, 14, 151, 1057, 1003, 31, 32, 25016, 58, 136, 137, 138, 112,
    531, 533, 45, 25056, 25030, 25031,
)  # fmt: skip
"""Fields that are read, each kept at its place in this list, plus one: 0 stands for all others."""
INDEX = np.zeros(26_000, np.uint8)
INDEX[list(TAGS)] = np.arange(1, len(TAGS) + 1)
(
    TYPE, SEQUENCE, CLIENT, ORIGINAL, ORDER, QUANTITY, ORDER_TYPE, SIDE, SYMBOL, PRICE, FORCE, TIME, EXECUTION, STATUS,
    FILLED, LEAVES, AGGRESSOR, TRADE, LAST_PRICE, LAST, CODE, TEXT, FEES, FEE, FEE_CURRENCY, TEST, RESPONSE, COUNT,
    REFERENCE, EXPIRY, PREVENTED, LAST_PREVENTED,
) = range(1, len(TAGS) + 1)  # fmt: skip
assert len(TAGS) < a.FIELDS


@kernel
def _fields(data: Any, start: int, end: int, answers: Answers) -> bool:
    """Find every field of the body `data[start:end]`; False if it is not made of fields, or one stands twice."""
    values, lengths = answers.values, answers.lengths
    lengths[:] = -1
    at = start
    while at < end:
        count = digits(load(data, at))
        if count == 0 or count > 5 or data[at] == 48 or data[at + count] != EQUALS:
            return False
        tag = whole(load(data, at), count)
        at += count + 1
        length = 0
        part = 8
        while part == 8 and at + length < end:
            part = before(load(data, at + length), SOH)
            length += part
        if part == 8 or length == 0 or at + length >= end:
            return False
        index = int(INDEX[tag]) if tag < len(INDEX) else 0
        if index != 0:
            if lengths[index] >= 0:
                return False
            values[index], lengths[index] = at, length
        at += length + 1
    return at == end


@inlined
def _number(data: Any, answers: Answers, index: int) -> int:
    """Read a field as an integer; -2⁶² for one that is missing or none."""
    if answers.lengths[index] < 0:
        return -(1 << 62)
    end = answers.values[index] + answers.lengths[index]
    value, at = integer(data, answers.values[index], end)
    return value if at == end else -(1 << 62)


@inlined
def _amount(data: Any, answers: Answers, index: int, decimals: int) -> int:
    """Read a field as a decimal; -1 for one that is missing or none."""
    if answers.lengths[index] < 0:
        return -1
    end = answers.values[index] + answers.lengths[index]
    value, at = _decimal(data, answers.values[index], end, decimals, POWERS[decimals])
    return value if at == end else -1


@kernel
def _fee(data: Any, answers: Answers, decimals: int) -> int:
    """Read a fee; what is finer than its currency is rounded, against us. -1 for one that is none."""
    fee = _amount(data, answers, FEE, decimals)
    if fee >= 0 or answers.lengths[FEE] < 0:
        return fee
    fee, places, rest = 0, -1, 0
    begin = answers.values[FEE]
    for at in range(begin, begin + answers.lengths[FEE]):
        digit = int(data[at]) - ZERO
        if places < 0 and at > begin and digit == POINT - ZERO:
            places = 0
        elif digit < 0 or digit > 9:
            return -1
        elif places == decimals:
            rest |= digit
        elif fee >= POWERS[17]:
            return -1
        else:
            fee = 10 * fee + digit
            places += places >= 0
    if places < 1 or fee >= POWERS[18 - decimals + places]:
        return -1
    return fee * POWERS[decimals - places] + (rest != 0)


@inlined
def _letter(data: Any, answers: Answers, index: int) -> int:
    """Read a field of one character; 0 for one that is missing or longer."""
    return int(data[answers.values[index]]) if answers.lengths[index] == 1 else 0


@inlined
def _order_id(data: Any, answers: Answers, index: int) -> int:
    """Read a client order id; 0 for one that is missing or foreign."""
    if answers.lengths[index] < 0:
        return 0
    return read_client_id(data, answers.values[index], answers.lengths[index], answers.run)


@inlined
def _row(data: Any, answers: Answers) -> int:
    """Find the instrument; -1 for one that is not in our table, or missing."""
    length = answers.lengths[SYMBOL]
    return find(data, answers.values[SYMBOL], SOH, answers.symbols, True) if 0 < length <= 16 else -1


@kernel
def utc_ns(data: Any, at: int, length: int) -> int:
    """Read `YYYYMMDD-HH:MM:SS`, with nothing, milliseconds or microseconds behind it, as ns since 1970; -1 for none.

    Howard Hinnant's days_from_civil.
    """
    if length not in (17, 21, 24) or digits(load(data, at)) != 8:
        return -1
    clock = load(data, at + 9)
    if not matches(data, at + 8, "-") or digits(clock) != 2 or data[at + 11] != 58 or data[at + 14] != 58:
        return -1
    if digits(load(data, at + 12)) != 2 or digits(load(data, at + 15)) < 2:
        return -1
    year, month, day = whole(load(data, at), 4), whole(load(data, at + 4), 2), whole(load(data, at + 6), 2)
    hour, minute, second = whole(clock, 2), whole(load(data, at + 12), 2), whole(load(data, at + 15), 2)
    if not 1970 <= year <= 2200 or not 1 <= month <= 12 or not 1 <= day <= 31:
        return -1
    if hour > 23 or minute > 59 or second > 60:
        return -1
    part = 0
    if length > 17:
        count = length - 18
        if data[at + 17] != 46 or digits(load(data, at + 18)) < count:
            return -1
        part = whole(load(data, at + 18), count) * POWERS[9 - count]
    if month <= 2:
        year -= 1
    era = year // 400
    in_era = year - era * 400
    in_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = era * 146_097 + in_era * 365 + in_era // 4 - in_era // 100 + in_year - 719_468
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + part


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _reason(data: Any, answers: Answers, code: int) -> int:
    """Name the reason of a refusal: what a code of no request of ours (0) means is the venue's."""
    if answers.lengths[TEXT] < 0:
        return reason_of(400, code, data, answers.values[CODE], 0)
    return reason_of(400, code, data, answers.values[TEXT], answers.lengths[TEXT])


@kernel
def _refuse(data: Any, answers: Answers, kind: int, row: int, order_id: int, target_id: int, reports: Any) -> bool:
    """Make the REPORT of a request that was refused, or may not have been; False if its code cannot be read."""
    code = _number(data, answers, CODE)
    if answers.lengths[CODE] < 0:
        code = 0
    if code > 0 or code < -1_000_000:
        return False
    # The venue's own checks have no code; what it cannot tell has one.
    if code == 0 or is_definite(kind, 400, code):
        put_row(reports, 0, refused_kind(kind), order_id, target_id, row, _reason(data, answers, code))
    else:
        put_row(reports, 0, m.UNKNOWN, order_id, target_id, row, VENUE_ERROR)
    return True


@inlined
def _expiry_reason(data: Any, answers: Answers) -> int:
    """Tell why an order expired."""
    if answers.lengths[LAST_PREVENTED] >= 0:
        return SELF_TRADE
    code = _number(data, answers, EXPIRY)
    if code in (5, 6):
        return UNFILLED
    if code == 7:
        return NO_LIQUIDITY
    if code >= 0:
        return PRICE_RANGE if code == 8 else VENUE
    if _letter(data, answers, ORDER_TYPE) == 49:
        return NO_LIQUIDITY
    return UNFILLED if _letter(data, answers, FORCE) in (51, 52) else VENUE


@kernel
def _fill(data: Any, answers: Answers, row: int, final: bool, reports: Any) -> bool:
    """Complete a FILL; False if it is none."""
    price = _amount(data, answers, LAST_PRICE, answers.instruments[row]["price_decimals"])
    quantity = _amount(data, answers, LAST, answers.instruments[row]["quantity_decimals"])
    trade, aggressor = _number(data, answers, TRADE), _letter(data, answers, AGGRESSOR)
    if price <= 0 or quantity <= 0 or trade < 0 or aggressor not in (78, 89):
        return False
    fee, currency = 0, int(answers.instruments[row]["settle_currency"])
    if answers.lengths[FEES] >= 0:
        if _number(data, answers, FEES) != 1 or answers.lengths[FEE_CURRENCY] < 0:
            return False
        currency = find_currency(answers.assets, data, answers.values[FEE_CURRENCY], answers.lengths[FEE_CURRENCY])
        fee = _fee(data, answers, a.FEE_DECIMALS if currency < 0 else answers.currencies[currency]["decimals"])
        if fee < 0:
            return False
    reports[0]["flags"] = (m.MAKER if aggressor == 78 else 0) | (m.FINAL if final else 0)
    reports[0]["trade_id"] = trade
    reports[0]["last_price"], reports[0]["last_quantity"] = price, quantity
    reports[0]["fee"], reports[0]["fee_currency"] = fee, currency
    return True


@inlined
def _kind_of(execution: int) -> int:
    """Tell what kind of REPORT an ExecType is; 0 for one that is not known."""
    if execution == 70:  # F
        return m.FILL
    if execution == 48:  # 0
        return m.ACCEPTED
    if execution == 52:  # 4
        return m.CANCELLED
    if execution == 53:  # 5
        return m.AMENDED
    return m.EXPIRED if execution == 67 else 0  # C


@kernel
def _execution(data: Any, answers: Answers, reports: Any, notes: Any) -> tuple[int, int]:
    """Read an ExecutionReport; return rows and notes, (-1, -1) if it makes no sense."""
    row, execution = _row(data, answers), _letter(data, answers, EXECUTION)
    request, own = _order_id(data, answers, CLIENT), _order_id(data, answers, CLIENT)
    if answers.lengths[ORIGINAL] >= 0:
        own = _order_id(data, answers, ORIGINAL)
    if answers.lengths[CLIENT] < 0 or answers.lengths[SYMBOL] < 0:
        return -1, -1
    if row < 0:
        put_note(notes, 0, a.FOREIGN, 0, -1)
        return 0, 1
    if execution == 56:  # 8
        if not _refuse(data, answers, m.NEW, row, request, 0, reports):
            return -1, -1
        return 1, 0
    kind, side = _kind_of(execution), _letter(data, answers, SIDE)
    decimals = answers.instruments[row]["quantity_decimals"]
    quantity, filled = _amount(data, answers, QUANTITY, decimals), _amount(data, answers, FILLED, decimals)
    leaves, order = _amount(data, answers, LEAVES, decimals), _number(data, answers, ORDER)
    venue_ns = -1
    if answers.lengths[TIME] >= 0:
        venue_ns = utc_ns(data, answers.values[TIME], answers.lengths[TIME])
    if kind == 0 or (side not in (49, 50)) or filled < 0 or leaves < 0 or order <= 0 or venue_ns < 0:
        return -1, -1
    prevented = _amount(data, answers, PREVENTED, decimals) if answers.lengths[PREVENTED] >= 0 else 0
    if prevented < 0 or quantity < filled or quantity - filled < leaves or quantity - filled < prevented:
        return -1, -1
    price = 0
    if answers.lengths[PRICE] >= 0:
        price = _amount(data, answers, PRICE, answers.instruments[row]["price_decimals"])
        if price < 0:
            return -1, -1
    if kind != m.CANCELLED or request == 0:
        request = own
    reason = _expiry_reason(data, answers) if kind == m.EXPIRED else 0
    if kind in (m.CANCELLED, m.AMENDED):
        reason = SELF_TRADE if answers.lengths[LAST_PREVENTED] >= 0 else BY_REQUEST
    put_row(reports, 0, kind, request, own if kind in (m.CANCELLED, m.EXPIRED, m.AMENDED) else 0, row, reason)
    final = _letter(data, answers, STATUS) == 50
    if kind == m.FILL and not _fill(data, answers, row, final, reports):
        return -1, -1
    over = reports[0]["flags"] & m.FINAL != 0
    reports[0]["venue_order_id"], reports[0]["venue_ns"] = order, venue_ns
    reports[0]["side"] = m.BUY if side == 49 else m.SELL
    reports[0]["price"], reports[0]["filled"] = price, filled
    # What self-trade prevention took is neither filled nor left.
    reports[0]["quantity"] = quantity - prevented if over else filled + leaves
    reports[0]["leaves"] = 0 if over else leaves
    return 1, 0


@inlined
def _asked(session: Session, order_id: int, target_id: int) -> int:
    """Find the cancel or replacement that was refused, the last one first; -1 for none.

    The venue repeats the name of the order meant only if it was named so, and gives a replacement's cancel one of its
    own.
    """
    for back in range(1, SENT_MAX):
        sequence = session.words[NEXT_OUT] - back
        place = sequence & (SENT_MAX - 1)
        if sequence <= 0 or session.sent[place]["sequence"] != sequence:
            continue
        if session.sent[place]["kind"] == m.CANCEL and session.sent[place]["order_id"] == order_id != 0:
            return place
        if session.sent[place]["kind"] == m.REPLACE and (
            session.sent[place]["order_id"] == order_id != 0
            or (order_id == 0 and session.sent[place]["target_id"] == target_id != 0)
        ):
            return place
    return -1


@kernel
def _not_cancelled(data: Any, answers: Answers, session: Session, reports: Any) -> bool:
    """Read an OrderCancelReject; False if it makes no sense."""
    kind, row = m.CANCEL, _row(data, answers)
    order_id, target_id = _order_id(data, answers, CLIENT), _order_id(data, answers, ORIGINAL)
    place = _asked(session, order_id, target_id)
    if place >= 0:
        kind, row = session.sent[place]["kind"], session.sent[place]["instrument"]
        order_id, target_id = session.sent[place]["order_id"], session.sent[place]["target_id"]
    return answers.lengths[CLIENT] >= 0 and _refuse(data, answers, kind, row, order_id, target_id, reports)


@kernel
def _rejected(data: Any, answers: Answers, session: Session, reports: Any, notes: Any) -> tuple[int, int]:
    """Read a Reject: the message it names, by number, was not understood."""
    reference = _number(data, answers, REFERENCE)
    place = max(reference, 0) & (SENT_MAX - 1)
    kind = session.sent[place]["kind"]
    if reference <= 0 or session.sent[place]["sequence"] != reference or kind == m.CANCEL_ALL:
        put_note(notes, 0, a.OTHER, 0, -1)
        notes[0]["count"], notes[0]["code"] = max(reference, 0), max(_number(data, answers, CODE), -1_000_000)
        return 0, 1
    row, order_id = session.sent[place]["instrument"], session.sent[place]["order_id"]
    if not _refuse(data, answers, kind, row, order_id, session.sent[place]["target_id"], reports):
        return -1, -1
    return 1, 0


@kernel
def _text_note(answers: Answers, notes: Any, kind: int, index: int) -> tuple[int, int]:
    """Note a message that carries no more than a text."""
    put_note(notes, 0, kind, 0, -1)
    if answers.lengths[index] > 0:
        notes[0]["place"], notes[0]["length"] = answers.values[index], min(answers.lengths[index], TEXT_MAX)
    return 0, 1


@kernel
def _mass_cancelled(data: Any, answers: Answers, reports: Any, notes: Any) -> tuple[int, int]:
    """Note that a cancel-all was done, each order has a report of its own; its refusal is a report."""
    response = _letter(data, answers, RESPONSE)
    if response not in (48, 49):
        return -1, -1
    row, request = _row(data, answers), _order_id(data, answers, CLIENT)
    if response == 48 and row >= 0 and request > 0:
        return (1, 0) if _refuse(data, answers, m.CANCEL_ALL, row, request, 0, reports) else (-1, -1)
    put_note(notes, 0, a.MASS_CANCELLED, 0, row)
    notes[0]["status"] = 200 if response == 49 else 400
    notes[0]["order_id"] = request
    notes[0]["count"], notes[0]["code"] = max(_number(data, answers, COUNT), 0), 0
    if answers.lengths[CODE] >= 0:
        notes[0]["code"] = max(_number(data, answers, CODE), -1_000_000)
    return 0, 1


@kernel
def _message(data: Any, answers: Answers, session: Session, reports: Any, notes: Any) -> tuple[int, int]:
    """Read the message whose fields were found."""
    at = answers.values[TYPE]
    if matches(data, at, "8\x01"):
        return _execution(data, answers, reports, notes)
    if matches(data, at, "9\x01"):
        return (1, 0) if _not_cancelled(data, answers, session, reports) else (-1, -1)
    if matches(data, at, "XAR\x01"):
        order_id, row = _order_id(data, answers, CLIENT), _row(data, answers)  # an amended order keeps its name
        known = answers.lengths[CLIENT] >= 0 and _refuse(data, answers, m.AMEND, row, order_id, order_id, reports)
        return (1, 0) if known else (-1, -1)
    if matches(data, at, "r\x01"):
        return _mass_cancelled(data, answers, reports, notes)
    if matches(data, at, "3\x01"):
        return _rejected(data, answers, session, reports, notes)
    if matches(data, at, "0\x01"):
        return _text_note(answers, notes, a.HEARTBEAT, TEST)
    if matches(data, at, "1\x01"):
        return _text_note(answers, notes, a.TEST_REQUEST, TEST)
    if matches(data, at, "5\x01"):
        return _text_note(answers, notes, a.LOGOUT, TEXT)
    if matches(data, at, "B\x01"):
        return _text_note(answers, notes, a.SHUTDOWN, TEXT)
    if matches(data, at, "A\x01"):
        return _text_note(answers, notes, a.LOGON, TEXT)
    return _text_note(answers, notes, a.OTHER, TYPE)


@kernel
def scan(
    data: Any, start: int, stop: int, answers: Answers, session: Session, now_ns: int, reports: Any, notes: Any
) -> tuple[int, int]:
    """Read the message `data[start:stop]` that `frame` measured; return the REPORTs and notes it is.

    (-1, -1) if it makes no sense or is not the session's next: the session is then broken (BROKEN), and stays so.
    Arguments are those of `binance_reports.scan`; text a note names lies in `data`.
    """
    words = session.words
    body = start + 13 + digits(load(data, start + 12))
    good = words[BROKEN] == 0 and _fields(data, body, stop - 7, answers)
    if not good or answers.lengths[TYPE] < 0 or _number(data, answers, SEQUENCE) != words[NEXT_IN]:
        words[BROKEN] = 1
        return -1, -1
    words[NEXT_IN] += 1
    words[RECEIVED_NS] = now_ns
    rows, count = _message(data, answers, session, reports, notes)
    if rows < 0:
        words[BROKEN] = 1
    return rows, count
