"""KeyboardInterrupt, wherever it comes: it leaves `connect` as itself, and nothing is left behind."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import trio
from tests.client.support import URL, Peer, Recorder, Scripted, living_tasks, running, scripted
from tests.recovery.support import settle
from trio.testing import MockClock

from slipstream_trio import Backoff, Client, ConnectionLost, Socket, connect, run_client
from slipstream_trio.protocol import Message, PushMessage, TimerTicked, TransportFailed
from slipstream_trio.telemetry import ConnectStop
from slipstream_trio.transport import OpenRequest, Transport
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

Body = Callable[[Socket, Peer], Awaitable[None]]


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Let SIGINT interrupt, also where the tests run in the background of a shell, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(body: Body, **options: Any) -> Peer:
    """Run a body in Trio's main task, to which signals are delivered; return its peer."""
    peers: list[Peer] = []

    async def main() -> None:
        before = living_tasks()
        try:
            async with scripted(**options) as (socket, peer):
                peers.append(peer)
                await body(socket, peer)
        finally:
            assert living_tasks() == before

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return peers[0]


def interrupted(body: Body, **options: Any) -> Peer:
    """Run a body that is interrupted; return its peer."""
    peers: list[Peer] = []

    async def watched(socket: Socket, peer: Peer) -> None:
        peers.append(peer)
        await body(socket, peer)

    with pytest.raises(KeyboardInterrupt):
        run(watched, **options)
    assert peers[0].closed_with == (1000, "")
    assert peers[0].left
    return peers[0]


def test_one_raised_by_hand_in_the_body_passes() -> None:
    async def body(socket: Socket, peer: Peer) -> None:
        async with socket.join("room"):
            raise KeyboardInterrupt

    assert interrupted(body).count("phx_leave") == 1


def test_a_signal_in_the_body_passes() -> None:
    async def body(socket: Socket, peer: Peer) -> None:
        async with socket.join("room"):
            signal.raise_signal(signal.SIGINT)

    assert interrupted(body).count("phx_leave") == 1


@pytest.mark.parametrize("operation", ["push", "join", "ping", "iteration", "sleep"])
def test_a_signal_while_the_body_waits_passes(operation: str) -> None:
    async def body(socket: Socket, peer: Peer) -> None:
        channel, other = socket.channel("room"), socket.channel("other")
        await channel.join()
        peer.answers -= {"phx_join", "heartbeat"}
        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "push": lambda: channel.push("event", timeout=None),
            "join": lambda: other.join(timeout=None),
            "ping": socket.ping,
            "iteration": lambda: anext(aiter(channel)),
            "sleep": trio.sleep_forever,
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt_later)
            await operations[operation]()

    async def interrupt_later() -> None:
        await trio.sleep(1)
        trio.lowlevel.spawn_system_task(interrupt)

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)  # in a task that is protected: the main task gets it

    with pytest.RaisesGroup(KeyboardInterrupt):
        run(body, heartbeat_interval=None)


def test_a_signal_while_an_input_is_handled_waits_until_it_is() -> None:
    recorder = Recorder()

    def interrupt(record: Any) -> None:
        if isinstance(record.raw_message, PushMessage):
            signal.raise_signal(signal.SIGINT)

    recorder.bus.attach("interrupt", ("slipstream", "connection", "handle", "start"), interrupt)

    async def body(socket: Socket, peer: Peer) -> None:
        async with socket.join("room") as channel:
            await channel.push("event")

    assert interrupted(body, telemetry=recorder.bus).count("event") == 1
    starts, stops = recorder.named("handle", "start"), recorder.named("handle", "stop")
    assert [start.span_id for start in starts] == [stop.span_id for stop in stops]


def test_a_signal_while_a_frame_is_handled_reaches_the_body() -> None:
    recorder = Recorder()

    def interrupt(record: Any) -> None:
        if isinstance(record.transition.message, Message) and record.transition.message.event == "bomb":
            signal.raise_signal(signal.SIGINT)

    recorder.bus.attach("interrupt", ("slipstream", "connection", "handle", "stop"), interrupt)

    async def body(socket: Socket, peer: Peer) -> None:
        async with socket.join("room"):
            peer.message("room", "bomb")
            await trio.sleep_forever()

    interrupted(body, telemetry=recorder.bus)
    assert not recorder.named("connect", "exception")


class Interrupting(trio.abc.Stream):
    """A stream that interrupts the task which reads from it, or writes to it, if asked to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.armed = ""
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._interrupt("reads")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._interrupt("writes")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _interrupt(self, moment: str) -> None:
        if self.armed == moment:
            self.armed = ""
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("moment", ["reads", "writes"])
def test_a_signal_while_the_transport_works_reaches_the_body(moment: str) -> None:
    streams: list[Interrupting] = []
    ends: list[tuple[int | None, str | None]] = []

    async def main() -> None:
        async with running() as server:

            async def open_stream(_: OpenRequest) -> trio.abc.Stream:
                streams.append(Interrupting(await server.open_stream()))
                return streams[-1]

            try:
                async with connect(URL, transport=TrioWebSocketConnector(open_stream)) as socket:
                    async with socket.join("lab:1") as channel:
                        [connection] = server.connections
                        streams[0].armed = moment
                        await channel.push("echo")
                        await trio.sleep_forever()
            finally:
                ends.append((connection.close_code, connection.closed_by))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert ends == [(1000, "client")]


@pytest.mark.parametrize("body_raises", [False, True])
def test_a_signal_while_the_block_is_left_passes_and_wins(body_raises: bool) -> None:
    recorder = Recorder()

    def interrupt(record: Any) -> None:
        recorder.bus.detach("interrupt")  # a second one would come out of trio.run, whatever became of the first
        signal.raise_signal(signal.SIGINT)

    async def body(socket: Socket, peer: Peer) -> None:
        peer.answers_close = False
        recorder.bus.attach("interrupt", ("slipstream", "connection", "handle", "start"), interrupt)
        if body_raises:
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        run(body, telemetry=recorder.bus)


def test_after_an_interrupt_that_was_caught_the_connection_goes_on() -> None:
    async def body(socket: Socket, peer: Peer) -> None:
        async with socket.join("room") as channel:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert await channel.push("echo", 5) == 5

    run(body)


def test_an_interrupt_at_the_end_of_the_connection_wins() -> None:
    async def body(socket: Socket, peer: Peer) -> None:
        peer.end()
        try:
            await trio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        run(body)
    assert not isinstance(raised.value, ConnectionLost)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_in_a_function_that_is_asked_for_a_payload_again_passes(kind: type[BaseException]) -> None:
    """It is called in a task of the library's, while the body awaits a push, which ends for it."""
    peers, asked = list[Peer](), count()

    def payload() -> dict[str, Any]:
        if next(asked):
            raise kind
        return {}

    async def body(socket: Socket, peer: Peer) -> None:
        peers.append(peer)
        async with socket.join("room", payload) as channel:
            peer.end_channel("room", "phx_error")
            await settle()
            await channel.push("echo")

    with pytest.raises(kind):
        run(body, rejoin=Backoff((1,), jitter=0))
    assert peers[0].closed_with == (1000, "")


def test_an_interrupt_in_the_body_wins_over_an_exit_in_a_function() -> None:
    asked = count()

    def payload() -> dict[str, Any]:
        if next(asked):
            raise SystemExit
        return {}

    async def body(socket: Socket, peer: Peer) -> None:
        await socket.channel("room", payload).join()
        peer.end_channel("room", "phx_error")
        try:
            await trio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(body, rejoin=Backoff((1,), jitter=0))


def test_one_in_a_function_ends_also_a_body_that_awaits_nothing_of_the_connection() -> None:
    asked, went_on = count(), list[str]()

    def payload() -> dict[str, Any]:
        if next(asked):
            raise KeyboardInterrupt
        return {}

    async def body(socket: Socket, peer: Peer) -> None:
        await socket.channel("room", payload).join()
        peer.end_channel("room", "phx_error")
        await trio.sleep(1000)
        went_on.append("body")

    with pytest.raises(KeyboardInterrupt):
        run(body, rejoin=Backoff((1,), jitter=0))
    assert went_on == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_in_a_function_that_is_asked_before_connecting_again_passes(kind: type[BaseException]) -> None:
    asked = count()

    def params() -> dict[str, Any]:
        if next(asked):
            raise kind
        return {}

    async def body(socket: Socket, peer: Peer) -> None:
        async with socket.join("room") as channel:
            peer.end()
            await settle()
            await channel.push("echo")

    with pytest.raises(kind):
        run(body, params=params, reconnect=Backoff((1,), jitter=0))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_in_a_handler_that_is_told_of_a_deadline_passes(kind: type[BaseException]) -> None:
    def leave(record: Any) -> None:
        if isinstance(record.start.raw_message, TimerTicked):
            raise kind

    async def body(socket: Socket, peer: Peer) -> None:
        await trio.sleep_forever()

    recorder = Recorder()
    recorder.bus.attach("leave", ("slipstream", "connection", "handle", "stop"), leave)
    with pytest.raises(kind):
        run(body, heartbeat_interval=10, telemetry=recorder.bus)


def test_the_end_of_a_connection_is_told_though_a_handler_exits_as_it_is_cancelled() -> None:
    recorder = Recorder()

    def leave(record: Any) -> None:
        if isinstance(record.start.raw_message, TransportFailed):
            raise SystemExit

    async def never(_: OpenRequest) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        recorder.bus.attach("leave", ("slipstream", "connection", "handle", "stop"), leave)
        with trio.move_on_after(1):
            async with connect(URL, transport=Scripted(opening=never), telemetry=recorder.bus):
                pytest.fail("it cannot be opened")

    with pytest.raises(SystemExit):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert [type(record) for record in recorder.records].count(ConnectStop) == 1


def test_one_that_comes_while_a_transport_is_given_up_passes() -> None:
    class Slow(Scripted):
        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as peer:
                try:
                    yield peer
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(1)
                        signal.raise_signal(signal.SIGINT)
                        await trio.sleep(1)

    connector = Slow()

    async def main() -> None:
        async with connect(URL, transport=connector, close_timeout=5):
            connector.peer.answers_close = False

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_in_a_function_of_a_callback_client_passes(kind: type[BaseException]) -> None:
    connector = Scripted()

    def payload() -> dict[str, Any]:
        raise kind

    class Lobby(Client):
        async def handle_connect(self, socket: Socket) -> None:
            await self.join("room", payload)

    async def main() -> None:
        await run_client(Lobby(), URL, transport=connector)

    with pytest.raises(kind):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert connector.peer.closed_with == (1000, "")


def test_a_callback_and_a_payload_are_interrupted_at_once() -> None:
    connector, went_on = Scripted(), list[str]()

    def payload() -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        went_on.append("payload")
        return {}

    class Lobby(Client):
        async def handle_connect(self, socket: Socket) -> None:
            with pytest.raises(KeyboardInterrupt):
                await socket.channel("room", payload).join()
            signal.raise_signal(signal.SIGINT)
            went_on.append("callback")

    async def main() -> None:
        await run_client(Lobby(), URL, transport=connector)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert went_on == []
