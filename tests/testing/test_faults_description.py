"""Faults are values: checked when they are made, and shown so that they can be pasted."""

from collections import deque
from typing import Any

import attrs
import pytest

from slipstream_trio.testing import faults as module
from slipstream_trio.testing.faults import (
    AtByte,
    AtFrame,
    AtTime,
    Corrupt,
    EachByte,
    EachFrame,
    FaultLog,
    Faults,
    Ignore,
    Injected,
    Link,
    Refuse,
    Reset,
    Rule,
    SlowOpening,
    Stall,
    Truncate,
    Vanish,
)

EVERYTHING = Faults(
    seed=-3,
    toward_client=Link(latency=0.1, jitter=0.05, bandwidth=1e5, buffer=10),
    toward_server=Link(latency=2),
    rules=[
        Rule(Refuse(), connections=[1, 2]),
        Rule(Ignore(), chance=0.5),
        Rule(SlowOpening(1, jitter=2)),
        Rule(Stall(), AtByte(0)),
        Rule(Stall(3.0, both=True), AtTime(1)),
        Rule(Vanish(both=False), AtFrame(3), toward="server"),
        Rule(Reset(), EachFrame(0.25, into=0)),
        Rule(Truncate(), EachByte(1e-6)),
        Rule(Corrupt(2), AtFrame(1, into=1)),
        Rule(Corrupt(), EachFrame(1)),
    ],
)


def test_what_faults_show_can_be_pasted() -> None:
    assert eval(repr(EVERYTHING), vars(module)) == EVERYTHING


def test_faults_are_frozen_and_can_be_told_apart() -> None:
    assert hash(EVERYTHING) == hash(attrs.evolve(EVERYTHING))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        EVERYTHING.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Link(latency=-1), r"Link.latency is a time in seconds of at least 0, not -1"),
        (lambda: Link(latency=float("nan")), "Link.latency"),
        (lambda: Link(jitter="1"), "Link.jitter"),  # type: ignore[arg-type]
        (lambda: Link(bandwidth=0), r"Link.bandwidth is a number of bytes of more than 0, not 0"),
        (lambda: Link(buffer=0), "Link.buffer"),
        (lambda: Link(buffer=1.5), "whole number"),  # type: ignore[arg-type]
        (lambda: Stall(-1), "Stall.seconds"),
        (lambda: SlowOpening(None), "SlowOpening.seconds"),  # type: ignore[arg-type]
        (lambda: Corrupt(0), "Corrupt.count"),
        (lambda: Corrupt(True), "Corrupt.count"),
        (lambda: AtByte(-1), "AtByte.number"),
        (lambda: AtFrame(0), "AtFrame.number"),
        (lambda: AtFrame(1, into=1.1), "from 0 to 1"),
        (lambda: EachByte(2), "EachByte.probability"),
        (lambda: EachFrame(-0.1), "EachFrame.probability"),
        (lambda: Rule(Reset()), r"Reset needs a moment, such as AtFrame\(3\)"),
        (lambda: Rule(Refuse(), AtByte(1)), "leave out the moment"),
        (lambda: Rule(Reset(), AtByte(1), toward="up"), "toward"),  # type: ignore[arg-type]
        (lambda: Rule(Reset(), AtByte(1), chance=3), "Rule.chance"),
        (lambda: Rule(Reset(), AtByte(1), connections=[0]), r"Rule.connections are numbers from 1, .* not \(0,\)"),
        (lambda: Rule(Reset(), AtByte(1), connections=1), r"such as \[1\] for the first, .* not 1"),  # type: ignore[arg-type]
        (lambda: Rule(Reset(), AtByte(1), connections="1"), "Rule.connections"),  # type: ignore[arg-type]
        (lambda: Rule(Reset(), AtByte(1), connections=[True]), "Rule.connections"),
        (lambda: Faults(seed=0.5), "Faults.seed"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()


@pytest.mark.parametrize("make", [lambda: Rule("reset"), lambda: Faults(rules=["reset"])])  # type: ignore[arg-type,list-item]
def test_what_is_no_fault_or_rule_is_refused(make: Any) -> None:
    with pytest.raises(TypeError):
        make()


def test_a_log_shows_the_faults_and_the_last_that_they_did() -> None:
    log = FaultLog(EVERYTHING, deque(maxlen=25))
    log.connections = 2
    for number in range(30):
        log.add(Injected("alice/1", Reset(), "client", number, None, 1.5))
    log.add(Injected("2", Corrupt(), "server", 40, 3, 2))
    lines = str(log).splitlines()
    assert lines[0] == f"faults = {EVERYTHING!r}"
    assert lines[1] == "31 faults on 2 connections"
    assert len(lines) == 3 + 20
    assert lines[-2] == "1.500 s: connection alice/1 toward the client, after 29 bytes: Reset()"
    assert lines[-1] == "2.000 s: connection 2 toward the server, after 40 bytes, in frame 3: Corrupt(count=1)"
    assert len(log.entries) == 25
    assert log.counts == {"Reset": 30, "Corrupt": 1}
    assert str(Injected("1", Refuse())) == "0.000 s: connection 1: Refuse()"
