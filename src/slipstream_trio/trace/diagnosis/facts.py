"""What one pass over the records of a process keeps: of each connection, topic and push what diagnoses ask for."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar

from attrs import Factory, define, field

from ...protocol import Options
from .streams import Stream

SECOND: Final = 1_000_000_000
BURST: Final = 300_000_000
ASKED: Final = frozenset({"closed_by_client", "disconnected", "reconnect", "cancelled"})  # why ends are wanted
HALF: Final = SECOND // 2
LEAST: Final = 16_000  # bytes that may fill a line for a while
LARGE: Final = 100_000  # bytes of a message that may take long by itself
MOST: Final = 64  # so many of a kind are kept; what is beyond is counted
K = TypeVar("K")
T = TypeVar("T")
Place: TypeAlias = tuple[str, int]  # a file, and a line in it
Seen: TypeAlias = tuple[int, Place]

# Times are nanoseconds of the monotonic clock, which nobody sets, and begin with the first record's on the wall clock;
# `Facts.wall` tells what that said later. Lengths are nanoseconds.


class Table(dict[K, T]):
    """What is known under each key: made where it is asked for, and kept unless that is enough."""

    def __init__(self, make: Callable[[], T], most: int = 4096) -> None:
        self._make, self._most = make, most

    def __missing__(self, key: K) -> T:
        made = self._make()
        if len(self) < self._most:
            self[key] = made
        return made


@define(eq=False)
class Ask:
    """A join, push, leave or heartbeat: `sent` under a `ref`, unless it never was, and `answered`, perhaps too late."""

    kind: str
    topic: str
    event: str
    payload: Any
    began: int
    place: Place
    connection: "Connection | None" = None
    ref: str | None = None
    sent: int | None = None
    seen: int = 0  # how many frames had come when it was sent
    served: int = 0  # when its channel took it up, as what was pushed before it had been answered
    ended: int | None = None
    outcome: str | None = None
    reason: str | None = None
    answered: int | None = None
    mark: int = 0  # how much had been sent on its connection with it
    up: int = 0  # how much of that had not passed before it
    down: int = 0  # how much came until its answer
    alone: bool = False  # whether nothing else came while it waited
    again: int = 0  # how often the same was pushed after it had timed out

    @property
    def took(self) -> int:
        """From its sending to its answer, or to when it was given up."""
        return (self.answered or self.ended or self.began) - (self.sent or self.began)


@define(eq=False)
class Quiet:
    """A time in which a process did nothing, or in which nothing came on a connection, though something was to come."""

    began: int
    ended: int
    places: tuple[Place, Place]
    burst: int = 0  # how many frames came right after it
    waiting: tuple[Ask, ...] = ()  # what was sent, and not answered; of a process, what was late already as it began
    # Of a process
    late: int = 0  # by how much a timer came late in it
    slept: int = 0  # by how much other clocks got ahead of the monotonic one
    overdue: int = 0  # what the application did right after it, before it got an answer
    answered: bool = False
    told: bool = False  # whether telemetry itself told that the event loop stood still
    cut_off: bool = False  # whether no connection was open, so that nothing could come
    # Of a connection
    connection: "Connection" = field(default=None, repr=False)
    expected: float = 0.0  # how many frames would have come at the connection's rate
    sent: int = 0  # how many frames were sent in it
    unheeded: bool = False  # whether frames came, but no answers
    size: int | None = None  # of the first frame after it, None if none came; `first` is its topic and event
    first: tuple[str, str] = ("", "")
    join: Ask | None = None  # that this frame answered

    @property
    def length(self) -> int:
        """How long it was."""
        return self.ended - self.began

    def killed(self, connection: "Connection") -> bool:
        """Tell whether a connection was alive before this, and nothing came any more that had not come meanwhile."""
        alive = connection.opened is not None and connection.opened <= self.began
        waited = any(ask.connection is connection for ask in self.waiting)
        ended = connection.ended is not None and connection.ended >= self.began - SECOND
        dead = connection.heard < self.ended + BURST and connection.heeded < self.ended
        telling = connection.reason in ASKED or connection.code not in (None, 1000, 1001, 1002, 1006)
        return alive and ended and dead and not waited and not telling

    def is_caught_up(self, expected: float, least: int) -> bool:
        """Tell whether what was to come in it came all at once after it."""
        return self.burst >= max(least, 0.4 * min(expected, 50))


@define(eq=False)
class Line:
    """What goes one way, in bytes: how much was `sent` and has `passed`, and how fast at the fastest, in a second."""

    sent: int = 0
    passed: int = 0
    since: int = 0  # since when it is measured, what had passed by then, and whether nothing was under way
    before: int = 0
    is_fresh: bool = False
    rate: float = 0.0
    fastest: float = 0.0
    prompt: int = 0  # how many answers were prompt while about as much passed
    kinds: dict[tuple[str, str], int] = Factory(dict)  # of which topic and event

    def add(self, size: int, kind: tuple[str, str]) -> None:
        """Take in a frame, and which topic and event it is of."""
        self.sent += size
        kinds = self.kinds
        if kind in kinds or len(kinds) < MOST:
            kinds[kind] = kinds.get(kind, 0) + size

    def begin(self, now: int) -> None:
        """Measure from now on, if nothing is under way."""
        if self.passed == self.sent:
            self.since, self.before, self.is_fresh = now, self.passed, True

    def measure(self, now: int, passed: int) -> None:
        """Take in how much has passed by now."""
        self.passed = max(self.passed, passed)
        length, amount = now - self.since, self.passed - self.before
        if length >= HALF or (self.is_fresh and self.passed == self.sent and amount > LEAST // 4):
            self.rate = amount * SECOND / max(length, SECOND // 50)
            self.prompt *= self.rate < 1.5 * self.fastest  # those before were at far less
            self.fastest = max(self.fastest, self.rate)
            self.since, self.before, self.is_fresh = now, self.passed, False

    def flows(self, now: int) -> bool:
        """Tell whether about as much passes as it can."""
        passes = (self.sent - self.before) * SECOND
        return 2 * self.rate > self.fastest and 2 * passes > self.fastest * (now - self.since)

    def is_full(self, amount: int, length: int) -> bool:
        """Tell whether so much, in such a time, is about as much as it can carry."""
        return amount >= LEAST and 2 * amount * SECOND >= self.fastest * length


@define(eq=False)
class Pace:
    """How steadily messages come that are no answers."""

    frames: int = 0
    quiet: int = 0  # times of a second or more without one, in sum
    busy: int = 0  # the quarters of a second with one
    quarter: int = 0  # the last of these

    def is_steady(self, active: int, length: int, least: int = 3) -> bool:
        """Tell whether they come so steadily, over an active time, that a pause of some length in it is strange."""
        return self.busy * SECOND // 2 >= active >= max(least * length, 3 * SECOND) and self.quiet - length <= active


@define(eq=False)
class Connection:
    """A connection, from its beginning to its end, or an attempt at one."""

    id: str
    socket: str
    began: int
    place: Place
    options: Options | None = None
    opened: int | None = None
    closed: int | None = None  # when the application asked for its end
    ended: int | None = None
    end: Place | None = None  # where its end is told
    reason: str = ""
    code: int | None = None
    message: str = ""
    ended_by: str | None = None
    status: int | None = None
    headers: dict[str, str] = Factory(dict)
    gave_up: bool = False
    explained: bool = False  # whether a finding tells why it ended
    stood: Quiet | None = None  # when the process stood still, and it died of that
    refused: bool = False  # whether another was refused with 401 or 403 after it
    heard: int = 0  # when the last frame came, `heard_at` where
    heard_at: Place = ("", 0)
    spoke: int = 0  # when one was sent last; `unheard`: those sent since something came
    unheard: int = 0
    paused: int = 0  # the longest time between two that were sent
    largest: int = 0
    largest_sent: int = 0
    pace: Pace = Factory(Pace)
    up: Line = Factory(Line)
    down: Line = Factory(Line)
    hidden: bool = False  # whether payloads are hidden, and with them how large they were
    late: list[Ask] = Factory(list)  # what was answered late, before all that was sent after it
    silence: Quiet | None = None  # the latest that was kept
    asks: dict[str, Ask] = Factory(dict)  # what was sent and is not answered, by ref
    sends: deque[Ask] = Factory(lambda: deque(maxlen=8))  # the last whose answers nobody awaits
    recent: deque[Ask] = Factory(lambda: deque(maxlen=8))  # what was answered last
    quickest: int = 2**62  # the shortest time that an answer took
    varied: int = 0  # by how much others that no join held up took longer, of late
    lost: list[Ask] = Factory(list)  # the pushes sent and not answered when it ended
    unsent: list[Ask] = Factory(list)  # those never sent, of `queued`
    queued: int = 0
    ahead: int | None = None  # how far the server's clock was ahead as it opened
    unheeded: bool = False  # whether what was sent last was not answered, not even a heartbeat
    heeded: int = 0  # when the latest was sent that was answered
    turns: list[int] = Factory(list)  # how long joins that waited for others took alone; `turn` is the first of them
    turn: Ask | None = None
    joined_at: int = 0

    @property
    def last(self) -> int:
        """The latest that is known of it."""
        return self.ended or max(self.heard, self.spoke, self.began)

    @property
    def life(self) -> int:
        """From its opening to its end."""
        return self.last - (self.opened or self.last)

    def waiting(self, since: int) -> tuple[Ask, ...]:
        """Return what was sent until then, and is not answered."""
        asks = (ask for ask in self.asks.values() if ask.outcome in (None, "timeout"))
        return tuple(ask for ask in asks if ask.sent is not None and ask.sent <= since)

    def expects(self, length: int) -> float:
        """Return how many frames come in such a time, while some do."""
        return self.pace.frames * length / max(self.heard - (self.opened or self.began) - self.pace.quiet, SECOND)

    def prompt(self, ask: Ask, waited: int) -> bool:
        """Tell whether only this answer was slow, so that it was not the line: other answers were prompt."""
        others = [each for each in self.recent if each.event != ask.event]
        meanwhile = [each for each in others if (each.answered or 0) > ask.served]
        if meanwhile:
            return any(3 * each.took < waited and (each.sent or 0) >= ask.served for each in meanwhile)
        if self.hidden or max(ask.up, ask.down) > LARGE:
            return False  # it may be that it, or its answer, took so long to come
        ask.alone = self.pace.frames - ask.seen < max(8, self.expects(waited) / 2)
        pending = any(each.topic != ask.topic and each.kind != "join" for each in self.asks.values())
        return bool(others) and not pending and all(4 * each.took < waited for each in others)


@define(eq=False)
class Topic:
    """A topic of a socket, over all of its connections."""

    accepted: int = 0
    accepted_at: int = 0
    left: int = 0
    left_at: int = 0
    refused: list[tuple[int, Place, str]] = Factory(list)  # when, where and why
    since: bool = False  # whether it was refused since it was accepted
    crashes: int = 0
    crashed: list[tuple[int, Place, tuple[Ask, ...]]] = Factory(list)  # with the pushes that were not answered then
    held: list[Seen] = Factory(list)  # joins of it while it was joined
    cut: list[Ask] = Factory(list)  # requests that a leave cut off
    timeouts: list[Ask] = Factory(list)  # joins that were given up
    replied: int = 0  # when a push was answered last


@define(eq=False)
class Events:
    """The pushes of an event: those `answered`, of which `slowly`, and those that were given up."""

    answered: int = 0
    last_answer: int = 0
    slowly: int = 0
    slow: list[Ask] = Factory(list)
    timeouts: list[Ask] = Factory(list)
    cancelled: list[Ask] = Factory(list)


@define(eq=False)
class Facts:
    """What is known of a process; `first` and `last` are when its records begin and end."""

    path: str = ""
    place: Place = ("", 0)  # where the latest record is
    shifts: list[tuple[int, int]] = Factory(list)  # since when the wall clock is ahead, and by how much
    redacted: bool = False  # whether payloads are not as they were, so that none are compared
    first: int = 0
    last: int = 0
    records: int = 0
    unread: int = 0  # how many records told less than they should
    acts: int = 0  # how many operations the client began
    pace: Pace = Factory(Pace)
    connections: dict[str, Connection] = Factory(dict)
    opened: dict[str, Connection] = Factory(dict)  # the last connection of each socket that was open
    topics: Table[tuple[str, str], Topic] = Factory(lambda: Table(Topic))
    events: Table[str, Events] = Factory(lambda: Table(Events))
    streams: Table[tuple[str, str, str], Stream] = Factory(lambda: Table(Stream, 2048))
    pauses: list[Quiet] = Factory(list)
    silences: list[Quiet] = Factory(list)
    overflows: Table[tuple[str, str], list[tuple[int, Place, int, str, int]]] = Factory(lambda: Table(list))
    malformed: list[tuple[int, Place, str, Any]] = Factory(list)
    badly: int = 0  # how many frames were malformed
    raised: Table[tuple[str, str, str], list[Seen]] = Factory(lambda: Table(list, MOST))
    noise: Counter[str] = Factory(Counter)  # what happened too, and does no harm
    explained: list[tuple[str | None, int, int]] = Factory(list)  # times, each of a socket, or of all

    def wall(self, time: int) -> int:
        """Return what the wall clock said, as `trace show` has it."""
        return time + next((ahead for since, ahead in reversed(self.shifts) if since <= time), 0)

    def beside(self, ends: Iterable[Connection]) -> list[Connection]:
        """Return the connections that what ended these would have ended, too: those to the same URL."""
        urls = {each.options.url for each in ends if each.options is not None}
        return [each for each in self.connections.values() if each.options is not None and each.options.url in urls]

    def covered(self, at: int, until: int, its: Connection | None = None) -> bool:
        """Tell whether something in a time is explained by what was found already, or by there being no connection."""
        times = ((began, ended) for whose, began, ended in self.explained if whose in (None, its and its.socket))
        return any(began - HALF <= until and at <= ended + HALF for began, ended in times)

    def unexplained(self, asks: Iterable[Ask]) -> list[Ask]:
        """Return those that no finding explains."""
        return [ask for ask in asks if not self.covered(ask.began, ask.ended or ask.began, ask.connection)]


def is_replaced(payload: Any) -> bool:
    """Tell whether it is a payload's size that stands for it."""
    return len(payload) == 1 and "size" in payload


def keep(found: list[Any], one: Any, most: int = MOST) -> None:
    """Add to what was found, unless that is enough."""
    if len(found) < most:
        found.append(one)
