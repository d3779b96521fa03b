"""The end of a session by long-polling while an answer comes: what was read is given before the end is raised."""

import pytest
import trio
from tests.transport.polls import URL, Asked, said, serving
from trio.testing import MockClock

from slipstream_trio.transport import OpenRequest, TransportEnded, find_connector

pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")


class Noting(trio.abc.Stream):
    """A stream that notes what was read from it."""

    def __init__(self, inner: trio.abc.Stream, read: bytearray) -> None:
        self._inner = inner
        self._read = read

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._inner.receive_some(max_bytes))
        self._read += data
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize("order", range(10))  # in which Trio runs tasks that are woken together is random
@pytest.mark.parametrize("passes", range(4))
async def test_a_poll_that_was_read_whole_is_given_though_a_post_ends_the_session(
    autojump_clock: MockClock, passes: int, order: int
) -> None:
    go, received, read = trio.Event(), list[object](), bytearray()

    async with serving() as server:

        async def poll(_: Asked) -> bytes:
            await go.wait()
            for _pass in range(passes):
                await trio.lowlevel.checkpoint()
            return said(200, ["[1]", "[2]"], "t9")

        async def post(_: Asked) -> bytes:
            await go.wait()
            return said(403)

        async def open_stream(request: OpenRequest) -> trio.abc.Stream:
            return Noting(await server.open_stream(request), read)

        server.on_poll, server.on_post = poll, post
        connector = find_connector("longpoll", open_stream)
        async with connector.open(OpenRequest(url=URL), lambda: None) as transport, trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(TransportEnded, match="forbidden"):
                    while True:
                        received.extend(await transport.receive())

            async def send() -> None:
                with pytest.raises(TransportEnded, match="forbidden"):
                    await transport.send(["[9]"])

            nursery.start_soon(receive)
            nursery.start_soon(send)
            await trio.sleep(1)
            go.set()
    assert received == (["[1]", "[2]"] if b'"[2]"' in read else [])
