"""Sends and pushes of several tasks leave in the order of the calls."""

from typing import Any

import trio
from tests.client.support import scripted
from trio.testing import MockClock

from slipstream_trio import Channel, connect
from slipstream_trio.testing.server import Channel as ServerChannel, Mount, Outcome, PhoenixServer, Reply


async def test_a_send_leaves_before_a_push_that_is_called_after_it(autojump_clock: MockClock) -> None:
    arrived: list[int] = []
    called: list[int] = []

    class Room(ServerChannel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
            arrived.append(payload["n"])
            return Reply()

    async def call(channel: Channel, number: int) -> None:
        called.append(number)
        if number % 2:
            await channel.push("push", {"n": number})
        else:
            await channel.send("send", {"n": number})

    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})})
    async with server.run(), connect("ws://s/socket/websocket", transport=server.connector()) as socket:
        async with socket.join("room:1") as channel:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(call, channel, number)
            await channel.push("push", {"n": 20})
    assert arrived == [*called, 20]


async def test_other_tasks_run_at_each_send(autojump_clock: MockClock) -> None:
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    async with scripted() as (socket, _), socket.join("room") as channel, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(2):  # Trio promises no order in one pass of its scheduler
            await channel.send("event")
        assert ran == ["other"]
