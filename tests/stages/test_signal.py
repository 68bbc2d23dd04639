from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm import ring, segment
from shrivenq.stages import messages as m
from shrivenq.stages import signal, stage, strategy

STRATEGY = """
import numpy as np
from shrivenq.stages import messages as m
from shrivenq.stages.strategy import buy, cancel, replace, sell

PARAMS = np.dtype([("size", "<i8"), ("limit", "<i8")], align=True)
STATE = np.dtype([("starts", "<i8"), ("books", "<i8"), ("quotes", "<i8"), ("trades", "<i8"), ("timers", "<i8"),
                  ("reports", "<i8"), ("last_id", "<i8")], align=True)

def on_start(params, state, event, orders):
    state[0]["starts"] += 1

def on_book(params, state, event, orders):
    mine = state[event["instrument"]]
    mine["books"] += 1
    mine["last_id"] = buy(orders, event["instrument"], event["bid_price"][0], params["size"])
    sell(orders, event["instrument"], event["ask_price"][0], params["size"], m.LIMIT, m.IOC)

def on_quote(params, state, event, orders):
    state[event["instrument"]]["quotes"] += 1
    cancel(orders, event["instrument"], 77)

def on_trade(params, state, event, orders):
    state[event["instrument"]]["trades"] += event["quantity"]
    replace(orders, event["instrument"], 55, m.SELL, event["price"], 3, m.LIMIT_MAKER)

def on_report(params, state, event, orders):
    state[event["instrument"]]["reports"] += 1
    if event["kind"] == m.REJECTED:
        raise ValueError("rejected")

def on_timer(params, state, event, orders):
    state[event["instrument"]]["timers"] += 1
"""


class Bench:
    """A signal stage with rings of its own."""

    def __init__(self, path, name):
        self.segments = [
            ring.create(f"{name}.{part}", dtype, 64)
            for part, dtype in (("book", m.BOOK), ("feedback", m.REPORT), ("intent", m.INTENT))
        ]
        book, feedback, intent = self.segments
        self.book, self.feedback = ring.producer(book), ring.producer(feedback)
        self.intents = ring.consumer(intent)
        self.loop = np.zeros(512, np.int64)
        self.setup = stage.Setup(
            config=signal.Config(strategy=str(path), params={"size": 5, "limit": 9}),
            instruments=np.zeros(2, m.INSTRUMENT),
            currencies=np.zeros(1, m.CURRENCY),
            producers={"intent": ring.producer(intent)},
            consumers={"book": ring.consumer(book), "feedback": ring.consumer(feedback)},
            loop=self.loop,
            shared={"epoch": np.array([3])},
        )
        self.context = signal.build(self.setup)

    def publish(self, end, **fields):
        position = int(end.own[ring.NEXT])
        slot = ring.next_slot(end)
        end.slots[slot : slot + 1] = np.zeros(1, end.slots.dtype)
        for field, value in {"sequence": position, **fields}.items():
            end.slots[slot][field] = value
        ring.publish(end)

    def step(self):
        return signal.step(self.context, self.loop)

    def taken(self):
        count = ring.available(self.intents)
        rows = [self.intents.slots[ring.slot_at(self.intents, i)].copy() for i in range(count)]
        ring.release(self.intents, count)
        return rows


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    # One file for all tests: Numba's cache goes by its time stamp, so each new file is compiled anew.
    path = tmp_path_factory.mktemp("strategy") / "example.py"
    path.write_text(STRATEGY)
    return path


@pytest.fixture
def bench(example):
    made = Bench(example, f"{segment.PREFIX}test-signal")
    yield made
    for one in made.segments:
        one.unlink()


def test_each_kind_of_message_calls_its_function(bench):
    bench.publish(bench.book, kind=m.DEPTH_BOOK, instrument=1, flags=m.VALID)
    bench.publish(bench.book, kind=m.QUOTE, instrument=1)
    bench.publish(bench.book, kind=m.TRADE, instrument=0, quantity=40)
    bench.publish(bench.book, kind=m.TIMER, instrument=0)
    bench.publish(bench.feedback, kind=m.ACCEPTED, instrument=1)
    assert bench.step() == 5
    state = bench.context.state
    assert state["starts"].tolist() == [1, 0]
    assert state["books"].tolist() == [0, 1]
    assert state["quotes"].tolist() == [0, 1]
    assert state["trades"].tolist() == [40, 0]
    assert state["timers"].tolist() == [1, 0]
    assert state["reports"].tolist() == [0, 1]


def test_intents_carry_what_was_asked_and_the_whole_trace(bench):
    bench.publish(
        bench.book, kind=m.DEPTH_BOOK, instrument=1, time_ns=1000, venue_ns=900, wire_ns=11, decoded_ns=12, book_ns=13,
        bid_price=np.arange(10) + 100, ask_price=np.arange(10) + 200,
    )  # fmt: skip
    bench.step()
    first, second = bench.taken()
    assert [int(first[name]) for name in ("kind", "instrument", "side", "price", "quantity", "order_type")] == [
        m.NEW, 1, m.BUY, 100, 5, m.LIMIT,
    ]  # fmt: skip
    assert [int(second[name]) for name in ("side", "price", "time_in_force")] == [m.SELL, 200, m.IOC]
    for row in (first, second):
        assert [int(row[name]) for name in ("time_ns", "venue_ns", "wire_ns", "decoded_ns", "book_ns", "cause")] == [
            1000, 900, 11, 12, 13, 0,
        ]  # fmt: skip
        assert row["signal_ns"] > 0
    assert int(first["order_id"]) == 3 << m.EPOCH_SHIFT | 1
    assert int(second["order_id"]) == int(first["order_id"]) + 1
    assert int(bench.context.state[1]["last_id"]) == int(first["order_id"])
    assert [int(row["sequence"]) for row in (first, second)] == [0, 1]


def test_cancel_and_replace_name_their_target(bench):
    bench.publish(bench.book, kind=m.QUOTE, instrument=0)
    bench.publish(bench.book, kind=m.TRADE, instrument=1, price=321)
    bench.step()
    cancel, replace = bench.taken()
    assert (int(cancel["kind"]), int(cancel["target_id"])) == (m.CANCEL, 77)
    assert [int(replace[name]) for name in ("kind", "target_id", "side", "price", "quantity", "order_type")] == [
        m.REPLACE, 55, m.SELL, 321, 3, m.LIMIT_MAKER,
    ]  # fmt: skip


def test_a_request_without_room_gets_no_id_and_is_counted(bench):
    for _ in range(40):
        bench.publish(bench.book, kind=m.DEPTH_BOOK, instrument=1)
    bench.step()
    assert len(bench.taken()) == 64
    assert int(bench.context.orders.words[strategy.REFUSED]) == 16
    assert int(bench.context.state[1]["last_id"]) == 0


def test_a_sequence_that_does_not_fit_stops_the_stage(bench):
    bench.publish(bench.book, kind=m.DEPTH_BOOK, instrument=1, sequence=7)
    assert bench.step() == 0
    assert bench.loop[stage.FAULT] == stage.FAULT_SEQUENCE


def test_an_exception_in_a_strategy_reaches_the_runner(bench):
    bench.publish(bench.feedback, kind=m.REJECTED, instrument=1)
    with pytest.raises(ValueError, match="rejected"):
        bench.step()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "PARAMS is missing"),
        ("import numpy as np\nPARAMS = np.dtype([('a', 'i1'), ('b', '<i8')])\n", "PARAMS is not aligned"),
        ("import numpy as np\nPARAMS = STATE = np.dtype([('a', '<i8')], align=True)\n", "no callback"),
        ("import no_such_module_anywhere\n", "cannot be imported|no such strategy module"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
        ("def on_book(:\n", "cannot be imported: SyntaxError"),
    ],
)
def test_a_strategy_that_cannot_be_used_is_one_line(tmp_path, text, line):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(signal.StrategyError, match=line) as raised:
        signal.load_strategy(str(path))
    assert "\n" not in str(raised.value)


def test_a_missing_file_or_module_is_one_line(tmp_path):
    for name in (str(tmp_path / "none.py"), "shrivenq.stages.strategies.none"):
        with pytest.raises(signal.StrategyError, match="no such strategy"):
            signal.load_strategy(name)


def test_a_callback_that_does_not_compile_is_one_line(tmp_path, bench):
    path = tmp_path / "wrong.py"
    path.write_text(
        "import numpy as np\nPARAMS = STATE = np.dtype([('a', '<i8')], align=True)\n"
        "def on_book(params, state, event, orders):\n    open('file')\n"
    )
    module = signal.load_strategy(str(path))
    with pytest.raises(signal.StrategyError, match="on_book does not compile") as raised:
        signal.compile_strategy(module, np.zeros(1, module.PARAMS), np.zeros(2, module.STATE), bench.context.orders)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"size": 1}, "limit: missing"),
        ({"size": 1, "limit": 2, "other": 3}, "other: unknown"),
        ({"size": 1.5, "limit": 2}, "size: 1.5 does not fit"),
        ({"size": 2**70, "limit": 2}, "size: .* does not fit"),
        ({"size": "x", "limit": 2}, "size: 'x' does not fit"),
    ],
)
def test_parameters_are_checked_against_the_strategy(example, given, line):
    with pytest.raises(signal.StrategyError, match=line):
        signal.fill_params(signal.load_strategy(str(example)), given)


@pytest.mark.parametrize(
    ("kind", "callback"),
    [(m.DEPTH_BOOK, "on_book"), (m.QUOTE, "on_quote"), (m.TRADE, "on_trade"), (m.TIMER, "on_timer"), (0, "on_report")],
)
def test_an_exception_is_one_line_that_names_the_function(bench, kind, callback):
    bench.publish(bench.book, kind=kind)
    bench.context.orders.words[strategy.CAUSE] = 0 if kind else -1
    found = signal.describe_exception(bench.context, "mine.py", ValueError("two\nlines"))
    assert found == f"strategy mine.py: {callback} raised ValueError: two lines"
    assert signal.describe_exception(bench.context, "mine.py", ValueError()).endswith("raised ValueError")
