"""What goes wrong in the soak: a script for the simulator, drawn every few seconds from a generator with a seed."""

from __future__ import annotations

import random
from collections import Counter

from shrivenq.pipeline.exchange.faults import Rule, Script

ANSWERS = "order.*"
REPORT = "executionReport"


def frames(dice: random.Random) -> list[Rule]:
    """List what may happen to one frame now and then, and often in a run."""
    rare, rarer = dice.uniform(0.002, 0.02), dice.uniform(0.0005, 0.003)

    def some(on, action, name, chance, **more):
        return Rule(on=on, action=action, name=name, probability=chance, **more)

    return [
        some("response", "delay", ANSWERS, rarer, ms=dice.randint(2, 300)),
        some("response", "late", ANSWERS, rare, ms=dice.randint(2, 60)),  # fills come before acknowledgements
        some("response", "late", ANSWERS, rarer, ms=dice.randint(800, 2500)),
        some("response", "drop", ANSWERS, rare),  # acknowledgement lost
        some("response", "duplicate", ANSWERS, rare),
        some("response", "reorder", ANSWERS, rare),
        some("event", "delay", REPORT, rarer, ms=dice.randint(2, 300)),
        some("event", "late", REPORT, rare, ms=dice.randint(2, 60)),
        some("event", "late", REPORT, rarer, ms=dice.randint(800, 2500)),
        some("event", "drop", REPORT, rarer),
        some("event", "duplicate", REPORT, rare),
        some("event", "reorder", REPORT, rare),
        some("event", "duplicate", "outboundAccountPosition", rare),
        some("request", "drop", "order.place", rarer),  # the order is placed, and nobody says so
        some("request", "error_placed", "order.*", rare),
        some("request", "error_not_placed", "order.*", rare),
        some("market", "drop", "*@depth*", rarer),
        some("market", "duplicate", "*", rare),
        some("market", "reorder", "*", rarer),
        some("market", "delay", "*", rarer, ms=dice.randint(2, 200)),
    ]


def blows(dice: random.Random) -> list[Rule]:
    """List what interrupts everything for a while; what is drawn of these happens once, or a few times."""

    def one(on, action, name="*", **more):
        return Rule(on=on, action=action, name=name, skip=dice.randint(0, 50), times=1, probability=0.05, **more)

    return [
        one("event", "disconnect", REPORT),
        one("response", "disconnect", ANSWERS),
        one("response", "garbage", ANSWERS),
        one("event", "garbage", REPORT),
        one("response", "giant", ANSWERS, size=dice.choice([70_000, 900_000, 2_000_000])),
        one("request", "too_many", ANSWERS, ms=dice.randint(100, 1000)),
        one("request", "banned", ANSWERS, ms=dice.randint(100, 1000)),
        one("request", "delay", ANSWERS, ms=dice.randint(100, 1500)),  # slow reader
        one("request", "clock_offset", ANSWERS, ms=dice.choice([-4000, -1500, 900, 1900, 4000])),
    ]


def market_blows(dice: random.Random) -> list[Rule]:
    """List what interrupts market data, whose back-off grows as long as no connection holds a minute."""

    def one(action, **more):
        return Rule(on="market", action=action, skip=dice.randint(0, 50), times=1, probability=0.05, **more)

    return [
        one("disconnect"),
        one("garbage"),
        one("giant", size=dice.choice([70_000, 900_000, 2_000_000])),
        Rule(on="request", action="stale_snapshot", name="depth"),
    ]


def draw(dice: random.Random) -> Script:
    """Draw a script: several faults of single frames, mostly a blow, sometimes one to market data."""
    chosen = dice.sample(frames(dice), dice.randint(4, 9))
    chosen += dice.sample(blows(dice), dice.choice([0, 1, 1]))
    chosen += dice.sample(market_blows(dice), dice.choice([0, 0, 0, 0, 0, 1]))
    dice.shuffle(chosen)
    return Script(rules=chosen, seed=dice.getrandbits(32))


def acted(report: dict) -> Counter:
    """Count what a script did, by kind: "event duplicate" …"""
    found = Counter()
    for one in report["rules"]:
        if one["acted"]:
            found[f"{one['on']} {one['action']}"] += one["acted"]
    return found
