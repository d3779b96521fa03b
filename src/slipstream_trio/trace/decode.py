"""Decoding of a recording's lines; `schema` describes them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

from attrs import NOTHING, define, evolve, field, fields

from ..errors import ProtocolError, RecordingError
from ..lean import lean
from ..protocol import STATE_FIELDS, Frame, FrameReceived, Message, MessageReceived, State, serializer_for
from ..telemetry import EventName, HandleStart, Origin, records
from ..telemetry.bus import names_of_events
from .encode import BUILT_IN, HANDLE_STOP, MOST_CONNECTIONS
from .schema import HEADER, MAJOR, MINOR, SCHEMA, Damage, End, Entry, Header, Missing, Recorded, decode_line
from .values import FURTHEST, NESTED, TAG, Test, changed, decode_value, from_fields, remember, tested, tests_of, thing

T = TypeVar("T")
HANDLE_START: Final = HandleStart.name
recorded: Final[Any] = lean(Recorded)
frame_received: Final = lean(FrameReceived)
message_received: Final = lean(MessageReceived)
_DELIVERED: Final = [{TAG: "MessageReceived", "message": {TAG: "@message"}}]
MOST_SPANS: Final = 65536
STATES: Final = 16  # the most states of a connection to remember; lines refer to the last

_KINDS: Final[Mapping[EventName, Any]] = {
    name: kind for kind in vars(records).values() if isinstance(kind, type) for name in names_of_events(kind)
}
"""The classes of records, by their events' names."""

_NAMES: Final = {" ".join(name): name for name in _KINDS}


@define
class _Read:
    """What was read of a connection; the latest handle is kept, so that one read twice is told from a missing one."""

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
    _spans: dict[tuple[EventName, str], Recorded] = field(factory=dict, init=False)

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
                return _entry(Missing, number, line["missing"])
            if "end" in line:
                return _entry(End, number, line["end"])
            return None if self._newer else Damage(number, "neither an event nor anything else that this version knows")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            connection_id = line.get("connection_id")
            return Damage(number, problem, connection_id=connection_id if isinstance(connection_id, str) else None)

    def _header(self, number: int, value: Any) -> Header:
        schema = value["schema"]
        if type(schema) is not str or schema.partition(".")[0] != str(MAJOR):
            use = f"use slipstream-trio {value.get('library')}"
            raise RecordingError(self.path, f"a recording of schema {schema}, and this version reads {SCHEMA}: {use}")
        self._newer = int(schema.partition(".")[2]) > MINOR
        return _entry(Header, number, {**value, "started": datetime.fromisoformat(value["started"])})

    def _record(self, number: int, line: Mapping[str, Any]) -> Recorded:
        text = line["name"]
        name = _NAMES.get(text) or tuple(text.split(" "))
        read = self._connections.get(line["connection_id"])
        if read is None or "socket_id" in line:
            read = self._begin(line, read)
        kind, start, span_id, first = name[-1], None, None, "system_time"
        if kind in ("stop", "exception"):
            start, first = self._start(number, name, line, read), "duration"
            span_id = start.span_id
        elif kind == "start":
            span_id = _id(line["span_id"])
        time, now = line[first], line["monotonic_time"]
        if not (type(time) is type(now) is int and -FURTHEST <= time <= FURTHEST and -FURTHEST <= now <= FURTHEST):
            raise ValueError(f"{first} or monotonic_time is not a whole number of 63 bits")
        if name is HANDLE_STOP and start is not None:
            details = _handled(line, read, start.details())
        elif name is HANDLE_START:
            given, state = line["raw_message"], line["state"]
            if given.get(TAG) == "FrameReceived" and type(given["frame"]) is str and type(given["now"]) is float:
                given = frame_received(given["now"], given["frame"])
            else:
                given = thing(given)
            details = {"raw_message": given, "state": _state(read.states, state)}
        else:
            details = _details(name, line, read)
        times = {first: time, "monotonic_time": now}
        record: Recorded = recorded(number, name, read.origin, times, start, span_id, details)
        if name is HANDLE_START:
            read.handle = record
        elif kind == "start":
            remember(self._spans, (name[:-1], span_id), record, MOST_SPANS)
        return record

    def _begin(self, line: Mapping[str, Any], before: _Read | None) -> _Read:
        """Take the ids of a connection, of which the first line has them all."""
        connection_id = line["connection_id"]
        if "socket_id" not in line:
            raise ValueError(f"the ids of connection {connection_id} are not known: lines before this are missing")
        origin = from_fields(Origin, line)
        if before is None:
            read = _Read(origin)
        else:  # ids that did not change stay the same object, which readers compare sooner
            read = _Read(before.origin if before.origin == origin else origin, before.handle)
        if connection_id is not None:
            remember(self._connections, connection_id, read, MOST_CONNECTIONS)
        return read

    def _start(self, number: int, name: EventName, line: Mapping[str, Any], read: _Read) -> Recorded:
        """Return the start of the span that a line ends."""
        span_id, start, span = line["span_id"], read.handle, name[:-1]
        if "start" in line:
            start = self._record(number, line["start"])
        elif start is None or start.span_id != span_id or start.name[:-1] != span:
            start = self._spans.pop((span, span_id), None)
        if start is None or start.span_id != span_id or start.name != (*span, "start"):
            raise ValueError(f"the start of span {span_id} is not before its end")
        return start


def _id(value: str) -> str:
    if len(value) != 16 or int(value, 16) < 0:  # hex digits
        raise ValueError(f"span_id cannot be {value!r}")
    return value


def _entry(kind: type[T], number: int, its: Mapping[str, Any]) -> T:
    """Return an entry other than a record, whose tuples are lists in JSON."""
    given = {name: tuple(value) if type(value) is list else value for name, value in its.items()}
    return from_fields(kind, {**given, "line": number})  # type: ignore[no-any-return] # it is of that kind


def _details(name: EventName, line: Mapping[str, Any], read: _Read) -> dict[str, Any]:
    """Return the fields of a record of its own; of events of later versions nothing is known."""
    details = {}
    for key, test, later in _fields_of(name):
        value = line.get(key) if later else line[key]
        if key == "state":
            value = _state(read.states, value)
        elif type(value) in NESTED:
            value = decode_value(value)
        details[key] = value
        if type(value) not in test[0] and not (later and value is None):
            tested(key, value, test)
    return details


@lru_cache(maxsize=1024)
def _fields_of(name: EventName) -> list[tuple[str, Test, bool]]:
    """Return the fields of a kind of records: what tests them, and whether older recordings do not have them."""
    kind = records.SpanException if name[-1] == "exception" else _KINDS.get(name)
    if name not in _KINDS and (len(name) < 3 or name[0] != "slipstream" or name[1] == "connection"):
        raise ValueError(f"there is no event {' '.join(name)}")  # in no later version either
    return [
        (field.name.rstrip("_"), tests_of(kind)[field.name], field.default is not NOTHING)
        for field in (fields(kind) if kind else ())
        if field.name not in ("start", "origin", "span_id", "system_time", "monotonic_time")
    ]


def _state(states: dict[int, State], value: Any) -> State:
    if type(value) is int:
        return _known(states, value)
    if "from" in value:
        before = _known(states, value["from"])
        if len(value) == 3 and type(value.get("current_ref")) is int:  # a push
            state = before.with_ref(value["current_ref"])
        else:
            given = {key: changed(key, getattr(before, key), value[key]) for key in value if key in STATE_FIELDS}
            state = evolve(before, **given)
    else:
        # Schema 1.0 has no turns: they are none, rather than those that a state would make of its joins.
        state = from_fields(State, {"turns": {}, **value})
    remember(states, value["n"], state, STATES)
    return state


def _known(states: Mapping[int, State], number: int) -> State:
    if number not in states:
        raise ValueError(f"state {number} of the connection is not known: lines before this are missing")
    return states[number]


def _handled(line: Mapping[str, Any], read: _Read, start: Mapping[str, Any]) -> dict[str, Any]:
    given, end = start["raw_message"], line["end_state"]
    message = _message(line["message"], given, start["state"], read)
    built, return_ = line["built_events"], line["return"]
    return {
        "message": message,
        "built_events": (
            (message_received(message),)
            if built == _DELIVERED and type(message) is Message
            else tuple([thing(event, (given, message)) for event in built])
        ),
        "return": tuple(map(thing, return_)) if return_ else (),
        "end_state": _state(read.states, end),
    }


def _message(value: Any, given: Any, state: State, read: _Read) -> Any:
    if type(value) is not dict or value[TAG] != "Message" or "payload" in value:
        return decode_value(value, (given, None))
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
