"""The handle of an attached integration, to detach it again."""

from collections.abc import Callable
from contextlib import AbstractContextManager

__all__ = ["Attachment"]


class Attachment(AbstractContextManager["Attachment"]):
    """An attached integration: until `detach` is called, or for the time of a `with` block."""

    def __init__(self, take_off: Callable[[], object]) -> None:
        self._take_off: Callable[[], object] | None = take_off

    @property
    def attached(self) -> bool:
        """Whether it is still attached."""
        return self._take_off is not None

    def detach(self) -> None:
        """Detach it; a second call does nothing."""
        take_off, self._take_off = self._take_off, None
        if take_off is not None:
            take_off()

    def __exit__(self, *exception: object) -> None:
        self.detach()
