"""A desk for testing risk: the stage on private rings, with what sits around it played by the test."""

from __future__ import annotations

import numpy as np

from shrivenq.shm import pool, ring
from shrivenq.stages import control, risk, stage
from shrivenq.stages import messages as m
from shrivenq.stages.orders import ORDER_SLOT
from shrivenq.stages.risk_limits import Config, Limits

BTC, USD = 0, 1
SPOT, PERPETUAL, OTHER = 0, 1, 2
NOON = 1_700_000_000_000_000_000 // 86_400_000_000_000 * 86_400_000_000_000 + 43_200_000_000_000
MS = 1_000_000


def tables():
    """Two spot instruments in USD and an inverse perpetual of 100 USD a contract, settled in BTC."""
    currencies = np.zeros(2, m.CURRENCY)
    currencies["code"] = b"BTC", b"USD"
    currencies["decimals"] = 8
    instruments = np.zeros(3, m.INSTRUMENT)
    instruments["symbol"] = b"SPOT", b"PERP", b"OTHER"
    instruments["tick"] = 10, 5, 10
    instruments["step"] = 100, 1, 100
    instruments["price_min"], instruments["price_max"] = 10, 1_000_000
    instruments["quantity_min"] = 1_000, 1, 1_000
    instruments["quantity_max"] = 10_000_000, 10_000, 10_000_000
    instruments["notional_min"] = 10 * 10**8, 0, 10 * 10**8
    instruments["notional_max"] = 100_000 * 10**8, 0, 0
    instruments["contract_size"] = 10**6, 100 * 10**8, 10**6
    instruments["price_decimals"] = 2, 1, 2
    instruments["quantity_decimals"] = 6, 0, 6
    instruments["base_currency"], instruments["quote_currency"] = BTC, USD
    instruments["settle_currency"] = USD, BTC, USD
    instruments["inverse"] = 0, 1, 0
    instruments["tradable"] = 1
    return instruments, currencies


LIMITS = {
    "price_collar_bps": "100",
    "order_quantity_max": "5",
    "order_value_max": "30000",
    "position_max": "8",
    "gross_exposure_max": "60000",
    "open_orders_max": 6,
    "duplicate_window_ms": 50,
    "market_data_age_ms_max": 1_000,
    "intent_age_ms_max": 20,
    "daily_loss_max": "1000",
    "repeated_execution_max": 50,
}
PERPETUAL_LIMITS = LIMITS | {
    "order_quantity_max": "500",
    "order_value_max": "10",
    "position_max": "1000",
    "gross_exposure_max": "40",
    "daily_loss_max": "1",
}


def make_config(limits=None, perpetual=None, **changes):
    changes = {
        "message_rate_max": 100,
        "message_window_ms": 1_000,
        "cancel_reserve": 10,
        "reject_streak_max": 5,
    } | changes
    spot = Limits(**(LIMITS | (limits or {})))
    return Config(
        limits={"SPOT": spot, "OTHER": spot, "PERP": Limits(**(PERPETUAL_LIMITS | (perpetual or {})))}, **changes
    )


def private_ring(dtype, count):
    own, peer, slots = np.zeros(512, np.int64), np.zeros(512, np.int64), np.zeros(count, dtype)
    return ring.Producer(own, peer, slots), ring.Consumer(peer, own, slots)


class Desk:
    """The stage in virtual time, its neighbours' ring ends, and short ways to speak to it."""

    def __init__(self, config=None, *, pool_count=64, rings=None):
        self.instruments, self.currencies = tables()
        sizes = {"touch": 64, "report": 64, "intent": 64, "order": 256, "feedback": 256} | (rings or {})
        dtypes = {"touch": m.TOUCH, "report": m.REPORT, "intent": m.INTENT, "order": m.ORDER, "feedback": m.REPORT}
        self.ends = {name: private_ring(dtypes[name], count) for name, count in sizes.items()}
        self.kill, self.hold, self.instrument_hold, self.loop = (np.zeros(512, np.int64) for _ in range(4))
        self.loop[stage.VIRTUAL] = 1
        self.pool = pool.private(ORDER_SLOT, pool_count)
        self.setup = stage.Setup(
            config=config or make_config(),
            instruments=self.instruments,
            currencies=self.currencies,
            producers={name: self.ends[name][0] for name in risk.STAGE.writes},
            consumers={name: self.ends[name][1] for name in risk.STAGE.reads},
            loop=self.loop,
            shared={
                "kill": self.kill,
                "hold": self.hold,
                "instrument_hold": self.instrument_hold,
                "orders": self.pool,
                "epoch": np.array([3], np.int64),
            },
        )
        self.context = risk.build(self.setup)
        self.now = NOON
        self.next_id = (3 << m.EPOCH_SHIFT) + 1

    def write(self, name, **fields):
        """Put one message into an input ring."""
        end = self.ends[name][0]
        assert ring.claim(end, 1)
        sequence = end.own[ring.NEXT]
        at = ring.next_slot(end)
        end.slots[at] = np.zeros((), end.slots.dtype)
        end.slots[at]["sequence"] = sequence
        for key, value in fields.items():
            end.slots[at][key] = value
        ring.publish(end)

    def read(self, name):
        """Take everything from an output ring, as copies."""
        end = self.ends[name][1]
        found = []
        while ring.available(end):
            found.append(end.slots[ring.slot_at(end, 0)].copy())
            assert found[-1]["sequence"] == end.own[ring.TAIL]
            ring.release(end, 1)
        return found

    def step(self):
        return risk.step(self.context, self.loop)

    def touch(self, instrument=SPOT, bid=50_000, ask=50_010, flags=m.VALID, **fields):
        """Tell a touch at the current time."""
        values = {"instrument": instrument, "bid_price": bid, "ask_price": ask, "flags": flags, "time_ns": self.now}
        self.write("touch", **(values | fields))

    def intent(self, **fields):
        """Ask for something; the request's id."""
        values = {
            "instrument": SPOT,
            "kind": m.NEW,
            "time_ns": self.now,
            "order_id": self.next_id,
            "price": 50_000,
            "quantity": 1_000_000,
            "side": m.BUY,
            "order_type": m.LIMIT,
            "time_in_force": m.GTC,
        } | fields
        self.next_id += 1
        self.write("intent", **values)
        return values["order_id"]

    def ask(self, **fields):
        """Ask for something: the ORDER it became, or the name of the reason why not."""
        order_id = self.intent(**fields)
        self.step()
        ours = [order for order in self.read("order") if order["order_id"] == order_id]
        denials = [report for report in self.read("feedback") if report["order_id"] == order_id]
        assert len(ours) + len(denials) == 1
        if ours:
            return ours[0]
        assert denials[0]["kind"] == m.DENIED
        assert denials[0]["flags"] == m.FINAL
        return m.REASONS[denials[0]["reason"]]

    def report(self, order, kind, **fields):
        """Tell what became of an ORDER; a report that ends it gives its slot back first, as the gateway does."""
        values = {
            "kind": kind,
            "time_ns": self.now,
            "slot": order["slot"],
            "generation": order["generation"],
            "order_id": order["order_id"],
        } | {key: order[key] for key in ("instrument", "side", "price", "quantity")}
        values |= fields
        if values.get("flags", 0) & m.FINAL:
            pool.give_back(self.pool, order["slot"], order["generation"])
        self.write("report", **values)
        self.step()

    def hold_alone(self, instrument, causes):
        """Hold one instrument, or no more with 0, as the REST process does."""
        self.instrument_hold[instrument] = causes
        self.hold[control.CHANGES] += 1

    def fill(self, order, price, quantity, trade_id, *, fee=0, fee_currency=USD, final=True):
        """Tell a fill of an ORDER."""
        flags = m.FINAL if final else 0
        self.report(
            order,
            m.FILL,
            flags=flags,
            last_price=price,
            last_quantity=quantity,
            trade_id=trade_id,
            fee=fee,
            fee_currency=fee_currency,
        )


def armed_desk(**changes):
    desk = Desk(make_config(**changes))
    desk.touch()
    desk.touch(PERPETUAL, 500_000, 500_005)
    desk.touch(OTHER, 20_000, 20_010)
    return desk


def hold_position(quantity, price=50_000):
    desk = armed_desk()
    side = m.BUY if quantity > 0 else m.SELL
    order = desk.ask(side=side, quantity=abs(quantity), price=price)
    desk.fill(order, price, abs(quantity), 1)
    desk.read("feedback")
    return desk
