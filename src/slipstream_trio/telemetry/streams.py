"""Telemetry as an async stream: the one place of this package that knows Trio."""

from typing import Self

import trio

from .base import Record


class RecordStream:
    """An async iterator over records.

    Attributes:
        dropped: how many records did not fit into the buffer.
    """

    def __init__(self, buffer: int) -> None:
        self.dropped: int = 0
        self._send, self._receive = trio.open_memory_channel[Record](buffer)
        self._token = trio.lowlevel.current_trio_token()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        return await anext(self._receive)

    def put(self, record: Record) -> None:
        """Take in a record, if it comes from this stream's Trio run."""
        try:
            if trio.lowlevel.current_trio_token() is self._token:
                self._send.send_nowait(record)
        except RuntimeError:  # a thread without a run
            pass
        except trio.WouldBlock:
            self.dropped += 1

    def close(self) -> None:
        """End the iteration after the records that are buffered."""
        self._send.close()
