"""Measure this library beside its peers: `python -m benchmarks.suite`, or `nox -s benchmarks`. Linux, two cores.

The peers are installed on the first run: realtime-py, phoenix_channels_python_client, phoenix.js with ws (needs Node).
A server of the suite's own has one core, the client that is measured another. Results are written as results.json, as
results.md, and as plots. Machines are shared and noisy: compare the ratios within one run, by CPU before wall time.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .programs import HERE, install
from .report import ROWS, markdown, picture, plots, rows, summary
from .scenarios import SCENARIOS, Suite

PICTURES = HERE.parent.parent / "docs" / "pictures"
VERSIONS = ("trio", "trio-websocket", "websockets", "msgspec")


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short rounds; what takes long only where --only names it")
    parser.add_argument("--only", action="append", metavar="NAME", help="scenarios whose name begins so; repeatable")
    parser.add_argument("--rounds", type=int, help="how often each is measured (default 5; quick 3)")
    parser.add_argument("--seconds", type=float, help="how long a round is (default 1; quick 0.15)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="a folder for the results")
    parser.add_argument("--profile", action="store_true", help="show what takes the time; with --only, and one round")
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write what the docs show, too: all of it if every measure was taken, else the plot of the README",
    )
    return parser.parse_args()


def main() -> None:
    """Measure, and write the results."""
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes are stopped
    install()
    if arguments.profile:
        os.environ["SUITE_PROFILE"] = "1"  # of the programs that are started
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    suite = Suite(rounds, arguments.seconds or (0.15 if arguments.quick else 1.0))
    prefixes = tuple(arguments.only or [""])
    try:
        for scenario in SCENARIOS:
            left_out = arguments.quick and scenario.thorough and not arguments.only
            if scenario.name.startswith(prefixes) and not left_out:
                start = time.perf_counter()
                suite.measure(scenario)
                print(f"{scenario.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)  # noqa: T201
    finally:
        suite.stop()
        found = list(rows(suite.results))
        write(suite, found, arguments.output)  # of a run that was stopped, too: it takes an hour or more
    if arguments.docs:
        picture(suite.results, PICTURES / "benchmark.svg")
        if len(found) == len(ROWS):
            plots(suite.results, PICTURES)
            (PICTURES / "measures.md").write_text(summary(found))


def write(suite: Suite, found: list[dict[str, Any]], folder: Path) -> None:
    """Write the results into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = markdown(suite.results, found, suite.notes)
    plots(suite.results, folder)
    machine = {"python": platform.python_version(), "system": platform.platform()}
    versions = {name: version(name) for name in VERSIONS}
    made = {"machine": machine, "versions": versions, "rows": found, "results": suite.results, "notes": suite.notes}
    (folder / "results.json").write_text(json.dumps(made, indent=1) + "\n")
    (folder / "results.md").write_text(everything)
    print(everything)  # noqa: T201


if __name__ == "__main__":
    main()
