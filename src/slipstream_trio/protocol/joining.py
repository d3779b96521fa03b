"""The window and the pace of joins: a value, without clock.

After a restart all channels of all clients are joined again at once, and `join/3` may be slow. A client that sends all
joins at once fills the server's queue, and heartbeats wait behind them; one that sends them one by one is slow on a
long line. So there is a window, as TCP has one: it grows by answers, and shrinks by joins that take too long. And some
servers hang up on clients that join faster than they allow. No window helps there, as they answer quickly until then;
so a connection that ends in the middle of joins leaves a pace behind, which is lifted slowly.
"""

import math
from typing import Final

import attrs
from attrs import frozen

FIRST_WINDOW: Final = 8
LARGEST_WINDOW: Final = 256
SLOWEST: Final = 4.0  # joins a second that are never too many
FASTEST: Final = 200.0  # joins a second above which the pace is lifted
GROWTH: Final = 1.1
GROWS_EVERY: Final = 10.0  # seconds of a connection after which its pace is `GROWTH` times what it was
MOST_GROWN: Final = math.ceil(math.log(FASTEST / SLOWEST, GROWTH))
REMEMBERED: Final = 2 * int(FASTEST) + 2  # joins whose times are kept: with more in a second, the pace is lifted


@frozen(kw_only=True)
class JoinPacing:
    """The capacity of a server for joins, as learned from its answers. The methods return what is known next.

    It outlives connections: `opened` and `ended` tell of them.

    Attributes:
        fixed: the option `join_window`, None to find the window out.
        learned: the window that was found out.
        number: how many joins were sent, on all connections: the number of the latest.
        halved_after: the number of the latest join that was sent when the window was halved.
        pace: joins a second at the beginning of the connection, None for no pace.
        opened_at: when the connection was opened, None while there is none.
        times: when the latest joins of the connection were sent.
    """

    fixed: int | None = None
    learned: int = FIRST_WINDOW
    number: int = 0
    halved_after: int = 0
    pace: float | None = None
    opened_at: float | None = None
    times: tuple[float, ...] = ()

    @property
    def window(self) -> int:
        """The number of joins that may be unanswered at once."""
        return self.learned if self.fixed is None else self.fixed

    def pace_at(self, now: float) -> float | None:
        """Return the joins a second that may be sent, None for as many as the window allows."""
        if self.pace is None:
            return None
        steps = 0 if self.opened_at is None else (now - self.opened_at) // GROWS_EVERY
        pace = self.pace * GROWTH ** min(steps, MOST_GROWN)
        return None if pace > FASTEST else pace

    def next_join(self, now: float, unanswered: int) -> float | None:
        """Return the time from which the next join may be sent, at once if it is not after `now`.

        Parameters:
            now: the time.
            unanswered: how many joins the server has not worked off: `State.unanswered`.

        Returns:
            None while the window is full: ask again when `unanswered` is smaller.
        """
        if unanswered >= self.window:
            return None
        pace = self.pace and self.pace_at(now)
        return now if pace is None or not self.times else self.times[-1] + 1 / pace

    def opened(self, now: float) -> "JoinPacing":
        """A connection was opened."""
        return attrs.evolve(self, opened_at=now)

    def sent(self, now: float) -> "JoinPacing":
        """A join was sent; its number is the `number` of what is returned."""
        return attrs.evolve(self, number=self.number + 1, times=(*self.times, now)[-REMEMBERED:])

    def answered(self, *, refused: bool = False) -> "JoinPacing":
        """A join was answered; a refusal shows that the server keeps up, and not that it could take more."""
        return self if refused else attrs.evolve(self, learned=min(self.learned + 1, LARGEST_WINDOW))

    def timed_out(self, number: int) -> "JoinPacing":
        """The join of this number took too long: it failed, or is overdue.

        Joins that were sent before the window was halved had to wait for those of the larger window. They say nothing
        of this one.
        """
        if number <= self.halved_after:
            return self
        return attrs.evolve(self, learned=max(1, self.learned // 2), halved_after=self.number)

    def ended(self, now: float, unanswered: int) -> "JoinPacing":
        """The connection has ended.

        Parameters:
            now: the time.
            unanswered: how many joins the server had not worked off.
        """
        pace = self.pace_at(now)
        latest = sum(now - 1 < time for time in self.times)
        if unanswered and latest:  # else joins cannot have been too fast
            pace = max(SLOWEST, latest / 2)
            pace = None if pace > FASTEST else pace
        ended = attrs.evolve(self, pace=pace, opened_at=None, times=())
        return ended.timed_out(self.number) if unanswered else ended
