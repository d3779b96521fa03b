"""The rules of the client's structure that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import slipstream_trio.client

CLIENT = Path(slipstream_trio.client.__file__).parent
MODULES = sorted(CLIENT.rglob("*.py"))

TRIO_AND_PYTHON = {"__doc__", "deadline", "__cause__"}
"""Fields that are made to be written: of a cancel scope, of an exception."""


def written(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield the attributes that a module's code writes or deletes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_object_writes_the_fields_of_another(module: Path) -> None:
    foreign = [
        f"line {attribute.lineno}: {ast.unparse(attribute)}"
        for attribute in written(ast.parse(module.read_text()))
        if attribute.attr not in TRIO_AND_PYTHON and ast.unparse(attribute.value) != "self"
    ]
    assert foreign == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_has_at_most_400_lines(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400
