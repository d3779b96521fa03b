"""The time that imports take: run `python benchmarks/import_time.py`.

Whole processes, in turns, so that a busy moment hits all; medians of their CPU time, and of the ratios within a turn.
`import slipstream_trio` alone imports next to nothing, so the name that every program uses is measured, too.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from operator import truediv
from typing import Final

BARE: Final = "import trio, attrs, trio_websocket"
HELP: Final = "import sys; from slipstream_trio.cli import main; sys.argv = ['slipstream', '--help']; main()"

MEASURES: Final = (
    # the program, what it is compared with, and the most that it may take of that
    ("import slipstream_trio", BARE, 1.25),
    ("from slipstream_trio import connect", BARE, 1.25),
    (HELP, "import trio", 1.5),
)


def cpu_time(program: str, cache: str) -> float:
    """Return the seconds that a process takes for a program, from its start to its end."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as where it is installed
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=environment)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="processes of each kind; by default %(default)s")
    runs = parser.parse_args().runs
    programs = [BARE, "import trio", *(program for program, _, _ in MEASURES)]
    took: dict[str, list[float]] = {program: [] for program in programs}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(runs + 1):
            for program in programs:
                seconds = cpu_time(program, cache)
                if number:  # the first run compiles
                    took[program].append(seconds)
    for program, compared, most in MEASURES:
        seconds, of = statistics.median(took[program]), statistics.median(took[compared])
        ratio = statistics.median(map(truediv, took[program], took[compared]))
        name = "slipstream --help" if program is HELP else program
        print(  # noqa: T201
            f"{name:36} {seconds * 1e3:4.0f} ms, {ratio:.2f} × `{compared}` ({of * 1e3:.0f} ms); at most {most}"
        )


if __name__ == "__main__":
    main()
