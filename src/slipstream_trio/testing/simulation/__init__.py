"""Simulated worlds: one seed makes one run of clients, servers and networks with faults, the same on every machine.

    from slipstream_trio.testing.simulation import Simulation

    async def program(client):
        async with client.connect() as socket:
            ...

    simulation = Simulation(program=program, mounts=mounts)
    report = simulation.run(simulation.draw(7))
    simulation.swarm(range(100), jobs=2).check()

`python -m slipstream_trio.testing.simulation module:simulation` does the same. It needs the extra `testing`.
"""

from .client import Follower, SimulatedClient
from .oracles import ORACLES, Oracle, Violation
from .scenario import FEATURES, Note, Run, Scenario
from .simulate import Report, Simulation, Swarm
from .world import Mounts, Node, Program, World

__all__ = [
    "FEATURES", "ORACLES", "Follower", "Mounts", "Node", "Note", "Oracle", "Program", "Report", "Run", "Scenario",
    "SimulatedClient", "Simulation", "Swarm", "Violation", "World",
]  # fmt: skip
