"""Messages a second, from a server in another process to the user's code: run `python benchmarks/hot_path.py`.

Prints medians of several runs, each of about a second. Compare ratios, not figures: machines are shared and noisy.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from slipstream_trio import Channel as ClientChannel, connect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.server import Channel, Mount, PhoenixServer, Reply

BURST = 20_000


class Bench(Channel):
    """Answers echoes, and sends bursts."""

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Reply:  # noqa: ARG002
        """Send a burst where one is asked for, and answer with the payload."""
        if event == "burst":
            for number in range(payload["count"]):
                await self.push("tick", {"number": number, "pad": payload["pad"]})
        return Reply(payload)


async def serve() -> None:
    """Be the server, and print its URL."""
    async with PhoenixServer({"/socket": Mount(channels={"bench:*": Bench})}).serve() as listening:
        print(listening.url("/socket/websocket"), flush=True)  # noqa: T201
        await trio.sleep_forever()


async def burst(channel: ClientChannel, size: int) -> int:
    """Receive a burst of messages of about `size` bytes."""
    count = min(BURST, 200_000_000 // max(size, 1) // 50)
    await channel.send("burst", {"count": count, "pad": "x" * max(0, size - 60)})
    left = count
    async for _ in channel:
        left -= 1
        if not left:
            break
    return count


async def echo(channel: ClientChannel, at_once: int, seconds: float = 1.0) -> int:
    """Push and await replies, so many at once."""
    done = 0
    until = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await channel.push("echo", {"x": 1})
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(one)
    return done


async def measure(url: str, runs: int) -> None:
    """Print a line for each scenario."""
    scenarios: list[tuple[str, Callable[[ClientChannel], Awaitable[int]]]] = [
        ("burst, 100 B", lambda channel: burst(channel, 100)),
        ("burst, 1 KiB", lambda channel: burst(channel, 1024)),
        ("burst, 64 KiB", lambda channel: burst(channel, 65536)),
        ("echo, 1 in flight", lambda channel: echo(channel, 1)),
        ("echo, 64 in flight", lambda channel: echo(channel, 64)),
    ]
    for handlers in (0, 1):
        for name, scenario in scenarios:
            telemetry = Telemetry()
            if handlers:
                telemetry.attach("nothing", (), lambda record: None, prefix=True)  # noqa: ARG005
            rates = []
            async with connect(url, telemetry=telemetry, buffer=2 * BURST) as socket, socket.join("bench:1") as channel:
                for _ in range(runs):
                    start = time.perf_counter()
                    count = await scenario(channel)
                    rates.append(count / (time.perf_counter() - start))
            rate = statistics.median(rates)
            spread = (max(rates) - min(rates)) / rate
            print(  # noqa: T201
                f"{name:20} {handlers} handlers {rate:10,.0f}/s {1e6 / rate:8.1f} µs each, spread {spread:.0%}"
            )


def main() -> None:
    """Start the server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs a scenario (default 5)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve)
        return
    with subprocess.Popen(  # noqa: S603
        [sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            trio.run(measure, server.stdout.readline().strip(), arguments.runs)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
