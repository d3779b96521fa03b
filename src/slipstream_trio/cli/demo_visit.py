"""The visit of `slipstream demo --url` to any server: connect, join, push, ping, listen, leave."""

from typing import Any, Final

import trio
from attrs import frozen

from .. import Channel, PushError, PushTimeout, SlowConsumer, connect
from ..telemetry import Telemetry
from ..trace.text import duration
from .screen import Screen
from .status import CommandFailed

__all__ = ["Plan", "visit"]

PINGS: Final = 3
PUSH_TIMEOUT: Final = 5.0


@frozen(kw_only=True)
class Plan:
    """A visit: a topic to join, an event to push unless None, and the seconds to listen."""

    url: str
    topic: str
    params: dict[str, str]
    token: str | None
    join_payload: Any
    event: str | None
    payload: Any
    seconds: float


async def visit(screen: Screen, telemetry: Telemetry, plan: Plan) -> None:
    """Follow a plan, and show its history; raises `CommandFailed` if the server closes the channel."""
    # Before any output: this refuses an invalid URL.
    connecting = connect(
        plan.url, params=plan.params, auth_token=plan.token, telemetry=telemetry, reconnect=None, rejoin=None
    )
    screen.begin("demo", plan.url.partition("?")[0])
    screen.step("Connect", "async with connect(url) as socket:")
    async with connecting as socket:
        screen.step("Join the topic", f"async with socket.join({plan.topic!r}) as channel:")
        async with socket.join(plan.topic, plan.join_payload) as channel:
            if plan.event is not None:
                await _push(screen, channel, plan.event, plan.payload)
            screen.step("Ping", "seconds = await socket.ping()")
            round_trips = [duration(await socket.ping() * 1e9) for _ in range(PINGS)]
            screen.note(f"there and back in {', '.join(round_trips)}")
            screen.step(f"Listen for {plan.seconds:g} s", "async for message in channel:")
            with trio.move_on_after(plan.seconds):
                await _listen(screen, channel)
            screen.step("Leave the topic, at the end of its block")
        screen.step("Close the connection, at the end of its block")


async def _push(screen: Screen, channel: Channel, event: str, payload: Any) -> None:
    screen.step("Push", f"await channel.push({event!r}, …)")
    try:
        await channel.push(event, payload, timeout=PUSH_TIMEOUT)
    except (PushError, PushTimeout) as error:
        screen.note(f"{type(error).__name__}: {error}")


async def _listen(screen: Screen, channel: Channel) -> None:
    messages = aiter(channel)
    while True:
        try:
            await anext(messages)
        except SlowConsumer as error:
            screen.note(f"SlowConsumer: {error}")
        except StopAsyncIteration:
            raise CommandFailed(f"the server closed the channel {channel.topic!r}") from None
