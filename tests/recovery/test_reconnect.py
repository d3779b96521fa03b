"""What ends of a connection are retried, when, and what ends it for good."""

from collections.abc import Callable
from types import NoneType
from typing import Any

import pytest
import trio
from tests.peers import RECONNECT, World
from tests.recovery.support import connected_again, settle, status_of, until, world
from trio.testing import MockClock

from slipstream_trio import (
    Backoff,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    Disconnect,
)
from slipstream_trio.testing.server import Refuse
from slipstream_trio.transport import OpenRequest

# Which ends are retried


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1011, 1012, 1013, 4000])
async def test_every_close_of_the_server_is_retried(code: int, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.connection.close(code)
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1]
    assert there.told("reconnect_scheduled", "reason", "code", "status", "delay", "attempt") == [
        ("closed_by_server", code, None, 1, 1)
    ]


async def test_a_drop_is_retried(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.told("reconnect_scheduled", "reason", "code") == [("lost", 1006)]


async def test_an_end_of_the_stream_is_retried(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            await there.connection._stream.aclose()
            await connected_again(there, socket, 2)
    assert there.told("reconnect_scheduled", "reason", "code") == [("lost", 1006)]


async def test_a_heartbeat_without_an_answer_is_retried(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(heartbeat_interval=5, heartbeat_timeout=3) as socket:
            there.connection.pause_reading()
            await connected_again(there, socket, 2)
            there.server.connections[0].drop()
    assert there.told("reconnect_scheduled", "reason") == ["heartbeat_timeout"]
    assert 8 <= there.attempts[1] <= 10


@pytest.mark.parametrize("status", [400, 408, 429, 500, 502, 503])
async def test_a_status_that_may_change_is_retried(status: int, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.append(Refuse(status))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 3]
    assert there.told("reconnect_scheduled", "reason", "status", "attempt") == [
        ("lost", None, 1),
        ("rejected", status, 2),
    ]


async def test_a_server_that_is_gone_is_looked_for_again_and_again(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.extend(ConnectionRefusedError("nobody") for _ in range(4))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 3, 7, 11, 15]
    assert there.told("reconnect_scheduled", "reason")[1:] == ["no connection: nobody"] * 4


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(connect_timeout=2) as socket:
            there.upgrades.append("hang")
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 5]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_that_stays_is_final(status: int, autojump_clock: MockClock) -> None:
    async with world() as there:
        with pytest.raises(ConnectionRejected) as caught:
            async with there.connect() as socket:
                there.upgrades.append(Refuse(status, body="go away"))
                there.connection.drop()
                await trio.sleep_forever()
        assert caught.value.status == status
        assert caught.value.body == "go away"
        assert status_of(socket) == "closed"
    assert there.attempts_at() == [0, 1]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("30", 30),
        ("0", 2),
        # Of the clock that is given to telemetry, by which it is 22:13:21 then.
        ("Tue, 14 Nov 2023 22:13:51 GMT", 30),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 2),
        ("soon", 2),
    ],
)
async def test_retry_after_is_waited_for(status: int, header: str, waited: float, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.append(Refuse(status, [("retry-after", header)]))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 1 + waited]


async def test_retry_after_of_another_status_is_not(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            there.upgrades.append(Refuse(500, [("retry-after", "30")]))
            there.connection.drop()
            await connected_again(there, socket, 2)
    assert there.attempts_at() == [0, 1, 3]


# The back-off


async def test_a_connection_that_lived_a_while_begins_the_delays_anew(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket:
            for generation, life in enumerate([0.0, 9.9, 10.0, 0.0], 2):
                await trio.sleep(life)
                there.connection.drop()
                await connected_again(there, socket, generation)
    waited = there.told("reconnect_scheduled", "delay")
    assert waited == [1, 2, 1, 2]
    assert there.told("reconnect_scheduled", "attempt") == [1, 1, 1, 1]


async def test_a_limit_ends_the_block_with_what_the_last_attempt_failed_with(autojump_clock: MockClock) -> None:
    async with world() as there:
        with pytest.raises(ConnectError, match="nobody 3"):
            async with there.connect(reconnect=Backoff((1,), jitter=0, limit=3)):
                there.upgrades.extend(ConnectionRefusedError(f"nobody {number}") for number in (1, 2, 3, 4))
                there.connection.drop()
                await trio.sleep_forever()
    assert there.attempts_at() == [0, 1, 2, 3]


async def test_jitter_shortens_the_delays(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(reconnect=Backoff((100,), jitter=0.5)) as socket:
            for generation in (2, 3, 4):
                there.connection.drop()
                await connected_again_within(there, socket, generation, 200)
    waited = there.told("reconnect_scheduled", "delay")
    assert all(50 <= delay <= 100 for delay in waited)
    assert len(set(waited)) == 3


async def connected_again_within(there: World, socket: Any, generation: int, seconds: float) -> None:
    await until(lambda: socket.generation == generation and socket.status == "connected", seconds)


# The first connection


@pytest.mark.parametrize("upgrade", [ConnectionRefusedError("nobody"), Refuse(503), Refuse(403)])
async def test_a_first_failure_raises(upgrade: Any, autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.append(upgrade)
        with pytest.raises(ConnectError):
            async with there.connect():
                pytest.fail("the body ran")
    assert there.attempts_at() == [0]


async def test_retry_first_retries_it(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.extend([ConnectionRefusedError("nobody"), Refuse(503)])
        async with there.connect(retry_first=True) as socket:
            assert socket.generation == 1
            assert status_of(socket) == "connected"
    assert there.attempts_at() == [0, 1, 3]
    assert {record.origin.generation for record in there.records if record.origin.connection_id} == {1}
    assert len({record.origin.connection_id for record in there.records if record.origin.connection_id}) == 3
    attempts = [record.metadata["attempt"] for record in there.records_of("client", "connect", "start")]
    assert attempts == [1, 2, 3]


async def test_retry_first_gives_up_where_that_is_final(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.extend([ConnectionRefusedError("nobody"), Refuse(403)])
        with pytest.raises(ConnectionRejected):
            async with there.connect(retry_first=True):
                pytest.fail("the body ran")
    assert there.attempts_at() == [0, 1]


async def test_retry_first_is_nothing_without_reconnect(autojump_clock: MockClock) -> None:
    async with world() as there:
        there.upgrades.append(ConnectionRefusedError("nobody"))
        with pytest.raises(ConnectError):
            async with there.connect(retry_first=True, reconnect=None):
                pytest.fail("the body ran")


# Not reconnecting


@pytest.mark.parametrize("end", [lambda connection: connection.close(1012), lambda connection: connection.drop()])
async def test_without_reconnect_the_block_ends(end: Callable[[Any], None], autojump_clock: MockClock) -> None:
    async with world() as there:
        with pytest.raises(ConnectionLost) as caught:
            async with there.connect(reconnect=None) as socket:
                end(there.connection)
                await trio.sleep_forever()
        assert caught.value.code in (1006, 1012)
        assert caught.value.sent is False
        assert status_of(socket) == "closed"
    assert there.attempts_at() == [0]
    assert there.records_of("client", "reconnect_scheduled") == []


async def test_a_body_that_does_not_notice_returns(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(reconnect=None) as socket:
            there.connection.drop()
            with trio.CancelScope(shield=True):
                await until(lambda: socket.status == "closed")


async def test_an_exception_of_the_body_wins_over_the_loss(autojump_clock: MockClock) -> None:
    async with world() as there:
        with pytest.raises(KeyError, match="mine"):
            async with there.connect(reconnect=None):
                there.connection.drop()
                try:
                    await trio.sleep_forever()
                finally:
                    raise KeyError("mine")


async def test_should_reconnect_is_asked_with_what_happened(autojump_clock: MockClock) -> None:
    asked: list[Disconnect] = []

    def ask(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return len(asked) < 4

    async with world() as there:
        with pytest.raises(ConnectionRejected):
            async with there.connect(should_reconnect=ask) as socket:
                await trio.sleep(3)
                there.connection.close(1012)
                await connected_again(there, socket, 2)
                there.upgrades.extend(
                    [ConnectionRefusedError("nobody"), Refuse(429, [("retry-after", "7")]), Refuse(403)]
                )
                there.connection.drop()
                await trio.sleep_forever()
    first, second, *failed = asked
    assert first == Disconnect("closed_by_server", code=1012, lived=3.0, step=0, ended_by="server")
    assert (second.reason, second.code, second.step) == ("lost", 1006, 1)
    assert failed == [
        Disconnect("no connection: nobody", step=2, ended_by="network"),
        Disconnect("rejected", status=429, retry_after=7, step=3, ended_by="server"),
    ]
    assert [type(disconnect.error) for disconnect in asked] == [NoneType, NoneType, ConnectError, ConnectionRejected]


async def test_should_reconnect_may_retry_what_would_be_final(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(should_reconnect=lambda _: True) as socket:
            there.upgrades.append(Refuse(403))
            there.connection.drop()
            await connected_again(there, socket, 2)


async def test_what_should_reconnect_raises_leaves_unchanged(autojump_clock: MockClock) -> None:
    def broken(_: Disconnect) -> bool:
        raise LookupError("mine")

    async with world() as there:
        with pytest.raises(LookupError, match="mine"):
            async with there.connect(should_reconnect=broken):
                there.connection.drop()
                await trio.sleep_forever()


async def test_should_reconnect_is_not_asked_about_what_the_user_ended(autojump_clock: MockClock) -> None:
    asked: list[Disconnect] = []

    def ask(disconnect: Disconnect) -> bool:
        asked.append(disconnect)
        return True

    async with world() as there:
        async with there.connect(should_reconnect=ask) as socket:
            await socket.disconnect()
        async with there.connect(should_reconnect=ask):
            pass
    assert asked == []


async def test_two_sockets_reconnect_each_for_itself(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as one, there.connect() as other:
            there.server.connections[0].drop()
            await connected_again(there, one, 2)
            assert other.generation == 1
            assert one.socket_id != other.socket_id


async def test_nothing_is_left_of_a_stream_that_could_not_be_opened(autojump_clock: MockClock) -> None:
    async def hang(_: OpenRequest) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with world() as there:
        async with there.connect(connect_timeout=1, reconnect=RECONNECT):
            there.connector.open_stream = hang
            there.connection.drop()
            await trio.sleep(10)
            await settle()
    assert set(there.told("reconnect_scheduled", "reason")[1:]) == {"not connected within 1 s; see connect_timeout"}
