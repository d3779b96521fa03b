"""Differences between Phoenix's versions, and between the web servers below it, as two tables.

Most were seen in recordings of the real servers (`tests/fixtures/transcripts`), the others read in the sources of these
versions: Phoenix's `lib/phoenix/socket.ex` and `lib/phoenix/transports/websocket.ex`.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

__all__ = ["FLAVOURS", "VERSIONS", "Flavour", "Release", "Version", "WebServer"]

Flavour = Literal["bandit", "cowboy"]
"""The web server that Phoenix runs on."""

Version = Literal["1.7.24", "1.8.11", "1.8.12"]
"""A version of Phoenix."""

_CACHE_CONTROL: Final = ("cache-control", "max-age=0, private, must-revalidate")
_VARY: Final = ("vary", "accept-encoding")
_COWBOY: Final = ("server", "Cowboy")


@attrs.frozen
class WebServer:
    """A web server's way to end connections, and its response headers.

    Attributes:
        idle_code: the close code for a client that was silent for too long.
        echoes_close_code: whether a client's close is answered with the client's code, or else with 1000.
        stop_code: the close code when the server stops; None: connections have a grace period, and are cut then.
        limits_wire: whether limits count the bytes on the wire, or else payloads; see `framing`.
        upgrade_headers: headers of every 101 response.
        refusal_headers: headers of every other response.
    """

    idle_code: int
    echoes_close_code: bool
    stop_code: int | None
    limits_wire: bool
    upgrade_headers: tuple[tuple[str, str], ...]
    refusal_headers: tuple[tuple[str, str], ...]


@attrs.frozen
class Release:
    """The behaviour of a version of Phoenix.

    Attributes:
        crash_payload: the payload of phx_error.
        kick_code: the close code of `PhoenixServer.disconnect`.
        drops_stale_pushes: whether a push with another join_ref than the join's is dropped, as such a leave always is.
        accepts_null_join_ref: whether a message with join_ref null passes, or else any on a channel joined with null.
        reads_tokens: whether tokens are taken from subprotocols (and from the header of long-polling).
    """

    crash_payload: Mapping[str, Any]
    kick_code: int
    drops_stale_pushes: bool
    accepts_null_join_ref: bool
    reads_tokens: bool


FLAVOURS: Final[Mapping[Flavour, WebServer]] = {
    "bandit": WebServer(
        idle_code=1002,
        echoes_close_code=False,
        stop_code=1000,
        limits_wire=True,
        upgrade_headers=(_CACHE_CONTROL,),
        refusal_headers=(_VARY, _CACHE_CONTROL),
    ),
    "cowboy": WebServer(
        idle_code=1000,
        echoes_close_code=True,
        stop_code=None,
        limits_wire=False,
        upgrade_headers=(_CACHE_CONTROL, _COWBOY),
        refusal_headers=(_CACHE_CONTROL, _COWBOY),
    ),
}

_1_8_12: Final = Release(
    crash_payload={"reason": "channel_crash"},
    kick_code=1001,
    drops_stale_pushes=True,
    accepts_null_join_ref=True,
    reads_tokens=True,
)

VERSIONS: Final[Mapping[Version, Release]] = {
    "1.7.24": Release(
        crash_payload={}, kick_code=1000, drops_stale_pushes=False, accepts_null_join_ref=False, reads_tokens=False
    ),
    "1.8.11": attrs.evolve(_1_8_12, accepts_null_join_ref=False),
    "1.8.12": _1_8_12,
}
