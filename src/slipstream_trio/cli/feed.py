"""What comes on a connection, as JSON values: the items that `connect`, `listen` and `push` print.

They are made from telemetry, where everything is in the order of the wire, whichever channel it belongs to.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TextIO

from .. import telemetry as t
from ..protocol import MessageDropped, MessageReceived, TopicJoinClosed
from ..trace.text import Secrets, brief, duration, hidden, printable
from .output import BAD, BOLD, FAINT, GOOD, ONCE, Output, wants_colour

__all__ = ["Item", "as_json", "feed", "printer", "words_of"]

Item = dict[str, Any]
"""Its `type`, and what belongs to that."""

TOLD: Final[Mapping[type[t.Record], tuple[str, ...]]] = {
    t.ReconnectScheduled: ("reconnecting", "reason", "code", "status", "attempt", "delay"),
    t.RejoinScheduled: ("rejoining", "topic", "reason", "attempt", "delay"),
    t.GapOpened: ("gap", "topic", "reason", "since", "until"),
    t.ReplyOrphaned: ("late_reply", "topic", "status", "response"),
    t.MessageDiscarded: ("dropped", "topic", "event", "reason"),
}
"""Records that are told as they are: the item's type, and their fields."""

STYLES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("connected", "joined", "left", "reply", "pong", "sent", "presence"), GOOD),
    **dict.fromkeys(("reconnecting", "rejoining", "gap", "closed", "refused", "error", "dropped"), BAD),
    "message": BOLD,
    "late_reply": ONCE,
}

LONGEST: Final = 10_000
"""The most characters of a payload at a terminal."""


def feed(bus: t.Telemetry, show: Callable[[Item], object]) -> None:
    """Show what comes on the connections of a bus."""

    def handle(record: t.Record) -> None:
        for item in _items(record):
            show(item)

    bus.attach_many("feed", (t.HandleStop, t.ClientConnectStop, *TOLD), handle)


def _items(record: Any) -> Iterator[Item]:
    if isinstance(record, t.HandleStop):
        for event in record.transition.built_events:
            match event:
                case MessageReceived(message) | MessageDropped(message, "not_joined"):
                    yield {
                        "type": "message",
                        "topic": message.topic,
                        "event": message.event,
                        "payload": message.payload,
                    }
                case TopicJoinClosed(topic, reason=reason):
                    yield {"type": "closed", "topic": topic, "reason": reason}
    elif isinstance(record, t.ClientConnectStop):
        if record.outcome == "ok":
            yield {"type": "connected", "connection_id": record.origin.connection_id}
    elif record.reason not in ("not_joined", "overflow") and getattr(record, "direction", "in") == "in":
        kind, *names = TOLD[type(record)]
        values = {name: getattr(record, name) for name in names}
        if isinstance(record, t.GapOpened):
            since, until = record.since, record.until
            times = {"since": since.isoformat(), "until": until.isoformat()}
            values = {**values, **times, "seconds": (until - since).total_seconds()}
        yield {"type": kind, **{name: value for name, value in values.items() if value is not None}}


def printer(file: TextIO, secrets: Secrets, *, as_lines: bool) -> Callable[[Item], None]:
    """Return a function that prints an item: as a line of JSON, or for people."""
    output = Output(file, colour=not as_lines and wants_colour(file), live=True)

    def show(item: Item) -> None:
        if as_lines:
            output.print(json.dumps(hidden(as_json(item), secrets), separators=(",", ":")))
            return
        at, kind = output.style(time.strftime("%H:%M:%S"), FAINT), item["type"]
        word = output.style(f"{kind:12}", STYLES.get(kind, 0))
        output.print(f"{at} {word} {'  '.join(words_of(item, secrets))}".rstrip())

    return show


def as_json(item: Item) -> Item:
    """Return an item whose bytes are hexadecimal, under the name `hex`."""
    return dict(("hex", value.hex()) if isinstance(value, bytes) else (name, value) for name, value in item.items())


def words_of(item: Item, secrets: Secrets) -> Iterator[str]:
    """Give the words of an item, without its type, for people."""
    for name, value in item.items():
        if name in ("payload", "response", "present"):
            binary = f"0x{value[:32].hex()}{'…' * (len(value) > 32)}  " if isinstance(value, bytes) else ""
            yield f"{binary}{brief(value, secrets, LONGEST)}"
        elif name in ("seconds", "delay"):
            yield f"{'in ' * (name == 'delay')}{duration(value * 1e9)}"
        elif name in ("attempt", "code"):
            yield f"{name} {value}"
        elif name not in ("type", "command", "connection_id", "error", "since", "until"):
            yield printable(secrets.hide(str(value)))
