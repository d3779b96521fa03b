"""Striking a program at one of its moments: after so many steps of a task, or of all tasks, or within the library.

A run is watched first by a strike that only counts; then each moment has a run of its own. Trio is told to schedule
deterministically, so that the runs are alike up to the strike.
"""

import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from dis import get_instructions
from functools import cache
from types import CodeType, FrameType, coroutine
from typing import Any, Literal

import trio

__all__ = ["Moments", "Strike", "Thrown", "Way"]

Way = Literal["cancel", "leave", "raise", "interrupt", "interrupt in the body", "interrupt in the library"]
"""What happens at the moment.

- cancel: the scope around everything is cancelled.
- leave: the body of `connect` is cancelled from within, and its block is left normally.
- raise: what the body awaits raises an exception.
- interrupt: SIGINT comes while Trio, or a protected task, runs: the main task gets it where it waits.
- interrupt in the body: SIGINT comes as the body goes on, and is raised there and then.
- interrupt in the library: SIGINT comes while the library's own code runs.
"""

Moments = Literal["waiting", "resuming", "all", "calls", "commands"]
"""Which moments are counted.

- waiting: as a task of the user's begins to wait.
- resuming: as it goes on.
- all: each step of each task.
- calls: each call of a function of the library's, in a task of the library's.
- commands: in the library's code that a task of the user's runs, wherever Python looks whether a signal has come: as a
  function begins, and after the call of a builtin.
"""


class Thrown(Exception):
    """What is raised in the body."""


class Strike(trio.abc.Instrument):
    """Does something at one moment, and counts the moments.

    Parameters:
        way: what it does; raising in the body is done as that goes on, whatever `moments` says.
        moments: which are counted.
        at: the number of the moment, from 1; 0: none.
        once: whether of all moments at one place in the client's code, called from one other, only the first counts.

    Attributes:
        count: how many moments there were so far.
        struck: whether it has done what it is for.
        leaving: to be set when the body has come to its end, and its block is being left.
        error: what it raises in the body.
        outer: to be the scope around everything.
        inner: to be the scope around the body.
        beside: to be the nursery of the server's tasks, which are not the library's.
    """

    def __init__(self, way: Way, moments: Moments = "resuming", at: int = 0, *, once: bool = False) -> None:
        self.count = 0
        self.struck = False
        self.leaving = False
        self.error: BaseException = Thrown() if way == "raise" else KeyboardInterrupt()
        self.outer = trio.CancelScope()
        self.inner = trio.CancelScope()
        self.beside: trio.Nursery | None = None
        self.way = way
        self._moments = moments
        self._at = at
        self._places: set[tuple[int, ...]] | None = set() if once else None
        self._raises = way in ("raise", "interrupt in the body")
        self._open = False
        self._tasks: set[trio.lowlevel.Task] = set()
        self._spared: set[trio.lowlevel.Task] = set()
        self._profile = {"calls": self._called, "commands": self._commanded}.get(moments)

    def begin(self) -> None:
        """Count from now on; the task that calls this is the user's."""
        self._open = True
        task = trio.lowlevel.current_task()
        self._tasks.add(task)
        self._look_into(task)

    def end(self) -> None:
        """Count no more."""
        self._open = False
        sys.setprofile(None)

    def spare(self) -> None:
        """Let the task that calls this be neither the user's nor the library's."""
        self._spared.add(trio.lowlevel.current_task())

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls this."""
        self._look_into(task)
        if self._moments == "resuming" and not self._raises and task in self._tasks:
            self._moment()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio calls this."""
        if self._profile is not None:
            sys.setprofile(None)
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

    def _look_into(self, task: trio.lowlevel.Task) -> None:
        """Let Python tell what a task does from now on, if it is one in which moments are counted."""
        if self._profile is None or not self._open or self.struck or task in self._spared:
            return
        users = task in self._tasks
        if users if self._moments == "commands" else not (users or self._is_beside(task)):
            sys.setprofile(self._profile)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and _is_ours(frame) and self._is_new(frame):
            self._moment()

    def _commanded(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and _begins(frame):
            within = _is_ours(frame) or _is_called_by_us(frame)
        else:
            within = event == "c_return" and _is_ours(frame)
        if within and self._is_new(frame):
            self._moment()

    def _is_new(self, frame: FrameType) -> bool:
        if self._places is None:
            return True
        caller = frame.f_back
        assert caller is not None
        if not (_is_clients(frame) or _is_clients(caller)):
            return False
        place = (id(frame.f_code), frame.f_lasti, id(caller.f_code), caller.f_lasti)
        known = place in self._places
        self._places.add(place)
        return not known

    def _is_beside(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self.beside:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    def _moment(self) -> bool:
        if not self._open:
            return False
        self.count += 1
        if self.count != self._at:
            return False
        self.struck = True
        sys.setprofile(None)  # it has done its part, and costs time
        if self.way == "cancel":
            self.outer.cancel()
        elif self.way == "leave":
            self.inner.cancel()
        elif self.way in ("interrupt", "interrupt in the library"):
            signal.raise_signal(signal.SIGINT)
        return True


def _is_ours(frame: FrameType) -> bool:
    """Tell whether a frame is one of the library's, and not of its servers for tests."""
    module = frame.f_globals.get("__name__", "")
    return bool(module.startswith("slipstream_trio.") and ".testing." not in module)


def _is_clients(frame: FrameType) -> bool:
    """Tell whether a frame is one of the client's: telemetry and the protocol hold no state of their own."""
    return bool(frame.f_globals.get("__name__", "").startswith("slipstream_trio.client."))


def _is_called_by_us(frame: FrameType) -> bool:
    """Tell whether the library has called a function of others; but for contextlib, by which Trio's `fail_at` is left.

    Nothing of Python's or Trio's protects that one, wherever it is used.
    """
    return frame.f_back is not None and _is_ours(frame.f_back) and frame.f_globals.get("__name__") != "contextlib"


def _begins(frame: FrameType) -> bool:
    """Tell whether a frame that is entered begins: a coroutine that goes on after an `await` is not interrupted there.

    This is how `with` and `await` are safe from signals at all: Python looks for these as a function begins, not as a
    coroutine goes on.
    """
    return frame.f_lasti <= _beginning(frame.f_code)


@cache
def _beginning(code: CodeType) -> int:
    return next((found.offset for found in get_instructions(code) if found.opname == "RESUME"), 0)


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
