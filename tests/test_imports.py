"""What an import brings along: counted, as times depend on the machine; `benchmarks/import_time.py` measures those."""

import json
import subprocess
import sys

import pytest

import slipstream_trio

PROGRAM = """
import json, sys
{}
print(json.dumps(sorted(sys.modules)))
"""

LATER = {
    "difflib",
    "httpcore",
    "msgspec",
    "slipstream_trio.cli",
    "slipstream_trio.client.callbacks",
    "slipstream_trio.integrations",
    "slipstream_trio.testing",
    "slipstream_trio.trace",
    "slipstream_trio.transport.trio_websocket",
    "slipstream_trio.transport.websockets",
    "trio_websocket",
    "websockets",
}
"""Imported when they are asked for, not with the client."""


def imported_by(statement: str) -> set[str]:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement)], capture_output=True, check=True, text=True, timeout=60
    )
    return set(json.loads(said.stdout.splitlines()[-1]))


@pytest.mark.once
@pytest.mark.parametrize(
    ("statement", "most"),
    [
        ("import slipstream_trio", 1),
        ("from slipstream_trio import ConnectionLost", 6),
        ("from slipstream_trio import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass", 10),
    ],
)
def test_who_needs_no_client_imports_none_and_no_trio(statement: str, most: int) -> None:
    modules = imported_by(statement)
    assert not modules & {"trio", "attrs", *LATER - {"slipstream_trio.cli"}}
    assert sum(name.startswith("slipstream_trio") for name in modules) <= most


@pytest.mark.once
def test_connect_brings_the_client_and_nothing_that_is_needed_later() -> None:
    modules = imported_by("from slipstream_trio import connect")
    assert not modules & LATER
    assert sum(name.startswith("slipstream_trio") for name in modules) <= 70


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'slipstream_trio' has no attribute 'conect'$"):
        slipstream_trio.conect  # type: ignore[attr-defined] # noqa: B018


def test_dir_lists_what_is_not_imported_yet() -> None:
    assert set(slipstream_trio.__all__) <= set(dir(slipstream_trio))


def test_it_can_be_used_without_docstrings() -> None:
    subprocess.run([sys.executable, "-OO", "-c", "from slipstream_trio import connect"], check=True)
