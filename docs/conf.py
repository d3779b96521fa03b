"""Sphinx configuration. The build needs no network: no intersphinx."""

import re
from importlib.metadata import version as version_of
from typing import Any

project = "slipstream_trio"
author = "slipstream_trio contributors"
project_copyright = "2026, slipstream_trio contributors"
version = release = version_of("slipstream-trio")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"slipstream_trio {release}"


def mark_span(found: re.Match[str]) -> str:
    text, letter = found.groups()
    return f"``{text}``\\ {letter}" if letter else f"``{text}``"


def as_restructured_text(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Give docstrings, which are written for editors, the marks of reST: on code blocks and on code spans."""
    fenced = indented = False
    marked: list[str] = []
    for line in lines:
        if line == "```":
            fenced = not fenced
            marked += ["::", ""] if fenced else [""]
        elif fenced:
            marked.append(f"    {line}")
        else:
            # What belongs to a section follows its heading at once; what follows an empty line is code.
            if line.startswith("    ") and not indented and marked and not marked[-1]:
                marked += ["::", ""]
            marked.append(re.sub(r"`([^`]+)`(\w?)", mark_span, line))
        indented = line.startswith("    ") or (indented and not line)
    lines[:] = marked


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)  # before napoleon
