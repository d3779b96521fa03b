"""Connections and channels of Supabase Realtime, on top of a Phoenix socket and its channels.

Sources: supabase/realtime, lib/realtime_web/channels/user_socket.ex, realtime_channel.ex (`shutdown_response`) and
realtime_channel/presence_handler.ex; supabase/supabase-js, packages/core/realtime-js/src/RealtimeClient.ts and
RealtimeChannel.ts; supabase/realtime-py, realtime/_async/client.py.
"""

import json
import logging
import math
import random
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import NoneType
from typing import Any, Final, Self, Unpack
from urllib.parse import urlsplit, urlunsplit

import trio

from ...client import Channel, ConnectOptions, Gap, Socket, Stream, connect as connect_socket
from ...client.configuration import check_kind
from ...client.handshake import OrCallable, ask
from ...client.status import Block
from ...errors import ChannelClosed, ConfigurationError, ProtocolError, SlipstreamError
from ...protocol import Backoff
from ...telemetry import default_telemetry
from . import values
from .serializer import BROADCAST, SupabaseSerializer

LEEWAY: Final = 60.0  # before its expiry a token is replaced, or at half of its time where that is less
TIMEOUT: Final = 10.0  # for the user's function
STEP: Final = 10.0  # between looks at the wall clock (Trio's stops while a computer sleeps), the least between renewals
RETRY: Final = Backoff((1, 2, 5, 10, 30))

logger: Final = logging.getLogger("slipstream_trio.integrations.supabase")


def connect(
    url: str, api_key: str, *, access_token: OrCallable[str | None] = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager["Realtime"]:
    """Connect to the Realtime server of a Supabase project, for the time of an `async with` block.

    Parameters:
        url: the project's, such as "https://abc.supabase.co"; a path that ends in /websocket is used as it is.
        api_key: the project's key; sent as a parameter, and kept out of telemetry.
        access_token: the user's JWT, or a (sync or async) function that returns it. The function is asked before the
            first join, before a token expires, and after the server did not like one; channels are told of new ones.
        options: as with `slipstream_trio.connect`, whose errors it raises; `params` are a mapping. `rejoin_closed` is
            for channels that the server shuts down, as when a token has expired or there were too many messages.
    """
    for option, value in (("url", url), ("api_key", api_key)):
        check_kind(option, value, str)
    params = options.get("params", {})
    if callable(params):
        raise ConfigurationError("params", "a mapping: the key is added to it")
    options["params"] = {**params, "apikey": api_key}
    if options.get("vsn", SupabaseSerializer.vsn) == SupabaseSerializer.vsn:
        options.setdefault("serializer", SupabaseSerializer())
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/websocket"):
        path = f"{path.removesuffix('/realtime/v1')}/realtime/v1/websocket"
    tokens = Tokens(access_token, options.get("telemetry", default_telemetry).time_ns)
    connecting = connect_socket(urlunsplit(parts._replace(path=path)), **options)
    return Block("supabase.connect(…) as realtime", _connected(connecting, tokens))


@asynccontextmanager
async def _connected(connecting: AbstractAsyncContextManager[Socket], tokens: "Tokens") -> AsyncIterator["Realtime"]:
    async with connecting as socket, _beside(tokens.keep_fresh):
        yield Realtime(socket, tokens)


class Realtime:
    """A connection to Supabase Realtime, on top of a Phoenix `socket`: what `connect` gives."""

    def __init__(self, socket: Socket, tokens: "Tokens") -> None:
        self.socket: Socket = socket
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"<Realtime on {self.socket!r}>"

    def channel(
        self,
        topic: str,
        *,
        broadcast: values.Broadcast | None = None,
        presence: values.Presence | None = None,
        postgres_changes: Iterable[values.PostgresChange] = (),
        private: bool = False,
    ) -> AbstractAsyncContextManager["RealtimeChannel"]:
        """Join a channel for the time of an `async with` block, and leave it then; raises as `Channel.join`.

        A server that lists other changes than those asked for is a `ProtocolError`.

        Parameters:
            topic: the topic, without "realtime:".
            broadcast: how it broadcasts.
            presence: that it follows who is there, and its key.
            postgres_changes: the changes of tables to be told; each once.
            private: whether the policies of the project decide who may join.
        """
        check_kind("broadcast", broadcast, values.Broadcast, NoneType)
        check_kind("presence", presence, values.Presence, NoneType)
        check_kind("postgres_changes", postgres_changes, Iterable)
        changes = tuple(dict.fromkeys(postgres_changes))
        config = values.join_config(broadcast or values.Broadcast(), presence, changes, private=private)
        channel = RealtimeChannel(self.socket, self._tokens, topic, config, changes)
        return Block("realtime.channel(…) as channel", channel.joined())

    async def refresh_token(self) -> None:
        """Ask for another access token now, and tell it to the channels; a function that fails is asked again."""
        await self._tokens.get(doubted=self._tokens.value)
        await self._tokens.tell()


class RealtimeChannel:
    """A joined channel, on top of a Phoenix `channel`: iterate over it for its events, and the gaps between them."""

    def __init__(
        self, socket: Socket, tokens: "Tokens", topic: str, config: Any, changes: Iterable[values.PostgresChange]
    ) -> None:
        self.channel: Channel = socket.channel(f"realtime:{topic}", self._payload)
        self._tokens = tokens
        self._config, self._changes = config, changes
        self._token: str | None = None  # the server has this one
        self._unconfirmed = False  # a join with it was asked for, and is not known to have succeeded
        self._tracked: dict[str, Any] | None = None
        self._stream = self.channel.stream()
        self._routes: values.Routes = {}
        self._reason: str | None = None  # the server's, for shutting the channel down

    def __repr__(self) -> str:
        return f"<RealtimeChannel on {self.channel!r}>"

    async def send(self, event: str, payload: Any = None, *, ack: bool = True) -> None:
        """Broadcast an event to the channel, with a JSON value or `bytes` (which 1.0.0 cannot send); None is {}.

        With `Broadcast.ack` it waits for the acknowledgement, unless `ack` is False: then it raises as `Channel.push`,
        `PushTimeout` also on a private channel where writing is not allowed. Else it raises as `Channel.send`.
        """
        message = {"type": BROADCAST, "event": event, "payload": {} if payload is None else payload}
        if self._config["broadcast"]["ack"] and ack:
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> values.RealtimeEvent:
        """Return the next event or gap; raises as a channel does.

        `ChannelClosed` has the reason for which the server has shut the channel down, if it told one. `ProtocolError`
        means that a join was answered with other `postgres_changes` than those asked for.
        """
        event = None
        while event is None:
            try:
                item = await anext(self._stream)
            except StopAsyncIteration:
                values.routes_of(self.channel.join_response, self._changes)  # raises, if that is why
                if self._reason is None:
                    raise
                raise ChannelClosed(self.channel.topic, self._reason) from None
            event = item if isinstance(item, Gap) else values.event_of(item, self._routes)
            if isinstance(event, Gap):
                self._reason = None  # it was joined again
            elif isinstance(event, values.SystemMessage) and (event.extension, event.status) == ("system", "error"):
                self._reason = event.message
        return event

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Self]:
        """Join for the time of a block, and leave it then; `Realtime.channel` calls this."""
        # Subscribed before the join, so that nothing of it is missed.
        async with self.channel.subscribe("system", buffer=16, overflow="drop_oldest") as system:
            self._tokens.tellers[self] = self._tell_token
            try:
                await self.channel.join()
                await self._joined()
                async with _beside(self._keep, system.stream()):
                    yield self
                await self.channel.leave()
            finally:
                self.channel.leave_soon()
                del self._tokens.tellers[self]

    async def _payload(self) -> dict[str, Any]:
        """Return what to join with: called at each join."""
        doubted = self._token if self._unconfirmed else None
        self._unconfirmed = True
        self._token = await self._tokens.get(doubted)
        return {"config": self._config, **({} if self._token is None else {"access_token": self._token})}

    async def _joined(self) -> None:
        self._unconfirmed = False
        self._routes = values.routes_of(self.channel.join_response, self._changes)
        await self._tell_token()
        if self._tracked is not None:
            with suppress(SlipstreamError):
                await self.channel.send("presence", self._tracked)

    async def _tell_token(self) -> None:
        """Tell the server of a new token, if it does not have it; a join that is to come has it anyway."""
        if self._tokens.value not in (None, self._token) and self.channel.status == "joined":
            self._token = self._tokens.value
            with suppress(SlipstreamError):
                await self.channel.send("access_token", {"access_token": self._token})

    async def _keep(self, system: Stream) -> None:
        """Follow system messages, and gaps: where they are, the topic has been joined again."""
        try:
            async for item in system:
                event = item if isinstance(item, Gap) else values.event_of(item, {})
                if isinstance(event, values.SystemMessage) and event.status != "ok":
                    logger.warning("%s on %r: %s", event.extension, self.channel.topic, event.message)
                    self._unconfirmed |= event.extension == "system"  # the token may be why
                elif isinstance(event, Gap) and event.reason != "overflow":
                    await self._joined()
        except ProtocolError as error:
            logger.error("%r is left: %s", self.channel.topic, error)  # noqa: TRY400 - the sentence says it
            self.channel.leave_soon()
        except SlipstreamError:
            pass  # the end of the stream, which readers come to as well


class Tokens:
    """The access token that channels are joined with: given as such, or by a function that is asked in time.

    A channel ends when its token expires (`confirm_token` in realtime_channel.ex).
    """

    def __init__(self, given: OrCallable[str | None], time_ns: Callable[[], int]) -> None:
        self.value: str | None = None if callable(given) else given
        self._function = given if callable(given) else None
        self._now: Callable[[], float] = lambda: time_ns() / 1e9
        self._expires = self._renew_at = math.inf
        self._failures = 0
        self._lock = trio.Lock()
        self.tellers: dict[object, Callable[[], Awaitable[None]]] = {}  # of channels: they tell the server

    async def get(self, doubted: str | None = None) -> str | None:
        """Return the token, another one if it is due or `doubted`; raises what the function does if there is none."""
        async with self._lock:
            if self._function is not None and (self.value in (None, doubted) or self._now() >= self._renew_at):
                try:
                    await self._ask(self._function)
                except Exception as error:
                    logger.warning("no new access token, as its function failed", exc_info=error)
                    self._renew_at = self._now() + RETRY.delay(self._failures, random.random())  # noqa: S311 - for jitter
                    self._failures += 1
                    if self.value is None or self._now() >= self._expires:
                        raise
        return self.value

    async def keep_fresh(self) -> None:
        """Renew the token in time, and let channels tell the server of it, until cancelled."""
        while self._function is not None:
            await trio.sleep(min(max(0.0, self._renew_at - self._now()), STEP))
            with suppress(Exception):  # which is logged
                await self.get()
            await self.tell()

    async def tell(self) -> None:
        """Let each channel tell the server of the token."""
        for tell in list(self.tellers.values()):
            await tell()

    async def _ask(self, function: Callable[[], object]) -> None:
        with trio.fail_after(TIMEOUT):
            value = await ask(function)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError("access_token", f"a string or None, not {type(value).__name__}")
        self.value, self._expires, self._failures = value, _expiry(value or ""), 0
        left = self._expires - self._now()
        self._renew_at = self._now() + max(left - LEEWAY, left / 2, STEP)
        if left <= 0:
            logger.warning("the access token has expired %.0f s ago: is the clock of this machine right?", -left)


def _expiry(token: str) -> float:
    """Return the `exp` claim of a JWT, whose signature is the server's business; infinity if there is none."""
    try:
        claims = token.split(".")[1]
        value = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(value) if type(value) in (int, float) and value >= 0 else math.inf
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return math.inf


@asynccontextmanager
async def _beside(function: Callable[..., Awaitable[None]], *args: Any) -> AsyncIterator[None]:
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
