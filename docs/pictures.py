"""Makes the pictures of the README: `python docs/pictures.py`, or `python docs/pictures.py live diagnosis`.

    live        the history of a connection in a terminal, from `slipstream demo`
    waterfall   the page of `slipstream trace html`, in Chromium
    diagnosis   what `slipstream trace diagnose` says of an incident among the fixtures of the tests
    benchmark   the plot of `python -m benchmarks.suite --docs`, which installs the peers on its first run

They are committed, in `docs/pictures`; Linux, with Chromium for the waterfall and Pillow to make it small.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PICTURES: Final = ROOT / "docs" / "pictures"
INCIDENTS: Final = ROOT / "tests" / "fixtures" / "incidents"
COMMAND: Final = [sys.executable, "-c", "import sys; from slipstream_trio.cli import main; sys.exit(main())"]

# A terminal

COLOURS: Final = {
    "30": "#484f58",
    "31": "#ff7b72",
    "32": "#7ee787",
    "33": "#e3b341",
    "34": "#79c0ff",
    "35": "#d2a8ff",
    "36": "#56d4dd",
    "37": "#e6edf3",
    "90": "#8b949e",
}
STYLES: Final = {"1": "font-weight:bold", "4": "text-decoration:underline"}
WIDE: Final = 7.83
HIGH: Final = 17
SEQUENCE: Final = re.compile(r"\x1b\[([\d;]*)([A-Za-z])")


def in_terminal(arguments: list[str], columns: int, folder: Path) -> str:
    """Run `slipstream` in a terminal, and return what it writes there."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(  # noqa: S603
        [*COMMAND, *arguments], stdin=writer, stdout=writer, stderr=writer, cwd=folder, env=environment
    )
    os.close(writer)
    written = b""
    while True:
        try:
            data = os.read(reader, 65536)
        except OSError:  # Linux ends a terminal so
            break
        if not data:
            break
        written += data
    os.close(reader)
    process.wait()
    # What a carriage return writes over, such as a progress bar, is not seen.
    lines = written.decode().replace("\r\n", "\n").split("\n")
    return "\n".join(line.rpartition("\r")[2].replace("\x1b[K", "") for line in lines)


def drawn(command: str, text: str, columns: int) -> str:
    """Return a terminal's text as SVG, below its prompt."""
    lines = ["\x1b[32;1m$\x1b[0m " + command, *text.rstrip().split("\n")]
    width, height = columns * WIDE + 24, len(lines) * HIGH + 24
    rows = "".join(
        f'<text x="12" y="{12 + HIGH * number + 13}" xml:space="preserve">{styled(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="13">'
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/><g fill="#e6edf3">{rows}</g></svg>\n'
    )


def styled(line: str) -> str:
    """Return a line as spans of SVG; each begins at its own column, whatever font there is."""
    spans, style, column, at = [], "", 0, 0
    for found in [*SEQUENCE.finditer(line), None]:
        text = line[at : found.start() if found else len(line)]
        if text.strip():
            indent = len(text) - len(text.lstrip())
            x = 12 + (column + indent) * WIDE
            spans.append(f'<tspan x="{x:.1f}" textLength="{len(text.strip()) * WIDE:.1f}"{style}>')
            spans.append(f"{escape(text.strip())}</tspan>")
        column += len(text)
        if found:
            style, at = style_of(found[1].split(";")), found.end()
    return "".join(spans)


def style_of(codes: list[str]) -> str:
    """Return the attributes for the codes of a sequence."""
    fill = "".join(f' fill="{COLOURS[code]}"' for code in codes if code in COLOURS)
    style = ";".join(STYLES[code] for code in codes if code in STYLES)
    return f'{fill} style="{style}"' if style else fill


# The pictures


def live() -> None:
    """Draw the first lines of the demo."""
    text = in_terminal(["demo"], 100, ROOT)
    lines = text.split("\n")
    end = next(number for number, line in enumerate(lines) if "Push bytes" in line)
    (PICTURES / "live.svg").write_text(drawn("slipstream demo", "\n".join(lines[:end]), 100))


def diagnosis() -> None:
    """Draw what is said of the incident in which a server was killed."""
    text = in_terminal(["trace", "diagnose", "16.jsonl.gz"], 92, INCIDENTS)
    finding = text.partition("records of")[0].rpartition("\n")[0]
    (PICTURES / "diagnosis.svg").write_text(drawn("slipstream trace diagnose 16.jsonl.gz", finding, 92))


def waterfall() -> None:
    """Take a picture of the page of that incident."""
    from PIL import Image  # matplotlib brings it

    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("the picture of the page needs Chromium")
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "trace.html", Path(folder) / "page.png"
        in_terminal(["trace", "html", "16.jsonl.gz", "-o", str(page)], 100, INCIDENTS)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,760"]
        command = [browser, *options, "--virtual-time-budget=5000", f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        colours = Image.open(picture).convert("RGB").quantize(32, dither=Image.Dither.NONE)
        colours.save(PICTURES / "waterfall.png", optimize=True)


def benchmark() -> None:
    """Measure a burst and echoes, and plot that; rounds of a second, as shorter ones punish JavaScript's warm-up."""
    chosen = ["--only", "burst 100 B", "--only", "echo 100 B, 64"]
    command = [sys.executable, "-m", "benchmarks.suite", "--rounds", "3", "--seconds", "1", "--docs", *chosen]
    subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603


MAKERS: Final[Mapping[str, Callable[[], None]]] = {
    "live": live,
    "waterfall": waterfall,
    "diagnosis": diagnosis,
    "benchmark": benchmark,
}

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()
