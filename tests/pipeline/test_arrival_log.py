"""The log of arrivals: read back as it was noted, cut short up to its last whole frame, refused in one line."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
import zstandard

from shrivenq.pipeline import arrival_log
from shrivenq.pipeline import config as configuration
from shrivenq.shm import ring
from shrivenq.stages import arrivals
from tests.stages.test_arrivals import ends, made_up


def header(**changes):
    made = arrival_log.header_of(configuration.load("default"), run="r1", epoch=3, continues=False)
    return msgspec.structs.replace(made, **changes)


def logged(path, seed, flushes=6):
    """Write a log from rings as the recorder does; what was noted, by stage, after each flush."""
    rng = random.Random(seed)
    both = {name: ends(64) for name in arrivals.STAGES}
    writers = {name: arrivals.to(producer) for name, (producer, _) in both.items()}
    log = arrival_log.ArrivalLog(path, header(), {name: consumer for name, (_, consumer) in both.items()})
    noted, after = {name: [] for name in both}, []
    for _ in range(flushes):
        for _ in range(rng.randrange(5)):
            for _ in range(rng.randrange(60)):
                name = rng.choice(arrivals.STAGES)
                if len(both[name][0].slots) > both[name][0].own[ring.HEAD] - both[name][1].own[ring.TAIL]:
                    row = made_up(rng)
                    arrivals.note(writers[name], *row)
                    noted[name].append(row)
            log.drain()
        log.flush()
        after.append((path.stat().st_size, {name: len(rows) for name, rows in noted.items()}))
    log.close()
    return noted, after


def spelled(rows):
    names = ("kind", "time_ns", "number", "first", "second", "third", "level", "held", "room_first", "room_second")
    return [tuple(int(row[name]) for name in names) for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_a_log_is_read_back_as_it_was_noted(tmp_path, seed):
    path = arrival_log.path_of(tmp_path, "default", 7)
    noted, _ = logged(path, seed)
    assert path.name == "default-0007.zst"
    found, rows = arrival_log.read(path)
    assert found == header()
    assert {name: spelled(one) for name, one in rows.items()} == noted, seed


def test_a_log_that_was_cut_short_is_read_up_to_its_last_whole_frame(tmp_path):
    path = tmp_path / "log.zst"
    noted, after = logged(path, 1)
    raw = path.read_bytes()
    for size in range(after[0][0], len(raw), 7):
        path.write_bytes(raw[:size])
        counts = [counted for flushed, counted in after if flushed <= size][-1]
        _, rows = arrival_log.read(path)
        assert {name: spelled(one) for name, one in rows.items()} == {n: noted[n][: counts[n]] for n in noted}, size


@pytest.mark.parametrize("content", [b"", b"no zstd at all", zstandard.compress(b"{}"), zstandard.compress(b"\xff")])
def test_what_is_no_log_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "log.zst"
    path.write_bytes(content)
    with pytest.raises(arrival_log.LogError, match=r"log\.zst: no log of arrivals") as error:
        arrival_log.read(path)
    assert "\n" not in str(error.value)


def test_a_log_that_is_not_there_is_told(tmp_path):
    with pytest.raises(arrival_log.LogError, match=r"none: cannot be read: No such file"):
        arrival_log.read(tmp_path / "none")


def test_a_log_holds_the_tables_of_its_run():
    found = header().tables()
    for mine, its in zip(configuration.load("default").tables(), found, strict=True):
        assert np.array_equal(mine, its)
    assert found.instruments.flags.writeable
    with pytest.raises(arrival_log.LogError, match="its instruments are not those of this version"):
        msgspec.structs.replace(header(), currencies=b"four").tables()
    # Three rows of 128 bytes are as long as two of now.
    shorter = b"".join(row.tobytes()[:128] for row in found.instruments[[0, 1, 0]])
    with pytest.raises(arrival_log.LogError, match="its instruments are not those of this version"):
        msgspec.structs.replace(header(), instruments=shorter).tables()
