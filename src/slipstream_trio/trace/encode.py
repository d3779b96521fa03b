"""Telemetry records to lines of a recording; `schema` tells what is in them."""

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import attrs
from attrs import define, field

from ..protocol import Frame, FrameReceived, Message, SendFrame, State
from ..telemetry import ConnectStart, EventName, HandleStart, HandleStop, Origin, Record
from .lines import encode_line
from .redact import Redacted, Redactor
from .schema import HEADER, SCHEMA, start_time
from .values import FIELDS, TAG, changes_of, encode_value, fields_of, names_of

__all__ = ["BUILT_IN", "Encoder", "end_line", "header_line", "missing_line"]

BUILT_IN: Final = frozenset({"v1", "v2"})
"""The serializers whose messages can be decoded again by whoever reads a recording."""

FULL_EVERY: Final = 256
"""Lines of a connection, after which its ids and its state are written in full again."""

MOST_CONNECTIONS: Final = 4096
"""How many connections are remembered; what is forgotten is written in full when it comes again."""

CONNECT_START: Final = ConnectStart.name
HANDLE_START: Final = HandleStart.name
HANDLE_STOP: Final = HandleStop.name

# No value needs care in these places that `encode_line` does not take.
_START: Final = (
    b'{"name":"slipstream connection handle start",%b,"span_id":%b,"system_time":%d,"monotonic_time":%d,'
    b'"raw_message":%b,"state":%b}\n'
)
_FRAME: Final = b'{"$":"FrameReceived","now":%b,"frame":%b}'
_STOP: Final = (
    b'{"name":"slipstream connection handle stop",%b,"span_id":%b,"duration":%d,"monotonic_time":%d%b,"message":%b,'
    b'"built_events":%b,"return":%b,"end_state":%b}\n'
)
_HANDLED: Final = ("raw_message", "state", "message", "built_events", "return", "end_state")
_DELIVERED: Final = b'[{"$":"MessageReceived","message":{"$":"@message"}}]'
_COMMON: Final = frozenset({"connection_id", "trace_id", "socket_id", "generation", "start_time", "span_id"})
_PAYLOADS: Final = frozenset({"params", "response", "return"})
_TEXTS: Final = frozenset({"reason", "termination_reason", "stacktrace", "message", "hint"})
_NOTHING: Final = object()


@define
class _Written:
    """What has been written of a connection, in its latest lines.

    Attributes:
        origin: its ids.
        lines: how many lines, since it was written in full.
        state: the latest state, and its `number`.
        span: the handle whose start was written, and whose end was not.
        short: the ids of its next line, encoded.
        decodes: whether the message of that handle can be had from its frame by whoever reads the recording.
    """

    origin: Origin
    lines: int = 0
    state: State | None = None
    number: int = 0
    span: str | None = None
    short: bytes = b""
    decodes: bool = False


@define
class Encoder:
    """Makes lines of records, in the order in which they come.

    Handles are put together of encoded parts, as nearly all lines of a busy recording are theirs.

    Parameters:
        redactor: hides what is not to be written.

    Attributes:
        alive: the connections whose start was written, and whose end was not.
    """

    redactor: Redactor
    alive: dict[str, None] = field(factory=dict, init=False)
    _seen: dict[str, None] = field(factory=dict, init=False)
    _written: dict[str, _Written] = field(factory=dict, init=False)
    _open: set[str] = field(factory=set, init=False)

    def restart(self) -> None:
        """Forget what was written: another file begins, or lines were lost."""
        self._written.clear()
        self._open.clear()

    def encode(self, record: Record) -> bytes:
        """Return the line of a record, with its line feed; two lines, where the first tells what is missing."""
        name = record.name
        known = name[2] == "handle" and record.origin.connection_id in self._seen
        before = b"" if known else self.notice(record)
        if name == HANDLE_START:
            return before + self._handle_start(record)
        if name == HANDLE_STOP:
            return before + self._handle_stop(record)
        return before + encode_line(self._other(record, name)) + b"\n"

    def notice(self, record: Record) -> bytes:
        """Note which connections there are; returns the line, if any, that has to be written about this one first.

        Of a record that is not written, this is all that has to be known.
        """
        name, connection_id = record.name, record.origin.connection_id
        if connection_id is None or name[1] != "connection":
            return b""
        if name == CONNECT_START:
            _remember(self._seen, connection_id, None)
            self.alive[connection_id] = None
        elif name[2] == "connect":
            self.alive.pop(connection_id, None)
        elif connection_id not in self._seen:
            _remember(self._seen, connection_id, None)
            self.alive[connection_id] = None
            return missing_line(None, "began_before", connection_id)
        return b""

    # The parts of a line

    def _ids(self, origin: Origin) -> dict[str, Any]:
        connection_id = origin.connection_id
        written = None if connection_id is None else self._written.get(connection_id)
        if (
            written is not None
            and written.lines < FULL_EVERY
            and (written.origin is origin or written.origin == origin)
        ):
            written.lines += 1
            return {"connection_id": connection_id}
        if connection_id is not None:
            renewed = _Written(origin)
            if written is not None:
                renewed.span, renewed.decodes = written.span, written.decodes
            _remember(self._written, connection_id, renewed)
        return {
            "connection_id": connection_id,
            "trace_id": origin.trace_id,
            "socket_id": origin.socket_id,
            "generation": origin.generation,
        }

    def _state(self, origin: Origin, state: State) -> Any:
        written = self._written.get(origin.connection_id or "")
        if written is None:
            return encode_value(state, self.redactor)
        if state is written.state:
            return written.number
        before, written.state = written.state, state
        written.number += 1
        if before is None:
            return {"n": written.number, **fields_of(state, self.redactor)}
        return {"n": written.number, "from": written.number - 1, **changes_of(before, state, self.redactor)}

    def _metadata(self, origin: Origin, metadata: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata beyond what every record has, and beyond what is known from the start."""
        return {
            key: self._value(origin, key, value, metadata)
            for key, value in metadata.items()
            if key not in _COMMON and known.get(key, _NOTHING) is not value
        }

    def _value(self, origin: Origin, key: str, value: Any, metadata: Mapping[str, Any]) -> Any:
        redactor = self.redactor
        if type(value) is State:
            return self._state(origin, value)
        if key == "raw_message":
            return self._framed(value, metadata["state"])
        if key in _PAYLOADS:
            value = redactor.payload(value)
        elif key == "arguments":
            value = redactor.arguments(value)
        elif key == "response_headers":
            value = redactor.headers(value)
        elif key == "frame" and value is not None:
            value = redactor.frame(value, "v2", sent=False)  # it is malformed: hidden, if there may be a secret in it
        elif key in _TEXTS and value is not None:
            # Where there is a traceback, the reason is an exception's text.
            value = redactor.error(value) if "stacktrace" in metadata else redactor.text(value)
        return encode_value(value, redactor)

    # The lines

    def _other(self, record: Record, name: EventName) -> dict[str, Any]:
        metadata, origin = record.metadata, record.origin
        line = self._first(record, name, metadata)
        known: Mapping[str, Any] = {}
        if name[-1] == "start":
            self._open.add(metadata["span_id"])
        elif name[-1] in ("stop", "exception"):
            start: Record = record.start  # type: ignore[attr-defined]
            known = start.metadata
            written = self._written.get(origin.connection_id or "")
            if not self._known(metadata["span_id"], written):
                line["start"] = self._whole(start, known)
        return {**line, **self._metadata(origin, metadata, known)}

    def _first(self, record: Record, name: EventName, metadata: Mapping[str, Any]) -> dict[str, Any]:
        span_id = metadata.get("span_id")
        ids = self._ids(record.origin)
        spans = {} if span_id is None else {"span_id": span_id}
        return {"name": " ".join(name), **ids, **spans, **record.measurements}

    def _known(self, span_id: str, written: _Written | None) -> bool:
        """Tell whether the start of a span that ends was written; elsewhere, the end has it."""
        if written is not None and written.span == span_id:
            written.span = None
            return True
        known = span_id in self._open
        self._open.discard(span_id)
        return known

    def _whole(self, start: Record, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return self._first(start, start.name, metadata) | self._metadata(start.origin, metadata, {})

    def _handle_ids(self, origin: Origin) -> tuple[bytes, _Written]:
        """Return the ids, encoded, and what is written of the connection."""
        written = self._written.get(origin.connection_id or "")
        if written is not None and written.lines < FULL_EVERY and written.origin is origin and written.short:
            written.lines += 1
            return written.short, written
        text = encode_line(self._ids(origin))[1:-1]
        written = self._written[origin.connection_id or ""]
        written.short = encode_line({"connection_id": origin.connection_id})[1:-1]
        return text, written

    def _handle_start(self, record: Any) -> bytes:
        ids, written = self._handle_ids(record.origin)
        if type(record) is HandleStart:
            state, frame = record.state, record.frame
            given = record.raw_message if frame is None else None
            system_time, monotonic_time = record.system_time, record.monotonic_time
        else:
            state, given, frame = record.metadata["state"], record.metadata["raw_message"], None
            system_time, monotonic_time = record.measurements["system_time"], record.measurements["monotonic_time"]
        if type(given) is FrameReceived:
            frame = (given.now, given.frame)
        if frame is not None:
            text = self._frame(frame[0], frame[1], state, written)
        else:
            text = encode_line(self._framed(given, state))
        written.span = record.span_id
        same = state is written.state
        after = b"%d" % written.number if same else encode_line(self._state(record.origin, state))
        return _START % (ids, encode_line(record.span_id), system_time, monotonic_time, text, after)

    def _frame(self, now: float, frame: Frame | Redacted, state: State, written: _Written) -> bytes:
        shown = self.redactor.frame(frame, state.options.serializer, sent=False)
        written.decodes = type(shown) is not Redacted and state.options.serializer in BUILT_IN
        value = shown if type(shown) is str and shown.isascii() else encode_value(shown, self.redactor)
        return _FRAME % (encode_line(now), encode_line(value))

    def _handle_stop(self, record: Any) -> bytes:
        start, origin, live = record.start, record.origin, type(record) is HandleStop
        ids, written = self._handle_ids(origin)
        span_id, whole = start.span_id, b""
        if not self._known(span_id, written):
            metadata = start.metadata
            whole = b',"start":' + encode_line(self._whole(start, metadata))
            written.decodes = self._decodes(metadata["raw_message"], metadata["state"])
        message = record.delivered if live else None
        if message is not None:
            parts, state = (self._message(message, written), _DELIVERED, b"[]"), start.state
        elif live:
            made, state = record.transition, record.transition.state
            parts = self._parts(start.raw_message, start.state, made.message, made.built_events, made.return_, written)
        else:
            given, before, message, built, return_, state = (record.metadata[key] for key in _HANDLED)
            parts = self._parts(given, before, message, built, return_, written)
        now = record.monotonic_time if live else record.measurements["monotonic_time"]
        took = now - start.monotonic_time if live else record.measurements["duration"]
        after = b"%d" % written.number if state is written.state else encode_line(self._state(origin, state))
        return _STOP % (ids, encode_line(span_id), took, now, whole, *parts, after)

    def _decodes(self, given: Any, state: State) -> bool:
        """Tell whether the message of an input can be had from what is shown of its frame."""
        serializer = state.options.serializer
        if type(given) is not FrameReceived or serializer not in BUILT_IN:
            return False
        return type(self.redactor.frame(given.frame, serializer, sent=False)) is not Redacted

    def _parts(  # noqa: PLR0917 - of records live and read
        self, given: Any, state: State, message: Any, built: Any, return_: Any, written: _Written
    ) -> tuple[bytes, bytes, bytes]:
        """Return message, built events and effects, encoded."""
        text = b'{"$":"@input"}' if message is given else self._message(message, written)
        shared = _shared(given, message) if built else {}
        events = encode_line([self._event(event, shared) for event in built]) if built else b"[]"
        effects = encode_line([self._framed(effect, state) for effect in return_]) if return_ else b"[]"
        return text, events, effects

    def _message(self, message: Any, written: _Written) -> bytes:
        if type(message) is Message and written.decodes:
            join_ref, ref, topic, event, _ = message
            shown = {TAG: "Message", "join_ref": join_ref, "ref": ref, "topic": topic, "event": event}
            return encode_line(shown)
        return encode_line(encode_value(message, self.redactor))

    def _framed(self, value: Any, state: State) -> Any:
        """Return an input or an effect, which may have a frame."""
        kind = type(value)
        if kind is not FrameReceived and kind is not SendFrame:
            return encode_value(value, self.redactor)
        frame = self.redactor.frame(value.frame, state.options.serializer, sent=kind is SendFrame)
        return {
            TAG: kind.__name__,
            **{name: encode_value(getattr(value, name), self.redactor) for name in FIELDS[kind] if name != "frame"},
            "frame": encode_value(frame, self.redactor),
        }

    def _event(self, event: Any, shared: Mapping[int, str]) -> Any:
        """Return an event in JSON types; what is the message, or a part of it, is not written again."""
        if not shared or not attrs.has(type(event)):
            return encode_value(event, self.redactor)
        replaced = {
            name: shared[id(value)]
            for name in type(event).__slots__
            if (value := getattr(event, name, None)) is not None and id(value) in shared
        }
        if not replaced:
            return encode_value(event, self.redactor)
        fields = fields_of(event, self.redactor, [name for name in names_of(type(event)) if name not in replaced])
        return {TAG: type(event).__name__, **fields, **{name: {TAG: what} for name, what in replaced.items()}}


def header_line(
    recording: str, part: int, system_time: int, redacted: Collection[str], alive: Collection[str]
) -> bytes:
    """Return the first line of a file.

    Parameters:
        recording: the recording's id.
        part: the number of the file, from 1.
        system_time: in nanoseconds since the epoch.
        redacted: what is redacted.
        alive: the connections that are open.
    """
    header = {
        "schema": SCHEMA,
        "library": _library(),
        "recording": recording,
        "part": part,
        "started": start_time(system_time).isoformat(),
        "redacted": list(redacted),
        "open": list(alive),
    }
    return encode_line({HEADER: header}) + b"\n"


def end_line(records: int, dropped: int, alive: Collection[str]) -> bytes:
    """Return the last line of a recording.

    Parameters:
        records: how many records were written.
        dropped: how many were not.
        alive: the connections that are open.
    """
    return encode_line({"end": {"records": records, "dropped": dropped, "open": list(alive)}}) + b"\n"


def _library() -> str:
    try:
        return version("slipstream-trio")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def missing_line(records: int | None, reason: str, connection_id: str | None = None) -> bytes:
    """Return the line that says that records are missing."""
    line: dict[str, Any] = {"missing": {"records": records, "reason": reason}}
    if connection_id is not None:
        line["missing"]["connection_id"] = connection_id
    return encode_line(line) + b"\n"


def _shared(given: Any, message: Any) -> dict[int, str]:
    """Return the objects of a handle that its events may have as well, by their identity."""
    shared = {id(given): "@input"}
    if type(message) is Message and message is not given:
        shared[id(message)] = "@message"
        payload = message.payload
        if type(payload) in (dict, list, bytes):
            shared[id(payload)] = "@payload"
        if type(payload) is dict and type(payload.get("response")) in (dict, list, bytes):
            shared[id(payload["response"])] = "@response"
    return shared


def _remember(table: dict[str, Any], key: str, value: Any) -> None:
    if len(table) >= MOST_CONNECTIONS and key not in table:
        del table[next(iter(table))]
    table[key] = value
