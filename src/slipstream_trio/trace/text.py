"""Text for people: durations, payloads in brief, without secrets and control characters."""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from attrs import asdict, field, frozen, has

from ..protocol import Message
from ..telemetry.secrecy import MASK, is_secret
from .schema import encode_line
from .values import shown

SHORTEST: Final = 4  # shorter values are not masked: masking every "1" would make the output unreadable
SMALL: Final = 20  # so many values are encoded at once, as that takes less time than to do so piece by piece
LONGEST: Final = 2.0**62
_LEAVES: Final = frozenset({str, int, bool, type(None)})
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=lambda its: dict(its) if isinstance(its, Mapping) else repr(its)
)


@frozen
class Secrets:
    """Texts to mask, in every form in which a server could send them back."""

    forms: tuple[str, ...] = field(default=(), repr=False)  # the longest first

    @classmethod
    def of(cls, values: Iterable[str]) -> "Secrets":
        """Return the secrets of these values."""
        forms = set[str]()
        for value in values:
            if len(value) >= SHORTEST:
                forms |= {value, repr(value)[1:-1], quote(value, safe="", errors="replace")}
                forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
                forms.add(base64.urlsafe_b64encode(value.encode(errors="replace")).decode().rstrip("="))
        return cls(tuple(sorted(forms, key=len, reverse=True)))

    def hide(self, text: str) -> str:
        """Return the text without secrets."""
        for form in self.forms:
            text = text.replace(form, MASK)
        return text


NO_SECRETS: Final = Secrets()


def named_secrets_in(value: Any, *, secret: bool = False) -> Iterator[str]:
    """Return every string in a JSON value that is below the name of a secret, as recordings know them, or is one."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from named_secrets_in(item, secret=secret or is_secret(name))
    elif isinstance(value, list):
        for item in value:
            yield from named_secrets_in(item, secret=secret)
    elif secret and isinstance(value, str):
        yield value


def hidden(value: Any, secrets: Secrets) -> Any:
    """Return a JSON value without secrets, in keys too."""
    if isinstance(value, str):
        return secrets.hide(value)
    if isinstance(value, dict):
        return {hidden(key, secrets): hidden(item, secrets) for key, item in value.items()}
    return [hidden(item, secrets) for item in value] if isinstance(value, list) else value


def printable(text: str) -> str:
    """Return the text with control characters, and others that do not print, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def brief(payload: Any, secrets: Secrets = NO_SECRETS, limit: int = 160) -> str:
    """Return a payload as JSON, or the beginning of it, as it may be large; of bytes, their number."""
    if isinstance(payload, bytes):
        return f"{len(payload):,} bytes"
    text, whole = _plain(payload), True
    if text is None:
        text, whole = _beginning(payload, limit)
    text = printable(secrets.hide(text))  # before the cut, so that no half of a secret is left over
    return text if whole and len(text) <= limit else f"{text[: limit - 1]}…"


def _plain(payload: Any) -> str | None:
    """Return the JSON of an object of a few ASCII texts and numbers; None for all that takes a closer look."""
    if type(payload) is dict and len(payload) < SMALL and _LEAVES.issuperset(map(type, payload.values())):
        try:
            text = encode_line(payload)
        except (TypeError, ValueError, OverflowError):
            return None
        if text.isascii() and b"\\" not in text:
            return text.decode()
    return None


def _beginning(payload: Any, limit: int) -> tuple[str, bool]:
    text = ""
    try:
        for piece in _ENCODER.iterencode(payload):
            if len(text) > limit:
                return text, False
            text += piece
    except (TypeError, ValueError, RecursionError) as error:  # of a refused payload
        text += f"… ({type(error).__name__})"
    return text, True


def size_of(frame: Any) -> int:
    """Return how many bytes a frame has; 0 where a recording has something else in its place."""
    if isinstance(frame, str):
        return len(frame) if frame.isascii() else len(frame.encode(errors="surrogatepass"))
    return len(frame) if isinstance(frame, bytes) else 0


def frame_as_text(frame: Any) -> str:
    """Return a malformed frame as a text, whatever it is."""
    return frame if isinstance(frame, str) else repr(frame)


def in_a_word(reason: str, sentence: str) -> str:
    """Return a reason as a word that can be counted, as transports and decoders give sentences."""
    return reason if reason.isidentifier() else sentence


def nanoseconds(seconds: float) -> int:
    """Return seconds in nanoseconds, at most as many as 62 bits hold: a delay may be any number."""
    return round(max(-LONGEST, min(seconds * 1e9, LONGEST)))


def duration(nanoseconds: float) -> str:
    """Return a duration in three digits, more or less: "12 µs", "1.24 ms", "2.31 s"."""
    unit, size = ("µs", 1e3) if nanoseconds < 999.5e3 else ("ms", 1e6) if nanoseconds < 999.5e6 else ("s", 1e9)
    number = nanoseconds / size
    digits = "%.2f %s" if number < 9.995 else "%.1f %s" if number < 99.95 else "%.0f %s"
    return digits % (number, unit)


def many(count: int, one: str, more: str = "") -> str:
    """Return a number of things: "1 socket", "1,000 sockets"."""
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"


# Values of any kind as JSON: metadata and states, to be shown and not read back


def plain(value: Any) -> Any:
    """Return a value as JSON has it: records as objects, bytes by number and in base64, times in ISO 8601."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {"bytes": len(value), "base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Message):
        return plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return plain_record(value) if has(type(value)) else repr(value)


def plain_record(record: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of an attrs object as JSON values, under the name of its class."""
    fields = {name: plain(value) for name, value in (shown(record) or {}).items() if name not in without}
    return {"type": type(record).__name__, **fields}


def as_text(value: Any, limit: int) -> str:
    """Return a value as JSON in one line, or the beginning of it and how long all of it is."""
    if isinstance(value, bytes) and len(value) > limit:
        value = {"bytes": len(value), "base64": base64.b64encode(value[: limit // 2]).decode("ascii") + "…"}
    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def flat_state(state: Any) -> dict[str, Any]:
    """Return a state as one flat object, to be compared row by row: "status", "joins[room:lobby]", "options.url"."""
    flat: dict[str, Any] = {}
    for name, value in (shown(state) or {}).items():
        if isinstance(value, Mapping):
            flat.update({f"{name}[{key}]": plain(item) for key, item in value.items()})
        elif has(type(value)):
            flat.update({f"{name}.{key}": plain(item) for key, item in asdict(value).items()})
        else:
            flat[name] = plain(value)
    return flat
