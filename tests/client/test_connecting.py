"""Opening a connection, and what the socket then says of itself."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from tests.client.support import URL, Scripted, running, scripted
from trio.testing import MockClock

from slipstream_trio import ConnectError, ConnectionLost, ConnectionRejected, InternalError, connect
from slipstream_trio.protocol import State
from slipstream_trio.testing.server import Accept, Refuse, Request
from slipstream_trio.transport import OpenRequest, Transport
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector


async def test_a_socket_has_ids_a_state_and_a_status(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        assert re.fullmatch(r"[0-9a-f]{16}", socket.socket_id)
        assert re.fullmatch(r"[0-9a-f]{16}", socket.connection_id)
        assert re.fullmatch(r"[0-9a-f]{32}", socket.trace_id)
        assert socket.generation == 1
        assert (socket.status, socket.state.status) == ("connected", "open")
        assert isinstance(socket.state, State)
        assert (socket.state.connection_id, socket.state.trace_id) == (socket.connection_id, socket.trace_id)
        assert socket.state.socket_id == socket.socket_id
        assert repr(socket) == f"<Socket {socket.socket_id} connected>"
    assert (socket.status, socket.state.status) == ("closed", "closed")
    assert socket.state.close_reason == "closed_by_client"


async def test_two_sockets_share_no_id(autojump_clock: MockClock) -> None:
    async with scripted() as (one, _), scripted() as (other, _):
        ids = {one.socket_id, one.connection_id, one.trace_id, other.socket_id, other.connection_id, other.trace_id}
    assert len(ids) == 6


async def test_the_status_is_connecting_while_the_transport_opens_and_closing_while_it_closes(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []
    async with trio.open_nursery() as nursery:
        async with scripted(answers={"phx_join"}) as (socket, peer):
            await socket.channel("room").join()

            async def watch() -> None:
                await peer.wait_sent("phx_leave")
                seen.append(socket.status)
                peer.end_channel("room")

            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
    assert seen == ["closing"]


async def test_the_library_talks_to_its_own_server_over_a_stream_in_memory(autojump_clock: MockClock) -> None:
    async with running() as server:
        async with connect(URL, transport=server.connector()) as socket:
            async with socket.join("lab:1", {"user": 1}) as channel:
                assert channel.join_response == {"joined": {"user": 1}}
                assert await channel.push("echo", {"body": "hi"}) == {"body": "hi"}
            assert await socket.ping() >= 0
            (connection,) = server.connections
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1000, "client")


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_both_serializers_work_with_the_server(vsn: str, autojump_clock: MockClock) -> None:
    async with running() as server, connect(URL, transport=server.connector(), vsn=vsn) as socket:
        async with socket.join("lab:1") as channel:
            assert await channel.push("echo", [1, "zwei", None]) == [1, "zwei", None]
            assert await channel.push("burst", {"count": 2}) == {}
            assert [(await anext(aiter(channel))).payload["number"] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refuse(), "connect/3"),
        (Refuse(401, body="who are you"), "credentials"),
        (Refuse(429, [("Retry-After", "7")], "slow down"), "slow down"),
        (Refuse(500), "HTTP status 500"),
    ],
)
async def test_a_refused_upgrade_raises_connection_rejected(
    refusal: Refuse, said: str, autojump_clock: MockClock
) -> None:
    def refuse(_: Request) -> Accept:
        raise refusal

    async with running(connect=refuse) as server:
        with pytest.raises(ConnectionRejected, match=said) as raised:
            async with connect(URL, transport=server.connector()):
                pytest.fail("the block must not be entered")
    error = raised.value
    assert isinstance(error, ConnectError)
    assert (error.status, error.body) == (refusal.status, refusal.body)
    for name, value in refusal.headers:
        assert (name.lower(), value) in error.headers


async def test_a_404_hints_at_a_missing_websocket(autojump_clock: MockClock) -> None:
    async with running() as server:
        with pytest.raises(ConnectionRejected, match="/websocket") as raised:
            async with connect("ws://localhost/socket", transport=server.connector()):
                pytest.fail("the block must not be entered")
    assert raised.value.status == 404


@pytest.mark.parametrize("error", [ConnectError("no route"), ConnectionRejected(418, [("a", "b")], "teapot")])
async def test_what_the_connector_raises_leaves_connect_as_it_is(error: Exception, autojump_clock: MockClock) -> None:
    async def fail(_: OpenRequest) -> None:
        raise error

    with pytest.raises(ConnectError) as raised:
        async with connect(URL, transport=Scripted(opening=fail)):
            pytest.fail("the block must not be entered")
    assert raised.value is error


async def test_an_opener_that_raises_an_os_error_is_a_connect_error(autojump_clock: MockClock) -> None:
    async with running() as server:
        pass
    with pytest.raises(ConnectError, match="no connections") as raised:
        async with connect(URL, transport=server.connector()):
            pytest.fail("the block must not be entered")
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def test_the_handshake_has_a_time_limit(autojump_clock: MockClock) -> None:
    async def never(_: OpenRequest) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    started = trio.current_time()
    with pytest.raises(ConnectError, match="connect_timeout"):
        async with connect(URL, transport=TrioWebSocketConnector(never), connect_timeout=3):
            pytest.fail("the block must not be entered")
    assert trio.current_time() - started == 3


async def test_a_connection_that_ends_at_once_ends_the_block_at_its_first_checkpoint(
    autojump_clock: MockClock,
) -> None:
    class Short(Scripted):
        """Its peers have ended when they are opened."""

        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as transport:
                self.peer.end(1001)
                yield transport

    entered = False
    with pytest.raises(ConnectionLost) as raised:
        async with connect(URL, transport=Short(), reconnect=None) as socket:
            entered = True
            assert len(socket.connection_id) == 16
            await trio.sleep_forever()
    assert entered
    assert raised.value.code == 1001
    assert trio.current_time() == 0


async def test_cancelling_connect_while_it_opens_leaves_nothing(autojump_clock: MockClock) -> None:
    async def never(_: OpenRequest) -> None:
        await trio.sleep_forever()

    connector = Scripted(opening=never)
    with trio.move_on_after(1) as scope:
        async with connect(URL, transport=connector):
            pytest.fail("the block must not be entered")
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(scope.deadline)
    assert not connector.peers


async def test_a_bug_while_it_opens_raises_before_the_block_is_entered(autojump_clock: MockClock) -> None:
    class Bug(Exception):
        pass

    async def fail(_: OpenRequest) -> None:
        raise Bug

    with pytest.raises(InternalError) as raised:
        async with connect(URL, transport=Scripted(opening=fail)):
            pytest.fail("the block must not be entered")
    assert isinstance(raised.value.__cause__, Bug)
