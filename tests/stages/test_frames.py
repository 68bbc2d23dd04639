"""Frames: what every source fills and every decoder reads."""

from __future__ import annotations

import numpy as np

from shrivenq.stages import frames as f


def test_a_fresh_buffer_is_empty_and_as_large_as_asked():
    made = f.make_frames(1000, 7)
    assert (made.data.dtype, made.data.shape) == (np.uint8, (1000,))
    assert (made.index.dtype, made.index.shape) == (f.FRAME, (7,))
    assert made.words.tolist() == [0] * 16
    assert not made.data.any()


def test_words_and_flags_do_not_collide():
    assert len({f.COUNT, f.TAKEN, f.USED, f.ENDED}) == 4
    assert f.TEXT | f.LOST | f.BINARY == f.TEXT + f.LOST + f.BINARY


def test_an_index_row_is_aligned_and_less_than_a_cache_line():
    assert f.FRAME.isalignedstruct
    assert f.FRAME.itemsize == 48
