"""A session from Logon to Logout: its rules, its heartbeats, what it asks for and what it is told."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.fix_session import FAREWELL, MESSAGES
from tests.pipeline.exchange.fix_rig import Desk, encode, logon_fields, order_fields, time_text
from tests.pipeline.exchange.ws_api_rig import ALICE, BOB, CAROL, LIMIT


@pytest.fixture
def desk(request):
    """A venue; a parameter is the limit of orders."""
    with Desk(orders=getattr(request, "param", 100)) as found:
        yield found


def kinds(messages):
    return [one.kind for one in messages]


def ended(client):
    return not client.socket.is_open


# ── the session ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_logon_is_answered_and_a_logout_too(desk):
    client = desk.client("EXAMPLE", logged_on=False)
    (answer,) = client.log_on(_108="25")
    assert answer.told(35, 34, 49, 56, 98, 108) == ("A", "1", "SPOT", "EXAMPLE", "0", "25")
    assert len(answer[25037]) == 36
    assert len(answer[52]) == 24  # microseconds
    (answer,) = client.send("5")
    assert answer.told(35, 34, 58) == ("5", "2", "Logout acknowledgment.")
    assert ended(client)
    assert desk.client("EXAMPLE")  # its name is free at once


def test_a_logon_comes_first_and_once(desk):
    client = desk.client(logged_on=False)
    reject, logout = client.order()
    assert reject.told(35, 45, 371, 372, 373, 25016) == ("3", "1", "35", "D", "99", "-1180")
    assert (logout.kind, logout[58], ended(client)) == ("5", reject[58], True)
    client = desk.client()
    (reject,) = client.log_on()
    assert reject.told(35, 45, 372, 25016) == ("3", "2", "A", "-1176")
    assert not ended(client)


@pytest.mark.parametrize(
    ("changed", "tag", "code"),
    [({"_141": "N"}, "141", "-1175"), ({"_96": "x" * 88}, "96", "-1022"), ({"_108": "4"}, "108", "-1130"),
     ({"_553": "NOBODY"}, "553", "-2015"), ({"_553": BOB}, "553", "-4056"), ({"_25035": None}, "25035", "-1102")],
)  # fmt: skip
def test_a_logon_that_is_refused_ends_the_connection(desk, changed, tag, code):
    client = desk.client(logged_on=False)
    reject, logout = client.log_on(**changed)
    assert reject.told(35, 45, 371, 372, 25016) == ("3", "1", tag, "A", code)
    assert (kinds([logout]), ended(client)) == (["5"], True)
    assert desk.server._members.all() == []


def test_a_logon_that_is_old(desk):
    sent = time_text(desk.now_us() * 1000)
    desk.wait(5.1)
    reject, _ = desk.client(logged_on=False).log_on(sent=sent)
    assert reject.told(371, 373, 25016) == ("52", "10", "-1021")
    desk.client(logged_on=False).send("A", *logon_fields("T", sent), sent=sent)


@pytest.mark.parametrize("step", [2, 0, -1, 100])
def test_a_number_that_is_not_the_next_ends_the_session(desk, step):
    client = desk.client()
    client.sequence += step - 1
    reject, logout = client.order()
    assert reject.told(35, 371, 25016, 58) == (
        "3",
        "34",
        "-1179",
        "`MsgSeqNum(34)` contains an unexpected value. Expected: '2'.",
    )
    assert (logout.kind, ended(client)) == ("5", True)
    assert desk.rig.engine.open_orders(1, "BTCUSDT") == []


def test_names_do_not_change(desk):
    client = desk.client("ME")
    client.sender = "YOU"
    reject, logout = client.order()
    assert (reject.told(371, 25016), logout.kind, ended(client)) == (("49", "-1178"), "5", True)
    client = desk.client()
    (reject,) = client.send("0", target="VENUE")
    assert (reject.told(371, 25016), ended(client)) == (("56", "-1130"), False)


@pytest.mark.parametrize("kind", ["2", "4", "E", "V", "8", "zz", "X" * 100])
def test_messages_nobody_takes(desk, kind):
    """ResendRequest and SequenceReset among them: there is no recovery of messages."""
    client = desk.client()
    (reject,) = client.send(kind, (7, "1"), (16, "0"))
    assert reject.told(45, 371, 372, 373, 25016) == ("2", "35", kind[:16], "99", "-1020")
    assert reject[58] == "This operation is not supported."
    assert kinds(client.send("1", (112, "x"))) == ["0"]


def test_garbage_ends_the_session(desk):
    good = encode("0", 2, "T", [])
    for data, code in (
        (b"hello" * 20, "-1177"),
        (good.replace(b"10=", b"10=x"), "-1177"),
        (good[:-4] + b"%03d\x01" % ((int(good[-4:-1]) + 1) % 256), "-1177"),
        (b"8=FIX.4.4\x019=9999999\x01", "-1177"),
    ):
        client = desk.client()
        reject, logout = client.raw(data)
        assert (reject.kind, reject[25016], logout.kind, ended(client)) == ("3", code, "5", True), data


def test_two_sessions_of_one_name(desk):
    first = desk.client("TWIN")
    second = desk.client("TWIN", logged_on=False)
    reject, _ = second.log_on()
    assert (reject.told(371, 25016), ended(second), ended(first)) == (("49", "-1178"), True, False)
    assert kinds(first.send("1", (112, "x"))) == ["0"]
    assert desk.client("TWIN", key=CAROL)  # another account


def test_a_name_is_blocked_after_an_unclean_end(desk):
    client = desk.client("GONE", _108="5")
    client.cut()
    desk.wait(9.5)
    assert desk.client("GONE", logged_on=False).log_on()[0][25016] == "-1178"
    desk.wait(1)
    assert desk.client("GONE")


def test_a_key_that_is_revoked(desk):
    client = desk.client()
    desk.venue.keyring.remove(ALICE)
    reject, logout = client.order()
    assert (reject[25016], logout.kind, ended(client)) == ("-2015", "5", True)


def test_too_many_messages(desk):
    client = desk.client()
    desk.seconds = round(desk.seconds, -1) + 0.5  # the interval is aligned to the clock
    session = client.session
    session._messages.add(MESSAGES.limit - 2 - session._messages.count(desk.now_us()), desk.now_us())
    assert client.send("0") == []
    assert client.send("0") == []
    reject, logout = client.send("0")
    assert reject[25016] == "-1181"
    assert (logout.kind, logout[58], ended(client)) == (
        "5",
        "Too many messages; current limit is '10000' messages per '10 SECOND'.",
        True,
    )


# ── silence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_heartbeats_and_test_requests(desk):
    client = desk.client(_108="10")
    desk.wait(9.8)
    assert client.send("0") == []
    desk.wait(0.4)
    assert kinds(client.new()) == ["0"]  # nothing was sent for ten seconds, but something was heard
    desk.wait(9.9)
    (test,) = client.new()
    assert test.kind == "1"
    assert client.send("0", (112, test[112])) == []
    desk.wait(9)
    assert (client.new(), ended(client)) == ([], False)


def test_nobody_answers_a_test_request(desk):
    client = desk.client("MUTE", _108="10")
    desk.wait(10.2)
    (test,) = client.new()
    assert (test.kind, bool(test[112])) == ("1", True)
    client.send("0", (112, "something else"))
    desk.wait(9.5)
    assert not ended(client)
    client.new()
    desk.wait(1)
    (logout,) = client.new()
    assert (logout.kind, ended(client)) == ("5", True)


def test_a_test_request_is_answered(desk):
    client = desk.client()
    (beat,) = client.send("1", (112, "hello"))
    assert beat.told(35, 112) == ("0", "hello")
    assert client.send("1")[0].told(35, 371, 25016) == ("3", "112", "-1102")


def test_news_before_the_venue_stops(desk):
    clients = [desk.client(), desk.client(key=CAROL)]
    desk.run(desk.server.shut_down)
    for client in clients:
        (news,) = client.new()
        assert news.told(35, 148) == ("B", FAREWELL)
        assert not ended(client)


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_order_its_cancel_and_its_refusals(desk):
    client = desk.client()
    (report,) = client.order("a")
    assert report.told(35, 11, 150, 39, 14, 151, 32, 636) == (
        "8",
        "a",
        "0",
        "0",
        "0.00000000",
        "1.00000000",
        "0.00000000",
        "Y",
    )
    order_id = report[37]
    (refused,) = client.order("a")
    assert refused.told(35, 11, 150, 39, 17, 25016, 58) == ("8", "a", "8", "8", None, "-2010", "Duplicate order sent.")
    (report,) = client.send("F", (11, "b"), (37, order_id), (55, "BTCUSDT"))
    assert report.told(35, 11, 41, 37, 150, 39, 151) == ("8", "b", "a", order_id, "4", "4", "0.00000000")
    (refused,) = client.send("F", (11, "c"), (41, "a"), (55, "BTCUSDT"), (25002, "1"))
    assert refused.told(35, 11, 41, 55, 434, 25016, 58) == (
        "9", "c", "a", "BTCUSDT", "1", "-2011", "Unknown order sent.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "tag", "reason", "code"),
    [
        ({"_44": None}, "44", "1", "-1102"),
        ({"_44": "1.123"}, "44", "6", "-1111"),
        ({"_38": "9" * 20}, "38", "6", "-1108"),
        ({"_55": "BTCEUR"}, None, "5", "-1121"),
        ({"_40": "1"}, "44", "99", "-1106"),
        ({"_152": "50"}, "152", "99", "-1106"),
        ({"_847": "5"}, None, "5", "-1134"),
        ({"_11": "no id"}, "11", "6", "-1100"),
        ({"_40": "P"}, None, "99", "-1020"),
        ({"_18": "6", "_40": "1"}, None, "99", "-1182"),
    ],
)
def test_orders_that_are_none_get_a_reject(desk, changed, tag, reason, code):
    (reject,) = desk.client().order(**changed)
    assert reject.told(35, 45, 371, 372, 373, 25016) == ("3", "2", tag, "D", reason, code)
    assert desk.venue.limits.orders(1).windows[0].count(desk.now_us()) == 0


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        ({"_38": "0.01"}, "-1013", "Filter failure: NOTIONAL"),
        ({"_38": "9999999"}, "-1013", "Filter failure: LOT_SIZE"),
        ({"_44": "150000", "_38": "50"}, "-2010", "Account has insufficient balance for requested action."),
        ({"_111": "0.5"}, "-2010", "Iceberg orders are not supported for this symbol."),
    ],
)  # fmt: skip
def test_refusals_have_the_words_of_the_other_protocols(desk, changed, code, text):
    client = desk.client()
    (report,) = client.order("x", **changed)
    assert report.told(35, 11, 150, 39, 25016, 58) == ("8", "x", "8", "8", code, text)


def stop(kind, direction, price, **changed):
    return {"_40": kind, "_1100": "4", "_1101": "1", "_1107": "2", "_1109": direction, "_1102": price} | changed


def test_a_trailing_stop(desk):
    (report,) = desk.client().order("x", **stop("3", "D", None, _44=None, _59=None, _54="2", _25009="50"))
    assert report.told(40, 150, 1100, 1102, 1109, 25009) == ("3", "0", "4", None, "D", "50")


def test_order_types_and_their_fills(desk):
    client = desk.client()
    (report,) = client.order("maker", _18="6", _59=None)
    assert report.told(40, 18, 59, 150) == ("2", "6", "1", "0")
    reports = client.order("taker", _40="1", _44=None, _59=None, _54="2", _38="0.5", _25001="1")
    assert [one.told(11, 150, 39) for one in reports] == [
        ("taker", "0", "0"), ("maker", "F", "1"), ("taker", "F", "2"),
    ]  # fmt: skip
    maker, taker = reports[1:]
    assert maker.told(31, 32, 14, 151, 1057, 136, 138, 139) == (
        "100.00000000", "0.50000000", "0.50000000", "0.50000000", "N", "1", "BTC", "4",
    )  # fmt: skip
    assert taker.told(31, 32, 14, 151, 1057, 137, 138) == (
        "100.00000000", "0.50000000", "0.50000000", "0.00000000", "Y", "0.10000000", "USDT",
    )  # fmt: skip
    assert maker[1003] == taker[1003]
    (report,) = client.order(_152="20", _38=None, _40="1", _44=None, _59=None)[:1]
    assert report.told(150, 25016) == ("8", "-2010")  # nobody sells


def test_stops_wait_and_go_off(desk):
    client = desk.client()
    client.order("bid", _38="5")
    client.order("seller", _54="2", _38="1", _59="3", _25001="1")  # the last price is 100
    (report,) = client.order("stop", **stop("4", "D", "99", _54="2", _44="50", _25001="1"))
    assert report.told(40, 1100, 1101, 1102, 1107, 1109, 150, 636, 25023) == (
        "4", "4", "1", "99.00000000", "2", "D", "0", None, None,
    )  # fmt: skip
    assert client.order(**stop("3", "D", "101", _54="2", _44=None, _59=None))[0].told(150, 58) == (
        "8",
        "Order would trigger immediately.",
    )
    (report,) = client.order("profit", **stop("3", "U", "120", _54="2", _44=None, _59=None))
    assert report.told(40, 1109, 44) == ("3", "U", None)
    client.order("low", _44="98", _38="3")
    reports = client.order("down", _54="2", _38="5", _44="98", _59="3", _25001="1")
    told = [one.told(11, 150, 636) for one in reports]
    assert ("stop", "0", "Y") in told
    assert ("stop", "F", None) in told


@pytest.mark.parametrize("desk", [2], indirect=True)
def test_orders_over_the_limit(desk):
    client = desk.client()
    client.order()
    client.order()
    (refused,) = client.order("late")
    assert refused.told(35, 11, 150, 25016) == ("8", "late", "8", "-1015")
    cancelled, refused = client.send("XCN", *order_fields("r", _25033="1", _41="o1", _25038="2"))
    assert (cancelled.told(150, 41), refused.told(150, 11, 25016)) == (("4", "o1"), ("8", "r", "-1015"))
    (refused,) = client.send("XCN", *order_fields("s", _25033="1", _41="o2", _25038="1"))
    assert refused.told(150, 11, 25016) == ("8", "s", "-1015")
    (limits,) = client.send("XLQ", (6136, "q"))
    text = "|".join(f"{tag}={value}" for tag, value in limits.fields[7:-1])
    assert text == (
        "6136=q|25003=3|25004=2|25005=7|25006=10000|25007=10|25008=s|25004=1|25005=2|25006=2|25007=10|25008=s|"
        "25004=1|25005=2|25006=200000|25007=1|25008=d"
    )


def test_orders_weigh_nothing(desk):
    client = desk.client()
    for _ in range(20):
        client.order(_38="0.01")
    assert desk.venue.limits.address("10.0.0.1").weight.count(desk.now_us()) == 0


def test_amending(desk):
    client = desk.client()
    (report,) = client.order("a")
    (report,) = client.send("XAK", (11, "b"), (37, report[37]), (55, "BTCUSDT"), (38, "0.4"))
    assert report.told(35, 11, 41, 150, 39, 38, 151) == ("8", "b", "a", "5", "0", "0.40000000", "0.40000000")
    (refused,) = client.send("XAK", (11, "c"), (41, "b"), (55, "BTCUSDT"), (38, "0.5"))
    assert refused.told(35, 11, 41, 55, 38, 25016) == ("XAR", "c", "b", "BTCUSDT", "0.5", "-2038")
    (refused,) = client.send("XAK", (11, "c"), (41, "b"), (55, "BTCUSDT"), (38, "0.4444444"))
    assert refused.told(35, 371, 25016) == ("3", "38", "-1111")


def test_cancelling_all(desk):
    client, other = desk.client(), desk.client(key=CAROL)
    desk.rig.client(ALICE).result("order.place", LIMIT | {"newClientOrderId": "elsewhere"})
    client.order("here")
    client.new()
    other.order("theirs")
    (before, *reports) = client.send("q", (11, "all"), (55, "BTCUSDT"), (530, "1"))
    assert before.told(35, 11, 55, 530, 531, 533) == ("r", "all", "BTCUSDT", "1", "1", "2")
    assert [one.told(35, 150, 41) for one in reports] == [("8", "4", "elsewhere"), ("8", "4", "here")]
    (refused,) = client.send("q", (11, "all"), (55, "BTCUSDT"), (530, "1"))
    assert refused.told(35, 531, 532, 25016) == ("r", "0", "99", "-2011")
    assert client.send("q", (11, "all"), (55, "X"), (530, "1"))[0].told(35, 25016) == ("3", "-1121")
    assert len(desk.rig.engine.open_orders(3, "BTCUSDT")) == 1


@pytest.mark.parametrize(
    ("mode", "target", "changed", "expected"),
    [
        ("1", "old", {}, [("8", "4", "old"), ("8", "0", None)]),
        ("1", "none", {}, [("9", None, "none")]),
        ("2", "none", {"_44": "150000", "_38": "50"}, [("9", None, "none"), ("8", "8", None)]),
        ("1", "old", {"_44": "150000", "_38": "50"}, [("8", "4", "old"), ("8", "8", None)]),
        ("2", "none", {}, [("9", None, "none"), ("8", "0", None)]),
    ],
)
def test_the_five_outcomes_of_a_cancel_replace(desk, mode, target, changed, expected):
    client, other = desk.client(), desk.client()
    client.order("old")
    other.new()
    found = client.send("XCN", *order_fields("new", _25033=mode, _41=target, **changed))
    assert [one.told(35, 150, 41) for one in found] == expected
    for one in found:
        assert (one[25016] is None) == (one.kind == "8" and one[150] != "8")
    if found[-1][150] in ("0", "8"):
        assert found[-1][11] == "new"
    assert [one.told(150, 11) for one in other.new()] == [
        one.told(150, 11) for one in found if one.kind == "8" and one[150] != "8"
    ]


def test_a_cancel_replace_that_is_not_tried(desk):
    client = desk.client()
    client.order("old")
    (refused,) = client.send("XCN", *order_fields("new", _25033="1", _41="old", _38="0.01"))
    assert refused.told(35, 11, 150, 25016) == ("8", "new", "8", "-1013")
    assert len(desk.rig.engine.open_orders(1, "BTCUSDT")) == 1


def test_a_receive_window(desk):
    client = desk.client()
    sent = time_text((desk.now_us() - 200_000) * 1000)
    assert kinds(client.send("D", (25000, "250"), *order_fields("a"), sent=sent)) == ["8"]
    (reject,) = client.send("D", (25000, "150"), *order_fields("b"), sent=sent)
    assert reject.told(35, 371, 373, 25016) == ("3", "52", "10", "-1021")
    assert kinds(client.send("D", *order_fields("c"), sent="20200101-00:00:00")) == ["8"]


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_session_of_an_account_hears_everything_it_does(desk):
    first, second, quiet, stranger = desk.client(), desk.client(), desk.client(_25036="2"), desk.client(key=CAROL)
    api = desk.rig.client(ALICE)
    api.result("order.place", LIMIT | {"newClientOrderId": "api"})
    for client in (first, second):
        (report,) = client.new()
        assert report.told(11, 150) == ("api", "0")
    assert (quiet.new(), stranger.new()) == ([], [])
    reports = stranger.order("cross", _54="2", _25001="1")
    assert [one.told(150, 11) for one in reports] == [("0", "cross"), ("F", "cross")]
    for client in (first, second):
        assert [one.told(150, 11, 1057) for one in client.new()] == [("F", "api", "N")]
    assert quiet.new() == []
    assert [one.told(150, 39) for one in quiet.order("mine")] == [("0", "0")]
    assert kinds(first.new()) == kinds(second.new()) == ["8"]
    assert [one.told(150) for one in quiet.order("mine")] == [("8",)]
    assert first.new() == second.new() == []  # what was refused is nobody else's


def test_only_answers(desk):
    """With ResponseMode 2 an order that trades at once is acknowledged, and its fills are not told."""
    desk.client(key=CAROL).order("maker", _54="2")
    client = desk.client(_25036="2")
    assert [one[150] for one in client.order("taker")] == ["0"]
    client.order("a", _44="90")
    (report,) = client.send("F", (11, "b"), (41, "a"), (55, "BTCUSDT"))
    assert report.told(150, 11, 41) == ("4", "b", "a")
    client.order("c", _44="90")
    assert kinds(client.send("q", (11, "all"), (55, "BTCUSDT"), (530, "1"))) == ["r", "8"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("2", [("taker", "0", "0"), ("taker", "C", "C")]),
        ("3", [("taker", "0", "0"), ("maker", "C", "C")]),
        ("4", [("taker", "0", "0"), ("maker", "C", "C"), ("taker", "C", "C")]),
        ("5", [("taker", "0", "0"), ("maker", "C", "C"), ("taker", "5", "0")]),
    ],
)
def test_self_trade_prevention(desk, mode, expected):
    client = desk.client()
    (maker,) = client.order("maker", _38="1")
    reports = client.order("taker", _38="3", _54="2", _25001=mode)
    assert [one.told(11, 150, 39) for one in reports] == expected
    for report in reports[1:]:
        assert report.told(25024, 25028) == ("0", "BTCUSDT")
        assert (
            report[25030] == report[25031] == ("1.00000000" if report[11] == "maker" or mode == "5" else "3.00000000")
        )
        assert report[25029] == (reports[0][37] if report[11] == "maker" else maker[37])
