"""Errors as the venue tells them: a code, a message, an HTTP status (protocol sheet, section 12)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

QUOTED = re.compile(r"'([A-Za-z]+)'")


class ApiError(Exception):
    """A request is refused. `data` goes along where the venue sends some; `retry_us` is when it may be tried again."""

    def __init__(self, code: int, msg: str, status: int = 400, data: Any = None, retry_us: int = 0) -> None:
        super().__init__(f"{code}: {msg}")
        self.code = code
        self.msg = msg
        self.status = status
        self.data = data
        self.retry_us = retry_us

    def body(self) -> dict[str, Any]:
        """Give the JSON object that says so."""
        body: dict[str, Any] = {"code": self.code, "msg": self.msg}
        if self.data is not None:
            body["data"] = self.data
        return body

    def about(self, names: Mapping[str, str]) -> ApiError:
        """Say the same with other names for the parameters in quotes."""
        msg = QUOTED.sub(lambda found: f"'{names.get(found[1], found[1])}'", self.msg)
        return ApiError(self.code, msg, self.status, self.data, self.retry_us)


def missing(name: str) -> ApiError:
    """Say that a mandatory parameter is not there, is empty, or is not what it should be."""
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def invalid(name: str) -> ApiError:
    """Say that a parameter's value is none of those allowed."""
    return ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
