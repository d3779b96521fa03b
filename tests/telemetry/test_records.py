"""Every record that the contract names: its name, its measurements, its metadata. Taken from real connections."""

import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, scripted
from tests.telemetry.support import taken_for_real
from trio.testing import MockClock

from slipstream_trio import (
    Backoff,
    Client,
    ConnectError,
    InternalError,
    JoinTimeout,
    PushTimeout,
    SerializationError,
    Socket,
    connect,
    run_client,
    telemetry,
)
from slipstream_trio.protocol import Message, PushMessage, SendFrame, State
from slipstream_trio.telemetry import Record

IDS = {"connection_id", "trace_id", "socket_id", "generation", "start_time"}
SPAN = IDS | {"span_id"}
EXCEPTION = {"kind", "reason", "stacktrace"}
HANDLE = SPAN | {"raw_message", "state"}
PUSH = SPAN | {"topic", "event", "params"}
JOIN = SPAN | {"topic", "params"}
CONNECT = SPAN | {"configuration", "attempt"}

METADATA = {
    "connection connect start": SPAN | {"state"},
    "connection connect stop": SPAN
    | {"state", "termination_reason", "ended_by", "code", "message", "heard", "received"},
    "connection connect exception": SPAN | {"state"} | EXCEPTION,
    "connection handle start": HANDLE,
    "connection handle stop": HANDLE | {"message", "event", "built_events", "return", "end_state"},
    "connection handle exception": HANDLE | EXCEPTION,
    "client connect start": CONNECT,
    "client connect stop": CONNECT | {"outcome", "response_headers"},
    "client connect exception": CONNECT | EXCEPTION,
    "client join start": JOIN,
    "client join stop": JOIN | {"outcome", "response", "reason", "waited"},
    "client join exception": JOIN | EXCEPTION,
    "client leave start": JOIN,
    "client leave stop": JOIN | {"outcome", "response", "reason", "waited"},
    "client push start": PUSH,
    "client push stop": PUSH | {"outcome", "ref", "status", "response", "reason", "sent", "waited"},
    "client push exception": PUSH | EXCEPTION,
    "client send start": PUSH,
    "client send stop": PUSH | {"outcome", "ref", "reason", "waited"},
    "client send exception": PUSH | EXCEPTION,
    "client gave_up": IDS | {"reason", "attempts", "status", "hint"},
    "client reconnect_scheduled": IDS | {"delay", "attempt", "reason", "code", "status"},
    "client rejoin_scheduled": IDS | {"topic", "delay", "attempt", "reason"},
    "client handle_info start": SPAN | {"client", "callback", "arguments"},
    "client handle_info stop": SPAN | {"client", "callback", "arguments", "outcome", "return"},
    "client handle_info exception": SPAN | {"client", "callback", "arguments"} | EXCEPTION,
    "client stalled": IDS | {"seconds"},
    "client gap": IDS | {"topic", "reason", "since", "until", "dropped"},
    "client overflow": IDS | {"topic", "policy", "buffer", "consumer", "phase", "dropped"},
    "client reply_orphaned": IDS | {"topic", "ref", "status", "response", "reason"},
    "client message_dropped": IDS | {"direction", "topic", "event", "ref", "reason", "frame"},
    "telemetry handler failure": IDS | {"handler_id", "event", "reason", "stacktrace"},
}


def of(recorder: Recorder, name: str) -> list[Record]:
    return [record for record in recorder.records if " ".join(record.name[1:]) == name]


class Failing(Client):
    """Handles an info well, and fails at the next."""

    async def handle_connect(self, socket: Socket) -> None:
        self.info("well")
        self.info("badly")

    async def handle_info(self, message: str) -> None:
        if message == "badly":
            raise KeyError(message)


async def use_everything(recorder: Recorder) -> None:
    """Make every record there is."""

    async def fail(_: Any) -> None:
        raise KeyError("broken")

    async def refuse(_: Any) -> None:
        raise ConnectError("no")

    recorder.bus.attach("broken", ("slipstream", "client", "join", "start"), lambda _: 1 / 0)
    async with scripted(telemetry=recorder.bus, buffer=1) as (socket, peer):
        with pytest.raises(SerializationError):
            await socket.channel("room", object()).join()
        async with socket.join("room", {"user": 1}) as channel:
            await channel.push("echo", {"a": 1})
            with pytest.raises(SerializationError):
                await channel.push("event", object())
            await channel.send("sent")
            with pytest.raises(SerializationError):
                await channel.send("sent", object())
            with pytest.raises(PushTimeout):
                await channel.push("event", timeout=1)
            peer.reply(await peer.wait_sent("event"))
            for _ in range(2):
                peer.message("room", "event")
            peer.message("elsewhere", "event")
            await trio.testing.wait_all_tasks_blocked()
    clock: Any = trio.lowlevel.current_clock()
    again = Backoff((0.01,))
    async with scripted(telemetry=recorder.bus, reconnect=again, rejoin=again) as (socket, peer):
        async with socket.join("room"):
            clock.jump(1)  # the event loop stands still
            await trio.sleep(1)
            peer.end_channel("room", "phx_error")
            await trio.sleep(1)
            peer.end(1006)
            await trio.sleep(1)
    with pytest.raises(KeyError):
        await run_client(Failing(), URL, transport=Scripted(), telemetry=recorder.bus)
    for opening, error in ((fail, InternalError), (refuse, ConnectError)):
        with pytest.raises(error):
            async with connect(URL, transport=Scripted(opening=opening), telemetry=recorder.bus):
                pass


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    recorder = Recorder()
    with taken_for_real() as clock:
        trio.run(use_everything, recorder, clock=clock)
    return recorder


def test_every_record_type_is_in_the_table(recorder: Recorder) -> None:
    other = re.compile("client (?!handle_info)(handle_.*|terminate) (start|stop)")  # callbacks, all alike
    names = {" ".join(record.name[1:]) for record in recorder.records}
    assert {name for name in names if not other.fullmatch(name)} == METADATA.keys()
    assert {record.name[0] for record in recorder.records} == {"slipstream"}


@pytest.mark.parametrize("name", METADATA)
def test_the_keys_are_those_of_the_contract(recorder: Recorder, name: str) -> None:
    ends = name.rsplit(" ", 1)[1] in ("stop", "exception")
    for record in of(recorder, name):
        assert record.metadata.keys() == METADATA[name]
        assert record.measurements.keys() == (
            {"duration", "monotonic_time"} if ends else {"system_time", "monotonic_time"}
        )
        assert {type(value) for value in record.measurements.values()} == {int}


@pytest.mark.parametrize("name", METADATA)
def test_typed_fields_and_metadata_agree(recorder: Recorder, name: str) -> None:
    for each in of(recorder, name):
        record: Any = each
        for key, value in record.metadata.items():
            if key not in ("message", "event", "built_events", "return", "end_state"):
                owner = record if hasattr(record, key) else record.start
                assert getattr(owner, key) == value
        for key, value in record.measurements.items():
            assert getattr(record, key) == value
        assert (record.connection_id, record.socket_id) == (record.origin.connection_id, record.origin.socket_id)
        assert (record.trace_id, record.generation) == (record.origin.trace_id, record.origin.generation)
        assert hash(record.origin) == hash(record.origin)


@pytest.mark.parametrize("name", METADATA)
def test_the_start_time_is_in_utc_and_that_of_the_start(recorder: Recorder, name: str) -> None:
    for each in of(recorder, name):
        record: Any = each
        start_time = record.metadata["start_time"]
        assert start_time.tzinfo is UTC
        started = record.start if hasattr(record, "start") else record
        assert abs(start_time.timestamp() * 1e9 - started.system_time) < 1000
        assert abs((datetime.now(UTC) - start_time).total_seconds()) < 3600


def test_a_stop_has_the_ids_and_the_times_of_its_start(recorder: Recorder) -> None:
    starts = {record.metadata["span_id"]: record for record in recorder.records if record.name[-1] == "start"}
    ends = [record for record in recorder.records if record.name[-1] in ("stop", "exception")]
    assert len(starts) == len(ends) == len({record.metadata["span_id"] for record in ends})
    for end in ends:
        start = starts[end.metadata["span_id"]]
        assert end.name[:-1] == start.name[:-1]
        assert end.metadata["start_time"] == start.metadata["start_time"]
        duration = end.measurements["monotonic_time"] - start.measurements["monotonic_time"]
        assert end.measurements["duration"] == duration >= 0


def test_the_records_of_a_connection_carry_its_ids(recorder: Recorder) -> None:
    for record in recorder.records:
        if "state" in record.metadata:
            state: State = record.metadata["state"]
            assert record.metadata["connection_id"] == state.connection_id
            assert record.metadata["trace_id"] == state.trace_id
            ids = (record.metadata["socket_id"], record.metadata["generation"])
            assert ids == (state.socket_id, state.generation)
    first = of(recorder, "connection connect start")[0].metadata
    assert first["span_id"] == first["connection_id"]


def test_a_handle_tells_the_input_and_what_it_did(recorder: Recorder) -> None:
    stops = [stop.metadata for stop in of(recorder, "connection handle stop")]
    push = next(stop for stop in stops if isinstance(stop["raw_message"], PushMessage))
    assert push["message"] is push["raw_message"]
    (effect,) = push["return"]
    assert isinstance(effect, SendFrame)
    assert push["end_state"].current_ref == push["state"].current_ref + 1
    received = next(stop for stop in stops if isinstance(stop["message"], Message))
    assert received["raw_message"].frame
    assert received["event"][0].type == "topic_join_succeeded"
    assert received["event"][0].attrs["topic"] == "room"
    assert received["built_events"][0].topic == "room"
    for before, after in pairwise(stops):
        if before["connection_id"] == after["connection_id"]:
            assert after["state"] is before["end_state"]


def test_the_client_spans_tell_what_was_asked_and_answered(recorder: Recorder) -> None:
    outcomes = [stop.metadata["outcome"] for stop in of(recorder, "client connect stop")]
    assert outcomes == ["ok", "ok", "ok", "ok", "error"]
    opened = of(recorder, "client connect stop")[0].metadata
    assert opened["response_headers"] == (("server", "scripted"),)
    assert (opened["attempt"], opened["configuration"].url) == (1, URL)
    joined = of(recorder, "client join stop")[0]
    assert joined.metadata["params"] == {"user": 1}
    assert (joined.metadata["topic"], joined.metadata["response"]) == ("room", {})
    pushed = of(recorder, "client push stop")[0].metadata
    assert (pushed["event"], pushed["params"]) == ("echo", {"a": 1})
    assert (pushed["ref"], pushed["status"], pushed["response"]) == ("2", "ok", {"a": 1})
    left = of(recorder, "client leave stop")[0]
    assert (left.metadata["outcome"], left.metadata["response"]) == ("ok", None)


def test_an_exception_is_told_as_text(recorder: Recorder) -> None:
    bug = of(recorder, "connection connect exception")[0].metadata
    assert "KeyError: 'broken'" in bug["stacktrace"]
    refused = of(recorder, "client push exception")[0].metadata
    assert refused["kind"] == "SerializationError"
    assert "object" in refused["reason"]
    (failed,) = of(recorder, "telemetry handler failure")
    assert failed.metadata["event"] == ("slipstream", "client", "join", "start")
    assert failed.metadata["handler_id"] == "broken"


def test_records_are_frozen(recorder: Recorder) -> None:
    for record in recorder.records:
        with pytest.raises(AttributeError):
            record.origin = None  # type: ignore[misc, assignment]


def test_every_record_type_is_exported(recorder: Recorder) -> None:
    exported = {getattr(telemetry, name) for name in telemetry.__all__}
    assert {type(record) for record in recorder.records} <= exported


def test_timeouts_of_joins_are_stops() -> None:
    recorder = Recorder()

    async def time_out() -> None:
        async with scripted(answers=(), telemetry=recorder.bus) as (socket, _):
            with pytest.raises(JoinTimeout):
                await socket.channel("room").join(timeout=1)

    trio.run(time_out, clock=MockClock(autojump_threshold=0))
    (stop,) = of(recorder, "client join stop")
    assert stop.metadata["outcome"] == "timeout"
    assert stop.metadata["response"] is None
