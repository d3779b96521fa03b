"""A page of recordings: rows of spans and events as columns, each text once, states as differences; in one file."""

import base64
import gzip
import html
import json
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from operator import itemgetter
from typing import Any, Final

import attrs

from ..protocol import Message, SendFrame, State
from .diagnosis import Finding
from .redact import Redacted
from .selection import Glance
from .text import as_text, flat_state, plain, plain_record
from .view import NO_PAYLOAD, Direction, Mood

__all__ = ["MAX_ROWS", "Page", "render_page"]

MAX_ROWS: Final = 200_000
"""The most spans and events of a page: of more, it has the last ones."""

MAX_TEXT: Final = 200_000_000  # the most characters of payloads and details, likewise
PAYLOAD_LIMIT: Final = 4_000  # the most characters of a payload
DIRECTIONS: Final[Mapping[Direction, int]] = {"here": 0, "out": 1, "in": 2}
MOODS: Final[Mapping[Mood, int]] = {"plain": 0, "good": 1, "bad": 2}

SCRIPTS: Final = (
    *("base", "content", "search", "range", "rows", "overview"),
    *("values", "details", "summary", "keys", "main"),
)
"""In the order in which they are put into the page; they share one scope."""

SHOWN_ELSEWHERE: Final = frozenset({
    "connection_id", "trace_id", "socket_id", "generation", "start_time", "span_id", "topic", "outcome",
    "state", "end_state", "raw_message", "message", "event", "built_events", "return",
})  # fmt: skip
"""Metadata that a row shows in columns of its own, or as states."""

# A span, or what happens once: its values by column, in nanoseconds since the epoch, and with its texts.
Row = dict[str, Any]
TEXTS: Final = ("group", "what", "topic", "event", "status", "note", "ref", "payload", "more")  # each once


class Page:
    """Takes in what is looked at, and keeps it in brief.

    Parameters:
        last: the most rows; the last ones are kept.
        payload_limit: the most characters of a payload.

    Attributes:
        left_out: the number of rows before those that are kept.
    """

    def __init__(self, *, last: int = MAX_ROWS, payload_limit: int = PAYLOAD_LIMIT) -> None:
        self._rows: deque[Row] = deque()
        self._last = last
        self._payload_limit = payload_limit
        self._connections: dict[str, dict[str, Any]] = {}
        self._text = 0
        self.left_out: int = 0
        self._first: int | None = None
        self._end = 0

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def add(self, glance: Glance) -> None:
        """Take in a record."""
        self._first = glance.at - glance.elapsed if self._first is None else self._first
        self._end = max(self._end, glance.end)
        origin, began = glance.record.origin, glance.end - (glance.line.took or 0)
        key = origin.connection_id or f"socket {origin.socket_id}"
        if key not in self._connections:
            told = {"start": began, "end": None, "reason": None, "state": None}
            self._connections[key] = {**attrs.asdict(origin), **told, "number": len(self._connections)}
        connection = self._connections[key]
        if glance.record.name[1:3] == ("connection", "connect"):
            connection["state"] = glance.record.metadata.get("state", connection["state"])
            connection["start"] = min(connection["start"], began)
            if glance.record.name[-1] != "start":
                connection["end"], connection["reason"] = glance.end, glance.line.status
            if glance.line.status != "raised":
                return
        row = self._row(glance, connection["number"])
        self._rows.append(row)
        self._text += _length(row)
        while len(self._rows) > self._last or self._text > MAX_TEXT:
            self._text -= _length(self._rows.popleft())
            self.left_out += 1

    def content(self, findings: Iterable[Finding] = ()) -> dict[str, Any]:
        """Return what the page holds, as JSON values; times are nanoseconds since `start`, that of the first record.

        Parameters:
            findings: causes of what went wrong, which are to have links to their rows.
        """
        rows = sorted(self._rows, key=itemgetter("begin"))
        start, texts, whole = self._first or 0, {"": 0}, not self.left_out
        return {
            "start": str(start),
            "end": max([self._end, *(row["begin"] + max(row["took"], 0) for row in rows)]) - start,
            "left_out": self.left_out,
            "findings": [{**each.as_dict(), "rows": _rows_at(each.times, rows, whole=whole)} for each in findings],
            "connections": [
                {
                    **its,
                    "start": its["start"] - start,
                    "end": None if its["end"] is None else its["end"] - start,
                    "state": None if its["state"] is None else flat_state(its["state"]),
                }
                for its in self._connections.values()
            ],
            "begin": [row["begin"] - start for row in rows],
            **{name: [row[name] for row in rows] for name in ("took", "connection", "direction", "mood")},
            **{name: [texts.setdefault(row[name], len(texts)) for row in rows] for name in TEXTS},
            "span_ids": " ".join(row["span_id"] for row in rows),
            "states": _states(rows),
            "texts": list(texts),
        }

    def _row(self, glance: Glance, connection: int) -> Row:
        line, metadata, name = glance.line, glance.record.metadata, glance.record.name
        lasted, span_id = glance.lasted, glance.record.span_id
        # A gap is over; what is scheduled begins now.
        begin = glance.end - ((line.took or 0) if line.what != "gap" else lasted or 0)
        is_client = span_id is not None and name[1] == "client"
        group = "client" if is_client else "handle" if name[1:3] == ("connection", "handle") else "once"
        more = as_text(_more(group, metadata), self._payload_limit)
        return {
            "begin": begin,
            "took": -1 if lasted is None else lasted,
            "connection": connection,
            "direction": DIRECTIONS[line.direction],
            "mood": MOODS[line.mood],
            **{key: getattr(line, key) for key in ("what", "topic", "event", "status", "note", "ref")},
            "group": group,
            "payload": "" if line.payload is NO_PAYLOAD else as_text(line.payload, self._payload_limit),
            "more": "" if more == "{}" else more,
            "span_id": span_id or "-",
            "states": (metadata["state"], metadata["end_state"]) if "end_state" in metadata else None,
            "at": glance.end,
        }


def _length(row: Row) -> int:
    return len(row["payload"]) + len(row["more"])


def _rows_at(times: Iterable[int], rows: Sequence[Row], *, whole: bool) -> list[int]:
    """Return the numbers of the rows that were recorded at these times, or next, without those that are left out."""
    recorded = sorted((row["at"], number) for number, row in enumerate(rows))
    kept = [time for time in times if recorded and (whole or recorded[0][0] <= time)]
    places = [min(bisect_left(recorded, (time, 0)), len(rows) - 1) for time in kept]
    return list(dict.fromkeys(recorded[place][1] for place in places))


def _more(group: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row's details show beside its columns and its payload."""
    told = {key: value for key, value in metadata.items() if key not in SHOWN_ELSEWHERE and value is not None}
    if group != "handle":
        # A push's response is its payload, and a push has an event that is its column.
        return {key: plain(value) for key, value in told.items() if key not in ("response", "callback")}
    if "raw_message" in metadata:
        given, hidden = metadata["raw_message"], ("frame",) * isinstance(metadata.get("message"), Message)
        told["input"] = plain_record(given, ("payload", *hidden)) if attrs.has(type(given)) else plain(given)
    without = ("message", "response", "payload")
    told["built_events"] = [plain_record(event, without) for event in metadata.get("built_events", ())]
    told["effects"] = [plain_record(effect, ("frame",)) for effect in metadata.get("return", ())]
    for effect, shown in zip(metadata.get("return", ()), told["effects"], strict=True):
        if isinstance(effect, SendFrame):
            shown["length"] = None if isinstance(effect.frame, Redacted) else len(effect.frame)
    return {key: plain(value) for key, value in told.items() if value != []}


def _states(rows: Sequence[Row]) -> list[Any]:
    """Return for every row what its state became: 0 for no state, 1 for no change, else what changed.

    A change is [set, deleted]; where the state before is not that after the connection's last row, [set, deleted,
    before], the latter in full.
    """
    known: dict[int, tuple[State, dict[str, Any]]] = {}
    told: list[Any] = []
    for row in rows:
        if row["states"] is None:
            told.append(0)
            continue
        before, after = row["states"]
        last = known.get(row["connection"])
        follows = last is not None and (last[0] is before or last[0] == before)
        flat = last[1] if last is not None and follows else flat_state(before)
        changed = flat if after is before or after == before else flat_state(after)
        known[row["connection"]] = (after, changed)
        if follows and changed is flat:
            told.append(1)
            continue
        given = {key: value for key, value in changed.items() if key not in flat or flat[key] != value}
        deleted = [key for key in flat if key not in changed]
        told.append([given, deleted] if follows else [given, deleted, flat])
    return told


def render_page(content: dict[str, Any], title: str) -> str:
    """Return a page.

    The content is compressed and in base64, so nothing in it can be taken for markup, whatever the payloads hold, and a
    policy in the page forbids it to load anything.

    Parameters:
        content: its content, as JSON values; see `Page.content`.
        title: its title.
    """
    source = files(__package__) / "html"
    # ASCII throughout: text with lone surrogates has no UTF-8.
    packed = gzip.compress(json.dumps(content, separators=(",", ":")).encode("ascii"), compresslevel=6, mtime=0)
    parts = {
        "title": html.escape(title.encode("utf-8", "replace").decode("utf-8")),
        "style": (source / "page.css").read_text("utf-8"),
        "script": "\n".join((source / f"{name}.js").read_text("utf-8") for name in SCRIPTS),
        "content": base64.b64encode(packed).decode("ascii"),
    }
    pieces = (source / "page.html").read_text("utf-8").split("%%")  # text and names of parts, in turn
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))
