"""One connection through a bad network: two lanes, and the faults that hit them."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal, TypeAlias

import trio

from ..server.pipes import GONE, Gauge, reset
from .course import Course, Injected, Piece
from .description import AtTime, Corrupt, Fault, Reset, Rule, Stall, Truncate, Vanish

_Step: TypeAlias = bytes | Injected | Literal["end", "broken"]


class _Lane:
    """One direction of a connection: a task that reads, a task that writes, and a queue between them."""

    def __init__(self, relay: "Relay", source: trio.abc.Stream, sink: trio.abc.Stream, course: Course) -> None:
        self.course: Course = course
        # "vanished" loses all bytes silently; "ended" loses them, and ends the stream toward the sink.
        self.mode: Literal["passing", "vanished", "ended"] = "passing"
        self._relay = relay
        self._source = source
        self._sink = sink
        self._link = course.link
        self._put_step, self._steps = trio.open_memory_channel[tuple[_Step, float]](math.inf)
        self._under_way = Gauge(course.link.buffer)  # bytes
        self._last_due = 0.0
        self._together = bytearray()  # read at once, and due at once: each step costs the scheduler
        self._free_at = 0.0
        self._stalled_until = float("-inf")
        self._healed = trio.lowlevel.ParkingLot()
        self._waiting = trio.CancelScope()

    def suffer(self, fault: Fault) -> None:
        """Let no bytes through for a time, or lose all further ones, as a fault says that concerns a direction."""
        match fault:
            case Stall(seconds=seconds):
                until = trio.current_time() + (math.inf if seconds is None else seconds)
                self._stalled_until = max(self._stalled_until, until)
            case Vanish() if self.mode == "passing":
                self.mode = "vanished"
            case Truncate() if self.mode == "passing":
                self.mode = "ended"
                self._waiting.cancel()

    def heal(self) -> None:
        """Let stalled bytes through again."""
        self._stalled_until = float("-inf")
        self._healed.unpark_all()

    async def read(self) -> None:
        """Read from the source to its end."""
        ending: _Step = "end"
        await self._put(self.course.feed(b""))
        try:
            while data := bytes(await self._source.receive_some(min(16_384, self._link.buffer))):
                await self._put(self.course.feed(data))
            await self._put(self.course.finish())
        except GONE:
            ending = "broken"
        self._put_step.send_nowait((ending, self._last_due))

    async def write(self) -> None:
        """Write to the sink until the source has ended."""
        told = False
        while True:
            if self.mode == "ended" and not told:
                told = True
                await _send_eof(self._sink)
            step = await self._next()
            if isinstance(step, bytes):
                if self.mode == "passing":
                    try:
                        await self._sink.send_all(step)
                    except GONE:
                        self._relay.broke(self)
                self._under_way.remove(len(step))
            elif isinstance(step, Injected):
                self._relay.inject(step, self)
            elif step is not None:
                if step == "broken" and self.mode == "passing":
                    self._relay.reset()
                elif self.mode != "vanished":
                    await _send_eof(self._sink)
                return

    async def _next(self) -> _Step | None:
        """Return the next step when it is due, and at once when the lane is ended, then perhaps None."""
        step: _Step | None = None
        with trio.CancelScope() as self._waiting:
            step, due = await self._steps.receive()
            if self.mode == "passing":
                if due > trio.current_time():
                    await trio.sleep_until(due)
                while trio.current_time() < self._stalled_until:
                    with trio.move_on_at(self._stalled_until):
                        await self._healed.park()
        return step

    async def _put(self, steps: Iterable[Piece | Injected]) -> None:
        bandwidth = self._link.bandwidth
        for step in steps:
            if isinstance(step, Injected):
                self._pass_on()
                self._put_step.send_nowait((step, self._last_due))
                continue
            size = len(step.data) if bandwidth is None else max(1, int(bandwidth / 20))  # 20 slices a second
            for start in range(0, len(step.data), size):
                data = step.data[start : start + size]
                if self._under_way.full:
                    self._pass_on()
                await self._under_way.wait_room()
                now = trio.current_time()
                self._free_at = max(self._free_at, now) + (len(data) / bandwidth if bandwidth else 0.0)
                due = self._free_at + self._link.latency + self._link.jitter * step.jitter
                if due > self._last_due:
                    self._pass_on()
                    self._last_due = due
                self._under_way.size += len(data)
                self._together += data
        self._pass_on()

    def _pass_on(self) -> None:
        """Put what is due at one time into the queue."""
        if self._together:
            self._put_step.send_nowait((bytes(self._together), self._last_due))
            self._together.clear()


class Relay:
    """A connection; of `streams`, `courses` and `lanes` the first is the one toward the client."""

    def __init__(
        self, name: str, streams: Sequence[trio.abc.Stream], courses: Sequence[Course], note: Callable[[Injected], None]
    ) -> None:
        near, far = streams
        self.name: str = name
        self.lanes: tuple[_Lane, _Lane] = _Lane(self, far, near, courses[0]), _Lane(self, near, far, courses[1])
        self._streams = streams
        self._note = note
        self._scope = trio.CancelScope()

    @property
    def cut(self) -> bool:
        """Whether it has been reset."""
        return self._scope.cancel_called

    async def run(self) -> None:
        """Pass bytes on until both directions have ended."""
        try:
            with self._scope:
                async with trio.open_nursery() as timers:
                    for lane in self.lanes:
                        for rule in lane.course.timed:
                            timers.start_soon(self._at_time, rule, lane, trio.current_time())
                    async with trio.open_nursery() as lanes:
                        for lane in self.lanes:
                            lanes.start_soon(lane.read)
                            lanes.start_soon(lane.write)
                    if any(lane.mode == "vanished" for lane in self.lanes):
                        await trio.sleep(120)  # kept half open, so that a stream does not learn of its peer's end
                    timers.cancel_scope.cancel()
        finally:
            # Shielded: a cancel that comes out of the first closing would leave the other stream open.
            with trio.CancelScope(shield=True):
                for stream in self._streams:
                    await trio.aclose_forcefully(stream)

    def reset(self) -> None:
        """Cut the connection at both ends."""
        for stream in self._streams:
            reset(stream)
        self._scope.cancel()

    def broke(self, lane: _Lane) -> None:
        """A lane cannot write to its sink: reset the source, if it can still be reached."""
        (back,) = (other for other in self.lanes if other is not lane)
        if back.mode == "passing":
            self.reset()
        else:
            lane.suffer(Vanish())

    def inject(self, injected: Injected, lane: _Lane) -> None:
        """Inject a fault now; where its byte was not counted, it damages the next ones."""
        fault = injected.fault
        if injected.byte is None and isinstance(fault, Corrupt):
            lane.course.damage(fault)
        self._note(injected)
        for each in (lane,) if isinstance(fault, Stall | Vanish) and not fault.both else self.lanes:
            each.suffer(fault)
        if isinstance(fault, Reset):
            self.reset()

    async def _at_time(self, rule: Rule, lane: _Lane, opened: float) -> None:
        assert isinstance(rule.when, AtTime)
        await trio.sleep_until(opened + rule.when.seconds)
        if lane.course.active():
            self.inject(Injected(self.name, rule.fault, lane.course.toward), lane)


async def _send_eof(stream: trio.abc.Stream) -> None:
    with suppress(*GONE):  # otherwise it is gone already
        await (stream.send_eof() if isinstance(stream, trio.abc.HalfCloseableStream) else stream.aclose())
