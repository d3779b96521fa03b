"""One frozen record for each telemetry event.

Records are lean, as one pair is built for every message that is handled while somebody listens: what is constant for a
connection is one shared `Origin`, a stop holds its start, and whatever can be computed is computed when it is read.

Frozen is shallow: states never change, but payloads are the very objects that the user has. A handler that keeps
records for later encodes them at once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol

from attrs import frozen

from ..protocol import Options, State, Transition

__all__ = [
    "BufferOverflowed",
    "ClientCallbackStart",
    "ClientCallbackStop",
    "ClientConnectStart",
    "ClientConnectStop",
    "ClientJoinStart",
    "ClientJoinStop",
    "ClientLeaveStart",
    "ClientLeaveStop",
    "ClientPushStart",
    "ClientPushStop",
    "ConnectStart",
    "ConnectStop",
    "EventName",
    "GapOpened",
    "HandleStart",
    "HandleStop",
    "HandlerFailed",
    "MessageDiscarded",
    "Origin",
    "Outcome",
    "ReconnectScheduled",
    "Record",
    "RejoinScheduled",
    "ReplyOrphaned",
    "SpanException",
    "SpanStart",
]

EventName = tuple[str, ...]
"""The name of a telemetry event, such as ("slipstream", "connection", "handle", "start")."""

Outcome = Literal["ok", "error", "timeout", "cancelled", "lost"]
"""How an operation of a client ended."""


@frozen
class Origin:
    """Where a record comes from.

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


class Record(Protocol):
    """What every record has. A handler that knows one event reads its fields; a generic one reads these."""

    @property
    def name(self) -> EventName:
        """The event's name."""
        ...

    @property
    def origin(self) -> Origin:
        """The ids of where it comes from."""
        ...

    @property
    def measurements(self) -> Mapping[str, int]:
        """Times and durations in nanoseconds."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Everything else."""
        ...


class SpanStart(Record, Protocol):
    """What every record of a span's start has."""

    @property
    def span_id(self) -> str:
        """The span's id."""
        ...

    @property
    def system_time(self) -> int:
        """When the span started, in nanoseconds since the epoch."""
        ...

    @property
    def monotonic_time(self) -> int:
        """When the span started, in nanoseconds on the monotonic clock."""
        ...


class _Base:
    """What all records compute alike from their `origin` and `system_time`."""

    __slots__ = ()
    origin: Origin

    @property
    def connection_id(self) -> str | None:
        """The id of the connection, None where there is none."""
        return self.origin.connection_id

    @property
    def trace_id(self) -> str | None:
        """The id of the connection's trace, None where there is none."""
        return self.origin.trace_id

    @property
    def socket_id(self) -> str:
        """The id of the socket."""
        return self.origin.socket_id

    @property
    def generation(self) -> int:
        """The number of the connection on its socket."""
        return self.origin.generation

    def _describe(self, system_time: int, **more: Any) -> dict[str, Any]:
        origin = self.origin
        return {
            "connection_id": origin.connection_id,
            "trace_id": origin.trace_id,
            "socket_id": origin.socket_id,
            "generation": origin.generation,
            "start_time": datetime.fromtimestamp(system_time / 1e9, UTC),
            **more,
        }


class _Start(_Base):
    """What the starts of spans have."""

    __slots__ = ()
    span_id: str
    system_time: int
    monotonic_time: int

    @property
    def start_time(self) -> datetime:
        """When the span started, in UTC."""
        return datetime.fromtimestamp(self.system_time / 1e9, UTC)

    @property
    def measurements(self) -> Mapping[str, int]:
        """`system_time` and `monotonic_time`, in nanoseconds."""
        return {"system_time": self.system_time, "monotonic_time": self.monotonic_time}


class _End(_Base):
    """What the ends of spans have."""

    __slots__ = ()
    start: SpanStart
    monotonic_time: int

    @property
    def span_id(self) -> str:
        """The span's id."""
        return self.start.span_id

    @property
    def start_time(self) -> datetime:
        """When the span started, in UTC."""
        return datetime.fromtimestamp(self.start.system_time / 1e9, UTC)

    @property
    def duration(self) -> int:
        """How long the span took, in nanoseconds."""
        return self.monotonic_time - self.start.monotonic_time

    @property
    def measurements(self) -> Mapping[str, int]:
        """`duration` and `monotonic_time`, in nanoseconds."""
        return {"duration": self.duration, "monotonic_time": self.monotonic_time}


class _Once(_Base):
    """What events have that are no spans."""

    __slots__ = ()
    system_time: int
    monotonic_time: int

    @property
    def start_time(self) -> datetime:
        """When it happened, in UTC."""
        return datetime.fromtimestamp(self.system_time / 1e9, UTC)

    @property
    def measurements(self) -> Mapping[str, int]:
        """`system_time` and `monotonic_time`, in nanoseconds."""
        return {"system_time": self.system_time, "monotonic_time": self.monotonic_time}


@frozen
class SpanException(_End):
    """Code that ran inside of a span raised: the third way, beside start and stop, in which a span's name can end.

    Attributes:
        start: the span's start.
        origin: the ids.
        monotonic_time: in nanoseconds.
        kind: the exception's type.
        reason: the exception's text.
        stacktrace: the formatted traceback.
    """

    start: SpanStart
    origin: Origin
    monotonic_time: int
    kind: str
    reason: str
    stacktrace: str

    @property
    def name(self) -> EventName:
        """The span's name and "exception"."""
        return (*self.start.name[:-1], "exception")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the start, and `kind`, `reason`, `stacktrace`."""
        more = {"kind": self.kind, "reason": self.reason, "stacktrace": self.stacktrace}
        return {**self.start.metadata, **self._describe(self.start.system_time), **more}


# The connection


@frozen
class ConnectStart(_Start):
    """A connection's life begins, before anything is sent; its span's id is the connection_id."""

    name: ClassVar[EventName] = ("slipstream", "connection", "connect", "start")
    origin: Origin
    system_time: int
    monotonic_time: int
    state: State

    @property
    def span_id(self) -> str:  # type: ignore[override]  # the connection's own id, as every span is its child
        """The connection_id."""
        return self.state.connection_id

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `state`."""
        return self._describe(self.system_time, span_id=self.span_id, state=self.state)


@frozen
class ConnectStop(_End):
    """A connection's life has ended."""

    name: ClassVar[EventName] = ("slipstream", "connection", "connect", "stop")
    start: ConnectStart
    monotonic_time: int
    state: State
    termination_reason: str

    @property
    def origin(self) -> Origin:  # type: ignore[override]
        """The ids."""
        return self.start.origin

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `state` (the last), `termination_reason`."""
        return self._describe(
            self.start.system_time,
            span_id=self.span_id,
            state=self.state,
            termination_reason=self.termination_reason,
        )


@frozen
class HandleStart(_Start):
    """The connection begins to handle an input."""

    name: ClassVar[EventName] = ("slipstream", "connection", "handle", "start")
    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int
    raw_message: Any
    state: State

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `raw_message` (the input), `state` (before)."""
        return self._describe(self.system_time, span_id=self.span_id, raw_message=self.raw_message, state=self.state)


@frozen
class HandleStop(_End):
    """The connection has handled an input; delivery and writing come after."""

    name: ClassVar[EventName] = ("slipstream", "connection", "handle", "stop")
    start: HandleStart
    monotonic_time: int
    transition: Transition

    @property
    def origin(self) -> Origin:  # type: ignore[override]
        """The ids."""
        return self.start.origin

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The start's, and `message`, `event`, `built_events`, `return`, `end_state`."""
        start, transition = self.start, self.transition
        return {
            **start.metadata,
            "message": transition.message,
            "event": transition.event,
            "built_events": transition.built_events,
            "return": transition.return_,
            "end_state": transition.state,
        }


# The client


@frozen
class ClientConnectStart(_Start):
    """A socket asks for a connection; `attempt` counts from 1 since it was last connected."""

    name: ClassVar[EventName] = ("slipstream", "client", "connect", "start")
    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int
    configuration: Options
    attempt: int

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `configuration`, `attempt`."""
        more = {"configuration": self.configuration, "attempt": self.attempt}
        return self._describe(self.system_time, span_id=self.span_id, **more)


@frozen
class ClientConnectStop(_End):
    """The socket is connected, or is not."""

    name: ClassVar[EventName] = ("slipstream", "client", "connect", "stop")
    start: ClientConnectStart
    origin: Origin
    monotonic_time: int
    outcome: Outcome
    response_headers: tuple[tuple[str, str], ...]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The start's, and `outcome`, `response_headers`."""
        more = {"outcome": self.outcome, "response_headers": self.response_headers}
        return {**self.start.metadata, **self._describe(self.start.system_time), **more}


@frozen
class ClientJoinStart(_Start):
    """A topic is asked for."""

    name: ClassVar[EventName] = ("slipstream", "client", "join", "start")
    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int
    topic: str
    params: Any

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `params`."""
        return self._describe(self.system_time, span_id=self.span_id, topic=self.topic, params=self.params)


@frozen
class ClientJoinStop(_End):
    """A join was answered, or was not."""

    name: ClassVar[EventName] = ("slipstream", "client", "join", "stop")
    start: ClientJoinStart
    origin: Origin
    monotonic_time: int
    outcome: Outcome
    response: Any

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The start's, and `outcome`, `response`."""
        more = {"outcome": self.outcome, "response": self.response}
        return {**self.start.metadata, **self._describe(self.start.system_time), **more}


@frozen
class ClientLeaveStart(_Start):
    """A channel is being left."""

    name: ClassVar[EventName] = ("slipstream", "client", "leave", "start")
    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int
    topic: str
    params: Any

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `params`."""
        return self._describe(self.system_time, span_id=self.span_id, topic=self.topic, params=self.params)


@frozen
class ClientLeaveStop(_End):
    """A channel is left; outcome "timeout" where the server did not confirm it."""

    name: ClassVar[EventName] = ("slipstream", "client", "leave", "stop")
    start: ClientLeaveStart
    origin: Origin
    monotonic_time: int
    outcome: Outcome
    response: Any

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The start's, and `outcome`, `response`."""
        more = {"outcome": self.outcome, "response": self.response}
        return {**self.start.metadata, **self._describe(self.start.system_time), **more}


@frozen
class ClientPushStart(_Start):
    """A push whose reply is awaited begins."""

    name: ClassVar[EventName] = ("slipstream", "client", "push", "start")
    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int
    topic: str
    event: str
    params: Any

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `event`, `params`."""
        more = {"topic": self.topic, "event": self.event, "params": self.params}
        return self._describe(self.system_time, span_id=self.span_id, **more)


@frozen
class ClientPushStop(_End):
    """A push was answered, or was not; `ref` is None where it never got one."""

    name: ClassVar[EventName] = ("slipstream", "client", "push", "stop")
    start: ClientPushStart
    origin: Origin
    monotonic_time: int
    outcome: Outcome
    ref: str | None
    status: str | None
    response: Any

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The start's, and `outcome`, `ref`, `status`, `response`."""
        more = {"outcome": self.outcome, "ref": self.ref, "status": self.status, "response": self.response}
        return {**self.start.metadata, **self._describe(self.start.system_time), **more}


@frozen
class ClientCallbackStart(_Start):
    """A callback of a `Client` is called; the event's name has the callback's."""

    origin: Origin
    span_id: str
    system_time: int
    monotonic_time: int
    client: str
    callback: str
    arguments: tuple[Any, ...]

    @property
    def name(self) -> EventName:
        """Such as ("slipstream", "client", "handle_message", "start")."""
        return ("slipstream", "client", self.callback, "start")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `client` (the class's name), `callback`, `arguments`."""
        more = {"client": self.client, "callback": self.callback, "arguments": self.arguments}
        return self._describe(self.system_time, span_id=self.span_id, **more)


@frozen
class ClientCallbackStop(_End):
    """A callback of a `Client` has returned, or was cancelled (outcome "cancelled", and `return_` is None)."""

    start: ClientCallbackStart
    origin: Origin
    monotonic_time: int
    outcome: Outcome
    return_: Any

    @property
    def name(self) -> EventName:
        """Such as ("slipstream", "client", "handle_message", "stop")."""
        return ("slipstream", "client", self.start.callback, "stop")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The start's, and `outcome`, `return`."""
        more = {"outcome": self.outcome, "return": self.return_}
        return {**self.start.metadata, **self._describe(self.start.system_time), **more}


# What happens once


@frozen
class ReplyOrphaned(_Once):
    """A reply came whose push was given up: it was cancelled, or had timed out."""

    name: ClassVar[EventName] = ("slipstream", "client", "reply_orphaned")
    origin: Origin
    system_time: int
    monotonic_time: int
    topic: str
    ref: str
    status: str
    response: Any
    reason: Literal["cancelled", "timeout"]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `ref`, `status`, `response`, `reason`."""
        more = {"topic": self.topic, "ref": self.ref, "status": self.status, "response": self.response}
        return self._describe(self.system_time, **more, reason=self.reason)


@frozen
class MessageDiscarded(_Once):
    """A message was dropped: `reason` tells why, `direction` which way it was going ("in" or "out")."""

    name: ClassVar[EventName] = ("slipstream", "client", "message_dropped")
    origin: Origin
    system_time: int
    monotonic_time: int
    direction: Literal["in", "out"]
    topic: str | None
    event: str | None
    ref: str | None
    reason: str

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `direction`, `topic`, `event`, `ref`, `reason`."""
        more = {"direction": self.direction, "topic": self.topic, "event": self.event, "ref": self.ref}
        return self._describe(self.system_time, **more, reason=self.reason)


@frozen
class GapOpened(_Once):
    """Messages may have been missed, as a channel is joined again, or were, at a full buffer; times are UTC datetimes.

    Of a full buffer, it is emitted where its reader learns of the loss, or, if nobody reads it, when the channel ends.
    """

    name: ClassVar[EventName] = ("slipstream", "client", "gap")
    origin: Origin
    system_time: int
    monotonic_time: int
    topic: str
    reason: Literal["reconnected", "rejoined", "overflow"]
    since: datetime
    until: datetime
    dropped: int

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `reason`, `since`, `until`, `dropped`."""
        more = {"topic": self.topic, "reason": self.reason, "since": self.since, "until": self.until}
        return self._describe(self.system_time, **more, dropped=self.dropped)


@frozen
class ReconnectScheduled(_Once):
    """The connection ended, or an attempt failed; another follows in `delay` seconds."""

    name: ClassVar[EventName] = ("slipstream", "client", "reconnect_scheduled")
    origin: Origin
    system_time: int
    monotonic_time: int
    delay: float
    attempt: int
    reason: str
    code: int | None
    status: int | None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `delay`, `attempt`, `reason`, `code`, `status`."""
        more = {"delay": self.delay, "attempt": self.attempt, "code": self.code, "status": self.status}
        return self._describe(self.system_time, **more, reason=self.reason)


@frozen
class RejoinScheduled(_Once):
    """A channel has ended; it is joined again in `delay` seconds."""

    name: ClassVar[EventName] = ("slipstream", "client", "rejoin_scheduled")
    origin: Origin
    system_time: int
    monotonic_time: int
    topic: str
    delay: float
    attempt: int
    reason: str

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `delay`, `attempt`, `reason`."""
        more = {"topic": self.topic, "delay": self.delay, "attempt": self.attempt}
        return self._describe(self.system_time, **more, reason=self.reason)


@frozen
class BufferOverflowed(_Once):
    """A consumer's buffer is full, and what follows is dropped; once an episode, at its first message."""

    name: ClassVar[EventName] = ("slipstream", "client", "overflow")
    origin: Origin
    system_time: int
    monotonic_time: int
    topic: str
    policy: str
    buffer: int
    consumer: Literal["channel", "subscription", "client"]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `topic`, `policy`, `buffer`, `consumer`."""
        more = {"policy": self.policy, "buffer": self.buffer, "consumer": self.consumer}
        return self._describe(self.system_time, topic=self.topic, **more)


@frozen
class HandlerFailed(_Once):
    """A telemetry handler raised, and is detached."""

    name: ClassVar[EventName] = ("slipstream", "telemetry", "handler", "failure")
    origin: Origin
    system_time: int
    monotonic_time: int
    handler_id: str
    event: EventName
    reason: str
    stacktrace: str

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Ids, `start_time`, `handler_id`, `event`, `reason`, `stacktrace`."""
        more = {"handler_id": self.handler_id, "event": self.event, "reason": self.reason}
        return self._describe(self.system_time, **more, stacktrace=self.stacktrace)
