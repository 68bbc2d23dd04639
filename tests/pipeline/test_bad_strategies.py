"""Strategies that misbehave, under the real supervisor: each ends in one clear line and the state it should."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from shrivenq.pipeline import config as configuration
from shrivenq.pipeline import inspection, kill, state
from shrivenq.shm import ring, segment
from shrivenq.shm.atomics import load_word
from shrivenq.stages import journal, journal_file, stage
from shrivenq.stages import messages as m
from tests.pipeline import command_rig

NAME = "test-bad-strategies"
"""Stages compile on first use."""

pytestmark = pytest.mark.slow

HEAD = """
import numpy as np

from shrivenq.shm import ring
from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy, cancel, sell

PARAMS = np.dtype([("every", "<i8")], align=True)
STATE = np.dtype([("seen", "<i8"), ("random", "<u8")], align=True)
"""

RAISES = """
def on_book(params, state, event, orders):
    mine = state[event["instrument"]]
    mine["seen"] += 1
    if event["flags"] & m.VALID and mine["seen"] == 20:
        buy(orders, event["instrument"], event["bid_price"][9], 500_000)
    if mine["seen"] == 60:
        raise ValueError("what is this")
"""

HANGS = """
def on_book(params, state, event, orders):
    mine = state[event["instrument"]]
    mine["seen"] += 1
    if event["flags"] & m.VALID and mine["seen"] == 20:
        buy(orders, event["instrument"], event["bid_price"][9], 500_000)
    if mine["seen"] > 60:
        while mine["seen"] > 60:
            mine["random"] += np.uint64(1)
"""

RUBBISH = """
from shrivenq.shm.kernel import kernel

EXTREMES = np.array([0, 1, -1, 2**63 - 1, -(2**63), 0x7FF8000000000000, -0x0010000000000000, 10**18])
FIELDS = 17
DAMAGES = 24


@kernel
def rubbish(mine):
    # xorshift64, Marsaglia (2003); a quarter of the numbers are extremes, such as the bits of NaN and of infinity.
    x = mine["random"]
    if x == 0:
        x = np.uint64(88172645463325252)
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    mine["random"] = x
    if x & np.uint64(3) == np.uint64(0):
        return EXTREMES[np.int64((x >> np.uint64(8)) & np.uint64(7))]
    return np.int64(x)


@kernel
def scribble(mine, intents, slot):
    intents[slot]["sequence"] = rubbish(mine)
    intents[slot]["cause"] = rubbish(mine)
    intents[slot]["time_ns"] = rubbish(mine)
    intents[slot]["instrument"] = rubbish(mine)
    intents[slot]["kind"] = rubbish(mine)
    intents[slot]["flags"] = rubbish(mine)
    intents[slot]["venue_ns"] = rubbish(mine)
    intents[slot]["wire_ns"] = rubbish(mine)
    intents[slot]["decoded_ns"] = rubbish(mine)
    intents[slot]["book_ns"] = rubbish(mine)
    intents[slot]["order_id"] = rubbish(mine)
    intents[slot]["target_id"] = rubbish(mine)
    intents[slot]["price"] = rubbish(mine)
    intents[slot]["quantity"] = rubbish(mine)
    intents[slot]["side"] = rubbish(mine)
    intents[slot]["order_type"] = rubbish(mine)
    intents[slot]["time_in_force"] = rubbish(mine)


@kernel
def damage(mine, intents, slot, which):
    # Good but for one field.
    if which < 4:
        intents[slot]["price"] = (0, -1, -6_000_000, 0x7FF8000000000000)[which]
    elif which < 10:
        intents[slot]["quantity"] = (0, -500_000, 500_001, 0x7FF8000000000000, 2**63 - 1, 2**62)[which - 4]
    elif which < 14:
        intents[slot]["instrument"] = (-1, 2, 7, 2_000_000_000)[which - 10]
    elif which < 16:
        intents[slot]["side"] = (0, 2)[which - 14]
    elif which < 18:
        intents[slot]["order_type"] = (0, 9)[which - 16]
    elif which == 18:
        intents[slot]["time_in_force"] = 9
    elif which == 19:
        intents[slot]["kind"] = 99
    elif which == 20:
        intents[slot]["order_id"] = 0
    elif which == 21:
        intents[slot]["sequence"] = -1
    elif which == 22:
        intents[slot]["kind"] = m.CANCEL
        intents[slot]["target_id"] = rubbish(mine)
    else:
        intents[slot]["flags"] = m.FORCED | m.REDUCING
        intents[slot]["quantity"] = 2**50


def on_book(params, state, event, orders):
    mine = state[0]
    if not event["flags"] & m.VALID:
        return
    intents = orders.intents
    for _ in range(16):
        if not ring.claim(intents, 1):
            return
        if mine["seen"] & 1:
            slot = ring.index_of(intents.own[ring.NEXT], intents.slots.shape[0])
            buy(orders, event["instrument"], event["bid_price"][9], 500_000)
            damage(mine, intents.slots, slot, (mine["seen"] >> 1) % DAMAGES)
        else:
            scribble(mine, intents.slots, ring.next_slot(intents))
        mine["seen"] += 1
"""


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    # A loaded test machine needs longer than the 50 ms after which a gateway is killed.
    monkeypatch.setattr(kill, "ACKNOWLEDGE_S", 20.0)


class Run:
    """A supervisor in a process of its own, trading with a strategy of ours against the simulated market."""

    def __init__(self, folder, strategy, placement="split"):
        (folder / "mine.py").write_text(HEAD + strategy)
        text = (configuration.SHIPPED / "default.toml").read_text()
        text = text.replace('name = "default"', f'name = "{NAME}"')
        text = text.replace("shrivenq.stages.strategies.market_maker", str(folder / "mine.py"))
        head, tail = text.split("[signal.params]")
        text = head + "[signal.params]\nevery = 1\n\n[risk]" + tail.split("[risk]", 1)[1]
        text = text.replace("silence_hold_ms = 500.0", "silence_hold_ms = 300.0")
        text = text.replace("silence_kill_ms = 5000.0", "silence_kill_ms = 4000.0")
        (folder / "mine.toml").write_text(text)
        command = [*command_rig.MAIN, "run", str(folder / "mine.toml"), "--placement", placement]
        self.errors = folder / "errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL)

    def said(self):
        return self.errors.read_text()

    def until(self, condition, *, alive=True):
        return command_rig.until(condition, self.process if alive else None, self.said)

    def running(self):
        def armed():
            found = inspection.attach(NAME)
            return found if inspection.status(found)["kill"] == "armed" else None

        return self.until(armed)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path):
    started = []

    def of(*arguments):
        started.append(Run(tmp_path, *arguments))
        return started[-1]

    yield of
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
            try:
                one.process.wait(30)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
    for name in segment.names(f"{NAME}."):
        segment.unlink(name)


def published(running, name):
    return int(load_word(running.part(name).array("producer"), ring.HEAD))


@pytest.mark.parametrize("placement", ["split", "fused"])
def test_a_strategy_that_raises_is_named_and_in_the_end_killed(start, placement):
    run = start(RAISES, placement)
    assert run.process.wait(command_rig.PATIENCE_S) == 1
    said = run.said()
    assert "Traceback" not in said
    reasons = re.findall(r"stopped: strategy \S+mine\.py: on_book raised ValueError: what is this", said)
    assert len(reasons) == 6, said
    assert re.search(
        r"^shrivenq: .*exit code 1, strategy fault: 6 deaths in 60 s: killed; arm again", said, re.MULTILINE
    )
    assert state.armed(NAME) is None
    assert segment.names(f"{NAME}.") == []
    found = subprocess.run([*command_rig.MAIN, "status", NAME], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert re.fullmatch(
        r"shrivenq.*: not running, killed: halt by [^:]*: 6 deaths in 60 s, .*strategy fault; .*\n", found.stderr
    )
    contents = read_journal()
    sent, seen = contents.rows(journal.ORDER_SENT), contents.rows(journal.REPORT_SEEN)
    ours = set(sent["order_id"][sent["kind"] == m.NEW].tolist())
    assert len(ours) >= 6
    if placement == "split":
        # Each order was cancelled before its run was taken down.
        assert ours <= set(seen["order_id"][seen["flags"] & m.FINAL != 0].tolist())


def read_journal():
    contents = journal_file.read_journal(state.folder(NAME) / "journal")
    assert contents.problem == ""
    return contents


def test_a_strategy_that_never_returns_is_held_and_then_rebuilt(start, capsys):
    run = start(HANGS)
    running = run.running()
    run.until(lambda: "stage_silent" in inspection.status(running)["holds"] and silent(running))
    assert kill.main(["halt", NAME, "--json"]) == 0
    assert all(one["confirmed"] for one in json.loads(capsys.readouterr().out)["confirmed"])
    run.until(lambda: inspection.attach(NAME).run != running.run)
    run.until(let_go)
    assert inspection.status(inspection.attach(NAME))["kill"] == "halt"
    said = run.said()
    assert re.search(r"stage silent for too long: stopped.*signal", said)
    assert re.search(r'stage died +stage="signal" how="signal SIGKILL"', said)
    assert "Traceback" not in said
    assert run.stop() == 0, run.said()


def let_go():
    """Tell whether the pipeline runs, killed or not."""
    found = inspection.status(inspection.attach(NAME))
    return "starting" not in found["holds"] and all(one["state"] == "running" for one in found["stages"])


def silent(running):
    """Tell whether it is the strategy that does not answer."""
    found = {one["stage"]: one["silent_ms"] for one in inspection.status(running)["stages"]}
    return found["signal"] > 1000 > found["risk"]


INTENTS = 20_000


def test_a_strategy_that_writes_rubbish_is_denied_all_of_it(start):
    run = start(RUBBISH)
    running = run.running()
    pids = [int(running.words(f"loop.{name}")[stage.PID]) for name in ("risk", "gateway", "signal")]
    run.until(lambda: published(running, "intent") > INTENTS)
    # An answer to each, and nothing else.
    answered = published(running, "feedback")
    assert answered > INTENTS - running.part("intent").layout.region("slots").count
    slots = running.part("feedback").array("slots").copy()
    answers = slots[: min(answered, len(slots))]
    assert set(answers["kind"].tolist()) == {m.DENIED}
    reasons = {m.REASONS[code] for code in set(answers["reason"].tolist())}
    assert reasons >= {"unknown_instrument", "malformed", "unknown_order"}, reasons
    assert "none" not in reasons
    assert set(answers["instrument"].tolist()) <= {-1, 0, 1}
    assert (published(running, "order"), published(running, "to_venue")) == (0, 0)
    found = inspection.status(running)
    assert found["kill"] == "armed"
    assert [one["fault"] for one in found["stages"]] == ["none"] * len(found["stages"])
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert run.stop() == 0, run.said()
    assert "Traceback" not in run.said()
    assert len(read_journal().rows(journal.ORDER_SENT)) == 0
