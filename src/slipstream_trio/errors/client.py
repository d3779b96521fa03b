"""Errors of callback clients."""

from .base import SlipstreamError

__all__ = ["CallTimeout", "ClientBusy", "ClientStopped"]


class ClientBusy(SlipstreamError):
    """The inbox of a `Client` is full of casts and infos, and takes no other.

    Attributes:
        client: the name of the client's class.
        waiting: how many wait.
    """

    def __init__(self, client: str, waiting: int) -> None:
        super().__init__(client, waiting)
        self.client = client
        self.waiting = waiting

    def __str__(self) -> str:
        return f"{self.client} has {self.waiting} casts and infos waiting: use call(), which waits, or raise `buffer`"


class ClientStopped(SlipstreamError):
    """A `Client` does not run, so that nobody handles this: it has ended, or was never started.

    Attributes:
        client: the name of the client's class.
    """

    def __init__(self, client: str) -> None:
        super().__init__(client)
        self.client = client

    def __str__(self) -> str:
        return f"{self.client} does not run: it has ended, or run_client was not called yet"


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
