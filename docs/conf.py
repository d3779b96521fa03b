"""Sphinx configuration. The build needs no network: no intersphinx."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from docs import generated
from sphinx.util import logging

project = "slipstream_trio"
author = "slipstream_trio contributors"
project_copyright = "2026, slipstream_trio contributors"
version = release = version_of("slipstream-trio")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "pictures"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_use_ivar = True  # else each field of a record is described twice

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


def fill(_app: Any, _page: str, source: list[str]) -> None:
    """Put the parts that come from the code into a page."""
    source[0] = generated.filled(source[0])


def check_public_names(_app: Any, environment: Any) -> None:
    """See that every public name is described; a warning is an error."""
    known = {name for name, *_ in environment.get_domain("py").get_objects()}
    names = generated.public_names()
    missing = [name for name in names if generated.first_home(name) not in known]
    logging.getLogger(__name__).info("%d of %d public names are described", len(names) - len(missing), len(names))
    for name in missing:
        logging.getLogger(__name__).warning("not described in the reference: %s", name)


def setup(app: Any) -> None:
    app.connect("source-read", fill)
    app.connect("env-check-consistency", check_public_names)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)  # before napoleon
