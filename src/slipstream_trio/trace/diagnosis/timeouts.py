"""Timeouts, and the answers that came after them: limits that are too short, and what is never answered."""

from collections.abc import Iterator
from typing import Final

from ..text import many
from .facts import SECOND, Ask, Events, Facts
from .finding import Cause, Finding, at, between, long, of_asks
from .silences import JOIN_TOO_SHORT

# fmt: off
TOO_SHORT: Final = Cause("push_timeout_too_short", "serious", "configuration",
    "{event} takes longer than its limit: its answers came after the pushes were given up",
    "raise push_timeout (or the push's timeout), or make the server quicker", "--event {event}")
ASKED_AGAIN: Final = Cause("asked_again", "grave", "application",
    "{event} takes longer than its limit, and the application asks again for what the server has done already",
    "raise the timeout above the true time of an answer, and send an id that the server knows it by", "--event {event}")
NEVER: Final = Cause("never_answered", "serious", "server",
    "{event} is never answered, while others are",
    "let handle_in return {{:reply, …}}, or use send, which awaits no reply", "--event {event}")
NO_LONGER: Final = Cause("no_longer_answered", "serious", "server",
    "{event} was answered at first, and is not any more, while the connection is alive",
    "see what the channel's process on the server does since then: it may hang", "--event {event}")
SOMETIMES: Final = Cause("sometimes_unanswered", "serious", "server",
    "some pushes of {event} are not answered, while others are",
    "see which clause of handle_in({event}) returns {{:noreply, …}}, or what it waits for", "--event {event}")
TOO_FAST: Final = Cause("pushes_too_fast", "serious", "application",
    "{event} is pushed faster than the channel works it off: pushes wait for those before them until they are given up",
    "push less at once (await one before the next), or make handle_in quicker", "--event {event}")
SLOW_LINK: Final = Cause("slow_link", "serious", "network or proxy",
    "the link is slow: of {event}, as of all else, even the quickest answers take about as long as the limit",
    "look at the network (its round trip, a line that is full), and set timeouts well above that")
JOIN_NEVER: Final = Cause("join_never_answered", "grave", "server",
    "joins are not answered, while the connection is alive: join/3 hangs",
    "see what join/3 waits for on the server")
LEFT: Final = Cause("left_too_early", "serious", "application",
    "the application leaves a channel, or gives up, before the answers come",
    "await the pushes before the channel's block is left, or give what cancels them more time")
# fmt: on


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find pushes and joins that were given up, while the connection was well."""
    for event, its in facts.events.items():
        asks = facts.unexplained([*its.timeouts, *_own_limit(its)])
        late, never = [ask for ask in asks if ask.answered is not None], [ask for ask in asks if _is_proved(ask)]
        if late:
            yield _late(facts, event, late)
        elif never:
            yield _never(facts, event, never)
    joins = facts.unexplained(ask for topic in facts.topics.values() for ask in topic.timeouts)
    joins = [ask for ask in joins if ask.answered is not None or _is_proved(ask)]
    late = [ask for ask in joins if ask.answered is not None]
    if joins:
        limit = long(max((ask.ended or 0) - (ask.sent or 0) for ask in joins))
        told = f"{many(len(joins), 'join')} given up after {limit}, {len(late)} of them answered afterwards"
        yield of_asks(facts, JOIN_TOO_SHORT if late else JOIN_NEVER, late or joins, [told])
    yield from _left(facts)


def _own_limit(events: Events) -> list[Ask]:
    """Return the pushes that the application cancelled, if it did so after the same time again and again."""
    times = [(ask.ended or 0) - ask.began for ask in events.cancelled]
    moments = {(ask.ended or 0) // SECOND for ask in events.cancelled}  # what ends many at once is no limit of each
    return events.cancelled if len(moments) >= 3 and max(times) - min(times) <= max(times) // 20 else []


def _is_proved(ask: Ask) -> bool:
    """Tell whether the server got what was asked: it answered what was sent later, or sent more, and the line held."""
    its, sent = ask.connection, ask.sent
    if its is None or sent is None or any((each.sent or 0) > sent for each in its.recent):
        return True
    return not its.unheeded and its.ended_by in (None, "client") and its.heard > sent + min(its.quickest, SECOND)


def _late(facts: Facts, event: str, asks: list[Ask]) -> Finding:
    limits, alone = [(ask.ended or 0) - ask.began for ask in asks], [(ask.answered or 0) - ask.served for ask in asks]
    told = [f"{len(asks)} given up after {long(max(limits))}, answered after {between(ask.took for ask in asks)}"]
    told.append(f"the server took {between(alone)} for one, once it had answered those before on the same topic")
    # What a channel needs for one push alone would have been within the limit.
    queued = sum(2 * one < limit for one, limit in zip(alone, limits, strict=True))
    cause = TOO_FAST if 2 * queued > len(asks) else TOO_SHORT
    if again := sum(ask.again > 0 for ask in asks):
        cause = ASKED_AGAIN
        told.append(f"{again} of them were asked again with the same payload: the server may have done it twice")
    elif all(ask.connection and 2 * ask.connection.quickest > limit for ask, limit in zip(asks, limits, strict=True)):
        cause = SLOW_LINK
    return of_asks(facts, cause, asks, told, event=event)


def _never(facts: Facts, event: str, asks: list[Ask]) -> Finding:
    answered, last = facts.events[event].answered, facts.events[event].last_answer
    others = sum(each.answered for each in facts.events.values()) - answered
    since = f", the last at {at(facts, last)}" if last else ""
    told = f"{len(asks)} given up; {answered} of this event answered{since}; {others} of others"
    cause = SOMETIMES if last > max(ask.sent or 0 for ask in asks) else NO_LONGER if answered else NEVER
    return of_asks(facts, cause, asks, [told], event=event)


def _left(facts: Facts) -> Iterator[Finding]:
    cut = (ask for topic in facts.topics.values() for ask in topic.cut if not topic.held)
    # What is cut off where the connection is closed, too, is an application that ends.
    asks = [(ask, ask.connection) for ask in facts.unexplained(cut)]
    until = [(ask, its, its.closed or its.last) for ask, its in asks if its]
    early = [ask for ask, its, end in until if end - (ask.ended or 0) > max(SECOND, 2 * its.quickest)]
    if len(early) >= 2:
        answered = sum(ask.answered is not None for ask in early)
        told = f"{len(early)} requests were cut off by a leave, {answered} of them were answered afterwards"
        yield of_asks(facts, LEFT, early, [told])
