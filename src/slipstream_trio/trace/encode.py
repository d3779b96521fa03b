"""Encoding of telemetry records as lines of a recording; `schema` describes them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import attrs
from attrs import define, field

from ..protocol import Frame, FrameReceived, Message, SendFrame, State
from ..telemetry import ConnectStart, HandlerFailed, HandleStart, HandleStop, Origin, Record
from .lines import encode_line, end_line, head, header_line, key_of, missing_line
from .redact import Redacted, Redactor
from .values import FIELDS, TAG, changes_of, encoded, fields_of, plain_text, redacted

__all__ = ["BUILT_IN", "Encoder", "end_line", "header_line", "missing_line"]

BUILT_IN: Final = frozenset({"v1", "v2"})
"""The serializers whose messages can be decoded again by readers of a recording."""

FULL_EVERY: Final = 256
"""Lines of a connection, after which its ids and its state are written in full again."""

MOST_CONNECTIONS: Final = 4096
"""The most connections to remember; a forgotten one is written in full when it comes again."""

CONNECT_START: Final = ConnectStart.name
HANDLE_START: Final = HandleStart.name
HANDLE_STOP: Final = HandleStop.name
HANDLER_FAILED: Final = HandlerFailed.name
ONCE: Final = 3
"""How many words the name of an event has that is no span's."""

_ONCE: Final = b'%b,%b,"system_time":%d,"monotonic_time":%d'
_START: Final = b'%b,%b,"span_id":%b,"system_time":%d,"monotonic_time":%d'
_STOP: Final = b'%b,%b,"span_id":%b,"duration":%d,"monotonic_time":%d%b'
_FRAME: Final = b'{"$":"FrameReceived","now":%b,"frame":%b}'
_DELIVERED: Final = b'[{"$":"MessageReceived","message":{"$":"@message"}}]'
_BEGAN: Final = b'%b,"raw_message":%b,"state":%b}\n'
_HANDLED: Final = b'%b,"message":%b,"built_events":%b,"return":%b,"end_state":%b}\n'
_HOW: Final[Mapping[str, str]] = {
    **dict.fromkeys(("params", "response", "return"), "payload"),
    **dict.fromkeys(("reason", "termination_reason", "stacktrace", "message", "hint"), "text"),
    **{name: name for name in ("raw_message", "state", "arguments", "frame")},
    "response_headers": "headers",
}
"""What is redacted of a record's own fields, or is not written as it is, and as what."""


@define(eq=False)
class _Written:
    """The latest lines written of a connection.

    Attributes:
        origin: its ids.
        short: what stands for them in its next lines.
        lines: the number of lines since it was written in full.
        state: the latest state, and its `number`.
        span: the handle whose start was written, and whose end was not.
        decodes: whether the message of that handle can be decoded from its frame by a reader.
    """

    origin: Origin
    short: bytes
    lines: int = 0
    state: State | None = None
    number: int = 0
    span: str | None = None
    decodes: bool = False


@define(eq=False)
class Encoder:
    """Makes lines of records, in the order in which they come.

    Lines are put together of encoded parts, so that nothing of a record is copied only to be encoded.

    Parameters:
        redactor: hides what is not to be written.

    Attributes:
        alive: the connections whose start was written, and whose end was not.
    """

    redactor: Redactor
    alive: dict[str, None] = field(factory=dict, init=False)
    _seen: dict[str, None] = field(factory=dict, init=False)
    _written: dict[str | None, _Written] = field(factory=dict, init=False)
    _open: set[str] = field(factory=set, init=False)
    _shown: tuple[bytes, bytes] = field(default=(b"", b""), init=False)
    _now: tuple[float, bytes] = field(default=(0.0, b"0.0"), init=False)

    def restart(self) -> None:
        """Forget what was written: another file begins, or lines were lost."""
        self._written.clear()
        self._open.clear()

    def encode(self, record: Record) -> bytes:
        """Return the line of a record, with its line feed; two lines, where the first tells what is missing."""
        name, origin = record.name, record.origin
        if name is HANDLE_START and origin.connection_id in self._seen:
            return self._handle_start(record)
        if name is HANDLE_STOP and origin.connection_id in self._seen:
            return self._handle_stop(record)
        before = self.notice(record)
        if name == HANDLE_START:
            return before + self._handle_start(record)
        if name == HANDLE_STOP:
            return before + self._handle_stop(record)
        ids, written = self._ids(origin)
        whole = b""
        if name[-1] == "start":
            self._open.add(record.span_id)  # type: ignore[attr-defined] # like all spans
        elif name[-1] in ("stop", "exception"):
            whole = b"" if self._is_known(record.span_id, written) else self._start_of(record)  # type: ignore[attr-defined]
        return before + self._line(record, ids, written, whole) + b"\n"

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

    def _ids(self, origin: Origin) -> tuple[bytes, _Written]:
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
        renewed = _Written(origin, encode_line({"connection_id": connection_id})[1:-1])
        if written is not None:
            renewed.span, renewed.decodes = written.span, written.decodes
        if connection_id is not None:
            _remember(self._written, connection_id, renewed)
        return ids, renewed

    def _state(self, state: State, written: _Written) -> bytes:
        before = written.state
        if state is not before:
            written.state = state
            written.number += 1
            if before is None:
                return encode_line({"n": written.number, **fields_of(state, self.redactor)})
            return encode_line(
                {"n": written.number, "from": written.number - 1, **changes_of(before, state, self.redactor)}
            )
        return b"%d" % written.number

    def _line(self, record: Any, ids: bytes, written: _Written, whole: bytes = b"") -> bytes:
        """Return a line of its parts: the name, the ids, the measurements, its start where needed, its own fields."""
        name, now = record.name, record.monotonic_time
        if len(name) == ONCE or name == HANDLER_FAILED:
            first = _ONCE % (head(name), ids, record.system_time, now)
        elif name[-1] == "start":
            first = _START % (head(name), ids, encode_line(record.span_id), record.system_time, now)
        else:
            first = _STOP % (head(name), ids, encode_line(record.span_id), record.duration, now, whole)
        parts = [first]
        details = record.details()
        for key, value in details.items():
            how = _HOW.get(key)
            text = encoded(value, self.redactor) if how is None else self._value(how, value, written, details)
            parts += key_of(key), text
        parts.append(b"}")
        return b"".join(parts)

    def _value(self, how: str, value: Any, written: _Written, details: Mapping[str, Any]) -> bytes:
        redactor = self.redactor
        if how == "payload":
            return self._payload(value)
        if how == "state":
            return self._state(value, written)
        if how == "raw_message":
            return self._input(value, details["state"], written)
        if how == "arguments":
            value = redactor.arguments(value)
        elif how == "frame" and value is not None:
            value = redactor.frame(value, "v2", sent=False)  # it is malformed: hidden, if there may be a secret in it
        elif how == "text" and value is not None and "stacktrace" in details:
            value = redactor.error(value)  # where there is a traceback, the reason is an exception's text
        else:
            value = redacted(how, value, redactor)
        return encoded(value, redactor)

    def _payload(self, value: Any) -> bytes:
        """Return a payload, encoded: looked into only where its text may have something to hide."""
        text = plain_text(value)
        if text is None:
            return encoded(self.redactor.payload(value), self.redactor)
        if text not in self._shown:  # a push's payload comes twice, in its span and in the handle
            if not self.redactor.shows(text):
                return encoded(self.redactor.payload(value), self.redactor)
            self._shown = self._shown[1], text
        return text

    # The starts of spans that end

    def _is_known(self, span_id: str, written: _Written) -> bool:
        """Tell whether the start of a span that ends was written; elsewhere, the end has it."""
        if written.span == span_id:
            written.span = None
            return True
        known = span_id in self._open
        self._open.discard(span_id)
        return known

    def _start_of(self, end: Any) -> bytes:
        """Return the start of a span that ends, as a part of its line."""
        return b',"start":' + self._line(end.start, *self._ids(end.start.origin))

    # Handles

    def encode_delivery(self, start: HandleStart, stop: HandleStop) -> tuple[bytes, bytes] | None:
        """Return both lines of a message that is just delivered, at a third of what `encode` takes for each.

        None where there is more to say than that.
        """
        written, frame, message, state = (
            self._written.get(start.origin.connection_id),
            start.frame,
            stop.delivered,
            start.state,
        )
        if (
            written is None
            or frame is None
            or message is None
            or written.origin is not start.origin
            or written.state is not state
            or written.lines > FULL_EVERY - 2
            or start.origin.connection_id not in self._seen
            or state.options.serializer not in BUILT_IN
        ):
            return None
        now, text = frame
        if type(text) is not str or not text.isascii() or self.redactor.suspicious(text):
            return None
        written.lines += 2
        written.decodes = True
        if now is not self._now[0]:
            self._now = now, encode_line(now)  # the same for all frames of a batch
        ids, span_id, number, began = written.short, encode_line(start.span_id), written.number, start.monotonic_time
        return (
            _FRAME_BEGAN % (ids, span_id, start.system_time, began, self._now[1], encode_line(text), number),
            _DELIVERED_HANDLED
            % (ids, span_id, stop.monotonic_time - began, stop.monotonic_time, self._message(message, written), number),
        )

    def _handle_start(self, record: Any) -> bytes:
        ids, written = self._ids(record.origin)
        live = type(record) is HandleStart
        state: State = record.state if live else record.metadata["state"]
        if live and (frame := record.frame) is not None:
            text = self._frame(frame[0], frame[1], state, written)
        else:
            text = self._input(record.raw_message if live else record.metadata["raw_message"], state, written)
        written.span = span_id = record.span_id
        after = b"%d" % written.number if state is written.state else self._state(state, written)
        return _BEGAN % (
            _START % (_HANDLE_START, ids, encode_line(span_id), record.system_time, record.monotonic_time),
            text,
            after,
        )

    def _input(self, given: Any, state: State, written: _Written) -> bytes:
        if type(given) is FrameReceived:
            return self._frame(given.now, given.frame, state, written)
        return self._object(given, state.options.serializer, {})

    def _frame(self, now: float, frame: Frame | Redacted, state: State, written: _Written) -> bytes:
        shown = self.redactor.frame(frame, state.options.serializer, sent=False)
        written.decodes = type(shown) is not Redacted and state.options.serializer in BUILT_IN
        if now is not self._now[0]:
            self._now = now, encode_line(now)  # the same for all frames of a batch
        return _FRAME % (self._now[1], encoded(shown, self.redactor))

    def _handle_stop(self, record: Any) -> bytes:
        origin, start = record.origin, record.start
        ids, written = self._ids(origin)
        whole = b"" if self._is_known(start.span_id, written) else self._start_of(record)
        message = record.delivered if type(record) is HandleStop else None
        if message is not None:
            text, events, effects, state = self._message(message, written), _DELIVERED, b"[]", start.state
        else:
            if type(record) is HandleStop:
                made, state, given = record.transition, record.transition.state, start.raw_message
                message, built, return_ = made.message, made.built_events, made.return_
            else:
                given, message, built, return_, state = map(record.metadata.get, _OF_HANDLE)
            text, events, effects = self._parts(given, state, message, built, return_, written)
        after = b"%d" % written.number if state is written.state else self._state(state, written)
        return _HANDLED % (
            _STOP % (_HANDLE_STOP, ids, encode_line(start.span_id), record.duration, record.monotonic_time, whole),
            text,
            events,
            effects,
            after,
        )

    def _parts(  # noqa: PLR0917 - of records live and read
        self, given: Any, state: State, message: Any, built: Any, return_: Any, written: _Written
    ) -> tuple[bytes, bytes, bytes]:
        """Return message, built events and effects, encoded."""
        serializer = state.options.serializer
        text = b'{"$":"@input"}' if message is given else self._message(message, written)
        shared = _shared(given, message) if built else {}
        events = b",".join([self._object(event, serializer, shared) for event in built])
        effects = b",".join([self._object(effect, serializer, {}) for effect in return_])
        return text, b"[%b]" % events, b"[%b]" % effects

    def _message(self, message: Any, written: _Written) -> bytes:
        if type(message) is not Message or not written.decodes:
            return encoded(message, self.redactor)
        if message[1] is None:
            return _broadcast(message[0], message[2], message[3])
        return encode_line({TAG: "Message", **dict(zip(message._fields[:4], message, strict=False))})

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
            elif how is None:
                text = encoded(its, redactor)
            elif how == "payload":
                text = self._payload(its)
            elif how == "frame":
                text = encoded(redactor.frame(its, serializer, sent=kind is SendFrame), redactor)
            else:
                text = encoded(redacted(how, its, redactor), redactor)
            parts += key, text
        parts.append(b"}")
        return b"".join(parts)


_OF_HANDLE: Final = ("raw_message", "message", "built_events", "return", "end_state")


_HANDLE_START: Final = head(HANDLE_START)
_HANDLE_STOP: Final = head(HANDLE_STOP)


# The same, of a message that is just delivered in a state that was written before.
_FRAME_BEGAN: Final = _BEGAN.replace(b"%b", _START.replace(b"%b", _HANDLE_START, 1), 1).replace(
    b'"raw_message":%b,"state":%b', b'"raw_message":' + _FRAME + b',"state":%d'
)
_DELIVERED_HANDLED: Final = _HANDLED.replace(
    b"%b", _STOP.replace(b"%b", _HANDLE_STOP, 1).removesuffix(b"%b"), 1
).replace(
    b'"built_events":%b,"return":%b,"end_state":%b', b'"built_events":' + _DELIVERED + b',"return":[],"end_state":%d'
)


_LAYOUT: Final[Mapping[type, tuple[bytes, list[tuple[str, bytes, str | None]]]]] = {
    kind: (b'{"$":"%b"' % kind.__name__.encode(), [(name, key_of(name), how) for name, how in fields.items()])
    for kind, fields in FIELDS.items()
}


@lru_cache(maxsize=4096)
def _broadcast(join_ref: str | None, topic: str, event: str) -> bytes:
    """Return a message without a ref and a payload: there are few such on a connection, and they come often."""
    return encode_line({TAG: "Message", "join_ref": join_ref, "ref": None, "topic": topic, "event": event})


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


def _remember(table: dict[Any, Any], key: str, value: Any) -> None:
    if len(table) >= MOST_CONNECTIONS and key not in table:
        del table[next(iter(table))]
    table[key] = value
