"""The handle of an attached integration, to detach it again."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

__all__ = ["Attachment"]


class Attachment(AbstractContextManager["Attachment"]):
    """An attached integration: until `detach` is called, or for the time of a `with` block."""

    def __init__(self, take_off: Callable[[], object]) -> None:
        self._undo = ExitStack()
        self._undo.callback(take_off)

    def detach(self) -> None:
        """Detach it; a second call does nothing."""
        self._undo.close()

    def __exit__(self, *exception: object) -> None:
        self.detach()
