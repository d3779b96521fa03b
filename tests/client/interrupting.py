"""Interrupts at any moment of a command."""

import signal
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import pytest
import trio
from tests.everywhere.strike import Strike
from trio.testing import MockClock

from slipstream_trio import Socket
from slipstream_trio.testing.simulation.determinism import deterministic

protected_by_code: Final = pytest.mark.skipif(
    hasattr(Socket.disconnect, "__wrapped__"),
    reason="Trio 0.27 protects a function by another one around it, which can be interrupted itself",
)

Program = Callable[[Strike], Awaitable[None]]


def strike_everywhere(program: Program, *, once: bool = False) -> None:
    """Run a program again and again, each time interrupted at the next of its moments; see `Strike`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for at in count(1):
            strike = Strike("interrupt in the library", "commands", at, once=once)
            with deterministic(0, float):
                trio.run(program, strike, clock=MockClock(autojump_threshold=0), instruments=[strike])
            if not strike.struck:
                break
    finally:
        signal.signal(signal.SIGINT, before)
    assert at > 5


async def give(strike: Strike, command: Callable[[], Awaitable[object]]) -> bool:
    """Give a command that is interrupted; tell whether it was."""
    try:
        strike.begin()
        await command()
        strike.end()
        await trio.lowlevel.checkpoint()  # for an interrupt that came last
    except KeyboardInterrupt:
        strike.end()
        return True
    return False


async def after_a_second(action: Callable[[], object]) -> None:
    await trio.sleep(1)
    action()
