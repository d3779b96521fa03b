"""The lane of incoming frames (RFC 6455, 5.2): plain messages go past the WebSocket library, the rest is for it.

    byte 0    FIN (1 bit), reserved (3), opcode (4, the first of which tells control frames from data frames)
    byte 1    MASK (1), length (7)
    then      the length in 2 bytes if byte 1 says 126, in 8 if it says 127; the mask in 4 bytes if MASK is set

Nearly all that a server sends is plain: data frames that are a whole message each, neither fragmented nor compressed.
To slice those out of what was read takes a tenth of the time that a library takes. The headers also tell what a library
tells too late: a large message may take minutes to come, so liveness needs to know of its bytes; and limits can be held
as soon as a header has announced how much is to come. What comes of a large message is decoded as it comes, as all of
it at the end would keep other tasks waiting.
"""

import codecs
import sys
from typing import Any, Final

from .base import Frame

FIN: Final = 0x80
RESERVED: Final = 0x70
COMPRESSED: Final = 0x40
OPCODE: Final = 0x0F
TEXT: Final = 0x01
BINARY: Final = 0x02
CONTROL: Final = 0x08
MASK: Final = 0x80
LENGTH: Final = 0x7F
IN_TWO: Final = 126
IN_EIGHT: Final = 127

PROTOCOL_ERROR: Final = 1002
NO_TEXT: Final = 1007
MESSAGE_TOO_BIG: Final = 1009

WHOLE_TEXT: Final = FIN | TEXT
WHOLE_BINARY: Final = FIN | BINARY

SIZES: Final = bytes(
    2 + {IN_TWO: 2, IN_EIGHT: 8}.get(second & LENGTH, 0) + (4 if second & MASK else 0) for second in range(256)
)
"""The bytes of a header, by its second byte."""


class Lane:
    """Follows the frames in a stream of bytes that comes in pieces of any size, and takes the plain messages out.

    Use: `feed` it with what was read; then `take` and `pass_on` in turns, until neither brings anything; then read on,
    unless it has found a fault. Once the library has received a close frame, or has failed, the rest of the stream is
    nobody's.

    `max_message_size` counts the payloads of all fragments; `compressed` allows the first reserved bit, which tells
    compressed messages.

    Attributes:
        heard: whether, of what was fed last, anything belongs to a data frame, as far as it was looked at.
        lacks: the least number of bytes missing of the frame under way.
        begins: whether the piece of a data frame that was passed on last is the beginning of a message.
        payload: the piece without its header, decoded if it is of a text that is not compressed.
        message_passed: whether the piece that was passed on last is the end of a message.
        fault: the close code and the text for what breaks the protocol (1002, 1007) or the limit (1009), where a header
            or a plain text does. A library may find out only when the payload has come, or never. Nothing is taken or
            passed on from there.
    """

    def __init__(self, max_message_size: int | None = None, *, compressed: bool = False) -> None:
        self.heard: bool = False
        self.lacks: int = 0
        self.opcode: int = CONTROL
        self.begins: bool = False
        self.compressed: bool = False
        self.payload: Frame = b""
        self.message_passed: bool = False
        self.fault: tuple[int, str] | None = None
        self._limit = sys.maxsize if max_message_size is None else max_message_size
        self._reserved = RESERVED & ~COMPRESSED if compressed else RESERVED
        self._data = b""
        self._at = 0
        self._held = b""  # the beginning of a header that has not come whole
        self._parts: list[Any] | None = None  # of a plain message that has not come whole
        self._text: codecs.IncrementalDecoder | None = None  # has seen what came of a text that is not whole
        self._skip = 0  # the size of the header, until it was passed on
        self._owed = 0  # bytes that the frame under way, where its header has come, still lacks
        self._ends = False  # that frame is the last of its message
        self._fragmented = False  # the library is within a message
        self._message_size = 0

    def feed(self, data: bytes) -> None:
        """Go on with the next piece."""
        self.heard = self.opcode < CONTROL and len(data) > 0 and self.lacks > 0
        self.lacks -= len(data)
        if data:
            self._data, self._at, self._held = self._held + data if self._held else data, 0, b""

    def _decoded(self, part: bytes) -> Frame | None:
        """Return the next part of a message; None if it should be text and is none: the rest is not waited for."""
        try:
            return part if self._text is None else self._text.decode(part, self._ends and not self._owed)
        except UnicodeDecodeError as error:
            self.fault = (NO_TEXT, f"text that is not UTF-8: {error.reason}")
            return None

    def take(self, messages: list[Frame]) -> None:  # noqa: C901 - to call a function would take as long as all else
        """Append the plain messages that are next, by a loop that calls next to nothing, nor looks constants up."""
        if (self._owed or self._fragmented or self.fault is not None) and not self._take_part(messages):
            return
        data, limit, append, at = self._data, self._limit, messages.append, self._at
        end = len(data)
        try:
            while at < end:
                length = data[at + 1]
                if length < 126:
                    start = at + 2
                elif length == 126:
                    length = data[at + 2] << 8 | data[at + 3]
                    start = at + 4
                    if length < 126:
                        break
                else:
                    start = at + 10
                    if length > 127 or (length := int.from_bytes(data[at + 2 : start])) < 2**16:
                        break
                stop = start + length
                if stop > end or length > limit:
                    break
                if data[at] == 0x81:
                    append(data[start:stop].decode())
                elif data[at] == 0x82:
                    append(data[start:stop])
                else:
                    break
                at = stop
        except (IndexError, UnicodeDecodeError):
            pass
        self.heard = self.heard or at > self._at
        self._at = at

    def _take_part(self, messages: list[Frame]) -> bool:
        """Take what there is of a plain message that had not come whole; append it, and return True, if now it has."""
        if self._parts is None or self.fault is not None:
            return False
        decoded = self._decoded(self._next_piece())
        if decoded is not None:
            self._parts.append(decoded)
        if decoded is None or self._owed:
            return False
        messages.append(type(decoded)().join(self._parts))
        self._parts = None
        return True

    def _next_piece(self) -> bytes:
        piece = self._data[self._at : self._at + self._owed]
        self._at += len(piece)
        self.lacks = self._owed = self._owed - len(piece)
        return piece

    def pass_on(self) -> bytes:
        """Return the next bytes for the library, of one frame only; b"" where more has to be read before."""
        if self._at >= len(self._data) or self.fault is not None:
            return b""
        if not self._owed and not self._begin():
            return b""
        piece = self._next_piece()
        self.message_passed = self._ends and not self._owed
        if self.opcode < CONTROL:
            self.heard = True
            self.begins = self.opcode > 0 and self._skip > 0
            part, self._skip = piece[self._skip :], 0
            decoded = self._decoded(part)
            if decoded is None:
                return b""
            self.payload = decoded
        return piece

    def _begin(self) -> bool:
        """Look at the header of the frame that begins here; return whether the frame is for the library."""
        data, at = self._data, self._at
        come, first = len(data) - at, data[at]
        self.opcode = first & OPCODE
        size = SIZES[data[at + 1]] if come > 1 else 2
        self.fault = self._fault_of(first, data[at + 1]) if come > 1 else None
        if self.fault is not None or come < size:
            self._held, self._at, self.lacks = data[at:], len(data), size - come
            self.heard = self.heard or self.opcode < CONTROL
            return False
        length, least = data[at + 1] & LENGTH, 0
        if length >= IN_TWO:
            least = IN_TWO if length == IN_TWO else 2**16
            length = int.from_bytes(data[at + 2 : at + size])
        if length < least:
            self.fault = (PROTOCOL_ERROR, "a length in more bytes than it needs")
            return False
        if self.opcode < CONTROL:
            return self._begin_data(first, size, length)
        self._owed, self._ends = size + length, False
        return True

    def _begin_data(self, first: int, size: int, length: int) -> bool:
        """Find out whose a data frame is, of such a length behind a header of such a size."""
        total = length if self.opcode else self._message_size + length
        if total > self._limit:
            self.heard = True
            self.fault = (MESSAGE_TOO_BIG, f"a message of at least {total} bytes; max_message_size is {self._limit}")
            return False
        if self.opcode:  # a compressed text is for the library to look at
            self._text = codecs.getincrementaldecoder("utf-8")() if first in (TEXT, WHOLE_TEXT) else None
            self.compressed = first & COMPRESSED > 0
        if first in (WHOLE_TEXT, WHOLE_BINARY):
            # The rest of it has not come; or it has, and it is a text, and none.
            self.heard, self._parts = True, []
            self._at, self._owed, self._ends = self._at + size, length, True
            self._take_part([])
            return False
        self._skip, self._owed, self._ends = size, size + length, first & FIN > 0
        self._fragmented, self._message_size = not self._ends, 0 if self._ends else total
        return True

    def _fault_of(self, first: int, second: int) -> tuple[int, str] | None:
        opcode, text = first & OPCODE, None
        if first & self._reserved or (first & COMPRESSED and opcode not in (TEXT, BINARY)):
            text = "reserved bits must be 0"
        elif opcode & ~CONTROL > BINARY:
            text = "reserved opcode"
        elif second & MASK:
            text = "masked frame of a server"
        elif opcode >= CONTROL and (second >= IN_TWO or not first & FIN):
            text = "control frame too long" if first & FIN else "fragmented control frame"
        elif opcode < CONTROL and self._fragmented == (opcode > 0):
            text = "expected a continuation frame" if opcode else "continuation of nothing"
        return None if text is None else (PROTOCOL_ERROR, text)
