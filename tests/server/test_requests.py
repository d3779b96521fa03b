"""Requests: which are let in, and what the others are answered."""

import json
from typing import Any

import pytest
import trio
import trio.testing
from tests.server.app import make_server
from tests.server.raw_client import SOCKET, UPGRADE, RawClient, answer_to

from slipstream_trio.testing.server import Accept, Mount, PhoenixServer, Refuse, Request
from slipstream_trio.testing.server.mount import parse_query


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET / HTTP/1.1\r\nhost: h\r\n\r\n", 404),
        ("GET /socket/websocket HTTP/1.1\r\nhost: h\r\n\r\n", 400),
        (UPGRADE.format(target=SOCKET).replace("GET", "POST"), 400),
        (UPGRADE.format(target=SOCKET).replace("version: 13", "version: 8"), 426),
        (UPGRADE.format(target="/socket/websocket?vsn=2.1.0"), 403),
        (UPGRADE.format(target="/socket/websocket?vsn[]=2.0.0"), 403),
        ("\x16\x03\x01 this is not HTTP\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nx: " + "y" * 200_000, 431),
    ],
)
async def test_other_requests_are_answered_and_closed(
    request_text: str, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    server = make_server()
    async with server.run():
        try:
            answer = await answer_to(server, request_text.encode("latin-1"))
        except trio.BrokenResourceError:
            assert status == 431  # the server had heard enough
            return
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"content-length" in answer.lower()


async def test_a_client_that_says_nothing_is_sent_away(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server()
    async with server.run():
        assert await answer_to(server, b"GET /socket") == b""
        assert trio.current_time() == pytest.approx(60.0)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_connect_may_be_sync_or_async_and_its_crash_is_a_500(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    def decide(request: Request) -> Accept | None:
        match request.params.get("as"):
            case "error":
                raise ZeroDivisionError
            case "nonsense":
                return "yes"  # type: ignore[return-value]
            case "refused":
                raise Refuse(401, [("www-authenticate", "Bearer")], "who?")
        return Accept("me", {"a": 1}) if "as" in request.params else None

    async def decide_later(request: Request) -> Accept | None:
        await trio.sleep(1)
        return decide(request)

    server = PhoenixServer({"/": Mount(connect=decide if how == "sync" else decide_later)})
    async with server.run(), trio.open_nursery() as nursery:
        for who, status in (("error", 500), ("nonsense", 500), ("refused", 401), ("me", 101)):
            client = await RawClient.connect(server, nursery, f"/websocket?vsn=2.0.0&as={who}")
            assert client.status == status
        assert [type(error) for error in server.errors] == [ZeroDivisionError, TypeError]
        (connection,) = server.connections
        assert (connection.id, connection.assigns) == ("me", {"a": 1})
        await RawClient.connect(server, nursery, "/websocket")
        assert server.connections[1].id is None
        nursery.cancel_scope.cancel()


async def test_connect_may_take_its_time_for_as_long_as_the_client_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    came_to_its_end: list[str] = []

    async def decide_late(request: Request) -> None:
        await trio.sleep(3600)
        came_to_its_end.append(request.params["n"])

    server = PhoenixServer({"/socket": Mount(connect=decide_late)})
    async with server.run():
        streams = [await server.open_stream() for _ in range(3)]
        for number, stream in enumerate(streams):
            await stream.send_all(UPGRADE.format(target=f"{SOCKET}&n={number}").encode())
        await trio.sleep(60)
        await streams[0].aclose()
        streams[1].reset()
        heartbeat = json.dumps([None, "1", "phoenix", "heartbeat", {}]).encode()
        await streams[2].send_all(bytes([0x81, 0x80 | len(heartbeat), 0, 0, 0, 0]) + heartbeat)  # before its answer
        assert (await streams[2].receive_some()).startswith(b"HTTP/1.1 101 ")
        assert b"phx_reply" in await streams[2].receive_some()
        assert came_to_its_end == ["2"]
        assert list(server.errors) == []


def test_a_token_is_not_in_the_request_s_repr() -> None:
    assert "s3cret" not in repr(Request("/", "http://h/", {}, (), auth_token="s3cret"))


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", {}),
        ("a=1&b=%C3%A9+x&c=", {"a": "1", "b": "é x", "c": ""}),
        ("a=1&a=2", {"a": "2"}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a[b][]=1&a[b][]=2", {"a": {"b": ["1", "2"]}}),
        ("a=1&a[b]=2", {"a": {"b": "2"}}),
        ("a[b=1", {"a[b": "1"}),
    ],
)
def test_parameters_are_nested_as_plug_does(query: str, params: dict[str, Any]) -> None:
    assert parse_query(query) == params
