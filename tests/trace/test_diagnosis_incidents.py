"""Recordings of real servers whose cause is known: it is named first."""

import gzip
from pathlib import Path

import pytest

from slipstream_trio.trace import Finding, Recorded, diagnose, read

INCIDENTS = Path(__file__).parent.parent / "fixtures" / "incidents"


def diagnosed(name: str) -> list[Finding]:
    return diagnose(read(INCIDENTS / f"{name}.jsonl.gz"))


@pytest.mark.parametrize(
    ("name", "cause", "blame", "count"),
    [
        ("01", "dead_link", "network or proxy", 1),
        ("06", "own_message_limit", "configuration", 3),
        ("15", "process_stood_still", "this process", 3),
        ("16", "server_gone", "server", 1),
    ],
)
def test_the_cause_is_the_only_finding(name: str, cause: str, blame: str, count: int) -> None:
    (finding,) = diagnosed(name)
    assert (finding.cause, finding.blame, finding.count) == (cause, blame, count)


def told(name: str) -> str:
    (finding,) = diagnosed(name)
    return "\n".join((finding.mechanism, *finding.evidence))


def test_a_dead_link_is_told_with_its_beginning_and_what_was_missed() -> None:
    text = told("01")
    assert "from 13.2 s on nothing came" in text
    assert "16.0 s" in text
    assert "23 of room:4 msg" in text


def test_an_own_limit_is_told_with_what_was_asked_for_each_time() -> None:
    text = told("06")
    assert "max_message_size of 262,144 bytes" in text
    assert 'in flight at 3 of 3 ends: docs:board open {"doc":"d7"}' in text


def test_a_process_that_stood_still_is_told_with_each_time() -> None:
    text = told("15")
    assert "from 10.8 s for 3.04 s" in text
    assert "from 23.5 s for 3.03 s" in text
    assert "from 36.2 s for 3.09 s" in text


def test_orders_that_may_have_arrived_are_told_from_those_that_were_never_sent() -> None:
    text = told("16")
    sent, _, unsent = text.partition("never sent")
    for ref in (156, 157, 159):
        assert f"orders:desk place ref {ref} " in sent
    assert "S-269" in unsent


@pytest.mark.parametrize("name", ["01", "06", "15", "16"])
def test_a_recording_that_was_cut_off_anywhere_can_be_diagnosed(name: str, tmp_path: Path) -> None:
    lines = gzip.decompress((INCIDENTS / f"{name}.jsonl.gz").read_bytes()).splitlines(keepends=True)
    for share in range(1, 8):
        path = tmp_path / f"{share}.jsonl"
        path.write_bytes(b"".join(lines[: len(lines) * share // 8])[:-20])
        causes = {finding.cause for finding in diagnose(read(path))}
        assert len(causes) <= 1


def test_records_in_memory_have_no_command() -> None:
    (finding,) = diagnose(list[Recorded](read(INCIDENTS / "16.jsonl.gz")))
    assert (finding.command, finding.lines) == ("", ())
