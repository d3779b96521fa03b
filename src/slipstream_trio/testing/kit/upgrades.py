"""What clients get that ask to be let in: an answer at once or later, an HTTP status, or to wait for the test."""

from collections import deque

import trio
from attrs import frozen

from ..server import Refuse

__all__ = ["Step", "Upgrades"]


@frozen(eq=False)
class Step:
    """What one upgrade gets: after some seconds it is let in, or refused."""

    after: float = 0.0
    refusal: Refuse | None = None


class Upgrades:
    """Ties upgrades to steps, each in its order; one without a step is let in, unless it `waits` for one."""

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self._steps: deque[Step] = deque()
        self._undecided: deque[trio.MemorySendChannel[Step]] = deque()

    @property
    def undecided(self) -> bool:
        """Whether an upgrade has come that waits for its step."""
        return bool(self._undecided)

    def script(self, step: Step) -> None:
        """Give a step to the upgrade that waits for one, or else to the next."""
        if self._undecided:
            self._undecided.popleft().send_nowait(step)
        else:
            self._steps.append(step)

    def withdraw(self, step: Step) -> None:
        """Take back a step that no upgrade has got."""
        if step in self._steps:
            self._steps.remove(step)

    def decide_all(self, step: Step) -> None:
        """Give a step to all that wait for one."""
        while self._undecided:
            self.script(step)

    async def decided(self) -> None:
        """Return when an upgrade that has come is let in; raises `Refuse` where it is not."""
        step = Step()
        if self._steps:
            step = self._steps.popleft()
        elif self._waits:
            giving, taking = trio.open_memory_channel[Step](1)
            self._undecided.append(giving)
            try:
                step = await taking.receive()
            finally:
                if giving in self._undecided:
                    self._undecided.remove(giving)
        await trio.sleep(step.after)
        if step.refusal is not None:
            raise step.refusal
