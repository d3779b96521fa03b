"""Simulated worlds: one seed makes one run of clients, servers and networks with faults, the same on every machine.

    from slipstream_trio.testing.simulation import simulate, swarm

    async def program(client):
        async with client.connect() as socket:
            ...

    report = simulate(program, seed=7, mounts=mounts)
    swarm(program, seeds=range(100), jobs=2, mounts=mounts).check()

`python -m slipstream_trio.testing.simulation module:simulation` does the same. It needs the extra `testing`.
"""

from .client import Follower, SimulatedClient
from .events import Note, Oracle, Report, Run, Violation
from .oracles import ORACLES
from .scenario import FEATURES, Scenario
from .simulate import Simulation, Swarm, simulate, swarm
from .world import Mounts, Node, Program, World

__all__ = [
    "FEATURES", "ORACLES", "Follower", "Mounts", "Node", "Note", "Oracle", "Program", "Report", "Run", "Scenario",
    "SimulatedClient", "Simulation", "Swarm", "Violation", "World", "simulate", "swarm",
]  # fmt: skip
