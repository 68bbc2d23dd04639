"""FIX messages are read whole and exactly, in sequence, or the session is over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shrivenq.shm.kernel import COMPILED
from shrivenq.stages import messages as m
from shrivenq.stages.venues import answers as a
from shrivenq.stages.venues import fix
from shrivenq.stages.venues.fix_reports import GARBLED, INCOMPLETE, frame, utc_ns
from tests.stages.venues import fix_messages as f
from tests.stages.venues.binance_answers import ANSWERS, OWN, REQUEST, spelled
from tests.stages.venues.fix_messages import MESSAGES, TRADE, agree, execution, fast, message, whole

MUTATIONS = 1_500 if COMPILED else 150


def row_of(text):
    rows, notes = agree(text)
    assert (len(rows), len(notes)) == (1, 0)
    return rows[0]


def note_of(text, session=None):
    rows, notes = fast(text, session)
    assert (len(rows), len(notes)) == (0, 1)
    return notes[0]


def measured(data, stop=None):
    array = np.frombuffer(data + b"9" * 64, np.uint8)
    return frame(array, 0, len(data) if stop is None else stop)


# ── framing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

LOGON = (
    (
        "8=FIX.4.4|9=247|35=A|34=1|49=EXAMPLE|52=20240627-11:17:25.223|56=SPOT|95=88|"
        "96=4MHXelVVcpkdwuLbl6n73HQUXUf1dse2PCgT1DYqW9w8AVZ1RACFGM+5UdlGPrQHrgtS3CvsRURC1oj73j8gCA==|98=0|108=30|141=Y|"
        "553=sBRXrJx2DsOraMXOaUovEhgVRcjOvCtQwnWj8VxkOh1xqboS02SPGfKi2h8spZJb|25035=2|10=227|"
    )
    .replace("|", "\x01")
    .encode()
)


def test_the_venue_s_own_example():
    assert measured(LOGON) == len(LOGON)
    assert measured(LOGON + LOGON) == len(LOGON)
    assert note_of(LOGON)["kind"] == a.LOGON


@pytest.mark.parametrize("text", [LOGON, *MESSAGES.values()])
def test_a_message_that_has_not_come_whole_is_waited_for(text):
    for stop in range(len(text)):
        assert measured(text, stop) == INCOMPLETE


@pytest.mark.parametrize(
    "text",
    [
        b"8=FIX.4.2\x019=5\x01" + b"x" * 40,
        b"8=FIX.4.4\x019=\x0135=0\x01" + b"x" * 40,
        b"8=FIX.4.4\x019=12345\x01" + b"x" * 40,
        b"8=FIX.4.4\x019=9999\x01" + b"x" * 40,
        b"8=FIX.4.4\x019=-5\x01" + b"x" * 40,
        LOGON.replace(b"10=227", b"10=228"),
        LOGON.replace(b"10=227", b"10=22x"),
        LOGON.replace(b"9=247", b"9=246"),
        LOGON.replace(b"|98=0", b"|98=1").replace(b"98=0", b"98=1"),
    ],
)
def test_a_message_that_is_none_is_garbled(text):
    assert measured(text) == GARBLED


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage(garbage):
    assert agree(garbage) is None
    assert agree(whole(garbage)) is None or b"35=" in garbage


# ── sequence ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_messages_come_in_sequence():
    session = f.make_session()
    for sequence in range(1, 5):
        assert fast(message("0", sequence=sequence), session, sequence) is not None
        assert session.words[fix.NEXT_IN] == sequence + 1
    assert session.words[fix.RECEIVED_NS] == f.NOW


@pytest.mark.parametrize("sequence", [0, 1, 3, 99, "x", ""])
def test_a_gap_or_a_repetition_breaks_the_session(sequence):
    session = f.make_session()
    assert fast(message("0", sequence=sequence), session, 2) is None
    assert session.words[fix.BROKEN] == 1
    assert session.words[fix.NEXT_IN] == 2


def test_a_broken_session_stays_broken():
    session = f.make_session()
    session.words[fix.BROKEN] = 1
    assert fast(MESSAGES["new"], session) is None


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MESSAGES)
def test_both_readers_agree(name):
    assert agree(MESSAGES[name]) is not None


@pytest.mark.parametrize(
    ("name", "kind", "order_id", "target_id", "reason"),
    [
        ("new", m.ACCEPTED, OWN, 0, "none"),
        ("trade", m.FILL, OWN, 0, "none"),
        ("cancelled", m.CANCELLED, REQUEST, OWN, "by_request"),
        ("amended", m.AMENDED, OWN, OWN, "by_request"),
        ("expired", m.EXPIRED, OWN, OWN, "unfilled"),
        ("self-trade", m.EXPIRED, OWN, OWN, "self_trade"),
        ("partly prevented", m.AMENDED, OWN, OWN, "self_trade"),
        ("refused", m.REJECTED, OWN, 0, "not_tradable"),
        ("unknown", m.UNKNOWN, OWN, 0, "venue_error"),
        ("not cancelled", m.CANCEL_REJECTED, REQUEST, OWN, "unknown_order"),
        ("not amended", m.AMEND_REJECTED, OWN, OWN, "venue"),
        ("reject", m.CANCEL_REJECTED, REQUEST, OWN, "malformed"),
    ],
)
def test_what_is_reported(name, kind, order_id, target_id, reason):
    row = row_of(MESSAGES[name])
    assert (row["kind"], row["order_id"], row["target_id"], m.REASONS[row["reason"]]) == (
        kind,
        order_id,
        target_id,
        reason,
    )
    assert row["instrument"] == 1


def test_what_prevention_took_is_neither_filled_nor_left():
    for name, quantity, leaves in (("self-trade", 0, 0), ("partly prevented", 100_000_000, 100_000_000)):
        row = row_of(MESSAGES[name])
        assert (row["quantity"], row["leaves"], row["filled"]) == (quantity, leaves, 0)
    assert agree(message(*execution(_25030="1.6"))) is None


def test_a_fill():
    row = row_of(MESSAGES["trade"])
    assert (row["last_price"], row["last_quantity"], row["trade_id"]) == (10_000_000, 25_000_000, 9)
    assert (row["fee"], row["fee_currency"], row["flags"]) == (25_000, 1, m.MAKER)
    assert (row["filled"], row["leaves"], row["quantity"]) == (50_000_000, 100_000_000, 150_000_000)
    assert row_of(MESSAGES["filled"])["flags"] == m.MAKER | m.FINAL
    assert row_of(message(*execution(**{**TRADE, "_136": None, "_1057": "Y"})))["fee"] == 0
    assert row_of(message(*execution(**{**TRADE, "_138": "BNB"})))["fee_currency"] == -1


@pytest.mark.parametrize(
    ("text", "fee"), [("0.00000001", 1), ("0.000000010", 1), ("0.000000011", 2), ("1.0000000000001", 100_000_001)]
)
def test_a_fee_finer_than_its_currency_is_rounded_against_us(text, fee):
    for code in ("ETH", "BNB"):
        assert row_of(message(*execution(**{**TRADE, "_137": text, "_138": code})))["fee"] == fee
    for rubbish in (f"-{text}", f"{text}x", text.replace(".", ".."), f"{'9' * 19}.000000001"):
        assert agree(message(*execution(**{**TRADE, "_137": rubbish}))) is None


@pytest.mark.parametrize(
    "change",
    [
        {"_150": "G"},
        {"_150": None},
        {"_54": 3},
        {"_37": 0},
        {"_37": "x"},
        {"_60": "20241327-11:17:25"},
        {"_60": None},
        {"_38": "0.1", "_14": "0.2"},
        {"_151": "2"},
        {"_44": "-1"},
        {"_44": "0.123456789"},
        {"_11": None},
        {"_55": None},
        {**TRADE, "_31": "0"},
        {**TRADE, "_1003": None},
        {**TRADE, "_1057": None},
        {**TRADE, "_136": 2},
        {**TRADE, "_137": "x"},
        {"_150": 8, "_25016": 5},
        {"_150": 8, "_25016": "x"},
    ],
)
def test_reports_that_make_no_sense_break_the_session(change):
    assert agree(message(*execution(**change))) is None


def test_orders_and_instruments_that_are_not_ours():
    assert row_of(message(*execution(**{**TRADE, "_11": "by-hand"})))["order_id"] == 0
    assert note_of(message(*execution(_55="XRPUSDT")))["kind"] == a.FOREIGN


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("heartbeat", a.HEARTBEAT, b"7"),
        ("test", a.TEST_REQUEST, b"hello"),
        ("logout", a.LOGOUT, b"Bye."),
        ("news", a.SHUTDOWN, b""),
        ("logon", a.LOGON, b""),
    ],
)
def test_session_messages_are_noted(name, kind, text):
    note = note_of(MESSAGES[name])
    assert note["kind"] == kind
    assert MESSAGES[name][note["place"] : note["place"] + note["length"]] == text


def test_cancelling_all():
    note = note_of(MESSAGES["mass"])
    assert (note["kind"], note["instrument"], note["status"], note["count"]) == (a.MASS_CANCELLED, 1, 200, 3)
    assert note["order_id"] == REQUEST
    refused = message("r", (11, spelled(REQUEST)), (531, 0), (532, 99), (25016, -1013), (58, "No."))
    assert (note_of(refused)["status"], note_of(refused)["code"]) == (400, -1013)
    said = ((55, "ETHBTC"), (531, 0), (25016, -2011), (58, "Unknown order sent."))
    ((row,), _) = agree(message("r", (11, spelled(REQUEST)), *said))
    assert (row["kind"], row["order_id"], row["target_id"]) == (m.CANCEL_REJECTED, REQUEST, 0)
    assert m.REASONS[row["reason"]] == "unknown_order"


REFUSED = ((25016, -2011), (58, "Unknown order sent."))


@pytest.mark.parametrize(
    "fields",
    [
        ((11, spelled(REQUEST)), (37, 76)),  # named by the venue's id: it repeats that alone
        ((11, spelled(REQUEST)), (41, spelled(OWN))),
        ((11, "generated"), (41, spelled(OWN))),  # the cancel of a replacement has a name of its own
    ],
)
def test_a_refused_cancel_or_replacement_is_found_again(fields):
    session = f.make_session()
    session.sent[2:] = 0
    fix_order = (int(session.words[fix.NEXT_OUT]), REQUEST, OWN, m.REPLACE, 1)
    session.sent[fix_order[0]] = fix_order
    session.words[fix.NEXT_OUT] += 1
    rows, _ = fast(message("9", *fields, (55, "ETHBTC"), *REFUSED), session)
    assert [tuple(int(rows[0][name]) for name in ("kind", "order_id", "target_id", "instrument"))] == [
        (m.CANCEL_REJECTED, REQUEST, OWN, 1)
    ]


def test_a_refused_cancel_of_another_s_is_nobody_s():
    row = row_of(message("9", (11, "x"), (37, 76), (55, "ETHBTC"), *REFUSED))
    assert (row["order_id"], row["target_id"]) == (0, 0)


def test_rejects_of_messages_that_were_no_orders_are_noted():
    for reference in (1, 4, 999, 3 + fix.SENT_MAX, "x"):
        note = note_of(message("3", (45, reference), (58, "Bad.")))
        assert note["kind"] == a.OTHER
    assert note_of(message("XLR", (6136, 1)))["kind"] == a.OTHER


# ── any bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_are_read_the_same_or_not_at_all(seed):
    rng = random.Random(seed)
    understood = 0
    for _ in range(MUTATIONS):
        text = MESSAGES[rng.choice(list(MESSAGES))]
        body = bytearray(text[text.index(b"35=") : -7])
        for _ in range(rng.randint(1, 2)):
            at, what = rng.randrange(len(body)), rng.randrange(4)
            if what == 0:
                body[at] = rng.randrange(256)
            elif what == 1:
                body[at : at + rng.randint(1, 6)] = b""
            elif what == 2:
                body[at:at] = rng.choice([b"\x01", b"=", b"0", b".", b"\x0111=x", b"9" * 20, b"\x0158=a"])
            else:
                body[at] = rng.choice(b"0123456789\x01=.")
            body = body or bytearray(b"x")
        mutated = whole(bytes(body)) if rng.random() < 0.9 else text[:20] + bytes(body) + text[-7:]
        try:
            understood += agree(mutated) is not None
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {mutated!r}") from error
    assert understood > MUTATIONS // 50, f"seed {seed}"


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 12, 31)), st.sampled_from([0, 3, 6]))  # noqa: DTZ001
def test_times(moment, digits):
    text = f"{moment:%Y%m%d-%H:%M:%S}" + (f".{moment.microsecond:06d}"[: digits + 1] if digits else "")
    expected = int(moment.replace(tzinfo=UTC, microsecond=0).timestamp()) * 10**9
    expected += int(f"{moment.microsecond:06d}"[:digits].ljust(9, "0")) if digits else 0
    assert utc_ns(np.frombuffer(text.encode() + b"\x01" * 64, np.uint8), 0, len(text)) == expected


def test_plain_python_agrees_and_stays_in_its_buffer():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "readers or mutated or times",
    ]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_answers_are_those_of_every_protocol():
    assert len(ANSWERS.values) == len(ANSWERS.lengths) == a.FIELDS
