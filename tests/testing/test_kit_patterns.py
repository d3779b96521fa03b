"""The kit's patterns: what matches, and why something else does not."""

import re
from typing import Any, Optional
from unittest import mock

import pytest

from slipstream_trio.testing.kit import ANY, Including, including, mismatch
from slipstream_trio.testing.kit.expectations import text_mismatch


def never(payload: Any) -> bool:
    """A predicate."""
    return False


def needs_id(payload: Any) -> bool:
    """A predicate made for other payloads."""
    return bool(payload["id"])


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (ANY, {"a": [1]}),
        (mock.ANY, {"a": [1]}),
        ({"a": ANY}, {"a": None}),
        ({"a": mock.ANY}, {"a": True}),
        ({}, {}),
        ([], []),
        (None, None),
        (1, 1.0),
        (True, True),
        (b"\x00", b"\x00"),
        (["a", {"b": int}], ["a", {"b": 2}]),
        (including(a=1), {"a": 1, "b": 2}),
        (including({"a": including(b=[ANY, 2])}, c=3), {"a": {"b": [1, 2], "x": 0}, "c": 3}),
        (int, 3),
        (dict, {}),
        (bool, False),
        (object, True),
        (re.compile("a+"), "aaa"),
        (len, [1]),
        (int | None, None),
        ({"a": Optional[str]}, {"a": "b"}),  # noqa: UP045 - the other spelling
    ],
)
def test_patterns_that_match(pattern: Any, value: Any) -> None:
    assert mismatch(pattern, value, "it") is None


@pytest.mark.parametrize(
    ("pattern", "value", "problem"),
    [
        (1, 2, "it is 2, not 1"),
        (1, True, "it is True, not 1"),
        (False, 0, "it is 0, not False"),
        (int, True, "it is True, not of type int"),
        (str, 1, "it is 1, not of type str"),
        ({}, {"a": 1}, "it has 'a' as well: 1"),
        ({"a": 1}, {"a": 2, "b": 1}, "it['a'] is 2, not 1"),
        ({"a": 1}, {"b": 1}, "it has no 'a': {'b': 1}"),
        ({"a": str}, [], "it is [], not {'a': str}"),
        ([1, ANY], [2, 3], "it[0] is 2, not 1"),
        ([1], [1, 2], "it has 2 items, not 1: [1, 2]"),
        ([re.compile("x")], None, "it is None, not [re.compile('x')]"),
        (including(a={"b": 1}), {"a": {"b": 2}}, "it['a']['b'] is 2, not 1"),
        (including(a=1), "a", "it is 'a', not an object"),
        (including(a=1), {}, "it has no 'a': {}"),
        (re.compile("a"), "ab", "it 'ab' does not match re.compile('a')"),
        (never, 5, "it 5: never says no"),
        (needs_id, {"a": 1}, "it {'a': 1}: needs_id raised KeyError: 'id'"),
        (b"\x00", "\x00", "it is '\\x00', not b'\\x00'"),
        (int | None, True, "it is True, not of type int | None"),
        ({"a": int | str}, [], "it is [], not {'a': int | str}"),
    ],
)
def test_patterns_that_do_not_match_say_why(pattern: Any, value: Any, problem: str) -> None:
    assert mismatch(pattern, value, "it") == problem


async def later(value: Any) -> bool:
    return False


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (list[int], r"list\[int\] cannot be a pattern: use list, or a function of the value"),
        ({"a": dict[str, int]}, r"dict\[str, int\] cannot be a pattern: use dict"),
        (later, "later is async, but a pattern is a plain function of the value"),
    ],
)
def test_what_would_match_everything_is_no_pattern(pattern: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        mismatch(pattern, {"a": ["x"]}, "it")


@pytest.mark.parametrize(
    ("pattern", "topic", "problem"),
    [
        ("room:*", "room:1", None),
        ("*", "", None),
        ("a*c", "abc", None),
        ("a.c", "abc", "it is 'abc', not 'a.c'"),
        ("a.*", "abc", "it 'abc' does not match 'a.*'"),
        ("*x*", "a\nxb", None),
        (str, "x", None),
        ("*", ["x"], "it ['x'] does not match '*'"),
        (ANY, None, None),
    ],
)
def test_a_star_in_a_topic_or_an_event_is_any_text(pattern: Any, topic: Any, problem: str | None) -> None:
    assert text_mismatch(pattern, topic, "it") == problem


def test_patterns_read_as_they_were_written() -> None:
    assert repr(including({"a": including(b=ANY)}, c=int)) == "including({'a': including({'b': ANY}), 'c': int})"
    assert including(a=1) == Including({"a": 1})
    assert repr(ANY) == "ANY"
    assert {ANY: 1}[ANY] == 1
