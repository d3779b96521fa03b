"""Bad networks for tests: one description of faults, applied to streams in memory and to real sockets.

    from slipstream_trio.testing.faults import AtFrame, Faults, Link, Reset, Rule, faulty_network

    faults = Faults(seed=7, toward_client=Link(latency=0.05), rules=[Rule(Reset(), AtFrame(3))])

    async with faulty_network(faults) as network:
        listening = await network.listen("127.0.0.1", 4000)            # a TCP proxy in front of any server
        connector = find_connector("auto", network.opener(open_stream))  # or a network in memory

It needs the extra `testing`.
"""

from . import description
from .course import FaultLog, Injected
from .description import *  # noqa: F403 - all that it exports is public, and named there
from .network import FaultyNetwork, faulty_network

__all__ = ["FaultLog", "FaultyNetwork", "Injected", "faulty_network"]
__all__ += description.__all__
