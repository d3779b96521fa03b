"""What happened on the connections of a test, as lines of text for a failure report."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from ..protocol import CloseConnection, JoinTopic, LeaveTopic, Message, PushMessage, SendFrame
from ..telemetry import Record
from .kit.patterns import brief

__all__ = ["Moment", "tell"]

_SECRET: Final = ("auth", "key", "password", "secret", "token")
"""A member of a payload whose name has one of these is not shown."""

_CONNECT: Final = ("slipstream", "connection", "connect", "start")


@frozen
class Moment:
    """A record, and when it was emitted.

    Attributes:
        record: the record.
        at: in seconds of Trio's clock, so that virtual time is told in virtual seconds; None outside of Trio.
    """

    record: Record
    at: float | None


def tell(moments: Iterable[Moment], limit: int) -> str:
    """Return the history of some connections: the latest lines, and what had begun and not ended.

    Parameters:
        moments: in order.
        limit: how many lines of each.
    """
    numbers: dict[Any, int] = {}
    began: dict[int, float] = {}
    open_spans: dict[Any, str] = {}
    lines: list[str] = []
    for moment in moments:
        record = moment.record
        number = numbers.setdefault(record.origin.connection_id or record.origin.socket_id, len(numbers) + 1)
        since = "-" if moment.at is None else f"+{moment.at - began.setdefault(number, moment.at):.3f} s"
        line = f"{since:>12}  #{number}  {_words(record)}"
        span_id = record.metadata.get("span_id")
        if record.name[-1] == "start":
            open_spans[span_id] = line
        else:
            open_spans.pop(span_id, None)
        if record.name[-1] != "start" or record.name == _CONNECT:
            lines.append(line)
    return _joined(lines, list(open_spans.values()), numbers, limit)


def _joined(lines: list[str], still_open: list[str], numbers: Mapping[Any, int], limit: int) -> str:
    left_out = [f"  … {len(lines) - limit} earlier ones"] if len(lines) > limit else []
    told = [*left_out, *lines[-limit:]]
    if still_open:
        told += ["Begun and not ended:", *still_open[-limit:]]
    return "\n".join([*told, "where " + ", ".join(f"#{number} is {name}" for name, number in numbers.items())])


def _words(record: Record) -> str:
    """What a record says, without its time and its connection."""
    metadata = record.metadata
    name = record.name[1:-1] if "span_id" in metadata else record.name[1:]
    if record.name[:3] == ("slipstream", "connection", "handle"):
        what = _input(metadata.get("message", metadata["raw_message"]))
    else:
        what = _details(metadata)
    return " ".join(filter(None, [*name, what, _end(record)]))


def _end(record: Record) -> str:
    metadata = record.metadata
    if record.name[-1] == "start":
        return "begins" if record.name == _CONNECT else ""
    if record.name[-1] == "exception":
        return f"- raised {metadata['kind']}: {metadata['reason']}"
    if "built_events" in metadata:
        events = [type(event).__name__ for event in metadata["built_events"]]
        refs = [f"sent ref {effect.ref}" for effect in metadata["return"] if isinstance(effect, SendFrame)]
        return f"- {', '.join([*refs, *events])}" if refs or events else ""
    outcome = metadata.get("outcome") or metadata.get("termination_reason")
    response = metadata.get("response")
    if outcome is None:
        return ""
    return f"- {outcome}" + ("" if response is None else f" {brief(_masked(response))}")


def _input(given: Any) -> str:
    match given:
        case Message():
            return f"{given.event} {given.topic} {brief(_masked(given.payload))} ref {given.ref}"
        case JoinTopic() | PushMessage():
            event = f" {given.event}" if isinstance(given, PushMessage) else ""
            return f"{type(given).__name__} {given.topic}{event} {brief(_masked(given.payload))}"
        case LeaveTopic():
            return f"LeaveTopic {given.topic}"
        case CloseConnection():
            return f"CloseConnection {given.code} {given.reason}"
    frame = getattr(given, "frame", None)
    code = getattr(given, "code", None)
    return " ".join(
        [
            type(given).__name__,
            *([brief(frame)] if frame is not None else []),
            *([str(code)] if code is not None else []),
        ]
    )


_TOLD: Final = ("topic", "event", "params", "delay", "attempt", "reason", "code", "status", "dropped", "handler_id")


def _details(metadata: Mapping[str, Any]) -> str:
    # What the end of a span tells is left to `_end`: a push's status by its outcome, an exception's reason.
    elsewhere = {"status"} if "outcome" in metadata else {"reason"} if "kind" in metadata else set()
    names = [name for name in _TOLD if name not in elsewhere]
    told = [(name, metadata[name]) for name in names if metadata.get(name) is not None]
    return " ".join(_detail(name, value) for name, value in told)


def _detail(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):  # the name of an event of telemetry
        return " ".join(map(str, value))
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {brief(_masked(value))}"


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: "…" if _is_secret(name) else _masked(item) for name, item in value.items()}
    return list(map(_masked, value)) if isinstance(value, list) else value


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and any(word in name.lower() for word in _SECRET)
