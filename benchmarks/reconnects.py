"""How a socket stands a thousand reconnects, with fifty channels: `python benchmarks/reconnects.py [number]`.

Virtual time, a server in memory. Prints what was joined again, how many ids were distinct, what is left, and what the
memory was after a hundred and after all of them.
"""

import sys
from functools import partial
from pathlib import Path

import trio
from trio.testing import MockClock

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.recovery.endurance import endure

CHANNELS = 50


def main() -> None:
    """Run it and print its figures."""
    reconnects = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    few = reconnects // 10
    run = partial(endure, reconnects, CHANNELS, (few, reconnects), traced=True)
    figures = trio.run(run, clock=MockClock(autojump_threshold=0))
    (blocks_before, objects_before), (blocks_after, objects_after) = figures.held[few], figures.held[reconnects]
    bytes_before, bytes_after = figures.traced[few], figures.traced[reconnects]
    lines = [
        f"reconnects                 {reconnects}, {CHANNELS} channels each, {figures.seconds:.1f} s of wall time",
        f"channels joined again      {min(figures.rejoined)} at least, {max(figures.rejoined)} at most",
        f"connection_ids             {len({one for one, _ in figures.ids})} distinct",
        f"trace_ids                  {len({other for _, other in figures.ids})} distinct",
        f"gaps told                  {figures.gaps}",
        f"records                    {figures.records}, violations: {len(figures.violations)}",
        f"left at the end            {figures.left}",
        f"bytes after {few:5d}, all     {bytes_before:,}, {bytes_after:,}: {bytes_after - bytes_before:+,}",
        f"blocks after {few:6d}, all   {blocks_before:,}, {blocks_after:,}: {blocks_after - blocks_before:+,}",
        f"objects after {few:5d}, all   {objects_before:,}, {objects_after:,}: {objects_after - objects_before:+,}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
