"""What the tally of a run makes of spans that did not end well."""

from slipstream_trio.cli.demo_command import Tally
from slipstream_trio.telemetry import ClientPushStart, Origin, SpanException

ORIGIN = Origin("c" * 16, "d" * 32, "e" * 16, 1)
PUSH = ClientPushStart(ORIGIN, "b" * 16, 0, 5, "t", "e", {})


def test_the_tally_misses_what_has_not_ended() -> None:
    tally = Tally()
    tally.feed(PUSH)
    assert tally.problems == ["1 client push without an end"]


def test_the_tally_counts_exceptions_as_outcomes() -> None:
    tally = Tally()
    tally.feed(PUSH)
    tally.feed(SpanException(PUSH, ORIGIN, 9, "ValueError", "no", "…"))
    assert tally.problems == []
    ((key, group),) = tally.statistics.sections["errors"].items()
    assert (key, group.outcomes) == (("client push",), {"raised": 1})
