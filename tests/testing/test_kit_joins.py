"""The kit's fake server: which answers to a join lead to a channel, and which come too late for that."""

import pytest
from tests.testing.support import watched
from trio.testing import MockClock

from slipstream_trio import JoinError, JoinTimeout


@pytest.mark.parametrize("vsn", ["2.0.0", "1.0.0"])
async def test_a_late_answer_to_a_join_that_was_replaced_joins_nothing(vsn: str, autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(vsn=vsn) as socket:
        connection = await on.server.accept()
        channel = socket.channel("room:1")
        with pytest.raises(JoinTimeout):
            await channel.join(timeout=1)
        on.nursery.start_soon(channel.join)
        first, second = await connection.expect_join(), await connection.expect_join()
        fake = await second.reply_ok()
        late = await first.reply_ok()
        assert (fake.joined, late.joined, connection.channel("room:1")) == (True, False, fake)
        await channel.leave()
        assert not fake.joined
        again = await second.reply_ok()
        assert (again.joined, connection.channels) == (False, {})


async def test_a_join_that_was_left_before_its_answer_is_over(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect() as socket:
        connection = await on.server.accept()
        with pytest.raises(JoinTimeout):
            await socket.channel("room:1").join(timeout=1)
        join = await connection.expect_join()
        await connection.expect_leave()
        assert not (await join.reply_ok()).joined
        assert connection.channels == {}


async def test_an_answer_that_is_given_twice_leaves_the_channel_joined(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect() as socket:
        connection = await on.server.accept()
        channel = socket.channel("room:1")
        on.nursery.start_soon(channel.join)
        join = await connection.expect_join()
        await join.reply("ok", {"users": 1})
        fake = connection.channel("room:1")
        assert await join.reply_ok() is fake
        await join.reply_error()
        assert fake.joined
        await fake.crash()
        assert not (await join.reply_ok()).joined


async def test_a_join_that_was_refused_is_over(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect() as socket:
        connection = await on.server.accept()

        async def client() -> None:
            with pytest.raises(JoinError):
                await socket.channel("room:1").join()

        on.nursery.start_soon(client)
        join = await connection.expect_join()
        await join.reply("error", {"reason": "full"})
        assert not (await join.reply_ok()).joined
