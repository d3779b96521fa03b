"""How client spans end: ok, error, timeout, cancelled, lost, or by an exception of code."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from tests.client.support import URL, Peer, Recorder, Scripted, scripted
from trio.testing import MockClock

from slipstream_trio import Channel, ConnectError, ConnectionRejected, ConnectTimeout, SlipstreamError, Socket, connect
from slipstream_trio.protocol import LeaveTopic
from slipstream_trio.telemetry import ConnectStop, SpanException, Telemetry
from slipstream_trio.trace import verify

QUIET = frozenset({"heartbeat"})
Scenario = Callable[[Socket, Peer], Awaitable[None]]


async def play(scenario: Scenario) -> Recorder:
    """Play a scenario; whatever of the library's it raises is expected."""
    recorder = Recorder()
    with suppress(SlipstreamError):
        async with scripted(answers=QUIET, telemetry=recorder.bus, close_timeout=1) as (socket, peer):
            with suppress(SlipstreamError):
                await scenario(socket, peer)
    return recorder


def ends(recorder: Recorder, span: str) -> list[str]:
    """Return the outcomes of these spans; "exception" where code raised."""
    return [
        "exception" if isinstance(record, SpanException) else record.metadata["outcome"]
        for record in recorder.records
        if record.name[1:3] == ("client", span) and record.name[-1] != "start"
    ]


async def joined(socket: Socket, peer: Peer) -> Channel:
    peer.answers.add("phx_join")
    channel = socket.channel("room")
    await channel.join()
    return channel


async def join_ok(socket: Socket, peer: Peer) -> None:
    await joined(socket, peer)


async def join_error(socket: Socket, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:

        async def refuse() -> None:
            peer.reply(await peer.wait_sent("phx_join"), {"reason": "no"}, "error")

        nursery.start_soon(refuse)
        with suppress(SlipstreamError):
            await socket.channel("room").join()


async def join_timeout(socket: Socket, peer: Peer) -> None:
    await socket.channel("room").join(timeout=1)


async def join_cancelled(socket: Socket, peer: Peer) -> None:
    with trio.move_on_after(1):
        await socket.channel("room").join()


async def join_lost(socket: Socket, peer: Peer) -> None:
    peer.end()
    with trio.CancelScope(shield=True):
        await socket.channel("room").join()


async def join_exception(socket: Socket, peer: Peer) -> None:
    await socket.channel("room", object()).join()


@pytest.mark.parametrize(
    ("scenario", "outcome"),
    [
        (join_ok, "ok"),
        (join_error, "error"),
        (join_timeout, "timeout"),
        (join_cancelled, "cancelled"),
        (join_lost, "lost"),
        (join_exception, "exception"),
    ],
)
async def test_a_join_span_ends_with_its_outcome(scenario: Scenario, outcome: str, autojump_clock: MockClock) -> None:
    recorder = await play(scenario)
    assert ends(recorder, "join") == [outcome]
    if outcome == "error":
        assert recorder.named("join", "stop")[0].response == {"reason": "no"}


async def test_joining_what_is_joined_is_an_error(autojump_clock: MockClock) -> None:
    async def twice(socket: Socket, peer: Peer) -> None:
        await join_ok(socket, peer)
        await join_ok(socket, peer)

    assert ends(await play(twice), "join") == ["ok", "error"]


def pushing(answer: Callable[[Peer, Any], object], **options: Any) -> Scenario:
    """Return a scenario that pushes, and what happens then."""

    async def scenario(socket: Socket, peer: Peer) -> None:
        channel = await joined(socket, peer)
        async with trio.open_nursery() as nursery:

            async def then() -> None:
                answer(peer, await peer.wait_sent("event"))

            nursery.start_soon(then)
            with suppress(SlipstreamError), trio.CancelScope(shield=True), trio.move_on_after(3):
                await channel.push("event", {"a": 1}, **options)
            nursery.cancel_scope.cancel()

    return scenario


@pytest.mark.parametrize(
    ("scenario", "outcome", "ref", "status", "response"),
    [
        (pushing(lambda peer, push: peer.reply(push, 5)), "ok", "2", "ok", 5),
        (pushing(lambda peer, push: peer.reply(push, 5, "odd")), "error", "2", "odd", 5),
        (pushing(lambda peer, push: None, timeout=1), "timeout", "2", None, None),
        (pushing(lambda peer, push: None, timeout=None), "cancelled", "2", None, None),
        (pushing(lambda peer, push: peer.end()), "lost", "2", None, None),
        (pushing(lambda peer, push: peer.end_channel("room", "phx_error")), "lost", "2", None, None),
    ],
)
async def test_a_push_span_ends_with_its_outcome(
    scenario: Scenario, outcome: str, ref: str, status: str, response: Any, autojump_clock: MockClock
) -> None:
    recorder = await play(scenario)
    assert ends(recorder, "push") == [outcome]
    (stop,) = recorder.named("push", "stop")
    assert (stop.ref, stop.status, stop.response) == (ref, status, response)


async def test_a_push_that_never_got_a_ref_says_none(autojump_clock: MockClock) -> None:
    async def push(socket: Socket, peer: Peer) -> None:
        await socket.channel("room").push("event")

    recorder = await play(push)
    assert ends(recorder, "push") == ["lost"]
    assert recorder.named("push", "stop")[0].ref is None


async def leave_ok(socket: Socket, peer: Peer) -> None:
    peer.answers.add("phx_leave")
    await leave(socket, peer)


async def leave(socket: Socket, peer: Peer) -> None:
    peer.answers.add("phx_join")
    channel = socket.channel("room")
    await channel.join()
    await channel.leave(timeout=3)


async def leave_cancelled(socket: Socket, peer: Peer) -> None:
    with trio.move_on_after(1):
        await leave(socket, peer)


async def leave_lost(socket: Socket, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await peer.wait_sent("phx_leave")
            peer.end()

        nursery.start_soon(end)
        with trio.CancelScope(shield=True):
            await leave(socket, peer)


async def leave_again(socket: Socket, peer: Peer) -> None:
    peer.answers.add("phx_join")
    channel = socket.channel("room")
    await channel.join()
    await channel.leave(timeout=1)
    await channel.leave(timeout=1)


@pytest.mark.parametrize(
    ("scenario", "outcomes", "reasons"),
    [
        (leave_ok, ["ok"], [None]),
        (leave, ["timeout"], ["leave_timeout"]),
        (leave_cancelled, ["cancelled"], ["cancelled"]),
        (leave_lost, ["lost"], ["leave_lost"]),
        (leave_again, ["timeout", "ok"], ["leave_timeout", None]),
    ],
)
async def test_a_leave_has_its_outcome_and_the_reason(
    scenario: Scenario, outcomes: list[str], reasons: list[str | None], autojump_clock: MockClock
) -> None:
    recorder = await play(scenario)
    assert ends(recorder, "leave") == outcomes
    assert [stop.reason for stop in recorder.named("leave", "stop")] == reasons


async def test_a_leave_that_code_breaks_off_is_an_exception(autojump_clock: MockClock) -> None:
    def interrupt(record: Any) -> None:
        if isinstance(record.raw_message, LeaveTopic):
            raise KeyboardInterrupt

    recorder = Recorder()
    async with scripted(answers=QUIET, telemetry=recorder.bus, close_timeout=1) as (socket, peer):
        channel = await joined(socket, peer)
        with recorder.bus.listen(interrupt, ("slipstream", "connection", "handle", "start")):
            with pytest.raises(KeyboardInterrupt):
                await channel.leave()
    assert ends(recorder, "leave") == ["exception"]
    assert recorder.named("client", "leave", "exception")[0].kind == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("error", "outcome", "headers"),
    [
        (ConnectError("no"), "error", ()),
        (ConnectTimeout(10), "timeout", ()),
        (ConnectionRejected(429, [("retry-after", "1")]), "error", (("retry-after", "1"),)),
    ],
)
async def test_connects_that_fail(error: Exception, outcome: str, headers: Any, autojump_clock: MockClock) -> None:
    async def fail(_: Any) -> None:
        raise error

    recorder = Recorder()
    with pytest.raises(ConnectError):
        async with connect(URL, transport=Scripted(opening=fail), telemetry=recorder.bus):
            pass
    assert ends(recorder, "connect") == [outcome]
    assert recorder.named("client", "connect", "stop")[0].response_headers == headers
    (stop,) = recorder.named("connection", "connect", "stop")
    assert stop.termination_reason == "connect_failed"
    assert stop.state.status == "closed"


@pytest.mark.parametrize("option", ["params", "headers", "auth_token", "trace_parent"])
async def test_an_option_that_raises_ends_the_attempt_by_an_exception(option: str, autojump_clock: MockClock) -> None:
    """The span has begun before, and lasts as long as the option's function."""

    async def fail() -> None:
        await trio.sleep(2)
        raise KeyError("a bug")

    telemetry = Telemetry(monotonic_ns=lambda: int(trio.current_time() * 1e9))
    recorder = Recorder(telemetry)
    given: Any = {option: fail}
    with pytest.raises(KeyError):
        async with connect(URL, transport=Scripted(), telemetry=telemetry, **given):
            pass
    (start,) = recorder.named("client", "connect", "start")
    (end,) = recorder.named("client", "connect", "exception")
    assert isinstance(end, SpanException)
    assert (end.start, end.kind) == (start, "KeyError")
    assert end.measurements["duration"] == (0 if option == "trace_parent" else 2_000_000_000)
    assert start.origin == end.origin
    # The connection has come to an end of its own, though nothing was opened.
    (stop,) = recorder.named("connection", "connect", "stop")
    assert (stop.termination_reason, stop.state.status) == ("option_failed", "closed")
    assert stop.measurements["duration"] == end.measurements["duration"]
    assert stop.connection_id == start.metadata["connection_id"]
    assert verify(recorder.records) == []


async def test_the_attempt_begins_before_its_options_are_asked(autojump_clock: MockClock) -> None:
    seen: list[Any] = []
    recorder = Recorder()

    def ask() -> dict[str, str]:
        seen.extend(record.name for record in recorder.records)
        return {}

    async with connect(URL, transport=Scripted(), telemetry=recorder.bus, params=ask) as socket:
        (start,) = recorder.named("client", "connect", "start")
        assert (start.connection_id, start.trace_id) == (socket.connection_id, socket.trace_id)
    assert seen == [("slipstream", "client", "connect", "start"), ("slipstream", "connection", "connect", "start")]


async def test_an_attempt_that_is_cancelled_while_its_options_are_asked(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    with trio.move_on_after(1):
        async with connect(URL, transport=Scripted(), telemetry=recorder.bus, params=trio.sleep_forever):
            pass
    assert ends(recorder, "connect") == ["cancelled"]
    (stop,) = recorder.named("connection", "connect", "stop")
    assert (stop.termination_reason, stop.state.status) == ("cancelled", "closed")


async def test_a_connect_that_is_cancelled(autojump_clock: MockClock) -> None:
    async def never(_: Any) -> None:
        await trio.sleep_forever()

    recorder = Recorder()
    with trio.move_on_after(1):
        async with connect(URL, transport=Scripted(opening=never), telemetry=recorder.bus):
            pass
    assert ends(recorder, "connect") == ["cancelled"]
    (stop,) = recorder.named("connection", "connect", "stop")
    assert stop.termination_reason == "cancelled"


@pytest.mark.parametrize(("code", "reason"), [(1000, "closed_by_server"), (1006, "lost"), (None, "closed_by_client")])
async def test_a_connection_tells_why_it_ended(code: int | None, reason: str, autojump_clock: MockClock) -> None:
    async def end(socket: Socket, peer: Peer) -> None:
        if code is not None:
            peer.end(code)
            await trio.sleep_forever()

    recorder = await play(end)
    (stop,) = recorder.named("connection", "connect", "stop")
    assert isinstance(stop, ConnectStop)
    assert stop.termination_reason == reason
    assert [record for record in recorder.records if record.name[1] == "connection"][-1] is stop
    assert (stop.code, stop.ended_by) == {
        "closed_by_server": (1000, "server"),
        "lost": (1006, "network"),
        "closed_by_client": (1000, "client"),
    }[reason]


async def test_a_handler_of_one_span_is_told_of_that_alone(autojump_clock: MockClock) -> None:
    bus, told = Telemetry(), list[tuple[str, ...]]()
    operations = ("connect", "join", "push", "send", "leave")
    for operation in operations:
        for phase in ("start", "stop"):
            name = ("slipstream", "client", operation, phase)
            bus.attach(f"{operation} {phase}", name, lambda record: told.append(record.name[2:]))
    async with scripted(telemetry=bus) as (socket, _), socket.join("room") as channel:
        await channel.push("echo")
        await channel.send("event")
    assert told == [(operation, phase) for operation in operations for phase in ("start", "stop")]
