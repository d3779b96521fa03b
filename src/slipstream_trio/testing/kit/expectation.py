"""What a test waits for on a connection, and how it reads."""

from typing import Any, Final, Literal

from attrs import frozen

from ...protocol.message import HEARTBEAT, JOIN, LEAVE, PHOENIX, Message
from ...trace.text import NO_SECRETS, Secrets
from .patterns import ANY, brief, mismatch, shown, text_mismatch

__all__ = ["Expectation", "ExpectationFailed", "Kind", "kind_of"]

Kind = Literal["join", "push", "leave", "heartbeat", "message"]
"""What a client's message is; "message" stands for all of them."""


class ExpectationFailed(AssertionError):
    """What a test expected did not happen, or what it refuted did. The message shows what happened instead."""


def kind_of(message: Message) -> Kind:
    """Return what a client's message is."""
    if message.topic == PHOENIX and message.event == HEARTBEAT:
        return "heartbeat"
    event: Any = message.event  # a client may put a list there, which no dict takes as a key
    return _KINDS.get(event, "push") if isinstance(event, str) else "push"


_KINDS: Final[dict[str, Kind]] = {JOIN: "join", LEAVE: "leave"}


@frozen(kw_only=True)
class Expectation:
    """What a message has to be like: its kind, and the patterns of the rest."""

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
        """Return how it reads in a message, without secrets."""
        words = [f"a {self.kind}"]
        if self.event is not ANY:
            words.append(shown(self.event))
        if self.topic is not ANY:
            words.append(f"on {shown(self.topic)}")
        if self.payload is not ANY:
            words.append(f"with payload {shown(self.payload, secrets)}")
        if self.join_ref is not ANY:
            words.append(f"with join_ref {brief(self.join_ref)}")
        return " ".join(words)
