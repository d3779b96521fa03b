"""A server that a test drives step by step."""

from collections import deque
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Literal, Self, get_args

import trio

from ...transport import Connector, find_connector
from ..server import Accept, Connection, Flavour, Mount, PhoenixServer, Refuse, Request
from .connection import FakeConnection
from .expectations import PATIENCE, ExpectationFailed

Answer = Literal["connect", "join", "push", "leave", "heartbeat"]
"""The messages that a server can answer automatically."""


class FakeServer:
    """A Phoenix server that a test drives step by step; the package's docstring has an example.

    Clients connect by the library's own transport, over streams in memory (and over real sockets, where `phoenix`
    serves those), so all of it can run in virtual time, and emits the telemetry of any connection. Any number of
    servers can run side by side.

    Automatically it lets clients in, and answers their heartbeats and leaves, as a closing client waits for these;
    joins and pushes get the answer that the test gives, or none. Unexpected messages stay, unanswered.

    Parameters:
        answers: the messages to answer automatically: any of "connect", "join", "push", "leave", "heartbeat".
        timeout: the default time limit of expectations, in seconds of Trio's clock; `math.inf`: for ever.
        path: of the socket; the URL has `/websocket` behind it.
        flavour: the web server to imitate: "bandit" or "cowboy"; they close connections differently.

    Raises:
        ValueError: an invalid option; the message names it.

    Attributes:
        url: the URL to connect to, which leads here with `connector` only.
        phoenix: the server that carries it: within the block, `phoenix.serve()` listens on TCP, with TLS if asked.
        requests: all requests for an upgrade, refused ones too.
        connections: all connections, ended ones too.
        began: when it was started, in seconds of Trio's clock; None before.
    """

    def __init__(
        self,
        *,
        answers: Collection[Answer] = ("connect", "leave", "heartbeat"),
        timeout: float = 5.0,
        path: str = "/socket",
        flavour: Flavour = "bandit",
    ) -> None:
        if isinstance(answers, str) or not set(answers) <= set(get_args(Answer)):
            raise ValueError(f"answers: any of connect, join, push, leave, heartbeat; not {answers!r}")
        seconds: Any = timeout
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise ValueError(f"timeout: a time in seconds, math.inf for no limit; not {seconds!r}")
        self.answers: frozenset[str] = frozenset(answers)
        self.timeout: float = timeout
        self.requests: list[Request] = []
        self.connections: list[FakeConnection] = []
        self.url: str = f"ws://fake/{path.strip('/')}".rstrip("/") + "/websocket"
        mount = Mount(connect=self._upgrade, handler=self._opened, timeout=None)
        self.phoenix: PhoenixServer = PhoenixServer({path: mount}, flavour=flavour)
        self._unaccepted: deque[FakeConnection] = deque()
        self._verdicts: deque[Accept | Refuse] = deque()
        self._accepts = trio.StrictFIFOLock()
        self._turn = trio.StrictFIFOLock()  # held by the upgrade that gets the next verdict
        self._changed = trio.lowlevel.ParkingLot()
        self._accepting = False
        self.began: float | None = None
        self._run = self.phoenix.run()

    def __repr__(self) -> str:
        return f"<FakeServer: {len(self.connections)} connections>"

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            RuntimeError: it was started before; a server is for one block.
        """
        if self.began is not None:
            raise RuntimeError("a FakeServer is for one block: make another")
        self.began = trio.current_time()
        await self._run.__aenter__()
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Cut all connections, and stop it; the block's own exception leaves it unchanged."""
        self._accepting = False
        return await self._run.__aexit__(kind, error, traceback)

    def connector(self, transport: str = "auto") -> Connector:
        """Return the clients' way to this server: pass it to `connect` as `transport`.

        Parameters:
            transport: the name of the transport.
        """
        return find_connector(transport, lambda _: self.open_stream())

    async def open_stream(self) -> trio.abc.Stream:
        """Return the client's end of a new connection in memory, to be put behind a bad network, for example.

            find_connector("auto", network.opener(lambda request: server.open_stream()))

        Raises:
            ConnectionRefusedError: the server is not running, or was stopped.
        """
        if not self._accepting:
            raise ConnectionRefusedError("the fake server is not running, or was stopped")
        return await self.phoenix.open_stream()

    # Connections

    async def accept(self, *, within: float | None = None) -> FakeConnection:
        """Wait for the next connection, and return it.

        Without "connect" in `answers`, the client is let in now.

        Parameters:
            within: the time to wait, in seconds; None is the server's `timeout`.

        Raises:
            ExpectationFailed: no client has connected.
        """
        within = self.timeout if within is None else within
        verdict = Accept()
        with trio.move_on_after(within):
            async with self._accepts:  # one task after the other, as each lets one client in
                if "connect" not in self.answers and not self._unaccepted:
                    self._verdicts.append(verdict)
                    self._changed.unpark_all()
                try:
                    while not self._unaccepted:
                        await self._changed.park()
                finally:
                    if verdict in self._verdicts:  # a client that comes later waits for another `accept`
                        self._verdicts.remove(verdict)
        if not self._unaccepted:
            raise ExpectationFailed(f"expected a connection: none came within {within:g} s; {self._so_far()}")
        return self._unaccepted.popleft()

    def refuse(
        self, status: int = 403, headers: Sequence[tuple[str, str]] = (), body: str = "", *, times: int = 1
    ) -> None:
        """Refuse the waiting client, or else the next one.

        Parameters:
            status: the HTTP status.
            headers: further headers, such as ("retry-after", "1").
            body: the body.
            times: the number of clients to refuse.
        """
        self._verdicts.extend(Refuse(status, headers, body) for _ in range(times))
        self._changed.unpark_all()

    async def refute_connect(self, *, within: float = PATIENCE) -> None:
        """Check that no client connects, or waits to be accepted, for a while; see `FakeConnection.refute_push`."""
        known = len(self.requests)

        def came() -> bool:
            return len(self.requests) > known or len(self._unaccepted) > 0 or self._turn.locked()

        with trio.move_on_after(within):
            await trio.lowlevel.checkpoint()
            while not came():
                await self._changed.park()
        if came():
            raise ExpectationFailed(f"expected no connection within {within:g} s, but one came; {self._so_far()}")

    async def broadcast(self, topic: str, event: str, payload: Any = None) -> None:
        """Send a message to every client that has joined a topic; see `FakeConnection.push`."""
        await trio.lowlevel.checkpoint()
        for connection in self.connections:
            if topic in connection.channels:
                await connection.push(topic, event, payload)

    # Failures

    async def stop(self, code: int | None = 1012) -> None:
        """End all connections, and refuse new ones until `start`.

        Parameters:
            code: the close code; None cuts the connections, as a crash of the server does.
        """
        self._accepting = False
        self._changed.unpark_all()
        connections = self.phoenix.connections
        for connection in connections:
            connection.drop() if code is None else connection.close(code)
        for connection in connections:
            await connection.wait_closed()

    async def start(self) -> None:
        """Accept connections again after `stop`, at the same URL."""
        await trio.lowlevel.checkpoint()
        self._accepting = True

    async def restart(self, down: float = 1.0, code: int | None = 1012) -> None:
        """End all connections, refuse new ones for a while, then accept them again.

        Parameters:
            down: the time that it refuses, in seconds.
            code: the close code; None cuts the connections.
        """
        await self.stop(code)
        await trio.sleep(down)
        await self.start()

    async def _upgrade(self, request: Request) -> Accept:
        self.requests.append(request)
        self._changed.unpark_all()
        async with self._turn:  # verdicts go to upgrades in the order of both
            while not self._verdicts and "connect" not in self.answers and self._accepting:
                await self._changed.park()
            verdict = self._verdicts.popleft() if self._verdicts else Accept()
        if isinstance(verdict, Refuse):
            raise verdict
        if not self._accepting:  # it was stopped while the client waited
            raise Refuse(503)
        return verdict

    def _opened(self, opened: Connection) -> FakeConnection:
        connection = FakeConnection(self, len(self.connections) + 1, opened)
        self.connections.append(connection)
        self._unaccepted.append(connection)
        self._changed.unpark_all()
        return connection

    def _so_far(self) -> str:
        if not self.requests:
            return "no client has asked to be let in"
        return f"so far, {len(self.requests)} asked to be let in, and {len(self.connections)} were"
