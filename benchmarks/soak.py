"""Two hundred clients on a bad network, for minutes of real time: real sockets, through a TCP proxy with faults.

    python benchmarks/soak.py --minutes 3

Clients join, push, receive numbered messages, lose connections, rejoin, leave and come again. Ends with status 1 if
a message was lost that no Gap and no SlowConsumer announced, a trace breaks an invariant, a client hangs, tasks or
files are left, or memory grows. `nox -s simulate` has days of virtual time.
"""

import argparse
import sys
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.soak.figures import Figures, Held
from tests.soak.soaking import Plan, soak


def main() -> int:
    """Run it and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of real time (default: 3)")
    parser.add_argument("--clients", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a second of a client's life takes")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: 1)")
    parser.add_argument("--growth", type=float, default=0.15, help="of memory that is no failure, as a share")
    asked = parser.parse_args()
    plan = Plan(asked.clients, asked.minutes * 60, asked.pace, real=True, seed=asked.seed)
    say(f"{plan}")
    began = time.monotonic()
    figures = trio.run(soak, plan, say)
    say(f"{time.monotonic() - began:.0f} s of real time")
    return tell(figures, figures.judge(growth=asked.growth))


def tell(figures: Figures, wrong: list[str]) -> int:
    """Print what came of it; returns the exit status."""
    for name, count in sorted(figures.counts.items()):
        if name:
            say(f"{name:40} {count:12,}")
    for name in ("before", "warm", "last", "after"):
        now: Held = getattr(figures, name)
        say(f"{name:8} {now.resident / 2**20:8.1f} MiB {now.blocks:10,} blocks {now.tasks:6} tasks {now.files:5} files")
    say(f"lost and not announced: {figures.counts['lost in silence']}; violations: {len(figures.violations)}")
    for sentence in wrong:
        say(f"WRONG: {sentence}")
    say("all is well" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
