"""What needs to know what a stream is made of."""

import socket
import struct
from typing import Final

import trio

from .memory import MemoryStream

__all__ = ["end_sending", "reset"]

_LINGER_NOT: Final = struct.pack("ii", 1, 0)


def reset(stream: trio.abc.Stream) -> None:
    """Have the stream's closing cut the connection, instead of ending it in good order."""
    if isinstance(stream, trio.SSLStream):
        reset(stream.transport_stream)
    elif isinstance(stream, trio.SocketStream):
        if stream.socket.fileno() >= 0:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    elif isinstance(stream, MemoryStream):
        stream.reset()


async def end_sending(stream: trio.abc.Stream) -> None:
    """Tell the client that nothing more will come, where the stream can: TLS cannot."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
