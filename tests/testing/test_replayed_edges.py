"""Replays of what is harder: refusals, dead links, several sockets, and recordings that do not tell all."""

import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.testing.test_replayed import Room, orders, recorded, replay, talks, virtual
from trio.testing import MockClock

from slipstream_trio import Backoff, ConnectionLost, ConnectionRejected, connect, trace
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.testing import ReplayDifference, replayed
from slipstream_trio.testing.kit import FakeServer
from slipstream_trio.testing.server import Mount, PhoenixServer, Refuse
from slipstream_trio.trace.files import parts
from slipstream_trio.transport import find_connector

FAST = Backoff((0.2,), jitter=0)


async def kit_recording(path: Path, play: Callable[[FakeServer], Awaitable[None]], program: Any, **how: Any) -> Path:
    """Record what a program does with a server that a test plays."""
    bus = Telemetry(monotonic_ns=virtual)
    with trace.record(path, telemetry=bus, **how):
        async with FakeServer(answers={"connect", "join", "push", "leave", "heartbeat"}) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play, server)
                await program(server.url, transport=server.connector(), telemetry=bus)
                nursery.cancel_scope.cancel()
    return path


async def insists(url: str, **options: Any) -> None:
    async with connect(url, retry_first=True, reconnect=FAST, **options) as socket, socket.join("room:1") as channel:
        await channel.push("echo", {"generation": socket.generation})


def refusing(*statuses: int) -> Callable[[Any], None]:
    left = list(statuses)

    def connected(_: Any) -> None:
        if left:
            raise Refuse(left.pop(0), [("retry-after", "3")], "later")

    return connected


async def test_refused_upgrades_are_refused_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(insists, tmp_path / "a.jsonl", connected=refusing(503, 429))
    began = trio.current_time()
    assert (await replay(path, insists)).difference is None
    assert trio.current_time() - began >= 6  # the header is played, too


async def gives_up(url: str, **options: Any) -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with connect(url, **options):
            pass
    assert caught.value.status == 403


async def test_a_client_that_gives_up_agrees_and_one_that_tries_again_does_not(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = await recorded(gives_up, tmp_path / "a.jsonl", connected=refusing(403))
    assert (await replay(path, gives_up)).difference is None
    with pytest.raises(ReplayDifference, match="then the client did not connect again"):
        await replay(path, partial(insists, should_reconnect=lambda _: True))


async def test_a_stream_without_an_upgrade_is_no_connection(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(insists, tmp_path / "a.jsonl", connected=refusing(503))
    lost: list[trio.abc.Stream] = []
    async with replayed(path) as server:

        async def open_stream(_: Any) -> trio.abc.Stream:
            stream = await server.open_stream()
            if not lost:
                lost.append(stream)
                await stream.aclose()
            return stream

        await insists(server.url, transport=find_connector("auto", open_stream))
    assert server.difference is None


async def test_two_sockets_at_once_find_but_one_connection(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(gives_up, tmp_path / "a.jsonl", connected=refusing(403))
    async with replayed(path, strict=False) as server:
        transport = server.connector()
        found: list[int | None] = []

        async def tries() -> None:
            with pytest.raises(ConnectionRejected) as caught:
                async with connect(server.url, transport=transport):
                    pass
            found.append(caught.value.status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tries)
            nursery.start_soon(tries)
    assert sorted(map(str, found)) == ["403", "503"]
    assert "then the client did not connect again" in str(server.difference)


async def test_a_server_that_is_away_is_away_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def restart(server: FakeServer) -> None:
        await (await server.accept()).expect_join()
        await server.restart(down=2)

    path = await kit_recording(tmp_path / "a.jsonl", restart, waits)
    server = await replay(path, waits)
    assert (server.difference, server.unknown) == (None, [])


async def waits(url: str, **options: Any) -> None:
    async with connect(url, reconnect=FAST, heartbeat_interval=5, **options) as socket:
        async with socket.join("room:1") as channel:
            await trio.sleep(30)
            await channel.push("echo", {"generation": socket.generation})


async def cut_off(server: FakeServer) -> None:
    connection = await server.accept()
    await connection.expect_join()
    await trio.sleep(12)
    connection.partition()


async def test_a_dead_link_is_dead_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await kit_recording(tmp_path / "a.jsonl", cut_off, waits)
    bus = Telemetry()
    ends: list[Any] = []
    bus.attach("ends", ("slipstream", "connection", "connect", "stop"), lambda record: ends.append(record.metadata))
    server = await replay(path, partial(waits, telemetry=bus))
    assert server.difference is None
    assert [end["termination_reason"] for end in ends] == ["heartbeat_timeout", "closed_by_client"]


async def test_an_end_that_comes_before_the_server_s_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def close(server: FakeServer) -> None:
        connection = await server.accept()
        await connection.expect_join()
        await trio.sleep(5)
        await connection.close(4000, "enough")

    async def stays(url: str, seconds: float = 100, **options: Any) -> None:
        with trio.move_on_after(seconds):
            async with connect(url, reconnect=None, **options) as socket, socket.join("room:1"):
                await trio.sleep(seconds)

    async def loses(url: str, **options: Any) -> None:
        with pytest.raises(ConnectionLost, match="4000"):
            await stays(url, **options)

    path = await kit_recording(tmp_path / "a.jsonl", close, loses)
    assert (await replay(path, loses)).difference is None
    with pytest.raises(ReplayDifference, match="then the client did nothing more here"):
        await replay(path, partial(stays, seconds=2))


@pytest.mark.parametrize(("frame", "code"), [("x" * 3000, 1009), (b"", 1002)], ids=["large", "invalid"])
async def test_a_frame_that_the_client_refused_is_replaced_by_a_close(
    frame: Any, code: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def send(server: FakeServer) -> None:
        connection = await server.accept()
        await connection.expect_join()
        await (connection.send_raw(frame) if frame else connection.send_bytes(b"\xff\xff"))

    async def loses(url: str, **options: Any) -> None:
        with pytest.raises(ConnectionLost) as lost:
            async with connect(url, reconnect=None, max_message_size=2000, **options) as socket, socket.join("room:1"):
                await trio.sleep(10)
        assert lost.value.code == code

    path = await kit_recording(tmp_path / "a.jsonl", send, loses)
    server = await replay(path, loses)
    assert server.difference is None
    assert "was not recorded: the server closes instead" in server.unknown[0]


async def hurries(url: str, **options: Any) -> None:
    with trio.move_on_after(3):
        async with connect(url, **options) as socket, socket.join("room:1") as channel:
            await channel.push("never")


@pytest.mark.parametrize("delay", [0, 5])
async def test_a_client_that_was_cancelled_is_cancelled_again(
    delay: float, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def connected(_: Any) -> None:
        await trio.sleep(delay)

    path = await recorded(hurries, tmp_path / "a.jsonl", connected=connected)
    assert (await replay(path, hurries)).difference is None


async def test_one_of_two_sockets_is_replayed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def both(url: str, **options: Any) -> None:
        await insists(url, **options)
        await talks(url, **options)

    path = await recorded(both, tmp_path / "a.jsonl")
    first, second = dict.fromkeys(record.socket_id for record in trace.read(path))
    assert (await replay(path, insists)).difference is None
    assert (await replay(path, insists, socket=first[:6])).difference is None
    assert (await replay(path, talks, socket=second)).difference is None
    with pytest.raises(LookupError, match="no socket 'beef'"):
        await replay(path, talks, socket="beef")


async def returns(url: str, topic: str = "room:1", **options: Any) -> None:
    async with connect(url, reconnect=FAST, **options) as socket, socket.join("room:1") as channel:
        with pytest.raises(ConnectionLost):
            await channel.push("drop")
        await socket.wait_connected()
        await channel.push("echo")


async def test_one_connection_is_replayed_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def once(url: str, **options: Any) -> None:
        async with connect(url, reconnect=None, **options) as socket, socket.join("room:1") as channel:
            await channel.push("drop")

    path = await recorded(returns, tmp_path / "a.jsonl")
    first, second = dict.fromkeys(record.connection_id for record in trace.read(path) if record.generation)
    with pytest.raises(ConnectionLost):
        await replay(path, once, connection=first)
    async with replayed(path, connection=second) as server:
        await insists_on_echo(server.url, transport=server.connector())
    assert server.difference is None
    with pytest.raises(ReplayDifference, match="then the client connected again"):
        async with replayed(path, strict=True) as server:
            with pytest.raises(ConnectionLost):
                await once(server.url, transport=server.connector())


async def insists_on_echo(url: str, **options: Any) -> None:
    async with connect(url, **options) as socket, socket.join("room:1") as channel:
        await channel.push("echo")


async def test_a_recording_in_several_files_is_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(orders, tmp_path / "a.jsonl", max_size=8_000, keep=50)
    assert len(parts(path)) > 2
    server = await replay(path, orders)
    assert (server.difference, server.unknown) == (None, [])


async def test_topics_that_are_left_out_are_answered(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(orders, tmp_path / "a.jsonl")

    async def more(url: str, **options: Any) -> None:
        async with connect(url, **options) as socket:
            async with socket.join("room:2") as other:
                assert await other.push("anything") == {}
            async with socket.join("room:1", {"name": "ada"}) as shop:
                assert [(await anext(aiter(shop))).event for _ in range(2)] == ["ready", "tick"]
                await shop.send("note", {"number": 1})

    server = await replay(path, more, topics=["room:1"], strict=False)
    assert server.difference is not None
    assert "'number'" not in server.difference.problem


async def notes(url: str, payload: Any = None, event: str = "note", join: Any = None, **options: Any) -> None:
    async with connect(url, **options) as socket:
        async with socket.join("room:1", join or {"token": "hush-hush", "n": 7}) as channel:
            await channel.push("echo", {"api_key": 17, "at": [1, 2]})
            await channel.send(event, payload or {"body": "ho"})


@pytest.mark.parametrize("payloads", ["omit", "size"])
async def test_redacted_payloads_are_not_compared(payloads: Any, tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(notes, tmp_path / "a.jsonl", payloads=payloads)
    server = await replay(path, partial(notes, payload={"any": "thing"}))
    assert server.difference is None
    assert server.unknown == [
        "payloads are redacted: the client's are not compared, and the server's played as recorded"
    ]
    with pytest.raises(ReplayDifference, match="its event is 'other', not 'note'"):
        await replay(path, partial(notes, event="other"))


async def test_masked_secrets_are_not_compared_and_all_else_is(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(notes, tmp_path / "a.jsonl")
    server = await replay(path, partial(notes, join={"token": "another", "n": 7}))
    assert server.difference is None
    assert server.unknown == ["secrets are masked: they are not compared, and played as they are recorded"]
    with pytest.raises(ReplayDifference) as caught:
        await replay(path, partial(notes, join={"token": "hush-hush", "n": 8}))
    assert caught.value.problem == "its payload['n'] is 8, not 7"
    assert "hush-hush" not in str(caught.value)


def cut_before(path: Path, text: bytes, behind: bytes = b"") -> Path:
    """Write a recording again up to the first line with a text, and something behind it."""
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if text in line)
    cut = path.with_name("cut.jsonl")
    cut.write_bytes(b"".join(lines[:place]) + behind)
    return cut


async def test_a_recording_that_was_cut_off_is_compared_up_to_there(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = cut_before(await recorded(notes, tmp_path / "a.jsonl"), b'"note"')
    assert (await replay(path, notes)).difference is None
    assert (await replay(path, partial(notes, event="other"))).difference is None  # it is not in there
    with pytest.raises(ReplayDifference):
        await replay(path, partial(notes, join={"n": 8}))


@pytest.mark.parametrize("hole", [b"damaged\n", b'{"missing":{"records":3,"reason":"queue_full"}}\n'])
async def test_what_comes_after_lost_lines_is_not_compared(
    hole: bytes, tmp_path: Path, autojump_clock: MockClock
) -> None:
    whole = await recorded(notes, tmp_path / "a.jsonl")
    path = cut_before(whole, b'"note"', hole + b"".join(whole.read_bytes().splitlines(keepends=True)[-5:]))
    server = await replay(path, partial(notes, event="other"))
    assert server.difference is None
    assert server.unknown[-1].endswith("records are missing, and what came after is not replayed")


async def test_a_recording_that_began_late_is_taken_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})})
    bus = Telemetry()
    path = tmp_path / "a.jsonl"

    async def visits(url: str, began: Callable[[], object] = lambda: None, body: str = "hi", **options: Any) -> None:
        async with connect(url, **options) as socket, socket.join("room:1", {"name": "ada"}) as channel:
            began()
            await channel.push("echo", {"body": body})

    with ExitStack() as stack:
        async with server.run():
            begin = partial(stack.enter_context, trace.record(path, telemetry=bus))
            url = "ws://any/socket/websocket"
            await visits(url, begin, transport=server.connector(), telemetry=bus)
    replaying = await replay(path, visits)
    assert replaying.difference is None
    assert replaying.unknown == [
        "the first connection began before the recording: what its topics were joined with is unknown"
    ]
    with pytest.raises(ReplayDifference, match="'ho', not 'hi'"):
        await replay(path, partial(visits, body="ho"))


async def test_without_strictness_the_first_difference_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(orders, tmp_path / "a.jsonl")
    for change in ("payload", "missing push", "extra push", "order", "topic", "no leave", "join params", "joins more"):
        server = await replay(path, partial(orders, change=change), strict=False)
        assert isinstance(server.difference, ReplayDifference)
    server = await replay(path, partial(orders, change="extra push"), strict=False)
    assert server.difference is not None
    assert server.difference.connection == 1
    assert server.difference.now == ("2", "7", "room:2", "echo", {"sku": "S-10"})
    assert server.difference.then is not None
    assert server.difference.then.event == "phx_leave"


async def test_an_exception_of_the_block_has_the_difference_as_a_note(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = await recorded(orders, tmp_path / "a.jsonl")

    async def fails(url: str, **options: Any) -> None:
        async with connect(url, **options), trio.open_nursery():
            raise ValueError("of my own")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="of my own")) as caught:
        await replay(path, fails)
    assert "then the client did not close it here" in caught.value.__notes__[0]


async def test_a_recording_of_another_protocol_version_can_be_replayed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = await recorded(partial(talks, vsn="1.0.0"), tmp_path / "a.jsonl")
    assert (await replay(path, partial(talks, vsn="1.0.0"))).difference is None
    assert (await replay(path, talks)).difference is None


async def test_malformed_frames_are_played(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def babble(server: FakeServer) -> None:
        connection = await server.accept()
        await connection.expect_join()
        await trio.sleep(1)
        await connection.send_raw("[", b"\x07", '["1",null,"room:1","said",null]')

    async def listens(url: str, **options: Any) -> None:
        async with connect(url, **options) as socket, socket.join("room:1") as channel:
            await channel.send("heard", {"payload": (await anext(aiter(channel))).payload})

    path = await kit_recording(tmp_path / "a.jsonl", babble, listens)
    server = await replay(path, listens)
    assert (server.difference, server.played) == (None, 7)


async def test_a_difference_shows_both_histories(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = await recorded(notes, tmp_path / "a.jsonl")
    with pytest.raises(ReplayDifference) as caught:
        await replay(path, partial(notes, payload={"body": "hm"}))
    lines = [" ".join(re.sub(r"\+\S+ s", "", line).split()) for line in str(caught.value).splitlines()]
    assert lines == [
        "connection 1: its payload['body'] is 'hm', not 'ho'",
        "in the recording now",
        '#1 phx_join room:1 {"token":"[redacted]","n":7} #1 phx_join room:1 {"token":"[redacted]","n":7}',
        '#1 echo room:1 {"api_key":0,"at":[1,2]} #1 echo room:1 {"api_key":17,"at":[1,2]}',
        '> #1 note room:1 {"body":"ho"} #1 note room:1 {"body":"hm"}',
        "#1 phx_leave room:1 {}",
        "#1 closes the connection",
    ]
