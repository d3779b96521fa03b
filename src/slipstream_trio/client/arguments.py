"""The arguments of calls: checked, and kept as they were."""

from copy import deepcopy
from enum import Enum
from typing import Any, Final, Literal, final

from ..errors import SerializationError
from ..protocol import RESERVED_EVENTS, Serializer, V1Serializer, V2Serializer
from .configuration import checked_seconds

__all__ = ["DEFAULT", "Default", "KeptPayload", "Timeout", "check_event", "check_topic", "chosen"]


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a timeout: the option that `connect` was given for this operation."""

Timeout = float | Literal[Default.DEFAULT] | None


def chosen(timeout: Timeout, default: float | None) -> float | None:
    """Return the seconds that a call was given, or else the option's; raises `ConfigurationError` for a bad timeout."""
    return default if timeout is DEFAULT else checked_seconds("timeout", timeout)


def check_event(event: str) -> None:
    """Raise `SerializationError` for an event that is not a string, `ValueError` for one of the protocol's own."""
    if not isinstance(event, str):
        raise SerializationError(f"an event is a string, not {type(event).__name__}")
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is an event of the protocol, which cannot be pushed: use join() or leave()")


def check_topic(topic: str) -> None:
    """Raise `SerializationError` for a topic that is not a string: the server would hang up on it."""
    if not isinstance(topic, str):
        raise SerializationError(f"a topic is a string, not {type(topic).__name__}")


@final
class KeptPayload:
    """A payload as it was when the call was awaited, whatever its owner does with the object since.

    Parameters:
        payload: the payload; with the library's own serializers it is kept as JSON text, else as a deep copy.
        serializer: the socket's serializer.

    Raises:
        SerializationError: it is not a JSON value, or cannot be copied.
    """

    __slots__ = ("_codec", "_kept")

    def __init__(self, payload: Any, serializer: Serializer) -> None:
        self._codec = serializer.codec if isinstance(serializer, V1Serializer | V2Serializer) else None
        self._kept = payload if type(payload) is bytes else self._copy(payload)

    def value(self) -> Any:
        """Return the payload: a value that nobody else has."""
        if self._codec is None or isinstance(self._kept, bytes):
            return deepcopy(self._kept)
        return self._codec.decode(self._kept)

    def _copy(self, payload: Any) -> Any:
        if self._codec is not None:
            return self._codec.encode(payload)
        try:
            return deepcopy(payload)
        except Exception as error:
            raise SerializationError(f"a payload that waits is copied, and this one cannot be: {error!r}") from error
