"""Counts what happened on connections, and measures how long it took.

It tells of connections and how they ended, joins, pushes from call to reply,
messages and their sizes, heartbeat round trips, reconnects, gaps, drops and
errors. Memory does not grow with the recording: quantiles are exact for up to
1,000 values, and within 1 % for more.

examples:
  slipstream trace stats trace.jsonl
  slipstream trace stats trace.jsonl --topic 'room:*' --merge-topics --top 0
  slipstream trace stats trace.jsonl --json | jq .pushes
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from functools import partial

from ..trace.read import sources
from ..trace.stats import Statistics
from ..trace.text import printable
from .output import BAD, Output
from .reading import Notices, add_reading_arguments, glances
from .status import OK, count
from .tables import print_tables, size


def add_arguments(parser: ArgumentParser) -> None:
    add_reading_arguments(parser)
    parser.add_argument("--merge-topics", action="store_true", help="count room:1 and room:2 together, as room:*")
    rows = "rows a section; 20 by default, 0: all"
    parser.add_argument("--top", type=partial(count, least=0), default=20, metavar="N", help=rows)
    parser.add_argument("--json", action="store_true", help="one JSON object; durations are nanoseconds")


def run(options: Namespace) -> int:
    summary, notices = Statistics(merge_topics=options.merge_topics), Notices()
    for glance in glances(options, sources(options.paths), notices.told):
        summary.feed(glance)
    if options.json:
        print(json.dumps({**summary.as_dict(), "notices": notices.summary()}, indent=2))
        return OK
    output = Output.of(sys.stdout)
    if summary.first is None or summary.last is None:
        output.print("no records")
    else:
        first, last = (datetime.fromtimestamp(at / 1e9, UTC) for at in (summary.first, summary.last))
        period = f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S} UTC"
        output.print(f"{summary.records:,} spans and events in {summary.seconds:,.3f} s, {period}")
        rates = [
            f"{size(total)} {way}" + (f" ({size(total / summary.seconds)}/s)" if summary.seconds else "")
            for way, total in (("in", summary.bytes_in), ("out", summary.bytes_out))
        ]
        output.print(", ".join(rates))
    for notice in notices.summary():
        output.print(f"! {printable(notice)}", BAD)
    print_tables(output, summary, top=options.top)
    return OK
