"""Replays: the server's side of a recorded socket is played to a client, which has to do what the recorded one did."""

import math
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import Any, Final, final

import trio
from attrs import Factory, define, field

from ..protocol.message import CLOSE, LEAVE, Message
from ..trace.text import NO_SECRETS, Secrets, brief
from ..transport import Connector, find_connector
from .kit.expectations import Exactly, Expectation, ExpectationFailed, kind_of, secrets_in
from .recorded import Action, Attempt, Close, Content, Paths, RecordedSocket
from .server import Accept, Connection, Mount, PhoenixServer, Refuse, Request
from .server.pipes import open_background

# Seconds within which a client seems to react to a message; what it does later has another cause, such as a timer.
_REACTION: Final = 0.05

_WIDTH: Final = 58

# A connection's number, what its client did in the recording, and what it did now.
Row = tuple[int, Action | None, Action | None]


@final
class ReplayDifference(ExpectationFailed):
    """Raised when a client does something else than in the recording; the text has both histories.

    Attributes:
        connection: the number of the connection, from 1.
        then: the message that the client sent in the recording; None for the end of the connection, or nothing.
        now: the message that it sent now; None likewise.
    """

    def __init__(self, problem: str, rows: list[Row], behind: list[Action]) -> None:
        number, then, now = rows[-1]
        self.connection: int = number
        self.problem: str = problem
        self.then: Message | None = None if then is None else then.message
        self.now: Message | None = None if now is None else now.message
        super().__init__("\n".join([f"connection {number}: {problem}", *_table(rows, behind)]))


@asynccontextmanager
async def replayed(
    recording: Paths,
    *,
    socket: str | None = None,
    connection: str | None = None,
    topics: Collection[str] = ("*",),
    ahead: float = 0.25,
    timeout: float = 60.0,
    strict: bool = True,
) -> AsyncIterator["Replayed"]:
    """Run a server that plays the server's side of a recorded socket, refusals, closes and reconnects included.

        async with replayed("incident.jsonl.gz", topics=["orders:*"]) as server:
            async with connect(server.url, transport=server.connector()) as socket:
                ...

    It is meant for virtual time, and needs the extra `testing`. What the server sends comes at its recorded time, and
    after everything that the client had done before it. Joins, pushes, leaves and the ends of connections are compared:
    topics, events, payloads and order, while refs and times may be others. At the first difference the block is
    cancelled, and the difference raised; the block's own exception leaves it unchanged, with the difference as a note.
    Heartbeats are answered while the recorded server was alive; joins that were repeated may come in any order.

    Parameters:
        recording: the file, or files; of a recording that was rotated, the newest alone finds those before it.
        socket: the beginning of the socket_id to replay; None for the first one.
        connection: the beginning of the connection_id to replay alone; None for all connections of the socket.
        topics: patterns of the topics to replay; the client's messages on others are answered with "ok".
        ahead: how far the client may be ahead of what it reacted to in the recording, in seconds.
        timeout: how late the client may be, in seconds.
        strict: whether a difference is raised; else the server plays on as far as it can, and keeps the first one.

    Raises:
        LookupError: the recording has no such socket or connection.
        RecordingError: a file cannot be read.
        ReplayDifference: the client did something else than in the recording.
    """
    recorded = RecordedSocket(socket, connection, topics)
    recorded.read(recording)
    server = Replayed(recorded, ahead, timeout, strict=strict)
    async with server.phoenix.run(), open_background() as server.players:
        try:
            with server.scope:
                yield server
                await server.settle()
        except BaseException as error:
            if server.difference is not None:
                error.add_note(str(server.difference))
            raise
    if strict and server.difference is not None:
        raise server.difference


@final
class Replayed:
    """The server that `replayed` runs.

    Attributes:
        difference: the first difference; None while there is none.
        played: how many messages and ends of the recorded server were played.
        unknown: what could not be played or compared, and why: redacted payloads, lost lines, an old schema.
    """

    url: Final[str] = "ws://replayed/socket/websocket"
    """The URL to connect to; it leads there with `connector` only."""

    def __init__(self, recorded: RecordedSocket, ahead: float, timeout: float, *, strict: bool) -> None:
        self.difference: ReplayDifference | None = None
        self.played: int = 0
        self.unknown: list[str] = recorded.unknown
        self.recorded: RecordedSocket = recorded
        self.ahead: float = ahead
        self.timeout: float = timeout
        self.rows: list[Row] = []
        self.scope: trio.CancelScope = trio.CancelScope()
        self.players: trio.Nursery
        mount = Mount(connect=self._upgrade, handler=self._opened, timeout=None)
        self.phoenix: PhoenixServer = PhoenixServer({"/socket": mount})
        self._strict = strict
        self._attempts = deque(recorded.attempts)
        self._opened_players: list[_Player] = []

    def connector(self, transport: str = "auto") -> Connector:
        """Return the client's way to this server: pass it to `connect` as `transport`.

        Parameters:
            transport: the name of the transport.
        """
        return find_connector(transport, lambda _: self.open_stream())

    async def open_stream(self) -> trio.abc.Stream:
        """Return the client's end of its next connection, which may be one that was refused.

        Raises:
            ConnectionRefusedError: the recorded attempt failed without an answer.
        """
        attempt = self._attempts[0] if self._attempts else self._no_more()
        if attempt.refusal is None and attempt.failed is not None:
            if self._attempts:
                self._attempts.popleft()
            await trio.sleep(math.inf if attempt.failed == "cancelled" else 0)
            raise ConnectionRefusedError(attempt.failed)
        return await self.phoenix.open_stream()

    def _no_more(self) -> Attempt:
        if self.recorded.connection is None:
            self.differ("then the client did not connect again", (len(self._opened_players) + 1, None, Action(0.0)))
        return Attempt("", failed="the recording has no further connection")

    def _upgrade(self, _: Request) -> Accept:
        # A stream that is lost before its upgrade is no attempt.
        attempt = self._attempts.popleft() if self._attempts else self._no_more()
        if attempt.refusal is not None or attempt.failed is not None:
            raise attempt.refusal or Refuse(503)
        return Accept(assigns={"attempt": attempt})

    def _opened(self, connection: Connection) -> "_Player":
        player = _Player(self, connection, len(self._opened_players) + 1, connection.assigns["attempt"])
        self._opened_players.append(player)
        self.players.start_soon(player.play)
        return player

    async def settle(self) -> None:
        """Wait for the ends of the connections, and see what is missing; for `replayed` alone."""
        with trio.move_on_after(1):
            for player in self._opened_players:
                await player.connection.wait_closed()
        for player in self._opened_players:
            player.miss(len(player.attempt.actions), "the client has finished without it")
        if self._attempts:
            self.differ("then the client connected again", (len(self._opened_players) + 1, Action(0.0), None))

    def differ(self, problem: str, row: Row, behind: Collection[Action] = ()) -> None:
        """Take in a difference; for the players alone."""
        if self.difference is None:
            self.difference = ReplayDifference(problem, [*self.rows, row], list(behind))
            if self._strict:
                self.scope.cancel()


@define(eq=False)
class _Player:
    """Plays the recorded side of the server to one connection, and compares what its client does."""

    replay: Replayed
    connection: Connection
    number: int
    attempt: Attempt
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _opened: float = field(factory=trio.current_time)
    _late: float = 0.0
    _sent: int = 0
    _over: bool = False
    _pending: dict[Action, int] = field(  # what is still waited for, in order, and its place
        init=False,
        default=Factory(lambda self: {action: at for at, action in enumerate(self.attempt.actions)}, takes_self=True),
    )
    _refs: dict[Any, Any] = field(factory=lambda: {None: None})
    _answers: list[Message] = field(factory=list)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def _now(self) -> float:
        return trio.current_time() - self._opened

    async def play(self) -> None:
        """Do what the server did, to the connection's end."""
        with self._scope:
            for play in self.attempt.plays:
                await self._reach(play.after, play.at)
                # A client that is late has all of the rest later.
                self._late = max(self._late, self._now() + play.delay - play.at)
                await trio.sleep_until(self._opened + play.at + self._late)
                self._sent += 1
                await self._play(play.content)
            if self.attempt.whole and self.attempt.actions:
                await self._reach(len(self.attempt.actions), self.attempt.actions[-1].at)

    async def _reach(self, after: int, at: float) -> None:
        """Wait until the client has done what it had done before a play."""
        with trio.move_on_at(self._opened + at + self._late + self.replay.timeout):
            while self.replay.difference is None and next(iter(self._pending.values()), after) < after:
                await self._changed.park()
        if self.replay.difference is None:  # else it may still come, where it was not expected
            self.miss(after, f"it did not come within {self.replay.timeout:g} s")

    def miss(self, after: int, problem: str) -> None:
        """Wait no longer for what the client has not done."""
        for action, _ in list(takewhile(lambda pair: pair[1] < after, self._pending.items())):
            self._differ(problem, action, None)
            self._remove(action)

    async def _play(self, content: Content) -> None:
        self.replay.played += content is not None
        if isinstance(content, Message):
            self._answers.append(content)
            self._answer()
        elif isinstance(content, Close):
            self._over = True
            code = 1000 if content.code == 1005 else content.code  # which says that there was none
            if code is None:
                await self.connection.wait_written()
                self.connection.drop()
            else:
                self.connection.close(code, content.reason)
        elif content is not None:
            self.connection.put(content)

    def _answer(self) -> None:
        """Send the messages whose refs are known, with the client's own: without differences, all of them."""
        for message in list(self._answers):
            if {message.ref, message.join_ref} <= self._refs.keys():
                self._answers.remove(message)
                own = message._replace(join_ref=self._refs[message.join_ref], ref=self._refs[message.ref])
                self.connection.put(self.connection.wire.encode(own))

    async def handle(self, message: Message) -> None:
        """Compare what the client sent, and answer what is not of the recording; for the server alone."""
        wire, (join_ref, ref, topic, event, _) = self.connection.wire, message
        if kind_of(message) == "heartbeat":
            answers = not (self.attempt.silent and self._sent == len(self.attempt.plays))
        else:
            answers = not (self.replay.recorded.counts(topic) and self._did(Action(self._now(), message)))
            self._answer()
        if answers:
            self.connection.put(wire.encode_reply(join_ref, ref, topic, "ok", {}))
            if event == LEAVE:
                self.connection.put(wire.encode(Message(join_ref, join_ref, topic, CLOSE, {})))

    def ended(self) -> None:
        """Take in the connection's end; for the server alone."""
        self._scope.cancel()
        # At the end of the block, it is the replay that ends the connections.
        if not self._over and not self.replay.players.cancel_scope.cancel_called:
            self._did(Action(self._now()))

    def _did(self, now: Action) -> bool:
        """Take in what the client did; returns whether it did so in the recording."""
        then = next((each for each in self._pending if now.message is None or not each.again), None)
        if now.message is not None and (then is None or self._mismatch(then, now) is not None):
            # Joins that it repeated may come at another place.
            then = next((each for each in self._pending if each.again and each.resembles(now)), then)
        problem = self._mismatch(then, now) or self._too_early(then)
        if problem is not None:
            self._differ(problem, then, now)
            same = [each for each in self._pending if each.resembles(now)]
            then = next((each for each in same if self._mismatch(each, now) is None), same[0] if same else None)
        if then is not None:
            self.replay.rows.append((self.number, then, now))
            if then.message is not None and now.message is not None:
                self._refs[then.message.ref] = now.message.ref
            self._remove(then)
        return then is not None

    def _mismatch(self, then: Action | None, now: Action) -> str | None:
        if then is None:
            return "then the client did nothing more here" if self.attempt.whole else None
        if then.message is None or now.message is None:
            problem = "then the client closed it" if now.message else "then the client did not close it here"
            return None if then.message is now.message else problem
        wanted = Expectation("message", Exactly(then.message.topic), Exactly(then.message.event), then.payload)
        return wanted.mismatch(now.message, _secrets([then, now]))

    def _too_early(self, then: Action | None) -> str | None:
        if then is None or then.again:
            return None
        for play in reversed(self.attempt.plays[self._sent : then.after]):
            if then.at - play.at > _REACTION:
                break
            early = play.at + self._late - self._now()
            if play.content is not None and early > self.replay.ahead:
                what = _described(play.content) if isinstance(play.content, Message) else "the server's end"
                return f"it came {early:.3f} s before {what}, which it followed then"
        return None

    def _differ(self, problem: str, then: Action | None, now: Action | None) -> None:
        behind = [each for each in self._pending if each is not then]
        self.replay.differ(problem, (self.number, then, now), behind)
        self._changed.unpark_all()

    def _remove(self, action: Action) -> None:
        del self._pending[action]
        self._changed.unpark_all()


def _table(rows: list[Row], behind: list[Action]) -> Iterator[str]:
    """Give the lines of both histories, side by side, the difference marked."""
    secrets = _secrets([action for _, *both in rows for action in both if action is not None] + behind)
    earlier = max(0, len(rows) - 13)  # the difference, and twelve before it
    yield f"  {'in the recording':{_WIDTH}}  now"
    if earlier:
        yield f"  … {earlier} earlier ones, which agree"
    number = rows[-1][0]
    for row in [*rows[earlier:], *((number, action, None) for action in behind[:4])]:
        mark, nothing = (">", "(nothing)") if row is rows[-1] else (" ", "")
        then, now = (_timed(row[0], each, secrets) if each else nothing for each in row[1:])
        yield f"{mark} {then:{_WIDTH}}  {now}".rstrip()


def _timed(number: int, action: Action, secrets: Secrets) -> str:
    what = "closes the connection" if action.message is None else _described(action.message, secrets)
    return f"#{number} +{action.at:.3f} s  {what}"[:_WIDTH]


def _described(message: Message, secrets: Secrets = NO_SECRETS) -> str:
    return f"{message.event} {message.topic} {brief(message.payload, secrets, _WIDTH)}"


def _secrets(actions: list[Action]) -> Secrets:
    return Secrets.of(secret for each in actions if each.message for secret in secrets_in(each.message.payload))
