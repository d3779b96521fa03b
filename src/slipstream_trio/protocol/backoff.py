"""The policy after the end of a connection or a channel: tables, and functions without clock and randomness."""

import math
import sys
from calendar import timegm
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import attrs
from attrs import frozen

from ..errors import EndedBy

FINAL_STATUSES: Final = frozenset({301, 308, 401, 403, 404})  # HTTP statuses that will be the same next time
PATIENT_STATUSES: Final = frozenset({302, 303, 307, 429, 503})  # HTTP statuses whose `retry-after` is honoured
RETRY_AFTER_LIMIT: Final = 300.0
"""The default of `retry_after_limit`: a server that asks for a year, or whose clock is wrong, does not get it."""

SPREAD: Final = 0.5  # seconds over which the first attempts of clients are spread that were cut off at one time
_DELAYS: Final = "delays: at least one number of seconds, none below 0"
_LONGEST: Final = sys.float_info.max  # the largest finite number of seconds


def _numbers(delays: Iterable[float]) -> tuple[float, ...]:
    try:
        return tuple(delays)
    except TypeError:
        raise ValueError(_DELAYS) from None


def _within(value: object, most: float) -> bool:
    """Tell whether a value is a number from 0 to `most`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


@frozen
class Backoff:
    """The delays before further attempts.

    Attributes:
        delays: seconds before the first, second, … attempt; the last one is for all that follow.
        jitter: by which part of it a delay may be shorter, from 0 to 1, so that a thousand clients do not come at once.
            With any, the first delay after a connection that was open is longer where that spreads clients over half a
            second, as whoever restarts a server cuts off all of them at one time. With 0 all delays are exact.
        reset_after: for how many seconds it has to go well before the delays begin anew.
        limit: after so many attempts it is given up; None: never.

    Raises:
        ValueError: one of them makes no sense.
    """

    delays: tuple[float, ...] = attrs.field(converter=_numbers)
    jitter: float = 0.25
    reset_after: float = 5.0
    limit: int | None = None

    def __attrs_post_init__(self) -> None:
        if not self.delays or not all(_within(delay, _LONGEST) for delay in self.delays):
            raise ValueError(_DELAYS)
        if not _within(self.jitter, 1):
            raise ValueError("jitter: from 0 to 1")
        if not _within(self.reset_after, math.inf):
            raise ValueError("reset_after: a number of seconds, not below 0")
        if self.limit is not None and not (type(self.limit) is int and self.limit >= 0):
            raise ValueError("limit: a whole number of attempts, not below 0, or None")

    def delay(self, step: int, draw: float) -> float:
        """Return the seconds before attempt number `step`, from 0, for a random number `draw` from 0 to 1."""
        return self.delays[min(step, len(self.delays) - 1)] * (1 - self.jitter * draw)

    def step_after(self, step: int, lived: float | None) -> int:
        """Return the step to take after one that lived for so many seconds (None: it failed at once)."""
        return 0 if lived is not None and lived >= self.reset_after else step


RECONNECT: Final = Backoff((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1, 2, 5))
"""The default of `reconnect`."""

REJOIN: Final = Backoff((1, 2, 5, 10))
"""The default of `rejoin`."""


@frozen
class Disconnect:
    """The end of a connection, or the failure of an attempt, that the user had not asked for.

    Attributes:
        reason: such as "closed_by_server", "lost", "heartbeat_timeout"; of an attempt "rejected", "option_failed" (a
            function among the options raised, or did not return in time), or the sentence of its error.
        code: the WebSocket close code, None if it never opened.
        status: the HTTP status of a refused upgrade, None if there was none.
        retry_after: the seconds to wait that a refusal asked for, at most `retry_after_limit`; None if it did not.
        lived: for how many seconds it was open, None if it never was.
        step: how many attempts there were since it last went well, from 0.
        error: the exception that an attempt failed with, such as one that a function among the options raised, or a
            `ConnectionRejected`; None if the connection was open. Not compared.
        message: the text of the server's close frame.
        ended_by: "client" (its own limits, and its functions that failed), "server" (its close frame, or HTTP answer)
            or "network" (everything without either); None where it is not known.
    """

    reason: str
    code: int | None = None
    status: int | None = None
    retry_after: float | None = None
    lived: float | None = None
    step: int = 0
    error: Exception | None = attrs.field(default=None, eq=False)  # exceptions compare by identity
    message: str = ""
    ended_by: EndedBy | None = None


def worth_retrying(disconnect: Disconnect) -> bool:
    """Tell whether to reconnect; the default of `should_reconnect`.

    It does, unless the upgrade was answered with 301, 308, 401, 403 or 404, as the next one would be. A close with 1000
    is retried too: some servers close so when they are restarted.
    """
    return disconnect.status not in FINAL_STATUSES


def reconnect_delay(
    disconnect: Disconnect, backoff: Backoff | None, should_reconnect: Callable[[Disconnect], bool], draw: float
) -> float | None:
    """Return the seconds to wait before connecting again, None to give up.

    The jitter shortens the back-off's own delays, and lengthens what the server asked for: earlier would be too early,
    and all at once would be another surge for it. So would clients be that have lost a server together, and come back
    by delays of some milliseconds.

    Parameters:
        draw: a random number from 0 to 1, for the jitter.
    """
    if backoff is None or (backoff.limit is not None and disconnect.step >= backoff.limit):
        return None
    if not should_reconnect(disconnect):
        return None
    delay = backoff.delay(disconnect.step, draw)
    spread = SPREAD * draw if backoff.jitter else 0.0
    if disconnect.lived is not None:
        return max(delay, spread)
    if disconnect.status in PATIENT_STATUSES and disconnect.retry_after is not None:
        asked = disconnect.retry_after
        return max(delay, asked + max(asked * backoff.jitter * draw, spread))
    return delay


def retry_after(
    headers: Mapping[str, str] | tuple[tuple[str, str], ...], now: float, limit: float | None = RETRY_AFTER_LIMIT
) -> float | None:
    """Return the seconds that a `retry-after` header asks to wait, None if there is none, or nonsense.

    A date is read against the answer's own `date`, as the clocks of client and server may differ by years.

    Parameters:
        headers: those of the answer, with names in lower case.
        now: the time, in seconds since 1970 in UTC, for an answer that has no `date`.
        limit: the most seconds to return; None: no limit.
    """
    given = dict(headers)
    value = given.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        seconds = float(value)
    else:
        until, sent = _http_date(value), _http_date(given.get("date", ""))
        seconds = math.inf if until is None else max(0.0, until - (now if sent is None else sent))
    if seconds == math.inf:
        return None
    return seconds if limit is None else min(seconds, limit)


def _http_date(text: str) -> int | None:
    """Return the seconds since 1970 of a date, in any of the three forms that HTTP knows; None for other texts."""
    try:  # one of the forms names no zone: dates of HTTP are in UTC
        return timegm(parsedate_to_datetime(text).utctimetuple())
    except (ValueError, OverflowError):
        return None


_RECOVERIES: Final = {
    "lost": "rejoin_now",  # with the next connection
    **dict.fromkeys(("crashed", "refused", "timeout", "payload_failed"), "rejoin"),
    **dict.fromkeys(("closed", "replaced", "left"), "end"),  # the server means it, or the user
}


def rejoin_delay(ending: str, backoff: Backoff | None, step: int, draw: float) -> float | None:
    """Return the seconds to wait before joining again, None if the channel has ended.

    Parameters:
        ending: "lost", "crashed", "refused", "timeout", "payload_failed", "closed", "replaced" or "left".
        backoff: the option `rejoin`.
        step: how many attempts there were since it last went well, from 0.
        draw: a random number from 0 to 1, for the jitter.
    """
    recovery = _RECOVERIES[ending]
    if recovery == "rejoin_now":
        return 0.0
    if recovery == "end" or backoff is None or (backoff.limit is not None and step >= backoff.limit):
        return None
    return backoff.delay(step, draw)
