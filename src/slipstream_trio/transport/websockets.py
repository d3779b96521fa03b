"""The fast transport (extra `fast`): the Sans-I/O protocol of the `websockets` package over Trio streams.

The package yields frames, not messages, and does not look at UTF-8: both are done here.
"""

import codecs
import io
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final, cast

import attrs
import trio
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.headers import build_extension
from websockets.protocol import State
from websockets.uri import parse_uri

from ..errors import ConnectError
from . import network
from .base import Frame, OpenRequest, StreamOpener
from .common import PIECES_A_PASS, Opening, WebSocketTransport
from .lane import CONTROL, MESSAGE_TOO_BIG, NO_TEXT, PROTOCOL_ERROR, TEXT
from .upgrade import Answer

__all__ = ["WebsocketsConnector", "connector"]

_DEFLATE = ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})

_ANYWHERE = parse_uri("ws://localhost")  # the protocol shows it in its own upgrade only
INFLATED: Final = 128 * 1024  # bytes that are inflated before other tasks run, half a millisecond's worth
INFLATED_A_PIECE: Final = INFLATED // PIECES_A_PASS  # so many count as much as a piece that is given to the library
END_OF_BLOCK: Final = b"\x00\x00\xff\xff"  # a sender leaves it out at the end of a message (RFC 7692, 7.2.1)


class WebsocketsConnector:
    """Opens WebSockets with the Sans-I/O protocol of `websockets`."""

    name = "websockets"
    compresses = True

    def __init__(self, open_stream: StreamOpener | None = None) -> None:
        self.open_stream: StreamOpener = open_stream or network.open_stream

    def open(self, request: OpenRequest, wake: Callable[[], None]) -> Opening:
        """Open a WebSocket; see `Connector.open`."""
        if request.compression:
            offer = build_extension([(_DEFLATE.name, _DEFLATE.get_request_params())])
            request = attrs.evolve(request, extensions=(*request.extensions, offer))
        return Opening(self.open_stream, request, _Websockets, wake)


connector: Final = WebsocketsConnector


class _Websockets(WebSocketTransport):
    """Frames are told apart by the lane; the package answers control frames, and compresses what is sent.

    It would give a data frame only when it is whole, and inflate it in one go; so that no step takes long, messages
    that the lane does not take are put together, and inflated, here.
    """

    _deflate: PerMessageDeflate | None = None
    _inflater: Any = None
    _part: Any  # an io.StringIO or io.BytesIO: the end of the message under way
    _parts: list[Any]  # what comes before it

    @cached_property
    def protocol(self) -> ClientProtocol:
        """The library's protocol, made when its first bytes come: an idle connection has none."""
        return ClientProtocol(_ANYWHERE, state=State.OPEN, max_size=None)

    def __init__(self, stream: trio.abc.Stream, answer: Answer, limit: int, wake: Callable[[], None]) -> None:
        super().__init__(stream, answer, limit, wake)
        extensions = ", ".join(answer.values("sec-websocket-extensions"))
        if not extensions:
            return
        self._deflated: list[bytes] = []
        # Compress as the server says, if that makes sense.
        self.protocol.available_extensions = [_DEFLATE]
        try:
            headers = Headers({"Sec-WebSocket-Extensions": extensions})
            self.protocol.extensions = self.protocol.process_extensions(headers)
        except InvalidHandshake as error:
            raise ConnectError(f"the server's 101 is an invalid upgrade: {error}") from error
        self._deflate = cast(PerMessageDeflate, self.protocol.extensions[0])

    def _frames(self, messages: Sequence[Frame]) -> list[bytes]:
        if self._deflate is None:
            return super()._frames(messages)
        for message in messages:
            if isinstance(message, str):
                self.protocol.send_text(message.encode())
            else:
                self.protocol.send_binary(message)
        return self.protocol.data_to_send()

    async def _digest(self, piece: bytes) -> Frame | None:
        if self._lane.opcode < CONTROL:
            return await self._assembled()
        protocol = self.protocol
        protocol.receive_data(piece)
        written, close = protocol.data_to_send(), protocol.close_sent
        if close is not None and protocol.parser_exc is not None:
            self._violated(close.code, close.reason)
            return None
        for frame in written:
            self._collect(frame)
        if close is not None:
            self._closed_by_server(close.code)
        protocol.events_received()
        return None

    async def _assembled(self) -> Frame | None:
        """Return the message that a piece of a data frame completes, if it does."""
        lane = self._lane
        if lane.begins:
            is_text = lane.opcode == TEXT
            self._part, self._parts = io.StringIO() if is_text else io.BytesIO(), []
            if lane.compressed:
                self._decode = codecs.getincrementaldecoder("utf-8")().decode if is_text else None
                self._size = 0
                assert self._deflate is not None
                if self._inflater is None or self._deflate.remote_no_context_takeover:
                    self._inflater = zlib.decompressobj(wbits=-self._deflate.remote_max_window_bits)
        if not lane.compressed:
            self._append(lane.payload)
        else:
            self._deflated.append(cast(bytes, lane.payload))
            if not lane.lacks:  # a frame is looked at when it is whole, as the package does
                await self._inflate_frame(last=lane.message_passed)
        if not lane.message_passed or self._is_over:
            return None
        end: Any = self._part.getvalue()
        message: Frame = type(end)().join([*self._parts, end])
        return message

    def _append(self, part: Frame) -> None:
        """Append to the message: neither do fragments of a byte cost an object each, nor is all copied as it grows."""
        self._part.write(part)
        if self._part.tell() >= INFLATED:
            self._parts.append(self._part.getvalue())
            self._part = type(self._part)()

    async def _inflate_frame(self, *, last: bool) -> None:
        pieces, self._deflated = [*self._deflated, *([END_OF_BLOCK] if last else [])], []
        if sum(map(len, pieces)) <= INFLATED:  # at once, as the package does, which so finds this fault before others
            pieces = [b"".join(pieces)]
        try:
            for piece in pieces:
                await self._inflate(piece)
            if self._decode is not None:
                self._decode(b"", last)
        except zlib.error:
            self._violated(PROTOCOL_ERROR, "a message cannot be inflated")
        except UnicodeDecodeError as error:
            self._violated(NO_TEXT, f"text that is not UTF-8: {error.reason}")

    async def _inflate(self, data: bytes) -> None:
        """Inflate a piece of a message, in steps: a few bytes may become many MiB."""
        is_more = True
        while is_more and not self._is_over:
            inflated = self._inflater.decompress(data, INFLATED)
            data, is_more = self._inflater.unconsumed_tail, len(inflated) == INFLATED
            self._size += len(inflated)
            if self._size > self._limit:
                self._violated(MESSAGE_TOO_BIG, f"a message of more than {self._limit} bytes, when inflated")
                return
            self._append(inflated if self._decode is None else self._decode(inflated))
            self._passed_on += len(inflated) // INFLATED_A_PIECE
            if self._passed_on >= 2 * PIECES_A_PASS:
                self._passed_on = PIECES_A_PASS  # so what is complete will be handed over
                await trio.lowlevel.checkpoint()
