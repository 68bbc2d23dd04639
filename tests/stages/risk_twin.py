"""Risk the slow way: dictionaries and fractions, one obvious statement per rule, to compare the stage with."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from shrivenq.stages import control, risk
from shrivenq.stages import messages as m

DAY_NS = 86_400 * 10**9
SMALL = 2**62
STOPS = (m.STOP_LOSS, m.STOP_LOSS_LIMIT, m.TAKE_PROFIT, m.TAKE_PROFIT_LIMIT)
UNLIMITED = (m.MARKET, m.STOP_LOSS, m.TAKE_PROFIT)


class Twin:
    """Everything the stage decides, given the same messages. Money is in the smallest units, as in the stage."""

    def __init__(self, instruments, currencies, config):
        self.table = [dict(zip(instruments.dtype.names, row.tolist(), strict=True)) for row in instruments]
        self.currencies = [int(row["decimals"]) for row in currencies]
        self.config = config
        self.limits = [config.limits[row["symbol"].decode()] for row in self.table]
        count = len(self.table)
        self.touch = [None] * count
        self.position = [0] * count
        self.cost = [0] * count
        self.realised = [0] * count
        self.fees = [0] * count
        self.mark = [0] * count
        self.streak = [0] * count
        self.recent = [[] for _ in range(count)]
        self.open = {}
        self.times = []
        self.trades = set()
        self.now = 0
        self.day_end = 0
        self.day_start = [0] * len(self.currencies)
        self.last_id = 0
        self.rejects = 0
        self.operator = self.machine = self.hold = 0
        self.alone = set()  # instruments that are held by themselves
        self.level = 0
        self.spared, self.let_in, self.swept = set(), set(), 0

    # ── values ───────────────────────────────────────────────────────────────────────────────────────────────────

    def worth_of(self, i, price, quantity, *, up):
        """Value in the settle currency's smallest unit: Python's integers, divided once."""
        row = self.table[i]
        above = row["contract_size"] * quantity * 10 ** self.currencies[row["settle_currency"]]
        if row["inverse"]:
            above *= 10 ** row["price_decimals"]
            below = price * 10 ** (row["quantity_decimals"] + self.currencies[row["quote_currency"]])
        else:
            above *= price
            below = 10 ** (row["price_decimals"] + 2 * row["quantity_decimals"])
        return -(-above // below) if up else above // below

    def flow_of(self, i, price, signed):
        """Money that selling `signed` contracts earns, rounded against us."""
        return self.worth_of(i, price, -signed if self.table[i]["inverse"] else signed, up=False)

    def closing(self, i):
        """Flow of closing the position at the mark."""
        return self.flow_of(i, self.mark[i], self.position[i]) if self.position[i] else 0

    def ours(self, currency):
        return [i for i, row in enumerate(self.table) if row["settle_currency"] == currency]

    def profit(self, currency):
        return sum(
            self.realised[i] - self.fees[i] + (self.closing(i) - self.cost[i] if self.position[i] else 0)
            for i in self.ours(currency)
        )

    def open_value(self, currency):
        return sum(
            -(-order["value"] * order["leaves"] // order["quantity"])
            for order in self.open.values()
            if self.table[order["instrument"]]["settle_currency"] == currency
        )

    def gross(self, currency):
        return sum(abs(self.closing(i)) for i in self.ours(currency)) + self.open_value(currency)

    def open_quantity(self, i, side):
        return sum(o["leaves"] for o in self.open.values() if o["instrument"] == i and o["side"] == side)

    def money(self, i, text):
        return Fraction(text) * 10 ** self.currencies[self.table[i]["settle_currency"]]

    def contracts(self, i, text):
        return Fraction(text) * 10 ** self.table[i]["quantity_decimals"]

    def loss_reached(self, i):
        currency = self.table[i]["settle_currency"]
        return self.day_start[currency] - self.profit(currency) >= self.money(i, self.limits[i].daily_loss_max)

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────

    def clock(self, time_ns):
        self.now = max(self.now, time_ns)
        if time_ns >= self.day_end:
            self.day_end = (time_ns // DAY_NS + 1) * DAY_NS
            self.day_start = [self.profit(currency) for currency in range(len(self.currencies))]

    def on_touch(self, i, bid, ask, flags, time_ns):
        self.clock(time_ns)
        valid = flags & m.VALID and 0 < bid < ask
        self.touch[i] = (bid, ask, time_ns, bool(valid))
        if valid and self.position[i]:
            self.mark[i] = bid if self.position[i] > 0 else ask
            if self.loss_reached(i):
                self.machine = max(self.machine, 2)
                self.level = max(self.level, 2)

    def on_fill(self, i, side, price, quantity, fee, trade_id, order):
        if (i, side, trade_id) in self.trades:
            return
        self.trades.add((i, side, trade_id))
        flow = self.flow_of(i, price, -side * quantity)
        held, signed = self.position[i], side * quantity
        if held == 0 or (held > 0) == (signed > 0):
            self.cost[i] -= flow
        elif quantity <= abs(held):
            released = ceil(Fraction(self.cost[i] * quantity, abs(held)))
            self.cost[i] -= released
            self.realised[i] += flow - released
        else:
            part = floor(Fraction(flow * abs(held), quantity))
            self.realised[i] += part - self.cost[i]
            self.cost[i] = part - flow
        self.position[i] += signed
        self.fees[i] += fee
        self.mark[i] = self.mark[i] or price
        if order is None or order["leaves"] == order["size"]:
            same = self.streak[i] * side > 0
            self.streak[i] = self.streak[i] + side if same else side
            if abs(self.streak[i]) >= self.limits[i].repeated_execution_max:
                self.machine = max(self.machine, 2)
                self.level = max(self.level, 2)
        if order is not None:
            order["leaves"] = max(0, order["leaves"] - quantity)
        if self.loss_reached(i):
            self.machine = max(self.machine, 2)
            self.level = max(self.level, 2)

    def on_report(self, report):
        self.clock(report["time_ns"])
        kind, order_id = report["kind"], report["order_id"]
        if kind == m.FILL:
            self.on_fill(
                report["instrument"],
                report["side"],
                report["last_price"],
                report["last_quantity"],
                report["fee"],
                report["trade_id"],
                self.open.get(order_id),
            )
        if kind == m.AMENDED and report["target_id"] in self.open:
            order_id = report["target_id"]
            order = self.open[order_id]
            cut = max(0, min(order["size"] - report["quantity"], order["leaves"]))
            order["size"] -= cut
            order["leaves"] -= cut
        if kind in (m.ACCEPTED, m.FILL, m.REPLACED):
            self.rejects = 0
        refused = kind == m.REJECTED and m.REASONS[report["reason"]] != "not_tradable"
        if refused or (kind == m.UNKNOWN and not self.hold & control.RECONCILING):
            self.rejects += 1
            if self.rejects >= self.config.reject_streak_max:
                self.machine = max(self.machine, 1)
                self.level = max(self.level, 1)
        gone = order_id if report["flags"] & m.FINAL else None
        if kind in (m.CANCELLED, m.REPLACED) and report["target_id"] > 0:
            gone = report["target_id"]
        self.open.pop(gone, None)
        self.spared.discard(gone)
        self.let_in.discard(gone)

    def watch_kill(self):
        level = max(self.operator, self.machine)
        if level == 0 and self.level != 0:
            self.streak = [0] * len(self.table)
            self.rejects = 0
            self.spared, self.let_in = set(), set()
        self.level = level

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────

    def reduces(self, i, side, quantity):
        if not (0 <= i < len(self.table) and 0 < quantity < SMALL and side in (m.BUY, m.SELL)):
            return False
        return self.position[i] * side < 0 and quantity + self.open_quantity(i, side) <= abs(self.position[i])

    def form(self, intent, reducing):
        i, kind = intent["instrument"], intent["kind"]
        if reducing:
            if self.hold & control.RECONCILING:
                return "held"
        else:
            if max(self.operator, self.machine):
                return "not_armed"
            if self.hold:
                return "held"
        if not 0 <= i < len(self.table):
            return "unknown_instrument"
        row = self.table[i]
        if not row["tradable"] or (i in self.alone and not reducing):
            return "not_tradable"
        if not self.identified(intent, named=kind == m.REPLACE):
            return "malformed"
        price, quantity, order_type = intent["price"], intent["quantity"], intent["order_type"]
        stop_price = intent["stop_price"]
        good = (
            intent["side"] in (m.BUY, m.SELL)
            and 0 < quantity < SMALL
            and m.LIMIT <= order_type <= m.TAKE_PROFIT_LIMIT
            and 0 <= intent["self_trade"] <= m.TRANSFER
            and (0 < stop_price < SMALL if order_type in STOPS else stop_price == 0)
            and intent["time_in_force"] in (m.GTC, m.IOC, m.FOK)
            and (price == 0 if order_type in UNLIMITED else 0 < price < SMALL)
            and not (order_type == m.LIMIT_MAKER and intent["time_in_force"] != m.GTC)
        )
        if not good:
            return "malformed"
        if not self.supported(row, order_type, intent["self_trade"], kind):
            return "not_supported"
        if kind == m.REPLACE:
            target = self.open.get(intent["target_id"])
            if target is None or target["instrument"] != i:
                return "unknown_order"
            if target["side"] != intent["side"]:
                return "malformed"
        reason = self.filters(row, price, stop_price, quantity)
        if reason is None and order_type == m.MARKET:
            reason = self.market(row, quantity)
        return reason or self.collar(i, price, stop_price)

    @staticmethod
    def supported(row, order_type, mode, kind):
        types = {one for one in range(1, 8) if not row["refused_types"] & 2 ** (one - 1)}
        modes = {0} | {one for one in range(1, 7) if not row["refused_modes"] & 2 ** (one - 1)}
        refused = {1: {m.AMEND}, 2: {m.REPLACE}, 3: {m.AMEND, m.REPLACE}}.get(row["refused_requests"], set())
        return order_type in types and mode in modes and kind not in refused

    @staticmethod
    def market(row, quantity):
        if quantity < row["market_quantity_min"] or quantity > (row["market_quantity_max"] or quantity):
            return "quantity_range"
        return "step_size" if row["market_step"] and quantity % row["market_step"] else None

    @staticmethod
    def identified(intent, *, named):
        order_id, target_id = intent["order_id"], intent["target_id"]
        good = 0 < order_id < SMALL and not order_id >> 39 & 1 and 0 < intent["time_ns"] < SMALL
        return good and (not named or (0 < target_id < SMALL and target_id != order_id))

    @staticmethod
    def filters(row, price, stop_price, quantity):
        for one in (price, stop_price):
            if one and not row["price_min"] <= one <= row["price_max"]:
                return "price_range"
            if one % row["tick"]:
                return "tick_size"
        if not row["quantity_min"] <= quantity <= row["quantity_max"]:
            return "quantity_range"
        return "step_size" if quantity % row["step"] else None

    def collar(self, i, price, stop_price):
        if self.touch[i] is None or not self.touch[i][3]:
            return "no_touch"
        if not price:
            return None
        part = Fraction(self.limits[i].price_collar_bps) / 10_000
        bid, ask = (stop_price, stop_price) if stop_price else self.touch[i][:2]
        return None if bid * (1 - part) <= price <= ask * (1 + part) else "price_collar"

    def worth(self, intent):
        """Value to judge an order by; without a limit, at the end of the collar where it is worth most."""
        i, price, stop_price = intent["instrument"], intent["price"], intent["stop_price"]
        if not price:
            part = Fraction(self.limits[i].price_collar_bps) / 10_000
            bid, ask = self.touch[i][:2]
            if stop_price:
                bid, ask = min(bid, stop_price), max(ask, stop_price)
            price = floor(bid * (1 - part)) if self.table[i]["inverse"] else ceil(ask * (1 + part))
        return self.worth_of(i, price, intent["quantity"], up=True)

    def amount(self, intent, reducing):
        i, quantity, side = intent["instrument"], intent["quantity"], intent["side"]
        row, limits, value = self.table[i], self.limits[i], self.worth(intent)
        quoted = value
        if row["inverse"]:
            quoted = ceil(Fraction(row["contract_size"] * quantity, 10 ** row["quantity_decimals"]))
        if quoted < row["notional_min"] or (row["notional_max"] and quoted > row["notional_max"]):
            return "notional_range"
        if quantity > self.contracts(i, limits.order_quantity_max):
            return "order_quantity"
        if value > self.money(i, limits.order_value_max):
            return "order_value"
        if side * self.position[i] + self.open_quantity(i, side) + quantity > self.contracts(i, limits.position_max):
            return "position"
        if not reducing and self.gross(row["settle_currency"]) + value > self.money(i, limits.gross_exposure_max):
            return "gross_exposure"
        count = sum(order["instrument"] == i for order in self.open.values())
        if count >= limits.open_orders_max:
            return "open_orders"
        stops = self.open_stops(i)
        is_full = row["stop_orders_max"] and stops >= row["stop_orders_max"]
        return "open_orders" if intent["order_type"] in STOPS and is_full else None

    def open_stops(self, i):
        return sum(order["instrument"] == i and order["order_type"] in STOPS for order in self.open.values())

    def busy(self, now, allowed):
        return sum(now - then < self.config.message_window_ms * 10**6 for then in self.times) >= allowed

    def flow(self, intent, now, reducing):
        i, side, price = intent["instrument"], intent["side"], intent["price"]
        limits = self.limits[i]
        if self.busy(now, self.config.message_rate_max - self.config.cancel_reserve):
            return "message_rate"
        key = (price or intent["stop_price"], side * intent["quantity"])
        if any(key == other and now - then < limits.duplicate_window_ms * 10**6 for other, then in self.recent[i][-8:]):
            return "duplicate"
        if now - self.touch[i][2] > limits.market_data_age_ms_max * 10**6:
            return "stale_touch"
        if not 0 <= now - intent["time_ns"] <= limits.intent_age_ms_max * 10**6:
            return "intent_age"
        if not reducing:
            if self.loss_reached(i):
                return "daily_loss"
            if abs(self.streak[i]) >= limits.repeated_execution_max:
                return "repeated_execution"
            if self.rejects >= self.config.reject_streak_max:
                return "reject_streak"
        prevented = intent["self_trade"] in (m.EXPIRE_TAKER, m.EXPIRE_MAKER, m.EXPIRE_BOTH, m.DECREMENT, m.TRANSFER)
        if intent["stop_price"] and not prevented:
            return "self_trade"
        for other in self.open.values():
            if other["instrument"] == i and other["side"] == -side and other["price"] and not prevented:
                crosses = intent["order_type"] == m.MARKET or (price - other["price"]) * side >= 0
                if crosses:
                    return "self_trade"
        return "repeated_cause" if intent["order_id"] <= self.last_id else None

    def on_intent(self, intent, in_sequence):
        """Decide: the reason why not, or None and whether it was flagged as reducing."""
        about = intent["kind"] in (m.CANCEL, m.AMEND, m.CANCEL_ALL)
        now = self.now if about else max(self.now, intent["time_ns"])
        reducing = False
        if not in_sequence or not (about or intent["kind"] in (m.NEW, m.REPLACE)):
            reason = "malformed"
        elif about:
            reason = self.decide_about(intent, now)
        else:
            reducing = self.reduces(intent["instrument"], intent["side"], intent["quantity"])
            reason = self.form(intent, reducing) or self.amount(intent, reducing) or self.flow(intent, now, reducing)
            if reason is None:
                self.admit(intent, now)
        if reason is None:
            self.now = now
            self.times.append(now)
            self.times = self.times[-self.config.message_rate_max :]
        order_id = intent["order_id"]
        if reason != "malformed" and 0 < order_id < SMALL and not order_id >> 39 & 1:
            self.last_id = max(self.last_id, order_id)
        return reason, reducing and reason is None

    def decide_about(self, intent, now):
        i, kind, quantity = intent["instrument"], intent["kind"], intent["quantity"]
        if not 0 <= i < len(self.table):
            return "unknown_instrument"
        if not self.identified(intent, named=kind != m.CANCEL_ALL):
            return "malformed"
        target = self.open.get(intent["target_id"])
        if kind != m.CANCEL_ALL and (target is None or target["instrument"] != i):
            return "unknown_order"
        if kind == m.AMEND:
            if self.table[i]["refused_requests"] & 1:
                return "not_supported"
            if not 0 < quantity < SMALL:
                return "malformed"
            if not target["size"] - target["leaves"] <= quantity < target["size"]:
                return "quantity_range"
            if reason := self.filters(self.table[i], 0, 0, quantity):
                return reason
        if self.busy(now, self.config.message_rate_max - (self.config.cancel_reserve if kind == m.AMEND else 0)):
            return "message_rate"
        return "repeated_cause" if intent["order_id"] <= self.last_id else None

    def admit(self, intent, now):
        order = {key: intent[key] for key in ("instrument", "side", "price", "quantity", "order_type")}
        order |= {"leaves": intent["quantity"], "size": intent["quantity"], "value": self.worth(intent)}
        self.open[intent["order_id"]] = order
        price = intent["price"] or intent["stop_price"]
        self.recent[intent["instrument"]].append(((price, intent["side"] * intent["quantity"]), now))
        if self.level >= 2:
            self.let_in.add(intent["order_id"])

    # ── what a kill makes it do ──────────────────────────────────────────────────────────────────────────────────

    def enforce(self):
        """Ids of the orders to cancel now."""
        if self.level < 2:
            return set()
        cancels = set(self.open) - self.let_in - self.spared
        if not cancels and self.now - self.swept >= risk.AGAIN_NS:
            cancels = self.spared
        if cancels:
            self.swept = self.now
        self.spared = self.spared | cancels
        self.times += [self.now] * len(cancels)
        self.times = self.times[-self.config.message_rate_max :]
        return cancels
