"""A time in which no bytes get through."""

from collections.abc import Callable

__all__ = ["Partition"]


class Partition:
    """What `partition` returns: a partition that has begun. As a context manager it heals at the block's end.

    Parameters:
        heal: ends it.
    """

    def __init__(self, heal: Callable[[], None]) -> None:
        self._heal = heal

    def __enter__(self) -> None:
        """Do nothing: it has begun."""

    def __exit__(self, *_: object) -> None:
        """Heal."""
        self._heal()

    def heal(self) -> None:
        """Let all bytes through again, those first that waited."""
        self._heal()
