"""Extras are imported by nobody but those who ask for them."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import slipstream_trio, slipstream_trio.cli, slipstream_trio.integrations.logging
from slipstream_trio.trace import export_otlp, export_parquet, export_perfetto
extras = {"opentelemetry", "prometheus_client", "google", "pyarrow"}
print(sorted({name.partition(".")[0] for name in sys.modules} & extras))
"""


@pytest.mark.once
def test_the_package_its_command_its_exports_and_logs_import_no_extra() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True, timeout=60)
    assert said.stdout.strip() == "[]"
