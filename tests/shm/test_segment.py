"""Segments: exclusive, private, really allocated, and refused unless exactly what is expected."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import posix_ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrivenq.shm import layout, numa, ring, segment
from shrivenq.shm.layout import HEADER, HEADER_SIZE, Layout, Region
from shrivenq.shm.segment import SegmentError

MESSAGE = np.dtype([("price", "<i8"), ("quantity", "<i8")], align=True)
SHAPE = Layout("test", (Region("cursors", np.dtype("<i8"), 16), Region("slots", MESSAGE, 1000)))
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")


def path_of(name):
    return segment.FOLDER / name


def edit(name, **fields):
    """Overwrite header fields of a segment in place."""
    with path_of(name).open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), HEADER_SIZE)
        header = np.frombuffer(mapped, dtype=HEADER, count=1)
        for field, value in fields.items():
            header[field] = value


def as_user(uid, call):
    """Run `call` in a child as another user; what it returned, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(writing, str(call()).encode())
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - a child never returns into pytest
            os.write(writing, repr(error).encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    assert os.waitpid(pid, 0)[1] == 0, answer
    return answer


# ── create ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_created_segment_is_exclusive_private_and_allocated(name):
    made = segment.create(name, SHAPE)
    status = path_of(name).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == SHAPE.size
    assert status.st_blocks * 512 >= SHAPE.size
    with pytest.raises(SegmentError, match=f"{name}: a segment of this name exists already"):
        segment.create(name, SHAPE)
    made.close()


def test_mode_is_private_whatever_the_umask(name):
    before = os.umask(0)
    try:
        segment.create(name, SHAPE).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path_of(name).stat().st_mode) == 0o600


def test_header_says_what_it_is(name):
    made = segment.create(name, SHAPE, epoch=3)
    header = made.header[0]
    assert header["magic"] == b"SHRIVENQ"
    assert header["name"].decode() == name
    assert header["kind"] == b"test"
    assert header["creator_pid"] == os.getpid()
    assert header["creator_start"] == segment.start_time(os.getpid())
    assert (made.epoch, header["node"], header["region_count"]) == (3, -1, 2)
    assert bytes(header["words"]) == SHAPE.describe()
    made.close()


def test_description_that_does_not_fit_is_refused(name):
    wide = np.dtype([(f"field_{number:04}", "<i8") for number in range(800)])
    with pytest.raises(SegmentError, match="does not fit the header"):
        segment.create(name, Layout("test", (Region("wide", wide, 1),)))
    assert not path_of(name).exists()


@pytest.mark.parametrize("bad", ["no/slash", "x" * 300])
def test_impossible_names_are_refused_in_one_line(bad):
    with pytest.raises(SegmentError) as caught:
        segment.create(bad, SHAPE)
    assert "\n" not in str(caught.value)


def test_full_dev_shm_is_an_error_and_leaves_nothing():
    """In a mount namespace of its own, /dev/shm is a tmpfs of 64 KiB."""
    program = textwrap.dedent("""
        import numpy as np, os
        from shrivenq.shm import segment
        from shrivenq.shm.layout import Layout, Region
        small = Layout("test", (Region("slots", np.dtype("<i8"), 512),))
        segment.create("shrivenq.test.full.small", small).close()
        try:
            segment.create("shrivenq.test.full.big", Layout("test", (Region("slots", np.dtype("<i8"), 1 << 20),)))
        except segment.SegmentError as error:
            print(error)
        print(segment.names("test.full"))
    """)
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not permitted here")
    command = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable, program], capture_output=True, text=True, check=False
    )
    if "permission denied" in done.stderr:
        pytest.skip("mounting a tmpfs is not permitted here")
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0] == "shrivenq.test.full.big: no room for 8,404,992 bytes in /dev/shm: No space left on device"
    assert lines[1] == "['shrivenq.test.full.small']"


# ── attach ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attached_segment_shares_memory(name):
    made = segment.create(name, SHAPE)
    found = segment.attach(name, SHAPE)
    made.array("slots", writable=True)[999]["price"] = 42
    slots = found.array("slots")
    assert slots[999]["price"] == 42
    assert slots.shape == (1000,)
    assert slots.dtype == MESSAGE
    assert not slots.flags.writeable
    assert (found.epoch, found.layout.describe()) == (1, SHAPE.describe())
    made.close()
    found.close()


def test_any_layout_can_be_inspected(name):
    segment.create(name, SHAPE).close()
    found = segment.attach(name)
    assert [(one.name, one.count, one.dtype) for one in found.layout.regions] == [
        ("cursors", 16, np.dtype("<i8")),
        ("slots", 1000, MESSAGE),
    ]
    found.close()


def refusal(name, shape=SHAPE):
    with pytest.raises(SegmentError) as caught:
        segment.attach(name, shape)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    return message


def test_missing_segment(name):
    assert refusal(name) == f"{name}: no such segment"


def test_wrong_magic(name):
    segment.create(name, SHAPE).close()
    edit(name, magic=b"RANDOM")
    assert "magic b'RANDOM', expected b'SHRIVENQ'" in refusal(name)


def test_segment_still_being_made(name):
    memory = posix_ipc.SharedMemory("/" + name, flags=posix_ipc.O_CREX, mode=0o600, size=SHAPE.size)
    memory.close_fd()
    assert "magic b'', expected b'SHRIVENQ': foreign or unfinished" in refusal(name)


def test_wrong_version(name):
    segment.create(name, SHAPE).close()
    edit(name, version=99)
    assert f"layout version 99, expected {layout.VERSION}" in refusal(name)


@pytest.mark.parametrize("size", [0, 100, HEADER_SIZE, SHAPE.size - 1, SHAPE.size + 4096])
def test_truncated_or_grown(name, size):
    segment.create(name, SHAPE).close()
    os.truncate(path_of(name), size)
    message = refusal(name)
    assert f"{size} bytes" in message
    assert str(HEADER_SIZE if size < HEADER_SIZE else SHAPE.size) in message


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(SHAPE, kind="ring"), "kind test, expected ring"),
        (Layout("test", (SHAPE.regions[0], Region("slots", MESSAGE, 2000))), "slots[1000], expected slots[2000]"),
        (Layout("test", (SHAPE.regions[0], Region("slots", np.dtype("<i8"), 1000))), "'price'"),
        (Layout("test", SHAPE.regions[:1]), "2 regions, expected 1"),
    ],
)
def test_other_layout_names_the_difference(name, other, difference):
    segment.create(name, SHAPE).close()
    message = refusal(name, other)
    assert difference in message
    assert f"{SHAPE.digest():#018x}" in message
    assert f"{other.digest():#018x}" in message


def test_layout_hash_that_is_not_the_descriptions(name):
    segment.create(name, SHAPE).close()
    edit(name, layout_hash=12345)
    message = refusal(name)
    assert f"{12345:#018x}" in message
    assert f"{SHAPE.digest():#018x}" in message


@given(place=st.integers(0, len(SHAPE.describe()) - 1), value=st.integers(1, 255))
def test_any_damage_to_the_description_is_refused(place, value):
    name = f"shrivenq.test.damage.{os.getpid()}"
    segment.unlink(name)
    segment.create(name, SHAPE).close()
    try:
        damaged = bytearray(SHAPE.describe())
        damaged[place] ^= value
        edit(name, words=bytes(damaged))
        assert f"header says layout {SHAPE.digest():#018x}, its description is" in refusal(name)
    finally:
        segment.unlink(name)


@needs_root
def test_foreign_owner_is_refused_from_both_sides(name):
    segment.create(name, SHAPE).close()
    os.chown(path_of(name), NOBODY, NOBODY)
    assert refusal(name) == f"{name}: belongs to uid {NOBODY}, expected 0"
    os.chown(path_of(name), 0, 0)

    def unprivileged():
        try:
            segment.attach(name, SHAPE)
        except SegmentError as error:
            return error
        return "attached"

    assert as_user(NOBODY, unprivileged) == f"{name}: belongs to uid 0, expected {NOBODY}"


# ── who made it ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_start_time_is_the_kernels():
    seconds = segment.start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime") as uptime:  # noqa: PTH123 - procfs
        assert 0 < seconds < float(uptime.read().split()[0])


def test_start_time_reads_past_a_hostile_process_name(children):
    def renamed():
        ctypes.CDLL(None).prctl(15, b") Z (1 2 3", 0, 0, 0)
        assert segment.start_time(os.getpid()) > 0

    assert children.wait(children.start(renamed)) == 0


def test_start_time_of_the_dead_is_nothing(children):
    pid = children.start(lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert segment.start_time(pid) == 0, "a zombie counts as dead"
    children.wait(pid)
    assert segment.start_time(pid) == 0


def test_creator_is_known_dead(name, children):
    child = children.start(lambda: segment.create(name, SHAPE))
    assert children.wait(child) == 0
    found = segment.attach(name, SHAPE)
    assert not found.creator_alive()
    found.close()


def test_reused_pid_is_not_the_creator(name):
    made = segment.create(name, SHAPE)
    assert made.creator_alive()
    edit(name, creator_start=int(made.header["creator_start"][0]) - 1)
    assert not made.creator_alive()
    made.close()


# ── lock, unlink ─────────────────────────────────────────────────────────────────────────────────────────────────────


def faults():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def test_locked_regions_fault_no_more(name):
    shape = ring.ring_layout(np.dtype("<i8"), 1 << 17)
    made = segment.create(name, shape)
    slots, words = made.array("slots", writable=True), made.array("slots")
    made.lock()
    assert numa.pages_by_node(slots).get(-1, 0) == 0
    before = faults()
    slots[::512] = 1
    assert int(words[::512].sum()) == 256
    assert faults() - before < 50, "256 pages were written and read: they had not been brought in"
    made.close()


@needs_root
def test_what_cannot_be_locked_is_said_and_brought_in_all_the_same(name):
    def unprivileged():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        own = name + ".own"
        made = segment.create(own, ring.ring_layout(np.dtype("<i8"), 1 << 17))
        try:
            slots = made.array("slots", writable=True)
            made.lock()
            before = faults()
            slots[::512] = 1
            assert faults() - before < 50
            return made.shortfalls
        finally:
            made.unlink()

    answer = as_user(NOBODY, unprivileged)
    assert (
        answer == f"['{name}.own: slots is not locked in memory: Cannot allocate memory']" or "not permitted" in answer
    )


def test_unlinking_twice_is_no_error(name):
    made = segment.create(name, SHAPE)
    slots = made.array("slots", writable=True)
    made.unlink()
    made.unlink()
    segment.unlink(name)
    slots[0]["price"] = 7  # the memory stays while it is mapped
    made.close()
    made.close()
    assert slots[0]["price"] == 7
    assert segment.names(name.removeprefix(segment.PREFIX)) == []


def test_names_are_listed_by_prefix(prefix):
    for last in ("b", "a"):
        segment.create(f"{segment.PREFIX}{prefix}{last}", SHAPE).close()
    assert segment.names(prefix) == [f"{segment.PREFIX}{prefix}{last}" for last in ("a", "b")]
