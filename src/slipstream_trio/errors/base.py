"""The base of all errors, and those of options, messages and this library itself."""

from collections.abc import Iterable

__all__ = [
    "ConfigurationError", "ExportError", "InternalError", "ProtocolError", "RecordingError", "SerializationError",
    "SlipstreamError",
]  # fmt: skip


def did_you_mean(name: str, known: Iterable[str], nearness: float = 0.6) -> str:
    """Return the rest of a sentence about an unknown name: the nearest of those that are known, if one is near."""
    from difflib import get_close_matches  # needed after a mistake only

    name, names = name.lower(), list(known)
    close = get_close_matches(name, names, len(names) or 1, nearness)
    # Of names that begin with it, the first: `heartbeat` is the interval, though heartbeat_timeout is a letter nearer,
    # and `ssl` is ssl_context, though it is not near. Fewer than three letters say too little.
    begun = [each for each in names if each.startswith(name) and (len(name) > 2 or each in close)]
    nearest = begun or close
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def lacks(what: str, error: ImportError, extra: str) -> str:
    """Return the sentence for something that needs a package which is not installed, and the extra that brings it."""
    return f"{what} needs {(error.name or str(error)).partition('.')[0]}: pip install 'slipstream-trio[{extra}]'"


def leaves(error: BaseException | None) -> list[BaseException]:
    """Return the exceptions in a group, and in groups in it; one that is no group is alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [] if error is None else [error]


class SlipstreamError(Exception):
    """The base of every error of this library."""


class ConfigurationError(SlipstreamError):
    """An option of `connect` cannot be used as given.

    Attributes:
        option: the option's name.
        problem: the fault, and a valid form.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(option, problem)
        self.option = option
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.option}: {self.problem}"


class SerializationError(SlipstreamError):
    """A payload, topic or event cannot be put into a frame; nothing was sent, no ref was taken.

    Attributes:
        problem: the fault, and a valid form.
        path: the place of the value in the message, such as `payload["items"][3]["at"]`; empty if unknown.
        topic: the topic of the message, None if unknown.
        event: the event of the message, None if unknown.
    """

    def __init__(self, problem: str, path: str = "", topic: str | None = None, event: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.topic = topic
        self.event = event

    def __str__(self) -> str:
        where = f"at {self.path}: " if self.path else ""
        message = " of ".join(f"{name!r}" for name in (self.event, self.topic) if name is not None)
        return f"{where}{self.problem}" + (f" (in {message})" if message else "")


class ProtocolError(SlipstreamError):
    """A frame is not a Phoenix message, or an input does not fit the connection's state.

    Attributes:
        problem: the fault.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class RecordingError(SlipstreamError):
    """A recording cannot be written or read.

    Attributes:
        path: the file.
        problem: the fault, and the way out.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ExportError(SlipstreamError):
    """A recording could not be sent to its destination; the text has the cause and the way out."""


class InternalError(SlipstreamError):
    """A bug in this library; its cause is the exception that revealed it. Please report it."""
