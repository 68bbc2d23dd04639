"""Histogram: percentiles within 1 % of the sorted list's, and never below."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from shrivenq.shm import histogram, segment
from shrivenq.shm.kernel import kernel
from shrivenq.shm.segment import SegmentError

WANTED = [0.001, 1, 50, 90, 99, 99.9, 99.999, 100]
NANOSECONDS = some.integers(1, 100_000_000_000) | some.integers(1, 1000) | some.integers(1, 1_000_000)


@kernel
def record(held, value):
    histogram.record(held, value)


@kernel
def record_all(held, values):
    for i in range(values.shape[0]):
        histogram.record(held, values[i])


@kernel
def bucket_of(value):
    return histogram.bucket_of(value)


def empty():
    return np.zeros(histogram.SIZE, np.int64)


def filled(values):
    held = empty()
    record_all(held, np.array(values, np.int64))
    return held


def reference(values, percent):
    """Find a percentile in a sorted list."""
    ordered = sorted(values)
    # One part in 10⁵ is the finest asked for: exact in integers.
    rank = -(-len(ordered) * round(percent * 1000) // 100_000)
    return ordered[max(1, rank) - 1]


@given(values=some.lists(NANOSECONDS, min_size=1))
def test_percentiles_are_within_one_percent_and_never_below(values):
    held = filled(values)
    for percent, found in zip(WANTED, histogram.percentiles(held, WANTED), strict=True):
        exact = reference(values, percent)
        assert exact <= found <= exact * 1.01, (percent, found, exact)
    assert histogram.count(held) == len(values)
    assert histogram.smallest(held) == min(values)
    assert histogram.largest(held) == max(values) == histogram.percentiles(held, [100])[0]
    assert math.isclose(histogram.mean(held), sum(values) / len(values))


@given(parts=some.lists(some.lists(NANOSECONDS)))
def test_merging_is_recording_everything_in_one(parts):
    merged = histogram.merge(filled(part) for part in parts)
    assert (merged == filled([value for part in parts for value in part])).all()


@given(value=some.integers(0, histogram.TOP_NS))
def test_a_bucket_holds_its_values_and_is_narrow(value):
    bucket = bucket_of(value)
    upper = histogram.upper_of(bucket)
    assert 0 <= bucket < histogram.BUCKETS
    assert value <= upper <= value * 1.01
    assert bucket_of(upper) == bucket
    if upper < histogram.TOP_NS:
        assert bucket_of(upper + 1) == bucket + 1


def test_an_empty_histogram_answers_with_zeros():
    held = empty()
    assert histogram.percentiles(held, [50, 100]) == [0, 0]
    assert (histogram.count(held), histogram.smallest(held), histogram.largest(held)) == (0, 0, 0)
    assert histogram.mean(held) == 0


def test_values_out_of_range_are_counted_at_the_ends_and_stay_exact_in_the_words():
    held = filled([-5, 10, 1 << 50])
    assert histogram.count(held) == 3
    assert (histogram.smallest(held), histogram.largest(held)) == (-5, 1 << 50)
    assert histogram.percentiles(held, [1, 50, 100]) == [0, 10, 1 << 50]


def test_range_and_size():
    assert histogram.TOP_NS > 100_000_000_000
    assert bucket_of(histogram.TOP_NS) == histogram.BUCKETS - 1
    assert histogram.SIZE * 8 <= 32 * 1024


def test_named_histograms_outlive_their_writer(name, children):
    made = histogram.create(name, ["book", "risk"])
    record(empty(), 1)

    def write():
        held = histogram.histograms(made, writable=True)
        record(held["risk"], 1500)

    assert children.wait(children.start(write)) == 0
    found = histogram.histograms(segment.attach(name))
    assert list(found) == ["book", "risk"]
    assert histogram.count(found["book"]) == 0
    assert histogram.percentiles(found["risk"], [50]) == [1500]
    assert not found["risk"].flags.writeable


def test_a_segment_has_histograms():
    with pytest.raises(SegmentError, match="at least one histogram, not 0"):
        histogram.histogram_layout(0)
