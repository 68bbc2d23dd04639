"""NUMA: fake trees of two and four nodes, and the real system calls on node 0."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from shrivenq.shm import numa, ring, segment

MIB = 1 << 20


def tree(root, nodes):
    """Write a sysfs tree; `nodes` maps number → (cpulist, free MiB, distances, reclaimable MiB)."""
    root.mkdir()
    (root / "online").write_text(",".join(str(one) for one in nodes) + "\n")
    for number, (cpus, free, distances, reclaimable) in nodes.items():
        folder = root / f"node{number}"
        folder.mkdir()
        (folder / "cpulist").write_text(f"{cpus}\n")
        (folder / "distance").write_text(" ".join(map(str, distances)) + "\n")
        (folder / "meminfo").write_text(
            f"Node {number} MemTotal:       {8192 * 1024} kB\n"
            f"Node {number} MemFree:        {free * 1024} kB\n"
            f"Node {number} Inactive(file): {reclaimable * 1024} kB\n"
            f"Node {number} HugePages_Total:     3\n"
        )
        (folder / "numastat").write_text(f"numa_hit {100 + number}\nnuma_miss {number}\nother_node 7\n")
    return root


@pytest.fixture
def two(tmp_path):
    return tree(tmp_path / "two", {0: ("0-1", 100, (10, 21), 0), 1: ("2-3", 500, (21, 10), 50)})


@pytest.fixture
def four(tmp_path):
    # A ring of nodes: 0-1-2-3-0; node 3 has no CPUs (memory on an expander), numbers have a hole.
    return tree(
        tmp_path / "four",
        {
            0: ("0,4-5", 10, (10, 20, 30, 20), 0),
            1: ("1,6", 20, (20, 10, 20, 30), 0),
            2: ("2", 1000, (30, 20, 10, 20), 0),
            5: ("", 300, (20, 30, 20, 10), 0),
        },
    )


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0\n", (0,)), ("0-3\n", (0, 1, 2, 3)), ("0-1,8,10-11", (0, 1, 8, 10, 11)), ("", ()), ("\n", ())],
)
def test_cpu_list(text, cpus):
    assert numa.cpu_list(text) == cpus


def test_two_nodes(two):
    found = numa.topology(two)
    assert [one.cpus for one in found.nodes] == [(0, 1), (2, 3)]
    assert found.node(1).free_bytes == 500 * MIB
    assert found.node(1).room_bytes == 550 * MIB
    assert found.node(0).total_bytes == 8192 * MIB
    assert found.fallback(0) == (0, 1)
    assert found.fallback(1) == (1, 0)
    assert [found.node_of(cpu) for cpu in range(4)] == [0, 0, 1, 1]
    assert found.node_of(77) == 0


def test_statistics_per_node(two):
    assert dict(numa.topology(two).node(1).counters) == {"numa_hit": 101, "numa_miss": 1, "other_node": 7}


def test_four_nodes_fall_back_by_distance(four):
    found = numa.topology(four)
    assert found.fallback(0) == (0, 1, 5, 2)
    assert found.fallback(1) == (1, 0, 2, 5)
    assert found.fallback(5) == (5, 0, 2, 1)
    assert found.node(5).cpus == ()


@pytest.mark.parametrize(
    ("node", "size", "chosen"),
    [(0, 10, 0), (0, 11, 1), (0, 21, 5), (0, 301, 2), (0, 1001, None), (2, 1000, 2), (1, 21, 2), (5, 301, 2)],
)
def test_nearest_node_with_room(four, node, size, chosen):
    assert numa.topology(four).nearest_with_room(node, size * MIB) == chosen


def test_unknown_node_names_those_there_are(four):
    with pytest.raises(KeyError, match=r"no NUMA node 3; there are \[0, 1, 2, 5\]"):
        numa.topology(four).node(3)


def test_kernel_without_numa_is_one_node(tmp_path):
    found = numa.topology(tmp_path / "nothing")
    assert [one.number for one in found.nodes] == [0]
    assert set(found.nodes[0].cpus) == os.sched_getaffinity(0)
    assert found.fallback(0) == (0,)
    assert found.nearest_with_room(0, 4096) == 0


def test_current_node_is_asked_once_a_thread(two, monkeypatch):
    asked = []

    class Libc:
        @staticmethod
        def sched_getcpu():
            asked.append(threading.get_ident())
            return 3

    monkeypatch.setattr(numa, "_libc", Libc)
    numa.forget_node()
    try:
        assert [numa.current_node(two) for _ in range(5)] == [1] * 5
        assert len(asked) == 1
        other = threading.Thread(target=numa.current_node, args=(two,))
        other.start()
        other.join()
        assert len(asked) == 2
        numa.forget_node()
        assert numa.current_node(two) == 1
        assert len(asked) == 3
    finally:
        numa.forget_node()


def test_real_topology_agrees_with_where_this_thread_runs():
    found = numa.topology()
    numa.forget_node()
    assert numa.current_node() in {one.number for one in found.nodes}
    assert all(one.distances[0][0] == one.number for one in found.nodes)


def mapped(pages):
    import mmap

    return np.frombuffer(mmap.mmap(-1, pages * numa.PAGE), dtype=np.uint8)


def test_real_bind_puts_pages_on_the_node():
    array = mapped(16)
    first = numa.topology().nodes[0].number
    problem = numa.bind(array, first)
    if problem and "not permitted" in problem:
        pytest.skip(f"mbind: {problem}")
    assert problem is None
    array[:] = 1
    assert numa.pages_by_node(array) == {first: 16}


def test_real_bind_moves_pages_that_exist():
    array = mapped(4)
    array[:] = 1
    first = numa.topology().nodes[0].number
    problem = numa.bind(array, first)
    if problem and "not permitted" in problem:
        pytest.skip(f"mbind: {problem}")
    assert problem is None
    assert numa.pages_by_node(array) == {first: 4}


def test_bind_says_what_is_wrong():
    array = mapped(2)
    assert numa.bind(array, 1023) == "Invalid argument"
    assert numa.bind(array, -1) == "there is no node -1"
    assert "is not at a page" in numa.bind(array[8:], 0)


def test_segment_is_bound_before_it_has_pages(name):
    made = ring.create(name, np.dtype("<i8"), 4096, node=numa.topology().nodes[0].number)
    assert made.shortfalls == [] or "not permitted" in made.shortfalls[0]
    slots = made.array("slots", writable=True)
    slots[:] = 1
    assert sum(numa.pages_by_node(slots).values()) == 8
    made.close()


def test_segment_on_a_node_that_is_not_there_is_made_and_says_so(name):
    made = ring.create(name, np.dtype("<i8"), 8, node=900)
    assert len(made.shortfalls) == 1
    assert "no NUMA node 900" in made.shortfalls[0]
    made.close()


def test_segment_falls_back_to_the_next_node(name, four, monkeypatch):
    bound = []
    whole = numa.topology(four)
    monkeypatch.setattr(numa, "topology", lambda: whole)
    monkeypatch.setattr(numa, "bind", lambda array, node: bound.append((array.nbytes, node)))
    shape = ring.ring_layout(np.dtype("<i8"), 1 << 21)  # 16 MiB: more than node 0 has
    made = segment.create(name, shape, node=0)
    assert bound == [(shape.size, 1)]
    assert made.shortfalls == [f"{name}: node 0 has no room, placed on node 1"]
    made.close()
