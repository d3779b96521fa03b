"""A record of telemetry as one line of history, live or recorded, without its drawing.

Records are taken as generic handlers take them, by name, measurements and metadata, so that those read from a recording
say the same as they did when they happened.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from ..telemetry import EventName, Record
from .handles import describe_handle
from .text import NO_SECRETS, Secrets, brief, duration, in_a_word, printable
from .verify import details_of, span_id_of

__all__ = ["NO_PAYLOAD", "Direction", "Line", "Mood", "describe", "describe_unfinished"]

Direction = Literal["out", "in", "here"]
"""Whether something goes to the server, comes from it, or happens on this side."""

Mood = Literal["good", "bad", "plain"]

NO_PAYLOAD: Final = object()
"""Stands for a missing `Line.payload`, as None is a payload."""


@frozen(kw_only=True)
class Line:
    """One line of history.

    Attributes:
        monotonic_time: when it was emitted, in nanoseconds.
        span_id: the span that has ended; "" for what happens once.
        direction: its direction.
        what: its kind, in a word or two.
        topic: the topic, or "".
        event: the event on that topic.
        status: a reply's status, an outcome, or a reason.
        mood: whether it is good news.
        note: refs, and whatever else is said in words.
        ref: the ref of the message, or "".
        payload: a payload, of which `detail` shows the beginning.
        took: the span's duration in nanoseconds; None for what happens once.
        client: whether it is a span of the client, not of the connection.
    """

    monotonic_time: int
    span_id: str = ""
    direction: Direction = "here"
    what: str
    topic: str = ""
    event: str = ""
    status: str = ""
    mood: Mood = "plain"
    note: str = ""
    ref: str = ""
    payload: Any = NO_PAYLOAD
    took: int | None = None
    client: bool = False

    def detail(self, secrets: Secrets = NO_SECRETS, limit: int = 160) -> str:
        """Return the note, and the payload in brief.

        Parameters:
            secrets: texts to mask in the payload; the note is masked already.
            limit: the most characters of the payload's text.
        """
        if self.payload is NO_PAYLOAD:
            return self.note
        text = brief(self.payload, secrets, limit)
        return f"{self.note} {text}" if self.note else text


Parts: TypeAlias = dict[str, Any]
"""Attributes of a line."""


def describe(record: Record, secrets: Secrets = NO_SECRETS) -> Line | None:
    """Return a record's line; None where it is told by another one: a start by its stop.

    Parameters:
        record: of telemetry, or read from a recording.
        secrets: texts to mask.
    """
    name = record.name
    function, last = _EVENTS.get(name), name[-1]
    if last == "start" and function is None:
        return None
    start = getattr(record, "start", None)
    if function is describe_handle and start is not None:
        metadata: Mapping[str, Any] = {**details_of(start), **details_of(record)}
    else:
        metadata = record.metadata
    if last == "exception":
        parts = _raised(name, metadata)
    elif function is not None:
        parts = function(metadata)
    else:
        parts = _callback(metadata) if "callback" in metadata else _unknown(name, metadata)
    for key in ("topic", "event", "status", "note"):
        if parts.get(key):
            parts[key] = printable(secrets.hide(parts[key]))
    measurements = record.measurements
    return Line(
        monotonic_time=measurements["monotonic_time"],
        span_id=span_id_of(record) or "",
        took=measurements.get("duration"),
        **parts,
    )


def describe_unfinished(start: Record) -> Line:
    """Return the line of a span's start whose end is not in the recording."""
    name, metadata = start.name, start.metadata
    given = metadata.get("raw_message")
    return Line(
        monotonic_time=start.measurements["monotonic_time"],
        span_id=metadata.get("span_id", ""),
        what=" ".join(name[1:-1]) if given is None else type(given).__name__,
        topic=printable(metadata.get("topic") or ""),
        event=printable(metadata.get("event") or ""),
        status="unfinished",
        mood="bad",
        client=name[1] == "client",
    )


def _mood(status: str) -> Mood:
    return "good" if status == "ok" else "bad"


def _raised(name: EventName, metadata: Mapping[str, Any]) -> Parts:
    return {
        "what": " ".join(name[1:-1]),
        "topic": metadata.get("topic") or "",
        "event": metadata.get("event") or "",
        "status": "raised",
        "mood": "bad",
        "note": f"{metadata['kind']}: {metadata['reason']}",
        "client": name[1] == "client",
    }


def _unknown(name: EventName, metadata: Mapping[str, Any]) -> Parts:
    """Show an unknown record by its name, and by its usual metadata."""
    known = {key: metadata[key] for key in ("topic", "event") if isinstance(metadata.get(key), str)}
    what = name[1:-1] if name[-1] == "stop" else name[1:]
    return {"what": " ".join(what), **known}


# The connection


def _connect_started(metadata: Mapping[str, Any]) -> Parts:
    options = metadata["state"].options
    note = f"generation {metadata['generation']}, vsn {options.vsn}, {options.transport}"
    return {"what": "connection", "event": "begins", "note": note}


def _connect_stopped(metadata: Mapping[str, Any]) -> Parts:
    reason = metadata["termination_reason"]
    mood = "good" if reason == "closed_by_client" else "bad"
    return {"what": "connection", "event": "ends", "status": reason, "mood": mood}


# The client


def _client(what: str, metadata: Mapping[str, Any], **more: Any) -> Parts:
    outcome = metadata["outcome"]
    return {"what": what, "status": outcome, "mood": _mood(outcome), "client": True, **more}


def _client_connected(metadata: Mapping[str, Any]) -> Parts:
    return _client("client connect", metadata, note=f"attempt {metadata['attempt']}")


def _client_joined(metadata: Mapping[str, Any]) -> Parts:
    response = metadata["response"]
    payload = NO_PAYLOAD if response is None else response
    return _client("client join", metadata, topic=metadata["topic"], payload=payload)


def _client_left(metadata: Mapping[str, Any]) -> Parts:
    return _client("client leave", metadata, topic=metadata["topic"])


def _client_pushed(metadata: Mapping[str, Any]) -> Parts:
    payload = NO_PAYLOAD if metadata["status"] is None else metadata["response"]
    return _client_queued("client push", metadata, payload=payload)


def _client_sent(metadata: Mapping[str, Any]) -> Parts:
    return _client_queued("client send", metadata)


def _client_queued(what: str, metadata: Mapping[str, Any], **more: Any) -> Parts:
    ref, waited = metadata["ref"], metadata.get("waited")
    note = ("never sent" if ref is None else f"ref {ref}") + (f", waited {duration(waited)}" if waited else "")
    return _client(what, metadata, topic=metadata["topic"], event=metadata["event"], note=note, ref=ref or "", **more)


def _callback(metadata: Mapping[str, Any]) -> Parts:
    return _client(metadata["callback"], metadata, note=f"{metadata['client']}.{metadata['callback']}")


# Events without a duration


def _orphaned(metadata: Mapping[str, Any]) -> Parts:
    return {
        "what": "late reply",
        "topic": metadata["topic"],
        "event": f"push {metadata['reason']}",
        "note": f"ref {metadata['ref']} {metadata['status']}",
        "ref": metadata["ref"],
        "payload": metadata["response"],
    }


def _discarded(metadata: Mapping[str, Any]) -> Parts:
    reason = metadata["reason"]
    status = in_a_word(reason, "malformed")
    return {
        "what": "dropped",
        "direction": "in" if metadata["direction"] == "in" else "out",
        "topic": metadata["topic"] or "",
        "event": metadata["event"] or "",
        "status": status,
        "note": "" if status == reason else reason,
        "mood": "bad",
        "ref": metadata["ref"] or "",
    }


def _overflowed(metadata: Mapping[str, Any]) -> Parts:
    note = f"the {metadata['consumer']}'s buffer of {metadata['buffer']} is full"
    if metadata.get("phase") in ("lasts", "ended"):
        note += f": {metadata['phase']}, {metadata['dropped']:,} dropped"
    return {"what": "overflow", "topic": metadata["topic"], "mood": "bad", "note": note}


def _gap(metadata: Mapping[str, Any]) -> Parts:
    seconds = (metadata["until"] - metadata["since"]).total_seconds()
    dropped = metadata["dropped"]
    note = f"{seconds:.3f} s" + (f", {dropped:,} dropped" if dropped else "")
    return {"what": "gap", "topic": metadata["topic"], "status": metadata["reason"], "mood": "bad", "note": note}


def _reconnecting(metadata: Mapping[str, Any]) -> Parts:
    found = metadata["code"] if metadata["status"] is None else metadata["status"]
    note = f"attempt {metadata['attempt']} in {metadata['delay']:.3f} s" + ("" if found is None else f", after {found}")
    reason = metadata["reason"]
    status = in_a_word(reason, "connect_failed")
    note += "" if status == reason else f", after {reason}"
    return {"what": "reconnect", "status": status, "mood": "bad", "note": note}


def _rejoining(metadata: Mapping[str, Any]) -> Parts:
    note = f"attempt {metadata['attempt']} in {metadata['delay']:.3f} s"
    return {"what": "rejoin", "topic": metadata["topic"], "status": metadata["reason"], "mood": "bad", "note": note}


def _gave_up(metadata: Mapping[str, Any]) -> Parts:
    note = f"after {metadata['attempts']} attempts: {metadata['hint']}"
    return {"what": "gave up", "status": in_a_word(metadata["reason"], "connect_failed"), "mood": "bad", "note": note}


def _stalled(metadata: Mapping[str, Any]) -> Parts:
    return {"what": "stalled", "mood": "bad", "note": f"the event loop did not run for {metadata['seconds']:.3f} s"}


def _handler_failed(metadata: Mapping[str, Any]) -> Parts:
    return {
        "what": "handler",
        "status": "failed",
        "mood": "bad",
        "note": f"{metadata['handler_id']}: {metadata['reason']}",
    }


def _names(rows: Mapping[str, Callable[[Mapping[str, Any]], Parts]]) -> dict[EventName, Any]:
    return {("slipstream", *name.split()): function for name, function in rows.items()}


_EVENTS: Final = _names(
    {
        "connection connect start": _connect_started,
        "connection connect stop": _connect_stopped,
        "connection handle stop": describe_handle,
        "client connect stop": _client_connected,
        "client join stop": _client_joined,
        "client leave stop": _client_left,
        "client push stop": _client_pushed,
        "client send stop": _client_sent,
        "client reply_orphaned": _orphaned,
        "client message_dropped": _discarded,
        "client overflow": _overflowed,
        "client gap": _gap,
        "client reconnect_scheduled": _reconnecting,
        "client rejoin_scheduled": _rejoining,
        "client gave_up": _gave_up,
        "client stalled": _stalled,
        "telemetry handler failure": _handler_failed,
    }
)
