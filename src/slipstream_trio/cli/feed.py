"""What comes on a connection, as JSON values: the items that `connect`, `listen` and `push` print.

They are made from telemetry, where everything is in the order of the wire, whichever channel it belongs to.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import TextIOWrapper
from textwrap import wrap
from typing import Any, Final, TextIO

import trio

from .. import telemetry as t
from ..protocol import MessageDropped, MessageReceived, TopicJoinClosed
from ..trace.text import Secrets, brief, duration, hidden, printable
from .output import BAD, BOLD, FAINT, GOOD, ONCE, Output, wants_colour
from .status import PLAINER

Item = dict[str, Any]  # its `type`, and what belongs to that
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
    **dict.fromkeys(("reconnecting", "rejoining", "gap", "closed", "refused", "error", "dropped", "overflow"), BAD),
    "message": BOLD,
    "late_reply": ONCE,
}

PAYLOADS: Final = frozenset({"payload", "response", "present"})
INDENT: Final = 22  # cells before the text of a line
LEAST: Final = 20  # the fewest cells that a text is filled into
LONGEST: Final = 10_000  # the most characters of a payload at a terminal
BACKLOG: Final = 2**23  # the most characters that wait to be written


def feed(bus: t.Telemetry, show: Callable[[Item], object]) -> None:
    """Show what comes on the connections of a bus."""
    bus.attach_many("feed", (t.HandleStop, t.ClientConnectStop, *TOLD), partial(_handle, show))


def _handle(show: Callable[[Item], object], record: Any) -> None:
    if isinstance(record, t.HandleStop):
        for event in record.transition.built_events:
            match event:
                case MessageReceived(message) | MessageDropped(message, "not_joined"):
                    _, _, topic, its, payload = message
                    show({"type": "message", "topic": topic, "event": its, "payload": payload})
                case TopicJoinClosed(topic, reason=reason):
                    show({"type": "closed", "topic": topic, "reason": reason})
    elif isinstance(record, t.ClientConnectStop):
        if record.outcome == "ok":
            show({"type": "connected", "connection_id": record.origin.connection_id})
    elif record.reason not in ("not_joined", "overflow") and getattr(record, "direction", "in") == "in":
        kind, *names = TOLD[type(record)]
        item = {"type": kind, **{name: value for name in names if (value := getattr(record, name)) is not None}}
        if isinstance(record, t.GapOpened):
            since, until = record.since, record.until
            item |= {"since": since.isoformat(), "until": until.isoformat(), "seconds": (until - since).total_seconds()}
        show(item)


class Printer:
    """Prints items, by a thread: a reader that is slow holds up neither messages nor heartbeats.

    Items that do not fit into the backlog are dropped; one of type "overflow" marks the place, or goes to `overflow`.
    """

    def __init__(
        self, file: TextIO, secrets: Secrets, *, as_lines: bool, overflow: Callable[[Item], object] | None = None
    ) -> None:
        self._file = file
        self._secrets = secrets
        self._line_of: Callable[[Item], str] = self._as_json if as_lines else Lines(file, secrets)
        self._overflow = overflow
        self._lines: list[str] = []
        self._size = self._dropped = 0
        self._busy = False
        self._changed = trio.lowlevel.ParkingLot()

    def __call__(self, item: Item) -> None:
        line = f"{self._line_of(item)}\n"
        if self._dropped or self._size + len(line) > BACKLOG:
            self._dropped += 1  # like all that comes until the rest is taken, so that the loss has one place
            return
        self._lines.append(line)
        self._size += len(line)
        self._changed.unpark_all()

    def _as_json(self, item: Item) -> str:
        told = dict(("hex", its.hex()) if isinstance(its, bytes) else (name, its) for name, its in item.items())
        return json.dumps(hidden(told, self._secrets), separators=(",", ":"))

    async def write(self) -> None:
        """Write what comes, until cancelled; raises `OSError`."""
        while True:
            while not self._lines:
                self._busy = False
                self._changed.unpark_all()
                await self._changed.park()
            self._busy = True
            lines, dropped = self._lines, self._dropped
            self._lines, self._size, self._dropped = [], 0, 0
            self._changed.unpark_all()
            overflow = {"type": "overflow", "dropped": dropped}
            if dropped and self._overflow is not None:
                self._overflow(overflow)
            elif dropped:
                lines.append(f"{self._line_of(overflow)}\n")
            await trio.to_thread.run_sync(_write, self._file, "".join(lines), abandon_on_cancel=True)

    async def has_room(self) -> None:
        """Wait until at least half of the backlog is free."""
        while self._size > BACKLOG // 2:
            await self._changed.park()

    async def written(self) -> None:
        while self._busy or self._lines:
            await self._changed.park()


def _write(file: TextIO, text: str) -> None:
    """Write to a pipe or file without Python's buffer, whose lock a thread that still waits at the exit would keep."""
    if file.isatty() or type(file) is not TextIOWrapper:
        file.write(text)
        file.flush()
        return
    data = memoryview(text.encode(file.encoding, PLAINER))
    while data:
        data = data[os.write(file.fileno(), data) :]


class Lines:
    """Makes the lines of items for people: sentences are filled at a terminal, payloads are not, as they are copied."""

    def __init__(self, file: TextIO, secrets: Secrets) -> None:
        self._output = Output(file, colour=wants_colour(file))
        self._secrets = secrets
        self._filled = file.isatty()
        self._reason: str | None = None  # why there is no connection, as told last

    def __call__(self, item: Item) -> str:
        """Return an item's line; the reason of attempts to connect is told when it changes."""
        at, kind = self._output.style(time.strftime("%H:%M:%S"), FAINT), item["type"]
        word = self._output.style(f"{kind:12}", STYLES.get(kind, 0))
        if kind in ("connected", "reconnecting"):
            told, self._reason = self._reason, item.get("reason")
            item = {name: value for name, value in item.items() if name != "reason" or value != told}
        text = "  ".join(words_of(item, self._secrets))
        if self._filled and not PAYLOADS & item.keys():
            width = max(shutil.get_terminal_size().columns - INDENT - 1, LEAST)
            text = f"\n{'':{INDENT}}".join(wrap(text, width, break_long_words=False, break_on_hyphens=False))
        return f"{at} {word} {text}".rstrip()


def words_of(item: Item, secrets: Secrets) -> Iterator[str]:
    """Give the words of an item, without its type, for people."""
    for name, value in item.items():
        if name in PAYLOADS:
            binary = f"0x{value[:32].hex()}{'…' * (len(value) > 32)}  " if isinstance(value, bytes) else ""
            yield f"{binary}{brief(value, secrets, LONGEST)}"
        elif name in ("seconds", "delay"):
            yield f"{'in ' * (name == 'delay')}{duration(value * 1e9)}"
        elif name in ("attempt", "code", "dropped"):
            yield f"{name} {value}"
        elif name not in ("type", "command", "connection_id", "error", "since", "until"):
            yield printable(secrets.hide(str(value)))
