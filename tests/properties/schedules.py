"""Schedules of what goes wrong, drawn by Hypothesis: closes, refusals, crashes, joins, leaves, pushes, over reconnects.

Users join, push, read and leave while fate ends connections and refuses upgrades and joins. Then the server calms
down, and what is left must be as it should: whoever joined and has not left is joined, on the server and the client.
"""

from typing import Any

import trio
import trio.lowlevel
import trio.testing
from attrs import field, frozen
from hypothesis import strategies as st
from tests.peers import World
from tests.properties.scripts import TOPICS

from slipstream_trio import Backoff, Channel, Socket, connect
from slipstream_trio.errors import (
    ChannelClosed,
    ConnectError,
    ConnectionLost,
    PushError,
    PushTimeout,
    SlipstreamError,
    SlowConsumer,
)
from slipstream_trio.ids import RandomIds
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.server import Refuse
from slipstream_trio.transport import OpenRequest

PATIENCE = 300.0
"""Virtual seconds after which something hangs."""


@frozen
class Act:
    """What somebody does: a user to a topic, or fate to the server; `after` so many seconds."""

    what: str
    topic: str = TOPICS[0]
    value: Any = None
    after: float = 0.0


@frozen
class Schedule:
    """What happens to one socket.

    Attributes:
        users: the acts of each task.
        fate: what happens to the server.
        options: of `connect`.
        cancel_at: when the body is cancelled; None: it is not.
    """

    users: list[list[Act]]
    fate: list[Act] = field(factory=list)
    options: dict[str, Any] = field(factory=dict)
    cancel_at: float | None = None


# Drawing

DELAYS = st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0, 4.0])
PUSHES = st.sampled_from(["echo", "echo", "silence", "burst", "burst", "crash", "stop", "drop", "close", "slow"])
PAYLOAD = {"n": 6, "code": 1012, "seconds": 1.2}


def _user_acts() -> st.SearchStrategy[Act]:
    topics = st.sampled_from(TOPICS)
    return st.one_of(
        st.builds(Act, st.just("join"), topics, st.sampled_from([0.5, 3.0, None]), DELAYS),
        st.builds(Act, st.just("leave"), topics, st.none(), DELAYS),
        st.builds(Act, st.just("leave_soon"), topics, st.none(), DELAYS),
        st.builds(Act, st.sampled_from(["push", "push", "send"]), topics, PUSHES, DELAYS),
        st.builds(Act, st.just("read"), topics, st.integers(1, 5), DELAYS),
        st.builds(Act, st.sampled_from(["ping", "wait_connected", "abandon"]), topics, st.none(), DELAYS),
    )


def _fate_acts() -> st.SearchStrategy[Act]:
    topics = st.sampled_from(TOPICS)
    closes = st.builds(
        Act, st.just("close"), value=st.sampled_from([1000, 1001, 1011, 1012]), after=st.sampled_from([0.0, 0.1, 2.0])
    )
    return st.one_of(
        closes,
        st.builds(Act, st.sampled_from(["drop", "eof", "deaf"]), after=DELAYS),
        st.builds(Act, st.just("refuse"), value=st.sampled_from([500, 503, 429, 500, 503, 429, 403]), after=DELAYS),
        st.builds(Act, st.just("down"), value=st.sampled_from([0.2, 3.0]), after=DELAYS),
        st.builds(
            Act, st.just("joins"), topics, st.lists(st.sampled_from(["refuse", "crash", 1.5, "die"]), max_size=4)
        ),
        st.builds(Act, st.just("kill"), topics, st.none(), DELAYS),
    )


def _seldom(value: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.none(), st.none(), st.none(), value)


def _options() -> st.SearchStrategy[dict[str, Any]]:
    patient = Backoff((0.1, 0.4, 1), jitter=0, reset_after=3)  # jitter is not Hypothesis' to draw
    return st.fixed_dictionaries(
        {
            "overflow": st.sampled_from(["raise", "drop_oldest", "drop_newest"]),
            "buffer": st.sampled_from([1, 4, 100]),
            "rejoin": st.sampled_from([patient, patient, Backoff((0,)), Backoff((0.2,), jitter=0, limit=2), None]),
            "reconnect": st.sampled_from([patient, patient, patient, Backoff((0.1,), jitter=0, limit=3), None]),
            "heartbeat_interval": st.sampled_from([2.0, 30.0, None]),
        }
    )


def schedules() -> st.SearchStrategy[Schedule]:
    """Schedules of all kinds; each user begins by joining a topic."""
    joins = st.builds(Act, st.just("join"), st.sampled_from(TOPICS))
    users = st.tuples(joins, st.lists(_user_acts(), max_size=8)).map(lambda drawn: [drawn[0], *drawn[1]])
    # A `disconnect` at the end of some user's acts, so that few schedules are cut short.
    ending = _seldom(st.builds(Act, st.just("disconnect"), after=DELAYS))
    ended = st.tuples(users, ending).map(lambda drawn: [*drawn[0], *([drawn[1]] if drawn[1] else [])])
    return st.builds(
        Schedule,
        st.lists(ended, min_size=1, max_size=3),
        st.lists(_fate_acts(), max_size=6),
        _options(),
        _seldom(st.sampled_from([0.0, 0.1, 1.0, 2.5])),
    )


# The server


class Server(World):
    """A server whose upgrades and joins fate decides about."""

    def __init__(self) -> None:
        super().__init__(timeout=20)
        self.down_until = 0.0

    def calm(self) -> None:
        self.upgrades.clear()
        self.joins.clear()
        self.down_until = 0.0

    async def _open(self, request: OpenRequest) -> trio.abc.Stream:
        if trio.current_time() < self.down_until:
            raise ConnectionRefusedError("down")
        return await super()._open(request)

    async def suffer(self, act: Act) -> None:
        await trio.sleep(act.after)
        match act.what:
            case "refuse":
                self.upgrades.append(Refuse(act.value, [("retry-after", "2")]))
            case "down":
                self.down_until = trio.current_time() + act.value
                for connection in self.server.connections:
                    connection.drop()
            case "joins":
                self.joins[act.topic].extend(act.value)
        for connection in self.server.connections:
            match act.what:
                case "close":
                    connection.close(act.value)
                case "drop":
                    connection.drop()
                case "eof":
                    await connection._stream.aclose()
                case "deaf":
                    connection.pause_reading()
                case "kill" if act.topic in connection.channels:
                    connection.channels[act.topic].stop("killed")


# The play


@frozen
class Outcome:
    """What came of a schedule: the telemetry, what is wrong, and what left the block."""

    records: list[Record] = field(factory=list)
    wrong: list[str] = field(factory=list)
    raised: list[BaseException] = field(factory=list)


class Users:
    """What the users hold: channels by topic, and those which they joined and have not left."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.channels: list[Channel] = []
        self.held: dict[int, Channel] = {}

    async def act(self, acts: list[Act]) -> None:
        """Act, as one user; errors of the library end an act, never the user."""
        mine: dict[str, Channel] = {}
        for act in acts:
            await trio.sleep(act.after)
            try:
                await self._act(mine, act)
            except (SlipstreamError, StopAsyncIteration):
                continue

    async def _act(self, mine: dict[str, Channel], act: Act) -> None:
        channel = self._channel(mine, act)
        match act.what:
            case "join":
                await channel.join(timeout=act.value or 2.0)
                self.held[id(channel)] = channel
            case "leave":
                self.held.pop(id(channel), None)
                await channel.leave()
            case "leave_soon":
                self.held.pop(id(channel), None)
                channel.leave_soon()
            case "push":
                await channel.push(act.value, PAYLOAD, timeout=2.0)
            case "send":
                with trio.move_on_after(5):
                    await channel.send(act.value, PAYLOAD)
            case "read":
                with trio.move_on_after(1):
                    await _read(channel, act.value)
            case "ping":
                with trio.move_on_after(10):  # without heartbeats, nothing limits it
                    await self.socket.ping()
            case "wait_connected":
                with trio.move_on_after(10):
                    await self.socket.wait_connected()
            case "abandon":
                with trio.move_on_after(0.2):
                    await channel.push("slow", PAYLOAD)
            case "disconnect":
                await self.socket.disconnect()

    def _channel(self, mine: dict[str, Channel], act: Act) -> Channel:
        """Return the channel to act on: of the topic, but for pushes and reads preferably one that is held."""
        held = [channel for channel in mine.values() if id(channel) in self.held]
        if act.what in ("push", "send", "read", "abandon") and held:
            return mine[act.topic] if mine.get(act.topic) in held else held[0]
        if act.topic not in mine:
            mine[act.topic] = self.socket.channel(act.topic)
            self.channels.append(mine[act.topic])
        return mine[act.topic]


async def _read(channel: Channel, count: int) -> None:
    messages = channel.stream()
    for _ in range(count):
        try:
            await anext(messages)
        except SlowConsumer:
            continue


async def follow(schedule: Schedule) -> Outcome:
    """Let a schedule happen, and return what came of it."""
    outcome = Outcome()
    server = Server()
    telemetry = Telemetry(ids=RandomIds(seed=1))
    options: dict[str, Any] = {
        "telemetry": telemetry,
        "transport": server.connector,
        "connect_timeout": 3,
        "join_timeout": 2,
        "leave_timeout": 1,
        "close_timeout": 2,
        **schedule.options,
    }
    with telemetry.listen(outcome.records.append), trio.fail_after(10 * PATIENCE):
        async with server.server.run(), trio.open_nursery() as fates:
            try:
                async with connect("ws://s/socket/websocket", **options) as socket:
                    for act in schedule.fate:
                        fates.start_soon(server.suffer, act)
                    await _use(server, socket, schedule, outcome)
            except* (ConnectionLost, ConnectError) as expected:
                outcome.raised.append(expected)
            fates.cancel_scope.cancel()
    return outcome


async def _use(server: Server, socket: Socket, schedule: Schedule, outcome: Outcome) -> None:
    users = Users(socket)
    scope = trio.CancelScope()
    if schedule.cancel_at is not None:
        scope.deadline = trio.current_time() + schedule.cancel_at
    with trio.fail_after(PATIENCE), scope:
        async with trio.open_nursery() as nursery:
            for acts in schedule.users:
                nursery.start_soon(users.act, acts)
        await trio.sleep(10)  # for what fate still has in store
        server.calm()
        for connection in server.server.connections:
            connection.resume_reading()
        await trio.sleep(60)
        outcome.wrong.extend(await _judged(server, users, schedule.options))


async def _judged(server: Server, users: Users, options: dict[str, Any]) -> list[str]:
    """Return what is not, and does not become, as it should be; without heartbeats a server may just have hung up."""
    wrong = await judge(server, users, options)
    with trio.move_on_after(10):
        while wrong:
            await trio.sleep(0.1)
            wrong = await judge(server, users, options)
    return wrong


async def judge(server: Server, users: Users, options: dict[str, Any]) -> list[str]:
    """Return what is not as it should be, now that everything is calm."""
    socket = users.socket
    if socket.status == "closed":
        # A channel that crashed, and was not to be joined again, shows that for ever.
        over = {"closed", "errored"}
        return [f"{found!r} on a closed socket" for found in users.channels if found.status not in over]
    if socket.status != "connected":
        return [f"the socket is {socket.status}"]
    connections = server.server.connections
    there = {topic: found.join_ref for topic, found in connections[-1].channels.items()} if connections else {}
    here = {channel.topic: channel.join_ref for channel in users.channels if channel.status == "joined"}
    wrong = []
    if here != there or here != dict(socket.state.joins):
        wrong.append(f"joined here {here}, there {there}, in the state {dict(socket.state.joins)}")
    wrong += [f"{found!r} is stuck" for found in users.channels if found.status in ("joining", "leaving")]
    endless = options.get("rejoin") is not None and options["rejoin"].limit is None
    final = {"closed"} if endless else {"closed", "crashed", "join_refused", "join_timeout"}
    for channel in users.held.values():
        reason = await ending_of(channel)
        if channel.status != "joined" and reason not in final:
            wrong.append(f"{channel!r} was joined and not left, but ended: {reason}")
    return wrong


async def ending_of(channel: Channel) -> str:
    """Return why a channel has ended, as a push is told."""
    try:
        await channel.push("silence", timeout=0.001)
    except (ChannelClosed, ConnectionLost, PushTimeout, PushError) as error:
        return getattr(error, "reason", "not ended")
    return "not ended"
