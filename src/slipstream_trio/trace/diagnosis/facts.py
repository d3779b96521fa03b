"""What one pass over the records of a process keeps: of each connection, topic and push what diagnoses ask for."""

from collections import Counter, deque
from typing import Any, Final, TypeAlias

from attrs import define, field

from ...protocol import Options

__all__ = [
    "MOST", "SECOND", "Ask", "Connection", "Events", "Facts", "Pause", "Place", "Silence", "Stream", "Topic", "keep",
]  # fmt: skip

SECOND: Final = 1_000_000_000
MOST: Final = 64  # so many of a kind are kept; what is beyond is counted
Place: TypeAlias = tuple[str, int]  # a file, and a line in it
Seen: TypeAlias = tuple[int, Place]

# Times are nanoseconds of the monotonic clock, which nobody sets, and begin with the first record's on the wall clock;
# `Facts.wall` tells what that said later. Lengths are nanoseconds.


@define(eq=False)
class Ask:
    """A join, push, leave or heartbeat: `sent` under a `ref`, unless it never was, and `answered`, perhaps too late.

    Attributes:
        served: when its channel took it up, as what was pushed before it had been answered.
        seen: how many frames had come when it was sent.
        alone: whether nothing else came while it waited.
    """

    kind: str
    topic: str
    event: str
    payload: Any
    began: int
    place: Place
    connection: "Connection | None" = None
    ref: str | None = None
    sent: int | None = None
    served: int = 0
    ended: int | None = None
    outcome: str | None = None
    reason: str | None = None
    answered: int | None = None
    again: int = 0
    seen: int = 0
    alone: bool = False

    @property
    def socket(self) -> str | None:
        """The id of the socket that sent it."""
        return None if self.connection is None else self.connection.socket

    @property
    def took(self) -> int:
        """From its sending to its answer, or to when it was given up."""
        return (self.answered or self.ended or self.began) - (self.sent or self.began)


@define(eq=False)
class Silence:
    """A time in which nothing came on a connection, though something was to come.

    Attributes:
        expected: how many frames would have come at the connection's rate.
        waiting: what was sent, and not answered.
        sent: how many frames were sent in it.
        size: of the first frame after it, None if none came; `first` is its topic and event.
        join: the join that this frame answered.
        burst: how many frames came right after it.
    """

    connection: "Connection"
    began: int
    ended: int
    places: tuple[Place, Place]
    expected: float
    waiting: tuple[Ask, ...]
    sent: int
    size: int | None = None
    join: Ask | None = None
    first: tuple[str, str] = ("", "")
    burst: int = 0

    @property
    def length(self) -> int:
        """How long it was."""
        return self.ended - self.began


@define(eq=False)
class Pause:
    """A time in which a process did nothing.

    Attributes:
        late: by how much a timer came late in it.
        burst: how many frames came right after it; `overdue`: what the application did then, before it got an answer.
        told: whether telemetry itself told that the event loop stood still.
        busy: the callback that took as long.
        cut_off: whether no connection was open, so that nothing could come.
    """

    began: int
    ended: int
    places: tuple[Place, Place]
    late: int = 0
    burst: int = 0
    overdue: int = 0
    answered: bool = False
    told: bool = False
    busy: str = ""
    cut_off: bool = False

    @property
    def length(self) -> int:
        """How long it was."""
        return self.ended - self.began


@define(eq=False)
class Connection:
    """A connection, from its beginning to its end, or an attempt at one.

    Attributes:
        end: where its end is told.
        heard: when the last frame came, `heard_at` where; `spoke`: when one was sent last; `unheard`: those since then.
        frames: how many came, of `size` together, the `largest` of them.
        largest_sent: the size of the largest that went.
        quiet: times of a second or more without one; `paused`: the longest between two that were sent.
        silence: the latest that was kept.
        busy: as `Facts` has it; likewise `quarter`.
        explained: whether a finding tells why it ended.
        asks: what was sent and is not answered, by ref; `sends` are the last whose answers nobody awaits.
        lost: the pushes sent and not answered when it ended, of `unanswered`; `unsent`: those never sent, of `queued`.
        recent: what was answered last; `quickest`: the shortest time that an answer took.
        turns: of joins that waited for others, how long each took alone; `turn` is the first of them.
    """

    id: str
    socket: str
    began: int
    place: Place
    options: Options | None = None
    opened: int | None = None
    ended: int | None = None
    end: Place | None = None
    reason: str = ""
    code: int | None = None
    message: str = ""
    ended_by: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(factory=dict)
    heard: int = 0
    heard_at: Place = ("", 0)
    spoke: int = 0
    paused: int = 0
    unheard: int = 0
    frames: int = 0
    size: int = 0
    largest: int = 0
    largest_sent: int = 0
    quiet: int = 0
    silence: Silence | None = None
    busy: int = 0
    quarter: int = 0
    gave_up: bool = False
    explained: bool = False
    asks: dict[str, Ask] = field(factory=dict)
    sends: deque[Ask] = field(factory=lambda: deque(maxlen=8))
    lost: list[Ask] = field(factory=list)
    unanswered: int = 0
    unsent: list[Ask] = field(factory=list)
    queued: int = 0
    turns: list[int] = field(factory=list)
    turn: Ask | None = None
    joined_at: int = 0
    recent: deque[Ask] = field(factory=lambda: deque(maxlen=8))
    quickest: int = 2**62

    @property
    def last(self) -> int:
        """The latest that is known of it."""
        return self.ended or max(self.heard, self.spoke, self.began)

    @property
    def rate(self) -> float:
        """How many frames come in a nanosecond, while some do."""
        return self.frames / max(self.heard - (self.opened or self.began) - self.quiet, SECOND)

    def prompt(self, ask: Ask, waited: int) -> bool:
        """Tell whether only this answer was slow, so that it was not the line: other answers were prompt."""
        others = [each for each in self.recent if each.event != ask.event]
        meanwhile = [each for each in others if (each.answered or 0) > ask.served]
        ask.alone = not meanwhile
        if meanwhile:
            return any(3 * each.took < waited for each in meanwhile)
        pending = any(each.topic != ask.topic and each.kind != "join" for each in self.asks.values())
        came = self.frames - ask.seen
        ask.alone = came < max(8, self.rate * waited / 2)
        return bool(others) and not pending and all(4 * each.took < waited for each in others)

    @property
    def life(self) -> int:
        """From its opening to its end."""
        return self.last - (self.opened or self.last)


@define(eq=False)
class Topic:
    """A topic of a socket, over all of its connections.

    Attributes:
        refused: when, where and why joins were refused; `since`: the first since it was accepted.
        crashed: when, where, and the pushes that were not answered then; of `crashes`.
        held: joins of it while it was joined.
        cut: requests that a leave cut off.
        timeouts: joins that were given up.
        replied: when a push was answered last.
    """

    accepted: int = 0
    accepted_at: int = 0
    refused: list[tuple[int, Place, str]] = field(factory=list)
    since: tuple[int, Place, str] | None = None
    crashed: list[tuple[int, Place, tuple[Ask, ...]]] = field(factory=list)
    crashes: int = 0
    held: list[Seen] = field(factory=list)
    left: int = 0
    cut: list[Ask] = field(factory=list)
    timeouts: list[Ask] = field(factory=list)
    replied: int = 0


@define(eq=False)
class Events:
    """The pushes of an event on a topic: those `answered`, of which `slowly`, and those that were given up."""

    answered: int = 0
    last_answer: int = 0
    slow: list[Ask] = field(factory=list)
    slowly: int = 0
    timeouts: list[Ask] = field(factory=list)
    cancelled: list[Ask] = field(factory=list)


@define(eq=False)
class Stream:
    """The messages of an event on a topic, and the counter in their payload; `streams` fills it in.

    Attributes:
        joined: how often the topic had been joined when the last message came.
        key: the counter's name, None until it is found; `numbers` are those that may be it, in so many `tries`.
        value: the counter's last; `streak`: how often in a row it grew by one, at most `steady` times.
        resets: how often it began anew.
        runs: the last ranges in which it grew by one, but for the latest, `run`.
        skips: when, where and which numbers it skipped, `missed`: how many, where the topic was joined anew before it.
        frames: hashes of the last; `doubles` are those that had come before, `paired` those like the one before, of
            `pairs`; `alike`: how many in a row were.
    """

    first: int
    joined: int
    count: int = 0
    last: int = 0
    key: str | None = None
    numbers: dict[str, int] = field(factory=dict)
    tries: int = 0
    value: int = 0
    streak: int = 0
    steady: int = 0
    resets: int = 0
    runs: deque[range] = field(factory=lambda: deque(maxlen=64))
    skips: list[tuple[int, Place, range]] = field(factory=list)
    missed: list[tuple[int, Place, int]] = field(factory=list)
    frames: deque[int] = field(factory=lambda: deque(maxlen=64))
    doubles: list[Seen] = field(factory=list)
    doubled: int = 0
    paired: list[Seen] = field(factory=list)
    pairs: int = 0
    alike: int = 0

    @property
    def run(self) -> range:
        """The range in which the counter has just grown by one."""
        return range(self.value - self.streak, self.value + 1)

    def fills(self, skipped: range) -> bool:
        """Tell whether it has a part of what another counter of this name skipped: it is one counter for both."""
        runs = (*self.runs, self.run)
        is_forgotten = len(self.runs) == self.runs.maxlen  # then the part may be among the oldest
        return is_forgotten or any(run.start >= skipped.start and run.stop <= skipped.stop for run in runs)


@define(eq=False)
class Facts:
    """What is known of a process; `first` and `last` are when its records begin and end.

    Attributes:
        place: where the latest record is.
        shifts: since when the wall clock is ahead, and by how much.
        redacted: whether payloads are not as they were, so that none are compared.
        unread: how many records told less than they should.
        acts: how many operations the client began; `frames`: how many came.
        idle: pauses of a second and more; `busy`: how many quarters of a second had a message that was no answer.
        quarter: the last of these.
        opened: the last connection of each socket that was open.
        buffers: how many messages the buffers hold that overflowed.
        badly: how many frames were malformed; the first of them are in `malformed`.
        noise: what happened too, and does no harm.
        explained: times that are explained, each for a socket, or for all.
    """

    path: str = ""
    place: Place = ("", 0)
    shifts: list[tuple[int, int]] = field(factory=list)
    redacted: bool = False
    first: int = 0
    last: int = 0
    records: int = 0
    unread: int = 0
    acts: int = 0
    frames: int = 0
    idle: int = 0
    busy: int = 0
    quarter: int = 0
    connections: dict[str, Connection] = field(factory=dict)
    opened: dict[str, Connection] = field(factory=dict)
    topics: dict[tuple[str, str], Topic] = field(factory=dict)
    events: dict[tuple[str, str], Events] = field(factory=dict)
    streams: dict[tuple[str, str, str], Stream] = field(factory=dict)
    pauses: list[Pause] = field(factory=list)
    silences: list[Silence] = field(factory=list)
    overflows: dict[tuple[str, str], list[tuple[int, Place, int, str]]] = field(factory=dict)
    buffers: dict[tuple[str, str], int] = field(factory=dict)
    malformed: list[tuple[int, Place, str, Any]] = field(factory=list)
    badly: int = 0
    raised: dict[tuple[str, str, str], list[Seen]] = field(factory=dict)
    noise: Counter[str] = field(factory=Counter)
    explained: list[tuple[str | None, int, int]] = field(factory=list)

    def wall(self, time: int) -> int:
        """Return what the wall clock said, as `trace show` has it."""
        return time + next((ahead for since, ahead in reversed(self.shifts) if since <= time), 0)

    def covered(self, at: int, until: int, socket: str | None = None) -> bool:
        """Tell whether something in a time is explained by what was found already, or by there being no connection."""
        margin = SECOND // 2
        return any(
            began - margin <= until and at <= ended + margin and (whose is None or whose == socket)
            for whose, began, ended in self.explained
        )


def keep(found: list[Any], one: Any, most: int = MOST) -> None:
    """Add to what was found, unless that is enough."""
    if len(found) < most:
        found.append(one)
