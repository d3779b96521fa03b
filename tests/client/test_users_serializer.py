"""What a serializer of the user's raises concerns one frame, and never reads as a bug of the library."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from tests.client.support import scripted
from tests.recovery.support import status_of
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio import Backoff, SerializationError, connect
from slipstream_trio.protocol import Frame, Message, V2Serializer
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.kit import Answer, FakeServer

ANSWERS: Final[frozenset[Answer]] = frozenset({"connect", "join", "leave", "heartbeat", "push"})


class Mine:
    """The serializer 2.0.0, but for what a test wants to fail."""

    name = "mine"
    vsn = "2.0.0"

    def __init__(self, fails: Callable[[Message], bool]) -> None:
        self._inner = V2Serializer()
        self._fails = fails

    def encode(self, message: Message) -> Frame:
        if self._fails(message):
            raise ZeroDivisionError("mine")
        return self._inner.encode(message)

    def decode(self, frame: Frame) -> Message:
        message = self._inner.decode(frame)
        if self._fails(message):
            raise ZeroDivisionError("mine")
        return message


@pytest.mark.parametrize("telemetry", [True, False])
async def test_a_frame_that_it_cannot_decode_is_rejected(
    telemetry: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    serializer = Mine(lambda message: message.payload == "bad")
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), serializer=serializer) as socket,
    ):
        connection = await server.accept()
        async with socket.join("room:1") as channel:
            fake = connection.channel("room:1")
            await fake.push("n", "bad")
            await fake.push("n", "good")
            assert (await channel.receive()).payload == "good"
            assert socket.generation == 1
    assert "ZeroDivisionError('mine')" in caplog.text


@pytest.mark.parametrize("telemetry", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        7,
        ["", "", "room:1", "n", {}],
        (None, None, "room:1", "n", {}),
        Message(None, None, ["room:1"], "n", {}),  # type: ignore[arg-type] # that is what is wrong
        Message(None, None, "room:1", ["n"], {}),  # type: ignore[arg-type] # likewise
        Message(7, None, "room:1", "n", {}),  # type: ignore[arg-type] # likewise
    ],
)
async def test_what_it_decodes_to_no_message_is_rejected(
    wrong: Any, telemetry: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    serializer, bus = Mine(lambda _: False), Telemetry()
    decode = serializer.decode
    vars(serializer)["decode"] = lambda frame: wrong if '"bad"' in frame else decode(frame)
    if telemetry:
        bus.attach("listener", (), lambda _: None, prefix=True)
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), serializer=serializer, telemetry=bus) as socket,
    ):
        connection = await server.accept()
        async with socket.join("room:1") as channel:
            fake = connection.channel("room:1")
            await fake.push("n", "bad")
            await fake.push("n", "good")
            assert (await channel.receive()).payload == "good"
            assert socket.generation == 1
    assert "rejected: " in caplog.text


@pytest.mark.parametrize("wrong", [None, 7, [], bytearray(b"[]"), memoryview(b"[]")])
async def test_what_it_encodes_to_no_frame_raises_where_it_was_made(wrong: Any, autojump_clock: MockClock) -> None:
    serializer = Mine(lambda _: False)
    encode = serializer.encode
    vars(serializer)["encode"] = lambda message: wrong if message.event == "bad" else encode(message)
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), serializer=serializer) as socket,
    ):
        await server.accept()
        async with socket.join("room:1") as channel:
            with pytest.raises(SerializationError, match=f"returned {type(wrong).__name__}, not str or bytes"):
                await channel.push("bad")
            assert await channel.push("good") == {}
            assert socket.generation == 1


async def test_a_push_that_it_cannot_encode_raises_where_it_was_made(autojump_clock: MockClock) -> None:
    serializer = Mine(lambda message: message.event == "bad")
    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(server.url, transport=server.connector(), serializer=serializer) as socket,
    ):
        await server.accept()
        async with socket.join("room:1") as channel:
            with pytest.raises(SerializationError) as caught:
                await channel.push("bad")
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            assert await channel.push("good") == {}
            assert socket.generation == 1


@pytest.mark.parametrize("event", ["heartbeat", "phx_leave"])
async def test_a_connection_that_cannot_speak_is_replaced(
    event: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [event]

    def fails(message: Message) -> bool:
        return message.event in failures

    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(
            server.url,
            transport=server.connector(),
            serializer=Mine(fails),
            heartbeat_interval=5,
            reconnect=Backoff((1,), jitter=0),
        ) as socket,
    ):
        first = await server.accept()
        kept, left = socket.channel("room:1"), socket.channel("room:2")
        await kept.join()
        await left.join()
        if event == "phx_leave":
            await left.leave()
        await first.expect_disconnect(1000, by="client", within=10)
        connection = await server.accept()
        failures.clear()
        await trio.sleep(20)
        assert (socket.generation, socket.status, kept.status) == (2, "connected", "joined")
        assert "room:1" in {message.topic for message in connection.messages if message.event == "phx_join"}
    assert "cannot go on" in caplog.text


@pytest.mark.parametrize("telemetry", [True, False])
async def test_a_leave_that_an_answer_calls_for_may_fail(telemetry: bool, autojump_clock: MockClock) -> None:
    """A rejoin is given up, with a leave, when another one that was sent later is answered."""
    serializer, bus = Mine(lambda message: message.event == "phx_leave"), Telemetry()
    if telemetry:
        bus.attach("listener", (), lambda _: None, prefix=True)
    options: Any = {"serializer": serializer, "telemetry": bus, "reconnect": Backoff((1,), jitter=0)}
    async with (
        FakeServer(answers={"connect", "leave", "heartbeat"}) as server,
        connect(server.url, transport=server.connector(), **options) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channels = [socket.channel(f"room:{number}") for number in range(2)]
        for channel in channels:
            nursery.start_soon(channel.join)
            await (await connection.expect_join()).reply_ok()
        await trio.sleep(1)
        await connection.drop()
        connection = await server.accept()
        await connection.expect_join("room:0")
        later = await connection.expect_join("room:1")
        await trio.sleep(11)  # the first is overdue
        await later.reply_ok()
        assert (await connection.expect_disconnect()).by == "client"
        connection = await server.accept()
        for _ in channels:
            await (await connection.expect_join()).reply_ok()
        await trio.sleep(1)
        assert [channel.status for channel in channels] == ["joined", "joined"]


async def test_a_payload_that_waits_is_copied_for_it(autojump_clock: MockClock) -> None:
    class Uncopyable:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("mine")

    serializer = Mine(lambda _: False)
    async with (
        FakeServer(answers={"connect", "leave", "heartbeat", "push"}) as server,
        connect(server.url, transport=server.connector(), serializer=serializer) as socket,
        trio.open_nursery() as nursery,
    ):
        connection = await server.accept()
        channel, payload = socket.channel("room:1"), {"n": 1}
        nursery.start_soon(channel.join)
        join = await connection.expect_join()
        nursery.start_soon(channel.push, "event", payload)
        await trio.sleep(1)
        payload["n"] = 2
        with pytest.raises(SerializationError):
            await channel.push("event", Uncopyable())
        await join.reply_ok()
        assert (await connection.expect_push()).payload == {"n": 1}


async def test_its_way_through_the_core_is_shown_to_no_user(autojump_clock: MockClock) -> None:
    serializer = Mine(lambda message: message.event in ("phx_join", "heartbeat"))
    async with scripted(serializer=serializer, heartbeat_interval=None) as (socket, _):
        for call in (socket.channel("room:1").join, socket.ping):
            with pytest.raises(SerializationError) as raised:
                await call()
            assert not [line for line in raised.traceback if "protocol" in Path(line.path).parts]


async def test_a_payload_that_cannot_be_copied_again_gives_its_slot_back(autojump_clock: MockClock) -> None:
    class Copied:
        copies = count(1)

        def __deepcopy__(self, memo: Any) -> Any:
            copy = next(self.copies)
            if copy == 3:
                raise ZeroDivisionError("mine")
            return self if copy == 1 else {}

    async with (
        FakeServer(answers=ANSWERS) as server,
        connect(
            server.url,
            transport=server.connector(),
            serializer=Mine(lambda _: False),
            join_window=1,
            reconnect=Backoff((1,), jitter=0),
            rejoin=Backoff((50,), jitter=0),
        ) as socket,
    ):
        failing, other = socket.channel("room:1", Copied()), socket.channel("room:2")
        await failing.join()
        await other.join()
        await (await server.accept()).drop()
        await trio.sleep(5)
        assert (failing.status, other.status) == ("errored", "joined")
        await trio.sleep(50)
        assert status_of(failing) == "joined"


class Acting(V2Serializer):
    """Does something when it encodes an "event"."""

    act: Callable[[], None]

    def encode(self, message: Message) -> Frame:
        if message.event == "event":
            self.act()
        return super().encode(message)


async def test_it_may_leave_a_topic(autojump_clock: MockClock) -> None:
    acting = Acting()
    async with scripted(serializer=acting, heartbeat_interval=None) as (socket, peer):
        channel, other = socket.channel("room"), socket.channel("other")
        await channel.join()
        await other.join()
        acting.act = other.leave_soon
        await channel.send("event")
        await wait_all_tasks_blocked()
        assert [message.event for message in peer.sent[2:]] == ["event", "phx_leave"]


async def test_a_send_that_is_cancelled_as_it_is_queued_returns(autojump_clock: MockClock) -> None:
    acting, returned = Acting(), False
    async with scripted(serializer=acting) as (socket, peer), socket.join("room") as channel:
        with trio.CancelScope() as scope:
            acting.act = scope.cancel
            await channel.send("event")
            returned = True
        await wait_all_tasks_blocked()
        assert (returned, peer.count("event")) == (True, 1)
