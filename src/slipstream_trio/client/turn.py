"""Turns: how long a consumer goes on before it lets other tasks run, and how long the receive loop waits for one."""

import time
from collections.abc import Callable
from typing import Final, Protocol, final

import trio

__all__ = ["Backlog", "Turn", "catch_up", "turn_of_this_run"]

MESSAGES_A_TURN: Final = 1024
SECONDS_A_TURN: Final = 0.005

CATCHING_UP: Final = 0.05
"""Seconds that the receive loop lets a consumer catch up, at most."""


@final
class Turn:
    """How long consumers may go on before they let other tasks run: one for all buffers of a Trio run.

    A consumer that is always answered from its buffer would keep the receive loop, and everybody else, from running.

    Parameters:
        clock: seconds, by default `time.perf_counter`; a simulation counts instead, so that a run depends on nothing
            but its seed.
    """

    __slots__ = ("_began", "_clock", "_messages")

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock: Callable[[], float] = clock or time.perf_counter  # looked up now: tests replace it
        self._messages = 0
        self._began = self._clock()

    async def take(self) -> None:
        """Take a message: pass the scheduler if the turn is over, else only a cancellation is noticed."""
        self._messages += 1
        if self._messages >= MESSAGES_A_TURN or self._clock() - self._began >= SECONDS_A_TURN:
            await trio.lowlevel.checkpoint()
            self.begin()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def begin(self) -> None:
        """Begin another turn: other tasks have just run."""
        self._messages = 0
        self._began = self._clock()


_TURN: Final[trio.lowlevel.RunVar[Turn | None]] = trio.lowlevel.RunVar("slipstream_trio turn", default=None)


def turn_of_this_run(replacement: Turn | None = None) -> Turn:
    """Return the turn that all buffers of this Trio run share; a replacement is for those made from now on."""
    turn = replacement or _TURN.get() or Turn()
    _TURN.set(turn)
    return turn


class Backlog(Protocol):
    """A consumer's messages that wait, as the receive loop sees them."""

    @property
    def crowded(self) -> bool:
        """Whether somebody reads, and is more than half a buffer behind."""
        ...

    def __len__(self) -> int: ...


async def catch_up(backlog: Backlog) -> None:
    """Let the consumer of a backlog catch up for as long as it does, but not for long."""
    until = time.perf_counter() + CATCHING_UP
    size = len(backlog)
    while time.perf_counter() < until:
        await trio.lowlevel.checkpoint()
        if len(backlog) >= size or not backlog.crowded:
            return
        size = len(backlog)
