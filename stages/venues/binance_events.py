"""Binance: account events → REPORT rows and notes, compiled; `binance_reports` calls it.

An executionReport is one REPORT. Its keys may come in any order, and those that say nothing to us are passed over if
they are known; a key that is not known is the slow path's. An order's own name is its original client order id where
there is one: the venue gives an order that was cancelled the name of the request that cancelled it.

Source: Binance user data stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import Answers, find_currency, put_note, put_row, read_client_id
from shrivenq.stages.venues.binance import _decimal
from shrivenq.stages.venues.binance_symbols import read_symbol
from shrivenq.stages.venues.json_values import QUOTE, integer, skip, string_end, time_ns
from shrivenq.stages.venues.text import POWERS, matches

COMMA, CLOSE = 44, 125

UNFILLED, NO_LIQUIDITY = m.REASON["unfilled"], m.REASON["no_liquidity"]
PRICE_RANGE, SELF_TRADE = m.REASON["price_range"], m.REASON["self_trade"]
BY_REQUEST, VENUE = m.REASON["by_request"], m.REASON["venue"]
INSUFFICIENT, WOULD_TRIGGER = m.REASON["insufficient_balance"], m.REASON["would_trigger"]
WOULD_TAKE = m.REASON["would_take"]

# ── the fields of an executionReport ─────────────────────────────────────────────────────────────────────────────────

# What the value of a key is; 0 for one that the slow path reads.
SKIP, INTEGER, TEXT, PRICE, QUANTITY, SYMBOL, CURRENCY, TRUTH = 1, 2, 3, 4, 5, 6, 7, 8
_FIRST = 65  # 'A'
EXPIRY = 58  # of `eR`, the one key of two letters that is read here
FIELD_KINDS = np.zeros(a.FIELDS, np.uint8)
for _kind, _keys in (
    (SKIP, "PFgIwMOZYQWVdDjJbakuUvBE"),
    (INTEGER, "iTt"),
    (TEXT, "cSofCxXrn"),
    (PRICE, "pL"),
    (QUANTITY, "qlzA"),
    (SYMBOL, "s"),
    (CURRENCY, "N"),
    (TRUTH, "m"),
):
    for _key in _keys:
        FIELD_KINDS[ord(_key) - _FIRST] = _kind
FIELD_KINDS[EXPIRY] = TEXT
REQUIRED = sum(1 << (ord(key) - _FIRST) for key in "scSofqpCxXrilzLnNTtm")

K_SYMBOL, K_CLIENT, K_ORIGINAL = ord("s") - _FIRST, ord("c") - _FIRST, ord("C") - _FIRST
K_SIDE, K_TYPE, K_FORCE = ord("S") - _FIRST, ord("o") - _FIRST, ord("f") - _FIRST
K_QUANTITY, K_PRICE, K_PREVENTED = ord("q") - _FIRST, ord("p") - _FIRST, ord("A") - _FIRST
K_EXECUTION, K_STATUS, K_REASON = ord("x") - _FIRST, ord("X") - _FIRST, ord("r") - _FIRST
K_ORDER, K_TRADE, K_TIME = ord("i") - _FIRST, ord("t") - _FIRST, ord("T") - _FIRST
K_LAST, K_LAST_PRICE, K_FILLED = ord("l") - _FIRST, ord("L") - _FIRST, ord("z") - _FIRST
K_FEE, K_CURRENCY, K_MAKER = ord("n") - _FIRST, ord("N") - _FIRST, ord("m") - _FIRST


@inlined
def _scaled(data: Any, at: int, stop: int, decimals: int) -> tuple[int, int]:
    """Read a decimal in quotes, the first of them at `at`; return it and where it ends, (-1, -1) for anything else."""
    if data[at] != QUOTE:
        return -1, -1
    value, at = _decimal(data, at + 1, stop, decimals, POWERS[decimals])
    if at < 0 or data[at] != QUOTE:
        return -1, -1
    return value, at + 1


@kernel
def _value(data: Any, at: int, stop: int, answers: Answers, index: int) -> int:
    """Read the value at `at` of the field `index`; return where it ends, -1 if it is not what it should be."""
    kind = FIELD_KINDS[index]
    values, lengths = answers.values, answers.lengths
    if kind == SKIP:
        return skip(data, at, stop)
    if kind in (TEXT, CURRENCY):
        lengths[index] = -1
        if kind == CURRENCY and matches(data, at, "null"):
            return at + 4
        end = string_end(data, at + 1, stop) if data[at] == QUOTE else -1
        values[index], lengths[index] = at + 1, end - at - 1
        return end + 1 if end >= 0 else -1
    if kind == INTEGER:
        values[index], at = integer(data, at, stop)
        return at
    if kind == TRUTH:
        values[index] = 1 if matches(data, at, "true") else 0
        return skip(data, at, stop) if values[index] == 1 or matches(data, at, "false") else -1
    if kind == SYMBOL:
        if data[at] != QUOTE:
            return -1
        values[index], at = read_symbol(data, at + 1, stop, answers.symbols, -1)
        return at
    row = values[K_SYMBOL]
    if row < 0:
        return -1
    decimals = answers.instruments[row]["price_decimals"]
    if kind == QUANTITY:
        decimals = answers.instruments[row]["quantity_decimals"]
    values[index], at = _scaled(data, at, stop, decimals)
    return at


@kernel
def _fields(data: Any, at: int, stop: int, answers: Answers) -> int:
    """Read an executionReport from its second key on; return where the object ends, -1 if it is not recognised."""
    values = answers.values
    values[K_SYMBOL] = -1
    values[K_PREVENTED] = 0
    answers.lengths[EXPIRY] = -1
    seen = 0
    while at < stop:
        if data[at] != QUOTE:
            return -1
        index = int(data[at + 1]) - _FIRST
        after = at + 4
        if matches(data, at + 1, 'eR":'):
            index = EXPIRY
            after = at + 5
        elif not 0 <= index < EXPIRY or not matches(data, at + 2, '":'):
            return -1
        if FIELD_KINDS[index] == 0 or seen & (1 << index) != 0:
            return -1
        seen |= 1 << index
        at = _value(data, after, stop, answers, index)
        if at < 0 or at >= stop:
            return -1
        if data[at] == CLOSE:
            return at + 1 if seen & REQUIRED == REQUIRED else -1
        if data[at] != COMMA:
            return -1
        at += 1
    return -1


@inlined
def _fee(data: Any, stop: int, answers: Answers, row: int) -> tuple[int, int]:
    """Read the fee of a fill; return it and the row of its currency, (-1, 0) if the slow path must."""
    place, length = answers.values[K_CURRENCY], answers.lengths[K_CURRENCY]
    currency = answers.instruments[row]["settle_currency"]
    if length >= 0:
        currency = find_currency(answers.assets, data, place, length)
    decimals = a.FEE_DECIMALS if currency < 0 else answers.currencies[currency]["decimals"]
    fee, at = _decimal(data, answers.values[K_FEE], stop, decimals, POWERS[decimals])
    if at != answers.values[K_FEE] + answers.lengths[K_FEE]:
        return -1, 0
    return fee, currency


@inlined
def _expiry_reason(data: Any, answers: Answers) -> int:
    """Tell why an order expired."""
    values = answers.values
    if matches(data, values[K_STATUS], 'EXPIRED_IN_MATCH"'):
        return SELF_TRADE
    if answers.lengths[EXPIRY] >= 0:
        at = values[EXPIRY]
        if matches(data, at, 'UNFILLED_IOC_QUANTITY_EXPIRED"') or matches(data, at, 'UNFILLED_FOK_ORDER_EXPIRED"'):
            return UNFILLED
        if matches(data, at, 'INSUFFICIENT_LIQUIDITY"'):
            return NO_LIQUIDITY
        return PRICE_RANGE if matches(data, at, 'EXECUTION_RULE_PRICE_RANGE_EXCEEDED"') else VENUE
    if matches(data, values[K_TYPE], 'MARKET"'):
        return NO_LIQUIDITY
    return VENUE if matches(data, values[K_FORCE], 'GTC"') else UNFILLED


@inlined
def _reject_reason(data: Any, at: int) -> int:
    if matches(data, at, 'INSUFFICIENT_BALANCES"'):
        return INSUFFICIENT
    if matches(data, at, 'STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY"'):
        return WOULD_TRIGGER
    return WOULD_TAKE if matches(data, at, 'WOULD_MATCH_IMMEDIATELY"') else VENUE


@kernel
def _is_status(data: Any, at: int) -> bool:
    """Tell whether an order status that is known stands at `at`."""
    if matches(data, at, 'NEW"') or matches(data, at, 'PARTIALLY_FILLED"') or matches(data, at, 'FILLED"'):
        return True
    if matches(data, at, 'CANCELED"') or matches(data, at, 'EXPIRED"') or matches(data, at, 'REJECTED"'):
        return True
    return matches(data, at, 'EXPIRED_IN_MATCH"') or matches(data, at, 'PENDING_NEW"')


@kernel
def _kind_of(data: Any, answers: Answers) -> tuple[int, int]:
    """Tell what kind of REPORT the event is, and its reason; 0 for an execution type that is not known."""
    at, status = answers.values[K_EXECUTION], answers.values[K_STATUS]
    if not _is_status(data, status):
        return 0, 0
    if matches(data, at, 'TRADE"'):
        return m.FILL, 0
    if matches(data, at, 'NEW"'):
        return m.ACCEPTED, 0
    if matches(data, at, 'CANCELED"'):
        return m.CANCELLED, BY_REQUEST
    if matches(data, at, 'EXPIRED"'):
        return m.EXPIRED, _expiry_reason(data, answers)
    if matches(data, at, 'REJECTED"'):
        return m.REJECTED, _reject_reason(data, answers.values[K_REASON])
    if matches(data, at, 'REPLACED"'):
        return m.AMENDED, BY_REQUEST
    if matches(data, at, 'TRADE_PREVENTION"'):
        over = matches(data, status, 'EXPIRED_IN_MATCH"') or matches(data, status, 'EXPIRED"')
        return (m.EXPIRED if over else m.AMENDED), SELF_TRADE
    return 0, 0


@kernel
def _execution(data: Any, at: int, stop: int, answers: Answers, reports: Any) -> int:
    """Make the REPORT of an executionReport; return where its object ends, -1 if it is not recognised."""
    end = _fields(data, at, stop, answers)
    if end < 0:
        return -1
    values, lengths = answers.values, answers.lengths
    row = values[K_SYMBOL]
    kind, reason = _kind_of(data, answers)
    side = m.BUY if matches(data, values[K_SIDE], 'BUY"') else m.SELL
    venue_ns = time_ns(values[K_TIME])
    quantity, filled = values[K_QUANTITY] - values[K_PREVENTED], values[K_FILLED]
    if kind == 0 or (side == m.SELL and not matches(data, values[K_SIDE], 'SELL"')):
        return -1
    if venue_ns < 0 or quantity < filled or values[K_ORDER] <= 0:
        return -1
    request = read_client_id(data, values[K_CLIENT], lengths[K_CLIENT], answers.run)
    own = request
    if lengths[K_ORIGINAL] > 0:
        own = read_client_id(data, values[K_ORIGINAL], lengths[K_ORIGINAL], answers.run)
    if kind != m.CANCELLED or request == 0:
        request = own
    put_row(reports, 0, kind, request, own if kind in (m.CANCELLED, m.EXPIRED, m.AMENDED) else 0, row, reason)
    if kind == m.FILL:
        if values[K_TRADE] < 0 or values[K_LAST] <= 0 or values[K_LAST_PRICE] <= 0:
            return -1
        fee, currency = _fee(data, stop, answers, row)
        if fee < 0:
            return -1
        final = matches(data, values[K_STATUS], 'FILLED"')
        if not final and not matches(data, values[K_STATUS], 'PARTIALLY_FILLED"'):
            return -1
        reports[0]["flags"] = (m.MAKER if values[K_MAKER] != 0 else 0) | (m.FINAL if final else 0)
        reports[0]["trade_id"] = values[K_TRADE]
        reports[0]["last_price"] = values[K_LAST_PRICE]
        reports[0]["last_quantity"] = values[K_LAST]
        reports[0]["fee"] = fee
        reports[0]["fee_currency"] = currency
    reports[0]["venue_order_id"] = values[K_ORDER]
    reports[0]["filled"] = filled
    reports[0]["leaves"] = 0 if reports[0]["flags"] & m.FINAL != 0 else quantity - filled
    reports[0]["venue_ns"] = venue_ns
    reports[0]["side"] = side
    reports[0]["price"] = values[K_PRICE]
    reports[0]["quantity"] = quantity
    return end


# ── other events ─────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _balances(data: Any, at: int, stop: int, answers: Answers, notes: Any) -> tuple[int, int]:
    """Read an outboundAccountPosition from E on; return the notes and where it ends, -1 if it is not recognised."""
    event, at = integer(data, at, stop)
    venue_ns = time_ns(event)
    if at < 0 or venue_ns < 0 or not matches(data, at, ',"u":'):
        return 0, -1
    update, at = integer(data, at + 5, stop)
    if at < 0 or update < 0 or not matches(data, at, ',"B":['):
        return 0, -1
    at += 6
    count = 0
    while at < stop and matches(data, at, '{"a":"'):
        place = at + 6
        end = string_end(data, place, stop)
        if end < 0 or not matches(data, end, '","f":"'):
            return 0, -1
        currency = find_currency(answers.assets, data, place, end - place)
        # Of a currency that is not ours only the spelling is looked at.
        decimals = 18 if currency < 0 else answers.currencies[currency]["decimals"]
        free, at = _decimal(data, end + 7, stop, min(decimals, 8), POWERS[min(decimals, 8)])
        if at < 0 or not matches(data, at, '","l":"'):
            return 0, -1
        locked, at = _decimal(data, at + 7, stop, min(decimals, 8), POWERS[min(decimals, 8)])
        if at < 0 or not matches(data, at, '"}'):
            return 0, -1
        if currency >= 0:
            if count == min(len(notes), a.NOTES_MAX) or decimals > 8:
                return 0, -1
            put_note(notes, count, a.BALANCE, currency, -1)
            notes[count]["free"], notes[count]["locked"], notes[count]["venue_ns"] = free, locked, venue_ns
            count += 1
        at += 2
        if not matches(data, at, ","):
            break
        at += 1
        if not matches(data, at, "{"):
            return 0, -1
    return (count, at + 2) if matches(data, at, "]}") else (0, -1)


@kernel
def _notice(data: Any, at: int, stop: int, kind: int, notes: Any) -> int:
    """Read E of an event that says nothing else; return where it ends."""
    event, at = integer(data, at, stop)
    venue_ns = time_ns(event)
    if at < 0 or venue_ns < 0 or data[at] != CLOSE:
        return -1
    put_note(notes, 0, kind, 0, -1)
    notes[0]["venue_ns"] = venue_ns
    return at + 1


@kernel
def scan_event(data: Any, at: int, stop: int, answers: Answers, reports: Any, notes: Any) -> tuple[int, int]:
    """Read an event from its own opening brace to the end of the frame; return rows and notes, as `scan` does."""
    rows, count = 0, 0
    if matches(data, at, '{"e":"executionReport",'):
        at = _execution(data, at + 23, stop, answers, reports)
        rows = 1
    elif matches(data, at, '{"e":"outboundAccountPosition","E":'):
        count, at = _balances(data, at + 35, stop, answers, notes)
    elif matches(data, at, '{"e":"eventStreamTerminated","E":'):
        at = _notice(data, at + 33, stop, a.STREAM_ENDED, notes)
        count = 1
    elif matches(data, at, '{"e":"serverShutdown","E":'):
        at = _notice(data, at + 26, stop, a.SHUTDOWN, notes)
        count = 1
    else:
        return -1, -1
    if at < 0 or at + 1 != stop or data[at] != CLOSE:
        return -1, -1
    return rows, count
