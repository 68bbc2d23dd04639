"""Layout: dtypes survive the trip through words, regions begin on pages."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrivenq.shm import layout
from shrivenq.shm.layout import HEADER_SIZE, PAGE, Layout, Region
from shrivenq.stages import messages

SCALARS = ["<i8", "<i4", "<i2", "|i1", "<u8", "|u1", "<f8", "<f4", "|b1", "|S5", "|S24"]


@st.composite
def dtypes(draw, depth=2):
    """Structured dtypes: padding, nested records, arrays of arrays."""
    kinds = st.sampled_from(SCALARS)
    if depth:
        kinds = st.one_of(kinds, dtypes(depth=depth - 1))
    fields = []
    for number in range(draw(st.integers(1, 5))):
        shape = draw(st.sampled_from([(), (3,), (2, 4)]))
        fields.append((f"f{number}", draw(kinds), shape))
    return np.dtype(fields, align=draw(st.booleans()))


@given(dtype=dtypes())
def test_dtype_survives_words(dtype):
    back = layout.dtype_of(json.loads(json.dumps(layout.words(dtype))))
    assert back.itemsize == dtype.itemsize
    assert layout.words(back) == layout.words(dtype)
    assert all(back.fields[name][1] == dtype.fields[name][1] for name in dtype.names)


@pytest.mark.parametrize("text", [*SCALARS, "(3,)<i8", "(2,4)<i4"])
def test_plain_and_array_dtypes_survive(text):
    assert layout.dtype_of(json.loads(json.dumps(layout.words(np.dtype(text))))) == np.dtype(text)


def test_array_of_records_survives():
    level = np.dtype([("price", "<i8"), ("quantity", "<i8")])
    book = np.dtype([("bids", level, (10,)), ("asks", level, (10,))], align=True)
    assert layout.dtype_of(layout.words(book)) == book


def test_overlapping_fields_survive():
    dtype = np.dtype(
        {"names": ["price", "update_id"], "formats": ["<i8", "<i8"], "offsets": [8, 8], "itemsize": 64, "aligned": True}
    )
    assert layout.dtype_of(layout.words(dtype)) == dtype


def test_every_message_survives():
    dtypes = {name: one for name, one in vars(messages).items() if isinstance(one, np.dtype)}
    assert dtypes
    for name, dtype in dtypes.items():
        assert layout.dtype_of(layout.words(dtype)) == dtype, name


@given(counts=st.lists(st.tuples(dtypes(depth=0), st.integers(1, 2000)), min_size=1, max_size=5))
def test_regions_begin_on_pages_and_do_not_overlap(counts):
    shape = Layout("test", tuple(Region(f"r{n}", dtype, count) for n, (dtype, count) in enumerate(counts)))
    end = HEADER_SIZE
    for region in shape.regions:
        assert shape.offset(region.name) == end
        assert end % PAGE == 0
        assert 0 <= region.size - region.count * region.dtype.itemsize < PAGE
        end += region.size
    assert shape.size == end


@given(dtype=dtypes(), count=st.integers(1, 100))
def test_description_survives(dtype, count):
    shape = Layout("ring", (Region("slots", dtype, count),))
    back = layout.layout_of(shape.describe())
    assert back.describe() == shape.describe()
    assert (back.digest(), back.size, back.kind) == (shape.digest(), shape.size, "ring")


def test_digest_tells_layouts_apart():
    def digest(kind="ring", name="slots", dtype="<i8", count=8):
        return Layout(kind, (Region(name, np.dtype(dtype), count),)).digest()

    variants = [digest(), digest(kind="pool"), digest(name="slot"), digest(dtype="<u8"), digest(count=16)]
    assert len(set(variants)) == len(variants)
    assert digest() == digest()
    assert 0 <= digest() < 1 << 64


def test_unknown_region():
    shape = Layout("ring", (Region("slots", np.dtype("<i8"), 8),))
    with pytest.raises(KeyError, match="tail"):
        shape.offset("tail")
    with pytest.raises(KeyError, match="tail"):
        shape.region("tail")


def test_header_fits_and_is_aligned():
    assert layout.HEADER.itemsize <= HEADER_SIZE
    for name, (dtype, offset) in layout.HEADER.fields.items():
        if dtype.itemsize == 8:
            assert offset % 8 == 0, name
