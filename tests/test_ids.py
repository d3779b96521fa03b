"""Ids: their sizes, and that no two are alike, in a forked child neither."""

import os
import re
from collections.abc import Callable

import pytest

from slipstream_trio.ids import IdSource, RandomIds

TRACE = re.compile("[0-9a-f]{32}")
SPAN = re.compile("[0-9a-f]{16}")


def test_ids_are_lowercase_hex_digits_in_w3c_sizes() -> None:
    source: IdSource = RandomIds()
    for _ in range(1000):
        assert TRACE.fullmatch(source.trace_id())
        assert SPAN.fullmatch(source.span_id())


def test_small_numbers_keep_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    source = RandomIds(1)
    monkeypatch.setattr(source._random, "getrandbits", lambda bits: 0xA)
    assert source.trace_id() == "0" * 31 + "a"
    assert source.span_id() == "0" * 15 + "a"


def test_ids_are_never_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    source = RandomIds(1)
    monkeypatch.setattr(source._random, "getrandbits", lambda bits: 0)
    assert int(source.trace_id(), 16) != 0
    assert int(source.span_id(), 16) != 0


@pytest.mark.parametrize("make", [RandomIds.trace_id, RandomIds.span_id])
def test_ids_are_distinct(make: Callable[[RandomIds], str]) -> None:
    first, second = RandomIds(), RandomIds()
    made = [make(source) for source in (first, second) for _ in range(10_000)]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(("make", "bits"), [(RandomIds.trace_id, 128), (RandomIds.span_id, 64)])
def test_every_bit_of_an_id_is_used(make: Callable[[RandomIds], str], bits: int) -> None:
    source = RandomIds(1)
    values = [int(make(source), 16) for _ in range(200)]
    ones = zeros = 0
    for value in values:
        ones |= value
        zeros |= ~value
    every_bit = 2**bits - 1
    assert ones == every_bit
    assert zeros & every_bit == every_bit


def test_a_seed_makes_ids_reproducible() -> None:
    def made(seed: int) -> list[str]:
        source = RandomIds(seed)
        return [source.trace_id(), source.span_id(), source.span_id()]

    assert made(7) == made(7)
    assert made(7) != made(8)
    assert made(0) == made(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_ids_of_its_own() -> None:
    source = RandomIds()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - not measured in the child, which ends here whatever happens
        try:
            os.write(writing, source.trace_id().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        childs = pipe.read()
    assert os.waitpid(child, 0) == (child, 0)
    assert TRACE.fullmatch(childs)
    assert childs != source.trace_id()
