"""Decoding of a recording's lines; `schema` describes them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import attrs
from attrs import define, field

from ..errors import ProtocolError, RecordingError
from ..lean import lean
from ..protocol import STATE_FIELDS, Frame, Message, MessageReceived, State, serializer_for
from ..telemetry import (
    BufferOverflowed,
    ClientJoinStop,
    ClientLeaveStop,
    ClientPushStop,
    ConnectStop,
    EventName,
    HandleStart,
    HandleStop,
    MessageDiscarded,
    Origin,
)
from ..telemetry.names import names_of_events
from .handles import BUILT_IN
from .lines import decode_line
from .schema import HEADER, MAJOR, MINOR, SCHEMA, Damage, End, Entry, Header, Missing, Recorded
from .values import CLASSES, FIELDS, NESTED, TAG, changed, decode_value, frame_received, from_fields

__all__ = ["Decoder"]

HANDLE_START: Final = HandleStart.name
HANDLE_STOP: Final = HandleStop.name
recorded: Final[Any] = lean(Recorded)
message_received: Final = lean(MessageReceived)
_DELIVERED: Final = [{TAG: "MessageReceived", "message": {TAG: "@message"}}]
MOST_CONNECTIONS: Final = 4096
MOST_SPANS: Final = 65536
STATES: Final = 16  # the most states of a connection to remember; lines refer to the last

# Fields with defaults came with later versions of the schema.
_LATER: Final[Mapping[EventName, tuple[str, ...]]] = {
    name: tuple(field.name for field in attrs.fields(kind) if field.default is not attrs.NOTHING)
    for kind in (BufferOverflowed, ClientJoinStop, ClientLeaveStop, ClientPushStop, ConnectStop, MessageDiscarded)
    for name in names_of_events(kind)
}
"""The metadata that an older recording does not have."""

_NO_METADATA: Final = frozenset(
    {
        *("name", "connection_id", "trace_id", "socket_id", "generation", "span_id", "start"),
        *("system_time", "duration", "monotonic_time"),
    }
)
_ENDS: Final = frozenset({"stop", "exception"})
_NAMES: Final = {" ".join(name): name for name in names_of_events()}


@define
class _Read:
    """What was read of a connection: its ids, its latest states by number, and its latest handle.

    That is kept beyond its end, so that what is read twice can be told from what is missing.
    """

    origin: Origin
    handle: Recorded | None = None
    states: dict[int, State] = field(factory=dict)
    message_of: Callable[[Frame], Message] | None = None


@define
class Decoder:
    """Reads the lines of one file, in order, and keeps what later ones refer to."""

    path: str
    _newer: bool = field(default=False, init=False)
    _connections: dict[str, _Read] = field(factory=dict, init=False)
    _spans: dict[str, Recorded] = field(factory=dict, init=False)

    def decode(self, number: int, text: bytes) -> Entry | None:
        """Return the entry of a line; None for a kind of later versions."""
        try:
            line = decode_line(text)
        except (ValueError, RecursionError) as error:
            return Damage(number, f"not JSON: {error}")
        if type(line) is not dict:
            return Damage(number, f"not an object but {type(line).__name__}")
        try:
            if "name" in line:
                return self._record(number, line)
            if HEADER in line:
                return self._header(number, line[HEADER])
            if "missing" in line:
                its = line["missing"]
                return Missing(number, its["records"], its["reason"], its.get("connection_id"))
            if "end" in line:
                its = line["end"]
                return End(number, its["records"], its["dropped"], tuple(its["open"]))
            return None if self._newer else Damage(number, "neither an event nor anything else that this version knows")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            connection_id = line.get("connection_id")
            return Damage(number, problem, connection_id=connection_id if isinstance(connection_id, str) else None)

    def _header(self, number: int, value: Any) -> Header:
        schema = value["schema"]
        if type(schema) is not str or schema.partition(".")[0] != str(MAJOR):
            library = value.get("library")
            raise RecordingError(
                self.path,
                f"a recording of schema {schema}, and this version reads {SCHEMA}: use slipstream-trio {library}",
            )
        self._newer = int(schema.partition(".")[2]) > MINOR
        given = {
            **{name: value[name] for name in ("library", "recording", "part")},
            **{name: tuple(value[name]) for name in ("redacted", "open")},
        }
        return Header(number, schema, started=datetime.fromisoformat(value["started"]), **given)

    def _record(self, number: int, line: Mapping[str, Any]) -> Recorded:
        text = line["name"]
        name = _NAMES.get(text) or tuple(text.split(" "))
        read = self._connections.get(line["connection_id"])
        if read is None or "socket_id" in line:
            read = self._begin(line, read)
        kind, start, first = name[-1], None, "system_time"
        if kind in _ENDS:
            start, first = self._start(number, line, read), "duration"
        time, now = line[first], line["monotonic_time"]
        if type(time) is not int or type(now) is not int:
            raise ValueError(f"{'monotonic_time' if type(time) is int else first} is not a whole number")
        if name is HANDLE_STOP and start is not None:
            details = _handled(line, read, start.details())
        elif name is HANDLE_START:
            given, state = line["raw_message"], line["state"]
            if given.get(TAG) == "FrameReceived" and type(given["frame"]) is str:
                given = frame_received(given["now"], given["frame"])
            else:
                given = decode_value(given)
            known = read.states.get(state) if type(state) is int else None
            details = {"raw_message": given, "state": _state(read.states, state) if known is None else known}
        else:
            details = self._details(name, line, read)
        span_id = line.get("span_id")
        times = {first: time, "monotonic_time": now}
        record: Recorded = recorded(number, name, read.origin, times, start, span_id, details, None)
        if name is HANDLE_START:
            read.handle = record
        elif kind == "start":
            _remember(self._spans, line["span_id"], record, MOST_SPANS)
        return record

    def _details(self, name: EventName, line: Mapping[str, Any], read: _Read) -> dict[str, Any]:
        details = {
            key: decode_value(value) if type(value) in NESTED and key != "state" else value
            for key, value in line.items()
            if key not in _NO_METADATA
        }
        if "state" in details:
            details["state"] = _state(read.states, details["state"])
        for key in _LATER.get(name, ()):
            details.setdefault(key, None)
        return details

    def _begin(self, line: Mapping[str, Any], before: _Read | None) -> _Read:
        """Take the ids of a connection, of which the first line has them all."""
        connection_id = line["connection_id"]
        if "socket_id" not in line:
            raise ValueError(f"the ids of connection {connection_id} are not known: lines before this are missing")
        origin = Origin(connection_id, line["trace_id"], line["socket_id"], line["generation"])
        if before is None:
            read = _Read(origin)
        else:  # ids that did not change stay the same object, which readers compare sooner
            read = _Read(before.origin if before.origin == origin else origin, before.handle)
        if connection_id is not None:
            _remember(self._connections, connection_id, read, MOST_CONNECTIONS)
        return read

    def _start(self, number: int, line: Mapping[str, Any], read: _Read) -> Recorded:
        """Return the start of the span that a line ends."""
        if "start" in line:
            return self._record(number, line["start"])
        span_id, start = line["span_id"], read.handle
        if start is None or start.span_id != span_id:
            start = self._spans.pop(span_id, None)
        if start is None:
            raise ValueError(f"the start of span {span_id} is not before its end")
        return start


def _state(states: dict[int, State], value: Any) -> Any:
    if type(value) is int:
        return _known(states, value)
    if type(value) is not dict or "n" not in value:
        return decode_value(value)
    if "from" in value:
        before = _known(states, value["from"])
        if len(value) == 3 and type(value.get("current_ref")) is int:  # a push
            state = before.with_ref(value["current_ref"])
        else:
            given = {key: changed(getattr(before, key), item) for key, item in value.items() if key in STATE_FIELDS}
            state = attrs.evolve(before, **given)
    else:
        # Schema 1.0 has no turns: they are none, rather than those that a state would make of its joins.
        state = from_fields(State, {"turns": {}, **value})
    _remember(states, value["n"], state, STATES)
    return state


def _known(states: Mapping[int, State], number: int) -> State:
    if number not in states:
        raise ValueError(f"state {number} of the connection is not known: lines before this are missing")
    return states[number]


def _handled(line: Mapping[str, Any], read: _Read, start: Mapping[str, Any]) -> dict[str, Any]:
    given, end = start["raw_message"], line["end_state"]
    message = _message(line["message"], given, start["state"], read)
    built, return_ = line["built_events"], line["return"]
    state = read.states.get(end) if type(end) is int else None
    return {
        "message": message,
        "built_events": (
            (message_received(message),)
            if built == _DELIVERED and type(message) is Message
            else tuple([_event(event, given, message) for event in built])
        ),
        "return": tuple(map(decode_value, return_)) if return_ else (),
        "end_state": _state(read.states, end) if state is None else state,
    }


def _message(value: Any, given: Any, state: State, read: _Read) -> Any:
    if type(value) is not dict:
        return decode_value(value)
    if value[TAG] == "@input":
        return given
    if value[TAG] != "Message" or "payload" in value:
        return decode_value(value)
    if read.message_of is None:
        name = state.options.serializer
        if name not in BUILT_IN:
            raise ValueError(f"the message has no payload, and serializer {name!r} is not known here")
        read.message_of = serializer_for(state.options.vsn).decode
    try:
        message = read.message_of(given.frame)
    except ProtocolError as error:
        raise ValueError(f"the frame of its start is not a message: {error}") from None
    join_ref, ref, topic, event, _ = message
    if topic != value["topic"] or event != value["event"] or ref != value["ref"] or join_ref != value["join_ref"]:
        raise ValueError("the message is not that of the frame of its start")
    return message


def _event(value: Any, given: Any, message: Any) -> Any:
    kind = CLASSES.get(value[TAG])
    if kind is None:
        return decode_value(value)
    fields = {name: value[name] for name in FIELDS[kind] if name in value}
    for name, part in fields.items():
        if type(part) in NESTED:
            shared = _SHARED.get(part.get(TAG, "")) if type(part) is dict else None
            fields[name] = decode_value(part) if shared is None else shared(given, message)
    return kind(**fields)


_SHARED: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "@input": lambda given, _: given,
    "@message": lambda _, message: message,
    "@payload": lambda _, message: message.payload,
    "@response": lambda _, message: message.payload["response"],
}


def _remember(table: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    if len(table) >= most and key not in table:
        del table[next(iter(table))]
    table[key] = value
