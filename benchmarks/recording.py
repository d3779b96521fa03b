"""What recording costs, and what it bears: run `python benchmarks/recording.py`.

Three measures, each printed with its medians. Compare ratios, not figures: machines are shared and noisy.

* `cost`: a received message and a push through the core, with nothing attached, with a handler that does nothing, and
  with a recording; the three in turn, so that the noise of the machine hits them alike.
* `rate`: messages at a fixed rate, and as fast as they come, and how many of their records were lost.
* `read`: a recording of a million records (`--records`), read and verified in a process of its own: time and memory.
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
from slipstream_trio.telemetry import Origin, Telemetry
from slipstream_trio.telemetry.span import ConnectionSpans
from slipstream_trio.trace import check, files_of, read, record

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
        self._spans = ConnectionSpans(telemetry, Origin(*self._ids))
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
        if self._spans.handle.active:
            self.handle(FrameReceived(1.0, MESSAGE))
        else:
            assert is_plain(self.state, SERIALIZER.decode(MESSAGE))

    def push(self) -> None:
        """Push a message."""
        self.handle(PushMessage("bench:1", "event", {"body": "hello"}))

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
    for rate in (5_000, 10_000, 20_000, 40_000, None):
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
    """Write a recording of so many records, of many connections."""
    telemetry = Telemetry(ids=RandomIds(seed=2))
    with record(path, telemetry=telemetry, queue=2**30) as recording:
        wire = None
        while recording.written + len(recording._writer._queue) < records:  # noqa: SLF001
            wire = Wire(telemetry)
            for _ in range(2_000):
                wire.receive()
            for _ in range(500):
                wire.push()
            wire.close()


def measure_read(directory: Path, records: int) -> None:
    """Measure reading and verifying in processes of their own; a tenth of the records shows whether memory is flat."""
    for count in (records // 10, records):
        path = directory / f"many{count}.jsonl"
        write_many(path, count)
        for what in ("read", "verify"):
            given = path
            command = [sys.executable, __file__, "--child", what, str(given)]
            said = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            say(f"read  {what:8} {path.stat().st_size / 1e6:6.0f} MB  {said.stdout.strip()}")
        path.unlink()


def child(what: str, path: Path) -> None:
    """Read or verify one recording, and print what it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu = time.perf_counter(), time.process_time()
    if what == "verify":
        (_,) = files_of([path])
        lines = 0

        def count(progress: Any) -> None:
            nonlocal lines
            lines = progress.lines

        faults = sum(finding.wrong for finding in check([path], progress=count))
        outcome = f"{lines:9,} lines, {faults} faults"
    else:
        outcome = f"{sum(1 for _ in read(path)):9,} records"
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"{outcome}  {seconds:6.1f} s, {cpu:6.1f} s of CPU time  memory {before:.0f} MB before, {after:.0f} MB at most")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", metavar="measure", help="cost, rate, read (default: all)")
    parser.add_argument("--runs", type=int, default=15, help="runs of `cost` (default 15)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each rate (default 3)")
    parser.add_argument("--records", type=int, default=1_000_000, help="records to read (default 1,000,000)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    measures: dict[str, Callable[[Path], None]] = {
        "cost": lambda directory: measure_cost(directory, options.runs),
        "rate": lambda directory: measure_rate(directory, options.seconds),
        "read": lambda directory: measure_read(directory, options.records),
    }
    with tempfile.TemporaryDirectory() as directory:
        for name in options.measures or measures:
            measures[name](Path(directory))


if __name__ == "__main__":
    main()
