"""Expectations of messages, and the messages of a client until a test expects them."""

from typing import TYPE_CHECKING, Any, Final, Literal

import trio
from attrs import define, frozen

from ...protocol.message import HEARTBEAT, JOIN, LEAVE, PHOENIX, Message
from ...trace.text import NO_SECRETS, Secrets
from .patterns import ANY, mismatch, secrets_in, short_repr, shown, text_mismatch

if TYPE_CHECKING:
    from .connection import FakeConnection

PATIENCE: Final = 0.1  # seconds that refutations watch, unless told otherwise
_SHOWN: Final = 20

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


_FATES: Final = {
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
        words = [f"a {self.kind}"]
        if self.event is not ANY:
            words.append(shown(self.event))
        if self.topic is not ANY:
            words.append(f"on {shown(self.topic)}")
        if self.payload is not ANY:
            words.append(f"with payload {shown(self.payload, secrets)}")
        if self.join_ref is not ANY:
            words.append(f"with join_ref {short_repr(self.join_ref)}")
        return " ".join(words)


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


class Arrivals:
    """The messages of one client, in order, kept without limit."""

    def __init__(self, connection: "FakeConnection") -> None:
        self._connection = connection
        self._name = f"connection {connection.number}"
        self.all: list[Arrival] = []
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()  # a message came, or the connection ended

    def put(self, arrival: Arrival) -> None:
        """Add a message; one that was answered automatically can still be expected."""
        self.all.append(arrival)
        self.changed.unpark_all()

    async def take(self, expectation: Expectation, within: float | None) -> Message:
        """Take the first message that is as expected; raises `ExpectationFailed`."""
        within = self._connection.server.timeout if within is None else within
        if (found := await self._await(expectation, within)) is not None:
            # No checkpoint from here on: a taken message is handed over, also if the task is being cancelled.
            found.fate = "expected"
            return found.message
        ended = self._connection.disconnection
        why = f"the connection has ended: {ended}" if ended else f"it did not come within {within:g} s"
        wanted = expectation.describe(self._secrets(expectation))
        raise ExpectationFailed(f"expected {wanted} on {self._name}: {why}\n{self.history(expectation)}")

    async def refute(self, expectation: Expectation, within: float) -> None:
        """Watch for `within` seconds, or to the connection's end; raises `ExpectationFailed` if one comes."""
        if (found := await self._await(expectation, within)) is not None:
            secrets = self._secrets(expectation)
            raise ExpectationFailed(
                f"expected no message like {expectation.describe(secrets)} on {self._name} within {within:g} s, "
                f"but it came:\n  {found.describe(secrets)}"
            )

    def history(self, expectation: Expectation | None = None) -> str:
        """Return the messages, line by line, and why each is not the expected one."""
        if not self.all:
            return "Nothing had come from this client."
        left_out = len(self.all) - _SHOWN
        lines = [f"  … {left_out} earlier ones"] if left_out > 0 else []
        secrets = self._secrets(expectation)
        for arrival in self.all[-_SHOWN:]:
            remark = None
            if expectation is not None and arrival.fate != "expected":
                remark = expectation.mismatch(arrival.message, secrets)
            lines.append(f"  {arrival.describe(secrets)}  - {remark or _FATES[arrival.fate]}")
        return "\n".join(["What came from this client:", *lines])

    async def _await(self, expectation: Expectation, within: float) -> Arrival | None:
        looked = 0  # each message is held against the expectation once, however many come meanwhile
        with trio.move_on_after(within):
            await trio.lowlevel.checkpoint()
            while (found := self._find(expectation, looked)) is None and self._connection.disconnection is None:
                looked = len(self.all)
                await self.changed.park()
            return found
        return self._find(expectation, looked)  # what came at the last moment has come in time

    def _find(self, expectation: Expectation, after: int) -> Arrival | None:
        new = (one for one in self.all[after:] if one.fate != "expected")
        return next((one for one in new if expectation.mismatch(one.message) is None), None)

    def _secrets(self, expectation: Expectation | None = None) -> Secrets:
        """Return the values below names of secrets, in payloads that came or were expected."""
        payloads = [arrival.message.payload for arrival in self.all]
        wanted = [] if expectation is None else [expectation.payload]
        return Secrets.of(secret for payload in (*payloads, *wanted) for secret in secrets_in(payload))
