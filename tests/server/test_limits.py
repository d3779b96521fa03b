"""Limits of the client's frames, which each web server counts in its own way."""

import json
from struct import pack

import pytest
import trio
import trio.testing
from tests.server.raw_client import RawClient
from wsproto.events import Message, Ping

from slipstream_trio.testing.server import Channel, Flavour, Mount, PhoenixServer

LIMIT = 100_000
HEARTBEAT = json.dumps([None, "1", "phoenix", "heartbeat", ""])


def heartbeat(size: int) -> str:
    """Return a heartbeat of so many bytes, which is answered."""
    return HEARTBEAT[:-2] + "x" * (size - len(HEARTBEAT)) + HEARTBEAT[-2:]


async def outcome(
    flavour: Flavour, *fragments: str, deflate: bool = False, limit: int = LIMIT, ping: bool = False
) -> str | tuple[int, str]:
    """Return "answered", or the close code and side, of a heartbeat sent in fragments, maybe with pings between."""
    mount = Mount(channels={"*": Channel}, max_frame_size=limit, compress=deflate)
    server = PhoenixServer({"/socket": mount}, flavour=flavour)
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery, deflate=deflate)
        for i, fragment in enumerate(fragments, 1):
            await client.send_event(Message(data=fragment, message_finished=i == len(fragments)))
            if ping:
                await client.send_event(Ping())
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return client.closed or ("answered" if client.frames else "unanswered")


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


@pytest.mark.parametrize(
    ("flavour", "size", "limit"),
    [("bandit", 99_986, LIMIT), ("bandit", 992, 1000), ("bandit", 119, 125), ("cowboy", LIMIT, LIMIT)],
)
async def test_bandit_counts_a_frame_s_header_and_cowboy_does_not(
    flavour: Flavour, size: int, limit: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert await outcome(flavour, heartbeat(size), limit=limit) == "answered"
    assert await outcome(flavour, heartbeat(size + 1), limit=limit) == (1009, "server")


async def test_a_frame_is_refused_by_its_header(autojump_clock: trio.testing.MockClock) -> None:
    server = PhoenixServer({"/socket": Mount()})
    async with server.run(), trio.open_nursery() as nursery:
        client = await RawClient.connect(server, nursery)
        await client.send_raw(b"\x81\xff" + pack("!Q", 9_999_987) + bytes(4))
        await client.over.wait()
        assert client.closed == (1009, "server")


@pytest.mark.parametrize(("flavour", "expected"), [("bandit", "answered"), ("cowboy", (1009, "server"))])
async def test_cowboy_s_limit_is_for_a_message_in_several_frames_too(
    flavour: Flavour, expected: object, autojump_clock: trio.testing.MockClock
) -> None:
    assert await outcome(flavour, *halves(heartbeat(LIMIT + 1))) == expected
    assert await outcome(flavour, *halves(heartbeat(LIMIT))) == "answered"


@pytest.mark.once
async def test_bandit_limits_a_message_in_several_frames_to_8_000_000_bytes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await outcome("bandit", *halves(heartbeat(8_000_001)), limit=10_000_000) == (1009, "server")


@pytest.mark.parametrize(
    ("flavour", "size", "expected"),
    [
        ("bandit", 30_000, "answered"),  # no second piece of 16 KiB that would be looked at
        ("bandit", 50_000, (1009, "server")),
        ("cowboy", LIMIT, "answered"),
        ("cowboy", LIMIT + 1, (1009, "server")),
    ],
)
async def test_bandit_limits_by_a_ratio_what_a_message_inflates_to_and_cowboy_as_a_frame(
    flavour: Flavour, size: int, expected: object, autojump_clock: trio.testing.MockClock
) -> None:
    assert await outcome(flavour, heartbeat(size), deflate=True) == expected
    assert await outcome(flavour, *halves(heartbeat(size)), deflate=True) == expected


async def test_a_ping_may_come_between_the_frames_of_a_compressed_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await outcome("bandit", *halves(heartbeat(1000)), deflate=True, ping=True) == "answered"


@pytest.mark.once
@pytest.mark.parametrize("flavour", ["bandit", "cowboy"])
async def test_a_bomb_costs_the_connection(flavour: Flavour, autojump_clock: trio.testing.MockClock) -> None:
    assert await outcome(flavour, heartbeat(11_000_000), deflate=True, limit=10_000_000) == (1009, "server")
