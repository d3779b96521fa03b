"""Encoding of telemetry records as lines of a recording; `schema` describes them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import attrs
from attrs import define, field

from ..protocol import Frame, FrameReceived, Message, Options, SendFrame, State
from ..telemetry import ConnectStart, EventName, HandleStart, HandleStop, Origin, Record
from .handles import BUILT_IN, FRAME, FULL_EVERY, Written, can_wait, message_text, pushed_lines, received_lines
from .lines import encode_line
from .redact import Redacted, Redactor
from .schema import missing_line
from .values import FIELDS, changes_of, encode_value, encoded, fields_of, plain_text, redacted, remember

MOST_CONNECTIONS: Final = 4096
"""The most connections to remember; a forgotten one is written in full when it comes again."""

CONNECT_START: Final = ConnectStart.name
HANDLE_STOP: Final = HandleStop.name
RECORDED: Final[tuple[EventName, ...]] = (
    *(("slipstream", "client"), ("slipstream", "telemetry"), CONNECT_START[:-1]),
    *(HANDLE_STOP, (*HANDLE_STOP[:-1], "exception")),
)
"""The beginnings of the names of what is recorded: everything but the starts of handles, which their ends have."""

_HOW: Final[Mapping[str, str]] = {
    **dict.fromkeys(("params", "response", "return"), "payload"),
    **dict.fromkeys(("reason", "termination_reason", "stacktrace", "message", "hint"), "text"),
    **{name: name for name in ("raw_message", "state", "arguments", "frame")},
    "response_headers": "headers",
}
"""What is redacted of a record's own fields, or is not written as it is, and as what."""


@define(eq=False)
class Encoder:
    """Makes lines of records, in the order in which they come.

    Lines are put together of encoded parts, so that nothing of a record is copied only to be encoded.

    Attributes:
        alive: the connections whose start was written, and whose end was not.
    """

    redactor: Redactor
    alive: dict[str, None] = field(factory=dict, init=False)
    _seen: dict[str, None] = field(factory=dict, init=False)
    _written: dict[str | None, Written] = field(factory=dict, init=False)
    _open: set[str] = field(factory=set, init=False)
    _options: tuple[Options | None, Any] = field(default=(None, None), init=False)
    _whole: tuple[State | None, bytes] = field(default=(None, b""), init=False)

    def restart(self) -> None:
        """Forget what was written: another file begins, or lines were lost."""
        self._written.clear()
        self._open.clear()

    def lines(self, record: Any) -> bytes:
        """Return the lines of a record of a bus: of the end of a handle two, as that of its start is left to it."""
        if type(record) is HandleStop:
            quick = self.waited((record,)) if self.can_wait(record) else self._pushed(record)
            return quick or self._both(record)
        if type(getattr(record, "start", None)) is HandleStart:
            return self._both(record)
        return b"" if type(record) is HandleStart else self.encode(record)

    def _both(self, end: Any) -> bytes:
        return self.encode(end.start) + self.encode(end)

    def encode(self, record: Any) -> bytes:
        """Return the line of a record, with its line feed; two lines, where the first tells what is missing."""
        before = self.notice(record)
        last, (ids, written), whole = record.name[-1], self._ids(record.origin), b""
        if last == "start":
            self._open.add(record.span_id)
        elif last in ("stop", "exception"):
            if record.span_id in self._open:
                self._open.discard(record.span_id)
            else:  # its start is elsewhere: the end has it
                start = record.start
                whole = b',"start":' + self._line(start, *self._ids(start.origin))
        return before + self._line(record, ids, written, whole) + b"\n"

    def notice(self, record: Record) -> bytes:
        """Note which connections there are; returns the line, if any, that has to be written about this one first.

        Of a record that is not written, this is all that has to be known.
        """
        name, connection_id = record.name, record.origin.connection_id
        if connection_id is None or name[1] != "connection":
            return b""
        if name == CONNECT_START:
            remember(self._seen, connection_id, None, MOST_CONNECTIONS)
            self.alive[connection_id] = None
        elif name[2] == "connect":
            self.alive.pop(connection_id, None)
        elif connection_id not in self._seen:
            remember(self._seen, connection_id, None, MOST_CONNECTIONS)
            self.alive[connection_id] = None
            return missing_line(None, "began_before", connection_id)
        return b""

    # The parts of a line

    def _ids(self, origin: Origin) -> tuple[bytes, Written]:
        """Return the ids, encoded, and what is written of the connection."""
        connection_id = origin.connection_id
        written = self._written.get(connection_id)
        if (
            written is not None
            and written.lines < FULL_EVERY
            and (written.origin is origin or written.origin == origin)
        ):
            written.lines += 1
            return written.short, written
        ids = encode_line(attrs.asdict(origin))[1:-1]
        renewed = Written(origin, encode_line({"connection_id": connection_id})[1:-1])
        if written is not None:
            renewed.decodes = written.decodes
        if connection_id is not None:
            remember(self._written, connection_id, renewed, MOST_CONNECTIONS)
        return ids, renewed

    def _state(self, state: State, written: Written) -> bytes:
        before = written.state
        if state is before:
            return b"%d" % written.number
        written.state = state
        written.number += 1
        if before is None:
            if state is not self._whole[0]:
                if state.options is not self._options[0]:  # they never change, and are most of it
                    self._options = state.options, encode_value(state.options, self.redactor)
                fields = fields_of(state, self.redactor, _BUT_OPTIONS)
                self._whole = state, encode_line({"options": self._options[1], **fields})
            return b'{"n":%d,%b' % (written.number, self._whole[1][1:])
        changes = changes_of(before, state, self.redactor)
        return encode_line({"n": written.number, "from": written.number - 1, **changes})

    def _line(self, record: Any, ids: bytes, written: Written, whole: bytes = b"") -> bytes:
        """Return a line of its parts: the name, the ids, the measurements, its start where needed, its own fields."""
        name, span_id = record.name, record.span_id
        span = b"" if span_id is None else b',"span_id":%b' % encode_line(span_id)
        first = b"%b,%b%b,%b%b" % (_head(name), ids, span, encode_line(record.measurements)[1:-1], whole)
        details, parts = record.details(), [first]
        if name == HANDLE_STOP:
            given = record.start.details()["raw_message"]
            for key, text in zip(_CAME_TO, self._parts(given, written, *map(details.get, _CAME_TO)), strict=True):
                parts += _key(key), text
        elif (whole_text := plain_text(details)) is not None and self.redactor.shows(whole_text):
            return b"%b,%b" % (first, whole_text[1:])
        else:
            for key, value in details.items():
                parts += _key(key), self._value(_HOW.get(key), value, written, details)
        parts.append(b"}")
        return b"".join(parts)

    def _value(self, how: str | None, value: Any, written: Written, details: Mapping[str, Any]) -> bytes:
        redactor = self.redactor
        if how == "payload":
            return self._payload(value)
        if how == "state":
            return self._state(value, written)
        if how == "raw_message":
            serializer = details["state"].options.serializer
            if type(value) is FrameReceived:
                return self._frame(value.now, value.frame, serializer, written)
            return self._object(value, serializer, {})
        if how == "frame" and value is not None:
            value = redactor.frame(value, "v2")  # it is malformed: hidden, if there may be a secret in it
        elif how == "text" and "stacktrace" in details:
            value = redactor.error(value)  # where there is a traceback, the reason is an exception's text
        else:
            value = redacted(how, value, redactor)
        return encoded(value, redactor)

    def _payload(self, value: Any) -> bytes:
        """Return a payload, encoded: looked into only where its text may have something to hide."""
        text = plain_text(value)
        if text is None or not self.redactor.shows(text):
            return encoded(self.redactor.payload(value), self.redactor)
        return text

    # Handles

    def can_wait(self, record: Record) -> bool:
        """Tell whether the lines of a record can be made later: its user can change nothing of them meanwhile."""
        return self.redactor.payloads == "keep" and type(record) is HandleStop and can_wait(record)

    def waited(self, stops: Sequence[HandleStop]) -> bytes:
        """Return the lines of such ends of handles: there is less to do for each where there are many."""
        frames = [stop.start.frame[1] for stop in stops]  # type: ignore[index] # each has one
        harmless = self._is_harmless("\n".join(frames))  # type: ignore[arg-type] # of text
        return b"".join(
            [
                ((harmless or self._is_harmless(frame)) and self._received(stop)) or self._both(stop)
                for stop, frame in zip(stops, frames, strict=True)
            ]
        )

    def _received(self, stop: HandleStop) -> bytes | None:
        written = self._written.get(stop.start.origin.connection_id)
        return None if written is None else received_lines(stop, written)

    def _pushed(self, stop: HandleStop) -> bytes | None:
        written = self._written.get(stop.start.origin.connection_id)
        return None if written is None else pushed_lines(stop, written, self._is_harmless)

    def _is_harmless(self, frame: Frame) -> bool:
        """Tell whether there is nothing to hide in a frame, nor anything that JSON needs a `$` for."""
        return type(frame) is str and frame.isascii() and not self.redactor.suspicious(frame)

    def _frame(self, now: float, frame: Any, serializer: str, written: Written) -> bytes:
        shown = self.redactor.frame(frame, serializer)
        written.decodes = type(shown) is not Redacted and serializer in BUILT_IN
        return FRAME % (encode_line(now), encoded(shown, self.redactor))

    def _parts(  # noqa: PLR0917 - all that came of an input
        self, given: Any, written: Written, message: Any, built: Any, return_: Any, state: Any
    ) -> tuple[bytes, bytes, bytes, bytes]:
        """Return what came of an input, encoded."""
        serializer, shared = state.options.serializer, _shared(given, message) if built else {}
        if message is given:
            shown = b'{"$":"@input"}'
        else:
            decodes = written.decodes and type(message) is Message
            shown = message_text(message) if decodes else encoded(message, self.redactor)
        return (
            shown,
            b"[%b]" % b",".join([self._object(event, serializer, shared) for event in built]),
            b"[%b]" % b",".join([self._object(effect, serializer, {}) for effect in return_]),
            self._state(state, written),
        )

    def _object(self, value: Any, serializer: str, shared: Mapping[int, bytes]) -> bytes:
        """Return an input, an event or an effect; of an event, what is the message, or in it, is not written again."""
        kind, redactor = type(value), self.redactor
        if kind not in _LAYOUT:
            return encoded(value, redactor)
        head, fields = _LAYOUT[kind]
        parts = [head]
        for name, key, how in fields:
            its = getattr(value, name)
            if id(its) in shared:
                text = shared[id(its)]
            elif how == "payload":
                text = self._payload(its)
            elif how == "frame":
                text = encoded(redactor.frame(its, serializer, sent=kind is SendFrame), redactor)
            else:
                text = encoded(redacted(how, its, redactor), redactor)
            parts += key, text
        parts.append(b"}")
        return b"".join(parts)


_BUT_OPTIONS: Final = [name for name in FIELDS[State] if name != "options"]
_CAME_TO: Final = ("message", "built_events", "return", "end_state")


def records_of(record: Record) -> int:
    """Return how many records are written with one of a bus: of a handle's end two."""
    return 2 if type(getattr(record, "start", None)) is HandleStart else 1


@lru_cache(maxsize=1024)
def _head(name: tuple[str, ...]) -> bytes:
    return b'{"name":%b' % encode_line(" ".join(name))


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return b",%b:" % encode_line(key)


_LAYOUT: Final[Mapping[type, tuple[bytes, list[tuple[str, bytes, str | None]]]]] = {
    kind: (b'{"$":"%b"' % kind.__name__.encode(), [(name, _key(name), how) for name, how in fields.items()])
    for kind, fields in FIELDS.items()
}


def _shared(given: Any, message: Any) -> dict[int, bytes]:
    """Return the objects of a handle that its events may have as well, by their identity."""
    shared = {id(given): b'{"$":"@input"}'}
    if type(message) is Message and message is not given:
        shared[id(message)] = b'{"$":"@message"}'
        payload = message.payload
        if type(payload) in (dict, list, bytes):
            shared[id(payload)] = b'{"$":"@payload"}'
        if type(payload) is dict and type(payload.get("response")) in (dict, list, bytes):
            shared[id(payload["response"])] = b'{"$":"@response"}'
    return shared
