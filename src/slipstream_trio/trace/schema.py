"""The schema of recordings: lines of JSON, one a telemetry event, and a few others.

The first line of a file is its `Header`. Every other line is one of

* an event: `name`, the ids, `span_id`, the measurements, and the metadata, under the names that telemetry gives them;
* `missing`: how many events are missing at this place, and why;
* `end`: the recording was ended regularly.

To keep lines short, nothing is repeated that can be looked up in the same file:

* `trace_id`, `socket_id` and `generation` are in the first line of a `connection_id`; later ones have that id alone.
* A state is written in full once, as `{"n": 1, …}`; then as `{"n": 2, "from": 1, …}` with the fields that changed;
  where it did not change, its number stands for it. Numbers are a connection's own. Now and then one is written in
  full again, so that a damaged line does not cost the rest of the file.
* A stop has the `span_id` of its start, and not again what the start has. Where the start is not in this file, the stop
  has it, whole, as `start`.
* A message that was decoded has no payload: it is decoded again from its frame. In a stop, `{"$": "@input"}`,
  `"@message"`, `"@payload"` and `"@response"` stand for its start's input, for the message, for the message's payload,
  and for the response in that.

What JSON does not have is an object with the key `$`, which names it: see `values`.

Versions are `major.minor`. Minor ones add lines, fields and objects, and readers ignore what they do not know.

* 1.1: the options have `join_window` and `retry_after_limit`, and a null `url` where a function gives it, which the
  opening or failure of the transport then has; a state also has `join_timeouts`, `rejoins`, `failed_rejoins`, `turns`,
  `turn_began` and `turn_by_timeout`; a join `deadline` and `rejoin`; a tick what was known of the line; an end who
  ended it; `TopicJoinOverdue`. In an older recording joins are all the user's, and the turns of those that are pending
  are not known.
* 1.2: of a mapping of a state, `{"$": "change", …}` has what changed in it; ends have `ended_by`, `code`, `message`,
  `heard` and `received`; the stops of joins, leaves and pushes `reason` and `waited`, those of pushes `sent`; an
  overflow `phase` and `dropped`; a dropped message its `frame`; the options how `params`, `headers` and `auth_token`
  were given; and there are `client send`, `client gave_up` and `client stalled`. Of an older recording, these are None,
  or "absent", and `Header.untold` says so.
"""

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from attrs import field, frozen

from ..protocol import Transition
from ..telemetry import EventName, Origin, Record

MAJOR: Final = 1
MINOR: Final = 2
SCHEMA: Final = f"{MAJOR}.{MINOR}"  # the version of the schema that is written
HEADER: Final = "slipstream_trace"  # the key of a header

# A line to bytes and back. Unlike the codec of frames, this checks nothing: `values` leaves JSON's types only.
encode_line: Callable[[Any], bytes]  # returns the line of a value, without a line feed
_decode: Callable[[bytes], Any]
try:
    import msgspec
except ImportError:
    _encoder: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False)
    encode_line, _decode = lambda value: _encoder.encode(value).encode("ascii"), json.loads
else:
    encode_line, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


@frozen
class Recorded(Record):
    """A telemetry record that was read from a recording; handlers and the verifier take it like a live one.

    Attributes:
        line: the number of its line in its file, from 1.
        name: the event's name.
        origin: the ids.
        measurements: times and durations in nanoseconds, under the telemetry's keys.
        start: of a span's end, its start; None for other records.
        span_id: the span's id, None for what happens once.
    """

    line: int
    name: EventName
    origin: Origin
    measurements: Mapping[str, int]
    start: "Recorded | None" = field(repr=False)
    span_id: str | None
    _details: dict[str, Any]

    def details(self) -> dict[str, Any]:
        """Return the metadata of this event: without ids and times, and without what its start has."""
        return self._details

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Everything else, under the telemetry's keys; the values are the protocol's own objects."""
        whole = {**self._described(), **self.whole()}
        if "end_state" in whole:
            whole["event"] = Transition(whole["end_state"], whole["message"], whole["built_events"]).event
        return whole

    @property
    def monotonic_time(self) -> int:
        """When it was emitted, in nanoseconds on the monotonic clock."""
        return self.measurements["monotonic_time"]

    @property
    def duration(self) -> int:
        """How long its span took, in nanoseconds; of a span's end only."""
        return self.measurements["duration"]

    @property
    def system_time(self) -> int:
        """When its span started, or it happened, in nanoseconds since the epoch."""
        return (self.start or self).measurements["system_time"]


@frozen
class Header:
    """The first line of a file.

    Attributes:
        line: 1.
        schema: the version of the schema.
        library: the version of the library that wrote it.
        recording: the recording's id, 16 hex digits, the same in all its parts.
        part: the number of this file in its recording, from 1.
        started: when the file was begun, in UTC.
        redacted: "secrets", and "payloads" where they are not as they were.
        open: the connection_ids whose records began in a part before.
    """

    line: int
    schema: str
    library: str
    recording: str
    part: int
    started: datetime
    redacted: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def untold(self) -> tuple[str, ...]:
        """The things that a recording of this schema cannot tell, in words; none if it is of this version."""
        minor = int(self.schema.partition(".")[2] or 0)
        return tuple(text for since, words in _NEW.items() if minor < since for text in words)


_NEW: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("which joins were repeated by the library, and whose turn it was", "who ended a connection"),
    2: (
        "why joins, leaves and pushes failed, and how long they waited to be sent",
        "when a connection was last heard",
        "sends, sockets that gave up, and an event loop that stood still",
        "how long an overflow lasted, and how many messages it cost",
    ),
}
"""The additions of each minor version."""


@frozen
class Missing:
    """Here records are missing, and the recorder knows it.

    Attributes:
        line: the number of its line.
        records: their number; None if unknown.
        reason: "queue_full", "write_failed", or "began_before" for a connection that was open when recording began.
        connection_id: the connection that they are missing of; None where it may be any.
    """

    line: int
    records: int | None
    reason: str
    connection_id: str | None = None


@frozen
class End:
    """The recording was ended regularly.

    Attributes:
        line: the number of its line.
        records: the number of records written.
        dropped: the number of records dropped.
        open: the connection_ids of connections that had not ended.
    """

    line: int
    records: int
    dropped: int
    open: tuple[str, ...]


@frozen
class Damage:
    """A line that cannot be read.

    Attributes:
        line: its number.
        problem: the fault.
        last: whether it is the last of its file and has no end: the recording was cut off there.
        connection_id: the connection that it is about, None where that cannot be told.
    """

    line: int
    problem: str
    last: bool = False
    connection_id: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


Entry = Recorded | Header | Missing | End | Damage
"""An entry of a recording."""


def start_time(system_time: int) -> datetime:
    """Return nanoseconds since the epoch as a datetime in UTC, as telemetry does."""
    return datetime.fromtimestamp(system_time / 1e9, UTC)


def library_version() -> str:
    """Return the version of this library."""
    try:
        return version("slipstream-trio")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def decode_line(line: bytes) -> Any:
    """Return the value of a line."""
    try:
        return _decode(line)
    except ValueError:
        # msgspec refuses lone surrogates, which another writer may have escaped.
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def header_line(recording: str, part: int, time: int, redacted: Collection[str], alive: Collection[str]) -> bytes:
    """Return the first line of a file; see `Header`."""
    whose = {"schema": SCHEMA, "library": library_version(), "recording": recording, "part": part}
    how = {"started": start_time(time).isoformat(), "redacted": list(redacted), "open": list(alive)}
    return encode_line({HEADER: {**whose, **how}}) + b"\n"


def end_line(records: int, dropped: int, alive: Collection[str]) -> bytes:
    """Return the last line of a recording; see `End`."""
    return encode_line({"end": {"records": records, "dropped": dropped, "open": list(alive)}}) + b"\n"


def missing_line(records: int | None, reason: str, connection_id: str | None = None) -> bytes:
    """Return the line that says that records are missing; see `Missing`."""
    whose = {} if connection_id is None else {"connection_id": connection_id}
    return encode_line({"missing": {"records": records, "reason": reason, **whose}}) + b"\n"
