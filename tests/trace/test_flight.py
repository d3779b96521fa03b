"""The flight recorder: nothing is written of a connection that ends well, and the latest of one that does not."""

import errno
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.client.support import scripted
from tests.trace.support import eventful, run

from slipstream_trio import ConnectionLost, RecordingError, connect
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.trace import Missing, check, ended_badly, flight_recorder, read, read_entries, replay
from slipstream_trio.trace.encode import Encoder

COUNT = 50


async def lost(telemetry: Telemetry) -> None:
    """Push much, and lose the connection."""
    async with scripted(telemetry=telemetry, reconnect=None) as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        for number in range(COUNT):
            await channel.push("echo", {"number": number, "password": "hunter22"})
        peer.end()
        await trio.sleep_forever()


def lose(telemetry: Telemetry) -> None:
    with pytest.raises(ConnectionLost):
        run(lost, telemetry)


def test_a_connection_that_ends_well_leaves_nothing(tmp_path: Path) -> None:
    telemetry = Telemetry()
    with flight_recorder(tmp_path / "flights", telemetry=telemetry) as recorder:
        run(eventful, telemetry)
    assert (recorder.paths, recorder.dropped, recorder.error) == ([], 0, None)
    assert list((tmp_path / "flights").iterdir()) == []
    assert [each.name for each in threading.enumerate() if each.name.startswith("slipstream")] == []
    assert telemetry.list_handlers() == []


async def replaced(telemetry: Telemetry) -> None:
    async with FakeServer() as server, connect(server.url, transport=server.connector(), telemetry=telemetry) as socket:
        await server.accept()
        socket.reconnect()
        await server.accept()


def test_a_connection_that_its_user_replaces_leaves_nothing(tmp_path: Path) -> None:
    telemetry = Telemetry()
    with flight_recorder(tmp_path, telemetry=telemetry) as recorder:
        run(replaced, telemetry)
    assert recorder.paths == []


def test_the_latest_of_a_connection_that_ends_badly_is_written(tmp_path: Path) -> None:
    telemetry = Telemetry()
    seen: list[Any] = []
    with (
        telemetry.listen(seen.append),
        flight_recorder(tmp_path, telemetry=telemetry, size=32_000) as recorder,
    ):
        run(eventful, telemetry)
        before = len(seen)
        lose(telemetry)
    (path,) = recorder.paths
    assert path.name.endswith(f"-{seen[-1].connection_id}.jsonl")
    recorded = list(read(path))
    assert 10 < len(recorded) < len(seen) - before
    assert [each.name for each in recorded] == [each.name for each in seen[-len(recorded) :]]
    assert [each.span_id for each in recorded[:-1]] == [each.span_id for each in seen[-len(recorded) : -1]]
    missing = next(entry for entry in read_entries(path) if isinstance(entry, Missing))
    assert missing.records == len(seen) - before - len(recorded)
    findings = list(check([path]))
    assert [finding.kind for finding in findings] == ["missing"]
    assert list(replay(recorded)) == []
    assert not any("hunter22" in repr(each.metadata) for each in recorded)


def test_a_flight_that_fits_is_whole(tmp_path: Path) -> None:
    telemetry = Telemetry()
    with flight_recorder(tmp_path, telemetry=telemetry) as recorder:
        lose(telemetry)
    (path,) = recorder.paths
    assert list(check([path])) == []
    names = [each.name[1:] for each in read(path)]
    assert names[0] == ("client", "connect", "start")
    assert ("connection", "connect", "stop") in names


def test_what_comes_after_the_end_is_added_until_the_next_connection(tmp_path: Path) -> None:
    telemetry = Telemetry()

    async def scenario(bus: Telemetry) -> None:
        async with scripted(telemetry=bus, answers=["phx_join"]) as (socket, peer), socket.join("room") as channel:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_when_idle, peer)
                await channel.push("unanswered")

    async def end_when_idle(peer: Any) -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.end()

    with flight_recorder(tmp_path, telemetry=telemetry) as recorder:
        with pytest.RaisesGroup(ConnectionLost, flatten_subgroups=True, allow_unwrapped=True):
            run(scenario, telemetry)
    (path,) = recorder.paths
    outcomes = [each.metadata.get("outcome") for each in read(path) if each.name[1:] == ("client", "push", "stop")]
    assert "lost" in outcomes
    assert not any(finding.wrong for finding in check([path]))


def test_who_ended_badly_can_be_chosen(tmp_path: Path) -> None:
    telemetry = Telemetry()
    ends: list[Any] = []

    def every(end: Any) -> bool:
        ends.append(end)
        return True

    with flight_recorder(tmp_path, telemetry=telemetry, when=every, keep=2) as recorder:
        run(lambda bus: eventful(bus, connections=3), telemetry)
    assert [ended_badly(end) for end in ends] == [False] * 3
    assert len(recorder.paths) == 2
    assert sorted(recorder.paths) == sorted(tmp_path.iterdir())
    assert list(check(recorder.paths)) == []


def test_a_function_or_a_disk_that_fails_is_no_connections_business(tmp_path: Path) -> None:
    def fail(_: Any) -> bool:
        raise RuntimeError("no")

    telemetry = Telemetry()
    with flight_recorder(tmp_path, telemetry=telemetry, when=fail) as recorder:
        lose(telemetry)
    assert isinstance(recorder.error, RuntimeError)
    assert recorder.dropped == 1
    with flight_recorder(tmp_path / "gone", telemetry=telemetry) as recorder:
        (tmp_path / "gone").rmdir()
        lose(telemetry)
    assert isinstance(recorder.error, OSError)
    assert recorder.dropped >= 1


def test_what_comes_after_the_end_is_not_written_where_the_beginning_could_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def full_at_first(path: str, flags: int) -> int:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.open(path, flags, 0o600)

    monkeypatch.setattr("slipstream_trio.trace.flight.open_private", full_at_first)
    telemetry = Telemetry()
    seen: list[Any] = []
    with telemetry.listen(seen.append), flight_recorder(tmp_path, telemetry=telemetry) as recorder:
        lose(telemetry)
        recorder.handle(next(each for each in reversed(seen) if each.name[1] == "client"))
    assert isinstance(recorder.error, OSError)
    assert (recorder.dropped, len(calls)) == (3, 1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_encoded_is_missing_and_nothing_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Encoder.encode
    counted = itertools.count()

    def failing(encoder: Encoder, record: Any) -> bytes:
        line = encode(encoder, record)
        if next(counted) == 20:
            raise ValueError("an object of the user's")
        return line

    monkeypatch.setattr(Encoder, "encode", failing)
    telemetry = Telemetry()
    with flight_recorder(tmp_path, telemetry=telemetry) as recorder:
        lose(telemetry)
    assert (recorder.dropped, str(recorder.error)) == (1, "an object of the user's")
    (path,) = recorder.paths
    missing = [entry for entry in read_entries(path) if isinstance(entry, Missing)]
    assert [(entry.records, entry.reason) for entry in missing] == [
        (2, "not_encodable")
    ]  # of a handle's end, and its start with it
    assert not any(finding.wrong for finding in check([path]))


def test_a_directory_that_cannot_be_made_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="no directory can be made here"):
        with flight_recorder(tmp_path / "file" / "flights"):
            raise AssertionError("not reached")


def test_a_connection_open_before_is_taken_up_in_the_midst(tmp_path: Path) -> None:
    telemetry = Telemetry()

    async def scenario(bus: Telemetry) -> None:
        async with scripted(telemetry=bus, reconnect=None) as (socket, peer):
            with flight_recorder(tmp_path, telemetry=bus) as recorder:
                await socket.ping()
                peer.end()
                await trio.testing.wait_all_tasks_blocked()
            assert not any(finding.wrong for finding in check(recorder.paths))
            assert len(recorder.paths) == 1
            await trio.sleep_forever()

    with pytest.raises(ConnectionLost):
        run(scenario, telemetry)
