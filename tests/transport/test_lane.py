"""The lane of incoming frames, against a model that looks at one byte after the other."""

import codecs
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from types import FrameType
from typing import Any

import pytest
from attrs import frozen
from hypothesis import example, given, strategies as st
from tests.drawing import examples
from tests.transport.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame

from slipstream_trio.transport.base import Frame
from slipstream_trio.transport.lane import Lane

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


LARGE = [frame(BINARY, b"\x88" * 65_536), frame(PING), frame(TEXT, b"x" * 65_535)]
TEXTS = [frame(TEXT, "zwölf".encode()), frame(BINARY, b"\xff"), frame(TEXT, b"\xff"), frame(TEXT), frame(BINARY)]


@frozen
class Followed:
    """All that a lane makes of a piece: its messages, and what is for the library, in order."""

    messages: list[Frame]
    passed: bytes
    """In the order of the stream, messages as the frames that they are."""

    heard: bool


def follow(lane: Lane, piece: bytes) -> Followed:
    lane.feed(piece)
    messages: list[Frame] = []
    order = b""
    while True:
        taken: list[Frame] = []
        lane.take(taken)
        messages += taken
        for message in taken:
            order += frame(TEXT, message.encode()) if isinstance(message, str) else frame(BINARY, message)
        if lane.fault is not None:
            return Followed(messages, order, lane.heard)
        passed = lane.pass_on()
        order += passed
        if not passed:
            return Followed(messages, order, lane.heard)


def is_plain(stream: bytes, part: Part) -> bool:
    head, payload = stream[part.start : part.payload], stream[part.payload : part.payload + part.length]
    if head[0] not in (0x81, 0x82) or len(payload) < part.length or head != frame(head[0] & 0x0F, payload)[: len(head)]:
        return False
    return head[0] == 0x82 or payload.decode(errors="ignore").encode() == payload


def is_faulty(head: bytes, *, compressed: bool) -> bool:
    """Whether a header breaks the protocol, as far as it has come."""
    if compressed and head[0] & 0x7F in (0x41, 0x42):
        head = bytes((head[0] & 0xBF,)) + head[1:]
    opcode, size = head[0] & 0x0F, {126: 2, 127: 8}.get(head[1], 0)
    length = int.from_bytes(head[2 : 2 + size]) if size else head[1]
    needless = size and len(head) == 2 + size and length < {2: 126, 8: 2**16}[size]
    broken_control = opcode >= CLOSE and (head[1] > 125 or head[0] < 0x80)
    unknown = head[0] & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
    return bool(unknown or head[1] >= 0x80 or broken_control or needless)


def fault_of(stream: bytes, *, compressed: bool = False) -> int | None:
    """Return where the first frame begins whose header, or text, breaks the protocol, as far as it has come."""
    fragmented, end = False, 0
    text: codecs.IncrementalDecoder | None = None
    for part in parts_of(stream)[0]:
        payload = stream[part.payload : part.payload + part.length]
        is_next = part.is_data and (part.opcode & 0x0F == CONTINUATION) != fragmented
        if is_next or is_faulty(stream[part.start : part.payload], compressed=compressed):
            return part.start
        if part.opcode & 0x0F in (TEXT, BINARY):
            text = codecs.getincrementaldecoder("utf-8")() if part.opcode == TEXT else None
        if part.is_data and text is not None:
            try:
                text.decode(payload, part.last and len(payload) == part.length)
            except UnicodeDecodeError:
                return part.start
        fragmented = not part.last if part.is_data else fragmented
        end = part.payload + part.length
    head = stream[end : end + 14]
    is_next = len(head) > 1 and head[0] & 0x0F < CLOSE and (head[0] & 0x0F == CONTINUATION) != fragmented
    return end if len(head) > 1 and (is_next or is_faulty(head, compressed=compressed)) else None


def plain_messages(stream: bytes, parts: list[Part]) -> list[bytes]:
    found, fragmented = [], False
    for part in parts:
        if not fragmented and is_plain(stream, part):
            found.append(stream[part.payload : part.payload + part.length])
        elif part.is_data:
            fragmented = not part.last
    return found


@examples(200)
@given(FRAMES, CUTS)
@example(LARGE, [])
@example(LARGE, [(0, 5), (0, 20_000), (0, 65_546), (0, 65_547), (1, 1), (2, 1), (2, 3), (2, 5)])
@example(TEXTS, [(0, 4), (1, 1), (2, 2)])
@example([frame(TEXT, b"cut"), frame(PING)], [(0, 4)])
def test_it_agrees_with_a_look_at_every_byte(frames: list[bytes], cuts: list[tuple[int, int]]) -> None:
    stream = b"".join(frames)
    fault = fault_of(stream)
    parts, owners = parts_of(stream[:fault])[0], parts_of(stream)[1]
    starts = {part.start for part in parts} | {part.payload + part.length for part in parts} | {0}
    lane, place, order = Lane(), 0, b""
    messages: list[Frame] = []
    for piece in pieces_of(frames, cuts):
        followed = follow(lane, piece)
        place += len(piece)
        messages += followed.messages
        order += followed.passed
        if lane.fault is not None:
            break
        assert order == stream[: len(order)]
        assert len(order) == place or len(order) in starts  # the rest is the beginning of a frame
        assert followed.heard == any(owners[place - len(piece) : place])
    if lane.fault is None or lane.fault[0] != 1007:  # of what is no text, some may have been passed on
        assert (None if lane.fault is None else len(order)) == fault
    assert [item.encode() if isinstance(item, str) else item for item in messages] == plain_messages(
        stream[:fault], parts
    )


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
    stream = b"".join(frames)
    stream = stream[: fault_of(stream)]
    found = first_above(limit, parts_of(stream)[0])
    lane, place, order = Lane(limit), 0, b""
    for piece in pieces_of([stream], cuts):
        followed = follow(lane, piece)
        place += len(piece)
        order += followed.passed
        if found is None or place < found[0].payload:
            assert lane.fault is None
        else:
            assert lane.fault is not None
            assert lane.fault[0] == 1009
            assert f"at least {found[1]} bytes" in lane.fault[1]
            assert order == stream[: found[0].start]
            assert followed.heard
            return


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
    lane = Lane()
    assert [follow(lane, bytes((byte,))).heard for byte in stream] == heard


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10, 0x03, 0x07])
def test_a_frame_that_breaks_the_protocol_is_not_too_long(bits: int) -> None:
    lane = Lane(10)
    follow(lane, bytes((0x80 | bits, 100)))
    assert lane.fault is not None
    assert lane.fault[0] == 1002


def test_compressed_messages_are_for_the_library_and_have_the_limit() -> None:
    lane = Lane(10, compressed=True)
    data = bytes((0xC1, 2)) + b"ab"
    assert follow(lane, data) == Followed([], data, heard=True)
    assert follow(lane, bytes((0xC1, 10))) == Followed([], bytes((0xC1, 10)), heard=True)
    lane = Lane(10, compressed=True)
    assert follow(lane, bytes((0xC1, 11))) == Followed([], b"", heard=True)
    assert lane.fault == (1009, "a message of at least 11 bytes; max_message_size is 10")


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (b"\xc1\x00", "reserved bits"),
        (b"\xa2\x00", "reserved bits"),
        (b"\xc9\x00", "reserved bits"),
        (b"\x89\x7e\x00\x7e", "too long"),
        (b"\x09\x00", "fragmented"),
        (b"\x81\x7e\x00\x7d", "more bytes"),
        (b"\x82\x7f" + bytes(6) + b"\xff\xff", "more bytes"),
        (b"\x83\x00", "reserved opcode"),
        (b"\x81\x80", "masked"),
        (b"\x80\x00", "continuation of nothing"),
        (b"\x01\x01x\x01\x01x", "expected a continuation"),
    ],
)
def test_a_header_tells_its_fault(header: bytes, fault: str) -> None:
    lane = Lane()
    followed = follow(lane, header)
    assert fault in str(lane.fault)
    assert followed.passed == header[: len(header) // 2 if fault.startswith("expected") else 0]
    assert follow(lane, frame(TEXT, b"after")).messages == []


@pytest.mark.parametrize("cut", [9, 10, 50, 200])
def test_a_long_text_that_is_none_is_not_waited_for(cut: int) -> None:
    text = frame(TEXT, b"fine\xc3\xb6 \xc3" + b"x" * 100)
    lane = Lane()
    follow(lane, text[:cut])
    assert (lane.fault is None) == (cut <= 10)
    follow(lane, text[cut : cut + 2])
    assert lane.fault is not None
    assert lane.fault[0] == 1007


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_text_may_be_cut_anywhere(cut: int) -> None:
    text = frame(TEXT, "aäö€𝄞".encode())
    lane = Lane()
    assert follow(lane, text[:cut]).messages == []
    assert follow(lane, text[cut:-1]).messages == []
    assert follow(lane, text[-1:]).messages == ["aäö€𝄞"]


def test_it_knows_how_much_a_frame_lacks() -> None:
    lane = Lane()
    for data, lacks in (
        (b"\x82", 1),
        (b"\x7f", 8),
        (bytes(4) + b"\x00\x10\x00\x00", 2**20),
        (bytes(2**20 - 5), 5),
        (bytes(5) + frame(TEXT, b"x" * 300, last=False)[:50], 254),
        (b"x" * 250, 4),
    ):
        follow(lane, data)
        assert lane.lacks == lacks


def calls_of(data: bytes) -> int:
    count, lane = 0, Lane()

    def profile(called: FrameType, event: str, _: Any) -> None:
        nonlocal count
        # In this library: a garbage collection calls what pytest's plugins have asked for.
        count += event == "call" and called.f_globals["__name__"].startswith("slipstream_trio.")

    sys.setprofile(profile)
    try:
        lane.feed(data)
        lane.take([])
    finally:
        sys.setprofile(None)
    return count


def test_a_burst_costs_as_many_calls_whatever_it_holds() -> None:
    assert calls_of(frame(TEXT, b"x" * 300) * 50 + frame(TEXT, b"x") * 50) == calls_of(frame(TEXT, b"x"))
