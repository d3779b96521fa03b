"""A server to be killed: `python restarting.py PORT LOG`; says when it listens, and notes every push it handles.

SIGTERM stops it as Phoenix stops.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import trio

from slipstream_trio.testing.server import Channel, Mount, PhoenixServer, Reply


class Noting(Channel):
    """Notes each push, then answers after a moment, so that there are always some in flight."""

    log: Path

    async def handle_in(self, event: str, payload: Any, ref: Any) -> None:
        with self.log.open("a") as log:
            log.write(f"{payload}\n")
        self.spawn(self._answer, ref, payload)

    async def _answer(self, ref: Any, payload: Any) -> None:
        await trio.sleep(0.01)
        await self.reply(ref, Reply(payload).response)


async def main(port: int, log: Path) -> None:
    Noting.log = log
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Noting})}, close_timeout=0.5)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with server.serve(port=port):
            sys.stdout.write("listening\n")
            sys.stdout.flush()
            async for _ in signals:
                await server.stop()
                break


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), Path(sys.argv[2]))
