"""Runs the Python code blocks of the README and of the docs: `pytest docs README.md`.

A block may await at its top level: it then runs under `trio.run`. The blocks of one file share their names.
A block that is not to run comes after a line `% skip: next`, in the README `<!--- skip: next -->`.
"""

import ast
import builtins
from inspect import CO_COROUTINE
from types import FunctionType

import trio
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser


def run_block(example: Example) -> None:
    """Run one code block, numbered by its lines in the document."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    example.namespace.setdefault("__builtins__", builtins)  # as `exec` does; an import by C code asks for it
    block = FunctionType(code, example.namespace)
    if code.co_flags & CO_COROUTINE:
        trio.run(block)
    else:
        block()


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser(language="python", evaluator=run_block), SkipParser()],
    patterns=["README.md", "docs/**/*.md"],
).pytest()
