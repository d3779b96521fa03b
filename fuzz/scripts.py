"""Scripts as bytes: what users, the server, time and the transport do to one connection, for a fuzzer to change.

The first byte chooses the options. Each step is a byte for its kind, and what that kind takes: a byte that chooses
among what is possible then, or text with its length before it (one byte for a topic, two for a frame). A script that
ends too early is read as far as it goes, and every sequence of bytes is a script.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, get_args

from tests.protocol.checked import CheckedConnection

from slipstream_trio.errors import SerializationError
from slipstream_trio.protocol import (
    CloseConnection,
    Frame,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    Message,
    Options,
    PushMessage,
    SendHeartbeat,
    TimerTicked,
    TransportClosed,
    TransportFailed,
    TransportOpened,
    next_deadline,
)
from slipstream_trio.testing.server.wire import Wire

__all__ = ["Kind", "read_script", "write_options", "write_step"]

Kind = Literal[
    "join",
    "leave",
    "push",
    "beat",
    "tick",
    "text",
    "binary",
    "answer",
    "end_channel",
    "server_push",
    "close",
    "transport_closed",
    "transport_failed",
    "rejoin",
    "tick_with_line",
]
"""What a step does. The corpus has them by number: new ones are added at the end."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PAYLOADS: Final[list[Any]] = [{}, {"n": 1}, None, [1], "text", b"", b"data", 1.5, "\ud800"]
TIMEOUTS: Final[list[float | None]] = [10.0, 1.0, None]
WAITS: Final = [0.0, 0.5, 1.0, 30.0]
LINE: Final[list[float | None]] = [None, 0.0, 1.0, 9.0, 31.0]
STATUSES: Final = ["ok", "error", "later"]
VSNS: Final = ["2.0.0", "1.0.0"]
INTERVALS: Final[list[float | None]] = [30.0, 1.0, None]
HEARTBEAT_TIMEOUTS: Final[list[float | None]] = [10.0, None]


class _Reader:
    """Bytes, from the first to the last; zeros after that."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return (self.bytes(1) or b"\0")[0]

    def bytes(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def text(self, size: int) -> str:
        return self.bytes(size).decode("utf-8", "surrogateescape")


def read_script(data: bytes) -> tuple[Options, Callable[[CheckedConnection], Iterator[Input]]]:
    """Return the options of a script, and a function that yields its inputs for the connection that handles them."""
    reader = _Reader(data)
    chosen = reader.byte()
    vsn = VSNS[chosen % 2]
    options = Options(
        url="ws://localhost/socket/websocket",
        vsn=vsn,
        serializer=f"v{vsn[0]}",
        heartbeat_interval=INTERVALS[chosen // 2 % 3],
        heartbeat_timeout=HEARTBEAT_TIMEOUTS[chosen // 6 % 2],
    )
    wire = Wire(vsn)
    return options, lambda connection: _inputs(reader, wire, connection)


def _inputs(reader: _Reader, wire: Wire, connection: CheckedConnection) -> Iterator[Input]:
    now = 0.0
    yield TransportOpened(now)
    while reader.more:
        kind = KINDS[reader.byte() % len(KINDS)]
        if kind == "tick":
            choice = reader.byte()
            due = next_deadline(connection.state) if choice % 2 else None
            now = max(now, due) if due is not None else now + WAITS[choice // 2 % 4]
            yield TimerTicked(now)
        elif kind == "tick_with_line":
            choice = reader.byte()
            now += WAITS[choice % 4]
            ago = [None if each is None else now - each for each in (LINE[choice // 4 % 5], LINE[choice // 20 % 5])]
            yield TimerTicked(now, ago[0], write_blocked_since=ago[1])
        elif kind in ("text", "binary"):
            size = reader.byte() * 256 + reader.byte()
            yield FrameReceived(now, reader.text(size) if kind == "text" else reader.bytes(size))
        elif kind in _MADE:
            frame = _MADE[kind](reader, wire, connection)
            if frame is not None:
                yield FrameReceived(now, frame)
        else:
            yield _GIVEN[kind](reader, now)


def _answer(reader: _Reader, wire: Wire, connection: CheckedConnection) -> Frame | None:
    sent = connection.ledger.sent
    which, how = reader.byte(), reader.byte()
    if not sent:
        return None
    ref, topic = sent[-1 - which % len(sent)]
    return _encoded(lambda: wire.encode_reply(None, ref, topic, STATUSES[how % 3], PAYLOADS[how // 3 % 8]))


def _end_channel(reader: _Reader, wire: Wire, connection: CheckedConnection) -> Frame | None:
    join = _join_of(reader, connection)
    event = "phx_error" if reader.byte() % 2 else "phx_close"
    return None if join is None else wire.encode(Message(join[1], join[1], join[0], event, {}))


def _server_push(reader: _Reader, wire: Wire, connection: CheckedConnection) -> Frame | None:
    join, payload = _join_of(reader, connection), PAYLOADS[reader.byte() % 8]
    return None if join is None else _encoded(lambda: wire.encode(Message(join[1], None, join[0], "ev", payload)))


def _join_of(reader: _Reader, connection: CheckedConnection) -> tuple[str, str] | None:
    joins, which = sorted(connection.state.joins.items()), reader.byte()
    return joins[which % len(joins)] if joins else None


def _encoded(encode: Callable[[], Frame]) -> Frame | None:
    """Return a frame, or None where the server has no such frame: vsn 1.0.0 and bytes, names too long for binary."""
    try:
        return encode()
    except SerializationError:
        return None


def _later(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds


def _topic(reader: _Reader) -> str:
    return reader.text(reader.byte())


_MADE: Final[Mapping[Kind, Callable[[_Reader, Wire, CheckedConnection], Frame | None]]] = {
    "answer": _answer,
    "end_channel": _end_channel,
    "server_push": _server_push,
}
_GIVEN: Final[Mapping[Kind, Callable[[_Reader, float], Input]]] = {
    "join": lambda reader, now: JoinTopic(
        now, _topic(reader), PAYLOADS[reader.byte() % 9], TIMEOUTS[reader.byte() % 3]
    ),
    "leave": lambda reader, now: LeaveTopic(now, _topic(reader), TIMEOUTS[reader.byte() % 3]),
    "push": lambda reader, _: PushMessage(_topic(reader), "ev", PAYLOADS[reader.byte() % 9]),
    "beat": lambda _, now: SendHeartbeat(now),
    "close": lambda *_: CloseConnection(),
    "transport_closed": lambda reader, _: TransportClosed(1000 + reader.byte() % 16),
    "transport_failed": lambda *_: TransportFailed("refused", 403),
    "rejoin": lambda reader, now: JoinTopic(
        now, _topic(reader), {}, TIMEOUTS[reader.byte() % 3], _later(now, TIMEOUTS[reader.byte() % 3]), rejoin=True
    ),
}


# Writing


def write_options(vsn: str) -> bytes:
    """Return the beginning of a script with this version of the protocol, and heartbeats every 30 s."""
    return bytes([VSNS.index(vsn)])


def write_step(kind: Kind, *arguments: int | str | bytes) -> bytes:
    """Return a step: its kind, and bytes, topics or (as the last, of "text" and "binary") a frame."""
    step = bytes([KINDS.index(kind)])
    for argument in arguments:
        if isinstance(argument, int):
            step += bytes([argument])
            continue
        data = argument.encode() if isinstance(argument, str) else argument
        step += len(data).to_bytes(2 if kind in ("text", "binary") else 1, "big") + data
    return step
