"""Differences between Phoenix's versions, and between the web servers below it, as two tables.

Most were seen in recordings of the real servers (`tests/fixtures/transcripts`), the others read in the sources of these
versions: Phoenix's `lib/phoenix/socket.ex` and `lib/phoenix/transports/websocket.ex`.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

Flavour = Literal["bandit", "cowboy"]
"""The web server that Phoenix runs on."""

Version = Literal["1.7.24", "1.8.11", "1.8.12"]
"""A version of Phoenix."""

_CACHE_CONTROL: Final = ("cache-control", "max-age=0, private, must-revalidate")
_COWBOYS: Final = (_CACHE_CONTROL, ("server", "Cowboy"))


@attrs.frozen
class WebServer:
    """A web server's way to end connections, and its response headers; the defaults are Bandit's."""

    idle_code: int = 1002  # the close code for a client that was silent for too long
    echoes_close_code: bool = False  # whether a client's close is answered with the client's code, or else with 1000
    stop_code: int | None = 1000  # when the server stops; None: connections have a grace period, and are cut then
    limits_wire: bool = True  # whether limits count the bytes on the wire, or else payloads; see `framing`
    upgrade_headers: tuple[tuple[str, str], ...] = (_CACHE_CONTROL,)  # of every 101 response
    refusal_headers: tuple[tuple[str, str], ...] = (("vary", "accept-encoding"), _CACHE_CONTROL)  # of every other


@attrs.frozen
class Release:
    """The behaviour of a version of Phoenix; the defaults are those of the newest."""

    crash_payload: Mapping[str, Any] = {"reason": "channel_crash"}  # of phx_error
    kick_code: int = 1001  # the close code of `PhoenixServer.disconnect`
    drops_stale_pushes: bool = True  # with another join_ref than the join's; such leaves are dropped always
    accepts_null_join_ref: bool = True  # a message with join_ref null passes; else any does on a channel joined so
    reads_tokens: bool = True  # from subprotocols, and from the header of long-polling


FLAVOURS: Final[Mapping[Flavour, WebServer]] = {
    "bandit": WebServer(),
    "cowboy": WebServer(
        idle_code=1000,
        echoes_close_code=True,
        stop_code=None,
        limits_wire=False,
        upgrade_headers=_COWBOYS,
        refusal_headers=_COWBOYS,
    ),
}

VERSIONS: Final[Mapping[Version, Release]] = {
    "1.7.24": Release({}, 1000, drops_stale_pushes=False, accepts_null_join_ref=False, reads_tokens=False),
    "1.8.11": Release(accepts_null_join_ref=False),
    "1.8.12": Release(),
}
