"""A run of the demo: the scenario, the screen that shows it, and the tally that checks it."""

import gc
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import trio

from ..telemetry import Record, Telemetry
from ..trace import record
from ..trace.selection import Glance
from ..trace.text import Secrets, hidden
from ..trace.view import describe
from .demo_tour import Tour
from .demo_visit import Plan, visit
from .output import Output
from .screen import Screen
from .status import OK, CommandFailed
from .tally import Tally

__all__ = ["run_demo"]


def run_demo(plan: Plan | None, secrets: Secrets, *, plain: bool, path: str | None = None) -> int:
    """Run the demo, or a plan at a server of the user's, and show the trace, however it ends; returns the status."""
    screen = Screen(Output.of(sys.stdout, plain=plain, live=True), secrets)
    telemetry = Telemetry()
    tally = Tally(secrets)
    history = History(screen, secrets)
    # Two handlers, so that a failure of the one that shows is seen by the one that counts.
    telemetry.attach("tally", (), tally.feed, prefix=True)
    telemetry.attach("history", (), history.show, prefix=True)
    scenario = Tour(screen, telemetry).run if plan is None else partial(visit, screen, telemetry, plan)
    gc.freeze()  # otherwise a collection may scan all imports, for milliseconds within a span
    try:
        with _recorded(path, telemetry, secrets):
            _run(scenario, history)
    finally:
        gc.unfreeze()
        tally.finish()
        if history.failure is None and tally.records:
            screen.report(tally)
    if tally.problems:
        raise CommandFailed(f"the trace is not sound: {len(tally.problems)} problems, as listed above")
    return OK


def _recorded(path: str | None, telemetry: Telemetry, secrets: Secrets) -> AbstractContextManager[object]:
    """Record into a file, if there is one, without secrets."""
    if path is None:
        return nullcontext()
    return record(path, telemetry=telemetry, payloads=partial(hidden, secrets=secrets) if secrets.forms else "keep")


class History:
    """Shows records as they come, as a telemetry handler."""

    def __init__(self, screen: Screen, secrets: Secrets) -> None:
        self._screen = screen
        self._secrets = secrets
        self._began: int | None = None
        self.failure: OSError | None = None
        self.on_failure: Callable[[], object] = lambda: None

    def show(self, record: Record) -> None:
        """Show a record, if it has a line; ends the run if the output is gone."""
        line = describe(record, self._secrets)
        if line is None or self.failure is not None:
            return
        self._began = line.monotonic_time if self._began is None else self._began
        try:
            self._screen.line(Glance(0, line.monotonic_time - self._began, line, record))
        except OSError as error:
            self.failure = error
            self.on_failure()


def _run(scenario: Callable[[], Awaitable[None]], history: History) -> None:
    async def supervised() -> None:
        with trio.CancelScope() as scope:
            history.on_failure = scope.cancel
            await scenario()

    try:
        trio.run(supervised)
    except OSError as error:
        history.failure = history.failure or error
        raise
    except BaseExceptionGroup as group:
        # A KeyboardInterrupt in one of the server's tasks.
        if group.split(KeyboardInterrupt)[0] is None:
            raise
        raise KeyboardInterrupt from group
    if history.failure is not None:
        raise history.failure
