"""What the library holds: for tests that nothing of what has ended is kept."""

import gc
import sys
import tracemalloc

__all__ = ["blocks_held", "bytes_held", "objects_held"]


def blocks_held() -> int:
    """Return how many blocks of memory Python has allocated, garbage excluded."""
    gc.collect()
    return sys.getallocatedblocks()


def objects_held() -> int:
    """Return how many objects of the library's there are, but for those of its servers and other helpers of tests."""
    gc.collect()
    modules = [str(type(thing).__module__) for thing in gc.get_objects()]
    return sum(name.startswith("slipstream_trio.") and ".testing." not in name for name in modules)


def bytes_held() -> int:
    """Return how many bytes are traced, but for those that its servers and other helpers of tests asked for."""
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*/slipstream_trio/testing/*")])
    return sum(statistic.size for statistic in found.statistics("filename"))
