"""What a message is made of is checked before anybody looks at what it asks for."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.fix_dictionary import FORMS, KNOWN, WORDS, RefusedError, check, refused
from shrivenq.pipeline.exchange.fix_wire import Message

HEADER = [(34, "2"), (49, "T"), (52, "20240627-11:17:25"), (56, "SPOT")]
ORDER = [(11, "a"), (38, "1"), (40, "2"), (44, "1"), (54, "1"), (55, "BTCUSDT"), (59, "1")]


def refusal(kind, *fields, header=HEADER):
    """Give tag, code and SessionRejectReason of the refusal."""
    with pytest.raises(RefusedError) as caught:
        check(Message(kind, [*header, *fields]))
    assert caught.value.text.isascii()
    assert not caught.value.ends
    return caught.value.tag, caught.value.code, caught.value.reason


def changed(**fields):
    found = dict(ORDER) | {int(tag[1:]): value for tag, value in fields.items()}
    return [(tag, value) for tag, value in found.items() if value is not None]


def test_good_messages():
    check(Message("D", HEADER + ORDER))
    check(Message("D", [*HEADER, (25000, "100"), *ORDER]))
    check(Message("D", HEADER[::-1] + ORDER[::-1]))
    check(Message("F", [*HEADER, (11, "a"), (55, "BTCUSDT")]))  # which order is missing: the venue says so itself
    check(Message("0", HEADER))
    check(Message("5", [*HEADER, (58, "bye")]))


@pytest.mark.parametrize("kind", FORMS)
def test_every_field_that_is_required(kind):
    values = {tag: WORDS.get(tag, "1")[0] for tag in FORMS[kind].required}
    check(Message(kind, [*HEADER, *values.items()]))
    for tag in values:
        assert refusal(kind, *((one, value) for one, value in values.items() if one != tag)) == (tag, -1102, 1)
    for tag, _ in HEADER:
        header = [one for one in HEADER if one[0] != tag]
        assert refusal(kind, *values.items(), header=header) == (tag, -1102, 1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(9999, "1")], (9999, -1169, 3)),
        ([(530, "1")], (530, -1170, 2)),
        ([(11, "b")], (11, -1171, 13)),
        ([(34, "3")], (34, -1171, 13)),
        ([(8, "FIX.4.4")], (8, -1171, 13)),
        ([(35, "D")], (35, -1171, 13)),
        ([(25000, "100")], (25000, -1172, 14)),
        ([(111, "")], (111, -1105, 6)),
    ],
)
def test_fields_that_do_not_belong(fields, expected):
    assert refusal("D", *ORDER, *fields) == expected


@pytest.mark.parametrize(
    ("tag", "value", "code"),
    [
        (40, "5", -1116), (40, "22", -1116), (54, "3", -1117), (54, "B", -1117), (59, "2", -1115), (59, "GTC", -1115),
        (18, "5", -1130), (25001, "7", -1130), (25001, "0", -1130), (1109, "u", -1130), (1100, "3", -1130),
    ],
)  # fmt: skip
def test_words(tag, value, code):
    assert refusal("D", *changed(**{f"_{tag}": value})) == (tag, code, 5)


def test_other_words():
    assert refusal("q", (11, "a"), (55, "BTCUSDT"), (530, "7")) == (530, -1130, 5)
    assert refusal("F", (11, "a"), (55, "BTCUSDT"), (25002, "3")) == (25002, -1145, 5)
    assert refusal("XCN", *ORDER, (25033, "3")) == (25033, -1130, 5)


@pytest.mark.parametrize("kind", ["2", "4", "8", "9", "E", "V", "N", "j", "BE", "", "AA", "D "])
def test_messages_nobody_takes(kind):
    assert refusal(kind, *ORDER) == (35, -1020, 99)


def test_every_tag_is_known_once():
    assert WORDS.keys() <= KNOWN
    assert all(not form.required & {8, 9, 10, 34, 35, 49, 52, 56} for form in FORMS.values())


def test_errors_of_the_other_protocols_keep_their_words():
    error = refused(ApiError(-1121, "Invalid symbol."), 55, ends=True)
    assert (error.code, error.text, error.tag, error.reason, error.ends) == (-1121, "Invalid symbol.", 55, 5, True)
