"""Whatever a client sends, the server goes on."""

import json
from typing import Any

import trio
import trio.testing
from hypothesis import given, strategies as st
from tests.drawing import examples
from tests.server.app import make_server
from tests.server.raw_client import SOCKET, UPGRADE, RawClient
from wsproto.events import CloseConnection

from slipstream_trio.testing.server import Channel, Mount, PhoenixServer, Reply


@examples(50)
@given(data=st.lists(st.binary(max_size=200), max_size=5), good=st.booleans())
def test_no_bytes_break_the_server(data: list[bytes], good: bool) -> None:
    """After each, the server serves the next client; garbage costs no more than its own connection."""

    async def main() -> None:
        server = make_server()
        async with server.run(), trio.open_nursery() as nursery:
            stream = await server.open_stream()
            try:
                if good:
                    await stream.send_all(UPGRADE.format(target=SOCKET).encode())
                for piece in data:
                    await stream.send_all(piece)
            except trio.BrokenResourceError:
                pass  # the server had closed already
            await stream.aclose()
            client = await RawClient.connect(server, nursery)
            assert (await client.join("echo:1"))[4]["status"] == "ok"
            assert not any(isinstance(error, AssertionError) for error in server.errors)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["echo:1", "phoenix", "phx_join"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@examples(60)
@given(message=st.tuples(JSON, JSON, JSON, st.sampled_from(["phx_join", "phx_leave", "echo", 5, None]), JSON))
def test_refs_and_topics_of_any_type_come_back_verbatim(message: tuple[Any, ...]) -> None:
    async def main() -> None:
        server = make_server()
        async with server.run(), trio.open_nursery() as nursery:
            client = await RawClient.connect(server, nursery)
            await client.push(*message)
            (reply,) = await client.wait_messages(1)
            assert reply[1:4] == [message[1], message[2], "phx_reply"]
            assert reply[0] in (None, message[0])
            await client.send_event(CloseConnection(code=1000))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_replies_come_in_the_order_of_their_pushes_across_channels(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Echo(Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> Reply:
            return Reply(payload)

    server = PhoenixServer({"/socket": Mount(channels={"*": Echo})})
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        for n in range(5):
            await client.join(f"t{n}", ref=f"{n}")
        pushes = [json.dumps([f"{i % 5}", f"{i}", f"t{i % 5}", "e", {}]) for i in range(100)]
        await client.send_all(*pushes)
        messages = await client.wait_messages(105)
        assert [message[1] for message in messages[5:]] == [f"{i}" for i in range(100)]
        nursery.cancel_scope.cancel()
