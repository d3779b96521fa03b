"""A serializer of the user's own, whose frames are nothing that Phoenix's serializers could read."""

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.client.support import Recorder, Scripted, running
from trio.testing import MockClock

from slipstream_trio import ChannelClosed, ProtocolError, PushError, SerializationError, connect
from slipstream_trio.protocol import Frame, Message, Serializer, StdlibCodec, V2Serializer
from slipstream_trio.trace import verify
from slipstream_trio.transport import Connector, OpenRequest, Transport

PHOENIX = V2Serializer()


class Squeezed:
    """Frames that are compressed JSON: all of them binary."""

    name = "squeezed"
    vsn = "2.0.0"

    def encode(self, message: Message) -> Frame:
        return squeeze(PHOENIX.encode(message))

    def decode(self, frame: Frame) -> Message:
        return PHOENIX.decode(unsqueeze(frame))


def squeeze(frame: Frame) -> bytes:
    return zlib.compress(frame.encode()) if isinstance(frame, str) else b"\x00" + frame


def unsqueeze(frame: Frame) -> Frame:
    if not isinstance(frame, bytes):
        raise ProtocolError("a text frame")
    if frame[:1] == b"\x00":
        return frame[1:]
    try:
        return zlib.decompress(frame).decode()
    except zlib.error as error:
        raise ProtocolError(f"not compressed: {error}") from None


class Between(Transport):
    """A transport to a server that compresses: what stands in front of it has Phoenix's frames."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.response_headers = inner.response_headers

    async def receive(self) -> Sequence[Frame]:
        return [squeeze(frame) for frame in await self.inner.receive()]

    async def send(self, frames: Sequence[Frame]) -> None:
        await self.inner.send([unsqueeze(frame) for frame in frames])

    async def close(self, code: int, reason: str) -> None:
        await self.inner.close(code, reason)


class Squeezing:
    """The connector of such a server."""

    name = "squeezing"

    def __init__(self, inner: Connector) -> None:
        self.inner = inner

    @asynccontextmanager
    async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
        async with self.inner.open(request, wake) as transport:
            yield Between(transport)


async def test_everything_works_with_a_serializer_of_ones_own(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with (
        running() as server,
        connect(
            "ws://server/socket/websocket",
            transport=Squeezing(server.connector()),
            serializer=Squeezed(),
            telemetry=recorder.bus,
            rejoin=None,
        ) as socket,
    ):
        assert socket.state.options.serializer == "squeezed"
        assert await socket.ping() >= 0
        async with socket.join("lab:1", {"user": 1}) as channel:
            assert channel.join_response == {"joined": {"user": 1}}
            assert await channel.push("echo", {"body": ["x", 1, None]}) == {"body": ["x", 1, None]}
            assert await channel.push("echo", b"\x00\xff") == b"\x00\xff"
            with pytest.raises(PushError):
                await channel.push("fail", {})
            await channel.push("burst", {"count": 3})
            assert [(await anext(aiter(channel))).payload["number"] for _ in range(3)] == [0, 1, 2]
            with pytest.raises(ChannelClosed):
                await channel.push("crash")
        async with socket.join("lab:1"):
            pass
    assert list(verify(recorder.records)) == []


async def test_what_it_cannot_read_costs_that_frame_alone(autojump_clock: MockClock) -> None:
    class Picky(V2Serializer):
        name = "picky"

        def decode(self, frame: Frame) -> Message:
            message = super().decode(frame)
            if message.event == "odd":
                raise ProtocolError("an odd event")
            return message

    recorder = Recorder()
    connector = Scripted()
    async with connect(
        "ws://host/socket/websocket", transport=connector, serializer=Picky(), telemetry=recorder.bus
    ) as socket:
        async with socket.join("room") as channel:
            connector.peer.message("room", "odd")
            connector.peer.message("room", "even", {"number": 2})
            assert (await anext(aiter(channel))).payload == {"number": 2}
    assert [record.metadata["reason"] for record in recorder.named("client", "message_dropped")] == ["an odd event"]


class Buggy(StdlibCodec):
    """A codec that fails as no codec should."""

    def decode_message(self, text: str) -> Message:
        if "odd" in text:
            raise ValueError("a bug of the codec's")
        return super().decode_message(text)

    def encode(self, value: Any) -> str:
        if "odd" in str(value):
            raise ValueError("a bug of the codec's")
        return super().encode(value)


class Derived(V2Serializer):
    """A serializer of ours that is derived, and fails as none should."""

    name = "derived"

    def decode(self, frame: Frame) -> Message:
        return Buggy().decode_message(str(frame))

    def encode(self, message: Message) -> Frame:
        return Buggy().encode(list(message))


@pytest.mark.parametrize("serializer", [V2Serializer(Buggy()), Derived()], ids=["codec", "derived"])
async def test_a_bug_in_a_codec_or_a_derived_serializer_costs_one_frame(
    serializer: Serializer, autojump_clock: MockClock
) -> None:
    connector = Scripted()
    async with (
        connect("ws://host/socket/websocket", transport=connector, serializer=serializer) as socket,
        socket.join("room") as channel,
    ):
        with pytest.raises(SerializationError, match="a bug of the codec's"):
            await channel.push("odd", {})
        for number in range(20):
            connector.peer.message("room", "odd" if number == 10 else "even", {"number": number})
        got = [(await channel.receive()).payload["number"] for _ in range(19)]
        assert got == [*range(10), *range(11, 20)]
        assert await channel.push("echo", {"x": 1}) == {"x": 1}
    assert len(connector.peers) == 1


async def test_what_it_cannot_write_raises_and_sends_nothing(autojump_clock: MockClock) -> None:
    class Strict(V2Serializer):
        name = "strict"

        def encode(self, message: Message) -> Frame:
            if message.payload == "no":
                raise SerializationError("no is no answer")
            return super().encode(message)

    connector = Scripted()
    async with connect("ws://host/socket/websocket", transport=connector, serializer=Strict()) as socket:
        async with socket.join("room") as channel:
            before = socket.state
            with pytest.raises(SerializationError, match="no is no answer"):
                await channel.push("echo", "no")
            assert socket.state is before
            assert await channel.push("echo", "yes") == "yes"
            with trio.fail_after(1):
                assert (await connector.peer.wait_sent("echo")).ref == "2"
