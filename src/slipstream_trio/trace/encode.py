"""Encoding of telemetry records as lines of a recording; `schema` describes them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import attrs
from attrs import define, field

from ..protocol import FrameReceived, Message, Options, PushMessage, ReplyReceived, SendFrame, State, Transition
from ..telemetry import ConnectStart, EventName, HandlerFailed, HandleStart, HandleStop, Origin, Record
from .lines import encode_line
from .redact import Redacted, Redactor
from .schema import missing_line
from .values import FIELDS, TAG, changes_of, encode_value, encoded, fields_of, plain_text, redacted
from .verify import details_of

__all__ = ["BUILT_IN", "RECORDED", "Encoder", "records_of"]

BUILT_IN: Final = frozenset({"v1", "v2"})
"""The serializers whose messages can be decoded again by readers of a recording."""

FULL_EVERY: Final = 256  # lines of a connection, after which its ids and its state are written in full again

MOST_CONNECTIONS: Final = 4096
"""The most connections to remember; a forgotten one is written in full when it comes again."""

CONNECT_START: Final = ConnectStart.name
HANDLE_STOP: Final = HandleStop.name
HANDLER_FAILED: Final = HandlerFailed.name
ONCE: Final = 3  # how many words the name of an event has that is no span's
RECORDED: Final[tuple[EventName, ...]] = (
    *(("slipstream", "client"), ("slipstream", "telemetry"), CONNECT_START[:-1]),
    *(HANDLE_STOP, (*HANDLE_STOP[:-1], "exception")),
)
"""The beginnings of the names of what is recorded: everything but the starts of handles, which their ends have."""

_ONCE: Final = b'%b,%b,"system_time":%d,"monotonic_time":%d'
_START: Final = b'%b,%b,"span_id":%b,"system_time":%d,"monotonic_time":%d'
_STOP: Final = b'%b,%b,"span_id":%b,"duration":%d,"monotonic_time":%d%b'
_FRAME: Final = b'{"$":"FrameReceived","now":%b,"frame":%b}'
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
        decodes: whether the message of that handle can be decoded from its frame by a reader.
    """

    origin: Origin
    short: bytes
    lines: int = 0
    state: State | None = None
    number: int = 0
    decodes: bool = False


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
    _written: dict[str | None, _Written] = field(factory=dict, init=False)
    _open: set[str] = field(factory=set, init=False)
    _options: tuple[Options | None, Any] = field(default=(None, None), init=False)
    _now: tuple[float, bytes] = field(default=(0.0, b"0.0"), init=False)

    def restart(self) -> None:
        """Forget what was written: another file begins, or lines were lost."""
        self._written.clear()
        self._open.clear()

    def lines(self, record: Any) -> bytes:
        """Return the lines of a record of a bus: of the end of a handle two, as that of its start is left to it."""
        if type(record) is HandleStop:
            return self._handled(record) or self.encode(record.start) + self.encode(record)
        if type(getattr(record, "start", None)) is HandleStart:
            return self.encode(record.start) + self.encode(record)
        return b"" if type(record) is HandleStart else self.encode(record)

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
            renewed.decodes = written.decodes
        if connection_id is not None:
            _remember(self._written, connection_id, renewed)
        return ids, renewed

    def _state(self, state: State, written: _Written) -> bytes:
        before = written.state
        if state is before:
            return b"%d" % written.number
        written.state = state
        written.number += 1
        if before is None:
            if state.options is not self._options[0]:  # they never change, and are most of it
                self._options = state.options, encode_value(state.options, self.redactor)
            fields = fields_of(state, self.redactor, _BUT_OPTIONS)
            return encode_line({"n": written.number, "options": self._options[1], **fields})
        changes = changes_of(before, state, self.redactor)
        return encode_line({"n": written.number, "from": written.number - 1, **changes})

    def _line(self, record: Any, ids: bytes, written: _Written, whole: bytes = b"") -> bytes:
        """Return a line of its parts: the name, the ids, the measurements, its start where needed, its own fields."""
        name, now = record.name, record.monotonic_time
        if len(name) == ONCE or name == HANDLER_FAILED:
            first = _ONCE % (_head(name), ids, record.system_time, now)
        elif name[-1] == "start":
            first = _START % (_head(name), ids, encode_line(record.span_id), record.system_time, now)
        else:
            first = _STOP % (_head(name), ids, encode_line(record.span_id), record.duration, now, whole)
        details, parts = record.details(), [first]
        if name == HANDLE_STOP:
            given = details_of(record.start)["raw_message"]
            for key, text in zip(_CAME_TO, self._parts(given, written, *map(details.get, _CAME_TO)), strict=True):
                parts += _key(key), text
        elif (whole_text := plain_text(details)) is not None and self.redactor.shows(whole_text):
            return b"%b,%b" % (first, whole_text[1:])
        else:
            for key, value in details.items():
                parts += _key(key), self._value(_HOW.get(key), value, written, details)
        parts.append(b"}")
        return b"".join(parts)

    def _value(self, how: str | None, value: Any, written: _Written, details: Mapping[str, Any]) -> bytes:
        redactor = self.redactor
        if how is None:
            return encoded(value, redactor)
        if how == "payload":
            return self._payload(value)
        if how == "state":
            return self._state(value, written)
        if how == "raw_message":
            serializer = details["state"].options.serializer
            if type(value) is FrameReceived:
                return self._frame(value.now, value.frame, serializer, written)
            return self._object(value, serializer, {})
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
        if text is None or not self.redactor.shows(text):
            return encoded(self.redactor.payload(value), self.redactor)
        return text

    # Handles

    def _handled(self, stop: HandleStop) -> bytes | None:
        """Return both lines of a message, a push or its reply, in a fraction of the time that `encode` takes for them.

        None for other inputs, and where more is to be written of the connection than what has happened.
        """
        start = stop.start
        origin, state, received = start.origin, start.state, start.frame
        written = self._written.get(origin.connection_id)
        if (
            written is None
            or written.origin is not origin
            or written.state is not state
            or written.lines > FULL_EVERY - 2
            or state.options.serializer not in BUILT_IN
        ):
            return None
        number = written.number
        if received is None:
            did = self._pushed(start.raw_message, stop.transition, written)
        else:
            did = self._received(*received, stop, written)
        if did is None:
            return None
        written.lines += 2
        ids, span_id, began, now = written.short, start.span_id.encode(), start.monotonic_time, stop.monotonic_time
        return _BOTH % (ids, span_id, start.system_time, began, did[0], number, ids, span_id, now - began, now, did[1])

    def _received(self, now: float, frame: Any, stop: HandleStop, written: _Written) -> tuple[bytes, bytes] | None:
        """Return a frame, and what came of it, if that is a message or a reply only."""
        if not self._is_harmless(frame):
            return None
        if now is not self._now[0]:
            self._now = now, encode_line(now)  # the same for all frames of a batch
        given, message = _FRAME % (self._now[1], encode_line(frame)), stop.delivered
        if message is not None:
            join_ref, ref, topic, event, _ = message
            return given, _DELIVERED % (
                _broadcast(join_ref, topic, event) if ref is None else _message(message),
                written.number,
            )
        made = stop.transition
        if made.state is not written.state or len(made.built_events) != 1:
            return None
        reply = made.built_events[0]
        if type(reply) is not ReplyReceived:
            return None
        response = {TAG: "@response"} if type(reply.response) in (dict, list) else reply.response
        its = {TAG: "ReplyReceived", "topic": reply.topic, "ref": reply.ref, "status": reply.status}
        return given, _REPLIED % (_message(made.message), encode_line({**its, "response": response}), written.number)

    def _pushed(self, push: Any, made: Transition, written: _Written) -> tuple[bytes, bytes] | None:
        """Return a push, and what came of it; it changes nothing of a state but the ref."""
        if type(push) is not PushMessage:
            return None
        effect, number = made.return_[0], written.number
        assert isinstance(effect, SendFrame)
        if not self._is_harmless(effect.frame) or '"$"' in effect.frame:
            return None
        written.state, written.number = made.state, number + 1
        given = {TAG: "PushMessage", "topic": push.topic, "event": push.event, "payload": push.payload}
        sent = encode_line({TAG: "SendFrame", "frame": effect.frame, "ref": effect.ref})
        return encode_line(given), _PUSHED % (sent, number + 1, number, made.state.current_ref)

    def _is_harmless(self, frame: Any) -> bool:
        """Tell whether there is nothing to hide in a frame, nor anything that JSON needs a `$` for."""
        return type(frame) is str and frame.isascii() and not self.redactor.suspicious(frame)

    def _frame(self, now: float, frame: Any, serializer: str, written: _Written) -> bytes:
        shown = self.redactor.frame(frame, serializer, sent=False)
        written.decodes = type(shown) is not Redacted and serializer in BUILT_IN
        return _FRAME % (encode_line(now), encoded(shown, self.redactor))

    def _parts(  # noqa: PLR0917 - all that came of an input
        self, given: Any, written: _Written, message: Any, built: Any, return_: Any, state: Any
    ) -> tuple[bytes, bytes, bytes, bytes]:
        """Return what came of an input, encoded."""
        serializer, shared = state.options.serializer, _shared(given, message) if built else {}
        if message is given:
            shown = b'{"$":"@input"}'
        else:
            decodes = written.decodes and type(message) is Message
            shown = _message(message) if decodes else encoded(message, self.redactor)
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


_BUT_OPTIONS: Final = [name for name in FIELDS[State] if name != "options"]
_CAME_TO: Final = ("message", "built_events", "return", "end_state")

# Both lines of an input, in a state that was written before; and what came of it.
_BOTH: Final = (
    b'{"name":"slipstream connection handle start",%b,"span_id":"%b","system_time":%d,"monotonic_time":%d,'
    b'"raw_message":%b,"state":%d}\n'
    b'{"name":"slipstream connection handle stop",%b,"span_id":"%b","duration":%d,"monotonic_time":%d,"message":%b}\n'
)
_DELIVERED: Final = b'%b,"built_events":[{"$":"MessageReceived","message":{"$":"@message"}}],"return":[],"end_state":%d'
_REPLIED: Final = b'%b,"built_events":[%b],"return":[],"end_state":%d'
_PUSHED: Final = b'{"$":"@input"},"built_events":[],"return":[%b],"end_state":{"n":%d,"from":%d,"current_ref":%d}'


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


def _message(message: Message) -> bytes:
    """Return a message without its payload."""
    join_ref, ref, topic, event, _ = message
    return encode_line({TAG: "Message", "join_ref": join_ref, "ref": ref, "topic": topic, "event": event})


@lru_cache(maxsize=4096)
def _broadcast(join_ref: str | None, topic: str, event: str) -> bytes:
    """Return a message without a ref: there are few such on a connection, and they come often."""
    return _message(Message(join_ref, None, topic, event, None))


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
