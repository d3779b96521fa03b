"""A client's messages, until a test expects them, and the expectations."""

from typing import Any, Final, Literal

from attrs import define, frozen

from ...protocol.message import HEARTBEAT, JOIN, LEAVE, PHOENIX, Message
from ...trace.text import NO_SECRETS, Secrets
from .patterns import ANY, mismatch, short_repr, shown, text_mismatch

PATIENCE: Final = 0.1  # seconds that refutations watch, unless told otherwise

Kind = Literal["join", "push", "leave", "heartbeat", "message"]
"""The kind of a client's message; "message" stands for all of them."""


class ExpectationFailed(AssertionError):
    """Raised when an expectation or a refutation fails; the message shows the messages that came."""


def kind_of(message: Message) -> Kind:
    """Return the kind of a client's message; its values may be any."""
    if (message.topic, message.event) == (PHOENIX, HEARTBEAT):
        return "heartbeat"
    if message.event == JOIN:
        return "join"
    return "leave" if message.event == LEAVE else "push"


FATES: Final = {
    "waiting": "was neither expected nor answered",
    "expected": "was expected before",
    "answered": "the server answered it",
}


@frozen
class Expectation:
    """An expected message: its kind, and patterns of its values."""

    kind: Kind
    topic: Any = ANY
    event: Any = ANY
    payload: Any = ANY
    join_ref: Any = ANY

    def mismatch(self, message: Message, secrets: Secrets = NO_SECRETS) -> str | None:
        """Return why a message is not it, without secrets; None if it is."""
        kind = kind_of(message)
        if self.kind not in (kind, "message"):
            return f"it is a {kind}"
        return (
            text_mismatch(self.topic, message.topic, "its topic")
            or text_mismatch(self.event, message.event, "its event")
            or mismatch(self.join_ref, message.join_ref, "its join_ref")
            or mismatch(self.payload, message.payload, "its payload", secrets)
        )

    def describe(self, secrets: Secrets) -> str:
        """Return its text, without secrets."""
        patterns = {"": self.event, "on ": self.topic, "with payload ": self.payload, "with join_ref ": self.join_ref}
        told = [f"{word}{shown(pattern, secrets)}" for word, pattern in patterns.items() if pattern is not ANY]
        return " ".join([f"a {self.kind}", *told])


@define(eq=False)
class Arrival:
    """A message from a client, and when it came, in seconds of its server."""

    message: Message
    at: float
    fate: Literal["waiting", "expected", "answered"] = "waiting"

    def describe(self, secrets: Secrets) -> str:
        """Return it as a line, without secrets."""
        _, ref, topic, event, payload = self.message
        return f"+{self.at:.3f} s  {event} {topic} {short_repr(payload, secrets)} ref {ref}"
