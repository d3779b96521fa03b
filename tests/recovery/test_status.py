"""Status, generation and ids of a socket, as its connections come and go."""

import pytest
import trio
from tests.client.support import URL, Scripted
from tests.recovery.support import connected_again, settle, status_of, until, world
from trio.testing import MockClock, assert_checkpoints

from slipstream_trio import Backoff, Client, ConnectionLost, StatusChanges, connect
from slipstream_trio.testing.server import Refuse


async def test_ids_and_generation_are_the_connections(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            seen = []
            for generation in (1, 2, 3):
                assert socket.generation == generation
                assert socket.state.status == "open"
                seen.append((socket.connection_id, socket.trace_id))
                there.connection.drop()
                await connected_again(there, socket, generation + 1)
    assert len({connection_id for connection_id, _ in seen}) == 3
    assert len({trace_id for _, trace_id in seen}) == 3


async def test_while_reconnecting_a_socket_shows_its_last_connection(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            shown = (socket.connection_id, socket.trace_id, socket.generation, socket.socket_id)
            there.upgrades.extend([Refuse(500), "hang"])
            there.connection.drop()
            for _ in range(40):
                await trio.sleep(0.1)
                assert status_of(socket) == "reconnecting"
                assert (socket.connection_id, socket.trace_id, socket.generation, socket.socket_id) == shown
                assert socket.state.status == "closed"
            await connected_again(there, socket, 2)
            assert socket.socket_id == shown[3]
    starts = [record.metadata for record in there.records_of("connection", "connect", "start")]
    assert [metadata["generation"] for metadata in starts] == [1, 2, 2, 2]
    assert len({metadata["connection_id"] for metadata in starts}) == 4
    assert len({metadata["trace_id"] for metadata in starts}) == 4
    assert len({metadata["socket_id"] for metadata in starts}) == 1


async def test_the_ids_of_a_closed_socket_are_those_of_its_last_connection(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            shown = socket.connection_id
            await socket.disconnect()
            assert (socket.status, socket.connection_id) == ("closed", shown)
            assert "closed" in repr(socket)


async def test_the_changes_begin_with_the_status_of_now_and_end_with_closed(autojump_clock: MockClock) -> None:
    async with world() as there:
        seen: list[str] = []

        async def watch(changes: StatusChanges) -> None:
            seen.extend([status async for status in changes])

        async with trio.open_nursery() as nursery:
            async with there.connect() as socket:
                nursery.start_soon(watch, socket.status_changes())
                await settle()
                there.connection.drop()
                await connected_again(there, socket, 2)
        assert seen == ["connected", "reconnecting", "connected", "closing", "closed"]
        assert [status async for status in socket.status_changes()] == ["closed"]


async def test_a_late_reader_gets_every_change(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            changes = socket.status_changes()
            for generation in (2, 3):
                there.connection.drop()
                await connected_again(there, socket, generation)
            await socket.disconnect()
            seen = [status async for status in changes]
    lost = ["reconnecting", "connected"]
    assert seen == ["connected", *lost, *lost, "closing", "closed"]


async def test_each_change_is_a_checkpoint(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            changes = socket.status_changes()
            await socket.disconnect()
            for status in ("connected", "closing", "closed"):
                with assert_checkpoints():
                    assert await anext(changes) == status
            with assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(changes)


async def test_of_more_changes_than_are_kept_a_late_reader_gets_the_first_and_the_latest(
    autojump_clock: MockClock,
) -> None:
    kept = 64
    connector = Scripted()
    async with connect(URL, transport=connector, reconnect=Backoff((0.01,), jitter=0)) as socket:
        changes = socket.status_changes()
        for generation in range(2, kept - 20):  # more than are kept, and less than twice as many
            connector.peer.end()
            await trio.sleep(1)
            assert socket.generation == generation
        await socket.disconnect()
        seen = [status async for status in changes]
    lost = ["reconnecting", "connected"]
    assert seen == ["connected", *lost * (kept // 2 - 1), "closing", "closed"]  # the first is that of its opening


async def test_attempts_that_fail_one_after_the_other_are_no_changes(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            changes = socket.status_changes()
            there.upgrades.extend([Refuse(500), Refuse(500)])
            there.connection.drop()
            await connected_again(there, socket, 2)
            await socket.disconnect()
            seen = [status async for status in changes]
    assert seen == ["connected", "reconnecting", "connected", "closing", "closed"]
    assert len(there.attempts) == 4


async def test_readers_do_not_share(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            one, other = socket.status_changes(), socket.status_changes()
            await socket.disconnect()
            assert [status async for status in one] == [status async for status in other]
            with pytest.raises(StopAsyncIteration):
                await anext(one)


async def test_waiting_for_a_connection(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            await socket.wait_connected()
            there.upgrades.append(Refuse(500))
            there.connection.drop()
            await until(lambda: socket.status == "reconnecting")
            await socket.wait_connected()
            assert (socket.status, socket.generation) == ("connected", 2)
            assert trio.current_time() == pytest.approx(3, abs=0.1)


async def test_waiting_for_a_connection_that_never_comes(autojump_clock: MockClock) -> None:
    async with world() as there:
        with pytest.raises(ConnectionLost):
            async with there.connect(reconnect=None) as socket:
                there.connection.drop()
                with trio.CancelScope(shield=True):
                    with pytest.raises(ConnectionLost) as caught:
                        while True:
                            await socket.wait_connected()
                    assert caught.value.reason == "lost"
                await trio.sleep_forever()


async def test_without_reconnect_the_status_never_says_reconnecting(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def watch(changes: StatusChanges) -> None:
        seen.extend([status async for status in changes])

    async with world() as there, trio.open_nursery() as nursery:
        with pytest.raises(ConnectionLost):
            async with there.connect(reconnect=None) as socket:
                nursery.start_soon(watch, socket.status_changes())
                await settle()
                there.connection.drop()
                await trio.sleep_forever()
    assert seen == ["connected", "closing", "closed"]


async def test_a_client_is_connecting_until_its_first_connection_is_open(autojump_clock: MockClock) -> None:
    client = Client()
    async with world() as there, trio.open_nursery() as nursery:
        there.upgrades.append(Refuse(503))
        nursery.start_soon(there.run_client, client)
        await trio.sleep(0.5)
        assert client.socket is not None
        assert (len(there.requests), status_of(client.socket)) == (1, "connecting")
        await connected_again(there, client.socket, 1)
        there.connection.drop()
        await trio.sleep(0.5)
        assert status_of(client.socket) == "reconnecting"
        client.stop()
