"""Matching: price-time priority in integers, several instruments, nothing allocated after `make_matching`.

    ladders[i]  ── levels[first + k]       one per tick: total quantity, first and last order
                        │ head … tail       intrusive list: first in, first out
                   orders[i × slots + s]    preallocated slots, free ones chained through `next`

Bids and asks share a ladder: they never rest at the same price. A price outside the ladder is refused, as a venue's
price band does. `blocks` counts the occupied levels of 64 ticks, so that the next best price is found quickly across
any gap. An order may `hide` what it has beyond a part: when that part has traded, the next one shows, behind all others
at its price. Each command leaves its trades in `trades` (`words[TRADES]` of them) and every level it changed in
`changed`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import kernel
from shrivenq.stages.messages import BUY, GTC, MARKET, REASON

LEVELS = 1 << 17
"""Ticks in a ladder, unless `make_matching` is told otherwise."""
BLOCK_SHIFT = 6

TRADES = 0  # words: trades of the last command
HANDLE = 1  # words: handle of the order that rests after the last `place`, 0 for none
LEAVES = 2  # words: quantity that neither traded nor rests after the last `place`

SLOT_BITS = 24
SLOT_MASK = (1 << SLOT_BITS) - 1

PLACED = 0
NO_SLOT = REASON["no_slot"]
TICK_SIZE = REASON["tick_size"]
PRICE_RANGE = REASON["price_range"]
QUANTITY_RANGE = REASON["quantity_range"]

LADDER = np.dtype(
    [
        ("base", "<i8"),  # price of level 0
        ("tick", "<i8"),  # price between two levels
        ("best_bid", "<i8"),  # level, -1 for none
        ("best_ask", "<i8"),  # level, `levels` for none
        ("bid_levels", "<i8"),  # occupied
        ("ask_levels", "<i8"),  # occupied
        ("update_id", "<i8"),  # counts changes of levels
        ("trade_id", "<i8"),  # of the last trade
        ("free", "<i8"),  # first free slot, -1 for none
        ("resting", "<i8"),  # orders in the book
        ("hiding", "<i8"),  # of them those that show a part at a time
        ("changed", "<i8"),  # entries of this instrument in `changed`
        ("first", "<i8"),  # row of level 0 in `levels` and `changed`
        ("levels", "<i8"),  # ticks in the ladder
    ],
    align=True,
)

LEVEL = np.dtype(
    [
        ("quantity", "<i8"),  # what shows
        ("head", "<i4"),  # first order, while there are orders
        ("tail", "<i4"),  # last order
        ("orders", "<i4"),
        ("marked", "<i4"),  # 1 while in `changed`
    ],
    align=True,
)

ORDER = np.dtype(
    [
        ("handle", "<i8"),  # generation << SLOT_BITS | slot; the generation grows when the slot is freed
        ("owner", "<i8"),  # the caller's own word
        ("leaves", "<i8"),  # quantity that shows and is still open, 0 for a free slot
        ("hidden", "<i8"),  # quantity that does not show yet
        ("part", "<i8"),  # how much shows at a time, 0 for all of it
        ("level", "<i4"),
        ("next", "<i4"),  # behind it in the level; the next free slot
        ("previous", "<i4"),  # before it in the level, -1 for the first
        ("side", "<i4"),  # BUY or SELL
    ],
    align=True,
)

TRADE = np.dtype(
    [
        ("trade_id", "<i8"),
        ("price", "<i8"),
        ("quantity", "<i8"),
        ("maker", "<i8"),  # handle of the resting order
        ("maker_owner", "<i8"),
        ("maker_leaves", "<i8"),  # what the resting order has left
        ("taker_owner", "<i8"),
        ("instrument", "<i4"),
        ("side", "<i4"),  # the aggressor's: BUY or SELL
    ],
    align=True,
)


@by_reference
class Matching(NamedTuple):
    """The matching core of several instruments."""

    ladders: Any  # LADDER, one per instrument
    levels: Any  # LEVEL, the same number per instrument
    blocks: Any  # int64, occupied levels of each 64
    orders: Any  # ORDER, the same number per instrument
    changed: Any  # int64, levels changed since `clear_changed`, as many as there are levels
    trades: Any  # TRADE: of the last command; more than an instrument has slots
    words: Any  # int64: TRADES, HANDLE, LEAVES


def make_matching(bases: list[int], ticks: list[int], slots: int, levels: int = LEVELS) -> Matching:
    """Allocate empty books whose ladders begin at price `bases[i]` with a step of `ticks[i]`, `slots` orders each.

    A ladder has `levels` ticks; only those that are used take memory. Raises ValueError unless bases are positive,
    ticks positive, levels whole blocks of 64, and every slot has an index of SLOT_BITS.
    """
    count = len(bases)
    if min(*bases, *ticks, levels, 1) <= 0 or levels % (1 << BLOCK_SHIFT) or slots * count > SLOT_MASK:
        raise ValueError(f"ladders from {bases} by {ticks}, {levels} levels with {slots} slots each")
    ladders = np.zeros(count, LADDER)
    ladders["base"], ladders["tick"] = bases, ticks
    ladders["best_bid"], ladders["best_ask"] = -1, levels
    ladders["free"] = np.arange(count) * slots
    ladders["first"], ladders["levels"] = np.arange(count) * levels, levels
    orders = np.zeros(count * slots, ORDER)
    indices = np.arange(count * slots)
    orders["handle"] = 1 << SLOT_BITS | indices
    orders["next"] = np.where(indices % slots == slots - 1, -1, indices + 1)
    return Matching(
        ladders,
        np.zeros(count * levels, LEVEL),
        np.zeros(count * levels >> BLOCK_SHIFT, np.int64),
        orders,
        np.zeros(count * levels, np.int64),
        np.zeros(slots + 1, TRADE),
        np.zeros(3, np.int64),
    )


@kernel
def price_of(core: Matching, instrument: int, level: int) -> int:
    """Price of a level."""
    return core.ladders[instrument]["base"] + level * core.ladders[instrument]["tick"]


@kernel
def side_of(core: Matching, instrument: int, level: int) -> int:
    """Tell who rests at a level: BUY, SELL, 0 for nobody."""
    if core.levels[core.ladders[instrument]["first"] + level]["orders"] == 0:
        return 0
    return BUY if level <= core.ladders[instrument]["best_bid"] else -BUY


@kernel
def occupied_below(core: Matching, instrument: int, level: int) -> int:
    """Find the highest occupied level at or below `level`, -1 for none."""
    first = core.ladders[instrument]["first"]
    while level >= 0:
        if core.blocks[first + level >> BLOCK_SHIFT] == 0:
            level = (level >> BLOCK_SHIFT << BLOCK_SHIFT) - 1
        elif core.levels[first + level]["orders"] != 0:
            return level
        else:
            level -= 1
    return -1


@kernel
def occupied_above(core: Matching, instrument: int, level: int) -> int:
    """Find the lowest occupied level at or above `level`, the ladder's `levels` for none."""
    first = core.ladders[instrument]["first"]
    levels = core.ladders[instrument]["levels"]
    while level < levels:
        if core.blocks[first + level >> BLOCK_SHIFT] == 0:
            level = (level >> BLOCK_SHIFT) + 1 << BLOCK_SHIFT
        elif core.levels[first + level]["orders"] != 0:
            return level
        else:
            level += 1
    return levels


@kernel
def clear_changed(core: Matching, instrument: int) -> None:
    """Forget which levels of an instrument changed."""
    first = core.ladders[instrument]["first"]
    for position in range(core.ladders[instrument]["changed"]):
        core.levels[first + core.changed[first + position]]["marked"] = 0
    core.ladders[instrument]["changed"] = 0


@kernel
def _mark(core: Matching, instrument: int, level: int) -> None:
    """Note that a level changed."""
    core.ladders[instrument]["update_id"] += 1
    first = core.ladders[instrument]["first"]
    if core.levels[first + level]["marked"] == 0:
        core.levels[first + level]["marked"] = 1
        core.changed[first + core.ladders[instrument]["changed"]] = level
        core.ladders[instrument]["changed"] += 1


@kernel
def _remove(core: Matching, instrument: int, slot: int) -> None:
    """Take an order with nothing left out of its level and free its slot; the level's quantity is already right."""
    level = core.orders[slot]["level"]
    row = core.ladders[instrument]["first"] + level
    before, behind = core.orders[slot]["previous"], core.orders[slot]["next"]
    if before >= 0:
        core.orders[before]["next"] = behind
    else:
        core.levels[row]["head"] = behind
    if behind >= 0:
        core.orders[behind]["previous"] = before
    else:
        core.levels[row]["tail"] = before
    core.levels[row]["orders"] -= 1
    if core.levels[row]["orders"] == 0:
        core.blocks[row >> BLOCK_SHIFT] -= 1
        if core.orders[slot]["side"] == BUY:
            core.ladders[instrument]["bid_levels"] -= 1
            if level == core.ladders[instrument]["best_bid"]:
                core.ladders[instrument]["best_bid"] = occupied_below(core, instrument, level - 1)
        else:
            core.ladders[instrument]["ask_levels"] -= 1
            if level == core.ladders[instrument]["best_ask"]:
                core.ladders[instrument]["best_ask"] = occupied_above(core, instrument, level + 1)
    core.ladders[instrument]["hiding"] -= 1 if core.orders[slot]["part"] != 0 else 0
    core.orders[slot]["leaves"] = 0
    core.orders[slot]["handle"] += 1 << SLOT_BITS
    core.orders[slot]["next"] = core.ladders[instrument]["free"]
    core.ladders[instrument]["free"] = slot
    core.ladders[instrument]["resting"] -= 1


@kernel
def rest(core: Matching, instrument: int, side: int, level: int, quantity: int, owner: int) -> int:
    """Append an order to its level; return its handle. The caller knows that a slot is free and nothing crosses."""
    slot = core.ladders[instrument]["free"]
    core.ladders[instrument]["free"] = core.orders[slot]["next"]
    core.ladders[instrument]["resting"] += 1
    row = core.ladders[instrument]["first"] + level
    tail = core.levels[row]["tail"]
    core.orders[slot]["owner"] = owner
    core.orders[slot]["leaves"] = quantity
    core.orders[slot]["hidden"] = core.orders[slot]["part"] = 0
    core.orders[slot]["level"] = level
    core.orders[slot]["next"] = -1
    core.orders[slot]["side"] = side
    if core.levels[row]["orders"] != 0:
        core.orders[slot]["previous"] = tail
        core.orders[tail]["next"] = slot
    else:
        core.orders[slot]["previous"] = -1
        core.levels[row]["head"] = slot
        core.levels[row]["quantity"] = 0
        core.blocks[row >> BLOCK_SHIFT] += 1
        if side == BUY:
            core.ladders[instrument]["bid_levels"] += 1
            core.ladders[instrument]["best_bid"] = max(core.ladders[instrument]["best_bid"], level)
        else:
            core.ladders[instrument]["ask_levels"] += 1
            core.ladders[instrument]["best_ask"] = min(core.ladders[instrument]["best_ask"], level)
    core.levels[row]["tail"] = slot
    core.levels[row]["orders"] += 1
    core.levels[row]["quantity"] += quantity
    _mark(core, instrument, level)
    return core.orders[slot]["handle"]


@kernel
def hide(core: Matching, instrument: int, handle: int, part: int) -> None:
    """Have an order that was just put to rest show no more than `part` at a time."""
    order = core.orders[handle & SLOT_MASK]
    order["part"], order["hidden"] = part, max(order["leaves"] - part, 0)
    order["leaves"] -= order["hidden"]
    core.levels[core.ladders[instrument]["first"] + order["level"]]["quantity"] -= order["hidden"]
    core.ladders[instrument]["hiding"] += 1


@kernel
def _show(core: Matching, row: int, slot: int) -> None:
    """Show the next part of an order whose last one has traded, behind all others of its level (in `row`)."""
    order = core.orders[slot]
    order["leaves"] = min(order["part"], order["hidden"])
    order["hidden"] -= order["leaves"]
    core.levels[row]["quantity"] += order["leaves"]
    tail, behind = core.levels[row]["tail"], order["next"]
    if behind < 0:
        return
    # It was the first: only the first trades.
    core.levels[row]["head"] = behind
    core.orders[behind]["previous"] = -1
    core.orders[tail]["next"] = slot
    order["previous"], order["next"] = tail, -1
    core.levels[row]["tail"] = slot


@kernel
def trade(core: Matching, instrument: int, side: int, level: int, quantity: int, owner: int) -> int:
    """Trade up to `quantity` with what shows of the first order of a level; return how much.

    The level is the best of the other side. The trade is added to `trades`: `place` begins that list anew.
    """
    row = core.ladders[instrument]["first"] + level
    slot = core.levels[row]["head"]
    traded = min(quantity, core.orders[slot]["leaves"])
    core.ladders[instrument]["trade_id"] += 1
    position = core.words[TRADES]
    core.words[TRADES] = position + 1
    core.trades[position]["trade_id"] = core.ladders[instrument]["trade_id"]
    core.trades[position]["price"] = price_of(core, instrument, level)
    core.trades[position]["quantity"] = traded
    core.trades[position]["maker"] = core.orders[slot]["handle"]
    core.trades[position]["maker_owner"] = core.orders[slot]["owner"]
    core.trades[position]["maker_leaves"] = core.orders[slot]["leaves"] + core.orders[slot]["hidden"] - traded
    core.trades[position]["taker_owner"] = owner
    core.trades[position]["instrument"] = instrument
    core.trades[position]["side"] = side
    core.levels[row]["quantity"] -= traded
    core.orders[slot]["leaves"] -= traded
    _mark(core, instrument, level)
    if core.orders[slot]["leaves"] == 0:
        if core.orders[slot]["hidden"] != 0:
            _show(core, row, slot)
        else:
            _remove(core, instrument, slot)
    return traded


@kernel
def place(
    core: Matching,
    instrument: int,
    side: int,
    order_type: int,
    time_in_force: int,
    price: int,
    quantity: int,
    owner: int,
) -> int:
    """Match an order against the book; rest what is left of a limit order that is GTC.

    `price` is ignored for MARKET. Returns PLACED, or the reason code of a refusal: TICK_SIZE, PRICE_RANGE,
    QUANTITY_RANGE, or NO_SLOT for a GTC limit order while the instrument has no free slot. One that meets more hidden
    parts than there is room for trades goes no further, and does not rest.
    """
    core.words[TRADES] = core.words[HANDLE] = core.words[LEAVES] = 0
    # The bound keeps the sum over a full level in 64 bits; there are as many slots as trades but one.
    if quantity <= 0 or quantity > (1 << 62) // (core.trades.shape[0] - 1):
        return QUANTITY_RANGE
    rests = order_type != MARKET and time_in_force == GTC
    levels = core.ladders[instrument]["levels"]
    limit = levels - 1 if side == BUY else 0
    if order_type != MARKET:
        distance = price - core.ladders[instrument]["base"]
        limit = distance // core.ladders[instrument]["tick"]
        if limit < 0 or limit >= levels:
            return PRICE_RANGE
        if limit * core.ladders[instrument]["tick"] != distance:
            return TICK_SIZE
        if rests and core.ladders[instrument]["free"] < 0:
            return NO_SLOT
    leaves = quantity
    while leaves > 0 and core.words[TRADES] < core.trades.shape[0]:
        best = core.ladders[instrument]["best_ask"] if side == BUY else core.ladders[instrument]["best_bid"]
        if best < 0 or best == levels or (best > limit if side == BUY else best < limit):
            break
        leaves -= trade(core, instrument, side, best, leaves, owner)
    if leaves > 0 and rests and core.words[TRADES] < core.trades.shape[0]:
        core.words[HANDLE] = rest(core, instrument, side, limit, leaves, owner)
        leaves = 0
    core.words[LEAVES] = leaves
    return PLACED


@kernel
def reduce(core: Matching, handle: int, quantity: int) -> int:
    """Take up to `quantity` from a resting order, which keeps its place; return how much.

    What is hidden goes first. One that has nothing left leaves the book. 0 if the handle names no resting order.
    """
    core.words[TRADES] = 0
    slot = handle & SLOT_MASK
    if handle < 0 or slot >= core.orders.shape[0] or core.orders[slot]["handle"] != handle:
        return 0
    unseen = max(min(core.orders[slot]["hidden"], quantity), 0)
    core.orders[slot]["hidden"] -= unseen
    taken = min(core.orders[slot]["leaves"], quantity - unseen)
    if taken <= 0:
        return unseen
    instrument = slot // (core.orders.shape[0] // core.ladders.shape[0])
    level = core.orders[slot]["level"]
    core.levels[core.ladders[instrument]["first"] + level]["quantity"] -= taken
    core.orders[slot]["leaves"] -= taken
    _mark(core, instrument, level)
    if core.orders[slot]["leaves"] == 0:
        _remove(core, instrument, slot)
    return taken + unseen


@kernel
def cancel(core: Matching, handle: int) -> int:
    """Take a resting order out of the book; return what it had left, 0 if the handle names no resting order."""
    return reduce(core, handle, 1 << 62)
