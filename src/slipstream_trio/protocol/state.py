"""A connection's state: everything that its next step depends on, and nothing else."""

from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

import attrs
from attrs import frozen

from ..lean import lean
from .backoff import RECONNECT, REJOIN, RETRY_AFTER_LIMIT, Backoff
from .liveness import write_deadline
from .topics import Rejoin, Topics, Turns, number_of, topics_of, turns_of

Status = Literal["opening", "open", "closing", "closed"]

T_co = TypeVar("T_co", covariant=True)

UNSET: Final[Any] = object()  # the default of a keyword; None means something to most of them

Given = Literal["absent", "value", "function"]
"""The form in which an option was given whose value is not shown."""


@frozen(kw_only=True)
class Options:
    """A connection's configuration without secrets, live objects and callables: safe to log, compare and record.

    Each field is the option of `connect` of this name, which `Configuration` describes, as far as it can be shown.

    Attributes:
        url: the URL without its query; None where a function gives it, which the transport's opening tells of.
        serializer: the serializer's name.
        transport: the transport's name.
        params: how they were given, never what is in them; likewise `headers` and `auth_token`.
    """

    url: str | None
    vsn: str = "2.0.0"
    serializer: str = "v2"
    transport: str = "auto"
    connect_timeout: float | None = 10.0
    join_timeout: float | None = 10.0
    push_timeout: float | None = 10.0
    leave_timeout: float | None = 5.0
    close_timeout: float | None = 5.0
    heartbeat_interval: float | None = 30.0
    heartbeat_timeout: float | None = 30.0
    join_window: int | None = None
    max_message_size: int = 16 * 2**20
    buffer: int = 1024
    overflow: str = "raise"
    retry_first: bool = False
    reconnect: Backoff | None = RECONNECT
    rejoin: Backoff | None = REJOIN
    retry_after_limit: float | None = RETRY_AFTER_LIMIT
    params: Given = "absent"
    headers: Given = "absent"
    auth_token: Given = "absent"  # noqa: S105 - which tells nothing of it


@frozen
class Identity:
    """The part of a connection that never changes; `State` describes each field."""

    connection_id: str
    trace_id: str
    socket_id: str
    generation: int
    options: Options
    trace_parent: str | None = None


@frozen
class Heartbeat:
    """The heartbeat of a connection; `State` describes each, as `heartbeat_ref` and so on."""

    ref: str | None = None
    sent_at: float | None = None
    deadline: float | None = None


class View(Mapping[str, Any]):
    """A mapping that shows one value of each record of another mapping, by default in that one's order."""

    __slots__ = ("_order", "_records", "_value")

    def __init__(
        self, records: Mapping[str, Any], value: Callable[[Any], Any], order: Callable[[Any], Any] | None = None
    ) -> None:
        self._records = records
        self._value = value
        self._order = order

    def __getitem__(self, key: str) -> Any:
        return self._value(self._records[key])

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        if self._order is None:
            return iter(self._records)
        # That of a persistent map differs from one run of Python to the next; whatever is made of a state must not.
        return (key for key, _ in sorted(self._records.items(), key=self._order))

    def since(self, before: "View") -> tuple[dict[str, Any], list[str]]:
        """Return the items that were put since `before`, which shows the same of its records, and the keys gone."""
        old, new, value = before._records, self._records, self._value  # noqa: SLF001 - of its own kind
        if old is new:
            return {}, []
        put: dict[str, Any] = {}
        for key, record in new.items():
            known = old.get(key)
            if known is not record and (known is None or value(known) != value(record)):
                put[key] = value(record)
        kept = len(new) - sum(key not in old for key in put)
        gone = [key for key in old if key not in new] if kept < len(old) else []
        return dict(sorted(put.items())), sorted(gone)

    def __repr__(self) -> str:
        return repr(dict(self.items()))


def by_ref(item: tuple[Any, str]) -> tuple[int, str]:
    """Return what sorts items by their values, refs: in the order in which they were taken."""
    return len(item[1]), item[1]


_DEADLINE, _REF, _LIMIT = map(attrgetter, ("deadline", "ref", "limit"))


def _by_number(item: tuple[Any, Any]) -> Any:
    return item[1].number


class Flat(Generic[T_co]):
    """A flat name of an object: it shows the field of this name in one of the parts, or something else of that part."""

    def __init__(self, part: str, shown: Callable[[Any], T_co] | None = None) -> None:
        self.part = part
        self.shown = shown

    def __set_name__(self, owner: type, name: str) -> None:
        self.shown = self.shown or attrgetter(name)

    def __get__(self, whole: object, kind: type) -> T_co:
        if whole is None:  # on the class, for those who look at that: the name itself
            return self  # type: ignore[return-value]
        return self.shown(getattr(whole, self.part))  # type: ignore[misc] # it has a name by now


@frozen(init=False, repr=False)
class State:
    """The state of one connection, compared by value.

    It is made with flat keywords, and shows the same names. Inside, it keeps together what changes together, so that
    an input makes a new state of a few references, whatever the number of topics. Its mappings are read-only. Deadlines
    are seconds on the inputs' clock; None means no limit.

    Attributes:
        identity: the ids, the options.
        status: "opening", "open", "closing" (a close was asked for) or "closed".
        topics: what is joined, being joined and being left, with the deadlines.
        turn_queue: the joins that the server has not worked off.
        heartbeat: the heartbeat.
        current_ref: the last ref that was taken.
        close_reason: why a close was asked for, None if it was not.
    """

    identity: Identity
    status: Status
    topics: Topics
    turn_queue: Turns
    heartbeat: Heartbeat
    current_ref: int
    close_reason: str | None

    def __init__(
        self,
        *,
        connection_id: str = UNSET,
        trace_id: str = UNSET,
        socket_id: str = UNSET,
        generation: int = UNSET,
        options: Options = UNSET,
        trace_parent: str | None = UNSET,
        status: Status = "opening",
        joins: Mapping[str, str] = UNSET,
        join_deadlines: Mapping[str, float | None] = UNSET,
        join_timeouts: Mapping[str, float] = UNSET,
        rejoins: Mapping[str, Rejoin] = UNSET,
        failed_rejoins: Mapping[str, str] = UNSET,
        turns: Mapping[str, str] = UNSET,
        turn_began: float | None = UNSET,
        turn_by_timeout: bool = UNSET,
        leaves: Mapping[str, str] = UNSET,
        leave_deadlines: Mapping[str, float | None] = UNSET,
        heartbeat_ref: str | None = UNSET,
        heartbeat_sent_at: float | None = UNSET,
        heartbeat_deadline: float | None = UNSET,
        current_ref: int = 0,
        close_reason: str | None = None,
        identity: Identity | None = None,
        topics: Topics | None = None,
        turn_queue: Turns | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """Make a state.

        The first five are required, and the other flat names are described below; without `turns`, the
        joins that are pending have theirs in the order of their refs. The last four are what `attrs.evolve` hands on.

        Raises:
            TypeError: one of the first five is missing.
        """
        given = {name: value for name, value in locals().items() if value is not UNSET}
        flat = {part: {name: given[name] for name in names if name in given} for part, names in _PARTS.items()}
        if identity is None or flat["identity"]:
            identity = attrs.evolve(identity, **flat["identity"]) if identity else Identity(**flat["identity"])
        if topics is None or flat["topics"]:
            shown = {name: vars(State)[name].shown(topics) for name in _PARTS["topics"]} if topics else {}
            topics = topics_of(shown | flat["topics"])
        if turn_queue is None or flat["turn_queue"]:
            turn_queue = _turns(turn_queue, topics, flat["turn_queue"])
        if heartbeat is None or flat["heartbeat"]:
            beat = {name.removeprefix("heartbeat_"): value for name, value in flat["heartbeat"].items()}
            heartbeat = attrs.evolve(heartbeat or Heartbeat(), **beat)
        self.__attrs_init__(identity, status, topics, turn_queue, heartbeat, current_ref, close_reason)

    def with_ref(self, current_ref: int) -> "State":
        """Return the state after pushes took the refs up to this one; nothing else of it changes by them."""
        parts = self.identity, self.status, self.topics, self.turn_queue, self.heartbeat
        return state_of(*parts, current_ref, self.close_reason)

    # The flat names

    connection_id: ClassVar[Flat[str]] = Flat("identity")
    """16 hex digits, never used by another connection."""
    trace_id: ClassVar[Flat[str]] = Flat("identity")
    """32 hex digits, that of every span of the connection."""
    socket_id: ClassVar[Flat[str]] = Flat("identity")
    """16 hex digits, that of the socket which the connection serves."""
    generation: ClassVar[Flat[int]] = Flat("identity")
    """The number of this connection on its socket, from 1."""
    options: ClassVar[Flat[Options]] = Flat("identity")
    """Its configuration."""
    trace_parent: ClassVar[Flat[str | None]] = Flat("identity")
    """The W3C traceparent that gave it its trace_id, None where the trace is its own."""
    joins: ClassVar[Flat[Mapping[str, str]]] = Flat("topics", lambda topics: View(topics.joins, str, by_ref))
    """Topic to join_ref, of joins pending and accepted."""
    join_deadlines: ClassVar[Flat[Mapping[str, float | None]]] = Flat(
        "topics", lambda topics: View(topics.pending, _DEADLINE, _by_number)
    )
    """Topic to deadline, of the joins that are pending; None: no limit, or its turn has not begun."""
    join_timeouts: ClassVar[Flat[Mapping[str, float]]] = Flat("topics", lambda topics: _pending(topics, "timeout"))
    """Topic to the seconds that will run from its turn, of the joins whose turn has not begun."""
    rejoins: ClassVar[Flat[Mapping[str, Rejoin]]] = Flat("topics", lambda topics: _pending(topics, "rejoin"))
    """Topic to "first", "again" or "overdue", of the joins that are pending and not the user's own."""
    failed_rejoins: ClassVar[Flat[Mapping[str, str]]] = Flat("topics", lambda topics: View(topics.failed, str, by_ref))
    """Topic to join_ref, of rejoins that failed on this connection, and were not followed by another join."""
    turns: ClassVar[Flat[Mapping[str, str]]] = Flat(
        "turn_queue",
        lambda queue: View({str(number): topic for number, topic in queue}, str),  # which is in order
    )
    """Join_ref to topic, of the joins that the server has not worked off: the first one has its turn."""
    turn_began: ClassVar[Flat[float | None]] = Flat("turn_queue", attrgetter("began"))
    """The time at which the turn of the first of `turns` began, None without one, or if unknown."""
    turn_by_timeout: ClassVar[Flat[bool]] = Flat("turn_queue", attrgetter("by_timeout"))
    """Whether it began because the one before it took too long, and not because that was answered."""
    leaves: ClassVar[Flat[Mapping[str, str]]] = Flat("topics", lambda topics: View(topics.leaving, _REF, _by_number))
    """Topic to the leave's ref, until the leave is complete."""
    leave_deadlines: ClassVar[Flat[Mapping[str, float | None]]] = Flat(
        "topics", lambda topics: View(topics.leaving, _LIMIT, _by_number)
    )
    """Topic to deadline, of the leaves that are not complete."""
    heartbeat_ref: ClassVar[Flat[str | None]] = Flat("heartbeat", attrgetter("ref"))
    """The ref of the outstanding heartbeat, None if there is none."""
    heartbeat_sent_at: ClassVar[Flat[float | None]] = Flat("heartbeat", attrgetter("sent_at"))
    """The time at which the latest heartbeat was sent."""
    heartbeat_deadline: ClassVar[Flat[float | None]] = Flat("heartbeat", attrgetter("deadline"))
    """The time at which the next heartbeat is due, or the outstanding one has to be checked."""

    @property
    def unanswered(self) -> int:
        """The number of joins that the server has not worked off."""
        return len(self.turn_queue.queue)

    def __repr__(self) -> str:
        return f"State({', '.join(f'{name}={getattr(self, name)!r}' for name in STATE_FIELDS)})"


state_of: Final = lean(State)  # makes a state of its parts, by position
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    part: tuple(name for name, flat in vars(State).items() if isinstance(flat, Flat) and flat.part == part)
    for part in ("identity", "topics", "turn_queue", "heartbeat")
}

STATE_FIELDS: Final = tuple(signature(State).parameters)[: -len(_PARTS)]
"""The flat names of a state: what it is made with, and what shows all of it."""

_WHOLE: Final = tuple(name for name in STATE_FIELDS if not isinstance(vars(State)[name], Flat))


def changes(before: State, after: State) -> Iterator[tuple[str, tuple[dict[str, Any], list[str]] | None]]:
    """Give the names of what differs in two states, and of a mapping the items that were put, and the keys gone."""
    # What they share is not looked at.
    differ = [names for part, names in _PARTS.items() if getattr(before, part) is not getattr(after, part)]
    for name in chain(*differ, _WHOLE):
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, View):
            put, gone = new.since(old)
            if put or gone:
                yield name, (put, gone)
        elif old != new:
            yield name, None


def next_deadline(state: State, heard: float | None = None, write_blocked_since: float | None = None) -> float | None:
    """Return when the next `TimerTicked` is due, on the inputs' clock; None if none is.

    Parameters:
        heard: as a tick has it.
        write_blocked_since: as a tick has it; of a line that is blocked, the time when it is lost counts, too.
    """
    if state.status not in ("open", "closing"):
        return None
    due = state.topics.next_deadline
    if state.status == "open":
        blocked = None
        if write_blocked_since is not None and (limit := state.options.heartbeat_timeout) is not None:
            blocked = write_deadline(state.topics, state.turn_queue, limit, write_blocked_since, heard)
        for other in (state.heartbeat.deadline, blocked):
            if other is not None and (due is None or other < due):
                due = other
    return due


def _turns(base: Turns | None, topics: Topics, given: dict[str, Any]) -> Turns:
    before = Turns() if base is None else base
    pending = [(each.number, topic, each.rejoin) for topic, each in topics.pending.items() if each.number]
    joins = [(number, topic) for number, topic, _ in pending] if base is None else list(base)
    if "turns" in given:
        joins = [(number, topic) for ref, topic in given["turns"].items() if (number := number_of(ref))]
    numbers = {number for number, _ in joins}
    late = [(number, topic) for number, topic, rejoin in pending if rejoin == "overdue" and number not in numbers]
    began, by_timeout = given.get("turn_began", before.began), given.get("turn_by_timeout", before.by_timeout)
    return turns_of(joins, began, by_timeout, late)


def _pending(topics: Topics, name: str) -> Mapping[str, Any]:
    value = attrgetter(name)
    chosen = {topic: each for topic, each in topics.pending.items() if value(each) is not None}
    return View(chosen, value, _by_number)
