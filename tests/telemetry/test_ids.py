"""Ids in the sizes of W3C Trace Context."""

import os
import re

import pytest

from slipstream_trio.ids import RandomIds


def test_ids_have_their_sizes_and_are_distinct() -> None:
    ids = RandomIds()
    traces, spans = {ids.trace_id() for _ in range(1000)}, {ids.span_id() for _ in range(1000)}
    assert len(traces) == len(spans) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in traces)
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in spans)


def test_a_seed_makes_them_reproducible() -> None:
    one, same, other = RandomIds(1), RandomIds(1), RandomIds(2)
    assert one.trace_id() == same.trace_id()
    assert one.span_id() == same.span_id() != other.span_id()


def test_an_id_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = RandomIds(1)
    monkeypatch.setattr(ids._random, "getrandbits", lambda _: 0)
    assert ids.trace_id() == "0" * 31 + "1"
    assert ids.span_id() == "0" * 15 + "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_has_ids_of_its_own() -> None:
    ids = RandomIds()
    ids.span_id()  # and others are made ahead
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os.write(writing, ids.span_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    try:
        assert os.read(reading, 16).decode() != ids.span_id()
    finally:
        os.close(reading)
        os.close(writing)
