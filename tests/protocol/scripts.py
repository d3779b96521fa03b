"""Scripts of what users, servers, the timer and the transport do to a connection, and what must hold throughout."""

import copy
from typing import Any

from attrs import define, field, frozen
from hypothesis import strategies as st
from tests.protocol import wire
from tests.protocol.core import Core
from tests.protocol.json_texts import json_texts
from tests.protocol.ledger import Ledger

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    CloseConnection,
    Frame,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    PushMessage,
    SendHeartbeat,
    TimerTicked,
    TransportClosed,
    TransportOpened,
)
from slipstream_trio.testing.strategies import frames

TOPICS = ["room", "other", "phoenix"]
USER_ACTS = ["join", "join", "leave", "push", "push", "ping"]
SERVER_ACTS = ["reply", "reply", "answer", "answer", "close", "error", "message", "binary"]


@frozen
class Act:
    """Something that happens; the numbers choose, among what is possible then, which."""

    kind: str
    topic: str
    which: int
    how: int
    seconds: float


@frozen
class Raw:
    """A frame that has nothing to do with what went before."""

    frame: Frame


acts = st.builds(
    Act,
    st.sampled_from(["tick", *USER_ACTS, *SERVER_ACTS] * 6 + ["close_connection"]),
    st.sampled_from(TOPICS),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.5, 1.0, 5.0, 10.0, 30.0]),
)
_STRAY = frames("2.0.0", topic=st.sampled_from(TOPICS)) | frames("1.0.0", topic=st.sampled_from(TOPICS))
raws = st.builds(Raw, json_texts() | _STRAY | st.binary())
_mostly_acts: st.SearchStrategy[Act | Raw] = st.integers(0, 7).flatmap(lambda n: acts if n else raws)
scripts = st.lists(_mostly_acts, min_size=12, max_size=40)
options = st.fixed_dictionaries(
    {
        "vsn": st.sampled_from(["2.0.0", "2.0.0", "1.0.0"]),
        "heartbeat_interval": st.sampled_from([None, 1.0, 7.0, 30.0]),
        "heartbeat_timeout": st.sampled_from([None, 1.0, 10.0]),
    }
)


@define
class Run:
    """A connection that a script is played on, and what was seen of it."""

    core: Core
    ledger: Ledger = field(factory=Ledger)
    seen: set[str] = field(factory=set)

    @property
    def sent(self) -> list[tuple[str, str]]:
        """Refs and topics, in the order in which they were sent."""
        return self.ledger.sent

    @property
    def lives(self) -> dict[str, Any]:
        """Join refs to "pending", "joined" or "ended"."""
        return dict(self.ledger.lives)

    @property
    def ends(self) -> int:
        """How often the connection has ended."""
        return self.ledger.ends

    def play(self, script: list[Act | Raw]) -> None:
        """Play a script, and end the connection."""
        for act in script:
            self.feed(FrameReceived(self.core.now, act.frame) if isinstance(act, Raw) else self.given(act))
        self.feed(TransportClosed(1006))
        assert self.ends == 1

    def fork(self) -> "Run":
        """Return another run that has nothing of this one's past but a copy of its state, and what was noted."""
        core = Core(serializer=self.core.serializer)
        core.state, core.now = copy.deepcopy(self.core.state), self.core.now
        return Run(core, copy.deepcopy(self.ledger), {*self.seen})

    def feed(self, given: Input) -> None:
        """Handle an input and check what it did."""
        before = self.core.state
        try:
            transition = self.core.feed(given)
        except (ProtocolError, SerializationError):
            assert isinstance(given, JoinTopic | LeaveTopic | PushMessage | SendHeartbeat | CloseConnection)
            hopeless = isinstance(given, PushMessage) and given.topic not in before.joins
            unsendable = getattr(given, "payload", None) in (b"bytes", "\ud800")
            assert before.status != "open" or hopeless or unsendable
            assert self.core.state is before
            return
        self.seen.update(type(event).__name__ for event in transition.built_events)
        assert self.ledger.note(given, transition) == []

    def given(self, act: Act) -> Input:
        """Return the input that an act is, at this moment."""
        core, topic = self.core, act.topic
        if act.kind in ("leave", "push") and act.which % 4 and core.state.joins:
            topic = sorted(core.state.joins)[act.how % len(core.state.joins)]
        timeout = None if act.how == 0 else act.how * 5.0
        payload: Any = [{}, {}, None, [1], "text", {}, {}, {}, b"bytes", "\ud800"][act.which]
        match act.kind:
            case "tick":
                core.now += act.seconds
                if act.which % 3 == 0:
                    return TimerTicked(core.now)
                blocked = core.now - act.how if act.which == 1 else None
                return TimerTicked(core.now, core.now - act.how * 3.0, write_blocked_since=blocked)
            case "join":
                deadline = core.now + act.how if act.which > 6 else None
                return JoinTopic(core.now, topic, payload, timeout, deadline, rejoin=act.which % 2 == 1)
            case "leave":
                return LeaveTopic(core.now, topic, timeout)
            case "push":
                return PushMessage(topic, "ev", payload)
            case "ping":
                return SendHeartbeat(core.now)
            case "close_connection":
                return CloseConnection()
        core.now += act.seconds / 100
        return FrameReceived(core.now, self.frame(act))

    def frame(self, act: Act) -> Frame:
        """Return a frame that a real server might send after what it was sent, or a strange one."""
        ref, topic = self.sent[act.which % len(self.sent)] if self.sent else ("1", act.topic)
        if act.which == 9:
            topic = act.topic
        joins = sorted(self.lives, key=int)
        join_ref = joins[-1 - act.which % len(joins)] if joins else "1"
        status = "error" if act.how in (1, 2) else "ok"
        if act.kind in ("message", "binary") and act.which % 4 and self.core.state.joins:
            topic = sorted(self.core.state.joins)[act.which % len(self.core.state.joins)]
            join_ref = self.core.state.joins[topic]
        match act.kind:
            case "answer":
                ref, topic = self.unanswered() or (ref, topic)
                return self.text(None, ref, topic, "phx_reply", {"status": status, "response": {"n": 1}})
            case "reply":
                return self.text(ref, ref, topic, "phx_reply", {"status": status, "response": None})
            case "close" | "error":
                end = None if act.how == 0 else join_ref
                topics = [joined for joined, known in self.core.state.joins.items() if known == join_ref]
                return self.text(join_ref, end, topics[0] if topics else act.topic, f"phx_{act.kind}", {})
            case "message":
                owner = [None, join_ref, "77"][act.how % 3]
                event = ["ev", "ev", "phx_close", "phx_reply", "phx_join", "phx_error"][act.which % 6]
                return self.text(owner, None, topic, event, {})
        if act.how % 3 == 0:
            return wire.binary_broadcast(topic, "ev", b"data")
        if act.how % 3 == 1:
            return wire.binary_push(join_ref, topic, "ev", b"data")
        return wire.binary_reply(join_ref, ref, topic, status, b"data")

    def unanswered(self) -> tuple[str, str] | None:
        """Return ref and topic of a pending join, else of the latest that was sent."""
        for topic in self.core.state.join_deadlines:
            return self.core.state.joins[topic], topic
        return self.sent[-1] if self.sent else None

    def text(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any) -> str:
        """Return a text frame of the connection's serializer."""
        if self.core.serializer.name == "v1":
            return wire.text_v1(ref, topic, event, payload)
        return wire.text(join_ref, ref, topic, event, payload)


def opened(chosen: dict[str, Any]) -> Run:
    """Return a run on a connection that is open."""
    run = Run(Core(opened=False, **chosen))
    run.feed(TransportOpened(0.0))
    return run
