r"""Reads a recording as a stream, and writes it for other tools.

  perfetto    Chrome trace events in JSON: sockets, connections and topics as
              tracks
  otlp        nothing: the spans are sent to a collector, by OTLP over HTTP
  parquet     a directory of Parquet: a row for each span and event, a folder
              for each day; payloads too, so its owner alone can read it

Ids are those of the telemetry, and each span is a child of its connection's.
Payloads are exported to Parquet only, without those of joins.

examples:
  slipstream trace export trace.jsonl --to perfetto --output trace.json.gz
      then open https://ui.perfetto.dev, and there the file
  slipstream trace export trace.jsonl --to otlp \
      --endpoint http://localhost:4318/v1/traces --header "api-key=$KEY"
  slipstream trace export /var/log/app/*.jsonl.gz --to parquet --output lake
      what is there already is not overwritten

exit status: 0 all was exported; 1 something failed; 2 wrong usage, a missing
extra, or a file that is not a recording
"""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from ..errors import ExportError
from ..trace.export_otlp import SERVICE, send_otlp
from ..trace.export_parquet import export_parquet
from ..trace.export_perfetto import export_perfetto
from ..trace.read import sources
from .output import add_force, output_file, writing
from .reading import Notices, ProgressBar, add_paths, rarely_collected
from .status import FAILED, OK, USAGE, CommandFailed, UsageError, pair

TARGETS: Final = {"perfetto": "events", "otlp": "spans", "parquet": "rows"}  # and what each is told
GOES_WITH: Final[Mapping[str, tuple[str, ...]]] = {
    "output": ("perfetto", "parquet"),
    "force": ("perfetto",),
    "service": ("otlp",),
    "endpoint": ("otlp",),
    "header": ("otlp",),
}
STDOUT: Final = "-"


def add_arguments(parser: ArgumentParser) -> None:
    add_paths(parser)
    parser.add_argument("--to", required=True, choices=[*TARGETS], help="what to turn it into")
    written = "the file or directory to write; .gz compresses; -: standard output"
    parser.add_argument("-o", "--output", metavar="FILE", help=written)
    add_force(parser)
    group = parser.add_argument_group("with --to otlp")
    where = "by default OTEL_EXPORTER_OTLP_ENDPOINT, or port 4318 here"
    group.add_argument("--endpoint", type=_url, metavar="URL", help=where)
    sent = "sent along, never shown; can be repeated"
    group.add_argument("--header", action="append", type=pair, metavar="NAME=VALUE", help=sent)
    group.add_argument("--service", help=f"the service's name; by default {SERVICE}")


def run(options: Namespace) -> int:
    if options.to != "otlp" and options.output is None:
        raise UsageError(f"--to {options.to} needs --output")
    if options.to == "parquet" and options.output == STDOUT:
        raise UsageError("--to parquet writes a directory: name it with --output")
    for name, targets in GOES_WITH.items():
        if getattr(options, name) is not None and options.to not in targets:
            raise UsageError(f"--{name} goes with --to {' and --to '.join(targets)}")
    try:
        count = _export(options)
    except ExportError as error:
        # An export whose package is not installed has been asked for in vain, like a command without its extra.
        raise CommandFailed(str(error), USAGE if isinstance(error.__context__, ImportError) else FAILED) from error
    print(f"{count:,} {TARGETS[options.to]}", file=sys.stderr)
    return OK


def _export(options: Namespace) -> int:
    with ProgressBar() as bar, rarely_collected():

        def say(text: str) -> None:
            bar.clear()
            print(f"slipstream: {text}", file=sys.stderr)

        told, name = Notices(say).told, options.output
        if options.to == "parquet":
            # Arrow's own allocator keeps more of what is freed.
            os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
            with writing(name):
                return export_parquet(options.paths, name, told=told, progress=bar.show)
        found = sources(options.paths)
        records = chain.from_iterable(source.records(told=told, progress=bar.show) for source in found)
        if options.to == "otlp":
            headers = None if options.header is None else dict(options.header)
            return send_otlp(records, options.endpoint, headers=headers, service=options.service or SERVICE)
        if name == STDOUT:
            return export_perfetto(records, sys.stdout)
        with output_file(name, force=options.force, recordings=found) as output:
            return export_perfetto(records, output)


def _url(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise ArgumentTypeError("write it like http://localhost:4318/v1/traces")
    return text
