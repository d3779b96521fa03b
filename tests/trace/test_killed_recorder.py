"""A recording of a process that was killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.trace.test_record import numbers

from slipstream_trio.trace import (
    check,
)

KILLED = """
import os, signal, sys
from slipstream_trio.telemetry import ClientPushStart, Origin, Telemetry
from slipstream_trio.trace import record

telemetry = Telemetry()
point = telemetry.point(ClientPushStart.name)
origin = Origin("c" * 16, "7" * 32, "5" * 16, 1)
with record(sys.argv[1], telemetry=telemetry, flush_interval=0.001) as recording:
    number = 0
    while recording.written < 100:
        number += 1
        point.emit(ClientPushStart(origin, f"{number:016x}", number, 1, "a", "b", "x" * 50))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.once
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_recording_of_a_process_that_was_killed_is_read_up_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl.gz"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    times = numbers(path)
    assert len(times) >= 100
    assert times == list(range(1, len(times) + 1))
    assert {finding.kind for finding in check([path])} <= {"unfinished"}
