"""How much of a traceback is the library's, and how things print."""

import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from tests.client.support import Scripted, scripted
from tests.test_mistakes import CONNECT, URL, Operation, closed_port, entered
from trio.testing import MockClock

from slipstream_trio import Channel, Client, Gap, SlipstreamError, Socket, connect, run_client

# How much of a traceback is not the user's


def foreign_lines(error: BaseException) -> int:
    """Count the lines of a traceback that are of this library, or of Trio."""
    places = ("/slipstream_trio/", "/site-packages/trio/")
    entries = "".join(traceback.format_exception(error)).split("  File ")[1:]
    return sum(len(entry.splitlines()) for entry in entries if any(place in entry.splitlines()[0] for place in places))


MOST = 15


async def refused_connect() -> None:
    await entered(connect(f"ws://127.0.0.1:{closed_port()}/socket/websocket"))


async def failing(operation: Operation) -> None:
    """Do something on a connection whose server answers "error" from then on."""
    async with scripted() as (socket, peer), socket.join("lab") as channel:
        peer.reply = partial(peer.reply, status="error")  # type: ignore[method-assign]
        await operation(socket, channel)


NO_JSON = {"at": datetime(2026, 1, 1, tzinfo=UTC)}


class Mistaken(Client):
    """Pushes what is not JSON as soon as its channel is joined, or raises before."""

    def __init__(self, *, joins: bool) -> None:
        self.joins = joins

    async def handle_connect(self, socket: Socket) -> None:
        if not self.joins:
            raise ValueError("of the user's")
        await self.join("lab")

    async def handle_join(self, channel: Channel, response: Any) -> None:
        await self.push("lab", "save", NO_JSON)


async def called_back(*, joins: bool) -> None:
    await run_client(Mistaken(joins=joins), URL, transport=Scripted())


async def lost() -> None:
    async with scripted() as (_, peer):
        peer.end(1006)
        await trio.sleep_forever()


EVERYDAY: dict[str, Callable[[], Awaitable[object]]] = {
    "join refused": partial(failing, lambda socket, _: entered(socket.join("shut"))),
    "push error": partial(failing, lambda _, channel: channel.push("echo")),
    "push timeout": partial(failing, lambda _, channel: channel.push("mute", timeout=1)),
    "connection lost": lost,
    "push of what is not JSON": partial(failing, lambda _, channel: channel.push("save", NO_JSON)),
    "send of what is not JSON": partial(failing, lambda _, channel: channel.send("save", NO_JSON)),
    "join with what is not JSON": partial(failing, lambda socket, _: entered(socket.join("room", NO_JSON))),
    "join with a function": partial(failing, lambda socket, _: entered(socket.join("room", lambda: NO_JSON))),
    "a callback raises": partial(called_back, joins=False),
    "a callback pushes what is not JSON": partial(called_back, joins=True),
}


@pytest.mark.parametrize("failure", EVERYDAY)
def test_the_traceback_of_an_everyday_failure_is_short(failure: str) -> None:
    with pytest.raises((SlipstreamError, ValueError)) as raised:
        trio.run(EVERYDAY[failure], clock=MockClock(autojump_threshold=0))
    assert 0 < foreign_lines(raised.value) < MOST


def test_the_traceback_of_a_clients_own_function_shows_where_it_failed() -> None:
    def headers() -> dict[str, str]:
        raise LookupError("of the user's")

    run = partial(run_client, Client(), URL, transport=Scripted(), headers=headers, retry_first=False)
    with pytest.raises(LookupError) as raised:
        trio.run(run)
    assert traceback.extract_tb(raised.tb)[-1].name == "headers"


def test_the_traceback_of_a_refused_connection_is_short() -> None:
    with pytest.raises(SlipstreamError) as raised:
        trio.run(refused_connect)
    assert 0 < foreign_lines(raised.value) < MOST


# How things print


async def test_what_users_print_says_what_it_is(autojump_clock: MockClock) -> None:
    assert repr(connect(f"{URL}?token=hush")) == f"<{CONNECT}, to be entered by `async with {CONNECT} as socket:`>"
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert str(Gap("overflow", moment, moment, 3)) == (
        "3 messages were dropped (overflow) from 2026-01-01 00:00:00.000+00:00 to 2026-01-01 00:00:00.000+00:00"
    )
    assert str(Gap("rejoined", moment, moment)).startswith("messages may be missing (rejoined) from 2026")
    client = Client()
    assert repr(client) == "<Client does not run>"
    client.cast("early")
    assert repr(client) == "<Client does not run>"
    async with scripted() as (socket, peer), socket.join("lab") as channel:
        peer.message("lab", "tick")
        await trio.sleep(1)
        assert repr(channel.stream()) == "<Stream of 'lab', 1 buffered, 0 dropped>"
        assert repr(aiter(channel)) == "<Messages of 'lab', 1 buffered, 0 dropped>"


async def test_a_client_is_started_by_a_nursery(autojump_clock: MockClock) -> None:
    client = Client()
    async with trio.open_nursery() as nursery:
        socket = await nursery.start(partial(run_client, client, URL, transport=Scripted()))
        await socket.wait_connected()
        assert repr(client) == f"<Client runs on {socket!r}>"
        client.stop()
    assert repr(client) == "<Client has ended>"
