"""The clients of a soak: they join, push, receive numbered messages, leave, and come again."""

import math
import zlib
from collections import deque
from random import Random
from typing import Any

import trio
from tests.soak.figures import Figures

from slipstream_trio import (
    Backoff,
    Channel,
    Gap,
    InternalError,
    Message,
    SlipstreamError,
    SlowConsumer,
    Socket,
    connect,
)

__all__ = ["Guest", "Listener", "numbered"]


def numbered(number: int) -> dict[str, Any]:
    """Return the payload of a message with a number, and what proves it."""
    text = f"message {number} " * (1 + number % 5)
    return {"n": number, "text": text, "sum": zlib.crc32(f"{number}{text}".encode())}


class Listener:
    """Reads a channel, and finds out what is missing.

    Parameters:
        figures: where it is written down.
        strict: whether its network damages no bytes; where it does, messages vanish without anyone's fault.
        pause: for how long it sleeps after every message, in seconds.
    """

    def __init__(self, figures: Figures, *, strict: bool, pause: float) -> None:
        self._figures = figures
        self._strict = strict
        self._pause = pause
        self._announced = True
        self._seen: deque[str] = deque(maxlen=12)
        self.expected: int | None = None
        self.moved = trio.Event()

    async def listen(self, channel: Channel) -> None:
        """Read to the end of the channel's stream."""
        stream = channel.stream()
        while True:
            try:
                item = await anext(stream)
            except StopAsyncIteration:
                return
            except SlowConsumer as error:
                self._note(error)
                self._figures.counts["slow consumers told"] += 1
                self._announced = True
                continue
            except SlipstreamError:
                return
            if isinstance(item, Gap):
                self._note(item)
                self._announced = True
            else:
                self._received(item)
                await trio.sleep(self._pause)
            self.moved.set()
            self.moved = trio.Event()

    def start_at(self, number: int) -> None:
        """The channel is joined, and the next message is to have this number."""
        self._note(f"joined before {number}")
        if self.expected is None:
            self.expected = number
            self._announced = False

    def missing(self, next_number: int) -> int:
        """Return how many messages are missing before one that was not sent yet, and of which nothing was said."""
        if self._announced or self.expected is None or not self._strict:
            return 0
        return max(0, next_number - self.expected)

    def _note(self, what: object) -> None:
        self._seen.append(f"{trio.current_time():.1f} {what}")

    def _received(self, message: Message) -> None:
        counts = self._figures.counts
        self._note(message.payload.get("n") if isinstance(message.payload, dict) else message)
        number = message.payload.get("n") if isinstance(message.payload, dict) else None
        if message.event != "number" or not isinstance(number, int) or message.payload != numbered(number):
            counts["received damaged"] += 1
            if self._strict:
                self._figures.fail(f"a message is damaged: {message}")
            return
        counts["received"] += 1
        if self.expected is not None and number > self.expected:
            what = "lost and announced" if self._announced else "lost in silence"
            counts[what if self._strict else "lost by damage"] += number - self.expected
            if what == "lost in silence" and self._strict:
                missing = f"{message.topic}: {self.expected} to {number - 1} are missing, and no gap was told"
                self._figures.fail(f"{missing}: {list(self._seen)}")
        elif self.expected is not None and number < self.expected:
            counts["out of order" if self._strict else "lost by damage"] += 1
        self.expected = number + 1
        self._announced = False


class Guest:
    """One client, which lives until it is over.

    Parameters:
        number: which.
        figures: where it is written down.
        pace: how many seconds one second of its life takes.
        options: for `connect`.
        strict: whether its network damages no bytes.
    """

    def __init__(
        self, number: int, url: str, figures: Figures, *, pace: float, options: dict[str, Any], strict: bool
    ) -> None:
        self._number = number
        self._url = url
        self._figures = figures
        self._pace = pace
        self._strict = strict
        self._random = Random(f"guest {number}")
        self._slow = number % 10 == 3
        self._over = trio.Event()
        self._options: dict[str, Any] = {
            "reconnect": Backoff((0.1 * pace, 0.5 * pace, 2 * pace), reset_after=5 * pace),
            "rejoin": Backoff((0.1 * pace, 1 * pace), reset_after=5 * pace),
            "heartbeat_interval": 4 * pace,
            "connect_timeout": 5 * pace,
            "join_timeout": 5 * pace,
            "leave_timeout": 2 * pace,
            "close_timeout": 2 * pace,
            "retry_first": True,
            "buffer": 4 if self._slow else 256,
            "overflow": ("raise", "drop_oldest", "drop_newest")[number % 3] if self._slow else "raise",
            **options,
        }

    def end(self) -> None:
        """Let it leave when it has done what it is at."""
        self._over.set()

    async def live(self) -> None:
        """Connect, visit, leave, again and again."""
        while not self._over.is_set():
            try:
                async with connect(self._url, **self._options) as socket:
                    with trio.move_on_after(self._random.uniform(30, 120) * self._pace):
                        await self._visit_all(socket)
                    self._figures.counts["sockets left"] += 1
            except SlipstreamError as error:
                self._told(error)
                await self._idle(1)

    async def _visit_all(self, socket: Socket) -> None:
        async with trio.open_nursery() as nursery:
            for which in range(2):
                nursery.start_soon(self._visit, socket, f"hall:{(self._number + which * 7) % 50}")

    async def _visit(self, socket: Socket, topic: str) -> None:
        while not self._over.is_set():
            pause = 3 * self._pace if self._slow else 0
            listener = Listener(self._figures, strict=self._strict, pause=pause)
            channel = socket.channel(topic)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.listen, channel)
                try:
                    response = await channel.join()
                    if self._strict or isinstance(response, dict):
                        listener.start_at(response["next"])
                    await self._talk(channel)
                    await self._take_stock(channel, listener)
                    await channel.leave()
                    self._figures.counts["left"] += 1
                except SlipstreamError as error:
                    self._told(error)
                    await channel.leave()
                except (KeyError, TypeError):  # a name in the reply was corrupted, or that of all of it
                    assert not self._strict
                nursery.cancel_scope.cancel()
            await self._idle(1)

    async def _talk(self, channel: Channel) -> None:
        for count in range(self._random.randrange(3, 20)):
            if self._over.is_set():
                return
            await self._idle(self._random.uniform(0.5, 4))
            payload = {"guest": self._number, "count": count, "text": "x" * self._random.choice([1, 100, 3000])}
            event = "crash" if self._random.random() < 0.01 else "echo"
            try:
                reply = await channel.push(event, payload, timeout=5 * self._pace)
            except SlipstreamError as error:
                self._told(error)
                continue
            if reply != payload and self._strict:
                self._figures.fail(f"a reply is another's: {reply}, not {payload}")

    async def _take_stock(self, channel: Channel, listener: Listener) -> None:
        """Find out whether all has come that was sent before now."""
        reply = await channel.push("mark", timeout=5 * self._pace)
        patience = math.inf if self._slow else 20 * self._pace
        with trio.move_on_after(min(patience, 200 * self._pace)):
            while listener.missing(reply["next"]):
                await listener.moved.wait()
        missing = listener.missing(reply["next"])
        self._figures.counts["stock taken"] += 1
        if missing:
            self._figures.counts["lost in silence"] += missing
            self._figures.fail(f"{channel.topic}: the last {missing} never came, and no gap was told")

    async def _idle(self, seconds: float) -> None:
        with trio.move_on_after(seconds * self._pace):
            await self._over.wait()

    def _told(self, error: SlipstreamError) -> None:
        self._figures.counts[f"told {type(error).__name__}"] += 1
        if isinstance(error, InternalError):
            self._figures.fail(f"{error!r} from {error.__cause__!r}")
