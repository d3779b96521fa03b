"""A soak: many clients on a bad network for a long time, in real time over TCP, or in virtual time in memory."""

import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import trio
from attrs import frozen
from tests.soak.figures import Figures, Watch, held
from tests.soak.guests import Guest, numbered

from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.faults import (
    AtByte,
    Corrupt,
    EachByte,
    EachFrame,
    Faults,
    FaultyNetwork,
    Ignore,
    Link,
    Refuse,
    Reset,
    Rule,
    SlowOpening,
    Stall,
    Truncate,
    Vanish,
    faulty_network,
)
from slipstream_trio.testing.server import Channel, Mount, Outcome, PhoenixServer, Reply
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

__all__ = ["Plan", "soak"]

PATH = "/socket/websocket"
HALLS = 50


@frozen
class Plan:
    """What to do.

    Attributes:
        clients: how many; every tenth is on a network that damages bytes.
        seconds: how long, by Trio's clock.
        pace: how many seconds one second of a client's life takes: with more, the same happens in more time.
        real: whether by TCP, through the proxy; else in memory.
        seed: of the faults.
    """

    clients: int
    seconds: float
    pace: float
    real: bool
    seed: int = 1


def bad_network(seed: int, pace: float, *, damaging: bool) -> Faults:
    """Return what is wrong with the network."""
    rules = [
        Rule(SlowOpening(0.2 * pace, jitter=pace), chance=0.1),
        Rule(Refuse(), chance=0.05),
        Rule(Ignore(), chance=0.02),
        Rule(Stall(), AtByte(100), chance=0.01),
        Rule(Reset(), AtByte(50), chance=0.01),
        *(
            Rule(fault, EachFrame(probability), toward)
            for toward in ("client", "server")
            for fault, probability in (
                (Reset(), 0.004),
                (Truncate(), 0.002),
                (Vanish(), 0.002),
                (Vanish(both=False), 0.001),
                (Stall(3 * pace), 0.005),
                (Stall(20 * pace, both=True), 0.002),
            )
        ),
    ]
    if damaging:
        for toward in ("client", "server"):
            rules += [Rule(Corrupt(), EachByte(0.00005), toward)]
    link = Link(latency=0.005 * pace, jitter=0.02 * pace, bandwidth=200_000)
    return Faults(seed, toward_client=link, toward_server=link, rules=rules)


class Hall(Channel):
    """Broadcasts numbers; the counter goes on whoever is there."""

    def __init__(self, counters: dict[str, int]) -> None:
        self._counters = counters

    async def join(self, payload: Any) -> Any:
        return {"next": self._counters.get(self.topic, 0)}

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        if event == "mark":
            return Reply({"next": self._counters.get(self.topic, 0)})
        if event == "crash":
            raise RuntimeError("told to crash")
        return Reply(payload)


class _Soak:
    def __init__(self, plan: Plan, report: Callable[[str], None]) -> None:
        self.plan = plan
        self.report = report
        self.figures = Figures()
        self.watch = Watch(self.figures)
        self.counters: dict[str, int] = {}
        mount = Mount(channels={"hall:*": lambda: Hall(self.counters)}, timeout=15 * plan.pace)
        self.server = PhoenixServer({"/socket": mount}, close_timeout=plan.pace, keep_received=1)
        self.networks: list[FaultyNetwork] = []
        self.guests: list[Guest] = []

    async def run(self) -> Figures:
        figures, plan = self.figures, self.plan
        figures.before = held()
        telemetry = Telemetry()
        telemetry.attach("watch", (), self.watch, prefix=True)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.server.run())
            for damaging in (False, True):
                faults = bad_network(plan.seed, plan.pace, damaging=damaging)
                self.networks.append(await stack.enter_async_context(faulty_network(faults)))
            port = (await stack.enter_async_context(self.server.serve())).port if plan.real else 0
            for number in range(plan.clients):
                self.guests.append(await self._guest(number, telemetry, port))
            await self._work()
        await trio.sleep(plan.pace)
        for network in self.networks:
            figures.counts["faults injected"] += network.log.counts.total()
            figures.counts.update({f"fault {name}": count for name, count in network.log.counts.items()})
        if self.watch.open:
            figures.fail(f"{self.watch.open} connections have no end")
        self.guests.clear()
        self.networks.clear()
        figures.after = held()
        return figures

    async def _guest(self, number: int, telemetry: Telemetry, port: int) -> Guest:
        damaging = number % 10 == 9
        network = self.networks[damaging]
        name = f"guest-{number}"
        options: dict[str, Any] = {"telemetry": telemetry}
        url = f"ws://server{PATH}"
        if self.plan.real:
            url = (await network.listen("127.0.0.1", port, name=name)).url(PATH)
        else:
            opener = network.opener(lambda _: self.server.open_stream(), name=name)
            options["transport"] = TrioWebSocketConnector(opener)
        return Guest(number, url, self.figures, pace=self.plan.pace, options=options, strict=not damaging)

    async def _work(self) -> None:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as guests:
                for guest in self.guests:
                    guests.start_soon(guest.live)
                for hall in range(HALLS):
                    nursery.start_soon(self._broadcast, f"hall:{hall}")
                nursery.start_soon(self._progress)
                await trio.sleep(self.plan.seconds / 3)
                self.figures.warm = held()
                await trio.sleep(self.plan.seconds * 2 / 3)
                self.figures.last = held()
                self.report("quiet: everybody leaves")
                for network in self.networks:
                    network.quiet()
                    network.heal()
                for guest in self.guests:
                    guest.end()
                guests.cancel_scope.deadline = trio.current_time() + 300 * self.plan.pace
            if guests.cancel_scope.cancelled_caught:
                self.figures.fail("clients hang: not all of them left")
            nursery.cancel_scope.cancel()

    async def _broadcast(self, topic: str) -> None:
        while True:
            await trio.sleep(self.plan.pace)
            number = self.counters.get(topic, 0)
            self.counters[topic] = number + 1
            await self.server.broadcast(topic, "number", numbered(number))

    async def _progress(self) -> None:
        began, real = trio.current_time(), time.monotonic()
        while True:
            await trio.sleep(max(10.0, self.plan.seconds / 40))
            passed, counts, now = trio.current_time() - began, self.figures.counts, held(tidy=False)
            faults = sum(network.log.counts.total() for network in self.networks)
            self.report(
                f"{passed:9,.0f} s ({time.monotonic() - real:5.0f} s real): {counts['connections']} connections ended, "
                f"{counts['received']} messages, {faults} faults, {counts['lost and announced']} lost and announced, "
                f"{counts['lost in silence']} in silence, {now.resident / 2**20:.1f} MiB, {now.blocks} blocks, "
                f"{now.tasks} tasks"
            )


async def soak(plan: Plan, report: Callable[[str], None]) -> Figures:
    """Do it, and return what came of it; progress is reported in lines."""
    logging.getLogger("slipstream_trio").setLevel(logging.CRITICAL)
    logging.getLogger("trio-websocket").setLevel(logging.CRITICAL)
    return await _Soak(plan, report).run()
