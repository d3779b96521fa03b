"""What needs to know what a stream is made of."""

import socket
import struct
from contextlib import suppress
from typing import Final

import trio

from .memory import MemoryStream

__all__ = ["GONE", "end_sending", "reset"]

GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What a stream raises once its peer has left, or `reset` has cut it."""


def reset(stream: trio.abc.Stream) -> None:
    """Have the stream's closing cut the connection, instead of ending it in good order."""
    if isinstance(stream, trio.SSLStream):
        reset(stream.transport_stream)
    elif isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        # Closing with a linger time of 0 sends RST.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif isinstance(stream, MemoryStream):
        stream.reset()


async def end_sending(stream: trio.abc.Stream) -> None:
    """Tell the peer that nothing more will come, where the stream can, which TLS cannot, and the peer is there."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        with suppress(*GONE):
            await stream.send_eof()
