"""The telemetry of a test: the fixture `slipstream_trace`."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import trio

from ..telemetry import Record, Telemetry, default_telemetry
from ..trace import Verifier, Violation
from ..trace.text import Secrets, brief, named_secrets_in, printable
from ..trace.view import describe as line_of

__all__ = ["ObservedTrace", "describe"]

_ARROWS: Final = {"out": "→", "in": "←", "here": "·"}
_ABOUT: Final = ("client", "callback", "topic", "event")


_Timed: TypeAlias = tuple[Record, float | None]
"""A record, and its time in seconds of Trio's clock since the first record of a test; None outside of Trio."""


class ObservedTrace:
    """The records of all connections opened while it listens: on the process's bus, and on those given to `listen_to`.

        async def test_my_client(slipstream_trace):
            ...
            assert [push.outcome for push in slipstream_trace.named("push", "stop")] == ["ok"]
            slipstream_trace.verify()

    Parameters:
        keep: the number of records to keep, the latest ones; None keeps all, which `verify` needs.

    Attributes:
        complete: whether all records are kept.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._timed: deque[_Timed] = deque(maxlen=keep)
        self.complete: bool = keep is None
        self._listening = ExitStack()
        self._buses: list[Telemetry] = []
        self._began: dict[int, tuple[trio.abc.Clock, float]] = {}

    def __enter__(self) -> Self:
        """Begin to listen to the process's bus."""
        self.listen_to(default_telemetry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._buses.clear()
        self._listening.close()

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records, in the order in which they were emitted."""
        return iter(self.records)

    def __len__(self) -> int:
        return len(self._timed)

    def __repr__(self) -> str:
        return f"<ObservedTrace: {len(self)} records of {len(self.connections)} connections>"

    # History

    @property
    def records(self) -> list[Record]:
        """The records, in the order in which they were emitted."""
        return [record for record, _ in self._timed]

    @property
    def connections(self) -> list[str]:
        """The connection_ids, in the order in which the connections began."""
        return list(dict.fromkeys(one for one in (record.origin.connection_id for record in self.records) if one))

    def named(self, *name: str) -> list[Any]:
        """Return the records whose names end like this: `named("push", "stop")`."""
        return [record for record in self.records if record.name[-len(name) :] == name]

    def of(self, connection_id: str) -> list[Record]:
        """Return the records of one connection."""
        return [record for record in self.records if record.origin.connection_id == connection_id]

    def history(self, limit: int = 40) -> str:
        """Return the history, line by line, as failure reports have it.

        Parameters:
            limit: the most lines, the latest ones.
        """
        return tell(list(self._timed), limit) if self._timed else "No connection was made."

    # Invariants

    def violations(self, *, ended: bool = True) -> list[Violation]:
        """Return the invariants that the records break.

        Parameters:
            ended: whether all connections have to have ended; else those that are open are judged by what is there.

        Raises:
            RuntimeError: not all records were kept.
        """
        if not self.complete:
            raise RuntimeError("only the latest records were kept: use the marker slipstream_verify or the fixture")
        verifier = Verifier()
        found = [violation for record in self._own() for violation in verifier.feed(record)]
        return found + (verifier.finish() if ended else [])

    def verify(self, *, ended: bool = True) -> None:
        """Check that the records keep all invariants; see `violations`.

        Raises:
            AssertionError: they do not; the message lists the violations, and the history.
        """
        if found := self.violations(ended=ended):
            raise AssertionError(describe(found))

    # Sources

    def listen_to(self, bus: Telemetry) -> None:
        """Keep the records of another bus as well, for as long as those of the process's; once, if told twice."""
        if not any(known is bus for known in self._buses):
            self._buses.append(bus)
            self._listening.enter_context(bus.listen(lambda record: self._timed.append((record, self._now()))))

    def clear(self) -> None:
        """Forget the records so far, and go on listening."""
        self._timed.clear()

    def _own(self) -> Iterator[Record]:
        """Iterate over the records without those of connections that had begun before."""
        begun: set[str | None] = set()
        for record in self.records:
            if record.name == ("slipstream", "connection", "connect", "start"):
                begun.add(record.origin.connection_id)
            if record.name[1] != "connection" or record.origin.connection_id in begun:
                yield record

    def _now(self) -> float | None:
        """Return the time since the first record by the same clock: each run has its own, unless the test made one."""
        try:
            clock = trio.lowlevel.current_clock()
        except RuntimeError:
            return None
        now = clock.current_time()
        # By identity, as a clock of the test's own need not have a hash; kept, so that no other gets its id.
        _, began = self._began.setdefault(id(clock), (clock, now))
        return now - began


def describe(found: Sequence[Violation]) -> str:
    """Return the text of a report about violations."""
    number = "an invariant" if len(found) == 1 else f"invariants {len(found)} times"
    return "\n".join([f"this test's connections break {number}:", *(f"  {violation}" for violation in found)])


def tell(timed: list[_Timed], limit: int) -> str:
    """Return the history of some connections: at most `limit` of the latest lines, and as many spans still open.

    Members of payloads whose names are those of secrets are masked, wherever their values occur.
    """
    secrets = Secrets.of(_secrets_of(record for record, _ in timed))
    numbers: dict[Any, int] = {}
    open_spans: dict[Any, tuple[int, str]] = {}
    lines: list[tuple[int, str]] = []
    for record, at in timed:
        number = numbers.setdefault(record.origin.connection_id or record.origin.socket_id, len(numbers) + 1)
        beginning = f"{'-' if at is None else f'+{at:.3f} s':>12}  #{number}  "
        span_id = record.metadata.get("span_id")
        if record.name[-1] == "start":
            open_spans[span_id] = number, beginning + _begun(record, secrets)
        else:
            open_spans.pop(span_id, None)
        if (line := line_of(record, secrets)) is not None:
            words = (_ARROWS[line.direction], line.what, line.topic, line.event, line.status, line.detail(secrets))
            lines.append((number, beginning + " ".join(filter(None, words)).rstrip()))
    return _joined(lines, list(open_spans.values()), numbers, limit)


def _joined(lines: list[tuple[int, str]], still_open: list[tuple[int, str]], names: dict[Any, int], limit: int) -> str:
    """Return the latest lines, each with its connection's number, and the names of these connections."""
    left_out = max(0, len(lines) - limit)
    lines, still_open = lines[left_out:], still_open[max(0, len(still_open) - limit) :]
    told = [f"  … {left_out} earlier ones"] if left_out else []
    told += [text for _, text in lines]
    if still_open:
        told += ["Begun and not ended:", *(text for _, text in still_open)]
    shown = {number for number, _ in (*lines, *still_open)}
    where = ", ".join(f"#{number} is {name}" for name, number in names.items() if number in shown)
    return "\n".join([*told, f"where {where}"] if where else told)


def _begun(record: Record, secrets: Secrets) -> str:
    """Return the description of a span that has only begun."""
    metadata = record.metadata
    words = [*record.name[1:-1], *(str(metadata[name]) for name in _ABOUT if name in metadata)]
    payload = f" {brief(metadata['params'], secrets)}" if "params" in metadata else ""
    return printable(secrets.hide(" ".join(words))) + payload


def _secrets_of(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        metadata = record.metadata
        message = getattr(metadata.get("message"), "payload", None)
        for payload in (metadata.get("params"), metadata.get("response"), message):
            yield from named_secrets_in(payload)
