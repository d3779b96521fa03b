"""Makes the corpus from the recordings of real servers: `python -m fuzz.seed FOLDER`.

The folder gets one folder for each target: every frame that a server sent, and every connection as a script. Minimise
what it holds into `fuzz/corpus` with `python -m fuzz.run TARGET -merge=1 fuzz/corpus/TARGET FOLDER/TARGET`.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fuzz.scripts import write_options, write_step
from tests.protocol import recordings, wire
from tests.protocol.recordings import Record

from slipstream_trio.protocol import Frame

LARGEST: Final = 2_000
"""Bytes of a frame; larger ones tell a fuzzer nothing more."""


def main(folder: Path) -> None:
    """Write the seeds of both targets."""
    for target, seeds in (("serializers", frames()), ("core", scripts())):
        path = folder / target
        path.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            (path / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
        sys.stdout.write(f"{target}: {len(list(path.iterdir()))} seeds in {path}\n")


def frames() -> Iterator[bytes]:
    """Yield every frame that was recorded, from either side."""
    for name in recordings.NAMES:
        vsns: dict[str, str] = {}
        for record in recordings.read(name):
            if record.dir == "open":
                vsns[record.connection] = record.vsn
            elif record.dir in ("send", "recv"):
                data = (
                    record.frame if isinstance(record.frame, bytes) else record.frame.encode("utf-8", "surrogatepass")
                )
                v1 = vsns[record.connection].startswith("1.")
                if len(data) <= LARGEST:
                    yield bytes([v1 + 2 * isinstance(record.frame, bytes)]) + data


def scripts() -> Iterator[bytes]:
    """Yield every connection that was recorded."""
    for name in recordings.NAMES:
        scripts: dict[str, bytearray] = {}
        for record in recordings.read(name):
            if record.dir == "open":
                scripts[record.connection] = bytearray(write_options("1.0.0" if record.vsn[0] == "1" else "2.0.0"))
            elif record.dir != "note" and len(scripts[record.connection]) < LARGEST:
                scripts[record.connection] += step_of(record)
        yield from map(bytes, scripts.values())


def step_of(record: Record) -> bytes:
    """Return the step that does what was recorded; nothing where no step does."""
    if record.dir == "close":
        return write_step("transport_closed", 6 if record.data["code"] == 1006 else 0)
    frame = record.frame
    if len(frame) > LARGEST:
        return b""
    if record.dir == "recv":
        return write_step("binary" if isinstance(frame, bytes) else "text", frame)
    return command_of(frame)


def command_of(frame: Frame) -> bytes:
    """Return the step that sends about what a recorded client sent; nothing where no command does."""
    try:
        message = wire.parse(frame)
    except (ValueError, TypeError, KeyError, AssertionError):
        return b""
    topic: object = message.topic  # numbers were sent, too
    if not isinstance(topic, str) or len(topic.encode()) > 255:
        return b""
    match message.event:
        case "phx_join":
            return write_step("join", topic, 0, 0)
        case "phx_leave":
            return write_step("leave", topic, 0)
        case "heartbeat":
            return write_step("beat")
    return write_step("push", topic, 6 if isinstance(frame, bytes) else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
