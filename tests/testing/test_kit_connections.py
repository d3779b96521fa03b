"""The kit's fake server: letting in, refusing, closing, cutting, partitions and restarts."""

import gc
from contextlib import nullcontext
from typing import Any

import pytest
import trio
import trio.testing
from tests.testing.support import parties, watched
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectError, ConnectionLost, ConnectionRejected, connect
from slipstream_trio.testing.kit import ExpectationFailed, FakeServer

EVERY_SECOND = Backoff((1,), jitter=0)


# Letting in


async def test_a_client_can_be_refused(autojump_clock: MockClock) -> None:
    async with watched() as on:
        on.server.refuse(429, [("retry-after", "7")], "slow down", times=2)
        for _ in range(2):
            with pytest.raises(ConnectionRejected) as caught:
                async with on.connect(auth_token="secret"):
                    pytest.fail("let in")
            assert (caught.value.status, caught.value.body) == (429, "slow down")
            assert ("retry-after", "7") in caught.value.headers
        async with on.connect():
            await on.server.accept()
        assert len(on.server.requests) == 3
        assert "secret" not in repr(on.server.requests) + repr(on.server.connections)


async def test_a_server_that_lets_nobody_in_by_itself_waits_for_the_test(autojump_clock: MockClock) -> None:
    async with watched(answers=()) as on:
        outcomes: list[Any] = []

        async def client() -> None:
            try:
                async with on.connect() as socket:
                    outcomes.append(socket.status)
            except ConnectionRejected as error:
                outcomes.append(error.status)

        for _ in range(3):
            on.nursery.start_soon(client)
        await trio.sleep(1)
        assert outcomes == []
        on.server.refuse(503)
        await trio.sleep(1)
        assert outcomes == [503]
        first = await on.server.accept()
        second = await on.server.accept()
        for connection in (first, second):
            await connection.expect_disconnect(1000)
        assert outcomes == [503, "connected", "connected"]
        with pytest.raises(ExpectationFailed):
            await on.server.accept(within=1)
        on.server.refuse(401)  # and nothing is left of the accept that failed
        on.nursery.start_soon(client)
        await trio.sleep(1)
        assert outcomes[3:] == [401]


async def test_an_accept_that_was_cancelled_lets_nobody_in(autojump_clock: MockClock) -> None:
    async with watched(answers=()) as on:
        with trio.move_on_after(1) as waiting:
            await on.server.accept()
        assert waiting.cancelled_caught
        with pytest.raises(ConnectError, match="not connected within 10"):
            async with on.connect():
                pytest.fail("let in")


async def test_several_tasks_can_accept_a_client_each(autojump_clock: MockClock) -> None:
    async with watched(answers={"leave"}) as on, trio.open_nursery() as accepting:
        accepted: list[int] = []

        async def accept() -> None:
            accepted.append((await on.server.accept()).number)

        async def client(seconds: float) -> None:
            await trio.sleep(seconds)
            async with on.connect():
                pass

        for seconds in (1.0, 2.0):
            accepting.start_soon(accept)
            accepting.start_soon(client, seconds)
    assert accepted == [1, 2]


async def test_a_client_that_has_given_up_is_not_accepted_in_place_of_the_one_that_waits(
    autojump_clock: MockClock,
) -> None:
    async with watched(answers={"leave"}) as on:
        with pytest.raises(ConnectError, match="not connected within 2"):
            async with on.connect(connect_timeout=2):
                pytest.fail("let in")

        async def client() -> None:
            async with on.connect(connect_timeout=None):
                pass

        on.nursery.start_soon(client)
        await trio.sleep(3600)  # as long as it likes: the server does not hang up either
        connection = await on.server.accept()
        await connection.expect_disconnect(1000)
        assert (connection.number, len(on.server.requests)) == (1, 2)


async def test_clients_are_accepted_in_the_order_of_their_coming(autojump_clock: MockClock) -> None:
    async with watched(answers={"connect", "leave"}) as on, on.connect(params={"n": 1}), on.connect(params={"n": 2}):
        assert (await on.server.accept()).request.params == {"n": "1", "vsn": "2.0.0"}
        assert (await on.server.accept()).number == 2


async def test_no_connection_can_be_refuted(autojump_clock: MockClock) -> None:
    async with watched() as on:
        await on.server.refute_connect(within=60)
        async with on.connect():
            await on.server.accept()
            await on.server.refute_connect()


# Ends


async def test_a_close_code_reaches_the_client(autojump_clock: MockClock) -> None:
    async with parties(connecting={"reconnect": EVERY_SECOND}) as (on, channel, fake):
        with pytest.raises(ConnectionLost) as caught:
            on.nursery.start_soon(fake.connection.close, 4001, "go away")
            await channel.push("anything")
        assert (caught.value.reason, caught.value.code) == ("closed_by_server", 4001)
        ended = await fake.connection.expect_disconnect(4001, by="server")
        assert ended == fake.connection.disconnection == await fake.connection.wait_closed()
        with pytest.raises(RuntimeError, match="connection 1 has ended: the server closed it, code 4001"):
            await fake.push("anything")
        with pytest.raises(RuntimeError, match="has ended"):
            await fake.connection.send_raw("x")
        with pytest.raises(RuntimeError, match="has ended"):
            await fake.connection.send_bytes(b"x")


async def test_a_connection_can_be_cut(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(reconnect=EVERY_SECOND) as socket:
        connection = await on.server.accept()
        assert str(await connection.drop()) == "it was lost, code 1006"
        await (await on.server.accept()).refute_disconnect(within=10)
        await socket.wait_connected()
        assert socket.generation == 2


@pytest.mark.parametrize("flavour", ["bandit", "cowboy"])
async def test_a_close_is_answered_as_the_web_server_does(flavour: Any, autojump_clock: MockClock) -> None:
    async with watched(flavour=flavour) as on:
        async with on.connect():
            pass
        assert str(await (await on.server.accept()).expect_disconnect()) == "the client closed it, code 1000"


# Trouble with the net


async def test_a_partition_loses_nothing_and_says_nothing(autojump_clock: MockClock) -> None:
    async with parties() as (_on, channel, fake):
        with fake.connection.partition():
            await channel.send("lost?")
            await fake.push("lost?")
            await fake.refute_push(within=20)
            with trio.move_on_after(20) as waiting:
                await anext(aiter(channel))
            assert waiting.cancelled_caught
            assert channel.status == "joined"
        await fake.expect_push("lost?")
        assert (await anext(aiter(channel))).event == "lost?"


async def test_what_was_said_before_a_partition_arrives(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        for number in range(100):
            await fake.push("said", {"n": number})
            with fake.connection.partition():
                assert (await anext(aiter(channel))).payload == {"n": number}


async def test_what_is_expected_was_answered_before_a_partition(autojump_clock: MockClock) -> None:
    async with watched(answers={"connect", "join", "push"}) as on, on.connect() as socket:
        connection = await on.server.accept()
        channel = socket.channel("room:1")
        on.nursery.start_soon(channel.join)
        await connection.expect_join()
        with connection.partition():
            await trio.testing.wait_all_tasks_blocked()
            assert channel.status == "joined"
        on.nursery.start_soon(channel.push, "question")
        await connection.expect_push()
        with connection.partition():
            await trio.testing.wait_all_tasks_blocked()
            assert [push.outcome for push in on.named("push", "stop")] == ["ok"]
        connection.server.answers |= {"leave"}


async def test_a_client_that_does_not_read_holds_a_test_up_for_a_while_only(autojump_clock: MockClock) -> None:
    async with FakeServer(timeout=7) as server:
        stream = await server.phoenix.open_stream()
        await stream.send_all(
            b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        connection = await server.accept()
        started = trio.current_time()
        await connection.push("room", "large", "x" * 100_000)
        assert trio.current_time() - started == pytest.approx(7)


async def test_a_client_notices_a_long_partition_by_its_heartbeat(autojump_clock: MockClock) -> None:
    async with watched() as on:
        async with on.connect(heartbeat_interval=30, reconnect=EVERY_SECOND) as socket:
            connection = await on.server.accept()
            connection.partition()
            await on.server.refute_connect(within=50)
            again = await on.server.accept(within=20)
            await connection.refute_disconnect(within=100)
            connection.heal()
            await connection.expect_disconnect()
            await again.refute_disconnect(within=100)
            await socket.wait_connected()


@pytest.mark.parametrize(("code", "reason"), [(1012, "closed_by_server"), (None, "transport_lost")])
async def test_a_restart_ends_all_and_refuses_all_for_a_while(
    code: int | None, reason: str, autojump_clock: MockClock
) -> None:
    async with watched() as on, on.connect(reconnect=EVERY_SECOND) as one, on.connect(reconnect=EVERY_SECOND):
        for _ in range(2):
            await on.server.accept()
        await on.server.restart(down=3.5, code=code)
        assert trio.current_time() == pytest.approx(3.5)
        for _ in range(2):
            await on.server.accept(within=1)
        await one.wait_connected()
        assert one.generation == 2
        assert trio.current_time() == pytest.approx(4)
        assert {record.code for record in on.named("reconnect_scheduled")} >= {code or 1006}


async def test_a_stopped_server_refuses_those_who_wait_and_those_who_come(autojump_clock: MockClock) -> None:
    async with watched(answers=()) as on:

        async def client(expected: type[Exception]) -> None:
            with pytest.raises(expected):
                async with on.connect():
                    pytest.fail("let in")

        on.nursery.start_soon(client, ConnectionRejected)
        await trio.testing.wait_all_tasks_blocked()
        await on.server.stop()
        await client(ConnectError)
        await on.server.start()
        await on.server.start()
        on.nursery.start_soon(client, ConnectionRejected)
        on.server.refuse()


# On sockets


async def test_the_same_goes_on_real_sockets() -> None:
    async with watched() as on, on.server.phoenix.serve() as listening:
        url = listening.url("/socket/websocket")
        async with connect(url, telemetry=on.telemetry, reconnect=Backoff((0.01,), jitter=0)) as socket:
            connection = await on.server.accept()

            async def serve() -> None:
                channel = await (await connection.expect_join("room", {"n": 1})).reply_ok({"n": 2})
                await (await channel.expect_push("echo")).reply_ok([3])

            on.nursery.start_soon(serve)
            async with socket.join("room", {"n": 1}) as channel:
                assert channel.join_response == {"n": 2}
                assert await channel.push("echo") == [3]
            await connection.expect_leave("room")
            await on.server.restart(down=0.02, code=None)
            again = await on.server.accept()
            await socket.wait_connected()
            assert (socket.generation, again.number) == (2, 2)
        await again.expect_disconnect(1000)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_server_on_sockets_stops_listening_however_its_block_ends(cancelled: bool) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope, nullcontext() if cancelled else pytest.raises(LookupError, match="mine"):
        async with FakeServer() as server, server.phoenix.serve() as listening:
            if cancelled:
                scope.cancel()
                await trio.sleep_forever()
            raise LookupError("mine")
    assert trio.lowlevel.current_statistics().tasks_living == before
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", listening.port)
    del server
    gc.collect()  # an async generator that was left behind would be a warning, and so an error


# Its own life


async def test_a_code_that_no_close_frame_can_have_is_refused(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        connection = await on.server.accept()
        for code in (65_536, -1, None):
            with pytest.raises(ValueError, match=r"code: a whole number from 0 to 65535, .* not"):
                await connection.close(code)  # type: ignore[arg-type]
        await connection.refute_disconnect()
