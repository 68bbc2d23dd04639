"""Rows shown as the types promise."""

from __future__ import annotations

import numpy as np

from shrivenq.pipeline.exchange import state as s
from shrivenq.pipeline.exchange.types import ORDER_TYPES, Fill, OrderEvent, OrderView
from shrivenq.pipeline.exchange.views import fill_view, order_view
from tests.pipeline.exchange.engine_rig import PLAIN, START_US, limit, market, order


def test_every_code_has_its_word():
    row = np.zeros(1, s.ORDER)[0]
    row["type"], row["status"], row["stp"], row["expiry"] = s.TAKE_PROFIT, s.EXPIRED_IN_MATCH, s.TRANSFER, s.BY_FOK
    row["time_in_force"], row["side"], row["strategy_id"], row["strategy_type"] = 3, -1, s.MISSING, 7
    shown = order_view(row.item(), "word", [PLAIN], [-1])
    assert (shown.type, shown.status, shown.stp) == ("TAKE_PROFIT", "EXPIRED_IN_MATCH", "TRANSFER")
    assert (shown.expiry_reason, shown.time_in_force, shown.side) == ("UNFILLED_FOK_ORDER_EXPIRED", "FOK", "SELL")
    assert (shown.strategy_id, shown.strategy_type, shown.client_id) == (None, 7, "word")
    assert sorted(s.TYPES[1:]) == sorted(ORDER_TYPES)


def test_an_order_is_shown_as_it_was_sent():
    engine = market()
    sent = order("SELL", "STOP_LOSS_LIMIT", time_in_force="FOK", price=90, stop_price=95, quantity=3, stp="DECREMENT")
    shown = engine.place(1, sent, START_US).order
    assert isinstance(shown, OrderView)
    for name in ("symbol", "side", "type", "time_in_force", "price", "quantity", "stop_price", "stp"):
        assert getattr(shown, name) == getattr(sent, name), name


def test_the_commission_is_in_what_was_received():
    row = (1, 0, 5, 6, 100, 2, 2_000, 7, START_US, 1, 0, 0)
    assert fill_view(row, [PLAIN]) == Fill(1, "BTCUSDT", 5, 6, 100, 2, 2_000, 7, "BTC", START_US, True, False, -1)
    assert fill_view((*row[:11], 3), [PLAIN]).list_id == 3
    assert fill_view((*row[:9], 0, 1, 0), [PLAIN]).commission_asset == "USDT"


def test_each_event_shows_the_order_as_it_then_was():
    engine = market()
    engine.place(1, limit("BUY", 100, 9), START_US)
    for _ in range(3):
        engine.place(2, limit("SELL", 100, 3), START_US)
    mine = [one.order for one in engine.take_events() if isinstance(one, OrderEvent) and one.account == 1]
    assert [(one.executed, one.status) for one in mine] == [
        (0, "NEW"), (3, "PARTIALLY_FILLED"), (6, "PARTIALLY_FILLED"), (9, "FILLED"),
    ]  # fmt: skip
