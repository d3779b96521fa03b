"""Decoding of a recording's lines; `schema` describes them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import attrs
from attrs import define, field

from ..errors import ProtocolError, RecordingError
from ..lean import lean
from ..protocol import STATE_FIELDS, Message, MessageReceived, Serializer, State, serializer_for
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
from ..telemetry.records import names_of_events
from .encode import BUILT_IN
from .schema import HEADER, MAJOR, MINOR, SCHEMA, Damage, End, Entry, Header, Missing, Recorded
from .values import CLASSES, FIELDS, TAG, changed, decode_value, from_fields

__all__ = ["Decoder"]

HANDLE_START: Final = HandleStart.name
HANDLE_STOP: Final = HandleStop.name
recorded: Final[Any] = lean(Recorded)
message_received: Final = lean(MessageReceived)
_DELIVERED: Final = [{TAG: "MessageReceived", "message": {TAG: "@message"}}]

MOST_CONNECTIONS: Final = 4096
MOST_SPANS: Final = 65536
STATES: Final = 16
"""The most states of a connection to remember; lines refer to the last."""

# Fields with defaults came with later versions of the schema.
_LATER: Final[Mapping[EventName, tuple[str, ...]]] = {
    name: tuple(field.name for field in attrs.fields(kind) if field.default is not attrs.NOTHING)
    for kind in (BufferOverflowed, ClientJoinStop, ClientLeaveStop, ClientPushStop, ConnectStop, MessageDiscarded)
    for name in names_of_events(kind)
}
"""The metadata that an older recording does not have."""

_MEASUREMENTS: Final = ("system_time", "duration", "monotonic_time")
_COMMON: Final = frozenset({"name", "connection_id", "trace_id", "socket_id", "generation", "span_id", "start"})
_NO_METADATA: Final = _COMMON.union(_MEASUREMENTS)


@define
class _Read:
    """The state of reading a connection."""

    origin: Origin
    states: dict[int, State] = field(factory=dict)


@define
class Decoder:
    """Reads the lines of one file, in order, and keeps what later ones refer to.

    Parameters:
        path: the file's name, for errors.
    """

    path: str
    _newer: bool = field(default=False, init=False)
    _connections: dict[str, _Read] = field(factory=dict, init=False)
    _spans: dict[str, Recorded] = field(factory=dict, init=False)
    _last_handle: dict[str, Recorded] = field(factory=dict, init=False)

    def decode(self, number: int, line: Any) -> Entry | None:
        """Return the entry of a line; None for a kind of later versions.

        Parameters:
            number: the line's number, from 1.
            line: its JSON value.

        Raises:
            RecordingError: it is the header of another schema.
        """
        try:
            if type(line) is not dict:
                return Damage(number, f"not an object but {type(line).__name__}")
            if "name" in line:
                return self._record(number, line)
            if HEADER in line:
                return self._header(number, line[HEADER])
            if "missing" in line:
                return _missing(number, line["missing"])
            if "end" in line:
                return _end(number, line["end"])
        except KeyError as error:
            return Damage(number, f"it has no {error}", connection_id=_connection_of(line))
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            return Damage(number, str(error), connection_id=_connection_of(line))
        return None if self._newer else Damage(number, "neither an event nor anything else that this version knows")

    def _header(self, number: int, value: Any) -> Header:
        schema = value["schema"]
        if type(schema) is not str or schema.partition(".")[0] != str(MAJOR):
            library = value.get("library")
            raise RecordingError(
                self.path,
                f"a recording of schema {schema}, and this version reads {SCHEMA}: use slipstream-trio {library}",
            )
        self._newer = int(schema.partition(".")[2]) > MINOR
        return Header(
            number,
            schema,
            value["library"],
            value["recording"],
            value["part"],
            datetime.fromisoformat(value["started"]),
            tuple(value["redacted"]),
            tuple(value["open"]),
        )

    def _record(self, number: int, line: Mapping[str, Any]) -> Recorded:
        name = _name(line["name"])
        origin = self._origin(line)
        start = self._start(number, line) if name[-1] in ("stop", "exception") else None
        measurements = _measurements(line, start)
        if start is not None and name == HANDLE_STOP:
            details = self._handled(line, origin, start.details())
        elif name == HANDLE_START:
            details = {
                "raw_message": decode_value(line["raw_message"]),
                "state": self._state(origin, line["state"]),
            }
        else:
            details = {
                key: self._state(origin, value) if key == "state" else decode_value(value)
                for key, value in line.items()
                if key not in _NO_METADATA
            }
            for key in _LATER.get(name, ()):
                details.setdefault(key, None)
        record: Recorded = recorded(number, name, origin, measurements, start, line.get("span_id"), details, None)
        if name[-1] == "start":
            self._began(record, line["span_id"])
        return record

    def _began(self, record: Recorded, span_id: str) -> None:
        if record.name[:3] == HANDLE_STOP[:3]:
            # One at a time, and kept beyond its end: what is read twice can be told from what is missing.
            _remember(self._last_handle, record.origin.connection_id or "", record, MOST_CONNECTIONS)
        else:
            _remember(self._spans, span_id, record, MOST_SPANS)

    def _origin(self, line: Mapping[str, Any]) -> Origin:
        connection_id = line["connection_id"]
        if "socket_id" not in line:
            read = self._connections.get(connection_id)
            if read is None:
                raise ValueError(f"the ids of connection {connection_id} are not known: lines before this are missing")
            return read.origin
        origin = Origin(connection_id, line["trace_id"], line["socket_id"], line["generation"])
        if connection_id is not None:
            _remember(self._connections, connection_id, _Read(origin), MOST_CONNECTIONS)
        return origin

    def _start(self, number: int, line: Mapping[str, Any]) -> Recorded:
        """Return the start of the span that a line ends."""
        if "start" in line:
            return self._record(number, line["start"])
        span_id = line["span_id"]
        start = self._spans.pop(span_id, None)
        if start is None:
            start = self._last_handle.get(line["connection_id"] or "")
        if start is None or start.span_id != span_id:
            raise ValueError(f"the start of span {span_id} is not before its end")
        return start

    def _state(self, origin: Origin, value: Any) -> Any:
        states = self._connections[origin.connection_id].states if origin.connection_id in self._connections else {}
        if type(value) is int:
            return _known(states, value)
        if type(value) is not dict or "n" not in value:
            return decode_value(value)
        if "from" in value:
            before = _known(states, value["from"])
            if len(value) == 3 and type(value.get("current_ref")) is int:  # a push
                parts = before.topics, before.turn_queue, before.heartbeat, value["current_ref"], before.close_reason
                state = State.of(before.identity, before.status, *parts)
                _remember(states, value["n"], state, STATES)
                return state
            given = {key: changed(getattr(before, key), item) for key, item in value.items() if key in STATE_FIELDS}
            state = attrs.evolve(before, **given)
        else:
            state = from_fields(State, value)
        _remember(states, value["n"], state, STATES)
        return state

    def _handled(self, line: Mapping[str, Any], origin: Origin, start: Mapping[str, Any]) -> dict[str, Any]:
        given = start["raw_message"]
        message = _message(line["message"], given, start["state"])
        built, return_ = line["built_events"], line["return"]
        return {
            "message": message,
            "built_events": (
                (message_received(message),)
                if built == _DELIVERED and type(message) is Message
                else tuple([_event(event, given, message) for event in built])
            ),
            "return": tuple(map(decode_value, return_)) if return_ else (),
            "end_state": self._state(origin, line["end_state"]),
        }


@lru_cache(maxsize=256)
def _name(text: str) -> EventName:
    return tuple(text.split(" "))


def _measurements(line: Mapping[str, Any], start: Recorded | None) -> dict[str, int]:
    first = "system_time" if start is None else "duration"
    found = {first: line[first], "monotonic_time": line["monotonic_time"]}
    for key, value in found.items():
        if type(value) is not int:
            raise ValueError(f"{key} is not a whole number")
    return found


def _known(states: Mapping[int, State], number: int) -> State:
    if number not in states:
        raise ValueError(f"state {number} of the connection is not known: lines before this are missing")
    return states[number]


@lru_cache(maxsize=16)
def _serializer(vsn: str) -> Serializer:
    return serializer_for(vsn)


def _message(value: Any, given: Any, state: State) -> Any:
    if type(value) is not dict:
        return decode_value(value)
    if value[TAG] == "@input":
        return given
    if value[TAG] != "Message" or "payload" in value:
        return decode_value(value)
    if state.options.serializer not in BUILT_IN:
        raise ValueError(f"the message has no payload, and serializer {state.options.serializer!r} is not known here")
    try:
        message = _serializer(state.options.vsn).decode(given.frame)
    except ProtocolError as error:
        raise ValueError(f"the frame of its start is not a message: {error}") from None
    if message[:4] != (value["join_ref"], value["ref"], value["topic"], value["event"]):
        raise ValueError("the message is not that of the frame of its start")
    return message


def _event(value: Any, given: Any, message: Any) -> Any:
    kind = CLASSES.get(value[TAG])
    if kind is None:
        return decode_value(value)
    return kind(**{name: _part(value[name], given, message) for name in FIELDS[kind] if name in value})


def _part(value: Any, given: Any, message: Any) -> Any:
    if type(value) is dict and value.get(TAG) in _PARTS:
        return _PARTS[value[TAG]](given, message)
    return decode_value(value)


_PARTS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "@input": lambda given, _: given,
    "@message": lambda _, message: message,
    "@payload": lambda _, message: message.payload,
    "@response": lambda _, message: message.payload["response"],
}


def _missing(number: int, value: Any) -> Missing:
    return Missing(number, value["records"], value["reason"], value.get("connection_id"))


def _end(number: int, value: Any) -> End:
    return End(number, value["records"], value["dropped"], tuple(value["open"]))


def _connection_of(line: Mapping[str, Any]) -> str | None:
    connection_id = line.get("connection_id")
    return connection_id if isinstance(connection_id, str) else None


def _remember(table: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    if len(table) >= most and key not in table:
        del table[next(iter(table))]
    table[key] = value
