"""Expectations, their patterns of topics, events and payloads, and the messages that came."""

import re
from collections.abc import Callable, Iterator, Mapping
from inspect import iscoroutinefunction
from types import UnionType
from typing import Any, Final, Literal, Union, final, get_args, get_origin

from attrs import define, frozen

from ...protocol.message import HEARTBEAT, JOIN, LEAVE, PHOENIX, Message
from ...trace.text import NO_SECRETS, Secrets, named_secrets_in

_LONGEST: Final = 200
PATIENCE: Final = 0.1  # seconds that refutations watch, unless told otherwise


@final
class _Any:
    """Matches everything; equal to everything as well, so that it may stand in a comparison."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Final[Any] = _Any()
"""Matches every topic, event or payload, or any value within a payload."""


@frozen
class Including:
    """Matches objects that have these members, by the pattern of each, and any others; see `including`."""

    members: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"including({shown(self.members)})"


@frozen
class Exactly:
    """Matches one value, also where it would be a pattern."""

    value: Any

    def __repr__(self) -> str:
        return short_repr(self.value)


def including(members: Mapping[str, Any] | None = None, /, **more: Any) -> Including:
    """Return a pattern for objects that have these members, and any others.

        await channel.expect_push("new_msg", including(body="hi"))

    Parameters:
        members: names and patterns; each pattern is a value, `ANY`, a type, a predicate, or another `including`.
        more: the same, as keywords.
    """
    return Including({**(members or {}), **more})


def mismatch(pattern: Any, value: Any, where: str, secrets: Secrets = NO_SECRETS) -> str | None:
    """Return why a value does not match a pattern, None if it does.

    Parameters:
        pattern: a value, `ANY`, `including(…)`, a type or several (`int | None`), a regular expression for the whole
            of a string, or a predicate: a function of the value. Objects and arrays may have patterns within.
        value: the value to compare.
        where: the value's name in the answer: "payload", for example.
        secrets: texts that the answer must not show.

    Raises:
        TypeError: the pattern cannot be compared with a value: `list[int]`, or an async function.
    """
    if pattern is ANY:
        return None
    if isinstance(pattern, Exactly):
        return _equal(pattern.value, value, where, secrets)
    if isinstance(pattern, Including | Mapping | list | tuple):
        return _parts(pattern, value, where, secrets)
    if isinstance(pattern, re.Pattern):
        matches = isinstance(value, str) and pattern.fullmatch(value)
        return None if matches else f"{where} {short_repr(value, secrets)} does not match {shown(pattern, secrets)}"
    if isinstance(pattern, type) or get_origin(pattern) in (Union, UnionType):
        name, kinds = (pattern.__name__, (pattern,)) if isinstance(pattern, type) else (pattern, get_args(pattern))
        # JSON's true is not a number; Python's is.
        right = isinstance(value, pattern) and (type(value) is not bool or bool in kinds or object in kinds)
        return None if right else f"{where} is {short_repr(value, secrets)}, not of type {name}"
    return (_predicate if callable(pattern) else _equal)(pattern, value, where, secrets)


def text_mismatch(pattern: Any, value: Any, where: str) -> str | None:
    """Return why a topic or an event does not match, None if it does. As `mismatch`; a `*` in a string is any text."""
    if not isinstance(pattern, str) or "*" not in pattern:
        return mismatch(pattern, value, where)
    glob = ".*".join(map(re.escape, pattern.split("*")))
    if isinstance(value, str) and re.fullmatch(glob, value, re.DOTALL):
        return None
    return f"{where} {short_repr(value)} does not match {short_repr(pattern)}"


def secrets_in(pattern: Any) -> Iterator[str]:
    """Return the strings of a pattern, or of a payload, that are below the name of a secret."""
    return named_secrets_in(_without_patterns(pattern))


def shown(pattern: Any, secrets: Secrets = NO_SECRETS) -> str:
    """Return a pattern's text for messages, without secrets."""
    if isinstance(pattern, re.Pattern):
        return secrets.hide(f"re.compile({pattern.pattern!r})")
    if isinstance(pattern, Including):
        return f"including({shown(pattern.members, secrets)})"
    if isinstance(pattern, Mapping):
        return "{" + ", ".join(f"{name!r}: {shown(item, secrets)}" for name, item in pattern.items()) + "}"
    if isinstance(pattern, list):
        return "[" + ", ".join(shown(item, secrets) for item in pattern) + "]"
    named = callable(pattern) and get_origin(pattern) is None
    return _name(pattern) if named else short_repr(pattern, secrets)


def short_repr(value: Any, secrets: Secrets = NO_SECRETS) -> str:
    """Return a value's repr without secrets, cut where it is long."""
    text = secrets.hide(repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _without_patterns(pattern: Any) -> Any:
    """Return the JSON value that a pattern was made of, as far as possible."""
    if isinstance(pattern, Including):
        return _without_patterns(pattern.members)
    if isinstance(pattern, Mapping):
        return {name: _without_patterns(item) for name, item in pattern.items()}
    if isinstance(pattern, list | tuple):
        return [_without_patterns(item) for item in pattern]
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern


def _name(function: Any) -> str:
    name: str = getattr(function, "__qualname__", None) or repr(function)
    return name.rpartition("<locals>.")[2]


def _parts(pattern: Any, value: Any, where: str, secrets: Secrets) -> str | None:
    partly = isinstance(pattern, Including)
    wanted: Any = pattern.members if partly else pattern
    is_object = isinstance(wanted, Mapping)
    if not isinstance(value, Mapping if is_object else list | tuple):
        return f"{where} is {short_repr(value, secrets)}, not {'an object' if partly else shown(pattern, secrets)}"
    if not is_object and len(wanted) != len(value):
        return f"{where} has {len(value)} items, not {len(wanted)}: {short_repr(value, secrets)}"
    for name, item in wanted.items() if is_object else enumerate(wanted):
        if is_object and name not in value:
            return f"{where} has no {name!r}: {short_repr(value, secrets)}"
        if problem := mismatch(item, value[name], f"{where}[{name!r}]", secrets):
            return problem
    more = [name for name in value if name not in wanted] if is_object and not partly else []
    return f"{where} has {more[0]!r} as well: {short_repr(value[more[0]], secrets)}" if more else None


def _predicate(pattern: Callable[[Any], object], value: Any, where: str, secrets: Secrets) -> str | None:
    # Called, both would return a true value for every payload.
    if (origin := get_origin(pattern)) is not None:
        raise TypeError(f"{pattern!r} cannot be a pattern: use {shown(origin)}, or a function of the value")
    if iscoroutinefunction(pattern):
        raise TypeError(f"{_name(pattern)} is async, but a pattern is a plain function of the value")
    try:
        if pattern(value):
            return None
    except Exception as error:  # noqa: BLE001 - made for one kind of payload, it is called with all
        text = secrets.hide(f"{type(error).__name__}: {error}")
        return f"{where} {short_repr(value, secrets)}: {_name(pattern)} raised {text}"
    return f"{where} {short_repr(value, secrets)}: {_name(pattern)} says no"


def _equal(pattern: Any, value: Any, where: str, secrets: Secrets) -> str | None:
    # JSON's true is not 1; Python's is. Other objects have an equality of their own, as mock.ANY does.
    foreign = not isinstance(pattern, int | float | str | bytes | None)
    if pattern == value and (foreign or isinstance(pattern, bool) == isinstance(value, bool)):
        return None
    return f"{where} is {short_repr(value, secrets)}, not {short_repr(pattern, secrets)}"


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
    fate: str = "was neither expected nor answered"

    def describe(self, secrets: Secrets) -> str:
        """Return it as a line, without secrets."""
        _, ref, topic, event, payload = self.message
        return f"+{self.at:.3f} s  {event} {topic} {short_repr(payload, secrets)} ref {ref}"
