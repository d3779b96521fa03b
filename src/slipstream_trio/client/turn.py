"""The receive loop, and turns: how long it and consumers go on before others run, or wait for others."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, final

import trio

from ..errors import ProtocolError
from ..protocol import Frame, FrameReceived, Message, is_plain
from ..protocol.presence import PRESENCE_EVENTS
from ..protocol.transitions import plain_reply
from ..transport import Transport

if TYPE_CHECKING:
    from .buffer import Backlog
    from .connection import Connection

MESSAGES_A_TURN: Final = 1024
SECONDS_A_TURN: Final = 0.005

FRAMES_A_LOOK: Final = 16
"""The number of messages taken in before a look at the clock (replies count for four): a read may bring thousands."""

CATCHING_UP: Final = 0.05
"""Seconds that the receive loop lets a consumer catch up, at most."""

SETTLING: Final = 0.25
SETTLING_BYTES: Final = 4 * 2**20
"""Seconds and bytes of input that may come before a verdict, at most."""

PIECES_A_STEP: Final = 64
"""The number of channels, or pushes, settled before other tasks run."""

LONGEST_PASS: Final = 0.01
"""Seconds that a pass of the scheduler counts for, at most: in a longer one the program was busy, and read nothing."""

STILL_PASSES: Final = 10
"""The number of passes of the scheduler in which nothing must have been read. One pass brings what waits in the
kernel to the transport's task; more are for streams that have tasks of their own between, and for the way to the
receive loop."""


@final
class Turn:
    """The time for which consumers may go on before they let other tasks run: one for all buffers of a Trio run.

    A consumer that is always answered from its buffer would keep the receive loop, and everybody else, from running.
    A simulation counts instead of asking a clock, so that a run depends on nothing but its seed.
    """

    __slots__ = ("_clock", "_left", "_until")

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock: Callable[[], float] = clock or time.perf_counter  # looked up now: tests replace it
        self._left = MESSAGES_A_TURN
        self._until = self._clock() + SECONDS_A_TURN

    def is_over(self) -> bool:
        """Take note of a message that is taken; tell whether the scheduler has to be passed before."""
        self._left = left = self._left - 1
        return left <= 0 or self._clock() >= self._until

    async def let_others_run(self) -> None:
        """Pass the scheduler, and begin another turn."""
        await trio.lowlevel.checkpoint()
        self.begin()

    def begin(self) -> None:
        """Begin another turn: other tasks have just run."""
        self._left = MESSAGES_A_TURN
        self._until = self._clock() + SECONDS_A_TURN


_TURN: Final[trio.lowlevel.RunVar[Turn | None]] = trio.lowlevel.RunVar("slipstream_trio turn", default=None)


def turn_of_this_run(replacement: Turn | None = None) -> Turn:
    """Return the turn that all buffers of this Trio run share; a replacement is for those made from now on."""
    turn = replacement or _TURN.get() or Turn()
    _TURN.set(turn)
    return turn


def begun(work: Iterator[object]) -> bool:
    """Do the next part of some work, of which each item is a piece; returns whether there may be more."""
    return sum(1 for _ in islice(work, PIECES_A_STEP)) == PIECES_A_STEP


@trio.lowlevel.enable_ki_protection
async def finished(work: Iterator[object]) -> None:
    """Do the rest of some work; others run between its parts."""
    while begun(work):
        await trio.lowlevel.cancel_shielded_checkpoint()


async def catch_up(backlog: "Backlog") -> bool:
    """Let the consumer of a backlog catch up for as long as it does, but not for long; tell whether that would do."""
    until = time.perf_counter() + CATCHING_UP
    size = backlog.waiting
    while time.perf_counter() < until:
        await trio.lowlevel.checkpoint()
        if backlog.waiting >= size or not backlog.crowded:
            break
        size = backlog.waiting
    return time.perf_counter() < until


async def settle(transport: Transport) -> None:
    """Let the input that waits in the kernel be handled.

    A program that was busy finds the answer and the deadline at once. A flood delays the verdict for a while only.
    """
    first = last = transport.progress
    still, spent, now = 0, 0.0, trio.current_time()
    while still < STILL_PASSES and spent < SETTLING and last - first < SETTLING_BYTES:
        await trio.lowlevel.checkpoint()
        before, now = now, trio.current_time()
        # What has come during a pass that took long, as the program was busy again, is still to be read.
        is_still = transport.progress == last and now - before <= LONGEST_PASS
        still = still + 1 if is_still else 0
        spent += min(now - before, LONGEST_PASS)
        last = transport.progress


async def take_in(connection: "Connection", frames: Sequence[Frame]) -> None:
    """Handle frames that have come just now.

    A burst is a loop of these lines: where nobody watches, messages are just put into buffers.
    """
    watched, turn, socket = connection._spans.handle, connection._turn, connection._socket
    channels, decode = socket._channels, socket._serializer.decode
    now, patient, unseen = connection.received, True, FRAMES_A_LOOK
    light = socket._byte_limit.all_light(frames)
    turn.begin()
    for frame in frames:
        if watched.active:
            crowded = connection.take_in_watched(frame, now)
        else:
            try:
                message = decode(frame)
            except ProtocolError:
                connection.handle(FrameReceived(now, frame))
                crowded = None
            else:
                join_ref, ref, topic, event, _ = message
                channel = channels.get(topic) if light and ref is None and event not in PRESENCE_EVENTS else None
                if (
                    channel is not None
                    and channel._put is not None
                    and (join_ref is None or join_ref == channel._join_ref)
                ):
                    crowded = channel._put(message)
                else:
                    crowded = _take_in_other(connection, message, frame, now)
                    unseen -= 3
        unseen -= 1
        if crowded is not None and patient:
            patient, now = await catch_up(crowded), trio.current_time()
        elif unseen <= 0:
            unseen = FRAMES_A_LOOK
            if turn.is_over():
                await turn.let_others_run()
                now = trio.current_time()


def _take_in_other(connection: "Connection", message: Message, frame: Frame, now: float) -> "Backlog | None":
    """Handle what is not just put into one buffer; returns a backlog that is crowded by it."""
    if (reply := plain_reply(connection._state, message)) is not None:
        connection._socket._pushes.reply_received(reply)
    elif is_plain(connection._state, message):
        return connection._socket._deliver(message, frame)
    else:
        connection.handle(FrameReceived(now, frame), decoded=message)
    return None
