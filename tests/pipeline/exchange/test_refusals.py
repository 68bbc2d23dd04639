"""The venue's codes and texts for refusals."""

from __future__ import annotations

import pytest

from shrivenq.pipeline.exchange.refusals import CODE, ERRORS, REJECTIONS, error_of, missing, not_required


def test_codes_are_places_in_the_table():
    assert CODE["none"] == 0
    assert ERRORS[0] is None
    assert len(CODE) == len(ERRORS)
    for name, code in CODE.items():
        if name != "none":
            assert error_of(name) is ERRORS[code]
            assert error_of(name).code < 0
            assert error_of(name).msg


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
        (-2010, "Account has insufficient balance for requested action."),
        (-2010, "Order would immediately match and take."),
        (-2010, "Order would trigger immediately."),
        (-2010, "Duplicate order sent."),
        (-2010, "Market is closed."),
        (-2011, "Unknown order sent."),
        (-2011, "Order was not canceled due to cancel restrictions."),
        (-2013, "Order does not exist."),
        (-1121, "Invalid symbol."),
    ],
)
def test_texts_of_the_protocol_sheet(code, text):
    assert (code, text) in ERRORS


def test_parameters_are_named():
    assert missing("price") == (-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.")
    assert not_required("price") == (-1106, "Parameter 'price' sent when not required.")


def test_reject_reasons_of_execution_reports():
    assert REJECTIONS[CODE["balance"]] == "INSUFFICIENT_BALANCES"
    assert set(REJECTIONS) < set(CODE.values())
