"""Channels: what one may write, and what the client sees of it."""

import json
from typing import Any

import pytest
import trio
import trio.testing
from tests.server.app import make_server
from tests.server.raw_client import RawClient

from slipstream_trio.errors import SerializationError
from slipstream_trio.testing.server import Channel, Mount, Outcome, PhoenixServer, Reply

OK = {"response": {}, "status": "ok"}


def server_of(channel: Any, **options: Any) -> PhoenixServer:
    return PhoenixServer({"/socket": Mount(channels={"*": channel}, **options)})


class Bare(Channel):
    """As little as possible."""


async def test_a_channel_without_a_join_lets_everyone_in(autojump_clock: trio.testing.MockClock) -> None:
    async with server_of(Bare).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        assert await client.join("any") == ["1", "1", "any", "phx_reply", OK]
        await client.push("1", "2", "any", "unheard", {})
        assert (await client.wait_messages(2))[1] == ["1", "1", "any", "phx_error", {"reason": "channel_crash"}]
        assert isinstance(server.errors[-1], NotImplementedError)
        nursery.cancel_scope.cancel()


async def test_pushing_during_join_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    class Early(Channel):
        async def join(self, payload: Any) -> Any:
            await self.push("early")

    async with server_of(Early).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        reply = await client.join("t")
        assert reply[4] == {"response": {"reason": "join crashed"}, "status": "error"}
        assert "after_join" in str(server.errors[-1])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("reason", "event", "payload"),
    [
        ("normal", "phx_close", {}),
        ("shutdown", "phx_close", {}),
        ("anything else", "phx_error", {"reason": "channel_crash"}),
    ],
)
async def test_a_stop_sends_its_reply_and_then_the_end_its_reason_calls_for(
    reason: str, event: str, payload: Any, autojump_clock: trio.testing.MockClock
) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        await client.push("1", "2", "echo:1", "stop", {"reason": reason})
        messages = await client.wait_messages(3)
        assert messages[1] == ["1", "2", "echo:1", "phx_reply", {"response": {"reason": reason}, "status": "ok"}]
        assert messages[2] == ["1", "1", "echo:1", event, payload]
        nursery.cancel_scope.cancel()


async def test_a_channel_stopped_from_outside_first_handles_what_it_was_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        (connection,) = server.connections
        channel = connection.channels["echo:1"]
        await client.push("1", "2", "echo:1", "slow_block", {"ms": 100})
        await trio.testing.wait_all_tasks_blocked()
        channel.stop()
        messages = await client.wait_messages(3)
        assert [message[3] for message in messages[1:]] == ["phx_reply", "phx_close"]
        assert connection.channels == {}
        with pytest.raises(RuntimeError, match="is not joined"):
            await channel.push("late")
        nursery.cancel_scope.cancel()


async def test_background_work_ends_with_the_channel_and_crashes_it_by_raising(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ended = trio.Event()

    class Worker(Channel):
        async def after_join(self) -> None:
            self.spawn(self.tick)

        async def tick(self) -> None:
            try:
                for i in range(3):
                    await trio.sleep(1)
                    await self.push("tick", {"i": i})
                raise RuntimeError("no more ticks")
            finally:
                ended.set()

    async with server_of(Worker).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("t")
        messages = await client.wait_messages(5)
        assert [message[3] for message in messages[1:]] == ["tick", "tick", "tick", "phx_error"]
        assert str(server.errors[-1]) == "no more ticks"
        ended = trio.Event()
        await client.join("t", ref="2")
        await client.push("2", "3", "t", "phx_leave", {})
        await ended.wait()
        assert trio.current_time() == pytest.approx(3.0)
        nursery.cancel_scope.cancel()


async def test_a_crash_costs_neither_the_socket_nor_other_channels(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        await client.join("echo:2", ref="2")
        await client.push("1", "3", "echo:1", "crash", {})
        await client.push("2", "4", "echo:2", "echo", {"still": "here"})
        events = {(message[0], message[3]) for message in (await client.wait_messages(4))[2:]}
        assert events == {("1", "phx_error"), ("2", "phx_reply")}
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_encoded_crashes_the_channel_that_sends_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Bad(Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
            return Reply({"set": {1}})

    async with server_of(Bad).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("t")
        await client.push("1", "2", "t", "e", {})
        assert (await client.wait_messages(2))[1][3] == "phx_error"
        assert isinstance(server.errors[-1], SerializationError)
        nursery.cancel_scope.cancel()


async def test_no_reply_is_no_frame(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
            return None

    async with server_of(Silent).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("t")
        await client.push("1", "2", "t", "e", {})
        await trio.sleep(1)
        assert len(client.frames) == 1
        nursery.cancel_scope.cancel()


async def test_a_handler_that_returns_nonsense_crashes_its_channel(autojump_clock: trio.testing.MockClock) -> None:
    class Nonsense(Channel):
        async def handle_in(self, event: str, payload: Any, ref: Any) -> Any:
            return {"a": "dict"}

    async with server_of(Nonsense).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("t")
        await client.push("1", "2", "t", "e", {})
        assert (await client.wait_messages(2))[1][3] == "phx_error"
        assert isinstance(server.errors[-1], TypeError)
        nursery.cancel_scope.cancel()


async def test_assigns_are_copied_from_the_socket(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, "/socket/websocket?vsn=2.0.0&user_id=7")
        await client.join("echo:1")
        await client.join("echo:2", ref="2")
        (connection,) = server.connections
        one, two = connection.channels.values()
        one.assigns["n"] = 1
        assert two.assigns == connection.assigns == {"user_id": "7"}
        assert (connection.id, one.topic, one.join_ref) == ("user_socket:7", "echo:1", "1")
        nursery.cancel_scope.cancel()


async def test_other_channels_frames_wait_for_a_join_and_follow_its_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """In Phoenix they sit in the mailbox of the socket's process, which waits for the join."""
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        await client.push("2", "2", "slowjoin:1", "phx_join", {"ms": 1000})
        await trio.sleep(0.5)
        await server.broadcast("echo:1", "meanwhile")
        messages = await client.wait_messages(3)
        assert [message[3] for message in messages[1:]] == ["phx_reply", "meanwhile"]
        assert trio.current_time() == pytest.approx(1.0)
        nursery.cancel_scope.cancel()


async def test_a_server_s_broadcast_reaches_every_channel_of_a_topic_in_its_own_serializer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        v2 = await RawClient.connect(server, nursery)
        v1 = await RawClient.connect(server, nursery, "/socket/websocket?vsn=1.0.0")
        await v2.join("echo:1")
        join = {"topic": "echo:1", "event": "phx_join", "payload": {}, "ref": "1"}
        await v1.send_all(json.dumps(join))
        await v1.wait_frames(1)
        await server.broadcast("echo:1", "phx_close", {"to": "all"})
        await server.broadcast("echo:2", "nobody")
        assert (await v2.wait_messages(2))[1] == [None, None, "echo:1", "phx_close", {"to": "all"}]
        assert (await v1.wait_messages(2))[1] == {
            "topic": "echo:1",
            "event": "phx_close",
            "payload": {"to": "all"},
            "ref": None,
        }
        nursery.cancel_scope.cancel()


async def test_a_socket_level_close_leaves_no_word_of_its_channels(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        (connection,) = server.connections
        connection.close(4321, "enough")
        await client.over.wait()
        assert client.log[-1][1] == ("close", 4321, "enough", True, "server")
        assert len(client.frames) == 1
        await connection.wait_closed()
        assert (connection.close_code, connection.closed_by) == (4321, "server")


async def test_an_event_that_is_no_string_crashes_the_channel(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        await client.push("1", "2", "echo:1", None, {})
        assert (await client.wait_messages(2))[1][3] == "phx_error"
        nursery.cancel_scope.cancel()


async def test_background_work_that_fails_during_the_join_is_a_crash_of_that_join(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Restless(Channel):
        async def join(self, payload: Any) -> Any:
            self.spawn(self.fail)
            await trio.sleep(1)

        async def fail(self) -> None:
            raise RuntimeError("at once")

    async with server_of(Restless).run() as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        reply = await client.join("t")
        assert reply[4] == {"response": {"reason": "join crashed"}, "status": "error"}
        assert server.connections[0].channels == {}
        nursery.cancel_scope.cancel()


async def test_serializer_1_reads_binary_frames_of_json_and_refuses_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, "/socket/websocket")
        heartbeat = {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "1"}
        await client.send_all(json.dumps(heartbeat).encode())
        assert (await client.wait_messages(1))[0]["payload"] == OK
        await client.send_all(b"\xff\xfe")
        await client.over.wait()
        assert client.closed == (1011, "server")


@pytest.mark.parametrize("encoded", ["!", "d2hvPj4-", "/w"])
async def test_a_token_that_cannot_be_read_is_an_error_of_the_server(
    autojump_clock: trio.testing.MockClock, encoded: str
) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        offered = ["phoenix", f"base64url.bearer.phx.{encoded}"]
        client = await RawClient.connect(server, nursery, "/authsocket/websocket", subprotocols=offered)
        assert client.status == 500
