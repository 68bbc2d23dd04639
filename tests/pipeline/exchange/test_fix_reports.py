"""A report in FIX says what the same event says in JSON, field by field; limits are told as they are."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from shrivenq.pipeline.exchange.fix_reports import cancel_rejected, execution_report, limit_response
from shrivenq.pipeline.exchange.fix_wire import Message
from shrivenq.pipeline.exchange.limits import Rule, Window
from shrivenq.pipeline.exchange.types import STP_MODES, NewOrder, OrderEvent
from shrivenq.pipeline.exchange.user_data import execution_report as json_report
from tests.pipeline.exchange.ws_api_rig import Rig

KINDS = {"MARKET": "1", "LIMIT": "2", "LIMIT_MAKER": "2", "STOP_LOSS": "3", "TAKE_PROFIT": "3"}
STATUSES = {
    "PENDING_NEW": "A",
    "NEW": "0",
    "PARTIALLY_FILLED": "1",
    "FILLED": "2",
    "CANCELED": "4",
    "EXPIRED": "C",
    "EXPIRED_IN_MATCH": "C",
}
EXECUTIONS = {"NEW": "0", "CANCELED": "4", "REPLACED": "5", "TRADE": "F", "EXPIRED": "C"}
EXPIRIES = {
    "REJECTED": "1", "UNFILLED_IOC_QUANTITY_EXPIRED": "5", "UNFILLED_FOK_ORDER_EXPIRED": "6",
    "INSUFFICIENT_LIQUIDITY": "7", "OCO_TRIGGER": "3", "OTO_PHASE_ONE_EXPIRED": "4",
}  # fmt: skip


def spelled(time_us):
    return datetime.fromtimestamp(time_us // 10**6, UTC).strftime("%Y%m%d-%H:%M:%S") + f".{time_us % 10**6:06d}"


def expected(event):
    """Give the fields of the FIX report that says what a JSON one says."""
    is_open = event["X"] in ("PENDING_NEW", "NEW", "PARTIALLY_FILLED")
    prevented = event["x"] == "TRADE_PREVENTION"
    leaves = Decimal(event["q"]) - Decimal(event["z"]) - Decimal(event.get("A", 0)) if is_open else Decimal(0)
    found = {
        17: event["I"], 11: event["c"], 41: event["C"] or None, 37: event["i"], 38: event["q"],
        40: KINDS.get(event["o"], "4"), 54: {"BUY": 1, "SELL": 2}[event["S"]], 55: event["s"],
        66: event["g"] if event["g"] != -1 else None,
        18: "6" if event["o"] == "LIMIT_MAKER" else None, 44: event["p"] if Decimal(event["p"]) else None,
        59: {"GTC": "1", "IOC": "3", "FOK": "4"}[event["f"]], 60: spelled(event["T"]), 25018: spelled(event["O"]),
        111: event["F"] if Decimal(event["F"]) else None,
        152: event["Q"] if Decimal(event["Q"]) else None, 847: event.get("J"), 7940: event.get("j"),
        25001: STP_MODES.index(event["V"]) + 1, 39: STATUSES[event["X"]],
        150: ("5" if is_open else "C") if prevented else EXECUTIONS[event["x"]],
        14: event["z"], 151: f"{leaves:.8f}", 25017: event["Z"], 32: event["l"], 636: "Y" if event["w"] else None,
        25023: spelled(event["W"]) if "W" in event else None, 25024: event.get("v"), 25030: event.get("A"),
        25056: EXPIRIES[event["eR"]] if "eR" in event else None,
    }  # fmt: skip
    if event["x"] == "TRADE":
        found |= {1057: "N" if event["m"] else "Y", 1003: event["t"], 31: event["L"]}
        found |= {136: 1, 137: event["n"], 138: event["N"], 139: 4}
    if prevented:
        found |= {25027: event["u"], 25028: event["Cs"], 25029: event["U"], 25031: event["B"]}
        found |= {25025: event.get("pL"), 25026: event.get("pl")}
    if Decimal(event["P"]) or "d" in event:
        up = event["o"].startswith("STOP") == (event["S"] == "BUY")
        found |= {1100: "4", 1101: "1", 1107: "2", 1109: "U" if up else "D", 25009: event.get("d")}
        found[1102] = event["P"] if Decimal(event["P"]) else None
    return {tag: str(value) for tag, value in found.items() if value is not None}


def random_order(rng):
    kind = rng.choice(["LIMIT"] * 6 + ["LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"])
    limit = kind in ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT")
    force = rng.choice(["GTC", "GTC", "GTC", "IOC", "FOK"]) if limit else None
    by_quote = kind == "MARKET" and rng.random() < 0.5
    stops = "STOP" in kind or "PROFIT" in kind
    delta = rng.randint(10, 300) if stops and rng.random() < 0.5 else None
    return NewOrder(
        symbol="BTCUSDT",
        side=rng.choice(["BUY", "SELL"]),
        type=kind,
        time_in_force=force,
        price=rng.randint(95_00, 105_00) if limit or kind == "LIMIT_MAKER" else None,
        quantity=None if by_quote else rng.randint(10_000, 300_000),
        quote_quantity=rng.randint(10, 300) * 10**8 if by_quote else None,
        stop_price=rng.randint(90_00, 110_00) if stops and (not delta or rng.random() < 0.5) else None,
        trailing_delta=delta,
        stp=rng.choice([*STP_MODES, "TRANSFER", None]),
        iceberg_quantity=rng.choice([None, 10_000]) if limit and force == "GTC" else None,
        strategy_id=rng.choice([None, -7]),
        strategy_type=rng.choice([None, 1_000_000]),
    )


def test_every_event_of_a_random_market():
    rig, seen = Rig(), Counter()
    for seed in range(4):
        rng, events = random.Random(seed), []
        for step in range(400):
            now_us, account = 1_700_000_000_000_000 + step * 1_003, rng.randint(1, 3)
            open_orders = rig.engine.open_orders(account, "BTCUSDT")
            if open_orders and rng.random() < 0.3:
                one = rng.choice(open_orders)
                if rng.random() < 0.5:
                    rig.engine.cancel(account, "BTCUSDT", now_us, order_id=one.order_id)
                else:
                    quantity = max(1, one.quantity - rng.randint(1, 50_000))
                    rig.engine.amend(account, "BTCUSDT", now_us, order_id=one.order_id, new_quantity=quantity)
            elif rng.random() < 0.1:
                working = NewOrder(
                    symbol="BTCUSDT", side="BUY", type="LIMIT", time_in_force=rng.choice(["GTC", "FOK"]),
                    price=rng.randint(95_00, 105_00), quantity=20_000,
                )  # fmt: skip
                above = msgspec.structs.replace(
                    working, side="SELL", type="LIMIT_MAKER", price=rng.randint(100_00, 110_00), time_in_force=None
                )
                below = msgspec.structs.replace(
                    above, type="STOP_LOSS", price=None, stop_price=rng.randint(90_00, 99_00)
                )
                rig.engine.place_list(account, "OTOCO", [working, above, below], now_us)
            else:
                rig.engine.place(account, random_order(rng), now_us)
            events += [one for one in rig.engine.take_events() if isinstance(one, OrderEvent)]
        form = rig.venue.formats["BTCUSDT"]
        for event in events:
            found = execution_report(event, form)
            assert len(dict(found)) == len(found), f"seed {seed}: a field stands twice"
            assert dict(found) == expected(json_report(event, form, 0, lambda time_us: time_us)), f"seed {seed}"
            seen[event.execution, event.order.status] += 1
            seen["expires", event.order.expiry_reason] += 1
            seen["trails", event.order.stop_price > 0] += event.order.trailing_delta > 0
    for wanted in (
        ("NEW", "NEW"), ("TRADE", "PARTIALLY_FILLED"), ("TRADE", "FILLED"), ("CANCELED", "CANCELED"),
        ("REPLACED", "NEW"), ("EXPIRED", "EXPIRED"), ("TRADE_PREVENTION", "EXPIRED_IN_MATCH"),
        ("TRADE_PREVENTION", "NEW"), ("trails", False), ("trails", True),
        ("NEW", "PENDING_NEW"), ("expires", "OCO_TRIGGER"), ("expires", "OTO_PHASE_ONE_EXPIRED"),
    ):  # fmt: skip
        assert seen[wanted], seen


def test_limits():
    now_us = 1_700_000_000_000_000
    messages = Window(Rule("MESSAGES", "SECOND", 10, 10_000))
    orders = [Window(Rule("ORDERS", "SECOND", 10, 200)), Window(Rule("ORDERS", "DAY", 1, 200_000))]
    messages.add(1, now_us)
    orders[1].add(5, now_us)
    found = limit_response("a", messages, orders, now_us)
    text = "|".join(f"{tag}={value}" for tag, value in found)
    assert text == (
        "6136=a|25003=3|25004=2|25005=1|25006=10000|25007=10|25008=s|25004=1|25005=0|25006=200|25007=10|25008=s|"
        "25004=1|25005=5|25006=200000|25007=1|25008=d"
    )


@pytest.mark.parametrize(("fields", "name"), [([(11, "a")], "a"), ([(11, "a"), (25034, "c")], "c")])
def test_a_refused_cancel_has_the_id_of_the_cancel(fields, name):
    found = cancel_rejected(Message("XCN", fields), {"code": -2011, "msg": "Unknown order sent."})
    assert dict(found)[11] == name
