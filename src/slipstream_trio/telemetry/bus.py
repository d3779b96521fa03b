"""Buses: handlers by the events that they listen to, and the points at which events are emitted."""

import inspect
import logging
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

from attrs import define, frozen

from ..ids import IdSource, RandomIds
from . import records
from .base import EventName, Origin, Record
from .records import ConnectStart, HandlerFailed
from .streams import RecordStream

logger: Final = logging.getLogger("slipstream_trio")

R = TypeVar("R", bound=Record)

HandlerFunction = Callable[[Record], object]  # called with the record, synchronously; its result is ignored


class Only(TypedDict, total=False):
    """The ids of the only records that a handler gets; None stands for all."""

    socket_id: str | None
    connection_id: str | None


@frozen
class Handler:
    """An attached handler.

    `socket_id` and `connection_id`, where they are not None, are those of the records that it gets.

    Attributes:
        handler_id: what it was attached as.
        event: the name it listens to.
        prefix: whether it listens to all names that begin with `event`.
        function: what is called with each record.
    """

    handler_id: str
    event: EventName
    prefix: bool
    function: HandlerFunction
    socket_id: str | None = None
    connection_id: str | None = None

    def listens_to(self, name: EventName) -> bool:
        """Tell whether events of this name are for this handler."""
        return name[: len(self.event)] == self.event if self.prefix else name == self.event

    def wants(self, origin: Origin) -> bool:
        """Tell whether records from there are for this handler."""
        return self.socket_id in (None, origin.socket_id) and self.connection_id in (None, origin.connection_id)


class Point:
    """One event name of one bus. `handlers` is empty while nobody listens, which is all that an emitter has to test."""

    __slots__ = ("_bus", "emit", "handlers")

    def __init__(self, bus: "Telemetry") -> None:
        self._bus = bus
        self.listen_to(())

    def listen_to(self, handlers: Iterable[Handler]) -> None:
        """Have these handlers from now on; those that have no filter pay nothing for those that have."""
        self.handlers: tuple[Handler, ...] = tuple(handlers)
        calls = [_call_of(handler, self._bus) for handler in self.handlers]

        def emit(record: Record) -> None:
            for call in calls:
                call(record)

        # Calls the handlers in the order in which they were attached; a single one without a detour.
        self.emit: HandlerFunction = calls[0] if len(calls) == 1 else emit


def _call_of(handler: Handler, bus: "Telemetry") -> HandlerFunction:
    """Return a function that calls a handler's with the records that it wants, and detaches it should that raise."""
    function, is_filtered = handler.function, (handler.socket_id, handler.connection_id) != (None, None)

    def call(record: Record) -> None:
        if is_filtered and not handler.wants(record.origin):
            return
        try:
            function(record)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the connection goes on
            bus.handler_failed(handler, record, error)

    return call


@define(eq=False)
class SpanPoint:
    """The three event names of a span. `active` tells whether anybody listens to one of them."""

    start: Point
    stop: Point
    exception: Point
    active: bool = False


class Telemetry:
    """A bus: handlers on one side, connections on the other.

    Attaching and detaching may be done from any thread, and from within a handler.

    Parameters:
        ids: the source of trace, connection, span and socket ids; None makes random ones.
        time_ns: the system clock, in nanoseconds since the epoch.
        monotonic_ns: the monotonic clock, in nanoseconds.

    Attributes:
        propagator: returns the headers by which a server learns of a connection's trace, such as `traceparent`; asked
            at every upgrade, after the connection's `connect start`. None sends none.
    """

    def __init__(
        self,
        *,
        ids: IdSource | None = None,
        time_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.ids: IdSource = ids or RandomIds()
        self.time_ns: Callable[[], int] = time_ns
        self.monotonic_ns: Callable[[], int] = monotonic_ns
        self.propagator: Callable[[Origin], Iterable[tuple[str, str]]] | None = None
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._points: dict[EventName, Point] = {}
        self._spans: dict[EventName, SpanPoint] = {}
        self._failure = self.point(HandlerFailed.name)

    @overload
    def attach(
        self,
        handler_id: str,
        event: EventName,
        function: HandlerFunction,
        *,
        prefix: bool = False,
        **only: Unpack[Only],
    ) -> str: ...

    @overload
    def attach(self, handler_id: str, event: type[R], function: Callable[[R], object], **only: Unpack[Only]) -> str: ...

    @overload
    def attach(self, handler_id: type[R], event: Callable[[R], object], **only: Unpack[Only]) -> str: ...

    def attach(self, handler_id: Any, event: Any, function: Any = None, **options: Any) -> str:
        """Call `function` with every record of an event: `attach("id", name, function)`, or `attach(class, function)`.

        Handlers are called synchronously. One that raises is detached, logged, and reported as `handler failure`.

        Parameters:
            handler_id: a name for it, to detach it by; left out before a class, one is made.
            event: the event's name, such as ("slipstream", "connection", "handle", "stop"), or the class of its
                records, such as `ClientPushStop`.
            function: called with each record.
            options: `prefix=True` for all events whose names begin with `event` (() is all there are); a `socket_id`,
                a `connection_id` for their records alone.

        Returns the handler's id.

        Raises:
            ValueError: a handler of this id is attached, or no event has this name.
            TypeError: the event's name is not a tuple of strings, or the function is async, or none.
        """
        if isinstance(handler_id, type):
            handler_id, event, function = f"{handler_id.__name__}-{next(self._numbers)}", handler_id, event
        self.attach_many(handler_id, [event], function, **options)
        return str(handler_id)

    def attach_many(
        self,
        handler_id: str,
        events: Iterable[EventName | type],
        function: HandlerFunction,
        *,
        prefix: bool = False,
        **only: Unpack[Only],
    ) -> None:
        """Attach one handler to several events; see `attach`."""
        if not callable(function):
            raise TypeError(f"a handler is a function of one record, not {type(function).__name__}")
        if inspect.iscoroutinefunction(function):
            raise TypeError("a handler is called synchronously, so it cannot be async: use stream() to await something")
        names = [name for event in events for name in checked_names(event, prefix=prefix)]
        handlers = tuple(Handler(handler_id, name, prefix, function, **only) for name in names)
        with self._lock:
            if handler_id in self._handlers:
                raise ValueError(f"a handler {handler_id!r} is attached already: detach it, or choose another id")
            self._handlers[handler_id] = handlers
            self._refresh()

    def detach(self, handler_id: str) -> bool:
        """Detach a handler; returns False if there is none of this id."""
        with self._lock:
            found = self._handlers.pop(handler_id, None) is not None
            self._refresh()
            return found

    def list_handlers(self, event: EventName = ()) -> list[Handler]:
        """Return the handlers attached to events whose names begin with `event`, in the order of attachment."""
        with self._lock:
            attached = [handler for handlers in self._handlers.values() for handler in handlers]
        return [handler for handler in attached if handler.event[: len(event)] == event]

    @contextmanager
    def listen(
        self, function: HandlerFunction, event: EventName | type = (), *, prefix: bool = True, **only: Unpack[Only]
    ) -> Iterator[str]:
        """Attach a handler for the time of a `with` block, to all events unless `event` says otherwise.

        Yields the handler's id.
        """
        handler_id = f"listen-{next(self._numbers)}"
        self.attach_many(handler_id, [event], function, prefix=prefix, **only)
        try:
            yield handler_id
        finally:
            self.detach(handler_id)

    @asynccontextmanager
    async def stream(
        self, event: EventName | type = (), *, prefix: bool = True, buffer: int = 1024, **only: Unpack[Only]
    ) -> AsyncIterator[RecordStream]:
        """Iterate over records: `async with telemetry.stream() as records: async for record in records`.

        Only records of the Trio run in which it is opened are seen.

        Parameters:
            buffer: how many records wait to be read; what does not fit is dropped, and counted in `dropped`.
        """
        with closing(RecordStream(buffer)) as stream, self.listen(stream.put, event, prefix=prefix, **only):
            yield stream

    def point(self, name: EventName) -> Point:
        """Return the point at which events of this name are emitted."""
        with self._lock:
            if name not in self._points:
                self._points[name] = Point(self)
                self._refresh()
            return self._points[name]

    def span(self, name: EventName) -> SpanPoint:
        """Return the point at which spans of this name, such as ("slipstream", "connection", "handle"), are emitted."""
        with self._lock:
            if name not in self._spans:
                start, stop, exception = (self.point((*name, last)) for last in ("start", "stop", "exception"))
                self._spans[name] = SpanPoint(start, stop, exception)
                self._refresh()
            return self._spans[name]

    def handler_failed(self, handler: Handler, record: Record, error: Exception) -> None:
        """Detach a handler that raised, and report it."""
        with self._lock:
            if handler in self._handlers.get(handler.handler_id, ()):
                self.detach(handler.handler_id)
        self._report(handler.handler_id, record.origin, record.name, error)

    def propagate(self, origin: Origin) -> tuple[tuple[str, str], ...]:
        """Return the propagator's headers for a connection; one that raises an `Exception` is removed, and reported."""
        propagator = self.propagator
        if propagator is None:
            return ()
        try:
            headers = tuple((name, value) for name, value in propagator(origin))
            for name, value in headers:
                if not (name + value).isascii() or not (name + value).isprintable():
                    problem = "its name or value has characters that a header cannot have"
                    raise ValueError(f"invalid header {name!r}: {problem}")
            return headers
        except Exception as error:  # noqa: BLE001 - as with handlers, the connection goes on
            # It may have been replaced meanwhile, as a handler's id may have been taken anew.
            if self.propagator is propagator:
                self.propagator = None
            self._report("propagator", origin, ConnectStart.name, error)
            return ()

    def _report(self, handler_id: str, origin: Origin, event: EventName, error: Exception) -> None:
        logger.error("telemetry handler %r raised at %s, and is detached", handler_id, " ".join(event), exc_info=error)
        if self._failure.handlers:
            told = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))
            self._failure.emit(HandlerFailed(origin, self.time_ns(), self.monotonic_ns(), handler_id, event, *told))

    def _refresh(self) -> None:
        attached = [handler for handlers in self._handlers.values() for handler in handlers]
        for name, point in self._points.items():
            # Once a handler, even if several of its names match.
            matching = {handler.handler_id: handler for handler in reversed(attached) if handler.listens_to(name)}
            point.listen_to(reversed(matching.values()))
        for span in self._spans.values():
            span.active = bool(span.start.handlers or span.stop.handlers or span.exception.handlers)


# The names of all events, by the classes of their records

CALLBACKS: Final = (
    *("handle_connect", "handle_disconnect", "handle_join", "handle_message", "handle_reply", "handle_gap"),
    *("handle_topic_close", "handle_leave", "handle_info", "handle_call", "handle_cast", "terminate"),
)
"""The callbacks of a `Client`, each of which is a span."""

_ENDS: Final = ((records.ClientCallbackStart, "start"), (records.ClientCallbackStop, "stop"))
_NAMES: Final[tuple[tuple[type, EventName], ...]] = (
    *((kind, kind.name) for kind in vars(records).values() if isinstance(getattr(kind, "name", None), tuple)),
    *((kind, ("slipstream", "client", callback, end)) for callback in CALLBACKS for kind, end in _ENDS),
)


def names_of_events(kind: type | None = None) -> list[EventName]:
    """Return the names of all events, or of those whose records are of one class."""
    raised = [(records.SpanException, (*name[:-1], "exception")) for _, name in _NAMES if name[-1] == "start"]
    return [name for of, name in (*_NAMES, *raised) if kind in (None, of)]


def checked_names(event: object, *, prefix: bool) -> list[EventName]:
    """Return the names of the events that are meant; raises for what names none."""
    if isinstance(event, type):
        names = names_of_events(event)
        if not names:
            raise TypeError(f"{event.__name__} is not the class of an event's records")
        return names
    given = list(event) if isinstance(event, Iterable) else [event]
    words = [word for word in given if isinstance(word, str)]
    # Of a string, the letters would be the words.
    if isinstance(event, str) or len(words) < len(given):
        raise TypeError('an event is named by a tuple of strings, such as ("slipstream", "client", "push", "stop")')
    known, name = names_of_events(), tuple(words)
    begins = any(each[: len(name)] == name for each in known)
    if begins if prefix else name in known:
        return [name]
    if begins:
        raise ValueError(f"no event has just the name {name}: give prefix=True for all that begin with it")
    from difflib import get_close_matches  # needed after a mistake only

    (nearest,) = get_close_matches(" ".join(words), map(" ".join, known), 1, cutoff=0.0)
    raise ValueError(f"no event has the name {name}; the nearest is {tuple(nearest.split())}")


default_telemetry: Final = Telemetry()
"""The bus of the process: every connection's, unless `connect` is given another one."""

attach: Final = default_telemetry.attach
attach_many: Final = default_telemetry.attach_many
detach: Final = default_telemetry.detach
list_handlers: Final = default_telemetry.list_handlers
listen: Final = default_telemetry.listen
stream: Final = default_telemetry.stream
