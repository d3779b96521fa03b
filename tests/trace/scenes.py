"""Records to look at: connections told by hand, with every kind of thing that happens."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from slipstream_trio.protocol import (
    CloseConnection,
    FrameReceived,
    Input,
    JoinTopic,
    Options,
    PushMessage,
    State,
    TimerTicked,
    TransportClosed,
    TransportOpened,
    handle,
)
from slipstream_trio.telemetry import (
    BufferOverflowed,
    ClientConnectStart,
    ClientConnectStop,
    ClientJoinStart,
    ClientJoinStop,
    ClientPushStart,
    ClientPushStop,
    ConnectStart,
    ConnectStop,
    GapOpened,
    HandleStart,
    HandleStop,
    MessageDiscarded,
    Origin,
    Outcome,
    ReconnectScheduled,
    Record,
    RejoinScheduled,
    Telemetry,
)
from slipstream_trio.trace import record

__all__ = ["ODD", "START", "Scene", "repeated", "two_connections", "write_recording"]

START: Final = 1_700_000_000_000_000_000
"""Nanoseconds since the epoch, when the first record is emitted."""

MONOTONIC: Final = 5_000_000_000

ODD: Final = "</script><!--<b>ünï\u2028☃ 😀"
"""Text that would break a careless page."""


class Scene:
    """Tells one connection after another, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0
        self.records: list[Record] = []
        self._spans = 0
        self._number = 0

    def connect(self) -> None:
        self._number += 1
        self.origin = self.new_origin(self._number)
        self.state = State(
            connection_id=str(self.origin.connection_id),
            trace_id=str(self.origin.trace_id),
            socket_id=self.origin.socket_id,
            generation=self._number,
            options=Options(url="ws://localhost/socket/websocket"),
        )
        asked = ClientConnectStart(self.origin, self.span_id(), *self.times(), self.state.options, 1)
        self._start = ConnectStart(self.origin, *self.times(), self.state)
        self.records += [asked, self._start]
        self.pass_time(2_000_000)
        self.handle(TransportOpened(0.0))
        self.records.append(ClientConnectStop(asked, self.origin, self.monotonic(), "ok", ()))

    def new_origin(self, number: int) -> Origin:
        digit = f"{number:x}"
        return Origin(digit * 16, digit * 32, "f" * 16, number)

    def end(self, reason: str) -> None:
        self.records.append(ConnectStop(self._start, self.monotonic(), self.state, reason))

    def handle(self, given: Input, took: int = 50_000) -> None:
        start = HandleStart(self.origin, self.span_id(), *self.times(), given, self.state)
        transition = handle(self.state, given)
        self.pass_time(took)
        self.state = transition.state
        self.records += [start, HandleStop(start, self.monotonic(), transition)]

    def join(self, topic: str) -> None:
        start = ClientJoinStart(self.origin, self.span_id(), *self.times(), topic, {})
        self.records.append(start)
        self.handle(JoinTopic(0.0, topic, {}, None))
        self.pass_time(3_000_000)
        self.reply(topic, "ok", '{"users":1}')
        self.records.append(ClientJoinStop(start, self.origin, self.monotonic(), "ok", {"users": 1}))

    def push(self, topic: str, event: str, payload: Any, outcome: Outcome = "ok", took: int = 4_000_000) -> None:
        start = ClientPushStart(self.origin, self.span_id(), *self.times(), topic, event, payload)
        self.records.append(start)
        self.handle(PushMessage(topic, event, payload))
        ref = str(self.state.current_ref)
        self.pass_time(took)
        status = None
        if outcome in ("ok", "error"):
            status = outcome
            self.reply(topic, outcome)
        self.records.append(ClientPushStop(start, self.origin, self.monotonic(), outcome, ref, status, {}))

    def never_sent(self, topic: str, event: str, payload: Any) -> None:
        start = ClientPushStart(self.origin, self.span_id(), *self.times(), topic, event, payload)
        self.records += [start, ClientPushStop(start, self.origin, self.monotonic(), "cancelled", None, None, None)]

    def reply(self, topic: str, status: str, response: str = "{}") -> None:
        ref, join_ref = self.state.current_ref, self.state.joins[topic]
        self.frame(join_ref, str(ref), topic, "phx_reply", f'{{"status":"{status}","response":{response}}}')

    def frame(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: str = "{}") -> None:
        quoted = ["null" if value is None else f'"{value}"' for value in (join_ref, ref, topic, event)]
        self.handle(FrameReceived(0.1, f"[{','.join(quoted)},{payload}]"))

    def once(self, kind: type, *values: Any) -> None:
        self.records.append(kind(self.origin, *self.times(), *values))

    def pass_time(self, nanoseconds: int) -> None:
        self.now += nanoseconds

    def span_id(self) -> str:
        self._spans += 1
        return f"{self._spans:016x}"

    def times(self) -> tuple[int, int]:
        return START + self.now, MONOTONIC + self.now

    def monotonic(self) -> int:
        return MONOTONIC + self.now


def two_connections() -> list[Record]:
    """Tell of a connection that is lost and another one after it, with pushes, errors, a gap and drops."""
    scene = Scene()
    scene.connect()
    scene.join("room:lobby")
    for number in range(20):
        scene.push("room:lobby", "new_msg", {"number": number, "text": ODD}, took=1_000_000 * (number + 1))
        scene.pass_time(5_000_000)
    scene.push("room:lobby", "fail", {}, "error")
    scene.push("room:lobby", "upload", bytes(range(256)))
    scene.push("room:lobby", "silence", {"why": "nobody answers"}, "timeout", took=200_000_000)
    scene.never_sent("room:lobby", "odd", {"half": "\udc9d"})
    scene.frame(None, None, "room:other", "news")
    scene.once(MessageDiscarded, "in", "room:other", "news", None, "not_joined")
    scene.once(BufferOverflowed, "room:lobby", "raise", 8, "channel")
    scene.handle(TimerTicked(60.0))
    lost_at = scene.now
    scene.handle(TransportClosed(1006))
    scene.end("lost")
    scene.once(ReconnectScheduled, 0.05, 1, "lost", 1006, None)
    scene.pass_time(50_000_000)
    scene.connect()
    scene.once(RejoinScheduled, "room:lobby", 0.0, 1, "reconnected")
    scene.join("room:lobby")
    moments = [datetime.fromtimestamp((START + at) / 1e9, UTC) for at in (lost_at, scene.now)]
    scene.once(GapOpened, "room:lobby", "reconnected", *moments, 0)
    scene.push("room:lobby", "last_msg", {"farewell": True})
    scene.handle(CloseConnection())
    scene.handle(TransportClosed(1000))
    scene.end("closed_by_client")
    return scene.records


def repeated(content: dict[str, Any], times: int) -> dict[str, Any]:
    """Return the content of a page with all of its rows so many times, one after the other."""
    columns = {name: value for name, value in content.items() if isinstance(value, list) and name != "connections"}
    told: dict[str, Any] = {name: value * times for name, value in columns.items() if name != "texts"}
    told["begin"] = [at + number * content["end"] for number in range(times) for at in content["begin"]]
    told["span_ids"] = " ".join([content["span_ids"]] * times)
    # Payloads differ mostly, so the texts to search are many too.
    payloads = [f'{{"number":{number},"text":"{ODD[10:]}"}}' for number in range(len(told["payload"]))]
    told["texts"] = content["texts"] + payloads
    told["payload"] = [its and len(content["texts"]) + number for number, its in enumerate(told["payload"])]
    ends = [{**its, "end": content["end"] * times} for its in content["connections"]]
    return {**content, **told, "connections": ends, "end": content["end"] * times}


def write_recording(path: Path, records: Iterable[Record], **options: Any) -> None:
    """Write records into a recording."""
    with record(path, telemetry=Telemetry(), **options) as recording:
        for each in records:
            recording.handle(each)
