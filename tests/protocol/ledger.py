"""What holds of every state, and of every life: the core is held against a ledger of what was seen of a connection."""

from collections.abc import Iterator
from typing import Final, Literal

from attrs import define, field

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import (
    ConnectionClosed,
    ConnectionFailed,
    Event,
    FrameReceived,
    FrameRejected,
    HeartbeatAcknowledged,
    Input,
    MessageReceived,
    SendFrame,
    State,
    TimerTicked,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinOverdue,
    TopicJoinSucceeded,
    TopicLeft,
    Transition,
    next_deadline,
)
from slipstream_trio.protocol.draft import MOST_AT_A_TICK
from slipstream_trio.protocol.message import CLOSE, ERROR, HEARTBEAT, JOIN, REPLY, Message
from slipstream_trio.testing.server.wire import Wire

Life = Literal["pending", "joined", "ended"]

_WIRES: Final = {vsn: Wire(vsn) for vsn in ("1.0.0", "2.0.0")}


def wire_of(state: State) -> Wire:
    """Return the server's side of a connection's serializer."""
    return _WIRES["1.0.0" if state.options.vsn.startswith("1.") else "2.0.0"]


def check_state(state: State) -> list[str]:
    """Return what is wrong with a state, whatever led to it; nothing should be."""
    wrong = []
    if not state.join_deadlines.keys() <= state.joins.keys():
        wrong.append("a join is pending that is not in joins")
    if not state.leaves.keys() <= state.joins.keys():
        wrong.append("a topic is being left that is not in joins")
    if state.join_deadlines.keys() & state.leaves.keys():
        wrong.append("a topic is being joined and left at once")
    if state.heartbeat_ref is not None:
        if state.heartbeat_sent_at is None:
            wrong.append("a heartbeat is outstanding that was never sent")
        if state.heartbeat_deadline is None:
            wrong.append("a heartbeat is outstanding without a deadline")
    if next_deadline(state) != _earliest(state):
        wrong.append(f"the next deadline is {next_deadline(state)}, and the earliest that is shown {_earliest(state)}")
    return [*wrong, *_check_turns(state)]


def _check_turns(state: State) -> Iterator[str]:
    turns = dict(state.turns)
    if len(turns) != state.unanswered:
        yield f"{state.unanswered} joins are unanswered, and {len(turns)} have a turn"
    if not turns and (state.turn_began is not None or state.turn_by_timeout):
        yield "a turn has begun, and it is nobody's"
    if turns and state.turn_began is None:
        yield "a join has its turn, which has not begun"
    waiting = {state.joins.get(topic) for topic in state.join_timeouts}
    if not waiting <= set(list(turns)[1:]):
        yield f"the time of {sorted(map(str, waiting))} is not running, but their turns are {list(turns)}"


def _earliest(state: State) -> float | None:
    """Return the earliest deadline that a state shows, by looking at all."""
    if state.status not in ("open", "closing"):
        return None
    joins = (limit for topic, limit in state.join_deadlines.items() if state.rejoins.get(topic) != "overdue")
    deadlines = [*joins, *state.leave_deadlines.values(), state.heartbeat_deadline if state.status == "open" else None]
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


@define
class Ledger:
    """What was seen of one connection, from its first input on.

    Attributes:
        sent: refs and topics of what was sent, in order.
        lives: join_ref to "pending", "joined" or "ended".
        turns: number and topic of the joins that the server has not worked off, in order.
        overdue: refs of the rejoins that were reported as overdue; each is once.
        heartbeats: refs of the heartbeats that are not answered; at most one.
        ends: how many times the connection has ended; once, in the end.
    """

    sent: list[tuple[str, str]] = field(factory=list)
    lives: dict[str, Life] = field(factory=dict)
    turns: list[tuple[int, str]] = field(factory=list)
    overdue: set[str] = field(factory=set)
    heartbeats: list[str] = field(factory=list)
    ends: int = 0

    def note(self, given: Input, transition: Transition) -> list[str]:
        """Enter what an input did; returns what cannot be true of it, given what was seen before."""
        wrong = [*self._effects(given, transition)]
        for event in transition.built_events:
            wrong += self._event(event, transition.state)
        return [*wrong, *self._turns(transition), *self._state(given, transition)]

    def _effects(self, given: Input, transition: Transition) -> Iterator[str]:
        if isinstance(given, FrameReceived) and len(transition.return_) != len(_given_up(transition)):
            yield "a frame makes the client send something"
        if not isinstance(given, TimerTicked | FrameReceived) and len(transition.return_) > 1:
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
            self.turns.append((int(ref), message.topic))
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
            case TopicJoinOverdue(ref=ref):
                if self.lives.get(ref) != "pending" or ref in self.overdue:
                    yield f"the join {ref} is overdue, but {self.lives.get(ref)}, or was so before"
                self.overdue.add(ref)
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

    def _turns(self, transition: Transition) -> Iterator[str]:
        """Hold the turns against a list of what was sent, and of what was answered."""
        message, state = transition.message, transition.state
        rejected = any(isinstance(event, FrameRejected) for event in transition.built_events)
        if isinstance(message, Message) and message.ref in {ref for ref, _ in self.sent} and not rejected:
            number = int(message.ref) if message.event in (REPLY, CLOSE, ERROR) else 0
            self.turns = [
                each for each in self.turns if each[0] > number or (each[0] == number and each[1] != message.topic)
            ]
        while self.turns and state.options.heartbeat_interval is None and _is_over(state, *self.turns[0]):
            del self.turns[0]
        if dict(state.turns) != {str(number): topic for number, topic in self.turns}:
            yield f"turns are {dict(state.turns)}, but the joins that are not worked off {self.turns}"

    def _state(self, given: Input, transition: Transition) -> Iterator[str]:
        state = transition.state
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
        done = len(transition.built_events) >= MOST_AT_A_TICK
        if isinstance(given, TimerTicked) and deadline is not None and deadline <= given.now and not done:
            yield f"at {given.now} something is still due since {deadline}"


def _given_up(transition: Transition) -> list[Event]:
    return [
        event for event in transition.built_events if isinstance(event, TopicJoinFailed) and event.reason == "timeout"
    ]


def _is_over(state: State, number: int, topic: str) -> bool:
    """Tell whether nobody waits for a join any more: what ends its turn where there are no heartbeats."""
    if state.joins.get(topic) != str(number):
        return True
    return topic not in state.leaves and (topic not in state.join_deadlines or state.rejoins.get(topic) == "overdue")
