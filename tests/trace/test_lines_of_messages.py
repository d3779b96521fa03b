"""Messages, replies and pushes have a shortcut into a recording: nobody can tell by their lines."""

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio.testing
from hypothesis import given, strategies as st
from tests.client.support import scripted
from tests.trace.support import REDACTOR, run

from slipstream_trio.telemetry import HandleStart, HandleStop, Telemetry
from slipstream_trio.trace import read, record
from slipstream_trio.trace.encode import Encoder

PAYLOADS = st.one_of(
    st.builds(lambda text: {"text": text}, st.text(max_size=8)),
    st.builds(lambda text: {"api_token": text, "note": ["Bearer abcdefghijk"]}, st.text(max_size=8)),
    st.builds(lambda number: {"secret": number, "text": "a"}, st.integers(2**63, 2**70)),
    st.builds(lambda size: {"text": "x" * size}, st.integers(4000, 5000)),
    st.builds(lambda value: {"$": value}, st.integers()),
    st.integers(),
    st.none(),
)
DID = st.one_of(st.tuples(st.just("message"), PAYLOADS), st.tuples(st.just("push"), PAYLOADS))


async def edited(telemetry: Telemetry, did: list[tuple[str, Any]]) -> None:
    """Receive these messages and replies at once, and edit them."""
    async with scripted(telemetry=telemetry) as (socket, peer), socket.join("room") as channel:
        for what, payload in did:
            if what == "message":
                peer.message("room", "event", payload)
            else:
                await channel.push("echo", payload)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(sum(what == "message" for what, _ in did)):
            message = await anext(aiter(channel))
            if type(message.payload) is dict:
                message.payload["text"] = "edited"


@given(did=st.lists(DID, max_size=200))
def test_they_are_recorded_as_they_were(did: list[tuple[str, Any]]) -> None:
    telemetry = Telemetry()
    encoder, lines = Encoder(REDACTOR), []

    def at_once(each: Any) -> None:
        if type(each) is not HandleStart:
            if type(each) is HandleStop:
                lines.append(encoder.encode(each.start))
            lines.append(encoder.encode(each))

    with TemporaryDirectory() as directory:
        path = Path(directory, "trace.jsonl")
        with record(path, telemetry=telemetry) as recording, telemetry.listen(at_once):
            run(lambda bus: edited(bus, did), telemetry)
        assert (recording.written, recording.dropped, recording.error) == (len(lines), 0, None)
        first, *_ = path.read_bytes().splitlines(keepends=True)
        expected = Path(directory, "expected.jsonl")
        expected.write_bytes(first + b"".join(lines))
        assert [each.metadata for each in read(path)] == [each.metadata for each in read(expected)]
        assert path.read_bytes().count(b"\n") == len(lines) + 2


def test_a_lone_message_is_soon_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    telemetry = Telemetry()
    found = threading.Event()

    async def scenario(bus: Telemetry) -> None:
        async with scripted(telemetry=bus) as (socket, peer), socket.join("room") as channel:
            peer.message("room", "event", {"text": "here"})
            await anext(aiter(channel))
            for _ in range(3000):
                if b"here" in path.read_bytes():
                    found.set()
                    break
                threading.Event().wait(0.01)

    with record(path, telemetry=telemetry, flush_interval=0.01):
        run(scenario, telemetry)
    assert found.is_set()


def test_a_recording_goes_on_after_lines_that_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry()
    path = tmp_path / "trace.jsonl"
    failed = []

    def fail(*given: Any) -> None:
        failed.append(given)
        raise ZeroDivisionError

    async def scenario(bus: Telemetry) -> None:
        async with scripted(telemetry=bus) as (socket, peer), socket.join("room") as channel:
            with monkeypatch.context() as patch:
                patch.setattr("slipstream_trio.trace.encode.handled_lines", fail)
                peer.message("room", "event", {"text": "lost"})
                await anext(aiter(channel))
                assert failed
            peer.message("room", "event", {"text": "here"})
            await anext(aiter(channel))

    with record(path, telemetry=telemetry) as recording:
        run(scenario, telemetry)
    assert (recording.dropped, type(recording.error)) == (2, ZeroDivisionError)
    text = path.read_bytes()
    assert b"here" in text
    assert b"lost" not in text
