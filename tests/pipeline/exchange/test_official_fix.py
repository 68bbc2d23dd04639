"""The venue's own FIX connector: it logs on over TLS, trades and logs out, and never knows."""

from __future__ import annotations

import pytest
from binance_fix_connector.fix_connector import create_drop_copy_session, create_order_entry_session
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.pipeline.exchange.exchange_rig import ED25519_PEM, TRADER, running

LIMIT = {38: "1", 40: "2", 44: "100", 54: "1", 55: "BTCUSDT", 59: "1"}
PRIVATE = load_pem_private_key(ED25519_PEM.encode(), None)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    with running(folder, tls={"generate": "tls"}) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "tls" / "authority.pem"))
        yield found


class Desk:
    """A session of the connector, and what it was told."""

    def __init__(self, rig, create=create_order_entry_session, **choices):
        endpoint = f"tcp+tls://localhost:{rig.fix_port}"
        self.connector = create(TRADER, PRIVATE, endpoint, **choices)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.connector.disconnect()
        self.connector.receive_thread.join(30)

    def send(self, kind, fields):
        """Send a message as the connector's own examples do."""
        message = self.connector.create_fix_message_with_basic_header(kind)
        for tag, value in fields.items():
            message.append_pair(tag, value)
        self.connector.send_message(message)

    def until(self, kind):
        """Give what comes up to a kind of message, field by field."""
        found = [
            {int(tag): value.decode() for tag, value in message.pairs}
            for message in self.connector.retrieve_messages_until(kind, timeout_seconds=30)
        ]
        assert found, f"no {kind} came"
        assert found[-1][35] == kind, found
        return found

    def told(self, kind, *tags):
        """Give some fields of the next message of a kind."""
        last = self.until(kind)[-1]
        return tuple(last.get(tag) for tag in tags)


def test_a_day_of_trading(rig):
    with Desk(rig) as desk:
        assert desk.told("A", 49, 56, 98, 108) == ("SPOT", "BOETRADE", "0", "30")
        desk.send("D", {11: "a", **LIMIT})
        assert desk.told("8", 11, 150, 39, 14, 151) == ("a", "0", "0", "0.00000000", "1.00000000")
        desk.send("XAK", {11: "b", 41: "a", 55: "BTCUSDT", 38: "0.5"})
        assert desk.told("8", 11, 41, 150, 151) == ("b", "a", "5", "0.50000000")
        desk.send("XCN", {25033: "1", 41: "b", 25034: "c", 11: "d", **LIMIT, 44: "99"})
        assert desk.told("8", 11, 41, 150) == ("c", "b", "4")
        assert desk.told("8", 11, 150, 44) == ("d", "0", "99.00000000")
        desk.send("D", {11: "e", 40: "1", 54: "2", 55: "BTCUSDT", 38: "1", 25001: "1"})
        assert desk.told("8", 11, 150) == ("e", "0")
        assert desk.told("8", 11, 150, 39, 31, 1057, 138) == ("d", "F", "2", "99.00000000", "N", "BTC")
        assert desk.told("8", 11, 150, 39, 31, 1057, 138) == ("e", "F", "2", "99.00000000", "Y", "USDT")
        desk.send("F", {11: "f", 41: "d", 55: "BTCUSDT"})
        assert desk.told("9", 11, 41, 25016, 58) == ("f", "d", "-2011", "Unknown order sent.")
        desk.send("D", {11: "g", **LIMIT})
        desk.send("q", {11: "h", 55: "BTCUSDT", 530: "1"})
        assert desk.told("r", 11, 531, 533) == ("h", "1", "1")
        assert desk.told("8", 41, 150) == ("g", "4")
        desk.send("XLQ", {6136: "i"})
        assert desk.told("XLR", 6136, 25003) == ("i", "3")
        desk.connector.test_request("j")
        assert desk.told("0", 112) == ("j",)
        desk.send("D", {11: "k", **LIMIT, 40: "7"})
        assert desk.told("3", 371, 25016, 58) == ("40", "-1116", "Invalid orderType.")
        desk.connector.logout()
        assert desk.told("5", 58) == ("Logout acknowledgment.",)


def test_what_the_connector_may_choose(rig):
    with Desk(
        rig, sender_comp_id="ACK", heart_bt_int=5, response_mode=2, message_handling=1, recv_window="2000"
    ) as desk:
        assert desk.told("A", 56, 108) == ("BOEACK", "5")
        desk.send("D", {11: "a", **LIMIT})
        assert desk.told("8", 150) == ("0",)
        desk.connector.logout()
        desk.until("5")


def test_a_drop_copy_session_is_sent_elsewhere(rig):
    with Desk(rig, create_drop_copy_session) as desk:
        assert desk.told("3", 371, 25016) == ("9406", "-1184")
