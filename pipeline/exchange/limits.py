"""Rate limits (protocol sheet, section 11): request weight, raw requests and connections by address, orders by account.

An interval is fixed and aligned to the clock, a day to UTC. Who goes on after a 429 is banned with a 418, each time
for twice as long as before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from shrivenq.pipeline.exchange.errors import ApiError

SECOND_US = 1_000_000
UNITS_S = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600, "DAY": 86_400}
BAN_MAX_US = 3 * 86_400 * SECOND_US
TAKER_FILL, MAKER_FILL = 1, 5
"""What the first fill of an order takes off the count of unfilled orders."""


class Rule(NamedTuple):
    """One entry of exchangeInfo's `rateLimits`."""

    kind: str  # REQUEST_WEIGHT, ORDERS, RAW_REQUESTS
    unit: str  # SECOND, MINUTE, HOUR, DAY
    number: int
    limit: int

    @property
    def interval_us(self) -> int:
        """Length of the interval."""
        return self.number * UNITS_S[self.unit] * SECOND_US

    @property
    def letters(self) -> str:
        """How a header names the interval: 1M, 10S, 1D."""
        return f"{self.number}{self.unit[0]}"

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {
            "rateLimitType": self.kind,
            "interval": self.unit,
            "intervalNum": self.number,
            "limit": self.limit,
        }


class Window:
    """A count that begins anew with each interval."""

    __slots__ = ("_count", "_interval", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._interval = -1
        self._count = 0

    def count(self, now_us: int) -> int:
        """Give the count of the interval `now_us` is in."""
        interval = now_us // self.rule.interval_us
        if interval != self._interval:
            self._interval, self._count = interval, 0
        return self._count

    def add(self, number: int, now_us: int) -> int:
        """Add, or take off but never below nothing; give the new count."""
        self._count = max(0, self.count(now_us) + number)
        return self._count

    def room(self, number: int, now_us: int) -> bool:
        """Say whether `number` more are within the limit."""
        return self.count(now_us) + number <= self.rule.limit

    def end_us(self, now_us: int) -> int:
        """Say when the interval is over."""
        return (now_us // self.rule.interval_us + 1) * self.rule.interval_us

    def as_dict(self, now_us: int) -> dict[str, Any]:
        """Give the JSON object of a WebSocket response."""
        return {**self.rule.as_dict(), "count": self.count(now_us)}


class Rules(NamedTuple):
    """The limits of a venue."""

    weight: Rule
    raw: Rule
    orders: tuple[Rule, ...]
    connections: Rule
    ban_after: int
    """So many requests refused in a row with a 429, and the next is a 418."""
    ban_us: int
    """Length of the first ban."""

    def as_list(self) -> list[dict[str, Any]]:
        """Give exchangeInfo's `rateLimits`."""
        return [rule.as_dict() for rule in (self.weight, *self.orders, self.raw)]


class Address:
    """What one IP address has used."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.weight = Window(rules.weight)
        self.raw = Window(rules.raw)
        self.connections = Window(rules.connections)
        self.banned_until_us = 0
        self._refused = 0
        self._bans = 0

    def charge(self, weight: int, now_us: int) -> None:
        """Count a request of `weight`. Raises ApiError 429 over a limit, 418 once banned."""
        self.check_ban(now_us)
        for window, number in ((self.raw, 1), (self.weight, weight)):
            if not window.room(number, now_us):
                self._refuse(window, now_us)
        self.raw.add(1, now_us)
        self.weight.add(weight, now_us)
        self._refused = 0

    def connect(self, now_us: int) -> bool:
        """Count an attempt to connect; say whether it may."""
        if self.banned_until_us > now_us or not self.connections.room(1, now_us):
            return False
        self.connections.add(1, now_us)
        return True

    def ban(self, length_us: int, now_us: int) -> None:
        """Ban the address from now on."""
        self.banned_until_us = now_us + length_us

    def check_ban(self, now_us: int) -> None:
        """Raise ApiError 418 while banned."""
        if now_us < self.banned_until_us:
            raise ApiError(
                -1003,
                f"Way too much request weight used; IP banned until {self.banned_until_us // 1000}. "
                "Please use WebSocket Streams for live updates to avoid bans.",
                status=418,
                retry_us=self.banned_until_us,
            )

    def _refuse(self, window: Window, now_us: int) -> None:
        self._refused += 1
        if self._refused > self._rules.ban_after:
            self.ban(min(self._rules.ban_us << self._bans, BAN_MAX_US), now_us)
            self._bans += 1
            self._refused = 0
            self.check_ban(now_us)
        rule = window.rule
        what = "request weight" if window is self.weight else "requests"
        raise ApiError(
            -1003,
            f"Too much request weight used; current limit is {rule.limit} {what} per {rule.number} {rule.unit}. "
            "Please use WebSocket Streams for live updates to avoid polling the API.",
            status=429,
            retry_us=window.end_us(now_us),
        )


class Orders:
    """The unfilled orders one account has placed."""

    def __init__(self, rules: Rules) -> None:
        self.windows = [Window(rule) for rule in rules.orders]

    def check(self, now_us: int, number: int = 1) -> None:
        """Raise ApiError -1015 when there is no room for `number` more orders."""
        for window in self.windows:
            if not window.room(number, now_us):
                rule = window.rule
                raise ApiError(
                    -1015,
                    f"Too many new orders; current limit is {rule.limit} orders per {rule.number} {rule.unit}.",
                    status=429,
                    retry_us=window.end_us(now_us),
                )

    def add(self, number: int, now_us: int) -> None:
        """Count `number` orders."""
        for window in self.windows:
            window.add(number, now_us)

    def filled(self, now_us: int, *, maker: bool) -> None:
        """Take off for an order's first fill."""
        self.add(-MAKER_FILL if maker else -TAKER_FILL, now_us)


class Limits:
    """Everything that is counted, by address and by account; made when first asked for."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._addresses: dict[str, Address] = {}
        self._orders: dict[int, Orders] = {}

    def address(self, host: str) -> Address:
        """Give the counts of an IP address."""
        if host not in self._addresses:
            self._addresses[host] = Address(self.rules)
        return self._addresses[host]

    def orders(self, account: int) -> Orders:
        """Give the counts of an account."""
        if account not in self._orders:
            self._orders[account] = Orders(self.rules)
        return self._orders[account]
