"""A certificate authority for the tests, and a server's certificate by it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

from shrivenq.pipeline.exchange.tls import generate


def make(folder, *, address="127.0.0.1", days=1):
    """Make both, valid for so many days; return the authority's file and a server context."""
    files = generate(folder, [address], now=datetime.now(UTC) + timedelta(days=days - 1), lifetime=timedelta(days=1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return files.authority, context
