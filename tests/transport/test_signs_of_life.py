"""What a transport tells of its liveness: the bytes read, when data was heard, since when a write is blocked."""

from collections.abc import Sequence

import pytest
import trio
from tests.transport.support import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    REQUEST,
    TEXT,
    RawServer,
    close_frame,
    connector,
    frame,
    opened,
    reading,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from slipstream_trio.transport import OpenRequest, Transport, TransportEnded
from slipstream_trio.transport.base import Frame

pytestmark = pytest.mark.usefixtures("each_transport")


async def give(server: RawServer, data: bytes, *, after: float = 0) -> float:
    """Send these bytes, and let them be read; returns when that was."""
    await trio.sleep(after)
    await server.stream.send_all(data)
    await wait_all_tasks_blocked()
    return trio.current_time()


class Own(Transport):
    """A user's own, which knows of none of this."""

    async def receive(self) -> Sequence[Frame]:
        raise AssertionError

    async def send(self, frames: Sequence[Frame]) -> None:
        raise AssertionError

    async def close(self, code: int, reason: str) -> None:
        raise AssertionError


def test_a_transport_may_know_nothing_of_it() -> None:
    transport = Own()
    assert (transport.progress, transport.heard, transport.write_blocked_since) == (0, None, None)


# Reading


async def test_progress_counts_every_byte_that_was_read(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await wait_all_tasks_blocked()
        count = transport.progress
        assert count > 100  # the response to the upgrade
        for data in (frame(PING, b"x"), frame(TEXT, b"text"), frame(TEXT, b"text")[:3], b"ext", close_frame(1000)):
            await give(server, data)
            if data[-2:] == b"xt":
                assert await transport.receive() == ("text",)
            assert transport.progress == count + len(data)
            count += len(data)


async def stand_still(transport: Transport) -> None:
    """Wait, as a connection does before a verdict, until there was no progress for two passes of the scheduler."""
    progress, still = transport.progress, 0
    while still < 2:
        await trio.lowlevel.checkpoint()
        still = still + 1 if transport.progress == progress else 0
        progress = transport.progress


SMALL = frame(TEXT, b"x" * 40)


@pytest.mark.parametrize("passes", [0, 10])
@pytest.mark.parametrize(
    "data",
    [SMALL, SMALL * 2, SMALL * 3, SMALL * 300, frame(PING, b"x" * 40) * 300 + SMALL],
    ids=[1, 2, 3, 300, "pings"],
)
async def test_there_is_progress_until_all_that_was_read_has_been_received(
    data: bytes, passes: int, autojump_clock: MockClock
) -> None:
    """An answer may be the last of many messages that came in one read.

    The connection may let some passes go by between these, so that a consumer catches up.
    """
    async with opened(read=False) as (transport, server), trio.open_nursery() as nursery:
        received = 0

        async def receive() -> None:
            nonlocal received
            while True:
                received += len(await transport.receive())
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()

        nursery.start_soon(receive)
        for rounds in range(1, 11):
            await wait_all_tasks_blocked()
            await server.stream.send_all(data)
            await stand_still(transport)
            assert received == rounds * data.count(SMALL)
        nursery.cancel_scope.cancel()


async def test_there_is_no_progress_while_nothing_comes(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        await stand_still(transport)
        await server.stream.send_all(frame(PING) + frame(TEXT, b"text")[:3])
        await stand_still(transport)
        await server.stream.send_all(frame(TEXT, b"text")[3:])
        assert await transport.receive() == ("text",)
        await stand_still(transport)


@pytest.mark.parametrize("end", [close_frame(1000), b"\x83\x00", frame(BINARY, b"x" * 101), b""])
async def test_there_is_no_progress_after_the_end(end: bytes, autojump_clock: MockClock) -> None:
    async with opened(max_message_size=100) as (transport, server):
        await server.stream.send_all(frame(TEXT, b"one") + end + frame(TEXT, b"never") * 5)
        if not end:
            await server.stream.send_eof()
        with pytest.raises(TransportEnded):
            while True:
                await transport.receive()
        await stand_still(transport)


async def test_there_is_no_progress_while_it_closes(autojump_clock: MockClock) -> None:
    """What comes is dropped."""
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        nursery.start_soon(transport.close, 1000, "")
        await wait_all_tasks_blocked()
        await server.stream.send_all(frame(TEXT, b"never") * 5)
        await stand_still(transport)
        nursery.cancel_scope.cancel()


async def test_nothing_is_heard_before_data_has_come(autojump_clock: MockClock) -> None:
    async with opened(behind=frame(PING, b"x")) as (transport, server):
        await give(server, frame(PONG), after=1)
        assert transport.heard is None
        await give(server, close_frame(1000), after=1)
        assert transport.heard is None


async def test_data_is_heard_when_it_comes_and_not_when_it_is_received(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        came = await give(server, frame(TEXT, b"text"), after=3)
        await trio.sleep(100)
        assert await transport.receive() == ("text",)
        assert transport.heard == came == 3


async def test_a_large_message_that_trickles_in_is_heard_all_the_time(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        received: list[Frame] = []

        async def receive() -> None:
            received.extend(await transport.receive())

        nursery.start_soon(receive)
        data = frame(BINARY, b"x" * 100_000)
        for start in range(0, len(data), 1000):
            assert not received
            came = await give(server, data[start : start + 1000], after=7)
            assert transport.heard == came
    assert received == [b"x" * 100_000]
    assert trio.current_time() > 600


async def test_pings_and_pongs_are_progress_and_not_heard(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        heard = await give(server, frame(TEXT, b"text"))
        for _ in range(100):
            before = transport.progress
            await give(server, frame(PING, b"still there") + frame(PONG), after=20)
            assert transport.heard == heard
            assert transport.progress > before


async def test_control_frames_between_fragments_are_not_heard(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        heard = await give(server, frame(TEXT, b"one", last=False))
        for data, is_data in (
            (frame(PING, b"between"), False),
            (frame(CONTINUATION, last=False), True),
            (frame(PING, b"ping")[:3], False),
            (frame(PING, b"ping")[3:], False),
            (frame(PONG) + frame(CONTINUATION, b"two")[:1], True),
            (frame(CONTINUATION, b"two")[1:] + frame(PING, b"x" * 100), True),
            (frame(PING), False),
        ):
            came = await give(server, data, after=1)
            heard = came if is_data else heard
            assert transport.heard == heard
        assert await transport.receive() == ("onetwo",)


async def test_an_empty_message_is_heard(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        assert await give(server, frame(TEXT), after=1) == transport.heard


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("behind", [frame(TEXT, b"early"), frame(TEXT, b"early")[:1], frame(PING, b"\x81")])
async def test_frames_begin_right_behind_the_head_of_the_upgrade(
    behind: bytes, newline: bytes, autojump_clock: MockClock
) -> None:
    """However the response is split."""
    server = RawServer()
    sent = bytearray()

    async def respond() -> None:
        response = await server.acceptance()
        sent.extend(response.replace(b"\r\n", newline) + behind)
        for byte in sent:
            await give(server, bytes((byte,)), after=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond)
        request = OpenRequest(url=REQUEST.url, connect_timeout=None)
        async with (
            connector(server.open_stream).open(request, server.wake) as opened_transport,
            reading(opened_transport) as transport,
        ):
            await trio.sleep(1000)
            if behind == frame(TEXT, b"early"):
                assert await transport.receive() == ("early",)
            assert transport.progress == len(sent)
            assert transport.heard == (None if behind[0] == 0x80 | PING else len(sent))


# Writing


async def test_nothing_is_blocked_while_nothing_is_written(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        assert transport.write_blocked_since is None
        await transport.send(["small"])
        assert transport.write_blocked_since is None
        await give(server, frame(PING, b"x"))
        assert transport.write_blocked_since is None


@pytest.mark.parametrize("size", [100_000, 1_000_000])
async def test_a_write_that_is_stuck_shows_since_when(size: int, autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        await trio.sleep(5)
        nursery.start_soon(transport.send, [b"x" * size])
        await trio.sleep(1000)
        assert transport.write_blocked_since == 5
        assert await server.read_frame() == (BINARY, b"x" * size)
        await wait_all_tasks_blocked()
        assert transport.write_blocked_since is None


async def test_a_small_write_behind_a_full_buffer_is_stuck_as_well(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        await transport.send([b"x" * (65_536 - 8 - 6 - 2)])  # with its header it fills the buffer, but for 6 bytes
        await trio.sleep(5)
        nursery.start_soon(transport.send, ["some more"])
        await trio.sleep(1000)
        assert transport.write_blocked_since == 5
        await server.read_frame()
        await server.read_frame()


async def test_a_large_write_shows_progress_while_it_is_read_slowly(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        size, read = 1_000_000, 0
        nursery.start_soon(transport.send, [b"x" * size])
        while read < size - 65_536:  # the last piece is in the buffer already
            await trio.sleep(1)
            since = transport.write_blocked_since
            assert since is not None
            assert trio.current_time() - since <= 16_384 / 4096
            read += len(await server.stream.receive_some(4096))
            await wait_all_tasks_blocked()
        assert trio.current_time() > 200
        while transport.write_blocked_since is not None:
            await server.stream.receive_some(4096)
            await wait_all_tasks_blocked()


async def test_a_large_write_goes_out_in_pieces_and_whole(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        frames: list[Frame] = [b"x" * 300_000, "behind"]
        nursery.start_soon(transport.send, frames)
        assert await server.read_frame() == (BINARY, b"x" * 300_000)
        assert await server.read_frame() == (TEXT, b"behind")
        sizes = [len(data) for data in server.client.writes[1:]]
        assert sum(sizes) == 300_000 + 14 + 6 + len("behind")
        assert sizes[:4] == [16_384] * 4, "as much as a buffer may hold"
        assert sizes[4:-1] == sorted(sizes[4:-1])
        assert sizes[-2] > 40_000


async def test_the_pieces_of_a_very_large_write_are_bounded(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server), trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, [b"x" * 2_000_000])
        assert await server.read_frame() == (BINARY, b"x" * 2_000_000)
        assert max(len(data) for data in server.client.writes) == 65_536
        assert len(server.client.writes) < 60


async def test_a_write_that_ends_otherwise_is_blocked_no_more(autojump_clock: MockClock) -> None:
    async with opened() as (transport, server):
        with trio.move_on_after(10):
            await transport.send([b"x" * 1_000_000])
        assert transport.write_blocked_since is None
    async with opened() as (transport, server):
        server.client.broken = True
        with pytest.raises(TransportEnded):
            await transport.send(["text"])
        assert transport.write_blocked_since is None
