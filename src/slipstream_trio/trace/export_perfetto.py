"""A recording for Perfetto, or any other reader of Chrome's trace events: spans and events on tracks.

A socket is a process. Each of its connections is a track, with all that it handled in it, and so is each topic, with
the joins, pushes and leaves on it; those that overlap are on tracks of their own. Arrows lead from the handling of what
was sent to the handling of its reply.
"""

import json
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any, Final, TextIO

from attrs import define, field

from ..protocol import HeartbeatAcknowledged, ReplyReceived, SendFrame, TopicJoinFailed, TopicJoinSucceeded
from ..telemetry import Record
from .export_files import written
from .export_spans import UNFINISHED, describe, is_once

__all__ = ["export_perfetto"]

HANDLE: Final = ("slipstream", "connection", "handle")
REFS: Final = 1 << 32  # the refs of a connection, so that a flow's number combines connection and ref
SETTLED: Final = (ReplyReceived, TopicJoinSucceeded, TopicJoinFailed, HeartbeatAcknowledged)  # the answers to a ref
Event = dict[str, Any]


def export_perfetto(records: Iterable[Record], path: str | PathLike[str] | TextIO) -> int:
    """Write records as Chrome trace events in JSON, and return how many events these are.

    Open the file at ui.perfetto.dev, or in chrome://tracing.

    Parameters:
        records: in the order in which they were emitted, such as `trace.read` gives them.
        path: the file, or one that is open; compressed if its name ends in `.gz`, which Perfetto opens too.

    Raises:
        OSError: the file cannot be written.
    """
    count = 0
    with written(path) as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[')
        for event in _Tracks().events(records):
            file.write(f"{',' if count else ''}\n{json.dumps(event, separators=(',', ':'))}")
            count += 1
        file.write("\n]}\n")
    return count


@define
class _Lanes:
    """Tracks of the same name: spans on one track must not overlap."""

    pid: int
    tids: list[int] = field(factory=list)
    free_from: list[float] = field(factory=list)

    def find(self, start: int) -> int | None:
        """Return the first that is free at `start`."""
        return next((number for number, free in enumerate(self.free_from) if free <= start), None)


class _Tracks:
    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._lanes: dict[tuple[int, str], _Lanes] = {}
        self._tids = 0
        self._open: dict[str, tuple[_Lanes, int, Any]] = {}
        self._connections: dict[str, int] = {}
        self._latest = 0

    def events(self, records: Iterable[Record]) -> Iterator[Event]:
        record: Any
        for record in records:
            self._latest = max(self._latest, record.monotonic_time)
            kind = record.name[-1]
            if kind == "start":
                lanes, number, made = self._take(record, record.monotonic_time)
                self._open[record.span_id] = lanes, number, record
                yield from made
            elif kind in ("stop", "exception"):
                yield from self._ended(record)
            elif is_once(record.name):
                yield from self._once(record)
        for lanes, number, record in self._open.values():
            start = record.monotonic_time
            yield _slice(record, (lanes.pid, lanes.tids[number]), start, self._latest, **{UNFINISHED: True})

    def _ended(self, record: Any) -> Iterator[Event]:
        end = record.monotonic_time
        start = end - record.measurements["duration"]
        if record.span_id in self._open:
            lanes, number, _ = self._open.pop(record.span_id)
        else:
            lanes, number, made = self._take(record, start)
            yield from made
        lanes.free_from[number] = end
        yield _slice(record, (lanes.pid, lanes.tids[number]), start, end)
        if record.name[:3] == HANDLE and record.name[-1] == "stop":
            yield from self._flows(record, lanes.pid, lanes.tids[number], (start + end) // 2)

    def _flows(self, record: Any, pid: int, tid: int, time: int) -> Iterator[Event]:
        """Give an arrow's beginning for each ref that was sent, and its end for each that was settled."""
        connection = self._connections.setdefault(record.origin.connection_id, len(self._connections) + 1)
        common = {"cat": "reply", "name": "reply", "pid": pid, "tid": tid, "ts": time / 1000}
        for effect in record.metadata["return"]:
            if isinstance(effect, SendFrame) and effect.ref.isdecimal():
                yield {"ph": "s", "id": connection * REFS + int(effect.ref), **common}
        for event in record.metadata["built_events"]:
            ref = getattr(event, "ref", None)
            if isinstance(event, SETTLED) and isinstance(ref, str) and ref.isdecimal():
                yield {"ph": "f", "bp": "e", "id": connection * REFS + int(ref), **common}

    def _once(self, record: Any) -> Iterator[Event]:
        lanes, number, made = self._take(record, record.monotonic_time)
        lanes.free_from[number] = record.monotonic_time
        yield from made
        told, (pid, tid) = describe(record), (lanes.pid, lanes.tids[number])
        place = {"pid": pid, "tid": tid, "ts": record.monotonic_time / 1000}
        yield {"ph": "i", "s": "t", "cat": "telemetry", "name": told.name, **place, "args": told.attributes}

    # Tracks

    def _take(self, record: Any, start: int) -> tuple[_Lanes, int, list[Event]]:
        """Return the lane of a span, which is taken until it is set free, and the events that introduce it."""
        made: list[Event] = []
        socket_id = record.origin.socket_id
        pid = self._pids.get(socket_id)
        if pid is None:
            pid = self._pids[socket_id] = len(self._pids) + 1
            made.append(_named("process_name", pid, 0, f"socket {socket_id}"))
        name = _track(record)
        lanes = self._lanes.setdefault((pid, name), _Lanes(pid))
        # Handled inputs lie within the connection's own span.
        number = 0 if record.name[:3] == HANDLE and lanes.tids else lanes.find(start)
        if number is None:
            number = len(lanes.tids)
            self._tids += 1
            lanes.tids.append(self._tids)
            lanes.free_from.append(start)
            made.append(_named("thread_name", pid, self._tids, f"{name} ({number + 1})" if number else name))
            order = {"sort_index": self._tids}
            made.append({"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": self._tids, "args": order})
        lanes.free_from[number] = float("inf")
        return lanes, number, made


def _track(record: Any) -> str:
    origin, name = record.origin, record.name
    if name[1] == "connection":
        return f"connection {origin.generation} {origin.connection_id}"
    metadata = record.metadata
    if metadata.get("callback") is not None:
        return "callbacks"
    topic = metadata.get("topic")
    return "client" if topic is None else f"topic {topic}"


def _slice(record: Any, track: tuple[int, int], start: int, end: int, **more: bool) -> Event:
    told, (pid, tid) = describe(record), track
    args = {**told.attributes, **more, "trace_id": record.origin.trace_id}
    if told.error is not None:
        args["error"] = told.error
    times = {"ts": start / 1000, "dur": max(0, end - start) / 1000}  # in microseconds
    return {"ph": "X", "cat": record.name[1], "name": told.name, "pid": pid, "tid": tid, **times, "args": args}


def _named(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}
