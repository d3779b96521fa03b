"""The standard library's logs: loggers, levels, attributes, and what must not be in them."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.integrations.support import lose_once, visit
from trio.testing import MockClock

from slipstream_trio import Client, ConnectionLost, connect, run_client
from slipstream_trio.integrations.logging import attach, level_of, payload_text

LOGGER = "tests_of_slipstream"


@contextmanager
def logged(
    recorder: Recorder, level: int = logging.DEBUG, choose: Any = level_of, **options: Any
) -> Iterator[list[logging.LogRecord]]:
    """Attach, and collect what is logged."""
    records: list[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.getLogger(LOGGER)
    handler = Collect()
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        with attach(telemetry=recorder.bus, name=LOGGER, level=choose, **options):
            yield records
    finally:
        logger.removeHandler(handler)


def levels(records: list[logging.LogRecord]) -> dict[str, set[str]]:
    """Return the levels that each telemetry event was logged at."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(record.__dict__["telemetry_event"].removeprefix("slipstream "), set()).add(record.levelname)
    return found


async def test_levels_tell_what_went_well_and_what_did_not(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder) as records:
        await visit(recorder)
    assert levels(records) == {
        "client connect start": {"DEBUG"},
        "connection connect start": {"DEBUG"},
        "client connect stop": {"INFO"},
        "client join start": {"DEBUG"},
        "client join stop": {"INFO"},
        "client push start": {"DEBUG"},
        "client push stop": {"DEBUG", "WARNING"},
        "client send start": {"DEBUG"},
        "client send stop": {"DEBUG"},
        "client leave start": {"DEBUG"},
        "client leave stop": {"INFO"},
        "connection connect stop": {"INFO"},
    }
    pushes = [record for record in records if record.__dict__["telemetry_event"] == "slipstream client push stop"]
    assert [(record.levelname, record.__dict__["outcome"]) for record in pushes] == [
        ("DEBUG", "ok"),
        ("WARNING", "error"),
        ("WARNING", "timeout"),
    ]


async def test_losses_gaps_and_overflows_are_warnings(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder, logging.WARNING) as records:
        await lose_once(recorder)
    assert levels(records) == {
        "client overflow": {"WARNING"},
        "client reconnect_scheduled": {"WARNING"},
        "client gap": {"WARNING"},
        "connection connect stop": {"WARNING"},
    }


async def test_an_exception_is_an_error_with_its_stacktrace(autojump_clock: MockClock) -> None:
    class Broken(Client):
        async def handle_connect(self, socket: Any) -> None:
            raise RuntimeError("broken\nas told")

    recorder = Recorder()
    with logged(recorder, logging.ERROR) as records:
        with pytest.raises(RuntimeError):
            await run_client(Broken(), URL, transport=Scripted(), telemetry=recorder.bus)
    (record,) = records
    assert record.name == f"{LOGGER}.client.handle_connect"
    assert record.__dict__["kind"] == "RuntimeError"
    assert "in handle_connect" in record.__dict__["stacktrace"]
    assert "\n" not in record.getMessage()


async def test_loggers_are_named_for_the_events_and_attributes_have_the_ids(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder) as records:
        socket = await visit(recorder)
    assert {record.name.removeprefix(LOGGER) for record in records} >= {
        ".client.connect",
        ".client.join",
        ".client.push",
        ".client.leave",
        ".connection.connect",
    }
    for record in records:
        assert record.__dict__["socket_id"] == socket.socket_id
        assert record.__dict__["connection_id"] == socket.connection_id
        assert record.__dict__["trace_id"] == socket.trace_id
    (push,) = [each for each in records if each.__dict__.get("outcome") == "error"]
    said = push.__dict__
    assert (said["topic"], said["message_event"], said["ref"], said["status"]) == ("lab:1", "fail", "3", "error")
    assert said["duration_ms"] > 0
    assert push.getMessage().startswith("client push stop topic=lab:1 message_event=fail outcome=error status=error in")


async def test_payloads_and_secrets_are_not_logged(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    secrets = {"params": {"token": "hush-1"}, "headers": {"x-key": "hush-2"}, "auth_token": "hush-3"}
    with logged(recorder, handles=True) as records:
        await visit(recorder, **secrets)
    said = " ".join(f"{record.getMessage()} {record.__dict__}" for record in records)
    assert "hello" not in said
    assert "hush" not in said


async def test_payloads_are_logged_by_choice_bounded_and_without_secrets(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder, payloads=True, payload_limit=60) as records:
        async with scripted(telemetry=recorder.bus) as (socket, _), socket.join("room", {"token": "hush"}) as channel:
            await channel.push("echo", {"body": "x" * 1000, "password": "hush"})
            await channel.push("echo", {"a": [1, None, True], "session_id": "hush"})
    payloads = [record.__dict__["payload"] for record in records if record.__dict__.get("payload")]
    assert {"params": '{"token": "[redacted]"}'} in payloads
    assert {"params": '{"a": [1, None, True], "session_id": "[redacted]"}'} in payloads
    assert all(len(text) <= 60 for payload in payloads for text in payload.values())
    said = " ".join(f"{record.getMessage()} {record.__dict__}" for record in records)
    assert 'params={"token": "[redacted]"}' in said
    assert "hush" not in said


async def test_handles_are_logged_by_choice(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder, handles=True, payloads=True) as records:
        await visit(recorder)
    handled = [record for record in records if record.name == f"{LOGGER}.connection.handle"]
    assert {record.levelname for record in handled} == {"DEBUG"}
    assert all(record.__dict__["payload"] == {} for record in handled)
    echoes = [each for each in handled if each.__dict__.get("message_event") == "echo"]
    assert {each.__dict__["topic"] for each in echoes} == {"lab:1"}


async def test_messages_do_not_pay_for_logs_without_handles(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    recorder.bus.detach("recorder")
    with logged(recorder):
        assert not recorder.bus.span(("slipstream", "connection", "handle")).active


async def test_what_others_chose_cannot_pose_as_another_line(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder) as records:
        async with scripted(telemetry=recorder.bus) as (socket, _):
            await socket.channel("room\nERROR all is lost\x1b[31m").join()
    said = [record.getMessage() for record in records]
    assert not any("\n" in text or "\x1b" in text for text in said)
    assert any(r"topic='room\nERROR all is lost\x1b[31m'" in text for text in said)


async def test_levels_are_the_users_to_choose(autojump_clock: MockClock) -> None:
    def joins_only(record: Any) -> int | None:
        return level_of(record) + 30 if record.name[2] == "join" else None

    recorder = Recorder()
    with logged(recorder, choose=joins_only) as records:
        await visit(recorder)
    assert levels(records) == {"client join start": {"ERROR"}, "client join stop": {"CRITICAL"}}


async def test_a_json_formatter_can_take_it(autojump_clock: MockClock) -> None:
    formatter_of = pytest.importorskip("pythonjsonlogger.json", reason="needs python-json-logger")
    recorder = Recorder()
    with logged(recorder) as records:
        socket = await visit(recorder)
    formatter = formatter_of.JsonFormatter()
    lines = [json.loads(formatter.format(record)) for record in records]
    assert {line["connection_id"] for line in lines} == {socket.connection_id}
    assert {line["topic"] for line in lines if "topic" in line} == {"lab:1"}


async def test_structlog_can_take_it(autojump_clock: MockClock) -> None:
    structlog = pytest.importorskip("structlog", reason="needs structlog")
    recorder = Recorder()
    with logged(recorder) as records:
        socket = await visit(recorder)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    lines = [json.loads(formatter.format(record)) for record in records]
    assert {line["connection_id"] for line in lines} == {socket.connection_id}
    assert all(line["event"].startswith(("client", "connection")) for line in lines)
    assert {line["message_event"] for line in lines if "message_event" in line} >= {"echo", "fail"}


async def test_attaching_twice_is_refused_and_detaching_ends_it(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder) as records, pytest.raises(ValueError, match="attached already"):
        attach(telemetry=recorder.bus)
    await visit(recorder)
    assert records == []


def test_arguments_that_would_fail_at_the_first_record_are_refused() -> None:
    recorder = Recorder()
    with pytest.raises(TypeError, match=r"^level: a function of a record; .*getLogger\('slipstream_trio'\)\.setLevel"):
        attach(telemetry=recorder.bus, level=logging.INFO)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="payload_limit: at least 1"):
        attach(telemetry=recorder.bus, payloads=True, payload_limit=0)
    assert [handler.handler_id for handler in recorder.bus.list_handlers()] == ["recorder"]


async def test_a_lost_body_is_logged_as_lost(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with logged(recorder, logging.WARNING) as records, suppress(ConnectionLost):
        async with connect(URL, transport=(connector := Scripted()), telemetry=recorder.bus, reconnect=None) as socket:
            channel = socket.channel("room")
            await channel.join()
            async with trio.open_nursery() as nursery:

                async def end() -> None:
                    await connector.peer.wait_sent("silent")
                    connector.peer.end()

                nursery.start_soon(end)
                with trio.CancelScope(shield=True), suppress(ConnectionLost):
                    await channel.push("silent")
    (push,) = [each for each in records if each.__dict__["telemetry_event"] == "slipstream client push stop"]
    assert (push.levelname, push.__dict__["outcome"]) == ("WARNING", "lost")


# Payloads


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1, "b": [True, None, 1.5]}, '{"a": 1, "b": [True, None, 1.5]}'),
        (b"\x00\x01", "<2 bytes>"),
        (object(), "<object>"),
        ("text", '"text"'),
        ({}, "{}"),
        ({"API-Key": 1, "Cookie": 2, "keys": 3}, '{"API-Key": "[redacted]", "Cookie": "[redacted]", "keys": 3}'),
        ([[[[[[[[1]]]]]]]], "[[[[[[…]]]]]]"),
        ((1, 2), "[1, 2]"),
    ],
)  # fmt: skip
def test_payloads_are_brief(value: Any, text: str) -> None:
    assert payload_text(value, 200) == text


@pytest.mark.parametrize("limit", [1, 2, 10, 100])
def test_a_payload_is_no_longer_than_its_limit(limit: int) -> None:
    value = {f"key{number}": ["x" * 50] * 50 for number in range(50)}
    text = payload_text(value, limit)
    assert len(text) == limit
    assert text.endswith("…")


def test_a_huge_payload_is_not_looked_at_beyond_its_limit() -> None:
    class Endless(dict[str, int]):
        asked = 0

        def items(self) -> Any:
            for number in range(10**9):
                self.asked += 1
                yield str(number), number

    endless = Endless()
    payload_text(endless, 50)
    assert endless.asked <= 50
