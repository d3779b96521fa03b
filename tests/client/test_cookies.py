"""Cookies that an upgrade sets come back at the next, if that is asked for, and are told to nobody."""

from typing import Any

import pytest
import trio
from tests.transport.support import RawServer
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionRejected, connect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://localhost:4000/socket/websocket"
STICKY = "node=one-of-the-nodes; Path=/; HttpOnly"


class Balancer:
    """A load balancer that says at each connection what is next in `answers`: a status, and cookies."""

    def __init__(self, *answers: tuple[int, list[str]]) -> None:
        self.answers = list(answers)
        self.cookies: list[str | None] = []
        self.servers: list[RawServer] = []
        self.records: list[Any] = []
        self.telemetry = Telemetry()
        self.telemetry.attach("all", (), self.records.append, prefix=True)
        self._nursery: trio.Nursery

    async def open(self, _: OpenRequest) -> trio.abc.Stream:
        server = RawServer()
        self.servers.append(server)
        self._nursery.start_soon(self._answer, server)
        return await server.open_stream(_)

    async def _answer(self, server: RawServer) -> None:
        valid = await server.acceptance()
        self.cookies.append(server.headers().get("cookie"))
        status, cookies = self.answers.pop(0) if self.answers else (101, [])
        lines = "".join(f"\r\nSet-Cookie: {cookie}" for cookie in cookies).encode()
        head = valid.removesuffix(b"\r\n\r\n") if status == 101 else b"HTTP/1.1 %d X\r\nContent-Length: 0" % status
        await server.stream.send_all(head + lines + b"\r\n\r\n")

    async def run(self, connections: int, **options: Any) -> None:
        """Connect until there were so many connections, each of which is cut at once."""
        given = {"reconnect": Backoff((1,), jitter=0), "telemetry": self.telemetry, **options}
        failure: ConnectionRejected | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                async with connect(URL, transport=TrioWebSocketConnector(self.open), **given) as socket:
                    while socket.generation < connections:
                        self.servers[-1].stream.reset()
                        await trio.sleep(2)
            except ConnectionRejected as error:
                failure = error  # raised below, outside of the nursery's group
            self._nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


async def test_cookies_come_back_at_the_next_upgrade(autojump_clock: MockClock) -> None:
    balancer = Balancer((101, [STICKY, "a=1"]), (101, ["a=2"]))
    await balancer.run(3, cookies=True)
    assert balancer.cookies == [None, "a=1; node=one-of-the-nodes", "a=2; node=one-of-the-nodes"]


@pytest.mark.parametrize("status", [302, 403, 503])
async def test_refusals_and_redirects_set_cookies_too(status: int, autojump_clock: MockClock) -> None:
    balancer = Balancer((status, [STICKY]))
    await balancer.run(1, cookies=True, retry_first=True, should_reconnect=lambda _: True)
    assert balancer.cookies == [None, "node=one-of-the-nodes"]


async def test_without_the_option_none_comes_back(autojump_clock: MockClock) -> None:
    balancer = Balancer((101, [STICKY]))
    await balancer.run(2)
    assert balancer.cookies == [None, None]


async def test_each_socket_has_a_jar_of_its_own(autojump_clock: MockClock) -> None:
    balancer = Balancer((101, [STICKY]))
    for _ in range(2):
        await balancer.run(1, cookies=True)
    assert balancer.cookies == [None, None]


async def test_the_users_own_cookies_stay(autojump_clock: MockClock) -> None:
    balancer = Balancer((101, [STICKY]))
    await balancer.run(2, cookies=True, headers={"cookie": "mine=1"})
    assert balancer.cookies == ["mine=1", "mine=1; node=one-of-the-nodes"]


@pytest.mark.parametrize(
    "cookie", ["a=1; Path=/other", "a=1; Domain=example.org", "a=1; Secure", "a=1; Max-Age=0", "", "=", ";;;", "a"]
)
async def test_a_cookie_that_is_not_for_this_does_not_come_back(cookie: str, autojump_clock: MockClock) -> None:
    balancer = Balancer((101, [cookie]))
    await balancer.run(2, cookies=True)
    assert (balancer.cookies[1] or "").strip("a") == ""


async def test_cookies_are_secret_in_telemetry_and_errors(autojump_clock: MockClock) -> None:
    balancer = Balancer((101, [STICKY]), (403, [STICKY]))
    with pytest.raises(ConnectionRejected) as raised:
        await balancer.run(2, cookies=True)
    assert dict(raised.value.headers)["set-cookie"] == "[redacted]"  # as it had been sent
    told = "".join(f"{record}{record.metadata}" for record in balancer.records)
    assert "node=[redacted]; Path=/; HttpOnly" in told
    for shown in (told, str(raised.value), repr(raised.value)):
        assert "one-of-the-nodes" not in shown
