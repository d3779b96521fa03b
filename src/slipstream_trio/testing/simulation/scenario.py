"""Scenarios, which a seed draws and a failure makes smaller, and the history of a run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import attrs
from attrs import Factory, define, frozen
from attrs.validators import in_

from ...telemetry import Record

FEATURES: Final[Mapping[str, str]] = {
    "latency": "the network is slow, and its delays vary",
    "bandwidth": "the network passes few bytes a second",
    "stall": "bytes wait for a while",
    "reset": "connections are reset, within frames too",
    "truncate": "the rest of what was sent is lost, and the stream ends",
    "half_open": "a connection goes silent, in one direction or in both",
    "refused": "connections are refused, or never answered",
    "reorder": "connections take longer to open than those that are opened after them",
    "partition": "a client and the servers do not reach each other for a while",
    "node_crash": "a server is cancelled, and comes back",
    "node_loss": "a server loses its connections and all its state, and comes back",
    "restart": "a server is stopped as at SIGTERM, and started again",
    "kick": "a server disconnects a client (1001)",
    "channel_crash": "a channel crashes on the server, or is closed by it",
    "client_crash": "a client is cancelled, and starts again",
    "client_loss": "a client vanishes with all its state, without a word on the network, and starts again",
    "wall_jump": "a client's wall clock jumps",
    "standstill": "the process stands still for seconds",
    "slow_join": "joins take their time on the server",
    "rate_limit": "servers answer 429 to connections, and refuse joins",
    "slow_reader": "clients read more slowly than messages come, with small buffers",
    "disk_full": "the disk of the recordings refuses writes for a while",
    "disk_torn": "the last write to a recording is cut off",
    "tls": "clients and servers speak TLS",
    "unread": "a server does not read for a while what a client sends",
    "large_messages": "messages are large, and the limit of bytes that wait is small",
}
"""The features, one or several of which a run has."""

TRANSPORT: Final = "trio_websocket"


@frozen
class Scenario:
    """What happens in a run: drawn from a seed, or given.

    Attributes:
        seed: makes all further choices.
        clients: the number of clients.
        nodes: the number of servers behind the balancer.
        seconds: the time in which clients take their steps.
        steps: the number of steps of each client.
        faults: about how often faults happen that hit from without, such as crashes.
        features: names of `FEATURES`.
        interrupt: "interrupt" (SIGINT), "terminate" (SIGTERM), "exit" (`sys.exit` in a telemetry handler) or "quit"
            (the same in a program, as it logs), or None.
        at: the step of Trio's at which that comes, from 1; 0: never.
        transport: the name of the clients' transport.
    """

    seed: int
    clients: int = 2
    nodes: int = 2
    seconds: float = 60.0
    steps: int = 12
    faults: int = 6
    features: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    interrupt: str | None = attrs.field(default=None, validator=in_((None, "interrupt", "terminate", "exit", "quit")))
    at: int = 0
    transport: str = TRANSPORT

    @features.validator
    def _check_features(self, _: "attrs.Attribute[Any]", features: tuple[str, ...]) -> None:
        for name in features:
            if name not in FEATURES:
                raise ValueError(f"features: some of {', '.join(FEATURES)}; not {name!r}")

    def smaller(self) -> Iterator[Self]:
        """Give scenarios that are a little smaller, the smallest first."""
        for name in self.features:
            yield attrs.evolve(self, features=tuple(other for other in self.features if other != name))
        if self.transport != TRANSPORT:
            yield attrs.evolve(self, transport=TRANSPORT)
        for field in ("clients", "nodes", "steps", "faults"):
            whole = getattr(self, field)
            for part in dict.fromkeys((1, whole // 2, whole - 1)):
                if 0 < part < whole:
                    yield attrs.evolve(self, **{field: part})

    def arguments(self) -> str:
        """Return the arguments of the command that runs it."""
        numbers = ("seed", "clients", "nodes", "seconds", "steps", "faults")
        words = [f"--{name} {str(getattr(self, name)).removesuffix('.0')}" for name in numbers]
        words += [f"--transport {self.transport}", f"--features {','.join(self.features) or 'none'}"]
        if self.interrupt is not None:
            words.append(f"--interrupt {self.interrupt} --at {self.at}")
        return " ".join(words)


@frozen
class Note:
    """Something that happened: at a virtual time, in seconds, to a client or server, of a kind, with further values."""

    at: float
    who: str
    what: str
    facts: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:12.6f} {self.who}: {self.what} {' '.join(map(repr, self.facts))}".rstrip()


@define(eq=False)
class Run:
    """All that is known of a run, for oracles.

    Attributes:
        notes: what happened, in order, the network's faults included.
        records: the telemetry of each client, by its name, in order.
        recordings: the files that clients recorded on a bad disk, likewise.
        faults: how often each kind of fault happened.
        seconds: the virtual time that it took; the process stood still for `stood` of it.
        steps: the number of steps of Trio's at which it could be interrupted, if its scenario says how.
        left: what was left when every client had ended, and programs that raised or did not end, in words.
        raised: what left the run, if anything did.
        digest: of everything that happened, 32 hexadecimal digits.
    """

    scenario: Scenario
    notes: list[Note] = Factory(list)
    records: dict[str, list[Record]] = Factory(dict)
    recordings: dict[str, Path] = Factory(dict)
    faults: Counter[str] = Factory(Counter)
    seconds: float = 0.0
    stood: float = 0.0
    steps: int = 0
    left: list[str] = Factory(list)
    raised: BaseException | None = None
    digest: str = ""

    def noted(self, *what: str) -> Iterator[Note]:
        """Give the notes of these kinds."""
        return (note for note in self.notes if note.what in what)

    def all_of(self, kind: type) -> Iterator[tuple[str, Any]]:
        """Give the records of a class, each with its client."""
        return ((name, record) for name, records in self.records.items() for record in records if type(record) is kind)
