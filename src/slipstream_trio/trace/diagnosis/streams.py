"""The messages of an event on a topic: the counter in their payload that skips, and messages that come twice."""

from collections import deque
from typing import Any, Final

from attrs import Factory, define

from ...protocol import Message

TRIES: Final = 8  # messages in which a counter is looked for
STEADY: Final = 4  # so often in a row it has to count before it is believed
MOST: Final = 64
TWINS: Final = 6  # so many pairs are no chance


@define(eq=False)
class Stream:
    """The messages of an event on a topic, from the `first` to the `last`."""

    first: int = 0
    joined: int = 0  # how often the topic had been joined when the last message came
    count: int = 0
    last: int = 0
    key: str | None = None  # the counter's name, None until it is found; `numbers` are those that may be it
    numbers: dict[str, int] = Factory(dict)
    tries: int = 0
    value: int = 0  # the counter's last
    streak: int = 0  # how often in a row it grew by one, at most `steady` times
    steady: int = 0
    resets: int = 0  # how often it began anew
    runs: deque[range] = Factory(lambda: deque(maxlen=MOST))  # the ranges in which it grew by one, but for the latest
    skips: list[tuple[int, Any, range]] = Factory(list)  # when, where, and what it skipped
    missed: list[tuple[int, int]] = Factory(list)  # when and how many, where the topic was joined anew before it
    frames: deque[int] = Factory(lambda: deque(maxlen=MOST))  # hashes of the last
    doubles: list[tuple[int, Any]] = Factory(list)  # messages that had come before, of `doubled`
    doubled: int = 0
    pairs: list[tuple[int, Any]] = Factory(list)  # messages like the one before, while most are
    twins: int = 0  # how many more of the latest came twice than once, at most `paired`
    paired: int = 0
    alike: int = 0  # how many in a row were the same

    def is_missed(self, began: int, ended: int) -> bool:
        """Tell whether a message was to come in a time, and no counter shows that none did."""
        often = self.count * (ended - began) > max(self.last, began) - self.first
        return self.key is None and self.first < began and often

    def feed(self, now: int, place: Any, message: Message, frame: Any, joined: int) -> None:
        """Take in a message; `joined` is how often its topic has been joined."""
        is_anew = self.joined != joined
        self.joined = joined
        if is_anew:
            self.frames.clear()  # a channel may tell again what was said last
        frame_hash = _hash(frame, message)
        self._pair(now, place, is_same=bool(self.frames) and frame_hash == self.frames[-1])
        if self.key is None and self.tries < TRIES:
            numbers = {name: value for name, value in message.payload.items() if type(value) is int}
            self.key = next((name for name, value in numbers.items() if self.numbers.get(name) == value - 1), None)
            self.value = numbers.get(self.key or "", 0)
            self.numbers = numbers
            self.tries += 1
        elif self.key is not None:
            value = message.payload.get(self.key)
            if type(value) is int:
                self._count(now, place, value, is_anew=is_anew, is_double=frame_hash in self.frames)
        self.frames.append(frame_hash)

    def _pair(self, now: int, place: Any, *, is_same: bool) -> None:
        """Compare a message with the one before; what is always the same is no double."""
        if is_same:
            self.alike += 1
            self.twins = self.twins + 1 if self.alike == 1 else 0
            if self.alike == 1 and len(self.pairs) < MOST:
                self.pairs.append((now, place))
        else:
            self.twins = self.twins if self.alike else max(self.twins - 1, 0)
            self.alike = 0
        if not self.twins and self.paired < TWINS:
            self.pairs.clear()
        self.paired = max(self.paired, self.twins)

    def _count(self, now: int, place: Any, value: int, *, is_anew: bool, is_double: bool) -> None:
        step = value - self.value
        if step <= 0 and is_double:
            self.doubled += 1
            if len(self.doubles) < MOST:
                self.doubles.append((now, place))
            return
        if step == 1:
            self.streak += 1
            self.steady = max(self.steady, self.streak)
        else:
            if step <= 1 or self.steady < STEADY:
                self.resets += 1
            elif is_anew:
                self.missed = [*self.missed[-MOST:], (now, step - 1)]
            elif len(self.skips) < MOST:
                self.skips.append((now, place, range(self.value + 1, value)))
            self.runs.append(self._run)
            self.streak = 0
        self.value = value

    @property
    def _run(self) -> range:
        """The range in which the counter has just grown by one."""
        return range(self.value - self.streak, self.value + 1)

    def fills(self, key: str, skipped: range) -> bool:
        """Tell whether it has a part of what another counter of a name skipped: it is one counter for both."""
        if self.key != key:
            return self.key is None and self.numbers.get(key) in skipped  # of few messages, in which none was found
        runs = (*self.runs, self._run)
        is_forgotten = len(self.runs) == self.runs.maxlen  # then the part may be among the oldest
        return is_forgotten or any(run.start >= skipped.start and run.stop <= skipped.stop for run in runs)


def _hash(frame: Any, message: Message) -> int:
    """Return a hash of what a message says, whatever join it came by."""
    if isinstance(frame, str):
        return hash(frame[max(frame.find(message.event), 0) :])
    return hash(frame) if isinstance(frame, bytes) else id(message)
