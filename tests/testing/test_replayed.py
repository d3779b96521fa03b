"""Recordings played to clients: the client that made one agrees with it, and a changed one is told apart."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionLost, JoinError, PushError, PushTimeout, connect, trace
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing import ReplayDifference, Replayed, replayed
from slipstream_trio.testing.server import Channel, JoinRefused, Mount, PhoenixServer, Reply

FAST = Backoff((0.2,), jitter=0)

Program = Callable[..., Awaitable[None]]


class Room(Channel):
    """Greets, answers in several ways, and ticks."""

    async def join(self, payload: Any) -> Any:
        if payload.get("name") == "eve":
            raise JoinRefused({"reason": "unauthorized"})
        if payload.get("name") == "slow":
            await trio.sleep(20)
        self.spawn(self._tick)
        return {"name": payload.get("name")}

    async def _tick(self) -> None:
        await trio.sleep(1)
        await self.push("ready", {})
        for number in range(5):
            await trio.sleep(1)
            await self.push("tick", {"number": number})

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Any:
        match event:
            case "echo":
                await trio.sleep(0.1)
                return Reply(payload)
            case "fail":
                return Reply({"reason": "no"}, "error")
            case "never":
                return None
            case "late":
                await trio.sleep(5)
                return Reply({})
            case "crash":
                raise RuntimeError("as told")
            case "drop":
                self.socket.drop()
            case "close":
                self.socket.close(4001, "as told")
        return None


class Lobby(Channel):
    """Tracks who is there."""

    async def join(self, payload: Any) -> Any:
        self.name = payload["name"]
        return {}

    async def after_join(self) -> None:
        await self.push("presence_state", self.presence.list())
        self.presence.track(self.name, {"online": True})
        await trio.sleep(1)
        self.presence.track("bob", {"online": False})


# Programs: each is a client with a behaviour, and takes what to connect to, and how.


async def talks(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket:
        async with socket.join("room:1", {"name": "ada"}) as one, socket.join("room:2", {"name": "ada"}) as two:
            await one.push("echo", {"body": "hi", "n": [1, 2.5, None]})
            async with one.subscribe("tick") as ticks:
                await two.push("echo", {"body": "ho"})
                await one.send("typing", {})
                assert (await anext(aiter(ticks))).payload == {"number": 0}
            await two.send("done", {"number": 0})


async def sends_bytes(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket, socket.join("room:1") as channel:
        assert await channel.push("echo", b"\x00\xff") == b"\x00\xff"
        await channel.send("blob", b"")


async def is_refused(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket:
        with pytest.raises(JoinError) as caught:
            await socket.channel("room:1", {"name": "eve"}).join()
        assert caught.value.response == {"reason": "unauthorized"}
        async with socket.join("room:1", {"name": "ada"}) as channel:
            with pytest.raises(PushError):
                await channel.push("fail", {})


async def loses_patience(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket, socket.join("room:1") as channel:
        for event in ("never", "late"):
            with pytest.raises(PushTimeout):
                await channel.push(event, {}, timeout=3)
        await trio.sleep(10)
        await channel.push("echo", {})


async def meets(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket, socket.join("lobby:1", {"name": "ada"}) as channel:
        async with channel.presence() as presence:
            async for _ in presence:
                if "bob" in presence:
                    break
            await channel.send("seen", {"names": list(presence)})


async def comes_back(url: str, **options: Any) -> None:
    async with connect(url, reconnect=FAST, rejoin=FAST, **options) as socket:
        async with socket.join("room:1", {"name": "ada"}) as channel:
            for event in ("drop", "close"):
                with pytest.raises(ConnectionLost) as lost:
                    await channel.push(event, {"generation": socket.generation})
                assert lost.value.code == {"drop": 1006, "close": 4001}[event]
                await channel.push("echo", {"after": event, "message": lost.value.message})
            await channel.send("crash", {})
            await trio.sleep(1)
            await channel.push("echo", {"after": "crash"})


async def idles(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket:
        await trio.sleep(100)
        await socket.ping()
        channel = socket.channel("room:1", {"name": "slow"})
        await channel.join(timeout=60)
        await channel.leave()
        await channel.join(timeout=60)
        await trio.sleep(3600)
        await channel.send("still here", {})
        await trio.sleep(100)


async def orders(url: str, change: str = "", **options: Any) -> None:
    """Place some orders; `change` names a deviation from what the recorded program does."""
    async with connect(url, **options) as socket:
        if change == "connects in vain":
            await socket.disconnect()
            return
        shop = socket.channel("room:1", {"name": "ada" if change != "join params" else "bob"})
        await shop.join()
        if change == "joins more":
            await socket.channel("room:3").join()
        ready = aiter(shop)
        other = socket.channel("room:2", {"name": "ada"})
        await other.join()
        if change != "too early":
            await anext(ready)
        sku, event = ("S-2", "echo") if change != "payload" else ("S-3", "echo")
        first, second = (shop, other) if change != "topic" else (other, shop)
        if change == "order":
            await shop.send("note", {"number": 2})
            await shop.send("note", {"number": 1})
        else:
            await shop.send("note", {"number": 1})
            await shop.send("note", {"number": 2})
        await first.push(event if change != "event" else "other", {"sku": sku}, timeout=5)
        if change != "missing push":
            await second.push("echo", {"sku": "S-9"})
        if change == "extra push":
            await second.push("echo", {"sku": "S-10"})
        if change != "no leave":
            await other.leave()
        if change == "disconnects too early":
            return
        while (await anext(ready)).payload.get("number") != 4:
            pass
        if change == "stays":
            await trio.sleep(1000)


PROGRAMS: list[Program] = [talks, sends_bytes, is_refused, loses_patience, meets, comes_back, idles, orders]


def virtual() -> int:
    return round(trio.current_time() * 1e9)


async def recorded(
    program: Program,
    path: Path,
    *,
    connected: Any = lambda _: None,
    clock: Callable[[], int] = virtual,
    **how: Any,
) -> Path:
    """Record what a program does with a server; the telemetry's clock may be a real one all the same."""
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room, "lobby:*": Lobby}, connect=connected)})
    bus = Telemetry(monotonic_ns=clock)
    with trace.record(path, telemetry=bus, **how):
        async with server.run():
            await program("ws://any/socket/websocket", transport=server.connector(), telemetry=bus)
    return path


async def replay(path: Path, program: Program, **options: Any) -> Replayed:
    async with replayed(path, **options) as server:
        await program(server.url, transport=server.connector())
    return server


@pytest.mark.parametrize("clock", [virtual, pytest.param(time.monotonic_ns, marks=pytest.mark.once)])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
async def test_the_client_that_made_a_recording_agrees_with_it(
    program: Program, clock: Callable[[], int], tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = await recorded(program, tmp_path / "a.jsonl.gz", clock=clock)
    server = await replay(path, program)
    assert server.difference is None
    assert server.played > 0
    assert server.unknown == []


CHANGES = {
    "payload": "its payload['sku'] is 'S-3', not 'S-2'",
    "missing push": "its event is 'phx_leave', not 'echo'",
    "extra push": "its event is 'echo', not 'phx_leave'",
    "order": "its payload['number'] is 2, not 1",
    "topic": "its topic is 'room:2', not 'room:1'",
    "event": "its event is 'other', not 'echo'",
    "no leave": "it did not come within 60 s",
    "join params": "its payload['name'] is 'bob', not 'ada'",
    "joins more": "its topic is 'room:3', not 'room:2'",
    "too early": "it came 1.000 s before ready room:",
    "disconnects too early": "s before tick room:1",
    "stays": "it did not come within 60 s",
    "connects in vain": "then the client did not close it here",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_client_is_told_apart(change: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(orders, tmp_path / "a.jsonl")
    with pytest.raises(ReplayDifference) as caught:
        await replay(path, lambda url, **options: orders(url, change, **options))
    assert CHANGES[change] in caught.value.problem
