"""The development server (`slipstream serve`) in a thread of its own, for the examples of the README and of the docs.

server = ExampleServer()
server.url   # ws://127.0.0.1:…/socket/websocket
server.stop()
"""

import threading
from queue import SimpleQueue

import trio

from slipstream_trio.cli.development import PATH, make_server
from slipstream_trio.testing.server import Listening, PhoenixServer


class ExampleServer:
    """Serves from its making until `stop`: the development server, or another one."""

    def __init__(self, server: PhoenixServer | None = None) -> None:
        self._server = server or make_server()
        self._started: SimpleQueue[Listening] = SimpleQueue()
        self._thread = threading.Thread(target=trio.run, args=[self._serve], daemon=True)
        self._thread.start()
        self.url = self._started.get(timeout=20).url(PATH)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            async with self._server.serve() as listening:
                self._started.put(listening)
                await trio.sleep_forever()

    def stop(self) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(timeout=20)
