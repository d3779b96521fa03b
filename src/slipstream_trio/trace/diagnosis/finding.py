"""A finding: a cause, who is to blame, what shows it, and what to do."""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from attrs import asdict, evolve, frozen

from ..schema import start_time
from ..text import brief, duration, many
from .facts import SECOND, Ask, Facts, Place, Quiet

Blame = Literal["application", "this process", "network or proxy", "server", "configuration", "nobody"]
"""The party that has to change something."""

Gravity = Literal["grave", "serious", "slight"]
"""How much a cause costs: lost or repeated work, people who wait, or little."""

ORDER: Final[Sequence[Gravity]] = ("grave", "serious", "slight")
NUMBER: Final = re.compile(r"\d[\d.,]*( [mµ]?s\b)?")
SHOWN: Final = 16  # so many times, lines and facts a finding has; `count` tells how many there are


@frozen(kw_only=True)
class Finding:
    """A cause of what went wrong.

    Attributes:
        cause: its name, such as "dead_link"; programs can rely on it.
        gravity: "grave" (work was lost, done twice, or stopped), "serious" (people had to wait) or "slight".
        blame: the party that has to change something: the application, this process (its event loop, its machine), the
            network or a proxy, the server, the configuration of the client, or nobody.
        mechanism: what happened, in a sentence.
        topic: the topic, with a `*` where it is several; None where it is about none.
        event: the event, likewise.
        count: how often it happened.
        times: when, the first of them, in nanoseconds since the epoch.
        until: when the last one was over, likewise.
        lines: the lines that show it, each a file and the number of a line in it, from 1 (0: of records in memory).
        evidence: numbers and payloads, a sentence each.
        advice: what to do.
        command: what to type to see more, "" for records in memory.
    """

    cause: str
    gravity: Gravity
    blame: Blame
    mechanism: str
    topic: str | None = None
    event: str | None = None
    count: int = 1
    times: tuple[int, ...] = ()
    until: int = 0
    lines: tuple[tuple[str, int], ...] = ()
    evidence: tuple[str, ...] = ()
    advice: str = ""
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values: times in UTC, lines as "file:line"."""
        *times, until = [start_time(time).isoformat() for time in (*self.times, self.until)]
        lines = [f"{path}:{line}" for path, line in self.lines]
        return {**asdict(self), "times": times, "until": until, "lines": lines}


@frozen
class Cause:
    """A kind of finding: what `Finding` has of it, with words in braces that `found` fills in."""

    name: str
    gravity: Gravity
    blame: Blame
    mechanism: str
    advice: str
    options: str = ""


def found(
    facts: Facts,
    cause: Cause,
    seen: Iterable[tuple[int, Place, *tuple[Any, ...]]],
    evidence: Iterable[str],
    *,
    until: int = 0,
    count: int | None = None,
    topic: str | None = None,
    event: str | None = None,
    grave: bool = False,
    **words: object,
) -> Finding:
    """Return a finding in a process; `seen` begin with its times and lines, `words` are what its cause's texts lack."""
    moments = sorted((facts.wall(time), place) for time, place, *_ in seen)
    times = tuple(dict.fromkeys(time for time, _ in moments))
    until = facts.wall(until) if until else max(times, default=0)
    options = cause.options.format(event=event)
    return Finding(
        cause=cause.name.format(**words),
        gravity="grave" if grave else cause.gravity,
        blame=cause.blame,
        mechanism=cause.mechanism.format(event=event, **words),
        topic=topic,
        event=event,
        count=len(times) if count is None else count,
        times=times[:SHOWN],
        until=until,
        lines=tuple(dict.fromkeys(place for _, place in moments))[:SHOWN] if facts.path else (),
        evidence=tuple(evidence)[:SHOWN],
        advice=cause.advice.format(event=event, **words),
        command=_command(facts, times, until, topic, options),
    )


def of_asks(facts: Facts, cause: Cause, asks: Sequence[Ask], told: Iterable[str], **words: Any) -> Finding:
    """Return a finding about pushes or joins, `told` first, and then the first of them."""
    seen = [(ask.began, ask.place) for ask in asks]
    shown = [f"{about(facts, ask)}: {ask.outcome or 'answered'} after {long(ask.took)}" for ask in asks[:4]]
    until = max(ask.answered or ask.ended or ask.began for ask in asks)
    topic = family(ask.topic for ask in asks)
    return found(facts, cause, seen, [*told, *shown], until=until, count=len(asks), topic=topic, **words)


def merged(findings: Iterable[Finding], where: str) -> list[Finding]:
    """Return findings, those of one kind made one, the gravest first; `where` tells of so many places."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda each: ORDER.index(each.gravity)):
        # Of one cause the numbers differ (how long it took, how many there were), and the topics and events.
        kind = NUMBER.sub("", _named(finding, ""))
        kinds.setdefault((finding.cause, kind), []).append(finding)
    return [_merge(alike, where) if len(alike) > 1 else alike[0] for alike in kinds.values()]


def _named(finding: Finding, events: str) -> str:
    """Return the mechanism, of other events."""
    name = re.escape(finding.event or "\0")
    return re.sub(rf"\b{name}\b", lambda _: events, finding.mechanism)


def _merge(alike: Sequence[Finding], where: str) -> Finding:
    first, events = alike[0], [*dict.fromkeys(each.event for each in alike if each.event is not None)]
    return evolve(
        first,
        mechanism=_named(first, " and ".join(events[:4])),
        topic=None if any(each.topic is None for each in alike) else family(each.topic or "" for each in alike),
        event=events[0] if len(events) == 1 else None,
        count=sum(each.count for each in alike),
        times=tuple(sorted(time for each in alike for time in each.times))[:SHOWN],
        until=max(each.until for each in alike),
        lines=tuple(line for each in alike for line in each.lines)[:SHOWN],
        evidence=(f"{where.format(len(alike))}; of the first:", *first.evidence[: SHOWN - 1]),
    )


def _command(facts: Facts, times: Sequence[int], until: int, topic: str | None, options: str) -> str:
    if not facts.path:
        return ""
    parts = ["slipstream trace show", shlex.quote(facts.path)]
    if times and until - times[0] < 3600 * SECOND:
        since = max((times[0] - facts.first) / 1e9 - 2, 0)
        parts.append(f"--since {since:.0f} --until {(until - facts.first) / 1e9 + 3:.0f}")
    if topic is not None:
        parts.append(f"--topic {shlex.quote(topic)}")
    return " ".join([*parts, options]).rstrip()


def at(facts: Facts, time: int) -> str:
    """Return a time as the seconds since the first record."""
    return f"{(facts.wall(time) - facts.first) / 1e9:,.1f} s"


def long(length: float) -> str:
    """Return a length of time in words."""
    return duration(length) if length < 120 * SECOND else f"{length / 60 / SECOND:,.1f} min"


def often(count: int) -> str:
    """Return how often something happened: "once", "twice", "3 times"."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def stillness(facts: Facts, pause: Quiet) -> str:
    """Tell of a time in which a process did nothing, and what shows it."""
    late = f": {'the event loop' if pause.told else 'a timer'} was {long(pause.late)} late" if pause.late else ""
    burst = f"; then {many(pause.burst, 'frame')} within 0.3 s" if pause.burst else ""
    slept = f": the machine slept: other clocks went {long(pause.slept)} ahead" if pause.slept else ""
    return f"from {at(facts, pause.began)} for {long(max(pause.length, pause.slept))}{slept}{late}{burst}"


def about(facts: Facts, ask: Ask) -> str:
    """Return a push in a line: when, what, with which payload, and where that is written."""
    ref = "" if ask.ref is None else f" ref {ask.ref}"
    place = f" ({ask.place[0].rpartition('/')[2]}:{ask.place[1]})" if ask.place[1] else ""
    return f"{at(facts, ask.sent or ask.began)} {ask.topic} {ask.event}{ref} {brief(ask.payload, limit=80)}{place}"


def family(topics: Iterable[str]) -> str | None:
    """Return what topics have in common: the topic itself, or one with a wildcard."""
    names = set(topics)
    if len(names) == 1:
        return names.pop()
    prefixes = {name.partition(":")[0] for name in names}
    return f"{prefixes.pop()}:*" if len(prefixes) == 1 else None


def between(lengths: Iterable[float]) -> str:
    """Return the least and the greatest of some lengths, or the one that they are."""
    ordered = sorted(lengths)
    return " to ".join(dict.fromkeys((long(ordered[0]), long(ordered[-1]))))
