"""The values of the options at the moment of connecting: what the upgrade carries, and which part of it is secret.

Functions among the options are asked at every attempt. The headers that tell of the connection's trace join theirs.

Servers and proxies like to repeat a request in their answers: a redirect shows the URL with its query, an error page
the header that it did not like. Such answers go into exceptions, telemetry and recordings, so whatever was secret in
the request is taken out of them first.
"""

import base64
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import attrs

from ..errors import ConfigurationError, ConnectError, ConnectionRejected, ConnectTimeout
from ..protocol import State
from ..telemetry.secrecy import MASK
from ..transport import OpenRequest
from .configuration import Configuration

__all__ = [
    "Redact",
    "ask",
    "ask_request",
    "ask_trace_parent",
    "redacted_error",
    "redactor",
    "with_trace_context",
]

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


async def ask_request(configuration: Configuration) -> OpenRequest:
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


# The trace


def with_trace_context(request: OpenRequest, state: State, propagated: Iterable[tuple[str, str]]) -> OpenRequest:
    """Return the request with the headers that tell of the trace.

    A header that the user gave is left as it is.

    Parameters:
        propagated: what the telemetry's propagator wants to be sent. Without a traceparent among it, a connection that
            was given a `trace_parent` sends one, whose parent is the connection; others send none.
    """
    given = {name.lower() for name, _ in request.headers}
    added = {name.lower(): value for name, value in propagated}
    for name, value in _given_trace(state):
        added.setdefault(name, value)
    new = tuple((name, value) for name, value in added.items() if name not in given)
    return attrs.evolve(request, headers=(*request.headers, *new)) if new else request


def _given_trace(state: State) -> Iterator[tuple[str, str]]:
    if state.trace_parent is not None:
        flags = state.trace_parent[-2:]
        yield "traceparent", f"00-{state.trace_id}-{state.connection_id}-{flags}"


# Secrets

Redact = Callable[[str], str]
"""Takes the secrets of a request out of a text."""

_SHORTEST: Final = 4
"""Characters of what is taken for a secret; a text without its every "1" would not be readable."""

LONGEST_BODY: Final = 4096
"""Characters of a refusal's body that are kept; of a secret that is cut in two, the first part would not be found."""

_PUBLIC_HEADERS: Final = frozenset({"origin", "traceparent", "tracestate", "user-agent"})


def redactor(request: OpenRequest) -> Redact:
    """Return what takes the values of a request's query, headers and subprotocols out of a text, as whole words."""
    found = {secret for secret in _secrets(request) if len(secret) >= _SHORTEST}
    if not found:
        return lambda text: text
    # The longest first: one may be within another.
    choices = "|".join(re.escape(secret) for secret in sorted(found, key=len, reverse=True))
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{choices})(?![A-Za-z0-9])")
    return lambda text: pattern.sub(MASK, text)


def redacted_error(error: ConnectError, redact: Redact) -> ConnectError:
    """Return the error if it tells no secret, else one that does not, and has no cause that might."""
    if isinstance(error, ConnectTimeout):
        return error  # its words are ours, and a secret may be one of them
    if isinstance(error, ConnectionRejected):
        headers = tuple((name, redact(value)) for name, value in error.headers)
        body = redact(error.body)[:LONGEST_BODY]
        if (headers, body) == (error.headers, error.body):
            return error
        return ConnectionRejected(error.status, headers, body)
    reason = redact(error.reason)
    return error if reason == error.reason else ConnectError(reason)


def _secrets(request: OpenRequest) -> Iterator[str]:
    query = urlsplit(request.url).query
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "vsn":
            yield value
    for piece in query.split("&"):  # as they are sent, too
        name, _, value = piece.partition("=")
        if name != "vsn":
            yield value
    for name, value in request.headers:
        if name.lower() not in _PUBLIC_HEADERS:
            yield value
            yield from value.split()
    for subprotocol in request.subprotocols:
        if subprotocol != "phoenix":
            yield subprotocol
            encoded = subprotocol.rpartition(".")[2]
            yield encoded
            with suppress(ValueError):  # it is no token of ours
                yield base64.b64decode(encoded + "==", altchars=b"-_" if {"-", "_"} & {*encoded} else None).decode()
