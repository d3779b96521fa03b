"""One pass over the records of a process, which keeps what diagnoses ask for, and forgets the rest."""

from collections.abc import Callable
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final

from ... import protocol
from ...protocol.state import next_deadline
from ...telemetry import HandleStop, Record
from ..read import WallClock
from ..text import size_of
from .asks import Asks
from .facts import BURST, HALF, SECOND, Ask, Connection, Facts, Place, Quiet, is_replaced, keep

AT_ONCE: Final = BURST // 6  # what is read this soon after a pause had come in it
SLEEP: Final = 10 * SECOND  # by which the wall clock gets ahead of the monotonic one, which stands meanwhile
MOST_CONNECTIONS: Final = 4096
MOST_SILENCES: Final = 1024


class Gatherer:
    """Takes in the records of a process in their order; `facts` are what they come to."""

    def __init__(self, path: str = "") -> None:
        self.facts: Facts = Facts(path)
        self._wall = WallClock().at
        self._origin: int | None = None
        self._shift = 0
        self._trio: int | None = None  # how far the monotonic clock is ahead of Trio's
        self._pause: Quiet | None = None
        self.is_torn: bool = False  # whether records are missing here: a time that spans this place tells nothing
        self._current: dict[str, Connection] = {}
        self._asks = asks = Asks(self.facts)
        records: dict[str, Callable[[Record, Any], object] | None] = {
            "connection connect start": self._begun,
            "connection handle start": None,  # its stop tells all of it
            "connection handle stop": self._handled,
            "connection connect stop": self._stopped,
            "client push start": asks.push_started,
            "client push stop": asks.push_stopped,
            "client join stop": asks.join_stopped,
            "client reply_orphaned": self._orphaned,
            "client message_dropped": self._dropped,
            "client overflow": self._lost,
            "client gap": self._lost,
            "client gave_up": self._gave_up,
            "client stalled": self._stalled,
        }
        self._records: Final = {("slipstream", *name.split()): function for name, function in records.items()}
        self._inputs: Final[dict[type, Callable[[Connection, Any, Any], object]]] = {
            protocol.FrameReceived: self._frame,
            protocol.PushMessage: asks.pushed,
            protocol.JoinTopic: asks.joining,
            protocol.LeaveTopic: asks.leaving,
            protocol.SendHeartbeat: asks.ticked,
            protocol.TimerTicked: asks.ticked,
            protocol.TransportOpened: self._transport_opened,
            protocol.TransportFailed: self._transport_failed,
            protocol.TransportClosed: self._transport_closed,
            protocol.CloseConnection: self._closing,
        }

    def feed(self, record: Record, place: Place) -> None:
        """Take in the next record, which is at this place."""
        facts, name = self.facts, record.name
        facts.records += 1
        function = self._records.get(name, self._other)
        if function is None:
            return
        try:
            now = self._time(record)
            if self.is_torn:
                self._mend(now)
            elif now - facts.last > SECOND:
                # What is handled began before its end, unless the handling is what took so long.
                began = now - record.measurements["duration"] if name == HandleStop.name else now
                pause = self._paused(began if began - facts.last > SECOND else now, place)
                facts.pace.quiet += pause.length
                if facts.pace.frames * pause.length >= 5 * max(facts.last - facts.first, 1):
                    self._keep_pause(pause)
            facts.last = max(facts.last, now)
            facts.place = place
            if name[1] == "client" and name[-1] == "start":
                facts.acts += 1  # which was overdue if it is the first after a pause
                if self._pause is not None and not self._pause.answered:
                    self._pause.overdue += facts.last < self._pause.ended + BURST
            function(record, record.whole())
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
            # A recording of another version, or a damaged one: the rest still tells something.
            facts.unread += 1

    def _mend(self, now: int) -> None:
        self.is_torn, self._pause = False, None
        keep(self.facts.explained, (None, self.facts.last, now), MOST_SILENCES)
        for stream in self.facts.streams.values():
            stream.joined = -1
        for connection in self._current.values():
            connection.pace.quiet += max(now - connection.heard, 0)
            connection.heard, connection.spoke = now, now

    def finish(self) -> Facts:
        """Return the facts, once the last record was taken in."""
        for connection in self._current.values():
            if connection.ended is None:
                self._finished(connection)
        return self.facts

    # The process

    def _time(self, record: Record) -> int:
        facts, wall, monotonic = self.facts, self._wall(record), record.measurements["monotonic_time"]
        if self._origin is None:
            self._origin = wall - monotonic
            facts.first = facts.last = wall
        now: int = monotonic + self._origin
        if wall - now != self._shift:
            if now < facts.last - SECOND:  # the monotonic clock began anew, with the machine
                self._origin, now = wall - self._shift - monotonic, wall - self._shift
                self._trio = None
            else:
                if wall - now - self._shift >= SLEEP:
                    self._keep_pause(self._paused(now, facts.place, slept=wall - now - self._shift))
                self._shift = wall - now
                keep(facts.shifts, (now, self._shift))
        return now

    def _paused(self, now: int, place: Place, slept: int = 0) -> Quiet:
        facts = self.facts
        is_open = any(each.opened is not None and each.ended is None for each in self._current.values())
        self._pause = pause = Quiet(facts.last, now, (facts.place, place), cut_off=not is_open, slept=slept)
        pause.waiting = tuple(ask for each in self._current.values() for ask in each.waiting(facts.last - HALF))
        return pause

    def _keep_pause(self, pause: Quiet) -> None:
        if pause not in self.facts.pauses:
            keep(self.facts.pauses, pause, MOST_SILENCES)

    def _stood(self, late: int) -> Quiet | None:
        """Return the pause that has just made a timer so late, if there was one."""
        pause = self._pause
        if pause is None or pause.ended <= self.facts.last - BURST or late <= HALF or pause.length < late // 2:
            return None
        pause.late = max(pause.late, late)
        self._keep_pause(pause)
        return pause

    def _stalled(self, _: Record, metadata: Any) -> None:
        facts, pause = self.facts, self._pause
        length = round(metadata["seconds"] * SECOND)
        if pause is None or pause.ended < facts.last - length:
            pause = self._pause = Quiet(facts.last - length, facts.last, (facts.place, facts.place))
        pause.told, pause.late = True, max(length, pause.late)
        self._keep_pause(pause)

    def _other(self, record: Record, metadata: Any) -> None:
        """Take in code that raised."""
        facts = self.facts
        if record.name[-1] != "exception":
            return
        if metadata["kind"].endswith("AlreadyJoined"):
            self._asks.held(record, metadata)
        elif record.name[1] == "client" or metadata["kind"].endswith("InternalError"):
            key = (" ".join(record.name[1:-1]), str(metadata["kind"]), str(metadata["reason"]))
            keep(facts.raised[key], (facts.last, facts.place))

    # Connections

    def _begun(self, record: Record, metadata: Any) -> None:
        self._connection(record).options = getattr(metadata["state"], "options", None)

    def _connection(self, record: Record) -> Connection:
        origin, facts = record.origin, self.facts
        key = origin.connection_id or ""
        found = facts.connections.get(key) or self._current.get(origin.socket_id)
        if found is None or found.id != key:
            found = Connection(key, origin.socket_id, began=facts.last, place=facts.place)
            found.heard, found.heard_at, found.spoke = facts.last, facts.place, facts.last
            if record.name[2] == "handle":
                found.opened = facts.last  # the recording began later
            if len(facts.connections) < MOST_CONNECTIONS:
                facts.connections[key] = found
            self._current[found.socket] = found
        return found

    def _handled(self, record: Record, metadata: Any) -> None:
        given = metadata["raw_message"]
        function = self._inputs.get(type(given))
        if function is None:
            return
        connection, now = self._connection(record), self.facts.last
        if (at := getattr(given, "now", None)) is not None:
            ahead = now - round(at * SECOND)
            self._trio = ahead if self._trio is None else min(ahead, self._trio)
        # A timer may be late whatever is handled first; it counts if nothing happened meanwhile.
        due = next_deadline(metadata["state"])
        if due is not None and self._trio is not None:
            self._stood(now - self._trio - round(due * SECOND))
        function(connection, given, metadata)

    def _transport_opened(self, connection: Connection, given: protocol.TransportOpened, _: Any) -> None:
        facts = self.facts
        connection.opened = connection.heard = connection.spoke = facts.last
        connection.heard_at = facts.place
        before, facts.opened[connection.socket] = facts.opened.get(connection.socket), connection
        date = parsedate_tz(dict(given.response_headers).get("date"))
        connection.ahead = None if date is None else mktime_tz(date) * SECOND - facts.last
        if before is None or before.ahead is None or connection.ahead is None:
            return
        # All clocks of a machine may stand while it sleeps: then only the server's shows it.
        slept = connection.ahead - before.ahead
        known = any(pause.slept and pause.killed(before) for pause in facts.pauses)
        if slept >= 3 * SLEEP and not known:
            places = before.heard_at, before.end or facts.place
            self._keep_pause(Quiet(before.heard, before.heard + 1, places, slept=slept))

    def _transport_failed(self, connection: Connection, given: protocol.TransportFailed, _: Any) -> None:
        connection.opened = None
        connection.status, connection.message, connection.end = given.status, given.reason, self.facts.place
        if given.status in (401, 403) and (before := self.facts.opened.get(connection.socket)) is not None:
            before.refused = True
        limit = getattr(connection.options, "connect_timeout", None)
        if given.status is None and limit is not None:
            connection.stood = self._stood(self.facts.last - connection.began - round(limit * SECOND))
        connection.headers = {str(name).lower(): str(value) for name, value in given.headers}

    def _closing(self, connection: Connection, _: Any, __: Any) -> None:
        connection.closed = self.facts.last

    def _transport_closed(self, connection: Connection, given: protocol.TransportClosed, metadata: Any) -> None:
        reason = next((event.reason for event in metadata["built_events"] if hasattr(event, "reason")), "")
        self._end(connection, reason, given.code, given.message, given.ended_by)

    def _stopped(self, record: Record, metadata: Any) -> None:
        told = (metadata[name] for name in ("termination_reason", "code", "message", "ended_by"))
        self._end(self._connection(record), *told)

    def _end(self, connection: Connection, reason: str, code: int | None, message: str, by: str | None) -> None:
        connection.reason = reason
        connection.code = connection.code if code is None else code
        connection.message = message or connection.message
        connection.ended_by = by or connection.ended_by
        connection.end = connection.end or self.facts.place
        if connection.ended is None:
            self._finished(connection)
            connection.ended = self.facts.last
            asks = connection.asks.values()
            connection.lost = [ask for ask in asks if ask.kind == "push" and ask.outcome != "cancelled"]
            connection.asks.clear()
            connection.sends.clear()

    def _gave_up(self, record: Record, _: Any) -> None:
        if connection := self._current.get(record.origin.socket_id):
            connection.gave_up = True

    # Frames that came

    def _frame(self, connection: Connection, given: protocol.FrameReceived, metadata: Any) -> None:
        facts, message, now = self.facts, metadata["message"], self.facts.last
        frame, size = given.frame, size_of(given.frame)
        event = message.event if isinstance(message, protocol.Message) else None
        ask = connection.asks.get(message.ref or "") if event == "phx_reply" else None
        kind = ("", "") if event is None else (message.topic, event if ask is None else ask.event)
        if now - connection.heard > SECOND:
            self._silence(connection, size, ask, kind)
        connection.heard, connection.heard_at, connection.unheard = now, facts.place, 0
        down = connection.down
        down.add(size, kind)
        if now - down.since >= HALF:
            down.measure(now, down.sent)
        connection.largest = max(connection.largest, size)
        connection.pace.frames += 1
        facts.pace.frames += 1
        for quiet in (self._pause, connection.silence):
            if quiet is not None and now - quiet.ended < (BURST if quiet.burst else AT_ONCE):
                quiet.burst += 1
        if event is None:
            self._rejected(frame, metadata["built_events"])
        elif event in ("phx_close", "phx_error") and message.join_ref is not None:
            self._asks.channel_ended(connection, message)
        elif event != "phx_reply":
            self._message(connection, message, frame)
        elif ask is not None:
            if self._pause is not None:
                self._pause.answered = True
            self._asks.answered(connection, ask, metadata["built_events"])

    def _message(self, connection: Connection, message: protocol.Message, frame: Any) -> None:
        facts, key = self.facts, (connection.socket, message.topic, message.event)
        quarter = facts.last * 4 // SECOND
        for pace in (facts.pace, connection.pace):
            pace.busy += pace.quarter != quarter
            pace.quarter = quarter
        topic = facts.topics.get(key[:2])
        joined = topic.accepted if topic is not None else 0
        stream = facts.streams[key]
        if not stream.count:
            stream.first, stream.joined = facts.last, joined
        stream.count += 1
        stream.last = facts.last
        if not facts.redacted and type(message.payload) is dict and not is_replaced(message.payload):
            stream.feed(facts.last, facts.place, message, frame, joined)

    def _silence(
        self, connection: Connection, size: int | None = None, ask: Ask | None = None, first: tuple[str, str] = ("", "")
    ) -> None:
        """Keep the time since something came, if something was to come."""
        facts, began = self.facts, connection.heard
        length = facts.last - began
        if length <= SECOND or connection.opened is None:
            return
        expected = connection.expects(length)
        connection.pace.quiet += length
        waiting = connection.waiting(facts.last - HALF)
        if waiting or expected >= 5:
            silence = Quiet(began, facts.last, (connection.heard_at, facts.place), connection=connection)
            silence.expected, silence.waiting, silence.sent, silence.size = expected, waiting, connection.unheard, size
            silence.first, silence.join = first, ask if ask is not None and ask.kind == "join" else None
            keep(facts.silences, silence, MOST_SILENCES)
            connection.silence = silence

    def _finished(self, connection: Connection) -> None:
        """Keep the last silence, or the time in which frames came, but none that answers what was sent in it."""
        self._silence(connection)
        facts, asks = self.facts, [ask for ask in connection.asks.values() if (ask.sent or 0) > connection.heeded]
        due = facts.last - min(max(2 * SECOND, 4 * connection.quickest), 10 * SECOND)
        connection.unheeded = any(ask.kind == "heartbeat" and (ask.sent or 0) < due for ask in asks)
        began = min(((ask.sent or 0, ask.place) for ask in asks), default=(facts.last, facts.place))
        if connection.unheeded and connection.heard > began[0] + SECOND:
            places = began[1], facts.place
            silence = Quiet(began[0], facts.last, places, connection=connection, waiting=(*asks,), unheeded=True)
            keep(facts.silences, silence, MOST_SILENCES)

    def _rejected(self, frame: Any, built: Any) -> None:
        facts = self.facts
        for event in built:
            if isinstance(event, protocol.FrameRejected):
                facts.badly += 1
                keep(facts.malformed, (facts.last, facts.place, event.reason, frame))

    def _orphaned(self, _: Record, metadata: Any) -> None:
        self.facts.noise["replies to pushes that the application had cancelled"] += metadata["reason"] == "cancelled"

    def _dropped(self, _: Record, metadata: Any) -> None:
        late = metadata["direction"] == "in" and metadata["reason"] in ("not_joined", "outdated_join_ref", "joining")
        self.facts.noise["messages for topics that were not joined (any more)"] += late

    def _lost(self, record: Record, metadata: Any) -> None:
        facts, key, is_gap = self.facts, (record.origin.socket_id, metadata["topic"]), record.name[-1] == "gap"
        if not is_gap or metadata["reason"] == "overflow":
            phase, buffer = ("gap", 0) if is_gap else (metadata["phase"] or "began", metadata["buffer"])
            keep(facts.overflows[key], (facts.last, facts.place, metadata["dropped"] or 0, phase, buffer))
