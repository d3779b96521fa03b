"""The calls of one channel that wait to be sent, in the order in which they were made."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, final

import trio

from ..errors import PushTimeout
from .result import Result

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Connection

__all__ = ["Line", "Place"]


@final
class Place:
    """The place of a call in its channel's line.

    To be made in the task that calls.

    Parameters:
        channel: the channel.
        event: the push's event.
        timeout: the seconds that the call was given, None for no limit.
        submit: hands its command to the core.

    Attributes:
        channel: the channel.
        turn: settled by what `submit` has returned or raised, or by why its turn will never come.
    """

    __slots__ = ("_context", "_event", "_submit", "_timeout", "channel", "turn")

    def __init__(
        self, channel: "Channel", event: str, timeout: float | None, submit: "Callable[[Connection], Any]"
    ) -> None:
        self.channel: Channel = channel
        self.turn: Result[Any] = Result()
        self._event = event
        self._timeout = timeout
        self._submit = submit
        self._context = trio.lowlevel.current_task().context

    @property
    def over(self) -> bool:
        """Whether nobody waits for the turn any more."""
        return self.turn.settled or self.turn.given_up

    def take(self, connection: "Connection") -> None:
        """Take the turn, in whichever task: the context is that of the call, as handlers of telemetry may read it.

        To wake the task first would cost each call a pass of the scheduler, as only one may have its turn at a time.
        """
        try:
            if trio.lowlevel.current_task().context is self._context:
                value = self._submit(connection)
            else:
                value = self._context.run(self._submit, connection)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything; it is the call's to raise
            self.turn.fail(error)
        else:
            self.turn.succeed(value)

    def expire(self) -> None:
        """Give up: the call's time is up."""
        timeout = self._timeout or 0.0
        awaited = self._awaited()
        self.turn.fail(
            PushTimeout(self.channel.topic, self._event, timeout, sent=False, waited=timeout, awaited=awaited)
        )

    def _awaited(self) -> Literal["connection", "join", "room"]:
        """Return the condition that keeps the call waiting."""
        if self.channel._socket.status != "connected":
            return "connection"
        return "room" if self.channel.status == "joined" else "join"


@final
class Line:
    """The calls of one channel that wait to be queued, in the order in which they were made.

    Attributes:
        places: their places, in this order.
    """

    __slots__ = ("places",)

    def __init__(self) -> None:
        # A set that keeps its order; a plain dict looks for its first key behind all that were taken out.
        self.places: OrderedDict[Place, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def first(self) -> Place | None:
        """The call that is next."""
        return next(iter(self.places), None)

    def enter(self, place: Place) -> None:
        """Take a place at the end."""
        self.places[place] = None

    def leave(self, place: Place) -> None:
        """Give up a place, wherever it is, if it was not given up before."""
        self.places.pop(place, None)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all of them that they wait for nothing."""
        for place in list(self.places):
            place.turn.fail(error())
