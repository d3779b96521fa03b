"""What `slipstream demo --url` does with any server: connect, join, push, ping, listen, leave."""

from typing import Any, Final

import trio
from attrs import frozen

from .. import Channel, PushError, PushTimeout, SlowConsumer, connect
from ..telemetry import Telemetry
from ..trace.text import duration
from .screen import Screen
from .status import CommandFailed

__all__ = ["Plan", "Visit"]

PINGS: Final = 3
PUSH_TIMEOUT: Final = 5.0


@frozen(kw_only=True)
class Plan:
    """What to do where.

    Attributes:
        url: the server's.
        topic: joined.
        params: sent when connecting.
        token: sent as a subprotocol.
        join_payload: sent with the join.
        event: pushed, if not None.
        payload: pushed with it.
        seconds: how long to listen.
    """

    url: str
    topic: str
    params: dict[str, str]
    token: str | None
    join_payload: Any
    event: str | None
    payload: Any
    seconds: float


class Visit:
    """A client that goes where the plan says, and shows on the screen what it does."""

    def __init__(self, screen: Screen, telemetry: Telemetry, plan: Plan) -> None:
        self._screen = screen
        self._telemetry = telemetry
        self._plan = plan

    async def run(self) -> None:
        """Go; raises `CommandFailed` if the server closes the channel."""
        plan, screen = self._plan, self._screen
        # Before anything is shown: this is where a URL that cannot be used is refused.
        connecting = connect(
            plan.url,
            params=plan.params,
            auth_token=plan.token,
            telemetry=self._telemetry,
            reconnect=None,  # a visit says how it ended
            rejoin=None,
        )
        screen.begin("demo", plan.url.partition("?")[0])
        screen.step("Connect", "async with connect(url) as socket:")
        async with connecting as socket:
            screen.step("Join the topic", f"async with socket.join({plan.topic!r}) as channel:")
            async with socket.join(plan.topic, plan.join_payload) as channel:
                if plan.event is not None:
                    await self._push(channel, plan.event)
                screen.step("Ping", "seconds = await socket.ping()")
                round_trips = [duration(await socket.ping() * 1e9) for _ in range(PINGS)]
                screen.note(f"there and back in {', '.join(round_trips)}")
                await self._listen(channel)
                screen.step("Leave the topic, at the end of its block")
            screen.step("Close the connection, at the end of its block")

    async def _push(self, channel: Channel, event: str) -> None:
        self._screen.step("Push", f"await channel.push({event!r}, …)")
        try:
            await channel.push(event, self._plan.payload, timeout=PUSH_TIMEOUT)
        except (PushError, PushTimeout) as error:
            self._screen.note(f"{type(error).__name__}: {error}")

    async def _listen(self, channel: Channel) -> None:
        self._screen.step(f"Listen for {self._plan.seconds:g} s", "async for message in channel:")
        messages = aiter(channel)
        with trio.move_on_after(self._plan.seconds):
            while True:
                try:
                    await anext(messages)
                except SlowConsumer as error:
                    self._screen.note(f"SlowConsumer: {error}")
                except StopAsyncIteration:
                    raise CommandFailed(f"the server closed the channel {channel.topic!r}") from None
