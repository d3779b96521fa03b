"""A bad network: one description of faults, in front of streams in memory and of real servers."""

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, ParamSpec, get_args

import attrs
import trio

from ..server.pipes import memory_pipe, open_background, reset
from ..server.server import Listening
from .course import Course, Injected, opening
from .description import OPENING, Fault, Faults, Ignore, Refuse, Toward
from .relay import Relay

P = ParamSpec("P")

_SHOWN: Final = 20


@attrs.define(eq=False, repr=False)
class FaultLog:
    """The injected faults: the newest 10,000 entries, which compare without their time, and counts of all, by name.

    Its `str` shows the description, to be pasted into a test, and the last entries.
    """

    faults: Faults
    entries: deque[Injected] = attrs.field(factory=lambda: deque(maxlen=10_000))
    counts: Counter[str] = attrs.field(factory=Counter)
    connections: int = 0

    def add(self, entry: Injected) -> None:
        """Add a fault."""
        self.entries.append(entry)
        self.counts[type(entry.fault).__name__] += 1

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"faults = {self.faults!r}", f"{total} faults on {self.connections} connections"]
        if total > _SHOWN:
            lines.append(f"the last {_SHOWN}:")
        return "\n".join([*lines, *map(str, list(self.entries)[-_SHOWN:])])


class FaultyNetwork:
    """A network with faults, and a log of those that happened; `faulty_network` makes one."""

    def __init__(self, faults: Faults, nursery: trio.Nursery) -> None:
        self.faults: Faults = faults
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
        return tuple(relay.name for relay in self._relays if not relay.cut)

    def inject(self, fault: Fault, *, toward: Toward = "client", name: str | None = None) -> int:
        """Let a fault happen now on open connections; return on how many.

        Parameters:
            fault: one of those that happen on an open connection.
            toward: the direction it happens in.
            name: the connections' name, or the whole name of one; None: all.

        Raises:
            ValueError: the fault is one of those that happen at the opening.
        """
        if isinstance(fault, OPENING):
            raise ValueError(f"{fault!r} happens when a connection is opened: give it a Rule")  # noqa: TRY004 - no other type is right
        live = [relay for relay in self._relays if not relay.cut]
        chosen = [relay for relay in live if name in (None, relay.name, relay.name.rpartition("/")[0])]
        for relay in chosen:
            relay.inject(Injected(relay.name, fault, toward), relay.lanes[get_args(Toward).index(toward)])
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
                if isinstance(rule.fault, Refuse):
                    raise ConnectionRefusedError(f"the faults refuse connection {whole}")
                if isinstance(rule.fault, Ignore):
                    await ignored()
        self._check_up(whole)
        return whole

    def _relay(self, whole: str, near: trio.abc.Stream, far: trio.abc.Stream) -> Relay:
        courses = [Course(self.faults, whole, toward, lambda: self._active) for toward in get_args(Toward)]
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
async def faulty_network(faults: Faults) -> AsyncIterator[FaultyNetwork]:
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
