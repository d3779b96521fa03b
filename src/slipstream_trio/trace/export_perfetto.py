"""A recording for Perfetto, or any other reader of Chrome's trace events: spans and events on tracks.

A socket is a process. Each of its connections is a track, with all that it handled in it, and so is each topic, with
the joins, pushes and leaves on it; those that overlap are on tracks of their own.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import count
from os import PathLike
from typing import Any, TextIO

from ..telemetry import Record
from .export_spans import ONCE, UNFINISHED, describe, ended
from .files import written

__all__ = ["export_perfetto"]

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
    number = 0
    with written(path) as file:
        file.write('{"displayTimeUnit":"ns","traceEvents":[')
        for number, event in enumerate(_events(records), 1):
            file.write(f"{',' if number > 1 else ''}\n{json.dumps(event, separators=(',', ':'))}")
        file.write("\n]}\n")
    return number


def _events(records: Iterable[Record]) -> Iterator[Event]:
    """Give the events of a recording, each after what introduces its track."""
    pids: dict[str, int] = {}
    # Of each name the tracks by number, and when they are free again: spans on one must not overlap.
    tracks: dict[tuple[int, str], dict[int, int]] = {}
    tids = count(1)
    for record, lasted in ended(records, "monotonic_time"):
        end, unfinished = record.monotonic_time, record.name[-1] == "start"
        start, end = (end, end + lasted) if unfinished else (end - lasted, end)
        socket_id, name = record.origin.socket_id, _track(record)
        if (pid := pids.get(socket_id)) is None:
            pid = pids[socket_id] = len(pids) + 1
            yield _named("process_name", pid, 0, name=f"socket {socket_id}")
        its = tracks.setdefault((pid, name), {})
        # Handled inputs lie within the connection's own span.
        tid = next((tid for tid, free in its.items() if free <= start or record.name[1] == "connection"), 0)
        if not tid:
            tid = next(tids)
            yield _named("thread_name", pid, tid, name=f"{name} ({len(its) + 1})" if its else name)
            yield _named("thread_sort_index", pid, tid, sort_index=tid)
        its[tid] = end
        told, place = describe(record), {"pid": pid, "tid": tid, "ts": start / 1000}  # in microseconds
        if record.name in ONCE:
            yield {"ph": "i", "s": "t", "cat": "telemetry", "name": told.name, **place, "args": told.attributes}
            continue
        args = {**told.attributes, **({UNFINISHED: True} if unfinished else {}), "trace_id": record.trace_id}
        if told.error is not None:
            args["error"] = told.error
        shown = {"ph": "X", "cat": record.name[1], "name": told.name}
        yield {**shown, **place, "dur": max(0, lasted) / 1000, "args": args}


def _track(record: Any) -> str:
    origin, name = record.origin, record.name
    if name[1] == "connection":
        return f"connection {origin.generation} {origin.connection_id}"
    told = record.whole()
    if told.get("callback") is not None:
        return "callbacks"
    topic = told.get("topic")
    return "client" if topic is None else f"topic {topic}"


def _named(what: str, pid: int, tid: int, **args: str | int) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}
