"""Telemetry in the standard library's logs: call `attach()`. It needs no extra.

A record goes to the logger of its event, such as `slipstream_trio.client.push`, at a level by its kind and
outcome, with ids, topic, ref and the like as attributes of the log record (`extra`) for formatters.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, Final

from ..telemetry import ConnectStart, EventName, HandlerFailed, HandleStop, Record, Telemetry, default_telemetry
from ..telemetry.secrecy import MASK, SECRETS, is_secret
from ..trace.export_spans import FAILURES, GOOD_ENDS, PLAIN
from .attachment import Attachment

__all__ = ["attach", "level_of"]

HANDLER: Final = "slipstream_trio.integrations.logging"

_WARNINGS: Final = ("gap", "overflow", "reconnect_scheduled", "rejoin_scheduled", "stalled")
LEVELS: Final[Mapping[EventName, int]] = {
    ("connection", "connect", "stop"): logging.INFO,
    **{("client", word, "stop"): logging.INFO for word in ("connect", "join", "leave")},
    **{("client", word): logging.INFO for word in ("message_dropped", "reply_orphaned")},
    **{("client", word): logging.WARNING for word in _WARNINGS},
    ("client", "gave_up"): logging.ERROR,
    ("telemetry", "handler", "failure"): logging.ERROR,
}
"""The levels of good outcomes; all other records are DEBUG."""

IDS: Final = ("connection_id", "trace_id", "socket_id", "generation", "span_id")

FIELDS: Final[Mapping[str, str]] = {
    **{key: key for key in (*IDS, *PLAIN, "topic", "termination_reason", "handler_id", "kind", "stacktrace")},
    # `event` is what structlog calls the text itself.
    "event": "message_event",
}
"""Keys of the metadata, and the attributes of a log record that they become."""

PAYLOADS: Final = ("params", "response", "arguments", "return")  # keys of the metadata that hold payloads
DEPTH: Final = 6  # the levels of a payload that are shown


def level_of(record: Record) -> int:
    """Return the level of a record: by its event, and by its outcome where that is worse."""
    name = record.name
    if name[-1] == "exception":
        return logging.ERROR
    # By the fields, as making the metadata costs more.
    ended_well = getattr(record, "termination_reason", "cancelled") in GOOD_ENDS
    if not ended_well or getattr(record, "outcome", "ok") in FAILURES:
        return logging.WARNING
    return LEVELS.get(name[1:], logging.DEBUG)


def attach(
    *,
    telemetry: Telemetry = default_telemetry,
    name: str = "slipstream_trio",
    level: Callable[[Record], int | None] = level_of,
    handles: bool = False,
    payloads: bool = False,
    payload_limit: int = 200,
    secrets: Collection[str] = SECRETS,
) -> Attachment:
    """Log the records of a bus.

    Parameters:
        telemetry: the bus; by default the process's.
        name: the beginning of the loggers' names; the event's second and third word follow.
        level: the level of a record, None for none; see `level_of`.
        handles: log every handled input, at DEBUG: each message, command and tick.
        payloads: log params, responses, arguments and results, with the values of keys that name `secrets` masked.
        payload_limit: the most characters of a payload's text.
        secrets: words that mark a key as secret, in lower case and without separators.

    Raises:
        ValueError: it is attached already, or `payload_limit` is less than 1.
        TypeError: `level` is not a function.
    """
    if not callable(level):
        raise TypeError(f"level: a function of a record; to see less, logging.getLogger({name!r}).setLevel(…)")
    if payload_limit < 1:
        raise ValueError(f"payload_limit: at least 1 character, not {payload_limit}")

    logger_of = cache(lambda *event: logging.getLogger(".".join((name, *event))))

    def log(record: Record) -> None:
        logger, chosen = logger_of(*record.name[1:3]), level(record)
        if chosen is None or not logger.isEnabledFor(chosen):
            return
        extra = _extra(record)
        text = _text(record, extra)
        if payloads:
            # A handle's `return` is its effects, and to make them takes long.
            told = {} if isinstance(record, HandleStop) else record.metadata
            kept = filter(told.__contains__, PAYLOADS)
            extra["payload"] = {key: payload_text(told[key], payload_limit, secrets) for key in kept}
            text += "".join(f" {key}={value}" for key, value in extra["payload"].items())
        logger.log(chosen, "%s", text, extra=extra)

    events: list[EventName | type] = [ConnectStart.name[:-1], ("slipstream", "client"), HandlerFailed]
    telemetry.attach_many(HANDLER, events + [HandleStop.name[:-1]] * handles, log, prefix=True)
    return Attachment(lambda: telemetry.detach(HANDLER))


def _extra(record: Record) -> dict[str, Any]:
    extra: dict[str, Any] = {"telemetry_event": " ".join(record.name)}
    message: Any = record.delivered if isinstance(record, HandleStop) else None
    if message is not None:  # to make its metadata would take longer than all else
        extra.update({name: getattr(record, name) for name in IDS})
    else:
        metadata = record.metadata
        extra.update({name: metadata[key] for key, name in FIELDS.items() if metadata.get(key) is not None})
        message = metadata.get("message") or metadata.get("raw_message")
    for key in ("topic", "event", "ref"):
        if isinstance(value := getattr(message, key, None), str):
            extra[FIELDS[key]] = value
    if (duration := record.measurements.get("duration")) is not None:
        extra["duration_ms"] = duration / 1e6
    return extra


WORDS: Final = ("topic", "message_event", "callback", "outcome", "status", "reason", "termination_reason", "kind")
"""Attributes that the text has too."""


def _text(record: Record, extra: Mapping[str, Any]) -> str:
    """Return a line: the event, then its attributes, quoted, so that a topic cannot imitate another line."""
    words = [" ".join(record.name[1:])]
    words += [f"{key}={_quoted(extra[key])}" for key in WORDS if isinstance(extra.get(key), str | int)]
    if "duration_ms" in extra:
        words.append(f"in {extra['duration_ms']:.3f} ms")
    connection_id = extra.get("connection_id")
    return " ".join(words) if connection_id is None else f"{' '.join(words)} connection={connection_id}"


def _quoted(value: object) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w:.*/-]+", text, re.ASCII) else ascii(text)


def payload_text(value: Any, limit: int, secrets: Collection[str] = SECRETS) -> str:
    """Return a payload as JSON, or as much of it as `limit` characters show, without the values of secret keys."""
    text = ""
    for part in _parts(value, limit, secrets, DEPTH):
        text += part
        if len(text) > limit:
            return f"{text[: limit - 1]}…"
    return text


def _parts(value: Any, limit: int, secrets: Collection[str], depth: int) -> Iterator[str]:
    if isinstance(value, bytes | bytearray | memoryview):
        yield f"<{len(value)} bytes>"
    elif isinstance(value, str):
        yield json.dumps(value[: limit + 1])
    elif not isinstance(value, Mapping | list | tuple):
        yield str(value) if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"
    elif not depth:
        yield "…"
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, item) in enumerate(islice(value.items(), limit)):
            yield f"{', ' if number else ''}{json.dumps(str(key)[: limit + 1])}: "
            yield from [f'"{MASK}"'] if is_secret(str(key), secrets) else _parts(item, limit, secrets, depth - 1)
        yield "}"
    else:
        yield "["
        for number, item in enumerate(islice(value, limit)):
            yield ", " if number else ""
            yield from _parts(item, limit, secrets, depth - 1)
        yield "]"
