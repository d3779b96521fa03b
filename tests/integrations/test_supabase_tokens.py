"""Supabase Realtime: access tokens that are renewed before they expire, whatever their function does."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from tests.integrations.supabase_server import SupabaseServer, connected, jwt, next_event, next_of, told
from trio.testing import MockClock

from slipstream_trio import Backoff, ChannelClosed, ConfigurationError, Gap, JoinError
from slipstream_trio.integrations.supabase import PostgresChange, SystemMessage
from slipstream_trio.telemetry import Telemetry

EPOCH = 1_800_000_000
EXACT = Backoff((1,), jitter=0)


def now() -> float:
    return EPOCH + trio.current_time()


@pytest.fixture
async def server() -> AsyncIterator[SupabaseServer]:
    made = SupabaseServer(now=now)
    async with made.phoenix.run():
        yield made
        assert not made.phoenix.errors


class Tokens:
    """Makes tokens that last for a while; fails while `error` is set.

    Attributes:
        asked: when it was asked, in seconds since the start.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.error: Exception | None = None
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return jwt(int(now() + self.seconds), number=len(self.asked))


def options(given: Any) -> dict[str, Any]:
    return {"access_token": given, "telemetry": Telemetry(time_ns=lambda: int(now() * 1e9))}


async def test_a_token_is_renewed_before_it_expires_and_told_to_each_channel(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens = Tokens(660)
    async with connected(server, **options(tokens)) as realtime:
        async with realtime.channel("a") as room, realtime.channel("b"):
            await trio.sleep(2500)
            assert tokens.asked == pytest.approx([0, 600, 1200, 1800, 2400], abs=1)
            pushed = await told(server, "access_token")
            assert len(pushed) == 8
            assert len({each["access_token"] for each in pushed}) == 4
            assert (room.channel.status, room.channel.last_gap) == ("joined", None)


async def test_a_short_lived_token_is_renewed_at_half_of_its_time(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens = Tokens(40)
    async with connected(server, **options(tokens)) as realtime, realtime.channel("a") as room:
        await trio.sleep(110)
        assert tokens.asked == pytest.approx([0, 20, 40, 60, 80, 100], abs=2)
        assert room.channel.last_gap is None


async def test_a_channel_joined_later_uses_the_token_that_there_is(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens = Tokens(3600)
    async with connected(server, **options(lambda: jwt(EPOCH + 3600))) as realtime:
        async with realtime.channel("a"), realtime.channel("b"):
            pass
    async with connected(server, **options(tokens)) as realtime:
        async with realtime.channel("a"):
            await trio.sleep(60)
            async with realtime.channel("b"):
                assert len(tokens.asked) == 1
                assert server.tokens[-1] == server.tokens[-2]


async def test_a_change_of_token_subscribes_to_postgres_again(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    async with connected(server, **options(Tokens(3600))) as realtime:
        async with realtime.channel("a", postgres_changes=[PostgresChange(table="todos")]) as room:
            begun = trio.current_time()
            for _ in range(2):
                assert (await next_of(room, SystemMessage)).status == "ok"
                await realtime.refresh_token()
            assert trio.current_time() < begun + 10


async def test_a_refresh_by_hand_is_told_at_once(server: SupabaseServer, autojump_clock: MockClock) -> None:
    given = ["sb_first"]
    async with connected(server, **options(lambda: given[-1])) as realtime:
        async with realtime.channel("a"):
            given.append("sb_second")
            await realtime.refresh_token()
            await realtime.refresh_token()
            assert await told(server, "access_token") == [{"access_token": "sb_second"}]


async def test_a_function_that_fails_is_asked_again_and_nothing_is_lost(
    server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(300)
    async with connected(server, **options(tokens)) as realtime, realtime.channel("a") as room:
        tokens.error = OSError("no network")
        await trio.sleep(300 - 30)
        assert 4 <= len(tokens.asked) <= 8
        tokens.error = None
        await trio.sleep(300)
        assert room.channel.last_gap is None
    assert "no network" in caplog.text


async def test_a_function_that_hangs_is_given_up_and_asked_again(
    server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(300)
    hangs = [False]

    async def function() -> str:
        token = await tokens()
        if hangs[0]:
            hangs[0] = False
            await trio.sleep_forever()
        return token

    async with connected(server, **options(function)) as realtime, realtime.channel("a") as room:
        hangs[0] = True
        await trio.sleep(360)
        assert len(tokens.asked) == 3
        assert room.channel.last_gap is None
    assert "TooSlowError" in caplog.text


async def test_a_channel_whose_token_expired_comes_back_when_there_is_one(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens = Tokens(300)
    async with connected(server, rejoin_closed=True, **options(tokens)) as realtime:
        async with realtime.channel("a") as room:
            tokens.error = OSError("no network")
            await trio.sleep(270)
            assert "Token has expired" in (await next_of(room, SystemMessage)).message
            await trio.sleep(60)
            assert room.channel.status == "errored"
            tokens.error = None
            assert (await next_of(room, Gap)).reason == "rejoined"
            await room.send("hi")


async def test_a_token_that_is_a_value_is_not_renewed(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server, **options(jwt(EPOCH + 100))) as realtime, realtime.channel("a") as room:
        assert isinstance(await next_event(room), SystemMessage)
        with pytest.raises(ChannelClosed, match="Token has expired 0 seconds ago"):
            await next_event(room)
        assert trio.current_time() == pytest.approx(100, abs=1)


async def test_a_function_that_fails_at_the_first_join_raises_there(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens = Tokens(3600)
    tokens.error = ZeroDivisionError("mine")
    async with connected(server, **options(tokens)) as realtime:
        with pytest.raises(ZeroDivisionError):
            async with realtime.channel("a"):
                pytest.fail("the block must not be entered")
        with pytest.raises(ZeroDivisionError):
            await realtime.refresh_token()
        tokens.error = None
        async with realtime.channel("a"):
            assert len(tokens.asked) == 3


async def test_a_function_may_have_no_token_yet(server: SupabaseServer, autojump_clock: MockClock) -> None:
    given: list[str | None] = [None]
    async with connected(server, **options(lambda: given[-1])) as realtime:
        async with realtime.channel("a"):
            given.append("sb_token")
            async with realtime.channel("b"):
                await trio.sleep(10)
            assert server.tokens == [None, "sb_token"]  # the former of the join of "a", the latter of the join of "b"
            assert await told(server, "access_token") == [{"access_token": "sb_token"}]  # to "a"


async def test_a_token_that_is_not_a_string_raises(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server, **options(lambda: 1)) as realtime:
        with pytest.raises(ConfigurationError, match="access_token"):
            async with realtime.channel("a"):
                pytest.fail("the block must not be entered")


async def test_a_token_that_the_server_refuses_is_replaced_at_the_next_join(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens, ahead = Tokens(3600), [0.0]
    server.now = lambda: now() + ahead[0]
    async with connected(server, reconnect=EXACT, rejoin=EXACT, **options(tokens)) as realtime:
        async with realtime.channel("a") as room:
            ahead[0] = 3700.0
            tokens.seconds = 7200
            server.phoenix.connections[0].drop()
            assert (await next_of(room, Gap)).reason == "reconnected"
            assert tokens.asked == pytest.approx([0, 2], abs=1)


async def test_a_doubted_token_serves_while_there_is_no_other(
    server: SupabaseServer, autojump_clock: MockClock
) -> None:
    tokens = Tokens(3600)
    async with connected(server, reconnect=EXACT, rejoin=EXACT, **options(tokens)) as realtime:
        async with realtime.channel("a", private=True) as room:
            tokens.error = OSError("no network")
            server.unreadable.add("a")
            server.phoenix.connections[0].drop()
            await trio.sleep(1.5)
            server.unreadable.clear()
            assert (await next_of(room, Gap)).reason == "reconnected"
            assert (len(tokens.asked), len(set(server.tokens))) == (2, 1)
            await realtime.refresh_token()
            assert len(tokens.asked) == 3


async def test_a_refused_first_join_raises(server: SupabaseServer, autojump_clock: MockClock) -> None:
    async with connected(server, **options(Tokens(-10))) as realtime:
        with pytest.raises(JoinError, match="Token has expired 10 seconds ago"):
            async with realtime.channel("a"):
                pytest.fail("the block must not be entered")


async def test_a_function_that_returns_old_tokens_is_asked_now_and_then(
    server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server.now = lambda: 0.0  # whose clock is wrong is not known
    tokens = Tokens(-10)
    async with connected(server, **options(tokens)) as realtime, realtime.channel("a"):
        await trio.sleep(95)
        assert tokens.asked == pytest.approx([0, 10, 20, 30, 40, 50, 60, 70, 80, 90], abs=1)
    assert "is the clock of this machine right?" in caplog.text


EXPIRIES = (None, True, "soon", -1, float("inf"), float("nan"), 10**400)
ODD = {
    "empty": "",
    "one part": "abc",
    "no base64": "a.%%%.c",
    "no JSON": "a.e30x.c",
    "not UTF-8": "a._____w.c",
    "a list": "a.W10.c",
    "deep": "a." + "W1tb" * 50_000 + ".c",
    "no exp": "a.e30.c",
    **{f"exp {str(expiry)[:9]}": jwt(expiry) for expiry in EXPIRIES},
}


@pytest.mark.parametrize("token", ODD.values(), ids=ODD)
async def test_a_token_without_a_readable_expiry_is_used_as_it_is(
    token: str, server: SupabaseServer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    asked = []

    def function() -> str:
        asked.append(1)
        return token

    server.now = lambda: -1.0
    server.checks_tokens = False
    async with connected(server, **options(function)) as realtime, realtime.channel("a"):
        await trio.sleep(60)
        assert (len(asked), server.tokens) == (1, [token])
    assert caplog.text == ""
