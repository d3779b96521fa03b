"""Telemetry spans as OpenTelemetry's.

A connection is one trace, and its span, whose id is the connection_id, the parent of all others. These are made when
they end, of their last record: until then nothing is held, and a sampler sees all attributes. A callback's is made at
its start, as it is the current span while the callback runs.
"""

from typing import Any, Final
from weakref import WeakKeyDictionary

from attrs import Factory, define, evolve
from opentelemetry import context as otel_context, propagate, trace
from opentelemetry.context import Context

from ...telemetry import Telemetry, default_telemetry, records
from ...trace.export_spans import Description, TopicPattern, describe, topic_pattern
from ..attachment import Attachment
from .ids import handed

HANDLER: Final = "slipstream_trio.integrations.opentelemetry.spans"
CONNECTION: Final = ("slipstream", "connection", "connect")
HANDLE: Final = ("slipstream", "connection", "handle")
CLIENT: Final = ("slipstream", "client")


def attach_spans(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    telemetry: Telemetry = default_telemetry,
    handles: float = 0.0,
    hold: bool = False,
    propagation: bool = True,
    pattern: TopicPattern = topic_pattern,
) -> Attachment:
    """Make OpenTelemetry spans of connections, and of the joins, pushes, leaves and callbacks on them.

    Their trace is the telemetry's, and their parent the connection. With an `IdGenerator` on the provider, their span
    ids are the telemetry's too; otherwise these are attributes only.

    Parameters:
        tracer_provider: None takes the global one.
        telemetry: the bus; by default the process's.
        handles: the share of handled inputs (messages, commands, ticks) with a span, from 0 to 1. Above 0, each
            message costs its telemetry records.
        hold: keep a connection's span open until the connection ends, even for days. Otherwise it ends when the
            connection is established, and another one, "connection closed", marks its end.
        propagation: tell servers of the trace, by the headers of the global propagators (`traceparent`, …).
        pattern: maps a topic to its text in names of spans.

    Raises:
        ValueError: it is attached already, or `handles` is not from 0 to 1.
    """
    if not 0 <= handles <= 1:
        raise ValueError(f"handles is a share, from 0 to 1, not {handles!r}")
    tracer = trace.get_tracer("slipstream_trio", tracer_provider=tracer_provider)
    tracing = _Tracing(tracer, int(handles * 2**64), hold, pattern)
    telemetry.attach_many(HANDLER, [CONNECTION, CLIENT], tracing.handle, prefix=True)
    handle_id = f"{HANDLER}.handles"
    if handles:
        telemetry.attach_many(handle_id, [(*HANDLE, "stop"), (*HANDLE, "exception")], tracing.handled)
    if propagation:
        telemetry.propagator = tracing.headers

    def take_off() -> None:
        telemetry.detach(HANDLER)
        telemetry.detach(handle_id)
        if telemetry.propagator == tracing.headers:
            telemetry.propagator = None
        tracing.end()

    return Attachment(take_off)


def current_trace_parent() -> str | None:
    """Return the current span as a W3C traceparent, or None: for the option `trace_parent` of `connect`.

    ```
    connect(url, trace_parent=current_trace_parent)
    ```

    makes each of its connections a part of the trace in which `connect` is entered. Otherwise it is only linked to it.
    """
    here = _current()
    return None if here is None else f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"


@define(eq=False)
class _Connection:
    """A connection: `parent` is the context of its children, None where they are sampled out."""

    context: trace.SpanContext | None
    parent: Context | None
    span: trace.Span | None


UNKNOWN: Final = _Connection(None, None, None)


@define(eq=False)
class _Tracing:
    _tracer: trace.Tracer
    _below: int  # the span ids of handles that get a span
    _hold: bool
    _pattern: TopicPattern
    # Records of a connection may come after its end, such as those of joins that wait for the next one, until its ids
    # are gone.
    _connections: WeakKeyDictionary[records.Origin, _Connection] = Factory(WeakKeyDictionary)
    _callers: dict[str, trace.SpanContext] = Factory(dict)
    _callbacks: dict[str, tuple[trace.Span, Any]] = Factory(dict)

    def handle(self, record: Any) -> None:
        """Take in any record but those of handles."""
        connection = self._connections.get(record.origin, UNKNOWN)
        match record:
            case records.ConnectStart():
                self._connection_started(record)
            case records.ClientCallbackStart():
                self._callback_started(record, connection)
            case _ if len(record.name) == 3:
                if connection.parent is not None:
                    description = describe(record, self._pattern)
                    self._start(connection.parent, description, record.system_time).end(record.system_time)
            case _ if record.name[-1] == "start":
                # The caller's span is remembered, as the end may come in another task.
                if connection.parent is not None and (here := _current()) is not None:
                    self._callers[record.span_id] = here
            case _:
                self._ended(record, connection)

    def _ended(self, record: Any, connection: _Connection) -> None:
        if record.name[:3] == CONNECTION:
            self._connection_ended(record, connection)
        elif record.span_id in self._callbacks:
            span, token = self._callbacks.pop(record.span_id)
            otel_context.detach(token)
            if span.is_recording():
                _finish(span, describe(record, self._pattern), record)
        else:
            self._child(connection.parent or self._connections.get(record.start.origin, UNKNOWN).parent, record)
            established = isinstance(record, records.ClientConnectStop) and record.outcome == "ok"
            if established and not self._hold and connection.span is not None:
                connection.span.end(_end_of(record))
                connection.span = None

    def handled(self, record: records.Record) -> None:
        if int(record.span_id or "0", 16) < self._below:
            self._child(self._connections.get(record.origin, UNKNOWN).parent, record)

    def headers(self, origin: records.Origin) -> list[tuple[str, str]]:
        """Return the headers of a connection's trace; none where OpenTelemetry is not set up."""
        carrier: dict[str, str] = {}
        context = self._connections.get(origin, UNKNOWN).context
        if context is not None:
            propagate.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(context)))
        return list(carrier.items())

    def end(self) -> None:
        """End all open spans, whose own ends will not be seen."""
        for connection in list(self._connections.values()):
            if connection.span is not None:
                connection.span.end()
        for span, _ in list(self._callbacks.values()):
            span.end()
        for known in (self._connections, self._callbacks, self._callers):
            known.clear()

    # The connection

    def _connection_started(self, record: records.ConnectStart) -> None:
        state, given, here = record.state, None, _current()
        if state.trace_parent is not None:  # W3C's traceparent
            _, trace_id, span_id, trace_flags = state.trace_parent.split("-")
            given = _of_ids(trace_id, span_id, int(trace_flags, 16))
            if here is not None and (here.trace_id, here.span_id) == (given.trace_id, given.span_id):
                given, here = here, None  # it is the parent, and needs no link

        def start(parent: trace.SpanContext | None) -> trace.Span:
            description, ids = describe(record, self._pattern), (state.trace_id, state.connection_id)
            return self._start(_under(parent), description, record.system_time, ids, here)

        span = start(given)
        context = span.get_span_context()
        flags = context.trace_flags
        if context.is_valid and given is None and f"{context.trace_id:032x}" != state.trace_id:
            # Without our `IdGenerator` a first span has a trace_id of its own. It has asked the sampler, and is
            # forgotten; another one begins, in the telemetry's trace.
            span = start(_of_ids(state.trace_id, state.connection_id, flags, context.trace_state))
        its = span.get_span_context().trace_state
        known = _of_ids(state.trace_id, state.connection_id, flags, its) if context.is_valid else None
        parent, kept = (_under(known), span) if span.is_recording() else (None, None)
        self._connections[record.origin] = _Connection(known, parent, kept)

    def _connection_ended(self, record: Any, connection: _Connection) -> None:
        if connection.parent is None:
            return
        description = describe(record, self._pattern)
        span, connection.span = connection.span, None
        if span is None:
            description.attributes["slipstream.connection.duration"] = record.duration / 1e9
            end = evolve(description, name="connection closed", kind="internal")
            span = self._start(connection.parent, end, _end_of(record))
        _finish(span, description, record)

    # Spans on it

    def _child(self, parent: Context | None, record: Any) -> None:
        caller = self._callers.pop(record.span_id, None)
        if parent is not None:
            description = describe(record, self._pattern)
            span = self._start(parent, description, record.start.system_time, (None, record.span_id), caller)
            _finish(span, description, record)

    def _start(
        self,
        parent: Context,
        description: Description,
        start_time: int,
        ids: tuple[str | None, str | None] = (None, None),
        linked: trace.SpanContext | None = None,
    ) -> trace.Span:
        name, kind, attributes = description.name, trace.SpanKind[description.kind.upper()], description.attributes
        links = () if linked is None else (trace.Link(linked),)
        handed.trace_id, handed.span_id = ids
        try:
            return self._tracer.start_span(name, parent, kind, attributes, links, start_time)
        finally:
            handed.trace_id = handed.span_id = None

    def _callback_started(self, record: records.ClientCallbackStart, connection: _Connection) -> None:
        if (context := connection.context) is None:
            return
        if connection.parent is None:
            # Sampled out, and so are the callback's own spans.
            its = _of_ids(f"{context.trace_id:032x}", record.span_id, context.trace_flags)
            span: trace.Span = trace.NonRecordingSpan(its)
        else:
            description = describe(record, self._pattern)
            span = self._start(connection.parent, description, record.system_time, (None, record.span_id))
        self._callbacks[record.span_id] = span, otel_context.attach(trace.set_span_in_context(span))


def _end_of(record: Any) -> int:
    """Return when a span ended, in nanoseconds since the epoch: on the clock that it started on."""
    return int(record.start.system_time + record.duration)


def _finish(span: trace.Span, description: Description, record: Any) -> None:
    end_time = _end_of(record)
    span.set_attributes(description.attributes)
    if description.exception is not None:
        span.add_event("exception", description.exception, end_time)
    if description.error is not None:
        span.set_status(trace.Status(trace.StatusCode.ERROR, description.error))
    span.end(end_time)


# Contexts: of the telemetry's spans, of a given parent, and of the current span.


def _current() -> trace.SpanContext | None:
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def _of_ids(trace_id: str, span_id: str, flags: int, state: trace.TraceState | None = None) -> trace.SpanContext:
    ids = int(trace_id, 16), int(span_id, 16)
    return trace.SpanContext(*ids, is_remote=True, trace_flags=trace.TraceFlags(flags), trace_state=state)


def _under(context: trace.SpanContext | None) -> Context:
    """Return the context for a child of a span; None makes it the first of its trace."""
    return Context() if context is None else trace.set_span_in_context(trace.NonRecordingSpan(context), Context())
