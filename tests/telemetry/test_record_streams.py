"""Telemetry as an async stream."""

import pytest
import trio
from tests.telemetry.support import DROPPED, ORIGIN, dropped
from trio.testing import MockClock

from slipstream_trio import telemetry
from slipstream_trio.telemetry import Origin, RecordStream, Telemetry, default_telemetry


def emit(bus: Telemetry, *numbers: int, origin: Origin = ORIGIN) -> None:
    for number in numbers:
        bus.point(DROPPED).emit(dropped(number, origin))


async def test_records_are_given_in_order(autojump_clock: MockClock) -> None:
    bus = Telemetry()
    async with bus.stream() as records:
        assert isinstance(records, RecordStream)
        assert aiter(records) is records
        emit(bus, 1, 2)
        assert [(await anext(records)).metadata["ref"] for _ in range(2)] == ["1", "2"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, records)
            await trio.testing.wait_all_tasks_blocked()
            emit(bus, 3)
    assert bus.list_handlers() == []


async def test_what_does_not_fit_is_counted(autojump_clock: MockClock) -> None:
    bus = Telemetry()
    async with bus.stream(DROPPED, prefix=False, buffer=2) as records:
        emit(bus, *range(5))
        assert records.dropped == 3
        assert [(await anext(records)).metadata["ref"] for _ in range(2)] == ["0", "1"]
        emit(bus, 5)
        assert (await anext(records)).metadata["ref"] == "5"


async def test_it_ends_after_its_block_with_what_is_buffered(autojump_clock: MockClock) -> None:
    bus = Telemetry()
    async with bus.stream() as records:
        emit(bus, 1, 2)
    emit(bus, 3)
    assert len([record async for record in records]) == 2
    assert records.dropped == 0


async def test_the_block_ends_an_iteration_in_another_task(autojump_clock: MockClock) -> None:
    bus = Telemetry()

    async def iterate(records: RecordStream) -> None:
        async for _ in records:
            pass

    async with trio.open_nursery() as nursery:
        async with bus.stream() as records:
            nursery.start_soon(iterate, records)
            await trio.testing.wait_all_tasks_blocked()


async def test_it_has_the_filters_of_a_handler(autojump_clock: MockClock) -> None:
    bus = Telemetry()
    other = Origin("d" * 16, "8" * 32, "6" * 16, 1)
    async with bus.stream(socket_id=other.socket_id) as records, bus.stream(("slipstream", "connection")) as none:
        emit(bus, 1)
        emit(bus, 2, origin=other)
        assert (await anext(records)).metadata["ref"] == "2"
        for empty in (records, none):
            with trio.move_on_after(1) as scope:
                await anext(empty)
            assert scope.cancelled_caught


async def test_the_body_of_its_block_may_raise(autojump_clock: MockClock) -> None:
    bus = Telemetry()
    with pytest.raises(KeyError):
        async with bus.stream():
            raise KeyError
    assert bus.list_handlers() == []


async def test_records_of_other_runs_and_of_threads_without_one_are_not_its(autojump_clock: MockClock) -> None:
    bus = Telemetry()

    async def emit_in_a_run_of_its_own() -> None:
        await trio.lowlevel.checkpoint()
        emit(bus, 1)

    async with bus.stream() as records:
        await trio.to_thread.run_sync(trio.run, emit_in_a_run_of_its_own)
        await trio.to_thread.run_sync(emit, bus, 2)
        emit(bus, 3)
        assert (await anext(records)).metadata["ref"] == "3"
        assert records.dropped == 0


async def test_the_module_streams_the_bus_of_the_process(autojump_clock: MockClock) -> None:
    async with telemetry.stream() as records:
        emit(default_telemetry, 1)
        assert (await anext(records)).metadata["ref"] == "1"
