"""Presence beyond the recordings."""

import pytest
import trio
import trio.testing
from tests.server.app import ONLINE_AT, make_server
from tests.server.raw_client import RawClient

from slipstream_trio.errors import SerializationError

ALICE = "/socket/websocket?vsn=2.0.0&user_id=alice"


async def test_two_metas_of_one_key_come_and_go_on_their_own(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        phone = await RawClient.connect(server, nursery, ALICE)
        laptop = await RawClient.connect(server, nursery, ALICE)
        await phone.join("presence:1", {"meta": {"on": "phone"}})
        await phone.wait_frames(3)
        await laptop.join("presence:1", {"meta": {"on": "laptop"}})
        await laptop.wait_frames(3)
        state = laptop.messages[2][4]
        assert [meta["on"] for meta in state["alice"]["metas"]] == ["phone", "laptop"]
        assert len({meta["phx_ref"] for meta in state["alice"]["metas"]}) == 2
        await phone.close()
        leave = (await laptop.wait_messages(4))[3]
        assert leave[3] == "presence_diff"
        assert leave[4]["joins"] == {}
        assert [meta["on"] for meta in leave[4]["leaves"]["alice"]["metas"]] == ["phone"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["crash", "drop", "leave"])
async def test_however_a_channel_ends_its_presences_leave(how: str, autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        watcher = await RawClient.connect(server, nursery, "/socket/websocket?vsn=2.0.0&user_id=bob")
        await watcher.join("presence:1")
        await watcher.wait_frames(3)
        alice = await RawClient.connect(server, nursery, ALICE)
        await alice.join("presence:1")
        await watcher.wait_frames(4)
        connection = server.connections[1]
        match how:
            case "crash":
                connection.channels["presence:1"].stop("crash")
            case "drop":
                connection.drop()
            case "leave":
                await alice.push("1", "2", "presence:1", "phx_leave", {})
        leave = (await watcher.wait_messages(5))[4][4]
        assert [meta["online_at"] for meta in leave["leaves"]["alice"]["metas"]] == [ONLINE_AT]
        channel = server.connections[0].channels["presence:1"]
        assert list(channel.presence.list()) == ["bob"]
        nursery.cancel_scope.cancel()


async def test_misuse_is_told_and_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, ALICE)
        await client.join("presence:1")
        await client.wait_frames(3)
        presence = server.connections[0].channels["presence:1"].presence
        with pytest.raises(ValueError, match="use update"):
            presence.track("alice")
        with pytest.raises(ValueError, match="use track"):
            presence.update("bob", {})
        with pytest.raises(SerializationError):
            presence.track("carol", {"a": {1, 2}})
        presence.untrack("bob")
        assert list(presence.list()) == ["alice"]
        await trio.sleep(1)
        assert len(client.frames) == 3
        nursery.cancel_scope.cancel()
