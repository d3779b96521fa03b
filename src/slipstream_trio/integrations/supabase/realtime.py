"""Connect to Supabase Realtime.

Sources: supabase/realtime, lib/realtime_web/channels/user_socket.ex; supabase/supabase-js,
packages/core/realtime-js/src/RealtimeClient.ts; supabase/realtime-py, realtime/_async/client.py.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Unpack, final
from urllib.parse import urlsplit, urlunsplit

from ...client import ConnectOptions, Socket, connect as connect_socket
from ...client.handshake import OrCallable
from ...errors import ConfigurationError
from ...protocol import Backoff
from ...telemetry import default_telemetry
from .channel import RealtimeChannel, beside
from .serializer import SupabaseSerializer
from .tokens import Tokens
from .values import Broadcast, ChannelConfig, PostgresChange, Presence

__all__ = ["Realtime", "connect"]

PATH: Final = "/realtime/v1"


def connect(
    url: str, api_key: str, *, access_token: OrCallable[str | None] = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager["Realtime"]:
    """Connect to the Realtime server of a Supabase project, for the time of an `async with` block.

    Parameters:
        url: the project's, such as "https://abc.supabase.co"; a path that ends in /websocket is used as it is.
        api_key: the project's key; sent as a parameter, and kept out of telemetry.
        access_token: the user's JWT, or a (sync or async) function that returns it. The function is asked before the
            first join, before a token expires, and after the server did not like one; channels are told of new ones.
        options: as with `slipstream_trio.connect`; `vsn` may be "1.0.0"; `params` are a mapping.

    Raises:
        ConfigurationError: at the call, an option cannot be used.
        SlipstreamError: as with `slipstream_trio.connect`.
    """
    params = options.get("params", {})
    if callable(params):
        raise ConfigurationError("params", "a mapping: the key is added to it")
    options["params"] = {**params, "apikey": api_key}
    if options.get("vsn", SupabaseSerializer.vsn) == SupabaseSerializer.vsn:
        options.setdefault("serializer", SupabaseSerializer())
    telemetry = options.get("telemetry", default_telemetry)
    tokens = Tokens(access_token, lambda: telemetry.time_ns() / 1e9)
    return _connected(connect_socket(_websocket_url(url), **options), tokens)


def _websocket_url(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/websocket"):
        path = f"{path.removesuffix(PATH)}{PATH}/websocket"
    return urlunsplit(parts._replace(path=path))


@asynccontextmanager
async def _connected(connecting: AbstractAsyncContextManager[Socket], tokens: Tokens) -> AsyncIterator["Realtime"]:
    async with connecting as socket:
        realtime = Realtime(socket, tokens)
        async with beside(tokens.keep_fresh, realtime._tell_token):  # noqa: SLF001 - of this module
            yield realtime


@final
class Realtime:
    """A connection to Supabase Realtime: what `connect` gives.

    Attributes:
        socket: the Phoenix socket below.
    """

    def __init__(self, socket: Socket, tokens: Tokens) -> None:
        self.socket: Socket = socket
        self._tokens = tokens
        self._channels: dict[RealtimeChannel, None] = {}

    def channel(
        self,
        topic: str,
        *,
        broadcast: Broadcast | None = None,
        presence: Presence | None = None,
        postgres_changes: Iterable[PostgresChange] = (),
        private: bool = False,
        rejoin_closed: Backoff | None = None,
    ) -> AbstractAsyncContextManager[RealtimeChannel]:
        """Join a channel for the time of an `async with` block, and leave it then.

        Parameters:
            topic: the topic, without "realtime:".
            broadcast: how it broadcasts.
            presence: that it follows who is there, and its key.
            postgres_changes: the changes of tables to be told; each once.
            private: whether the policies of the project decide who may join.
            rejoin_closed: the delays before it is joined again where the server has shut it down, as when its token has
                expired or there were too many messages; None: iteration raises `ChannelClosed`.

        Raises:
            ConfigurationError: at the call, the server would refuse it.
            ProtocolError: the server lists other changes than those asked for.
            SlipstreamError: what `Channel.join` raises.
        """
        changes = tuple(dict.fromkeys(postgres_changes))
        config = ChannelConfig(broadcast or Broadcast(), presence, changes, private)
        return self._joined(RealtimeChannel(self.socket, topic, config, self._tokens, rejoin_closed))

    async def refresh_token(self) -> None:
        """Ask for another access token now, and tell it to the channels; raises what its function does."""
        await self._tokens.get(anew=True)
        await self._tell_token()

    @asynccontextmanager
    async def _joined(self, channel: RealtimeChannel) -> AsyncIterator[RealtimeChannel]:
        self._channels[channel] = None
        try:
            async with channel.joined():
                yield channel
        finally:
            del self._channels[channel]

    async def _tell_token(self) -> None:
        for channel in list(self._channels):
            await channel.tell_token()
