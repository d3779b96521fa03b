"""Plays a recording through the core: each frame that was sent as the command that sends it, each other as it came."""

import json
from collections import Counter
from typing import Any

import attrs
from tests.protocol import wire
from tests.protocol.core import Core
from tests.protocol.recordings import Record, read

from slipstream_trio.protocol import (
    RESERVED_EVENTS,
    CloseConnection,
    Event,
    Frame,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    PushMessage,
    SendFrame,
    SendHeartbeat,
    Transition,
    TransportClosed,
    TransportFailed,
    TransportOpened,
    V2Serializer,
    serializer_for,
)

EARLIER = "sent by a client that did not see the end"
GARBAGE = "no message"
NO_JOIN_REF = "a join without a join_ref"
BINARY_JOIN = "a binary join"
BINARY_LEAVE = "a binary leave"
HEARTBEAT = "a heartbeat with a join_ref or a payload, or without a ref"
NOT_JOINED = "on a topic that is not joined"
OTHER_JOIN_REF = "with a join_ref that is not the join's"
NO_REF = "without a ref"
LEFT_TWICE = "a second leave"
RESERVED = "an event of the protocol's own"


class Mirror:
    """One recorded connection and the core's."""

    def __init__(self, opened: Record) -> None:
        refused = opened.data.get("status") != 101
        serializer = V2Serializer() if refused else serializer_for(opened.vsn)
        self.core = Core(opened=False, serializer=serializer, heartbeat_interval=None, vsn=opened.vsn)
        self.transitions: list[Transition] = []
        self.events: list[Event] = []
        self.not_mirrored: Counter[str] = Counter()
        self.mirrored = 0
        self.log: list[Input] = []
        self.join_refs: dict[tuple[str, str | None], str] = {}
        headers = tuple(opened.data.get("headers", {}).items())
        if refused:
            reason = opened.data.get("error", "refused")
            self.feed(TransportFailed(reason, opened.data.get("status"), headers, opened.data.get("body", "")))
        else:
            self.feed(TransportOpened(opened.seconds, headers))

    def feed(self, given: Input) -> Transition:
        transition = self.core.feed(given)
        self.log.append(given)
        self.transitions.append(transition)
        self.events.extend(transition.built_events)
        return transition

    def send(self, record: Record) -> None:
        """Give the command that sends this frame, with the recorded ref; count it where there is none."""
        given = self.command(record)
        if isinstance(given, str):
            self.not_mirrored[given] += 1
            return
        command, message = given
        self.mirrored += 1
        ref = message.ref
        if isinstance(command, JoinTopic) and message.join_ref != ref:
            # The recording's join has a ref of its own. Ours has one ref for both; the replies are translated.
            self.join_refs[message.topic, ref] = ref = str(message.join_ref)
        self.core.state = attrs.evolve(self.core.state, current_ref=int(str(ref)) - 1)
        (effect,) = self.feed(command).return_
        assert isinstance(effect, SendFrame)
        assert wire.parse(effect.frame) == message._replace(ref=ref)
        if isinstance(record.frame, bytes):
            assert effect.frame == record.frame

    def command(self, record: Record) -> tuple[Input, Message] | str:
        """Return the command that sends this frame, or why there is none."""
        if self.core.state.status != "open":
            return EARLIER
        try:
            message = wire.parse(record.frame)
        except (ValueError, TypeError, KeyError, AssertionError):
            return GARBAGE
        of_v1 = isinstance(record.frame, str) and record.frame.startswith("{")
        if of_v1 != (self.core.serializer.name == "v1") or None in (message.topic, message.event):
            return GARBAGE
        if type(message.topic) is not str:
            return GARBAGE
        if message.ref is None:
            return NO_REF
        now, topic = record.seconds, message.topic
        if message.event == "phx_join":
            if message.join_ref is None:
                return NO_JOIN_REF
            binary = isinstance(message.payload, bytes)
            return BINARY_JOIN if binary else (JoinTopic(now, topic, message.payload, None), message)
        if (topic, message.event) == ("phoenix", "heartbeat"):
            plain = message.join_ref is None and message.payload == {}
            return (SendHeartbeat(now), message) if plain else HEARTBEAT
        return self.on_channel(message, now)

    def on_channel(self, message: Message, now: float) -> tuple[Input, Message] | str:
        topic, joins = message.topic, self.core.state.joins
        if topic not in joins:
            return NOT_JOINED
        if message.join_ref != joins[topic]:
            return OTHER_JOIN_REF
        if message.event == "phx_leave":
            if topic in self.core.state.leaves:
                return LEFT_TWICE
            return BINARY_LEAVE if isinstance(message.payload, bytes) else (LeaveTopic(now, topic, None), message)
        if message.event in RESERVED_EVENTS:
            return RESERVED
        return PushMessage(topic, message.event, message.payload), message

    def receive(self, record: Record) -> None:
        self.feed(FrameReceived(record.seconds, self.translated(record.frame)))

    def translated(self, frame: Frame) -> Frame:
        """Return the frame with the ref of the join in place of the recorded one."""
        if not self.join_refs or isinstance(frame, bytes):
            return frame
        value: list[Any] = json.loads(frame)
        value[1] = self.join_refs.get((value[2], value[1]), value[1])
        return json.dumps(value)

    def end(self, record: Record) -> None:
        if record.data["by"] == "client":
            self.feed(CloseConnection())
        self.feed(TransportClosed(record.data["code"], record.data["reason"]))


class Play:
    """A recording, played to its end."""

    def __init__(self, name: str) -> None:
        self.mirrors: list[Mirror] = []
        open_now: dict[str, Mirror] = {}
        for record in read(name):
            if record.dir == "open":
                open_now[record.connection] = Mirror(record)
                self.mirrors.append(open_now[record.connection])
                continue
            if record.dir == "note":
                continue
            mirror = open_now[record.connection]
            if record.dir == "send":
                mirror.send(record)
            elif record.dir == "close":
                mirror.end(record)
            else:
                mirror.receive(record)

    @property
    def mirrored(self) -> int:
        return sum(mirror.mirrored for mirror in self.mirrors)

    @property
    def not_mirrored(self) -> Counter[str]:
        return sum((mirror.not_mirrored for mirror in self.mirrors), Counter[str]())

    @property
    def events(self) -> Counter[str]:
        return Counter(type(event).__name__ for mirror in self.mirrors for event in mirror.events)
