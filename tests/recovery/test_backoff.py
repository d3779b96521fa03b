"""The tables of recovery: what is tried again, and after how long."""

import math

import pytest
from hypothesis import given, strategies as st

from slipstream_trio.protocol import (
    RECONNECT,
    REJOIN,
    Backoff,
    Disconnect,
    reconnect_delay,
    rejoin_delay,
    worth_retrying,
)
from slipstream_trio.protocol.backoff import retry_after

DELAYS = st.lists(st.floats(0, 1000), min_size=1, max_size=8)
DRAWS = st.floats(0, 1)
WORDS_OF_DATES = ["Sun,", "6", "06-Nov-94", "Nov", "1994", "08:49:37", "25:00:00", "GMT", "+9999", "9" * 30, "-", "\t"]
NOW = 784_111_800.0
"""1994-11-06 08:50:00 UTC."""

RESET_PROBLEM = "reset_after: a number of seconds, not below 0"
LIMIT_PROBLEM = "limit: a whole number of attempts, not below 0, or None"
DELAYS_PROBLEM = "delays: at least one number of seconds, none below 0"

# Back-off


def test_the_defaults_are_those_of_the_design() -> None:
    assert Backoff((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1, 2, 5)) == RECONNECT
    assert Backoff((1, 2, 5, 10)) == REJOIN
    assert [backoff.limit for backoff in (RECONNECT, REJOIN)] == [None, None]


@pytest.mark.parametrize(("step", "delay"), [(0, 1), (1, 2), (2, 5), (3, 10), (4, 10), (1000, 10)])
def test_the_delays_are_taken_in_order_and_the_last_one_stays(step: int, delay: float) -> None:
    assert Backoff((1, 2, 5, 10), jitter=0).delay(step, 0.7) == delay


def test_delays_may_be_any_iterable() -> None:
    assert Backoff([1, 2]).delays == (1, 2)
    assert Backoff(range(3)).delays == (0, 1, 2)


@given(DELAYS, st.floats(0, 1), DRAWS, st.integers(0, 20))
def test_jitter_only_shortens_and_by_its_part_at_most(
    delays: list[float], jitter: float, draw: float, step: int
) -> None:
    backoff = Backoff(tuple(delays), jitter=jitter)
    full = delays[min(step, len(delays) - 1)]
    assert full * (1 - jitter) - 1e-9 <= backoff.delay(step, draw) <= full
    assert backoff.delay(step, 0) == full


@pytest.mark.parametrize("jitter", [0, 1])
def test_jitter_may_be_all_or_nothing_of_a_delay(jitter: float) -> None:
    assert Backoff((4,), jitter=jitter).delay(0, 0.5) == 4 * (1 - jitter * 0.5)


@pytest.mark.parametrize(
    ("lived", "step"),
    [(None, 3), (0.0, 3), (4.999, 3), (5.0, 0), (1000.0, 0)],
)
def test_a_life_of_reset_after_begins_the_delays_anew(lived: float | None, step: int) -> None:
    assert Backoff((1,), reset_after=5.0).step_after(3, lived) == step


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"delays": ()}, DELAYS_PROBLEM),
        ({"delays": (1, -0.1)}, DELAYS_PROBLEM),
        ({"delays": (1, float("nan"))}, DELAYS_PROBLEM),
        ({"delays": (float("inf"),)}, DELAYS_PROBLEM),
        ({"delays": (1,), "jitter": -0.1}, "jitter: from 0 to 1"),
        ({"delays": (1,), "jitter": 1.1}, "jitter: from 0 to 1"),
        ({"delays": 1}, DELAYS_PROBLEM),
        ({"delays": "soon"}, DELAYS_PROBLEM),
        ({"delays": (1, None)}, DELAYS_PROBLEM),
        ({"delays": (True,)}, DELAYS_PROBLEM),
        ({"delays": (1,), "jitter": None}, "jitter: from 0 to 1"),
        *(({"delays": (1,), "reset_after": value}, RESET_PROBLEM) for value in (-1, None, "5", float("nan"))),
        *(({"delays": (1,), "limit": value}, LIMIT_PROBLEM) for value in (-1, 1.5, True, "5")),
    ],
)
def test_a_backoff_that_makes_no_sense_says_so(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        Backoff(**arguments)  # type: ignore[arg-type]


def test_a_backoff_may_never_begin_anew_and_may_be_given_up_at_once() -> None:
    assert Backoff((1,), reset_after=math.inf).step_after(3, 1e9) == 3
    assert reconnect_delay(Disconnect("lost"), Backoff((1,), limit=0), worth_retrying, 0) is None


# Reconnecting


@pytest.mark.parametrize("status", [301, 308, 401, 403, 404])
def test_a_status_that_stays_as_it_is_is_final(status: int) -> None:
    assert not worth_retrying(Disconnect("rejected", status=status))


@pytest.mark.parametrize("status", [302, 303, 307, 400, 408, 429, 500, 502, 503, 504])
def test_any_other_status_is_retried(status: int) -> None:
    assert worth_retrying(Disconnect("rejected", status=status))


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1006, 1007, 1009, 1011, 1012, 1013, 4000])
def test_every_close_code_is_retried(code: int) -> None:
    assert worth_retrying(Disconnect("closed_by_server", code=code, lived=1.0))


def test_no_backoff_means_no_retry() -> None:
    assert reconnect_delay(Disconnect("lost"), None, worth_retrying, 0) is None


@pytest.mark.parametrize(("step", "delay"), [(0, 1), (1, 2), (2, None), (3, None)])
def test_a_limit_ends_the_retries(step: int, delay: float | None) -> None:
    backoff = Backoff((1, 2, 5), jitter=0, limit=2)
    assert reconnect_delay(Disconnect("lost", step=step), backoff, worth_retrying, 0) == delay


def test_should_reconnect_decides_and_is_asked_with_the_disconnect() -> None:
    asked: list[Disconnect] = []

    def no(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return False

    disconnect = Disconnect("lost", code=1006, lived=2.0, step=4)
    assert reconnect_delay(disconnect, RECONNECT, no, 0) is None
    assert asked == [disconnect]
    assert reconnect_delay(Disconnect("rejected", status=403), RECONNECT, lambda _: True, 0) == 0.01


@pytest.mark.parametrize(
    ("status", "header", "delay"),
    [
        (429, 30.0, 30.0),
        (503, 30.0, 30.0),
        (302, 30.0, 30.0),
        (303, 30.0, 30.0),
        (307, 30.0, 30.0),
        (429, 0.5, 1),
        (429, None, 1),
        (503, None, 1),
        (500, 30.0, 1),
        (502, 30.0, 1),
        (None, 30.0, 1),
    ],
)
def test_retry_after_is_honoured_where_it_means_something(
    status: int | None, header: float | None, delay: float
) -> None:
    disconnect = Disconnect("rejected", status=status, retry_after=header)
    assert reconnect_delay(disconnect, Backoff((1,), jitter=0), worth_retrying, 0) == delay


@pytest.mark.parametrize(("draw", "delay"), [(0, 20.0), (0.5, 22.0), (1, 24.0)])
def test_jitter_lengthens_what_the_server_asked_for(draw: float, delay: float) -> None:
    disconnect = Disconnect("rejected", status=503, retry_after=20)
    assert reconnect_delay(disconnect, Backoff((1,), jitter=0.2), worth_retrying, draw) == delay


def test_a_wait_that_the_server_asked_for_does_not_shorten_the_backoff() -> None:
    disconnect = Disconnect("rejected", status=503, retry_after=1, step=1)
    assert reconnect_delay(disconnect, Backoff((1, 5), jitter=0.2), worth_retrying, 1) == 4


@pytest.mark.parametrize(
    ("value", "limit", "seconds"),
    [
        ("300", 300.0, 300.0),
        ("301", 300.0, 300.0),
        ("31536000", 300.0, 300.0),
        ("31536000", 7.5, 7.5),
        ("31536000", None, 31536000.0),
        ("0", 7.5, 0.0),
        ("Sun, 06 Nov 1994 10:50:00 GMT", 300.0, 300.0),
        ("Sun, 06 Nov 1994 10:50:00 GMT", None, 7200.0),
    ],
)
def test_retry_after_has_a_limit(value: str, limit: float | None, seconds: float) -> None:
    assert retry_after({"retry-after": value}, NOW, limit) == seconds


def test_the_limit_of_retry_after_is_five_minutes_unless_told() -> None:
    assert retry_after({"retry-after": "86400"}, NOW) == 300.0


@pytest.mark.parametrize("clock", [0.0, NOW, 1e10])
@pytest.mark.parametrize(("ahead", "seconds"), [("08:50:05", 5.0), ("08:50:00", 0.0), ("08:49:00", 0.0)])
def test_a_date_is_read_against_that_of_the_answer(clock: float, ahead: str, seconds: float) -> None:
    headers = {"date": "Sun, 06 Nov 1994 08:50:00 GMT", "retry-after": f"Sun, 06 Nov 1994 {ahead} GMT"}
    assert retry_after(headers, clock) == seconds


def test_a_date_of_the_answer_that_is_nonsense_is_ignored() -> None:
    headers = {"date": "today", "retry-after": "Sun, 06 Nov 1994 08:50:00 GMT"}
    assert retry_after(headers, NOW - 7) == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("\u0663", None),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_read_where_it_is_a_number(value: str, seconds: float | None) -> None:
    assert retry_after((("server", "x"), ("retry-after", value)), NOW) == seconds
    assert retry_after({"retry-after": value}, NOW) == seconds


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 08:50:00 GMT",
        " Sun, 06 Nov 1994 08:50:00 GMT ",
        "Sunday, 06-Nov-94 08:50:00 GMT",
        "Sun Nov  6 08:50:00 1994",
        "Sun, 06 Nov 1994 10:20:00 +0130",
        "Sun, 06 Nov 1994 08:50:00 -0000",
    ],
)
@pytest.mark.parametrize(
    ("before", "seconds"), [(30, 30.0), (0.25, 0.25), (0, 0.0), (-0.25, 0.0), (-3600, 0.0), (299, 299.0)]
)
def test_retry_after_may_be_a_date(date: str, before: float, seconds: float) -> None:
    assert retry_after({"retry-after": date}, NOW - before) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +9999",
        f"Sun, {'9' * 30} Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -0100",
    ],
)
def test_a_date_that_is_none_is_ignored(value: str) -> None:
    assert retry_after({"retry-after": value}, NOW) is None


@given(st.lists(st.sampled_from(WORDS_OF_DATES) | st.text(max_size=3)))
def test_no_header_of_any_kind_makes_reading_it_fail(words: list[str]) -> None:
    for space in (" ", ""):
        seconds = retry_after({"retry-after": space.join(words)}, NOW)
        assert seconds is None or 0 <= seconds < math.inf


def test_there_may_be_no_retry_after() -> None:
    assert retry_after((), NOW) is None
    assert retry_after({"retry-after": ""}, NOW) is None


# How a connection ended


def test_a_disconnect_knows_how_it_came_about() -> None:
    disconnect = Disconnect("lost")
    assert (disconnect.error, disconnect.message, disconnect.ended_by) == (None, "", None)
    assert Disconnect("lost", message="restart", ended_by="server") != disconnect


def test_disconnects_are_compared_without_their_errors() -> None:
    one, other = Disconnect("option_failed", error=LookupError()), Disconnect("option_failed", error=LookupError())
    assert one == other
    assert hash(one) == hash(other)


# Rejoining


@pytest.mark.parametrize(
    ("ending", "recovery"),
    [
        ("lost", "rejoin_now"),
        ("crashed", "rejoin"),
        ("refused", "rejoin"),
        ("timeout", "rejoin"),
        ("payload_failed", "rejoin"),
        ("closed", "end"),
        ("replaced", "end"),
        ("left", "end"),
    ],
)
def test_every_ending_of_a_channel_has_its_recovery(ending: str, recovery: str) -> None:
    backoff = Backoff((3, 4), jitter=0)
    delays = {"rejoin_now": 0.0, "rejoin": 4, "end": None}
    assert rejoin_delay(ending, backoff, 1, 0) == delays[recovery]


def test_without_a_backoff_only_a_lost_connection_is_recovered_from() -> None:
    endings = ("lost", "crashed", "refused", "timeout", "payload_failed")
    assert [rejoin_delay(ending, None, 0, 0) for ending in endings] == [0.0, None, None, None, None]


@pytest.mark.parametrize(("step", "delay"), [(0, 1), (2, 1), (3, None), (4, None)])
def test_a_limit_ends_the_rejoins(step: int, delay: float | None) -> None:
    assert rejoin_delay("refused", Backoff((1,), jitter=0, limit=3), step, 0) == delay


@given(st.sampled_from(["crashed", "refused", "timeout"]), DELAYS, DRAWS, st.integers(0, 20))
def test_a_rejoin_waits_as_the_backoff_says(ending: str, delays: list[float], draw: float, step: int) -> None:
    backoff = Backoff(tuple(delays))
    assert rejoin_delay(ending, backoff, step, draw) == backoff.delay(step, draw)
