"""The WebSocket libraries alone, and our transports around them, on the same bytes: what each makes of these."""

import codecs
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio
import trio_websocket
from attrs import field, frozen
from tests.transport.support import CLOSE, PONG
from trio.testing import MockClock
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame as WebSocketFrame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from slipstream_trio.transport import Frame, OpenRequest, TransportEnded, find_connector
from slipstream_trio.transport.upgrade import accept_token

DEFLATE = "permessage-deflate"


@frozen
class Made:
    """What was made of a stream: messages in order, the code of the end, and the frames that were written."""

    messages: list[Frame]
    end: int
    pongs: list[bytes]
    closes: list[int] = field(eq=False)


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """Return opcodes and payloads of a client's frames, all of them short."""
    frames = []
    while data:
        size = data[1] & 0x7F
        assert data[1] & 0x80
        assert size < 126
        mask, body = data[2:6], data[6 : 6 + size]
        frames.append((data[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))))
        data = data[6 + size :]
    return frames


def made(messages: list[Frame], end: int, written: bytes) -> Made:
    frames = unmasked(written)
    pongs = [payload for opcode, payload in frames if opcode == PONG]
    return Made(messages, end, pongs, [int.from_bytes(body[:2]) for opcode, body in frames if opcode == CLOSE])


class Script(trio.abc.Stream):
    """The client's stream: it accepts the upgrade, gives the pieces one read after the other, and ends."""

    def __init__(self, pieces: Sequence[bytes], extension: str | None = None) -> None:
        self.pieces = list(pieces)
        self.extension = extension
        self.asked = False
        self.written = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.asked:
            self.written += bytes(data)
            return
        self.asked = True
        lines = bytes(data).split(b"\r\n")
        key = next(line for line in lines if line.lower().startswith(b"sec-websocket-key")).split(b": ")[1]
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answer += b"Sec-WebSocket-Accept: " + accept_token(key) + b"\r\n"
        if self.extension is not None:
            answer += b"Sec-WebSocket-Extensions: " + self.extension.encode() + b"\r\n"
        self.pieces.insert(0, answer + b"\r\n")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if max_bytes is not None and len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def ours(transport: str, pieces: Sequence[bytes], *, deflate: bool = False) -> Made:
    """Return what a transport of ours makes of the pieces."""
    script = Script(pieces, DEFLATE if deflate else None)
    messages: list[Frame] = []
    end = 0
    woken: list[None] = []
    request = OpenRequest(url="ws://h/socket/websocket", compression=deflate)

    async def open_stream(_: OpenRequest) -> Script:
        await trio.lowlevel.checkpoint()
        return script

    async with find_connector(transport, open_stream).open(request, partial(woken.append, None)) as opened:
        try:
            while True:
                messages += await opened.receive()
        except TransportEnded as ended:
            end = ended.code
        with suppress(TransportEnded):
            await opened.send([])
    assert bool(woken) == bool(script.written)
    return made(messages, end, script.written)


async def trio_websocket_alone(pieces: Sequence[bytes]) -> Made:
    script = Script(pieces)
    messages: list[Frame] = []
    async with trio.open_nursery() as nursery:
        stream: Any = script
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, "h", "/", max_message_size=2**60, receive_buffer_size=None
        )
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                messages.append(await connection.get_message())
        end = connection.closed
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert end is not None
    return made(messages, int(end.code), script.written)


async def websockets_alone(pieces: Sequence[bytes], *, deflate: bool) -> Made:
    """What the protocol makes of the pieces, its frames put together, and texts looked at frame by frame."""
    factory = ClientPerMessageDeflateFactory()
    protocol = ClientProtocol(parse_uri("ws://h"), extensions=[factory], state=State.OPEN, max_size=None)
    if deflate:
        protocol.extensions = protocol.process_extensions(Headers({"Sec-WebSocket-Extensions": DEFLATE}))
    messages: list[Frame] = []
    pongs: list[bytes] = []
    text: codecs.IncrementalDecoder | None = None
    parts: list[bytes] = []
    for piece in pieces:
        protocol.receive_data(piece)
        for event in protocol.events_received():
            assert isinstance(event, WebSocketFrame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                text = codecs.getincrementaldecoder("utf-8")() if event.opcode is Opcode.TEXT else None
                parts = []
            elif event.opcode is not Opcode.CONT:
                pongs += [bytes(event.data)] * (event.opcode is Opcode.PING)
                continue
            parts.append(bytes(event.data))
            try:
                if text is not None:
                    text.decode(parts[-1], event.fin)
            except UnicodeDecodeError:
                return Made(messages, 1007, pongs, [1007])
            if event.fin:
                messages.append(b"".join(parts) if text is None else b"".join(parts).decode())
    protocol.receive_eof()
    if protocol.close_rcvd is not None:  # that it comes within a message is a fault to the protocol, but not to us
        code = int(protocol.close_rcvd.code)
        return Made(messages, code, pongs, [0 if code == 1005 else code])
    if protocol.close_sent is not None:
        return Made(messages, int(protocol.close_sent.code), pongs, [int(protocol.close_sent.code)])
    return Made(messages, 1006, pongs, [])


def run(make: Callable[[], Any]) -> Made | None:
    """Run it in virtual time; None: it hangs."""

    async def main() -> Made | None:
        with trio.move_on_after(1000):
            result: Made = await make()
            return result
        return None

    return trio.run(main, clock=MockClock(autojump_threshold=0))
