"""Statistics of recordings: counts, rates, sizes and quantiles, in memory that does not grow with them."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field

from ..protocol import FrameReceived, HeartbeatAcknowledged, SendFrame
from ..telemetry import EventName
from .export_spans import TopicPattern, topic_pattern
from .selection import Glance
from .text import nanoseconds, size_of
from .view import WAITED, given_of

__all__ = ["EXACT", "KEYS", "MAX_GROUPS", "QUANTILES", "Group", "Quantiles", "Statistics"]

MAX_GROUPS: Final = 1_000
"""So many topics and events are told apart in a section; what comes after those is counted together."""

OTHERS: Final = "(others)"
QUANTILES: Final = (0.5, 0.9, 0.99)

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "connections": (),
    "connects": (),
    "heartbeats": (),
    "joins": ("topic",),
    "leaves": ("topic",),
    "pushes": ("topic", "event"),
    "sends": ("topic", "event"),
    "messages": ("direction", "topic", "event"),
    "callbacks": ("callback",),
    "handling": ("what",),
    "reconnects": (),
    "rejoins": ("topic",),
    "silences": ("at", "connection"),
    "gaps": ("topic",),
    "drops": ("direction", "topic"),
    "overflows": ("topic",),
    "errors": ("what",),
}
"""The sections, and what their groups are told apart by."""

_SPANS: Final = {"connect": "connects", "join": "joins", "leave": "leaves", "push": "pushes", "send": "sends"}
_ONCE: Final = {"message_dropped": "drops", "reconnect_scheduled": "reconnects", "rejoin_scheduled": "rejoins"}
_SECTIONS: Final[Mapping[EventName, str]] = {
    ("slipstream", "connection", "connect", "stop"): "connections",
    ("slipstream", "connection", "handle", "stop"): "handling",
    ("slipstream", "connection", "silence"): "silences",
    **{("slipstream", "client", name, "stop"): section for name, section in _SPANS.items()},
    **{("slipstream", "client", name): section for name, section in {"gap": "gaps", **_ONCE}.items()},
    ("slipstream", "client", "overflow"): "overflows",
}

EXACT: Final = 1_000  # up to so many values are kept as they are
WIDTH: Final = 1.02  # beyond that they are counted in buckets, each wider than the one before by this factor

Key = tuple[str, ...]


@define(eq=False)
class Quantiles:
    """Takes values of 0 and more, and gives their quantiles.

    Up to `EXACT` values are kept, and quantiles are values that occurred. Beyond, buckets are counted whose bounds grow
    by 2 %, and a quantile is the middle of its bucket, so it is wrong by 1 % at most; count, least and most stay exact.
    A bucket more is needed for each 2 %, so from a nanosecond to a day there are fewer than 1,700.

    Attributes:
        count: the number of values.
        least: the smallest value; 0 without values.
        most: the largest value; 0 without values.
    """

    count: int = field(default=0, init=False)
    least: int = field(default=0, init=False)
    most: int = field(default=0, init=False)
    _values: "array[int]" = field(factory=lambda: array("q"), init=False)
    _buckets: Counter[int] = field(factory=Counter, init=False)

    @property
    def exact(self) -> bool:
        """Whether the values were few enough to be kept."""
        return not self._buckets

    def add(self, value: int) -> None:
        """Take in a value, such as a duration in nanoseconds."""
        self.least = min(self.least, value) if self.count else value
        self.most = max(self.most, value)
        self.count += 1
        self._values.append(value)
        if len(self._values) > EXACT:
            self._buckets.update(map(_bucket, self._values))
            self._values = array("q")

    def quantile(self, share: float) -> int:
        """Return the value that a share of all values, above 0 and up to 1, does not exceed; 0 without values."""
        rank = max(1, math.ceil(share * self.count))
        if self.exact:
            return sorted(self._values)[rank - 1] if self._values else 0
        buckets = self._buckets + Counter(map(_bucket, self._values))
        for bucket in sorted(buckets):
            rank -= buckets[bucket]
            if rank <= 0:
                middle = 0 if bucket < 0 else round(2 * WIDTH**bucket / (WIDTH + 1))
                return min(max(middle, self.least), self.most)
        return self.most


def _bucket(value: int) -> int:
    return math.ceil(math.log(value, WIDTH)) if value > 0 else -1


@define
class Group:
    """Records counted together.

    Attributes:
        count: their number.
        size: their frames, in bytes; 0 where they have none.
        times: durations in nanoseconds: how long they took, of joins, pushes and leaves since they were sent, or how
            long what they tell of is.
        waits: how long they waited to be sent, those that did.
        dropped: the messages that were lost.
        outcomes: their outcomes, such as {"ok": 3, "timeout": 1}.
    """

    count: int = 0
    size: int = 0
    dropped: int = 0
    waits: Quantiles = field(factory=Quantiles)
    times: Quantiles = field(factory=Quantiles)
    outcomes: Counter[str] = field(factory=Counter)

    def as_dict(self, seconds: float) -> dict[str, Any]:
        """Return it as JSON values; `seconds` is what its rate is of."""
        told: dict[str, Any] = {"count": self.count}
        if seconds > 0:
            told["per_second"] = round(self.count / seconds, 3)
        if self.size:
            told["bytes"] = self.size
        if self.dropped:
            told["dropped"] = self.dropped
        for name, times in (("nanoseconds", self.times), ("waited", self.waits)):
            if times.count:
                quantiles = {f"p{share * 100:g}": times.quantile(share) for share in QUANTILES}
                told[name] = {"min": times.least, **quantiles, "max": times.most, "exact": times.exact}
        if self.outcomes:
            told["outcomes"] = dict(self.outcomes.most_common())
        return told


class Statistics:
    """Takes in what is looked at, and forgets it.

    Parameters:
        merge_topics: count "room:1" and "room:2" together, as `room:*`.

    Attributes:
        records: the number of records counted.
        first: when the first was emitted, in nanoseconds since the epoch; None without records.
        last: when the last was.
        bytes_in: the size of all frames received.
        bytes_out: the size of all frames sent.
    """

    def __init__(self, *, merge_topics: bool = False) -> None:
        self._topic: TopicPattern = topic_pattern if merge_topics else lambda topic: topic
        self._sections = {name: defaultdict[Key, Group](Group) for name in KEYS}
        self.records: int = 0
        self.first: int | None = None
        self.last: int | None = None
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self._episodes: dict[Key, int] = {}

    def feed(self, glance: Glance) -> None:
        """Take in a record."""
        self.records += 1
        record, line, at, end = glance.record, glance.line, glance.at, glance.end
        self.first = at if self.first is None else min(at, self.first)
        self.last = end if self.last is None else max(end, self.last)
        if line.mood == "bad":
            self._count("errors", (line.what,), outcome=line.status or line.event or "-")
        section = _SECTIONS.get(record.name)
        if section == "handling":
            self._handled(glance)
        elif section == "overflows":
            self._overflowed(glance)
        elif section is not None or (line.took is not None and "callback" in record.whole()):
            self._told(section or "callbacks", glance)

    @property
    def sections(self) -> dict[str, dict[Key, Group]]:
        """The groups of each section in `KEYS`, the most frequent first; silences in their order."""
        return {
            name: dict(
                groups if name == "silences" else sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
            )
            for name, groups in self._sections.items()
        }

    @property
    def seconds(self) -> float:
        """From the first record to the last."""
        return 0.0 if self.first is None or self.last is None else (self.last - self.first) / 1e9

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; durations are nanoseconds."""
        told: dict[str, Any] = {name: getattr(self, name) for name in ("records", "seconds", "bytes_in", "bytes_out")}
        for name, groups in self.sections.items():
            told[name] = [
                {**dict(zip(KEYS[name], key, strict=True)), **group.as_dict(self.seconds)}
                for key, group in groups.items()
            ]
        return told

    def _group(self, section: str, key: Key) -> Group:
        groups = self._sections[section]
        if len(groups) >= MAX_GROUPS and key not in groups:
            key = (OTHERS,) * len(key)
        return groups[key]

    def _count(self, section: str, key: Key, time: int | None = None, outcome: str = "") -> Group:
        """Count what took this time, in nanoseconds, and came out so."""
        group = self._group(section, key)
        group.count += 1
        if time is not None:
            group.times.add(time)
        if outcome:
            group.outcomes[outcome] += 1
        return group

    def _key(self, section: str, glance: Glance) -> Key:
        line = glance.line
        its = {
            "topic": self._topic(line.topic),
            "event": line.event,
            "callback": line.what,
            "direction": "out" if line.direction == "out" else "in",
            "at": f"{glance.elapsed / 1e9:.3f}",
            "connection": (glance.record.origin.connection_id or "-")[:8],
        }
        return tuple(its[name] for name in KEYS[section])

    def _told(self, section: str, glance: Glance) -> None:
        line, lasted = glance.line, glance.lasted
        outcome = line.note if section == "silences" else line.status or line.what
        time = None if lasted is None else lasted - line.waited
        group = self._count(section, self._key(section, glance), time, outcome)
        if line.waited >= WAITED:
            group.waits.add(line.waited)
        if section == "gaps":
            group.dropped += glance.record.details()["dropped"]

    def _handled(self, glance: Glance) -> None:
        line, metadata, given = glance.line, glance.record.details(), given_of(glance.record)
        self._count("handling", (line.what,), line.took or 0)
        if isinstance(given, FrameReceived):
            self.bytes_in += self._message("in", glance, given.frame)
        for effect in metadata["return"]:
            if isinstance(effect, SendFrame):
                self.bytes_out += self._message("out", glance, effect.frame)
        for event in metadata["built_events"]:
            if isinstance(event, HeartbeatAcknowledged):
                self._count("heartbeats", (), nanoseconds(event.round_trip))

    def _message(self, direction: str, glance: Glance, frame: Any) -> int:
        """Count a frame; returns its size."""
        line, size = glance.line, size_of(frame)
        key = (direction, self._topic(line.topic), line.event or line.what)
        self._count("messages", key, line.took or 0).size += size
        return size

    def _overflowed(self, glance: Glance) -> None:
        """Count an episode when it begins; each record of it tells how many messages it has cost so far."""
        metadata, socket = glance.record.details(), glance.record.origin.socket_id
        group = self._group("overflows", self._key("overflows", glance))
        if metadata.get("phase") in (None, "began"):
            group.count += 1
            group.outcomes[metadata["policy"]] += 1
        episode, dropped = (socket, metadata["topic"], metadata["consumer"]), metadata.get("dropped") or 0
        group.dropped += dropped - self._episodes.pop(episode, 0)
        if metadata.get("phase") in ("began", "lasts"):
            self._episodes[episode] = dropped
