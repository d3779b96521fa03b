"""The state in the making: the parts of a state that one input changes, and what it tells and sends."""

import math
from typing import Any, Final, Literal

import attrs

from . import events
from .commands import CloseConnection, JoinTopic, LeaveTopic, SendHeartbeat, TimerTicked
from .events import Effect, Event, Transition
from .liveness import LIMIT, end_of_turn, held_up, write_deadline
from .message import HEARTBEAT, JOIN, LEAVE, PHOENIX, Message, check_join
from .serializer import Serializer
from .state import Heartbeat, State, Status, state_of
from .topics import Leaving, Pending, Rejoin, Topics, Turns, number_of

MOST_AT_A_TICK: Final = 256  # deadlines: what is left is due at once, so the timer ticks again, and others run between


class Draft:
    """A state under change by one input. It is used once; the state that it is made of stays as it is."""

    def __init__(self, state: State, now: float, serializer: Serializer) -> None:
        self.before = state
        self.now = now
        self.topics: Topics = state.topics
        self.turns: Turns = state.turn_queue
        self.heartbeat: Heartbeat = state.heartbeat
        self.status: Status = state.status
        self.current_ref: int = state.current_ref
        self.close_reason: str | None = state.close_reason
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        self._serializer = serializer
        limit = state.options.heartbeat_timeout
        self._limit: float = LIMIT if limit is None else limit

    def transition(self, message: Any) -> Transition:
        """Return what the input did; where it changed nothing, the state is the very one before."""
        before = self.before
        if self.heartbeat is before.heartbeat:
            self._end_hold()
        same = self.topics is before.topics and self.turns is before.turn_queue and self.heartbeat is before.heartbeat
        if same and self.status == before.status and self.current_ref == before.current_ref:
            return Transition(before, message, tuple(self.events))  # every effect takes a ref or changes the status
        parts = before.identity, self.status, self.topics, self.turns, self.heartbeat
        state = state_of(*parts, self.current_ref, self.close_reason)
        return Transition(state, message, tuple(self.events), tuple(self.effects))

    # Joins and leaves

    def join(self, join: JoinTopic) -> None:
        """Send a join."""
        check_join(join.topic, join.payload)
        topic = join.topic
        replaced = self.topics.joins.get(topic)
        ref = self._send(None, topic, JOIN, join.payload)
        if replaced is not None:
            self.events.append(events.TopicJoinClosed(topic, replaced, "replaced", None))
        rejoin: Rejoin | None = None if not join.rejoin else "again" if topic in self.topics.failed else "first"
        pending = Pending(self.current_ref, join.timeout, join.deadline, rejoin)
        alone = not self.turns.first
        self.topics = self.topics.changed(topic, join=ref, pending=pending, leaving=None, failed=None)
        self.turns = attrs.evolve(self.turns, queue=self.turns.queue.enqueue((self.current_ref, topic)))
        if alone or self._loses_turn(self.turns):
            self._begin_turn()

    def leave(self, leave: LeaveTopic) -> None:
        """Send a leave, where the topic is joined, and not being left."""
        topic, topics = leave.topic, self.topics
        join_ref = topics.joins.get(topic)
        if join_ref is None:
            if topic in topics.failed:
                self.topics = topics.changed(topic, failed=None)
            self.events.append(events.TopicLeft(topic, None, "left"))
        elif topic not in topics.leaving:
            ref = self._send(join_ref, topic, LEAVE, {})
            limit = None if leave.timeout is None else self.now + leave.timeout
            self.topics = topics.changed(topic, pending=None, leaving=Leaving(ref, limit))

    def left(self, topic: str, reason: Literal["left", "timeout"]) -> None:
        """Take a topic as left."""
        self.events.append(events.TopicLeft(topic, self.topics.joins.get(topic), reason))
        self.topics = self.topics.without(topic)

    def tick(self, tick: TimerTicked) -> None:
        """Do what is due."""
        if self.status not in ("open", "closing"):
            return
        for _ in range(MOST_AT_A_TICK):
            topic = self.topics.due(tick.now)
            if topic is None:
                break
            self._time_out(topic)
        if self.status == "open":
            self._look_after_line(tick)

    def close(self, close: CloseConnection) -> None:
        """Close the transport."""
        self.status, self.close_reason = "closing", close.reason
        self.effects.append(events.CloseTransport(close.code, ""))

    def _time_out(self, topic: str) -> None:
        pending = self.topics.pending.get(topic)
        if pending is None:
            self.left(topic, "timeout")
        elif self.status != "open":  # the connection's end, which is near, is that of the join
            self.topics = self.topics.changed(topic, pending=Pending(pending.number, None, None, pending.rejoin))
        elif pending.rejoin is None or not 0 < self.turns.first <= pending.number:
            self._give_up(topic, pending)
        else:
            self.events.append(events.TopicJoinOverdue(topic, str(pending.number)))
            overdue = Pending(pending.number, None, pending.deadline, "overdue")
            self.topics = self.topics.changed(topic, pending=overdue)
        if self._loses_turn(self.turns):
            self._begin_turn()

    def _give_up(self, topic: str, pending: Pending) -> None:
        """Fail a join, and leave its topic: the server may yet accept it."""
        join_ref = str(pending.number)
        self._send(join_ref, topic, LEAVE, {})
        self.events.append(events.TopicJoinFailed(topic, join_ref, "timeout", None))
        self.topics = self.topics.without(topic)

    # Turns

    def worked_off(self, ref: str, topic: str) -> None:
        """Take note that the server has answered what was sent with this ref, about this topic.

        So it has worked off all joins that were sent before. One that it has not answered loses its turn, and if it
        was overdue, nothing will come of it any more.
        """
        number = number_of(ref)
        if number > self.current_ref:
            return  # nothing was sent with it
        turns = self.turns
        while turns.late and turns.late[0][0] < number:
            self._passed_over(*turns.late[0])
            turns = attrs.evolve(turns, late=turns.late[1:])
        self.turns = turns
        while (first := turns.first) and first <= number and (first < number or turns.topic == topic):
            if first < number:
                self._passed_over(first, turns.topic)
            turns = turns.without_first()
        if turns is not self.turns:
            self.turns = turns
            self._begin_turn()

    def _passed_over(self, number: int, topic: str) -> None:
        pending = self.topics.pending_join(topic, number)
        if pending is None:
            return
        if pending.rejoin != "overdue":
            self._start_time_of(topic, pending)
        elif self.status == "open":  # while closing, nothing is sent any more
            self._give_up(topic, pending)

    def _begin_turn(self) -> None:
        """Begin the turn of the first join that does not lose it at once, unless there is none."""
        turns, by_timeout = self.turns, False
        while self._loses_turn(turns):
            number, topic = turns.first, turns.topic
            turns, by_timeout = turns.without_first(), True
            if self.topics.pending_join(topic, number) is not None:
                turns = attrs.evolve(turns, late=(*turns.late, (number, topic)))
        if turns.first:
            turns = Turns(turns.queue, self.now, by_timeout, turns.late)
            pending = self.topics.pending_join(turns.topic, turns.first)
            if pending is not None:
                self._start_time_of(turns.topic, pending)
        self.turns = turns

    def _loses_turn(self, turns: Turns) -> bool:
        """Tell whether the first join has to make room, though the server has answered nothing."""
        # Without heartbeats nothing else might ever end the turn of a join that took too long, or was given up.
        if self.before.options.heartbeat_interval is not None or not turns.first:
            return False
        number, topic = turns.first, turns.topic
        pending = self.topics.pending_join(topic, number)
        if pending is not None:
            return pending.rejoin == "overdue"
        return self.topics.joins.get(topic) != str(number)

    def _start_time_of(self, topic: str, pending: Pending) -> None:
        if pending.timeout is not None:
            limit = self.now + pending.timeout
            limit = limit if pending.deadline is None else min(limit, pending.deadline)
            timed = Pending(pending.number, None, limit, pending.rejoin)
            self.topics = self.topics.changed(topic, pending=timed)

    # The heartbeat, and what `liveness` says of the line

    def beat(self, _: SendHeartbeat | None = None) -> None:
        """Send a heartbeat, unless one is outstanding."""
        if self.heartbeat.ref is not None:
            return
        ref = self._send(None, PHOENIX, HEARTBEAT, {})
        self.heartbeat = Heartbeat(ref, self.now, self.now + self._limit)

    def _look_after_line(self, tick: TimerTicked) -> None:
        """Send the heartbeat that is due, or see whether the line is lost."""
        heartbeat, limit = self.heartbeat, self.before.options.heartbeat_timeout
        lost = limit is not None and self._write_deadline(tick, limit) <= tick.now
        if not lost and heartbeat.deadline is not None and heartbeat.deadline <= tick.now:
            if heartbeat.ref is None:
                self.beat()
                return
            deadline = self._verdict_at(tick)
            lost = deadline <= tick.now
            self.heartbeat = heartbeat if lost else Heartbeat(heartbeat.ref, heartbeat.sent_at, deadline)
        if lost:
            self.status, self.close_reason = "closing", "heartbeat_timeout"
            self.effects.append(events.CloseTransport(1000, "heartbeat_timeout"))

    def _verdict_at(self, tick: TimerTicked) -> float:
        """Return when the line is lost, if nothing is heard before that; it is lost if that is not after the tick."""
        sent_at = tick.now if self.heartbeat.sent_at is None else self.heartbeat.sent_at
        blocked = self._write_deadline(tick, self._limit)
        if tick.heartbeat_written is None and blocked < math.inf:
            return blocked
        written = sent_at if tick.heartbeat_written is None else tick.heartbeat_written
        answer = self._limit + (written if tick.heard is None else max(written, tick.heard))
        end = self._hold()
        if end is not None:
            answer = held_up(answer, end, self._limit, sent_at, tick.heard)
        return min(answer, blocked)

    def _write_deadline(self, tick: TimerTicked, limit: float) -> float:
        since = tick.write_blocked_since
        return math.inf if since is None else write_deadline(self.topics, self.turns, limit, since, tick.heard)

    def _hold(self) -> float | None:
        """Return until when a join may hold up the answer to the outstanding heartbeat, None if none may."""
        ref = self.heartbeat.ref
        if ref is None or self.turns.first > number_of(ref):
            return None
        return end_of_turn(self.topics, self.turns)

    def _end_hold(self) -> None:
        """Look after the outstanding heartbeat in time again, if the join that held that up does so no longer."""
        heartbeat, deadline = self.heartbeat, self.now + self._limit
        if heartbeat.ref is None or heartbeat.deadline is None or heartbeat.deadline <= deadline:
            return
        if self.turns.first != self.before.turn_queue.first or self._hold() is None:
            self.heartbeat = Heartbeat(heartbeat.ref, heartbeat.sent_at, deadline)

    def _send(self, join_ref: str | None, topic: str, event: str, payload: Any) -> str:
        ref = str(self.current_ref + 1)
        message = Message(ref if event == JOIN else join_ref, ref, topic, event, payload)
        self.effects.append(events.SendFrame(self._serializer.encode(message), ref))
        self.current_ref += 1
        return ref
