"""The verifier: a good trace has no violation, and each invariant's violations are found where they are."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from tests.client.support import Recorder, scripted
from trio.testing import MockClock

from slipstream_trio.protocol import (
    HeartbeatAcknowledged,
    SendFrame,
    TopicJoinClosed,
    TopicJoinFailed,
    TopicJoinSucceeded,
    TopicLeft,
    Transition,
)
from slipstream_trio.telemetry import ConnectStart, ConnectStop, HandleStart, HandleStop, Origin, Record, SpanException
from slipstream_trio.trace import Verifier, Violation, verify

Records = list[Any]
Break = Callable[[Records], Records]


async def live(recorder: Recorder, *, connections: int = 2, **options: Any) -> None:
    for _ in range(connections):
        async with scripted(telemetry=recorder.bus, **options) as (socket, peer):
            channel = socket.channel("room")
            for _ in range(2):
                async with socket.join("room") as joined:
                    peer.message("room", "event")
                    await joined.push("echo")
                    await socket.ping()
            await channel.join()
            peer.end_channel("room", "phx_error")
            await trio.testing.wait_all_tasks_blocked()
            await channel.join()


def record(**options: Any) -> Records:
    recorder = Recorder()
    trio.run(lambda: live(recorder, **options), clock=MockClock(autojump_threshold=0))
    return recorder.records


@pytest.fixture(scope="module")
def good() -> Records:
    return record()


def index_of(records: Records, kind: type, number: int = 0) -> int:
    """Return where the nth record of a type is."""
    return [index for index, each in enumerate(records) if isinstance(each, kind)][number]


def handled(records: Records, kind: type, number: int = 0) -> int:
    """Return where the nth handle stop is that built an event, or did an effect, of a type."""

    def did(each: Any) -> bool:
        return isinstance(each, HandleStop) and any(
            isinstance(thing, kind) for thing in (*each.transition.built_events, *each.transition.return_)
        )

    return [index for index, each in enumerate(records) if did(each)][number]


def replaced(records: Records, index: int, **changes: Any) -> Records:
    return [*records[:index], attrs.evolve(records[index], **changes), *records[index + 1 :]]


def with_events(records: Records, index: int, *events: Any) -> Records:
    """Let a handle stop have built these events too."""
    transition: Transition = records[index].transition
    return replaced(
        records, index, transition=attrs.evolve(transition, built_events=(*transition.built_events, *events))
    )


def without(records: Records, index: int) -> Records:
    return [*records[:index], *records[index + 1 :]]


def twice(records: Records, index: int) -> Records:
    return [*records[: index + 1], *records[index:]]


def moved(records: Records, index: int, to: int) -> Records:
    rest = without(records, index)
    return [*rest[:to], records[index], *rest[to:]]


def first_stop(records: Records) -> int:
    return index_of(records, HandleStop)


def found(records: Records) -> set[tuple[int, int]]:
    """Return where violations are, and of what."""
    return {(violation.index, violation.invariant) for violation in verify(records)}


def test_a_good_trace_has_no_violation(good: Records) -> None:
    assert verify(good) == []
    verifier = Verifier()
    assert [violation for each in good for violation in verifier.feed(each)] == []
    assert verifier.finish() == []
    assert (verifier.connections, verifier.records) == (2, len(good))


def test_an_empty_trace_is_good() -> None:
    assert verify([]) == []


def test_records_of_other_kinds_do_not_matter(good: Records) -> None:
    connection = [each for each in good if each.name[1] == "connection"]
    assert len(connection) < len(good)
    assert verify(connection) == []


def test_interleaved_connections_are_told_apart() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: live(recorder, connections=1))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert verify(recorder.records) == []


def test_a_violation_reads_as_a_sentence(good: Records) -> None:
    index = index_of(good, ConnectStop)
    violation = verify(without(good, index))[0]
    assert isinstance(violation, Violation)
    assert violation.index == len(good) - 1
    connection_id = good[0].connection_id
    assert str(violation) == (
        f"record {violation.index}, connection {connection_id}: invariant 2: the connection has no connect stop"
    )


# 1: ids


def another(records: Records, **changes: Any) -> Records:
    """Give the third handle start other ids."""
    index = index_of(records, HandleStart, 2)
    return replaced(records, index, origin=attrs.evolve(records[index].origin, **changes))


@pytest.mark.parametrize("changes", [{"trace_id": "e" * 32}, {"socket_id": "e" * 16}, {"generation": 2}])
def test_invariant_1_every_record_has_the_ids_of_its_connection(good: Records, changes: dict[str, Any]) -> None:
    assert (index_of(good, HandleStart, 2), 1) in found(another(good, **changes))


def test_invariant_1_no_two_connections_share_a_connection_id(good: Records) -> None:
    second = index_of(good, ConnectStart, 1)
    copied = [*good[:second], *good[:second]]
    assert (second + index_of(good, ConnectStart), 1) in found(copied)


def test_invariant_1_no_two_connections_share_a_trace_unless_they_were_made_to() -> None:
    trace_parent = f"00-{'a' * 32}-{'b' * 16}-01"
    shared = record(trace_parent=trace_parent)
    assert found(shared) == set()
    second = index_of(shared, ConnectStart, 1)
    state = attrs.evolve(shared[second].state, trace_parent=None)
    own = [*shared[:second], *(attrs.evolve(record, state=state) for record in shared[second : second + 1])]
    assert (second, 1) in found(own)


def test_invariant_1_the_state_has_the_connections_id(good: Records) -> None:
    index = index_of(good, ConnectStart)
    state = attrs.evolve(good[index].state, connection_id="e" * 16)
    # ConnectStart takes its span_id from its state, so nothing else differs.
    assert (index, 1) in found(replaced(good, index, state=state))


# 2: the connection's start and end


def test_invariant_2_connect_start_is_first(good: Records) -> None:
    index = index_of(good, ConnectStart)
    assert (index, 2) in found(without(good, index))
    assert (index, 2) in found(moved(good, index, index + 1))


def test_invariant_2_connect_start_comes_once(good: Records) -> None:
    index = index_of(good, ConnectStart)
    assert (index + 1, 1) in found(twice(good, index))


def test_invariant_2_connect_stop_is_last_and_comes_once(good: Records) -> None:
    index = index_of(good, ConnectStop)
    assert (len(good) - 1, 2) in found(without(good, index))
    assert (index + 1, 2) in found(twice(good, index))
    assert (index, 2) in found(moved(good, index, index - 1))


def test_invariant_2_an_exception_is_an_end_too(good: Records) -> None:
    index = index_of(good, ConnectStop)
    stop = good[index]
    end = SpanException(stop.start, stop.origin, stop.monotonic_time, "KeyError", "", "")
    assert found([*good[:index], end, *good[index + 1 :]]) == set()
    assert (index + 1, 2) in found([*good[:index], end, *good[index:]])


# 3: handle spans


def test_invariant_3_every_handle_start_has_its_end(good: Records) -> None:
    index = first_stop(good)
    following = index_of(good, HandleStart, 1)
    assert (following - 1, 3) in found(without(good, index))


def test_invariant_3_every_handle_end_has_its_start(good: Records) -> None:
    assert (first_stop(good) - 1, 3) in found(without(good, first_stop(good) - 1))
    assert (first_stop(good) + 1, 3) in found(twice(good, first_stop(good)))


def test_invariant_3_an_end_has_the_span_id_of_the_start_before(good: Records) -> None:
    index = first_stop(good)
    start = attrs.evolve(good[index].start, span_id="e" * 16)
    assert found(replaced(good, index, start=start)) == {(index, 3)}


def test_invariant_3_span_ids_are_unique(good: Records) -> None:
    index = first_stop(good)
    copied = [*good[: index + 1], good[index - 1], good[index], *good[index + 1 :]]
    assert (index + 1, 3) in found(copied)


def test_invariant_3_no_span_is_open_at_the_end(good: Records) -> None:
    last = index_of(good, ConnectStop, 1)
    stop = max(index for index in range(last) if isinstance(good[index], HandleStop))
    assert (last - 1, 3) in found(without(good, stop))
    cut = good[:stop]
    assert {(stop, 2), (stop, 3)} <= found(cut)


def test_invariant_3_an_exception_ends_a_span_and_changes_no_state(good: Records) -> None:
    index = first_stop(good)
    stop = good[index]
    failed = SpanException(stop.start, stop.origin, stop.monotonic_time, "KeyError", "", "")
    assert {invariant for _, invariant in found([*good[:index], failed, *good[index + 1 :]])} == {4}


# 4: states


def test_invariant_4_the_first_state_is_that_of_connect_start(good: Records) -> None:
    index = index_of(good, ConnectStart)
    state = attrs.evolve(good[index].state, current_ref=99)
    assert found(replaced(good, index, state=state)) == {(index_of(good, HandleStart), 4)}


def test_invariant_4_each_state_is_the_end_of_the_one_before(good: Records) -> None:
    index = index_of(good, HandleStart, 3)
    state = attrs.evolve(good[index].state, current_ref=99)
    assert found(replaced(good, index, state=state)) == {(index, 4)}
    stop = index_of(good, HandleStop, 3)
    transition = attrs.evolve(good[stop].transition, state=state)
    assert found(replaced(good, stop, transition=transition)) == {(index_of(good, HandleStart, 4), 4)}


def test_invariant_4_the_last_state_is_that_of_connect_stop(good: Records) -> None:
    index = index_of(good, ConnectStop)
    state = attrs.evolve(good[index].state, status="open")
    assert found(replaced(good, index, state=state)) == {(index, 4)}


# 5: times and refs


def test_invariant_5_monotonic_times_never_go_back(good: Records) -> None:
    index = index_of(good, HandleStart, 2)
    assert (index, 5) in found(replaced(good, index, monotonic_time=1))
    last = index_of(good, ConnectStop)
    assert (last, 5) in found(replaced(good, last, monotonic_time=1))


@attrs.frozen
class Lying:
    """A record whose measurements say something else."""

    record: Record
    duration: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.record, name)

    @property
    def measurements(self) -> dict[str, int]:
        return {**self.record.measurements, "duration": self.duration}


@pytest.mark.parametrize("kind", [HandleStop, ConnectStop])
def test_invariant_5_a_duration_is_a_difference(good: Records, kind: type) -> None:
    index = index_of(good, kind)
    lying = Lying(good[index], good[index].duration + 1)
    assert found([*good[:index], lying, *good[index + 1 :]]) == {(index, 5)}


@pytest.mark.parametrize("ref", ["1", "0", "-5", "nonsense", ""])
def test_invariant_5_refs_that_are_sent_increase(good: Records, ref: str) -> None:
    index = handled(good, SendFrame, 3)
    effects = (attrs.evolve(good[index].transition.return_[0], ref=ref),)
    transition = attrs.evolve(good[index].transition, return_=effects)
    assert found(replaced(good, index, transition=transition)) == {(index, 5)}


def test_invariant_5_a_join_settles_once(good: Records) -> None:
    index = handled(good, TopicJoinSucceeded)
    (event,) = good[index].transition.built_events
    assert found(with_events(good, index, event)) == {(index, 5)}
    assert (index, 5) in found(with_events(good, index, TopicJoinFailed("room", event.ref, "refused", {})))


def test_invariant_5_a_join_ends_once(good: Records) -> None:
    left = handled(good, TopicLeft)
    (event,) = good[left].transition.built_events
    assert found(with_events(good, left, TopicJoinClosed("room", event.ref, "closed", {}))) == {(left, 5)}
    assert found(with_events(good, left, event)) == {(left, 5)}
    closed = handled(good, TopicJoinClosed)
    (event,) = good[closed].transition.built_events
    assert found(with_events(good, closed, TopicLeft("room", event.ref, "left"))) == {(closed, 5)}
    failed = with_events(good, closed, TopicJoinFailed("room", "99", "refused", {}), TopicLeft("room", "99", "left"))
    assert found(failed) == {(closed, 5)}


def test_leaving_what_was_not_joined_is_no_violation(good: Records) -> None:
    left = handled(good, TopicLeft)
    assert found(with_events(good, left, TopicLeft("elsewhere", None, "left"))) == set()


def test_invariant_5_a_heartbeat_is_acknowledged_once(good: Records) -> None:
    index = handled(good, HeartbeatAcknowledged)
    (event,) = good[index].transition.built_events
    assert found(with_events(good, index, event)) == {(index, 5)}


def test_invariant_5_a_push_settles_once(good: Records) -> None:
    index = next(index for index, each in enumerate(good) if each.name[1:] == ("client", "push", "stop"))
    assert found(twice(good, index)) == {(index + 1, 5)}
    unanswered = attrs.evolve(good[index], status=None)
    assert found([*good[: index + 1], unanswered, *good[index + 1 :]]) == set()
    unknown = attrs.evolve(good[index], origin=Origin(None, None, "e" * 16, 0))
    assert found([*good[: index + 1], unknown, *good[index + 1 :]]) == set()


def test_what_has_no_connection_is_no_connections(good: Records) -> None:
    index = index_of(good, HandleStart)
    lost = attrs.evolve(good[index], origin=Origin(None, None, "e" * 16, 0))
    violations = verify([lost])
    assert [(violation.index, violation.connection_id, violation.invariant) for violation in violations] == [
        (0, None, 2)
    ]
