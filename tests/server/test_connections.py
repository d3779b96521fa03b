"""Connections: sockets and streams, back-pressure, endings. Nobody's failure is anybody else's."""

from typing import Any

import pytest
import trio
import trio.testing
from tests.server.app import CHANNELS, connect, make_server
from tests.server.raw_client import SOCKET, RawClient

from slipstream_trio import Message, connect as slipstream_connect
from slipstream_trio.errors import ConnectError
from slipstream_trio.testing.server import Channel, Connection, Mount, PhoenixServer

# Serving


async def test_serves_real_sockets() -> None:
    server = make_server()
    async with server.serve() as listening, trio.open_nursery() as nursery:
        assert listening.url("/x") == f"ws://127.0.0.1:{listening.port}/x"
        client = RawClient(await trio.open_tcp_stream(listening.host, listening.port))
        await client.open(SOCKET)
        nursery.start_soon(client.read)
        await client.join("echo:1")
        await client.push("1", "2", "echo:1", "echo", {"over": "tcp"})
        assert (await client.wait_messages(2))[1][4]["response"] == {"over": "tcp"}
        await client.close()
        await client.over.wait()
        assert client.closed == (1000, "client")


async def test_a_connector_leads_to_the_server_whatever_the_url_says(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    transport = server.connector()
    async with server.run():
        async with slipstream_connect("ws://any:1/socket/websocket", transport=transport) as socket:
            async with socket.join("echo:1") as channel:
                assert await channel.push("echo", {"over": "memory"}) == {"over": "memory"}
    with pytest.raises(ConnectError, match="is it within run"):
        async with slipstream_connect("ws://any:1/socket/websocket", transport=transport):
            pytest.fail("a server that is not running let a client in")


async def test_a_handler_takes_the_place_of_channels(autojump_clock: trio.testing.MockClock) -> None:
    class Handler:
        def __init__(self, connection: Connection) -> None:
            self.connection = connection
            made.append(self)
            self.over = False

        async def handle(self, message: Message) -> None:
            response = {"topic": message.topic}
            answer = self.connection.wire.encode_reply(message.join_ref, message.ref, message.topic, "ok", response)
            await self.connection.send_raw(answer)

        def ended(self) -> None:
            self.over = True

    made: list[Handler] = []
    async with PhoenixServer({"/socket": Mount(handler=Handler)}).run() as server:
        async with slipstream_connect("ws://any/socket/websocket", transport=server.connector()) as socket:
            async with socket.join("no such channel") as channel:
                assert channel.join_response == {"topic": "no such channel"}
            [handler] = made
            assert not handler.over
        await handler.connection.wait_closed()
        assert handler.over


async def test_serves_real_sockets_and_memory_at_once() -> None:
    server = make_server()
    async with server.run(), server.serve() as listening, trio.open_nursery() as nursery:
        tcp = RawClient(await trio.open_tcp_stream(listening.host, listening.port))
        await tcp.open(SOCKET)
        nursery.start_soon(tcp.read)
        memory = await RawClient.connect(server, nursery)
        await tcp.join("echo:1")
        await memory.join("echo:1")
        await tcp.push("1", "2", "echo:1", "broadcast", {})
        assert (await memory.wait_messages(2))[1][3] == "broadcasted"
        nursery.cancel_scope.cancel()


async def test_a_dropped_socket_is_reset() -> None:
    server = make_server()
    async with server.serve() as listening:
        client = RawClient(await trio.open_tcp_stream(listening.host, listening.port))
        await client.open(SOCKET)
        (connection,) = await server.wait_connections()
        connection.drop()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.stream.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (1006, "lost")
        await client.stream.aclose()


async def test_clients_connect_over_tls() -> None:
    trustme = pytest.importorskip("trustme")
    import ssl

    authority = trustme.CA()
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    server = make_server()
    async with server.serve(ssl_context=ours) as listening, trio.open_nursery() as nursery:
        assert listening.url("/").startswith("wss://")
        tcp = await trio.open_tcp_stream(listening.host, listening.port)
        client = RawClient(trio.SSLStream(tcp, theirs, server_hostname="localhost", https_compatible=True))
        await client.open(SOCKET)
        nursery.start_soon(client.read)
        await client.join("echo:1")
        (connection,) = server.connections
        assert connection.request.uri.startswith("https://")
        connection.close(1012)
        await client.over.wait()
        assert client.closed == (1012, "server")


async def test_stopping_refuses_new_connections_on_real_sockets() -> None:
    server = make_server()
    async with server.serve() as listening:
        await server.stop()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(listening.host, listening.port)
        with pytest.raises(ConnectionRefusedError):
            await server.open_stream()


async def test_can_be_run_again_on_the_same_port() -> None:
    server = make_server()
    async with server.serve() as first:
        await server.kill()
    async with server.serve(port=first.port) as second, trio.open_nursery() as nursery:
        assert second.port == first.port
        client = await RawClient.connect(server, nursery)
        assert client.status == 101
        nursery.cancel_scope.cancel()


def test_a_phoenix_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"version: one of 1\.7\.24, .*; not '2\.0'"):
        PhoenixServer({}, version="2.0")  # type: ignore[arg-type]


async def test_is_not_run_twice_at_once() -> None:
    server = make_server()
    with pytest.raises(ConnectionRefusedError):
        await server.open_stream()
    async with server.run():
        with pytest.raises(RuntimeError, match="running already"):
            async with server.run():
                pass


async def test_the_body_s_exception_leaves_unchanged(autojump_clock: trio.testing.MockClock) -> None:
    error = ValueError("mine")
    server = make_server()
    with pytest.raises(ValueError, match="mine") as caught:
        async with server.serve():
            raise error
    assert caught.value is error


async def test_leaving_ends_every_task_and_connection(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    before = trio.lowlevel.current_statistics().tasks_living
    clients = []
    async with server.serve():
        for _ in range(3):
            stream = await server.open_stream()
            client = RawClient(stream)
            await client.open(SOCKET)
            await client.push("1", "1", "echo:1", "phx_join", {})
            await client.push("1", "2", "echo:1", "slow", {"ms": 10_000})
            await client.push("2", "3", "slowjoin:1", "phx_join", {"ms": 10_000})
            clients.append(client)
        half_open = await server.open_stream()
        connections = await server.wait_connections(3)
        await trio.sleep(1)
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert server.connections == ()
    assert all(connection.closed_by == "lost" for connection in connections)
    assert await half_open.receive_some() == b""


# Back-pressure


class Flood(Channel):
    sent = 0

    async def after_join(self) -> None:
        self.spawn(self.flood)

    async def flood(self) -> None:
        for i in range(20_000):
            await self.push("drop", {"i": i, "d": "x" * 1000})
            type(self).sent = i + 1


@pytest.mark.once
async def test_a_client_that_does_not_read_makes_its_channel_wait(autojump_clock: trio.testing.MockClock) -> None:
    mount = Mount(channels={"flood": Flood}, timeout=None, outbox_limit=100_000)
    async with PhoenixServer({"/socket": mount}).run() as server, trio.open_nursery() as nursery:
        client = RawClient(await server.open_stream())
        await client.open(SOCKET)
        await client.push("1", "1", "flood", "phx_join", {})
        await trio.sleep(90)
        (connection,) = server.connections
        assert connection.outbox.gauge.size < 100_000 + 300_000  # the limit, and one write
        sent = Flood.sent
        assert sent < 1000
        await trio.sleep(90)
        assert Flood.sent == sent
        nursery.start_soon(client.read)
        await client.wait_frames(20_001)
        assert [message[4]["i"] for message in client.messages[1:]] == list(range(20_000))
        assert connection.outbox.gauge.size == 0
        nursery.cancel_scope.cancel()


async def test_a_broadcast_cuts_off_a_client_that_does_not_read_and_reaches_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mount = Mount(channels={"*": Channel}, outbox_limit=10_000)
    async with PhoenixServer({"/socket": mount}).run() as server, trio.open_nursery() as nursery:
        deaf = RawClient(await server.open_stream())
        await deaf.open(SOCKET)
        await deaf.push("1", "1", "t", "phx_join", {})
        reader = await RawClient.connect(server, nursery)
        await reader.join("t")
        await trio.sleep(1)
        slow, _ = server.connections
        for i in range(1000):
            await server.broadcast("t", "e", {"i": i, "d": "x" * 1000})
        await reader.wait_frames(1001)
        await slow.wait_closed()
        assert slow.closed_by == "lost"
        assert len(server.connections) == 1
        nursery.cancel_scope.cancel()


async def test_pausing_reading_makes_the_client_s_sends_wait(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, "/idle/websocket?vsn=2.0.0")
        await client.join("echo:1")
        (connection,) = server.connections
        connection.pause_reading()
        with trio.move_on_after(30) as waiting:
            await client.push("1", "2", "echo:1", "echo", {"d": "x" * 100_000})
        assert waiting.cancelled_caught
        assert len(connection.received) == 1
        assert client.closed is None  # although it has been silent for far more than the mount's 3 seconds
        connection.resume_reading()
        await client.over.wait()
        assert client.closed == (1002, "server")


# Endings


async def test_a_client_that_never_answers_a_close_is_waited_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = make_server()
    async with server.run():
        client = RawClient(await server.open_stream())
        await client.open(SOCKET)
        (connection,) = await server.wait_connections()
        connection.close(1012)
        connection.close(1000)  # too late to matter
        await connection.wait_closed()
        assert trio.current_time() == pytest.approx(server.close_timeout)
        assert connection.close_code == 1012


@pytest.mark.once
@pytest.mark.parametrize("deflate", [False, True])
async def test_many_raw_frames_are_sent_in_order(deflate: bool, autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, "/zsocket/websocket?vsn=2.0.0", deflate=deflate)
        frames = [f"{i}" if i % 2 else b"%d" % i for i in range(5000)] + ["x" * 70_000]
        await server.connections[0].send_raw(*frames)
        assert await client.wait_frames(5001) == frames
        nursery.cancel_scope.cancel()


async def test_what_was_queued_is_sent_before_a_close(autojump_clock: trio.testing.MockClock) -> None:
    class Parting(Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> None:
            for i in range(100):
                await self.push("last", {"i": i})
            self.socket.close(4000)

    server = PhoenixServer({"/socket": Mount(channels={"t": Parting})})
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("t")
        await client.push("1", "2", "t", "e", {})
        await client.over.wait()
        assert client.closed == (4000, "server")
        assert len(client.frames) == 101


async def test_keeps_the_last_messages_received(autojump_clock: trio.testing.MockClock) -> None:
    server = PhoenixServer({"/socket": Mount(channels=CHANNELS, connect=connect)}, keep_received=2)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        await client.push("1", "2", "echo:1", "echo", {"n": 1})
        await client.push("1", "3", "echo:1", "echo", {"n": 2})
        await client.wait_frames(3)
        assert [message.ref for message in server.connections[0].received] == ["2", "3"]
        nursery.cancel_scope.cancel()


# Compression


async def test_compressed_frames_keep_their_order_around_a_slow_join(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The compressor's window is shared by all frames: it must see them as the client will."""
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, "/zsocket/websocket?vsn=2.0.0", deflate=True)
        await client.join("echo:1")
        await client.push("2", "2", "slowjoin:1", "phx_join", {"ms": 1000})
        await trio.sleep(0.5)
        for i in range(10):
            await server.broadcast("echo:1", "meanwhile", {"i": i, "text": "the same words again"})
        messages = await client.wait_messages(12)
        assert messages[1][0] == "2"
        assert [message[4]["i"] for message in messages[2:]] == list(range(10))
        server.connections[0].close(1012)
        await client.over.wait()
        assert client.closed == (1012, "server")
