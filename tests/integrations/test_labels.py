"""Labels of metrics are few."""

import pytest

from slipstream_trio.integrations.measures import OTHER, capped
from slipstream_trio.trace.export_spans import topic_pattern


def test_what_is_too_many_is_other_and_stays_so() -> None:
    label_of = capped(2)
    assert [label_of(value) for value in ("a", "b", "c", "a", "d", "b")] == ["a", "b", OTHER, "a", OTHER, "b"]


def test_values_are_mapped_before_they_are_counted() -> None:
    label_of = capped(1, topic_pattern)
    assert [label_of(f"room:{number}") for number in range(5)] == ["room:*"] * 5
    assert label_of("lobby") == OTHER


@pytest.mark.parametrize(
    ("topic", "pattern"), [("room:lobby", "room:*"), ("a:b:c", "a:*"), ("phoenix", "phoenix"), (":x", ":*"), ("", "")]
)
def test_topics_are_mapped_as_phoenix_routes_them(topic: str, pattern: str) -> None:
    assert topic_pattern(topic) == pattern
