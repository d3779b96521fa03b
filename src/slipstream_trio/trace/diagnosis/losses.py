"""Losses: pushes that were not answered or never sent, messages that were missed, or came twice."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from ..text import many
from .facts import SECOND, Ask, Connection, Facts
from .finding import Cause, Finding, about, at, found
from .streams import TWINS

# fmt: off
SLOW_CONSUMER: Final = Cause("slow_consumer", "grave", "application",
    "messages come faster than the application reads them: its buffer was full, and messages were dropped",
    "do less between two messages (hand work to other tasks), read only the events you need (subscribe), or choose a"
    " larger buffer, or overflow='drop_oldest' if only the latest counts", "--kind overflow")
MISSING: Final = Cause("messages_missing", "grave", "server",
    "messages are missing though the connection was up: the counter in their payload skips",
    "look at the server for what drops messages (an intercepted event, a crashed publisher, a full mailbox)")
DUPLICATES: Final = Cause("duplicates", "serious", "server",
    "messages came twice, word for word",
    "look at the server for a second subscription of the channel's process, or for two publishers")
# fmt: on


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find slow consumers, messages that are missing without a gap, and messages that came twice."""
    yield from _slow_consumers(facts)
    for (_, topic, event), stream in facts.streams.items():
        # What another stream has of what a counter skipped shows that it is one for several topics or sockets.
        skips = [
            skip
            for skip in stream.skips
            if not any(its is not stream and its.fills(str(stream.key), skip[2]) for its in facts.streams.values())
        ]
        if skips and stream.count >= 20 and stream.count > max(20 * stream.resets, 10 * len(skips)):
            told = [f"{stream.key} skips {len(which)} before {at(facts, when)}" for when, _, which in skips[:4]]
            yield found(facts, MISSING, skips, told, topic=topic, event=event)
        twice = len(stream.pairs) if stream.paired >= TWINS else 0
        if count := max(stream.doubled, twice):
            told = [f"{count} of {many(stream.count, 'message')} had come before"]
            yield found(facts, DUPLICATES, stream.doubles or stream.pairs, told, topic=topic, event=event, count=count)


def losses(facts: Facts, ends: Sequence[Connection]) -> Iterator[str]:
    """Tell what the ends of connections cost."""
    lost = [ask for end in ends for ask in end.lost]
    unsent = [ask for end in ends for ask in end.unsent if ask.sent is None][:4]
    yield from _pushes(facts, "sent and not answered: the server may have got them", lost[:8], len(lost))
    yield from _pushes(facts, "never sent: the server has not got them", unsent, sum(end.queued for end in ends))
    missed = Counter[str]()
    for end in ends:
        for (socket, topic, event), stream in facts.streams.items():
            after = [count for when, count in stream.missed if end.last < when < end.last + 60 * SECOND]
            if socket == end.socket and after:
                missed[f"{topic} {event}"] += after[0]
    if missed:
        each = ", ".join(f"{count} of {name}" for name, count in missed.most_common(4))
        yield f"counters in payloads skip {many(missed.total(), 'message')}: {each}"


def _pushes(facts: Facts, what: str, pushes: Sequence[Ask], count: int) -> Iterator[str]:
    if pushes:
        yield f"pushes {what}: {count}"
        yield from (f"  {about(facts, ask)}" for ask in pushes)
        if count > len(pushes):
            yield f"  … and {count - len(pushes)} more"


def _slow_consumers(facts: Facts) -> Iterator[Finding]:
    for (socket, topic), told in facts.overflows.items():
        gaps, ended = (sum(number for _, _, number, its, _ in told if its == phase) for phase in ("gap", "ended"))
        dropped = max(gaps, ended + (told[-1][2] if told[-1][3] in ("began", "lasts") else 0))
        streams = [stream for (its, name, _), stream in facts.streams.items() if (its, name) == (socket, topic)]
        evidence = [f"since {at(facts, told[0][0])}; {dropped or 'an unknown number of'} messages dropped in sum"]
        if streams:
            count = sum(stream.count for stream in streams)
            if count - dropped <= max(buffer for *_, buffer in told):
                facts.noise[f"messages on {topic} that nobody reads"] += dropped
                continue
            time = max(stream.last for stream in streams) - min(stream.first for stream in streams)
            came, read = (each * SECOND / max(time, 1) for each in (count, max(count - dropped, 0)))
            evidence.append(f"{came:.1f} messages a second came, {read:.1f} were read")
        yield found(facts, SLOW_CONSUMER, told, evidence, topic=topic, count=max(dropped, 1))
