from shrivenq.pipeline.exchange.errors import ApiError, invalid, missing


def test_an_error_is_a_code_and_a_message():
    assert ApiError(-1121, "Invalid symbol.").body() == {"code": -1121, "msg": "Invalid symbol."}
    assert ApiError(-2021, "m", 409, {"a": 1}).body() == {"code": -2021, "msg": "m", "data": {"a": 1}}


def test_parameters_are_named():
    assert missing("price").body() == {
        "code": -1102,
        "msg": "Mandatory parameter 'price' was not sent, was empty/null, or malformed.",
    }
    assert invalid("limit").body() == {"code": -1130, "msg": "Data sent for parameter 'limit' is not valid."}
