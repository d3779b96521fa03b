"""The longest step of CPU that a flood costs a client, between two passes of Trio's scheduler.

    python benchmarks/floods.py

A server in another process floods each connection for a second. For each kind of flood and each transport that can be
flooded so, it prints the longest step, how many steps took over 10 ms, and the CPU that the client spent.
"""

import argparse
import base64
import hashlib
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import suppress
from typing import Final

import trio

from slipstream_trio import ConnectionLost, connect
from slipstream_trio.client.configuration import ConnectOptions

SECONDS: Final = 1.0
LONGEST: Final = 10_000_000
"""Nanoseconds that a step should take at most."""

MESSAGE: Final = '[null,null,"lobby","tick",{"n":123}]'


def compressed(payload: bytes) -> bytes:
    """Return a compressed binary frame."""
    compressor = zlib.compressobj(wbits=-15)
    data = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return b"\xc2" + (bytes((len(data),)) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")) + data


FLOODS: Final = {
    "pings": (b"", b"\x89\x00"),
    "pongs": (b"", b"\x8a\x04pong"),
    "empty fragments": (b"\x01\x01x", b"\x00\x00"),
    "one-byte fragments": (b"\x01\x01x", b"\x00\x01x"),
    "messages of fragments": (b"", b"\x01\x01[\x80\x01]"),
    "empty messages": (b"", b"\x81\x00"),
    "bad frames": (b"", b"\x81\x07nothing"),
    "messages": (b"", b"\x81\x24" + MESSAGE.encode()),
    "compressed, each of 15 MiB": (b"", compressed(b"\x02\x05\x04lobbytick" + bytes(15 * 2**20))),
    "compressed, each of 100 KiB": (b"", compressed(b"\x02\x05\x04lobbytick" + bytes(100 * 2**10))),
    "a poll with 100,000 messages": (b"", b""),
}
"""What comes first, and what is repeated."""


def serve(listener: socket.socket) -> None:
    """Accept WebSockets, and flood each with what its URL asks for."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=flood, args=(connection,), daemon=True).start()


def flood(connection: socket.socket) -> None:
    """Answer the upgrade, and send."""
    with connection, suppress(OSError):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(65_536)
        lines = request.decode().split("\r\n")
        kind = lines[0].split("flood=")[1].split("&")[0].split(" ")[0].replace("+", " ")
        if "longpoll" in lines[0]:
            poll(connection, lines[0])
            return
        key = next(line.partition(": ")[2] for line in lines if line.lower().startswith("sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())  # noqa: S324
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answer += b"Sec-WebSocket-Extensions: permessage-deflate\r\n" * kind.startswith("compressed")
        connection.sendall(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        first, repeated = FLOODS[kind]
        connection.sendall(first)
        threading.Thread(target=discard, args=(connection,), daemon=True).start()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            connection.sendall(repeated * max(1, 65_536 // len(repeated)))


def poll(connection: socket.socket, line: str) -> None:
    """Open a session of long-polling, or answer polls with many messages."""
    for messages in ([], [MESSAGE] * 100_000, [MESSAGE] * 100_000):
        body = json.dumps({"messages": messages, "status": 200 if "token" in line else 410, "token": "t"}).encode()
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        line = connection.recv(65_536).decode()


def discard(connection: socket.socket) -> None:
    """Read what the client sends, so that it can write."""
    with suppress(OSError):
        while connection.recv(65_536):
            pass


class Steps(trio.abc.Instrument):
    """Measures the CPU between two waits for I/O."""

    def __init__(self) -> None:
        self.longest = 0
        self.long = 0
        self._began: int | None = None

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """Begin a step."""
        self._began = time.process_time_ns()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        """End a step, if its beginning was seen."""
        if self._began is None:
            return
        took = time.process_time_ns() - self._began
        self.longest = max(self.longest, took)
        self.long += took > LONGEST


async def suffer(url: str, transport: str, flood_name: str, *, closing: bool) -> str:
    """Let a client be flooded; return what that cost."""
    steps, began = Steps(), time.process_time()
    with suppress(ConnectionLost):
        flooded = f"{url}?flood={flood_name.replace(' ', '+')}"
        options: ConnectOptions = {"transport": transport, "reconnect": None, "heartbeat_interval": None}
        if flood_name.startswith("compressed"):
            options["compression"] = True
        async with connect(flooded, **options) as client:
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(SECONDS / 4 if closing else 2 * SECONDS)
            await client.disconnect()
    trio.lowlevel.remove_instrument(steps)
    cpu = time.process_time() - began
    return f"{steps.longest / 1e6:8.1f} ms {steps.long:6} long {cpu:6.2f} s of CPU"


def can_be_flooded(transport: str, flood_name: str) -> bool:
    """Tell whether a transport can bring such a flood."""
    if transport == "longpoll" or "poll" in flood_name:
        return transport == "longpoll" and "poll" in flood_name
    return transport == "websockets" or not flood_name.startswith("compressed")


async def measure(url: str, transports: list[str]) -> None:
    """Print a line for each flood."""
    for transport in transports:  # not counted: modules are imported
        await suffer(url, transport, "pongs", closing=True)
    for name in FLOODS:
        for closing in (False, True):
            for transport in transports:
                if can_be_flooded(transport, name):
                    cost = await suffer(url, transport, name, closing=closing)
                    label = f"{name}{', closing' if closing else ''}"
                    sys.stdout.write(f"{label:37} {transport:15} {cost}\n")
                    sys.stdout.flush()


def main() -> None:
    """Start the server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--transport", nargs="*", default=["trio_websocket", "websockets", "longpoll"])
    arguments = parser.parse_args()
    if arguments.serve:
        listener = socket.create_server(("127.0.0.1", 0))
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serve(listener)
    logging.getLogger("slipstream_trio").setLevel(logging.ERROR)
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        assert server.stdout is not None
        try:
            url = f"ws://127.0.0.1:{server.stdout.readline().strip()}/socket/websocket"
            trio.run(measure, url, arguments.transport)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
