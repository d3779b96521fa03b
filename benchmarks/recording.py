"""What recording costs, and what it bears: run `python benchmarks/recording.py`.

Three measures, each printed with its medians. Compare ratios, not figures: machines are shared and noisy.

* `cost`: a received message and a push through the core, with nothing attached, with a handler that does nothing, and
  with a recording; the three in turn, so that the noise of the machine hits them alike.
* `rate`: messages at a fixed rate, and as fast as they come, and how many of their records were lost.
* `read`: a recording of a million records (`--records`) is read, verified, shown, counted, diagnosed and exported,
  each in a process of its own, with msgspec and without: lines a second of CPU, and memory.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

if "--child" in sys.argv and "json" in sys.argv:
    sys.modules["msgspec"] = None  # type: ignore[assignment] # as if it were not installed

from slipstream_trio import ConnectionLost
from slipstream_trio.ids import RandomIds
from slipstream_trio.protocol import (
    FrameReceived,
    Input,
    JoinTopic,
    Options,
    PushMessage,
    State,
    TransportClosed,
    TransportOpened,
    V2Serializer,
    handle,
    is_plain,
)
from slipstream_trio.telemetry import ClientPushStart, ClientPushStop, Origin, Telemetry
from slipstream_trio.telemetry.span import ConnectionSpans
from slipstream_trio.trace import check, read, record

BATCH = 2000
SERIALIZER = V2Serializer()
MESSAGE = json.dumps([None, None, "bench:1", "tick", {"number": 12345, "pad": "x" * 20}], separators=(",", ":"))


class Wire:
    """A connection without a wire: its inputs go through telemetry and the core, as in `client.connection`."""

    def __init__(self, telemetry: Telemetry) -> None:
        ids = telemetry.ids
        self._ids = (ids.span_id(), ids.trace_id(), ids.span_id(), 1)
        options = Options(url="ws://localhost/socket/websocket")
        connection_id, trace_id, socket_id, generation = self._ids
        self.state = State(
            connection_id=connection_id,
            trace_id=trace_id,
            socket_id=socket_id,
            generation=generation,
            options=options,
        )
        self._telemetry, self._origin = telemetry, Origin(*self._ids)
        self._spans = ConnectionSpans(telemetry, self._origin)
        self._life = self._spans.start_connect(self.state)
        self.handle(TransportOpened(0.0))
        self.handle(JoinTopic(0.0, "bench:1", {}, None))
        self.handle(FrameReceived(0.0, '["1","1","bench:1","phx_reply",{"status":"ok","response":{}}]'))

    def handle(self, given: Input) -> None:
        """Handle an input."""
        spans = self._spans
        if not spans.handle.active:
            self.state = handle(self.state, given, SERIALIZER).state
            return
        start, transition = spans.handled(given, self.state, SERIALIZER)
        self.state = transition.state
        spans.stop_handle(start, transition)

    def receive(self) -> None:
        """Receive a message."""
        self.take_in(MESSAGE)

    def take_in(self, frame: str) -> None:
        """Receive a frame."""
        if self._spans.handle.active:
            start, came_to = self._spans.received(frame, 1.0, self.state, SERIALIZER)
            self._spans.stop_handle(start, came_to)
        else:
            assert is_plain(self.state, SERIALIZER.decode(frame))

    def push(self) -> None:
        """Push a message."""
        self.handle(PushMessage("bench:1", "event", {"body": "hello"}))

    def echo(self) -> None:
        """Push a message, and receive the reply, in a span."""
        bus, ids = self._telemetry, (self._origin, self._telemetry.ids.span_id())
        start = ClientPushStart(*ids, bus.time_ns(), bus.monotonic_ns(), "bench:1", "event", {"body": "hello"})
        bus.point(start.name).emit(start)
        self.push()
        ref = str(self.state.current_ref)
        self.take_in(f'["1","{ref}","bench:1","phx_reply",{{"status":"ok","response":{{"body":"hello"}}}}]')
        stop = ClientPushStop(start, self._origin, bus.monotonic_ns(), "ok", ref, "ok", {"body": "hello"})
        bus.point(stop.name).emit(stop)

    def close(self) -> None:
        """End the connection."""
        self.handle(TransportClosed(1000))
        self._spans.stop_connect(self._life, self.state, ConnectionLost("closed_by_server"))


def say(text: str) -> None:
    """Print a line."""
    print(text, flush=True)  # noqa: T201


def attached(kind: str, telemetry: Telemetry, directory: Path) -> AbstractContextManager[Any]:
    """Return what listens for the time of a measure."""
    if kind == "nothing":
        return nullcontext()
    if kind == "a handler":
        return telemetry.listen(lambda _: None)
    return record(directory / f"cost{time.time_ns()}.jsonl", telemetry=telemetry, queue=2**30)


def measure_cost(directory: Path, runs: int) -> None:
    """Measure a message with and without a recording, in CPU time: of the calling thread, and of the process."""
    kinds = ("nothing", "a handler", "a recording")
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _, kind in itertools.product(range(runs), kinds):
        telemetry = Telemetry()
        with attached(kind, telemetry, directory):
            wire = Wire(telemetry)
            actions: tuple[tuple[str, Callable[[], None]], ...] = (("receive", wire.receive), ("push", wire.push))
            for name, act in actions:
                thread, process = time.thread_time(), time.process_time()
                for _ in range(BATCH):
                    act()
                used = time.thread_time() - thread, time.process_time() - process
                taken.setdefault((name, kind), []).append((used[0] / BATCH * 1e6, used[1] / BATCH * 1e6))
    for name in ("receive", "push"):
        medians = {kind: [statistics.median(each) for each in zip(*taken[name, kind], strict=True)] for kind in kinds}
        texts = [f"{kind} {mine:6.2f} µs ({whole:.2f})" for kind, (mine, whole) in medians.items()]
        more = medians["a recording"][0] - medians["a handler"][0]
        ratio = medians["a recording"][0] / medians["a handler"][0]
        say(f"cost  {name:8} {', '.join(texts)}; a recording adds {more:.1f} µs, {ratio:.1f} times a handler")
    say(f"cost  CPU time of the thread (of the process) a message, medians of {runs} runs of {BATCH:,}")


def measure_rate(directory: Path, seconds: float) -> None:
    """Measure what is lost at which rate."""
    for rate in (5_000, 10_000, 20_000, 40_000, 50_000, None):
        telemetry = Telemetry()
        path = directory / f"rate{rate}.jsonl"
        with record(path, telemetry=telemetry) as recording:
            wire = Wire(telemetry)
            start = time.perf_counter()
            done = 0
            while (now := time.perf_counter() - start) < seconds:
                if rate is None or done < now * rate:
                    wire.receive()
                    done += 1
                else:
                    time.sleep(0.0002)
        report_rate("unbounded" if rate is None else f"{rate:,}/s", done, seconds, recording)
        path.unlink()
    telemetry = Telemetry()
    with record(directory / "small.jsonl", telemetry=telemetry, queue=50_000) as recording:
        wire = Wire(telemetry)
        for _ in range(20_000):
            wire.receive()
        wire.close()
    report_rate("queue 50 kB", 20_000, seconds, recording)
    faults = [finding for finding in check([directory / "small.jsonl"]) if finding.wrong]
    say(f"rate  of what was dropped, {len(faults)} is held against the library by verify")


def report_rate(name: str, messages: int, seconds: float, recording: Any) -> None:
    """Print what came of a rate."""
    whole = recording.written + recording.dropped
    say(
        f"rate  {name:12} {messages:9,} messages in {seconds:g} s, {whole:9,} records: "
        f"{recording.written:9,} written, {recording.dropped:7,} dropped and counted"
    )


def write_many(path: Path, records: int) -> None:
    """Write a recording of about so many records, of a connection after the other: messages, pushes and replies."""
    telemetry = Telemetry(ids=RandomIds(seed=2))
    with record(path, telemetry=telemetry, queue=2**30) as recording:
        while recording.written + len(recording._writer._queue) < records:  # noqa: SLF001
            wire = Wire(telemetry)
            for _ in range(1_600):
                wire.receive()
            for _ in range(400):
                wire.echo()
            wire.close()


READERS: tuple[tuple[str, ...], ...] = (
    ("read",), ("verify",), ("show",), ("stats",), ("diagnose",),
    ("export", "--to", "perfetto"), ("export", "--to", "parquet"),
)  # fmt: skip


def measure_read(directory: Path, records: int) -> None:
    """Measure each reader in a process of its own, with msgspec and without."""
    path = directory / "many.jsonl"
    write_many(path, records)
    say(f"read  {path.stat().st_size / 1e6:.0f} MB")
    for reader, codec in itertools.product(READERS, ("msgspec", "json")):
        command = [sys.executable, __file__, "--child", codec, *reader, "--", str(path)]
        output = directory / "output"
        with output.open("w") as file:
            said = subprocess.run(command, check=True, stdout=file, stderr=subprocess.PIPE, text=True)  # noqa: S603
        say(f"read  {reader[-1]:8} {codec:8} {said.stderr.strip().splitlines()[-1]}")


def child(codec: str, reader: list[str], path: Path) -> None:
    """Run one reader, and tell on stderr what it took."""
    from slipstream_trio.cli.main import main as slipstream

    assert ("msgspec" in sys.modules and sys.modules["msgspec"] is not None) is (codec == "msgspec")
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    cpu = time.process_time()
    if reader == ["read"]:
        assert sum(1 for _ in read(path)) == lines - 2
    else:
        target = {"perfetto": ["-o", "-"], "parquet": ["-o", str(path.parent / f"parquet-{codec}")]}
        output = target.get(reader[-1], [])
        allowed = {0, 1} if reader[0] == "diagnose" else {0}  # findings, of a slow machine
        assert slipstream(["trace", *reader, *output, str(path)]) in allowed
    cpu = time.process_time() - cpu
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stderr.write(f"{lines:9,} lines  {lines / cpu:9,.0f} a second of CPU  memory {most:.0f} MB at most\n")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", metavar="measure", help="cost, rate, read (default: all)")
    parser.add_argument("--runs", type=int, default=15, help="runs of `cost` (default 15)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each rate (default 3)")
    parser.add_argument("--records", type=int, default=1_000_000, help="records to read (default 1,000,000)")
    options = parser.parse_args()
    measures: dict[str, Callable[[Path], None]] = {
        "cost": lambda directory: measure_cost(directory, options.runs),
        "rate": lambda directory: measure_rate(directory, options.seconds),
        "read": lambda directory: measure_read(directory, options.records),
    }
    with tempfile.TemporaryDirectory() as directory:
        for name in options.measures or measures:
            measures[name](Path(directory))


if __name__ == "__main__":
    if "--child" in sys.argv:
        _, _, codec, *reader, _, path = sys.argv
        child(codec, reader, Path(path))
    else:
        main()
