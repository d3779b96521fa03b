"""The server of the suite: as little as a client needs, so that it is never the bottleneck.

    python server.py

It prints its port. It speaks unfragmented WebSocket frames without compression, and the part of Phoenix that clients
need: joins, leaves, heartbeats and pushes are answered with "ok", a push with its own payload. The push "burst" has no
reply; it brings `count` messages of `size` bytes a frame, on the topics joined on this socket, in turn. Frames of a
burst are made once, and whole blocks of them written.
"""

import asyncio
import gc
import json
import resource
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1

from websockets.frames import apply_mask  # in C, where websockets is built so

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
BLOCK = 2**18
"""Bytes of a burst that are written at once."""

JOIN, LEAVE, BURST = b'"phx_join"', b'"phx_leave"', b'"burst"'


def framed(opcode: int, payload: bytes) -> bytes:
    """Return a server's frame."""
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 2**16:
        return bytes((opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + payload


def padded(before: str, after: str, size: int) -> bytes:
    """Return a text of that many bytes, if it is not longer without."""
    return f"{before}{'x' * (size - len(before) - len(after))}{after}".encode()


def message(join_ref: str, topic: str, size: int, *, objects: bool) -> bytes:
    """Return a message as a channel pushes it; with objects, as Supabase broadcasts in version 1 of the protocol."""
    if objects:
        inner = '{"type":"broadcast","event":"tick","payload":{"pad":"'
        return padded(f'{{"ref":null,"topic":{topic},"event":"broadcast","payload":{inner}', '"}}}', size)
    return padded(f'[{join_ref},null,{topic},"tick",{{"pad":"', '"}]', size)


@lru_cache(4)
def block(topics: tuple[tuple[str, str], ...], size: int, *, objects: bool) -> Sequence[bytes]:
    """Return frames for all of the topics, in turn, and so often that they are worth a write."""
    once = [framed(TEXT, message(join_ref, topic, size, objects=objects)) for topic, join_ref in topics]
    return once * max(1, BLOCK // (size * len(once)))


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._read = b""
        self._upgraded = False
        self._joined: dict[str, str] = {}
        self._bursts: list[tuple[Sequence[bytes], int]] = []
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=4 * BLOCK)

    def pause_writing(self) -> None:
        """Wait with bursts."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with bursts."""
        self._paused = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Answer all whole frames by one write."""
        self._read = data = self._read + data if self._read else data
        if not self._upgraded:
            head, end, self._read = data.partition(b"\r\n\r\n")
            if not end:
                self._read = data
                return
            self._upgrade(head)
            data = self._read
        answers: list[bytes] = []
        position = 0
        while (end_of_frame := self._answer(data, position, answers)) is not None:
            position = end_of_frame
        self._read = data[position:]
        if answers:
            self._transport.write(b"".join(answers))
        self._go_on()

    def _upgrade(self, head: bytes) -> None:
        key = next(
            line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = b64encode(sha1(key.strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - its use
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._transport.write(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self._upgraded = True

    def _answer(self, data: bytes, start: int, answers: list[bytes]) -> int | None:
        """Answer the frame that starts there; return where it ends, None if it is not whole."""
        if len(data) < start + 6:
            return None
        size, mask = data[start + 1] & 0x7F, start + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, mask = int.from_bytes(data[mask : mask + width], "big"), mask + width
        end = mask + 4 + size
        if len(data) < end:
            return None
        payload = apply_mask(data[mask + 4 : end], data[mask : mask + 4])
        if data[start] == TEXT:
            self._handle(payload, answers)
        elif data[start] == PING:
            answers.append(framed(PONG, payload))
        elif data[start] == CLOSE:
            self._transport.write(framed(CLOSE, payload[:2]))
            self._transport.close()
        return end

    def _handle(self, text: bytes, answers: list[bytes]) -> None:
        if objects := text.startswith(b"{"):
            given = json.loads(text)
            names = ("join_ref", "ref", "topic", "event", "payload")
            join_ref, ref, topic, event, payload = (json.dumps(given.get(name)).encode() for name in names)
        else:
            join_ref, ref, topic, event, payload = text[1:-1].split(b",", 4)
        event = event.strip()
        if event == BURST:
            asked = json.loads(payload)
            frames = block(tuple(self._joined.items()), asked["size"], objects=objects)
            self._bursts.append((frames, asked["count"]))
            return
        response = b"{}" if event in (JOIN, LEAVE) else payload
        answers.append(reply(join_ref, ref, topic, response, objects=objects))
        if event == JOIN:
            self._joined[topic.strip().decode()] = join_ref.decode()
        elif event == LEAVE:
            self._joined.pop(topic.strip().decode(), None)
            answers.append(framed(TEXT, b'[%b,%b,%b,"phx_close",{}]' % (join_ref, join_ref, topic)))

    def _go_on(self) -> None:
        while self._bursts and not self._paused:
            frames, left = self._bursts.pop()
            self._transport.write(b"".join(frames[:left]))
            if left > len(frames):
                self._bursts.append((frames, left - len(frames)))


def reply(join_ref: bytes, ref: bytes, topic: bytes, response: bytes, *, objects: bool) -> bytes:
    """Return the reply "ok"."""
    answer = b'"phx_reply"', b'{"status":"ok","response":' + response + b"}"
    if objects:
        return framed(TEXT, b'{"ref":%b,"topic":%b,"event":%b,"payload":%b}' % (ref, topic, *answer))
    return framed(TEXT, b"[%b,%b,%b,%b,%b]" % (join_ref, ref, topic, *answer))


async def main() -> None:
    """Serve, for ever."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    gc.disable()  # connections are the only cycles here, and 10,000 of them would be looked through again and again
    asyncio.run(main())
