"""What a recording does not show."""

from typing import Any, Protocol

from attrs import frozen

from ..protocol import Frame, Message

__all__ = ["KEEP", "KeepAll", "Redacted", "Redactor"]


@frozen
class Redacted:
    """What stands in a recording for a frame that is not shown."""


class Redactor(Protocol):
    """What hides secrets and payloads before they are written."""

    @property
    def redacted(self) -> tuple[str, ...]:
        """What it hides, for the header."""
        ...

    def payload(self, payload: Any) -> Any:
        """Return a payload as it is to be shown."""
        ...

    def message_payload(self, message: Message) -> Any:
        """Return the payload of a message as it is to be shown."""
        ...

    def frame(self, frame: Frame | Redacted) -> Frame | Redacted:
        """Return a frame as it is to be shown."""
        ...

    def headers(self, headers: Any) -> Any:
        """Return response headers as they are to be shown."""
        ...

    def text(self, text: str) -> str:
        """Return a text as it is to be shown: an exception's, a server's, a repr."""
        ...


class KeepAll:
    """Hides nothing."""

    redacted: tuple[str, ...] = ()

    def payload(self, payload: Any) -> Any:
        """Return it as it is."""
        return payload

    def message_payload(self, message: Message) -> Any:
        """Return it as it is."""
        return message.payload

    def frame(self, frame: Frame | Redacted) -> Frame | Redacted:
        """Return it as it is."""
        return frame

    def headers(self, headers: Any) -> Any:
        """Return them as they are."""
        return headers

    def text(self, text: str) -> str:
        """Return it as it is."""
        return text


KEEP = KeepAll()
