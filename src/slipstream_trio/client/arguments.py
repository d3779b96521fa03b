"""What users hand over: arguments, checked and kept as they were; a serializer of their own."""

from collections.abc import Callable
from copy import deepcopy
from enum import Enum
from typing import Any, Final, Literal, TypeVar, final

from ..errors import ProtocolError, SerializationError
from ..protocol import RESERVED_EVENTS, Frame, Message, Serializer, V1Serializer, V2Serializer
from ..protocol.serializer import located
from .configuration import Configuration, checked_seconds

F = TypeVar("F", bound=Callable[..., Any])


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a timeout: the option that `connect` was given for this operation."""

Timeout = float | Literal[Default.DEFAULT] | None


def with_options(function: F) -> F:
    """Let a function's docstring tell of each option, from that of `Configuration`."""
    told = (Configuration.__doc__ or "").partition("        params: ")  # which Python's -OO leaves out
    function.__doc__ = (function.__doc__ or "").replace(
        "        options: the fields of `Configuration`.\n", f"{told[1]}{told[2].rstrip()}\n"
    )
    return function


def chosen(timeout: Timeout, default: float | None) -> float | None:
    """Return the seconds that a call was given, or else the option's; raises `ConfigurationError` for a bad timeout."""
    return default if timeout is DEFAULT else checked_seconds("timeout", timeout)


def checked_push(event: str, payload: Any) -> Any:
    """Return the payload of a push: None is {}, and each kind of buffer is sent as its bytes; checks the event."""
    if not isinstance(event, str):
        raise SerializationError(f"an event is a string, not {type(event).__name__}")
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is an event of the protocol, which cannot be pushed: use join() or leave()")
    if type(payload) is bytearray or type(payload) is memoryview:
        return bytes(payload)
    return {} if payload is None else payload


def check_topic(topic: str) -> None:
    """Raise `SerializationError` for a topic that is not a string: the server would hang up on it."""
    if not isinstance(topic, str):
        raise SerializationError(f"a topic is a string, not {type(topic).__name__}")


@final
class KeptPayload:
    """A payload as it was when the call was awaited, whatever its owner does with the object since.

    With the library's own serializers it is kept as JSON text, else as a deep copy. Raises `SerializationError` for
    what is not a JSON value, or cannot be copied.
    """

    __slots__ = ("_codec", "_kept")

    def __init__(self, message: Message, serializer: Serializer) -> None:
        self._codec = serializer.codec if isinstance(serializer, V1Serializer | V2Serializer) else None
        self._kept = message.payload if type(message.payload) is bytes else self._copy(message)

    def value(self) -> Any:
        """Return the payload: a value that nobody else has."""
        if self._codec is None or isinstance(self._kept, bytes):
            return deepcopy(self._kept)
        return self._codec.decode(self._kept)

    def _copy(self, message: Message) -> Any:
        if self._codec is not None:
            try:
                return self._codec.encode(message.payload)
            except SerializationError as error:
                raise located(error, message, self._codec) from None
        try:
            return deepcopy(message.payload)
        except Exception as error:
            problem = f"a payload that waits is copied, and this one cannot be: {error!r}"
            raise SerializationError(problem, "payload", message.topic, message.event) from error


def guarded(serializer: Serializer) -> Serializer:
    """Return the serializer; one of the user's raises nothing but `SerializationError` and `ProtocolError`.

    So its failure concerns one frame, and never reads as a bug of the library.
    """
    return serializer if isinstance(serializer, V1Serializer | V2Serializer) else _Guarded(serializer)


@final
class _Guarded:
    def __init__(self, serializer: Serializer) -> None:
        self.name: str = serializer.name
        self.vsn: str = getattr(serializer, "vsn", "")
        self._serializer = serializer

    def encode(self, message: Message) -> Frame:
        try:
            return self._serializer.encode(message)
        except SerializationError:
            raise
        except Exception as error:
            problem = f"the serializer {self.name!r} failed: {error!r}"
            raise SerializationError(problem, "", message.topic, message.event) from error

    def decode(self, frame: Frame) -> Message:
        try:
            return self._serializer.decode(frame)
        except ProtocolError:
            raise
        except Exception as error:
            raise ProtocolError(f"the serializer {self.name!r} failed: {error!r}") from error
