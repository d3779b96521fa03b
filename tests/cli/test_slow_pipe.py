"""Outputs whose reader is slow, or gone: real pipes, which are not read before the command has done something else."""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from queue import SimpleQueue
from typing import Any

import pytest
import trio
from tests.cli.support import running

from slipstream_trio.cli import feed, main
from slipstream_trio.cli.development import PATH, make_server
from slipstream_trio.cli.feed import Printer
from slipstream_trio.testing.server import Channel, Mount, Outcome, PhoenixServer, Reply
from slipstream_trio.trace.text import NO_SECRETS

pytestmark = pytest.mark.once

TEXT = "x" * 10_000
MESSAGES = 30
"""Together they are more than any pipe holds."""


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        with suppress(OSError):
            os.close(end)


def run(write: int, *arguments: str) -> int:
    """Run the command, which prints into a pipe; that ends with it."""
    with os.fdopen(write, "w") as stdout, redirect_stdout(stdout):
        return main(arguments)


@contextmanager
def closed_at_end(read: int) -> Iterator[None]:
    """Close an end of a pipe after a block: the command does not wait for a reader that has failed."""
    try:
        yield
    finally:
        os.close(read)


def lines_of(read: int, last: str) -> list[dict[str, Any]]:
    """Read lines of JSON up to one that has a text."""
    data = b""
    while last.encode() not in data or not data.endswith(b"\n"):
        if not (more := os.read(read, 65_536)):
            break
        data += more
    return [json.loads(line) for line in data.splitlines()]


def telling() -> tuple[PhoenixServer, "SimpleQueue[str]"]:
    """Return a server, and a queue that gets the joins and the events of its channels."""
    told: SimpleQueue[str] = SimpleQueue()

    class Telling(Channel):
        async def after_join(self) -> None:
            await self.push("here")
            told.put("joined")

        async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
            told.put(event)
            return Reply(payload)

    return PhoenixServer({"/socket": Mount(channels={"lab:*": Telling})}), told


def test_a_reader_that_is_slow_does_not_hold_up_the_connection(pipe: tuple[int, int]) -> None:
    server, told = telling()

    async def flood() -> None:
        for number in range(MESSAGES):
            await server.broadcast("lab:1", "said", {"number": number, "text": TEXT})
        server.connections[0].close(1012)

    with running(server) as (listening, token), ThreadPoolExecutor() as threads:

        def read() -> list[dict[str, Any]]:
            with closed_at_end(pipe[0]):
                here = lines_of(pipe[0], "here")
                trio.from_thread.run(flood, trio_token=token)
                # The client comes again, and joins, though nobody has read a line.
                assert [told.get(timeout=60) for _ in range(2)] == ["joined"] * 2
                return here + lines_of(pipe[0], "here")

        lines = threads.submit(read)
        assert run(pipe[1], "listen", listening.url(PATH), "lab:1", "--count", str(MESSAGES + 2)) == 0
    first, *said, last = lines.result()
    assert first["event"] == last["event"] == "here"
    assert [line["payload"]["number"] for line in said] == [*range(MESSAGES)]


def test_requests_are_carried_out_though_their_answers_are_not_read(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, told = telling()
    push = {"command": "push", "topic": "lab:1", "payload": TEXT}
    requests = [{"command": "join", "topic": "lab:1"}, *({**push, "event": f"e{n}"} for n in range(MESSAGES))]
    stdin, feeding = os.pipe()

    with running(server) as (listening, _), ThreadPoolExecutor() as threads, os.fdopen(stdin) as opened:

        def read() -> list[dict[str, Any]]:
            with closed_at_end(pipe[0]):
                with os.fdopen(feeding, "w") as file:
                    file.write("\n".join(map(json.dumps, requests)))
                assert [told.get(timeout=60) for _ in requests] == ["joined", *(f"e{n}" for n in range(MESSAGES))]
                return lines_of(pipe[0], f'"line":{MESSAGES + 1},')

        monkeypatch.setattr(sys, "stdin", opened)
        lines = threads.submit(read)
        assert run(pipe[1], "connect", listening.url(PATH)) == 0
    kinds = [line["type"] for line in lines.result() if line["type"] != "message"]
    assert kinds == ["connected", "joined", *["reply"] * MESSAGES]


def test_a_reader_that_has_gone_ends_the_command(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    os.close(pipe[0])
    with running(make_server()) as (listening, _):
        assert run(pipe[1], "listen", listening.url(PATH), "lounge:1") == 1
    assert "slipstream" not in capfd.readouterr().err


@pytest.mark.parametrize("told", [True, False])
async def test_what_does_not_fit_is_dropped_and_its_place_told(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BACKLOG", 250_000)
    overflows: list[feed.Item] = []
    read, write = os.pipe()
    with os.fdopen(write, "w") as file:
        printer = Printer(file, NO_SECRETS, as_lines=True, overflow=overflows.append if told else None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(printer.write)
            for number, size in enumerate([200_000, 0, 200_000, 100_000, 0]):
                printer({"type": "message", "number": number, "text": "x" * size})
                await trio.testing.wait_all_tasks_blocked()  # the first is with the thread, which waits for a reader
            lines = await trio.to_thread.run_sync(lines_of, read, '"number":2')
            await printer.written()
            printer({"type": "message", "number": 5})
            await printer.written()
            nursery.cancel_scope.cancel()
    with os.fdopen(read) as rest:
        lines += map(json.loads, rest)
    overflow = {"type": "overflow", "dropped": 2}
    assert overflows == ([overflow] if told else [])
    expected: list[int | None] = [0, 1, 2, *([] if told else [None]), 5]
    assert [line.get("number") for line in lines] == expected
