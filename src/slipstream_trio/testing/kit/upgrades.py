"""What clients get that ask to be let in: an answer at once or later, an HTTP status, or to wait for the test."""

from collections import deque

import trio
from attrs import define, field

from ..server import Refuse

__all__ = ["Step", "Upgrades"]


@define(eq=False)
class Step:
    """What one upgrade gets: after some seconds it is let in, or refused."""

    after: float = 0.0
    refusal: Refuse | None = None

    async def take(self) -> None:
        """Wait, then return or raise `Refuse`."""
        await trio.sleep(self.after)
        if self.refusal is not None:
            raise self.refusal


@define(eq=False)
class _Waiting:
    step: Step | None = None
    decided: trio.Event = field(factory=trio.Event)

    def decide(self, step: Step) -> None:
        self.step = step
        self.decided.set()


class Upgrades:
    """Ties upgrades to steps, each in its order, whichever comes first.

    Parameters:
        waits: whether an upgrade without a step waits for one; else it is let in.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self._steps: deque[Step] = deque()
        self._pending: list[_Waiting] = []

    @property
    def undecided(self) -> bool:
        """Whether an upgrade has come that waits for its step."""
        return any(waiting.step is None for waiting in self._pending)

    def script(self, step: Step) -> None:
        """Give a step to the upgrade that waits for one, or else to the next."""
        undecided = next((one for one in self._pending if one.step is None), None)
        if undecided is None:
            self._steps.append(step)
        else:
            undecided.decide(step)

    def withdraw(self, step: Step) -> None:
        """Take back a step that no upgrade has got."""
        if step in self._steps:
            self._steps.remove(step)

    def decide_all(self, step: Step) -> None:
        """Give a step to all that wait for one."""
        for waiting in self._pending:
            if waiting.step is None:
                waiting.decide(step)

    async def next_step(self) -> Step:
        """Return the step of an upgrade that has come."""
        if self._steps:
            return self._steps.popleft()
        if not self._waits:
            return Step()
        waiting = _Waiting()
        self._pending.append(waiting)
        try:
            await waiting.decided.wait()
        finally:
            self._pending.remove(waiting)
        assert waiting.step is not None
        return waiting.step
