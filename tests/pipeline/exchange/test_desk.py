"""What every command's answer is made of."""

from __future__ import annotations

from shrivenq.pipeline.exchange.desk import outcome_of
from shrivenq.pipeline.exchange.types import OrderEvent
from tests.pipeline.exchange.engine_rig import START_US, limit, market


def test_an_answer_is_the_last_of_the_reports_and_all_fills():
    engine = market()
    engine.place(2, limit("SELL", 100, 2), START_US)
    engine.place(2, limit("SELL", 101, 2), START_US)
    engine.take_events()
    placed = engine.place(1, limit("BUY", 101, 5), START_US)
    mine = [one for one in engine.take_events() if isinstance(one, OrderEvent) and one.account == 1]
    found = outcome_of(mine, [], placed.client_id, "", START_US)
    assert found == placed
    assert [one.price for one in found.fills] == [100, 101]
    assert found.execution_id == max(one.execution_id for one in mine)
