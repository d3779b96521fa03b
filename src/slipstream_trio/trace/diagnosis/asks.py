"""The joins, pushes, leaves and heartbeats of a process, and how they were answered."""

import re
from collections import defaultdict, deque
from contextlib import suppress
from typing import Any, Final

from ... import protocol
from ...telemetry import Record
from ..text import size_of
from ..values import remember
from .facts import SECOND, Ask, Connection, Facts, is_replaced, keep

SLOW: Final = 3 * SECOND // 2  # an answer that takes longer is looked at
QUEUED: Final = SECOND // 10  # a join that waits longer for those before it has waited for its turn
LARGE: Final = 4_000  # of a payload whose frame is larger, its size is kept
LIMITED: Final = re.compile("rate.?limit|too many|throttle", re.IGNORECASE)  # a reason of too much at once
RECENT: Final = 5 * SECOND  # what was pushed longer before a crash has nothing to do with it
HIDDEN: Final = re.compile(r'[,:](null|\{"size":\d+\})\}?\]$')  # how a frame ends whose payload was left out
MOST_LATE: Final = 256
MOST_ASKS: Final = 4096
MOST_SPANS: Final = 65536


class Asks:
    """Takes in what was asked and answered, for the facts of a process."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._spans: dict[str, Ask] = {}
        self._queued: defaultdict[tuple[str, str, str], deque[Ask]] = defaultdict(lambda: deque(maxlen=MOST_ASKS))

    def pushed(self, connection: Connection, given: protocol.PushMessage, metadata: Any) -> None:
        """Take in a push; where no span waits for it, nobody awaits its reply."""
        queued = self._queued.get((connection.socket, given.topic, given.event))
        ask = queued.popleft() if queued else self._ask("send", given.topic, given.event, given.payload)
        self._sent(connection, metadata, ask)

    def joining(self, connection: Connection, given: protocol.JoinTopic, metadata: Any) -> None:
        """Take in a join."""
        self._sent(connection, metadata, self._ask("join", given.topic, "phx_join", given.payload))

    def leaving(self, connection: Connection, given: protocol.LeaveTopic, metadata: Any) -> None:
        """Take in a leave, and what it cuts off."""
        topic, now = self._facts.topics[connection.socket, given.topic], self._facts.last
        topic.left, topic.left_at = topic.left + 1, now
        for ask in [each for each in connection.asks.values() if each.topic == given.topic]:
            if ask.outcome is None:
                ask.reason = "left"
                if ask.kind == "join":
                    ask.outcome, ask.ended = "cancelled", now
            elif ask.kind == "push" and ask.outcome == "cancelled" and now - (ask.ended or 0) < QUEUED:
                keep(topic.cut, ask)
        self._sent(connection, metadata, self._ask("leave", given.topic, "phx_leave"))

    def ticked(self, connection: Connection, _: Any, metadata: Any) -> None:
        """Take in a heartbeat, and joins that took too long."""
        for event in metadata["built_events"]:
            late = isinstance(event, protocol.TopicJoinFailed) and event.reason == "timeout"
            ask = connection.asks.get(event.ref) if late or isinstance(event, protocol.TopicJoinOverdue) else None
            if ask is not None:
                ask.outcome, ask.ended = "timeout", self._facts.last
                keep(self._facts.topics[connection.socket, event.topic].timeouts, ask)
        self._sent(connection, metadata, self._ask("heartbeat", "phoenix", "heartbeat"))

    def _ask(self, kind: str, topic: str, event: str, payload: Any = None) -> Ask:
        return Ask(kind, topic, event, payload, self._facts.last, self._facts.place)

    def _sent(self, connection: Connection, metadata: Any, ask: Ask) -> None:
        now = self._facts.last
        for effect in metadata["return"]:
            if isinstance(effect, protocol.SendFrame):
                connection.paused, connection.spoke = max(connection.paused, now - connection.spoke), now
                connection.unheard += 1
                size = size_of(effect.frame)
                connection.largest_sent = max(connection.largest_sent, size)
                connection.hidden |= isinstance(effect.frame, str) and HIDDEN.search(effect.frame[-40:]) is not None
                connection.up.begin(now)
                connection.up.add(size, (ask.topic, ask.event))
                if ask.sent is None:  # a timer may send more than one, such as the leaves of joins that took too long
                    ask.connection, ask.ref, ask.sent, ask.seen = connection, effect.ref, now, connection.pace.frames
                    ask.mark, ask.up, ask.down = connection.up.sent, connection.up.passed, connection.down.sent
                    ask.payload = ask.payload if size < LARGE else f"{size:,} bytes"
                    if ask.kind == "send":
                        connection.sends.append(ask)
                    else:
                        remember(connection.asks, effect.ref, ask, MOST_ASKS)

    def answered(self, connection: Connection, ask: Ask, built: Any) -> None:
        """Take in the answer to something, which may come too late."""
        ask.answered = now = self._facts.last
        del connection.asks[ask.ref or ""]
        ask.up, ask.down = ask.mark - ask.up, connection.down.sent - ask.down
        if ask.took > max(SLOW, 2 * connection.quickest) and connection.heeded <= (ask.sent or 0):
            keep(connection.late, ask, MOST_LATE)
        connection.down.prompt += 6 * ask.took < SLOW and connection.down.flows(now)
        connection.up.measure(now, ask.mark)
        if ask.kind == "join":
            self._join_answered(connection, ask, built)
        elif ask.kind == "push":
            self._push_answered(connection, ask)
        connection.recent.append(ask)
        connection.heeded = max(connection.heeded, ask.sent or 0)
        connection.quickest = min(connection.quickest, ask.took)
        if ask.kind != "join" and connection.joined_at <= (ask.sent or 0):
            connection.varied = max(ask.took - connection.quickest, connection.varied * 15 // 16)

    def _push_answered(self, connection: Connection, ask: Ask) -> None:
        facts, now = self._facts, self._facts.last
        topic, events = facts.topics[connection.socket, ask.topic], facts.events[ask.event]
        events.answered += 1
        events.last_answer = now
        # A channel takes up one push after the other: the time of those before it is not this one's.
        ask.served = max(ask.sent or now, topic.replied)
        topic.replied = now
        waited = now - ask.served
        if waited > SLOW and ask.outcome is None and connection.prompt(ask, waited):
            events.slowly += 1
            keep(events.slow, ask)

    def _join_answered(self, connection: Connection, ask: Ask, built: Any) -> None:
        topic, now = self._facts.topics[connection.socket, ask.topic], self._facts.last
        if ask.outcome == "cancelled" and ask.ended is not None and ask.ended - (ask.sent or 0) > QUEUED:
            keep(topic.cut, ask)
        # What any answer takes is the way there and back; where that varies, one join before another says little.
        alone = (ask.sent or now) + min(connection.quickest, ask.took)
        if connection.joined_at - alone > max(QUEUED, 2 * connection.varied):
            connection.turns.append(now - connection.joined_at)
            connection.turn = connection.turn or ask
        connection.joined_at = now
        for event in built:
            if isinstance(event, protocol.TopicJoinSucceeded):
                topic.accepted += 1
                topic.accepted_at = now
                topic.since = False
            elif isinstance(event, protocol.TopicJoinFailed):
                reason = event.response.get("reason") if isinstance(event.response, dict) else None
                keep(topic.refused, (now, self._facts.place, reason if isinstance(reason, str) else ""))
                topic.since = True

    def channel_ended(self, connection: Connection, message: protocol.Message) -> None:
        """Take in a `phx_error`, or a `phx_close` that no leave asked for and that lets pushes wait for ever."""
        topic, now = self._facts.topics[connection.socket, message.topic], self._facts.last
        asks = [ask for ask in (*connection.asks.values(), *connection.sends) if ask.topic == message.topic]
        before = tuple(ask for ask in asks if ask.kind in ("push", "send") and now - (ask.sent or 0) < RECENT)
        awaited = any(ask.kind == "push" for ask in before)
        if message.event == "phx_error" or (awaited and topic.left_at <= topic.accepted_at):
            topic.crashes += 1
            keep(topic.crashed, (now, self._facts.place, before))

    def push_started(self, record: Record, metadata: Any) -> None:
        """Take in a push that is called, and will be sent."""
        ask = self._ask("push", metadata["topic"], metadata["event"], metadata["params"])
        told = ask.payload and isinstance(ask.payload, dict | list) and not self._facts.redacted
        if told and not is_replaced(ask.payload):
            for before in self._facts.events[ask.event].timeouts[-16:]:
                before.again += before.topic == ask.topic and before.payload == ask.payload
        remember(self._spans, record.span_id or "", ask, MOST_SPANS)
        self._queued[record.origin.socket_id, ask.topic, ask.event].append(ask)

    def push_stopped(self, record: Record, metadata: Any) -> None:
        """Take in how a push has ended."""
        ask = self._spans.pop(record.span_id or "", None)
        if ask is None:
            return
        ask.outcome, ask.ended = metadata["outcome"], self._facts.last
        ask.reason = metadata["reason"] or ask.reason
        refused = metadata["response"] if ask.outcome == "error" else None
        if isinstance(refused, dict) and LIMITED.search(str(refused.get("reason"))):
            topic = self._facts.topics[record.origin.socket_id, ask.topic]
            keep(topic.refused, (self._facts.last, self._facts.place, str(refused["reason"])))
        if ask.sent is None:
            with suppress(ValueError):
                self._queued[record.origin.socket_id, ask.topic, ask.event].remove(ask)
            connection = self._facts.opened.get(record.origin.socket_id)
            if connection is not None and connection.ended is not None and ask.outcome != "ok":
                connection.queued += 1
                keep(connection.unsent, ask, 16)
        elif ask.outcome == "timeout":
            keep(self._facts.events[ask.event].timeouts, ask)
        elif ask.outcome == "cancelled" and ask.ended - ask.began >= SECOND:
            keep(self._facts.events[ask.event].cancelled, ask)
        elif ask.reason != "left" or ask.connection is None or ask.connection.ended is not None:
            return
        elif ask.answered is None or ask.took > QUEUED:  # else it was under way, as it may be at any time
            keep(self._facts.topics[record.origin.socket_id, ask.topic].cut, ask)

    def join_stopped(self, record: Record, metadata: Any) -> None:
        """Take in how a join has ended."""
        older = metadata["reason"] is None and metadata["outcome"] == "error" and metadata["response"] is None
        if older or metadata["reason"] == "already_joined":
            self.held(record, metadata)

    def held(self, record: Record, metadata: Any) -> None:
        """Take in a join of a topic that was joined already."""
        topic = self._facts.topics[record.origin.socket_id, metadata["topic"]]
        if not topic.since:  # else it is the library that joins it again
            keep(topic.held, (self._facts.last, self._facts.place))
