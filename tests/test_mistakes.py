"""The mistakes that everybody makes once, and the sentence that each is answered with: its cause, and the way out.

`docs/howto/troubleshooting.md` has a row for each of them, which the last tests hold against this table.
"""

import asyncio
import re
import socket as stdlib_socket
import sys
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.client.support import scripted
from trio.testing import MockClock

from slipstream_trio import (
    Channel,
    ChannelClosed,
    Client,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    JoinError,
    PushError,
    PushTimeout,
    SlipstreamError,
    Socket,
    connect,
    run_client,
)

URL = "ws://localhost:1/socket/websocket"
NO_TRIO = (
    "slipstream_trio needs Trio, which does not run here: start the program with trio.run(main) in place of "
    "asyncio.run(main()), or run Trio as a guest of the other loop"
)


def closed_port() -> int:
    with stdlib_socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def entered(block: Any) -> None:
    async with block:
        pass


# What needs no connection


def unentered(call: str, name: str) -> str:
    return f"{call} is a block that was not entered: write `async with {call} as {name}:`, and use {name} in it"


def derived(**members: Any) -> type:
    return type("Lobby", (Client,), members)


def synchronous(self: Any, channel: Any, message: Any) -> None:
    pass


async def asynchronous(self: Any) -> None:
    pass


async def yielding(self: Any, socket: Any) -> Any:
    yield socket


async def of_one(self: Any, message: Any) -> None:
    pass


def without(package: str, module: str) -> None:
    """Import a module as if a package were not installed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.startswith(module)]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, package, None)
        __import__(module)


CONNECT = f"connect({URL!r})"
AT_ONCE: dict[str, tuple[Callable[[], object], str]] = {
    "connect in asyncio": (lambda: asyncio.run(entered(connect(URL))), NO_TRIO),
    "run_client in asyncio": (lambda: asyncio.run(run_client(Client(), URL)), NO_TRIO),
    "connect without a loop": (lambda: connect(URL).__aenter__().__await__().__next__(), NO_TRIO),
    "with connect": (lambda: connect(URL).__enter__(), unentered(CONNECT, "socket")),  # type: ignore[attr-defined]
    "await connect": (lambda: connect(URL).__await__(), unentered(CONNECT, "socket")),  # type: ignore[attr-defined]
    "run connect": (lambda: trio.run(connect(URL)), unentered(CONNECT, "socket")),  # type: ignore[arg-type]
    "connect, not entered": (
        lambda: connect(URL).join("room"),  # type: ignore[attr-defined]
        f"'join': {unentered(CONNECT, 'socket')}",
    ),
    "call without a loop": (lambda: Client().call("x").send(None), NO_TRIO),
    "cast without a loop": (lambda: Client().cast("x"), NO_TRIO),
    "a fragment": (
        lambda: connect(f"{URL}#top"),
        "url: it has a fragment (#…), which no server is sent: leave it out, or percent-encode the # as %23",
    ),
    "no scheme": (
        lambda: connect("localhost:4000/socket/websocket"),
        "url: it lacks a scheme: write it like ws://localhost:4000/socket/websocket, or wss:// with TLS",
    ),
    "misspelt option": (
        lambda: connect(URL, push_timout=3),  # type: ignore[call-arg]
        "push_timout: there is no such option; did you mean 'push_timeout'?",
    ),
    "option cut short": (
        lambda: connect(URL, heartbeat=3),  # type: ignore[call-arg]
        "heartbeat: there is no such option; did you mean 'heartbeat_interval'?",
    ),
    "first word of an option": (
        lambda: connect(URL, ssl=None),  # type: ignore[call-arg]
        "ssl: there is no such option; did you mean 'ssl_context'?",
    ),
    "misspelt transport": (
        lambda: connect(URL, transport="websocket"),
        "transport: unknown transport 'websocket'; did you mean 'websockets'?",
    ),
    "fallback to itself": (
        lambda: connect(URL, transport="longpoll", longpoll_fallback=3),
        "longpoll_fallback: leave it out: the transport is 'longpoll' from the start",
    ),
    "sync callback": (
        lambda: derived(handle_message=synchronous),
        "Lobby.handle_message has to be async: write `async def`",
    ),
    "async method": (lambda: derived(stop=asynchronous), "Lobby.stop has to be synchronous: write `def`"),
    "yielding callback": (
        lambda: derived(handle_connect=yielding),
        "Lobby.handle_connect has a `yield`, and nobody would iterate over it: return, or await, in its place",
    ),
    "parameters of a callback": (
        lambda: derived(handle_message=of_one),
        "Lobby.handle_message would be called with other parameters: write (self, channel, message)",
    ),
    "misspelt callback": (
        lambda: derived(room="room:lobby", handle_mesage=of_one),
        "Lobby.handle_mesage: Client has no such callback, so it would never be called; did you mean 'handle_message'?",
    ),
    "another client's callback": (
        lambda: derived(on_message=of_one),
        "Lobby.on_message: Client has no such callback, so it would never be called; did you mean 'handle_message'?",
    ),
    "callback with another prefix": (
        lambda: derived(handle_on_join=asynchronous),
        "Lobby.handle_on_join: Client has no such callback, so it would never be called; did you mean 'handle_join'?",
    ),
    "no httpcore": (
        lambda: without_httpcore(),  # noqa: PLW0108 - which comes below
        "transport: 'longpoll' needs httpcore: pip install 'slipstream-trio[longpoll]'",
    ),
    "no prometheus_client": (
        lambda: without("prometheus_client", "slipstream_trio.integrations.prometheus"),
        "slipstream_trio.integrations.prometheus needs prometheus_client: pip install 'slipstream-trio[prometheus]'",
    ),
    "no hypothesis": (
        lambda: without("hypothesis", "slipstream_trio.testing.strategies"),
        "slipstream_trio.testing.strategies needs hypothesis: pip install 'slipstream-trio[testing]'",
    ),
}


def without_httpcore() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "slipstream_trio.transport.longpoll", raising=False)
        patch.setitem(sys.modules, "httpcore", None)
        connect(URL, transport="longpoll")


@pytest.mark.parametrize("mistake", AT_ONCE)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_mistake_is_answered_at_once(mistake: str) -> None:
    make, sentence = AT_ONCE[mistake]
    with pytest.raises((TypeError, AttributeError, RuntimeError, ImportError, SlipstreamError)) as raised:
        make()
    assert str(raised.value) == sentence


def test_methods_of_ones_own_and_wrapped_callbacks_are_left_alone() -> None:
    async def handle_order(self: Any) -> None: ...

    async def call(self: Any, message: Any, *, timeout: float | None = 5.0) -> Any: ...

    def wrapper(*arguments: Any) -> Any: ...

    wrapper.__wrapped__ = of_one  # type: ignore[attr-defined]
    derived(handle_order=handle_order, on_payment=synchronous, handle_message=wrapper)
    derived(handle_join=partialmethod(of_one), handle_messages=True)
    derived(call=call, disconnected=asynchronous, leaves=synchronous)


# What needs one

JOIN = "socket.join('room')"
Operation = Callable[[Socket, Channel], Awaitable[object]]


async def iterated(thing: Any) -> None:
    async for _ in thing:
        pass


class Kind(Enum):
    """An enum of a user's."""

    ONE = 1


async def entered_twice(block: Any) -> None:
    await entered(block)
    await entered(block)


async def after_leaving(channel: Channel) -> None:
    await channel.leave()
    await channel.receive()


CONNECTED: dict[str, tuple[Operation, str]] = {
    "join, not entered": (lambda socket, _: socket.join("room").push("x"), f"'push': {unentered(JOIN, 'channel')}"),  # type: ignore[attr-defined]
    "await join": (lambda socket, _: socket.join("room").__await__(), unentered(JOIN, "channel")),  # type: ignore[attr-defined]
    "iterate over join": (lambda socket, _: iterated(socket.join("room")), unentered(JOIN, "channel")),
    "iterate over subscribe": (
        lambda _, channel: iterated(channel.subscribe("x")),
        unentered("channel.subscribe(…)", "messages"),
    ),
    "presence, not entered": (
        lambda _, channel: channel.presence().list(),  # type: ignore[attr-defined]
        f"'list': {unentered('channel.presence()', 'presence')}",
    ),
    "iterate over listen": (lambda socket, _: iterated(socket.listen("x")), unentered("socket.listen(…)", "messages")),
    "enter a channel": (
        lambda socket, _: entered(socket.channel("room")),
        "await channel.join(), or write `async with socket.join(topic) as channel:`",
    ),
    "never joined": (
        lambda socket, _: socket.channel("other").push("x"),
        "the channel 'other' is not joined: join it first",
    ),
    "receive after leaving": (
        lambda _, channel: after_leaving(channel),
        "the channel 'lab' is not joined: it was left; join it again to use it",
    ),
    "entered twice": (
        lambda socket, _: entered_twice(socket.join("room")),
        "socket.join('room') is a block that was entered already: make another one for each `async with`",
    ),
    "subscribed twice": (
        lambda _, channel: entered_twice(channel.subscribe("x")),
        "channel.subscribe(…) is a block that was entered already: make another one for each `async with`",
    ),
    "call of a client that does not run": (
        lambda _, __: Client().call("x", timeout=1),
        "Client did not answer a call within 1 s; it does not run: start it with run_client",
    ),
    "an enum": (
        lambda _, channel: channel.push("echo", {"kind": Kind.ONE}),
        "at payload[\"kind\"]: Kind is not a JSON type: use its value (in 'echo' of 'lab')",
    ),
    "joined twice": (
        lambda socket, _: entered(socket.join("lab")),
        "this socket has already joined 'lab': share that channel, or leave it first",
    ),
    "no event": (lambda _, channel: channel.push({"a": 1}), "an event is a string, not dict"),  # type: ignore[arg-type]
    "the protocol's event": (
        lambda _, channel: channel.push("phx_leave"),
        "'phx_leave' is an event of the protocol, which cannot be pushed: use join() or leave()",
    ),
    "not JSON": (
        lambda _, channel: channel.push("echo", {"items": [0, {"at": {1}}]}),
        (
            'at payload["items"][1]["at"]: set is not a JSON type: use dict, list, str, int, float, bool or None, or '
            "bytes as the payload (in 'echo' of 'lab')"
        ),
    ),
    "no answer": (
        lambda _, channel: channel.push("mute", timeout=1),
        "no reply to 'mute' on 'lab' within 1 s; use send() for events that the server does not answer",
    ),
}


@pytest.mark.parametrize("mistake", CONNECTED)
async def test_a_mistake_on_a_connection_is_answered(mistake: str, autojump_clock: MockClock) -> None:
    operation, sentence = CONNECTED[mistake]
    async with scripted() as (socket, _), socket.join("lab") as channel:
        with pytest.raises((TypeError, AttributeError, RuntimeError, ValueError, SlipstreamError)) as raised:
            await operation(socket, channel)
        assert str(raised.value) == sentence


async def test_each_kind_of_buffer_is_a_binary_payload(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("lab") as channel:
        for payload in (b"x", bytearray(b"x"), memoryview(b"x")):
            await channel.send("bytes", payload)
        await trio.sleep(1)
        assert [message.payload for message in peer.sent[1:]] == [b"x"] * 3


async def test_anext_gives_the_next_message_of_a_channel(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer), socket.join("lab") as channel:
        for number in range(2):
            peer.message("lab", "tick", number)
        assert (await anext(channel)).payload == 0
        assert (await channel.receive()).payload == 1


# What the server, or the network, does

ENDS: dict[str, tuple[Exception, str]] = {
    "crashed": (
        ChannelClosed("lab", "crashed", "save"),
        (
            "'save' was not answered: the channel 'lab' is not joined: it crashed on the server (phx_error), whose log "
            "has the reason"
        ),
    ),
    "unmatched topic": (
        JoinError("nosuch", {"reason": "unmatched topic"}),
        (
            "the server refused the join of 'nosuch': {'reason': 'unmatched topic'}; no channel of the server has this "
            "topic: check its spelling, and `channel` in the server's socket"
        ),
    ),
    "refused": (
        JoinError("lab", {"reason": "unauthorized"}),
        "the server refused the join of 'lab': {'reason': 'unauthorized'}",
    ),
    "an error": (
        PushError("lab", "save", "error", {"reason": "too late"}),
        "'save' on 'lab' was answered with status 'error': {'reason': 'too late'}",
    ),
    "403": (
        ConnectionRejected(403),
        (
            "the server refused the connection with HTTP status 403; the server's connect/3 refused it: check params, "
            "auth_token and vsn"
        ),
    ),
    "404": (
        ConnectionRejected(404),
        (
            "the server refused the connection with HTTP status 404; does the URL's path end in /websocket, behind the "
            "path of the server's socket?"
        ),
    ),
    "301": (
        ConnectionRejected(301, [("location", "wss://example.org/")]),
        (
            "the server refused the connection with HTTP status 301; it redirects to 'wss://example.org/': connect to "
            "that URL, if you trust it"
        ),
    ),
    "1009": (
        ConnectionLost("closed_by_server", 1009),
        (
            "the connection ended: closed_by_server (close code 1009); a message to the server exceeds its limit "
            "(Phoenix: max_frame_size): push less at once"
        ),
    ),
    "1012": (
        ConnectionLost("closed_by_server", 1012),
        "the connection ended: closed_by_server (close code 1012); the server restarts",
    ),
    "lost": (
        ConnectionLost("lost", 1006),
        (
            "the connection ended: lost (close code 1006); no close frame came: the server went away, or the network "
            "or a proxy cut the line"
        ),
    ),
    "not connected": (
        PushTimeout("lab", "save", 5, sent=False, waited=5, awaited="connection"),
        (
            "'save' on 'lab' was not sent within 5 s, as the socket was not connected (socket.wait_connected() waits "
            "for that); see push_timeout"
        ),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_told_in_words(end: str) -> None:
    error, sentence = ENDS[end]
    assert str(error) == sentence


async def test_nothing_listens_on_a_closed_port() -> None:
    port = closed_port()
    with pytest.raises(ConnectError) as raised:
        await entered(connect(f"ws://127.0.0.1:{port}/socket/websocket"))
    assert str(raised.value) == (
        f"no connection to 127.0.0.1 port {port}: connection refused, as nothing listens there; is the server running?"
    )
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def answer_in_plain_text(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


async def test_wss_to_a_port_without_tls_asks_for_ws() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer_in_plain_text, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        with pytest.raises(ConnectError, match=r"does the URL begin with ws:// rather than wss://\?$"):
            await entered(connect(f"wss://127.0.0.1:{listener.socket.getsockname()[1]}/socket/websocket"))
        nursery.cancel_scope.cancel()


# The page that explains them

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "troubleshooting.md"
SENTENCES = [sentence for table in (AT_ONCE, CONNECTED, ENDS) for _, sentence in table.values()]
SENTENCES += [
    "no connection to localhost port 1: connection refused, as nothing listens there; is the server running?",
    (
        "TLS handshake with localhost port 1 failed: the server speaks no TLS there (WRONG_VERSION_NUMBER); does the "
        "URL begin with ws:// rather than wss://?"
    ),
]


def rows() -> list[str]:
    return re.findall(r"^\| ``? ?(.+?) ?``? \|", PAGE.read_text(), re.MULTILINE)


def fits(row: str, sentence: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, row.split("…"))), sentence) is not None


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_page_explains_each_sentence(sentence: str) -> None:
    assert any(fits(row, sentence) for row in rows())


def test_the_page_explains_nothing_that_is_not_said() -> None:
    assert [row for row in rows() if not any(fits(row, sentence) for sentence in SENTENCES)] == []
