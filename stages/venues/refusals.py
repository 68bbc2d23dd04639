"""What Binance's error codes and texts mean, compiled: is the outcome known, and which of our reasons is it.

A request that failed was definitely refused, or its outcome is unknown; there is no third case. What the venue's
documentation does not name as a refusal is unknown: the order is held and asked about.

Sources: Binance Spot API, errors; the outcome classes are the protocol sheet's.
"""

from __future__ import annotations

from typing import Any

from shrivenq.shm.kernel import kernel
from shrivenq.stages import messages as m
from shrivenq.stages.venues.text import matches

REASON = m.REASON
VENUE, VENUE_ERROR, MALFORMED, UNAUTHORIZED = (
    REASON["venue"],
    REASON["venue_error"],
    REASON["malformed"],
    REASON["unauthorized"],
)
VENUE_RATE, BANNED, CLOCK, UNKNOWN_ORDER = (
    REASON["venue_rate"],
    REASON["banned"],
    REASON["clock"],
    REASON["unknown_order"],
)
DUPLICATE, WOULD_TAKE, WOULD_TRIGGER, INSUFFICIENT = (
    REASON["duplicate"],
    REASON["would_take"],
    REASON["would_trigger"],
    REASON["insufficient_balance"],
)
NOT_TRADABLE, TICK_SIZE, STEP_SIZE, NOTIONAL_RANGE = (
    REASON["not_tradable"],
    REASON["tick_size"],
    REASON["step_size"],
    REASON["notional_range"],
)
PRICE_COLLAR, OPEN_ORDERS, POSITION, UNKNOWN_INSTRUMENT = (
    REASON["price_collar"],
    REASON["open_orders"],
    REASON["position"],
    REASON["unknown_instrument"],
)


@kernel
def is_definite(kind: int, status: int, code: int) -> bool:
    """Tell whether a request of this kind (NEW, CANCEL …) that failed was refused for certain."""
    if status >= 500:
        return False
    if status in (401, 418, 429):
        return True
    if code == -2038:
        return kind == m.AMEND
    return code in (-1013, -1015, -1021, -1022, -2010, -2011, -2013, -2014, -2015) or -1199 <= code <= -1100


@kernel
def _filter_reason(data: Any, at: int) -> int:
    """Name the filter whose text `Filter failure: …` goes on at `at`."""
    if matches(data, at, "PRICE_FILTER"):
        return TICK_SIZE
    if matches(data, at, "LOT_SIZE") or matches(data, at, "MARKET_LOT_SIZE"):
        return STEP_SIZE
    if matches(data, at, "NOTIONAL") or matches(data, at, "MIN_NOTIONAL"):
        return NOTIONAL_RANGE
    if matches(data, at, "PERCENT_PRICE"):
        return PRICE_COLLAR
    if matches(data, at, "MAX_NUM_") or matches(data, at, "EXCHANGE_MAX_NUM_"):
        return OPEN_ORDERS
    if matches(data, at, "MAX_POSITION"):
        return POSITION
    return VENUE


@kernel
def _text_reason(data: Any, at: int) -> int:
    """Name the reason that the text of -2010 or -2011 at `at` gives."""
    if matches(data, at, "Account has insufficient balance for requested action."):
        return INSUFFICIENT
    if matches(data, at, "Order would immediately match and take."):
        return WOULD_TAKE
    if matches(data, at, "Order would trigger immediately."):
        return WOULD_TRIGGER
    if matches(data, at, "Unknown order sent."):
        return UNKNOWN_ORDER
    if matches(data, at, "Duplicate order sent."):
        return DUPLICATE
    if matches(data, at, "Market is closed."):
        return NOT_TRADABLE
    return VENUE


@kernel
def reason_of(status: int, code: int, data: Any, at: int, length: int) -> int:
    """Name the reason for a definite refusal; its text is `data[at:at + length]`, with 64 readable bytes behind it."""
    if status == 418:
        return BANNED
    if status == 429 or code == -1015:
        return VENUE_RATE
    if status == 401 or code in (-1022, -2014, -2015):
        return UNAUTHORIZED
    if code == -1021:
        return CLOCK
    if code == -2013:
        return UNKNOWN_ORDER
    if code == -1121:
        return UNKNOWN_INSTRUMENT
    if code in (-2010, -2011) and length >= 16:
        return _text_reason(data, at)
    if code == -1013 and length >= 24 and matches(data, at, "Filter failure: "):
        return _filter_reason(data, at + 16)
    if -1199 <= code <= -1100:
        return MALFORMED
    return VENUE
