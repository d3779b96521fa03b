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
_VARY: Final = ("vary", "accept-encoding")
_COWBOY: Final = ("server", "Cowboy")


@attrs.frozen
class WebServer:
    """A web server's way to end connections, and its response headers."""

    idle_code: int  # the close code for a client that was silent for too long
    echoes_close_code: bool  # whether a client's close is answered with the client's code, or else with 1000
    stop_code: int | None  # when the server stops; None: connections have a grace period, and are cut then
    limits_wire: bool  # whether limits count the bytes on the wire, or else payloads; see `framing`
    upgrade_headers: tuple[tuple[str, str], ...]  # of every 101 response
    refusal_headers: tuple[tuple[str, str], ...]  # of every other response


@attrs.frozen
class Release:
    """The behaviour of a version of Phoenix."""

    crash_payload: Mapping[str, Any]  # of phx_error
    kick_code: int  # the close code of `PhoenixServer.disconnect`
    drops_stale_pushes: bool  # with another join_ref than the join's; such leaves are dropped always
    accepts_null_join_ref: bool  # a message with join_ref null passes; else any does on a channel joined with null
    reads_tokens: bool  # from subprotocols, and from the header of long-polling


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
