"""Striking a program at one of its moments: after so many steps of a task, or of all tasks.

A run is watched first by a strike that only counts; then each moment has a run of its own. Trio is told to schedule
deterministically, so that the runs are alike up to the strike.
"""

import math
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import FrameType, coroutine
from typing import Any, Literal
from unittest.mock import patch

import trio

from slipstream_trio.client import buffer, inbox

__all__ = ["Moments", "Strike", "Thrown", "Way", "deterministic"]

Way = Literal["cancel", "leave", "raise", "interrupt", "interrupt in the body", "interrupt in the library"]
"""What happens at the moment.

- cancel: the scope around everything is cancelled.
- leave: the body of `connect` is cancelled from within, and its block is left normally.
- raise: what the body awaits raises an exception.
- interrupt: SIGINT comes while Trio, or a protected task, runs: the main task gets it where it waits.
- interrupt in the body: SIGINT comes as the body goes on, and is raised there and then.
- interrupt in the library: SIGINT comes as a task of the library's calls a function of the library's.
"""

Moments = Literal["waiting", "resuming", "all", "calls"]
"""Which moments are counted.

They are: as a task of the user's begins to wait, as it goes on, each step of each task, each call of a function.
"""


class Thrown(Exception):
    """What is raised in the body."""


class Strike(trio.abc.Instrument):
    """Does something at one moment, and counts the moments.

    Parameters:
        way: what it does; raising in the body is done as that goes on, whatever `moments` says.
        moments: which are counted.
        at: the number of the moment, from 1; 0: none.

    Attributes:
        count: how many moments there were so far.
        struck: whether it has done what it is for.
        leaving: to be set when the body has come to its end, and its block is being left.
        error: what it raises in the body.
        outer: to be the scope around everything.
        inner: to be the scope around the body.
        server: to be the nursery of the server's tasks, which are no task of the library's.
    """

    def __init__(self, way: Way, moments: Moments = "resuming", at: int = 0) -> None:
        self.count = 0
        self.struck = False
        self.leaving = False
        self.error: BaseException = Thrown() if way == "raise" else KeyboardInterrupt()
        self.outer = trio.CancelScope()
        self.inner = trio.CancelScope()
        self.server: trio.Nursery | None = None
        self.way = way
        self._moments = moments
        self._at = at
        self._raises = way in ("raise", "interrupt in the body")
        self._open = False
        self._tasks: set[trio.lowlevel.Task] = set()
        self._stepping: trio.lowlevel.Task | None = None

    def begin(self) -> None:
        """Count from now on; the task that calls this is the user's."""
        self._open = True
        self._tasks.add(trio.lowlevel.current_task())
        if self._moments == "calls":
            sys.setprofile(self._called)

    def end(self) -> None:
        """Count no more."""
        self._open = False
        if self._moments == "calls":
            sys.setprofile(None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls this."""
        self._stepping = task
        if self._moments == "resuming" and not self._raises and task in self._tasks:
            self._moment()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls this."""
        self._stepping = None
        counts = self._moments == "all" or (self._moments == "waiting" and task in self._tasks)
        if counts and not self._raises:
            self._moment()

    async def within(self, body: Coroutine[Any, Any, None]) -> None:
        """Await the body, or a part of it, in a task that is the user's from now on; it may be struck there."""
        self._tasks.add(trio.lowlevel.current_task())
        await self._step(body)

    @coroutine
    def _step(self, body: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        step: Callable[[], Any] = _sending(body, None)
        while True:
            try:
                trap = step()
            except StopIteration:
                return
            try:
                value = yield trap
            except BaseException as error:  # noqa: BLE001 - the body's
                step = _throwing(body, error)
            else:
                step = _sending(body, value)
            if self._raises and _can_raise(body) and self._moment():
                step = _throwing(body, self.error)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("slipstream_trio.") and ".testing." not in module:
            task = self._stepping
            if task is not None and task not in self._tasks and not self._is_servers(task):
                self._moment()

    def _is_servers(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self.server:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    def _moment(self) -> bool:
        if not self._open:
            return False
        self.count += 1
        if self.count != self._at:
            return False
        self.struck = True
        if self.way == "cancel":
            self.outer.cancel()
        elif self.way == "leave":
            self.inner.cancel()
        elif self.way in ("interrupt", "interrupt in the library"):
            signal.raise_signal(signal.SIGINT)
        return True


def _sending(body: Coroutine[Any, Any, None], value: Any) -> Callable[[], Any]:
    return lambda: body.send(value)


def _throwing(body: Coroutine[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: body.throw(error)


def _can_raise(body: Coroutine[Any, Any, None]) -> bool:
    """Tell whether what the body awaits can raise: a nursery's wait for its children cannot."""
    awaited: Any = body
    while hasattr(awaited, "cr_await"):
        if awaited.cr_code.co_name == "_nested_child_finished":
            return False
        awaited = awaited.cr_await
    return True


@contextmanager
def deterministic(seed: int = 0) -> Iterator[None]:
    """Let all tasks be scheduled as they were the last time.

    pytest-trio has Trio do that too, but leaves the seed to Hypothesis; and iterators take a turn by the real clock.
    """
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # as pytest-trio does
    trio._core._run._r.seed(seed)
    with patch.object(buffer, "SECONDS_A_TURN", math.inf), patch.object(inbox, "SECONDS_A_TURN", math.inf):
        yield
