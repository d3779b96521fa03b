"""A connection of the pure core, driven by hand: what the tests of `handle` start from."""

import copy
from typing import Any

from tests.protocol import wire
from tests.protocol.checked import check_shortcuts
from tests.protocol.ledger import check_state

from slipstream_trio.protocol import (
    CloseConnection,
    Event,
    Frame,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    Options,
    PushMessage,
    SendFrame,
    SendHeartbeat,
    Serializer,
    State,
    TimerTicked,
    TopicJoinSucceeded,
    Transition,
    TransportOpened,
    handle,
    serializer_for,
)

URL = "ws://localhost:4000/socket/websocket"


def opening_state(**options: Any) -> State:
    """Return the state of a connection whose transport is being opened."""
    return State(
        connection_id="c" * 16,
        trace_id="7" * 32,
        socket_id="5" * 16,
        generation=1,
        options=Options(url=URL, **options),
    )


class Core:
    """One connection. Every input is handled twice, and the given state is compared with a deep copy."""

    def __init__(self, *, opened: bool = True, serializer: Serializer | None = None, **options: Any) -> None:
        self.state = opening_state(**options)
        self.serializer = serializer or serializer_for(self.state.options.vsn)
        self.now = 0.0
        if opened:
            self.feed(TransportOpened(self.now))

    def feed(self, given: Input) -> Transition:
        """Handle one input, and check what holds for every one."""
        before = copy.deepcopy(self.state)
        transition = handle(self.state, given, self.serializer)
        assert handle(self.state, given, self.serializer) == transition
        assert self.state == before
        # What is shown is the message, and where there is none, the very input.
        assert transition.message is given or transition.message == self.serializer.decode(getattr(given, "frame", b""))
        assert [*check_shortcuts(self.state, given, transition, self.serializer)] == []
        assert check_state(transition.state) == []
        self.state = transition.state
        return transition

    def feed_idle(self, given: Input) -> Transition:
        """Handle an input that must leave the state as it is (the same object) and send nothing."""
        before = self.state
        transition = self.feed(given)
        assert transition.state is before
        assert transition.return_ == ()
        return transition

    def receive(self, *message: Any) -> Transition:
        """Handle a text frame of these five values."""
        return self.feed(FrameReceived(self.now, wire.text(*message)))

    def receive_idle(self, *message: Any) -> Transition:
        """Handle a text frame that must leave the state as it is."""
        return self.feed_idle(FrameReceived(self.now, wire.text(*message)))

    def receive_frame(self, frame: Frame) -> Transition:
        """Handle a frame."""
        return self.feed(FrameReceived(self.now, frame))

    def reply(self, ref: str, topic: str = "room", *, status: str = "ok", response: Any = None) -> Transition:
        """Handle a reply with a null join_ref, as the join_ref of a reply tells nothing."""
        payload = {"status": status, "response": {} if response is None else response}
        return self.receive(None, ref, topic, "phx_reply", payload)

    def join(
        self,
        topic: str = "room",
        payload: Any = None,
        timeout: float | None = 10.0,
        *,
        deadline: float | None = None,
        rejoin: bool = False,
    ) -> str:
        """Send a join; return its ref."""
        payload = {} if payload is None else payload
        return sent_ref(self.feed(JoinTopic(self.now, topic, payload, timeout, deadline, rejoin)))

    def rejoin(self, topic: str = "room", timeout: float | None = 10.0) -> str:
        """Send a join of the library's own; return its ref."""
        return self.join(topic, timeout=timeout, rejoin=True)

    def joined(self, topic: str = "room") -> str:
        """Join a topic and have it accepted; return the join's ref."""
        ref = self.join(topic)
        assert self.reply(ref, topic).built_events == (TopicJoinSucceeded(topic, ref, {}),)
        return ref

    def joined_again(self, topic: str = "room") -> str:
        """Join a topic that is joined, and have it accepted; return the new join's ref."""
        ref = self.join(topic)
        self.reply(ref, topic)
        return ref

    def leave(self, topic: str = "room", timeout: float | None = 5.0) -> str:
        """Send a leave; return its ref."""
        return sent_ref(self.feed(LeaveTopic(self.now, topic, timeout)))

    def leave_nothing(self, topic: str) -> Transition:
        """Give the leave of a topic that is not joined."""
        return self.feed(LeaveTopic(self.now, topic, None))

    def close(self) -> Transition:
        """Ask for the end of the connection."""
        return self.feed(CloseConnection())

    def push(self, topic: str = "room", event: str = "msg", payload: Any = None) -> str:
        """Push; return the push's ref."""
        return sent_ref(self.feed(PushMessage(topic, event, {} if payload is None else payload)))

    def heartbeat(self) -> str:
        """Send a heartbeat; return its ref."""
        return sent_ref(self.feed(SendHeartbeat(self.now)))

    def tick(self, now: float, **line: float | None) -> Transition:
        """Let the time be `now`, and the timer tick; `line` is what is known of the line."""
        self.now = now
        return self.feed(TimerTicked(now, **line))


def sent_ref(transition: Transition) -> str:
    """Return the ref of the one frame that was sent."""
    (effect,) = transition.return_
    assert isinstance(effect, SendFrame)
    return effect.ref


def sent(transition: Transition) -> Message:
    """Return the one message that was sent."""
    (effect,) = transition.return_
    assert isinstance(effect, SendFrame)
    message = wire.parse(effect.frame)
    assert message.ref == effect.ref
    return message


def only(transition: Transition) -> Event:
    """Return the one event that was built; nothing was sent."""
    assert transition.return_ == ()
    (event,) = transition.built_events
    return event


def leaves_of(transition: Transition) -> list[tuple[str | None, str]]:
    """Return join_ref and topic of the leaves that were sent, and nothing else was."""
    messages = [wire.parse(effect.frame) for effect in transition.return_ if isinstance(effect, SendFrame)]
    assert [message.event for message in messages] == ["phx_leave"] * len(transition.return_)
    return [(message.join_ref, message.topic) for message in messages]
