"""User data: what happened to an account → the events its clients are sent over the WebSocket API.

    Venue ──events──▶ UserData.take ──▶ each subscription of the account ──▶ {"subscriptionId": 0, "event": {…}}

Nothing is kept for who is not connected: there is no replay. Source: section 9 of the protocol sheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.payloads import Format, list_order_status, to_text
from shrivenq.pipeline.exchange.types import BalanceEvent, DepositEvent, ListEvent, OrderEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from shrivenq.pipeline.exchange.types import Event
    from shrivenq.pipeline.exchange.venue import Venue

ACTIVE_MAX = 1000
"""Subscriptions of one connection at a time."""
LIFETIME_MAX = 65_535
"""Subscriptions a connection may make in its life."""

Json = dict[str, Any]


class Subscriber(Protocol):
    """A connection as seen from here."""

    def time(self, time_us: int) -> int:
        """Convert a moment to the unit the client asked for."""

    def send_event(self, name: str, message: Json) -> None:
        """Send one event."""


class Subscription(NamedTuple):
    """One subscription of a connection."""

    id: int
    account: int
    by_session: bool
    """Made by the session's own logon, with which it ends; else by a signature of its own."""


class UserData:
    """All subscriptions to accounts' events."""

    def __init__(self, venue: Venue) -> None:
        self._formats = venue.formats
        self._decimals = venue.asset_decimals
        self._now_us = venue.now_us
        self._subscribers: dict[int, dict[tuple[Subscriber, int], None]] = {}  # by account, in order of coming
        venue.listen(self.take)

    def add(self, subscriber: Subscriber, subscription: Subscription) -> None:
        """Send an account's events to a connection from now on."""
        self._subscribers.setdefault(subscription.account, {})[subscriber, subscription.id] = None

    def remove(self, subscriber: Subscriber, subscription: Subscription) -> None:
        """Send them no longer."""
        self._subscribers[subscription.account].pop((subscriber, subscription.id), None)

    def take(self, events: list[Event]) -> None:
        """Pass on what happened to accounts that somebody follows."""
        for event in events:
            if isinstance(event, OrderEvent | ListEvent | BalanceEvent | DepositEvent):
                for subscriber, number in list(self._subscribers.get(event.account, ())):
                    shape = self.shape(event, subscriber.time)
                    subscriber.send_event(shape["e"], {"subscriptionId": number, "event": shape})

    def shape(self, event: OrderEvent | ListEvent | BalanceEvent | DepositEvent, time: Callable[[int], int]) -> Json:
        """Make the event's JSON object."""
        now = time(self._now_us())
        if isinstance(event, OrderEvent):
            return execution_report(event, self._formats[event.order.symbol], now, time)
        if isinstance(event, ListEvent):
            return list_status(event, now, time)
        if isinstance(event, BalanceEvent):
            return account_position(event, self._decimals, now, time)
        return balance_update(event, self._decimals, now, time)


class Subscriptions:
    """The subscriptions of one connection."""

    def __init__(self, everybody: UserData, subscriber: Subscriber) -> None:
        self._everybody = everybody
        self._subscriber = subscriber
        self._made = 0
        self.active: dict[int, Subscription] = {}

    def subscribe(self, account: int, *, by_session: bool) -> int:
        """Follow an account; returns the subscription's id. Raises ApiError."""
        if any(subscription.account == account for subscription in self.active.values()):
            raise ApiError(-2035, "User Data Stream subscription already active.")
        if len(self.active) >= ACTIVE_MAX or self._made >= LIFETIME_MAX:
            raise ApiError(-2042, "Subscription IDs exhausted on this connection.")
        subscription = Subscription(self._made, account, by_session)
        self._made += 1
        self.active[subscription.id] = subscription
        self._everybody.add(self._subscriber, subscription)
        return subscription.id

    def find(self, number: int | None) -> list[Subscription]:
        """Find one subscription, or all of them for None. Raises ApiError where there is none."""
        found = [one for one in self.active.values() if number in (None, one.id)]
        if not found:
            raise ApiError(-2036, "User Data Stream subscription not active.")
        return found

    def of_session(self) -> list[Subscription]:
        """Give what ends when the session logs out."""
        return [one for one in self.active.values() if one.by_session]

    def end(self, subscriptions: list[Subscription]) -> None:
        """Stop following; does not tell the client (`terminated` does)."""
        for subscription in subscriptions:
            del self.active[subscription.id]
            self._everybody.remove(self._subscriber, subscription)

    def end_all(self) -> None:
        """Stop following anything: the connection is gone."""
        self.end(list(self.active.values()))


def terminated(number: int, now: int) -> Json:
    """Tell that a subscription ended."""
    return {"subscriptionId": number, "event": {"e": "eventStreamTerminated", "E": now}}


def execution_report(event: OrderEvent, form: Format, now: int, time: Callable[[int], int]) -> Json:
    """Report a change of an order."""
    order, fill = event.order, event.fill
    shape: Json = {
        "e": "executionReport",
        "E": now,
        "s": order.symbol,
        "c": event.client_id,
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": form.quantity(order.quantity),
        "p": form.price(order.price),
        "P": form.price(order.stop_price),
        "F": form.quantity(order.iceberg),
        "g": order.list_id,
        "C": event.original_client_id,
        "x": event.execution,
        "X": order.status,
        "r": event.reject_reason,
        "i": order.order_id,
        "l": form.quantity(fill.quantity if fill else 0),
        "z": form.quantity(order.executed),
        "L": form.price(fill.price if fill else 0),
        "n": form.commission(fill) if fill else "0",
        "N": fill.commission_asset if fill else None,
        "T": time(event.time_us),
        "t": fill.trade_id if fill else -1,
        "I": event.execution_id,
        "w": order.is_working,
        "m": fill.is_maker if fill else False,
        "M": fill is not None,
        "O": time(order.created_us),
        "Z": form.quote(order.cumulative_quote),
        "Y": form.quote(fill.quote if fill else 0),
        "Q": form.quote(order.quote_quantity),
        "V": order.stp,
    }
    if order.working_us:
        shape["W"] = time(order.working_us)
    if order.trailing_delta:
        shape["d"] = order.trailing_delta
    if order.trailing_us:
        shape["D"] = time(order.trailing_us)
    return shape | _conditional(event, form)


def _conditional(event: OrderEvent, form: Format) -> Json:
    """Give what a report says only now and then."""
    order = event.order
    shape: Json = {}
    if order.strategy_id is not None:
        shape["j"] = order.strategy_id
    if order.strategy_type is not None:
        shape["J"] = order.strategy_type
    if order.prevented_match_id >= 0:
        shape["v"] = order.prevented_match_id
        shape["A"] = form.quantity(order.prevented)
    if order.expiry_reason is not None:
        shape["eR"] = order.expiry_reason
    if event.execution == "TRADE_PREVENTION":
        shape["B"] = form.quantity(event.prevented_quantity)
        shape["u"] = order.trade_group
        shape["U"] = event.counter_order_id
        shape["Cs"] = order.symbol
        if event.transferred_quantity:
            shape["pl"] = form.quantity(event.transferred_quantity)
            shape["pL"] = form.price(event.transferred_price)
            shape["pY"] = form.quote(event.transferred_quote)
    return shape


def list_status(event: ListEvent, now: int, time: Callable[[int], int]) -> Json:
    """Tell that an order list began, has changed or is done."""
    view = event.view
    return {
        "e": "listStatus",
        "E": now,
        "s": view.symbol,
        "g": view.list_id,
        "c": view.contingency,
        "l": view.status,
        "L": list_order_status(view),
        "r": "NONE",
        "C": view.client_id,
        "T": time(event.time_us),
        "O": [{"s": view.symbol, "i": order_id, "c": word} for order_id, word in view.orders],
    }


def account_position(event: BalanceEvent, decimals: dict[str, int], now: int, time: Callable[[int], int]) -> Json:
    """Tell the balances that may have changed."""
    return {
        "e": "outboundAccountPosition",
        "E": now,
        "u": time(event.time_us),
        "B": [
            {"a": asset, "f": to_text(free, decimals[asset]), "l": to_text(locked, decimals[asset])}
            for asset, free, locked in event.balances
        ],
    }


def balance_update(event: DepositEvent, decimals: dict[str, int], now: int, time: Callable[[int], int]) -> Json:
    """Tell that money came or went from outside."""
    return {
        "e": "balanceUpdate",
        "E": now,
        "a": event.asset,
        "d": to_text(event.delta, decimals[event.asset]),
        "T": time(event.time_us),
    }
