"""The calls of one channel that wait to be sent, in the order in which they were made."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, final

from ..errors import PushTimeout
from .result import Result

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ["Line", "Place"]


@final
class Place:
    """The place of a call in its channel's line.

    Parameters:
        channel: the channel.
        event: the push's event.
        timeout: the seconds that the call was given, None for no limit.

    Attributes:
        channel: the channel.
        turn: settled when the call may hand its command to the core, or by why it never will.
    """

    __slots__ = ("_event", "_timeout", "channel", "turn")

    def __init__(self, channel: "Channel", event: str, timeout: float | None) -> None:
        self.channel: Channel = channel
        self.turn: Result[None] = Result()
        self._event = event
        self._timeout = timeout

    @property
    def over(self) -> bool:
        """Whether its time limit means nothing any more."""
        return self.turn.settled

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

    def renew(self) -> None:
        """Wait for another turn, as the channel was lost before this one could be used."""
        self.turn = Result()


@final
class Line:
    """The calls of one channel that wait to be queued, in the order in which they were made.

    Attributes:
        places: their places, in this order.
    """

    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: dict[Place, None] = {}  # a set that keeps its order

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
        """Give up a place, wherever it is."""
        del self.places[place]

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all of them that they wait for nothing."""
        for place in list(self.places):
            place.turn.fail(error())
