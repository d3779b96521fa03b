"""What ends a whole run at one of its steps: SIGINT, SIGTERM, or a telemetry handler that exits."""

import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .world import World

__all__ = ["Interrupt", "cancel_at_sigterm"]


class Interrupt(trio.abc.Instrument):
    """Does what the scenario says at a step of Trio's, while clients live.

    Attributes:
        steps: the number of steps so far.
    """

    def __init__(self, world: "World") -> None:
        self.steps: int = 0
        self._world = world

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Count a step, and act at the one."""
        world, scenario = self._world, self._world.run.scenario
        self.steps += world.lives is not None
        if world.lives is None or self.steps != scenario.at:
            return
        world.fault(f"{scenario.interrupt}")
        if scenario.interrupt == "exit":
            world.exit_at_next_record = True
        else:
            signal.raise_signal(signal.SIGINT if scenario.interrupt == "interrupt" else signal.SIGTERM)


async def cancel_at_sigterm(world: "World", task_status: trio.TaskStatus[None]) -> None:
    """Cancel all clients at a SIGTERM, as a program does that shuts down in order."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if world.lives is not None:
                world.lives.cancel()
