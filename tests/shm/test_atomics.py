"""Atomic words: what they do, that processes agree, and what machine code they become."""

from __future__ import annotations

import mmap
import platform

import numpy as np
import pytest

from shrivenq.shm import atomics
from shrivenq.shm.atomics import (
    and_word,
    compare_exchange,
    exchange,
    exchange_word,
    fence,
    fence_acquire,
    fence_release,
    fetch_add,
    fetch_and,
    fetch_or,
    load_acquire,
    load_address,
    load_word,
    or_word,
    pause,
    store_release,
    store_word,
)
from shrivenq.shm.kernel import COMPILED, kernel
from shrivenq.shm.wait import YIELD, idle
from tests.shm.machine_code import fresh, instructions

compiled_only = pytest.mark.skipif(not COMPILED, reason="about machine code")

WORDS = [np.int64, np.int32]


@kernel
def call_fetch_add(words, index, value):
    return fetch_add(words, index, value)


@kernel
def call_fetch_or(words, index, value):
    return fetch_or(words, index, value)


@kernel
def call_fetch_and(words, index, value):
    return fetch_and(words, index, value)


@kernel
def call_exchange(words, index, value):
    return exchange(words, index, value)


@kernel
def call_load_address(address):
    return load_address(address)


@kernel
def call_fences():
    fence_acquire()
    fence_release()
    fence()
    pause()


@kernel
def call_pause():
    pause()


@kernel
def call_fence():
    fence()


@pytest.mark.parametrize("word", WORDS)
def test_semantics(word):
    words = np.array([7, 8, 9, -1], dtype=word)
    assert load_word(words, 1) == 8
    store_word(words, 1, -5)
    assert words.tolist() == [7, -5, 9, -1]
    assert call_fetch_add(words, 0, 3) == 7
    assert call_fetch_add(words, 0, -11) == 10
    assert words[0] == -1
    assert exchange_word(words, 2, 9, 99) == 9
    assert words[2] == 99
    assert exchange_word(words, 2, 9, 100) == 99
    assert words[2] == 99
    words[3] = 0b0101
    assert call_fetch_or(words, 3, 0b0010) == 0b0101
    assert call_fetch_and(words, 3, 0b0110) == 0b0111
    assert words[3] == 0b0110
    assert or_word(words, 3, 1) == 0b0110
    assert and_word(words, 3, 1) == 0b0111
    assert call_exchange(words, 3, 42) == 1
    assert words.tolist() == [-1, -5, 99, 42]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.skipif(not COMPILED, reason="plain Python integers do not wrap")
def test_addition_wraps_at_the_words_width(word):
    info = np.iinfo(word)
    words = np.array([info.max], dtype=word)
    assert call_fetch_add(words, 0, 1) == info.max
    assert words[0] == info.min


def test_address():
    words = np.array([1, 2, 3], dtype=np.int64)
    assert call_load_address(words.ctypes.data + 16) == 3


def test_fences_and_pause_do_nothing_visible():
    assert call_fences() is None


@compiled_only
@pytest.mark.parametrize(
    "array",
    [
        np.zeros(4, dtype=np.float64),
        np.zeros(4, dtype=np.int16),
        np.zeros(4, dtype=np.uint64),
        np.zeros((2, 2), dtype=np.int64),
        np.zeros(8, dtype=np.int64)[::2],
        np.zeros(4, dtype=[("a", "<i8")]),
    ],
    ids=["float", "int16", "unsigned", "two dimensions", "strided", "record"],
)
def test_anything_but_contiguous_words_is_refused(array):
    from numba.core.errors import TypingError

    with pytest.raises(TypingError, match="atomic words are contiguous int64 or int32 arrays"):
        load_word(array, 0)
    with pytest.raises(TypingError, match="atomic words are contiguous int64 or int32 arrays"):
        store_word(array, 0, 1)


@compiled_only
@pytest.mark.parametrize("store", [store_word, or_word, and_word, call_fetch_add, call_exchange])
def test_writing_to_a_read_only_array_does_not_compile(store):
    from numba.core.errors import TypingError

    words = np.zeros(4, dtype=np.int64)
    words.flags.writeable = False
    assert load_word(words, 0) == 0
    with pytest.raises(TypingError, match="read-only"):
        store(words, 0, 1)
    with pytest.raises(TypingError, match="read-only"):
        exchange_word(words, 0, 0, 1)


# ── between processes ────────────────────────────────────────────────────────────────────────────────────────────────


@kernel
def add_often(words, count):
    for _ in range(count):
        fetch_add(words, 0, 1)


@kernel
def add_by_compare_exchange(words, count):
    for _ in range(count):
        while True:
            found = load_acquire(words, 0)
            if compare_exchange(words, 0, found, found + 1) == found:
                break


@kernel
def set_bits(words, first, count):
    for bit in range(first, first + count):
        fetch_or(words, 0, 1 << bit)


@kernel
def take_turns(words, mine, count):
    """Add one when the word says it is our turn: a release in one process is an acquire in the other."""
    bad = 0
    for turn in range(count):
        while load_acquire(words, 0) != 2 * turn + mine:
            idle(YIELD)
        bad += words[16] != 2 * turn + mine
        words[16] = 2 * turn + mine + 1
        store_release(words, 0, 2 * turn + mine + 1)
    return bad


def shared(word=np.int64):
    return np.frombuffer(mmap.mmap(-1, 4096), dtype=word)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("add", [add_often, add_by_compare_exchange])
@compiled_only
def test_processes_lose_no_addition(children, word, add):
    words = shared(word)
    add(words, 0)
    count = 300_000
    running = [children.start(add, words, count) for _ in range(2)]
    add(words, count)
    assert [children.wait(one) for one in running] == [0, 0]
    assert words[0] == 3 * count


@compiled_only
def test_processes_lose_no_bit(children):
    words = shared()
    set_bits(words, 0, 0)
    running = [children.start(set_bits, words, first, 20) for first in (0, 20, 40)]
    assert [children.wait(one) for one in running] == [0, 0, 0]
    assert words[0] == (1 << 60) - 1


@compiled_only
def test_what_was_written_before_a_release_is_seen_after_its_acquire(children):
    words = shared()
    take_turns(words, 0, 0)

    def second():
        assert take_turns(words, 1, 2000) == 0

    child = children.start(second)
    assert take_turns(words, 0, 2000) == 0
    assert children.wait(child) == 0


# ── machine code ─────────────────────────────────────────────────────────────────────────────────────────────────────


CASES = {
    "load": (load_word, lambda w: (w, 1), {"x86": [], "arm": "ldar"}),
    "store": (store_word, lambda w: (w, 1, 5), {"x86": [], "arm": "stlr"}),
    "compare_exchange": (exchange_word, lambda w: (w, 1, 5, 6), {"x86": ["lock"], "arm": "cas"}),
    "fetch_add": (call_fetch_add, lambda w: (w, 1, 5), {"x86": ["lock"], "arm": "ldadd"}),
}


@compiled_only
@pytest.mark.skipif(platform.machine() != "x86_64", reason="shows x86 code")
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("case", sorted(CASES))
def test_x86_code(case, word):
    function, arguments, expected = CASES[case]
    (assembly,) = fresh(function, *arguments(np.zeros(4, dtype=word))).inspect_asm().values()
    found = instructions(assembly)
    locked = [line for line in found if line.startswith(("lock", "xchg", "mfence"))]
    if expected["x86"]:
        assert len(locked) == 1
        assert ("cmpxchg" in locked[0]) == (case == "compare_exchange")
    else:
        assert locked == [], "a plain mov is enough"
        moves = [line for line in found if line.startswith("mov") and "(%r" in line]
        assert moves


@compiled_only
@pytest.mark.skipif(platform.machine() != "x86_64", reason="shows x86 code")
def test_x86_pause_and_fence():
    (assembly,) = fresh(call_pause).inspect_asm().values()
    assert instructions(assembly).count("pause") == 1
    (assembly,) = fresh(call_fence).inspect_asm().values()
    assert any(line.startswith(("mfence", "lock")) for line in instructions(assembly))


@kernel
def spin_until_set(words):
    while load_acquire(words, 0) == 0:
        pause()


@compiled_only
@pytest.mark.skipif(platform.machine() != "x86_64", reason="shows x86 code")
def test_waiting_loop_loads_every_time():
    (assembly,) = fresh(spin_until_set, np.ones(1, dtype=np.int64)).inspect_asm().values()
    found = instructions(assembly)
    after = found[found.index("pause") :]
    assert any("(%r" in line and line.startswith(("cmp", "mov", "test")) for line in after[:4])


def cross_emitted(dispatcher, attributes):
    """AArch64 assembly of a kernel's LLVM IR. Nothing here can run it: what it says is unproven."""
    from llvmlite import binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu="generic", features=attributes, opt=2)
    (text,) = dispatcher.inspect_llvm().values()
    kept = [line for line in text.splitlines() if not line.startswith(("target triple", "target datalayout"))]
    module = llvm.parse_assembly("\n".join(kept))
    module.triple = triple
    module.data_layout = str(machine.target_data)
    module.verify()
    return machine.emit_assembly(module)


@compiled_only
@pytest.mark.parametrize("case", sorted(CASES))
def test_aarch64_code_unproven(case):
    """Cross-emitted, never run: AArch64 gets the ordered instructions its memory model asks for."""
    function, arguments, expected = CASES[case]
    assembly = cross_emitted(fresh(function, *arguments(np.zeros(4, dtype=np.int64))), "+lse")
    found = [line.split()[0] for line in instructions(assembly)]
    assert any(one.startswith(expected["arm"]) for one in found), found


@compiled_only
def test_aarch64_without_lse_unproven():
    """Cross-emitted, never run: before ARMv8.1, compare and exchange is a pair of exclusive accesses."""
    assembly = cross_emitted(fresh(exchange_word, np.zeros(4, dtype=np.int64), 1, 5, 6), "-lse,-outline-atomics")
    found = [line.split()[0] for line in instructions(assembly)]
    assert "ldaxr" in found
    assert "stlxr" in found


def test_every_name_exists_in_plain_python_too():
    """What is exported compiled is exported uncompiled: the two branches of the module agree."""
    import ast
    from pathlib import Path

    (branch,) = [
        node for node in ast.parse(Path(atomics.__file__).read_text()).body if isinstance(node, ast.If) and node.orelse
    ]

    def names(body):
        found = set()
        for node in body:
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        return {one for one in found if not one.startswith("_")}

    assert names(branch.body) == names(branch.orelse)
