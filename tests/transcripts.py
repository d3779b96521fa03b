"""The recordings of real servers in `tests/fixtures/transcripts`; their format is told in its README."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRANSCRIPTS = Path(__file__).parent / "fixtures" / "transcripts"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a recording: "\\n" alone ends one, U+2028 and others may stand in its strings."""
    with path.open("rb") as lines:
        yield from map(json.loads, lines)
