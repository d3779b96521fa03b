"""Further oracles, for what surrounds the client: recordings, diagnoses, and the memory of buffers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from slipstream_trio.errors import RecordingError
from slipstream_trio.telemetry import ClientJoinStop, ConnectStop, Record
from slipstream_trio.testing.simulation import ORACLES, Oracle, Run
from slipstream_trio.testing.simulation.oracles import Wrong
from slipstream_trio.trace import Checker, Finding, Recorded, diagnose, read_entries

__all__ = ["GUARANTEES", "blame", "memory", "recordings"]


def recordings(run: Run) -> Iterator[Wrong]:
    """A recording on a bad disk tells what it lacks, and replays."""
    for name, path in run.recordings.items():
        checker, read = Checker(), []
        try:
            for entry in read_entries(path):
                yield from (f"{name}: {flaw}" for flaw in checker.feed(path.name, entry) if flaw.wrong)
                read += [entry] if isinstance(entry, Recorded) else []
        except RecordingError as error:
            yield None if "disk_torn" in run.scenario.features else f"{name}: {error}"
            continue
        told = checker.records + checker.missing
        whole = told == len(run.records[name]) or "disk_torn" in run.scenario.features
        yield None if whole else f"{name}: {told} records are told of, of {len(run.records[name])}"


def memory(run: Run) -> Iterator[Wrong]:
    """Buffers keep to their limits."""
    for note in run.noted("waiting"):
        name, waiting, most = note.facts
        yield None if waiting <= most else f"{waiting} items wait in the stream of {name}, at most {most} may"


_NETWORK: Final = frozenset({"network or proxy"})
_SERVER: Final = frozenset({"server"})
_UNREACHED: Final = _NETWORK | {"configuration"}
"""A server that cannot be reached from the beginning may not exist."""
_BLAMED: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("latency", "bandwidth", "stall", "reset", "truncate"), _NETWORK),
    **dict.fromkeys(("client_loss", "client_crash"), _NETWORK | {"application"}),
    # A server that hears nothing any more closes the connection as idle.
    **dict.fromkeys(("half_open", "reorder", "partition"), _UNREACHED),
    # A cut that refusals follow is what is seen of a server that has ended.
    **dict.fromkeys(("refused", "node_crash", "node_loss", "restart"), _UNREACHED | _SERVER),
    **dict.fromkeys(("kick", "channel_crash"), _SERVER),
    "unread": _UNREACHED | _SERVER,  # also a join that is read after join_timeout
    "slow_join": _SERVER | {"configuration"},  # a join may take longer than join_timeout
    "rate_limit": frozenset({"application", "server"}),  # the one asks too much, the other gives too little
    "standstill": frozenset({"this process"}),
    "wall_jump": frozenset({"this process"}),  # as if the machine had slept, where a connection is lost then
    **dict.fromkeys(("slow_reader", "large_messages"), frozenset({"application"})),
}
"""Whom each feature may have `diagnose` blame."""
_SILENCES: Final = frozenset({"slow_join", "dead_link", "network_stalled"})
"""One for another: where little comes, a link that fails as a join is sent looks like a join that the server is at."""
_SILENCING: Final = frozenset(
    {"stall", "unread", "reorder", "half_open", "partition", "client_loss", "node_loss", "slow_join"}
)


def blame(run: Run) -> Iterator[Wrong]:
    """`diagnose` blames nobody whom no fault has hit, and somebody whom one has, where that cost something."""
    allowed = frozenset({"nobody"}).union(*(_BLAMED.get(name, frozenset()) for name in run.scenario.features))
    if run.scenario.interrupt is not None:
        allowed |= {"application"}
    if run.scenario.transport == "longpoll":
        allowed |= _NETWORK  # a session that is asked for too late is gone, as if the request had reached another node
    for name, records in run.records.items():
        findings = diagnose(records)
        right = [finding for finding in findings if finding.blame in allowed or _is_alike(finding, run)]
        missed = _has_suffered(records) and {finding.blame for finding in right} <= {"nobody"}
        yield f"{name}: a connection was cut, or a join not answered, and nobody is blamed" if missed else None
        for finding in findings:
            told = f"{name}: {finding.blame} is blamed: {finding.cause}, {finding.mechanism}"
            yield None if finding in right else told


def _is_alike(finding: Finding, run: Run) -> bool:
    """Tell whether a silence is told that looks like another, which the world has."""
    doubted = finding.cause == "join_timeout_too_short" and any("look the same" in text for text in finding.evidence)
    return (doubted or finding.cause in _SILENCES) and not _SILENCING.isdisjoint(run.scenario.features)


def _has_suffered(records: Iterable[Record]) -> bool:
    """Tell whether a fault has cost a client what always shows who did it.

    A push that is late may show nobody, and a close by the server that costs nothing, as of a deployment, is noise,
    with the attempts that fail, and the connections on which nothing comes, until the server is back.
    """
    is_closed = False
    for record in records:
        if isinstance(record, ConnectStop):
            is_closed = record.ended_by == "server" or (is_closed and record.heard is None)
            if record.ended_by == "network" and not is_closed:
                return True
        elif isinstance(record, ClientJoinStop) and record.outcome == "timeout":
            return True
    return False


GUARANTEES: Final[tuple[Oracle, ...]] = (*ORACLES, recordings, memory, blame)
"""All that is guaranteed."""
