"""Scripts of what a server and a user do, drawn by Hypothesis and played on the real runtime, in memory.

The server is that of `testing.scripted`; bytes that no server would send come from a stream that adds them to what the
client reads. The user is up to three tasks that share a socket. Time is
virtual.
"""

import json
from collections.abc import Callable
from typing import Any

import trio
from attrs import field, frozen
from hypothesis import strategies as st

from slipstream_trio import Channel, Socket, connect
from slipstream_trio.errors import ConnectError, ConnectionLost, SlipstreamError, SlowConsumer
from slipstream_trio.ids import RandomIds
from slipstream_trio.telemetry import EventName, Record, Telemetry
from slipstream_trio.testing.scripted import Act, ServerScript, scripted_server
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

TOPICS = ("room:a", "room:b", "room:c")
ECHO = ServerScript()


class Raised(Exception):
    """What the user's code raises, where the script says so."""


# The server


def raw_frames() -> st.SearchStrategy[str | list[int]]:
    """Text that is no message, or one that its receiver did not expect."""
    values = (
        st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "1", "2", "3", "room:a", "phx_close"])
    )
    return st.one_of(
        st.text(max_size=20).filter(lambda text: "\ud800" not in text),
        st.sampled_from(["[", "{}", "[]", "null", "NaN", '["\\ud800"]', "[1e999]", "[" * 300]),
        st.lists(values, max_size=6).map(json.dumps),
        st.tuples(
            st.sampled_from(["1", "2", "9", None]),
            st.sampled_from(["1", "2", "9", None]),
            st.sampled_from([*TOPICS, "phoenix", "else"]),
            st.sampled_from(["phx_reply", "phx_close", "phx_error", "tick"]),
            st.sampled_from([None, {}, {"status": "ok", "response": {}}, {"status": 1}, [], "x"]),
        ).map(json.dumps),
    )


REPLY = Act("reply", ("ok", {}))
RESERVED = ("phx_close", "phx_error", "phx_reply", "shout")


def _servers() -> st.SearchStrategy[ServerScript]:
    """Servers of all kinds, which answer half of the pushes in the end."""
    each = st.one_of(
        st.sampled_from([REPLY, Act("reply", ("error", {}))]),
        st.builds(Act, st.just("burst"), st.integers(1, 12)),
        st.builds(Act, st.just("push"), st.tuples(st.just("bytes"), st.binary(max_size=3))),
        st.builds(Act, st.just("broadcast"), st.tuples(st.sampled_from(RESERVED), st.just({}))),
        st.builds(Act, st.just("raw"), raw_frames()),
        st.sampled_from([Act("ping"), Act("crash"), Act("stop"), Act("drop")]),
        st.builds(Act, st.just("close"), st.sampled_from([1000, 1001, 1011, 1012, 4000])),
        st.builds(Act, st.just("sleep"), st.sampled_from([0.1, 0.5, 4.0])),
    )
    answered = st.lists(each, max_size=2).map(lambda acts: [*acts, REPLY])
    fates = st.sampled_from(["accept", "accept", "accept", "accept", "refuse", "crash", "slow", "crash_after"])
    pushes = st.lists(st.one_of(st.lists(each, min_size=1, max_size=3), answered), min_size=4, max_size=12)
    return st.builds(ServerScript, joins=st.lists(fates, max_size=6), pushes=pushes)


# The user


@frozen
class Step:
    """One thing that a task does; errors of the library end it, not the task, unless the connection is lost."""

    what: str
    topic: str = TOPICS[0]
    value: Any = None
    timeout: float = 2.0


@frozen
class Script:
    """What happens on one connection.

    Attributes:
        tasks: the steps of each task.
        server: what the server does.
        cancel_after: after so many turns of the scheduler the body is cancelled; None: it is not.
        failing_handler: a handler of telemetry raises at its so manieth record; None: there is none.
        acting_handler: at every so manieth record of these names, a handler leaves these topics; None: there is none.
        garbage: bytes that are added after so many reads of the client; None: none are.
    """

    tasks: list[list[Step]]
    server: ServerScript = ECHO
    cancel_after: int | None = None
    failing_handler: int | None = None
    acting_handler: tuple[EventName, int, tuple[str, ...]] | None = None
    garbage: tuple[int, bytes] | None = None


def _steps() -> st.SearchStrategy[Step]:
    topics = st.sampled_from(TOPICS)
    timeouts = st.sampled_from([0.3, 2.0])
    return st.one_of(
        st.builds(Step, st.just("join"), topics, st.none(), timeouts),
        st.builds(Step, st.just("push"), topics, st.integers(0, 3), timeouts),
        st.builds(Step, st.just("push"), topics, st.integers(0, 3), timeouts),
        st.builds(Step, st.just("send"), topics, st.integers(0, 3)),
        st.builds(Step, st.just("read"), topics, st.integers(1, 5)),
        st.builds(Step, st.just("leave"), topics),
        st.builds(Step, st.just("unserializable"), topics),
        st.builds(Step, st.just("ping")),
        st.builds(Step, st.just("sleep"), value=st.sampled_from([0.0, 1.0, 7.0])),
        st.builds(Step, st.sampled_from(["sleep", "ping", "ping", "raise"]), value=st.just(0.1)),
    )


def _seldom(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Most runs are not cut short, or few would get far."""
    return st.one_of(st.none(), st.none(), st.none(), strategy)


def _acting_handlers() -> st.SearchStrategy[tuple[EventName, int, tuple[str, ...]]]:
    handle = ("slipstream", "connection", "handle")
    names = [(), (*handle, "start"), (*handle, "stop"), (*handle, "exception"), ("slipstream", "client")]
    topics = st.sampled_from([TOPICS, TOPICS[:1], TOPICS[1:]])
    return st.tuples(st.sampled_from(names), st.integers(1, 12), topics)


def scripts() -> st.SearchStrategy[Script]:
    """Scripts of all kinds; each task begins by joining a topic."""
    joins = st.builds(Step, st.just("join"), st.sampled_from(TOPICS))
    task = st.tuples(joins, st.lists(_steps(), max_size=8)).map(lambda drawn: [drawn[0], *drawn[1]])
    return st.builds(
        Script,
        st.lists(task, min_size=1, max_size=3),
        _servers(),
        _seldom(st.integers(0, 200)),
        _seldom(st.integers(0, 40)),
        st.one_of(st.none(), _acting_handlers()),
        _seldom(st.tuples(st.integers(1, 12), st.binary(min_size=1, max_size=12))),
    )


# The play


@frozen
class Play:
    """What came of a script."""

    records: list[Record] = field(factory=list)
    raised: list[BaseException] = field(factory=list)
    channels: list[Channel] = field(factory=list)


class Garbling(trio.abc.Stream):
    """A stream that adds bytes to what is read from another one."""

    def __init__(self, stream: trio.abc.Stream, after: int, garbage: bytes) -> None:
        self._stream = stream
        self._reads = after
        self._garbage = garbage

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._reads -= 1
        data = await self._stream.receive_some(max_bytes)
        return bytes(data) + self._garbage if self._reads == 0 and data else data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def play(script: Script) -> Play:
    """Play a script, and return the telemetry of it and what left the block."""
    played = Play()
    telemetry = Telemetry(ids=RandomIds(seed=1))
    server = scripted_server(script.server)

    async def open_stream(_: OpenRequest) -> trio.abc.Stream:
        stream = await server.open_stream()
        return Garbling(stream, *script.garbage) if script.garbage else stream

    with telemetry.listen(played.records.append):
        if script.failing_handler is not None:
            telemetry.attach("fails", (), _failing(script.failing_handler), prefix=True)
        if script.acting_handler is not None:
            name, every, topics = script.acting_handler
            telemetry.attach("acts", name, _acting(every, topics, played.channels), prefix=True)
        with trio.fail_after(10_000):
            async with server.run():
                try:
                    await _connected(script, telemetry, TrioWebSocketConnector(open_stream), played.channels)
                except* (Raised, ConnectionLost, ConnectError) as expected:
                    played.raised.append(expected)
    return played


async def _connected(
    script: Script, telemetry: Telemetry, connector: TrioWebSocketConnector, made: list[Channel]
) -> None:
    connecting = connect(
        "ws://server/socket/websocket",
        transport=connector,
        telemetry=telemetry,
        heartbeat_interval=5,
        connect_timeout=3,
        buffer=4,
        close_timeout=2,
        leave_timeout=1,
    )
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as beside:
            if script.cancel_after is not None:
                beside.start_soon(_cancel, scope, script.cancel_after)
            async with connecting as socket, trio.open_nursery() as nursery:
                for steps in script.tasks:
                    nursery.start_soon(_user, socket, steps, made)
            beside.cancel_scope.cancel()


async def _cancel(scope: trio.CancelScope, turns: int) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def _user(socket: Socket, steps: list[Step], made: list[Channel]) -> None:
    channels: dict[str, Channel] = {}
    for step in steps:
        try:
            await _do(socket, channels, step, made)
        except (ConnectionLost, Raised):
            raise
        except (SlipstreamError, StopAsyncIteration):
            continue


async def _do(socket: Socket, channels: dict[str, Channel], step: Step, made: list[Channel]) -> None:
    if step.what == "join":
        channel = channels[step.topic] = socket.channel(step.topic, step.value)
        made.append(channel)
        await channel.join(timeout=step.timeout)
        return
    # Mostly on a channel that the task has joined; now and then on one that nobody has.
    joined = [channel for channel in channels.values() if channel.status == "joined"]
    channel = channels.get(step.topic) or (joined[0] if joined else socket.channel(step.topic))
    match step.what:
        case "push":
            await channel.push("do", step.value, timeout=step.timeout)
        case "send":
            await channel.send("do", step.value)
        case "read":
            await _read(channel, step.value)
        case "leave":
            await channel.leave()
        case "unserializable":
            await channel.push("do", {1, 2})
        case "ping":
            await socket.ping()
        case "sleep":
            await trio.sleep(step.value)
        case "raise":
            raise Raised


async def _read(channel: Channel, count: int) -> None:
    with trio.move_on_after(1):
        messages = aiter(channel)
        for _ in range(count):
            try:
                await anext(messages)
            except SlowConsumer:
                continue


def _failing(at: int) -> Callable[[Record], None]:
    seen = 0

    def handler(_: Record) -> None:
        nonlocal seen
        seen += 1
        if seen > at:
            raise RuntimeError("told to")

    return handler


def _acting(every: int, topics: tuple[str, ...], channels: list[Channel]) -> Callable[[Record], None]:
    seen = 0

    def handler(_: Record) -> None:
        nonlocal seen
        seen += 1
        if seen % every == 0:
            for channel in channels:
                if channel.topic in topics:
                    channel.leave_soon()

    return handler
