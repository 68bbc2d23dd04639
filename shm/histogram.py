"""The histogram: latencies from 1 ns to over 100 s at less than 1 % error, in 32 KiB.

    words  0 … 15                 16 …
    ┌───────┬─────┬─────┬─────┐  ┌───────────────┬─────────────────┬─────────────────┬────
    │ TOTAL │ SUM │ MIN │ MAX │  │ 0 … 255 exact │ 256 … 511 by 2  │ 512 … 1,023 by 4│  …   to 2³⁷ − 1
    └───────┴─────┴─────┴─────┘  └───────────────┴─────────────────┴─────────────────┴────

Log-linear, as in HdrHistogram: every octave from 256 on has 128 buckets of equal width, so a bucket is at most 1/128
(0.8 %) of its values wide. A percentile is the upper end of its bucket: at most 0.8 % above the truth and never below,
so it never flatters. Count, sum, smallest and largest are exact.

A histogram is one contiguous int64 array of SIZE words: private (`np.zeros(SIZE, np.int64)`: zeros are an empty one) or
one of several named ones in a segment, where anybody can read it while its one writer runs, hangs or is dead.

Production users: the hops of the latency view, one writer per stage.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from shrivenq.shm import segment
from shrivenq.shm.atomics import load_word, store_release
from shrivenq.shm.counters import NAME, name_array, name_list
from shrivenq.shm.kernel import COMPILED, inlined, intrinsic
from shrivenq.shm.layout import LINE_WORDS, Layout, Region
from shrivenq.shm.segment import Segment, SegmentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOTAL, SUM, MIN, MAX = 0, 1, 2, 3
FIRST = LINE_WORDS
BITS = 7  # an octave has 2^BITS buckets
TOP_BITS = 37
TOP_NS = (1 << TOP_BITS) - 1  # 137 s; longer ones are counted in the last bucket
BUCKETS = (TOP_BITS - BITS + 1) << BITS
SIZE = FIRST + BUCKETS

if COMPILED:
    from llvmlite import ir
    from numba.core import types

    @intrinsic
    def _bit_length(typingctx: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = context.cast(builder, args[0], signature.args[0], types.int64)
            zeros = builder.ctlz(word, ir.Constant(ir.IntType(1), 0))
            return builder.sub(ir.Constant(ir.IntType(64), 64), zeros)

        return types.int64(value), emit

else:

    def _bit_length(value: int) -> int:
        return int(value).bit_length()


@inlined
def bucket_of(value: int) -> int:
    """Find the bucket of a value of 0 … TOP_NS."""
    shift = _bit_length(value) - (BITS + 1)
    if shift <= 0:
        return value
    return (shift << BITS) + (value >> shift)


def upper_of(bucket: int) -> int:
    """Name the largest value a bucket counts."""
    shift = max(0, (bucket >> BITS) - 1)
    return ((bucket - (shift << BITS) + 1) << shift) - 1


@inlined
def record(histogram: Any, value: int) -> None:
    """Count one value in ns; below 0 counts as 0 and above TOP_NS as TOP_NS, but for MIN, MAX and SUM."""
    total = histogram[TOTAL]
    histogram[FIRST + bucket_of(min(max(value, 0), TOP_NS))] += 1
    histogram[SUM] += value
    if total == 0 or value < histogram[MIN]:
        histogram[MIN] = value
    if total == 0 or value > histogram[MAX]:
        histogram[MAX] = value
    # Last, and an atomic store, so that a loop of records is visible outside while it runs.
    store_release(histogram, TOTAL, total + 1)


def count(histogram: Any) -> int:
    """Read how many values were recorded."""
    return int(load_word(histogram, TOTAL))


def smallest(histogram: Any) -> int:
    """Read the smallest value recorded, exact; 0 if none."""
    return int(histogram[MIN])


def largest(histogram: Any) -> int:
    """Read the largest value recorded, exact; 0 if none."""
    return int(histogram[MAX])


def mean(histogram: Any) -> float:
    """Compute the exact mean; 0 if nothing was recorded."""
    return float(histogram[SUM]) / max(1, count(histogram))


def percentiles(histogram: Any, wanted: Sequence[float]) -> list[int]:
    """Read percentiles in ns: `wanted` in percent, such as [50, 99, 99.9].

    Percentile p is the smallest value such that p % of all values are no larger, rounded up to its bucket's end (and
    never beyond the exact largest); 100 is the exact largest. All are 0 if nothing was recorded. The writer may go on
    meanwhile: the answer is about the buckets as one copy found them.
    """
    words = histogram.copy()
    running = np.cumsum(words[FIRST:])
    total = int(running[-1])
    if total == 0:
        return [0] * len(wanted)
    ranks = [max(1, math.ceil(Fraction(str(one)) * total / 100)) for one in wanted]
    buckets = np.searchsorted(running, ranks)
    low, high = int(words[MIN]), int(words[MAX])
    return [
        high if rank >= total else max(low, min(high, upper_of(int(bucket))))
        for rank, bucket in zip(ranks, buckets, strict=True)
    ]


def merge(histograms: Iterable[Any]) -> Any:
    """Add histograms up to a new private one, as if one writer had recorded everything."""
    merged = np.zeros(SIZE, np.int64)
    for one in histograms:
        words = one.copy()
        if words[TOTAL] == 0:
            continue
        smaller = merged[TOTAL] == 0 or words[MIN] < merged[MIN]
        larger = merged[TOTAL] == 0 or words[MAX] > merged[MAX]
        low = words[MIN] if smaller else merged[MIN]
        high = words[MAX] if larger else merged[MAX]
        merged += words
        merged[MIN], merged[MAX] = low, high
    return merged


def histogram_layout(number: int) -> Layout:
    """Lay out `number` histograms of one writer. Raises SegmentError for fewer than one."""
    if number < 1:
        raise SegmentError(f"a histogram segment has at least one histogram, not {number}")
    return Layout("histogram", (Region("names", NAME, number), Region("words", np.dtype("<i8"), number * SIZE)))


def create(name: str, names: Sequence[str], *, epoch: int = 1, node: int = -1) -> Segment:
    """Create a segment of empty histograms, called `names`; see `segment.create` and `counters.name_array`."""
    checked = name_array(names)
    made = segment.create(name, histogram_layout(len(checked)), epoch=epoch, node=node)
    made.array("names", writable=True)[:] = checked
    return made


def histograms(held: Segment, *, writable: bool = False) -> dict[str, Any]:
    """Map a segment's histograms by name; `writable` for their one writer."""
    words = held.array("words", writable=writable)
    return {name: words[at * SIZE : (at + 1) * SIZE] for at, name in enumerate(name_list(held))}
