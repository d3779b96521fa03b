"""From records to findings: which diagnoses there are, and how recordings go through them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, Final

from attrs import Factory, asdict, define, filters

from ...telemetry import Record
from ..schema import Damage, Entry, Header, Missing
from ..text import many
from . import channels, ends, losses, silences, timeouts
from .ends import SERVER_ENDS
from .facts import Facts
from .finding import Finding, merged
from .gather import Gatherer
from .outages import evicted, right_after

TABLE: Final[Sequence[tuple[str, Callable[[Facts], Iterator[Finding]]]]] = (
    ("silences: dead links, event loops, slow joins, large messages, slow handlers", silences.diagnose),
    ("ends: limits, idle closes, ages, restarts, refusals, evictions", ends.diagnose),
    ("timeouts: late answers, events and joins that are never answered", timeouts.diagnose),
    ("channels: crashes, refusals, fights over a topic, turns, malformed frames", channels.diagnose),
    ("losses: slow consumers, counters that skip, duplicates", losses.diagnose),
)
"""The families of diagnoses. What one has explained, those after it do not tell again."""

CHECKED: Final = tuple(name for name, _ in TABLE)
"""What is looked for, as it is told of a recording in which nothing is found."""


@define
class Diagnosis:
    """What a diagnosis came to; several are put together by `together`."""

    findings: list[Finding] = Factory(list)  # the causes, the gravest first
    noise: Counter[str] = Factory(Counter)  # what happened too, and does no harm, with its number
    records: int = 0
    connections: int = 0
    unread: int = 0  # how many lines told less than expected, or could not be read
    missing: int = 0  # how many records the recorder knows to be missing
    untold: tuple[str, ...] = ()  # what an older recording cannot tell
    opened: list[int] = Factory(list)  # when connections were opened

    @classmethod
    def together(cls, diagnoses: Iterable["Diagnosis"]) -> "Diagnosis":
        """Put the diagnoses of recordings together: findings of one kind become one."""
        whole, parts = cls(), list(diagnoses)
        for pair in combinations([part for part in parts if _ended(part)], 2):
            _evict(*pair)
        for name in ("records", "connections", "unread", "missing"):
            setattr(whole, name, sum(getattr(part, name) for part in parts))
        whole.noise = sum((part.noise for part in parts), Counter())
        whole.untold = tuple(dict.fromkeys(text for part in parts for text in part.untold))
        whole.findings = merged((finding for part in parts for finding in part.findings), "in {} recordings")
        return whole

    @classmethod
    def of(cls, path: str, entries: Iterable[tuple[str, Entry | Record]]) -> "Diagnosis":
        """Diagnose what the files of one recording say, or records in memory.

        Parameters:
            path: the newest file of it, for the commands that show more.
            entries: each with its file.
        """
        gatherer, diagnosis = Gatherer(path), cls()
        for file, entry in entries:
            if isinstance(entry, Record):
                gatherer.feed(entry, (file, getattr(entry, "line", 0)))
            elif isinstance(entry, Header):
                diagnosis.untold = entry.untold
                if "payloads" in entry.redacted:
                    gatherer.facts.redacted = True
                    diagnosis.untold += ("counters, duplicates and what was asked again, as payloads are redacted",)
            elif isinstance(entry, Missing):
                diagnosis.missing += entry.records or 0
                gatherer.is_torn = True
            elif isinstance(entry, Damage) and not entry.last:
                diagnosis.unread += 1
                gatherer.is_torn = True
        facts = gatherer.finish()
        diagnosis.findings = merged((finding for _, function in TABLE for finding in function(facts)), "{} alike")
        diagnosis.noise, diagnosis.records, diagnosis.connections = +facts.noise, facts.records, len(facts.connections)
        diagnosis.unread += facts.unread
        diagnosis.opened = [facts.wall(each.opened) for each in facts.connections.values() if each.opened is not None]
        return diagnosis

    def remarks(self) -> list[str]:
        """Return what else there is to say, in a sentence each."""
        noise = ", ".join(f"{what} ({count:,})" for what, count in self.noise.most_common())
        remarks = [f"harmless: {noise}"] if noise else []
        if self.missing or self.unread:
            remarks.append(f"not read: {many(self.missing, 'missing record')}, {many(self.unread, 'damaged line')}")
        if self.untold:
            remarks.append(f"this recording cannot tell: {'; '.join(self.untold)}")
        return remarks

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        told = asdict(self, recurse=False, filter=filters.exclude("opened"))
        return {**told, "findings": [each.as_dict() for each in self.findings], "checked": CHECKED}


def _ended(diagnosis: Diagnosis) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.cause in SERVER_ENDS]


def _evict(one: Diagnosis, other: Diagnosis) -> None:
    """Tell the ends of two recordings as evictions, if the server closed each whenever the other had connected."""
    told = [
        [each for each in _ended(it) if all(any(right_after(time, when) for when in opened) for time in each.times)]
        for it, opened in ((one, other.opened), (other, one.opened))
    ]
    if all(told) and max(each.count for ends in told for each in ends) >= 2:
        for it, ends in zip((one, other), told, strict=True):
            it.findings = [evicted(each) if each in ends else each for each in it.findings]


def diagnose(records: Iterable[Record]) -> list[Finding]:
    """Return the causes of what went wrong on connections, the gravest first; none if they were sound.

    Parameters:
        records: of telemetry, as a handler saw them, or as `read` gives them; those of one process, in order.
    """
    return Diagnosis.of("", (("", record) for record in records)).findings
