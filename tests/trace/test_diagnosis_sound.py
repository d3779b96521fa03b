"""Sound sessions, whatever is done in them: nothing is found."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import example, given, strategies as st
from tests.client.support import Recorder
from tests.drawing import examples
from tests.trace.incidents import SOON, ignore, takes
from tests.trace.laboratory import EPOCH, URL, Laboratory, causes, linked, recorded
from tests.trace.networks import over_network
from trio.testing import MockClock

from slipstream_trio import Channel as ClientChannel, JoinError, PushError, Socket, connect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.faults import AtFrame, Faults, Link, Rule, Stall, faulty_network
from slipstream_trio.testing.server import Channel, JoinRefused, Mount, Outcome, PhoenixServer, Reply
from slipstream_trio.trace import Finding, diagnose, read
from slipstream_trio.transport import find_connector

Action = tuple[str, Any]

PAYLOADS = st.sampled_from(
    [{}, {"text": "hello"}, {"id": 7}, {"n": 1, "m": 2}, {"typing": True, "user": 3}, {"rows": ["x" * 200] * 50}]
)
"""Of which many come again and again."""

ACTIONS = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.001, 0.05, 0.3, 1.0, 2.5, 7.0, 40.0, 130.0])),
    st.tuples(st.just("push"), PAYLOADS),
    st.tuples(st.just("pushes"), st.integers(2, 30)),
    st.tuples(st.just("refused push"), PAYLOADS),
    st.tuples(st.just("slow push"), st.sampled_from([0.2, 0.9, 1.4])),
    st.tuples(st.just("cancelled push"), st.sampled_from([0.01, 0.5])),
    st.tuples(st.just("send"), PAYLOADS),
    st.tuples(st.just("burst"), st.integers(1, 300)),
    st.tuples(st.just("alike"), st.integers(1, 30)),
    st.tuples(st.just("count"), st.integers(1, 30)),
    st.tuples(st.just("large"), st.integers(1, 3)),
    st.tuples(st.just("join"), st.sampled_from(["room:1", "room:2", "game:1", "lounge:1"])),
    st.tuples(st.just("leave"), st.none()),
    st.tuples(st.just("ping"), st.none()),
    st.tuples(st.just("reconnect"), st.none()),
)
SESSIONS = st.lists(st.lists(ACTIONS, min_size=1, max_size=25), min_size=1, max_size=3)


class Table(Channel):
    """Does as it is asked, and counts for all."""

    number = 0

    async def join(self, payload: Any) -> Any:
        if self.topic == "lounge:1":
            raise JoinRefused({"reason": "unmatched topic"})
        return {}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        many = payload.get("many", 0) if isinstance(payload, dict) else 0
        match event:
            case "send":
                return None
            case "refused push":
                return Reply({"reason": "not now"}, status="error")
            case "slow push":
                await trio.sleep(many)
            case "burst":
                for number in range(many):
                    await self.push("burst", {"text": f"{number}"})
            case "alike":
                for _ in range(many):
                    await self.push("alike", {})
            case "count":
                for _ in range(many):
                    Table.number += 1
                    await self.push("count", {"n": Table.number})
            case "large":
                await self.push("large", {"text": "x" * 200_000 * many})
        return Reply(payload)


async def act(socket: Socket, channels: list[ClientChannel], action: Action) -> None:
    """Do one thing, and await what comes of it."""
    what, much = action
    channel = channels[-1]
    match what:
        case "sleep":
            await trio.sleep(much)
        case "push":
            await channel.push("push", much)
        case "pushes":
            async with trio.open_nursery() as nursery:
                for number in range(much):
                    nursery.start_soon(channel.push, "push", {"number": number})
        case "refused push":
            with pytest.raises(PushError):
                await channel.push(what, much)
        case "cancelled push":
            with trio.move_on_after(much):
                await channel.push("slow push", {"many": much * 2})
            await trio.sleep(much * 2)
        case "send":
            await channel.send("send", much)
        case "ping":
            await socket.ping()
        case "reconnect":
            socket.reconnect()
            await socket.wait_connected()
        case "leave":
            if len(channels) > 1:
                await channels.pop().leave()
        case "join":
            if much not in {each.topic for each in channels}:
                channels += await joined(socket, much)
        case _:
            await channel.push(what, {"many": much})


async def joined(socket: Socket, topic: str) -> list[ClientChannel]:
    """Join a topic; some are refused."""
    channel = socket.channel(topic)
    try:
        await channel.join()
    except JoinError:
        await channel.leave()
        return []
    return [channel]


async def session(server: PhoenixServer, telemetry: Telemetry, actions: Sequence[Action]) -> None:
    async with AsyncExitStack() as stack:
        socket = await stack.enter_async_context(
            connect("ws://test/socket/websocket", transport=server.connector(), telemetry=telemetry)
        )
        channel = await stack.enter_async_context(socket.join("room:0"))
        channels = [channel]
        for action in actions:
            await act(socket, channels, action)


def found(sessions: Sequence[Sequence[Action]]) -> list[Finding]:
    clock = MockClock(autojump_threshold=0)

    def now() -> int:
        return round(clock.current_time() * 1e9)

    recorder = Recorder(Telemetry(time_ns=lambda: EPOCH + now(), monotonic_ns=now))

    async def main() -> None:
        mount = Mount(channels={f"{name}:*": Table for name in ("room", "game", "lounge")})
        server = PhoenixServer({"/socket": mount})
        async with server.run(), trio.open_nursery() as nursery:
            for actions in sessions:
                nursery.start_soon(session, server, recorder.bus, actions)

    trio.run(main, clock=clock)
    return diagnose(recorder.records)


@examples(25)
@given(SESSIONS)
@example([[("count", 1)], [("count", 6), ("count", 14)]])  # one counter for both, of which one has a single message
def test_nothing_is_found_in_a_sound_session(sessions: list[list[Action]]) -> None:
    assert found(sessions) == []


@pytest.mark.once
@examples(200)
@given(SESSIONS)
def test_nothing_is_found_in_many_sound_sessions(sessions: list[list[Action]]) -> None:
    assert found(sessions) == []


async def quiet(lab: Laboratory) -> None:
    async with lab.desk(), lab.desk():
        await trio.sleep(60)


@pytest.mark.once
def test_nothing_is_found_on_a_desk_where_all_goes_well(tmp_path: Any) -> None:
    assert diagnose(read(recorded(tmp_path / "desk.jsonl", quiet))) == []


def test_what_follows_a_clock_that_is_set_back_is_told_apart(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def set_back(lab: Laboratory) -> None:
        async with lab.desk(**SOON), lab.desk(**SOON):
            await trio.sleep(5)
            now = lab.telemetry.time_ns
            monkeypatch.setattr(lab.telemetry, "time_ns", lambda: now() - 3600 * 10**9)
            for number in range(4):
                await trio.sleep(7)
                lab.server.connections[number % 2].drop()
            await trio.sleep(5)

    assert "evicted" not in causes(tmp_path / "set.jsonl", set_back)


@pytest.mark.parametrize("seconds", [3600, 86400, -3600])
def test_a_clock_that_is_set_reads_as_no_pause(seconds: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def set_on(lab: Laboratory) -> None:
        options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
        async with connect(URL, heartbeat_interval=30, **options) as socket, socket.join("room:1") as room:
            await trio.sleep(4)
            now = lab.telemetry.time_ns
            monkeypatch.setattr(lab.telemetry, "time_ns", lambda: now() + seconds * 10**9)
            await room.push("load", {})  # else the machine may as well have slept, and lost the connection by that
            await trio.sleep(4)
            lab.connection.drop()
            await trio.sleep(5)

    (finding,) = diagnose(read(recorded(tmp_path / "set.jsonl", set_on)))
    assert finding.cause == "connection_cut"
    assert finding.times == (EPOCH + (max(seconds, 0) * 1000 + 8024) * 10**6,), "as the clock on the wall had it"


@pytest.mark.parametrize(("latency", "jitter"), [(1.0, 0.2), (1.2, 0.8), (2.5, 0.0)])
def test_a_slow_network_is_not_blamed_on_the_server(latency: float, jitter: float, tmp_path: Any) -> None:
    async def far_away(lab: Laboratory) -> None:
        link = Link(latency=latency, jitter=jitter)
        async with faulty_network(Faults(toward_client=link, toward_server=link)) as network:
            lab.connector = find_connector("auto", network.opener(lambda _: lab.server.open_stream()))
            options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, "connect_timeout": 20}
            async with connect(URL, **options) as socket, socket.join("room:1") as room:
                async with trio.open_nursery() as nursery:
                    for number in range(6):
                        await trio.sleep(0.7)
                        nursery.start_soon(socket.channel(f"room:{10 + number}").join)
                for number in range(12):
                    await room.push(("load", "save", "msg")[number % 3], {"number": number})

    blamed = {finding.blame for finding in diagnose(read(recorded(tmp_path / "far.jsonl", far_away)))}
    assert blamed <= {"network or proxy"}


def test_joins_on_a_network_that_varies_do_not_read_as_taking_turns(tmp_path: Any) -> None:
    async def far_away(lab: Laboratory) -> None:
        link = Link(latency=0.4, jitter=0.4)
        async with over_network(lab, toward_client=link, toward_server=link), linked(lab) as socket:
            for _number in range(16):
                channels = [socket.channel(f"room:{number}") for number in range(2)]
                async with trio.open_nursery() as nursery:
                    for channel in channels:
                        nursery.start_soon(channel.join)
                for channel in channels:
                    await channel.push("load", {})
                    await channel.leave()

    assert causes(tmp_path / "far.jsonl", far_away) == set()


def test_joins_that_nothing_shows_the_server_to_have_are_not_blamed_on_it(tmp_path: Any) -> None:
    async def stalls(lab: Laboratory) -> None:
        rule = Rule(Stall(40, both=True), AtFrame(1), "client")
        async with over_network(lab, rules=[rule]), linked(lab, close_timeout=1) as socket:
            await ignore(partial(socket.channel("room:1").join, timeout=15))

    assert causes(tmp_path / "stall.jsonl", stalls) == {"dead_link"}


def test_pushes_that_are_answered_before_the_leave_are_not_cut_off(tmp_path: Any) -> None:
    async def leaves(lab: Laboratory) -> None:
        async with linked(lab) as socket:
            for _number in range(4):
                async with trio.open_nursery() as nursery, socket.join("room:1") as room:
                    nursery.start_soon(room.push, "load", {})
                    await trio.sleep(0.01)
                await trio.sleep(2)

    assert causes(tmp_path / "leaves.jsonl", leaves) == set()


def test_an_application_that_ends_leaves_nothing_too_early(tmp_path: Any) -> None:
    async def ends(lab: Laboratory) -> None:
        lab.events["save"] = takes(0.4)
        async with over_network(lab) as network, trio.open_nursery() as nursery:
            async with linked(lab, close_timeout=3) as socket, socket.join("room:1") as room:
                for number in range(2):
                    nursery.start_soon(room.push, "save", {"number": number})
                await trio.sleep(0.1)
                await room.leave()
                network.inject(Stall(40, both=True))

    assert causes(tmp_path / "ends.jsonl", ends) == set()


def test_a_cut_soon_after_a_deployment_is_none_of_it(tmp_path: Any) -> None:
    async def deploy(lab: Laboratory) -> None:
        async with linked(lab, **SOON) as socket, socket.join("room:1"):
            await trio.sleep(20)
            lab.connection.close(1012)
            await trio.sleep(6)
            lab.connection.drop()
            await trio.sleep(20)

    assert causes(tmp_path / "deploy.jsonl", deploy) == {"connection_cut"}


def test_what_cancels_many_pushes_at_once_is_no_limit_of_each(tmp_path: Any) -> None:
    async def gives_up(lab: Laboratory) -> None:
        lab.events["load"] = takes(0, None)
        async with linked(lab) as socket, socket.join("room:1") as room:
            with trio.move_on_after(2):
                async with trio.open_nursery() as nursery:
                    for event in ("load", "load", "load", "msg"):
                        nursery.start_soon(room.push, event, {"text": "hello"})
            await trio.sleep(5)

    assert causes(tmp_path / "once.jsonl", gives_up) == set()


@pytest.mark.parametrize(("held", "found"), [(True, set()), (False, {"never_answered"})])
def test_a_server_is_blamed_for_no_answer_only_if_it_got_the_push(held: bool, found: set[str], tmp_path: Any) -> None:
    async def unanswered(lab: Laboratory) -> None:
        lab.events["typing"] = takes(0, None)
        options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, "heartbeat_interval": 30}
        async with connect(URL, **options) as socket, socket.join("room:1") as room:
            await room.push("load", {})
            if held:
                lab.connection.pause_reading()
            await ignore(lambda: room.push("typing", {}, timeout=3))
            if not held:
                await room.push("load", {})

    assert causes(tmp_path / "one.jsonl", unanswered) == found


@pytest.mark.parametrize(
    ("code", "sockets", "after", "down", "asks", "found"),
    [
        (1012, 1, 50, 0, False, set()),
        (1012, 3, 50, 0, False, set()),
        (1012, 2, 50, 4, False, set()),
        (1001, 2, 50, 0, False, set()),
        (1001, 1, 50, 0, False, set()),
        (1001, 1, 89.7, 0, False, set()),  # just before the next heartbeat
        (1012, 2, 50, 20, False, {"server_restart"}),
        (1012, 2, 50, 0, True, {"server_restart"}),
    ],
)
def test_a_deployment_that_costs_nothing_is_noise(
    code: int, sockets: int, after: float, down: int, asks: bool, found: set[str], tmp_path: Any
) -> None:
    async def deploy(lab: Laboratory) -> None:
        lab.events["save"] = takes(2)
        options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **SOON}
        async with AsyncExitStack() as stack:
            rooms = []
            for number in range(sockets):
                socket = await stack.enter_async_context(connect(URL, heartbeat_interval=30, **options))
                rooms.append(await stack.enter_async_context(socket.join(f"room:{number}")))
                await rooms[-1].push("load", {})
            await trio.sleep(after)
            nursery = await stack.enter_async_context(trio.open_nursery())
            if asks:
                nursery.start_soon(ignore, partial(rooms[0].push, "save", {}))
                await trio.sleep(0.1)
            lab.down = down > 0
            for connection in list(lab.server.connections):
                connection.close(code)
                await trio.sleep(0.7)
            await trio.sleep(down)
            lab.down = False
            await trio.sleep(20)
            for room in rooms:
                await room.push("load", {})

    assert causes(tmp_path / "deploy.jsonl", deploy) == found


@pytest.mark.parametrize("payloads", ["keep", "omit", "size"])
@pytest.mark.parametrize("up", [True, False])
def test_no_handler_is_blamed_for_what_is_large(up: bool, payloads: Any, tmp_path: Any) -> None:
    async def alone(lab: Laboratory) -> None:
        lab.events["document"] = takes(0, Reply({} if up else {"text": "y" * 250_000}))
        thin = Link(latency=0.02, bandwidth=100_000)
        async with faulty_network(Faults(toward_server=thin, toward_client=thin)) as network:
            lab.connector = find_connector("auto", network.opener(lambda _: lab.server.open_stream()))
            options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry}
            async with connect(URL, **options) as socket, socket.join("room:1") as room:
                for _number in range(5):
                    await trio.sleep(2)
                    await room.push("load", {})
                    await room.push("document", {"text": "y" * 250_000} if up else {"id": 7}, timeout=20)

    path = recorded(tmp_path / "large.jsonl", alone, payloads=payloads)
    found = {(finding.cause, finding.blame) for finding in diagnose(read(path))}
    assert found == ({("large_message", "network or proxy")} if payloads == "keep" and not up else set())
