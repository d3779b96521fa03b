"""The messages of a process: counters in their payloads that skip, and messages that come twice."""

from typing import Any, Final

from ...protocol import Message
from .facts import Facts, Stream, keep

__all__ = ["Streams"]

MOST_STREAMS: Final = 2048
TRIES: Final = 8  # messages in which a counter is looked for
STEADY: Final = 4  # so often in a row it has to count before it is believed


class Streams:
    """Takes in messages, and tells in the facts of a process of those that are missing, or came twice."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def feed(self, socket: str, message: Message, frame: Any, joined: int) -> None:
        """Take in a message; `joined` is how often its topic has been joined."""
        facts, key = self._facts, (socket, message.topic, message.event)
        stream = facts.streams.get(key)
        if stream is None:
            if len(facts.streams) >= MOST_STREAMS:
                return
            stream = facts.streams[key] = Stream(facts.last, joined)
        stream.count += 1
        stream.last = facts.last
        if facts.redacted or type(message.payload) is not dict:
            return
        frame_hash = _hash(frame, message)
        stream.alike = stream.alike + 1 if stream.frames and frame_hash == stream.frames[-1] else 0
        stream.pairs += (stream.alike == 1) - 2 * (stream.alike > 1)  # what is always the same is no double
        if stream.alike == 1:
            keep(stream.paired, (facts.last, facts.place))
        if stream.tries < TRIES:
            self._count(stream, message.payload, frame_hash, gap=stream.joined != joined)
        stream.frames.append(frame_hash)
        stream.joined = joined

    def _count(self, stream: Stream, payload: dict[str, Any], frame_hash: int, *, gap: bool) -> None:
        facts = self._facts
        if stream.key is None:
            _find_counter(stream, payload)
            return
        value = payload.get(stream.key)
        if type(value) is not int:
            return
        step = value - stream.value
        if step <= 0 and frame_hash in stream.frames:
            stream.doubled += 1
            keep(stream.doubles, (facts.last, facts.place))
            return
        if step == 1:
            stream.streak += 1
            stream.steady = max(stream.steady, stream.streak)
        else:
            if step <= 1 or stream.steady < STEADY:
                stream.resets += 1
            elif gap:
                keep(stream.missed, (facts.last, facts.place, step - 1))
            else:
                keep(stream.skips, (facts.last, facts.place, range(stream.value + 1, value)))
            stream.runs.append(stream.run)
            stream.streak = 0
        stream.value = value


def _hash(frame: Any, message: Message) -> int:
    """Return a hash of what a message says, whatever join it came by."""
    if isinstance(frame, str):
        return hash(frame[max(frame.find(message.event), 0) :])
    return hash(frame) if isinstance(frame, bytes) else id(message)


def _find_counter(stream: Stream, payload: dict[str, Any]) -> None:
    numbers = {name: value for name, value in payload.items() if type(value) is int}
    stream.key = next((name for name, value in numbers.items() if stream.numbers.get(name) == value - 1), None)
    stream.value = numbers.get(stream.key or "", 0)
    stream.numbers = numbers
    stream.tries += 1
