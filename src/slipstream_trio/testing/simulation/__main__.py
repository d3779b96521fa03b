"""The command: python -m slipstream_trio.testing.simulation module:simulation --seeds 100 --jobs 2."""

import argparse
import sys
from importlib import import_module
from typing import Any

from attrs import fields

from .scenario import FEATURES, Scenario
from .simulate import Simulation

__all__ = ["main", "parse"]


def parse(words: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the arguments, and those attributes of scenarios that they give."""
    parser = argparse.ArgumentParser(f"python -m {__package__}", description="Run a program in simulated worlds.")
    parser.add_argument("simulation", metavar="module:name", help="of a Simulation: shop:SHOP is SHOP in ./shop.py")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", default="100", help="how many, or from-to (default: 100)")
    which.add_argument("--seed", type=int, help="a single one, with its history")
    parser.add_argument("--jobs", type=int, default=1, help="the number of processes (default: 1)")
    for name, kind in (("seconds", float), *((name, int) for name in ("clients", "nodes", "steps", "faults", "at"))):
        parser.add_argument(f"--{name}", type=kind, help="not drawn from the seed")
    parser.add_argument("--interrupt", choices=("interrupt", "terminate", "exit"), help="at the step --at")
    parser.add_argument("--features", help=f"none, or some of {', '.join(FEATURES)}")
    asked = parser.parse_args(words)
    given = {field.name: getattr(asked, field.name) for field in fields(Scenario) if field.name != "seed"}
    if asked.features is not None:
        given["features"] = () if asked.features == "none" else tuple(asked.features.split(","))
    return asked, {name: value for name, value in given.items() if value is not None}


def main(words: list[str]) -> int:
    """Run it; returns the exit status: 1 if a run broke a guarantee."""
    asked, given = parse(words)
    module, _, name = asked.simulation.partition(":")
    simulation: Simulation = getattr(import_module(module), name)
    if asked.seed is not None:
        report = simulation.run(simulation.draw(asked.seed, **given))
        sys.stdout.write(f"{report}\ndigest {report.digest}\n")
        return 1 if report.violations else 0
    first, _, last = asked.seeds.rpartition("-")
    seeds = range(int(first), int(last) + 1) if first else range(int(last))
    total = simulation.swarm([simulation.draw(seed, **given) for seed in seeds], jobs=asked.jobs)
    sys.stdout.write(f"{total}\n")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
