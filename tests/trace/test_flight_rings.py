"""What the flight recorder keeps in memory and on the disk: enough of each connection, and no more."""

import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.telemetry.support import CountingBus
from tests.trace.disks import until
from tests.trace.scenes import Scene

from slipstream_trio import RecordingError
from slipstream_trio.telemetry import ClientPushStart, ClientPushStop, Origin, SpanException, Telemetry
from slipstream_trio.trace import FlightRecorder, Missing, Recorded, check, flight_recorder, read_entries, read_header
from slipstream_trio.trace.schema import start_time

SIZE = 40_000


class Flights(Scene):
    """Connections whose records go to a flight recorder as they happen, and are not kept."""

    def __init__(self, bus: Telemetry | None = None) -> None:
        super().__init__()
        self.bus = bus or Telemetry()
        self.emitted = 0
        self.socket_id = "f" * 16

    def new_origin(self, number: int) -> Origin:
        return Origin(f"{number:016x}", f"{number:032x}", self.socket_id, number)

    def go_on(self) -> None:
        """Emit what has happened."""
        for each in self.records:
            self.bus.point(each.name).emit(each)
        self.emitted += len(self.records)
        self.records.clear()

    def connect(self) -> None:
        super().connect()
        self.join("room")
        self.go_on()

    def receive(self, count: int, text: str = "x" * 100) -> None:
        for _ in range(count):
            self.frame("1", None, "room", "event", f'"{text}"')
            self.go_on()

    def fly(self, reason: str, count: int = 10, text: str = "x" * 100) -> str:
        """Connect, receive, and end; return the connection_id."""
        self.connect()
        self.receive(count, text)
        self.end(reason)
        self.go_on()
        return str(self.origin.connection_id)

    def late(self) -> None:
        """Tell of a push that was lost with the connection."""
        start = ClientPushStart(self.origin, self.span_id(), *self.times(), "room", "late", {})
        self.records.append(ClientPushStop(start, self.origin, self.monotonic(), "lost", "9", None, None))
        self.go_on()


def records_of(path: Path) -> list[Recorded]:
    return [entry for entry in read_entries(path) if isinstance(entry, Recorded)]


# Rings


@pytest.mark.parametrize("count", [150, 200, 250, 300, 350, 1000])
def test_a_ring_keeps_most_of_its_size_and_no_more(count: int, tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus, size=SIZE) as recorder:
        flights.fly("lost", count)
    (path,) = recorder.paths
    assert SIZE * 0.8 < path.stat().st_size < SIZE * 1.05
    _, missing, *rest = read_entries(path)
    assert isinstance(missing, Missing)
    assert (missing.records, missing.reason) == (flights.emitted - len(rest), "ring_full")
    # A state in full for each piece that can be dropped, not for each line.
    assert 7 <= path.read_bytes().count(b'"options"') <= 10
    assert not any(finding.wrong for finding in check([path]))


def test_a_header_lists_the_connection_where_its_beginning_is_missing(tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus, size=SIZE) as recorder:
        short, long = flights.fly("lost"), flights.fly("lost", 500)
    headers = [read_header(path) for path in recorder.paths]
    assert [header.open for header in headers] == [(), (long,)]
    assert [header.part for header in headers] == [1, 1]
    assert len({header.recording for header in headers}) == 2
    assert short != long


def test_what_is_told_after_the_end_follows_and_can_be_read(tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus) as recorder:
        flights.fly("lost")
        flights.late()
        flights.late()
        before = flights.emitted
        flights.fly("closed_by_client")
    (path,) = recorder.paths
    assert len(records_of(path)) == before
    assert [each.metadata.get("outcome") for each in records_of(path)][-2:] == ["lost"] * 2
    assert list(check([path])) == []


def test_what_is_told_of_a_connection_when_its_socket_has_another_is_left_out(tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus) as recorder:
        flights.fly("lost")
        first = flights.origin
        flights.connect()
        flights.origin = first
        flights.late()
    (path,) = recorder.paths
    assert records_of(path)[-1].name[-1] == "stop"
    assert records_of(path)[-1].name[1] == "connection"


@pytest.mark.parametrize("reason", ["closed_by_client", "disconnected", "cancelled"])
def test_an_end_that_the_user_wanted_leaves_no_file(reason: str, tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus) as recorder:
        flights.fly(reason)
        flights.late()
    assert (recorder.paths, recorder.dropped, list(tmp_path.iterdir())) == ([], 0, [])


@pytest.mark.parametrize("reason", ["lost", "closed_by_server", "heartbeat_timeout", "connect_failed", "option_failed"])
def test_every_other_end_leaves_one(reason: str, tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus) as recorder:
        flights.fly(reason)
    assert len(recorder.paths) == 1


def test_a_connection_that_raised_has_ended_badly(tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus) as recorder:
        flights.connect()
        flights.end("closed_by_client")
        (stop,) = flights.records
        end: Any = stop
        flights.records[:] = [SpanException(end.start, end.origin, end.monotonic_time, "KeyError", "'x'", "…")]
        flights.go_on()
    (path,) = recorder.paths
    assert records_of(path)[-1].metadata["kind"] == "KeyError"
    assert list(check([path])) == []


# Memory


def grown(work: Callable[[], object]) -> int:
    """Return by how many bytes the memory grows."""
    work()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(30):
        work()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


@pytest.fixture(name="flown")
def _flown(tmp_path: Path) -> Iterator[tuple[Flights, FlightRecorder]]:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus, keep=1) as recorder:
        yield flights, recorder
    assert (recorder.dropped, recorder.error) == (0, None)


def last_written(recorder: FlightRecorder, flights: Flights) -> None:
    """Wait for the last connection's file."""
    until(lambda: recorder.paths and recorder.paths[-1].name.endswith(f"{flights.origin.connection_id}.jsonl"))


def written(recorder: FlightRecorder, files: int) -> None:
    """Wait for so many files."""
    until(lambda: len(recorder.paths) == files)


def test_connections_that_ended_well_leave_nothing_in_memory(flown: tuple[Flights, FlightRecorder]) -> None:
    flights, _ = flown

    def work() -> None:
        flights.fly("closed_by_client", 20)
        for _ in range(50):
            flights.late()

    assert grown(work) < 150_000


def test_connections_that_were_followed_by_another_leave_nothing_in_memory(
    flown: tuple[Flights, FlightRecorder],
) -> None:
    flights, recorder = flown

    def work() -> None:
        flights.fly("lost", 20)
        for _ in range(50):  # these are kept until the socket has another connection
            flights.late()
        last_written(recorder, flights)

    assert grown(work) < 150_000


def test_of_a_connection_that_was_written_the_records_are_forgotten(flown: tuple[Flights, FlightRecorder]) -> None:
    flights, recorder = flown
    number = 0

    def work() -> None:
        nonlocal number
        number += 1
        flights.socket_id = f"{number:016x}"
        flights.fly("lost", 40, "x" * 1000)
        last_written(recorder, flights)

    # Each may be told something of yet: that costs what an encoder knows, not the 80,000 bytes of its records.
    assert grown(work) / 30 < 20_000


def test_of_many_that_ended_the_earliest_are_forgotten(
    flown: tuple[Flights, FlightRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipstream_trio.trace.flight.MOST_ENDED", 2)
    flights, recorder = flown
    origins: list[Origin] = []
    for number in range(1, 5):
        flights.socket_id = f"{number:016x}"
        flights.fly("lost")
        origins.append(flights.origin)
        last_written(recorder, flights)
    before = recorder.paths[-1].stat().st_size
    flights.origin = origins[0]
    flights.late()  # nobody knows it any more
    flights.origin = origins[3]
    flights.late()
    until(lambda: recorder.paths[-1].stat().st_size > before)
    assert [each.name for each in records_of(recorder.paths[-1])].count(ClientPushStop.name) == 1


# Files


def test_a_file_is_named_after_the_time_and_the_connection(tmp_path: Path) -> None:
    bus = CountingBus().bus
    flights = Flights(bus)
    with flight_recorder(tmp_path, telemetry=bus) as recorder:
        connection_id = flights.fly("lost")
    (path,) = recorder.paths
    header = read_header(path)
    assert path.name == f"{start_time(10**18):%Y%m%dT%H%M%SZ}-{connection_id}.jsonl"
    assert path.name.startswith("20010909T014640Z-")
    assert abs((header.started - start_time(10**18)).total_seconds()) < 1
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600
    assert header.redacted == ("secrets",)


@pytest.mark.parametrize(
    ("options", "redacted", "shown"),
    [
        ({"secrets": None}, (), True),
        ({"payloads": "omit"}, ("secrets", "payloads"), False),
        ({"secrets": None, "payloads": "size"}, ("payloads",), False),
        ({"secrets": {"room"}}, ("secrets",), True),
    ],
)
def test_what_is_hidden_can_be_chosen(options: Any, redacted: tuple[str, ...], shown: bool, tmp_path: Path) -> None:
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus, **options) as recorder:
        flights.fly("lost", text="token=hunter22")
    (path,) = recorder.paths
    assert read_header(path).redacted == redacted
    assert (b"hunter22" in path.read_bytes()) is shown


def test_of_the_files_the_latest_are_kept(tmp_path: Path) -> None:
    flights = Flights()
    other = tmp_path / "another-recorders.jsonl"
    other.touch()
    with flight_recorder(tmp_path, telemetry=flights.bus, keep=3) as recorder:
        ids = [flights.fly("lost") for _ in range(8)]
    assert [path.name[-22:-6] for path in recorder.paths] == ids[-3:]
    assert set(tmp_path.iterdir()) == {other, *recorder.paths}
    assert all(records_of(path) for path in recorder.paths)


def test_directories_are_made(tmp_path: Path) -> None:
    flights = Flights()
    for _ in range(2):
        with flight_recorder(tmp_path / "a" / "b", telemetry=flights.bus) as recorder:
            flights.fly("lost")
        assert len(recorder.paths) == 1


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(RecordingError, match="cannot be written to"), flight_recorder(tmp_path, telemetry=Telemetry()):
        raise AssertionError("not reached")


# A disk that is slow


def test_what_waits_is_bounded_and_what_was_written_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipstream_trio.trace.flight.MOST_WAITING", 20_000)
    go_on = threading.Event()
    open_file = os.open

    def slow(path: Any, *options: Any) -> int:
        if threading.current_thread() is not threading.main_thread():
            assert go_on.wait(30)
        return open_file(path, *options)

    monkeypatch.setattr(os, "open", slow)
    flights = Flights()
    with flight_recorder(tmp_path, telemetry=flights.bus, size=4000, keep=1000) as recorder:
        for _ in range(20):
            flights.fly("lost", 50)
        dropped = recorder.dropped
        assert 10 < dropped < 18
        go_on.set()
        written(recorder, 20 - dropped)
        for number in range(20):
            flights.fly("lost", 50)
            written(recorder, 21 + number - dropped)
    assert recorder.dropped == dropped
    assert recorder.error is None
