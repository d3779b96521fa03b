"""A page about recordings as one file: its content, its styles and its scripts, which need nothing else."""

import base64
import gzip
import html
import json
from importlib.resources import files
from typing import Any, Final

__all__ = ["render_page"]

SCRIPTS: Final = (
    *("base", "content", "search", "range", "rows", "overview"),
    *("values", "details", "summary", "keys", "main"),
)
"""In the order in which they are put into the page; they share one scope."""


def render_page(content: dict[str, Any], title: str) -> str:
    """Return a page.

    The content is compressed and in base64, so nothing in it can be taken for markup, whatever the payloads hold, and a
    policy in the page forbids it to load anything.

    Parameters:
        content: its content, as JSON values; see `Page.content`.
        title: its title.
    """
    source = files(__package__) / "html"
    scripts = "\n".join((source / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    # ASCII throughout: text with lone surrogates has no UTF-8.
    packed = gzip.compress(json.dumps(content, separators=(",", ":")).encode("ascii"), compresslevel=6, mtime=0)
    parts = {
        "title": html.escape(title.encode("utf-8", "replace").decode("utf-8")),
        "style": (source / "page.css").read_text("utf-8"),
        "script": scripts,
        "content": base64.b64encode(packed).decode("ascii"),
    }
    page = (source / "page.html").read_text("utf-8")
    pieces = page.split("%%")  # text and names of parts, in turn
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))
