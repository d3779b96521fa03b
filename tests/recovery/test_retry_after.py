"""A server that asks to wait is obeyed within reason, whatever the local clock says."""

from itertools import pairwise

import pytest
from tests.recovery.support import connected_again, until, world
from trio.testing import MockClock

from slipstream_trio import Backoff, Disconnect
from slipstream_trio.testing.server import Refuse

DATE = ("date", "Sun, 06 Nov 1994 08:49:37 GMT")
LATER = ("retry-after", "Sun, 06 Nov 1994 08:49:44 GMT")


@pytest.mark.parametrize(("limit", "waited"), [({}, 300), ({"retry_after_limit": 7.5}, 7.5)], ids=["default", "given"])
@pytest.mark.parametrize("asked", ["31536000", "Tue, 14 Nov 2033 22:13:51 GMT"])
async def test_a_wait_has_a_limit(
    asked: str, limit: dict[str, float], waited: float, autojump_clock: MockClock
) -> None:
    async with world() as there:
        async with there.connect(**limit) as socket:
            there.upgrades.append(Refuse(503, [("retry-after", asked)]))
            there.connection.drop()
            await until(lambda: socket.generation == 2, 1000)
    assert there.attempts_at() == [0, 1, 1 + waited]


async def test_without_a_limit_a_server_may_ask_for_an_hour(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(retry_after_limit=None) as socket:
            there.upgrades.append(Refuse(429, [("retry-after", "3600")]))
            there.connection.drop()
            await until(lambda: socket.generation == 2, 5000)
    assert there.attempts_at() == [0, 1, 3601]


async def test_a_date_is_read_against_that_of_the_answer(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.append(Refuse(503, [DATE, LATER]))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 8]


async def test_jitter_is_added_to_a_wait_that_was_asked_for(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.extend([Refuse(503, [("retry-after", "10")])] * 20)
        async with there.connect(retry_first=True, reconnect=Backoff((1,), jitter=0.5)):
            pass
    waits = [later - earlier for earlier, later in pairwise(there.attempts)]
    assert len(waits) == 20
    assert all(10 <= wait <= 15 for wait in waits)
    assert max(waits) - min(waits) > 1


@pytest.mark.parametrize("status", [302, 303, 307])
async def test_a_redirect_that_may_change_is_tried_again(status: int, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.append(Refuse(status, [("location", "https://example.org/"), ("retry-after", "9")]))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 10]


async def test_should_reconnect_is_told_the_wait_and_the_refusal(autojump_clock: MockClock) -> None:
    asked: list[Disconnect] = []

    def decide(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return True

    async with world() as there:
        there.upgrades.append(Refuse(503, [("retry-after", "31536000")]))
        async with there.connect(retry_first=True, should_reconnect=decide):
            pass
    (disconnect,) = asked
    assert (disconnect.retry_after, disconnect.ended_by) == (300, "server")
    assert ("retry-after", "31536000") in getattr(disconnect.error, "headers", ())
