"""The kit's fake server: what clients do is expected, and what they get is said, over the real driver."""

from typing import Any

import pytest
import trio
from tests.server.raw_client import RawClient
from tests.testing.support import parties, watched
from trio.testing import MockClock

from slipstream_trio import Backoff, ChannelClosed, JoinError, PushError, PushTimeout, connect
from slipstream_trio.ids import RandomIds
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.kit import ANY, ExpectationFailed, FakeServer, including
from slipstream_trio.testing.server import Channel as ServerChannel, Mount, PhoenixServer, Reply


async def test_a_conversation_reads_from_top_to_bottom(autojump_clock: MockClock) -> None:
    async with watched() as on:
        said: list[Any] = []

        async def client() -> None:
            async with on.connect(params={"token": "t"}) as socket, socket.join("room:1", {"user": 7}) as channel:
                said.append(channel.join_response)
                said.append(await channel.push("new_msg", {"body": "hi", "at": 1}))
                async for message in channel:
                    said.append((message.event, message.payload, message.join_ref == channel.join_ref))
                    if message.event == "last":
                        break

        on.nursery.start_soon(client)
        connection = await on.server.accept()
        assert connection.request.params == {"token": "t", "vsn": "2.0.0"}
        join = await connection.expect_join("room:*", {"user": int})
        assert (join.topic, join.event, join.payload, join.ref, join.join_ref) == (
            *("room:1", "phx_join", {"user": 7}),
            *("1", "1"),
        )
        channel = await join.reply_ok({"users": 3})
        push = await channel.expect_push("new_msg", including(body=ANY))
        assert push.payload == {"body": "hi", "at": 1}
        await push.reply_ok({"id": 9})
        await channel.push("first", {"n": 1})
        await on.server.broadcast("room:1", "last")
        leave = await channel.expect_leave()
        assert leave.join_ref == join.ref
        ended = await connection.expect_disconnect(1000)
        assert (ended.code, ended.by) == (1000, "client")
        assert said == [{"users": 3}, {"id": 9}, ("first", {"n": 1}, True), ("last", {}, False)]
        assert not channel.joined
        assert connection.unexpected == []


async def test_joins_can_be_refused_and_pushes_too(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(rejoin=None) as socket:
        connection = await on.server.accept()

        async def refuse() -> None:
            await (await connection.expect_join("room:1")).reply_error({"reason": "full"})
            channel = await (await connection.expect_join("room:2")).reply_ok()
            await (await channel.expect_push("a")).reply_error({"reason": "no"})
            await (await channel.expect_push("b")).reply("odd", [1])

        on.nursery.start_soon(refuse)
        with pytest.raises(JoinError, match="full"):
            async with socket.join("room:1"):
                pytest.fail("not joined")
        async with socket.join("room:2") as channel:
            for event, status, response in (("a", "error", {"reason": "no"}), ("b", "odd", [1])):
                with pytest.raises(PushError) as caught:
                    await channel.push(event)
                assert (caught.value.status, caught.value.response) == (status, response)


async def test_what_is_not_expected_waits_and_is_not_answered(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake):
        with pytest.raises(PushTimeout):
            await channel.push("early", timeout=60)
        await channel.send("other")
        assert (await fake.expect_push("other", within=0.1)).event == "other"
        push = await fake.expect_push("early", within=0)
        await push.reply_ok({"too": "late"})
        await trio.testing.wait_all_tasks_blocked()
        [late] = on.named("reply_orphaned")
        assert (late.ref, late.response) == (push.ref, {"too": "late"})


async def test_an_expectation_looks_at_each_message_once_until_it_fails(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        asked: list[int] = []

        def is_third(payload: Any) -> bool:
            asked.append(payload["n"])
            return bool(payload["n"] == 3)

        async def speak() -> None:
            for number in range(1, 5):
                await channel.send("tick", {"n": number})
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await fake.expect_push("tick", is_third)
        assert asked == [1, 2, 3]
        assert [message.payload for message in fake.connection.unexpected] == [{"n": 1}, {"n": 2}, {"n": 4}]


async def test_replies_may_come_in_another_order_and_twice(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake):
        replies: dict[str, Any] = {}

        async def ask(event: str) -> None:
            replies[event] = await channel.push(event)

        on.nursery.start_soon(ask, "one")
        one = await fake.expect_push("one")
        on.nursery.start_soon(ask, "two")
        two = await fake.expect_push("two")
        for push in (two, one, two, one):
            await push.reply_ok({"to": push.event})
        await trio.testing.wait_all_tasks_blocked()
        assert replies == {"one": {"to": "one"}, "two": {"to": "two"}}
        assert [(record.outcome, record.response["to"]) for record in on.named("push", "stop")] == [
            ("ok", "two"),
            ("ok", "one"),
        ]


async def test_a_channel_that_crashes_is_joined_again_and_one_that_closes_is_not(autojump_clock: MockClock) -> None:
    async with parties(connecting={"rejoin": Backoff((3,), jitter=0)}) as (_on, channel, fake):
        connection = fake.connection
        await connection.channel("room:1").crash()
        assert not fake.joined
        await connection.refute_join(within=2.9)
        again = await (await connection.expect_join("room:1", within=1)).reply_ok({"again": True})
        await trio.testing.wait_all_tasks_blocked()
        assert (channel.status, again.join_ref) == ("joined", channel.join_ref)
        assert fake.join_ref != again.join_ref
        await fake.push("outdated")  # on a join that is over
        await again.push("current")
        assert (await anext(aiter(channel))).event == "current"
        await connection.channel("room:1").close()
        with pytest.raises(ChannelClosed):
            await channel.push("anything")
        await connection.refute_join(within=100)


async def test_a_reply_to_nobodys_join_leaves_the_second_of_two_in_place(autojump_clock: MockClock) -> None:
    async with parties(answers={"connect", "heartbeat"}) as (on, channel, fake):
        assert fake.connection.channels == {"room:1": fake}
        on.nursery.start_soon(channel.leave)
        leave = await fake.expect_leave()
        await fake.refute_leave(within=1)
        assert (channel.status, fake.joined) == ("leaving", True)
        await leave.confirm()
        await trio.testing.wait_all_tasks_blocked()
        assert (channel.status, fake.joined) == ("closed", False)
        on.nursery.start_soon(channel.join)
        await (await fake.connection.expect_join()).reply_ok()
        await leave.confirm()  # a second time: the join of now is none of its business
        await trio.testing.wait_all_tasks_blocked()
        assert channel.status == "joined"
        on.nursery.start_soon(channel.leave)
        await (await fake.connection.expect_leave("room:*")).confirm()


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_both_versions_of_the_protocol_are_spoken(vsn: str, autojump_clock: MockClock) -> None:
    async with parties(connecting={"vsn": vsn}) as (on, channel, fake):
        assert fake.connection.vsn == vsn
        on.nursery.start_soon(channel.send, "said", {"by": "client"})
        assert (await fake.expect_push("said", {"by": "client"})).payload == {"by": "client"}
        await fake.push("heard", {"by": "channel"})
        await on.server.broadcast("room:1", "heard", {"by": "broadcast"})
        stream = aiter(channel)
        assert [(await anext(stream)).payload["by"] for _ in range(2)] == ["channel", "broadcast"]
        await fake.close()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_payloads_may_be_binary_both_ways(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake):
        replies: list[Any] = []

        async def upload() -> None:
            replies.append(await channel.push("upload", b"\x00\x01"))

        on.nursery.start_soon(upload)
        await (await fake.expect_push("upload", b"\x00\x01")).reply_ok(b"\x02")
        await fake.push("file", b"\x03")
        await on.server.broadcast("room:1", "file", b"\x04")
        stream = aiter(channel)
        assert [(await anext(stream)).payload for _ in range(2)] == [b"\x03", b"\x04"]
        assert replies == [b"\x02"]


async def test_frames_that_no_server_should_send_cost_only_themselves(autojump_clock: MockClock) -> None:
    async with parties() as (_on, channel, fake):
        await fake.connection.send_raw("not json", b"\xff", "[]", "")
        await fake.push("after")
        assert (await anext(aiter(channel))).event == "after"


async def test_bytes_that_are_no_frames_cost_the_connection(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(reconnect=Backoff((1,), jitter=0)) as socket:
        connection = await on.server.accept()
        await connection.send_bytes(b"\xff\xff\xff\xff")
        await connection.expect_disconnect(1002, by="client")
        await (await on.server.accept()).refute_disconnect(within=10)
        assert socket.generation == 2


async def test_a_server_may_answer_joins_and_pushes_by_itself(autojump_clock: MockClock) -> None:
    everything: Any = {"connect", "join", "push", "leave", "heartbeat"}
    async with watched(answers=everything) as on, on.connect() as socket:
        connection = await on.server.accept()
        async with socket.join("room:1") as channel:
            assert await channel.push("anything", {"at": "all"}) == {}
            assert (await connection.expect_push()).payload == {"at": "all"}
            await connection.channel("room:1").push("hello")
            assert (await anext(aiter(channel))).event == "hello"
            assert (await connection.expect_join()).topic == "room:1"


async def test_a_topic_may_be_any_value(autojump_clock: MockClock) -> None:
    everything: Any = {"connect", "join", "push", "leave", "heartbeat"}
    async with FakeServer(answers=everything) as server, trio.open_nursery() as nursery:
        client = await RawClient.connect(server.phoenix, nursery)
        connection = await server.accept()
        for ref, event in (("1", "phx_join"), ("2", "phx_leave"), ("3", "hello")):
            await client.push("1", ref, ["room"], event, {})
            await connection.expect_message(event=event)
            await connection.push(["room"], "after")  # type: ignore[arg-type]
        answers = [message[:3] for message in await client.wait_messages(6)]
        assert answers[::2] == [["1", ref, ["room"]] for ref in ("1", "2", "3")]
        assert connection.channels == {}
        assert not server.phoenix.errors
        nursery.cancel_scope.cancel()


async def test_heartbeats_are_seen_though_they_are_answered(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(heartbeat_interval=30) as socket:
        connection = await on.server.accept()
        started = trio.current_time()
        for number in (1, 2, 3):
            assert (await connection.expect_message(event="heartbeat", within=31)).topic == "phoenix"
            assert trio.current_time() - started == pytest.approx(30 * number)
        await trio.testing.wait_all_tasks_blocked()  # the answer to the third is on its way
        assert await socket.ping() == 0
        await connection.expect_message(event="heartbeat")
        await connection.refute_message(event="heartbeat", within=29)


async def test_a_heartbeat_that_is_not_answered_ends_the_connection(autojump_clock: MockClock) -> None:
    async with watched(answers={"connect", "leave"}) as on:
        async with on.connect(heartbeat_interval=30, reconnect=Backoff((1,), jitter=0)) as socket:
            connection = await on.server.accept()
            late = await connection.expect_message(event="heartbeat", within=31)
            await connection.expect_disconnect(by="client", within=40)
            with pytest.raises(RuntimeError, match=r"connection 1 has ended: the client closed it, code \d+"):
                await late.reply_ok()
            await on.server.accept()
            await socket.wait_connected()
            assert socket.generation == 2


async def test_several_clients_and_servers_do_not_mix(autojump_clock: MockClock) -> None:
    async with watched() as on, watched() as other, trio.open_nursery() as nursery:
        heard: list[tuple[str, str]] = []

        async def client(name: str, at: Any) -> None:
            async with at.connect() as socket, socket.join("room", name) as channel:
                heard.append((name, (await anext(aiter(channel))).payload["from"]))

        for name in ("a", "b"):
            nursery.start_soon(client, name, on)
        nursery.start_soon(client, "c", other)
        for at in (on, on, other):
            connection = await at.server.accept()
            await (await connection.expect_join("room", str)).reply_ok()
        assert [len(at.server.connections) for at in (on, other)] == [2, 1]
        await on.server.broadcast("room", "hello", {"from": "first"})
        await other.server.broadcast("room", "hello", {"from": "second"})
        await on.server.broadcast("nowhere", "hello")
        for at in (on, other):
            for connection in at.server.connections:
                await connection.expect_disconnect(1000)
        assert sorted(heard) == [("a", "first"), ("b", "first"), ("c", "second")]


async def test_two_tasks_may_expect_at_once_and_each_takes_its_own(autojump_clock: MockClock) -> None:
    async with parties() as (_on, channel, fake):
        taken: list[str] = []

        async def expect(event: str) -> None:
            taken.append((await fake.expect_push(event)).event)

        async with trio.open_nursery() as nursery:
            for event in ("x", "y", "z*"):
                nursery.start_soon(expect, event)
            await trio.testing.wait_all_tasks_blocked()
            for event in ("zebra", "y", "x"):
                await channel.send(event)
        assert sorted(taken) == ["x", "y", "zebra"]


async def test_an_expectation_that_is_cancelled_takes_nothing(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        with trio.move_on_after(1):
            await fake.expect_push("late")
        await channel.send("late")
        assert (await fake.expect_push("late")).event == "late"
        with pytest.raises(ExpectationFailed):
            await fake.expect_push("late", within=1)


async def test_the_topic_of_a_channel_is_no_pattern(autojump_clock: MockClock) -> None:
    async with watched(answers={"connect", "join", "leave"}) as on, on.connect() as socket:
        connection = await on.server.accept()
        async with socket.join("room:*"), socket.join("room:1") as other:
            await connection.expect_message("room:1", "phx_join")
            await other.send("hello")
            await connection.channel("room:*").refute_push("hello", within=1)
            await connection.expect_message(event="hello")
            await connection.refute_message("room:1", within=1)


async def test_the_bodys_exception_leaves_the_block_unchanged(autojump_clock: MockClock) -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with FakeServer() as server:
            server.requests.append(None)  # type: ignore[arg-type]
            raise mine
    assert caught.value is mine


class Echo(ServerChannel):
    """What the fake server is made to do, too."""

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Any:
        await self.push("echo", payload)
        return Reply(payload)


async def test_its_clients_emit_the_telemetry_that_clients_of_a_server_emit(autojump_clock: MockClock) -> None:
    async def visit(**options: Any) -> list[Any]:
        seen: list[Any] = []
        telemetry = Telemetry(ids=RandomIds(0), time_ns=lambda: 0, monotonic_ns=lambda: 0)
        telemetry.attach("seen", (), seen.append, prefix=True)
        async with connect(
            "ws://fake/socket/websocket", telemetry=telemetry, heartbeat_interval=1, **options
        ) as socket:
            async with socket.join("room:1", {"a": 1}) as channel:
                await channel.push("new_msg", {"b": 2})
                await trio.sleep(2.5)
        return [told(record) for record in seen]

    async with PhoenixServer({"/socket": Mount(channels={"room:*": Echo})}).run() as phoenix:
        real = await visit(transport=phoenix.connector())
    async with FakeServer() as server, trio.open_nursery() as nursery:

        async def play() -> None:
            channel = await (await (await server.accept()).expect_join()).reply_ok()
            push = await channel.expect_push()
            await channel.push("echo", push.payload)
            await push.reply_ok(push.payload)

        nursery.start_soon(play)
        fake = await visit(transport=server.connector())
    assert real == fake
    assert len(real) > 20


def told(record: Record) -> Any:
    """Return what a record says, but for times and headers, in which servers differ."""
    metadata = dict(record.metadata)
    events = [type(event).__name__ for event in metadata.get("built_events", ())]
    kept = {
        name: metadata.get(name) for name in ("connection_id", "trace_id", "span_id", "generation", "topic", "event")
    }
    kept |= {name: metadata.get(name) for name in ("params", "response", "outcome", "ref", "status")}
    return record.name, kept, events
