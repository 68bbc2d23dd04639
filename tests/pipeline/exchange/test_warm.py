"""After the warm-up no command compiles anything."""

from __future__ import annotations

import subprocess
import sys

from shrivenq.pipeline.exchange.warm import warm

PROGRAM = """
from numba.core import event
from shrivenq.pipeline.exchange.engine import Engine
from shrivenq.pipeline.exchange.types import NewOrder
from shrivenq.pipeline.exchange.warm import SYMBOL, warm

warm()
engine = Engine([SYMBOL], seed=2)
account = engine.open_account({"WARM": 10**15, "UP": 10**15})
order = dict(symbol="WARMUP", side="SELL", time_in_force="GTC", quantity=10**8)
with event.install_recorder("numba:compile") as compiled:
    engine.advance(1_000_000)
    placed = engine.place(account, NewOrder(**order, type="LIMIT", price=600_00), 1_000_000)
    engine.place(account, NewOrder(symbol="WARMUP", side="BUY", type="MARKET", quantity=10**8), 1_000_000)
    engine.place(account, NewOrder(**order, type="STOP_LOSS_LIMIT", price=500_00, stop_price=510_00), 1_000_000)
    engine.amend(account, "WARMUP", 1_000_000, new_quantity=10**7, order_id=placed.order.order_id)
    engine.cancel_all(account, "WARMUP", 1_000_000)
    engine.take_events()
    engine.depth("WARMUP")
print(len(compiled.buffer))
"""


def test_no_command_compiles_after_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "0\n", done.stderr


def test_it_is_done_once():
    warm()
    assert warm.cache_info().currsize == 1
