"""The fast transport (extra `fast`): the Sans-I/O protocol of the `websockets` package over Trio streams.

The package yields frames, not messages, and does not look at UTF-8: both are done here.
"""

import codecs
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property

import attrs
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame as WebSocketFrame, Opcode
from websockets.headers import build_extension
from websockets.protocol import State
from websockets.uri import parse_uri

from ..errors import ConnectError
from . import network
from .base import Connector, Frame, OpenRequest, StreamOpener, Transport
from .common import WebSocketTransport, upgraded_stream
from .lane import MESSAGE_TOO_BIG, NO_TEXT, Lane

__all__ = ["WebsocketsConnector", "connector"]

_ANYWHERE = parse_uri("ws://localhost")
"""The protocol shows it in its own upgrade only."""


def connector(open_stream: StreamOpener | None = None) -> Connector:
    """Return the connector of this transport."""
    return WebsocketsConnector(open_stream)


class WebsocketsConnector:
    """Opens WebSockets with the Sans-I/O protocol of `websockets`.

    Parameters:
        open_stream: opens the stream to run over; None: over the network. An exception of its own becomes the
            cause of a `ConnectError`, and one of the stream's the cause of the transport's end.
    """

    name = "websockets"
    compresses = True

    def __init__(self, open_stream: StreamOpener | None = None) -> None:
        self.open_stream: StreamOpener = open_stream or network.open_stream

    @asynccontextmanager
    async def open(self, request: OpenRequest, wake: Callable[[], None]) -> AsyncIterator[Transport]:
        """Open a WebSocket; see `Connector.open`."""
        deflate = ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})
        if request.compression:
            offer = build_extension([(deflate.name, deflate.get_request_params())])
            request = attrs.evolve(request, extensions=(*request.extensions, offer))
        async with upgraded_stream(self.open_stream, request) as (stream, upgraded):
            lane = Lane(request.max_message_size, compressed=upgraded.extensions is not None)
            transport = _Websockets(stream, upgraded, lane, wake)
            if upgraded.extensions is not None:
                transport.protocol.max_message_size = request.max_message_size  # of what is inflated
                transport.agree(deflate, upgraded.extensions)
            yield transport


class _Websockets(WebSocketTransport):
    _is_text = False
    _checker: codecs.IncrementalDecoder | None = None
    _deflates = False

    @cached_property
    def _message(self) -> bytearray:
        return bytearray()

    @cached_property
    def protocol(self) -> ClientProtocol:
        """What is made when something comes that is for it: an idle connection has none."""
        return ClientProtocol(_ANYWHERE, state=State.OPEN, max_size=None)

    def agree(self, deflate: ClientPerMessageDeflateFactory, extensions: str) -> None:
        """Compress as the server says; raises `ConnectError` if that makes no sense."""
        self.protocol.available_extensions = [deflate]
        try:
            headers = Headers({"Sec-WebSocket-Extensions": extensions})
            self.protocol.extensions = self.protocol.process_extensions(headers)
        except InvalidHandshake as error:
            raise ConnectError(f"the server's 101 is an invalid upgrade: {error}") from error
        self._deflates = True

    def _frames(self, messages: Sequence[Frame]) -> list[bytes]:
        if not self._deflates:
            return super()._frames(messages)
        for message in messages:
            if isinstance(message, str):
                self.protocol.send_text(message.encode())
            else:
                self.protocol.send_binary(message)
        return self.protocol.data_to_send()

    async def _digest(self, piece: bytes) -> Frame | None:
        protocol = self.protocol
        if self._lane.opcode == Opcode.CLOSE:
            protocol.current_size = None  # a message that is under way may be given up
        protocol.receive_data(piece)
        written, close = protocol.data_to_send(), protocol.close_sent
        if close is not None and protocol.parser_exc is not None:
            limit = f"a message of more than {protocol.max_message_size} bytes, when inflated"
            self._violated(close.code, limit if close.code == MESSAGE_TOO_BIG else close.reason)
            return None
        for frame in written:
            self._collect(frame)
        if close is not None:
            self._closed_by_server(close.code, close.reason)
        for event in protocol.events_received():  # one, where the piece completes a frame
            if isinstance(event, WebSocketFrame):
                try:
                    return self._assembled(event)
                except UnicodeDecodeError as error:
                    self._violated(NO_TEXT, f"text that is not UTF-8: {error.reason}")
        return None

    def _assembled(self, frame: WebSocketFrame) -> Frame | None:
        """Return the message that a frame completes, if it does."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return None
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            self._checker = codecs.getincrementaldecoder("utf-8")() if self._is_text and not frame.fin else None
        if self._checker is not None:
            self._checker.decode(frame.data)  # the rest of a long text that is none is not waited for
        self._message += frame.data
        if not frame.fin:
            return None
        message, self._message = bytes(self._message), bytearray()
        return message.decode() if self._is_text else message
