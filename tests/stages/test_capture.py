"""A capture is read back line by line, whatever its compression, and what is wrong with it is said in one line."""

from __future__ import annotations

import base64
import gzip
import random
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.stages import capture as module
from shrivenq.stages.capture import AHEAD_NS, BACK_NS, LINE_MAX, STAMP_MAX, Capture, CaptureError, format_line
from shrivenq.stages.frames import BINARY, COUNT, ENDED, LOST, TAKEN, TEXT, USED, make_frames
from shrivenq.stages.venues.text import PADDING
from tests.stages.venues.sbe_frames import VECTORS

T0 = 1_723_161_253_937_085_768


def drain(capture, size=1 << 16, count=64):
    """All frames, filled again and again into small buffers: (time, payload), payload None for LOST."""
    frames = make_frames(size, count)
    found = []
    while not frames.words[ENDED]:
        capture.fill(frames)
        assert frames.words[TAKEN] == 0
        assert frames.words[USED] <= size - PADDING
        for frame in frames.index[: frames.words[COUNT]]:
            start, length = int(frame["offset"]), int(frame["length"])
            assert frame["wire_ns"] == 0
            assert (frame["flags"], length == 0) in ((TEXT, False), (LOST, True))
            found.append((int(frame["time_ns"]), frames.data[start : start + length].tobytes() if length else None))
    capture.fill(frames)
    assert (frames.words[COUNT], frames.words[ENDED]) == (0, 1)
    return found


def drain_kinds(capture, size=1 << 16, count=64):
    """All frames as (time, kind, payload)."""
    frames = make_frames(size, count)
    found = []
    while not frames.words[ENDED]:
        capture.fill(frames)
        for frame in frames.index[: frames.words[COUNT]]:
            start, stop = int(frame["offset"]), int(frame["offset"] + frame["length"])
            found.append((int(frame["time_ns"]), int(frame["flags"]), frames.data[start:stop].tobytes()))
    return found


def naive(text):
    """Read whole lines the obvious way; times are in order."""
    pairs = [line.partition(b" ") for line in text.removesuffix(b"\n").split(b"\n")]
    return [(int(time), payload or None) for time, _, payload in pairs]


def write(path, text, kind="plain"):
    pack = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
    path.write_bytes(pack[kind](text))
    return path


def lines(count, start=T0, seed=1, longest=300):
    rng = random.Random(seed)
    return b"".join(
        format_line(start + 1000 * i, rng.randbytes(rng.randrange(1, longest)).hex().encode()) for i in range(count)
    )


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_lines_come_back_as_they_were_written(tmp_path, kind, end):
    text = lines(3000)[:-1] + end
    found = drain(Capture(write(tmp_path / "a", text, kind)), 4096, 7)
    assert found == naive(text)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b" ")), min_size=1, max_size=60),
    st.integers(1, 50),
    st.integers(1, 5),
    st.booleans(),
)
def test_lines_survive_any_cut_into_blocks(tmp_path_factory, payloads, block, count, ends):
    text = b"".join(format_line(7 + number, payload) for number, payload in enumerate(payloads))
    path = write(tmp_path_factory.mktemp("capture") / "a", text if ends else text[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        assert drain(Capture(path), 128, count) == naive(text)


@pytest.mark.parametrize("market", ["spot", "usdm", "cm"])
def test_captured_markets_equal_the_naive_reading(data, market):
    folder = data / "binance" / market
    text = b"".join(gzip.decompress(path.read_bytes()) for path in sorted(folder.iterdir()))
    capture = Capture(folder)
    assert drain(capture, 1 << 20, 4096) == naive(text)
    assert (capture.damaged, capture.damage) == (0, "")


def test_a_folder_is_read_in_name_order_and_files_do_not_run_together(tmp_path):
    write(tmp_path / "b.zst", b"7 three\n", "zstd")
    write(tmp_path / "a.gz", b"5 one\n6 two", "gzip")
    write(tmp_path / "c", b"")
    write(tmp_path / ".hidden", b"rubbish")
    assert drain(Capture(tmp_path)) == [(5, b"one"), (6, b"two"), (7, b"three")]


def test_members_one_behind_the_other_are_one_file(tmp_path):
    for kind in ("gzip", "zstd"):
        first, second = (write(tmp_path / kind, text, kind).read_bytes() for text in (b"5 one\n6 t", b"wo\n"))
        (tmp_path / kind).write_bytes(first + second)
        assert drain(Capture(tmp_path / kind)) == [(5, b"one"), (6, b"two")]


def test_an_empty_payload_says_that_frames_are_missing(tmp_path):
    capture = Capture(write(tmp_path / "a", format_line(5, b"one") + format_line(6, b"") + format_line(7, b"a\nb")))
    assert drain(capture) == [(5, b"one"), (6, None), (7, b"a b")]
    assert capture.damaged == 0


def test_raw_receive_stamps_are_passed_over(tmp_path):
    stamps = (b"", b"@CLOCK_REALTIME:1723161253937085768", b"@hardware:5", b"@" + b"x" * (STAMP_MAX - 1))
    text = b"".join(format_line(7 + number, b"one two", TEXT, stamp) for number, stamp in enumerate(stamps))
    text += format_line(20, b"abc", BINARY, stamps[1]) + format_line(21, b"", LOST, stamps[1])
    expected = [(7 + number, TEXT, b"one two") for number in range(len(stamps))]
    assert drain_kinds(Capture(write(tmp_path / "a", text))) == [*expected, (20, BINARY, b"abc"), (21, LOST, b"")]


@pytest.mark.parametrize("line", [b"8@" + b"x" * STAMP_MAX + b" two", b"8@x", b"8@x\ty", b"@x:1 two"])
def test_a_raw_receive_stamp_without_an_end_is_damage(tmp_path, line):
    capture = Capture(write(tmp_path / "a", b"7 one\n" + line + b"\n9 three\n"))
    assert drain(capture) == [(7, b"one"), (7, None), (9, b"three")]
    assert capture.damaged == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=40)), min_size=1, max_size=60),
    st.integers(1, 50),
    st.integers(1, 5),
)
def test_text_and_binary_frames_survive_any_cut_into_blocks(tmp_path_factory, frames, block, count):
    text = b"".join(format_line(7 + number, payload, kind) for number, (kind, payload) in enumerate(frames))
    assert text.count(b"\n") == len(frames)
    path = write(tmp_path_factory.mktemp("capture") / "a", text)
    expected = []
    for number, (kind, payload) in enumerate(frames):
        if kind == TEXT:
            payload = b" " * payload.startswith(b"base64:") + payload.replace(b"\n", b" ")  # noqa: PLW2901
        expected.append((7 + number, kind if payload or kind == BINARY else LOST, payload))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        assert drain_kinds(Capture(path), 128, count) == expected


def test_text_that_looks_like_a_binary_frame_stays_text(tmp_path):
    line = format_line(5, b"base64:AAAA") + format_line(6, b"base64") + format_line(7, b"", BINARY)
    assert line == b"5  base64:AAAA\n6 base64\n7 base64:\n"
    assert drain_kinds(Capture(write(tmp_path / "a", line))) == [
        (5, TEXT, b" base64:AAAA"),
        (6, TEXT, b"base64"),
        (7, BINARY, b""),
    ]


def test_the_example_of_the_documentation_is_a_frame(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "capture-format.md").read_bytes()
    line = next(line for line in text.split(b"\n") if b" base64:" in line and line[:1].isdigit())
    assert drain_kinds(Capture(write(tmp_path / "a", line)))[0][1:] == (BINARY, VECTORS["best"])


def is_canonical(text):
    try:
        return base64.b64encode(base64.b64decode(text)) == text
    except ValueError:
        return False


def test_damaged_base64_becomes_lost_and_the_next_is_read(tmp_path):
    seed = 11
    rng = random.Random(seed)
    texts = [
        b"A",
        b"AA",
        b"AAA",
        b"=",
        b"==",
        b"====",
        b"A===",
        b"AB==",
        b"AAB=",
        b"AA=A",
        b"=AAA",
        b"AA==AAAA",
        b"AAA A",
    ]
    texts += [b" AAAA", b"AAAA ", b"AA-_", b"AAAA\r", b"\xff\xfe\xfd\xfc", b"AAAA" * 9 + b"AAA"]
    for _ in range(500):
        text = bytearray(base64.b64encode(rng.randbytes(rng.randrange(1, 40))))
        text[rng.randrange(len(text))] = rng.choice(b"AB+/=-_ z\0\x80")
        texts.append(bytes(text))
    lines = [format_line(T0, b"one")]
    lines += [b"%d base64:%s\n" % (T0 + number, text) for number, text in enumerate(texts)]
    capture = Capture(write(tmp_path / "a", b"".join(lines)))
    found = drain_kinds(capture)
    assert len(found) == len(texts) + 1
    for text, (_, kind, payload) in zip(texts, found[1:], strict=True):
        expected = (BINARY, base64.b64decode(text)) if is_canonical(text) else (LOST, b"")
        assert (kind, payload) == expected, f"seed {seed}: {text!r}"
    assert capture.damaged == sum(not is_canonical(text) for text in texts)
    assert capture.damage.startswith(f"{tmp_path / 'a'}: line 2: damaged")


def test_a_binary_frame_larger_than_the_buffer_of_frames_becomes_lost(tmp_path):
    room = 1000 - PADDING
    sizes = (room // 3 * 3 + 3, room // 3 * 3, 3)
    capture = Capture(write(tmp_path / "a", b"".join(format_line(5, b"x" * size, BINARY) for size in sizes)))
    assert drain_kinds(capture, 1000) == [(0, LOST, b""), *((5, BINARY, b"x" * size) for size in sizes[1:])]


def test_time_never_goes_back(tmp_path):
    text = b"".join(format_line(T0 + shift, b"x") for shift in (0, 5, -BACK_NS, 3, 9))
    assert [time - T0 for time, _ in drain(Capture(write(tmp_path / "a", text)))] == [0, 5, 5, 5, 9]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"garbage",
        b"\x00\xff\xfe\x80" * 5,
        b'{"no":"time"}',
        b"17231612539370857",
        b"-5 x",
        b" 5 x",
        b"12345678901234567890 x",
        b"9223372036854775808 x",
        b"%d x" % (T0 - BACK_NS - 1),
        b"%d x" % (T0 + AHEAD_NS + 2),
        b"5" * (LINE_MAX + 1),
        b"%d " % T0 + b"y" * (LINE_MAX + 5_000_000),
    ],
)
def test_a_damaged_line_becomes_lost_and_the_next_is_read(tmp_path, bad):
    text = format_line(T0, b"one") + format_line(T0, b"two") + bad + b"\n" + format_line(T0 + 1, b"three")
    capture = Capture(write(tmp_path / "a", text))
    found = drain(capture)
    # After a time that was too far ahead the next one is too far back: both are untrustworthy.
    lost = 2 if b"%d" % (T0 + AHEAD_NS + 2) in bad else 1
    assert found[:3] == [(T0, b"one"), (T0, b"two"), (T0, None)]
    assert found[3:] == ([(T0, None)] if lost == 2 else [(T0 + 1, b"three")])
    assert capture.damaged == lost
    assert capture.damage.startswith(f"{tmp_path / 'a'}: line 3: damaged")


def test_a_line_larger_than_the_buffer_of_frames_becomes_lost(tmp_path):
    capture = Capture(write(tmp_path / "a", b"5 one\n6 " + b"x" * 937 + b"\n7 " + b"y" * 936 + b"\n"))
    assert drain(capture, 1000) == [(5, b"one"), (5, None), (7, b"y" * 936)]


def test_the_longest_line_is_read(tmp_path):
    payload = b"x" * (LINE_MAX - 2)
    assert drain(Capture(write(tmp_path / "a", b"5 " + payload)), 2 * LINE_MAX) == [(5, payload)]


def read_until_error(path):
    """Count the frames handed out before the error; return both."""
    frames = make_frames(1 << 20, 4096)
    count = 0
    try:
        capture = Capture(path)
        while not frames.words[ENDED]:
            capture.fill(frames)
            count += int(frames.words[COUNT])
    except CaptureError as error:
        return count, str(error)
    raise AssertionError("the capture was read to its end")


def failure(path, frames_before=0):
    count, text = read_until_error(path)
    assert count == frames_before
    assert text.isprintable()
    return text


def test_no_file_and_an_empty_folder(tmp_path):
    assert failure(tmp_path / "none") == f"{tmp_path / 'none'}: no such file"
    assert failure(tmp_path) == f"{tmp_path}: a folder without files, captures expected"


def test_not_one_line(tmp_path):
    write(tmp_path / "a", b"")
    write(tmp_path / "b", b"", "gzip")
    assert failure(tmp_path) == f"{tmp_path}: not one line in it"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_truncated_compression(tmp_path, kind):
    packed = write(tmp_path / "a", lines(200), kind).read_bytes()
    for cut in (5, 20, len(packed) // 2, len(packed) - 1):
        (tmp_path / "a").write_bytes(packed[:cut])
        count, text = read_until_error(tmp_path / "a")
        assert text == f"{tmp_path / 'a'}: the compressed data ends too early after line {count}"


def test_an_error_is_raised_again_at_every_later_call(tmp_path):
    capture = Capture(write(tmp_path / "a", b"rubbish"))
    frames = make_frames(1000, 4)
    for _ in range(2):
        with pytest.raises(CaptureError, match="line 1 begins"):
            capture.fill(frames)
        assert (frames.words[COUNT], frames.words[ENDED]) == (0, 0)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_damaged_compression(tmp_path, kind):
    packed = bytearray(write(tmp_path / "a", lines(200), kind).read_bytes())
    packed[len(packed) // 2] ^= 0xFF
    packed[-3] ^= 0xFF
    (tmp_path / "a").write_bytes(bytes(packed))
    text = read_until_error(tmp_path / "a")[1]
    assert text.startswith(f"{tmp_path / 'a'}: the compressed data ")


def test_binary_rubbish(tmp_path):
    rubbish = np.random.default_rng(1).integers(128, 256, 5000, np.uint8).tobytes()
    assert "line 1 begins b'" in failure(write(tmp_path / "a", rubbish))
    assert failure(write(tmp_path / "a", b"time,price\n1,2\n")) == (
        f"{tmp_path / 'a'}: line 1 begins b'time,price': '<receive ns> <payload>' expected"
    )


def test_files_out_of_order(tmp_path):
    write(tmp_path / "a", format_line(T0 + 2 * BACK_NS, b"later"))
    write(tmp_path / "b", format_line(T0, b"earlier"))
    assert failure(tmp_path, frames_before=1) == (
        f"{tmp_path / 'b'}: line 1 was received before the end of a: files in order of time expected, by name"
    )


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a", b"5 one\n")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert failure(path) == f"{path}: cannot be read: Permission denied"
