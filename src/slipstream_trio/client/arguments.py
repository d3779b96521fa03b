"""What users hand over: arguments, checked and kept as they were; a serializer of their own."""

import math
from collections.abc import Sequence
from copy import deepcopy
from enum import Enum
from types import NoneType
from typing import Any, Final, Literal, final, get_args

from ..errors import ConfigurationError, ProtocolError, SerializationError
from ..protocol import (
    RESERVED_EVENTS,
    Frame,
    Message,
    MsgspecCodec,
    Serializer,
    StdlibCodec,
    V1Serializer,
    V2Serializer,
)
from ..protocol.serializer import located
from .buffer import Overflow


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a timeout: the option that `connect` was given for this operation."""

Timeout = float | Literal[Default.DEFAULT] | None


def checked_seconds(argument: str, value: Any) -> float | None:
    """Return a call's timeout; raises `ConfigurationError`, which names the argument, as for options."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):
        raise ConfigurationError(argument, f"a number of seconds above 0, or None for no limit; not {value!r}")
    seconds: float | None = value
    return seconds


def check_kind(argument: str, value: Any, *kinds: type, also: str = "") -> None:
    """Raise `ConfigurationError` for a value of none of these kinds, nor what is `also` possible."""
    if not isinstance(value, kinds):
        names = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
        raise ConfigurationError(argument, f"{names}{also}; not {type(value).__name__}")


def checked_size(argument: str, value: Any) -> int:
    """Return the most that there may be of something; raises `ConfigurationError` likewise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(argument, f"a whole number of at least 1, not {value!r}")
    return value


def checked_events(argument: str, value: Sequence[Any]) -> Sequence[str]:
    """Return names of events; raises `ConfigurationError` likewise."""
    for event in value:
        if not isinstance(event, str):
            raise ConfigurationError(argument, f"names, each a string; not {type(event).__name__}")
    return value


def checked_overflow(argument: str, value: Any) -> Overflow:
    """Return a policy for buffers; raises `ConfigurationError` likewise."""
    policies = get_args(Overflow)
    if value not in policies:
        raise ConfigurationError(argument, f"one of {', '.join(map(repr, policies))}; not {value!r}")
    policy: Overflow = value
    return policy


def checked_bounds(buffer: Any, overflow: Any, default_buffer: int, default_overflow: Overflow) -> tuple[int, Overflow]:
    """Return a buffer's size and policy, by default those given last; raises `ConfigurationError` likewise."""
    size = default_buffer if buffer is None else checked_size("buffer", buffer)
    return size, default_overflow if overflow is None else checked_overflow("overflow", overflow)


def chosen(timeout: Timeout, default: float | None) -> float | None:
    """Return the seconds that a call was given, or else the option's; raises `ConfigurationError` for a bad timeout."""
    return default if timeout is DEFAULT else checked_seconds("timeout", timeout)


def checked_push(event: str, payload: Any) -> Any:
    """Return the payload of a push: None is {}, and each kind of buffer is sent as its bytes; checks the event."""
    if type(event) is not str:
        raise SerializationError(f"an event is a string, not {_kind(event)}")
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is an event of the protocol, which cannot be pushed: use join() or leave()")
    if type(payload) is bytearray or type(payload) is memoryview:
        return bytes(payload)
    return {} if payload is None else payload


def check_topic(topic: str) -> None:
    """Raise `SerializationError` for a topic that is not a string: the server would hang up on it."""
    if type(topic) is not str:
        raise SerializationError(f"a topic is a string, not {_kind(topic)}")


def _kind(name: object) -> str:
    return type(name).__name__ + (": use its value" if isinstance(name, Enum) else "")


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

    So its failure, or that of a codec of the user's, concerns one frame, and never reads as a bug of the library.
    """
    codec = getattr(serializer, "codec", None)
    ours = type(serializer) in (V1Serializer, V2Serializer) and type(codec) in (StdlibCodec, MsgspecCodec)
    return serializer if ours else _Guarded(serializer)


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
