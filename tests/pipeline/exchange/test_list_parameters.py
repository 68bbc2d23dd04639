"""The names of what each order of a list says."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.list_parameters import LEGS, PLAIN, names_of, parameters_of


@pytest.mark.parametrize("method", LEGS)
def test_every_order_has_a_type_a_side_and_a_quantity(method):
    for leg in LEGS[method]:
        assert {"type", "side", "quantity", "price", "stopPrice"} <= set(names_of(leg).values())
    mandatory, optional = parameters_of(method)
    assert not set(mandatory) & set(optional)
    assert {"symbol", f"{LEGS[method][0]}Type", f"{LEGS[method][-1]}Type"} <= set(mandatory)


def test_a_plain_name_is_that_of_an_order():
    assert (PLAIN["pendingAboveStopPrice"], PLAIN["workingClientOrderId"]) == ("stopPrice", "newClientOrderId")
    assert "side" not in PLAIN
    assert names_of("above")["quantity"] == "quantity"
    assert names_of("pendingBelow")["pendingSide"] == "side"
