"""Reading tables: every mistake, one line each, and nothing that is none."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from shrivenq.pipeline.tables import allowed, read_table


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1, le=8)]
    rate: float = 1.0


class Picky(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    low: int
    high: int
    text: str
    many: int = 3

    def __post_init__(self):
        for key in ("low", "high", "many"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: found {getattr(self, key)}, allowed: above 0")
        if self.text == "":
            raise ValueError("text is something, not nothing")
        if self.low > self.high:
            raise ValueError(f"low: found {self.low}, allowed: at most high, {self.high}")


class Outer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mode: Literal["a", "b"]
    inner: Inner
    picky: Picky | None = None
    named: dict[str, Inner] = {}
    pace: Literal["flat"] | float = "flat"
    params: dict[str, int | float | bool] = {}
    words: list[str] = []
    on: bool = False


GOOD = {"mode": "a", "inner": {"size": 3}}


def test_a_good_table_becomes_its_struct():
    made, errors = read_table({**GOOD, "named": {"x": {"size": 1, "rate": 2}}, "pace": 3}, Outer, "")
    assert errors == []
    assert made == Outer(mode="a", inner=Inner(size=3), named={"x": Inner(size=1, rate=2.0)}, pace=3.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "c"}, ['mode: found "c", allowed: "a" or "b"']),
        ({"mode": 1}, ['mode: found 1, allowed: "a" or "b"']),
        ({"colour": 1}, ["colour: unknown, allowed: mode, inner, picky, named, pace, params, words, on"]),
        ({"inner": 5}, ["inner: found 5, allowed: a table"]),
        ({"inner": {}}, ["inner.size: missing, allowed: a whole number from 1 to 8"]),
        ({"inner": {"size": 9}}, ["inner.size: found 9, allowed: a whole number from 1 to 8"]),
        ({"inner": {"size": True}}, ["inner.size: found true, allowed: a whole number from 1 to 8"]),
        ({"inner": {"size": "3"}}, ['inner.size: found "3", allowed: a whole number from 1 to 8']),
        ({"inner": {"size": 3.5}}, ["inner.size: found 3.5, allowed: a whole number from 1 to 8"]),
        ({"inner": {"size": 3, "rate": float("nan")}}, ["inner.rate: found nan, allowed: a finite number"]),
        ({"params": {"x": float("inf")}}, ["params.x: found inf, allowed: a finite number"]),
        ({"words": ["a", float("nan")]}, ["words[1]: found nan, allowed: a finite number"]),
        ({"words": [1]}, ["words: found [1], allowed: a list: each a string"]),
        (
            {"named": {"x": 1, "y": {}}},
            ["named.x: found 1, allowed: a table", "named.y.size: missing, allowed: a whole number from 1 to 8"],
        ),
        ({"named": 3}, ["named: found 3, allowed: tables [named.NAME]"]),
        ({"pace": "fast"}, ['pace: found "fast", allowed: "flat" or a number']),
        ({"on": 1}, ["on: found 1, allowed: true or false"]),
        ({"on": {"a": 1}}, ["on: found a table, allowed: true or false"]),
        (
            {"mode": "x\ny" * 50},
            [
                'mode: found "'
                + "x yx yx yx yx yx yx yx yx yx yx yx yx yx yx yx yx yx yx yx"[:56]
                + '…, allowed: "a" or "b"'
            ],
        ),
    ],
)
def test_each_mistake_is_said(change, said):
    made, errors = read_table({**GOOD, **change}, Outer, "")
    assert made is None
    assert errors == said


def test_all_mistakes_are_said_at_once():
    table = {"mode": "z", "inner": {"size": 0, "extra": 1}, "wrong": 1, "on": "no"}
    _, errors = read_table(table, Outer, "")
    assert sorted(one.split(":")[0] for one in errors) == ["inner.extra", "inner.size", "mode", "on", "wrong"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"low": 0, "high": 0, "text": "a"}, ["p.low: found 0, allowed: above 0", "p.high: found 0, allowed: above 0"]),
        (
            {"low": 0, "high": -1, "text": "", "many": 0},
            [
                "p.low: found 0, allowed: above 0",
                "p.high: found -1, allowed: above 0",
                "p.many: found 0, allowed: above 0",
                "p.text is something, not nothing",
            ],
        ),
        ({"low": 5, "high": 2, "text": "a"}, ["p.low: found 5, allowed: at most high, 2"]),
        # What is missing is said once, and nothing is concluded from it.
        ({"low": 5, "text": "a"}, ["p.high: missing, allowed: a whole number"]),
        ({"low": -5, "text": "a"}, ["p.high: missing, allowed: a whole number", "p.low: found -5, allowed: above 0"]),
        ({"low": 5, "high": "x", "text": ""}, ['p.high: found "x", allowed: a whole number']),
    ],
)
def test_what_a_struct_checks_itself_is_said_too(table, said):
    made, errors = read_table(table, Picky, "p")
    assert made is None
    assert errors[: len(said)] == said
    assert all(one in said or "something" in one for one in errors)


def test_types_in_words():
    assert allowed(Annotated[float, msgspec.Meta(gt=0, lt=2.5)]) == "a number above 0 below 2.5"
    assert allowed(Annotated[str, msgspec.Meta(pattern="^a$")]) == "a string that matches ^a$"
    assert allowed(Inner) == "a table"
    assert allowed(dict[str, int]) == "a table: each a whole number"
    assert allowed(int | None) == "a whole number"
