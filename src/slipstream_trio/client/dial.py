"""What one connection is opened with: the values of all options that may be functions, asked for at every attempt."""

import base64
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from ..errors import ConfigurationError
from ..transport import OpenRequest
from .configuration import Configuration

__all__ = ["ask", "ask_trace_parent", "dial"]

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[!-~\x80-\xff])?)?")
_UPGRADES_OWN: Final = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding", "sec-websocket-accept"}
    | {f"sec-websocket-{what}" for what in ("key", "version", "protocol", "extensions")}
)
"""Headers that make the upgrade what it is; a second one would break it, in ways that are hard to see."""


async def ask(option: Any) -> Any:
    """Return an option's value; a function is called, and awaited if it is async."""
    value = option() if callable(option) else option
    return await value if inspect.isawaitable(value) else value


async def ask_trace_parent(configuration: Configuration) -> str | None:
    """Ask for the W3C traceparent of the trace that a connection joins; None if it has one of its own.

    Raises:
        ConfigurationError: a function returned what cannot be used.
    """
    return _checked_parent(await ask(configuration.trace_parent))


async def dial(configuration: Configuration) -> OpenRequest:
    """Ask for everything that a connection is opened with.

    Raises:
        ConfigurationError: a function returned what cannot be used.
    """
    params = await ask(configuration.params)
    headers = await ask(configuration.headers)
    token = await ask(configuration.auth_token)
    return OpenRequest(
        url=_with_query(configuration.url, configuration.chosen_vsn(), params),
        headers=tuple(_checked_headers(headers)),
        subprotocols=_subprotocols(token),
        connect_timeout=configuration.connect_timeout,
        max_message_size=configuration.max_message_size,
        ssl_context=configuration.ssl_context,
    )


def _with_query(url: str, vsn: str, params: Any) -> str:
    if not isinstance(params, Mapping):
        raise ConfigurationError("params", f"a mapping, not {type(params).__name__}")
    if "vsn" in params:
        raise ConfigurationError("params", "'vsn' is an option of its own, and would be sent twice")
    parts = urlsplit(url)
    pairs = None
    with suppress(UnicodeEncodeError):
        pairs = [f"{quote(name, safe='[]')}={quote(value, safe='')}" for name, value in _flat("", params)]
    if pairs is None:  # raised here, without the other error as its context, which shows what it could not encode
        raise ConfigurationError("params", "text with a lone surrogate has no form in a query")
    if not any(piece.startswith("vsn=") for piece in parts.query.split("&")):
        pairs.insert(0, f"vsn={vsn}")
    query = "&".join(([parts.query] if parts.query else []) + pairs)
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as Plug reads them: {"a": {"b": 1}, "l": [2]} is a[b]=1 and l[]=2."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}[{key}]" if name else str(key), item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(f"{name}[]", item)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif value is None or isinstance(value, str | int | float):
        yield name, "" if value is None else str(value)
    else:
        raise ConfigurationError("params", f"{name!r} is of type {type(value).__name__}, which has no form in a query")


def _checked_headers(headers: Any) -> Iterator[tuple[str, str]]:
    pairs = None
    with suppress(TypeError, ValueError):
        pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    if pairs is None or not all(isinstance(text, str) for pair in pairs for text in pair):
        # Raised here, without the other error as its context, which may show a value.
        raise ConfigurationError("headers", "a mapping of strings, or pairs of strings")
    for number, (name, value) in enumerate(pairs, 1):
        if not _HEADER_NAME.fullmatch(name):  # which is not shown: it may be a whole line, with the value
            raise ConfigurationError("headers", f"number {number} has a name that no header can have")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError("headers", f"{name!r} has a value that no header can have; strip it?")
        if name.lower() in _UPGRADES_OWN:
            raise ConfigurationError(
                "headers", f"{name!r} is the upgrade's own, and is sent as `url` and the options say"
            )
        yield name, value


def _subprotocols(token: Any) -> tuple[str, ...]:
    """Phoenix 1.8 takes the token from a subprotocol, and selects `phoenix` in its answer.

    For all its prefix says, it reads the standard alphabet of base64 only, without padding, and fails at any other.
    """
    if token is None:
        return ()
    if not isinstance(token, str):
        raise ConfigurationError("auth_token", f"a string, not {type(token).__name__}")
    encoded = None
    with suppress(UnicodeEncodeError):
        encoded = base64.b64encode(token.encode()).decode().rstrip("=")
    if encoded is None:  # raised here, without the other error as its context, which shows the token
        raise ConfigurationError("auth_token", "text without lone surrogates")
    return ("phoenix", f"base64url.bearer.phx.{encoded}")


def _checked_parent(trace_parent: Any) -> str | None:
    if trace_parent is None:
        return None
    if not isinstance(trace_parent, str) or _TRACEPARENT.fullmatch(trace_parent) is None:
        raise ConfigurationError("trace_parent", "a W3C traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
    return trace_parent
