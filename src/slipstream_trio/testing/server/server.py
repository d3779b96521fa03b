"""The server: mounts, connections, and its start and stop."""

import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import attrs
import trio

from ...errors.base import leaves
from ...transport import Connector, find_connector
from .channel import Channel, Process
from .connection import Connection
from .http import Exchange, Session
from .mount import Mount
from .pipes import MemoryStream, memory_pipe, open_background
from .presence import PubSub

GRACE_PERIOD: Final = 5.0

logger: Final = logging.getLogger("slipstream_trio.testing.server")
# Many tests and demos crash channels on purpose: only a configured logger shows it.
logger.addHandler(logging.NullHandler())


# Differences between Phoenix's versions, and between the web servers below it. Most were seen in recordings of the real
# servers (`tests/fixtures/transcripts`), the others read in the sources of these versions: Phoenix's
# `lib/phoenix/socket.ex` and `lib/phoenix/transports/websocket.ex`.

Flavour = Literal["bandit", "cowboy"]
"""The web server that Phoenix runs on."""

Version = Literal["1.7.24", "1.8.11", "1.8.12"]
"""A version of Phoenix."""

_CACHE_CONTROL: Final = ("cache-control", "max-age=0, private, must-revalidate")
_COWBOYS: Final = (_CACHE_CONTROL, ("server", "Cowboy"))


@attrs.frozen
class WebServer:
    """A web server's way to end connections, and its response headers; the defaults are Bandit's."""

    idle_code: int = 1002  # the close code for a client that was silent for too long
    echoes_close_code: bool = False  # whether a client's close is answered with the client's code, or else with 1000
    stop_code: int | None = 1000  # when the server stops; None: connections have a grace period, and are cut then
    limits_wire: bool = True  # whether limits count the bytes on the wire, or else payloads; see `Framing`
    upgrade_headers: tuple[tuple[str, str], ...] = (_CACHE_CONTROL,)  # of every 101 response
    refusal_headers: tuple[tuple[str, str], ...] = (("vary", "accept-encoding"), _CACHE_CONTROL)  # of every other


@attrs.frozen
class Release:
    """The behaviour of a version of Phoenix; the defaults are those of the newest."""

    crash_payload: Mapping[str, Any] = {"reason": "channel_crash"}  # of phx_error
    kick_code: int = 1001  # the close code of `PhoenixServer.disconnect`
    drops_stale_pushes: bool = True  # with another join_ref than the join's; such leaves are dropped always
    accepts_null_join_ref: bool = True  # a message with join_ref null passes; else any does on a channel joined so
    reads_tokens: bool = True  # from subprotocols, and from the header of long-polling


FLAVOURS: Final[Mapping[Flavour, WebServer]] = {
    "bandit": WebServer(),
    "cowboy": WebServer(
        idle_code=1000,
        echoes_close_code=True,
        stop_code=None,
        limits_wire=False,
        upgrade_headers=_COWBOYS,
        refusal_headers=_COWBOYS,
    ),
}

VERSIONS: Final[Mapping[Version, Release]] = {
    "1.7.24": Release({}, 1000, drops_stale_pushes=False, accepts_null_join_ref=False, reads_tokens=False),
    "1.8.11": Release(accepts_null_join_ref=False),
    "1.8.12": Release(),
}


@attrs.frozen
class Listening:
    """A server's address: host, "127.0.0.1" for example, port, and whether it speaks TLS."""

    host: str
    port: int
    secure: bool = False

    def url(self, path: str) -> str:
        """Return the ws or wss URL of a path, such as "/socket/websocket"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.secure else 'ws'}://{host}:{self.port}{path}"


class PhoenixServer:
    """A server that behaves as Phoenix does, on real sockets and in memory, under virtual time too.

        server = PhoenixServer({"/socket": Mount(channels={"echo:*": Echo})})
        async with server.serve() as listening:
            async with connect(listening.url("/socket/websocket")) as socket:
                ...

    Parameters:
        mounts: the sockets, by path.
        flavour: the web server to imitate: "bandit" or "cowboy".
        version: the version of Phoenix to imitate.
        close_timeout: how long a closing connection waits for the client's close frame, in seconds.
        drain_batch: how many channels the drainer ends at a time, Phoenix's `batch_size`.
        drain_interval: its pause after each whole batch, in seconds.
        keep_received: the number of messages that `Connection.received` keeps.

    Raises:
        ValueError: unknown flavour or version.

    Attributes:
        errors: the latest crashes of channels, joins and `Mount.connect`, and unreadable frames, the newest
            last. They are also logged to "slipstream_trio.testing.server".
    """

    def __init__(
        self,
        mounts: Mapping[str, Mount],
        *,
        flavour: Flavour = "bandit",
        version: Version = "1.8.12",
        close_timeout: float = 5.0,
        drain_batch: int = 10_000,
        drain_interval: float = 2.0,
        keep_received: int = 1000,
    ) -> None:
        self.mounts: Mapping[str, Mount] = dict(mounts)
        for option, name, known in (("flavour", flavour, list(FLAVOURS)), ("version", version, list(VERSIONS))):
            if name not in known:
                raise ValueError(f"{option}: one of {', '.join(known)}; not {name!r}")
        self.web_server: WebServer = FLAVOURS[flavour]
        self.release: Release = VERSIONS[version]
        self.close_timeout: float = close_timeout
        self.drain_batch: int = drain_batch
        self.drain_interval: float = drain_interval
        self.keep_received: int = keep_received
        self.errors: deque[BaseException] = deque(maxlen=100)
        self.pubsub: PubSub = PubSub()
        self._exchanges: set[Exchange] = set()
        self._connections: dict[Connection, Session | None] = {}
        self._listeners: list[trio.abc.Listener[Any]] = []
        self._nursery: trio.Nursery | None = None
        self._accepting = False
        self._changed = trio.lowlevel.ParkingLot()

    # Start and stop

    @asynccontextmanager
    async def run(self) -> AsyncIterator["PhoenixServer"]:
        """Run without listening: clients connect with `open_stream`.

        Leaving the block cuts every connection and ends every task; to end them as Phoenix does, `stop` first.
        The block's own exception leaves it unchanged. A server can be run again afterwards.

        Raises:
            RuntimeError: it is running.
        """
        if self._nursery is not None:
            raise RuntimeError("this server is running already")
        try:
            async with open_background() as self._nursery:
                self._accepting = True
                self._nursery.start_soon(self.pubsub.run)
                yield self
        finally:
            self._nursery = None
            self._accepting = False

    @asynccontextmanager
    async def serve(
        self, host: str = "127.0.0.1", port: int = 0, *, ssl_context: ssl.SSLContext | None = None
    ) -> AsyncIterator[Listening]:
        """Run and listen on TCP; within `run`, listen in addition.

        Parameters:
            host: the address to listen on.
            port: the port; 0 takes a free one.
            ssl_context: serves TLS with it.

        Raises:
            OSError: the port is not available.
        """
        if self._nursery is None:
            async with self.run(), self.serve(host, port, ssl_context=ssl_context) as listening:
                yield listening
            return
        listeners = await trio.open_tcp_listeners(port, host=host)
        address = listeners[0].socket.getsockname()
        serving: list[trio.abc.Listener[Any]] = list(listeners)
        if ssl_context is not None:
            serving = [trio.SSLListener(tcp, ssl_context, https_compatible=True) for tcp in listeners]
        self._listeners += serving
        async with open_background() as listening:
            listening.start_soon(self._listen, serving)
            yield Listening(address[0], address[1], ssl_context is not None)

    async def open_stream(self, ssl_context: ssl.SSLContext | None = None) -> MemoryStream:
        """Return the client's end of a new connection in memory, which the server serves.

        Parameters:
            ssl_context: serves TLS with it.

        Raises:
            ConnectionRefusedError: the server is not running, or was stopped.
        """
        await trio.lowlevel.checkpoint()
        if self._nursery is None or not self._accepting:
            raise ConnectionRefusedError("the server accepts no connections: is it within run() or serve()?")
        ours, theirs = memory_pipe()
        served: trio.abc.Stream = ours
        if ssl_context is not None:
            served = trio.SSLStream(ours, ssl_context, server_side=True, https_compatible=True)
        self._nursery.start_soon(self._handle, served)
        return theirs

    def connector(self, transport: str = "auto") -> Connector:
        """Return a `Connector` to this server in memory: `connect("ws://any/socket/websocket", transport=…)`.

        Parameters:
            transport: the name of the transport.

        Raises:
            LookupError: unknown, or its packages are not installed.
        """
        return find_connector(transport, lambda _: self.open_stream())

    async def drain(self) -> None:
        """Close the connections that have channels with 1012, as Phoenix's drainer does.

        New connections and joins are accepted meanwhile, and stay. After 30 seconds the drainer leaves the rest alone.
        """
        for process in await self._drain():
            if process.connection.close_code is not None:
                await process.connection.wait_closed()

    async def _drain(self) -> list[Process]:
        """Begin to close the channels' connections, in the batches of `lib/phoenix/socket/pool_supervisor.ex`."""
        processes = [process for connection in self.connections for process in connection.router.processes.values()]
        with trio.move_on_after(30):
            for index, process in enumerate(processes, 1):
                if not process.done.is_set():
                    process.connection.close(1012)
                if index % self.drain_batch == 0:
                    await trio.sleep(self.drain_interval)
        return processes

    async def stop(self, *, drain: bool = True) -> None:
        """Stop as Phoenix does at SIGTERM: drain, then refuse new connections, and end the rest.

        With "bandit" the rest is closed with 1000; with "cowboy" it goes on for 5 seconds and is cut. The server
        stays stopped until it is run again.

        Parameters:
            drain: whether the endpoint has a drainer.
        """
        if drain:
            await self._drain()
        await self._refuse_new()
        if self.web_server.stop_code is not None:
            for connection in self.connections:
                connection.close(self.web_server.stop_code)
            await self._wait_empty()
        else:
            with trio.move_on_after(GRACE_PERIOD):
                await self._wait_empty()
        await self.kill()

    async def kill(self) -> None:
        """End as at SIGKILL: every connection is cut, and new ones are refused."""
        await self._refuse_new()
        for connection in self.connections:
            connection.drop()
        await self._wait_empty()
        for exchange in self._exchanges:
            exchange.scope.cancel()

    # State

    @property
    def sessions(self) -> dict[str, Session]:
        """The clients that poll, by token; their connections are among the others."""
        return {session.token: session for session in self._connections.values() if session is not None}

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The open connections, the oldest first."""
        return tuple(self._connections)

    async def wait_connections(self, count: int = 1) -> tuple[Connection, ...]:
        """Wait until there are at least `count` connections, and return all."""
        await trio.lowlevel.checkpoint()
        while len(self._connections) < count:
            await self._changed.park()
        return self.connections

    async def broadcast(self, topic: str, event: str, payload: Any = None, *, exclude: Channel | None = None) -> None:
        """Send a message to all channels of a topic: `Endpoint.broadcast`.

        Parameters:
            topic: the topic.
            event: the event; reserved ones too, as in Phoenix.
            payload: a JSON value, or `bytes` for a binary frame; None is {}.
            exclude: a channel that does not get it.

        Raises:
            SerializationError: the payload cannot be encoded, and is not sent.
        """
        if self.pubsub.broadcast(topic, event, {} if payload is None else payload, exclude=exclude):
            await trio.lowlevel.checkpoint()  # so that those who write to slow clients get their turn
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    def disconnect(self, id: str) -> None:  # noqa: A002 - Phoenix's word
        """Close all connections of this id: `Endpoint.broadcast(id, "disconnect", %{})`."""
        for connection in self.connections:
            if connection.id == id:
                connection.close(self.release.kick_code)

    def report(self, what: str, error: BaseException | None) -> None:
        """Keep and log an error of the application or the client; for the server alone."""
        logger.error("%s", what, exc_info=error)
        self.errors.extend(leaves(RuntimeError(what) if error is None else error))

    # Connections

    async def _listen(self, listeners: list[trio.abc.Listener[Any]]) -> None:
        try:
            await trio.serve_listeners(self._handle, listeners, handler_nursery=self._nursery)
        except* trio.ClosedResourceError:
            pass  # stop and kill close the listeners

    async def _refuse_new(self) -> None:
        self._accepting = False
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.aclose()

    async def _handle(self, stream: trio.abc.Stream) -> None:
        exchange, connection = Exchange(self, stream), None
        self._exchanges.add(exchange)
        try:
            with exchange.scope:
                connection = await exchange.accept()
            if connection is not None:
                await self._run(connection)
        except trio.BrokenResourceError:
            pass  # the client left during the handshake
        except Exception as error:  # noqa: BLE001 - as for other connections
            self.report("a request failed", error)
        finally:
            self._exchanges.discard(exchange)
            await trio.aclose_forcefully(stream)

    def start_session(self, session: Session) -> None:
        """Serve a client that polls; for the server alone."""
        assert self._nursery is not None
        self._nursery.start_soon(self._run, session.connection, session)

    async def _run(self, connection: Connection, session: Session | None = None) -> None:
        self._connections[connection] = session
        self._changed.unpark_all()
        try:
            await (session or connection).run()
        except Exception as error:  # noqa: BLE001 - one connection's failure must not become the others'
            self.report("a connection failed", error)
        finally:
            del self._connections[connection]
            self._changed.unpark_all()

    async def _wait_empty(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._connections:
            await self._changed.park()
