"""Following frames by their headers, against a model that looks at one byte after the other."""

import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pytest
from attrs import frozen
from hypothesis import example, given, strategies as st
from tests.drawing import examples
from tests.transport.support import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_frame, frame

from slipstream_trio.transport.lane import FrameHeaders

LENGTHS = st.sampled_from([0, 1, 2, 7, 125, 126, 127, 300])


@st.composite
def encoded_frames(draw: st.DrawFn, opcodes: Sequence[int] = range(16)) -> bytes:
    """Frames of any kind: masked or not, with reserved bits and opcodes, with lengths in more bytes than they need."""
    first = draw(st.sampled_from(opcodes)) | draw(st.sampled_from([0x80, 0x80, 0x00, 0xF0]))
    length = draw(LENGTHS)
    mask = draw(st.sampled_from([b"", b"", b"\x00\x81\x88\xff"]))
    second, extended = draw(st.sampled_from([(126, 2), (127, 8)] + [(length, 0)] * (length < 126)))
    in_full = length.to_bytes(extended, "big") if extended else b""
    return bytes((first, second | (0x80 if mask else 0))) + in_full + mask + b"\x88" * length


FRAMES = st.lists(encoded_frames(), max_size=6) | st.binary(max_size=200).map(lambda data: [data])
MESSAGES = st.lists(encoded_frames([TEXT, BINARY, CONTINUATION, CONTINUATION, PING, CLOSE]), max_size=6)

CUTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 15) | st.integers(0, 300)), max_size=8)
"""Cuts, each so many bytes behind the beginning of a frame: where it hurts."""


def pieces_of(frames: list[bytes], cuts: Sequence[tuple[int, int]]) -> list[bytes]:
    stream = b"".join(frames)
    starts = list(accumulate(map(len, frames), initial=0))
    places = [starts[number % len(starts)] + offset for number, offset in cuts]
    return [stream[start:end] for start, end in pairwise([0, *sorted(places), len(stream)])]


@frozen
class Part:
    """A frame in a stream: where it begins, where its payload does, and what its header says."""

    start: int
    payload: int
    opcode: int
    last: bool
    length: int

    @property
    def is_data(self) -> bool:
        return self.opcode & 0x0F < 8


def header_size(head: bytes) -> int:
    if len(head) < 2:
        return 2
    return 2 + {126: 2, 127: 8}.get(head[1] & 127, 0) + (4 if head[1] >= 128 else 0)


def parts_of(stream: bytes) -> tuple[list[Part], list[bool]]:
    """Return the frames whose headers are whole, and of each byte whether it belongs to a data frame."""
    parts: list[Part] = []
    owners: list[bool] = []
    head, left = b"", 0
    for place, byte in enumerate(stream):
        if left:
            left -= 1
            owners.append(owners[-1])
            continue
        head += bytes((byte,))
        owners.append(head[0] & 0x0F < 8)
        if len(head) == header_size(head):
            size = {126: 2, 127: 8}.get(head[1] & 127, 0)
            left = int.from_bytes(head[2 : 2 + size], "big") if size else head[1] & 127
            parts.append(Part(place + 1 - len(head), place + 1, head[0] & 0x7F, head[0] >= 128, left))
            head = b""
    return parts, owners


LARGE = [frame(BINARY, b"\x88" * 65_536), frame(PING), frame(TEXT, b"\x88" * 65_535)]


@examples(200)
@given(FRAMES, CUTS)
@example(LARGE, [])
@example(LARGE, [(0, 5), (0, 20_000), (0, 65_546), (0, 65_547), (1, 1), (2, 1), (2, 3), (2, 5)])
@example([frame(TEXT, b"cut"), frame(PING)], [(0, 4)])
def test_it_agrees_with_a_look_at_every_byte(frames: list[bytes], cuts: list[tuple[int, int]]) -> None:
    parts, owners = parts_of(b"".join(frames))
    headers, place = FrameHeaders(), 0
    whole = [part.payload + part.length for part in parts if part.is_data and part.last]
    for piece in pieces_of(frames, cuts):
        assert headers.feed(piece) == any(owners[place : place + len(piece)])
        place += len(piece)
        closed = any(part.opcode & 0x0F == CLOSE for part in parts if part.payload <= place)
        assert headers.close_received == closed
        assert headers.messages == sum(end <= place for end in whole)
    assert headers.excess is None


def first_above(limit: int, parts: list[Part]) -> tuple[Part, int] | None:
    size = 0
    for part in parts:
        if part.is_data:
            size = part.length + (size if part.opcode & 0x0F == CONTINUATION else 0)
            if size > limit and part.opcode <= BINARY:
                return part, size
            size = 0 if part.last else size
    return None


@examples(200)
@given(FRAMES | MESSAGES, CUTS, st.sampled_from([0, 1, 126, 300, 500, 70_000]))
@example([frame(TEXT, b"x" * 7, last=False)] * 2, [], 10)
@example([frame(TEXT, b"x" * 7, last=False), frame(CONTINUATION, b"x" * 7)], [(1, 1)], 10)
@example([frame(PING), frame(TEXT, b"x" * 7)], [(1, 1)], 1)
@example([frame(PING), frame(TEXT, b"x" * 7)], [(0, 1)], 1)
def test_the_first_message_above_the_limit_is_found_by_its_header(
    frames: list[bytes], cuts: list[tuple[int, int]], limit: int
) -> None:
    parts = parts_of(b"".join(frames))[0]
    found = first_above(limit, parts)
    headers, place = FrameHeaders(limit), 0
    for piece in pieces_of(frames, cuts):
        heard = headers.feed(piece)
        before, place = place, place + len(piece)
        if found is None or place < found[0].payload:
            assert headers.excess is None
        else:
            assert headers.excess == found[1]
            assert headers.messages == sum(part.is_data and part.last for part in parts if part.start < found[0].start)
            assert heard == bool(piece)
            if before < found[0].payload:
                assert headers.before_excess == max(0, found[0].start - before)


def byte_by_byte(stream: bytes) -> Iterator[bool]:
    headers = FrameHeaders()
    return (headers.feed(bytes((byte,))) for byte in stream)


@pytest.mark.parametrize(
    ("stream", "heard"),
    [
        (frame(TEXT), [True, True]),
        (frame(PING, b"no") + frame(TEXT, b"x"), [False] * 4 + [True] * 3),
        (frame(TEXT, b"x", last=False) + frame(PING) + frame(CONTINUATION), [True] * 3 + [False] * 2 + [True] * 2),
        (frame(BINARY, b"x" * 300), [True] * 304),
        (close_frame(1000), [False] * 4),
    ],
)
def test_every_byte_of_a_data_frame_is_heard_and_none_of_a_control_frame(stream: bytes, heard: list[bool]) -> None:
    assert list(byte_by_byte(stream)) == heard


def test_no_bytes_are_nothing_heard() -> None:
    headers = FrameHeaders()
    for piece in (b"", frame(TEXT, b"text")[:1], b"", frame(TEXT, b"text")[1:4], b"", b"xt", b""):
        assert headers.feed(piece) == bool(piece)


def test_a_bytearray_will_do() -> None:
    headers = FrameHeaders(3)
    assert [headers.feed(bytearray(piece)) for piece in (b"\x89", b"\x01x\x82", b"\x04", b"\x89\x00")] == [
        False,
        True,
        True,
        True,
    ]
    assert headers.excess == 4


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10, 0x03, 0x07])
def test_a_frame_that_breaks_the_protocol_is_not_too_long(bits: int) -> None:
    """It is for the WebSocket library to say what is wrong with it."""
    headers = FrameHeaders(10)
    headers.feed(bytes((0x80 | bits, 100)))
    assert headers.excess is None


def calls_of(data: bytes) -> int:
    count, headers = 0, FrameHeaders()

    def profile(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        headers.feed(data)
    finally:
        sys.setprofile(None)
    return count


def test_a_piece_costs_as_many_calls_whatever_it_holds() -> None:
    one = calls_of(frame(TEXT, b"x" * 300))
    assert calls_of(frame(TEXT, b"x" * 300) * 50 + frame(PING, b"x") * 50) == one
    assert calls_of(frame(BINARY, b"x" * 60_000)) == one
