"""Secrets as canaries: what a connection is opened with, and a spy that looks for them in all that is told."""

import base64
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import attrs
import trio
from tests.client.support import Lab

from slipstream_trio import (
    Backoff,
)
from slipstream_trio.telemetry import Record, Telemetry
from slipstream_trio.testing.faults import Faults, Rule, faulty_network
from slipstream_trio.testing.server import Mount, PhoenixServer, Request
from slipstream_trio.transport import OpenRequest
from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

URL = "ws://server/socket/websocket"
PARAM, HEADER, TOKEN, QUERY = (f"canary{kind}0f3b9d" for kind in ("Param", "Header", "Token", "Query"))
ODD = "canary/odd+=&?é 0f3b9d"

FORMS = {
    form
    for secret in (PARAM, HEADER, TOKEN, QUERY, ODD)
    for form in (secret, quote(secret), quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("="))
}


class Spy:
    """Everything that can be seen, as text with where it was seen."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.telemetry.attach("spy", (), self.see_record, prefix=True)
        self.records = 0
        self.seen: list[tuple[str, str]] = []
        self.server: PhoenixServer

    def see_record(self, record: Record) -> None:
        self.records += 1
        where = " ".join(record.name)
        self.seen += [(where, text) for text in texts(record.metadata)]
        self.seen += [(where, text) for text in (repr(record), str(record))]

    def see(self, where: str, *things: Any) -> None:
        self.seen += [(where, text) for thing in things for text in (repr(thing), str(thing))]

    def see_error(self, error: BaseException) -> None:
        self.seen.append(("traceback", "".join(traceback.format_exception(error))))
        for one in chain(error):
            self.see(f"{type(one).__name__} in the chain of {type(error).__name__}", one, one.args, vars(one))

    def see_log(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            self.see(f"log {record.name}", record.getMessage(), record.args)
            if record.exc_info and record.exc_info[1]:
                self.see_error(record.exc_info[1])

    def leaks(self) -> list[tuple[str, str]]:
        return [(where, text) for where, text in self.seen if any(form in text for form in FORMS)]


def texts(value: Any) -> Iterator[str]:
    """Give all that is in a value, as a handler that encodes whatever it finds would."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from (str(key), *texts(item))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts(item)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from texts(getattr(value, field.name))
    else:
        yield repr(value)
        yield str(value)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that it comes from, even where it says that it does not."""
    todo, known = [error], set()
    while todo:
        one = todo.pop()
        if id(one) not in known:
            known.add(id(one))
            yield one
            todo += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
            todo += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


class Given:
    """A callable whose `repr` would tell what it returns."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        return self.value

    def __repr__(self) -> str:
        return f"Given({self.value!r})"


async def later(value: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return value


PLAIN: dict[str, Any] = {
    "params": {"token": PARAM, "nested": {"odd": [ODD]}},
    "headers": {"authorization": f"Bearer {HEADER}", "x-key": HEADER},
    "auth_token": TOKEN,
}


def url(base: str = URL) -> str:
    return f"{base}?key={QUERY}"


def never_named(request: Request) -> None:
    """Let everyone in who has brought everything."""
    assert request.params["token"] == PARAM
    assert request.params["key"] == QUERY
    assert request.auth_token == TOKEN
    assert request.header("x-key") == HEADER


@asynccontextmanager
async def world(
    spy: Spy, *rules: Rule, answer: Callable[[Request], None] = never_named
) -> AsyncIterator[dict[str, Any]]:
    """Run a server behind a network; gives the options to connect to it."""
    mount = Mount(channels={"lab:*": Lab}, connect=answer, auth_token=True)
    spy.server = server = PhoenixServer({"/socket": mount}, close_timeout=1)
    async with server.run(), faulty_network(Faults(rules=rules)) as network:

        def open_stream(request: OpenRequest) -> Any:
            spy.see("the request", request)
            return server.open_stream()

        connector = TrioWebSocketConnector(network.opener(open_stream))
        quick = {"reconnect": Backoff((1,), jitter=0), "rejoin": Backoff((1,), jitter=0)}
        yield {"transport": connector, "telemetry": spy.telemetry, **quick}
        spy.see("the network", network.log)
    for error in server.errors:
        spy.see_error(error)
