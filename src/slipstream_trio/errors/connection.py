"""Errors of connections: those that could not be opened, and those that ended."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from .base import SlipstreamError

__all__ = ["ConnectError", "ConnectTimeout", "ConnectionLost", "ConnectionRejected", "EndedBy"]

EndedBy = Literal["client", "server", "network"]
"""The side that ended a connection; "network" stands for ends without a close frame or an HTTP answer."""


class ConnectError(SlipstreamError):
    """A connection could not be opened.

    Attributes:
        reason: the cause, in a sentence.
        status: the HTTP status of the answer, None without one; `ConnectionRejected` has one.
        headers: the headers of the answer.
        body: the start of its body.
    """

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectTimeout(ConnectError):
    """A connection was not open in time.

    Attributes:
        timeout: the time waited, in seconds.
        option: the option whose function had not returned; None if the server had not answered.
        awaited: the missing answer of the server, if known.
        limit: the option that sets the time.
    """

    def __init__(
        self, timeout: float, option: str | None = None, awaited: str | None = None, limit: str = "connect_timeout"
    ) -> None:
        waited = f", waiting for {awaited}" if awaited is not None else ""
        if option is not None:
            waited = f", as the function given as {option!r} had not returned"
        super().__init__(f"not connected within {timeout} s{waited}; see {limit}")
        self.timeout = timeout
        self.option = option
        self.awaited = awaited
        self.limit = limit

    def __reduce__(self) -> tuple[type["ConnectTimeout"], tuple[float, str | None, str | None, str]]:
        return type(self), (self.timeout, self.option, self.awaited, self.limit)


class ConnectionRejected(ConnectError):
    """The server answered the upgrade with an HTTP status other than 101.

    Attributes:
        status: the HTTP status.
        headers: the response's headers, names in lower case.
        body: the start of the response's body, as text.
    """

    def __init__(self, status: int, headers: Sequence[tuple[str, str]] = (), body: str = "") -> None:
        hint = _HINTS.get(status, "")
        if status in (400, 426) and _PLAIN_TO_TLS.search(body):
            hint = "; that port expects TLS: the URL should begin with wss:// rather than ws://"
        location = dict(headers).get("location")
        if status in _REDIRECTS and location is not None:
            hint = f"; it redirects to {location[:200]!r}: connect to that URL, if you trust it"
        said = f": {body[:200]!r}" if body else ""
        super().__init__(f"the server refused the connection with HTTP status {status}{said}{hint}")
        self.status: int = status
        self.headers: tuple[tuple[str, str], ...] = tuple(headers)
        self.body = body

    def __reduce__(self) -> tuple[type["ConnectionRejected"], tuple[int, tuple[tuple[str, str], ...], str]]:
        return type(self), (self.status, self.headers, self.body)


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_PROXY: Final = "let it pass on the headers Upgrade and Connection"

_HINTS: Final[Mapping[int, str]] = {
    **dict.fromkeys(_REDIRECTS, "; its answer lacks a Location"),
    200: f"; that is an ordinary page: check the URL's path, or, if a proxy is between, {_PROXY}",
    400: f"; the request was not understood as an upgrade: if a proxy is between, {_PROXY}",
    401: "; check the credentials",
    403: "; the server's connect/3 refused it: check params, auth_token and vsn",
    404: "; does the URL's path end in /websocket, behind the path of the server's socket?",
    405: "; check the URL's path: it does not accept GET",
    407: "; a proxy requires credentials: pass them with the option proxy",
    414: "; the URL is too long for it: put less into params",
    421: "; it does not serve that host: check the URL, host and server_hostname",
    426: f"; it requires another protocol, or TLS (wss://): if a proxy is between, {_PROXY}",
    429: "; too many connections or attempts: wait, as its retry-after says",
    431: "; the headers are too long for it: put less into headers, auth_token or cookies",
    500: "; the server failed: its log has the reason",
    502: "; the proxy got no answer from the server",
    503: "; it is starting, overloaded or under maintenance: try again later",
    504: "; the proxy got no answer from the server",
    511: "; the network asks for a login in a browser first",
}

_PLAIN_TO_TLS: Final = re.compile(r"HTTPS (?:port|server)|SSL-enabled server port", re.IGNORECASE)
"""The answers of nginx, Go and Apache to plain text on a TLS port."""


class ConnectionLost(SlipstreamError):
    """The connection ended while it was needed.

    Attributes:
        reason: the kind of end, such as "closed_by_server", "lost" (no close frame) or "heartbeat_timeout".
        code: the WebSocket close code, 1006 where none was received.
        message: the text of the close frame.
        ended_by: "client", "server" (by a close frame) or "network" (all other ends); None if unknown.
        sent: whether the push may have reached the server; False: certainly not.
    """

    def __init__(
        self,
        reason: str,
        code: int | None = None,
        message: str = "",
        ended_by: EndedBy | None = None,
        *,
        sent: bool = False,
    ) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code
        self.message = message
        self.ended_by = ended_by
        self.sent = sent

    def __str__(self) -> str:
        said = f": {self.message!r}" if self.message else ""
        code = f" (close code {self.code}{said})" if self.code is not None else ""
        hint = _LOST_HINTS.get(self.code if self.reason == "closed_by_server" else self.reason, "")
        sent = "; the server may have received the push" if self.sent else ""
        return f"the connection ended: {self.reason}{code}{hint}{sent}"


_LOST_HINTS: Final[Mapping[str | int | None, str]] = {
    "closed_by_client": "; the block of connect() was left",
    "connect_failed": "; there was no connection yet: await socket.wait_connected() first",
    "disconnected": "; disconnect() was called",
    "heartbeat_timeout": "; the server or the network did not respond within heartbeat_timeout",
    "lost": "; no close frame came: the server went away, or the network or a proxy cut the line",
    "message_too_big": "; a message from the server exceeds max_message_size",
    "protocol_error": "; the server, or a proxy, violated the WebSocket protocol",
    "session_gone": "; the server has forgotten the session: it restarted, or was not polled for too long",
    1001: "; the server shuts down or restarts",
    1002: "; the server found what it was sent to violate the WebSocket protocol",
    1003: "; the server does not accept this kind of frame",
    1007: "; the server could not decode what it was sent",
    1008: "; a policy of the server refused it: check params, auth_token and what was sent",
    1009: "; a message to the server exceeds its limit (Phoenix: max_frame_size): push less at once",
    1011: "; the server failed: its log has the reason",
    1012: "; the server restarts",
    1013: "; the server is overloaded: try again later",
}
"""What a reason, or the code of a server's close frame, means."""
