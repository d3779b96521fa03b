"""Telemetry spans as tracing systems have them: name, kind, parent, attributes, status.

The names of attributes are those of OpenTelemetry's semantic conventions where it has one, and `slipstream.…` else.
Payloads, parameters and headers are not among them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from attrs import frozen

from ..protocol import FrameReceived, FrameRejected, JoinTopic, LeaveTopic, Message, Options, PushMessage, SendFrame
from ..telemetry import EventName, Record
from ..telemetry.bus import names_of_events
from .text import size_of

Attributes = dict[str, str | int | float | bool]
Kind = Literal["internal", "client", "consumer"]
Title = tuple[str, Kind]
TopicPattern = Callable[[str], str]  # maps topics, an unbounded set, to a few patterns

PLAIN: Final = (
    *("connection_id", "generation", "span_id", "outcome", "status", "ref", "attempt", "client", "callback"),
    *("reason", "sent", "waited", "ended_by", "code", "event", "direction", "dropped", "delay", "policy", "consumer"),
    *("phase", "attempts", "hint", "seconds"),
)
"""Keys of the metadata that become attributes unchanged."""

# The outcomes that make a span's status an error, and the termination reasons that do not.
FAILURES: Final = frozenset({"error", "timeout", "lost"})
GOOD_ENDS: Final = frozenset({"closed_by_client", "closed_by_server", "disconnected", "reconnect", "cancelled"})
COMMANDS: Final[Mapping[type, str]] = {JoinTopic: "phx_join", LeaveTopic: "phx_leave"}
# Events without a duration, shown as spans without length.
ONCE: Final = frozenset(name for name in names_of_events() if name[1] == "client" and len(name) == 3)
UNFINISHED: Final = "slipstream.unfinished"  # the attribute of a span that ends with the recording, without an end


@frozen
class Description:
    """A span as OpenTelemetry has it."""

    name: str  # one of few, such as "push room:*"
    kind: Kind
    attributes: Attributes
    error: str | None = None  # why its status is an error, in words
    exception: dict[str, str] | None = None  # the attributes of that event, where code raised


def topic_pattern(topic: str) -> str:
    """Return `room:*` for `room:lobby`, as Phoenix routes topics; a topic without a colon is its own pattern."""
    prefix, colon, _ = topic.partition(":")
    return f"{prefix}:*" if colon else topic


def describe(record: Record, pattern: TopicPattern = topic_pattern) -> Description:
    """Return a record as a span: at a start with the attributes known then, at an end with all."""
    metadata, name = record.metadata, record.name
    attributes: Attributes = {"slipstream.socket_id": metadata["socket_id"]}
    for key in PLAIN:
        _put(attributes, f"slipstream.{key}", metadata.get(key))
    title, kind = _title(name, metadata, attributes, pattern)
    error = exception = None
    outcome, reason = metadata.get("outcome"), metadata.get("termination_reason")
    _put(attributes, "slipstream.termination_reason", reason)
    if outcome in FAILURES:
        attributes["error.type"], status = outcome, metadata.get("status")
        error = f"{outcome}, status {status}" if status else outcome
    elif reason is not None and reason not in GOOD_ENDS:
        attributes["error.type"] = error = reason
    if name[-1] == "exception":
        attributes["error.type"], error = metadata["kind"], metadata["reason"]
        exception = {"exception.type": metadata["kind"], "exception.message": error}
        exception["exception.stacktrace"] = metadata["stacktrace"]
    return Description(title, kind, attributes, error, exception)


def _put(attributes: Attributes, key: str, value: Any) -> None:
    if isinstance(value, (str, int, float)):
        attributes[key] = value


def _destination(attributes: Attributes, topic: Any, pattern: TopicPattern, operation: str) -> str:
    """Tell of a topic; returns its pattern."""
    attributes["messaging.system"] = "phoenix"
    attributes["messaging.operation.name"] = operation
    if not isinstance(topic, str):
        return "?"
    attributes["messaging.destination.name"] = topic
    template = attributes["messaging.destination.template"] = pattern(topic)
    return template


def _server(attributes: Attributes, options: Any) -> None:
    if not isinstance(options, Options):
        return
    url = options.url or ""  # a function's is not known here
    parts = urlsplit(url)
    attributes["network.protocol.name"] = "websocket"
    if parts.hostname:
        attributes["server.address"] = parts.hostname
        attributes["server.port"] = parts.port or (443 if parts.scheme in ("wss", "https") else 80)
        attributes["url.full"] = url
    attributes["slipstream.vsn"] = options.vsn
    attributes["slipstream.transport"] = options.transport


def _title(name: EventName, metadata: Mapping[str, Any], attributes: Attributes, pattern: TopicPattern) -> Title:
    what = name[2]
    if name[1:3] == ("connection", "handle"):
        return _handle(metadata, attributes, pattern), "internal"
    _server(attributes, metadata.get("configuration") or getattr(metadata.get("state"), "options", None))
    if name[1] == "connection":
        return "connection", "client"
    if "callback" in metadata:
        callback = str(metadata["callback"])
        attributes["code.function.name"] = f"{metadata.get('client')}.{callback}"
        return callback, "consumer" if callback == "handle_message" else "internal"
    words = [what]
    if metadata.get("topic") is not None:
        words.append(_destination(attributes, metadata["topic"], pattern, what))
    if what in ("push", "send"):
        words.append(metadata["event"])
    return " ".join(words), "internal" if name in ONCE else "client"


def _handle(metadata: Mapping[str, Any], attributes: Attributes, pattern: TopicPattern) -> str:
    given, message = metadata["raw_message"], metadata.get("message")
    attributes["slipstream.input"] = type(given).__name__
    for effect in metadata.get("return") or ():
        if isinstance(effect, SendFrame):
            attributes["slipstream.ref"] = effect.ref
    if isinstance(given, FrameReceived):
        _put(attributes, "messaging.message.envelope.size", size_of(given.frame) or None)
        if any(isinstance(event, FrameRejected) for event in metadata.get("built_events") or ()):
            attributes["error.type"] = "frame_rejected"
        if not isinstance(message, Message):
            return "receive"
        _put(attributes, "slipstream.ref", message.ref)
        operation, topic, event = "receive", message.topic, message.event
    elif isinstance(given, PushMessage):
        operation, topic, event = "send", given.topic, given.event
    elif isinstance(given, JoinTopic | LeaveTopic):
        operation, topic, event = "send", given.topic, COMMANDS[type(given)]
    else:
        return f"handle {type(given).__name__}"
    attributes["slipstream.event"] = event
    return f"{operation} {_destination(attributes, topic, pattern, operation)} {event}"


def ended(records: Iterable[Record], clock: Literal["system_time", "monotonic_time"]) -> Iterator[tuple[Any, int]]:
    """Give what spans are made of: their ends, and what happens once, then the starts that have no end.

    Each comes with the nanoseconds that it lasted: without an end, until that of the recording, by a clock.
    """
    unfinished: dict[str, Any] = {}
    latest = 0
    record: Any
    for record in records:
        lasted = record.measurements.get("duration", 0)
        latest = max(latest, getattr(getattr(record, "start", None) or record, clock) + lasted)
        if record.name[-1] == "start":
            unfinished[record.span_id] = record
        elif record.span_id is not None or record.name in ONCE:
            unfinished.pop(record.span_id, None)
            yield record, lasted
    yield from ((record, max(0, latest - getattr(record, clock))) for record in unfinished.values())
