"""Orders: what may happen to an order, as a table, and the slots that hold its life.

A slot of the order pool belongs to one order from risk's admission (`begin`) until the gateway gives it back, which it
does when the order is terminal. Every change of `state` goes through `advance`, which looks the event up in
TRANSITIONS: what the table does not allow is counted and not obeyed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrivenq.shm.kernel import inlined, kernel
from shrivenq.stages import messages as m

NEW, SENT, ACCEPTED, PARTLY_FILLED, FILLED, CANCEL_SENT = 0, 1, 2, 3, 4, 5
CANCELLED, REPLACED, REJECTED, EXPIRED, UNKNOWN = 6, 7, 8, 9, 10
STATES = (
    "new",  # admitted, not yet sent
    "sent",
    "accepted",
    "partly_filled",
    "filled",
    "cancel_sent",  # a cancel, a replace or an amendment of it is on its way
    "cancelled",
    "replaced",
    "rejected",
    "expired",
    "unknown",  # no answer in time: it may rest, and keeps its exposure
)

SEND, ACCEPT, PART_FILL, FULL_FILL, SEND_CANCEL, CANCEL = 0, 1, 2, 3, 4, 5
REPLACE, REJECT, EXPIRE, REFUSE_CANCEL, SILENCE, ABSENCE, AMEND = 6, 7, 8, 9, 10, 11, 12
EVENTS = (
    "send",
    "accept",  # also the answer to a query: it rests
    "part_fill",
    "full_fill",
    "send_cancel",  # of a cancel, a replace or an amendment that names it as its target, or of a cancel-all
    "cancel",
    "replace",
    "reject",  # by the venue, or by ourselves before it was sent
    "expire",
    "refuse_cancel",  # or an amendment
    "silence",  # the answer is overdue
    "absence",  # the venue has never seen it
    "amend",  # what was on its way was an amendment, and it was made
)

_NO = -1
_OPEN = -2  # back to where it was: `_open_state`
_FILL, _CAN, _ACC = PARTLY_FILLED, CANCEL_SENT, ACCEPTED

# A row for each of STATES. Late answers are legal wherever the order still lives: fills overtake acknowledgements, and
# cancels lose races.
# fmt: off
TRANSITIONS = np.array([
    # send  accept part   full    s.canc   cancel     replace   reject    expire   refuse   silence  absence   amend
    [SENT,  _NO,   _NO,   _NO,    _NO,     _NO,       _NO,      REJECTED, _NO,     _NO,     _NO,     _NO,      _NO],
    [_NO,   _ACC,  _FILL, FILLED, _CAN,    CANCELLED, REPLACED, REJECTED, EXPIRED, _NO,     UNKNOWN, REJECTED, _OPEN],
    [_NO,   _ACC,  _FILL, FILLED, _CAN,    CANCELLED, REPLACED, _NO,      EXPIRED, _OPEN,   _NO,     _NO,      _OPEN],
    [_NO,   _OPEN, _FILL, FILLED, _CAN,    CANCELLED, REPLACED, _NO,      EXPIRED, _OPEN,   _NO,     _NO,      _OPEN],
    [_NO] * 13,
    [_NO,   _CAN,  _CAN,  FILLED, _CAN,    CANCELLED, REPLACED, REJECTED, EXPIRED, _OPEN,   UNKNOWN, REJECTED, _OPEN],
    [_NO] * 13,
    [_NO] * 13,
    [_NO] * 13,
    [_NO] * 13,
    [_NO,   _OPEN, _FILL, FILLED, UNKNOWN, CANCELLED, REPLACED, REJECTED, EXPIRED, UNKNOWN, UNKNOWN, REJECTED, _OPEN],
], np.int8)
# fmt: on
assert TRANSITIONS.shape == (len(STATES), len(EVENTS))

TERMINAL = np.array([state in (FILLED, CANCELLED, REPLACED, REJECTED, EXPIRED) for state in range(len(STATES))])

ORDER_SLOT = np.dtype(
    {
        "names": [
            "order_id",  # epoch << 40 | number
            "target_id",  # the order it replaces, 0 for none
            "venue_order_id",  # 0 until the venue said
            "price",
            "quantity",
            "filled",  # so far
            "venue_ns",  # venue's event time of the cause, ns since 1970
            "wire_ns",  # stamps, CLOCK_MONOTONIC: frame in memory …
            "decoded_ns",
            "book_ns",
            "signal_ns",
            "risk_ns",
            "ready_ns",  # … order text encoded,
            "sent_ns",  # handed to the venue,
            "acknowledged_ns",  # first report of it received
            "generation",  # of the slot when it was taken
            "cause",  # of its ORDER
            "time_ns",  # of its ORDER, ns since 1970
            "cancel_id",  # the last request on its way to cancel, replace or amend it, 0 for none
            "amended",  # the quantity that request asks for, if it is an amendment, 0 for none
            "first_trade",  # trades of the account below this one are older than the order
            "instrument",
            "flags",  # of its ORDER
            "side",
            "order_type",
            "time_in_force",
            "state",
        ],
        "formats": ["<i8"] * 21 + ["<i4", "<i2", "i1", "i1", "i1", "i1"],
        "offsets": [*range(0, 168, 8), 168, 172, 174, 175, 176, 177],
        "itemsize": 192,
        "aligned": True,
    }
)
assert ORDER_SLOT.isalignedstruct
assert ORDER_SLOT.itemsize % 64 == 0


NO_TRADE = -1
"""Less than any trade's id."""


def make_illegal() -> Any:
    """Allocate the counts of illegal transitions: int64, one per state and event."""
    return np.zeros(TRANSITIONS.shape, np.int64)


@inlined
def has_limit(order_type: int) -> bool:
    """Tell whether an order of this type has a limit price."""
    return order_type not in (m.MARKET, m.STOP_LOSS, m.TAKE_PROFIT)


@inlined
def is_stop(order_type: int) -> bool:
    """Tell whether an order of this type waits for a stop price."""
    return order_type >= m.STOP_LOSS


@kernel
def begin(slots: Any, index: int, orders: Any, row: int) -> None:
    """Start the life of a NEW or REPLACE: copy `orders[row]` into `slots[index]`, state `new`."""
    slots[index]["order_id"] = orders[row]["order_id"]
    slots[index]["target_id"] = orders[row]["target_id"]
    slots[index]["venue_order_id"] = 0
    slots[index]["price"] = orders[row]["price"]
    slots[index]["quantity"] = orders[row]["quantity"]
    slots[index]["filled"] = 0
    slots[index]["venue_ns"] = orders[row]["venue_ns"]
    slots[index]["wire_ns"] = orders[row]["wire_ns"]
    slots[index]["decoded_ns"] = orders[row]["decoded_ns"]
    slots[index]["book_ns"] = orders[row]["book_ns"]
    slots[index]["signal_ns"] = orders[row]["signal_ns"]
    slots[index]["risk_ns"] = orders[row]["risk_ns"]
    slots[index]["ready_ns"] = 0
    slots[index]["sent_ns"] = 0
    slots[index]["acknowledged_ns"] = 0
    slots[index]["generation"] = orders[row]["generation"]
    slots[index]["cause"] = orders[row]["cause"]
    slots[index]["time_ns"] = orders[row]["time_ns"]
    slots[index]["cancel_id"] = 0
    slots[index]["amended"] = 0
    slots[index]["first_trade"] = 0
    slots[index]["instrument"] = orders[row]["instrument"]
    slots[index]["flags"] = orders[row]["flags"]
    slots[index]["side"] = orders[row]["side"]
    slots[index]["order_type"] = orders[row]["order_type"]
    slots[index]["time_in_force"] = orders[row]["time_in_force"]
    slots[index]["state"] = NEW


@kernel
def _open_state(slots: Any, index: int) -> int:
    """Name the state of an order that lives on, by what is known of it."""
    if slots[index]["filled"] > 0:
        return PARTLY_FILLED
    if slots[index]["venue_order_id"] != 0:
        return ACCEPTED
    return SENT


@kernel
def advance(slots: Any, index: int, event: int, illegal: Any) -> bool:
    """Let `event` happen to the order in `slots[index]`; False, and counted in `illegal`, if it may not.

    The caller stores the venue's order id before (it tells `accepted` from `sent`), and `filled` once it got True.
    """
    before = slots[index]["state"]
    if before < 0 or before >= TRANSITIONS.shape[0]:
        illegal[0, event] += 1
        return False
    after = TRANSITIONS[before, event]
    if after == _NO:
        illegal[before, event] += 1
        return False
    if after == _OPEN:
        after = _open_state(slots, index)
    slots[index]["state"] = after
    return True


@kernel
def is_terminal(slots: Any, index: int) -> bool:
    """Tell whether the order's life is over."""
    return bool(TERMINAL[slots[index]["state"]])


@kernel
def trade_key(trade_id: int, side: int) -> int:
    """Make one number of a trade and our side of it: both sides of a trade with ourselves carry its id."""
    return trade_id * 2 + (1 if side == m.SELL else 0)
