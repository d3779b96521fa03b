"""What the tests of the runtime stand on: a scripted peer, and the library's own server in memory."""

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from tests.protocol import wire

from slipstream_trio import Message, Socket, connect
from slipstream_trio.protocol import Frame
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.server import Channel, Mount, Outcome, PhoenixServer, Reply, Stop
from slipstream_trio.transport import OpenRequest, Transport, TransportEnded

URL = "ws://localhost/socket/websocket"

PHOENIX = frozenset({"phx_join", "phx_leave", "heartbeat", "echo"})
"""What a scripted peer answers by itself."""


async def _at_once(_: OpenRequest) -> None:
    await trio.lowlevel.checkpoint()


def _nothing() -> None:
    pass


class Peer(Transport):
    """A scripted transport: a test decides frame by frame what comes in, and sees what is sent.

    The events in `answers` are answered as Phoenix does; "echo" replies with the payload.

    Attributes:
        handing_over: called when frames are about to be received, without a checkpoint in between.
        bug: raised by `receive`, which no transport does.
    """

    def __init__(self, request: OpenRequest, wake: Callable[[], None], answers: Iterable[str] = PHOENIX) -> None:
        self.request = request
        self.wake = wake
        self.answers = set(answers)
        self.answers_close = True
        self.response_headers = (("server", "scripted"),)
        self.sent: list[Message] = []
        self.batches: list[tuple[Frame, ...]] = []
        self.join_refs: dict[str, str | None] = {}
        self.closed_with: tuple[int, str] | None = None
        self.left = False
        self.handing_over: Callable[[], object] = _nothing
        self.bug: Exception | None = None
        self._reads = True
        self._incoming: deque[Frame] = deque()
        self._end: TransportEnded | None = None
        self._changed = trio.lowlevel.ParkingLot()

    # What the client calls

    async def receive(self) -> Sequence[Frame]:
        await trio.lowlevel.checkpoint()
        while not self._incoming:
            if self.bug is not None:
                raise self.bug
            if self._end is not None:
                raise self._end
            await self._changed.park()
        frames = tuple(self._incoming)
        self._incoming.clear()
        self.handing_over()
        return frames

    async def send(self, frames: Sequence[Frame]) -> None:
        await trio.lowlevel.checkpoint()
        while not self._reads:
            await self._changed.park()
        if self._end is not None:
            raise self._end
        self.batches.append(tuple(frames))
        for frame in frames:
            message = wire.parse(frame)
            self.sent.append(message)
            self._answer(message)
        self._changed.unpark_all()

    async def close(self, code: int, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.closed_with = (code, reason)
        if self.answers_close:
            self.end(code)
        while self._end is None:
            await self._changed.park()

    # What the test does

    def feed(self, *frames: Frame) -> None:
        """Let these frames come in, together."""
        self._incoming.extend(frames)
        self._changed.unpark_all()

    def message(self, topic: str, event: str, payload: Any = None, *, join_ref: str | None = None) -> None:
        """Let a message come in that answers nothing."""
        self.feed(wire.text(join_ref, None, topic, event, payload))

    def reply(self, to: Message, response: Any = None, status: str = "ok") -> None:
        """Let the reply to a message come in."""
        payload = {"status": status, "response": {} if response is None else response}
        self.feed(wire.text(to.join_ref, to.ref, to.topic, "phx_reply", payload))

    def end_channel(self, topic: str, event: str = "phx_close") -> None:
        """Let the current join of a topic end, by phx_close or phx_error."""
        ref = self.join_refs[topic]
        self.feed(wire.text(ref, ref, topic, event, {}))

    def end(self, code: int = 1006, message: str = "") -> None:
        """End the transport, after what was fed."""
        self._end = self._end or TransportEnded(code, message)
        self._reads = True
        self._changed.unpark_all()

    def break_down(self, bug: Exception) -> None:
        """Let `receive` raise what no transport raises, after what was fed."""
        self.bug = bug
        self._changed.unpark_all()

    def pause(self) -> None:
        """Read nothing: writes wait."""
        self._reads = False

    def resume(self) -> None:
        """Read again."""
        self._reads = True
        self._changed.unpark_all()

    def count(self, event: str) -> int:
        """Return how many messages of an event were sent."""
        return Counter(message.event for message in self.sent)[event]

    async def wait_sent(self, event: str, number: int = 1) -> Message:
        """Wait for the nth message of an event that is sent, and return it."""
        while self.count(event) < number:
            await self._changed.park()
        return [message for message in self.sent if message.event == event][number - 1]

    def _answer(self, message: Message) -> None:
        if message.event == "phx_join":
            self.join_refs[message.topic] = message.ref
        if message.event not in self.answers:
            return
        self.reply(message, message.payload if message.event == "echo" else None)
        if message.event == "phx_leave" and self.join_refs.get(message.topic) == message.join_ref:
            self.end_channel(message.topic)


class Scripted:
    """A connector whose transports are `Peer`s.

    Parameters:
        answers: what they answer by themselves.
        opening: awaited when one is opened; may raise.
    """

    name = "scripted"

    def __init__(
        self, answers: Iterable[str] = PHOENIX, opening: Callable[[OpenRequest], Awaitable[object]] = _at_once
    ) -> None:
        self.answers = frozenset(answers)
        self.opening = opening
        self.requests: list[OpenRequest] = []
        self.peers: list[Peer] = []

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    @asynccontextmanager
    async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
        self.requests.append(request)
        await self.opening(request)
        peer = Peer(request, wake, self.answers)
        self.peers.append(peer)
        try:
            yield peer
        finally:
            peer.left = True


ONE_CONNECTION: dict[str, Any] = {"reconnect": None, "rejoin": None}
"""Options of a socket whose connection, and whose channels, are not replaced when they end."""


@asynccontextmanager
async def scripted(*, answers: Iterable[str] = PHOENIX, **options: Any) -> AsyncIterator[tuple[Socket, Peer]]:
    """Connect to a scripted peer."""
    connector = Scripted(answers)
    async with connect(URL, transport=connector, **{**ONE_CONNECTION, **options}) as socket:
        yield socket, connector.peer


class Lab(Channel):
    """Does what an event says."""

    async def join(self, payload: Any) -> Any:
        return {"joined": payload}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "echo":
                return Reply(payload)
            case "fail":
                return Reply(payload, status="error")
            case "burst":
                for number in range(payload["count"]):
                    await self.push("tick", {"number": number})
                return Reply()
            case "stop":
                return Stop("normal")
            case "crash":
                raise RuntimeError("told to crash")
        return None


@asynccontextmanager
async def running(**mount: Any) -> AsyncIterator[PhoenixServer]:
    """Run the library's server in memory, with `Lab` on "lab:*"."""
    channels = {"lab:*": Lab, **mount.pop("channels", {})}
    async with PhoenixServer({"/socket": Mount(channels=channels, **mount)}).run() as server:
        yield server


class Recorder:
    """A bus, and every record that was emitted on it."""

    def __init__(self, bus: Telemetry | None = None) -> None:
        self.bus = bus or Telemetry()
        self.records: list[Record] = []
        self.bus.attach("recorder", (), self.records.append, prefix=True)

    def named(self, *name: str) -> list[Any]:
        """Return the records whose names end like this."""
        return [record for record in self.records if record.name[-len(name) :] == name]


def living_tasks() -> int:
    """Return how many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living
