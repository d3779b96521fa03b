"""A serializer of the user's: its failure concerns one frame, and never reads as a bug of the library."""

from typing import final

from ..errors import ProtocolError, SerializationError
from ..protocol import Frame, Message, Serializer, V1Serializer, V2Serializer

__all__ = ["guarded"]


def guarded(serializer: Serializer) -> Serializer:
    """Return the serializer; one of the user's raises nothing but `SerializationError` and `ProtocolError`."""
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
