"""The docs name everything that there is: tables that have to keep up with the code."""

import ast
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest
from docs import generated

import slipstream_trio
from slipstream_trio import Configuration
from slipstream_trio.cli import trace_command
from slipstream_trio.cli.main import COMMANDS, _parser
from slipstream_trio.protocol import commands, events
from slipstream_trio.telemetry import bus as names_of
from slipstream_trio.trace import MEANINGS

DOCS = Path(__file__).parent.parent / "docs"
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
    rows = set(re.findall(r"^\| `(slipstream [^`]+)` \|", generated.events(), re.MULTILINE))
    callbacks = {f"slipstream client {name} " for name in names_of.CALLBACKS}
    names = {" ".join(name) for name in names_of.names_of_events()}
    assert {name for name in names if not name.endswith("exception") and not name.startswith(tuple(callbacks))} == {
        row for row in rows if "<callback>" not in row
    }
    assert "<!-- generated: events -->" in page("reference/telemetry.md")


def test_every_key_of_telemetry_has_a_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", generated.keys(), re.MULTILINE))
    assert len(rows) > 30
    assert [key for key, meaning in rows.items() if not meaning] == []
    assert set(generated.KEYS) - set(rows) == set()
    assert "<!-- generated: keys -->" in page("reference/telemetry.md")


def test_every_command_is_told() -> None:
    told = generated.commands()
    for name in (*COMMANDS, *(f"trace {name}" for name in trace_command.GROUP)):
        assert f"## slipstream {name}\n" in told


def command_lines() -> Iterator[list[str]]:
    """Yield the command lines of `slipstream` in the docs, in words."""
    for path in (*DOCS.rglob("*.md"), DOCS.parent / "README.md"):
        for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            for line in re.findall(r"^(?:\$ )?(?:\S+/)?slipstream (.*)$", block.replace("\\\n", " "), re.MULTILINE):
                words = shlex.split(line, comments=True)
                yield list(itertools.takewhile(lambda word: word not in {"|", "&&", ">"}, words))


def test_every_command_line_of_the_docs_can_be_parsed() -> None:
    lines = list(command_lines())
    assert len(lines) > 15
    for words in lines:
        options, unknown = _parser(words).parse_known_args(words)
        assert unknown == [], words
        assert options.command, words


def test_every_public_module_is_in_the_reference() -> None:
    marks = [generated.MARK.findall(path.read_text()) for path in DOCS.rglob("*.md")]
    described = {module for found in marks for part, modules in found if part == "public" for module in modules.split()}
    assert described == set(generated.PUBLIC)


def imported(text: str) -> Iterator[str]:
    """Yield the full names that the Python blocks of a page import from this package."""
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slipstream_trio"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_docs_import_public_names_only() -> None:
    pages = [path.read_text() for path in (*DOCS.rglob("*.md"), DOCS.parent / "README.md")]
    names = {name for text in pages for name in imported(text)}
    modules = {module.__name__ for pattern in generated.PUBLIC for module in generated.modules(pattern)}
    assert len(names) > 40
    assert names - set(generated.public_names()) - modules == set()


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


def defined(path: Path) -> Iterator[str]:
    """Yield the names of a module as pages write them: `module.function`, `Class.method`, `Class.attribute`."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{path.stem}.{node.name}"
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                match inner:
                    case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                        yield f"{node.name}.{name}"
                    case ast.Attribute(attr=name) | ast.AnnAssign(target=ast.Name(id=name)):
                        yield f"{node.name}.{name}"


def test_what_pages_for_contributors_name_is_there() -> None:
    pages = [DOCS / "explanation" / "architecture.md", Path(__file__).parent / "protocol" / "EQUIVALENT_MUTANTS.md"]
    source = Path(slipstream_trio.__file__).parent
    names = {name for path in source.rglob("*.py") for name in defined(path)}
    owners = {name.partition(".")[0] for name in names}
    for path in pages:
        told = set(re.findall(r"(?<![\w/])(?=(\w+\.\w+))", path.read_text()))
        told = {name for name in told if name.partition(".")[0] in owners and not name.endswith((".md", ".py", ".js"))}
        assert len(told) > 10
        assert told - names == set(), path
