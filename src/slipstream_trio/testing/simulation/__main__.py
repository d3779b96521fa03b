"""The command: python -m slipstream_trio.testing.simulation module:simulation --seeds 100 --jobs 2."""

import argparse
import sys
from importlib import import_module
from itertools import count
from typing import Any, Final

import attrs

from .scenario import FEATURES, Scenario
from .simulate import Simulation

_EPILOG: Final = """
A simulation is a name in a module: shop.py in this directory has SHOP = Simulation(program=buy, mounts=mounts),
where `async def buy(client)` is what each client does, and `def mounts(world)` returns the sockets of a server.

  %(prog)s shop:SHOP --seeds 100 --jobs 2    run 100 worlds in two processes
  %(prog)s shop:SHOP --seed 7                run one, and print its history
  %(prog)s shop:SHOP --seconds 86400 --clients 4 --steps 320 --faults 30    simulate whole days

The exit status is 0 if all guarantees held, 1 if a run broke one (the output ends with the command that runs it
again), and 2 if the command cannot be run. The features of a world, drawn from its seed or given by --features:

"""


def parse(words: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the arguments, and those attributes of scenarios that they give; exits (2) where they cannot be run."""
    features = "\n".join(f"  {name:14} {meaning}" for name, meaning in FEATURES.items())
    parser = argparse.ArgumentParser(
        f"python -m {__package__}",
        description="Run a program in simulated worlds.",
        epilog=_EPILOG + features,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("simulation", metavar="module:name", help="of a Simulation: shop:SHOP is SHOP in ./shop.py")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", default=range(100), type=number_or_range, help="how many, or from-to (default: 100)")
    which.add_argument("--seed", type=int, help="a single one, with its history")
    parser.add_argument("--jobs", type=int, default=1, help="the number of processes (default: 1)")
    for name, kind in (("seconds", float), *((name, int) for name in ("clients", "nodes", "steps", "faults", "at"))):
        parser.add_argument(f"--{name}", type=kind, help="not drawn from the seed")
    kinds = ("interrupt", "terminate", "exit", "quit")
    parser.add_argument("--interrupt", choices=kinds, help="at a step, drawn or --at")
    parser.add_argument("--transport", help="the clients': trio_websocket, websockets or longpoll")
    parser.add_argument("--everywhere", action="store_true", help="--interrupt at each step, in a run for each")
    parser.add_argument("--busy-days", type=int, help="end once so many days had much to do")
    chosen = "none, or some, separated by commas; not drawn from the seed"
    parser.add_argument("--features", help=chosen, type=lambda text: () if text == "none" else tuple(text.split(",")))
    asked = parser.parse_args(words)
    names = attrs.fields_dict(Scenario).keys() - {"seed"}
    given = {name: value for name, value in vars(asked).items() if name in names and value is not None}
    if asked.everywhere and asked.interrupt is None:
        parser.error("--everywhere needs --interrupt")
    try:
        Scenario(0, **given)
        asked.simulation = attrs.evolve(_found(asked.simulation), name=asked.simulation)
    except (LookupError, ValueError) as error:
        parser.error(str(error.args[0]))
    return asked, given


def number_or_range(text: str) -> range:
    """Return the seeds that a text stands for: "100" for the first hundred, or "50-99"."""
    first, _, last = text.rpartition("-")
    return range(int(first), int(last) + 1) if first else range(int(text))


def _found(text: str) -> Simulation:
    """Return the simulation of a module and name; raises LookupError that says what to do."""
    module, _, name = text.partition(":")
    if not module or not name:
        raise LookupError(f"{text!r} has no name: give a module and the name of a Simulation in it, such as shop:SHOP")
    try:
        loaded = import_module(module)
    except Exception as error:
        hint = "; start the command in the directory of its file" if isinstance(error, ModuleNotFoundError) else ""
        raise LookupError(f"cannot import {module!r}: {type(error).__name__}: {error}{hint}") from error
    found: Any = getattr(loaded, name, None)
    if isinstance(found, Simulation):
        return found
    there = [key for key, value in vars(loaded).items() if isinstance(value, Simulation)]
    others = f"it has {', '.join(there)}" if there else "write SHOP = Simulation(program=buy, mounts=mounts) in it"
    problem = "is missing" if not hasattr(loaded, name) else f"is of the type {type(found).__name__}, not Simulation"
    raise LookupError(f"{name!r} in {module!r} {problem}: {others}")


def main(words: list[str]) -> int:
    """Run it; returns the exit status: 1 if a run broke a guarantee."""
    asked, given = parse(words)
    simulation: Simulation = asked.simulation
    if asked.seed is not None:
        report = simulation.run(simulation.draw(asked.seed, **given))
        sys.stdout.write(f"{report}\ndigest {report.digest}\n")
        return 1 if report.violations else 0
    done, to = count(1), sys.stderr
    given |= {"jobs": asked.jobs, "everywhere": asked.everywhere, "busy_days": asked.busy_days}
    if to.isatty():
        given["progress"] = lambda _: to.write(f"{next(done)} runs\r")  # the result overwrites it
    total = simulation.swarm(asked.seeds, **given)
    sys.stdout.write(f"{total}\n")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
