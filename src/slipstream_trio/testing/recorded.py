"""Both sides of a socket's recording, connection by connection: what its client did, and what its server sent."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any, Final

from attrs import define, field, frozen

from .. import protocol
from ..errors import ProtocolError
from ..protocol import Frame, Message
from ..protocol.message import HEARTBEAT, JOIN, LEAVE, PHOENIX, REPLY
from ..telemetry import ConnectStart, HandleStop
from ..telemetry.secrecy import MASK, is_secret
from ..trace import Damage, Header, Missing, Recorded, Redacted, files_of
from ..trace.read import read_files
from .kit.expectations import ANY, Exactly
from .server import Refuse
from .server.wire import Wire

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]

# Headers that the replaying server writes itself.
_FRAMING: Final = {"connection", "content-length", "transfer-encoding"}


@frozen
class Close:
    """The end of a connection by its server: the code None cuts it, as a TCP reset does."""

    code: int | None
    reason: str = ""


Content = Message | Frame | Close | None


@define(eq=False)
class Action:
    """Something that a client did."""

    at: float  # in seconds since its connection was opened
    message: Message | None = None  # that it sent; None for the end of the connection
    payload: Any = ANY  # the pattern of the message's payload
    again: bool = False  # whether it joins a topic for another time, which it does when its back-off says so
    after: int = 0  # how many of the server's plays came before it

    def resembles(self, other: "Action") -> bool:
        """Tell whether another is of the same topic and event."""
        mine, its = self.message, other.message
        return mine is not None and its is not None and mine[2:4] == its[2:4]


@frozen(eq=False)
class Play:
    """Something that a server did."""

    at: float  # when it was received, in seconds since its connection was opened
    delay: float  # the seconds since what came before it, on either side
    after: int  # how many of the client's actions came before it
    content: Content  # a message, a malformed frame, the end, or None for a moment at which the server was alive


@define(eq=False)
class Attempt:
    """One connection of the recorded socket, or an attempt at it."""

    connection_id: str
    actions: list[Action] = field(factory=list)  # what its client did
    plays: list[Play] = field(factory=list)  # what its server did
    refusal: Refuse | None = None  # the answer that it got in place of an upgrade
    failed: str | None = None  # the reason of a failure; None if it was opened
    whole: bool = False  # whether its end was recorded
    silent: bool = False  # whether nothing was answered at its end, heartbeats included
    now: float = 0.0  # the time of the latest record, in seconds since it was opened
    _began: float | None = None
    _clock: int | None = None

    def pass_time(self, record: Recorded) -> float:
        """Take in when a record was emitted; returns the seconds since the one before."""
        delay = 0.0 if self._clock is None else (record.monotonic_time - self._clock) / 1e9
        self._clock = record.monotonic_time
        now = getattr(record.metadata["raw_message"], "now", None)
        if now is None:
            self.now += delay
            return delay
        # Inputs have the time of the connection's clock, which may be virtual, while telemetry's is real.
        self._began = now if self._began is None else self._began
        before, self.now = self.now, max(self.now, now - self._began)
        return min(delay, self.now - before)


@define
class RecordedSocket:
    """The recording of one socket, read from files; the options are those of `replayed`."""

    socket: str | None
    connection: str | None
    topics: Collection[str]
    attempts: list[Attempt] = field(factory=list, init=False)  # its connections, in order
    unknown: list[str] = field(factory=list, init=False)  # what cannot be told from the recording, in sentences
    _socket_id: str | None = field(default=None, init=False)
    _redacted: tuple[str, ...] = field(default=(), init=False)
    _joined: set[str] = field(factory=set, init=False)

    def counts(self, topic: Any) -> bool:
        """Tell whether a topic is to be replayed."""
        return any(fnmatchcase(str(topic), pattern) for pattern in self.topics)

    def read(self, recording: Paths) -> None:
        """Read it up to its end, or to the first place where something is missing; raises what `replayed` raises."""
        for path, entry in read_files(files_of([recording] if isinstance(recording, str | PathLike) else recording)):
            if isinstance(entry, Recorded):
                self._take(entry)
            elif isinstance(entry, Header):
                self._redacted = entry.redacted
                if entry.untold:
                    self._note(f"schema {entry.schema} does not tell {'; '.join(entry.untold)}")
                if "payloads" in entry.redacted:
                    self._note(
                        "payloads are redacted: the client's are not compared, and the server's played as recorded"
                    )
            elif self._misses(entry):
                self._note(f"{path}, line {entry.line}: records are missing, and what came after is not replayed")
                break
        if not self.attempts:
            raise LookupError(f"the recording has no socket {self.socket!r} with a connection {self.connection!r}")

    def _note(self, sentence: str) -> None:
        if sentence not in self.unknown:
            self.unknown.append(sentence)

    def _misses(self, entry: Any) -> bool:
        hole = isinstance(entry, Missing) and entry.reason != "began_before"
        hole = hole or (isinstance(entry, Damage) and not entry.last)
        return hole and entry.connection_id in (None, *(each.connection_id for each in self.attempts))

    def _take(self, record: Recorded) -> None:
        if record.name[1] != "connection" or not (record.connection_id or "").startswith(self.connection or ""):
            return
        if self._socket_id is None and record.socket_id.startswith(self.socket or ""):
            self._socket_id = record.socket_id
        if record.socket_id != self._socket_id:
            return
        if record.name == ConnectStart.name:
            self.attempts.append(Attempt(record.connection_id or ""))
        elif record.name == HandleStop.name:
            attempt = self._attempt(record)
            delay = attempt.pass_time(record)
            for content in self._server_did(attempt, record.metadata):
                attempt.plays.append(Play(attempt.now, delay, len(attempt.actions), content))
            self._client_did(attempt, record.metadata)
        elif record.name[2] == "connect":
            self._attempt(record).whole = True
            if record.metadata.get("termination_reason") == "option_failed":
                self.attempts.pop()  # it never reached the server

    def _attempt(self, record: Recorded) -> Attempt:
        """Return a record's connection; one that began before the recording is taken up as it was then."""
        for attempt in reversed(self.attempts):
            if attempt.connection_id == record.connection_id:
                return attempt
        self._note("the first connection began before the recording: what its topics were joined with is unknown")
        self.attempts.append(attempt := Attempt(record.connection_id or ""))
        for topic, ref in filter(lambda join: self.counts(join[0]), record.metadata["state"].joins.items()):
            attempt.actions.append(Action(0.0, Message(ref, ref, topic, JOIN, {}), again=True))
            answer = Message(ref, ref, topic, REPLY, {"status": "ok", "response": {}})
            attempt.plays.append(Play(0.0, 0.0, len(attempt.actions), answer))
        return attempt

    def _server_did(self, attempt: Attempt, metadata: Mapping[str, Any]) -> Iterator[Content]:
        match metadata["raw_message"]:
            case protocol.TransportFailed(reason, status, headers, body):
                attempt.failed = reason
                kept = [header for header in headers if header[0].lower() not in _FRAMING]
                attempt.refusal = None if status is None else Refuse(status, kept, body)
            case protocol.FrameReceived(frame=frame) if not isinstance(metadata["message"], Message):
                if isinstance(frame, Redacted):
                    self._note("malformed frames are redacted, and not played")
                yield None if isinstance(frame, Redacted) else frame
            case protocol.FrameReceived():
                message = metadata["message"]
                if message.topic == PHOENIX or self.counts(message.topic):
                    yield None if message.topic == PHOENIX else message
        for event in metadata["built_events"]:
            if isinstance(event, protocol.ConnectionClosed):
                yield from self._ended(attempt, event)

    def _ended(self, attempt: Attempt, closed: protocol.ConnectionClosed) -> Iterator[Close]:
        attempt.silent = closed.reason == "heartbeat_timeout"
        refused = closed.reason in ("protocol_error", "message_too_big")
        if refused:
            frame = f"a frame that the client refused ({closed.message})"
            self._note(f"{frame} was not recorded: the server closes instead")
        if refused or (closed.ended_by != "client" and not attempt.silent):
            yield Close(None if closed.ended_by == "network" else closed.code, closed.message)
        else:
            attempt.actions.append(Action(attempt.now, after=len(attempt.plays)))

    def _client_did(self, attempt: Attempt, metadata: Mapping[str, Any]) -> None:
        for effect in metadata["return"]:
            message = _sent(effect, metadata)
            if message is not None and self.counts(message.topic):
                again = message.event == JOIN and message.topic in self._joined
                if message.event == JOIN:
                    self._joined.add(message.topic)
                hidden = "payloads" in self._redacted and message.payload != {}
                payload = ANY if hidden else self._pattern(message.payload)
                attempt.actions.append(Action(attempt.now, message, payload, again, len(attempt.plays)))

    def _pattern(self, value: Any, *, secret: bool = False) -> Any:
        """Return the pattern of a payload, in which secrets may be masked."""
        if "secrets" in self._redacted and (secret or (isinstance(value, str) and MASK in value)):
            self._note("secrets are masked: they are not compared, and played as they are recorded")
            return ANY
        if isinstance(value, Mapping):
            return {key: self._pattern(item, secret=is_secret(key)) for key, item in value.items()}
        return [self._pattern(item) for item in value] if isinstance(value, list) else Exactly(value)


def _sent(effect: protocol.Effect, metadata: Mapping[str, Any]) -> Message | None:
    """Return the message that an effect sent; None for a heartbeat, or an effect of another kind."""
    if not isinstance(effect, protocol.SendFrame):
        return None
    match metadata["raw_message"]:
        case protocol.JoinTopic(topic=topic, payload=payload):
            return Message(effect.ref, effect.ref, topic, JOIN, payload)
        case protocol.PushMessage(topic=topic, event=event, payload=payload):
            return Message(None, effect.ref, topic, event, payload)
        case protocol.LeaveTopic(topic=topic):
            return Message(None, effect.ref, topic, LEAVE, {})
    try:
        message = Wire(metadata["state"].options.vsn).decode(effect.frame)
    except (ProtocolError, TypeError):  # of a serializer that is not known here, or redacted: a heartbeat as a rule
        return None
    return None if message.event == HEARTBEAT and message.topic == PHOENIX else message
