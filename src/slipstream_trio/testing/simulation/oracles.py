"""Oracles: the library's guarantees, each checked on the history of a run.

An oracle is a function of a `Run`; it gives None for each check that holds, and a sentence for each that does not:
alone, or with the virtual time of that, around which the history is shown then. Users add their own
(`oracles=(*ORACLES, mine)`), about what their programs and servers note.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

from attrs import define, field, frozen

from ...errors.base import leaves
from ...telemetry import ClientPushStop, ConnectStop, RejoinScheduled
from ...trace import replay, verify
from ..deterministic import NS_PER_S
from .scenario import Run

_SLACK: Final = 0.01  # seconds by which an end may be late: an answer and a deadline of one instant may go either way
Wrong: TypeAlias = str | tuple[str, float] | None
"""What became of a check: None, if it holds, or a sentence, perhaps with the moment."""
Oracle: TypeAlias = Callable[[Run], Iterator[Wrong]]
"""Judges a run: gives None for each check that holds, and a sentence for each that does not."""


@frozen
class Violation:
    """A guarantee that a run broke, at a virtual time if that is known; `oracle` is the function that found it."""

    oracle: str
    sentence: str
    at: float | None = None

    def __str__(self) -> str:
        return f"{self.oracle}: {self.sentence}"


@define
class _Reader:
    """What a follower has seen: the next number of each series, and how many announcements there were by then."""

    series: str = ""
    announced: int = 0
    next: dict[str, tuple[int, int]] = field(factory=dict)


def delivery(run: Run) -> Iterator[Wrong]:
    """Every message of a joined channel is delivered once, in order, and for its join; or a gap stands in its place."""
    readers: defaultdict[str, _Reader] = defaultdict(_Reader)
    for note in run.noted("joined", "got", "gap", "slow", "reached"):
        name, *facts = note.facts
        reader = readers[name]
        if note.what == "joined":
            reader.next.setdefault("all", (facts[0], reader.announced))
        elif note.what == "reached":
            expected, announced = reader.next.get("all", (facts[0], 0))
            missing = expected < facts[0] and announced == reader.announced
            yield (f"{name} has not got {expected} to {facts[0] - 1}", note.at) if missing else None
        elif note.what != "got":
            reader.announced += 1
        elif facts[2] is not None:  # a message of another kind has no number
            wrong = _wrong(reader, facts[1], facts[2])
            yield None if wrong is None else (f"{note}: {wrong}", note.at)


def _wrong(reader: _Reader, series: str, number: int) -> str | None:
    known, first = series in reader.next, number if series == "all" else 0
    expected, announced = reader.next.get(series, (first, reader.announced if series == "all" else 0))
    reader.next[series] = number + 1, reader.announced
    if series not in ("all", reader.series):
        reader.series = series
        if known:
            return "a message for an old join"
    if number < expected:
        return f"{number} came twice, or out of order: {expected} was next"
    if number > expected and announced == reader.announced:
        return f"{expected} to {number - 1} are missing, and no gap stands there"
    return None


def gaps(run: Run) -> Iterator[Wrong]:
    """A gap stands only where a connection was lost, or a channel joined again, and once for each time."""
    causes: dict[tuple[str, str], list[float]] = {}
    for name, records in run.records.items():
        for reason, kind in (("reconnected", ConnectStop), ("rejoined", RejoinScheduled)):
            causes[name, reason] = [record.monotonic_time / NS_PER_S for record in records if type(record) is kind]
    told: Counter[tuple[str, str]] = Counter()
    for note in run.noted("gap"):
        name, reason, _ = note.facts
        if reason != "overflow":
            told[name, reason] += 1
            right = told[name, reason] <= bisect_right(causes[note.who, reason], note.at + _SLACK)
            yield None if right else (f"{name}: a gap for nothing: {reason}", note.at)


def replies(run: Run) -> Iterator[Wrong]:
    """A reply reaches its push, and no other."""
    for name, token, stop, at in _pushes(run):
        if stop.status is not None:
            answer = stop.response
            right = isinstance(answer, Mapping) and answer.get("token") == token
            yield None if right else (f"{name}: the push {token} was answered {answer!r}", at)


def performed_once(run: Run) -> Iterator[Wrong]:
    """A push is performed at most once."""
    times: Counter[str] = Counter()
    for note in run.noted("performed"):
        times[note.facts[0]] += 1
        once = times[note.facts[0]] == 1
        yield None if once else (f"the push {note.facts[0]} was performed more than once", note.at)


def unsent(run: Run) -> Iterator[Wrong]:
    """A push that failed with `sent=False` is never performed."""
    performed = {note.facts[0] for note in run.noted("performed")}
    for name, token, stop, at in _pushes(run):
        if stop.sent is False:
            wrong = f"{name}: the push {token} was performed, and is told to be unsent"
            yield (wrong, at) if token in performed else None


def push_order(run: Run) -> Iterator[Wrong]:
    """What is pushed on a channel arrives in the order of the calls."""
    latest: dict[tuple[str, str], int] = {}
    for note in run.noted("performed"):
        token, series = note.facts
        client, _, number = token.rpartition(":")
        before = latest.get((client, series), 0)
        latest[client, series] = int(number)
        yield None if before <= int(number) else (f"{note}: {client}:{before} overtook it", note.at)


def time_limits(run: Run) -> Iterator[Wrong]:
    """Ends come within their time limits."""
    for note in run.noted("took"):
        what, took, limit = note.facts
        yield None if took <= limit + _SLACK else (f"{note.who}: {what} took {took} s, and has {limit} s", note.at)


def streams_end(run: Run) -> Iterator[Wrong]:
    """Streams end when their channels do."""
    crashed = {note.facts[0] for note in run.noted("client_crash", "client_loss")}
    ended = {note.facts[0] for note in run.noted("end")}
    for note in run.noted("joined"):
        over = note.facts[0] in ended or note.who in crashed or run.scenario.interrupt is not None
        yield None if over else (f"the stream {note.facts[0]} has no end", note.at)


def nothing_left(run: Run) -> Iterator[Wrong]:
    """No task, stream, socket or timer is left, and every program comes to its end."""
    yield from run.left
    yield None


def interrupted(run: Run) -> Iterator[Wrong]:
    """Nothing but the interrupt, or the exit, that was asked for leaves a run, and as what it was."""
    kinds = {"interrupt": KeyboardInterrupt, "exit": SystemExit, "quit": SystemExit}
    for error in leaves(run.raised):
        right = isinstance(error, kinds.get(run.scenario.interrupt or "", ()))
        yield None if right else f"{error!r} left the run"


def traces(run: Run) -> Iterator[Wrong]:
    """The trace of every client verifies."""
    for name, records in run.records.items():
        yield from (f"{name}: {violation}" for violation in verify(records))
        yield from (None for _ in records)


def replays(run: Run) -> Iterator[Wrong]:
    """The core does with what was recorded what it did."""
    for name, records in run.records.items():
        if run.scenario.interrupt != "exit":  # the handle in which a handler exits is told to have raised that
            yield from (f"{name}: {each}" for each in replay(cast("list[Any]", records)))
        yield None


def _pushes(run: Run) -> Iterator[tuple[str, str, ClientPushStop, float]]:
    """Give the ends of pushes that have a token, each with its client, its token and its moment."""
    for name, stop in run.all_of(ClientPushStop):
        if isinstance(stop.start.params, Mapping) and "token" in stop.start.params:
            yield name, stop.start.params["token"], stop, stop.monotonic_time / NS_PER_S


ORACLES: Final[tuple[Oracle, ...]] = (
    delivery, gaps, replies, performed_once, unsent, push_order, time_limits, streams_end, nothing_left,
    interrupted, traces, replays,
)  # fmt: skip
"""The library's guarantees."""
