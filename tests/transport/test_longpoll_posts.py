"""The posts of a session: their size, their order, and answers that do not come."""

import json

import pytest
import trio
from hypothesis import given, strategies as st
from tests.drawing import examples
from tests.transport.polls import NDJSON, Answer, Asked, end_of, opened, said, serving
from trio.testing import MockClock

pytest.importorskip("httpcore", reason="httpcore, an extra, is not installed")


async def test_many_frames_are_posted_a_hundred_at_a_time_one_post_after_the_other(autojump_clock: MockClock) -> None:
    frames = [f"[{number}]" for number in range(250)]
    async with serving() as server, opened(server) as transport:

        async def slowly(_: Asked) -> Answer:
            await trio.sleep(1)
            return said(200)

        server.on_post = slowly
        await transport.send([])
        await transport.send(frames)
        assert [len(post.frames) for post in server.posts] == [100, 100, 50]
        assert [frame for post in server.posts for frame in post.frames] == frames
        assert {post.headers["content-type"] for post in server.posts} == {NDJSON}
        assert {post.token for post in server.posts} == {"t0"}


async def test_large_frames_share_no_post(autojump_clock: MockClock) -> None:
    large = json.dumps(["x" * 700_000])
    async with serving() as server, opened(server) as transport:
        await transport.send([large, large, "[1]"])
        assert [post.frames for post in server.posts] == [[large], [large, "[1]"]]


async def test_frames_of_version_1_have_a_post_each(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport:
        await transport.send(['{"ref":"1"}', '{"ref":"2"}', "[\n]"])
        assert [post.body for post in server.posts] == [b'{"ref":"1"}', b'{"ref":"2"}', b"[\n]"]
        assert {post.headers["content-type"] for post in server.posts} == {"application/json"}


FRAMES = st.one_of(
    st.binary(min_size=1, max_size=50), st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(json.dumps),
    st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)).map(json.dumps), st.just("[\n1]"),
)  # fmt: skip


@given(frames=st.lists(st.lists(FRAMES, max_size=130), max_size=3))
@examples(20)
def test_whatever_is_sent_arrives_in_order(frames: list[list[str | bytes]]) -> None:
    async def main() -> list[str | bytes]:
        async with serving() as server, opened(server) as transport:
            for batch in frames:
                await transport.send(batch)
            assert all(len(post.frames) <= 100 for post in server.posts)
            return [frame for post in server.posts for frame in post.frames]

    assert trio.run(main) == [frame for batch in frames for frame in batch]


async def test_a_post_that_is_not_answered_blocks_until_something_is_heard(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:

        async def hang(_: Asked) -> Answer:
            await trio.sleep_forever()

        server.on_post = hang
        assert [transport.write_blocked_since] == [None]
        started = trio.current_time()
        nursery.start_soon(transport.send, ["[1]"])
        nursery.start_soon(end_of, transport)
        await trio.sleep(30)
        assert transport.write_blocked_since == started  # whatever the polls write
        server.feed("[1]")
        await trio.sleep(5)
        assert transport.write_blocked_since == started + 30
        nursery.cancel_scope.cancel()


async def test_a_large_post_comes_on_piece_by_piece(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:
        nursery.start_soon(end_of, transport)
        await trio.sleep(1)
        server.stall()
        nursery.start_soon(transport.send, [json.dumps(["x" * 1_000_000])])
        await trio.sleep(10)
        assert transport.write_blocked_since == trio.current_time() - 10
        stream = server.streams[-1]
        for _ in range(10):  # which frees its buffer for a piece
            await stream.receive_some(16_384)
            await trio.sleep(1)
            assert transport.write_blocked_since == trio.current_time() - 1
        nursery.cancel_scope.cancel()


async def test_no_post_is_sent_into_a_connection_that_has_rested_for_long(autojump_clock: MockClock) -> None:
    async with serving() as server, opened(server) as transport, trio.open_nursery() as nursery:
        nursery.start_soon(end_of, transport)
        for pause, streams in ((1, 2), (49, 2), (60, 3)):
            await trio.sleep(pause)
            await transport.send(["[1]"])
            assert len(server.streams) == streams
        nursery.cancel_scope.cancel()
