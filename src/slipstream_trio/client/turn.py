"""The receive loop, and turns: how long it and consumers go on before others run, or wait for others."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Final, final

import trio

from ..errors import ProtocolError
from ..protocol import Frame, FrameReceived, Message, is_plain
from ..protocol.presence import PRESENCE_EVENTS
from ..protocol.serializer import decoded_together
from ..protocol.transitions import plain_reply
from ..transport import Transport

if TYPE_CHECKING:
    from .buffer import Backlog, Buffer, ByteLimit
    from .channel import Channel
    from .connection import Connection

MESSAGES_A_TURN: Final = 1024
SECONDS_A_TURN: Final = 0.005

MESSAGES_A_LOOK: Final = 8
SECONDS_A_LOOK: Final = 0.0005
"""At most so many messages are taken before another look at the clock, which takes as long as to take one: one at first
in each turn, and twice as many after each look. Where they took longer than that, the consumer is slow, and the clock
is looked at for each."""

NONE_FREE: Final = repeat(1, 0)
"""An iterator at its end, where it stays: no message is free before the clock was looked at."""

FRAMES_A_LOOK: Final = 16
"""The number of messages taken in before a look at the clock (replies count for four): a read may bring thousands."""

FEW_READERS: Final = 8
"""The most readers that are woken at the end of each batch of frames."""

SECONDS_A_READER: Final = 50e-6
LONGEST_HELD: Final = 0.05
"""To wake a reader takes longer than to take in several messages. So where many wait, they are held while more comes
for them, but no longer than it takes about to wake them all."""

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

    While a batch of frames is taken in, readers are held: they are woken together at its end. If they are many, they
    are held while other batches come.

    Attributes:
        free: has an item for each message that may be taken before `frees_more` is asked again.
        holds: whether buffers leave it to this to wake their readers.
        held: the buffers that have.
    """

    __slots__ = ("_clock", "_held_since", "_left", "_looked", "_many", "_until", "free", "held", "holds")

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock: Callable[[], float] = clock or time.perf_counter  # looked up now: tests replace it
        self._left = MESSAGES_A_TURN
        self._looked = -math.inf
        self._many = 1
        self._until = self._clock() + SECONDS_A_TURN
        self.free: Iterator[int] = NONE_FREE
        self._held_since = 0.0
        self.holds: bool = False
        self.held: list[Buffer] = []

    def frees_more(self) -> bool:
        """Let a message be taken, and some more be free, unless the scheduler has to be passed before."""
        now = self._clock()
        if self._left <= 0 or now >= self._until:
            return False
        self._many = many = min(2 * self._many, MESSAGES_A_LOOK) if now - self._looked < SECONDS_A_LOOK else 1
        self._left -= many
        self._looked, self.free = now, repeat(1, many - 1)
        return True

    async def look(self, now: float, *, batch: bool) -> float:
        """Let others run if the turn of a batch of frames is over; returns the time of `now`, or that after this."""
        if self._clock() < self._until:
            return now
        self.end_batch()
        await trio.lowlevel.checkpoint()
        self.begin(batch=batch)
        return trio.current_time()

    async def let_others_run(self) -> None:
        """Pass the scheduler, and begin another turn."""
        await trio.lowlevel.checkpoint()
        self.begin()

    def begin(self, *, batch: bool = False) -> None:
        """Begin another turn: other tasks have just run. In that of a batch of frames, readers are held."""
        now = self._clock()
        self._left, self._until = MESSAGES_A_TURN, now + SECONDS_A_TURN
        self._looked, self.free = -math.inf, NONE_FREE
        if batch:
            self._held_since = self._held_since if self.held else now
            self.holds = True

    def end_batch(self) -> None:
        """Wake the readers that are held, unless they are many and have not waited long: `held` tells."""
        self.holds = False
        longest = min(len(self.held) * SECONDS_A_READER, LONGEST_HELD)
        if len(self.held) <= FEW_READERS or self._clock() - self._held_since > longest:
            self.release()

    def release(self) -> None:
        """Wake the readers that are held."""
        held, self.held, self.holds = self.held, [], False
        for buffer in held:
            buffer.wake()

    async def catch_up(self, backlog: "Backlog | ByteLimit", *, batch: bool = False) -> bool:
        """Let the consumer of a backlog catch up for as long as it does, but not for long; tell whether that would do.

        Another turn begins then.
        """
        self.release()
        in_time, until, size = True, time.perf_counter() + CATCHING_UP, math.inf
        # The scheduler is passed once in any case: on a busy machine the time may be over before anybody has run.
        while in_time and backlog.waiting < size and backlog.crowded:
            size = backlog.waiting
            await trio.lowlevel.checkpoint()
            in_time = time.perf_counter() < until
        self.begin(batch=batch)
        return in_time


_TURN: Final[trio.lowlevel.RunVar[Turn | None]] = trio.lowlevel.RunVar("slipstream_trio turn", default=None)


def turn_of_this_run(replacement: Turn | None = None) -> Turn:
    """Return the turn that all buffers of this Trio run share; a replacement is for those made from now on."""
    turn = replacement or _TURN.get() or Turn()
    _TURN.set(turn)
    return turn


def begun(work: Iterator[object]) -> bool:
    """Do the next part of some work, of which each item is a piece; returns whether there may be more."""
    return sum(1 for _ in islice(work, PIECES_A_STEP)) == PIECES_A_STEP


async def finished(work: Iterator[object]) -> None:
    """Do the rest of some work; others run between its parts."""
    while begun(work):
        await trio.lowlevel.cancel_shielded_checkpoint()


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
    channels = socket._channels
    now, patient, unseen = connection.received, True, FRAMES_A_LOOK
    light = socket._byte_limit.all_light(frames)
    messages = None if watched.active or not light else decoded_together(socket._serializer, frames)
    many = len(frames) > FEW_READERS
    turn.begin(batch=many)
    if many and messages is not None and _put_together(channels, messages):
        frames = ()  # and none is left for the loop
    for frame, message in zip(frames, messages or repeat(None)):  # noqa: B905 - there is no end of None
        crowded = None
        if watched.active:
            crowded = connection.take_in_watched(frame, now)
        elif message is not None or (message := _decoded(connection, frame, now)) is not None:
            join_ref, ref, topic, event, _ = message
            channel = channels.get(topic) if light and ref is None and event not in PRESENCE_EVENTS else None
            if channel is not None and channel._put is not None and (join_ref is None or join_ref == channel._join_ref):
                crowded = channel._put(message)
            else:
                crowded = _take_in_other(connection, message, frame, now)
                unseen -= 3
        unseen -= 1
        if crowded is not None and patient:
            patient, now = await turn.catch_up(crowded, batch=many), trio.current_time()
        elif unseen <= 0:
            unseen, now = FRAMES_A_LOOK, await turn.look(now, batch=many)
    if many:
        turn.end_batch()


def _put_together(channels: Mapping[str, "Channel"], messages: Sequence[Message]) -> bool:
    """Put messages into the buffer of one channel, if they are all plain and for that; tells whether they were.

    Most floods are of one channel, and to look at each message in turn takes longer.
    """
    channel = channels.get(messages[0].topic)
    if channel is None or channel._put is None or messages[-1].topic != messages[0].topic:
        return False
    join_refs, refs, topics, events = (set(map(itemgetter(place), messages)) for place in range(4))
    are_plain = refs == {None} and join_refs <= {None, channel._join_ref} and events.isdisjoint(PRESENCE_EVENTS)
    return are_plain and len(topics) == 1 and channel._put_all(messages)


def _decoded(connection: "Connection", frame: Frame, now: float) -> Message | None:
    """Return the message of a frame; None if it is malformed, which is handled."""
    try:
        return connection._socket._serializer.decode(frame)
    except ProtocolError:
        connection.handle(FrameReceived(now, frame))
        return None


def _take_in_other(connection: "Connection", message: Message, frame: Frame, now: float) -> "Backlog | None":
    """Handle what is not just put into one buffer; returns a backlog that is crowded by it."""
    if (reply := plain_reply(connection._state, message)) is not None:
        connection._socket._pushes.reply_received(reply)
    elif is_plain(connection._state, message):
        return connection._socket._deliver(message, frame)
    else:
        connection.handle_own(FrameReceived(now, frame), message)
    return None
