"""What requests about tickers and klines may say, and what they weigh, beside what all requests share (`requests.py`).

Source: the venue's REST document; section 10 of the protocol sheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shrivenq.pipeline.exchange.klines import DAY_S, HOUR_S, MINUTE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = ("FULL", "MINI")
"""Words of `type`."""
WINDOWS = (
    {f"{minutes}m": minutes * MINUTE_S for minutes in range(1, 60)}
    | {f"{hours}h": hours * HOUR_S for hours in range(1, 24)}
    | {f"{days}d": days * DAY_S for days in range(1, 8)}
)
"""Words of `windowSize`, with their seconds."""
COMPUTED = frozenset({"ticker", "ticker.tradingDay"})
"""Need a symbol, or several, and weigh the more of them."""
TYPED = COMPUTED | {"ticker.24hr"}
"""Whose `type` is one of TYPES."""
SYMBOLS_MAX = 100
"""Of a computed ticker."""
EACH, COMPUTED_MAX = 4, 200
FEW, MANY = 20, 100
"""Symbols of ticker.24hr up to which it weighs 2, and 40; all of them, or more, weigh 80."""


def count_symbols(values: Mapping[str, Any]) -> int | None:
    """Count the symbols a request asks about, checked or not; None for all there are."""
    if "symbol" in values:
        return 1
    listed = values.get("symbols")
    if listed is None:
        return None
    return len(listed) if isinstance(listed, list) else str(listed).count(",") + 1


def ticker_weight(name: str, values: Mapping[str, Any]) -> int:
    """Weigh a ticker that is TYPED."""
    count = count_symbols(values)
    if name in COMPUTED:
        return min(COMPUTED_MAX, EACH * (count or 1))
    if count is None or count > MANY:
        return 80
    return 2 if count <= FEW else 40
