"""A handler that raises is detached: it, and nothing else that somebody has attached, whatever happens meanwhile."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.telemetry.support import DROPPED, FAILURE, ORIGIN, dropped

from slipstream_trio.telemetry import Origin, Record, Telemetry

GAP = ("slipstream", "client", "gap")


def emit(bus: Telemetry, number: int = 0) -> None:
    bus.point(DROPPED).emit(dropped(number))


def failures(bus: Telemetry) -> list[Any]:
    """Return the reports of this bus, as they come."""
    seen: list[Any] = []
    bus.attach("reporter", FAILURE, seen.append)
    return seen


def attached(bus: Telemetry) -> list[tuple[str, tuple[str, ...]]]:
    """Return what is attached beside the reporter."""
    return [(each.handler_id, each.event) for each in bus.list_handlers() if each.handler_id != "reporter"]


def by_itself(work: Callable[[], object]) -> None:
    work()


def by_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("whose", [by_itself, by_another_thread])
@pytest.mark.parametrize("event", [DROPPED, GAP, DROPPED[:2]])
def test_a_new_handler_under_its_id_stays(event: tuple[str, ...], whose: Callable[..., None]) -> None:
    bus, seen = Telemetry(), list[Record]()
    reports = failures(bus)

    def renew() -> None:
        assert bus.detach("mine")
        bus.attach("mine", event, seen.append, prefix=True)

    def fail(_: Record) -> None:
        whose(renew)
        raise ValueError("mine")

    bus.attach("mine", DROPPED, fail)
    emit(bus, 1)
    assert attached(bus) == [("mine", event)]
    assert [(each.handler_id, each.reason) for each in reports] == [("mine", "ValueError: mine")]
    assert seen == []  # it was not there when the record was emitted
    emit(bus, 2)
    bus.point(GAP).emit(dropped(3))
    assert [each.metadata["ref"] for each in seen] == {DROPPED: ["2"], GAP: ["3"]}.get(event, ["2", "3"])
    assert len(reports) == 1


@pytest.mark.parametrize(
    "renewed",
    [
        lambda bus, fail: bus.attach("mine", GAP, fail),
        lambda bus, fail: bus.attach("mine", DROPPED, fail, prefix=True),
        lambda bus, fail: bus.attach("mine", DROPPED, fail, socket_id="e" * 16),
        lambda bus, fail: bus.attach("mine", DROPPED, fail, connection_id="e" * 16),
    ],
)
def test_a_handler_that_attaches_itself_to_something_else_stays(renewed: Callable[..., None]) -> None:
    bus = Telemetry()
    reports = failures(bus)

    def fail(_: Record) -> None:
        bus.detach("mine")
        renewed(bus, fail)
        raise ValueError

    bus.attach("mine", DROPPED, fail)
    emit(bus)
    assert [handler_id for handler_id, _ in attached(bus)] == ["mine"]
    assert len(reports) == 1


def test_a_new_handler_of_several_events_stays_for_all_of_them() -> None:
    bus, seen = Telemetry(), list[Record]()

    def fail(_: Record) -> None:
        bus.detach("mine")
        bus.attach_many("mine", [GAP, DROPPED], seen.append)
        raise ValueError

    bus.attach_many("mine", [DROPPED, GAP], fail)
    emit(bus)
    assert attached(bus) == [("mine", GAP), ("mine", DROPPED)]
    emit(bus)
    bus.point(GAP).emit(dropped())
    assert len(seen) == 2


@pytest.mark.parametrize("events", [[DROPPED, GAP], [GAP, DROPPED], [GAP, FAILURE, DROPPED]])
def test_a_handler_of_several_events_is_detached_from_all_whichever_it_fails_at(events: Any) -> None:
    bus = Telemetry()
    reports = failures(bus)
    bus.attach_many("mine", events, lambda _: 1 / 0)
    emit(bus)
    assert attached(bus) == []
    assert [(each.handler_id, each.event) for each in reports] == [("mine", DROPPED)]


def test_the_same_function_under_another_id_stays() -> None:
    bus, calls = Telemetry(), list[Record]()

    def fail_once(record: Record) -> None:
        calls.append(record)
        if len(calls) == 1:
            raise ValueError

    other = Telemetry()
    other.attach("one", DROPPED, fail_once)
    bus.attach("one", DROPPED, fail_once)
    bus.attach("two", DROPPED, fail_once)
    emit(bus)
    assert (attached(bus), len(calls)) == ([("two", DROPPED)], 2)
    assert attached(other) == [("one", DROPPED)]


def test_one_that_fails_while_it_is_failing_is_detached_once_and_reported_twice() -> None:
    bus, seen = Telemetry(), list[Record]()
    reports = failures(bus)

    def fail(record: Record) -> None:
        if record.metadata["ref"] == "1":
            emit(bus, 2)
            bus.attach("mine", DROPPED, seen.append)
        raise ValueError(record.metadata["ref"])

    bus.attach("mine", DROPPED, fail)
    emit(bus, 1)
    assert [each.reason for each in reports] == ["ValueError: 2", "ValueError: 1"]
    assert attached(bus) == [("mine", DROPPED)]
    emit(bus, 3)
    assert len(seen) == 1


def test_who_hears_of_the_failure_may_attach_the_handler_again() -> None:
    bus, calls = Telemetry(), list[Record]()

    def fail_once(record: Record) -> None:
        calls.append(record)
        if len(calls) == 1:
            raise ValueError

    def attach_again(_: Record) -> None:
        assert attached(bus) == []
        bus.attach("mine", DROPPED, fail_once)

    bus.attach("reporter", FAILURE, attach_again)
    bus.attach("mine", DROPPED, fail_once)
    emit(bus)
    assert attached(bus) == [("mine", DROPPED)]
    emit(bus)
    assert (attached(bus), len(calls)) == ([("mine", DROPPED)], 2)


def test_the_others_are_called_although_one_has_failed_or_was_detached_meanwhile() -> None:
    bus, seen = Telemetry(), list[str]()

    def fail(_: Record) -> None:
        bus.detach("after")
        raise ValueError

    bus.attach("before", DROPPED, lambda _: seen.append("before"))
    bus.attach("failing", DROPPED, fail)
    bus.attach("after", DROPPED, lambda _: seen.append("after"))
    emit(bus)
    # Who was attached when it was emitted gets a record.
    assert seen == ["before", "after"]
    assert attached(bus) == [("before", DROPPED)]


def test_a_listening_that_has_failed_ends_without_harm() -> None:
    bus, seen = Telemetry(), list[Record]()
    with bus.listen(seen.append), bus.listen(lambda _: 1 / 0, DROPPED) as failing:
        emit(bus)
        assert failing not in [handler_id for handler_id, _ in attached(bus)]
    assert bus.list_handlers() == []
    assert [each.name for each in seen] == [DROPPED, FAILURE]


# Propagators


def test_a_propagator_that_raises_is_removed_and_reported_once() -> None:
    bus = Telemetry()
    reports = failures(bus)

    def fail(_: Origin) -> Iterable[tuple[str, str]]:
        raise ValueError("mine")

    bus.propagator = fail
    assert bus.propagate(ORIGIN) == bus.propagate(ORIGIN) == ()
    assert [(each.handler_id, each.origin, each.reason) for each in reports] == [
        ("propagator", ORIGIN, "ValueError: mine")
    ]


def test_a_new_propagator_stays() -> None:
    bus = Telemetry()
    reports = failures(bus)

    def renewed(_: Origin) -> Iterable[tuple[str, str]]:
        return [("x-trace", "1")]

    def fail(_: Origin) -> Iterable[tuple[str, str]]:
        bus.propagator = renewed
        raise ValueError

    bus.propagator = fail
    assert bus.propagate(ORIGIN) == ()
    assert bus.propagator is renewed
    assert bus.propagate(ORIGIN) == (("x-trace", "1"),)
    assert len(reports) == 1
