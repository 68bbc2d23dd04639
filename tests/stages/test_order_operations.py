"""Risk, gateway and paper venue together: whatever is asked for, at the end nothing is bound and nothing is lost."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from shrivenq.shm import pool
from shrivenq.stages import gateway
from shrivenq.stages import messages as m
from tests.stages.gateway_rig import GatewayRig
from tests.stages.risk_desk import MS, SPOT, Desk, make_config
from tests.stages.venue_rig import VenueRig, drain, push

WIDE = {
    "open_orders_max": 60, "position_max": "1000", "gross_exposure_max": "10000000", "daily_loss_max": "10000000",
    "repeated_execution_max": 1_000_000, "duplicate_window_ms": 1, "intent_age_ms_max": 1_000,
    "market_data_age_ms_max": 60_000,
}  # fmt: skip
LIMITS = gateway.Limits(quantity_max="9", price_min="0.1", price_max="10000")
UNIT = 100_000
KINDS = (m.NEW, m.CANCEL, m.REPLACE, m.AMEND, m.CANCEL_ALL, "trade", "level")


def fields_of(row):
    return {name: row[name] for name in row.dtype.names if name != "sequence"}


class Line:
    """The three stages in virtual time, joined by hand."""

    def __init__(self):
        config = make_config(WIDE, message_rate_max=10_000, cancel_reserve=10, reject_streak_max=1_000_000)
        self.desk = Desk(config)
        names = {row["symbol"].decode(): LIMITS for row in self.desk.instruments}
        self.gateway = GatewayRig(
            virtual=True, slots=self.desk.pool, instruments=self.desk.instruments, limits=names, orders_max=10_000
        )
        self.venue = VenueRig(order_us=3, report_us=2, instruments=self.desk.instruments)
        self.venue.now = self.desk.now
        self.venue.snapshot(
            [(50_000 - 10 * i, 3 * UNIT) for i in range(9)], [(50_010 + 10 * i, 3 * UNIT) for i in range(9)]
        )
        self.told, self.mine, self.admitted = [], {}, {}

    def down(self):
        """Let what risk lets out reach the venue."""
        for order in self.desk.read("order"):
            if order["kind"] in (m.NEW, m.REPLACE):
                self.admitted[int(order["order_id"])] = order
            push(self.gateway.orders, **fields_of(order))
        self.gateway.step()
        self.gateway.journaled()
        for order in drain(self.gateway.to_venue):
            push(self.venue.to_venue, **fields_of(order))
        self.venue.step()

    def until(self, time_ns):
        """Let everything happen that is due; each report goes all the way up."""
        while self.venue.venue[0] <= time_ns:
            for report in self.venue.grant(self.venue.venue[0]):
                push(self.gateway.from_venue, **fields_of(report))
            self.down()
            for report in drain(self.gateway.reports):
                self.desk.write("report", **fields_of(report))
                self.desk.step()
            self.told.extend(self.desk.read("feedback"))
            self.down()

    def act(self, pick):
        """Ask for something, or let the market move."""
        self.venue.now += pick.randrange(2, 4_000_000)
        self.until(self.venue.now)
        self.desk.now = self.venue.now
        self.desk.touch(SPOT, 50_000, 50_010)
        kind, side = pick.choices(KINDS, (40, 6, 6, 14, 1, 14, 20))[0], pick.choice((m.BUY, m.SELL))
        price = 50_000 + 10 * pick.randint(-5, 6)
        if kind == "trade":
            self.venue.trade(price, UNIT * pick.randint(1, 5), side)
        elif kind == "level":
            away = 10 * pick.randint(0, 4)
            levels = [(50_000 - away if side == m.BUY else 50_010 + away, UNIT * pick.randint(0, 5))]
            self.venue.diff(**{"bids" if side == m.BUY else "asks": levels})
        elif kind in (m.NEW, m.CANCEL_ALL) or self.admitted:
            target = 0 if kind in (m.NEW, m.CANCEL_ALL) else pick.choice(sorted(self.admitted)[-8:])
            self.ask(pick, kind, side, price, target)

    def ask(self, pick, kind, side, price, target):
        fields = {"order_type": pick.randint(m.LIMIT, m.TAKE_PROFIT_LIMIT), "side": side, "target_id": target}
        fields |= {"self_trade": pick.randrange(7), "stop_price": 0, "price": price}
        if fields["order_type"] >= m.STOP_LOSS:
            fields["stop_price"] = 50_000 + 10 * pick.randint(-5, 6)
        if fields["order_type"] in (m.MARKET, m.STOP_LOSS, m.TAKE_PROFIT):
            fields["price"] = 0
        if fields["order_type"] != m.LIMIT_MAKER:
            fields["time_in_force"] = pick.choice((m.GTC, m.GTC, m.IOC, m.FOK))
        if kind == m.REPLACE:
            fields["side"] = int(self.admitted[target]["side"])
        self.desk.intent(**fields, kind=kind, quantity=UNIT * pick.randint(1, 6))
        self.desk.step()
        self.down()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_bound_and_nothing_is_lost_when_everything_is_over(seed):
    pick, line = random.Random(seed), Line()
    for _ in range(500):
        line.act(pick)
    line.until(1 << 61)
    line.desk.now = line.venue.now = max(line.venue.now, int(line.gateway.context.words[0])) + MS
    line.desk.intent(kind=m.CANCEL_ALL)
    line.desk.step()
    line.down()
    line.until(1 << 61)
    context = line.desk.context
    row = context.rows[SPOT]
    assert (row["open_buy"], row["open_sell"], row["open_orders"]) == (0, 0, 0), f"seed {seed}"
    assert not context.totals["open_value"].any(), f"seed {seed}"
    assert pool.used(line.desk.pool) == 0, f"seed {seed}"
    assert not line.gateway.context.illegal.any(), f"seed {seed}"
    filled, ends, kinds = defaultdict(int), defaultdict(int), set()
    for one in line.told:
        if one["kind"] == m.DENIED:
            continue
        kinds.add(int(one["kind"]))
        named = one["kind"] in (m.CANCELLED, m.REPLACED, m.AMENDED)
        order = int(one["target_id" if named else "order_id"])
        filled[order] += int(one["side"]) * int(one["last_quantity"])
        ends[order] += bool(one["flags"] & m.FINAL or one["kind"] == m.REPLACED)
    assert {order: ends[order] for order in line.admitted} == dict.fromkeys(line.admitted, 1), f"seed {seed}"
    assert context.positions.rows[SPOT]["position"] == sum(filled.values()), f"seed {seed}"
    table = line.venue.context.market.orders
    assert {int(one["order_id"]): int(one["side"] * one["filled"]) for one in table if one["filled"]} == {
        order: size for order, size in filled.items() if size
    }, f"seed {seed}"
    assert {m.ACCEPTED, m.FILL, m.CANCELLED, m.EXPIRED, m.AMENDED} <= kinds, f"seed {seed}"
