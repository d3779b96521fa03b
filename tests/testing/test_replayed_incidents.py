"""Recordings of real servers, made by other versions, played to whoever sends what their clients sent."""

import math
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from slipstream_trio import Channel, ConnectError, ConnectionLost, connect
from slipstream_trio.testing import ReplayDifference, Replayed, replayed
from slipstream_trio.trace import read
from slipstream_trio.transport import OpenRequest, Transport, TransportEnded

INCIDENTS = Path(__file__).parents[1] / "fixtures" / "incidents"

Life = list[tuple[float, Any]]
"""When a recorded connection did what: sent a frame, or closed (a code)."""


def lives(path: Path) -> Iterator[Life]:
    """Give what the client did on each connection of a recording, and when."""
    found: dict[str | None, Life] = {}
    began: dict[str | None, int] = {}
    for record in read(path):
        if record.name[1:] == ("connection", "connect", "start"):
            found[record.connection_id] = []
        elif record.name[1:] == ("connection", "handle", "stop"):
            began.setdefault(record.connection_id, record.monotonic_time)
            at = (record.monotonic_time - began[record.connection_id]) / 1e9
            for effect in record.metadata["return"]:
                found[record.connection_id].append((at, getattr(effect, "frame", None) or effect.code))
    return iter(found.values())


async def parrot(server: Replayed, path: Path) -> None:
    """Do what the recorded client did, frame by frame."""
    for life in lives(path):
        woken, waking = trio.open_memory_channel[None](math.inf)
        request = OpenRequest(url=f"{server.url}?vsn=2.0.0")
        with suppress(ConnectError):
            async with server.connector().open(request, lambda: woken.send_nowait(None)) as transport:  # noqa: B023
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write, transport, life)
                    nursery.start_soon(write_controls, transport, waking)
                    with suppress(TransportEnded):
                        while True:
                            await transport.receive()
                    nursery.cancel_scope.cancel()


async def write(transport: Transport, life: Life) -> None:
    opened = trio.current_time()
    for at, what in life:
        await trio.sleep_until(opened + at)
        with suppress(TransportEnded):
            await (transport.close(what, "") if isinstance(what, int) else transport.send([what]))


async def write_controls(transport: Transport, woken: trio.MemoryReceiveChannel[None]) -> None:
    with suppress(TransportEnded):
        async for _ in woken:
            await transport.send([])


@pytest.mark.once
@pytest.mark.parametrize("number", ["01", "06", "15", "16"])
async def test_the_same_frames_agree(number: str, autojump_clock: MockClock) -> None:
    path = INCIDENTS / f"{number}.jsonl.gz"
    async with replayed(path) as server:
        await parrot(server, path)
    assert server.played > 300
    assert [sentence for sentence in server.unknown if "schema 1.0" not in sentence] == []


class OrderDesk:
    """The mended application of incident 16: it knows which orders the server may have got when it was killed.

    Attributes:
        placed: the orders that the server has confirmed.
        uncertain: the orders that were sent, and lost their answer with the connection.
    """

    def __init__(self) -> None:
        self.placed: list[str] = []
        self.uncertain: list[str] = []

    async def run(self, url: str, skus: list[str], **options: Any) -> None:
        """Place orders; each when the desk has announced the one before."""
        with suppress(ConnectionLost):
            async with connect(url, reconnect=None, **options) as socket:
                async with socket.join("orders:desk", {"user": "mira"}) as desk, trio.open_nursery() as nursery:
                    async with desk.subscribe("order") as announced:
                        for sku in skus:
                            nursery.start_soon(self._place, desk, sku)
                            await anext(aiter(announced))

    async def _place(self, desk: Channel, sku: str) -> None:
        try:
            await desk.push("place", {"sku": sku, "qty": 1})
            self.placed.append(sku)
        except ConnectionLost as lost:
            if lost.sent:
                self.uncertain.append(sku)


def orders_of_16() -> AbstractAsyncContextManager[Replayed]:
    """Replay the orders up to the server's death; the mended application pauses less between them."""
    return replayed(INCIDENTS / "16.jsonl.gz", connection="6f9e", topics=["orders:*"], ahead=2)


SKUS = [f"S-{number}" for number in range(201, 269)]


async def test_orders_without_an_answer_are_uncertain_when_the_server_is_killed(autojump_clock: MockClock) -> None:
    desk = OrderDesk()
    async with orders_of_16() as server:
        await desk.run(server.url, SKUS, transport=server.connector())
    assert sorted(desk.placed) == SKUS[:-3]
    assert sorted(desk.uncertain) == ["S-266", "S-267", "S-268"]


async def test_an_order_too_many_is_told(autojump_clock: MockClock) -> None:
    with pytest.raises(ReplayDifference) as caught:
        async with orders_of_16() as server:
            await OrderDesk().run(server.url, [*SKUS[:9], "S-209", *SKUS[9:]], transport=server.connector())
    assert caught.value.problem == "its payload['sku'] is 'S-209', not 'S-210'"
