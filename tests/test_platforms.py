"""What the classifiers claim of operating systems: "OS Independent"."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("without_platform.py")


@pytest.mark.once
@pytest.mark.parametrize("platform", ["windows", "macos"])
def test_a_connection_is_recorded_read_and_exported_without_what_a_platform_lacks(
    platform: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "error", str(PROGRAM), platform, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    files = re.findall("^file (.*)$", ended.stderr, re.MULTILINE)
    assert {
        "trace.jsonl",
        "rotated.jsonl.gz",
        "rotated.jsonl.gz.1",
        "page.html",
        "perfetto.json.gz",
        "lake",
    } <= set(files)
    assert any(name.startswith("flights/") for name in files)
    # Windows has no files of such names.
    assert not [name for name in files if re.search(r'[<>:"\\|?*]', name)]
