"""Looks into recordings of connections.

A recording is what `with trace.record(path):` writes: everything that happened
on connections, as lines of JSON. Rotated files are given oldest first, or as
the newest alone, which finds those before it.

examples:
  slipstream trace diagnose trace.jsonl     what went wrong, why, and what to do
  slipstream trace show trace.jsonl         what happened, line by line
  slipstream trace stats trace.jsonl        how often, how much, how long
  slipstream trace html trace.jsonl         a page to search and zoom in
  slipstream trace verify trace.jsonl       does it hold what a trace has to?
  slipstream trace replay --step trace.jsonl   go through it, input by input
  slipstream trace export trace.jsonl --to perfetto --output trace.json.gz
"""

from collections.abc import Mapping
from typing import Final

GROUP: Final[Mapping[str, str]] = {
    "diagnose": "what went wrong, why, and what to do",
    "show": "the history of connections, line by line; --follow shows it live",
    "stats": "counts, rates, sizes and latencies, by topic and event",
    "html": "a page to search and zoom in: one file that needs nothing else",
    "verify": "check the invariants of a trace, and name the lines that break them",
    "replay": "put recorded inputs through the core again, and compare all that comes out",
    "export": "turn recordings into what Perfetto, OpenTelemetry or SQL can read",
}
"""The commands, each of which is a module `trace_<name>`."""
