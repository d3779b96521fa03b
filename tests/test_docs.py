"""The docs name everything that there is: tables that have to keep up with the code."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import attrs
import pytest

import slipstream_trio
from slipstream_trio import Configuration
from slipstream_trio.protocol import commands, events
from slipstream_trio.telemetry import records
from slipstream_trio.trace import MEANINGS

DOCS = Path(__file__).parent.parent / "docs"
ENDS = ("start", "stop", "exception")
REFUSED = {"compression"}
"""Options that no transport that there is has."""


def page(name: str) -> str:
    return (DOCS / name).read_text()


def classes(module: ModuleType) -> list[str]:
    return [name for name, value in inspect.getmembers(module, inspect.isclass) if value.__module__ == module.__name__]


@pytest.mark.parametrize("module", [commands, events], ids=["inputs", "events"])
def test_every_input_and_event_of_the_core_is_told(module: ModuleType) -> None:
    names = classes(module)
    assert len(names) > 9
    told = set(re.findall(r"`(\w+)`", page("reference/protocol.md")))
    assert set(names) - told == set()


def test_every_event_of_telemetry_has_its_row() -> None:
    rows = set(re.findall(r"^\| `slipstream ([\w <>]+?)(?: …)?` \|", page("reference/telemetry.md"), re.MULTILINE))
    names = [getattr(value, "name", None) for _, value in inspect.getmembers(records, inspect.isclass)]
    # The name of a callback's span is that of the callback, and no constant.
    events = {" ".join(word for word in name[1:] if word not in ENDS) for name in names if isinstance(name, tuple)}
    assert events == rows - {"client <callback>"}


def test_every_option_is_told() -> None:
    options = {field.name for field in attrs.fields(Configuration)} - REFUSED
    pages = [path.read_text() for path in DOCS.rglob("*.md")]
    told = {name for text in pages for name in re.findall(r"`(\w+)|\b(\w+)=", text) for name in name}
    assert options - told == set()


def test_every_error_is_told() -> None:
    errors = {
        name
        for name in slipstream_trio.__all__
        if inspect.isclass(value := getattr(slipstream_trio, name)) and issubclass(value, Exception)
    }
    told = {name for path in DOCS.rglob("*.md") for name in re.findall(r"`(\w+)", path.read_text())}
    assert errors - told == set()


def test_every_invariant_is_told() -> None:
    told = page("reference/telemetry.md").partition("## Invariants")[2]
    assert [int(number) for number in re.findall(r"^(\d+)\. ", told, re.MULTILINE)][: len(MEANINGS)] == sorted(MEANINGS)
