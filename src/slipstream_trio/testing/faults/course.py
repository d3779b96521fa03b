"""The faults in one direction of a connection, decided from its bytes alone, without I/O and without a clock.

Every rule has a source of random numbers of its own, made of the seed, the rule's place, the connection and the
direction. Decisions are bound to the numbers of bytes and frames, so the division into reads does not matter.
"""

import heapq
import math
import re
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Final, TypeAlias

from attrs import define, field, frozen

from ...transport.lane import IN_TWO, LENGTH, SIZES
from . import description as net

_SEGMENT: Final = 1024  # bytes that share their jitter
_HEAD_END: Final = b"\r\n\r\n"
_UPGRADE: Final = re.compile(rb"(?is)(HTTP/1\.1 101|(?!HTTP/)[a-z]+) .*\r\nupgrade:[^\r\n]*websocket")
_LONGEST_HEAD: Final = 65_536
_SHOWN: Final = 20


Piece: TypeAlias = tuple[bytes, float]
"""Bytes that pass, after damage, and their share of the link's jitter, from 0 to 1."""


@frozen
class Injected:
    """A fault that happened.

    Attributes:
        connection: the connection's name: the name of its opener or listener, if it has one, and its number.
        toward: the direction; None at the opening.
        byte: the number of bytes before it in this direction, where they were counted.
        frame: the frame that it was in, likewise.
        time: when, in seconds since the network began.
    """

    connection: str
    fault: net.Fault
    toward: net.Toward | None = None
    byte: int | None = None
    frame: int | None = None
    time: float = field(default=0.0, eq=False)

    def __str__(self) -> str:
        where = "" if self.toward is None else f" toward the {self.toward}"
        where += "" if self.byte is None else f", after {self.byte} bytes"
        where += "" if self.frame is None else f", in frame {self.frame}"
        return f"{self.time:.3f} s: connection {self.connection}{where}: {self.fault!r}"


@define(eq=False, repr=False)
class FaultLog:
    """The injected faults: the newest 10,000 entries, which compare without their time, and counts of all, by name.

    Its `str` shows the description, to be pasted into a test, and the last entries.
    """

    faults: net.Faults
    entries: deque[Injected] = field(factory=lambda: deque(maxlen=10_000))
    counts: Counter[str] = field(factory=Counter)
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


class FrameCounter:
    """Follows one direction of a connection from its upgrade on, if it is a plain WebSocket."""

    def __init__(self) -> None:
        self._in_head = True
        self._passed = 0
        self._next = 0  # where the head, or the next frame, begins
        self._kept = b""  # what has come of it
        self._number = 0

    def feed(self, data: bytes) -> tuple[list[tuple[int, int, int]], int]:
        """Return the frames whose headers are whole now, and the number of last bytes of an incomplete one.

        Of a frame: its number, from 1, its first byte, and its length, header included.
        """
        seen: list[tuple[int, int, int]] = []
        self._kept += data[max(0, self._next - self._passed) :]
        self._passed += len(data)
        if self._in_head:
            end = self._kept.find(_HEAD_END, 0, _LONGEST_HEAD)
            if end < 0 and len(self._kept) <= _LONGEST_HEAD and (not self._kept or self._kept[:1].isalpha()):
                return seen, 0  # the HTTP head is not whole
            self._in_head = False
            blind = not _UPGRADE.match(self._kept, 0, max(0, end))
            self._skip(sys.maxsize if blind else end + len(_HEAD_END))
        while len(self._kept) > 1 and len(self._kept) >= (header := SIZES[self._kept[1]]):
            size = self._kept[1] & LENGTH
            if size >= IN_TWO:
                size = int.from_bytes(self._kept[2 : 4 if size == IN_TWO else 10])
            self._number += 1
            seen.append((self._number, self._next, header + size))
            self._skip(header + size)
        return seen, len(self._kept)

    def _skip(self, count: int) -> None:
        self._next += count
        self._kept = self._kept[count:]


def _drawn(key: str) -> float:
    return Random(key).random()  # noqa: S311 - to be reproduced


def rules_for(faults: net.Faults, name: str) -> dict[int, net.Rule]:
    """Return the rules for a connection, by their places; its whole name ends in its number."""
    number, places = int(name.rpartition("/")[2]), enumerate(faults.rules)
    named = {place: rule for place, rule in places if rule.connections is None or number in rule.connections}
    return {place: rule for place, rule in named.items() if _drawn(f"{faults.seed}:{place}:{name}") < rule.chance}


def opening(faults: net.Faults, name: str) -> Iterator[tuple[net.Rule, float]]:
    """Give the rules that hold for a connection's opening, each with its delay in seconds."""
    for place, rule in rules_for(faults, name).items():
        if isinstance(rule.fault, net.SlowOpening):
            yield rule, rule.fault.seconds + rule.fault.jitter * _drawn(f"{faults.seed}:{place}:{name}:opening")
        elif isinstance(rule.fault, net.OPENING):
            yield rule, 0.0


class Course:
    """One direction of one connection; faults are skipped while not `active`."""

    def __init__(self, faults: net.Faults, name: str, toward: net.Toward, active: Callable[[], bool]) -> None:
        self._name = name
        self._key = f"{faults.seed}:{name}:{toward}"
        self.active: Callable[[], bool] = active
        self.toward: net.Toward = toward
        self.link: net.Link = faults.toward_client if toward == "client" else faults.toward_server
        self._rules = {place: rule for place, rule in rules_for(faults, name).items() if rule.toward == toward}
        self.timed: list[net.Rule] = [rule for rule in self._rules.values() if isinstance(rule.when, net.AtTime)]
        self._draw = {place: Random(f"{self._key}:{place}") for place in self._rules}  # noqa: S311 - as above
        self._noise = Random(f"{self._key}:noise")  # noqa: S311 - as above
        self._frames = FrameCounter()
        self._held = b""
        self._due: list[tuple[int, int, int | None]] = []  # byte, the rule's place, frame
        self._corrupting = 0
        self.position: int = 0
        for place, rule in self._rules.items():
            if isinstance(rule.when, net.AtByte):
                heapq.heappush(self._due, (rule.when.number, place, None))
            elif isinstance(rule.when, net.EachByte):
                self._draw_byte(place, rule.when.probability, 0)

    def feed(self, data: bytes) -> Iterator[Piece | Injected]:
        """Feed the next bytes; gives the steps, in order."""
        frames, held = self._frames.feed(data)
        for frame in frames:
            self._meet(*frame)
        data = self._held + data
        # An incomplete header waits, until the length of its frame is known.
        keep = len(data) - held
        self._held = data[keep:]
        yield from self._pass(data[:keep])

    def finish(self) -> Iterator[Piece | Injected]:
        """The stream has ended; gives the steps of the bytes that were kept."""
        return self._pass(self._held)

    def damage(self, fault: net.Corrupt) -> None:
        """Let a fault hit the next bytes."""
        self._corrupting += fault.count

    def _pass(self, data: bytes) -> Iterator[Piece | Injected]:
        began = self.position
        end = began + len(data)
        while self._due and self._due[0][0] <= end:
            byte, place, frame = heapq.heappop(self._due)
            yield from self._pieces(data, self.position - began, byte - began)
            rule = self._rules[place]
            if isinstance(rule.when, net.EachByte):
                self._draw_byte(place, rule.when.probability, byte + 1)
            if self.active():
                if isinstance(rule.fault, net.Corrupt):
                    self.damage(rule.fault)
                yield Injected(self._name, rule.fault, self.toward, byte, frame)
        yield from self._pieces(data, self.position - began, len(data))

    def _pieces(self, data: bytes, start: int, stop: int) -> Iterator[Piece]:
        while start < stop:
            size = min(stop - start, _SEGMENT - self.position % _SEGMENT)
            jitter = zlib.crc32(f"{self._key}:{self.position // _SEGMENT}".encode()) / 2**32
            damaged = min(self._corrupting, size)
            self._corrupting -= damaged
            piece = bytes(byte ^ self._noise.randint(1, 255) for byte in data[start : start + damaged])
            piece += data[start + damaged : start + size]
            start += size
            self.position += size
            yield piece, jitter

    def _draw_byte(self, place: int, probability: float, start: int) -> None:
        """Draw the next byte that a rule hits, from `start` on: how many are spared is distributed geometrically."""
        drawn = self._draw[place].random()
        spared = 0.0 if probability >= 1 else math.inf
        if 0 < probability < 1:
            spared = math.log1p(-drawn) / math.log1p(-probability)
        if spared < math.inf:  # else the probability is so small that no stream is long enough
            heapq.heappush(self._due, (start + math.floor(spared), place, None))

    def _meet(self, number: int, start: int, length: int) -> None:
        """Schedule the faults in a frame."""
        for place, rule in self._rules.items():
            into = None
            if isinstance(rule.when, net.AtFrame) and rule.when.number == number:
                into = rule.when.into
            elif isinstance(rule.when, net.EachFrame):
                # Two numbers a frame, whether it is hit or not, so that each frame has its own.
                hit, where = self._draw[place].random(), self._draw[place].random()
                if hit < rule.when.probability:
                    into = where if rule.when.into is None else rule.when.into
            if into is not None:
                heapq.heappush(self._due, (start + round(into * length), place, number))
