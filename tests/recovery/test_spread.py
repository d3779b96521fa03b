"""Clients that were cut off together come back spread over half a second, and each of them soon."""

import pytest
from tests.recovery.support import connected_again, until, world
from trio.testing import MockClock

from slipstream_trio import Backoff, Disconnect
from slipstream_trio.protocol import RECONNECT, reconnect_delay, worth_retrying

DRAWS = [number / 1000 for number in range(1000)]


def delays(disconnect: Disconnect, backoff: Backoff = RECONNECT) -> list[float]:
    found = [reconnect_delay(disconnect, backoff, worth_retrying, draw) for draw in DRAWS]
    return [delay for delay in found if delay is not None]


def test_first_tries_after_an_outage_are_spread_over_half_a_second() -> None:
    spread = delays(Disconnect("lost", lived=60.0))
    assert max(spread) - min(spread) > 0.48
    assert max(spread) <= 0.5
    assert sum(spread) / len(spread) == pytest.approx(0.25, abs=0.01)
    assert all(sum(low <= delay < low + 0.1 for delay in spread) < 250 for low in (0, 0.1, 0.2, 0.3, 0.4))


def test_tries_after_a_wait_that_was_asked_for_are_spread_over_a_second() -> None:
    spread = delays(Disconnect("rejected", status=503, retry_after=5))
    assert min(spread) == 5
    assert max(spread) - min(spread) > 1


def test_a_short_wait_that_was_asked_for_is_spread_over_half_a_second() -> None:
    spread = delays(Disconnect("rejected", status=429, retry_after=0))
    assert min(spread) < 0.01
    assert 0.49 < max(spread) <= 0.5


def test_tries_after_one_that_failed_are_those_of_the_delays() -> None:
    assert max(delays(Disconnect("no route"))) == 0.01


def test_without_jitter_every_delay_is_exact() -> None:
    exact = Backoff((0.01, 3), jitter=0)
    assert set(delays(Disconnect("lost", lived=60.0), exact)) == {0.01}
    assert set(delays(Disconnect("rejected", status=503, retry_after=5), exact)) == {5}


def test_a_delay_that_is_longer_stays() -> None:
    assert min(delays(Disconnect("lost", lived=1.0, step=1), Backoff((0.01, 3), jitter=0.1))) > 2.7


async def test_a_lone_client_is_back_within_half_a_second(autojump_clock: MockClock) -> None:
    async with world() as there, there.connect(reconnect=RECONNECT) as socket:
        there.connection.drop()
        await connected_again(there, socket, 2)
        (delay,) = there.told("reconnect_scheduled", "delay")
        assert 0 < delay <= 0.5


async def test_reconnect_by_hand_is_not_spread(autojump_clock: MockClock) -> None:
    async with world() as there, there.connect(reconnect=RECONNECT) as socket:
        socket.reconnect()
        await until(lambda: socket.generation == 2)
        assert there.told("reconnect_scheduled", "delay") == [0.0]
