"""What leaves `connect`: the body's exception as it is, or one ConnectionLost, or an InternalError."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.client.support import URL, Recorder, Scripted, living_tasks, scripted
from trio.testing import MockClock

from slipstream_trio import ConnectionLost, InternalError, Message, SlipstreamError, Socket, connect
from slipstream_trio.ids import RandomIds
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.transport import OpenRequest, Transport


class Mine(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        Mine("mine"),
        ExceptionGroup("mine", [Mine(), ExceptionGroup("deep", [Mine()])]),
        BaseExceptionGroup("mine", [SystemExit()]),
        SystemExit(3),
        StopIteration(5),
        StopAsyncIteration(),
        GeneratorExit(),
        ConnectionLost("mine"),
        trio.TooSlowError(),
    ],
    ids=repr,
)
async def test_the_exception_of_the_body_leaves_as_it_is(error: BaseException, autojump_clock: MockClock) -> None:
    before = living_tasks()
    caught: BaseException | None = None
    connector = Scripted()
    try:
        async with connect(URL, transport=connector, reconnect=None) as socket, socket.join("room"):
            raise error
    except BaseException as raised:  # noqa: BLE001 - compared below
        caught = raised
    assert caught is error
    assert caught.__cause__ is None
    peer = connector.peer
    assert peer.count("phx_leave") == 1
    assert peer.closed_with == (1000, "")
    assert peer.left
    assert living_tasks() == before


async def test_a_group_of_a_nursery_in_the_body_stays_a_group(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        raise Mine

    with pytest.RaisesGroup(Mine):
        async with scripted():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)


async def test_a_cancellation_from_outside_passes(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with scripted() as (_, peer):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert peer.closed_with == (1000, "")
    assert trio.current_time() == pytest.approx(scope.deadline)


async def test_a_cancellation_that_reaches_leaving_does_not_interrupt_it(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with scripted() as (socket, peer):
            async with socket.join("room"):
                scope.cancel()
    assert not scope.cancelled_caught or peer.left
    assert peer.count("phx_leave") == 1
    assert peer.closed_with == (1000, "")


@pytest.mark.parametrize(("code", "reason"), [(1000, "closed_by_server"), (1012, "closed_by_server"), (1006, "lost")])
async def test_an_end_of_the_connection_cancels_the_body_and_raises_once(
    code: int, reason: str, autojump_clock: MockClock
) -> None:
    body: list[str] = []
    with pytest.raises(ConnectionLost) as raised:
        async with scripted() as (socket, peer):
            peer.end(code)
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                body.append("cancelled")
                raise
    assert body == ["cancelled"]
    assert (raised.value.reason, raised.value.code, raised.value.sent) == (reason, code, False)
    assert raised.value.__cause__ is None
    assert str(code) in str(raised.value)
    assert socket.status == "closed"
    assert socket.state.close_reason == reason


async def test_a_body_in_a_nursery_of_its_own_is_cancelled_too(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost):
        async with scripted() as (_, peer):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(trio.sleep_forever)
                peer.end()


async def test_a_body_that_does_not_notice_the_end_returns(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        peer.end()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        status = socket.status
    assert status == "closed"


async def test_a_body_that_catches_the_loss_returns(autojump_clock: MockClock) -> None:
    async with scripted(answers={"phx_join"}) as (socket, peer):
        with pytest.raises(ConnectionLost):
            async with socket.join("room") as channel:
                peer.end()
                await channel.push("event")


async def test_a_body_that_raises_something_else_at_the_end_wins(autojump_clock: MockClock) -> None:
    with pytest.raises(Mine) as raised:
        async with scripted() as (_, peer):
            peer.end()
            try:
                await trio.sleep_forever()
            finally:
                raise Mine
    assert not isinstance(raised.value, SlipstreamError)


async def test_a_body_cancelled_from_outside_and_by_the_end_is_cancelled(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with scripted() as (_, peer):
            peer.end()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_waiters_are_settled_before_the_body_is_cancelled(autojump_clock: MockClock) -> None:
    order: list[Any] = []

    async def wait(name: str, operation: Any, *args: Any) -> None:
        try:
            await operation(*args)
        except ConnectionLost as error:
            order.append((name, error.reason))
        except trio.Cancelled:
            order.append((name, "cancelled"))
            raise

    async with trio.open_nursery() as outside:
        with pytest.raises(ConnectionLost):
            async with scripted(answers={"phx_join"}) as (socket, peer):
                channel, other = socket.channel("room"), socket.channel("other")
                await channel.join()
                peer.answers.clear()
                outside.start_soon(wait, "push", channel.push, "event")
                outside.start_soon(wait, "join", other.join)
                await peer.wait_sent("phx_join", 2)
                outside.start_soon(wait, "push while joining", other.push, "event")
                outside.start_soon(wait, "ping", socket.ping)
                outside.start_soon(wait, "iteration", anext, aiter(channel))
                await trio.testing.wait_all_tasks_blocked()
                peer.end(1012)
                await wait("body", trio.sleep_forever)
    assert len(order) == 6
    assert order[-1] == ("body", "cancelled")
    assert dict(order[:-1]) == dict.fromkeys(
        ("push", "join", "push while joining", "ping", "iteration"), "closed_by_server"
    )


async def test_afterwards_everything_raises_connection_lost_at_once(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, peer):
        channel = socket.channel("room")
        await channel.join()
        peer.end(1001)
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            operations: list[Callable[[], Awaitable[object]]] = [
                lambda: channel.push("a"),
                lambda: channel.send("a"),
                lambda: anext(aiter(channel)),
            ]
            for operation in [*operations, socket.channel("other").join, socket.ping, channel.join]:
                with pytest.raises(ConnectionLost) as raised:
                    await operation()
                assert raised.value.code == 1001
            assert channel.status == "closed"
            await channel.leave()
    with pytest.raises(ConnectionLost):
        await socket.ping()


async def test_after_a_close_of_ones_own_it_is_the_clients_doing(autojump_clock: MockClock) -> None:
    async with scripted() as (socket, _):
        channel = socket.channel("room")
        await channel.join()
    with pytest.raises(ConnectionLost, match="closed_by_client"):
        await socket.ping()
    with pytest.raises(ConnectionLost, match="closed_by_client"):
        await socket.channel("other").join()
    assert [message async for message in channel] == []


class Breaking(RandomIds):
    """Has no id to give once it is broken."""

    broken = False

    def span_id(self) -> str:
        if self.broken:
            raise Mine("broken")
        return super().span_id()


@pytest.mark.parametrize("where", ["while a frame is received", "while a frame is handled"])
async def test_a_bug_raises_internal_error_and_is_in_telemetry(
    where: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ids = Breaking()
    recorder = Recorder(Telemetry(ids=ids))
    before = living_tasks()
    outcomes: list[str] = []

    async def ping(socket: Any) -> None:
        try:
            await socket.ping()
        except ConnectionLost as error:
            outcomes.append(error.reason)

    async with trio.open_nursery() as outside:
        with pytest.raises(InternalError, match="report it") as raised:
            async with scripted(answers={"phx_join"}, telemetry=recorder.bus) as (socket, peer):
                async with socket.join("room"):
                    outside.start_soon(ping, socket)
                    await trio.testing.wait_all_tasks_blocked()
                    if where == "while a frame is received":
                        peer.break_down(Mine("broken"))
                    else:
                        ids.broken = True
                        peer.message("room", "event")
                    await trio.sleep_forever()
    assert isinstance(raised.value.__cause__, Mine)
    assert outcomes == ["internal_error"]
    assert living_tasks() == before
    (failed,) = recorder.named("connection", "connect", "exception")
    assert "Mine" in failed.stacktrace
    assert recorder.records[-1] is failed
    assert not recorder.named("connection", "connect", "stop")
    assert [stop.outcome for stop in recorder.named("client", "connect", "stop")] == ["ok"]
    assert not recorder.named("client", "connect", "exception")  # that span had ended
    assert [entry.getMessage().rpartition(": ")[2] for entry in caplog.records] == ["internal_error"]
    assert socket.status == "closed"


async def test_all_channels_show_a_bug_at_once_however_many_there_are(autojump_clock: MockClock) -> None:
    statuses: list[str] = []

    async def ping(socket: Socket) -> None:
        with pytest.raises(ConnectionLost):
            await socket.ping()
        statuses.extend(channel.status for channel in channels)

    async with trio.open_nursery() as nursery:
        with pytest.raises(InternalError):
            async with scripted(answers={"phx_join"}) as (socket, peer):
                channels = [socket.channel(f"room:{number}") for number in range(300)]
                for channel in channels:
                    await channel.join()
                nursery.start_soon(ping, socket)
                await trio.testing.wait_all_tasks_blocked()
                peer.break_down(Mine("broken"))
                await trio.sleep_forever()
    assert statuses == ["errored"] * 300


async def test_a_bug_while_it_opens_ends_both_spans(autojump_clock: MockClock) -> None:
    async def fail(_: Any) -> None:
        raise Mine

    recorder = Recorder()
    with pytest.raises(InternalError):
        async with connect(URL, transport=Scripted(opening=fail), telemetry=recorder.bus):
            pytest.fail("the block must not be entered")
    assert [record.name[1:] for record in recorder.records] == [
        ("client", "connect", "start"),
        ("connection", "connect", "start"),
        ("client", "connect", "exception"),
        ("connection", "connect", "exception"),
    ]


class Failing(RandomIds):
    """Has one id to give."""

    left = 1

    def span_id(self) -> str:
        self.left -= 1
        if self.left < 0:
            raise Mine
        return super().span_id()


async def test_a_bug_before_there_is_a_connection_is_raised(autojump_clock: MockClock) -> None:
    with pytest.raises(InternalError) as raised:
        async with scripted(telemetry=Telemetry(ids=Failing())):
            pytest.fail("the block must not be entered")
    assert isinstance(raised.value.__cause__, Mine)


async def test_a_bug_after_the_connection_was_lost_is_raised(autojump_clock: MockClock) -> None:
    class Clumsy(Scripted):
        @asynccontextmanager
        async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
            async with super().open(request, wake) as transport:
                yield transport
            raise Mine

    connector = Clumsy()
    with pytest.raises(InternalError) as raised:
        async with connect(URL, transport=connector, reconnect=None) as socket:
            connector.peer.end()
            await trio.sleep_forever()
    assert isinstance(raised.value.__cause__, Mine)
    assert socket.status == "closed"


async def test_several_bugs_are_the_cause_as_a_group(autojump_clock: MockClock) -> None:
    with pytest.raises(InternalError) as raised:
        async with scripted() as (socket, peer):
            send = peer.send

            async def broken(frames: Any) -> None:
                try:
                    await send(frames)
                except trio.Cancelled:
                    raise Mine("of the writer") from None

            async with socket.join("room") as channel:
                peer.send = broken  # type: ignore[method-assign]
                peer.pause()
                await channel.send("event")
                await trio.testing.wait_all_tasks_blocked()
                peer.break_down(Mine("of the receive loop"))
                await trio.sleep_forever()
    cause = raised.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    mine, others = cause.split(Mine)
    assert others is None
    assert "of the writer" in repr(mine)
    assert "of the receive loop" in repr(mine)


async def test_an_interrupt_raised_by_a_handler_of_telemetry_is_no_bug(autojump_clock: MockClock) -> None:
    def interrupt(record: Any) -> None:
        if isinstance(record.metadata.get("message"), Message):
            raise KeyboardInterrupt

    recorder = Recorder()
    recorder.bus.attach("interrupt", ("slipstream", "connection", "handle", "stop"), interrupt)
    with pytest.raises(KeyboardInterrupt):
        async with scripted(telemetry=recorder.bus) as (_, peer):
            peer.message("room", "event")
            await trio.sleep_forever()


async def test_a_bug_while_a_frame_is_written_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def broken(_: object) -> None:
        raise Mine("broken")

    with trio.fail_after(1), pytest.raises(InternalError) as raised:
        async with scripted() as (socket, peer):
            monkeypatch.setattr(peer, "send", broken)
            with pytest.raises(ConnectionLost, match="internal_error"):
                await socket.channel("room").join(timeout=None)
            await trio.sleep_forever()
    assert isinstance(raised.value.__cause__, Mine)


async def test_a_bug_while_the_writer_is_cut_off_is_no_cancellation(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def broken(_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Mine("broken")

    with pytest.raises(InternalError) as raised:
        async with scripted(close_timeout=1) as (socket, peer):
            monkeypatch.setattr(peer, "send", broken)
            with trio.move_on_after(1):
                await socket.channel("room").join()
    assert isinstance(raised.value.__cause__, Mine)


async def test_a_bug_is_raised_though_the_body_does_not_notice(autojump_clock: MockClock) -> None:
    with pytest.raises(InternalError) as raised:
        async with scripted() as (socket, peer):
            peer.break_down(Mine("broken"))
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            assert socket.status == "closed"
    assert isinstance(raised.value.__cause__, Mine)


async def test_the_first_reason_to_end_counts(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as outside:
        async with scripted(close_timeout=5) as (socket, peer):
            peer.answers_close = False
            outside.start_soon(socket.disconnect)
            await trio.sleep(1)
        with pytest.raises(ConnectionLost) as raised:
            await socket.wait_connected()
    assert raised.value.reason == "disconnected"
