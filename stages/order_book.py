"""Order book: price levels of any number of instruments in preallocated arrays.

Each side of an instrument is a row (`2 × instrument + side`) of one array: its words, then two parts:

    near   a window of `window_ticks` ticks around the touch: one quantity a tick, and two layers of bitmaps that say
           which are not 0, scanned 64 ticks at a time. A ring: tick & (window_ticks − 1) is the index, so that moving
           the window moves only the levels that leave or enter it.
    far    everything else, sorted by price, best first: prices outside the window, and prices between two ticks,
           which a feed may send although no order of ours may.

    tick    BASE                              BEST               BASE + window_ticks
             │ ▪  ▪   ▪▪  ▪ ▪▪▪ ▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪│                  │
    far … ▪ ▪├──────────────────── near ──────────────────────────┤      (bids; asks are the mirror image)

A level is in exactly one part, and which one is a matter of speed alone: every answer merges the two. When a level
falls outside the window while the touch is in its worse half (or outside as well), the window moves to the touch.

Order-by-order books (L3) will keep queues of orders in their own arrays and set the totals of their levels here, so
that everything downstream reads one kind of book; a level's queue is then found by the same row and price.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shrivenq.shm.context import by_reference
from shrivenq.shm.kernel import COMPILED, inlined, intrinsic, kernel

BID, ASK = 0, 1

# Words of a row; the first line holds what every change reads.
BASE = 0  # lowest tick of the window
BEST = 1  # best tick in the window; meaningless while NEAR_COUNT is 0
NEAR_COUNT = 2  # levels in the window
FAR_COUNT = 3  # far levels
TICK = 4  # price units a tick
WIDTH = 5  # window_ticks
SIDE = 6  # BID or ASK
FAR_ROOM = 7  # far_levels
# Where the parts begin; near[tick & (WIDTH − 1)], the quantity at a tick and 0 for no level, at NEAR.
OCCUPIED = 8  # one bit a tick: is there a level
SUMMARY = 9  # one bit a word of OCCUPIED: is it not 0
SUMMARY_COUNT = 10  # words of SUMMARY
FAR_PRICE = 11  # best first
FAR_QUANTITY = 12
NEAR = 16

SIZE_MAX = 1 << 22

if COMPILED:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.np.arrayobj import make_array

    @intrinsic
    def lowest_bit(typingctx: Any, bits: Any) -> Any:
        """Find the lowest bit set in an int64 that is not 0."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

        return bits(bits), emit

    @intrinsic
    def highest_bit(typingctx: Any, bits: Any) -> Any:
        """Find the highest bit set in an int64 that is not 0."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))
            return builder.xor(zeros, ir.Constant(zeros.type, 63))

        return bits(bits), emit

    @intrinsic
    def move_words(typingctx: Any, array: Any, source: Any, target: Any, count: Any) -> Any:
        """Move `count` words of an int64 array from index `source` to `target`; they may overlap (C's memmove)."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = make_array(array)(context, builder, args[0]).data
            places = [
                builder.gep(data, [context.cast(builder, args[i], signature.args[i], types.intp)]) for i in (2, 1)
            ]
            size = builder.mul(context.cast(builder, args[3], signature.args[3], types.intp), ir.IntType(64)(8))
            cgutils.raw_memmove(builder, places[0], places[1], size, 1)
            return context.get_dummy_value()

        return types.none(array, source, target, count), emit

else:

    def lowest_bit(bits: int) -> int:  # noqa: D103 - documented above
        return (int(bits) & -int(bits)).bit_length() - 1

    def highest_bit(bits: int) -> int:  # noqa: D103 - documented above
        return (int(bits) & 0xFFFF_FFFF_FFFF_FFFF).bit_length() - 1

    def move_words(array: Any, source: int, target: int, count: int) -> None:  # noqa: D103 - documented above
        array[target : target + count] = array[source : source + count].copy()


@by_reference
class Books(NamedTuple):
    """The books of all instruments."""

    rows: Any  # int64[2 × instrument + side, word]


def make_books(instruments: Any, window_ticks: int = 65_536, far_levels: int = 8_192) -> Books:
    """Allocate empty books for `instruments` (INSTRUMENT array; its `tick` is the ladder's step).

    `window_ticks` and `far_levels`, per side of an instrument, are powers of two; a side takes about
    8 × window_ticks + 16 × far_levels bytes. Raises ValueError for other sizes or a tick below 1.
    """
    for name, value in (("window_ticks", window_ticks), ("far_levels", far_levels)):
        if value < 1 or value > SIZE_MAX or value & (value - 1):
            raise ValueError(f"{name} is a power of two from 1 to {SIZE_MAX:,}, not {value}")
    if (instruments["tick"] < 1).any():
        raise ValueError(f"the ladder needs a tick of at least 1, not {int(instruments['tick'].min())}")
    occupied = max(1, window_ticks // 64)
    summary = max(1, occupied // 64)
    far = NEAR + window_ticks + occupied + summary
    size = -(-(far + 2 * far_levels) // 8) * 8
    rows = np.empty((2 * len(instruments), size), np.int64)
    rows.fill(0)  # touches every page: none is touched first on the path
    rows[:, TICK] = np.repeat(instruments["tick"], 2)
    rows[:, WIDTH] = window_ticks
    rows[ASK::2, SIDE] = ASK
    rows[:, FAR_ROOM] = far_levels
    rows[:, OCCUPIED] = NEAR + window_ticks
    rows[:, SUMMARY] = NEAR + window_ticks + occupied
    rows[:, SUMMARY_COUNT] = summary
    rows[:, FAR_PRICE] = far
    rows[:, FAR_QUANTITY] = far + far_levels
    return Books(rows)


# ── near: the window ─────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _index_below(row: Any, index: int) -> int:
    """Find the next occupied index below `index`, going round; the row holds another level."""
    word = index >> 6
    bits = row[row[OCCUPIED] + word] & ~(np.int64(-1) << (index & 63))
    if bits != 0:
        return (word << 6) + highest_bit(bits)
    group = word >> 6
    bits = row[row[SUMMARY] + group] & ~(np.int64(-1) << (word & 63))
    while bits == 0:
        group = (group - 1) & (row[SUMMARY_COUNT] - 1)
        bits = row[row[SUMMARY] + group]
    word = (group << 6) + highest_bit(bits)
    return (word << 6) + highest_bit(row[row[OCCUPIED] + word])


@inlined
def _index_above(row: Any, index: int) -> int:
    """Find the next occupied index above `index`, going round; the row holds another level."""
    word = index >> 6
    # Two shifts, since one by 64 means nothing.
    bits = row[row[OCCUPIED] + word] & (np.int64(-1) << (index & 63) << 1)
    if bits != 0:
        return (word << 6) + lowest_bit(bits)
    group = word >> 6
    bits = row[row[SUMMARY] + group] & (np.int64(-1) << (word & 63) << 1)
    while bits == 0:
        group = (group + 1) & (row[SUMMARY_COUNT] - 1)
        bits = row[row[SUMMARY] + group]
    word = (group << 6) + lowest_bit(bits)
    return (word << 6) + lowest_bit(row[row[OCCUPIED] + word])


@inlined
def _worse_tick(row: Any, ticks: int) -> int:
    """Find the next occupied tick of the window that is worse than `ticks`; there is one."""
    mask = row[WIDTH] - 1
    index = ticks & mask
    # 1 to window_ticks away: from just outside the window, the far edge has the same index.
    if row[SIDE] == BID:
        return ticks - 1 - ((index - 1 - _index_below(row, index)) & mask)
    return ticks + 1 + ((_index_above(row, index) - index - 1) & mask)


@inlined
def _occupy(row: Any, ticks: int) -> None:
    """Note that the window has a level at `ticks` from now on."""
    index = ticks & (row[WIDTH] - 1)
    row[row[OCCUPIED] + (index >> 6)] |= np.int64(1) << (index & 63)
    row[row[SUMMARY] + (index >> 12)] |= np.int64(1) << ((index >> 6) & 63)
    row[NEAR_COUNT] += 1
    best = row[BEST]
    if row[NEAR_COUNT] == 1 or (ticks > best if row[SIDE] == BID else ticks < best):
        row[BEST] = ticks


@inlined
def _vacate(row: Any, index: int) -> None:
    """Note that the window has no level at `index` any more; BEST is the caller's to mend."""
    row[row[OCCUPIED] + (index >> 6)] &= ~(np.int64(1) << (index & 63))
    if row[row[OCCUPIED] + (index >> 6)] == 0:
        row[row[SUMMARY] + (index >> 12)] &= ~(np.int64(1) << ((index >> 6) & 63))
    row[NEAR_COUNT] -= 1


@inlined
def _set_near(row: Any, ticks: int, quantity: int) -> int:
    """Set a level inside the window; return the quantity before."""
    index = ticks & (row[WIDTH] - 1)
    previous = row[NEAR + index]
    row[NEAR + index] = quantity
    if previous == 0:
        if quantity != 0:
            _occupy(row, ticks)
    elif quantity == 0:
        _vacate(row, index)
        if ticks == row[BEST] and row[NEAR_COUNT] > 0:
            row[BEST] = _worse_tick(row, ticks)
    return previous


# ── far: everything else ─────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _better(row: Any, price: int, other: int) -> bool:
    """Tell whether `price` comes before `other` on the row's side."""
    return price > other if row[SIDE] == BID else price < other


@kernel
def _far_rank(row: Any, price: int) -> int:
    """Count the far levels better than `price`: the rank it has or would have."""
    low, high = 0, row[FAR_COUNT]
    while low < high:
        middle = (low + high) >> 1
        if _better(row, row[row[FAR_PRICE] + middle], price):
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _far_insert(row: Any, rank: int, price: int, quantity: int) -> None:
    """Make room at `rank`; the caller has checked that there is some."""
    behind = row[FAR_COUNT] - rank
    at = row[FAR_PRICE] + rank
    move_words(row, at, at + 1, behind)
    row[at] = price
    at = row[FAR_QUANTITY] + rank
    move_words(row, at, at + 1, behind)
    row[at] = quantity
    row[FAR_COUNT] += 1


@inlined
def _far_remove(row: Any, rank: int) -> None:
    """Close the place at `rank`."""
    row[FAR_COUNT] -= 1
    behind = row[FAR_COUNT] - rank
    at = row[FAR_PRICE] + rank
    move_words(row, at + 1, at, behind)
    at = row[FAR_QUANTITY] + rank
    move_words(row, at + 1, at, behind)


@kernel
def _set_far(row: Any, price: int, quantity: int) -> int:
    """Set a level outside the window; return the quantity before, -1 if there is no room."""
    rank = _far_rank(row, price)
    if rank < row[FAR_COUNT] and row[row[FAR_PRICE] + rank] == price:
        previous = row[row[FAR_QUANTITY] + rank]
        if quantity == 0:
            _far_remove(row, rank)
        else:
            row[row[FAR_QUANTITY] + rank] = quantity
        return previous
    if quantity != 0:
        if row[FAR_COUNT] == row[FAR_ROOM]:
            return -1
        _far_insert(row, rank, price, quantity)
    return 0


# ── moving the window ────────────────────────────────────────────────────────────────────────────────────────────────


@inlined
def _tick_of(row: Any, index: int) -> int:
    """Name the tick that the window's `index` stands for."""
    base = row[BASE]
    return base + ((index - base) & (row[WIDTH] - 1))


@kernel
def _leaving(row: Any, base: int, move: bool) -> int:
    """Count the window's levels outside a window at `base`; with `move`, move them to the far ones."""
    width = row[WIDTH]
    count = 0
    for word in range(row[SUMMARY] - row[OCCUPIED]):
        bits = row[row[OCCUPIED] + word]
        while bits != 0:
            index = (word << 6) + lowest_bit(bits)
            bits ^= np.int64(1) << lowest_bit(bits)
            ticks = _tick_of(row, index)
            if base <= ticks < base + width:
                continue
            count += 1
            if move:
                price = ticks * row[TICK]
                _far_insert(row, _far_rank(row, price), price, row[NEAR + index])
                row[NEAR + index] = 0
                _vacate(row, index)
    return count


@kernel
def _enter(row: Any) -> None:
    """Move the far levels that belong in the window into it; keep the rest in order."""
    tick = row[TICK]
    base = row[BASE]
    width = row[WIDTH]
    kept = 0
    for rank in range(row[FAR_COUNT]):
        price = row[row[FAR_PRICE] + rank]
        quantity = row[row[FAR_QUANTITY] + rank]
        ticks = price // tick
        if ticks * tick == price and base <= ticks < base + width:
            row[NEAR + (ticks & (width - 1))] = quantity
            _occupy(row, ticks)
        else:
            row[row[FAR_PRICE] + kept] = price
            row[row[FAR_QUANTITY] + kept] = quantity
            kept += 1
    row[FAR_COUNT] = kept


@kernel
def _recentre(row: Any, best: int) -> None:
    """Move the window so that tick `best` lies in its better half with a quarter to spare; not if far lacks room."""
    width = row[WIDTH]
    # Whole words of the bitmap, so that one word's bits are neighbours and in order.
    unit = min(width, 64)
    base = best - (width * 3 // 4 if row[SIDE] == BID else width // 4)
    base &= -unit
    if best >= base + width:
        base += unit
    if base == row[BASE]:
        return
    if row[FAR_COUNT] + _leaving(row, base, False) > row[FAR_ROOM]:
        return
    _leaving(row, base, True)
    row[BASE] = base
    _enter(row)
    if row[NEAR_COUNT] > 0:
        edge = base + width if row[SIDE] == BID else base - 1
        row[BEST] = _worse_tick(row, edge)


@inlined
def _well_placed(row: Any, best: int) -> bool:
    """Tell whether tick `best` lies in the better half of the window."""
    offset = best - row[BASE]
    width = row[WIDTH]
    if row[SIDE] == BID:
        return width // 2 <= offset < width
    return 0 <= offset <= width // 2


# ── the interface ────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def clear(books: Any, instrument: int) -> None:
    """Delete every level of both sides."""
    for side in range(2):
        row = books.rows[2 * instrument + side]
        for word in range(row[SUMMARY] - row[OCCUPIED]):
            bits = row[row[OCCUPIED] + word]
            while bits != 0:
                row[NEAR + (word << 6) + lowest_bit(bits)] = 0
                bits ^= np.int64(1) << lowest_bit(bits)
            row[row[OCCUPIED] + word] = 0
        for group in range(row[SUMMARY_COUNT]):
            row[row[SUMMARY] + group] = 0
        row[NEAR_COUNT] = 0
        row[FAR_COUNT] = 0


@inlined
def _best(row: Any) -> int:
    price = row[BEST] * row[TICK] if row[NEAR_COUNT] > 0 else 0
    if row[FAR_COUNT] > 0:
        far = row[row[FAR_PRICE]]
        if price == 0 or _better(row, far, price):
            price = far
    return price


@kernel
def _set_outside(row: Any, price: int, quantity: int) -> int:
    """Set a level outside the window, after moving the window where it should be."""
    tick = row[TICK]
    ticks = price // tick
    if quantity != 0:
        best = _best(row)
        best = price if best == 0 or _better(row, price, best) else best
        if not _well_placed(row, best // tick):
            _recentre(row, best // tick)
            if ticks * tick == price and 0 <= ticks - row[BASE] < row[WIDTH]:
                return _set_near(row, ticks, quantity)
    return _set_far(row, price, quantity)


@inlined
def best_price(books: Any, instrument: int, side: int) -> int:
    """Tell the best price of a side, 0 if it is empty."""
    return _best(books.rows[2 * instrument + side])


@inlined
def set_level(books: Any, instrument: int, side: int, price: int, quantity: int) -> int:
    """Set the quantity at a price (0 deletes, also what is not there); return the quantity before.

    -1: nothing was set, because there is no room or `price` < 1 or `quantity` < 0; the book is no longer whole.
    """
    if price < 1 or quantity < 0:
        return -1
    row = books.rows[2 * instrument + side]
    ticks = price // row[TICK]
    if ticks * row[TICK] == price and 0 <= ticks - row[BASE] < row[WIDTH]:
        return _set_near(row, ticks, quantity)
    return _set_outside(row, price, quantity)


@kernel
def quantity_at(books: Any, instrument: int, side: int, price: int) -> int:
    """Tell the quantity at a price, 0 for none."""
    row = books.rows[2 * instrument + side]
    tick = row[TICK]
    ticks = price // tick
    if ticks * tick == price and 0 <= ticks - row[BASE] < row[WIDTH]:
        return row[NEAR + (ticks & (row[WIDTH] - 1))]
    rank = _far_rank(row, price)
    if rank < row[FAR_COUNT] and row[row[FAR_PRICE] + rank] == price:
        return row[row[FAR_QUANTITY] + rank]
    return 0


@kernel
def level_count(books: Any, instrument: int, side: int) -> int:
    """Count the levels of a side."""
    row = books.rows[2 * instrument + side]
    return row[NEAR_COUNT] + row[FAR_COUNT]


@kernel
def top(books: Any, instrument: int, side: int, prices: Any, quantities: Any, count: int) -> int:
    """Write the `count` best levels, best first, and 0 beyond; return how many there are."""
    row = books.rows[2 * instrument + side]
    mask = row[WIDTH] - 1
    near_left = row[NEAR_COUNT]
    far_left = row[FAR_COUNT]
    tick = row[TICK]
    ticks = row[BEST]
    filled = 0
    while filled < count and near_left + far_left > 0:
        rank = row[FAR_COUNT] - far_left
        if near_left > 0 and (far_left == 0 or _better(row, ticks * tick, row[row[FAR_PRICE] + rank])):
            prices[filled] = ticks * tick
            quantities[filled] = row[NEAR + (ticks & mask)]
            near_left -= 1
            if near_left > 0:
                ticks = _worse_tick(row, ticks)
        else:
            prices[filled] = row[row[FAR_PRICE] + rank]
            quantities[filled] = row[row[FAR_QUANTITY] + rank]
            far_left -= 1
        filled += 1
    for empty in range(filled, count):
        prices[empty] = 0
        quantities[empty] = 0
    return filled
