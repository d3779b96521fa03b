"""One seed, one order: Trio's scheduling, random numbers and clocks of this process, for the time of a run.

This is the one file that knows private names of Trio's (as pytest-trio does), and of `random`'s. They are looked for
when it is imported.
"""

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, Final

import trio

_STEP: Final = 1e-6  # seconds by which `time.perf_counter` moves at each reading, besides the virtual time


def _private(module: Any, name: str) -> Any:
    if not hasattr(module, name):
        raise ImportError(
            f"a simulation needs {module.__name__}.{name}, by which the order of tasks is made that of a seed; "
            f"Trio {trio.__version__} on this Python has it no more: use a version of Trio that has, such as 0.35"
        )
    return getattr(module, name)


_run: Final = _private(_private(trio, "_core"), "_run")
_order: Final[random.Random] = _private(_run, "_r")
_private(_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
_private(random, "_urandom")


@contextmanager
def deterministic(seed: int, now: Callable[[], float]) -> Iterator[None]:
    """Let everything that this thread draws, and the order in which Trio runs tasks, come from a seed.

    That is: the module `random`, `os.urandom`, `secrets`, and `time.perf_counter`, which shows the time `now`. Other
    threads get what they got before. OpenSSL has random numbers of its own: with TLS, sizes and order are the same.
    Garbage is not collected during it, as that may run code at any moment.
    """
    here, source, readings = threading.get_ident(), random.Random(f"{seed}:bytes"), count(1)  # noqa: S311 - the point
    urandom, perf_counter = os.urandom, time.perf_counter

    def seeded_urandom(size: int) -> bytes:
        return source.randbytes(size) if threading.get_ident() == here else urandom(size)

    def virtual_perf_counter() -> float:
        return now() + next(readings) * _STEP if threading.get_ident() == here else perf_counter()

    with ExitStack() as stack:
        for owner, name, value in (
            (_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (os, "urandom", seeded_urandom),
            (random, "_urandom", seeded_urandom),
            (time, "perf_counter", virtual_perf_counter),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        for generator in (_order, random):
            stack.callback(generator.setstate, generator.getstate())
            generator.seed(seed)
        if gc.isenabled():
            stack.callback(gc.enable)
            gc.disable()
        yield
