"""Runs the Python code blocks of the README and of the docs: `pytest docs README.md`.

A block can be copied whole: it runs with no names but its own. Invisible blocks see the names of all blocks before
them, and may await at their top level. A block that is not to run comes after a line `% skip: next`, in the README
`<!--- skip: next -->`.

`SERVED`, the URL of `slipstream serve`, is that of a server here. A `text` block below "It prints:" is compared with
what the block before it has printed.
"""

import ast
import builtins
from contextlib import redirect_stdout
from functools import cache
from inspect import CO_COROUTINE
from io import StringIO
from types import FunctionType

import trio
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser

SERVED = "ws://localhost:4000/socket/websocket"


@cache
def served() -> str:
    """Return the URL of the server for examples, which runs until the end."""
    from docs.example_server import ExampleServer

    return ExampleServer().url


def run_block(example: Example) -> None:
    """Run one code block, numbered by its lines in the document."""
    text = example.parsed.replace(SERVED, served()) if SERVED in example.parsed else example.parsed
    source = "\n" * (example.line + example.parsed.line_offset) + text
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    visible = example.document.text.startswith("```", example.start)
    names = {} if visible else example.namespace
    names["__builtins__"] = builtins  # as `exec` does; an import by C code asks for it
    block = FunctionType(code, names)
    with redirect_stdout(StringIO()) as printed:
        if code.co_flags & CO_COROUTINE:
            trio.run(block)
        else:
            block()
    example.namespace.update(names, printed=printed.getvalue())


def compare_output(example: Example) -> str | None:
    """Compare what was printed with what the document shows."""
    if not example.document.text[: example.start].endswith("It prints:\n\n"):
        return None
    printed = example.namespace["printed"]
    return None if printed == example.parsed else f"it printed:\n{printed}"


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser(language="python", evaluator=run_block),
        CodeBlockParser(language="text", evaluator=compare_output),
        SkipParser(),
    ],
    patterns=["README.md", "docs/**/*.md"],
).pytest()
