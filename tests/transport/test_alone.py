"""Our transports against the WebSocket libraries alone: the lane and all around it change nothing."""

import zlib
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("websockets", reason="websockets, an extra, is not installed")

from hypothesis import HealthCheck, Phase, find, given, settings, strategies as st
from tests.drawing import examples
from tests.transport.alone import ours, run, trio_websocket_alone, websockets_alone
from tests.transport.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from tests.transport.test_lane import fault_of

from slipstream_trio.transport import common, lane

TEXTS = st.text(max_size=8) | st.sampled_from(["", "ä€𝄞", "x" * 125, "x" * 126, "ö" * 200, "y" * 66_000])
PAYLOADS = TEXTS.map(str.encode) | st.binary(max_size=8)
SMALL = st.binary(max_size=4) | st.just(b"x" * 125)
CODES = st.sampled_from([1000, 1001, 1005, 1006, 1002, 1007, 1011, 3000, 4999, 999, 5000, 1016, 65535])

plain = st.builds(frame, st.sampled_from([TEXT, TEXT, BINARY]), PAYLOADS)
control = st.builds(frame, st.sampled_from([PING, PONG]), SMALL)
closing = st.builds(close_frame, CODES, st.text(max_size=5)) | st.builds(frame, st.just(CLOSE), SMALL)
anything = st.builds(frame, st.integers(0, 15), SMALL, last=st.booleans()) | st.binary(max_size=12)


@st.composite
def improper(draw: st.DrawFn) -> bytes:
    """A text that would be fine but for its header: masked, reserved bits, a length in more bytes than it needs."""
    payload = draw(st.text(max_size=8)).encode()
    size = len(payload)
    heads = [b"\x81\x7e" + size.to_bytes(2), b"\x81\x7f" + size.to_bytes(8), bytes((0x81, 0x80 | size)) + bytes(4)]
    heads += [bytes((first, size)) for first in (0xC1, 0xA1)]
    head: bytes = draw(st.sampled_from(heads))
    return head + payload


@st.composite
def fragments(draw: st.DrawFn, *, first: int = 0) -> bytes:
    """A message in fragments, control frames between them; a text may be cut within a character."""
    opcode, payload = draw(st.sampled_from([TEXT, TEXT, BINARY])), draw(PAYLOADS)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=1, max_size=3)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    data = b""
    for number, part in enumerate(parts):
        head = frame(CONTINUATION if number else opcode, part, last=number == len(parts) - 1)
        data += head + (draw(control | plain) if draw(st.integers(0, 3)) == 0 else b"")
    return data


@st.composite
def compressed(draw: st.DrawFn) -> Callable[[Any], bytes]:
    """A message that is compressed by what compresses all of a stream, whole or in two fragments."""
    opcode, payload, cut = draw(st.sampled_from([TEXT, BINARY])), draw(PAYLOADS), draw(st.none() | st.integers(0, 9))

    def frames(compressor: Any) -> bytes:
        data = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first = frame(opcode, data if cut is None else data[:cut], last=cut is None)
        first = bytes((first[0] | 0x40,)) + first[1:]
        return first if cut is None else first + frame(CONTINUATION, data[cut:])

    return frames


class Pieces(list[bytes]):
    """A stream as it comes."""

    def __repr__(self) -> str:
        return f"{super().__repr__():.2000}"


@st.composite
def streams(draw: st.DrawFn, *, deflate: bool = False) -> Pieces:
    """A stream of frames, most of them sound, in pieces; some are damaged or cut off."""
    kinds: list[st.SearchStrategy[Any]] = [plain, plain, plain, control, fragments(), fragments()]
    if deflate:
        kinds += [compressed(), compressed()]
    frames = draw(st.lists(st.one_of(kinds), min_size=1, max_size=8))
    if draw(st.integers(0, 2)) == 0:
        frames.insert(draw(st.integers(0, len(frames))), draw(closing | anything | improper()))
    compressor = zlib.compressobj(wbits=-15)
    data = b"".join(item(compressor) if callable(item) else item for item in frames)
    if data and draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + bytes((data[place] ^ draw(st.integers(1, 255)),)) + data[place + 1 :]
    if draw(st.integers(0, 4)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)) | st.integers(0, 20), max_size=6)))
    return Pieces(data[start:end] for start, end in pairwise([0, *cuts, len(data)]) if start < end)


def agree(transport: str, pieces: list[bytes], *, deflate: bool = False) -> bool:
    """Whether a transport makes the same of the pieces as its library alone.

    The limit is excepted, as it is ours. And libraries may look at a frame only when it is whole, which a stream that
    ends before shows: a fault in a header or a plain text has to end it for us. What is a fault to us alone (a length
    in more bytes than it needs), websockets is not given.
    """
    mine, whole = run(partial(ours, transport, pieces, deflate=deflate)), b"".join(pieces)
    fault = fault_of(whole, compressed=deflate)
    if transport == "websockets":
        theirs = run(partial(websockets_alone, pieces if fault is None else [whole[:fault]], deflate=deflate))
    else:
        theirs = run(partial(trio_websocket_alone, pieces))
    assert theirs is not None
    if mine is None or mine.messages != theirs.messages or mine.pongs != theirs.pongs:
        return False
    if mine.end == 1009 or (fault is not None and theirs.end == 1006):
        return mine.end in (1002, 1007, 1009) and mine.closes == [mine.end]
    # trio-websocket tells nobody of what it finds.
    told = [mine.end] if transport == "trio_websocket" and mine.end in (1002, 1007) else []
    return mine.end == theirs.end and mine.closes == (theirs.closes or told)


WITH_LIBRARIES = pytest.mark.parametrize(
    ("transport", "deflate"),
    [("trio_websocket", False), ("websockets", False), ("websockets", True)],
    ids=["trio_websocket", "websockets", "deflate"],
)


@WITH_LIBRARIES
@examples(200)
@given(st.data())
def test_a_transport_makes_the_same_of_a_stream_as_its_library(
    transport: str, deflate: bool, data: st.DataObject
) -> None:
    assert agree(transport, data.draw(streams(deflate=deflate)), deflate=deflate)


def test_a_compressed_text_in_fragments_is_looked_at_as_it_comes() -> None:
    assert agree("websockets", [b"A\x02j\x00"], deflate=True)  # its first fragment is no UTF-8, and the stream ends


@pytest.mark.once
@WITH_LIBRARIES
@examples(1000)
@given(st.data())
def test_so_it_does_of_very_many(transport: str, deflate: bool, data: st.DataObject) -> None:
    assert agree(transport, data.draw(streams(deflate=deflate)), deflate=deflate)


BUGS = {
    "fragments are overtaken": ("(self._owed or self._fragmented or", "(self._owed or"),
    "fragments never end": ("self._message_size = not self._ends, 0", "self._message_size = True, 0"),
    "a frame is a byte longer": ("self._ends = size, size + length,", "self._ends = size, size + length + 1,"),
    "text is not looked at": ("data[start:stop].decode()", 'data[start:stop].decode(errors="replace")'),
    "the length is read backwards": ("data[at + 2] << 8 | data[at + 3]", "data[at + 3] << 8 | data[at + 2]"),
    "a frame may lack a byte": ("if stop > end or", "if stop > end + 1 or"),
    "what was held is lost": ("self._held + data if self._held else data", "data"),
    "a long message loses a part": ("self._parts.append(decoded)", "self._parts = [decoded]"),
    "text is binary": ("if data[at] == 0x81:", "if data[at] == 0x82:"),
    "every fragment is the last": ("size + length, first & FIN > 0", "size + length, True"),
    "messages are passed too early": ("passed = self._ends and not self._owed", "passed = self._ends"),
    "masks are overlooked": ("elif second & MASK:", "elif False:"),
    "needless lengths are fine": ("if length < 126:\n                        break", "pass"),
    "characters may not be cut": ("self._text.decode(part, self._ends and not self._owed)", "str(part, 'utf-8')"),
    "control frames end messages": ("self._ends = size + length, False", "self._ends = size + length, True"),
}
"""Bugs to put into the lane: what to replace, and by what."""


@pytest.fixture
def lane_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def put(bug: str) -> None:
        assert lane.__file__ is not None
        source, (sound, broken) = Path(lane.__file__).read_text(), BUGS[bug]
        assert source.count(sound) == 1
        module = ModuleType("slipstream_trio.transport.broken_lane")
        module.__package__ = lane.__package__
        exec(compile(source.replace(sound, broken), bug, "exec"), module.__dict__)
        monkeypatch.setattr(common, "Lane", module.__dict__["Lane"])

    return put


def differ(pieces: list[bytes]) -> bool:
    try:
        return not (agree("trio_websocket", pieces) and agree("websockets", pieces))
    except Exception:  # noqa: BLE001 - a bug may show like this, too
        return True


@pytest.mark.once
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_the_lane_is_found(bug: str, lane_with: Callable[[str], None]) -> None:
    lane_with(bug)
    search = settings(
        max_examples=5000,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    found = find(streams(), differ, settings=search)
    assert found
