"""Certificates: the authority is trusted, nobody else is."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import websockets.sync.client
from cryptography import x509

from shrivenq.pipeline.exchange.tls import generate
from tests.pipeline.exchange.exchange_rig import running

NAMES = ["localhost", "127.0.0.1"]


def test_what_is_made(tmp_path):
    files = generate(tmp_path / "made", NAMES)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=30)
    again = generate(tmp_path / "made", NAMES)
    assert again == files
    assert x509.load_pem_x509_certificate(files.authority.read_bytes()) != authority


def test_a_client_that_trusts_the_authority_is_served_and_no_other(tmp_path):
    with running(tmp_path, tls={"generate": "tls", "names": NAMES}) as rig:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "tls" / "authority.pem"))
        url = rig.rest.replace("http:", "https:") + "/api/v3/ping"
        with httpx.Client(verify=trusting) as client:
            assert client.get(url).json() == {}
        socket = rig.ws.replace("ws:", "wss:") + "/ws"
        with websockets.sync.client.connect(socket, ssl=trusting) as one:
            one.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            assert one.recv(30) == '{"result":[],"id":1}'
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(url)
        with httpx.Client(verify=trusting) as client, pytest.raises(httpx.TransportError):
            client.get(url.replace("https:", "http:"))


@pytest.mark.parametrize(
    ("names", "began", "said"),
    [(["elsewhere.test"], timedelta(), "certificate is not valid for"), (NAMES, timedelta(days=-60), "has expired")],
)
def test_a_wrong_name_or_an_old_certificate_is_refused(tmp_path, names, began, said):
    files = generate(tmp_path / "made", names, now=datetime.now(UTC) + began)
    with running(tmp_path, tls={"certificate": "made/certificate.pem", "key": "made/key.pem"}) as rig:
        trusting = ssl.create_default_context(cafile=str(files.authority))
        with httpx.Client(verify=trusting) as client, pytest.raises(httpx.ConnectError, match=said):
            client.get(rig.rest.replace("http:", "https:") + "/api/v3/ping")
