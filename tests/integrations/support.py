"""What the tests of integrations share: a scenario with a bit of everything, and OpenTelemetry's SDK in memory."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, running
from trio.testing import wait_all_tasks_blocked

from slipstream_trio import PushError, PushTimeout, Socket, connect

ABSENT = "needs the OpenTelemetry SDK, of the extra `otlp`"


def installed(module: str) -> bool:
    """Tell whether a module can be imported."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return True


def sdk() -> Any:
    """Return OpenTelemetry's SDK; skips where it is missing."""
    return pytest.importorskip("opentelemetry.sdk.trace", reason=ABSENT)


async def visit(recorder: Recorder, **options: Any) -> Socket:
    """Join a channel, push with and without luck, ping, leave, on the recorder's bus."""
    async with (
        running() as server,
        connect(URL, transport=server.connector(), telemetry=recorder.bus, **options) as socket,
    ):
        async with socket.join("lab:1") as channel:
            await channel.push("echo", {"body": "hello"})
            with suppress(PushError):
                await channel.push("fail", {"body": "no"})
            with suppress(PushTimeout):
                await channel.push("silence", {}, timeout=1)
            await channel.send("cast", {})
            await socket.ping()
        return socket


class Collected:
    """What was exported."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> Any:
        """Return the one span of a name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def names(self) -> list[str]:
        return [span.name for span in self.spans]


@contextmanager
def provider(*, generator: bool = True, **options: Any) -> Iterator[tuple[Any, Collected]]:
    """Give a provider of the SDK, with our `IdGenerator` or its own, and what it exports."""
    trace = sdk()
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from slipstream_trio.integrations.opentelemetry import IdGenerator

    exporter = InMemorySpanExporter()
    made = trace.TracerProvider(id_generator=IdGenerator() if generator else None, shutdown_on_exit=False, **options)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        yield made, Collected(exporter)
    finally:
        made.shutdown()


def span_id(span: Any) -> str:
    return f"{span.context.span_id:016x}"


def parent_id(span: Any) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def trace_id(span: Any) -> str:
    return f"{span.context.trace_id:032x}"


async def lose_once(recorder: Recorder, **options: Any) -> Scripted:
    """Connect, join and overflow, lose the connection, and be joined again."""
    connector = Scripted()
    async with connect(URL, transport=connector, telemetry=recorder.bus, buffer=2, **options) as socket:
        channel = socket.channel("lab:1")
        await channel.join()
        for number in range(4):
            connector.peer.message("lab:1", "tick", number)
        connector.peer.message("lab:9", "tick", 0)
        await wait_all_tasks_blocked()
        connector.peer.end()
        await trio.sleep(5)
        assert (socket.generation, channel.status) == (2, "joined")
    return connector
