"""The block of a join: what ends it, and what is left then."""

import pytest
import trio
from tests.client.support import scripted
from trio.testing import MockClock


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), StopAsyncIteration(), trio.EndOfChannel()])
async def test_an_exception_in_the_block_of_a_join_passes_and_leaves_without_waiting(
    error: BaseException, autojump_clock: MockClock
) -> None:
    async with scripted(answers={"phx_join", "heartbeat"}) as (socket, peer):
        caught: BaseException | None = None
        channel = socket.channel("not yet")
        try:
            async with socket.join("room") as channel:
                raise error
        except BaseException as raised:  # noqa: BLE001 - compared below
            caught = raised
        assert caught is error
        assert channel.status == "leaving"
        await trio.testing.wait_all_tasks_blocked()
        assert peer.count("phx_leave") == 1
        assert trio.current_time() == 0
        peer.end_channel("room")


async def test_a_block_whose_leave_is_cancelled_before_it_is_sent_leaves_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async with scripted() as (socket, peer):
        with trio.CancelScope() as scope:
            async with socket.join("room"):
                scope.cancel()
        assert scope.cancelled_caught
        with trio.fail_after(1):
            await peer.wait_sent("phx_leave")
        await socket.channel("room").join()


async def test_a_cancelled_block_of_a_join_leaves_without_waiting(autojump_clock: MockClock) -> None:
    async with scripted(answers={"phx_join", "heartbeat"}) as (socket, peer):
        with trio.move_on_after(1):
            async with socket.join("room"):
                await trio.sleep_forever()
        assert trio.current_time() == 1
        await peer.wait_sent("phx_leave")
        peer.end_channel("room")


@pytest.mark.parametrize("end", ["phx_close", "phx_error", "leave"])
async def test_a_block_whose_channel_has_ended_can_be_left(end: str, autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        async with socket.join("room") as channel:
            if end == "leave":
                await channel.leave()
            else:
                peer.end_channel("room", end)
                await trio.testing.wait_all_tasks_blocked()
        assert peer.count("phx_leave") == (end == "leave")
