"""What a failed expectation says: what was expected, and what came in its place."""

import re
from collections.abc import Awaitable
from typing import Any

import pytest
import trio
from tests.testing.support import parties, watched
from trio.testing import MockClock

from slipstream_trio.testing.kit import ANY, ExpectationFailed, FakeChannel, including


async def failure(operation: Awaitable[object]) -> str:
    """Return what an expectation says when it fails."""
    with pytest.raises(ExpectationFailed) as caught:
        await operation
    return str(caught.value)


# Expectations


async def test_an_expected_join_that_never_came_is_told_with_the_limit(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        connection = await on.server.accept()
        assert await failure(connection.expect_join("room:*", {"a": 1})) == (
            "expected a join on 'room:*' with payload {'a': 1} on connection 1: it did not come within 5 s\n"
            "Nothing had come from this client."
        )
        assert trio.current_time() == pytest.approx(5)


async def test_something_else_came(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        await channel.send("new_msg", {"body": "hi"})
        await channel.send("typing")
        assert await failure(fake.expect_push("new_*", {"body": "hello"}, within=0.25)) == (
            "expected a push 'new_*' on 'room:1' with payload {'body': 'hello'} with join_ref '1' on connection 1: "
            "it did not come within 0.25 s\n"
            "What came from this client:\n"
            "  +0.000 s  phx_join room:1 {} ref 1  - was expected before\n"
            "  +0.000 s  new_msg room:1 {'body': 'hi'} ref 2  - its payload['body'] is 'hi', not 'hello'\n"
            "  +0.000 s  typing room:1 {} ref 3  - its event 'typing' does not match 'new_*'"
        )


async def test_another_topic_another_kind_and_what_was_answered_are_told_apart(autojump_clock: MockClock) -> None:
    async with parties(connecting={"heartbeat_interval": 1}) as (_, channel, fake):
        await channel.send("x")
        assert await failure(fake.connection.expect_leave("room:2", within=1.5)) == (
            "expected a leave on 'room:2' on connection 1: it did not come within 1.5 s\n"
            "What came from this client:\n"
            "  +0.000 s  phx_join room:1 {} ref 1  - was expected before\n"
            "  +0.000 s  x room:1 {} ref 2  - it is a push\n"
            "  +1.000 s  heartbeat phoenix {} ref 3  - it is a heartbeat"
        )
        text = await failure(fake.connection.expect_message("room:2", within=0))
        assert "x room:1 {} ref 2  - its topic is 'room:1', not 'room:2'" in text


async def test_the_join_ref_of_another_join_is_told(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        await channel.send("x")
        stale = FakeChannel(fake.connection, "room:1", "9")
        assert "x room:1 {} ref 2  - its join_ref is '1', not '9'" in await failure(stale.expect_push("x"))
        assert repr(stale) == "<FakeChannel 'room:1' join_ref='9' ended>"
        assert repr(fake) == "<FakeChannel 'room:1' join_ref='1' joined>"


async def test_the_connection_ended_first(autojump_clock: MockClock) -> None:
    async with watched() as on:
        async with on.connect():
            connection = await on.server.accept()
        assert await failure(connection.expect_push("room:1", within=3600)) == (
            "expected a push on 'room:1' on connection 1: the connection has ended: the client closed it, code 1000\n"
            "Nothing had come from this client."
        )
        assert trio.current_time() < 1
        await connection.refute_push(within=3600)
        assert trio.current_time() < 1


async def test_only_the_latest_of_many_are_shown(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        for number in range(30):
            await channel.send("tick", {"n": number, "long": "x" * 500})
        text = await failure(fake.expect_push("tock"))
        lines = text.splitlines()
        assert lines[2] == "  … 11 earlier ones"
        assert len(lines) == 3 + 20
        assert lines[-1] == (
            "  +0.000 s  tick room:1 {'n': 29, 'long': '" + "x" * 181 + "… (521 characters) ref 31"
            "  - its event is 'tick', not 'tock'"
        )


async def test_no_connection_came(autojump_clock: MockClock) -> None:
    async with watched() as on:
        on.server.refuse()
        with pytest.raises(Exception, match="403"):
            async with on.connect():
                pass
        assert await failure(on.server.accept(within=2)) == (
            "expected a connection: none came within 2 s; so far, 1 asked to be let in, and 0 were"
        )


# Refutations


async def test_what_was_refuted_came(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake):
        await channel.send("shout", {"loud": True})
        text = (
            "expected no message like a push 'sh*' on 'room:1' with join_ref '1' on connection 1 within 0.1 s, "
            "but it came:\n"
            "  +0.000 s  shout room:1 {'loud': True} ref 2"
        )
        assert await failure(fake.refute_push("sh*")) == text
        assert await failure(fake.refute_push("sh*")) == text, "it was taken by the refutation"
        await fake.expect_push("shout")
        await fake.refute_push("sh*")
        on.nursery.start_soon(channel.leave)
        assert (await failure(fake.connection.refute_leave(within=1))).startswith(
            "expected no message like a leave on c"
        )
        on.nursery.start_soon(channel.join)
        assert (await failure(fake.connection.refute_join(within=1))).startswith(
            "expected no message like a join on co"
        )
        await (await fake.connection.expect_join()).reply_ok()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_connection_came_that_was_refuted(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect():
        assert await failure(on.server.refute_connect(within=1)) == (
            "expected no connection within 1 s, but one came; so far, 1 asked to be let in, and 1 were"
        )
        connection = await on.server.accept()
        on.nursery.start_soon(connection.close, 1001)
        assert await failure(connection.refute_disconnect(within=1)) == (
            "expected connection 1 to stay open for 1 s, but the server closed it, code 1001"
        )


async def test_a_client_that_waits_to_be_let_in_has_connected_as_far_as_it_can(autojump_clock: MockClock) -> None:
    async with watched(answers={"leave"}) as on:

        async def client() -> None:
            async with on.connect():
                pass

        on.nursery.start_soon(client)
        await trio.testing.wait_all_tasks_blocked()
        assert await failure(on.server.refute_connect()) == (
            "expected no connection within 0.1 s, but one came; so far, 1 asked to be let in, and 0 were"
        )
        await (await on.server.accept()).expect_disconnect(1000)
        await on.server.refute_connect()


# Secrets


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ({"password": "hunter22", "echo": ANY}, "its payload['password'] is '[redacted]', not '[redacted]'"),
        (including(password=re.compile("hunter22")), "'[redacted]' does not match re.compile('[redacted]')"),
        (including(echo="other"), "its payload['echo'] is 'it is [redacted]', not 'other'"),
        (including(password=lambda it: it == {}[it]), "<lambda> raised KeyError: '[redacted]'"),
        (including(token=int), "its payload has no 'token': {'password': '[redacted]', 'echo': 'it is [redacted]'}"),
    ],
)
async def test_secrets_are_told_neither_of_what_came_nor_of_what_was_expected(
    pattern: Any, problem: str, autojump_clock: MockClock
) -> None:
    async with parties() as (_, channel, fake):
        await channel.send("log_in", {"password": "sesame!!", "echo": "it is sesame!!"})
        texts = [
            await failure(fake.expect_push("log_in", pattern)),
            await failure(fake.refute_push("log_in", including(password="sesame!!"))),
            await failure(fake.expect_push("other", {"authorization": ["hunter22"]})),
            fake.connection.history(),
        ]
    assert problem in texts[0]
    for text in texts:
        assert "log_in room:1 {'password': '[redacted]', 'echo': 'it is [redacted]'} ref 2" in text
        assert "sesame" not in text
        assert "hunter" not in text


async def test_no_half_of_a_secret_is_left_where_a_payload_is_cut(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        await channel.send("long", {"text": "x" * 185 + "sesame!!" * 9, "token": "sesame!!"})
        assert "sesame" not in await failure(fake.expect_push("short"))


# Disconnects


async def test_the_connection_stayed_open(autojump_clock: MockClock) -> None:
    async with watched() as on, on.connect(heartbeat_interval=30):
        connection = await on.server.accept()
        assert await failure(connection.expect_disconnect(1000, by="client", within=31)) == (
            "expected a disconnect with code 1000 by 'client' of connection 1: it is open after 31 s\n"
            "What came from this client:\n"
            "  +30.000 s  heartbeat phoenix {} ref 1  - the server answered it"
        )


async def test_the_connection_ended_in_another_way(autojump_clock: MockClock) -> None:
    async with watched() as on:
        async with on.connect():
            connection = await on.server.accept()
        assert await failure(connection.expect_disconnect(lambda code: code > 4000)) == (
            "expected a disconnect with code <lambda> of connection 1: the client closed it, code 1000 - "
            "the code 1000: <lambda> says no"
        )
        assert await failure(connection.expect_disconnect(by="lost")) == (
            "expected a disconnect by 'lost' of connection 1: the client closed it, code 1000 - "
            "who ended it is 'client', not 'lost'"
        )


async def test_the_history_of_a_client_can_be_shown(autojump_clock: MockClock) -> None:
    async with parties() as (on, channel, fake), on.connect():
        second = await on.server.accept()
        await channel.send("hello")
        await fake.connection.expect_push()
        assert repr(fake.connection) == "<FakeConnection 1 topics=['room:1']>"
        assert fake.connection.history() == (
            "What came from this client:\n"
            "  +0.000 s  phx_join room:1 {} ref 1  - was expected before\n"
            "  +0.000 s  hello room:1 {} ref 2  - was expected before"
        )
        assert second.history() == "Nothing had come from this client."
        await second.close(1001)
        assert repr(second) == "<FakeConnection 2 ended: the server closed it, code 1001>"
        assert [message.event for message in fake.connection.messages] == ["phx_join", "hello"]
        assert fake.connection.unexpected == []
        with pytest.raises(LookupError, match=r"connection 1 has not joined 'room:2'; joined: 'room:1'"):
            await fake.connection.channel("room:2").crash()
        with pytest.raises(LookupError, match=r"connection 2 has not joined 'room:2'; joined: none"):
            second.channel("room:2")


async def test_what_a_test_has_in_its_hands_says_what_it_is(autojump_clock: MockClock) -> None:
    async with parties() as (_, channel, fake):
        await channel.send("hello")
        assert repr(await fake.expect_push()) == "<FakePush 'hello' on 'room:1' ref='2'>"
