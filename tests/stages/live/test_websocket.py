"""The compiled frame parser against `websockets`' own, byte stream by byte stream, cut anywhere."""

from __future__ import annotations

import gzip
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from shrivenq.stages.live.websocket import DATA, OTHER, PARTIAL, read_frame
from tests.stages.venues import sbe_frames

SIZE_MAX = 70_000
DATA_OPCODES = (Opcode.TEXT, Opcode.BINARY)


def header(first, length, *, masked=False, size=0):
    """Spell a header, with the length in `size` bytes (0: in as few as can be)."""
    mask = 0x80 if masked else 0
    if size == 2 or (size == 0 and 125 < length < 1 << 16):
        return bytes([first, mask | 126]) + struct.pack("!H", length)
    if size == 8 or length >= 1 << 16:
        return bytes([first, mask | 127]) + struct.pack("!Q", length)
    return bytes([first, mask | length])


def parse(data, at=0, end=None):
    found = np.frombuffer(bytes(data) + bytes(64), np.uint8)
    kind, begin, stop = read_frame(found, at, len(data) if end is None else end, SIZE_MAX)
    return int(kind), int(begin), int(stop)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, SIZE_MAX])
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_a_message_is_found_once_its_last_byte_is_there(first, length):
    frame = header(first, length) + b"x" * length
    begin = len(frame) - length
    assert parse(frame) == (DATA, begin, len(frame))
    for end in {0, 1, 2, begin - 1, begin, len(frame) - 1} - {len(frame)}:
        if 0 <= end < len(frame):
            kind, _, stop = parse(frame, 0, end)
            assert kind == PARTIAL
            assert end < stop <= len(frame)


@pytest.mark.parametrize("size", [2, 8])
def test_a_length_may_be_spelled_in_more_bytes_than_it_needs(size):
    """The venue never does it; `websockets` takes it, and so do we."""
    frame = header(0x81, 3, size=size) + b"abc"
    assert parse(frame) == (DATA, len(frame) - 3, len(frame))


@pytest.mark.parametrize("opcode", [0x8, 0x9, 0xA])
def test_control_frames_and_fragments_are_the_protocols_business(opcode):
    frame = header(0x80 | opcode, 125) + b"p" * 125
    assert parse(frame + b"more") == (OTHER, 0, len(frame))
    assert parse(frame[:-1])[0] == PARTIAL
    for first in (0x01, 0x02, 0x00, 0x80):
        fragment = header(first, 5) + b"abcde"
        assert parse(fragment + b"more") == (OTHER, 0, len(fragment))


BROKEN = {
    "reserved bits": header(0xC1, 3) + b"abc",
    "reserved opcode": header(0x83, 3) + b"abc",
    "reserved control opcode": header(0x8B, 3) + b"abc",
    "masked": header(0x81, 3, masked=True) + b"mmmmabc",
    "too long": header(0x81, SIZE_MAX + 1) + b"abc",
    "length of 64 bits": header(0x81, (1 << 64) - 1) + b"abc",
    "long control frame": header(0x89, 126) + b"p" * 126,
    "fragmented control frame": header(0x09, 3) + b"abc",
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_the_protocol_is_handed_over_with_everything_behind_it(what):
    data = BROKEN[what] + b"tail"
    assert parse(data) == (OTHER, 0, len(data))
    twin = Twin()
    twin.feed(data)
    assert twin.is_over


class Twin:
    """The slow, obvious parser: `websockets`."""

    def __init__(self):
        self.protocol = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=SIZE_MAX)
        self.messages, self._parts = [], []

    def feed(self, data):
        if self.is_over:
            return
        self.protocol.receive_data(data)
        for frame in self.protocol.events_received():
            if frame.opcode in DATA_OPCODES or frame.opcode is Opcode.CONT:
                self._parts.append(bytes(frame.data))
                if frame.fin:
                    self.messages.append(b"".join(self._parts))
                    self._parts = []

    @property
    def is_over(self):
        return self.protocol.state is not State.OPEN


class Ours:
    """The compiled parser, with the protocol behind it for everything else: what `receive` and `link` do."""

    def __init__(self):
        self.data, self.at, self.twin = bytearray(), 0, Twin()

    def feed(self, data):
        self.data += data
        while not self.twin.is_over:
            kind, begin, stop = parse(self.data, self.at)
            if kind == PARTIAL:
                return
            if kind == DATA and not self.twin._parts:
                self.twin.messages.append(bytes(self.data[begin:stop]))
            else:
                self.twin.feed(bytes(self.data[self.at : stop]))
            self.at = stop


def random_stream(rng):
    """A stream of frames, mostly good, sometimes hostile."""
    made = bytearray()
    for _ in range(rng.randrange(1, 30)):
        draw = rng.random()
        length = rng.choice((0, 1, 20, 125, 126, 300, 65_535, 65_536, 2000))
        if draw < 0.6:
            made += header(rng.choice((0x81, 0x82)), length) + rng.randbytes(length)
        elif draw < 0.75:
            made += header(rng.choice((0x89, 0x8A)), 125) + rng.randbytes(125)
        elif draw < 0.95:
            parts = rng.randrange(1, 4)
            for part in range(parts + 1):
                first = (0x80 if part == parts else 0) | (0x01 if part == 0 else 0)
                made += header(first, length % 500) + rng.randbytes(length % 500)
                if rng.random() < 0.5:
                    made += Frame(Opcode.PING, rng.randbytes(rng.randrange(126))).serialize(mask=False)
        elif draw < 0.98:
            made += rng.choice(list(BROKEN.values()))
        else:
            made += rng.randbytes(rng.randrange(1, 40))
    return bytes(made)


@pytest.mark.parametrize("seed", range(150))
def test_any_stream_cut_anywhere_gives_what_websockets_gives(seed):
    rng = random.Random(seed)
    stream = random_stream(rng)
    ours, twin = Ours(), Twin()
    at = 0
    while at < len(stream):
        size = rng.choice((1, 2, 7, 100, 5000, 70_000))
        ours.feed(stream[at : at + size])
        twin.feed(stream[at : at + size])
        at += size
    assert ours.twin.messages == twin.messages, f"seed {seed}"
    assert ours.twin.is_over == twin.is_over, f"seed {seed}"
    assert str(ours.twin.protocol.close_sent) == str(twin.protocol.close_sent), f"seed {seed}"


def compare(stream, cuts, where):
    """Feed both parsers a stream in the pieces that `cuts` says; they must say the same."""
    ours, twin, at = Ours(), Twin(), 0
    for size in [*cuts, len(stream)]:
        ours.feed(stream[at : at + size])
        twin.feed(stream[at : at + size])
        at += size
    assert ours.twin.messages == twin.messages, where
    assert ours.twin.is_over == twin.is_over, where
    assert str(ours.twin.protocol.close_sent) == str(twin.protocol.close_sent), where


FRAMES = st.builds(
    lambda first, payload, size, masked, short: header(first, len(payload), masked=masked, size=size) + payload[short:],
    st.one_of(st.sampled_from((0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A)), st.integers(0, 255)),
    st.binary(max_size=140),
    st.sampled_from((0, 0, 0, 2, 8)),
    st.sampled_from((False, False, False, True)),
    st.sampled_from((0, 0, 0, 0, 1)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=8).map(b"".join) | st.binary(max_size=300), st.lists(st.integers(0, 200), max_size=8))
def test_hypothesis_finds_no_stream_read_otherwise(stream, cuts):
    compare(stream, cuts, "hypothesis")


@pytest.mark.parametrize("seed", range(12))
def test_mutated_captures_give_what_websockets_gives(data, seed):
    """Real frames in JSON and built ones in SBE, as a server would send them, with a few bytes changed."""
    rng = random.Random(seed)
    (first, *_) = sorted((data / "binance" / "spot").glob("*.gz"))
    with gzip.open(first) as lines:
        real = [next(lines).rstrip(b"\n").partition(b" ")[2] for _ in range(60)]
    made = bytearray()
    for number in range(50):
        text = rng.choice(real)[:SIZE_MAX]
        binary = sbe_frames.depth(number, number, [(9_500_011, 5)] * rng.randrange(9), [])
        made += header(0x81, len(text)) + text if rng.random() < 0.5 else header(0x82, len(binary)) + binary
        if rng.random() < 0.1:
            made += Frame(Opcode.PING, rng.randbytes(rng.randrange(126))).serialize(mask=False)
    compare(bytes(made), [rng.choice((1, 50, 3000)) for _ in range(40)], f"seed {seed}, whole")
    for _ in range(6):
        damaged = bytearray(made)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(damaged))
            if rng.random() < 0.5:
                damaged[at] = rng.randrange(256)
            else:
                del damaged[at : at + rng.randrange(1, 5)]
        compare(bytes(damaged), [rng.choice((1, 50, 3000)) for _ in range(40)], f"seed {seed}")
