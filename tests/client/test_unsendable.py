"""Payloads that have no form in a frame: the error tells the value's place, whatever the call waited for."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from tests.client.support import PHOENIX, scripted
from trio.testing import MockClock

from slipstream_trio import Channel, Client, SerializationError, run_client
from slipstream_trio.protocol import Codec, MsgspecCodec, StdlibCodec, V2Serializer, default_codec
from slipstream_trio.testing.kit import FakeServer

CODECS: list[Callable[[], Codec]] = [StdlibCodec]
if default_codec().name != StdlibCodec.name:
    CODECS.append(MsgspecCodec)
BAD = {"items": [1, 2, 3, {"at": datetime(2026, 1, 1, tzinfo=UTC)}]}
PLACE = 'payload["items"][3]["at"]'
TEXT = (
    f"at {PLACE}: datetime is not a JSON type: use dict, list, str, int, float, bool or None, or bytes as the payload "
    "(in {event!r} of 'room')"
)
BUFFERS = [bytearray(b"\x00\xff"), memoryview(b"-\x00\xff-")[1:3]]

Operation = Callable[[Channel, Any], Awaitable[Any]]
OPERATIONS: dict[str, Operation] = {
    "push": lambda channel, payload: channel.push("event", payload),
    "send": lambda channel, payload: channel.send("event", payload),
}


async def refused(operation: Callable[[], Awaitable[Any]], event: str) -> None:
    with pytest.raises(SerializationError) as caught:
        await operation()
    error = caught.value
    assert (error.path, error.topic, error.event) == (PLACE, "room", event)
    assert str(error) == TEXT.format(event=event)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_push_that_cannot_be_sent_tells_the_place(
    name: str, codec: Callable[[], Codec], autojump_clock: MockClock
) -> None:
    async with scripted(serializer=V2Serializer(codec())) as (socket, peer), socket.join("room") as channel:
        await refused(lambda: OPERATIONS[name](channel, BAD), "event")
        peer.pause()
        while peer.count("fill") or len(peer.sent) == 1:
            with trio.move_on_after(1) as scope:
                await channel.send("fill", "x" * 2**19)
            if scope.cancelled_caught:
                break  # there is no room: the next ones wait
        await refused(lambda: OPERATIONS[name](channel, BAD), "event")
        peer.resume()


@pytest.mark.parametrize("codec", CODECS)
async def test_a_join_that_cannot_be_sent_tells_the_place(
    codec: Callable[[], Codec], autojump_clock: MockClock
) -> None:
    async with scripted(serializer=V2Serializer(codec())) as (socket, _):
        await refused(socket.channel("room", BAD).join, "phx_join")
        await refused(socket.channel("room", lambda: BAD).join, "phx_join")
        for payload in (b"binary", *BUFFERS):
            with pytest.raises(SerializationError, match=r"a join's payload is JSON.*'phx_join' of 'room'") as caught:
                await socket.channel("room", payload).join()
            assert caught.value.path == "payload"


@pytest.mark.parametrize("codec", CODECS)
async def test_a_push_of_a_client_that_cannot_be_sent_tells_the_place(
    codec: Callable[[], Codec], autojump_clock: MockClock
) -> None:
    class Pushing(Client):
        async def handle_connect(self, socket: Any) -> None:
            await refused(lambda: self.push("room", "event", BAD), "event")
            await self.join("room")

        async def handle_join(self, channel: Channel, response: Any) -> None:
            await refused(lambda: self.push("room", "event", BAD), "event")
            await self.push("room", "event", bytearray(b"\x00\xff"))

        async def handle_reply(self, ref: str, reply: Any) -> None:
            self.stop()

    async with FakeServer(answers={"connect", "join", "leave", "push"}) as server:
        serializer = V2Serializer(codec())
        await run_client(Pushing(), server.url, transport=server.connector(), serializer=serializer)
        assert (await (await server.accept()).expect_push("room", "event")).payload == b"\x00\xff"


@pytest.mark.parametrize("buffer", BUFFERS)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_buffer_is_sent_as_its_bytes(name: str, buffer: Any, autojump_clock: MockClock) -> None:
    async with scripted(answers=PHOENIX | {"event"}) as (socket, peer), socket.join("room") as channel:
        await OPERATIONS[name](channel, buffer)
        assert (await peer.wait_sent("event")).payload == b"\x00\xff"
        with pytest.raises(SerializationError) as caught:
            await OPERATIONS[name](channel, {"data": buffer})
        assert caught.value.path == 'payload["data"]'


async def test_a_buffer_that_is_changed_while_its_push_waits_is_sent_as_it_was(autojump_clock: MockClock) -> None:
    buffer = bytearray(b"before")
    async with scripted(answers=PHOENIX - {"phx_join"}) as (socket, peer), trio.open_nursery() as nursery:
        channel = socket.channel("room")
        nursery.start_soon(channel.join)
        join = await peer.wait_sent("phx_join")
        nursery.start_soon(channel.send, "event", buffer)
        await trio.testing.wait_all_tasks_blocked()
        buffer[:] = b"later!"
        peer.reply(join)
        assert (await peer.wait_sent("event")).payload == b"before"
