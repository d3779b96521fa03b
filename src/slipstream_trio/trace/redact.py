"""Redaction of recordings: of secrets, and of payloads by choice.

A secret is told by its name: the value of an object's key, of a header or of a `name=value` in a text whose name has
one of `SECRETS` in it; or by its looks: JSON Web Tokens, Phoenix's tokens, bearer tokens, passwords in URLs. What a
server said with a refusal is hidden whole, as it may repeat what it refused.

Frames are made again from what is left of their payload, and the same is left of a payload wherever it occurs, so that
a recording agrees with itself and can be replayed. A malformed frame, or one of an unknown serializer
here, is left out where something in it would have to be hidden.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, lru_cache, partial
from operator import is_
from typing import Any, Final, Literal

from attrs import define, frozen

from ..errors import ProtocolError, SerializationError
from ..protocol import Frame, Message, Serializer, V1Serializer, V2Serializer
from ..protocol.message import REPLY
from ..protocol.serializer import split_binary
from ..telemetry.secrecy import MASK, SECRETS, SEPARATORS, is_secret, squeezed
from .schema import encode_line

Payloads = Literal["keep", "omit", "size"] | Callable[[Any], Any]
"""The treatment of payloads: kept, left out, replaced by their size, or by a function's result."""

DEEPEST: Final = 140  # the most levels of a payload; deeper values, which cannot be sent anyway, are hidden

_HINTS: Final = ("eyj", "sfmynty", "bearer", "basic", "://", "httpstatus")
"""Parts of every text that `_LOOKS` finds; searching these is far quicker."""

_LOOKS: Final = (
    (re.compile(r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?"), MASK),
    (re.compile(r"SFMyNTY\.[\w-]+(?:\.[\w-]+)?"), MASK),
    (re.compile(r"base64url\.bearer\.phx\.[\w-]+"), MASK),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{6,}"), rf"\1 {MASK}"),
    (re.compile(r"(://)[^/\s@:]{1,200}(?::[^/\s@]{0,200})?@"), rf"\1{MASK}@"),
    # This library's text of a refusal, see `ConnectionRejected`.
    (re.compile(r"""(HTTP status \d+: )(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)"""), rf"\1{MASK}"),
)
_SERIALIZERS: Final[Mapping[str, Serializer]] = {"v1": V1Serializer(), "v2": V2Serializer()}
_PLACE: Final = re.compile(r'^\s*File ".*", line \d+.*$|^Traceback .*$', re.MULTILINE)


@frozen
class Redacted:
    """The stand-in in a recording for a hidden frame."""


@define(slots=False)
class Redactor:
    """Hides secrets, by words that mark a name as one, and payloads."""

    secrets: Collection[str] | None = SECRETS
    payloads: Payloads = "keep"

    @cached_property
    def redacted(self) -> tuple[str, ...]:
        """The redacted kinds, for the header of a file."""
        payloads = () if self.payloads == "keep" else ("payloads",)
        return payloads if self.secrets is None else ("secrets", *payloads)

    def payload(self, payload: Any) -> Any:
        """Return a payload as it is shown; the very same object where nothing in it is hidden."""
        if payload == {}:
            return payload  # it says nothing; and it is what the core itself sends
        if self.payloads == "omit":
            return None
        if self.payloads == "size":
            return {"size": _size(payload)}
        if self.payloads != "keep":
            try:
                payload = self.payloads(payload)
            except Exception:  # noqa: BLE001 - a function of the user's; better nothing than too much
                return MASK
        return payload if self.secrets is None else self._walk(payload)

    def message_payload(self, message: Message) -> Any:
        """Return the payload of a message as it is shown; a reply's status stays."""
        payload = message.payload
        if message.event != REPLY or type(payload) is not dict or type(payload.get("status")) is not str:
            return self.payload(payload)
        response = payload.get("response")
        shown = self.payload(response)
        return payload if shown is response else {**payload, "response": shown}

    def arguments(self, arguments: Any) -> Any:
        """Return a callback's arguments as they are shown; messages look after themselves."""
        if type(arguments) is not tuple:
            return self.payload(arguments)
        return tuple(each if type(each) is Message else self.payload(each) for each in arguments)

    def frame(self, frame: Frame | Redacted, serializer: str = "", *, sent: bool = False) -> Frame | Redacted:
        """Return a frame as it is shown; of an unknown serializer it is hidden rather than made again."""
        if isinstance(frame, Redacted) or not self.suspicious(frame):
            return frame
        known = _SERIALIZERS.get(serializer)
        if known is None:
            return Redacted()
        try:
            if sent and isinstance(frame, bytes):  # as servers decode it, while serializers decode what comes from one
                if frame[:1] != b"\x00" or len(frame) < 5:
                    return Redacted()
                (join_ref, ref, topic, event), payload = split_binary(frame, 4)
                message = Message(join_ref or None, ref or None, topic, event, payload)
            else:
                message = known.decode(frame)
            payload = self.message_payload(message)
            return frame if payload is message.payload else known.encode(message._replace(payload=payload))
        except (ProtocolError, SerializationError, ValueError):
            return Redacted()

    def headers(self, headers: Any) -> Any:
        """Return response headers as they are shown."""
        if self.secrets is None:
            return headers
        return tuple((name, MASK if self._is_secret(name) else self.text(value)) for name, value in headers)

    def text(self, text: Any) -> Any:
        """Return a text as it is shown; what is none is no secret."""
        if self.secrets is None or type(text) is not str or not any(map(squeezed(text).__contains__, self._hints)):
            return text
        for pattern, replacement in _LOOKS:
            text = pattern.sub(replacement, text)
        if any(map(squeezed(text).__contains__, self.secrets)):
            text = self._assignment.sub(rf"\g<name>{MASK}", text)
        return text

    def body(self, body: str) -> str:
        """Return the body of a refusal as it is shown."""
        return body if self.secrets is None or not body else MASK

    def error(self, text: str) -> Any:
        """Return an exception's text or traceback as it is shown; it may have a payload in it."""
        if self.payloads == "keep":
            return self.text(text)
        return "\n".join(_PLACE.findall(text)) or MASK

    def object(self, text: str) -> Any:
        """Return an object's repr as it is shown; it may have a payload in it."""
        return self.text(text) if self.payloads == "keep" else MASK

    def suspicious(self, frame: Frame) -> bool:
        """Tell whether there may be something to hide in a frame, or in JSON: a quick look, as all are asked for."""
        if self.payloads != "keep":
            return True
        if self.secrets is None or not isinstance(frame, str):
            return False
        # Behind an escape there may be anything; and without a loop of Python's, as this is asked for each frame.
        return "\\u" in frame or any(map(squeezed(frame).__contains__, self._hints))

    def _walk(self, value: Any, depth: int = 0, *, blank: bool = False) -> Any:
        """Return a value without secrets; or `blank`, of the same structure, where all of it is one."""
        kind = type(value)
        if kind not in (dict, list, tuple):
            if not blank:
                return self.text(value) if kind is str else value
            return value if value is None or kind is bool else kind() if kind in (int, float, bytes) else MASK
        if depth > DEEPEST:
            return MASK
        if kind is dict:
            shown = {
                key: self._walk(item, depth + 1, blank=blank or self._is_secret(key)) for key, item in value.items()
            }
            return value if all(map(is_, shown.values(), value.values())) else shown
        items = kind(self._walk(item, depth + 1, blank=blank) for item in value)
        return value if all(map(is_, items, value)) else items

    @cached_property
    def _hints(self) -> tuple[str, ...]:
        return (*(self.secrets or ()), *_HINTS)

    @cached_property
    def _is_secret(self) -> Callable[[Any], bool]:
        return lru_cache(maxsize=1024)(partial(is_secret, words=tuple(self.secrets or ())))

    @cached_property
    def _assignment(self) -> re.Pattern[str]:
        """An assignment to a secret's name in a text: `name=value`, `name: value`, `'name': 'value'`."""
        words = "|".join(
            rf"[{re.escape(SEPARATORS)}]?".join(map(re.escape, word))
            for word in sorted(self.secrets or (), key=len, reverse=True)
        )
        value = r"""(?P<value>"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s&,;)}\]]+)"""
        return re.compile(rf"""(?i)(?P<name>(?:{words})[\w.-]{{0,40}}\\?["']?\s{{0,8}}(?:=>|[=:])\s{{0,8}}){value}""")


def _size(payload: Any) -> int | None:
    if isinstance(payload, bytes):
        return len(payload)
    try:
        return len(encode_line(payload))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
