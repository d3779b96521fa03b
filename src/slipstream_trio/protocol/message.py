"""The five values that Phoenix Channels exchange, and the events that the protocol reserves."""

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, dataclass_transform

from ..errors import SerializationError

if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True)
    class NamedTuple:
        """What type checkers take typing's for: mypy would show a message as a bare tuple, without its class's name."""

        _fields: ClassVar[tuple[str, ...]]

        def __iter__(self) -> Iterator[Any]: ...
        def __getitem__(self, place: Any) -> Any: ...
        def __eq__(self, other: object) -> bool: ...
        def __hash__(self) -> int: ...
        def _asdict(self) -> dict[str, Any]: ...
        def _replace(self, **fields: Any) -> Self: ...
else:
    from typing import NamedTuple

Frame = str | bytes
"""A WebSocket message: `str` for a text frame, `bytes` for a binary one."""

JOIN: Final = "phx_join"
LEAVE: Final = "phx_leave"
REPLY: Final = "phx_reply"
CLOSE: Final = "phx_close"
ERROR: Final = "phx_error"
HEARTBEAT: Final = "heartbeat"
PHOENIX: Final = "phoenix"

RESERVED_EVENTS: Final = frozenset({JOIN, LEAVE, REPLY, CLOSE, ERROR})
"""Events that have a meaning in the protocol; a client cannot push them."""


class Message(NamedTuple):
    """One Phoenix message.

    A NamedTuple, because the decoder can build one without a detour, and one is built for every frame.

    Attributes:
        join_ref: the ref of the join that the message belongs to; None on broadcasts and with the V1 serializer.
        ref: what ties a reply to its push; None on messages that answer nothing.
        topic: the channel's topic.
        event: the event's name.
        payload: a JSON value, or `bytes` from a binary frame.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any


def new_message(join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any) -> Message:
    """Return a message, in half of the time that `Message(…)` takes."""
    return tuple.__new__(Message, (join_ref, ref, topic, event, payload))  # type: ignore[type-var] # it is a tuple


def checked_push(event: str, payload: Any) -> Any:
    """Return the payload of a push: None is {}, and each kind of buffer is sent as its bytes; checks the event."""
    if type(event) is not str:
        raise SerializationError(f"an event is a string, not {_kind(event)}")
    if event in RESERVED_EVENTS:
        raise ValueError(f"{event!r} is an event of the protocol, which cannot be pushed: use join() or leave()")
    if type(payload) is bytearray or type(payload) is memoryview:
        return bytes(payload)
    return {} if payload is None else payload


def check_topic(topic: str) -> None:
    """Raise `SerializationError` for a topic that is not a string: the server would hang up on it."""
    if type(topic) is not str:
        raise SerializationError(f"a topic is a string, not {_kind(topic)}")


def check_join(topic: str, payload: Any) -> None:
    """Refuse a join's payload that a serializer would take, but no server; raises `SerializationError`."""
    if isinstance(payload, bytes | bytearray | memoryview):
        problem = "a join's payload is JSON: Phoenix closes the connection on a binary join"
        raise SerializationError(problem, "payload", topic, JOIN)


def _kind(name: object) -> str:
    return type(name).__name__ + (": use its value" if isinstance(name, Enum) else "")
