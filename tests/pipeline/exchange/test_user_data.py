"""User data: every field of every event, and who is sent what."""

from __future__ import annotations

import msgspec
import pytest

from shrivenq.pipeline.exchange import user_data
from shrivenq.pipeline.exchange.errors import ApiError
from shrivenq.pipeline.exchange.payloads import Format
from shrivenq.pipeline.exchange.types import BalanceEvent, DepositEvent, Fill, OrderEvent, OrderView, Symbol

SYMBOL = Symbol(name="ETHBTC", base="ETH", quote="BTC", price_decimals=8, quantity_decimals=8, tick=1, step=1)
ORDER = OrderView(
    account=1, symbol="ETHBTC", order_id=4293153, client_id="mUvoqJxFIILMdfAW5iGSOW", side="BUY", type="LIMIT",
    time_in_force="GTC", price=10264410, quantity=100000000, quote_quantity=0, stop_price=0, executed=0,
    cumulative_quote=0, status="NEW", stp="NONE", prevented=0, prevented_match_id=-1, created_us=1499405658657000,
    updated_us=1499405658657000, working_us=1499405658657000, expiry_reason=None, strategy_id=None, strategy_type=None,
    amends=0, trade_group=-1,
)  # fmt: skip
NEW = OrderEvent(
    account=1, order=ORDER, execution="NEW", execution_id=8641984, time_us=1499405658657000,
    client_id="mUvoqJxFIILMdfAW5iGSOW", original_client_id="", reject_reason="NONE", fill=None,
)  # fmt: skip
NEW_JSON = {
    "e": "executionReport", "E": 1499405658658, "s": "ETHBTC", "c": "mUvoqJxFIILMdfAW5iGSOW", "S": "BUY", "o": "LIMIT",
    "f": "GTC", "q": "1.00000000", "p": "0.10264410", "P": "0.00000000", "F": "0.00000000", "g": -1, "C": "",
    "x": "NEW", "X": "NEW", "r": "NONE", "i": 4293153, "l": "0.00000000", "z": "0.00000000", "L": "0.00000000",
    "n": "0", "N": None, "T": 1499405658657, "t": -1, "I": 8641984, "w": True, "m": False, "M": False,
    "O": 1499405658657, "Z": "0.00000000", "Y": "0.00000000", "Q": "0.00000000", "W": 1499405658657, "V": "NONE",
}  # fmt: skip
"""The protocol sheet's example, section 9."""
REPLACE = msgspec.structs.replace


class StubVenue:
    """As much of a venue as user data needs."""

    formats = {"ETHBTC": Format(SYMBOL)}  # noqa: RUF012
    asset_decimals = {"ETH": 8, "BTC": 8}  # noqa: RUF012

    def now_us(self):
        return 1499405658658000

    def listen(self, listener):
        self.listener = listener


class StubClient:
    """A connection that keeps what it is sent."""

    def __init__(self, unit=1000):
        self.unit = unit
        self.sent = []

    def time(self, time_us):
        return time_us // self.unit

    def send_event(self, name, message):
        assert message["event"]["e"] == name
        self.sent.append(message)


@pytest.fixture
def everybody():
    return user_data.UserData(StubVenue())


def shape(everybody, event):
    return everybody.shape(event, lambda time_us: time_us // 1000)


def test_the_sheets_execution_report(everybody):
    made = shape(everybody, NEW)
    assert made == NEW_JSON
    assert list(made)[:-1] == [key for key in NEW_JSON if key != "W"]


def test_an_iceberg(everybody):
    made = shape(everybody, REPLACE(NEW, order=REPLACE(ORDER, iceberg=5)))
    assert made == NEW_JSON | {"F": "0.00000005"}


def test_a_trade(everybody):
    fill = Fill(
        account=1, symbol="ETHBTC", order_id=4293153, trade_id=77, price=10264409, quantity=40000000, quote=4105763,
        commission=40000, commission_asset="ETH", time_us=1, is_buyer=True, is_maker=True,
    )  # fmt: skip
    order = REPLACE(ORDER, executed=40000000, cumulative_quote=4105763, status="PARTIALLY_FILLED")
    made = shape(everybody, REPLACE(NEW, order=order, execution="TRADE", fill=fill))
    changed = {key: value for key, value in made.items() if NEW_JSON[key] != value}
    assert changed == {
        "x": "TRADE", "X": "PARTIALLY_FILLED", "l": "0.40000000", "z": "0.40000000", "L": "0.10264409",
        "n": "0.00040000", "N": "ETH", "t": 77, "m": True, "M": True, "Z": "0.04105763", "Y": "0.04105763",
    }  # fmt: skip


def test_a_cancel_names_itself_and_the_order(everybody):
    order = REPLACE(ORDER, status="CANCELED")
    made = shape(everybody, REPLACE(NEW, order=order, execution="CANCELED", client_id="x", original_client_id="mine"))
    assert (made["x"], made["X"], made["c"], made["C"], made["w"]) == ("CANCELED", "CANCELED", "x", "mine", False)


def test_a_stop_that_waits_has_no_working_time(everybody):
    order = REPLACE(ORDER, type="STOP_LOSS_LIMIT", stop_price=5, working_us=0, strategy_id=3, strategy_type=1000000)
    made = shape(everybody, REPLACE(NEW, order=order))
    assert "W" not in made
    assert (made["w"], made["P"], made["j"], made["J"]) == (False, "0.00000005", 3, 1000000)


def test_a_trailing_stop_says_since_when_it_follows(everybody):
    order = REPLACE(ORDER, type="STOP_LOSS", working_us=0, trailing_delta=25)
    made = shape(everybody, REPLACE(NEW, order=order))
    assert (made["d"], "D" in made) == (25, False)
    made = shape(everybody, REPLACE(NEW, order=REPLACE(order, trailing_us=1_499_405_658_657_999)))
    assert made["D"] == 1_499_405_658_657


def test_an_expiry_says_why(everybody):
    order = REPLACE(ORDER, status="EXPIRED", expiry_reason="UNFILLED_IOC_QUANTITY_EXPIRED")
    assert shape(everybody, REPLACE(NEW, order=order, execution="EXPIRED"))["eR"] == "UNFILLED_IOC_QUANTITY_EXPIRED"


def test_a_rejection_says_why(everybody):
    order = REPLACE(ORDER, status="REJECTED", working_us=0)
    made = shape(everybody, REPLACE(NEW, order=order, execution="REJECTED", reject_reason="INSUFFICIENT_BALANCES"))
    assert (made["x"], made["X"], made["r"]) == ("REJECTED", "REJECTED", "INSUFFICIENT_BALANCES")


def test_a_prevention_has_all_its_fields(everybody):
    order = REPLACE(ORDER, status="EXPIRED_IN_MATCH", prevented=30000000, prevented_match_id=0, trade_group=5)
    event = REPLACE(
        NEW, order=order, execution="TRADE_PREVENTION", prevented_quantity=30000000, counter_order_id=99,
        transferred_quantity=1, transferred_price=2, transferred_quote=3,
    )  # fmt: skip
    made = shape(everybody, event)
    wanted = {
        "v": 0, "A": "0.30000000", "B": "0.30000000", "u": 5, "U": 99, "Cs": "ETHBTC", "pl": "0.00000001",
        "pL": "0.00000002", "pY": "0.00000003",
    }  # fmt: skip
    assert {key: made.get(key) for key in wanted} == wanted
    plain = shape(everybody, REPLACE(event, transferred_quantity=0))
    assert not plain.keys() & {"pl", "pL", "pY"}


def test_balances_and_deposits(everybody):
    event = BalanceEvent(account=1, balances=(("ETH", 150000000, 0), ("BTC", 1, 2)), time_us=9000)
    assert shape(everybody, event) == {
        "e": "outboundAccountPosition", "E": 1499405658658, "u": 9,
        "B": [{"a": "ETH", "f": "1.50000000", "l": "0.00000000"}, {"a": "BTC", "f": "0.00000001", "l": "0.00000002"}],
    }  # fmt: skip
    assert shape(everybody, DepositEvent(account=1, asset="BTC", delta=-7, time_us=9000)) == {
        "e": "balanceUpdate", "E": 1499405658658, "a": "BTC", "d": "-0.00000007", "T": 9,
    }  # fmt: skip


def test_each_account_has_its_own_listeners(everybody):
    clients = [StubClient(), StubClient(unit=1)]
    followed = [user_data.Subscriptions(everybody, client) for client in clients]
    assert followed[0].subscribe(1, by_session=True) == 0
    assert followed[0].subscribe(2, by_session=False) == 1
    assert followed[1].subscribe(2, by_session=False) == 0
    everybody.take([NEW, REPLACE(NEW, account=2), REPLACE(NEW, account=3)])
    assert [message["subscriptionId"] for message in clients[0].sent] == [0, 1]
    assert [message["event"]["T"] for message in clients[1].sent] == [1499405658657000]
    followed[0].end_all()
    everybody.take([NEW, REPLACE(NEW, account=2)])
    assert len(clients[0].sent) == 2
    assert len(clients[1].sent) == 2


def test_subscriptions_of_a_connection(everybody):
    followed = user_data.Subscriptions(everybody, StubClient())
    with pytest.raises(ApiError) as refused:
        followed.find(None)
    assert refused.value.code == -2036
    followed.subscribe(1, by_session=True)
    with pytest.raises(ApiError) as refused:
        followed.subscribe(1, by_session=False)
    assert refused.value.code == -2035
    followed.subscribe(2, by_session=False)
    assert [one.id for one in followed.of_session()] == [0]
    assert [one.account for one in followed.find(1)] == [2]
    with pytest.raises(ApiError, match="not active"):
        followed.find(2)
    followed.end(followed.find(0))
    assert followed.subscribe(1, by_session=True) == 2


def test_a_connection_cannot_follow_without_end(everybody):
    followed = user_data.Subscriptions(everybody, StubClient())
    for account in range(user_data.ACTIVE_MAX):
        followed.subscribe(account, by_session=False)
    with pytest.raises(ApiError) as refused:
        followed.subscribe(-1, by_session=False)
    assert refused.value.code == -2042
    followed.end_all()
    for number in range(user_data.ACTIVE_MAX, user_data.LIFETIME_MAX):
        assert followed.subscribe(1, by_session=False) == number
        followed.end_all()
    with pytest.raises(ApiError) as refused:
        followed.subscribe(1, by_session=False)
    assert refused.value.code == -2042
