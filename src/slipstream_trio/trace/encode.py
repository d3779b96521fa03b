"""Telemetry records to lines of a recording; `schema` tells what is in them."""

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import attrs
from attrs import define, field

from ..protocol import FrameReceived, Message, MessageReceived, SendFrame, State
from ..protocol.state import changed_fields
from ..telemetry import ConnectStart, EventName, HandleStart, HandleStop, Origin, Record
from .lines import encode_line
from .quick import quick_start, quick_stop
from .redact import Redacted, Redactor
from .schema import HEADER, SCHEMA, start_time
from .values import FIELDS, TAG, encode_value, fields_of, names_of

__all__ = ["BUILT_IN", "Encoder", "end_line", "header_line", "missing_line"]

BUILT_IN: Final = frozenset({"v1", "v2"})
"""The serializers whose messages can be decoded again by whoever reads a recording."""

FULL_EVERY: Final = 256
"""Lines of a connection, after which its ids and its state are written in full again."""

MOST_CONNECTIONS: Final = 4096
"""How many connections are remembered; what is forgotten is written in full when it comes again."""

CONNECT_START: Final = ConnectStart.name
CONNECT: Final = CONNECT_START[:-1]
HANDLE_STOP: Final = HandleStop.name
_HANDLE_START_TEXT: Final = " ".join(HandleStart.name)
_COMMON: Final = frozenset({"connection_id", "trace_id", "socket_id", "generation", "start_time", "span_id"})
_PAYLOADS: Final = frozenset({"params", "response", "return"})
_TEXTS: Final = frozenset({"reason", "termination_reason", "stacktrace", "message", "hint"})
_NOTHING: Final = object()


@define
class _Written:
    """What has been written of a connection."""

    origin: Origin
    lines: int = 0
    state: State | None = None
    number: int = 0


@define
class Encoder:
    """Makes lines of records, in the order in which they come.

    Parameters:
        redactor: hides what is not to be written.

    Attributes:
        alive: the connections whose start was written, and whose end was not.
    """

    redactor: Redactor
    alive: dict[str, None] = field(factory=dict, init=False)
    _seen: dict[str, None] = field(factory=dict, init=False)
    _written: dict[str, _Written] = field(factory=dict, init=False)
    _open: dict[str, Mapping[str, Any]] = field(factory=dict, init=False)

    def restart(self) -> None:
        """Forget what was written: another file begins, or lines were lost."""
        self._written.clear()
        self._open.clear()

    def encode(self, record: Record) -> bytes:
        """Return the line of a record, with its line feed; two lines, where the first tells what is missing."""
        if type(record) is HandleStart:
            quick = self._quick_start(record)
        elif type(record) is HandleStop:
            quick = self._quick_stop(record)
        else:
            quick = None
        return self._thorough(record) if quick is None else quick

    def _thorough(self, record: Record) -> bytes:
        name = record.name
        before = self.notice(record)
        if type(record) is HandleStart:
            line = self._handle_start(record)
        elif name == HANDLE_STOP:
            line = self._handle_stop(record)
        else:
            line = self._other(record, name)
        return before + encode_line(line) + b"\n"

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
        elif name[:3] == CONNECT:
            self.alive.pop(connection_id, None)
        elif connection_id not in self._seen:
            _remember(self._seen, connection_id, None)
            self.alive[connection_id] = None
            return missing_line(None, "began_before", connection_id)
        return b""

    # The short cuts

    def _quick_start(self, record: HandleStart) -> bytes | None:
        """Return the line of a text frame's arrival, None if there is more to it."""
        given, state, connection_id = record.raw_message, record.state, record.origin.connection_id or ""
        written = self._written.get(connection_id)
        if (
            written is None
            or written.origin is not record.origin
            or written.state is not state
            or written.lines >= FULL_EVERY
            or type(given) is not FrameReceived
            or type(given.frame) is not str
            or (serializer := state.options.serializer) not in BUILT_IN
            or self.redactor.frame(given.frame, serializer, sent=False) is not given.frame
        ):
            return None
        try:
            line = quick_start(record, written.number)
        except UnicodeEncodeError:  # lone surrogates
            return None
        written.lines += 1
        self._open[record.span_id] = {"raw_message": given, "state": state, "plain": True}
        return line

    def _quick_stop(self, record: HandleStop) -> bytes | None:
        """Return the line of a plain message's delivery, None if there is more to it."""
        start, transition = record.start, record.transition
        built, message = transition.built_events, transition.message
        known = self._open.get(start.span_id)
        if (
            known is None
            or "plain" not in known
            or transition.state is not start.state
            or transition.return_
            or len(built) != 1
            or type(built[0]) is not MessageReceived
            or built[0].message is not message
        ):
            return None
        connection_id = start.origin.connection_id or ""
        written = self._written[connection_id]
        if written.lines >= FULL_EVERY or written.state is not start.state:
            return None
        written.lines += 1
        del self._open[start.span_id]
        return quick_stop(record, written.number)

    # The parts of a line

    def _ids(self, origin: Origin) -> dict[str, Any]:
        connection_id = origin.connection_id
        written = None if connection_id is None else self._written.get(connection_id)
        if written is not None and written.lines < FULL_EVERY and written.origin == origin:
            written.lines += 1
            return {"connection_id": connection_id}
        if connection_id is not None:
            _remember(self._written, connection_id, _Written(origin))
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
        fields = fields_of(state, self.redactor, changed_fields(before, state))
        return {"n": written.number, "from": written.number - 1, **fields}

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

    def _handle_start(self, record: HandleStart) -> dict[str, Any]:
        # The same as `_other` does, without its detours: one is written for every message.
        given, state = record.raw_message, record.state
        self._open[record.span_id] = {"raw_message": given, "state": state}
        return {
            "name": _HANDLE_START_TEXT,
            **self._ids(record.origin),
            "span_id": record.span_id,
            "system_time": record.system_time,
            "monotonic_time": record.monotonic_time,
            "raw_message": self._framed(given, state),
            "state": self._state(record.origin, state),
        }

    def _other(self, record: Record, name: EventName) -> dict[str, Any]:
        metadata, origin = record.metadata, record.origin
        line = self._first(record, name, metadata)
        if name[-1] == "start":
            self._open[metadata["span_id"]] = metadata
            return {**line, **self._metadata(origin, metadata, {})}
        if name[-1] not in ("stop", "exception"):
            return {**line, **self._metadata(origin, metadata, {})}
        known = self._start_of(record, line, metadata)
        return {**line, **self._metadata(origin, metadata, known)}

    def _first(self, record: Record, name: EventName, metadata: Mapping[str, Any]) -> dict[str, Any]:
        span_id = metadata.get("span_id")
        ids = self._ids(record.origin)
        spans = {} if span_id is None else {"span_id": span_id}
        return {"name": " ".join(name), **ids, **spans, **record.measurements}

    def _start_of(self, record: Record, line: dict[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the reader knows of the span from its start; which is put into the line, if it is elsewhere."""
        known = self._open.pop(metadata["span_id"], None)
        if known is None:
            start: Record = record.start  # type: ignore[attr-defined]
            known = start.metadata
            line["start"] = self._first(start, start.name, known) | self._metadata(start.origin, known, {})
        return known

    def _handle_stop(self, record: Record) -> dict[str, Any]:
        if type(record) is HandleStop:
            transition, given = record.transition, record.start.raw_message
            message, built, return_ = transition.message, transition.built_events, transition.return_
            state, span_id = transition.state, record.start.span_id
            metadata: Mapping[str, Any] = {"span_id": span_id, "state": record.start.state}
        else:
            metadata = record.metadata
            given, message, built = metadata["raw_message"], metadata["message"], metadata["built_events"]
            return_, state = metadata["return"], metadata["end_state"]
        origin = record.origin
        span_id = metadata["span_id"]
        line = {
            "name": "slipstream connection handle stop",
            **self._ids(origin),
            "span_id": span_id,
            **record.measurements,
        }
        self._start_of(record, line, metadata)
        line["message"] = self._message(given, message, metadata["state"])
        shared = _shared(given, message)
        line["built_events"] = [self._event(event, shared) for event in built]
        line["return"] = [self._framed(effect, metadata["state"]) for effect in return_]
        line["end_state"] = self._state(origin, state)
        return line

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

    def _message(self, given: Any, message: Any, state: State) -> Any:
        if message is given:
            return {TAG: "@input"}
        serializer = state.options.serializer
        if (
            type(message) is Message
            and type(given) is FrameReceived
            and serializer in BUILT_IN
            and type(self.redactor.frame(given.frame, serializer, sent=False)) is not Redacted
        ):
            join_ref, ref, topic, event, _ = message
            return {TAG: "Message", "join_ref": join_ref, "ref": ref, "topic": topic, "event": event}
        return encode_value(message, self.redactor)

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
