"""Order book: price levels of any number of instruments in preallocated arrays.

Each side of an instrument is a row (`2 × instrument + side`) with two parts:

    near   a window of `window_ticks` ticks around the touch: one quantity a tick, and two layers of bitmaps that say
           which are not 0, scanned 64 ticks at a time. A ring: tick & (window_ticks − 1) is the index, so that moving
           the window moves only the levels that leave or enter it.
    far    everything else, sorted by price, best first, in a ring of `far_levels`: prices outside the window, and
           prices between two ticks, which a feed may send although no order of ours may.

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

from shrivenq.shm.kernel import COMPILED, intrinsic, kernel

BID, ASK = 0, 1

# Words of a row.
BASE = 0  # lowest tick of the window
BEST = 1  # best tick in the window; meaningless while NEAR_COUNT is 0
NEAR_COUNT = 2  # levels in the window
FAR_HEAD = 3  # where the best far level lies
FAR_COUNT = 4  # far levels
ROW_WORDS = 8

WINDOW_TICKS_MAX = 1 << 22

if COMPILED:
    from llvmlite import ir

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

else:

    def lowest_bit(bits: int) -> int:  # noqa: D103 - documented above
        return (int(bits) & -int(bits)).bit_length() - 1

    def highest_bit(bits: int) -> int:  # noqa: D103 - documented above
        return (int(bits) & 0xFFFF_FFFF_FFFF_FFFF).bit_length() - 1


class Books(NamedTuple):
    """The books of all instruments; rows are `2 × instrument + side`. All int64."""

    tick: Any  # [instrument] price units a tick
    words: Any  # [row, word] see above
    near: Any  # [row, tick & (window_ticks − 1)] quantity, 0 for no level
    occupied: Any  # [row, …] one bit a tick: is there a level
    summary: Any  # [row, …] one bit a word of `occupied`: is it not 0
    far_price: Any  # [row, (FAR_HEAD + rank) & (far_levels − 1)]
    far_quantity: Any


def make_books(instruments: Any, window_ticks: int = 65_536, far_levels: int = 8_192) -> Books:
    """Allocate empty books for `instruments` (INSTRUMENT array; its `tick` is the ladder's step).

    `window_ticks` and `far_levels`, per side of an instrument, are powers of two; a side takes about
    8 × window_ticks + 16 × far_levels bytes. Raises ValueError for other sizes or a tick below 1.
    """
    for name, value, limit in (("window_ticks", window_ticks, WINDOW_TICKS_MAX), ("far_levels", far_levels, 1 << 30)):
        if value < 1 or value > limit or value & (value - 1):
            raise ValueError(f"{name} is a power of two from 1 to {limit:,}, not {value}")
    tick = np.ascontiguousarray(instruments["tick"], dtype=np.int64)
    if (tick < 1).any():
        raise ValueError(f"the ladder needs a tick of at least 1, not {int(tick.min())}")
    rows = 2 * len(tick)
    words = max(1, window_ticks // 64)
    return Books(
        tick,
        np.zeros((rows, ROW_WORDS), np.int64),
        np.zeros((rows, window_ticks), np.int64),
        np.zeros((rows, words), np.int64),
        np.zeros((rows, max(1, words // 64)), np.int64),
        np.zeros((rows, far_levels), np.int64),
        np.zeros((rows, far_levels), np.int64),
    )


# ── near: the window ─────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _index_below(books: Any, row: int, index: int) -> int:
    """Find the next occupied index below `index`, going round; the row holds another level."""
    word = index >> 6
    bits = books.occupied[row, word] & ~(np.int64(-1) << (index & 63))
    if bits != 0:
        return (word << 6) + highest_bit(bits)
    group = word >> 6
    bits = books.summary[row, group] & ~(np.int64(-1) << (word & 63))
    while bits == 0:
        group = (group - 1) & (books.summary.shape[1] - 1)
        bits = books.summary[row, group]
    word = (group << 6) + highest_bit(bits)
    return (word << 6) + highest_bit(books.occupied[row, word])


@kernel
def _index_above(books: Any, row: int, index: int) -> int:
    """Find the next occupied index above `index`, going round; the row holds another level."""
    word = index >> 6
    # Two shifts, since one by 64 means nothing.
    bits = books.occupied[row, word] & (np.int64(-1) << (index & 63) << 1)
    if bits != 0:
        return (word << 6) + lowest_bit(bits)
    group = word >> 6
    bits = books.summary[row, group] & (np.int64(-1) << (word & 63) << 1)
    while bits == 0:
        group = (group + 1) & (books.summary.shape[1] - 1)
        bits = books.summary[row, group]
    word = (group << 6) + lowest_bit(bits)
    return (word << 6) + lowest_bit(books.occupied[row, word])


@kernel
def _worse_tick(books: Any, row: int, ticks: int) -> int:
    """Find the next occupied tick of the window that is worse than `ticks`; there is one."""
    mask = books.near.shape[1] - 1
    index = ticks & mask
    # 1 to window_ticks away: from just outside the window, the far edge has the same index.
    if row & 1 == BID:
        return ticks - 1 - ((index - 1 - _index_below(books, row, index)) & mask)
    return ticks + 1 + ((_index_above(books, row, index) - index - 1) & mask)


@kernel
def _occupy(books: Any, row: int, ticks: int) -> None:
    """Note that the window has a level at `ticks` from now on."""
    index = ticks & (books.near.shape[1] - 1)
    books.occupied[row, index >> 6] |= np.int64(1) << (index & 63)
    books.summary[row, index >> 12] |= np.int64(1) << ((index >> 6) & 63)
    books.words[row, NEAR_COUNT] += 1
    best = books.words[row, BEST]
    if books.words[row, NEAR_COUNT] == 1 or (ticks > best if row & 1 == BID else ticks < best):
        books.words[row, BEST] = ticks


@kernel
def _vacate(books: Any, row: int, index: int) -> None:
    """Note that the window has no level at `index` any more; BEST is the caller's to mend."""
    books.occupied[row, index >> 6] &= ~(np.int64(1) << (index & 63))
    if books.occupied[row, index >> 6] == 0:
        books.summary[row, index >> 12] &= ~(np.int64(1) << ((index >> 6) & 63))
    books.words[row, NEAR_COUNT] -= 1


@kernel
def _set_near(books: Any, row: int, ticks: int, quantity: int) -> int:
    """Set a level inside the window; return the quantity before."""
    index = ticks & (books.near.shape[1] - 1)
    previous = books.near[row, index]
    books.near[row, index] = quantity
    if previous == 0:
        if quantity != 0:
            _occupy(books, row, ticks)
    elif quantity == 0:
        _vacate(books, row, index)
        if ticks == books.words[row, BEST] and books.words[row, NEAR_COUNT] > 0:
            books.words[row, BEST] = _worse_tick(books, row, ticks)
    return previous


# ── far: everything else ─────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _better(row: int, price: int, other: int) -> bool:
    """Tell whether `price` comes before `other` on the row's side."""
    return price > other if row & 1 == BID else price < other


@kernel
def _far_slot(books: Any, row: int, rank: int) -> int:
    return (books.words[row, FAR_HEAD] + rank) & (books.far_price.shape[1] - 1)


@kernel
def _far_rank(books: Any, row: int, price: int) -> int:
    """Count the far levels better than `price`: the rank it has or would have."""
    low, high = 0, books.words[row, FAR_COUNT]
    while low < high:
        middle = (low + high) >> 1
        if _better(row, books.far_price[row, _far_slot(books, row, middle)], price):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _far_move(books: Any, row: int, source: int, target: int) -> None:
    source, target = _far_slot(books, row, source), _far_slot(books, row, target)
    books.far_price[row, target] = books.far_price[row, source]
    books.far_quantity[row, target] = books.far_quantity[row, source]


@kernel
def _far_insert(books: Any, row: int, rank: int, price: int, quantity: int) -> None:
    """Make room at `rank` by moving the shorter end outwards; the caller has checked that there is some."""
    count = books.words[row, FAR_COUNT]
    if rank < count - rank:
        books.words[row, FAR_HEAD] = _far_slot(books, row, -1)
        for other in range(rank):
            _far_move(books, row, other + 1, other)
    else:
        for other in range(count, rank, -1):
            _far_move(books, row, other - 1, other)
    books.words[row, FAR_COUNT] = count + 1
    slot = _far_slot(books, row, rank)
    books.far_price[row, slot] = price
    books.far_quantity[row, slot] = quantity


@kernel
def _far_remove(books: Any, row: int, rank: int) -> None:
    """Close the place at `rank` by moving the shorter end inwards."""
    count = books.words[row, FAR_COUNT]
    if rank < count - rank:
        for other in range(rank, 0, -1):
            _far_move(books, row, other - 1, other)
        books.words[row, FAR_HEAD] = _far_slot(books, row, 1)
    else:
        for other in range(rank, count - 1):
            _far_move(books, row, other + 1, other)
    books.words[row, FAR_COUNT] = count - 1


@kernel
def _set_far(books: Any, row: int, price: int, quantity: int) -> int:
    """Set a level outside the window; return the quantity before, -1 if there is no room."""
    rank = _far_rank(books, row, price)
    count = books.words[row, FAR_COUNT]
    slot = _far_slot(books, row, rank)
    if rank < count and books.far_price[row, slot] == price:
        previous = books.far_quantity[row, slot]
        if quantity == 0:
            _far_remove(books, row, rank)
        else:
            books.far_quantity[row, slot] = quantity
        return previous
    if quantity != 0:
        if count == books.far_price.shape[1]:
            return -1
        _far_insert(books, row, rank, price, quantity)
    return 0


# ── moving the window ────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def _tick_of(books: Any, row: int, index: int) -> int:
    """Name the tick that the window's `index` stands for."""
    base = books.words[row, BASE]
    return base + ((index - base) & (books.near.shape[1] - 1))


@kernel
def _leaving(books: Any, row: int, base: int, move: bool) -> int:
    """Count the window's levels outside a window at `base`; with `move`, move them to the far ones."""
    width = books.near.shape[1]
    count = 0
    for word in range(books.occupied.shape[1]):
        bits = books.occupied[row, word]
        while bits != 0:
            index = (word << 6) + lowest_bit(bits)
            bits ^= np.int64(1) << lowest_bit(bits)
            ticks = _tick_of(books, row, index)
            if base <= ticks < base + width:
                continue
            count += 1
            if move:
                price = ticks * books.tick[row >> 1]
                _far_insert(books, row, _far_rank(books, row, price), price, books.near[row, index])
                books.near[row, index] = 0
                _vacate(books, row, index)
    return count


@kernel
def _enter(books: Any, row: int) -> None:
    """Move the far levels that belong in the window into it; keep the rest in order."""
    tick = books.tick[row >> 1]
    base = books.words[row, BASE]
    width = books.near.shape[1]
    kept = 0
    for rank in range(books.words[row, FAR_COUNT]):
        slot = _far_slot(books, row, rank)
        price = books.far_price[row, slot]
        ticks = price // tick
        if ticks * tick == price and base <= ticks < base + width:
            books.near[row, ticks & (width - 1)] = books.far_quantity[row, slot]
            _occupy(books, row, ticks)
        else:
            _far_move(books, row, rank, kept)
            kept += 1
    books.words[row, FAR_COUNT] = kept


@kernel
def _recentre(books: Any, row: int, best: int) -> None:
    """Move the window so that tick `best` lies in its better half with a quarter to spare; not if far lacks room."""
    width = books.near.shape[1]
    # Whole words of the bitmap, so that one word's bits are neighbours and in order.
    unit = min(width, 64)
    base = best - (width * 3 // 4 if row & 1 == BID else width // 4)
    base &= -unit
    if best >= base + width:
        base += unit
    if base == books.words[row, BASE]:
        return
    if books.words[row, FAR_COUNT] + _leaving(books, row, base, False) > books.far_price.shape[1]:
        return
    _leaving(books, row, base, True)
    books.words[row, BASE] = base
    _enter(books, row)
    if books.words[row, NEAR_COUNT] > 0:
        edge = base + width if row & 1 == BID else base - 1
        books.words[row, BEST] = _worse_tick(books, row, edge)


@kernel
def _well_placed(books: Any, row: int, best: int) -> bool:
    """Tell whether tick `best` lies in the better half of the window."""
    offset = best - books.words[row, BASE]
    width = books.near.shape[1]
    if row & 1 == BID:
        return width // 2 <= offset < width
    return 0 <= offset <= width // 2


# ── the interface ────────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def clear(books: Any, instrument: int) -> None:
    """Delete every level of both sides."""
    for row in range(2 * instrument, 2 * instrument + 2):
        for word in range(books.occupied.shape[1]):
            bits = books.occupied[row, word]
            while bits != 0:
                books.near[row, (word << 6) + lowest_bit(bits)] = 0
                bits ^= np.int64(1) << lowest_bit(bits)
            books.occupied[row, word] = 0
        books.summary[row, :] = 0
        books.words[row, NEAR_COUNT] = 0
        books.words[row, FAR_COUNT] = 0


@kernel
def best_price(books: Any, instrument: int, side: int) -> int:
    """Tell the best price of a side, 0 if it is empty."""
    row = 2 * instrument + side
    price = 0
    if books.words[row, NEAR_COUNT] > 0:
        price = books.words[row, BEST] * books.tick[instrument]
    if books.words[row, FAR_COUNT] > 0:
        far = books.far_price[row, books.words[row, FAR_HEAD]]
        if price == 0 or _better(row, far, price):
            price = far
    return price


@kernel
def set_level(books: Any, instrument: int, side: int, price: int, quantity: int) -> int:
    """Set the quantity at a price (0 deletes, also what is not there); return the quantity before.

    -1: nothing was set, because there is no room or `price` < 1 or `quantity` < 0; the book is no longer whole.
    """
    if price < 1 or quantity < 0:
        return -1
    row = 2 * instrument + side
    tick = books.tick[instrument]
    ticks = price // tick
    width = books.near.shape[1]
    on_tick = ticks * tick == price
    if on_tick and 0 <= ticks - books.words[row, BASE] < width:
        return _set_near(books, row, ticks, quantity)
    if quantity != 0:
        best = best_price(books, instrument, side)
        best = price if best == 0 or _better(row, price, best) else best
        if not _well_placed(books, row, best // tick):
            _recentre(books, row, best // tick)
            if on_tick and 0 <= ticks - books.words[row, BASE] < width:
                return _set_near(books, row, ticks, quantity)
    return _set_far(books, row, price, quantity)


@kernel
def quantity_at(books: Any, instrument: int, side: int, price: int) -> int:
    """Tell the quantity at a price, 0 for none."""
    row = 2 * instrument + side
    tick = books.tick[instrument]
    ticks = price // tick
    if ticks * tick == price and 0 <= ticks - books.words[row, BASE] < books.near.shape[1]:
        return books.near[row, ticks & (books.near.shape[1] - 1)]
    rank = _far_rank(books, row, price)
    slot = _far_slot(books, row, rank)
    if rank < books.words[row, FAR_COUNT] and books.far_price[row, slot] == price:
        return books.far_quantity[row, slot]
    return 0


@kernel
def level_count(books: Any, instrument: int, side: int) -> int:
    """Count the levels of a side."""
    row = 2 * instrument + side
    return books.words[row, NEAR_COUNT] + books.words[row, FAR_COUNT]


@kernel
def top(books: Any, instrument: int, side: int, prices: Any, quantities: Any, count: int) -> int:
    """Write the `count` best levels, best first, and 0 beyond; return how many there are."""
    row = 2 * instrument + side
    mask = books.near.shape[1] - 1
    near_left = books.words[row, NEAR_COUNT]
    far_left = books.words[row, FAR_COUNT]
    tick = books.tick[instrument]
    ticks = books.words[row, BEST]
    filled = 0
    while filled < count and near_left + far_left > 0:
        slot = _far_slot(books, row, books.words[row, FAR_COUNT] - far_left)
        if near_left > 0 and (far_left == 0 or _better(row, ticks * tick, books.far_price[row, slot])):
            prices[filled] = ticks * tick
            quantities[filled] = books.near[row, ticks & mask]
            near_left -= 1
            if near_left > 0:
                ticks = _worse_tick(books, row, ticks)
        else:
            prices[filled] = books.far_price[row, slot]
            quantities[filled] = books.far_quantity[row, slot]
            far_left -= 1
        filled += 1
    for empty in range(filled, count):
        prices[empty] = 0
        quantities[empty] = 0
    return filled
