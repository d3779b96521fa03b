"""The base of all telemetry records: measurements and metadata that are derived from their fields."""

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, Literal, TypeVar

from attrs import fields, frozen

from ..protocol.state import Flat

EventName = tuple[str, ...]
"""The name of a telemetry event, such as ("slipstream", "connection", "handle", "start")."""

Outcome = Literal["ok", "error", "timeout", "cancelled", "lost"]
"""The way an operation of a client ended."""


@frozen
class Origin:
    """The origin of a record.

    Attributes:
        connection_id: the connection's id, None where the socket has none.
        trace_id: its trace's id, likewise.
        socket_id: the socket's id.
        generation: the number of the connection on its socket.
    """

    connection_id: str | None
    trace_id: str | None
    socket_id: str
    generation: int


def _compared(record: Any) -> tuple[object, ...]:
    return tuple(getattr(record, field.name) for field in fields(type(record)) if field.eq)


class Record:
    """The common part of records. A handler that knows one event reads its fields; a generic one reads these.

    Attributes:
        name: the event's name.
        origin: the ids of where it comes from.
    """

    __slots__ = ()
    _measured: ClassVar[tuple[str, ...]] = ("system_time", "monotonic_time")
    _own: ClassVar[tuple[tuple[str, str], ...]] = ()
    name: EventName
    origin: Origin

    connection_id: ClassVar[Flat[str | None]] = Flat("origin")
    """The id of the connection, None where there is none."""
    trace_id: ClassVar[Flat[str | None]] = Flat("origin")
    """The id of the connection's trace, None where there is none."""
    socket_id: ClassVar[Flat[str]] = Flat("origin")
    """The id of the socket."""
    generation: ClassVar[Flat[int]] = Flat("origin")
    """The number of the connection on its socket."""

    def __init_subclass__(cls, name: str = "") -> None:
        super().__init_subclass__()
        if name:  # attrs makes each class a second time, without it
            cls.name = ("slipstream", *name.split())
        names = [name for name in inspect.get_annotations(cls) if name not in {"name", "start"}]
        cls._own = tuple((name.rstrip("_"), name) for name in names)

    # attrs would compile these three for each class, which is a tenth of what `import connect` takes.

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _compared(self) == _compared(other)

    def __hash__(self) -> int:
        return hash((type(self), _compared(self)))

    def __repr__(self) -> str:
        kind: Any = type(self)
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(kind) if field.repr)
        return f"{kind.__name__}({', '.join(shown)})"

    @property
    def span_id(self) -> str | None:
        """The span's id, None for what happens once."""
        return None

    @property
    def start_time(self) -> datetime:
        """When it happened, or its span started, in UTC."""
        begun: Any = getattr(self, "start", None) or self
        return datetime.fromtimestamp(begun.system_time / 1e9, UTC)

    @property
    def measurements(self) -> Mapping[str, int]:
        """`monotonic_time`, and the `duration` of what has ended, or else `system_time`; in nanoseconds."""
        return {name: getattr(self, name) for name in self._measured}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids (of an end, those of now), `start_time`, and the fields of this event and of the start that it ends."""
        return {**self._described(), **self.details()}

    def _described(self) -> dict[str, Any]:
        ids = {name: getattr(self.origin, name) for name in ("connection_id", "trace_id", "socket_id", "generation")}
        span = {} if self.span_id is None else {"span_id": self.span_id}
        return {**ids, "start_time": self.start_time, **span}

    def details(self) -> dict[str, Any]:
        """Return the fields of this event, under the keys that they have in `metadata`."""
        return {key: getattr(self, name) for key, name in self._own}

    def whole(self) -> Mapping[str, Any]:
        """Return the fields of this event, and those of the start that it ends: `metadata` without ids and times."""
        start: Record | None = getattr(self, "start", None)
        return self.details() if start is None else {**start.details(), **self.details()}


class SpanStart(Record):
    """The common part of records of a span's start.

    Attributes:
        span_id: the span's id.
        system_time: when the span started, in nanoseconds since the epoch.
        monotonic_time: when it started, in nanoseconds on the monotonic clock.
    """

    __slots__ = ()
    span_id: str
    system_time: int
    monotonic_time: int


S = TypeVar("S", bound=SpanStart)


# The fields that records of a kind share come first, in this order.


@frozen(eq=False, repr=False)
class Once(Record):
    """What happens once."""

    origin: Origin
    system_time: int
    monotonic_time: int


@frozen(eq=False, repr=False)
class Start(SpanStart):
    """The start of a span."""

    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int


@frozen(eq=False, repr=False)
class EndOfConnection(Record, Generic[S]):
    """The end of a span, which has the ids of its start: a connection's."""

    _measured = ("duration", "monotonic_time")
    start: S
    monotonic_time: int

    @property
    def origin(self) -> Origin:  # type: ignore[override]
        """The ids."""
        return self.start.origin

    @property
    def span_id(self) -> str:
        """The span's id."""
        return self.start.span_id

    @property
    def duration(self) -> int:
        """How long the span took, in nanoseconds."""
        return self.monotonic_time - self.start.monotonic_time

    def _described(self) -> dict[str, Any]:
        return {**self.start.metadata, **super()._described()}


@frozen(eq=False, repr=False)
class End(EndOfConnection[S]):
    """The end of a span of the client, which has ids of its own: the span may outlive its connection."""

    start: S
    origin: Origin
    monotonic_time: int


@frozen(eq=False, repr=False)
class SpanException(End[SpanStart]):
    """Code that ran inside of a span raised: the third way, beside start and stop, in which a span's name can end.

    Attributes:
        kind: the exception's type.
        reason: the exception's text.
        stacktrace: the formatted traceback.
    """

    kind: str
    reason: str
    stacktrace: str

    @property
    def name(self) -> EventName:  # type: ignore[override] # of any span
        """The span's name and "exception"."""
        return (*self.start.name[:-1], "exception")
