"""Each oracle is alive: it catches a bug that is put into the library, and is silent without it."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from tests.simulation import guarantees
from tests.simulation.guarantees import GUARANTEES
from tests.simulation.visits import VISITS

from slipstream_trio import PushTimeout
from slipstream_trio.client.buffer import Buffer, ByteLimit, Gap
from slipstream_trio.client.push import Call, Pushes
from slipstream_trio.client.timer import Timer
from slipstream_trio.protocol import Message, ReplyReceived, Transition
from slipstream_trio.telemetry.span import ConnectionSpans
from slipstream_trio.testing.simulation import Scenario
from slipstream_trio.transport.common import WebSocketTransport

Bug: TypeAlias = Callable[[pytest.MonkeyPatch], None]


def every(times: int) -> Callable[[], bool]:
    """Return what is true every so many times."""
    numbers = count(1)
    return lambda: next(numbers) % times == 0


def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by one that gets it first, and then its arguments."""
    inner = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: around(inner, *args, **kwargs))


def drop_a_message(patch: pytest.MonkeyPatch) -> None:
    unlucky = every(4)
    wrap(patch, Buffer, "put", lambda put, buffer, message: None if unlucky() else put(buffer, message))


def deliver_twice(patch: pytest.MonkeyPatch) -> None:
    def twice(put: Any, buffer: Buffer, message: Message) -> Any:
        put(buffer, message)
        return put(buffer, message)

    wrap(patch, Buffer, "put", twice)


def deliver_for_an_old_join(patch: pytest.MonkeyPatch) -> None:
    old: dict[Buffer, Message] = {}

    def keep(put: Any, buffer: Buffer, message: Message) -> Any:
        before = old.get(buffer)
        if message.event == "tick":
            old[buffer] = message
            if before is not None and before.payload["series"] != message.payload["series"]:
                put(buffer, message)
                return put(buffer, before._replace(payload={**before.payload, "n": before.payload["n"] + 1}))
        return put(buffer, message)

    wrap(patch, Buffer, "put", keep)


def put_gaps_for_nothing(patch: pytest.MonkeyPatch) -> None:
    unlucky, now = every(4), datetime.now(UTC)

    def put(inner: Any, buffer: Buffer, message: Message) -> Any:
        return buffer.mark(Gap("reconnected", now, now)) if unlucky() else inner(buffer, message)

    wrap(patch, Buffer, "put", put)


def mix_up_replies(patch: pytest.MonkeyPatch) -> None:
    last: list[Any] = [{}]

    def mixed(received: Any, pushes: Pushes, reply: ReplyReceived) -> None:
        last.append(reply.response)
        received(pushes, attrs.evolve(reply, response=last.pop(0)))

    wrap(patch, Pushes, "reply_received", mixed)


def send_twice(patch: pytest.MonkeyPatch) -> None:
    def doubled(frames: Any, transport: WebSocketTransport, messages: Any) -> list[bytes]:
        made = zip(messages, frames(transport, messages), strict=True)
        return [frame * (1 + ("echo" in message)) for message, frame in made]

    wrap(patch, WebSocketTransport, "_frames", doubled)


def send_in_reverse(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, WebSocketTransport, "_frames", lambda frames, self, messages: frames(self, list(messages)[::-1]))


def tell_that_nothing_was_sent(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, Pushes, "connection_ended", lambda ended, pushes, lost, _: ended(pushes, lost, 0))


def tell_that_what_is_queued_is_unsent(patch: pytest.MonkeyPatch) -> None:
    def expire(inner: Any, call: Call) -> None:
        connection = call.channel._socket._connection
        if call.ref is not None and connection is not None and call.number > connection.writer.taken:
            call.result.fail(PushTimeout(call.channel.topic, call.event, 1.0, sent=False, waited=0.0))
        else:
            inner(call)

    wrap(patch, Call, "expire", expire)


def keep_deadlines_late(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, Timer, "add", lambda add, timer, deadline, timed: add(timer, deadline + 7, timed))


def end_no_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Buffer, "close", lambda *_: None)


def leave_a_task(patch: pytest.MonkeyPatch) -> None:
    def leaving(start: Any, timer: Timer) -> None:
        start(timer)
        trio.lowlevel.spawn_system_task(trio.sleep_forever)

    wrap(patch, Timer, "start", leaving)


def keep_in_line(patch: pytest.MonkeyPatch) -> None:
    def keep(leave: Any, pushes: Pushes, call: Any) -> bool:
        left: bool = leave(pushes, call)
        pushes._lines.setdefault(call.channel, OrderedDict())[call] = None
        return left

    wrap(patch, Pushes, "leave_line", keep)


def keep_deadlines(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timer, "stop", lambda timer: timer._alarm.remove())


def keep_answered_pushes(patch: pytest.MonkeyPatch) -> None:
    def keep(received: Any, pushes: Pushes, reply: ReplyReceived) -> None:
        push = pushes._pending.get(reply.ref)
        received(pushes, reply)
        if push is not None:
            pushes._pending[f"answered {reply.ref}"] = push

    wrap(patch, Pushes, "reply_received", keep)


def weigh_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ByteLimit, "look", lambda *_: None)


def lose_a_record(patch: pytest.MonkeyPatch) -> None:
    unlucky = every(9)
    wrap(patch, ConnectionSpans, "stop_handle", lambda stop, *given: None if unlucky() else stop(*given))


def change_what_the_core_does(patch: pytest.MonkeyPatch) -> None:
    def changed(stop: Any, spans: Any, start: Any, done: Any) -> None:
        stop(spans, start, attrs.evolve(done, return_=()) if isinstance(done, Transition) else done)

    wrap(patch, ConnectionSpans, "stop_handle", changed)


def write_no_losses_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("slipstream_trio.trace.recorder.missing_line", lambda *_: b"")


def let_buffers_grow(patch: pytest.MonkeyPatch) -> None:
    inner = Buffer.__init__

    def boundless(buffer: Buffer, streams: Any, _: int, *more: Any) -> None:
        inner(buffer, streams, 10_000, *more)

    patch.setattr(Buffer, "__init__", boundless)


def exit_where_it_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    async def exiting(get: Any, buffer: Buffer, *, gaps: bool = False) -> Any:
        try:
            return await get(buffer, gaps=gaps)
        except trio.Cancelled:
            raise SystemExit from None

    wrap(patch, Buffer, "__anext__", exiting)


def blame_the_server(patch: pytest.MonkeyPatch) -> None:
    def blaming(diagnose: Any, records: Any) -> Any:
        return [attrs.evolve(finding, blame="server") for finding in diagnose(records)]

    wrap(patch, guarantees, "diagnose", blaming)


def blame_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guarantees, "diagnose", lambda _: [])


UNREAD: dict[str, Any] = {"features": ("unread", "large_messages")}
BUGS: list[tuple[str, Bug, dict[str, Any]]] = [
    ("delivery", drop_a_message, {}),
    ("delivery", deliver_twice, {}),
    ("delivery", deliver_for_an_old_join, {"features": ("channel_crash",), "steps": 20, "faults": 15}),
    ("gaps", put_gaps_for_nothing, {}),
    ("replies", mix_up_replies, {}),
    ("performed_once", send_twice, {}),
    ("push_order", send_in_reverse, {}),
    ("unsent", tell_that_nothing_was_sent, {"features": ("half_open", "latency"), "steps": 30, "faults": 40}),
    ("unsent", tell_that_what_is_queued_is_unsent, {**UNREAD, "steps": 40, "faults": 10, "clients": 3}),
    ("time_limits", keep_deadlines_late, {"features": ("half_open",), "steps": 15, "faults": 10}),
    ("streams_end", end_no_stream, {}),
    ("nothing_left", leave_a_task, {}),
    ("nothing_left", keep_in_line, {"features": ("half_open",), "faults": 30}),
    ("nothing_left", keep_deadlines, {}),
    ("memory", keep_answered_pushes, {}),
    ("memory", weigh_nothing, {"features": ("large_messages", "slow_reader"), "steps": 40}),
    ("traces", lose_a_record, {}),
    ("replays", change_what_the_core_does, {}),
    ("recordings", write_no_losses_down, {"features": ("disk_full",), "faults": 12}),
    ("memory", let_buffers_grow, {"features": ("slow_reader",), "steps": 40}),
    ("interrupted", exit_where_it_is_cancelled, {"interrupt": "interrupt", "at": 150}),
    ("blame", blame_the_server, {"features": ("standstill",), "faults": 8}),
    ("blame", blame_nobody, {"features": ("reset",)}),
]


def found(bug: Bug, scenario: dict[str, Any]) -> set[str]:
    """Return the oracles that find fault with some runs."""
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        reports = (VISITS.run(Scenario(seed, **scenario)) for seed in range(8))
        return {violation.oracle for report in reports for violation in report.violations}


@pytest.mark.parametrize(("oracle", "bug", "scenario"), BUGS)
def test_an_oracle_catches_the_bug_that_it_is_for(oracle: str, bug: Bug, scenario: dict[str, Any]) -> None:
    assert oracle in found(bug, scenario)


def test_each_oracle_has_a_bug_that_it_is_for() -> None:
    assert {oracle for oracle, _, _ in BUGS} == {oracle.__name__ for oracle in GUARANTEES}
