"""How long a page of `slipstream trace html` takes to open, search and zoom: run `python benchmarks/trace_page.py`.

Makes a recording with a client and a server, a page of it, and opens that in Chromium several times; prints medians.
Needs chromium, chromedriver and selenium, as the nox session `browser` does.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from slipstream_trio import connect, trace
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.server import Channel, Mount, PhoenixServer, Reply
from slipstream_trio.trace.page import Page, render_page
from slipstream_trio.trace.selection import look

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "window-size=1400,900"),
)

SEARCHES = ("room:3 echo", "hello 123", "took>1ms what:client")

MEASURE = """
const done = arguments[arguments.length - 1], before = performance.now();
(0, eval)(arguments[0]);
requestAnimationFrame(() => setTimeout(() => done(performance.now() - before)));
"""
"""Runs a script and waits until the browser has drawn what it changed."""


class Echo(Channel):
    """Answers with what it got."""

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Reply:  # noqa: ARG002
        """Answer."""
        return Reply(payload)


async def make_recording(path: Path, spans: int) -> None:
    """Record ten clients, each push of which is three spans."""
    telemetry = Telemetry()

    async def client(url: str, number: int) -> None:
        async with connect(url, telemetry=telemetry) as socket, socket.join(f"room:{number}") as channel:
            for count in range(spans // 30):
                await channel.push("echo", {"body": f"hello {count}", "number": count})

    server = PhoenixServer({"/socket": Mount(channels={"room:*": Echo})})
    with trace.record(path, telemetry=telemetry, queue=1 << 30):
        async with server.serve() as listening, trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(client, listening.url("/socket/websocket"), number)


def make_page(recording: Path, page: Path) -> int:
    """Write the page; returns how many rows it has."""
    content = Page()
    for glance in look([trace.read(recording)]):
        content.add(glance)
    page.write_text(render_page(content.content(), "benchmark"), "utf-8")
    return content.rows


def browser(profile: str) -> Any:
    """Start Chromium."""
    options = Options()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def measure(page: Path, runs: int) -> dict[str, list[float]]:
    """Open the page so many times, and return milliseconds by what was done."""
    took: dict[str, list[float]] = {}

    def timed(name: str, script: str) -> None:
        took.setdefault(name, []).append(driver.execute_async_script(MEASURE, script))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = browser(profile)
        try:
            for _ in range(runs):
                driver.get(page.as_uri())
                WebDriverWait(driver, 120, poll_frequency=0.02).until(
                    lambda its: its.execute_script("return document.documentElement.dataset.ready")
                )
                ready = driver.execute_script("return Number(document.documentElement.dataset.ready)")
                took.setdefault("open", []).append(ready)
                for number, query in enumerate(SEARCHES):
                    name = "search, the first time" if number == 0 else "search"
                    timed(name, f"$('search').value = {query!r}; search_now()")
                timed("next match", "next_match(1)")
                timed("empty the search", "$('search').value = ''; search_now()")
                for _ in range(5):
                    timed("zoom", "zoom(0.6)")
                timed("all of it", "look_at_all()")
                timed("scroll to the end", "$('scroller').scrollTop = 1e9")
        finally:
            driver.quit()
    return took


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=50_000, help="spans on the page (default 50,000)")
    parser.add_argument("--runs", type=int, default=5, help="times that it is opened (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        recording, page = Path(directory, "trace.jsonl"), Path(directory, "page.html")
        trio.run(make_recording, recording, arguments.spans)
        began = time.perf_counter()
        rows = make_page(recording, page)
        sizes = f"{recording.stat().st_size / 1e6:.1f} MB of recording, {page.stat().st_size / 1e6:.1f} MB of page"
        print(f"{rows:,} rows, {sizes}, made in {time.perf_counter() - began:.1f} s")  # noqa: T201
        for name, values in measure(page, arguments.runs).items():
            least, most = min(values), max(values)
            print(f"{name:24} {statistics.median(values):7.0f} ms   {least:.0f} to {most:.0f}")  # noqa: T201


if __name__ == "__main__":
    main()
