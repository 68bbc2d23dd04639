"""Signal: BOOK, REPORT → INTENT.

Runs one strategy: each message of the `book` ring and each report on `feedback` becomes one call of the strategy's
function for it, in the order of arrival, reports first. What the strategy asks for goes out on `intent`, committed
once per message, before the message is released. The strategy is a user's code: in `split` placement this process can
write nothing but its own state, its cursors and the intent ring.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from shrivenq.shm import ring
from shrivenq.shm.context import by_reference
from shrivenq.shm.invoke import addresses, compiled_for, invoke
from shrivenq.shm.kernel import COMPILED, inlined, kernel
from shrivenq.stages import arrivals, strategy
from shrivenq.stages import messages as m
from shrivenq.stages.stage import FAULT_SEQUENCE, Setup, Stage, fault, stamp, turn
from shrivenq.stages.strategy import Orders

if TYPE_CHECKING:
    from types import ModuleType

BATCH = 256
"""Messages taken in one step, so that reports and the turn's deadline get their chance."""

ON_START, ON_BOOK, ON_QUOTE, ON_TRADE, ON_REPORT, ON_TIMER = range(6)
CALLBACKS = ("on_start", "on_book", "on_quote", "on_trade", "on_report", "on_timer")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[signal]`: which strategy, with which parameters."""

    strategy: str
    """Importable module, or the path of a Python file."""
    timer_ms: float = 0.0
    """Period of `on_timer`, 0 for never."""
    params: dict[str, int | float | bool] = {}
    """The strategy's PARAMS; prices and quantities in the instrument's integer units."""


@by_reference
class Signal(NamedTuple):
    """Context of the stage."""

    book: Any
    feedback: Any
    orders: Orders
    params: Any  # PARAMS, one row
    state: Any  # the strategy's STATE, one row per instrument
    functions: Any  # addresses of CALLBACKS
    arrivals: arrivals.Arrivals


class StrategyError(Exception):
    """A strategy cannot be loaded; one line says what is wrong where."""


def load_strategy(name: str) -> ModuleType:
    """Import a strategy by module name or file path. Raises StrategyError."""
    try:
        if name.endswith(".py"):
            path = Path(name).resolve()
            found = importlib.util.spec_from_file_location(f"shrivenq_strategy_{path.stem}", path)
            if found is None or found.loader is None or not path.is_file():
                raise StrategyError(f"{name}: no such strategy file")
            module = importlib.util.module_from_spec(found)
            # Numba's cache finds a function's module by name.
            sys.modules[module.__name__] = module
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(name)
    except StrategyError:
        raise
    except ModuleNotFoundError as error:
        raise StrategyError(f"{name}: no such strategy module ({error})") from None
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything while it is imported
        raise StrategyError(f"{name}: cannot be imported: {type(error).__name__}: {error}") from None
    for needed in ("PARAMS", "STATE"):
        if not isinstance(getattr(module, needed, None), np.dtype):
            raise StrategyError(f"{name}: {needed} is missing: expected a numpy dtype")
        if not getattr(module, needed).isalignedstruct:
            raise StrategyError(f"{name}: {needed} is not aligned: give np.dtype(…, align=True)")
    if not any(callable(getattr(module, one, None)) for one in CALLBACKS):
        raise StrategyError(f"{name}: no callback: expected one or more of {', '.join(CALLBACKS)}")
    return module


def fill_params(module: ModuleType, given: dict[str, Any]) -> Any:
    """Make the one-row PARAMS array from a table; every field must be given, and no other. Raises StrategyError."""
    params = np.zeros(1, module.PARAMS)
    known = set(module.PARAMS.names)
    problems = [f"{key}: unknown; the strategy has {', '.join(sorted(known))}" for key in sorted(given.keys() - known)]
    problems += [f"{key}: missing" for key in sorted(known - given.keys())]
    for key in known & given.keys():
        try:
            params[key] = given[key]
        except (OverflowError, ValueError, TypeError) as error:
            problems.append(f"{key}: {given[key]!r} does not fit: {error}")
        else:
            if params[key][0] != given[key]:
                problems.append(f"{key}: {given[key]!r} does not fit {module.PARAMS[key]}")
    if problems:
        raise StrategyError(f"{module.__name__}: signal.params: " + "; ".join(problems))
    return params


def _nothing(params: Any, state: Any, event: Any, orders: Any) -> None:
    """Stand in for a callback the strategy does not have."""


def compile_strategy(module: ModuleType, params: Any, state: Any, orders: Orders) -> list[Any]:
    """Compile a strategy's callbacks for their argument types. Raises StrategyError naming the one that fails."""
    compiled = []
    for name in CALLBACKS:
        function = getattr(module, name, _nothing)
        event = m.REPORT if name == "on_report" else m.BOOK
        try:
            compiled.append(compiled_for(function, (_record(params.dtype), state, _record(event), orders)))
        except Exception as error:  # noqa: BLE001 - Numba raises many kinds for what a user wrote
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise StrategyError(f"{module.__name__}: {name} does not compile: {first}") from None
    return compiled


def _record(dtype: np.dtype[Any]) -> Any:
    if not COMPILED:
        return dtype
    import numba  # noqa: PLC0415 - not there to be typed when kernels are plain Python

    return numba.from_dtype(dtype)


@inlined
def _commit(context: Any, first: int, stamp_ns: int) -> None:
    """Stamp and commit the intents written since position `first`."""
    intents = context.orders.intents
    for position in range(first, intents.own[ring.NEXT]):
        intents.slots[position & (intents.slots.shape[0] - 1)]["signal_ns"] = stamp_ns
    ring.publish(intents)


@inlined
def on_report(context: Any, loop: Any, slot: int) -> None:
    """Hand one report to the strategy."""
    words = context.orders.words
    reports = context.feedback.slots
    words[strategy.CAUSE] = -1 - reports[slot]["sequence"]
    words[strategy.TIME_NS] = reports[slot]["time_ns"]
    words[strategy.VENUE_NS] = reports[slot]["venue_ns"]
    now = stamp(loop)
    # A report's trace begins when it arrives: it came off no market data frame.
    words[strategy.WIRE_NS] = now
    words[strategy.DECODED_NS] = now
    words[strategy.BOOK_NS] = now
    first = context.orders.intents.own[ring.NEXT]
    invoke(context.functions, ON_REPORT, context.params[0], context.state, reports[slot], context.orders)
    if context.orders.intents.own[ring.NEXT] != first:
        _commit(context, first, stamp(loop))


@inlined
def on_market(context: Any, loop: Any, slot: int) -> None:
    """Hand one market message to the strategy."""
    words = context.orders.words
    books = context.book.slots
    words[strategy.CAUSE] = books[slot]["sequence"]
    words[strategy.TIME_NS] = books[slot]["time_ns"]
    words[strategy.VENUE_NS] = books[slot]["venue_ns"]
    words[strategy.WIRE_NS] = books[slot]["wire_ns"]
    words[strategy.DECODED_NS] = books[slot]["decoded_ns"]
    words[strategy.BOOK_NS] = books[slot]["book_ns"]
    first = context.orders.intents.own[ring.NEXT]
    if words[strategy.STARTED] == 0:
        words[strategy.STARTED] = 1
        invoke(context.functions, ON_START, context.params[0], context.state, books[slot], context.orders)
    kind = books[slot]["kind"]
    callback = ON_BOOK
    if kind == m.QUOTE:
        callback = ON_QUOTE
    elif kind == m.TRADE:
        callback = ON_TRADE
    elif kind == m.TIMER:
        callback = ON_TIMER
    invoke(context.functions, callback, context.params[0], context.state, books[slot], context.orders)
    if context.orders.intents.own[ring.NEXT] != first:
        _commit(context, first, stamp(loop))
        ring.prepare(context.orders.intents, 1)


@inlined
def step(context: Any, loop: Any) -> int:
    """Handle what waits on `feedback`, then on `book`; return the number of messages."""
    refused, before = context.orders.words[strategy.REFUSED], context.orders.intents.own[ring.NEXT]
    reports = ring.available(context.feedback)
    for _ in range(reports):
        slot = ring.slot_at(context.feedback, 0)
        if context.feedback.slots[slot]["sequence"] != context.feedback.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, context.feedback.own[ring.TAIL])
            return 0
        on_report(context, loop, slot)
        ring.release(context.feedback, 1)
    books = min(ring.available(context.book), BATCH)
    for _ in range(books):
        slot = ring.slot_at(context.book, 0)
        if context.book.slots[slot]["sequence"] != context.book.own[ring.TAIL]:
            fault(loop, FAULT_SEQUENCE, context.book.own[ring.TAIL])
            return 0
        on_market(context, loop, slot)
        ring.release(context.book, 1)
    if context.arrivals.words[arrivals.ON] != 0 and reports + books > 0:
        room = arrivals.EVERY
        if context.orders.words[strategy.REFUSED] != refused:
            room = context.orders.intents.own[ring.NEXT] - before
        arrivals.note(context.arrivals, arrivals.STEP, 0, 0, reports, books, 0, 0, 0, room, 0)
    return reports + books


@kernel
def run(context: Any, loop: Any) -> None:
    """Run until the turn is over."""
    work = 0
    while turn(loop, work):
        work = step(context, loop)


def describe_exception(context: Signal, strategy_name: str, error: Exception) -> str:
    """Say in one line which of the strategy's functions raised what: the message it was about is still in its ring."""
    words = context.orders.words
    if words[strategy.CAUSE] < 0:
        callback = "on_report"
    else:
        kind = int(context.book.slots[int(ring.slot_at(context.book, 0))]["kind"])
        callback = {m.QUOTE: "on_quote", m.TRADE: "on_trade", m.TIMER: "on_timer"}.get(kind, "on_book")
    what = " ".join(str(error).split())
    return f"strategy {strategy_name}: {callback} raised {type(error).__name__}{': ' if what else ''}{what}"


def build(setup: Setup) -> Signal:
    """Load and compile the strategy and make the context. Raises StrategyError."""
    config: Config = setup.config
    module = load_strategy(config.strategy)
    words = np.zeros(strategy.WORDS, np.int64)
    words[strategy.NEXT_ID] = (int(setup.shared["epoch"][0]) << m.EPOCH_SHIFT) + 1
    orders = Orders(setup.producers["intent"], words, setup.instruments)
    params = fill_params(module, config.params)
    state = np.zeros(len(setup.instruments), module.STATE)
    compiled = compile_strategy(module, params, state, orders)
    _alive.extend(compiled)
    return Signal(
        book=setup.consumers["book"],
        feedback=setup.consumers["feedback"],
        orders=orders,
        params=params,
        state=state,
        functions=addresses(compiled),
        arrivals=setup.shared.get("arrivals") or arrivals.nowhere(),
    )


_alive: list[Any] = []
"""Compiled callbacks: their machine code lives as long as these objects, and kernels hold only addresses."""

STAGE = Stage(name="signal", reads=("book", "feedback"), writes=("intent",), build=build, step=step, run=run)
