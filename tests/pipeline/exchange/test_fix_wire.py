"""Frames are measured exactly, whatever the pieces they come in, and what is no message never becomes one."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
import simplefix
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.pipeline.exchange.fix_wire import MESSAGE_MAX, Frames, GarbledError, time_text, time_us, write

LOGON = (
    (
        "8=FIX.4.4|9=247|35=A|34=1|49=EXAMPLE|52=20240627-11:17:25.223|56=SPOT|95=88|"
        "96=4MHXelVVcpkdwuLbl6n73HQUXUf1dse2PCgT1DYqW9w8AVZ1RACFGM+5UdlGPrQHrgtS3CvsRURC1oj73j8gCA==|98=0|108=30|141=Y|"
        "553=sBRXrJx2DsOraMXOaUovEhgVRcjOvCtQwnWj8VxkOh1xqboS02SPGfKi2h8spZJb|25035=2|10=227|"
    )
    .replace("|", "\x01")
    .encode()
)
"""The protocol sheet's, section 15."""
MUTATIONS = 3_000


def taken(data, size=1 << 20):
    """Take bytes in pieces; give the messages."""
    frames, found = Frames(), []
    for at in range(0, len(data), size):
        frames.add(data[at : at + size])
        while (message := frames.next()) is not None:
            found.append(message)
    return found


def framed(body, begin=b"8=FIX.4.4"):
    """Put a frame that is right around a body."""
    text = begin + b"\x019=%d\x01" % len(body) + body
    return text + b"10=%03d\x01" % (sum(text) % 256)


def test_the_venue_s_own_logon():
    (message,) = taken(LOGON)
    assert message.kind == "A"
    assert message.fields[:4] == [(34, "1"), (49, "EXAMPLE"), (52, "20240627-11:17:25.223"), (56, "SPOT")]
    assert [tag for tag, _ in message.fields[4:]] == [95, 96, 98, 108, 141, 553, 25035]
    assert message.get(98) == "0"
    assert message.get(11) is None


ORDER = (
    "8=FIX.4.4|9=114|35=D|34=2|49=qNXO12fH|52=20240611-09:01:46.228|56=SPOT|11=1718096506197867067|38=5|40=2|44=10|"
    "54=1|55=LTCBNB|59=4|10=048|"
)
"""The venue's example of an order; the sum it shows, 016, is not that of its bytes (protocol sheet, section 16)."""


def test_the_venue_s_own_order_whose_sum_is_wrong():
    text = ORDER.replace("|", "\x01").encode()
    (message,) = taken(text)
    assert (message.kind, message.fields[-1]) == ("D", (59, "4"))
    with pytest.raises(GarbledError, match="CheckSum"):
        taken(text.replace(b"10=048", b"10=016"))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 258])
def test_pieces_make_the_same_messages(size):
    order = framed(b"35=D\x0134=2\x0111=a\x01")
    assert taken(LOGON + order + LOGON, size) == taken(LOGON) + taken(order) + taken(LOGON)


def test_a_part_is_no_message_and_no_mistake():
    for stop in range(len(LOGON)):
        assert taken(LOGON[:stop]) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "BeginString"),
        (b"\x16\x03\x01\x02\x00", "BeginString"),
        (b"8=FIX.4.2\x019=5\x01", "BeginString"),
        (b"9=5\x018=FIX.4.4\x01", "BeginString"),
        (b"8=FIX.4.4\x019=x\x01", "BodyLength"),
        (b"8=FIX.4.4\x019=\x0135=A\x01", "BodyLength"),
        (b"8=FIX.4.4\x019=-1\x01", "BodyLength"),
        (b"8=FIX.4.4\x019=99999999\x01", "BodyLength"),
        (b"8=FIX.4.4\x019=%d\x01" % (MESSAGE_MAX + 1), "BodyLength"),
        (LOGON.replace(b"9=247", b"9=246"), "BodyLength"),
        (LOGON.replace(b"9=247", b"9=240"), "BodyLength"),
        (LOGON.replace(b"10=227", b"10=228"), "CheckSum"),
        (LOGON.replace(b"10=227", b"10=22x"), "BodyLength"),
        (LOGON.replace(b"98=0", b"98=1"), "CheckSum"),
        (framed(b"34=1\x0135=A\x01"), "MsgType"),
        (framed(b"35=A\x0134=1"), "BodyLength"),
        (framed(b""), "MsgType"),
        (framed(b"35=A\x01=1\x01"), "tag"),
        (framed(b"35=A\x01034=1\x01"), "tag"),
        (framed(b"35=A\x01+4=1\x01"), "tag"),
        (framed(b"35=A\x01x=1\x01"), "tag"),
        (framed(b"35=A\x0134\x01"), "tag"),
        (framed(b"35=A\x0134=1\x01\x01"), "tag"),
        (framed(b"35=A\x0134=1\x0158=caf\xc3\xa9\x01"), "ASCII"),
        (framed(b"35=A\x0134=1\x0158=\x00\x01"), "ASCII"),
        (framed(b"35=D\x0134=1\x0155=\xff\xfe\x01"), "ASCII"),
        (framed(b"35=A\x0195=x\x0196=abc\x01"), "RawData"),
        (framed(b"35=A\x0195=99\x0196=abc\x01"), "RawData"),
        (framed(b"35=A\x0195=2\x0196=abc\x0198=0\x01"), "RawData"),
        (framed(b"35=A\x0195=6\x0196=abc\x0198=0\x01"), "RawData|ASCII"),
        (framed(b"35=A\x0110=000\x0134=1\x01"), "RawData"),
    ],
)
def test_what_is_garbled_is_said_to_be(data, text):
    with pytest.raises(GarbledError, match=text):
        taken(data)


def test_names_may_be_in_any_script():
    assert taken(framed("35=D\x0155=币安人生USDT\x01".encode()))[0].get(55) == "币安人生USDT"


fields = st.lists(
    st.tuples(
        st.integers(11, 99_999).filter(lambda tag: tag not in (34, 35, 49, 52, 56) and tag not in RAW),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20),
    ),
    max_size=10,
)
RAW = {tag for pair in simplefix.data.RAW_DATA for tag in pair}


@settings(deadline=None, max_examples=100)
@given(fields, st.sampled_from(["0", "8", "XCN", "r"]), st.integers(1, 2**32 - 1), st.integers(0, 2**52))
def test_what_is_written_is_read(body, kind, sequence, now_us):
    (message,) = taken(write(kind, "SPOT", "T1", sequence, now_us, body))
    assert message.kind == kind
    header = [(34, str(sequence)), (49, "SPOT"), (52, time_text(now_us)), (56, "T1")]
    assert message.fields == header + body


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 12, 31)), st.sampled_from([0, 3, 6]))  # noqa: DTZ001
def test_times(moment, digits):
    text = f"{moment:%Y%m%d-%H:%M:%S}" + (f".{moment.microsecond:06d}"[: digits + 1] if digits else "")
    seconds = int(moment.replace(tzinfo=UTC, microsecond=0).timestamp())
    expected = seconds * 10**6 + (int(f"{moment.microsecond:06d}"[:digits].ljust(6, "0")) if digits else 0)
    assert time_us(text) == expected
    assert time_us(time_text(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "20240627", "20241327-11:17:25", "20240230-11:17:25", "20240627-24:00:00", "20240627-11:17:60",
     "20240627-11:17:25.", "20240627-11:17:25.1", "20240627-11:17:25.1234567", "20240627-11:17:25.12٣"],
)  # fmt: skip
def test_times_that_are_none(text):
    assert time_us(text) is None


@pytest.mark.parametrize("seed", range(2))
def test_mutated_bytes_are_refused_or_are_messages(seed):
    rng = random.Random(seed)
    for _ in range(MUTATIONS):
        data = bytearray(LOGON)
        for _ in range(rng.randint(1, 3)):
            at, what = rng.randrange(len(data)), rng.randrange(3)
            if what == 0:
                data[at] = rng.randrange(256)
            elif what == 1:
                del data[at : at + rng.randint(1, 5)]
            else:
                data[at:at] = rng.choice(
                    [b"\x01", b"=", b"0", b"\x019=5", b"\x0195=3", b"\x0110=000\x01", b"8=FIX.4.4"]
                )
        if rng.random() < 0.5 and b"\x0135=" in data:  # the frame is right, what is in it is not
            data = framed(bytes(data[data.index(b"\x0135=") + 1 : -7]))
        try:
            found = taken(bytes(data), rng.choice([1 << 20, 50]))
        except GarbledError:
            continue
        for message in found:
            assert all(tag > 0 and "\x01" not in value for tag, value in message.fields), f"seed {seed}: {data!r}"
