"""A record of telemetry as one line of history, live or recorded, without its drawing.

Records are taken as generic handlers take them, by name, measurements and metadata, so that those read from a recording
say the same as they did when they happened.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import define

from .. import protocol
from ..errors import ConnectionRejected
from ..telemetry import EventName, Record
from .text import NO_SECRETS, Secrets, brief, duration, frame_as_text, in_a_word, many, nanoseconds, printable

__all__ = ["NO_PAYLOAD", "WAITED", "Direction", "Line", "Mood", "describe", "describe_unfinished"]

Direction = Literal["out", "in", "here"]
"""Whether something goes to the server, comes from it, or happens on this side."""

Mood = Literal["good", "bad", "plain"]

NO_PAYLOAD: Final = object()
"""Stands for a missing `Line.payload`, as None is a payload."""

WAITED: Final = 1_000_000
"""Nanoseconds from which on it is told how long something waited to be sent."""


@define
class Line:
    """One line of history.

    Attributes:
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
    """

    what: str
    direction: Direction = "here"
    topic: str = ""
    event: str = ""
    status: str = ""
    mood: Mood = "plain"
    note: str = ""
    ref: str = ""
    payload: Any = NO_PAYLOAD
    took: int | None = None
    waited: int = 0

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


Parts: TypeAlias = dict[str, Any]  # attributes of a line


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
    metadata = record.whole()
    if function is not None:
        parts = function(metadata)
    elif last == "stop" and name[1] == "client":
        parts = _client(name, metadata)
    else:
        parts = {key: its for key in ("topic", "event") if isinstance(its := metadata.get(key), str)}
        parts["what"] = " ".join(name[1:-1] if last in ("stop", "exception") else name[1:])
        if last == "exception":
            parts |= {"status": "raised", "mood": "bad", "note": f"{metadata['kind']}: {metadata['reason']}"}
    parts.setdefault("took", record.measurements.get("duration"))
    line = Line(**parts)
    if secrets.forms or not f"{line.topic}{line.event}{line.status}{line.note}".isprintable():
        for key in ("topic", "event", "status", "note"):
            if text := getattr(line, key):
                setattr(line, key, printable(secrets.hide(text)))
    return line


def describe_unfinished(start: Record) -> Line:
    """Return the line of a span's start whose end is not in the recording."""
    metadata = start.details()
    given = metadata.get("raw_message")
    what = " ".join(start.name[1:-1]) if given is None else type(given).__name__
    told: Parts = {key: printable(metadata.get(key) or "") for key in ("topic", "event")}
    return Line(what, status="unfinished", mood="bad", **told)


def given_of(record: Record) -> Any:
    """Return the input that was handled, from either record of its handle."""
    return (getattr(record, "start", None) or record).details()["raw_message"]


# The connection


def _connect_started(metadata: Mapping[str, Any]) -> Parts:
    state = metadata["state"]
    note = f"generation {state.generation}, vsn {state.options.vsn}, {state.options.transport}"
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
    notes = [f"{metadata['client']}.{callback}"] if callback else []
    if "attempt" in metadata and not callback:
        notes.append(f"attempt {told('attempt')}")
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
    }


# Events without a duration


def _orphaned(metadata: Mapping[str, Any]) -> Parts:
    reason, ref, mood = metadata["reason"], metadata["ref"], "bad" if metadata["reason"] == "timeout" else "plain"
    its = {"ref": ref, "note": f"ref {ref} {metadata['status']}", "payload": metadata["response"]}
    return {"what": "late reply", "topic": metadata["topic"], "event": f"push {reason}", "mood": mood, **its}


def _discarded(metadata: Mapping[str, Any]) -> Parts:
    reason, frame = metadata["reason"], metadata.get("frame")
    status = in_a_word(reason, "malformed")
    its = {key: metadata[key] or "" for key in ("topic", "event", "ref")}
    direction = "in" if metadata["direction"] == "in" else "out"
    payload = NO_PAYLOAD if frame is None else frame_as_text(frame)
    note = "" if status == reason else reason
    return _bad("dropped", note, status=status, direction=direction, payload=payload, **its)


def _bad(what: str, note: str, **more: Any) -> Parts:
    """Return the parts of something that happened once, and should not have."""
    return {"what": what, "mood": "bad", "note": note, **more}


def _overflowed(metadata: Mapping[str, Any]) -> Parts:
    note = f"the {metadata['consumer']}'s buffer of {metadata['buffer']} is full"
    if metadata.get("phase") in ("lasts", "ended"):
        note += f": {metadata['phase']}, {metadata['dropped'] or 0:,} dropped"
    return _bad("overflow", note, topic=metadata["topic"])


def _gap(metadata: Mapping[str, Any]) -> Parts:
    seconds = (metadata["until"] - metadata["since"]).total_seconds()
    note = f"{seconds:.3f} s" + (f", {metadata['dropped']:,} dropped" if metadata["dropped"] else "")
    return _bad("gap", note, topic=metadata["topic"], status=metadata["reason"])


def _scheduled(metadata: Mapping[str, Any]) -> Parts:
    """Return the parts of an attempt to come, to connect or to join."""
    reason, note = metadata["reason"], f"attempt {metadata['attempt']} in {metadata['delay']:.3f} s"
    if "topic" in metadata:
        return _bad("rejoin", note, topic=metadata["topic"], status=reason)
    found = metadata["code"] if metadata["status"] is None else metadata["status"]
    status = in_a_word(reason, "connect_failed")
    for after in (found, None if status == reason else reason):
        note += "" if after is None else f", after {after}"
    return _bad("reconnect", note, status=status)


def _gave_up(metadata: Mapping[str, Any]) -> Parts:
    note = f"after {many(metadata['attempts'], 'attempt')}: {metadata['hint']}"
    return _bad("gave up", note, status=in_a_word(metadata["reason"], "connect_failed"))


def _silent(metadata: Mapping[str, Any]) -> Parts:
    note = f"nothing came, {many(metadata['sent'], 'frame was', 'frames were')} sent"
    return _bad("silence", note if metadata["over"] else f"{note}; it lasts")


# Handled inputs: by the input, and for frames by what came of them


def describe_handle(details: Mapping[str, Any]) -> Parts:
    """Return the parts of a handle's stop; an input of a type that is not known here is called by that."""
    match given := details["raw_message"]:
        case protocol.FrameReceived():
            return _received(details, given)
        case protocol.PushMessage():
            return _sent(details, "push", given.topic, given.event, payload=given.payload)
        case protocol.JoinTopic() | protocol.LeaveTopic():
            # The payload of a join is often a credential, so it is never shown.
            what = "join" if isinstance(given, protocol.JoinTopic) else "leave"
            return _sent(details, what, given.topic, f"phx_{what}")
        case protocol.TimerTicked():
            return _ticked(details)
        case protocol.TransportFailed(status=status):
            said = given.reason if status is None else str(ConnectionRejected(status, given.headers, given.body))
            note = " ".join(filter(None, (given.url, said)))
            parts = _bad("failed", note, status="" if status is None else str(status))
        case protocol.TransportClosed():
            return _closed(details, given)
        case protocol.SendHeartbeat():
            return _sent(details, "heartbeat", "phoenix", "heartbeat", note="one is outstanding")
        case protocol.CloseConnection():
            parts = {"direction": "out", "what": "close", "status": str(given.code), "note": given.reason}
        case protocol.TransportOpened():
            note = " ".join(filter(None, (given.url, dict(given.response_headers).get("server"))))
            parts = {"direction": "in", "what": "opened", "status": "101", "mood": "good", "note": note}
        case _:
            parts = {"what": type(given).__name__}
    return parts


def _sent(details: Mapping[str, Any], what: str, topic: str, event: str, note: str = "", **more: Any) -> Parts:
    refs = " ".join([effect.ref for effect in details["return"] if isinstance(effect, protocol.SendFrame)])
    note = f"ref {refs}" if refs else note
    return {"direction": "out", "what": what, "topic": topic, "event": event, "ref": refs, "note": note, **more}


def _closed(details: Mapping[str, Any], given: protocol.TransportClosed) -> Parts:
    reasons = [event.reason for event in details["built_events"] if isinstance(event, protocol.ConnectionClosed)]
    note = " ".join(filter(None, [*reasons, given.message]))
    mood = "plain" if given.code == 1000 else "bad"
    return {"direction": "in", "what": "closed", "status": str(given.code), "mood": mood, "note": note}


def _ticked(details: Mapping[str, Any]) -> Parts:
    sent, state, built = _sent(details, "timer", "", ""), details["end_state"], details["built_events"]
    if sent["ref"] and sent["ref"] == state.heartbeat_ref:
        return {**sent, "what": "heartbeat", "topic": "phoenix", "event": "heartbeat"}
    event = protocol.Transition(state, details["message"], built).event
    steps = [f"{step.type} {step.attrs.get('topic', '')}" for step in event]
    note = ", ".join(filter(None, [sent["note"], *steps]))
    mood = "bad" if built else "plain"  # a time limit that was reached
    return {**sent, "direction": "out" if details["return"] else "here", "mood": mood, "note": note}


def _received(details: Mapping[str, Any], given: protocol.FrameReceived) -> Parts:
    message, built = details["message"], details["built_events"]
    if type(message) is protocol.Message:
        join_ref, ref, topic, event, payload = message
        parts: Parts = {"direction": "in", "what": "message", "topic": topic, "event": event, "payload": payload}
        if ref:
            parts["ref"], parts["note"] = ref, f"ref {ref}"
            if event == "phx_reply" and isinstance(payload, dict) and "status" in payload:
                status = str(payload["status"])
                mood = "good" if status == "ok" else "bad"
                parts.update(what="reply", status=status, mood=mood, payload=payload.get("response"))
        elif join_ref is None and built and type(built[-1]) is protocol.MessageReceived:
            parts["what"] = "broadcast"
    else:
        frame: Any = given.frame  # a recording may have something else in its place
        note = f"{len(frame):,} long" if isinstance(frame, str | bytes) else ""
        parts = {"direction": "in", "what": "frame", "note": note}
    given_up = []
    for made in built:
        kind = type(made)
        if kind is protocol.FrameRejected:
            parts.update(what="bad frame", mood="bad", note=made.reason, payload=frame_as_text(given.frame))
        elif kind is protocol.TopicJoinFailed and made.reason == "timeout":
            given_up.append(f"the join of {made.topic} timed out")  # told by the answer to something later
        elif (function := _BUILT.get(kind)) is not None:
            parts.update(function(made))
    if given_up:
        parts.update(mood="bad", note=", ".join(filter(None, [parts.get("note"), *given_up])))
    return parts


_BUILT: Final[Mapping[type, Callable[[Any], Parts]]] = {
    protocol.TopicJoinSucceeded: lambda _: {"what": "joined"},
    protocol.TopicJoinFailed: lambda event: {"what": event.reason, "mood": "bad"},
    protocol.TopicJoinOverdue: lambda _: {"what": "overdue", "mood": "bad"},
    protocol.TopicJoinClosed: lambda event: {"what": event.reason, "mood": "bad"},
    protocol.TopicLeft: lambda _: {"what": "left"},
    protocol.MessageDropped: lambda event: {"what": "dropped", "status": event.reason, "mood": "bad"},
    protocol.HeartbeatAcknowledged: lambda event: {
        "what": "heartbeat",
        "note": f"ref {event.ref} round trip {duration(event.round_trip * 1e9)}",
    },
}

_WORDS: Final[Mapping[str, Callable[..., Parts]]] = {
    "connection connect start": _connect_started,
    "connection connect stop": _connect_stopped,
    "connection handle stop": describe_handle,
    "connection silence": _silent,
    "client reply_orphaned": _orphaned,
    "client message_dropped": _discarded,
    "client overflow": _overflowed,
    "client gap": _gap,
    "client reconnect_scheduled": _scheduled,
    "client rejoin_scheduled": _scheduled,
    "client gave_up": _gave_up,
    "client stalled": lambda its: _bad("stalled", "the event loop stood still", took=nanoseconds(its["seconds"])),
    "telemetry handler failure": lambda its: _bad("handler", f"{its['handler_id']}: {its['reason']}", status="failed"),
}
_EVENTS: Final = {("slipstream", *words.split()): function for words, function in _WORDS.items()}
