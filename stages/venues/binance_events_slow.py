"""Binance's account events, the strict slow path, and how both slow paths read values and write what they find.

Sources: Binance user data stream; the protocol sheet.
"""

from __future__ import annotations

import re
from typing import Any

from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues.answers import Answers, put_note, put_row
from shrivenq.stages.venues.binance_slow import Refused, _field, _short

LIMIT = 10**18
"""Scaled prices and quantities stay below this."""
ID_MAX = 10**18 - 1

_DECIMAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_OPEN = ("NEW", "PENDING_NEW", "PARTIALLY_FILLED", "PENDING_CANCEL")
OVER = {"CANCELED": m.CANCELLED, "EXPIRED": m.EXPIRED, "EXPIRED_IN_MATCH": m.EXPIRED, "REJECTED": m.REJECTED}
STATUSES = (*_OPEN, *OVER, "FILLED")
_EXPIRIES = {
    "UNFILLED_IOC_QUANTITY_EXPIRED": "unfilled",
    "UNFILLED_FOK_ORDER_EXPIRED": "unfilled",
    "INSUFFICIENT_LIQUIDITY": "no_liquidity",
    "EXECUTION_RULE_PRICE_RANGE_EXCEEDED": "price_range",
}
_REJECTS = {
    "INSUFFICIENT_BALANCES": "insufficient_balance",
    "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY": "would_trigger",
    "WOULD_MATCH_IMMEDIATELY": "would_take",
}


class Desk:
    """What is being written, and how values are read."""

    def __init__(self, answers: Answers, reports: Any, notes: Any) -> None:
        self.answers, self.reports, self.notes = answers, reports, notes
        self.rows = self.count = 0
        run = re.escape(answers.run.tobytes())
        number = rb"-(0|[1-9][0-9]*)"
        self.client_id = re.compile(run + number + number)

    def row(
        self, kind: int, order_id: int, target_id: int, instrument: int, reason: str = "none", **fields: int
    ) -> Any:
        """Begin a REPORT, and return it."""
        if self.rows == min(len(self.reports), a.REPORTS_MAX):
            raise Refused(f"more than {self.rows} reports in one answer")
        put_row(self.reports, self.rows, kind, order_id, target_id, instrument, m.REASON[reason])
        for name, value in fields.items():
            self.reports[self.rows][name] = value
        self.rows += 1
        return self.reports[self.rows - 1]

    def note(self, kind: int, what: int = 0, instrument: int = -1, **fields: int) -> None:
        """Write a note."""
        if self.count == min(len(self.notes), a.NOTES_MAX):
            raise Refused(f"more than {self.count} notes in one answer")
        put_note(self.notes, self.count, kind, what, instrument)
        for name, value in fields.items():
            self.notes[self.count][name] = value
        self.count += 1

    def instrument(self, message: dict[str, Any], key: str) -> int:
        """Find the instrument a field names; -1 for one that is not in our table."""
        name = _field(message, key, str, "").encode(errors="replace")
        for row, entry in enumerate(self.answers.symbols.table):
            if entry["length"] and entry["upper"].tobytes().rstrip(b"\0") == name:
                return row
        return -1

    def own_id(self, text: str) -> int:
        """Read a client order id; 0 for one that is not ours."""
        found = self.client_id.fullmatch(text.encode(errors="replace")) if len(text) <= 36 else None
        if not found or int(found[1]) >= 1 << 23 or int(found[2]) >= 1 << m.EPOCH_SHIFT:
            return 0
        return int(found[1]) << m.EPOCH_SHIFT | int(found[2])

    def scaled(self, message: dict[str, Any], key: str, decimals: int) -> int:
        """Turn decimal text into an integer, exactly."""
        text = _field(message, key, str, "")
        found = _DECIMAL.fullmatch(text) if len(text) <= 64 else None
        part = (found[2] or "").rstrip("0") if found else ""
        if not found or len(part) > decimals:
            raise Refused(f"{key} is {_short(text)}: a decimal of at most {decimals} decimals expected")
        value = int(found[1] + part.ljust(decimals, "0"))
        if value >= LIMIT:
            raise Refused(f"{key} is {_short(text)}: out of range")
        return value

    def price(self, message: dict[str, Any], key: str, row: int) -> int:
        """Read a price of the instrument `row`."""
        return self.scaled(message, key, int(self.answers.instruments[row]["price_decimals"]))

    def quantity(self, message: dict[str, Any], key: str, row: int) -> int:
        """Read a quantity of the instrument `row`."""
        return self.scaled(message, key, int(self.answers.instruments[row]["quantity_decimals"]))

    def rounded(self, text: Any, key: str, decimals: int, *, up: bool) -> int:
        """Turn decimal text into an integer; what does not fit is rounded, against us."""
        found = _DECIMAL.fullmatch(text) if type(text) is str and len(text) <= 64 else None
        if not found:
            raise Refused(f"{key} is {_short(text)}: a plain positive decimal expected")
        part = found[2] or ""
        value = int(found[1] + part[:decimals].ljust(decimals, "0"))
        if up and part[decimals:].strip("0"):
            value += 1
        if value >= LIMIT:
            raise Refused(f"{key} is {_short(text)}: out of range")
        return value

    def currency(self, code: str) -> int:
        """Find the row of a currency; -1 for one that is not in our table."""
        codes = [bytes(row["code"]) for row in self.answers.currencies]
        return codes.index(code.encode(errors="replace")) if code.encode(errors="replace") in codes else -1

    def fee(self, message: dict[str, Any], amount: str, asset: str, row: int) -> tuple[int, int]:
        """Read a fee, rounded up; -1 stands for a currency that is not in our table."""
        if asset not in message or amount not in message:
            raise Refused(f"{amount} or {asset} is missing")
        if message[asset] is None:
            currency = int(self.answers.instruments[row]["settle_currency"])
        else:
            currency = self.currency(_field(message, asset, str, ""))
        decimals = a.FEE_DECIMALS if currency < 0 else int(self.answers.currencies[currency]["decimals"])
        return self.rounded(message[amount], amount, decimals, up=True), currency


def integer(message: dict[str, Any], key: str, lowest: int = 0) -> int:
    """Read an integer."""
    value: int = _field(message, key, int, "")
    if not lowest <= value <= ID_MAX:
        raise Refused(f"{key} is {_short(value)}: {lowest} to {ID_MAX} expected")
    return value


def time_ns(message: dict[str, Any], key: str) -> int:
    """Read a time in ms or µs since 1970."""
    value = integer(message, key)
    found = value * 1_000 if value >= 10**14 else value * 1_000_000
    if found >= 2**63:
        raise Refused(f"{key} is {value}: a time in ms or µs expected")
    return found


def one_of(message: dict[str, Any], key: str, allowed: Any) -> str:
    """Read a word that must be one of these."""
    value: str = _field(message, key, str, "")
    if value not in allowed:
        raise Refused(f"{key} is {_short(value)}: {', '.join(allowed)} expected")
    return value


def side_of(message: dict[str, Any], key: str) -> int:
    """Read a side."""
    return m.BUY if one_of(message, key, ("BUY", "SELL")) == "BUY" else m.SELL


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_EXECUTIONS = ("NEW", "CANCELED", "REPLACED", "REJECTED", "TRADE", "EXPIRED", "TRADE_PREVENTION")


def read_event(desk: Desk, event: dict[str, Any]) -> None:
    """Read an event of the user data stream; those that say nothing to us are passed over. Raises Refused."""
    name = _field(event, "e", str, "")
    if name == "executionReport":
        _read_execution(desk, event)
    elif name == "outboundAccountPosition":
        _read_balances(desk, event)
    elif name == "balanceUpdate":
        _read_move(desk, event)
    elif name == "eventStreamTerminated":
        desk.note(a.STREAM_ENDED, venue_ns=time_ns(event, "E"))
    elif name == "serverShutdown":
        desk.note(a.SHUTDOWN, venue_ns=time_ns(event, "E"))
    elif name not in ("listStatus", "externalLockUpdate"):
        raise Refused(f"e is {_short(name)}: no event of the user data stream")


def _read_balances(desk: Desk, event: dict[str, Any]) -> None:
    venue_ns = time_ns(event, "E")
    integer(event, "u")
    for one in _field(event, "B", list, ""):
        if type(one) is not dict:
            raise Refused(f"B holds {_short(one)}: an object expected")
        row = desk.currency(_field(one, "a", str, "B."))
        if row < 0:
            continue
        decimals = int(desk.answers.currencies[row]["decimals"])
        free, locked = (desk.rounded(one.get(key), f"B.{key}", decimals, up=False) for key in "fl")
        desk.note(a.BALANCE, row, free=free, locked=locked, venue_ns=venue_ns)


def _read_move(desk: Desk, event: dict[str, Any]) -> None:
    row = desk.currency(_field(event, "a", str, ""))
    if row < 0:
        return
    text, decimals = _field(event, "d", str, ""), int(desk.answers.currencies[row]["decimals"])
    is_out = text.startswith("-")
    amount = desk.rounded(text.removeprefix("-"), "d", decimals, up=is_out)
    desk.note(a.MOVED, row, free=-amount if is_out else amount, venue_ns=time_ns(event, "T"))


def _execution_kind(event: dict[str, Any]) -> tuple[int, str]:
    """Tell what kind of REPORT an event is, and its reason."""
    execution, status = one_of(event, "x", _EXECUTIONS), one_of(event, "X", STATUSES)
    if execution == "TRADE_PREVENTION":
        return (m.EXPIRED if status in ("EXPIRED", "EXPIRED_IN_MATCH") else m.AMENDED), "self_trade"
    if execution == "REJECTED":
        return m.REJECTED, _REJECTS.get(_field(event, "r", str, ""), "venue")
    if execution == "EXPIRED":
        return m.EXPIRED, _expiry_reason(event, status)
    kinds = {"NEW": m.ACCEPTED, "TRADE": m.FILL, "CANCELED": m.CANCELLED, "REPLACED": m.AMENDED}
    return kinds[execution], "by_request" if execution in ("CANCELED", "REPLACED") else "none"


def _expiry_reason(event: dict[str, Any], status: str) -> str:
    if status == "EXPIRED_IN_MATCH":
        return "self_trade"
    if "eR" in event:
        return _EXPIRIES.get(_field(event, "eR", str, ""), "venue")
    if _field(event, "o", str, "") == "MARKET":
        return "no_liquidity"
    return "venue" if _field(event, "f", str, "") == "GTC" else "unfilled"


def _read_execution(desk: Desk, event: dict[str, Any]) -> None:
    row, venue_id, venue_ns = desk.instrument(event, "s"), integer(event, "i", 1), time_ns(event, "T")
    if row < 0:
        desk.note(a.FOREIGN, venue_ns=venue_ns, order_id=venue_id)
        return
    kind, reason = _execution_kind(event)
    name, original = _field(event, "c", str, ""), _field(event, "C", str, "")
    own = desk.own_id(original or name)
    request = (desk.own_id(name) or own) if kind == m.CANCELLED else own
    prevented = desk.quantity(event, "A", row) if "A" in event else 0
    quantity, filled = desk.quantity(event, "q", row) - prevented, desk.quantity(event, "z", row)
    if quantity < filled:
        raise Refused(f"z is {event['z']}: more than is left of q, {event['q']}")
    side, price = side_of(event, "S"), desk.price(event, "p", row)
    target = own if kind in (m.CANCELLED, m.EXPIRED, m.AMENDED) else 0
    found = desk.row(kind, request, target, row, reason, venue_order_id=venue_id, venue_ns=venue_ns, filled=filled)
    found["side"], found["price"], found["quantity"] = side, price, quantity
    if kind == m.FILL:
        found["flags"] = (m.MAKER if _field(event, "m", bool, "") else 0) | (m.FINAL if event["X"] == "FILLED" else 0)
        found["trade_id"] = integer(event, "t")
        found["last_price"], found["last_quantity"] = desk.price(event, "L", row), desk.quantity(event, "l", row)
        found["fee"], found["fee_currency"] = desk.fee(event, "n", "N", row)
        if found["last_price"] == 0 or found["last_quantity"] == 0:
            raise Refused("a trade of nothing: l and L are more than 0")
    found["leaves"] = 0 if found["flags"] & m.FINAL else quantity - filled
