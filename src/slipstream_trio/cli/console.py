"""The console: requests, typed or as lines of JSON, and their answers."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
from attrs import define, field

from .. import Channel, ChannelClosed, JoinError, PushError, SlipstreamError, Socket
from ..errors.base import did_you_mean
from .connecting import InvalidJSON, Run, parse_json
from .feed import Item, feed

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "join": ("TOPIC [PAYLOAD]", "join a topic: other commands need not name it"),
    "leave": ("[TOPIC]", "leave it"),
    "push": ("[TOPIC] EVENT [PAYLOAD]", "push, and show the reply"),
    "send": ("[TOPIC] EVENT [PAYLOAD]", "push, without waiting for a reply"),
    "presence": ("[TOPIC]", "show who is there"),
    "ping": ("", "send a heartbeat, and show the round trip"),
}

ALONE: Final = ("help", "quit")  # commands of the prompt, without requests
FIELDS: Final = ("command", "topic", "event", "payload", "hex")

HELP: Final = "\n".join(
    [
        *(f"  {f'{name} {form}':30} {text}" for name, (form, text) in COMMANDS.items()),
        f"  {', '.join(ALONE):30} this; leave and close, as Ctrl-D does",
        'PAYLOAD: JSON, 0x and hex digits, or @FILE (bytes): push new_msg {"body": "hi"}',
    ]
)


class RequestError(Exception):
    """A request cannot be read; the text says why."""


def from_json(text: bytes) -> Item:
    """Read a request from a line of JSON; raises `RequestError`."""
    form = 'write it {"command": …}, with topic, event, and payload or hex'
    try:
        request = parse_json(text)
    except InvalidJSON as error:
        raise RequestError(f"{error}; {form}") from None
    if not isinstance(request, dict) or "command" not in request:
        raise RequestError(form)
    for name in request:
        if name not in FIELDS:
            raise RequestError(f"unknown field: {name!r}{did_you_mean(name, FIELDS)}; {form}")
    _check_command(request["command"], COMMANDS)
    needed = [name for name in ("topic", "event") if name.upper() in COMMANDS[request["command"]][0]]
    for name in needed:
        if not isinstance(request.get(name), str):
            example = {"command": request["command"], **dict.fromkeys(needed, "…")}
            raise RequestError(f'"{name}" has to be a string: {json.dumps(example, ensure_ascii=False)}')
    if "hex" in request:
        request["payload"] = _from_hex(request.pop("hex"), 'in "hex"')
    return request


def from_words(text: str, topics: Mapping[str, object], current: str | None) -> Item:
    """Read a typed request, for the `current` topic where none is typed; raises `RequestError`."""
    command, _, rest = text.strip().partition(" ")
    takes, first = COMMANDS.get(command, ("", ""))[0], rest.split(None, 1)[:1]
    if takes.startswith("[") and current is not None and ("EVENT" in takes or not first):
        rest = rest if first and first[0] in topics else f"{current} {rest}"
    names = [name for name in ("topic", "event", "payload") if name.upper() in takes]
    request: Item = {"command": command, **dict(zip(names, rest.strip().split(None, len(names) - 1), strict=False))}
    _check_command(command, (*COMMANDS, *ALONE))
    for name in ("topic", "event"):
        if name.upper() in takes and name not in request:
            raise RequestError(f"the {name} is missing: {command} {takes}")
    if "payload" in request:
        request["payload"] = _payload(request["payload"])
    return request


def _payload(text: str) -> Any:
    try:
        if text.startswith("@"):
            return Path(text[1:]).expanduser().read_bytes()
        return _from_hex(text[2:], "after 0x") if text.startswith("0x") else parse_json(text)
    except (OSError, ValueError, RequestError) as error:
        why = f"{text[1:]}: {error.strerror}" if isinstance(error, OSError) else error
        raise RequestError(f"the payload: {why}") from None


def _from_hex(digits: Any, where: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except (TypeError, ValueError):
        raise RequestError(f"invalid hex digits {where}") from None


def _check_command(command: Any, known: Iterable[str]) -> None:
    if str(command) not in COMMANDS:
        near = did_you_mean(str(command), known) or f"; the commands are {', '.join(known)}"
        raise RequestError(f"unknown command: {command!r}{near}")


@define
class Console:
    """Carries out requests on a socket; answers are shown when they are there."""

    socket: Socket
    show: Callable[[Item], object]
    explain: Callable[[Exception], str]
    seen: dict[str, set[str]]  # events, by their topics
    channels: dict[str, Channel] = field(factory=dict)  # those that are joined, or being joined, by topic
    current: str | None = None  # the topic joined last
    failed: bool = False
    pending: int = 0  # requests that wait for their answers
    ping: float | None = None  # the latest round trip, in seconds
    _answered: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def do(
        self, request: Item, line: int | None = None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> Item:
        """Carry out the request of a line, and return the answer; `nursery.start` keeps the order of pushes."""
        task_status.started()
        self.pending += 1
        try:
            answer = await self._carry_out(**request)
        except (SlipstreamError, ValueError) as error:
            answer = {"type": "error", "error": type(error).__name__, "text": self.explain(error)}
        self.pending -= 1
        self._answered.unpark_all()
        told: Item = {name: request[name] for name in ("topic", "event") if name in request}
        return self._show({"type": answer["type"], **told, **answer}, line)

    def misread(self, error: RequestError, line: int | None = None) -> None:
        self._show({"type": "error", "error": "RequestError", "text": str(error)}, line)

    def _show(self, answer: Item, line: int | None) -> Item:
        self.failed |= answer["type"] in ("error", "refused") or answer.get("status", "ok") != "ok"
        self.show(answer if line is None else {"type": answer["type"], "line": line, **answer})
        return answer

    async def idle(self) -> None:
        while self.pending:
            await self._answered.park()

    async def _carry_out(self, command: str, topic: str = "", event: str = "", payload: Any = None) -> Item:
        if command == "ping":
            self.ping = await self.socket.ping()
            return {"type": "pong", "seconds": round(self.ping, 6)}
        if command == "join":
            return await self._join(topic, payload)
        if (channel := self.channels.get(topic)) is None:
            raise ChannelClosed(topic, "not_joined")
        if command == "push":
            try:
                response, status = await channel.push(event, payload), "ok"
            except PushError as error:
                response, status = error.response, error.status
            return {"type": "reply", "status": status, "response": response}
        if command == "send":
            await channel.send(event, payload)
            return {"type": "sent"}
        if command == "presence":
            async with channel.presence() as presence:
                return {"type": "presence", "present": dict(presence)}
        await channel.leave()
        self.channels.pop(topic, None)
        self.current = next(reversed(self.channels), None) if self.current == topic else self.current
        return {"type": "left"}

    async def _join(self, topic: str, payload: Any) -> Item:
        channel = self.channels.get(topic)
        if channel is None or channel.status == "closed":
            channel = self.channels[topic] = self.socket.channel(topic, payload)
        try:
            response = await channel.join()
        except JoinError as error:
            return {"type": "refused", "response": error.response}
        finally:
            if channel.status == "closed":
                self.channels.pop(topic, None)
        self.current = topic
        return {"type": "joined", "response": response}


@asynccontextmanager
async def opened(run: Run, show: Callable[[Item], object], **options: Any) -> AsyncIterator[Console]:
    """Connect for the time of a block, and show what comes; in the end topics are left, so that nothing is missed."""
    seen: dict[str, set[str]] = {}

    def came(item: Item) -> None:
        if item["type"] == "message":
            seen.setdefault(item["topic"], set()).add(item["event"])
        show(item)

    feed(run.telemetry, came)
    async with run.connect(**options) as socket:
        console = Console(socket, show, run.explain, seen)
        yield console
        async with trio.open_nursery() as nursery:
            for channel in console.channels.values():
                nursery.start_soon(channel.leave)
