"""What holds of every state, and of every life: the core is held against a ledger of what was seen of a connection."""

from collections.abc import Iterator
from typing import Final, Literal

from attrs import define, field

from ...errors import ProtocolError
from ...protocol import (
    ConnectionClosed,
    ConnectionFailed,
    Event,
    FrameReceived,
    HeartbeatAcknowledged,
    Input,
    MessageReceived,
    SendFrame,
    State,
    TimerTicked,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinSucceeded,
    TopicLeft,
    Transition,
    next_deadline,
)
from ...protocol.message import HEARTBEAT, JOIN, Message
from ..server.wire import V1Wire, V2Wire, Wire

__all__ = ["Ledger", "check_state", "wire_of"]

Life = Literal["pending", "joined", "ended"]

_V1: Final = V1Wire()
_V2: Final = V2Wire()


def wire_of(state: State) -> Wire:
    """Return the server's side of a connection's serializer."""
    return _V1 if state.options.vsn.startswith("1.") else _V2


def check_state(state: State) -> list[str]:
    """Return what is wrong with a state, whatever led to it; nothing should be."""
    wrong = []
    if not state.join_deadlines.keys() <= state.joins.keys():
        wrong.append("a join is pending that is not in joins")
    if state.leaves.keys() != state.leave_deadlines.keys():
        wrong.append("leaves and their deadlines are of different topics")
    if not state.leaves.keys() <= state.joins.keys():
        wrong.append("a topic is being left that is not in joins")
    if state.join_deadlines.keys() & state.leaves.keys():
        wrong.append("a topic is being joined and left at once")
    if state.heartbeat_ref is not None:
        if state.heartbeat_sent_at is None:
            wrong.append("a heartbeat is outstanding that was never sent")
        if (state.heartbeat_deadline is None) != (state.options.heartbeat_timeout is None):
            wrong.append("a heartbeat is outstanding with a deadline that is not that of its timeout")
    return wrong


@define
class Ledger:
    """What was seen of one connection, from its first input on.

    Attributes:
        sent: refs and topics of what was sent, in order.
        lives: join_ref to "pending", "joined" or "ended".
        heartbeats: refs of the heartbeats that are not answered; at most one.
        ends: how many times the connection has ended; once, in the end.
    """

    sent: list[tuple[str, str]] = field(factory=list)
    lives: dict[str, Life] = field(factory=dict)
    heartbeats: list[str] = field(factory=list)
    ends: int = 0

    def note(self, given: Input, transition: Transition) -> list[str]:
        """Enter what an input did; returns what cannot be true of it, given what was seen before."""
        wrong = [*self._effects(given, transition)]
        for event in transition.built_events:
            wrong += self._event(event, transition.state)
        return [*wrong, *self._state(given, transition.state)]

    def _effects(self, given: Input, transition: Transition) -> Iterator[str]:
        if isinstance(given, FrameReceived) and transition.return_:
            yield "a frame makes the client send something"
        if not isinstance(given, TimerTicked) and len(transition.return_) > 1:
            yield "one input has several effects"
        wire = wire_of(transition.state)
        for effect in transition.return_:
            if isinstance(effect, SendFrame):
                try:
                    message = wire.decode(effect.frame)
                except ProtocolError as error:
                    yield f"a frame is sent that a server cannot read: {error.problem}"
                else:
                    yield from self._sent(effect.ref, message)

    def _sent(self, ref: str, message: Message) -> Iterator[str]:
        if self.sent and int(ref) <= int(self.sent[-1][0]):
            yield f"the ref {ref} is not above {self.sent[-1][0]}, which was sent before"
        if message.ref != ref:
            yield f"the ref {ref} is not that of its frame, {message.ref}"
        self.sent.append((ref, message.topic))
        join_ref = message.join_ref or None
        if message.event == JOIN:
            if join_ref != ref:
                yield f"the join {ref} has the join_ref {join_ref}"
            self.lives[ref] = "pending"
        elif join_ref is None and message.event == HEARTBEAT:
            self.heartbeats.append(ref)
        elif join_ref not in self.lives:
            yield f"the message {ref} has a join_ref of no join: {join_ref}"

    def _event(self, event: Event, state: State) -> Iterator[str]:
        match event:
            case TopicJoinSucceeded(ref=ref) | TopicJoinFailed(ref=ref):
                yield from self._moved(
                    ref, ("pending",), "joined" if isinstance(event, TopicJoinSucceeded) else "ended"
                )
            case TopicJoinClosed(ref=ref) | TopicLeft(ref=str(ref)):
                yield from self._moved(ref, ("pending", "joined"), "ended")
            case HeartbeatAcknowledged(ref=ref, round_trip=round_trip):
                if ref not in self.heartbeats or round_trip < 0:
                    yield f"the heartbeat {ref} is answered after {round_trip} s; outstanding: {self.heartbeats}"
                self.heartbeats = [known for known in self.heartbeats if known != ref]
            case MessageReceived(message=message):
                if message.topic not in state.joins or message.join_ref not in (None, state.joins[message.topic]):
                    yield f"a message is received on {message.topic!r} of a join that is not the current one"
            case ConnectionClosed() | ConnectionFailed():
                self.ends += 1
                yield from ["the connection ends again"] if self.ends > 1 else []

    def _moved(self, ref: str, before: tuple[Life, ...], after: Life) -> Iterator[str]:
        life = self.lives.get(ref)
        if life not in before:
            yield f"the join {ref} is {after} now, but {life} before"
        self.lives[ref] = after

    def _state(self, given: Input, state: State) -> Iterator[str]:
        alive = {ref for ref, life in self.lives.items() if life != "ended"}
        if set(state.joins.values()) != alive:
            yield f"joins are {dict(state.joins)}, but the refs of those alive are {sorted(alive)}"
        pending = {ref for ref, life in self.lives.items() if life == "pending"}
        left = {state.joins[topic] for topic in state.leaves if topic in state.joins}
        if {state.joins.get(topic) for topic in state.join_deadlines} != pending - left:
            yield f"pending joins are {dict(state.join_deadlines)}, but their refs should be {sorted(pending - left)}"
        if self.heartbeats != ([state.heartbeat_ref] if state.heartbeat_ref else []):
            yield f"the outstanding heartbeat is {state.heartbeat_ref}, not {self.heartbeats}"
        deadline = next_deadline(state)
        if isinstance(given, TimerTicked) and deadline is not None and deadline <= given.now:
            yield f"at {given.now} something is still due since {deadline}"
