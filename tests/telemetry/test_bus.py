"""Who listens to what: attaching, detaching, filters, and handlers that fail."""

import threading
from functools import partial
from typing import Any

import attrs
import pytest
from tests.telemetry.support import DROPPED, FAILURE, ORIGIN, dropped

from slipstream_trio import telemetry
from slipstream_trio.telemetry import (
    ClientCallbackStop,
    HandlerFailed,
    MessageDiscarded,
    Origin,
    Record,
    SpanException,
    Telemetry,
    default_telemetry,
)

OTHER = Origin("d" * 16, "8" * 32, "6" * 16, 1)
GAP = ("slipstream", "client", "gap")


def emit(bus: Telemetry, number: int = 0, origin: Origin = ORIGIN) -> None:
    bus.point(DROPPED).emit(dropped(number, origin))


def test_a_handler_gets_the_records_of_its_event() -> None:
    bus, seen = Telemetry(), list[Record]()
    bus.attach("one", DROPPED, seen.append)
    record = dropped()
    bus.point(DROPPED).emit(record)
    assert seen == [record]
    assert seen[0] is record
    assert bus.detach("one") is True
    assert bus.detach("one") is False
    emit(bus)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("event", "prefix", "heard"),
    [
        (DROPPED, False, True),
        (DROPPED, True, True),
        (DROPPED[:2], True, True),
        ((), True, True),
        (("slipstream", "connection"), True, False),
    ],
)
def test_names_are_matched_exactly_or_by_prefix(event: tuple[str, ...], prefix: bool, heard: bool) -> None:
    bus, seen = Telemetry(), list[Record]()
    before = bus.point(DROPPED)
    bus.attach("one", event, seen.append, prefix=prefix)
    emit(bus)
    assert bool(seen) is heard
    assert bus.point(DROPPED) is before
    assert bool(before.handlers) is heard


@pytest.mark.parametrize(
    ("event", "prefix", "problem"),
    [
        (DROPPED[:2], False, "give prefix=True for all that begin with it"),
        ((), False, "give prefix=True for all that begin with it"),
        ((*DROPPED, "more"), True, r"the nearest is \('slipstream', 'client', 'message_dropped'\)"),
        (("slipstream", "cli"), True, "the nearest is"),
        (("slipstream", "client", "push", "stopp"), False, r"nearest is \('slipstream', 'client', 'push', 'stop'\)"),
        (("slipstream", "client", "handle_mesage"), True, "'handle_message', '"),
    ],
)
def test_a_name_that_no_event_has_is_refused_with_the_nearest(
    event: tuple[str, ...], prefix: bool, problem: str
) -> None:
    bus = Telemetry()
    with pytest.raises(ValueError, match=problem):
        bus.attach("one", event, print, prefix=prefix)
    with pytest.raises(ValueError, match=problem), bus.listen(print, event, prefix=prefix):
        pytest.fail("not to be listened to")
    assert bus.list_handlers() == []


def test_a_handler_is_attached_by_the_class_of_its_records() -> None:
    bus, seen = Telemetry(), list[str]()

    def note(record: MessageDiscarded) -> None:
        seen.append(record.ref or "")

    first = bus.attach(MessageDiscarded, note)
    assert bus.attach("mine", MessageDiscarded, note, socket_id="other") == "mine"
    with bus.listen(lambda _: seen.append("listens"), MessageDiscarded):
        emit(bus, 7)
    assert seen == ["7", "listens"]
    assert [handler.event for handler in bus.list_handlers()] == [DROPPED, DROPPED]
    assert bus.detach(first)
    with pytest.raises(TypeError, match="Telemetry is not the class of an event's records"):
        bus.attach(Telemetry, print)  # type: ignore[type-var]


def test_a_class_stands_for_all_the_names_that_its_records_have() -> None:
    bus = Telemetry()
    bus.attach("callbacks", ClientCallbackStop, print)
    bus.attach("exceptions", SpanException, print)
    names = {handler.handler_id: set[tuple[str, ...]]() for handler in bus.list_handlers()}
    for handler in bus.list_handlers():
        names[handler.handler_id].add(handler.event)
    assert ("slipstream", "client", "handle_message", "stop") in names["callbacks"]
    assert {name[-1] for name in names["callbacks"]} == {"stop"}
    assert ("slipstream", "connection", "handle", "exception") in names["exceptions"]
    assert {name[-1] for name in names["exceptions"]} == {"exception"}


def test_a_list_serves_as_a_name() -> None:
    bus, seen = Telemetry(), list[Record]()
    bus.attach("one", list(DROPPED), seen.append)  # type: ignore[call-overload]
    emit(bus)
    assert len(seen) == 1


@pytest.mark.parametrize("event", ["slipstream client gap", ("slipstream", 5), (DROPPED,)])
def test_what_names_no_event_is_refused(event: Any) -> None:
    bus = Telemetry()
    for attach in (partial(bus.attach, "one", event), partial(bus.attach_many, "one", [GAP, event])):
        with pytest.raises(TypeError, match=r"^an event is named by a tuple of strings"):
            attach(print)
    with pytest.raises(TypeError, match=r"^an event is named"):
        bus.attach_many("one", DROPPED, print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^an event is named"), bus.listen(print, event):
        pytest.fail("not to be listened to")
    assert bus.list_handlers() == []


def test_a_handler_that_could_not_be_called_is_refused() -> None:
    async def later(_: Record) -> None:
        pytest.fail("not to be called")

    bus = Telemetry()
    with pytest.raises(TypeError, match=r"^a handler is called synchronously, .* use stream\(\)"):
        bus.attach("one", GAP, later)
    with pytest.raises(TypeError, match=r"^a handler is a function of one record, not NoneType"):
        bus.attach("one", GAP, None)  # type: ignore[call-overload]
    assert bus.list_handlers() == []


def test_one_handler_of_several_events_is_called_once_for_each_record() -> None:
    bus, seen = Telemetry(), list[Record]()
    bus.attach_many("one", [DROPPED, DROPPED[:2], GAP, ()], seen.append, prefix=True)
    emit(bus)
    assert len(seen) == 1
    assert len(bus.list_handlers()) == 4
    assert bus.detach("one")
    assert bus.list_handlers() == []


def test_handlers_are_called_in_the_order_of_their_attachment() -> None:
    bus, seen = Telemetry(), list[str]()

    def note(name: str, _: Record) -> None:
        seen.append(name)

    for name in "dbac":
        bus.attach_many(name, [DROPPED, ()], partial(note, name), prefix=True)
    emit(bus)
    bus.detach("b")
    bus.attach("b", DROPPED, lambda _: seen.append("b"))
    emit(bus)
    assert seen == [*"dbac", *"dacb"]
    assert [handler.handler_id for handler in bus.list_handlers(DROPPED)] == ["d", "a", "c", "b"]


def test_an_id_can_be_taken_once() -> None:
    bus = Telemetry()
    bus.attach("one", DROPPED, print)
    with pytest.raises(ValueError, match="'one'"):
        bus.attach("one", GAP, print)
    assert [handler.event for handler in bus.list_handlers()] == [DROPPED]


def test_handlers_are_listed_with_all_that_they_were_attached_with() -> None:
    bus = Telemetry()
    bus.attach("one", DROPPED, print, socket_id="s", connection_id="c")
    bus.attach("two", GAP[:2], print, prefix=True)
    one, two = bus.list_handlers()
    assert attrs.asdict(one) == {
        "handler_id": "one",
        "event": DROPPED,
        "prefix": False,
        "function": print,
        "socket_id": "s",
        "connection_id": "c",
    }
    assert bus.list_handlers(DROPPED) == [one]
    assert bus.list_handlers(GAP[:2]) == [one, two]
    assert bus.list_handlers(("other",)) == []


@pytest.mark.parametrize(
    ("filters", "heard"),
    [
        ({}, ["0", "1"]),
        ({"socket_id": ORIGIN.socket_id}, ["0"]),
        ({"connection_id": OTHER.connection_id}, ["1"]),
        ({"socket_id": ORIGIN.socket_id, "connection_id": OTHER.connection_id}, []),
    ],
)
def test_records_are_filtered_by_their_ids(filters: dict[str, Any], heard: list[str]) -> None:
    bus, seen = Telemetry(), list[Any]()
    bus.attach("one", DROPPED, seen.append, **filters)
    emit(bus, 0, ORIGIN)
    emit(bus, 1, OTHER)
    assert [record.ref for record in seen] == heard


def test_listening_lasts_as_long_as_its_block() -> None:
    bus, seen = Telemetry(), list[Record]()
    with bus.listen(seen.append) as outer, bus.listen(seen.append, DROPPED, prefix=False) as inner:
        assert outer != inner
        emit(bus)
    with pytest.raises(KeyError), bus.listen(seen.append, GAP):
        emit(bus)
        raise KeyError
    emit(bus)
    assert len(seen) == 2
    assert bus.list_handlers() == []


def test_a_handler_that_raises_is_detached_and_reported_and_the_others_go_on() -> None:
    bus, seen, failures = Telemetry(), list[Record](), list[Any]()

    def fail(_: Record) -> None:
        raise ValueError("mine")

    bus.attach("reporter", FAILURE, failures.append)
    bus.attach_many("broken", [DROPPED, GAP], fail)
    bus.attach("after", DROPPED, seen.append)
    emit(bus)
    emit(bus)
    assert len(seen) == 2
    (failure,) = failures
    assert isinstance(failure, HandlerFailed)
    assert (failure.handler_id, failure.event, failure.reason) == ("broken", DROPPED, "ValueError: mine")
    assert "in fail" in failure.stacktrace
    assert failure.origin == ORIGIN
    assert {handler.handler_id for handler in bus.list_handlers()} == {"reporter", "after"}


def test_a_failure_that_nobody_hears_is_still_a_detachment() -> None:
    bus = Telemetry()
    bus.attach("broken", DROPPED, lambda _: 1 / 0)
    emit(bus)
    assert bus.list_handlers() == []


def test_a_failing_handler_of_failures_is_detached_too() -> None:
    bus, failures = Telemetry(), list[Any]()
    bus.attach("broken reporter", FAILURE, lambda _: 1 / 0)
    bus.attach("reporter", FAILURE, failures.append)
    bus.attach("broken", DROPPED, lambda _: {"a": 1}["b"])
    emit(bus)
    assert [(failure.handler_id, failure.event) for failure in failures] == [
        ("broken reporter", FAILURE),
        ("broken", DROPPED),
    ]
    assert [handler.handler_id for handler in bus.list_handlers()] == ["reporter"]


def test_what_is_no_exception_passes_through() -> None:
    bus = Telemetry()

    def interrupt(_: Record) -> None:
        raise KeyboardInterrupt

    bus.attach("one", DROPPED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        emit(bus)
    assert len(bus.list_handlers()) == 1


def test_a_handler_may_attach_and_detach() -> None:
    bus, seen = Telemetry(), list[str]()

    def once(_: Record) -> None:
        seen.append("once")
        assert bus.detach("once")
        bus.attach("next", DROPPED, lambda _: seen.append("next"))

    bus.attach("once", DROPPED, once)
    emit(bus)
    assert seen == ["once"]
    emit(bus)
    assert seen == ["once", "next"]


def test_a_handler_that_detaches_itself_and_raises_is_reported() -> None:
    bus, failures = Telemetry(), list[Any]()

    def leave(_: Record) -> None:
        bus.detach("leaver")
        raise ValueError

    bus.attach("reporter", FAILURE, failures.append)
    bus.attach("leaver", DROPPED, leave)
    emit(bus)
    assert [failure.handler_id for failure in failures] == ["leaver"]


def test_a_span_is_active_while_somebody_listens_to_any_of_its_events() -> None:
    bus = Telemetry()
    span = bus.span(("slipstream", "connection", "handle"))
    assert bus.span(("slipstream", "connection", "handle")) is span
    for last in ("start", "stop", "exception"):
        assert not span.active
        with bus.listen(print, ("slipstream", "connection", "handle", last)):
            assert span.active
    with bus.listen(print, GAP):
        assert not span.active
    with bus.listen(print):
        assert bus.span(("some", "other")).active


def test_attaching_and_detaching_from_many_threads() -> None:
    bus, seen = Telemetry(), list[Record]()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                bus.attach(f"{number}-{turn}", DROPPED, seen.append)
                emit(bus)
                assert bus.detach(f"{number}-{turn}")
        except BaseException as error:  # noqa: BLE001 - compared below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert bus.list_handlers() == []
    assert bus.point(DROPPED).handlers == ()
    assert len(seen) >= 200


def test_buses_are_independent_and_the_module_is_the_processes_own() -> None:
    one, other, seen = Telemetry(), Telemetry(), list[Record]()
    one.attach("one", DROPPED, seen.append)
    emit(other)
    assert not seen
    with telemetry.listen(seen.append):
        emit(default_telemetry)
    telemetry.attach("module", DROPPED, seen.append)
    assert [handler.handler_id for handler in telemetry.list_handlers()] == ["module"]
    assert telemetry.detach("module")
    telemetry.attach_many("module", [DROPPED], seen.append)
    assert default_telemetry.detach("module")
    assert len(seen) == 1
