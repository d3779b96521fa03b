"""Let Autobahn's fuzzing server test our transports: `python tests/autobahn/run.py …/bin/wstest`.

It prints how many cases behaved how, and fails where one failed, or, on the fast transport, was not strict.
`nox -s autobahn` installs the server, which needs Python 2.7, and runs this.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from slipstream_trio.transport import Connector, Frame, OpenRequest, TransportEnded, find_connector

GOOD = frozenset({"OK", "INFORMATIONAL"})
FINE = {"websockets": GOOD, "trio_websocket": GOOD | {"NON-STRICT"}}


async def echo(connector: Connector, url: str, *, compression: bool = False) -> list[Frame]:
    """Send back all that comes until the server ends it; return the first messages."""
    request = OpenRequest(url=url, max_message_size=2**26, compression=compression)
    received: list[Frame] = []
    news, writing = trio.lowlevel.ParkingLot(), trio.Lock()

    def wake() -> None:
        news.unpark_all()

    async with connector.open(request, wake) as transport, trio.open_nursery() as nursery:

        async def send(frames: Sequence[Frame]) -> None:
            async with writing:
                await transport.send(frames)

        async def answer() -> None:
            """Write the control frames, as the writer of a connection does."""
            with suppress(TransportEnded):
                while True:
                    await news.park()
                    await send([])

        nursery.start_soon(answer)
        with suppress(TransportEnded):
            while True:
                frames = await transport.receive()
                received += frames[:1]
                await send(frames)
        await send([])
        nursery.cancel_scope.cancel()
    return received


async def all_cases(base: str, agent: str, transport: str, *, compression: bool) -> None:
    connector = find_connector(transport)

    async def visit(path: str) -> list[Frame]:
        with trio.move_on_after(300):
            return await echo(connector, f"{base}/{path}agent={agent}", compression=compression)
        return []

    count = int((await visit("getCaseCount?"))[0])
    for case in range(1, count + 1):
        await visit(f"runCase?case={case}&")
    await visit("updateReports?")


def behaviours(outdir: Path, agent: str) -> dict[str, str]:
    """Return the behaviour in each case; that of the close counts where it failed."""
    results: dict[str, Any] = json.loads((outdir / "index.json").read_text())[agent]
    closes = {case: result["behaviorClose"] for case, result in results.items()}
    return {
        case: result["behavior"] if closes[case] in GOOD else f"{closes[case]} close"
        for case, result in results.items()
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def reachable(port: int) -> None:
    for _ in range(100):
        try:
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        except OSError:
            await trio.sleep(0.2)
        else:
            return
    raise SystemExit("the fuzzing server does not listen")


def run(wstest: str, transport: str, cases: list[str], *, compression: bool) -> bool:
    """Run the cases on a transport; return whether all are fine."""
    port, agent = free_port(), f"{transport}{'+deflate' * compression}"
    with tempfile.TemporaryDirectory() as folder:
        outdir = Path(folder)
        spec: dict[str, Any] = {
            "url": f"ws://127.0.0.1:{port}",
            "outdir": folder,
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (outdir / "spec.json").write_text(json.dumps(spec))
        server = subprocess.Popen(
            [wstest, "-m", "fuzzingserver", "-s", str(outdir / "spec.json"), "-u", "0"],  # its web port is fixed
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            trio.run(reachable, port)
            url = f"ws://127.0.0.1:{port}"
            trio.run(lambda: all_cases(url, agent.replace("+", "%2B"), transport, compression=compression))
            found = behaviours(outdir, agent)
        finally:
            server.terminate()
            server.wait()
    odd = {case: behaviour for case, behaviour in found.items() if behaviour not in GOOD}
    sys.stdout.write(f"{agent} {' '.join(cases)}: {dict(Counter(found.values()))} {odd or ''}\n")
    sys.stdout.flush()
    return set(found.values()) <= FINE[transport]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wstest", help="the program of autobahntestsuite")
    parser.add_argument("--cases", nargs="*", help="such as 6.4.*; by default all that a transport is meant to do")
    parser.add_argument("--transport", choices=FINE, nargs="*", default=list(FINE))
    arguments = parser.parse_args()
    plain = arguments.cases or [f"{section}.*" for section in range(1, 11)]
    deflate = arguments.cases or ["12.*", "13.*"]
    fine = [run(arguments.wstest, transport, plain, compression=False) for transport in arguments.transport]
    if "websockets" in arguments.transport and not arguments.cases:
        fine.append(run(arguments.wstest, "websockets", deflate, compression=True))
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
