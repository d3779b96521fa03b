"""The HTTP request that opens a connection, and the answers of `Mount.connect`."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import attrs

__all__ = ["Accept", "Refuse", "Request", "parse_query"]

_TOKEN_PREFIX: Final = "base64url.bearer.phx."  # noqa: S105 - the name of the subprotocol, not a token
_BRACKETS: Final = re.compile(r"\[([^\]]*)\]")


@attrs.frozen
class Request:
    """A client's request to open a WebSocket.

    Attributes:
        path: the path, as it was sent.
        uri: the whole URL, as Phoenix's `connect_info[:uri]` shows it (scheme http or https).
        params: the query, decoded as Plug does: `a[b]=1` is {"a": {"b": "1"}}, `l[]=1` is {"l": ["1"]}.
        headers: the headers in order, names in lower case.
        auth_token: the token sent as a subprotocol, where the mount has `auth_token=True`.
    """

    path: str
    uri: str
    params: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...]
    auth_token: str | None = attrs.field(default=None, repr=False)

    def header(self, name: str) -> str | None:
        """Return the first header of this name (in lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


@attrs.frozen
class Accept:
    """Returned by `Mount.connect` to let a client in.

    Attributes:
        id: the id for `PhoenixServer.disconnect`; None: it has none.
        assigns: the connection's `assigns`, to which each of its channels gets access.
    """

    id: str | None = None
    assigns: Mapping[str, Any] = attrs.field(factory=dict)


class Refuse(Exception):
    """Raised by `Mount.connect` to refuse a client with an HTTP response.

    Attributes:
        status: the HTTP status.
        headers: further headers, such as ("retry-after", "1").
        body: the body.
    """

    def __init__(self, status: int = 403, headers: Sequence[tuple[str, str]] = (), body: str = "") -> None:
        super().__init__(status, tuple(headers), body)
        self.status = status
        self.headers: tuple[tuple[str, str], ...] = tuple(headers)
        self.body = body


def parse_query(query: str) -> dict[str, Any]:
    """Return a query string's parameters, nested as Plug nests them; a key given twice has its last value."""
    params: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        head, bracket, _ = name.partition("[")
        keys = _BRACKETS.findall(name[len(head) :]) if bracket and name.endswith("]") else []
        _assign(params, [head, *keys] if keys else [name], value)
    return params


def _assign(container: dict[str, Any], keys: list[str], value: str) -> None:
    key, *rest = keys
    if not rest:
        container[key] = value
    elif rest == [""]:
        values = container.get(key)
        container[key] = [*values, value] if isinstance(values, list) else [value]
    else:
        inner = container.get(key)
        if not isinstance(inner, dict):
            inner = container[key] = {}
        _assign(inner, rest, value)


def choose_subprotocol(offered: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the subprotocol and the token among those that a client offered; raises `Refuse`."""
    tokens = [name for name in offered if name.startswith(_TOKEN_PREFIX)]
    token = None
    if len(tokens) == 1:  # of several, Phoenix takes none
        encoded = tokens[0].removeprefix(_TOKEN_PREFIX)
        try:  # in the standard alphabet, despite the prefix, without padding
            token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Refuse(500) from None
    if "phoenix" in offered:
        return "phoenix", token
    if token is None or len(offered) > 1:
        raise Refuse(403)
    return None, token
