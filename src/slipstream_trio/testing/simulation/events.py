"""The history of a run, for oracles, and the part of it that is reported."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from attrs import Factory, define, frozen

from ...telemetry import Record
from .scenario import Scenario

__all__ = ["Note", "Oracle", "Report", "Run", "Violation"]

_SHOWN = 12


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
        scenario: the scenario.
        notes: what happened, in order.
        records: the telemetry of each client, by its name, in order.
        recordings: the files that clients recorded on a bad disk, likewise.
        faults: how often each kind of fault happened.
        seconds: the virtual time that it took; the process stood still for `stood` of it.
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
    left: list[str] = Factory(list)
    raised: BaseException | None = None
    digest: str = ""

    def noted(self, *what: str) -> Iterator[Note]:
        """Give the notes of these kinds."""
        return (note for note in self.notes if note.what in what)

    def all_of(self, kind: type) -> Iterator[tuple[str, Any]]:
        """Give the records of a class, each with its client."""
        return ((name, record) for name, records in self.records.items() for record in records if type(record) is kind)


Oracle: TypeAlias = Callable[[Run], Iterator[str | None]]
"""Judges a run: gives None for each check that holds, and a sentence for each that does not."""


@frozen
class Violation:
    """A guarantee that a run broke; `oracle` is the name of the function that found it."""

    oracle: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.oracle}: {self.sentence}"


@frozen
class Report:
    """The result of a run.

    Attributes:
        scenario: the scenario.
        digest: of everything that happened: the same for the same scenario, on every machine.
        violations: the guarantees that it broke.
        seconds: the virtual time that it took.
        counts: the number of "pushes", "messages", "faults" and "checks".
        faults: how often each kind of fault happened.
        history: the last notes.
        command: runs it again.
    """

    scenario: Scenario
    digest: str
    violations: tuple[Violation, ...]
    seconds: float
    counts: Counter[str]
    faults: Counter[str]
    history: tuple[str, ...]
    command: str

    def __str__(self) -> str:
        found = [f"  {each}" for each in self.violations[:_SHOWN]]
        head = f"seed {self.scenario.seed}: {len(self.violations)} violations"
        return "\n".join([head, *found, "history:", *self.history, self.command])
