"""A channel of Supabase Realtime, on top of a Phoenix channel, whose stream it reads: buffers and gaps are that one's.

A task beside the block, the keeper, follows system messages and gaps by a subscription:

```
joined ─ gap: joined again ─> ids are compared, the token and what is tracked are told again
   │ ^──────────── joined again ─────────────┐
   └ system error, phx_close ─> rejoin_closed? ─ refused, failed ─> after the next delay
                                     └ no, or given up ─> over: iteration raises `ChannelClosed` with its reason
```

Sources: supabase/realtime, lib/realtime_web/channels/realtime_channel.ex (`shutdown_response`) and
realtime_channel/presence_handler.ex; supabase/supabase-js, packages/core/realtime-js/src/RealtimeChannel.ts.
"""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, Self, final

import trio

from ...client import ChannelPresence, Gap, Socket, Stream
from ...errors import AlreadyJoined, ChannelClosed, ConfigurationError, ProtocolError, SlipstreamError, SlowConsumer
from ...protocol import Backoff
from .serializer import BROADCAST
from .tokens import Tokens
from .values import ChannelConfig, RealtimeEvent, Routes, SystemMessage, event_of

__all__ = ["RealtimeChannel", "beside"]

logger: Final = logging.getLogger("slipstream_trio.integrations.supabase")


@final
class RealtimeChannel:
    """A joined channel: what `Realtime.channel` gives. Iterate over it for its events, and the gaps between them.

    Attributes:
        channel: the Phoenix channel below.
    """

    def __init__(
        self, socket: Socket, topic: str, config: ChannelConfig, tokens: Tokens, rejoin_closed: Backoff | None
    ) -> None:
        self.channel = socket.channel(f"realtime:{topic}", self._payload)
        self._config = config
        self._tokens = tokens
        self._token: str | None = None  # the server has this one
        self._unconfirmed = False  # a join with it was asked for, and is not known to have succeeded
        self._tracked: Mapping[str, Any] | None = None
        self._stream = self.channel.stream()
        self._answer: Any = None
        self._routes: Routes = {}
        self._rejoin_closed = rejoin_closed
        self._step, self._joined_at = 0, 0.0
        self._reason: str | None = None  # the server's, for shutting the channel down
        self._over = False
        self._decided = trio.Event()

    async def send(self, event: str, payload: Any = None, *, ack: bool | None = None) -> None:
        """Broadcast to the channel.

        Parameters:
            event: the event's name.
            payload: a JSON value, or `bytes`, which the serializer 1.0.0 cannot send; None is {}.
            ack: whether to wait until the server has acknowledged it; by default as `Broadcast.ack` says.

        Raises:
            ConfigurationError: the channel was joined without `Broadcast.ack`, so no acknowledgement would come.
            PushError: the server did not take it, such as for its size.
            PushTimeout: no acknowledgement came; on a private channel that may mean that writing is not allowed.
            SlipstreamError: as with `Channel.push`.
        """
        if ack and not self._config.broadcast.ack:
            raise ConfigurationError("ack", "the server acknowledges where the channel has Broadcast(ack=True)")
        message = {"type": BROADCAST, "event": event, "payload": {} if payload is None else payload}
        if self._config.broadcast.ack and ack is not False:
            await self.channel.push(BROADCAST, message)
        else:
            await self.channel.send(BROADCAST, message)

    async def track(self, payload: Mapping[str, Any]) -> None:
        """Show others that one is there; told again whenever the topic is joined anew. Raises as `Channel.push`."""
        self._tracked = {"type": "presence", "event": "track", "payload": dict(payload)}
        await self.channel.push("presence", self._tracked)

    async def untrack(self) -> None:
        """Show others that one is not there any more. Raises as `Channel.push`."""
        self._tracked = None
        await self.channel.push("presence", {"type": "presence", "event": "untrack"})

    def presence(self, *, buffer: int = 1024) -> AbstractAsyncContextManager[ChannelPresence]:
        """Follow who is there, for the time of an `async with` block; see `Channel.presence`."""
        return self.channel.presence(buffer=buffer)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RealtimeEvent:
        """Return the next event or gap.

        Raises:
            SlowConsumer: messages were dropped here, as the buffer was full; iteration may go on.
            ChannelClosed: the server has shut the channel down, for the reason that it told; or it crashed.
            ProtocolError: a join was answered with other `postgres_changes` than those asked for.
            SlipstreamError: as with `Channel`.
        """
        while True:
            try:
                item = await anext(self._stream)
            except (StopAsyncIteration, SlipstreamError) as end:
                if self._over or isinstance(end, SlowConsumer):
                    self._known_routes()
                    if self._reason is None or isinstance(end, SlowConsumer):
                        raise
                    raise ChannelClosed(self.channel.topic, self._reason) from None
                await self._decided.wait()
                continue
            event = item if isinstance(item, Gap) else event_of(item, self._known_routes())
            if event is not None:
                return event

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Self]:
        """Join for the time of a block, and leave it then; `Realtime.channel` calls this."""
        # Subscribed before the join, so that nothing of it is missed.
        async with self.channel.subscribe("system", buffer=16, overflow="drop_oldest") as system:
            try:
                await self.channel.join()
                await self._joined()
                async with beside(self._keep, system.stream()):
                    yield self
                await self.channel.leave()
            finally:
                self.channel.leave_soon()

    async def tell_token(self) -> None:
        """Tell the server of a new token, if it does not have it; a join that is to come has it anyway."""
        token = self._tokens.value
        if token not in (None, self._token) and self.channel.status == "joined":
            self._token = token
            with suppress(SlipstreamError):
                await self.channel.send("access_token", {"access_token": token})

    async def _payload(self) -> dict[str, Any]:
        """Return what to join with: called at each join."""
        if self._unconfirmed:
            self._tokens.doubt(self._token)
        self._unconfirmed = True
        self._token = await self._tokens.get()
        return self._config.payload(self._token)

    def _known_routes(self) -> Routes:
        """Return what the ids of changes stand for, by the latest join; raises `ProtocolError`."""
        if self.channel.join_response is not self._answer:
            self._routes = self._config.routes(self.channel.join_response)
            self._answer = self.channel.join_response
        return self._routes

    async def _joined(self) -> None:
        self._unconfirmed, self._reason, self._joined_at = False, None, trio.current_time()
        self._known_routes()
        await self.tell_token()
        if self._tracked is not None:
            with suppress(SlipstreamError):
                await self.channel.send("presence", self._tracked)

    async def _keep(self, system: Stream) -> None:
        try:
            while True:
                with suppress(SlipstreamError):
                    await self._follow(system)
                if not await self._rejoin():
                    return
                self._decide()
        finally:
            self._over = True
            self._decide()

    def _decide(self) -> None:
        """Let readers who came to an end look again."""
        self._decided.set()
        self._decided = trio.Event()

    async def _follow(self, system: Stream) -> None:
        async for item in system:
            if not isinstance(item, Gap):
                event = event_of(item, {})
                if isinstance(event, SystemMessage) and event.status != "ok":
                    logger.warning("%s on %r: %s", event.extension, self.channel.topic, event.message)
                    self._reason = event.message if event.extension == "system" else self._reason
            elif item.reason != "overflow":
                try:
                    await self._joined()
                except ProtocolError as error:
                    logger.error("%r is left: %s", self.channel.topic, error)  # noqa: TRY400 - readers raise it
                    await self.channel.leave()

    async def _rejoin(self) -> bool:
        """Join again what the server has shut down, if that is wanted; returns whether it is joined."""
        backoff = self._rejoin_closed
        if backoff is None or self._reason is None:
            return False
        self._step = backoff.step_after(self._step, trio.current_time() - self._joined_at)
        self._unconfirmed = True  # the token may be why
        while backoff.limit is None or self._step < backoff.limit:
            await trio.sleep(backoff.delay(self._step, random.random()))  # noqa: S311 - for jitter
            self._step += 1
            try:
                await self.channel.join()
            except AlreadyJoined:
                break
            except Exception as error:  # noqa: BLE001 - what the function of the token raises, too
                logger.warning("%r could not be joined again: %s", self.channel.topic, error)
            else:
                return True
        return False


@asynccontextmanager
async def beside(function: Callable[..., Awaitable[None]], *args: Any) -> AsyncIterator[None]:
    """Run a function beside a block, whose exception leaves it as it is; the function is cancelled at its end."""
    failure: BaseException | None = None
    scope = trio.CancelScope(shield=True)  # so that the nursery ends by this alone, and never by a group

    async def run() -> None:
        with scope:
            await function(*args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised again below, outside of the nursery
            failure = error
        scope.cancel()
    if failure is not None:
        raise failure
