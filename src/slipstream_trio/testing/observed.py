"""The telemetry of a test: the fixture `slipstream_trace`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from attrs import define, field

from ..telemetry import Record, Telemetry, default_telemetry
from ..trace import Verifier, Violation

__all__ = ["ObservedTrace", "observed"]


@contextmanager
def observed() -> "Iterator[ObservedTrace]":
    """Listen to the process's bus, and to those given to `listen_to`, for the time of a block."""
    with ExitStack() as listening:
        trace = ObservedTrace(listening)
        trace.listen_to(default_telemetry)
        yield trace


@define(eq=False, repr=False)  # the records would fill a report
class ObservedTrace:
    """The records of all connections opened in a test: on the process's bus, and on those given to `listen_to`.

        async def test_my_client(slipstream_trace):
            ...
            assert [push.outcome for push in slipstream_trace.named("push", "stop")] == ["ok"]
            slipstream_trace.verify()

    Attributes:
        records: the records, in the order in which they were emitted.
    """

    _listening: ExitStack
    records: list[Record] = field(factory=list, init=False)
    _buses: list[Telemetry] = field(factory=list, init=False)

    @property
    def connections(self) -> list[str]:
        """The connection_ids, in the order in which the connections began."""
        return list(dict.fromkeys(one for one in (record.origin.connection_id for record in self.records) if one))

    def named(self, *name: str) -> list[Any]:
        """Return the records whose names end like this: `named("push", "stop")`."""
        return [record for record in self.records if record.name[-len(name) :] == name]

    def violations(self, *, ended: bool = True) -> list[Violation]:
        """Return the invariants that the records break.

        Parameters:
            ended: whether all connections have to have ended; else those that are open are judged by what is there.
        """
        # Of the others, which began before, the beginning is not there.
        begun = {start.origin.connection_id for start in self.named("connection", "connect", "start")}
        whole = [each for each in self.records if each.name[1] != "connection" or each.origin.connection_id in begun]
        verifier = Verifier()
        found = [violation for record in whole for violation in verifier.feed(record)]
        return found + (verifier.finish() if ended else [])

    def verify(self, *, ended: bool = True) -> None:
        """Check that the records keep all invariants; see `violations`.

        Raises:
            AssertionError: they do not; the message lists the violations.
        """
        if found := self.violations(ended=ended):
            raise AssertionError(describe(found))

    def listen_to(self, bus: Telemetry) -> None:
        """Keep the records of another bus as well, for as long as those of the process's; once, if told twice."""
        if not any(known is bus for known in self._buses):
            self._buses.append(bus)
            self._listening.enter_context(bus.listen(self.records.append))


def describe(found: Sequence[Violation]) -> str:
    """Return the text of a report about violations."""
    number = "an invariant" if len(found) == 1 else f"invariants {len(found)} times"
    return "\n".join([f"this test's connections break {number}:", *(f"  {violation}" for violation in found)])
