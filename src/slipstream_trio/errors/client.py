"""Errors of callback clients."""

from .base import SlipstreamError

__all__ = ["CallTimeout", "ClientBusy", "ClientStopped"]


class ClientBusy(SlipstreamError):
    """The inbox of a `Client` is full of casts and infos.

    Attributes:
        client: the name of the client's class.
        waiting: the number of waiting casts and infos.
    """

    def __init__(self, client: str, waiting: int) -> None:
        super().__init__(client, waiting)
        self.client = client
        self.waiting = waiting

    def __str__(self) -> str:
        return f"{self.client} has {self.waiting} casts and infos waiting: use call(), which waits, or raise `buffer`"


class ClientStopped(SlipstreamError):
    """A `Client` does not run: it has ended, or was never started.

    If an exception ended it, that is the `__cause__`, and named in the text.

    Attributes:
        client: the name of the client's class.
    """

    def __init__(self, client: str) -> None:
        super().__init__(client)
        self.client = client

    def __str__(self) -> str:
        cause = self.__cause__
        if cause is None:
            return f"{self.client} does not run: it has ended, or run_client was not called yet"
        if _is_cancellation(cause):
            return f"{self.client} has ended, as it was cancelled"
        text = str(cause).partition("\n")[0]
        return f"{self.client} has ended, as it failed with {type(cause).__name__}{text and ': '}{text}"


def _is_cancellation(error: BaseException) -> bool:
    """Tell whether an exception is Trio's, by its name, or a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return type(error).__name__ == "Cancelled"


class CallTimeout(SlipstreamError):
    """A `Client` did not answer a call in time.

    Attributes:
        client: the name of the client's class.
        timeout: the time waited, in seconds.
    """

    def __init__(self, client: str, timeout: float) -> None:
        super().__init__(client, timeout)
        self.client = client
        self.timeout = timeout

    def __str__(self) -> str:
        return f"{self.client} did not answer a call within {self.timeout} s; see the timeout of call()"
