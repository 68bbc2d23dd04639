"""The first message of a session: every field of it, its signature, its time."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.accounts import Keyring
from shrivenq.pipeline.exchange.fix_dictionary import RefusedError
from shrivenq.pipeline.exchange.fix_logon import check_sent, check_sequence, read_logon
from shrivenq.pipeline.exchange.fix_wire import Frames, Message, time_us
from tests.pipeline.exchange.test_fix_wire import LOGON
from tests.pipeline.exchange.ws_api_rig import PUBLIC, SECRET

SENT_US = time_us("20240627-11:17:25.223")
KEY = "sBRXrJx2DsOraMXOaUovEhgVRcjOvCtQwnWj8VxkOh1xqboS02SPGfKi2h8spZJb"


@pytest.fixture
def keyring():
    keys = Keyring()
    keys.add(KEY, 7, public_key=PUBLIC)
    keys.add("HMACKEY", 8, secret=SECRET)
    return keys


def vector():
    frames = Frames()
    frames.add(LOGON)
    return frames.next()


def changed(**fields):
    """Give the sheet's logon with other fields; `_TAG=None` leaves one out."""
    found = dict(vector().fields) | {int(tag[1:]): value for tag, value in fields.items()}
    ordered = sorted(found.items(), key=lambda one: one[0] not in (34, 49, 52, 56, 25000))
    return Message("A", [(tag, value) for tag, value in ordered if value is not None])


def refusal(keyring, message, now_us=SENT_US):
    with pytest.raises(RefusedError) as caught:
        read_logon(message, keyring, now_us)
    return caught.value.tag, caught.value.code


def test_the_verified_logon_of_the_protocol_sheet(keyring):
    logon = read_logon(vector(), keyring, SENT_US)
    assert (logon.sender, logon.key.account, logon.beat_s, logon.everything) == ("EXAMPLE", 7, 30, True)


def test_what_may_be_chosen(keyring):
    assert read_logon(changed(_25036="2"), keyring, SENT_US).everything is False
    assert read_logon(changed(_25036="1", _9406="N"), keyring, SENT_US).everything is True
    for beat in ("5", "60"):
        assert read_logon(changed(_108=beat), keyring, SENT_US).beat_s == int(beat)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"_98": "1"}, (98, -1130)),
        ({"_98": None}, (98, -1102)),
        ({"_108": "4"}, (108, -1130)),
        ({"_108": "61"}, (108, -1130)),
        ({"_108": "30.5"}, (108, -1130)),
        ({"_108": None}, (108, -1102)),
        ({"_141": "N"}, (141, -1175)),
        ({"_141": None}, (141, -1175)),
        ({"_25035": "3"}, (25035, -1130)),
        ({"_25035": None}, (25035, -1102)),
        ({"_25036": "3"}, (25036, -1130)),
        ({"_9406": "Y"}, (9406, -1184)),
        ({"_95": "87"}, (96, -1022)),
        ({"_95": "x"}, (96, -1022)),
        ({"_96": "A" * 86 + "=="}, (96, -1022)),
        ({"_96": "no base64"}, (96, -1022)),
        ({"_553": "UNKNOWNKEY"}, (553, -2015)),
        ({"_553": "no key!"}, (553, -2014)),
        ({"_553": "HMACKEY"}, (553, -4056)),
        ({"_34": "2"}, (34, -1179)),
        ({"_49": "EXAMPLE9X"}, (49, -1178)),
        ({"_49": "EX.MPLE"}, (49, -1178)),
        ({"_49": "EXAMPL"}, (96, -1022)),
        ({"_56": "SPOTS"}, (56, -1130)),
        ({"_52": "20240627-11:17:25"}, (96, -1022)),
        ({"_52": "20240627 11:17:25"}, (52, -1100)),
        ({"_11": "a"}, (11, -1170)),
        ({"_25000": "x"}, (25000, -1100)),
        ({"_25000": "60001"}, (25000, -1131)),
    ],
)
def test_logons_that_are_refused(keyring, fields, expected):
    assert refusal(keyring, changed(**fields)) == expected


def test_another_message_is_no_logon(keyring):
    assert refusal(keyring, vector()._replace(kind="0")) == (35, -1180)


@pytest.mark.parametrize(
    ("window", "late_us", "good"),
    [
        (None, 5_000_000, True), (None, 5_000_001, False), (None, -999_999, True), (None, -1_000_000, False),
        ("100", 100_000, True), ("100", 100_001, False), ("60000", 60_000_000, True), ("0.5", 500, True),
        ("0.5", 501, False),
    ],
)  # fmt: skip
def test_a_logon_has_a_time(keyring, window, late_us, good):
    message = changed(_25000=window)
    if good:
        assert read_logon(message, keyring, SENT_US + late_us)
    else:
        assert refusal(keyring, message, SENT_US + late_us) == (52, -1021)


def test_other_messages_have_one_only_if_they_say_so():
    fields = [(52, "20240627-11:17:25.223")]
    check_sent(Message("D", fields), SENT_US + 10**12)
    check_sent(Message("D", [*fields, (25000, "10")]), SENT_US + 10_000)
    with pytest.raises(RefusedError):
        check_sent(Message("D", [*fields, (25000, "10")]), SENT_US + 10_001)
    with pytest.raises(RefusedError):
        check_sent(Message("D", [(52, "yesterday")]), SENT_US)


@pytest.mark.parametrize("text", ["1", "3", "0", "-2", "2.0", " 2", "", "٢", "4294967298", "99999999999999", None])
def test_a_number_that_is_not_the_next(text):
    check_sequence(Message("0", [(34, "2")]), 2)
    check_sequence(Message("0", [(34, "0002")]), 2)
    with pytest.raises(RefusedError) as caught:
        check_sequence(Message("0", [(34, text)] if text is not None else []), 2)
    assert (caught.value.code, caught.value.ends) == (-1102 if text is None else -1179, True)
