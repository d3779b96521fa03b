"""A fake server that a test drives step by step: it expects messages of clients, and answers as the test says.

    from slipstream_trio import connect
    from slipstream_trio.testing.kit import ANY, FakeServer

    async with FakeServer() as server, trio.open_nursery() as nursery:
        nursery.start_soon(my_client, server.url, server.connector())
        connection = await server.accept()
        channel = await (await connection.expect_join("room:*")).reply_ok({"users": 1})
        push = await channel.expect_push("new_msg", {"body": ANY})
        await push.reply_ok({"id": 7})
        await channel.push("new_msg", {"body": "hello"})
        await connection.expect_disconnect(1000)

It needs the extra `testing`. `slipstream_trio.testing.server` is its counterpart: a server with a behaviour of its own.
"""

from .channel import FakeChannel, FakeJoin, FakeLeave, FakePush
from .connection import Disconnection, FakeConnection
from .expectations import ANY, ExpectationFailed, Including, including, mismatch
from .server import Answer, FakeServer

__all__ = [
    "ANY", "Answer", "Disconnection", "ExpectationFailed", "FakeChannel", "FakeConnection", "FakeJoin", "FakeLeave",
    "FakePush", "FakeServer", "Including", "including", "mismatch",
]  # fmt: skip
