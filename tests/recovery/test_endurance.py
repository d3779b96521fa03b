"""Many reconnects, and a server that accepts and drops at once. `benchmarks/reconnects.py` has the whole of it."""

import itertools

import pytest
import trio
from tests.peers import World
from tests.recovery.endurance import endure
from tests.recovery.support import Outcomes, settle, until, world
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionLost
from slipstream_trio.protocol import RECONNECT
from slipstream_trio.testing.server import Request


@pytest.mark.once
async def test_reconnecting_over_and_over_loses_nothing_and_keeps_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "slipstream_trio")  # pytest keeps each warning of a loss
    reconnects, channels = 40, 50
    figures = await endure(reconnects, channels, (20, 40))
    assert figures.rejoined == [channels] * reconnects
    assert len(figures.ids) == reconnects + 1
    assert len({connection_id for connection_id, _ in figures.ids}) == reconnects + 1
    assert len({trace_id for _, trace_id in figures.ids}) == reconnects + 1
    assert figures.gaps == reconnects * channels
    assert figures.violations == []
    assert figures.left == {"buffered": 0, "tasks": 0, "streams": 0}
    (blocks_before, objects_before), (blocks_after, objects_after) = figures.held[20], figures.held[40]
    assert objects_after <= objects_before + 10
    # Not the thousands that a connection has; Trio keeps some old deadlines, up to a thousand in all.
    assert blocks_after - blocks_before < 20 * 50


# A server that accepts and drops at once


class Dropping(World):
    """Lets everyone in, and cuts them off at once, while `dropping`."""

    dropping = False

    async def _connect(self, request: Request) -> None:
        await super()._connect(request)
        if self.dropping:
            asked = len(self.requests)
            trio.lowlevel.spawn_system_task(self._drop, asked)

    async def _drop(self, number: int) -> None:
        await until(lambda: len(self.server.connections) > 0)
        for connection in self.server.connections:
            connection.drop()


async def test_a_server_that_accepts_and_drops_at_once_is_not_hammered(autojump_clock: MockClock) -> None:
    made = Dropping()
    async with made.server.run():
        async with made.connect(reconnect=Backoff(RECONNECT.delays, jitter=0)) as socket, socket.join("room:1"):
            await trio.sleep(10)
            made.dropping = True
            made.connection.drop()
            began = trio.current_time()
            await trio.sleep(60)
            attempts = [at - began for at in made.attempts[1:]]
            made.dropping = False
            await until(lambda: socket.status == "connected")
        await until(lambda: not made.server.connections)
    # The delays of the back-off, one after the other, and a little for noticing.
    expected = list(itertools.accumulate([*RECONNECT.delays, *[5.0] * 20]))
    assert len(attempts) == pytest.approx(10 + (60 - sum(RECONNECT.delays)) / 5, abs=1)
    for attempt, least in zip(attempts, expected, strict=False):
        assert least <= attempt + 1e-6
        assert attempt <= least + 0.02 * len(attempts)
    assert made.told("reconnect_scheduled", "delay")[:10] == list(RECONNECT.delays)


@pytest.mark.once
async def test_even_without_delays_it_does_not_spin(autojump_clock: MockClock) -> None:
    """A back-off of no seconds is the user's choice; others still get their turn."""
    async with world() as there:
        with pytest.raises(Exception, match="nobody"):
            async with there.connect(reconnect=Backoff((0,), limit=1000)):
                there.upgrades.extend(ConnectionRefusedError("nobody") for _ in range(2000))
                there.connection.drop()
                await trio.sleep_forever()
        assert len(there.attempts) == 1001


async def test_pushes_over_many_losses_are_answered_once_or_lost(autojump_clock: MockClock) -> None:
    """What the server saw is at least what was answered; nothing was sent twice."""
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, trio.open_nursery() as nursery:
            done = Outcomes(nursery)
            for number in range(200):
                done.start(number, channel.push, "echo", number, timeout=100)
                if number % 20 == 10:
                    for _ in range(number % 7):
                        await trio.lowlevel.checkpoint()
                    if there.server.connections:
                        there.connection.drop()
                if number % 50 == 49:
                    await trio.sleep(10)
            await until(lambda: len(done.by) == 200)
            await settle()
    answered = {key for key, value in done.by.items() if value == key and not isinstance(value, Exception)}
    lost = {key: value for key, value in done.by.items() if isinstance(value, Exception)}
    seen = [payload for _, payload in there.pushed]
    assert len(seen) == len(set(seen))
    assert answered <= set(seen)
    assert answered | set(lost) == set(range(200))
    assert lost
    for number, error in lost.items():
        assert isinstance(error, ConnectionLost)
        if not error.sent:
            assert number not in seen
