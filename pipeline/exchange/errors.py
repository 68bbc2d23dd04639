"""Errors as the venue tells them: a code, a message, an HTTP status (protocol sheet, section 12)."""

from __future__ import annotations

from typing import Any


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


def missing(name: str) -> ApiError:
    """Say that a mandatory parameter is not there, is empty, or is not what it should be."""
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def invalid(name: str) -> ApiError:
    """Say that a parameter's value is none of those allowed."""
    return ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
