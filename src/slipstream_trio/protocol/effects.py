"""The outcome of one input: the state after it, events for the socket, and effects on the transport."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import attrs
from attrs import frozen

from ..lean import lean
from .events import Event
from .message import Frame
from .state import State

__all__ = ["CloseTransport", "Effect", "SendFrame", "Step", "Transition"]


@frozen
class SendFrame:
    """Send this frame; `ref` is the ref that its message took."""

    frame: Frame
    ref: str


@frozen
class CloseTransport:
    """Close the transport with this WebSocket close code."""

    code: int
    reason: str


Effect = SendFrame | CloseTransport
"""An action of the runtime on the transport."""


@frozen
class Step:
    """A built event as plain data: its name in snake case, and its fields."""

    type: str
    attrs: Mapping[str, Any]


@frozen
class Transition:
    """The outcome of one input.

    Attributes:
        state: the state after it.
        message: the decoded input: a `Message` for a good frame, else the input itself.
        built_events: what the socket is told.
        return_: the effects, in order.
    """

    state: State
    message: Any
    built_events: tuple[Event, ...] = ()
    return_: tuple[Effect, ...] = ()

    @property
    def event(self) -> tuple[Step, ...]:
        """The built events as steps of plain data."""
        return tuple(
            Step(_snake_case(type(event).__name__), attrs.asdict(event, recurse=False)) for event in self.built_events
        )


transition: Final = lean(Transition)


@cache  # of a dozen names, asked for with every event that is looked at
def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
