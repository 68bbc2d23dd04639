"""`shrivenq kill cancel` and a venue that is not as it should be: a clear report, exit code 3, no traceback.

The pipeline is dead: what the command says is all there is.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import subprocess
import threading

import pytest

from shrivenq.pipeline import kill, state, venue_cancel
from shrivenq.pipeline.exchange.tls import generate
from shrivenq.pipeline.venue_cancel import Place
from tests.pipeline.command_rig import MAIN
from tests.pipeline.exchange.exchange_rig import ED25519_PEM, TRADER, running
from tests.pipeline.test_venue_cancel import open_orders, rest_orders

NAME = "test-kill-hostile"
NAMES = ["localhost", "127.0.0.1"]
OTHER_PEM = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(venue_cancel, "ARRIVAL_S", 0.0)
    monkeypatch.setattr(venue_cancel, "RETRY_S", 0.001)
    monkeypatch.setattr(venue_cancel, "LONGEST_S", 1.0)


def key_file(folder, api_key=TRADER, pem=ED25519_PEM, **more):
    path = folder / "key"
    lines = {"environment": '"simulator"', "purpose": '"trade"', "api_key": f'"{api_key}"', **more}
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    path.write_text(f'{text}private_key = """\n{pem}"""\n')
    path.chmod(0o600)
    return path


@pytest.fixture
def ask(tmp_path, capsys):
    """Run the command for a dead pipeline that traded at `url`; give what it said of each symbol."""

    def command(url, key, *, authority="", symbols=("BTCUSDT",)):
        remember(url, key, authority=authority, symbols=symbols)
        return said_of(capsys)

    return command


def remember(url, key, **more):
    more = {"authority": "", "symbols": ["BTCUSDT"]} | more
    venue_cancel.remember(NAME, Place(rest_url=url, key=f"file:{key}", **more | {"symbols": list(more["symbols"])}))


def said_of(capsys):
    """Run the command; nothing is confirmed, and it gives why."""
    assert kill.main(["cancel", NAME, "--reason", "the test", "--json"]) == 3
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert not any(one["confirmed"] for one in report["confirmed"])
    said = [one["problem"] for one in report["confirmed"]]
    assert all(one.isprintable() and len(one) < 500 for one in said)
    assert not any(secret in output.out + output.err for secret in (TRADER, "signature=", "MC4CAQ"))
    assert state.armed(NAME) is None
    return said


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    with running(tmp_path_factory.mktemp("venue")) as made:
        yield made


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"api_key": "NOBODY"}, "-2015 Invalid API-key"),
        ({"pem": OTHER_PEM}, "-1022 Signature for this request is not valid"),
        ({"expires": "2020-01-01"}, "expired on 2020-01-01"),
        ({"environment": '"production"'}, "is for production, the endpoint"),
        ({"purpose": '"data"'}, 'purpose is "data"'),
        ({"pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "not a private key"),
    ],
)
def test_a_key_that_will_not_do(tmp_path, ask, venue, key, said):
    rest_orders(venue, {"BTCUSDT": 1})
    before = open_orders(venue)
    (problem,) = ask(venue.rest, key_file(tmp_path, **key))
    assert said in problem
    assert open_orders(venue) == before


def test_a_key_that_is_not_there(tmp_path, ask, venue):
    (problem,) = ask(venue.rest, tmp_path / "none")
    assert problem == f"key file {tmp_path / 'none'}: cannot be read: No such file or directory"


def test_every_symbol_is_told_of(tmp_path, ask):
    with socket.socket() as one:  # bound, and nobody listens
        one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{one.getsockname()[1]}"
        said = ask(url, key_file(tmp_path), symbols=("BTCUSDT", "ETHUSDT"))
    assert len(said) == 2
    assert all("Connection refused" in problem for problem in said)


@pytest.mark.parametrize(
    ("names", "days", "trusted", "said"),
    [
        (NAMES, 0, False, "unable to get local issuer certificate"),
        (["elsewhere.test"], 0, True, "IP address mismatch"),
        (NAMES, -60, True, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_the_venue_s(tmp_path, ask, names, days, trusted, said):
    files = generate(tmp_path / "made", names, now=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
    with running(tmp_path, tls={"certificate": "made/certificate.pem", "key": "made/key.pem"}) as rig:
        url = rig.rest.replace("http:", "https:")
        (problem,) = ask(url, key_file(tmp_path), authority=str(files.authority) if trusted else "")
    assert said in problem


def test_certificates_that_are_none(tmp_path, ask, venue):
    url = venue.rest.replace("http:", "https:")
    missing = tmp_path / "none.pem"
    (problem,) = ask(url, key_file(tmp_path), authority=str(missing))
    assert str(missing) in problem
    (problem,) = ask(url, key_file(tmp_path))
    assert "SSL" in problem


@contextlib.contextmanager
def answering(*chunks, pause_s=0.0):
    """Serve every connection the same bytes, chunk by chunk, whatever it asks; give the URL."""
    over = threading.Event()

    def serve(listener):
        while not over.is_set():
            with contextlib.suppress(OSError), listener.accept()[0] as one:
                one.settimeout(10)
                one.recv(65_536)
                for chunk in chunks:
                    one.sendall(chunk)
                    if over.wait(pause_s):
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=serve, args=(listener,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def http(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed connection without response"),
        (b"\x00\xff" * 100, "GET /api/v3/openOrders: ?ÿ?"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000, "got more than 100 headers"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "status line"),
        (http(b""), "expected a list"),
        (http(b"<html>"), "expected a list, found <html>"),
        (http(b"\xff\xfe"), "expected a list"),
        (http(b"[" * 200_000), "expected a list"),
        (http(b"9" * 10_000), "expected a list"),
        (http(b"{}"), "expected a list"),
        (http(b"null"), "expected a list"),
        (http(b'"' + b"x" * 5_000 + b'"'), "expected a list"),
        (http(b"[]" + b" " * (1 << 24)), "too long"),
        (http(b"no", "302 Found", "Location: http://127.0.0.1:9/"), "HTTP 302:  no"),
        (
            http(b'{"code":-1003,"msg":"Too many requests."}', "429 No", "Retry-After: 9"),
            "requests.; no requests for 9 s",
        ),
        (http(b'{"code":-1003,"msg":"banned"}', "418 No"), "418"),
        (http(b'{"code":[1],"msg":{"a":"\\n"}}', "400 No"), "400"),
        (http(b'{"code":-2011,"msg":"Unknown order sent."}', "500 No"), "500"),
        (http(b'{"code":-2011,"msg":"Unknown order sent."}', "400 No"), "400"),  # to a question
        (http(b"", "403 Forbidden"), "403"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ""),
    ],
    ids=lambda one: repr(one[:40]),
)
def test_what_is_no_answer(tmp_path, ask, answer, said):
    with answering(answer) as url:
        (problem,) = ask(url, key_file(tmp_path))
    assert said in problem


def test_an_answer_that_never_ends(tmp_path, ask, monkeypatch):
    """Bytes keep coming, so that no read is ever late: the command ends all the same."""
    monkeypatch.setattr(venue_cancel, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(venue_cancel, "TRIES", 0)
    chunks = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"["] * 1000]
    for sent in (chunks, [b"HTTP/1.1 200 OK\r\nx: ", *[b"x"] * 1000]):
        with answering(*sent, pause_s=0.1) as url:
            (problem,) = ask(url, key_file(tmp_path))
        assert "no answer in 0.5 s" in problem


def test_a_venue_that_does_not_cancel(tmp_path, ask):
    """It says every time that there is one order open, and that it has cancelled it: never confirmed."""
    with answering(http(b'[{"orderId":1}]')) as url:
        (problem,) = ask(url, key_file(tmp_path))
    assert problem == "1 orders are open"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"rest_url":1}', '{"rest_url":"http://[","authority":"","key":"x","symbols":[]}', "\x00"]
)
def test_a_note_of_the_venue_that_is_none(tmp_path, capsys, text):
    remember("http://127.0.0.1:9", "none")
    (tmp_path / "state" / NAME / state.LIVE).write_text(text)
    (problem,) = said_of(capsys)
    assert problem


def test_the_operator_sees_lines_and_no_traceback(tmp_path, venue):
    """As a process of its own, with what once ended it."""
    with answering(http(b"[" * 200_000)) as url:
        remember(url, key_file(tmp_path), symbols=["BTCUSDT", "ETHUSDT"])
        found = subprocess.run(
            [*MAIN, "kill", "cancel", NAME], check=False, capture_output=True, text=True, timeout=120
        )
    assert found.returncode == 3
    assert found.stderr == f"{NAME}: looking at the venue for 13 s: what was on its way may still arrive\n"
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"{NAME}: not running; will start killed (cancel)")
    assert lines[1].startswith(f"{NAME}: cancel NOT confirmed by venue: BTCUSDT (BTCUSDT: openOrders: expected a list")
    assert lines[2].startswith(f"{NAME}: cancel NOT confirmed by venue: ETHUSDT")
