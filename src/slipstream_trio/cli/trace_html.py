"""Makes a page of the history of connections.

It has the findings of `trace diagnose` with links to their rows, a waterfall of
all spans, an overview, search, latencies, and for each span its payload and the
state before and after. It is one file that loads nothing, to be opened in any
browser of 2024 or newer, attached to a report, or printed. It shows what the
recording has: payloads too, unless they were redacted; like that, it can be
read by its owner alone. It carries 200,000 spans and events, of a larger
recording the last ones.

examples:
  slipstream trace html trace.jsonl
  slipstream trace html trace.jsonl --last 50000 -o end.html
  slipstream trace html trace.jsonl --connection 3f2a --topic 'room:*'
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..trace import diagnose
from ..trace.page import MAX_ROWS, Page, render_page
from ..trace.read import sources
from .output import add_force, output_file
from .reading import Notices, add_reading_arguments, glances
from .status import OK, CommandFailed, count


def add_arguments(parser: ArgumentParser) -> None:
    add_reading_arguments(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the page; by default the recording's name and .html")
    last = "only the last N spans and events of those chosen"
    parser.add_argument("--last", type=count, metavar="N", default=MAX_ROWS, help=last)
    add_force(parser)


def run(options: Namespace) -> int:
    found, notices = sources(options.paths), Notices()
    name = options.output or f"{options.paths[0]}.html"
    page = Page(last=options.last)
    with output_file(name, force=options.force, mode=0o600, recordings=found) as file:
        for glance in glances(options, found, notices.told):
            page.add(glance)
        if not page.rows:
            raise CommandFailed("nothing to show: no record was chosen")
        said = notices.summary()
        if page.left_out:
            said.append(f"{page.left_out:,} spans and events before these were left out")
        findings = [finding for source in found for finding in diagnose(source.records())]
        content = {**page.content(findings), "sources": [str(path) for path in options.paths], "notices": said}
        file.write(render_page(content, Path(options.paths[0]).name))
    print(f"{name}: {page.rows:,} spans and events, {Path(name).stat().st_size / 1e6:.1f} MB")
    return OK
