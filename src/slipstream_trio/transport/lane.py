"""The lane of incoming frames: where each begins and ends, by the headers alone (RFC 6455, 5.2).

    byte 0    FIN (1 bit), reserved (3), opcode (4, the first of which tells control frames from data frames)
    byte 1    MASK (1), length (7)
    then      the length in 2 bytes if byte 1 says 126, in 8 if it says 127; the mask in 4 bytes if MASK is set

WebSocket libraries tell of messages once they are whole. That is too late for liveness: a large message may take
minutes to come, and a proxy may send pings for a server that is gone. Limits, too, can be held as soon as a header has
announced how much is to come.
"""

import math
import sys
from typing import Final

__all__ = ["FrameHeaders"]

FIN: Final = 0x80
RESERVED: Final = 0x70
OPCODE: Final = 0x0F
BINARY: Final = 0x02
CONTROL: Final = 0x08
CLOSE: Final = 0x08
MASK: Final = 0x80
LENGTH: Final = 0x7F
IN_TWO: Final = 126
IN_EIGHT: Final = 127

SIZES: Final = bytes(
    2 + {IN_TWO: 2, IN_EIGHT: 8}.get(second & LENGTH, 0) + (4 if second & MASK else 0) for second in range(256)
)
"""How many bytes a header has, by its second byte."""


class FrameHeaders:
    """Follows the frames in a stream of bytes that comes in pieces of any size.

    It refuses nothing: that is for the WebSocket library. Of bytes that are no frames it makes some frames or other, so
    what it says means little from there on.

    Parameters:
        max_message_size: the bytes of payload that a message may have, all of its fragments together; None: no limit.

    Attributes:
        max_message_size: as given.
        messages: how many messages have come whole.
        close_received: whether the header of a close frame has come.
        excess: how long the first message above the limit is at least, in bytes; None if there was none. All that
            comes after its header is taken for that message.
        before_excess: how many bytes of the piece with that header stand before it.
    """

    def __init__(self, max_message_size: int | None = None) -> None:
        self.max_message_size: int | None = max_message_size
        self.messages: int = 0
        self.close_received: bool = False
        self.excess: int | None = None
        self.before_excess: int = 0
        self._limit = math.inf if max_message_size is None else max_message_size
        self._head: bytes | bytearray = b""  # a header that has not come whole
        self._left = 0  # bytes of the frame under way that have not come
        self._is_data = False  # that frame is
        self._ends = False  # that frame, and it the last of its message, does
        self._message_size = 0

    def feed(self, data: bytes | bytearray) -> bool:
        """Follow the frames in the next piece; returns whether a byte of it belongs to a data frame, header included.

        As this runs for all that comes, it jumps over payloads, and calls nothing for a frame of less than 64 KiB.
        """
        if len(data) <= self._left:
            self._left -= len(data)
            if self._ends and not self._left:
                self.messages, self._ends = self.messages + 1, False
            return self._is_data and len(data) > 0
        heard = self._is_data and self._left > 0
        return self._follow(self._head + data) or heard

    def _follow(self, data: bytes | bytearray) -> bool:
        at, end, size, limit = self._left, len(data), self._message_size, self._limit
        first, is_data, heard, messages = 0, False, False, self.messages + self._ends
        while at < end:
            first = data[at]
            is_data = not first & CONTROL
            heard = heard or is_data
            payload = at + SIZES[data[at + 1]] if at + 1 < end else end + 1
            if payload > end:
                break
            length = data[at + 1] & LENGTH
            if length == IN_TWO:
                length = data[at + 2] << 8 | data[at + 3]
            elif length == IN_EIGHT:
                length = int.from_bytes(data[at + 2 : at + 10])
            if is_data:
                size = length if first & OPCODE else size + length
                if size > limit and first & (RESERVED | OPCODE) <= BINARY:
                    self.excess, self.before_excess = size, max(0, at - len(self._head))
                    length = sys.maxsize
                size, messages = (0, messages + 1) if first & FIN else (size, messages)
            elif first & OPCODE == CLOSE:
                self.close_received = True
            at = payload + length
        self._ends = at > end and is_data and first & FIN > 0
        self._is_data, self._message_size, self.messages = is_data, size, messages - self._ends
        self._head, self._left = data[at:], at - end if at > end else 0
        return heard
