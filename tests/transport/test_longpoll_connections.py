"""Whole connections by long-polling, against the library's own server."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trustme
from tests.client.support import URL, Lab, Recorder
from tests.transport.polls import Answer, Asked, http, opened, said, serving
from trio.testing import MockClock

from slipstream_trio import ConnectionLost, Gap, PushTimeout, Socket, connect
from slipstream_trio.protocol import Disconnect, V2Serializer
from slipstream_trio.testing.faults import Faults, Link, faulty_network
from slipstream_trio.testing.server import Mount, Outcome, PhoenixServer, Reply
from slipstream_trio.transport import OpenRequest, find_connector

pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "longpoll_exchange.json").read_text(encoding="utf-8"))


class Room(Lab):
    """Does what an event says; takes bytes, and its time."""

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "size":
                return Reply(len(payload))
            case "back":
                return Reply(payload["text"].encode())
            case "broadcast":
                await self.broadcast("said", payload)
                return Reply()
        return await super().handle_in(event, payload, ref)


class SlowRoom(Room):
    async def join(self, payload: Any) -> Any:
        await trio.sleep(payload)
        return {}


@asynccontextmanager
async def polled(mount: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[tuple[Socket, PhoenixServer]]:
    channels = {"room:*": Room, "slow:*": SlowRoom}
    server = PhoenixServer({"/socket": Mount(**{"channels": channels, **(mount or {})})})
    async with server.run(), connect(URL, transport=server.connector("longpoll"), **options) as socket:
        yield socket, server


@pytest.mark.parametrize("vsn", ["2.0.0", "1.0.0"])
async def test_joins_pushes_broadcasts_and_leaves(vsn: str, autojump_clock: MockClock) -> None:
    async with polled(vsn=vsn) as (socket, server):
        assert socket.state.options.transport == "longpoll"
        async with socket.join("room:1", {"a": "ü"}) as channel, channel.subscribe("said") as heard:
            assert channel.join_response == {"joined": {"a": "ü"}}
            assert await channel.push("echo", {"n": 1}) == {"n": 1}
            await channel.push("broadcast", {"n": 2})
            await server.broadcast("room:1", "said", {"n": 3})
            assert [(await anext(heard)).payload for _ in range(2)] == [{"n": 2}, {"n": 3}]
        assert channel.status == "closed"
        (connection,) = server.connections
        assert [message.event for message in connection.received] == ["phx_join", "echo", "broadcast", "phx_leave"]


async def test_it_lives_by_heartbeats(autojump_clock: MockClock) -> None:
    async with polled() as (socket, _), socket.join("room:1") as channel:
        await trio.sleep(600)
        assert socket.generation == 1
        assert await socket.ping() < 1
        assert await channel.push("echo", 1) == 1


async def test_without_heartbeats_it_does_too(autojump_clock: MockClock) -> None:
    async with polled(heartbeat_interval=None) as (socket, _), socket.join("room:1") as channel:
        await trio.sleep(600)
        assert await channel.push("echo", 1) == 1
        assert socket.generation == 1


async def test_large_payloads_go_both_ways(autojump_clock: MockClock) -> None:
    text = 'ü"\\\n' * 200_000
    async with polled() as (socket, _), socket.join("room:1") as channel:
        assert await channel.push("echo", {"text": text}) == {"text": text}


async def test_binary_payloads_go_to_the_server(autojump_clock: MockClock) -> None:
    async with polled() as (socket, _), socket.join("room:1") as channel:
        assert await channel.push("size", bytes(range(256)) * 100) == 25_600


async def test_one_that_comes_costs_its_frame_where_it_is_text(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with polled() as (socket, _), socket.join("room:1") as channel:
        with pytest.raises(PushTimeout):
            await channel.push("back", {"text": "text"})
        assert await channel.push("echo", 1) == 1
    assert "a frame was rejected: a binary message as text" in caplog.text


def test_the_serializer_says_so() -> None:
    for kind in "\x00\x01\x02":
        with pytest.raises(Exception, match="a binary message as text: long-polling brings those to servers only"):
            V2Serializer().decode(f"{kind}\x01\x01")
    with pytest.raises(Exception, match="not JSON"):
        V2Serializer().decode("\x03")


async def test_two_hundred_and_fifty_pushes_at_once(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with polled() as (socket, server), socket.join("room:1") as channel:
        posts = 0
        session = next(iter(server.sessions.values()))
        take = session.take

        async def counting(*given: Any) -> int:
            nonlocal posts
            posts += 1
            return await take(*given)

        monkeypatch.setattr(session, "take", counting)
        answers: dict[int, Any] = {}

        async def push(number: int) -> None:
            answers[number] = await channel.push("echo", number)

        async with trio.open_nursery() as nursery:
            for number in range(250):
                nursery.start_soon(push, number)
        assert answers == {number: number for number in range(250)}
        assert posts == 3


async def test_a_session_that_the_server_has_forgotten_is_replaced_and_what_was_missed_is_told(
    autojump_clock: MockClock,
) -> None:
    ends: list[Disconnect] = []

    def note(end: Disconnect) -> bool:
        ends.append(end)
        return True

    async with polled(should_reconnect=note) as (socket, server), socket.join("room:1") as channel:
        server.connections[0].drop()
        await trio.lowlevel.checkpoint()
        await server.broadcast("room:1", "said", {"lost": True})
        gap = await anext(channel.stream())
        assert isinstance(gap, Gap)
        assert gap.reason == "reconnected"
        assert await channel.push("echo", 1) == 1
        assert socket.generation == 2
    (end,) = ends
    assert (end.reason, end.code, end.ended_by, end.message) == ("closed_by_server", 3410, "server", "session_gone")


async def test_a_push_into_a_session_that_is_gone_raises(autojump_clock: MockClock) -> None:
    async with polled(reconnect=None) as (socket, server):
        async with socket.join("room:1") as channel:
            server.connections[0].drop()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConnectionLost) as raised:
                await channel.push("echo", 1)
        assert (raised.value.code, raised.value.sent) == (3410, True)


async def test_a_server_that_is_slow_holds_up_what_follows_and_costs_the_session_after_the_window(
    autojump_clock: MockClock,
) -> None:
    async with polled(join_timeout=60) as (socket, _):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.channel("slow:1", 9.0).join)
            await trio.sleep(1)
            nursery.start_soon(socket.channel("room:1").join)
        assert trio.current_time() - started == 9
        assert socket.generation == 1
        with pytest.raises(ConnectionLost, match="status 408"):
            await socket.channel("slow:2", 11.0).join()


async def test_a_server_that_reads_nothing_is_lost_by_its_silence(autojump_clock: MockClock) -> None:
    recorder = Recorder()

    async def hang(_: Asked) -> Answer:
        await trio.sleep_forever()

    async with serving() as server:
        server.on_post = hang
        connector = find_connector("longpoll", server.open_stream)
        with pytest.raises(ConnectionLost) as raised:
            async with connect(
                URL, transport=connector, heartbeat_interval=5, reconnect=None, telemetry=recorder.bus
            ) as socket:
                await socket.channel("room:1").join(timeout=None)
        assert raised.value.reason == "heartbeat_timeout"
        assert trio.current_time() == pytest.approx(20 + 1, abs=0.1)  # so long a join holds it up


async def test_a_crash_of_the_socket_s_process_is_an_end(autojump_clock: MockClock) -> None:
    async with polled() as (socket, server), socket.join("room:1") as channel:
        server.connections[0].close(1012)
        started = trio.current_time()
        with pytest.raises(ConnectionLost):  # as of Phoenix's: the poll under way waits for its window's end
            await channel.push("echo", 1, timeout=30)
        assert trio.current_time() - started == pytest.approx(12, abs=0.1)
        await channel.push("echo", 2)
        assert socket.generation == 2


async def test_leaving_by_exception_posts_the_leave_and_ends_the_polls(autojump_clock: MockClock) -> None:
    channels = {"room:*": Room}
    server = PhoenixServer({"/socket": Mount(channels=channels)})
    async with server.run():
        started = trio.current_time()
        with pytest.raises(KeyError):
            async with connect(URL, transport=server.connector("longpoll")) as socket, socket.join("room:1"):
                (connection,) = server.connections
                raise KeyError
        assert trio.current_time() == started
        assert [message.event for message in connection.received] == ["phx_join", "phx_leave"]
        await trio.sleep(31)
        assert server.connections == ()


async def test_cancelling_at_any_moment_leaves_nothing(autojump_clock: MockClock) -> None:
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})})
    async with server.run():
        for moment in range(0, 60, 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(visit, server)
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await trio.sleep(31)
        assert server.connections == ()
        assert server.errors == type(server.errors)()


async def visit(server: PhoenixServer) -> None:
    async with connect(URL, transport=server.connector("longpoll")) as socket, socket.join("room:1") as channel:
        await channel.push("echo", 1)


async def test_it_runs_through_a_network_of_faults(autojump_clock: MockClock) -> None:
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})})
    async with server.run(), faulty_network(Faults(toward_client=Link(latency=0.2))) as network:
        connector = find_connector("longpoll", network.opener(lambda _: server.open_stream()))
        async with connect(URL, transport=connector) as socket, socket.join("room:1") as channel:
            assert await channel.push("echo", 1) == 1
            assert await socket.ping() >= 0.19


async def test_refs_and_secrets_are_in_no_error(autojump_clock: MockClock) -> None:
    async def unknown(_: Asked) -> Answer:
        return said(410, [], "s3cr3t-token")

    async def cut(_: Asked) -> Answer:
        return None

    async with serving() as server:
        server.on_open, server.on_post = unknown, cut
        recorder = Recorder()
        connector = find_connector("longpoll", server.open_stream)
        options: dict[str, Any] = {"params": {"key": "s3cr3t-param"}, "auth_token": "s3cr3t-auth", "reconnect": None}
        with pytest.raises(ConnectionLost) as raised:
            async with connect(URL, transport=connector, telemetry=recorder.bus, **options) as socket:
                await socket.channel("room:1").join()
        assert "s3cr3t" not in f"{raised.value!r} {raised.value}"
        assert "s3cr3t" not in " ".join(map(repr, recorder.records))


# On real sockets


@pytest.mark.parametrize("secure", [False, True])
async def test_tcp_and_tls(secure: bool) -> None:
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})})
    async with server.serve(ssl_context=theirs if secure else None) as listening:
        scheme = "wss" if secure else "ws"
        url = f"{scheme}://localhost:{listening.port}/socket/websocket"
        async with (
            connect(url, transport="longpoll", ssl_context=ours) as socket,
            socket.join("room:1") as channel,
        ):
            for _ in range(3):
                assert await channel.push("echo", "x" * 200_000) == "x" * 200_000


async def test_no_post_is_sent_into_a_connection_that_the_server_has_closed() -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        server.hangs_up = True
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        host, port = listeners[0].socket.getsockname()
        opening = find_connector("longpoll").open(OpenRequest(url=f"ws://{host}:{port}/websocket"), lambda: None)
        async with opening as transport:
            for number in range(5):
                await transport.send([f"[{number}]"])
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(server.posts) == 5
        nursery.cancel_scope.cancel()


async def test_the_recorded_exchange_is_played(autojump_clock: MockClock) -> None:
    opening, posted, polled = RECORDED

    async def open_(_: Asked) -> Answer:
        return http(opening["response"])

    async def post(asked: Asked) -> Answer:
        assert asked.body.decode() == posted["body"]
        return http(posted["response"])

    async def poll(_: Asked) -> Answer:
        return http(polled["response"]) if server.posts else said(204)

    async with serving() as server:
        server.on_open, server.on_post, server.on_poll = open_, post, poll
        async with opened(server, url=opening["url"].replace("longpoll", "websocket")) as transport:
            await transport.send(posted["body"].split("\n"))
            joined, echoed = map(V2Serializer().decode, await transport.receive())
    assert [asked.method for asked in server.asked] == ["GET", "POST", "GET"]
    assert (joined.topic, joined.event, joined.ref) == ("echo:lp", "phx_reply", "1")
    assert echoed.payload == {"status": "ok", "response": {"a": 1}}
