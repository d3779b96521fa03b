"""Channels: crashes, refusals, tasks that fight over a topic, and malformed frames."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from ..text import many
from .asks import LIMITED as TOO_MUCH
from .facts import Facts, Topic
from .finding import Cause, Finding, about, at, family, found, long, often

GUESS: Final = re.compile(r'\[[^,]*,[^,]*,\s*"([^"]*)",\s*"([^"]*)"')  # topic and event of what is not JSON

# fmt: off
CRASHES: Final = Cause("channel_crash", "grave", "server",
    "the channel's process crashes, or stops, on the server{after}",
    "see the server's log at these times for the exception, and do not push the same again until it is mended")
JOIN_CRASH: Final = Cause("join_crash", "grave", "server",
    "join/3 crashes on the server: {reason}", "see the server's log at these times for the exception", "--kind refused")
REFUSED: Final = Cause("refused_since", "grave", "server",
    "joins are refused since a time, which were accepted before: {reason}",
    "see what changed on the server at that time: a deployment, a permission, a token", "--kind refused")
TOO_MANY: Final = Cause("too_many_channels", "grave", "application",
    "more and more channels are joined, until the server refuses: {reason}",
    "leave channels that are not needed any more, or raise the server's limit", "--kind refused")
LIMITED: Final = Cause("rate_limit", "serious", "application",
    "joins or pushes come too fast: the server refuses some of them: {reason}",
    "join and push less at once, spread it in time, and leave no topic only to join it again")
EXPIRED: Final = Cause("stale_token", "grave", "application",
    "joins are refused since a time, which were accepted before, for the token that they bring: {reason}",
    "give the join's payload as a function that returns a fresh token: it is asked at every join", "--kind refused")
FIGHT: Final = Cause("fight_over_topic", "serious", "application",
    "two tasks fight over one topic: one joins it while the other holds it",
    "join the topic once, and hand the channel to both; subscribe() gives each a stream of its own")
BAD_FRAMES: Final = Cause("bad_frames", "serious", "server",
    "frames came that are not Phoenix messages; each was dropped",
    "see what makes it: a custom serializer, another vsn (objects are 1.0.0), a proxy that cuts, NaN or broken text")
RAISED: Final = Cause("code_raised", "serious", "application",
    "{what} raised {kind}: {reason}", "the traceback is in the recording, under stacktrace")
# fmt: on

REASONS: Final = (
    (JOIN_CRASH, re.compile("join crashed")),
    (TOO_MANY, re.compile("too many channels", re.IGNORECASE)),
    (LIMITED, TOO_MUCH),
    (EXPIRED, re.compile("expired|token|jwt", re.IGNORECASE)),
    (REFUSED, re.compile("")),
)
"""What the reason of a refusal tells of its cause."""


SURE: Final = frozenset({JOIN_CRASH, LIMITED})  # those that are wrong even where nothing was accepted before


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find what is wrong with channels, or with how they are used."""
    families: dict[str, list[tuple[str, Topic]]] = {}
    for (_, name), topic in facts.topics.items():
        families.setdefault(name.partition(":")[0], []).append((name, topic))
        if topic.crashes > topic.since:  # one after which joins are refused is how the server put it out
            yield _crashed(facts, name, topic)
        if len(topic.held) >= 2:
            joins = f"{len(topic.held)} joins found the topic joined already (AlreadyJoined)"
            yield found(facts, FIGHT, topic.held, [f"{joins}, {many(topic.left, 'leave')}"], topic=name)
    for topics in families.values():
        yield from _refusals(facts, topics)
    yield from _malformed(facts)
    for (what, kind, reason), seen in facts.raised.items():
        if what != "client connect":  # an option's function, which the end of the connection tells
            yield found(facts, RAISED, seen, [], what=what, kind=kind, reason=reason)


def _crashed(facts: Facts, name: str, topic: Topic) -> Finding:
    common = set.intersection(*({ask.event for ask in asks} for _, _, asks in topic.crashed))
    before = [ask for _, _, asks in topic.crashed for ask in asks if ask.event in common or not common]
    event = before[0].event if common else None
    told = [f"it crashed {often(topic.crashes)}, first at {at(facts, topic.crashed[0][0])}"]
    told += [f"not answered when it crashed: {about(facts, ask)}" for ask in before[:4]]
    each = "each time " if topic.crashes > 1 else ""
    after = f", {each}after {event}" if event else ""
    return found(facts, CRASHES, topic.crashed, told, topic=name, event=event, count=topic.crashes, after=after)


def _refusals(facts: Facts, topics: list[tuple[str, Topic]]) -> Iterator[Finding]:
    """Find refusals on topics of a kind; some that the server never accepts may be meant."""
    accepted = max(topic.accepted_at for _, topic in topics)
    again = any(topic.accepted and topic.since for _, topic in topics)
    by_cause: dict[Cause, list[tuple[int, tuple[str, int], str, str]]] = {}
    for name, topic in topics:
        for when, place, reason in topic.refused:
            cause = next(cause for cause, pattern in REASONS if pattern.search(reason))
            if cause in SURE or (topic.since and when >= (topic.accepted_at or accepted)):
                by_cause.setdefault(cause, []).append((when, place, reason, name))
    for cause, refused in by_cause.items():
        its = family(name for _, _, _, name in refused)
        if cause in SURE or (accepted and (again or cause is TOO_MANY or len(refused) >= 3)):
            when, _, reason, _ = min(refused)
            kept = many(sum(topic.accepted > topic.left for topic in facts.topics.values()), "topic")
            told = f"{often(len(refused))} refused since {at(facts, when)}; {kept} joined and not left"
            reason = reason or "no reason given"
            yield found(facts, cause, refused, [told], topic=its, count=len(refused), reason=reason)
        else:
            facts.noise[f"refused joins of {its}"] += len(refused)


def _malformed(facts: Facts) -> Iterator[Finding]:
    if not facts.malformed:
        return
    times = [when for when, _, _, _ in facts.malformed]
    apart = [later - before for before, later in pairwise(times)]
    regular = len(apart) >= 2 and max(apart) - min(apart) <= max(apart) // 10
    period = f", one every {long(sum(apart) / len(apart))}" if regular else ""
    told = [f"{many(facts.badly, 'frame')}, the first at {at(facts, times[0])}{period}"]
    for _, _, reason, frame in facts.malformed[:4]:
        text = frame if isinstance(frame, str | bytes) else "(redacted)"
        told.append(f"{reason}: {text[:80]!r}{'…' if len(text) > 80 else ''}")
    guesses = [guess.groups() for _, _, _, frame in facts.malformed if (guess := GUESS.match(str(frame)))]
    topic, event = guesses[0] if guesses and len(set(guesses)) == 1 else (None, None)
    yield found(facts, BAD_FRAMES, facts.malformed, dict.fromkeys(told), topic=topic, event=event, count=facts.badly)
