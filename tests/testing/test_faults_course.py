"""What happens to a stream is decided by its bytes: not by how they are divided, and not by a clock."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.transport.support import BINARY, TEXT, frame

from slipstream_trio.testing.faults import (
    AtByte,
    AtFrame,
    Corrupt,
    EachByte,
    EachFrame,
    Faults,
    Moment,
    Refuse,
    Reset,
    Rule,
    SlowOpening,
    Stall,
)
from slipstream_trio.testing.faults.course import Course, FrameCounter, Injected, opening

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"
SIZES = (0, 1, 125, 126, 300, 70_000)


def run(course: Course, chunks: Iterable[bytes]) -> tuple[bytes, list[tuple[Any, int | None, str]]]:
    """Feed it, and return the bytes that come out, and the hits."""
    out, hits = b"", []
    steps = [step for chunk in chunks for step in course.feed(chunk)]
    for step in [*steps, *course.finish()]:
        if isinstance(step, Injected):
            hits.append((step.byte, step.frame, type(step.fault).__name__))
        else:
            out += step[0]
    return out, hits


def course(*rules: Rule, seed: int = 0, name: str = "1") -> Course:
    return Course(Faults(seed, rules=rules), name, "client", lambda: True)


def hits(when: Moment, data: bytes, *, seed: int = 0) -> list[int]:
    return [byte for byte, _, _ in run(course(Rule(Stall(), when), seed=seed), [data])[1]]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(min(place, len(data)) for place in places), None])]


@pytest.mark.once
@given(
    frames=st.lists(st.sampled_from(SIZES), max_size=6),
    places=st.lists(st.integers(0, 1500), max_size=30),
    seed=st.integers(0, 5),
    head=st.booleans(),
)
def test_how_the_bytes_are_divided_changes_nothing(frames: list[int], places: list[int], seed: int, head: bool) -> None:
    data = (HEAD if head else b"") + b"".join(frame(BINARY, bytes(size)) for size in frames)
    rules = (
        Rule(Corrupt(3), EachFrame(0.5)),
        Rule(Corrupt(2), EachByte(0.01)),
        Rule(Stall(), AtFrame(2, into=0)),
        Rule(Stall(), AtFrame(3, into=1)),
        Rule(Reset(), AtByte(100)),
    )
    assert run(course(*rules, seed=seed), [data]) == run(course(*rules, seed=seed), cut(data, places))


@given(places=st.lists(st.integers(0, 500), max_size=40))
def test_without_rules_bytes_pass_as_they_are(places: list[int]) -> None:
    data = HEAD + frame(TEXT, b"x" * 126) + frame(TEXT, b"y" * 200)
    assert run(course(), cut(data, places)) == (data, [])
    unfinished = data + b"\x82"
    assert run(course(), cut(unfinished, places)) == (unfinished, [])


def test_at_byte_counts_the_bytes_that_have_passed() -> None:
    assert hits(AtByte(0), b"") == [0]
    assert hits(AtByte(5), b"1234") == []
    assert hits(AtByte(5), b"12345") == [5]


@pytest.mark.parametrize("size", SIZES)
def test_at_frame_hits_the_frame_where_it_says(size: int) -> None:
    second = frame(BINARY, bytes(size))
    data = HEAD + frame(TEXT, b"first") + second + frame(TEXT, b"third")
    start = len(HEAD) + 7
    assert hits(AtFrame(2, into=0), data) == [start]
    assert hits(AtFrame(2, into=1), data) == [start + len(second)]
    assert hits(AtFrame(2), data) == [start + round(len(second) / 2)]
    assert hits(AtFrame(4), data) == []


def test_frames_of_clients_are_counted_too() -> None:
    head = b"GET /socket/websocket HTTP/1.1\r\nhost: x\r\nUpgrade: WebSocket\r\n\r\n"
    masked = bytes([0x81, 0x80 | 3, 1, 2, 3, 4]) + b"abc"
    counter = FrameCounter()
    frames, held = counter.feed(head + masked + masked[:5])
    assert frames == [(1, len(head), 9)]
    assert held == 5
    assert counter.feed(masked[5:])[0][0][1] == len(head) + 9


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01" + bytes(600),
        b"HTTP/1.1 403 Forbidden\r\n\r\n" + bytes(600),
        b"POST /socket/longpoll HTTP/1.1\r\ncontent-length: 600\r\n\r\n" + bytes(600),
        b"HELLO" * 14_000 + b"\r\nupgrade: websocket\r\n\r\n" + bytes(600),
    ],
)
def test_what_is_no_plain_websocket_has_no_frames(data: bytes) -> None:
    assert hits(EachFrame(1), data) == []
    assert len(hits(EachByte(0.1), data)) > 20
    for chunks in ([data], [data[:1], data[1:]], [data[:69_000], data[69_000:], b"\x81"]):
        counter = FrameCounter()
        assert [counter.feed(chunk) for chunk in chunks] == [([], 0)] * len(chunks)
        assert counter.feed(b"\x81\x00") == ([], 0)


def test_bytes_are_replaced_across_reads() -> None:
    out, found = run(course(Rule(Corrupt(4), AtByte(2))), [b"abc", b"", b"def", b"gh"])
    assert (out[:2], out[6:], found) == (b"ab", b"gh", [(2, None, "Corrupt")])
    assert not any(one == other for one, other in zip(out[2:6], b"cdef", strict=True))


def test_bytes_are_replaced_by_others() -> None:
    data = b"a" * 100
    out, _ = run(course(Rule(Corrupt(5), AtByte(10))), [data])
    assert (out[:10], out[15:]) == (data[:10], data[15:])
    assert all(byte != ord("a") for byte in out[10:15])
    assert out == run(course(Rule(Corrupt(5), AtByte(10))), [data])[0]
    assert out != run(course(Rule(Corrupt(5), AtByte(10)), seed=1), [data])[0]


@pytest.mark.once
def test_a_probability_is_what_happens_on_average() -> None:
    data = bytes(20_000)
    for probability in (0.5, 0.01, 0.001):
        found = sum(len(hits(EachByte(probability), data, seed=seed)) for seed in range(5))
        assert found == pytest.approx(100_000 * probability, rel=0.2)
    assert hits(EachByte(0), data) == []
    assert hits(EachByte(1), bytes(5)) == [0, 1, 2, 3, 4, 5]
    frames = HEAD + frame(TEXT) * 5_000
    assert len(hits(EachFrame(0.1), frames)) == pytest.approx(500, rel=0.15)
    assert hits(EachFrame(0), frames) == []


@pytest.mark.parametrize("probability", [0.0, 5e-324, 1e-300])
def test_what_is_next_to_impossible_does_not_happen(probability: float) -> None:
    assert hits(EachByte(probability), bytes(10_000), seed=1) == []


def test_every_connection_direction_and_seed_has_faults_of_its_own() -> None:
    data = bytes(10_000)
    rules = (Rule(Stall(), EachByte(0.001)), Rule(Stall(), EachByte(0.001), toward="server"))

    def found(seed: int, name: str, toward: str) -> tuple[int, ...]:
        one = Course(Faults(seed, rules=rules), name, toward, lambda: True)  # type: ignore[arg-type]
        return tuple(byte for byte, _, _ in run(one, [data])[1])

    drawn = [found(seed, name, toward) for seed in (1, 2) for name in ("1", "2") for toward in ("client", "server")]
    assert len(set(drawn)) == 8
    assert found(1, "1", "client") == drawn[0]


def test_a_rule_more_changes_nothing_of_those_before_it() -> None:
    data = bytes(10_000)
    few = run(course(Rule(Stall(), EachByte(0.001))), [data])[1]
    more = run(course(Rule(Stall(), EachByte(0.001)), Rule(Reset(), EachByte(0.001))), [data])[1]
    assert [hit for hit in more if hit[2] == "Stall"] == few


def test_a_rule_holds_for_the_connections_that_it_names_or_a_share_of_them() -> None:
    def held(rule: Rule) -> list[int]:
        names = [f"client/{n}" for n in range(1, 1001)]
        return [n for n, name in enumerate(names, 1) if run(course(rule, name=name), [b"x"])[1]]

    assert held(Rule(Reset(), AtByte(0), connections=(2, 5))) == [2, 5]
    assert len(held(Rule(Reset(), AtByte(0), chance=0.1))) == pytest.approx(100, abs=40)
    assert held(Rule(Reset(), AtByte(0), chance=0)) == []


def test_openings_are_drawn_by_connection() -> None:
    faults = Faults(rules=[Rule(SlowOpening(1, jitter=2), connections=[1, 2]), Rule(Refuse(), connections=[2])])
    drawn = {n: [(type(rule.fault), delay) for rule, delay in opening(faults, str(n))] for n in (1, 2, 3)}
    ((kind, first),) = drawn[1]
    assert kind is SlowOpening
    assert 1 <= first <= 3
    assert [kind for kind, _ in drawn[2]] == [SlowOpening, Refuse]
    assert drawn[2][0][1] != first
    assert drawn[3] == []


def test_a_quiet_course_draws_on_but_does_nothing() -> None:
    active = False
    rules = (Rule(Corrupt(), EachByte(0.01)),)
    one = Course(Faults(rules=rules), "1", "client", lambda: active)
    data = bytes(1000)
    assert run(one, [data]) == (data, [])
    active = True
    later = [step.byte for step in one.feed(data) if isinstance(step, Injected)]
    steady = [byte for byte, _, _ in run(course(*rules), [data + data])[1]]
    assert later == [byte for byte in steady if byte > 1000]
