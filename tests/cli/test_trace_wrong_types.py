"""Recordings in which a field has a value of another type, or none: every command of `slipstream trace` reads them."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings, strategies as st
from tests.drawing import FACTOR
from tests.trace.scenes import two_connections, write_recording
from tests.trace.support import eventful, live_records

from slipstream_trio.cli import main
from slipstream_trio.trace import check, read
from slipstream_trio.trace.export_spans import describe, ended

pytestmark = pytest.mark.once

COMMANDS = (
    *(["show"], ["show", "--clock", "--whole"], ["stats"], ["stats", "--json"], ["html"]),
    *(["verify"], ["verify", "--json"], ["replay"], ["replay", "--step"], ["diagnose", "--jobs", "1"]),
    *(["export", "--to", "perfetto"], ["export", "--to", "parquet"]),
)

Place = tuple[Any, Any]
"""An object or a list, and a key or an index in it."""

WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**70, 10**40, 1e300, -1e300, "", "x", "1", [], {}, [[]], {"$": "?"}, {"$": "State"}]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from([{"$": "bytes", "base64": "AA=="}, {"$": "float", "text": "nan"}, {"$": "float", "text": "inf"}]),
    st.sampled_from([{"$": "tuple", "items": []}, {"$": "Message"}, {"$": "@input"}, {"$": "redacted"}]),
    st.dictionaries(st.sampled_from(["a", "$", "n", "from"]), st.integers(0, 3), max_size=2),
    st.lists(st.integers(), max_size=2),
)


def places(value: Any) -> Iterator[Place]:
    """Give every place of a JSON value at which something stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    folder = tmp_path_factory.mktemp("good")
    write_recording(folder / "1", two_connections())
    write_recording(folder / "2", live_records(lambda telemetry: eventful(telemetry, connections=1)))
    return [(folder / name).read_text().split("\n")[:-1] for name in ("1", "2")]


@st.composite
def tampered(draw: st.DrawFn, lines: list[str]) -> list[str]:
    """Draw a recording in which a few values are others, or gone."""
    lines = list(lines)
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(1, len(lines) - 1))
        line = json.loads(lines[number])
        parent, key = draw(st.sampled_from(list(places(line)) or [(line, "name")]))
        if isinstance(parent, list) or key not in parent or draw(st.booleans()):
            parent[key] = draw(WRONG)
        else:
            del parent[key]
        lines[number] = json.dumps(line)
    return lines


@settings(max_examples=max(10, round(60 * FACTOR)))
@given(data=st.data())
def test_no_command_fails_at_a_field_of_another_type(
    recordings: list[list[str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bad")
    path, output = folder / "trace.jsonl", folder / "output"
    lines = data.draw(st.sampled_from(recordings).flatmap(tampered))
    path.write_text("\n".join(lines) + "\n")
    command = data.draw(st.sampled_from(COMMANDS))
    options = ["-o", str(output)] if command[0] in ("html", "export") else []
    with mock.patch("sys.stdin", io.StringIO("x\nb\ns\nq\n")):
        # 2, in a line: nothing is left to replay.
        assert main(["trace", *command, str(path), *options]) in (0, 1, 2)
    for record, lasted in ended(read(path, damaged=lambda _: None), "system_time"):
        assert describe(record).name
        assert type(lasted) is int


@pytest.mark.parametrize(
    ("old", "new"),
    [('"code":1006', '"kode":1006'), ('"topic":"room:other"', '"topic":{}'), ('"delay":0.05', '"delay":"soon"')],
)
def test_the_line_is_named(old: str, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.jsonl"
    write_recording(path, two_connections())
    lines = path.read_text().split("\n")[:-1]
    at = next(
        number for number, line in enumerate(lines, 1) if old in line and '"client ' not in line.partition(",")[2]
    )
    path.write_text("\n".join(lines).replace(old, new) + "\n")
    flaws = [flaw for flaw in check([path]) if flaw.kind == "damaged"]
    assert flaws
    assert main(["trace", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(str(flaw) in out for flaw in flaws)
    assert any(flaw.line >= at for flaw in flaws)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_any_number_may_stand_for_seconds(command: list[str], tmp_path: Path) -> None:
    path, output = tmp_path / "trace.jsonl", tmp_path / "output"
    write_recording(path, two_connections())
    path.write_text(path.read_text().replace('"delay":0.05', '"delay":1e300'))
    options = ["-o", str(output)] if command[0] in ("html", "export") else []
    with mock.patch("sys.stdin", io.StringIO()):
        assert main(["trace", *command, str(path), *options]) in (0, 1)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_ref_may_have_more_digits_than_python_reads(command: list[str], tmp_path: Path) -> None:
    path, output = tmp_path / "trace.jsonl", tmp_path / "output"
    write_recording(path, two_connections())
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    for effect in [effect for line in lines for effect in line.get("return") or () if "ref" in effect]:
        effect["ref"] = "9" * 5000
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = ["-o", str(output)] if command[0] in ("html", "export") else []
    with mock.patch("sys.stdin", io.StringIO("x\ns\nq\n")):
        assert main(["trace", *command, str(path), *options]) in (0, 1)
