"""A record of telemetry as one line of history, live or recorded, without its drawing.

Records are taken as generic handlers take them, by name, measurements and metadata, so that those read from a recording
say the same as they did when they happened.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from ..telemetry import EventName, Record
from .handles import describe_handle
from .text import NO_SECRETS, Secrets, brief, duration, frame_as_text, in_a_word, printable
from .verify import details_of, span_id_of

__all__ = ["NO_PAYLOAD", "WAITED", "Direction", "Line", "Mood", "describe", "describe_unfinished"]

Direction = Literal["out", "in", "here"]
"""Whether something goes to the server, comes from it, or happens on this side."""

Mood = Literal["good", "bad", "plain"]

NO_PAYLOAD: Final = object()
"""Stands for a missing `Line.payload`, as None is a payload."""

WAITED: Final = 1_000_000
"""Nanoseconds from which on it is told how long something waited to be sent."""


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
        took: the duration in nanoseconds; None for what happens once.
        waited: the part of it that had passed when something was sent, or was given up.
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
    waited: int = 0
    client: bool = False

    def detail(self, secrets: Secrets = NO_SECRETS, limit: int = 160) -> str:
        """Return the note, and the payload in brief.

        Parameters:
            secrets: texts to mask in the payload; the note is masked already.
            limit: the most characters of the payload's text.
        """
        text = self.note
        if self.waited >= WAITED and self.took is not None:
            flight = f", in flight {duration(self.took - self.waited)}" if self.took > self.waited else ""
            text += f"{', ' if text else ''}waited {duration(self.waited)}{flight}"
        if self.payload is NO_PAYLOAD:
            return text
        return f"{text} {brief(self.payload, secrets, limit)}".lstrip()


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
        parts = _client(name, metadata) if last == "stop" and name[1] == "client" else _unknown(name, metadata)
    for key in ("topic", "event", "status", "note"):
        if parts.get(key):
            parts[key] = printable(secrets.hide(parts[key]))
    measurements = record.measurements
    return Line(
        monotonic_time=measurements["monotonic_time"],
        span_id=span_id_of(record) or "",
        **{"took": measurements.get("duration"), **parts},
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
    reason, ended_by = metadata["termination_reason"], metadata.get("ended_by")
    mood = "good" if reason == "closed_by_client" else "bad"
    told = (metadata.get("code"), ended_by and f"by the {ended_by}", metadata.get("message"))
    note = ", ".join(str(each) for each in told if each)
    return {"what": "connection", "event": "ends", "status": reason, "mood": mood, "note": note * (mood == "bad")}


# The client


def _client(name: EventName, metadata: Mapping[str, Any]) -> Parts:
    """Return the parts of an operation: with its answer, or, of a push without one, with what was pushed."""
    told = metadata.get
    outcome, reason, callback = told("outcome", ""), told("reason"), told("callback")
    notes = (
        [f"{metadata['client']}.{callback}"]
        if callback
        else [f"attempt {told('attempt')}"]
        if "attempt" in metadata
        else []
    )
    if "ref" in metadata:
        notes.append("never sent" if told("ref") is None else f"ref {told('ref')}")
    if reason is not None and reason != outcome and outcome in ("error", "lost"):
        notes.append(reason)
    payload = NO_PAYLOAD if told("response") is None and told("status") is None else told("response")
    if "event" in metadata and told("status") is None:
        payload = NO_PAYLOAD if outcome in ("ok", "cancelled") else told("params")
    return {
        "what": callback or " ".join(name[1:-1]),
        "topic": told("topic") or "",
        "event": told("event") or "",
        "status": outcome,
        # What the user cancelled did not go wrong.
        "mood": "good" if outcome == "ok" else "plain" if outcome in ("", "cancelled") else "bad",
        "note": ", ".join(notes),
        "ref": told("ref") or "",
        "payload": payload,
        "waited": told("waited") or 0,
        "client": True,
    }


# Events without a duration


def _orphaned(metadata: Mapping[str, Any]) -> Parts:
    reason, ref, mood = metadata["reason"], metadata["ref"], "bad" if metadata["reason"] == "timeout" else "plain"
    its = {"ref": ref, "note": f"ref {ref} {metadata['status']}", "payload": metadata["response"]}
    return {"what": "late reply", "topic": metadata["topic"], "event": f"push {reason}", "mood": mood, **its}


def _discarded(metadata: Mapping[str, Any]) -> Parts:
    reason, frame = metadata["reason"], metadata.get("frame")
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
        "payload": NO_PAYLOAD if frame is None else frame_as_text(frame),
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
    return {
        "what": "stalled",
        "mood": "bad",
        "took": round(metadata["seconds"] * 1e9),
        "note": "the event loop stood still",
    }


def _silent(metadata: Mapping[str, Any]) -> Parts:
    sent = metadata["sent"]
    note = f"nothing came, {sent:,} frame{' was' if sent == 1 else 's were'} sent" + (
        "" if metadata["over"] else "; it lasts"
    )
    return {"what": "silence", "mood": "bad", "note": note}


def _handler_failed(metadata: Mapping[str, Any]) -> Parts:
    note = f"{metadata['handler_id']}: {metadata['reason']}"
    return {"what": "handler", "status": "failed", "mood": "bad", "note": note}


_EVENTS: Final[Mapping[EventName, Callable[[Mapping[str, Any]], Parts]]] = {
    ("slipstream", *name.split()): function
    for name, function in {
        "connection connect start": _connect_started,
        "connection connect stop": _connect_stopped,
        "connection handle stop": describe_handle,
        "client reply_orphaned": _orphaned,
        "client message_dropped": _discarded,
        "client overflow": _overflowed,
        "client gap": _gap,
        "client reconnect_scheduled": _reconnecting,
        "client rejoin_scheduled": _rejoining,
        "client gave_up": _gave_up,
        "client stalled": _stalled,
        "connection silence": _silent,
        "telemetry handler failure": _handler_failed,
    }.items()
}
