"""A deadline: what blocks is interrupted, what is in time is left alone."""

from __future__ import annotations

import signal
import socket

import pytest

from shrivenq.pipeline.deadline import deadline


def test_what_blocks_for_good_ends_in_an_error():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(TimeoutError, match=r"^no answer in 0.05 s$"), deadline(0.05):
            ours.recv(1)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("error", [None, ValueError])
def test_what_is_over_in_time_leaves_nothing_behind(error):
    before = signal.getsignal(signal.SIGALRM)
    try:
        with deadline(60):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
            if error:
                raise error
    except ValueError:
        assert error
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before
