"""What the tests of recordings stand on: connections on which much happens, and recordings of them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import trio
from tests.client.support import Recorder, scripted
from trio.testing import MockClock

from slipstream_trio.telemetry import Telemetry
from slipstream_trio.trace import Recorded, read
from slipstream_trio.trace.encode import Encoder
from slipstream_trio.trace.redact import Redactor
from slipstream_trio.trace.schema import end_line, header_line

Records = list[Any]

REDACTOR = Redactor()


async def eventful(telemetry: Telemetry, *, connections: int = 2, **options: Any) -> None:
    """Live through joins, pushes, text and binary messages, bad frames, crashes, pings and leaves."""
    for number in range(connections):
        async with scripted(telemetry=telemetry, **options) as (socket, peer):
            channel = socket.channel("room")
            for _ in range(2):
                async with socket.join("room", {"name": "grace", "number": number}) as joined:
                    peer.message("room", "event", {"text": 'a "quoted" ümlaut \u2028', "big": 2**70, "small": 1e-9})
                    peer.feed("[", b"\x02\x04\x04roomdata\x00\xff", b"", '[null,null,"other","event",{}]')
                    await joined.push("echo", {"deep": [{"er": [None, True, 1.5]}]})
                    await joined.send("blob", b"\x00\x01\xff")
                    await socket.ping()
            await channel.join()
            peer.end_channel("room", "phx_error")
            await trio.testing.wait_all_tasks_blocked()
            await channel.join()


def run(scenario: Callable[[Telemetry], Any], telemetry: Telemetry) -> None:
    """Run a scenario in virtual time."""
    trio.run(lambda: scenario(telemetry), clock=MockClock(autojump_threshold=0))


def live_records(scenario: Callable[[Telemetry], Any] = eventful) -> Records:
    """Return the records of a scenario, as they are."""
    recorder = Recorder()
    run(scenario, recorder.bus)
    return recorder.records


def encoded(records: Iterable[Any], *, redactor: Redactor | None = None, end: bool = True) -> list[bytes]:
    """Return the lines of a recording of these records, each with its line feed."""
    encoder = Encoder(redactor or REDACTOR)
    lines = [header_line("4" * 16, 1, 0, encoder.redactor.redacted, [])]
    lines += [encoder.encode(record) for record in records]
    return [*lines, end_line(len(lines) - 1, 0, encoder.alive)] if end else lines


def written(path: Path, lines: Iterable[bytes]) -> Path:
    """Write lines into a file."""
    path.write_bytes(b"".join(lines))
    return path


def back(path: Path, records: Iterable[Any], **options: Any) -> list[Recorded]:
    """Return what records are, once they were written and read."""
    return list(read(written(path, encoded(records, **options))))


def values(line: bytes) -> Any:
    """Return what a line says, as JSON."""
    return json.loads(line)
