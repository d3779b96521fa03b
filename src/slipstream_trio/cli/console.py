"""The console: requests, typed or as lines of JSON, and their answers."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import trio
from attrs import define, field, frozen

from .. import Channel, ChannelClosed, JoinError, PushError, SlipstreamError, Socket
from .command import did_you_mean
from .connecting import Run, parse_json
from .feed import Item, feed

__all__ = ["COMMANDS", "HELP", "TYPED", "Console", "Request", "RequestError", "from_json", "from_words", "opened"]

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "join": ("TOPIC [PAYLOAD]", "join a topic, which then is the one of the moment"),
    "leave": ("[TOPIC]", "leave it"),
    "push": ("[TOPIC] EVENT [PAYLOAD]", "push, and show the reply"),
    "send": ("[TOPIC] EVENT [PAYLOAD]", "push, without waiting for a reply"),
    "presence": ("[TOPIC]", "who is there"),
    "ping": ("", "send a heartbeat, and show the round trip"),
    "reconnect": ("", "connect anew"),
}
TYPED: Final = ("help", "quit")
"""Further commands at the prompt."""

HELP: Final = "\n".join(
    [
        *(f"  {f'{name} {form}':31} {text}" for name, (form, text) in COMMANDS.items()),
        f"  {'help, quit':31} this; leave all and close, as Ctrl-D does",
        'PAYLOAD is JSON, 0x and hex digits, or @FILE for its bytes: push new_msg {"body": "hi"}',
        "Without TOPIC, it is the one that was joined last.",
    ]
)


class RequestError(Exception):
    """A request cannot be read; the text says why."""


@frozen(kw_only=True)
class Request:
    """A command and its arguments; `line` is the number of its line."""

    command: str
    topic: str | None = None
    event: str | None = None
    payload: Any = None
    timeout: float | None = None
    line: int | None = None


def from_json(text: bytes, line: int) -> Request:
    """Read a request from a line of JSON; raises `RequestError`."""
    try:
        given = parse_json(text)
        if isinstance(given, dict) and isinstance(hexadecimal := given.pop("hex", None), str):
            given["payload"] = bytes.fromhex(hexadecimal)
        request = Request(**given, line=line)
    except TypeError:
        raise RequestError('write it {"command": …}, with topic, event, payload or hex, and timeout') from None
    except ValueError as error:
        raise RequestError(str(error)) from None
    return _checked(request)


def from_words(text: str, topics: Mapping[str, object], current: str | None) -> Request:
    """Read a typed request; raises `RequestError`.

    Parameters:
        text: it, not empty.
        topics: those that are joined.
        current: the topic where none is typed.
    """
    command, _, rest = text.strip().partition(" ")
    words = rest.strip().split(None, 1)
    takes = COMMANDS.get(command, ("", ""))[0]
    topic = current if takes.startswith("[") else None
    if words and "TOPIC" in takes and (topic is None or words[0] in topics or "EVENT" not in takes):
        topic, words = words[0], words[1].split(None, 1) if words[1:] else []
    event = words.pop(0) if words and "EVENT" in takes else None
    if words and "PAYLOAD" not in takes:
        raise RequestError(f"too much: {command} {takes}".rstrip())
    payload = _payload(" ".join(words)) if words else None
    return _checked(Request(command=command, topic=topic, event=event, payload=payload))


def _payload(text: str) -> Any:
    try:
        if text.startswith("@"):
            return Path(text[1:]).expanduser().read_bytes()
        return bytes.fromhex(text[2:]) if text.startswith("0x") else parse_json(text)
    except ValueError as error:
        raise RequestError(f"the payload: {error}") from None
    except OSError as error:
        raise RequestError(f"{text[1:]}: {error.strerror}") from None


def _checked(request: Request) -> Request:
    if request.command not in COMMANDS:
        near = did_you_mean(request.command, [*COMMANDS, *TYPED])
        raise RequestError(f"unknown command: {request.command!r}{near}")
    takes = COMMANDS[request.command][0]
    for name in ("topic", "event"):
        if name.upper() in takes and not isinstance(getattr(request, name), str):
            raise RequestError(f"the {name} is missing: {request.command} {takes}")
    return request


@define
class Console:
    """Carries out requests on a socket; answers are shown when they are there.

    Attributes:
        channels: those that are joined, or were and are not left, by topic.
        current: the topic joined last.
        seen: the events seen on each topic.
        failed: whether a request failed.
        pending: how many requests wait for their answers.
        ping: the latest round trip, in seconds.
    """

    socket: Socket
    show: Callable[[Item], object]
    explain: Callable[[Exception], str]
    channels: dict[str, Channel] = field(factory=dict)
    current: str | None = None
    seen: dict[str, set[str]] = field(factory=dict)
    failed: bool = False
    pending: int = 0
    ping: float | None = None
    _answered: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def do(self, request: Request, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out a request; whoever starts it with `nursery.start` keeps the order of pushes."""
        task_status.started()
        self.pending += 1
        told = {"command": request.command, "topic": request.topic, "event": request.event}
        try:
            answer = await getattr(self, f"_{request.command}")(request)
        except (SlipstreamError, ValueError) as error:
            self.error(f"{self.explain(error)}", request.line, **told)
        else:
            self._answer(answer, request.line)
        finally:
            self.pending -= 1
            self._answered.unpark_all()

    async def idle(self) -> None:
        """Wait until all answers are there."""
        while self.pending:
            await self._answered.park()

    def error(self, text: str, line: int | None = None, **told: Any) -> None:
        """Show that a request failed."""
        self._answer({"type": "error", **told, "error": text}, line)

    def _answer(self, answer: Item, line: int | None) -> None:
        self.failed |= answer["type"] in ("error", "refused") or answer.get("status", "ok") != "ok"
        numbered = answer if line is None else {"type": answer["type"], "line": line, **answer}
        self.show({name: value for name, value in numbered.items() if value is not None or name == "response"})

    async def leave_all(self) -> None:
        """Leave all topics, at the same time."""
        async with trio.open_nursery() as nursery:
            for channel in self.channels.values():
                nursery.start_soon(channel.leave)

    # A command each

    def _channel(self, request: Request) -> Channel:
        topic = cast("str", request.topic)
        if topic not in self.channels:
            raise ChannelClosed(topic, "not_joined")
        return self.channels[topic]

    async def _join(self, request: Request) -> Item:
        topic = cast("str", request.topic)
        channel = self.channels.get(topic)
        if channel is None or channel.status == "closed":
            channel = self.channels[topic] = self.socket.channel(topic, request.payload)
        try:
            response = await channel.join(**_timeout(request))
        except JoinError as error:
            return {"type": "refused", "topic": topic, "response": error.response}
        finally:
            if channel.status == "closed":
                self.channels.pop(topic, None)
        self.current = topic
        return {"type": "joined", "topic": topic, "response": response}

    async def _leave(self, request: Request) -> Item:
        await self._channel(request).leave()
        self.channels.pop(cast("str", request.topic), None)
        self.current = next(reversed(self.channels), None) if self.current == request.topic else self.current
        return {"type": "left", "topic": request.topic}

    async def _push(self, request: Request) -> Item:
        channel, event = self._channel(request), cast("str", request.event)
        try:
            response, status = await channel.push(event, request.payload, **_timeout(request)), "ok"
        except PushError as error:
            response, status = error.response, error.status
        return {"type": "reply", "topic": request.topic, "event": event, "status": status, "response": response}

    async def _send(self, request: Request) -> Item:
        await self._channel(request).send(cast("str", request.event), request.payload)
        return {"type": "sent", "topic": request.topic, "event": request.event}

    async def _presence(self, request: Request) -> Item:
        async with self._channel(request).presence() as presence:
            return {"type": "presence", "topic": request.topic, "present": dict(presence)}

    async def _ping(self, _: Request) -> Item:
        self.ping = await self.socket.ping()
        return {"type": "pong", "seconds": round(self.ping, 6)}

    async def _reconnect(self, _: Request) -> Item:
        self.socket.reconnect()
        return {"type": "reconnect"}


def _timeout(request: Request) -> dict[str, float]:
    return {} if request.timeout is None else {"timeout": request.timeout}


@asynccontextmanager
async def opened(run: Run, show: Callable[[Item], object]) -> AsyncIterator[Console]:
    """Connect for the time of a block, and show what comes; in the end topics are left, so that nothing is missed."""
    seen: dict[str, set[str]] = {}

    def came(item: Item) -> None:
        if item["type"] == "message":
            seen.setdefault(item["topic"], set()).add(item["event"])
        show(item)

    feed(run.telemetry, came)
    async with run.connect(buffer=1) as socket:
        console = Console(socket, show, run.explain, seen=seen)
        yield console
        await console.leave_all()
