"""How a client ends: asked to, or for want of a connection."""

import logging
from typing import Any

import pytest
import trio
from tests.callbacks.support import Told, a_world, running
from trio.testing import MockClock

from slipstream_trio import (
    Backoff,
    Channel,
    Client,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    InternalError,
    Socket,
    run_client,
)
from slipstream_trio.testing.server import Refuse
from slipstream_trio.transport import OpenRequest

# Asked to


async def test_stop_makes_the_callback_that_runs_the_last(autojump_clock: MockClock) -> None:
    async def stop(message: Any) -> None:
        client.info("never handled")
        client.stop()
        await trio.sleep(1)
        client.note("still here")

    client = Told("room:1", info=stop)
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        client.info("stop")
    assert run.error is None
    assert client.log[2:] == [("info", "stop"), "still here", ("terminate", None)]


async def test_a_stop_leaves_the_topics_and_closes_the_connection(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        [connection] = world.server.connections
        client.stop()
        await run.ended.wait()
        assert world.server.connections == ()
        assert [message.event for message in connection.received] == ["phx_join", "phx_leave"]


async def test_a_client_stopped_before_it_runs_ends_as_soon_as_it_does(autojump_clock: MockClock) -> None:
    client = Told()
    client.stop()
    async with a_world() as world:
        await world.run_client(client)
        assert client.log == [("terminate", None)]
        assert trio.current_time() < 1


async def test_a_client_that_stops_before_its_first_attempt_just_ends(autojump_clock: MockClock) -> None:
    async def trace_parent() -> None:
        await trio.sleep(10)  # which the first attempt waits for

    client = Told()
    async with a_world() as world, running(world, client, trace_parent=trace_parent) as run:
        await trio.sleep(1)
        client.stop()
    assert run.error is None
    assert client.log == [("terminate", None)]


async def test_a_client_can_terminate_with_the_connection_at_hand(autojump_clock: MockClock) -> None:
    async def say_good_bye(_: Any) -> None:
        assert client.socket is not None
        channel = channels[0]
        client.note(await channel.push("echo", {"n": 3}))
        await client.push("room:1", "echo")  # whose reply nobody gets

    async def joined(channel: Channel, _: Any) -> None:
        channels.append(channel)
        client.stop()

    channels: list[Channel] = []
    client = Told("room:1", join=joined, terminate=say_good_bye)
    async with a_world() as world, running(world, client) as run:
        pass
    assert run.error is None
    assert client.log[-2:] == [("terminate", None), {"n": 3}]


async def test_a_disconnect_lets_what_has_come_be_handled(autojump_clock: MockClock) -> None:
    async def disconnect(_: Any, __: Any) -> None:
        if len(client.log) == 3:
            await trio.sleep(1)
            await client.disconnect()

    client = Told("room:1", message=disconnect)
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        await client.push("room:1", "burst", {"n": 2})
    assert run.error is None
    assert client.log[2:] == [
        ("message", "tick", 0),
        ("message", "tick", 1),
        ("reply", "burst", {"n": 2}),
        ("disconnect", "ConnectionLost", "disconnected"),
        ("terminate", None),
    ]


async def test_a_callback_that_a_disconnect_interrupts_does_no_harm(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "slipstream_trio")

    async def wait_for_a_reply(channel: Channel, _: Any) -> None:
        await channel.push("ignore", timeout=None)

    client = Told("room:1", join=wait_for_a_reply)
    async with a_world() as world, running(world, client) as run:
        await client.until(("join", "room:1", 1))
        await trio.sleep(1)
        await client.disconnect()
    assert run.error is None
    assert client.log[2:] == [("disconnect", "ConnectionLost", "disconnected"), ("terminate", None)]
    assert "Told: handle_join was interrupted" in caplog.text


async def test_a_disconnect_while_there_is_no_connection_ends_the_attempts(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world:
        world.upgrades.extend([OSError("nobody there")] * 100)
        async with running(world, client) as run:
            await client.until(("disconnect", "ConnectError", "no connection: nobody there"))
            await client.disconnect()
    assert run.error is None
    assert client.log[-1] == ("terminate", None)
    assert len(client.log) == 2


async def test_a_disconnect_ends_an_attempt_that_is_under_way(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client, connect_timeout=None, transport=_Hanging()) as run:
        await trio.sleep(1)
        await client.disconnect()
    assert run.error is None
    assert client.log == [("terminate", None)]


class _Hanging:
    """A transport that never opens."""

    name = "hanging"

    def open(self, request: OpenRequest, wake: Any) -> Any:
        return self

    async def __aenter__(self) -> Any:
        await trio.sleep_forever()

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_stopping_in_handle_disconnect_prevents_another_attempt(autojump_clock: MockClock) -> None:
    async def stop(_: Exception) -> None:
        client.stop()

    client = Told(disconnect=stop)
    async with a_world() as world, running(world, client) as run:
        await client.until("connect")
        world.connection.close(1012)
    assert run.error is None
    assert client.log == ["connect", ("disconnect", "ConnectionLost", "closed_by_server", 1012), ("terminate", None)]


async def test_a_client_that_has_ended_can_be_run_again(autojump_clock: MockClock) -> None:
    async def stop(_: Socket) -> None:
        client.stop()

    client = Told(connect=stop)
    async with a_world() as world:
        await world.run_client(client)
        await world.run_client(client)
    assert client.log == ["connect", ("terminate", None)] * 2


async def test_a_client_runs_once_at_a_time(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client):
        await client.until("connect")
        with pytest.raises(RuntimeError, match="this Told is running already"):
            await world.run_client(client)
        client.stop()


async def test_options_are_checked_before_anything_else() -> None:
    client = Told()
    with pytest.raises(ConfigurationError, match="buffer"):
        await run_client(client, "ws://localhost/socket/websocket", buffer=0)
    with pytest.raises(ConfigurationError, match="did you mean 'buffer'"):
        await run_client(client, "ws://localhost/socket/websocket", bufer=1)  # type: ignore[call-arg]
    assert client.log == []


async def test_what_is_no_client_is_refused() -> None:
    for client, hint in ((Told, r"; write Told\(\)$"), (object(), "from Client$")):
        with pytest.raises(TypeError, match=f"^client: an object .*{hint}"):
            await run_client(client, "ws://localhost/socket/websocket")  # type: ignore[arg-type]


# For want of a connection


async def test_the_last_loss_is_told_then_terminates_then_is_raised(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world, running(world, client, reconnect=None) as run:
        await client.until("connect")
        world.connection.close(4001)
    assert isinstance(run.error, ConnectionLost)
    assert (run.error.reason, run.error.code) == ("closed_by_server", 4001)
    assert client.log == [
        "connect",
        ("disconnect", "ConnectionLost", "closed_by_server", 4001),
        ("terminate", "ConnectionLost"),
    ]


async def test_a_refusal_that_stays_is_told_then_terminates_then_is_raised(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world:
        world.upgrades.append(Refuse(403))
        async with running(world, client) as run:
            pass
    assert isinstance(run.error, ConnectionRejected)
    assert run.error.status == 403
    assert [entry[:2] for entry in client.log] == [
        ("disconnect", "ConnectionRejected"),
        ("terminate", "ConnectionRejected"),
    ]


async def test_a_first_failure_is_final_if_so_asked(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world:
        world.upgrades.append(OSError("nobody there"))
        async with running(world, client, retry_first=False) as run:
            pass
    assert isinstance(run.error, ConnectError)
    assert [entry[0] for entry in client.log] == ["disconnect", "terminate"]


async def test_a_callback_that_the_last_loss_interrupts_does_not_hide_it(autojump_clock: MockClock) -> None:
    async def wait_for_a_reply(channel: Channel, _: Any) -> None:
        await trio.sleep(1)
        await channel.push("echo")

    client = Told("room:1", join=wait_for_a_reply)
    async with a_world() as world, running(world, client, reconnect=None) as run:
        await client.until(("join", "room:1", 1))
        world.connection.close(4001)
    assert isinstance(run.error, ConnectionLost)
    assert client.log[2:] == [
        ("disconnect", "ConnectionLost", "closed_by_server", 4001),
        ("terminate", "ConnectionLost"),
    ]


async def test_attempts_that_are_given_up_are_each_told(autojump_clock: MockClock) -> None:
    client = Told()
    async with a_world() as world:
        world.upgrades.extend([OSError("nobody there")] * 3)
        async with running(world, client, reconnect=Backoff((1,), limit=2)) as run:
            pass
    assert isinstance(run.error, ConnectError)
    assert [entry[0] for entry in client.log] == ["disconnect"] * 3 + ["terminate"]


async def test_an_option_that_raises_is_told_and_asked_again(autojump_clock: MockClock) -> None:
    answers: list[dict[str, str] | None] = [{}, None]

    async def params() -> dict[str, str]:
        answer = answers.pop()
        if answer is None:
            raise LookupError("no token yet")
        return answer

    client = Told()
    async with a_world() as world, running(world, client, params=params):
        await client.until("connect")
        client.stop()
    assert client.log == [("disconnect", "LookupError"), "connect", ("terminate", None)]


async def test_a_bug_of_the_library_is_raised(autojump_clock: MockClock) -> None:
    class Buggy(_Hanging):
        async def __aenter__(self) -> Any:
            raise AttributeError("a bug")

    client = Told()
    async with a_world() as world:
        world.telemetry.detach("world")
        async with running(world, client, transport=Buggy()) as run:
            pass
    assert isinstance(run.error, InternalError)
    assert client.log == [("terminate", "InternalError")]


async def test_a_subclass_need_not_call_the_constructor_of_client(autojump_clock: MockClock) -> None:
    class Careless(Client):
        def __init__(self) -> None:
            self.joined = trio.Event()

        async def handle_connect(self, socket: Socket) -> None:
            await self.join("room:1")

        async def handle_join(self, channel: Channel, response: Any) -> None:
            self.joined.set()

    client = Careless()
    async with a_world() as world, running(world, client):
        await client.joined.wait()
        client.stop()


def test_other_bases_of_a_client_are_told_of_it() -> None:
    class Registry:
        def __init_subclass__(cls, **kwargs: str) -> None:
            told.append(kwargs)

    told: list[dict[str, str]] = []

    class Mine(Client, Registry, name="mine"):
        pass

    assert told == [{"name": "mine"}]


async def test_a_client_that_is_cancelled_before_it_runs_is_told_nothing(autojump_clock: MockClock) -> None:
    client = Told("room:1")
    async with a_world() as world:
        with trio.CancelScope() as scope:
            scope.cancel()
            await world.run_client(client)
        assert scope.cancelled_caught
        assert client.log == []
        async with running(world, client):
            await client.until(("join", "room:1", 1))
            client.stop()


async def test_a_client_is_cancelled_between_callbacks_that_wait_for_nothing(autojump_clock: MockClock) -> None:
    async def cancel(_: Any) -> None:
        run.scope.cancel()

    client = Told(info=cancel)
    async with a_world() as world, running(world, client) as run:
        await client.until("connect")
        client.info("first")
        client.info("second")
    assert client.log == ["connect", ("info", "first"), ("terminate", "Cancelled")]
