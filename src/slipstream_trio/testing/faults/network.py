"""A bad network: one description of faults, in front of streams in memory and of real servers.

Each of its connections has two lanes, and the faults that hit them.
"""

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal, ParamSpec, TypeAlias, get_args

import attrs
import trio

from ..server.pipes import GONE, Gauge, memory_pipe, open_background, reset
from ..server.server import Listening
from . import description as net
from .course import Course, FaultLog, Injected, Piece, opening

P = ParamSpec("P")
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

    def suffer(self, fault: net.Fault) -> None:
        """Let no bytes through for a time, or lose all further ones, as a fault says that concerns a direction."""
        match fault:
            case net.Stall(seconds=seconds):
                until = trio.current_time() + (math.inf if seconds is None else seconds)
                self._stalled_until = max(self._stalled_until, until)
            case net.Vanish() if self.mode == "passing":
                self.mode = "vanished"
            case net.Truncate() if self.mode == "passing":
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
            piece, jitter = step
            size = len(piece) if bandwidth is None else max(1, int(bandwidth / 20))  # 20 slices a second
            for start in range(0, len(piece), size):
                data = piece[start : start + size]
                if self._under_way.full:
                    self._pass_on()
                await self._under_way.wait_room()
                now = trio.current_time()
                self._free_at = max(self._free_at, now) + (len(data) / bandwidth if bandwidth else 0.0)
                due = self._free_at + self._link.latency + self._link.jitter * jitter
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
        self.scope: trio.CancelScope = trio.CancelScope()  # cancelled when it is reset

    async def run(self) -> None:
        """Pass bytes on until both directions have ended."""
        try:
            with self.scope:
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
        self.scope.cancel()

    def broke(self, lane: _Lane) -> None:
        """A lane cannot write to its sink: reset the source, if it can still be reached."""
        (back,) = (other for other in self.lanes if other is not lane)
        if back.mode == "passing":
            self.reset()
        else:
            lane.suffer(net.Vanish())

    def inject(self, injected: Injected, lane: _Lane) -> None:
        """Inject a fault now; where its byte was not counted, it damages the next ones."""
        fault = injected.fault
        if injected.byte is None and isinstance(fault, net.Corrupt):
            lane.course.damage(fault)
        self._note(injected)
        for each in (lane,) if isinstance(fault, net.Stall | net.Vanish) and not fault.both else self.lanes:
            each.suffer(fault)
        if isinstance(fault, net.Reset):
            self.reset()

    async def _at_time(self, rule: net.Rule, lane: _Lane, opened: float) -> None:
        assert isinstance(rule.when, net.AtTime)
        await trio.sleep_until(opened + rule.when.seconds)
        if lane.course.active():
            self.inject(Injected(self.name, rule.fault, lane.course.toward), lane)


async def _send_eof(stream: trio.abc.Stream) -> None:
    with suppress(*GONE):  # otherwise it is gone already
        await (stream.send_eof() if isinstance(stream, trio.abc.HalfCloseableStream) else stream.aclose())


class FaultyNetwork:
    """A network with faults, and a log of those that happened; `faulty_network` makes one."""

    def __init__(self, faults: net.Faults, nursery: trio.Nursery) -> None:
        self.faults: net.Faults = faults
        self.log: FaultLog = FaultLog(faults)
        self._nursery = nursery
        self._began = trio.current_time()
        self._numbers: Counter[str] = Counter()
        self._relays: list[Relay] = []
        self._active = True

    def opener(
        self, open_stream: Callable[P, Awaitable[trio.abc.Stream]], *, name: str = ""
    ) -> Callable[P, Awaitable[trio.abc.Stream]]:
        """Return a function that opens streams through this network, in place of `open_stream`.

            network.opener(lambda request: server.open_stream())   # a server in memory
            network.opener(open_stream)                            # a real one

        Parameters:
            open_stream: opens a stream to the server.
            name: a name of its connections. They are numbered by name: where several clients connect at the same time,
                a name for each makes the numbers independent of the order.

        Returns:
            A function of the same arguments. It raises the errors of `open_stream`, `ConnectionRefusedError` at a
            `Refuse` and once the network has ended, and never returns at an `Ignore`.
        """

        async def open_through(*args: P.args, **kwargs: P.kwargs) -> trio.abc.Stream:
            whole = await self._open(name, trio.sleep_forever)
            far = await open_stream(*args, **kwargs)
            if self._nursery.cancel_scope.cancel_called:
                await trio.aclose_forcefully(far)
            self._check_up(whole)
            near, client = memory_pipe()
            self._nursery.start_soon(self._run, self._relay(whole, near, far))
            return client

        return open_through

    async def listen(self, host: str, port: int, *, name: str = "") -> Listening:
        """Listen on a free port of 127.0.0.1, and pass connections on to a server, until the network ends.

        The server may be any: another process, another language. TLS passes through unread, so that frames cannot be
        counted in it; bytes can. Return where it listens.

        Parameters:
            host: the server's host.
            port: the server's port.
            name: as for `opener`.

        Raises:
            OSError: all ports are taken.
        """
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = listeners[0].socket.getsockname()
        handler = partial(self._proxy, host, port, name)
        self._nursery.start_soon(partial(trio.serve_listeners, handler, listeners, handler_nursery=self._nursery))
        return Listening(address[0], address[1])

    @property
    def connections(self) -> tuple[str, ...]:
        """The names of the open connections, the oldest first."""
        return tuple(relay.name for relay in self._relays if not relay.scope.cancel_called)

    def inject(self, fault: net.Fault, *, toward: net.Toward = "client", name: str | None = None) -> int:
        """Let a fault happen now on open connections; return on how many.

        Parameters:
            fault: one of those that happen on an open connection.
            toward: the direction it happens in.
            name: the connections' name, or the whole name of one; None: all.

        Raises:
            ValueError: the fault is one of those that happen at the opening.
        """
        if isinstance(fault, net.OPENING):
            raise ValueError(f"{fault!r} happens when a connection is opened: give it a Rule")  # noqa: TRY004 - no other type is right
        live = [relay for relay in self._relays if not relay.scope.cancel_called]
        chosen = [relay for relay in live if name in (None, relay.name, relay.name.rpartition("/")[0])]
        for relay in chosen:
            relay.inject(Injected(relay.name, fault, toward), relay.lanes[get_args(net.Toward).index(toward)])
        return len(chosen)

    def heal(self) -> None:
        """End all stalls: waiting bytes go on; lost ones stay lost."""
        for relay in self._relays:
            for lane in relay.lanes:
                lane.heal()

    def quiet(self, quiet: bool = True) -> None:  # noqa: FBT001, FBT002 - reads as a sentence
        """Switch the rules off, or on again; links stay as they are."""
        self._active = not quiet

    def _check_up(self, whole: str) -> None:
        if self._nursery.cancel_scope.cancel_called:
            raise ConnectionRefusedError(f"the faulty network has ended: its block was left before connection {whole}")

    async def _open(self, name: str, ignored: Callable[[], Awaitable[None]]) -> str:
        """Open a connection: returns its whole name, unless a fault refuses it, or it is `ignored`."""
        self._numbers[name] += 1
        self.log.connections += 1
        whole = f"{name}{'/' if name else ''}{self._numbers[name]}"
        for rule, delay in opening(self.faults, whole):
            if self._active:
                self._note(Injected(whole, rule.fault))
                await trio.sleep(delay)
                if isinstance(rule.fault, net.Refuse):
                    raise ConnectionRefusedError(f"the faults refuse connection {whole}")
                if isinstance(rule.fault, net.Ignore):
                    await ignored()
        self._check_up(whole)
        return whole

    def _relay(self, whole: str, near: trio.abc.Stream, far: trio.abc.Stream) -> Relay:
        courses = [Course(self.faults, whole, toward, lambda: self._active) for toward in get_args(net.Toward)]
        relay = Relay(whole, (near, far), courses, self._note)
        self._relays.append(relay)
        return relay

    async def _run(self, relay: Relay) -> None:
        try:
            await relay.run()
        finally:
            self._relays.remove(relay)

    async def _proxy(self, host: str, port: int, name: str, near: trio.SocketStream) -> None:
        async def ignored() -> None:
            while await near.receive_some(65_536):
                pass
            raise trio.BrokenResourceError("the client is gone")

        try:
            whole = await self._open(name, ignored)
            far = await trio.open_tcp_stream(host, port)
        except OSError:
            reset(near)  # for the client, as with a server that refuses
        except trio.BrokenResourceError:
            pass
        else:
            await self._run(self._relay(whole, near, far))
        finally:
            await trio.aclose_forcefully(near)

    def _note(self, entry: Injected) -> None:
        self.log.add(attrs.evolve(entry, time=trio.current_time() - self._began))


@asynccontextmanager
async def faulty_network(faults: net.Faults) -> AsyncIterator[FaultyNetwork]:
    """Make a network with faults, for the time of an `async with` block.

    Leaving the block cuts all its connections. An exception of the block's leaves it unchanged, with a note that
    lists the faults, so that a failing test shows how to reproduce it.

    Parameters:
        faults: the description of its faults.
    """
    async with open_background() as nursery:
        network = FaultyNetwork(faults, nursery)
        try:
            yield network
        except Exception as error:
            error.add_note(str(network.log))
            raise
