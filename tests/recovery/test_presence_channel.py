"""Who is there, as the user of a channel sees it."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from tests.client.support import scripted
from tests.recovery.presences import diff, metas, state, tell, told
from tests.recovery.support import connected_again, settle, status_of, until, world
from trio.testing import MockClock, assert_checkpoints

from slipstream_trio import Backoff, Channel, PresenceChange


async def track(channel: Channel, key: str) -> None:
    await channel.push("track", key)
    await settle()


# As a mapping


async def test_it_is_a_mapping_of_who_is_there(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            assert (dict(presence), presence.synced, len(presence)) == ({}, False, 0)
            await state(there, a=metas("1"), b=metas("2", "3"))
            assert isinstance(presence, Mapping)
            assert (dict(presence), presence.synced) == ({"a": metas("1"), "b": metas("2", "3")}, True)
            assert "a" in presence
            assert presence["b"]["metas"][1]["phx_ref"] == "3"
            with pytest.raises(KeyError):
                presence["nobody"]
            assert presence.list(lambda key, found: (key, len(found["metas"]))) == [("a", 1), ("b", 2)]
            await diff(there, {"c": metas("4")}, {"a": metas("1")})
            assert list(presence) == ["b", "c"]
            assert "room:1" in repr(presence)
            assert "2 present" in repr(presence)


async def test_ones_own_diff_comes_before_the_state(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            joined: list[PresenceChange] = []
            presence.on_join(joined.append)
            await diff(there, {"me": metas("9")})
            assert dict(presence) == {}
            await state(there, me=metas("9"), other=metas("1"))
            assert dict(presence) == {"me": metas("9"), "other": metas("1")}
            assert sorted(told(joined)) == [("join", "me"), ("join", "other")]


async def test_the_librarys_own_server_agrees(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await track(channel, "me")
            await state(there, **there.connection.channels["room:1"].presence.list())
            async with there.connect() as another, another.join("room:1") as other:
                await track(other, "you")
                assert set(presence) == {"me", "you"}
                assert {key: [meta["phx_ref"] for meta in value["metas"]] for key, value in presence.items()} == {
                    key: [meta["phx_ref"] for meta in value["metas"]]
                    for key, value in there.connection.channels["room:1"].presence.list().items()
                }
            await settle()
            assert set(presence) == {"me"}


async def test_opened_late_it_knows_what_has_come(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await state(there, a=metas("1"))
            await diff(there, {"b": metas("2")})
            async with channel.presence() as presence:
                assert (set(presence), presence.synced) == ({"a", "b"}, True)
                await diff(there, leaves={"a": metas("1")})
                assert set(presence) == {"b"}
                assert told([await anext(presence)]) == [("leave", "a")]


async def test_its_messages_are_in_the_stream_too(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await state(there, a=metas("1"))
            assert (await anext(aiter(channel))).event == "presence_state"


async def test_it_ends_with_its_block_and_is_told_no_more(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            async with channel.presence() as presence:
                presence.on_join(lambda change: seen.append(change.key))
                await state(there, a=metas("1"))
            await diff(there, {"b": metas("2")})
            async with channel.presence() as another:
                assert set(another) == {"a", "b"}
                assert set(presence) == {"a"}
                assert [change.key async for change in presence] == ["a"]
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert presence.synced
    assert seen == ["a"]


async def test_of_two_each_ends_with_its_own_block(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as first:
            async with channel.presence() as second:
                await state(there, a=metas("1"))
                assert first == second == {"a": metas("1")}
            await diff(there, {"b": metas("2")})
            assert (set(first), set(second)) == ({"a", "b"}, {"a"})
            assert told([await anext(first) for _ in range(2)]) == [("join", "a"), ("join", "b")]


# Callbacks


async def test_callbacks_are_told(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            calls: list[Any] = []
            presence.on_join(lambda change: calls.append(("join", change.key, change.before, change.after)))
            presence.on_leave(lambda change: calls.append(("leave", change.key, change.before, change.after)))
            presence.on_sync(lambda entries: calls.append(("sync", sorted(entries))))
            await diff(there, {"a": metas("1")})
            assert calls == []
            await state(there)
            assert calls == [("join", "a", None, metas("1")), ("sync", ["a"])]
            calls.clear()
            await diff(there, {"a": metas("2")}, {"a": metas("1")})
            assert calls == [
                ("join", "a", metas("1"), metas("1", "2")),
                ("leave", "a", metas("1", "2"), metas("2")),
                ("sync", ["a"]),
            ]


async def test_callbacks_that_could_not_be_called_are_refused(autojump_clock: MockClock) -> None:
    async def later(_: object) -> None:
        pytest.fail("not to be called")

    unusable: Any
    async with world() as there, there.connect() as socket, socket.channel("room").presence() as presence:
        for attach in (presence.on_join, presence.on_leave, presence.on_sync):
            for unusable in (later, None):
                with pytest.raises(TypeError, match=r"^a callback is a function that is not async"):
                    attach(unusable)


async def test_a_callback_sees_the_mapping_of_now(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            seen: list[list[str]] = []
            presence.on_join(lambda _: seen.append(list(presence)))
            await state(there, a=metas("1"))
            assert seen == [["a"]]


async def test_a_callback_that_raises_is_logged_and_costs_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> None:
        raise LookupError("mine")

    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            calls: list[Any] = []
            presence.on_join(broken)
            presence.on_join(calls.append)
            presence.on_sync(broken)
            await state(there, a=metas("1"))
            assert len(calls) == 1
            assert set(presence) == {"a"}
            assert await channel.push("echo", 1) == 1
    assert sum("presence callback" in record.message for record in caplog.records) == 2


# Iteration


async def test_iterating_gives_the_changes_and_ends_with_the_channel(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, trio.open_nursery() as nursery:
            changes: list[PresenceChange] = []
            over = trio.Event()

            async def watch() -> None:
                async with channel.presence() as presence:
                    changes.extend([change async for change in presence])
                over.set()

            channel = socket.channel("room:1")
            await channel.join()
            nursery.start_soon(watch)
            await settle()
            await state(there, a=metas("1"))
            await diff(there, {"b": metas("2")}, {"a": metas("1")})
            assert not over.is_set()
            await channel.leave()
            await over.wait()
            assert told(changes) == [("join", "a"), ("join", "b"), ("leave", "a")]


async def test_each_change_is_a_checkpoint(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("room") as channel, channel.presence() as presence:
        peer.message("room", "presence_state", {"a": metas("1"), "b": metas("2")})
        await settle()
        for key in ("a", "b"):
            with assert_checkpoints():
                assert (await anext(presence)).key == key


@pytest.mark.parametrize("end", ["leave", "stop", "crash", "disconnect"])
async def test_it_ends_however_the_channel_does(end: str, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(rejoin=None) as socket, trio.open_nursery() as nursery:
            channel = socket.channel("room:1")
            await channel.join()
            async with channel.presence() as presence:
                nursery.start_soon(_exhaust, presence)
                await settle()
                if end == "leave":
                    await channel.leave()
                elif end == "disconnect":
                    await socket.disconnect()
                else:
                    await channel.send(end)
                with pytest.raises(StopAsyncIteration):
                    await anext(presence)


async def _exhaust(changes: Any) -> None:
    async for _ in changes:
        pass


async def test_what_waits_is_bounded_and_the_oldest_go(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence(buffer=3) as presence:
            await state(there)
            for number in range(10):
                await diff(there, {str(number): metas(str(number))})
            assert presence.dropped == 7
            assert [(await anext(presence)).key for _ in range(3)] == ["7", "8", "9"]
            assert len(presence) == 10


# Over a reconnect


async def test_after_a_reconnect_it_says_what_changed_meanwhile(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await state(there, stays=metas("1"), goes=metas("2"))
            changes: list[PresenceChange] = []
            synced: list[Any] = []
            presence.on_join(changes.append)
            presence.on_leave(changes.append)
            presence.on_sync(synced.append)
            there.connection.drop()
            await connected_again(there, socket, 2)
            assert set(presence) == {"stays", "goes"}  # as far as anybody knows
            assert [presence.synced] == [False]
            await diff(there, {"me": metas("5")})
            assert (changes, synced) == ([], [])
            await state(there, stays=metas("1"), comes=metas("3"), me=metas("5"))
            assert set(presence) == {"stays", "comes", "me"}
            assert presence.synced
            assert sorted(told(changes)) == [("join", "comes"), ("join", "me"), ("leave", "goes")]


@pytest.mark.parametrize("end", ["drop", "crash"])
async def test_it_is_not_synced_from_the_loss_to_the_next_state(end: str, autojump_clock: MockClock) -> None:
    """The next connection, and the next join after a crash, come a second later."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await state(there, a=metas("1"))
            synced: list[Any] = []
            presence.on_sync(synced.append)
            if end == "drop":
                there.connection.drop()
            else:
                await channel.send(end)
            await until(lambda: status_of(channel) == "errored")
            assert (presence.synced, dict(presence)) == (False, {"a": metas("1")})
            async with channel.presence() as opened_meanwhile:
                assert (opened_meanwhile.synced, dict(opened_meanwhile)) == (False, {"a": metas("1")})
            await until(lambda: status_of(channel) == "joined")
            assert (presence.synced, synced) == (False, [])
            await state(there, a=metas("1"))
            assert (presence.synced, opened_meanwhile.synced) == (True, False)
            assert synced == [{"a": metas("1")}]


@pytest.mark.parametrize("end", ["leave", "stop", "disconnect"])
async def test_it_is_not_synced_when_the_channel_has_ended(end: str, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await state(there, a=metas("1"))
            if end == "leave":
                await channel.leave()
            elif end == "stop":
                await channel.send("stop")
            else:
                await socket.disconnect()
            await until(lambda: status_of(channel) == "closed")
            assert (presence.synced, dict(presence)) == (False, {"a": metas("1")})


async def test_a_new_join_of_the_users_says_what_changed_since_the_last(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            await channel.join()
            async with channel.presence() as presence:
                await state(there, a=metas("1"))
                await channel.leave()
                await channel.join()
                await state(there, b=metas("2"))
                assert set(presence) == {"b"}
                assert told([await anext(presence) for _ in range(3)]) == [("join", "a"), ("join", "b"), ("leave", "a")]
            await channel.leave()


async def test_the_state_of_a_join_that_was_refused_is_not_that_of_the_next(autojump_clock: MockClock) -> None:
    async with (
        scripted(rejoin=Backoff((1,), jitter=0)) as (socket, peer),
        socket.join("room") as channel,
        channel.presence() as presence,
    ):
        peer.answers.discard("phx_join")
        peer.end_channel("room", "phx_error")
        refused = await peer.wait_sent("phx_join", 2)
        peer.message("room", "presence_state", {"a": metas("1")})
        peer.reply(refused, status="error")
        await peer.wait_sent("phx_join", 3)
        assert (presence.synced, set(presence)) == (False, {"a"})
        peer.message("room", "presence_diff", {"joins": {"b": metas("2")}, "leaves": {}})
        await settle()
        assert set(presence) == {"a"}


async def test_a_presence_of_a_channel_that_is_not_joined_waits_for_it(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            channel = socket.channel("room:1")
            async with channel.presence() as presence:
                await channel.join()
                await state(there, a=metas("1"))
                assert (await anext(presence)).key == "a"
            await channel.leave()


# What no server would send


@pytest.mark.parametrize("payload", [{"a": 1}, {"joins": {"a": {"metas": [{}]}}, "leaves": {}}, {"joins": []}])
async def test_a_malformed_payload_costs_that_frame(
    payload: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    event = "presence_diff" if "joins" in payload else "presence_state"
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await state(there, a=metas("1"))
            await tell(there, event, payload)
            assert set(presence) == {"a"}
            await diff(there, {"b": metas("2")})
            assert set(presence) == {"a", "b"}
            assert status_of(channel) == "joined"
            events = [(await anext(aiter(channel))).event for _ in range(3)]
            assert events == ["presence_state", event, "presence_diff"]  # the message itself is the user's
    assert len(there.told("message_dropped", "reason")) == 1
    assert "presence" in there.told("message_dropped", "reason")[0]
    assert any("presence" in record.message for record in caplog.records)


async def test_presences_of_another_topic_are_anothers(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as one, socket.join("room:2") as two:
            async with one.presence() as first, two.presence() as second:
                await tell(there, "presence_state", {"a": metas("1")}, "room:2")
                assert (set(first), set(second)) == (set(), {"a"})
                await until(lambda: second.synced)


async def test_an_iteration_waits_for_changes_again_once_the_channel_is_joined_anew(autojump_clock: MockClock) -> None:
    async with world() as there, there.connect() as socket:
        channel = socket.channel("room:1")
        async with channel.presence() as presence:
            await channel.join()
            await channel.leave()
            with pytest.raises(StopAsyncIteration):
                await anext(presence)
            await channel.join()
            with trio.move_on_after(1) as waiting:
                await anext(presence)
            assert waiting.cancelled_caught
            await state(there, a=metas("1"))
            assert (await anext(presence)).key == "a"


async def test_who_went_before_the_state_came_is_never_told(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            changes: list[PresenceChange] = []
            presence.on_join(changes.append)
            presence.on_leave(changes.append)
            await diff(there, {}, {"a": metas("1")})
            await state(there, a=metas("1"), b=metas("2"))
            assert told(changes) == [("join", "b")]


async def test_a_block_that_fails_follows_no_longer(autojump_clock: MockClock) -> None:
    async with world() as there, there.connect() as socket, socket.join("room:1") as channel:
        with pytest.raises(KeyError, match="mine"):
            async with channel.presence() as presence:
                raise KeyError("mine")
        with trio.fail_after(1), pytest.raises(StopAsyncIteration):
            await anext(presence)
