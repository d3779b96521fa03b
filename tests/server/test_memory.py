"""The in-memory stream keeps Trio's rules for streams."""

import pytest
import trio
import trio.testing

from slipstream_trio.testing.server import MemoryStream, memory_pipe


async def make_pipe() -> tuple[MemoryStream, MemoryStream]:
    await trio.lowlevel.checkpoint()
    return memory_pipe()


async def make_clogged() -> tuple[MemoryStream, MemoryStream]:
    one, other = memory_pipe()
    await one.send_all(b"x" * 65_536)
    await other.send_all(b"x" * 65_536)
    return one, other


async def test_keeps_the_rules_of_streams() -> None:
    await trio.testing.check_half_closeable_stream(make_pipe, make_clogged)


async def test_a_full_buffer_makes_sending_wait(autojump_clock: trio.testing.MockClock) -> None:
    one, other = memory_pipe()
    with trio.move_on_after(1) as waiting:
        await one.send_all(b"x" * 100_000)
    assert waiting.cancelled_caught
    received = 0
    with trio.move_on_after(1):
        while True:
            received += len(await other.receive_some())
    assert received == 65_536


async def test_a_reset_takes_even_what_was_not_yet_read(autojump_clock: trio.testing.MockClock) -> None:
    one, other = memory_pipe()
    await one.send_all(b"lost")
    one.reset()
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await other.send_all(b"x")
