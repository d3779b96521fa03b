"""One connection through a bad network: two lanes, and the faults that hit them."""

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import trio

from ..server.memory import MemoryStream
from .course import Course, Hit, Piece, Step
from .description import AtTime, Corrupt, Fault, Link, Lose, Reset, Rule, Stall, Toward, Truncate, Vanish
from .transit import Transit

__all__ = ["Lane", "OnFault", "Relay", "reset_stream"]

_READ: Final = 16_384
_SLICES_PER_SECOND: Final = 20
"""A slow link lets so many slices through a second, so that bytes trickle."""

_HALF_OPEN: Final = 120.0
"""How long a stream is kept open that is not to learn of its peer's end, after it has ended itself, in seconds."""

_Mode: TypeAlias = Literal["passing", "vanished", "ended"]
_End: TypeAlias = Literal["end", "broken"]
_PASSING: Final[_Mode] = "passing"


OnFault: TypeAlias = Callable[["Relay", Fault, Toward, Hit | None], None]
"""Told of every fault that happens on an open connection."""


class Lane:
    """One direction of a connection: a task that reads, a task that writes, and what is under way between them."""

    def __init__(
        self, relay: "Relay", source: trio.abc.Stream, sink: trio.abc.Stream, link: Link, course: Course
    ) -> None:
        self.toward: Toward = course.toward
        self.course: Course = course
        self._relay = relay
        self._source = source
        self._sink = sink
        self._link = link
        self._mode: _Mode = _PASSING
        self._transit: Transit[Step | _End] = Transit(link.buffer)
        self._last_due = 0.0
        self._free_at = 0.0
        self._stalled_until = float("-inf")
        self._healed = trio.Event()
        self._waiting = trio.CancelScope()

    @property
    def passes(self) -> bool:
        """Whether what goes in comes out, sooner or later."""
        return self._mode == _PASSING

    @property
    def vanished(self) -> bool:
        """Whether its sink is to learn of nothing."""
        return self._mode == "vanished"

    # Faults

    def stall(self, seconds: float | None) -> None:
        """Let nothing through for a time, or until `heal`."""
        until = trio.current_time() + seconds if seconds is not None else float("inf")
        self._stalled_until = max(self._stalled_until, until)

    def heal(self) -> None:
        """Let bytes through again."""
        self._stalled_until = float("-inf")
        self._healed.set()
        self._healed = trio.Event()

    def vanish(self) -> None:
        """Lose all that comes, the stream's end included."""
        if self._mode == _PASSING:
            self._mode = "vanished"

    def end(self) -> None:
        """Lose all that comes, and end the stream toward the sink."""
        if self._mode == _PASSING:
            self._mode = "ended"
            self._waiting.cancel()

    # Tasks

    async def read(self) -> None:
        """Read from the source to its end."""
        await self._put_all(b"")
        while True:
            try:
                data = bytes(await self._source.receive_some(min(_READ, self._link.buffer)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self._transit.put("broken", self._last_due)
                return
            if not data:
                for step in self.course.finish():
                    await self._put(step)
                await self._transit.put("end", self._last_due)
                return
            await self._put_all(data)

    async def write(self) -> None:
        """Write to the sink what comes out of the lane, until the source has ended."""
        told = False
        while True:
            if self._mode == "ended" and not told:
                told = True
                await _send_eof(self._sink)
            step, size = await self._next()
            if isinstance(step, Piece):
                await self._send(step.data)
                self._transit.arrived(size)
            elif isinstance(step, Hit):
                self._relay.hit(step, self)
            elif step is not None:
                await self._finish(step)
                return

    async def _finish(self, how: _End) -> None:
        if how == "broken" and self._mode == _PASSING:
            self._relay.reset()
        elif self._mode != "vanished":
            await _send_eof(self._sink)

    async def _next(self) -> tuple[Step | _End | None, int]:
        """Return the next step when it is due, and at once if `end` is called; None if there is none then."""
        step: Step | _End | None = None
        size = 0
        with trio.CancelScope() as self._waiting:
            step, due, size = await self._transit.take()
            if self._mode == _PASSING:
                await trio.sleep_until(due)
                await self._pass_stall()
        return step, size

    async def _pass_stall(self) -> None:
        while trio.current_time() < self._stalled_until:
            healed = self._healed
            with trio.move_on_at(self._stalled_until):
                await healed.wait()

    async def _send(self, data: bytes) -> None:
        if self._mode != _PASSING:
            return
        try:
            await self._sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._relay.broke(self)

    async def _put_all(self, data: bytes) -> None:
        for step in self.course.feed(data):
            await self._put(step)

    async def _put(self, step: Step) -> None:
        if isinstance(step, Hit):
            await self._transit.put(step, self._last_due)
            return
        bandwidth = self._link.bandwidth
        size = len(step.data) if bandwidth is None else max(1, int(bandwidth / _SLICES_PER_SECOND))
        for start in range(0, len(step.data), size):
            data = step.data[start : start + size]
            now = trio.current_time()
            self._free_at = max(self._free_at, now) + (len(data) / bandwidth if bandwidth else 0.0)
            due = self._free_at + self._link.latency + self._link.jitter * step.jitter
            self._last_due = max(self._last_due, due)
            await self._transit.put(Piece(data, step.jitter), self._last_due, len(data))


class Relay:
    """A connection.

    Parameters:
        name: the connection's whole name.
        streams: to the client, and to the server.
        links: the links toward the client, and toward the server.
        courses: likewise.
        timed: the rules whose moment is a time.
        on_fault: told of every fault.
    """

    def __init__(
        self,
        name: str,
        streams: tuple[trio.abc.Stream, trio.abc.Stream],
        links: tuple[Link, Link],
        courses: tuple[Course, Course],
        *,
        timed: Sequence[Rule],
        on_fault: OnFault,
    ) -> None:
        near, far = streams
        self.name: str = name
        self._streams = streams
        self._timed = tuple(timed)
        self._on_fault = on_fault
        self._to_client = Lane(self, far, near, links[0], courses[0])
        self._to_server = Lane(self, near, far, links[1], courses[1])
        self._scope = trio.CancelScope()

    @property
    def cut(self) -> bool:
        """Whether it has been reset."""
        return self._scope.cancel_called

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """Both directions: toward the client, toward the server."""
        return self._to_client, self._to_server

    async def run(self) -> None:
        """Pass bytes on until both directions have ended."""
        try:
            with self._scope:
                async with trio.open_nursery() as timers:
                    for rule in self._timed:
                        timers.start_soon(self._at_time, rule, trio.current_time())
                    async with trio.open_nursery() as lanes:
                        for lane in self.lanes:
                            lanes.start_soon(lane.read)
                            lanes.start_soon(lane.write)
                    if any(lane.vanished for lane in self.lanes):
                        await trio.sleep(_HALF_OPEN)
                    timers.cancel_scope.cancel()
        finally:
            # Shielded: a cancel that comes out of the first closing would leave the other stream open.
            with trio.CancelScope(shield=True):
                for stream in self._streams:
                    await trio.aclose_forcefully(stream)

    def hit(self, hit: Hit, lane: Lane) -> None:
        """Let a rule's fault happen."""
        self._inject(hit.rule.fault, lane, hit)

    def reset(self) -> None:
        """Cut the connection at both ends."""
        for stream in self._streams:
            reset_stream(stream)
        self._scope.cancel()

    def broke(self, lane: Lane) -> None:
        """A lane cannot write to its sink: the source learns of it, if word can still reach it."""
        back = self._to_server if lane is self._to_client else self._to_client
        if back.passes:
            self.reset()
        else:
            lane.vanish()

    def inject(self, fault: Fault, toward: Toward) -> None:
        """Let a fault happen now."""
        lane = self._to_server if toward == "server" else self._to_client
        if isinstance(fault, Lose | Corrupt):
            lane.course.damage(fault)
        self._inject(fault, lane, None)

    def _inject(self, fault: Fault, lane: Lane, hit: Hit | None) -> None:
        self._on_fault(self, fault, lane.toward, hit)
        chosen = self.lanes if isinstance(fault, Stall | Vanish) and fault.both else (lane,)
        match fault:
            case Stall(seconds=seconds):
                for each in chosen:
                    each.stall(seconds)
            case Vanish():
                for each in chosen:
                    each.vanish()
            case Reset():
                self.reset()
            case Truncate():
                for each in self.lanes:
                    each.end()
            case _:
                pass  # Lose and Corrupt: the course has done it

    async def _at_time(self, rule: Rule, opened: float) -> None:
        assert isinstance(rule.when, AtTime)
        await trio.sleep_until(opened + rule.when.seconds)
        lane = self._to_server if rule.toward == "server" else self._to_client
        if lane.course.active():
            self.inject(rule.fault, rule.toward)


def reset_stream(stream: trio.abc.Stream) -> None:
    """Cut a stream: with a TCP reset where it has one."""
    if isinstance(stream, MemoryStream):
        stream.reset()
    elif isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        # Closing with a linger time of 0 sends RST; the stream's owner closes it soon after.
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


async def _send_eof(stream: trio.abc.Stream) -> None:
    try:
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        else:
            await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it is gone, which says as much
