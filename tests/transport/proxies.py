"""Proxies on loopback: HTTP (CONNECT), SOCKS4 and SOCKS5, as much of them as a client sees."""

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

CREDENTIALS = ("user", "p:ss/word")


class Proxy:
    """A proxy that is listened to on loopback.

    Parameters:
        kind: "http", "socks4" or "socks5".
        credentials: name and password that it wants; None: it lets everybody.
        answer: bytes that it says in place of anything else, before it hangs up.
        step: bytes of its answer that go out at once.

    Attributes:
        port: where it listens.
        asked: the hosts and ports that it was asked for.
    """

    def __init__(
        self, kind: str, credentials: tuple[str, str] | None = None, answer: bytes | None = None, step: int = 99
    ) -> None:
        self.kind = kind
        self.credentials = credentials
        self.answer = answer
        self.step = step
        self.port = 0
        self.asked: list[tuple[str, int]] = []

    @asynccontextmanager
    async def listen(self, context: ssl.SSLContext | None = None) -> AsyncIterator["Proxy"]:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]

        async def serve(stream: trio.SocketStream) -> None:
            raw: trio.abc.Stream = stream
            if context is not None:
                raw = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            async with raw:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
                    await self._serve(raw)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        speak = {"http": self._http, "socks4": self._socks4, "socks5": self._socks5}[self.kind]
        target = await speak(stream)
        if target is None:
            return
        self.asked.append(target)
        async with await trio.open_tcp_stream(*target) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_copy, stream, server)
            await _copy(server, stream)
            nursery.cancel_scope.cancel()

    async def _say(self, stream: trio.abc.Stream, data: bytes) -> None:
        for at in range(0, len(data), self.step):
            await stream.send_all(data[at : at + self.step])
            await trio.lowlevel.checkpoint()

    async def _http(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await _read(stream, 1)
        if self.answer is not None:
            await self._say(stream, self.answer)
            return None
        wanted = base64.b64encode(":".join(self.credentials or ()).encode())
        if self.credentials is not None and b"Basic " + wanted + b"\r\n" not in head:
            await self._say(stream, b"HTTP/1.1 407 " + head.replace(b"\r\n", b" ") + b"\r\n\r\n")  # it likes to repeat
            return None
        await self._say(stream, b"HTTP/1.1 200 Connection established\r\nX-Proxy: mine\r\n\r\n")
        host, _, port = head.split()[1].decode().rpartition(":")
        return host.strip("[]"), int(port)

    async def _socks4(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        request = await _read(stream, 8)
        await _until_zero(stream)  # the name of the user
        host = ".".join(str(byte) for byte in request[4:8])
        if host.startswith("0.0.0."):
            host = (await _until_zero(stream)).decode()
        await self._say(stream, self.answer or b"\0\x5a" + bytes(6))
        return None if self.answer else (host, int.from_bytes(request[2:4]))

    async def _socks5(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        _, count = await _read(stream, 2)
        methods = await _read(stream, count)
        method = 0 if self.credentials is None else 2
        await self._say(stream, bytes((5, method if method in methods else 255)))
        if method not in methods:
            return None
        if self.credentials is not None:
            _, size = await _read(stream, 2)
            name = (await _read(stream, size)).decode()
            password = (await _read(stream, (await _read(stream, 1))[0])).decode()
            await self._say(stream, b"\x01\0" if (name, password) == self.credentials else b"\x01\x01")
            if (name, password) != self.credentials:
                return None
        *_, kind = await _read(stream, 4)
        size = {1: 4, 4: 16}.get(kind) or (await _read(stream, 1))[0]
        address = await _read(stream, size)
        host = address.decode() if kind == 3 else ".".join(str(byte) for byte in address)
        port = int.from_bytes(await _read(stream, 2))
        await self._say(stream, self.answer or b"\x05\0\0\x01" + bytes(6))
        return None if self.answer else (host, port)


async def _read(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


async def _until_zero(stream: trio.abc.Stream) -> bytes:
    data = b""
    while not data.endswith(b"\0"):
        data += await _read(stream, 1)
    return data[:-1]


async def _copy(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some():
            await target.send_all(data)
