"""The known failures of other clients, one test each: here they do not happen."""

import itertools
import tracemalloc

import pytest
import trio
from tests.held import bytes_held, objects_held
from tests.recovery.support import Outcomes, connected_again, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionLost, JoinError


@pytest.mark.once
async def test_joins_that_keep_failing_are_made_by_the_back_off_one_at_a_time(autojump_clock: MockClock) -> None:
    """A channel that dies after each join, or is refused, is joined by the back-off, and once at a time."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:dies") as dies, socket.join("room:refused"):
            there.joins["room:dies"].extend(["die"] * 1000)
            there.joins["room:refused"].extend(["refuse"] * 1000)
            there.asked.clear()
            there.connection.drop()
            await trio.sleep(1 + 1000)
            for topic in ("room:dies", "room:refused"):
                asked = [at for at, name, _ in there.asked if name == topic]
                assert 0 < len(asked) <= 4 + 1000 / 5
                apart = [later - earlier for earlier, later in itertools.pairwise(asked)]
                assert min(apart) >= 1
                assert min(apart[2:]) >= 5
            there.joins.clear()
            await until(lambda: dies.status == "joined")
            asked_by_then = len(there.asked)
            await trio.sleep(100)
            assert len(there.asked) <= asked_by_then + 1  # the other one


async def test_explicit_reconnect_not_rejoining(autojump_clock: MockClock) -> None:
    """There is no reconnect() that could forget the channels: whatever ends the connection, they are joined again.

    `disconnect` is final, and every channel says so; another block begins with none.
    """
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.connection.close(there.server.release.kick_code)  # as Endpoint.broadcast(id, "disconnect") does
            await connected_again(there, socket, 2)
            assert status_of(channel) == "joined"
            assert set(there.connection.channels) == {"room:1"}
            assert await channel.push("echo", 1) == 1
            await socket.disconnect()
            assert status_of(channel) == "closed"
            with pytest.raises(ConnectionLost, match="disconnected"):
                await channel.push("echo", 2)
        async with there.connect() as socket, socket.join("room:1") as channel:
            assert await channel.push("echo", 3) == 3
    assert [payload for _, payload in there.pushed] == [1, 3]


async def test_buffered_pushes_reusing_a_ref(autojump_clock: MockClock) -> None:
    """Pushes that waited for the rejoin get refs, and the join_ref, when they are sent; each gets its own reply."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            old = channel.join_ref
            there.joins["room:1"].append("refuse")
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            done = Outcomes(nursery)
            for number in range(50):
                done.start(number, channel.push, "echo", number)
            await until(lambda: len(done.by) == 50)
            assert done.by == {number: number for number in range(50)}
            pushes = [message for message in there.connection.received if message.event == "echo"]
            refs = [message.ref for message in there.connection.received]
            assert len(pushes) == 50
            assert len(set(refs)) == len(refs)
            assert {message.join_ref for message in pushes} == {channel.join_ref}
            assert channel.join_ref not in {message.ref for message in pushes}
            assert old is not None


async def test_stale_token_at_reconnect(autojump_clock: MockClock) -> None:
    """Params, headers, auth_token and join payloads are asked for again, every time."""
    token = "first"
    async with world(auth_token=True) as there:
        options = {
            "params": lambda: {"token": token},
            "headers": lambda: {"authorization": token},
            "auth_token": lambda: token,
        }
        async with there.connect(**options) as socket, socket.join("room:1", lambda: {"token": token}):
            token = "second"
            there.connection.drop()
            await connected_again(there, socket, 2)
    for number, expected in enumerate(("first", "second")):
        request = there.requests[number][1]
        assert request.params["token"] == expected
        assert request.header("authorization") == expected
        assert request.auth_token == expected
        assert there.asked[number][2] == {"token": expected}


@pytest.mark.parametrize("code", [1000, 1001])
async def test_clean_close_not_reconnected(code: int, autojump_clock: MockClock) -> None:
    """Servers say good-bye with 1000 and 1001 when they are restarted; that is no reason to stay away."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            there.connection.close(code)
            await connected_again(there, socket, 2)
            assert status_of(channel) == "joined"


@pytest.mark.parametrize("joined", [False, True])
async def test_silence_after_idle(joined: bool, autojump_clock: MockClock) -> None:
    """A server hangs up after 60 s without a frame: heartbeats keep the connection."""
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            if joined:
                await channel.join()
            await trio.sleep(600)
            assert socket.generation == 1
            assert status_of(socket) == "connected"
            if joined:
                assert await channel.push("echo", 1) == 1
    assert there.attempts_at() == [0]


async def test_silence_after_idle_without_heartbeats(autojump_clock: MockClock) -> None:
    """Without heartbeats the server hangs up, with 1002, and the client comes back."""
    async with world() as there:
        async with there.connect(heartbeat_interval=None) as socket, socket.join("room:1") as channel:
            await trio.sleep(70)
            assert (socket.generation, socket.status, channel.status) == (2, "connected", "joined")
            await trio.sleep(550)
            assert socket.generation == 11
            assert await channel.push("echo", 1) == 1
    assert set(there.told("reconnect_scheduled", "code")) == {1002}


async def test_connected_still_true_after_a_disconnect(autojump_clock: MockClock) -> None:
    """From the moment at which the end is known, nothing says that there is a connection."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            done.start("push", channel.push, "silence")
            await settle()
            seen: list[tuple[str, str, str]] = []

            async def watch() -> None:
                while "push" not in done.by:
                    await trio.lowlevel.checkpoint()
                seen.append((socket.status, socket.state.status, channel.status))

            nursery.start_soon(watch)
            there.connection.drop()
            await until(lambda: seen)
            assert seen == [("reconnecting", "closed", "errored")]
            await socket.wait_connected()
            await socket.disconnect()
            assert (socket.status, socket.state.status, channel.status) == ("closed", "closed", "closed")


@pytest.mark.once
async def test_memory_growing_while_a_rejoin_is_refused_over_and_over(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.telemetry.detach("world")
        async with there.connect(rejoin=Backoff((1,), jitter=0)) as socket, socket.join("room:1") as channel:
            there.joins["room:1"].extend(["refuse"] * 5000)
            there.connection.drop()

            async def after(seconds: float) -> tuple[int, int]:
                await trio.sleep(seconds)
                asked = len(there.asked)
                for kept in (there.asked, there.requests, there.connection.received, there.server.errors):
                    kept.clear()
                objects = objects_held()
                return asked, objects

            tracemalloc.start(1)
            try:
                await after(200.5)  # by then the heaps of deadlines are as full as they get before they are swept
                few, objects_before = await after(50)
                bytes_before = bytes_held()
                many, objects_after = await after(400)
                bytes_after = bytes_held()
            finally:
                tracemalloc.stop()
            assert (few, many) == (50, 400)
            assert status_of(channel) == "errored"
            assert objects_after <= objects_before + 5
            assert bytes_after - bytes_before < 20_000
            there.joins.clear()


@pytest.mark.once
async def test_memory_growing_while_a_join_of_the_users_is_refused_over_and_over(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.telemetry.detach("world")
        async with there.connect() as socket:
            held: list[int] = []
            for number in range(1101):
                there.joins["room:1"].append("refuse")
                with pytest.raises(JoinError):
                    await socket.channel("room:1").join()
                if number in (100, 1100):
                    there.connection.received.clear()
                    held.append(objects_held())
            assert held[1] <= held[0] + 5
            assert socket.state.joins == {}
            async with socket.join("room:1") as channel:
                assert dict(socket.state.joins) == {"room:1": channel.join_ref}
