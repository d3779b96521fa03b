"""Answers to clients that connect: at once, later, an HTTP status, or when the test decides."""

from collections import deque

import trio
from attrs import frozen

from ..server import Refuse

__all__ = ["Upgrades", "Verdict"]


@frozen(eq=False)
class Verdict:
    """The answer to one upgrade: after some seconds it is let in, or refused."""

    after: float = 0.0
    refusal: Refuse | None = None


class Upgrades:
    """Ties upgrades to verdicts, each in its order; one without a verdict is let in, unless it `waits` for one."""

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self._verdicts: deque[Verdict] = deque()
        self._undecided: deque[trio.MemorySendChannel[Verdict]] = deque()

    @property
    def undecided(self) -> bool:
        """Whether an upgrade has come that waits for its verdict."""
        return bool(self._undecided)

    def script(self, verdict: Verdict) -> None:
        """Give a verdict to the upgrade that waits for one, or else to the next."""
        if self._undecided:
            self._undecided.popleft().send_nowait(verdict)
        else:
            self._verdicts.append(verdict)

    def withdraw(self, verdict: Verdict) -> None:
        """Take back a verdict that no upgrade has got."""
        if verdict in self._verdicts:
            self._verdicts.remove(verdict)

    def decide_all(self, verdict: Verdict) -> None:
        """Give a verdict to all that wait for one."""
        while self._undecided:
            self.script(verdict)

    async def decided(self) -> None:
        """Return when an upgrade that has come is let in; raises `Refuse` where it is not."""
        verdict = Verdict()
        if self._verdicts:
            verdict = self._verdicts.popleft()
        elif self._waits:
            giving, taking = trio.open_memory_channel[Verdict](1)
            self._undecided.append(giving)
            try:
                verdict = await taking.receive()
            finally:
                if giving in self._undecided:
                    self._undecided.remove(giving)
        await trio.sleep(verdict.after)
        if verdict.refusal is not None:
            raise verdict.refusal
