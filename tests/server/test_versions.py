"""Differences between the versions of Phoenix, beyond those in the recordings."""

from typing import Any

import pytest
import trio
import trio.testing
from tests.server.app import make_server
from tests.server.raw_client import RawClient

from slipstream_trio.testing.server import Version

VERSIONS = ("1.7.24", "1.8.11", "1.8.12")
TOKEN = "base64url.bearer.phx.czNjcjN0"


@pytest.mark.parametrize(("version", "answered"), [("1.7.24", True), ("1.8.11", False), ("1.8.12", True)])
async def test_a_null_join_ref_is_dropped_by_some_versions(
    version: Version, answered: bool, autojump_clock: trio.testing.MockClock
) -> None:
    server = make_server(version=version)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.join("echo:1")
        await client.push(None, "2", "echo:1", "echo", {})
        await trio.sleep(1)
        assert len(client.frames) == 1 + answered
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_join_with_a_null_join_ref_gives_its_ref_to_replies_and_pushes_and_null_to_the_end(
    version: Version, autojump_clock: trio.testing.MockClock
) -> None:
    server = make_server(version=version)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.push(None, "7", "echo:1", "phx_join", {})
        await client.push(None, "8", "echo:1", "push_then_reply", {})
        await client.push(None, "9", "echo:1", "phx_leave", {})
        ends = [message[:2] + message[3:4] for message in await client.wait_messages(5)]
        assert ends == [
            [None, "7", "phx_reply"],
            ["7", None, "pushed"],
            ["7", "8", "phx_reply"],
            ["7", "9", "phx_reply"],
            [None, None, "phx_close"],
        ]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("version", "heard"), [("1.7.24", ["push", "leave"]), ("1.8.11", ["push", "leave"]), ("1.8.12", [])]
)
async def test_a_channel_joined_with_null_takes_any_join_ref_before_1_8_12(
    version: Version, heard: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    server = make_server(version=version)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.push(None, "1", "echo:1", "phx_join", {})
        await client.push("1", "push", "echo:1", "echo", {})
        await client.push("else", "leave", "echo:1", "phx_leave", {})
        await trio.sleep(1)
        assert [message[1] for message in client.messages if message[1] in ("push", "leave")] == heard
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_limits_the_channels_of_a_socket(
    version: Version, autojump_clock: trio.testing.MockClock
) -> None:
    server = make_server(version=version)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        for i in range(100):
            assert (await client.join(f"echo:{i}", ref=f"{i}"))[4]["status"] == "ok"
        refused = await client.join("echo:100", ref="100")
        assert refused[4] == {"response": {"reason": "too many channels joined"}, "status": "error"}
        nursery.cancel_scope.cancel()


async def whoami(version: Version, offered: list[str]) -> tuple[int | None, str | None, Any]:
    """Return the status and the subprotocol that a client gets for those it offers, and the token that was seen."""
    server = make_server(version=version)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, "/authsocket/websocket?vsn=2.0.0", subprotocols=offered)
        seen = server.connections[0].request.auth_token if client.status == 101 else None
        nursery.cancel_scope.cancel()
    return client.status, client.headers.get("sec-websocket-protocol"), seen


@pytest.mark.parametrize("offered", [["phoenix", TOKEN], [TOKEN], ["anything"]])
async def test_1_7_takes_any_subprotocol_and_sees_no_token(
    offered: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    assert await whoami("1.7.24", offered) == (101, None, None)


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (["phoenix", TOKEN], (101, "phoenix", "s3cr3t")),
        ([TOKEN], (101, None, "s3cr3t")),
        (["anything"], (403, None, None)),
        ([TOKEN, "anything"], (403, None, None)),
        (["phoenix", TOKEN, TOKEN], (101, "phoenix", None)),
        ([TOKEN, TOKEN], (403, None, None)),
    ],
)
async def test_1_8_takes_one_token_and_selects_phoenix(
    offered: list[str], answer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    assert await whoami("1.8.12", offered) == answer
