"""The values of the options at the moment of connecting: what the upgrade carries, and what is secret in it.

Functions among the options are asked at every attempt, in time; what they return is checked as given values are.
"""

import base64
import inspect
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, Union
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

import attrs
import trio

from ..errors import ConfigurationError, ConnectError, ConnectionRejected, ConnectTimeout
from ..protocol import Options, State
from ..telemetry.secrecy import MASK, Redact
from ..transport import OpenRequest

if TYPE_CHECKING:
    from .configuration import Configuration

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[!-~\x80-\xff])?)?")
_SCHEMES: Final = ("ws", "wss", "http", "https")
_NOT_IN_URLS: Final = re.compile(r"[^!-~]")
_UPGRADES_OWN: Final = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding", "sec-websocket-accept"}
    | {f"sec-websocket-{what}" for what in ("key", "version", "protocol", "extensions")}
)
"""Headers that make the upgrade what it is; a second one would break it, in ways that are hard to see."""

_PASSED_ON: Final = (
    *("max_message_size", "max_header_size", "ssl_context", "compression"),
    *("cookies", "proxy", "unix", "server_hostname", "host"),
)
"""Options that the transport is given as they are."""

T = TypeVar("T")
OrCallable: TypeAlias = Union[T, Callable[[], Union[T, Awaitable[T]]]]  # noqa: UP007 - `T | …` is no alias to mypy
"""A value, or a sync or async function that returns it, asked again for every connection."""

AskedLate = Literal["url", "params", "headers", "auth_token", "trace_parent"]
Params = Mapping[str, Any]
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

# Asking


async def ask(function: Callable[[], Any]) -> Any:
    """Return what a function of the user's returns, sync or async."""
    value = function()
    return await value if inspect.isawaitable(value) else value


async def ask_request(
    configuration: "Configuration", deadline: float, limit: float | None, failed: Exception | None
) -> OpenRequest:
    """Ask for all that a connection is opened with; the transport gets the time that is left, and at most `limit`.

    Where an option that was asked for before has `failed`, that is raised.
    """
    if failed is not None:
        raise failed
    url = await ask_in_time(configuration, "url", deadline, configuration.checked_url)
    params = await ask_in_time(configuration, "params", deadline)
    headers = await ask_in_time(configuration, "headers", deadline, _checked_headers)
    token = await ask_in_time(configuration, "auth_token", deadline)
    left = min(deadline - trio.current_time(), math.inf if limit is None else limit)
    return OpenRequest(
        url=_with_query(url, configuration.chosen_vsn(), _query_pairs(params)),
        headers=headers,
        subprotocols=subprotocols(token),
        connect_timeout=None if left == math.inf else left,
        **{name: getattr(configuration, name) for name in _PASSED_ON},
    )


async def ask_in_time(
    configuration: "Configuration", name: AskedLate, deadline: float, check: Callable[[Any], Any] | None = None
) -> Any:
    """Return an option's value, which is checked if a function gave it; others were when they were given.

    Raises:
        ConnectTimeout: the function has not returned by the deadline.
    """
    option = getattr(configuration, name)
    if not callable(option):
        return option
    with trio.move_on_at(deadline):
        value = await ask(option)
        if trio.current_time() < deadline:  # a function that blocks is late, though no cancellation reaches it
            return value if check is None else check(value)
    raise ConnectTimeout(configuration.connect_timeout or 0.0, name)


# The forms that values have in a request, and copies of them


def checked_url(url: Any) -> str:
    """Return a URL; raises `ConfigurationError` for anything that cannot be connected to."""
    invalid = partial(ConfigurationError, "url")
    if not isinstance(url, str):
        raise invalid(f"a string, or a function that returns it; not {type(url).__name__}")
    read = None
    with suppress(ValueError):  # which is not shown: in the place of the port may stand a password
        read = urlsplit(url), urlsplit(url).port
    if read is None:
        raise invalid("its host or port cannot be read; write it like ws://localhost:4000/socket/websocket")
    parts, port = read
    if "://" not in url:
        raise invalid("it lacks a scheme: write it like ws://localhost:4000/socket/websocket, or wss:// with TLS")
    if parts.scheme not in _SCHEMES:
        raise invalid(f"its scheme is one of {', '.join(_SCHEMES)}, not {parts.scheme!r}")
    if not parts.hostname or port == 0:
        raise invalid("it names no host, or port 0; write it like ws://localhost:4000/socket/websocket")
    if parts.username is not None or parts.fragment:
        in_userinfo = "it has user information; put credentials into headers, params or auth_token"
        in_fragment = "it has a fragment (#…), which no server is sent: leave it out, or percent-encode the # as %23"
        raise invalid(in_fragment if parts.username is None else in_userinfo)
    if _NOT_IN_URLS.search(parts.path + parts.query):  # which is not shown: the query may be a secret
        raise invalid("invalid character in its path or query: percent-encode it, or put it into params")
    return str(url)


def _with_query(url: str, vsn: str, pairs: list[str]) -> str:
    parts = urlsplit(url)
    said = [parts.query] if parts.query else []
    if not any(piece.startswith("vsn=") for piece in parts.query.split("&")):
        said.append(f"vsn={vsn}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", "&".join([*said, *pairs]), ""))


def _query_pairs(params: Any) -> list[str]:
    """Return the pieces of the query that params add; raises `ConfigurationError` where they have no such form."""
    if not isinstance(params, Mapping):
        raise ConfigurationError("params", f"a mapping, not {type(params).__name__}")
    if "vsn" in params:
        raise ConfigurationError("params", "'vsn' is an option of its own, and would be sent twice")
    with suppress(UnicodeEncodeError):
        return [f"{quote(name, safe='[]')}={quote(value, safe='')}" for name, value in _flat("", params)]
    # Raised here, without the other error as its context, which shows what it could not encode.
    raise ConfigurationError("params", "text with a lone surrogate has no form in a query")


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


def fixed_params(params: OrCallable[Params]) -> OrCallable[Params]:
    """Return a copy of a mapping, so that later edits of the caller's change nothing; the validator sees the rest."""
    if not isinstance(params, Mapping):
        return params
    try:
        copy: Params = _copied(params)
        _query_pairs(copy)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - of the user's mapping
        failed = type(error).__name__
    else:
        return copy
    # Raised here, without the other error as its context, which may show a value.
    raise ConfigurationError("params", f"a mapping that can be copied; copying this one raised {failed}")


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _checked_headers(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return headers as pairs; raises `ConfigurationError` for headers that an upgrade cannot have."""
    pairs = None
    with suppress(Exception):  # of the user's mapping
        pairs = tuple((name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers))
    if pairs is None or not all(isinstance(text, str) for pair in pairs for text in pair):
        # Raised here, without the other error as its context, which may show a value.
        raise ConfigurationError("headers", "a mapping of strings, or pairs of strings")
    for number, (name, value) in enumerate(pairs, 1):
        if not _HEADER_NAME.fullmatch(name):  # which is not shown: it may be a whole line, with the value
            raise ConfigurationError("headers", f"invalid name of header number {number}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError("headers", f"invalid header value of {name!r} (stray whitespace?)")
        if name.lower() in _UPGRADES_OWN:
            raise ConfigurationError(
                "headers", f"{name!r} is the upgrade's own, and is sent as `url` and the options say"
            )
    return pairs


def fixed_headers(headers: OrCallable[Headers]) -> OrCallable[Headers]:
    """Return the headers as pairs, for the same reason."""
    if not isinstance(headers, Mapping | list | tuple):
        return headers
    return _checked_headers(headers)


def subprotocols(token: Any) -> tuple[str, ...]:
    """Return the subprotocols that carry a token; raises `ConfigurationError` for a token that they cannot carry.

    Phoenix 1.8 takes the token from one, and selects `phoenix` in its answer. For all its prefix says, it reads the
    standard alphabet of base64 only, without padding, and fails at any other.
    """
    if token is None:
        return ()
    if not isinstance(token, str):
        raise ConfigurationError("auth_token", f"a string, not {type(token).__name__}")
    with suppress(UnicodeEncodeError):
        return ("phoenix", "base64url.bearer.phx." + base64.b64encode(token.encode()).decode().rstrip("="))
    # Raised here, without the other error as its context, which shows the token.
    raise ConfigurationError("auth_token", "text without lone surrogates")


def checked_parent(trace_parent: Any) -> str | None:
    """Return a W3C traceparent, or None; raises `ConfigurationError` for anything else."""
    if trace_parent is None:
        return None
    if not isinstance(trace_parent, str) or _TRACEPARENT.fullmatch(trace_parent) is None:
        raise ConfigurationError("trace_parent", "a W3C traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
    return trace_parent


# The trace


def with_trace_context(request: OpenRequest, state: State, propagated: Iterable[tuple[str, str]]) -> OpenRequest:
    """Return the request with the headers that tell of the trace; a header that the user gave stays as it is.

    Those of the telemetry's propagator come before the parent that is the connection in a given `trace_parent`.
    """
    given = {name.lower() for name, _ in request.headers}
    added = {name.lower(): value for name, value in propagated}
    if state.trace_parent is not None:
        added.setdefault("traceparent", f"00-{state.trace_id}-{state.connection_id}-{state.trace_parent[-2:]}")
    new = tuple((name, value) for name, value in added.items() if name not in given)
    return attrs.evolve(request, headers=(*request.headers, *new))


def with_whole_timeout(error: ConnectError, request: OpenRequest, configuration: "Configuration") -> ConnectError:
    """Return the error, with the option's limit in place of the rest of it that the transport was given."""
    if not isinstance(error, ConnectTimeout) or error.timeout != request.connect_timeout:
        return error
    whole, fallback = configuration.connect_timeout, configuration.longpoll_fallback
    if error.timeout == fallback != whole:
        return ConnectTimeout(error.timeout, awaited=error.awaited, limit="longpoll_fallback")
    return ConnectTimeout(whole or 0.0, awaited=error.awaited)


def shown_url(request: OpenRequest, options: Options) -> str | None:
    """Return the URL without its query, where the options cannot tell it, as a function gave it; else None."""
    return request.url.partition("?")[0] if options.url is None else None


# Secrets, those of the request and cookies, taken out of what servers answer

LONGEST_BODY: Final = 4096
"""Characters of a refusal's body that are kept; it is cut after its secrets were found, not in the middle of one."""

_PUBLIC_HEADERS: Final = frozenset({"origin", "traceparent", "tracestate", "user-agent"})
_COOKIE: Final = re.compile(r"\A(?:(\s*[^=;]+=)[^;]*|.*)", re.DOTALL)
_COVERED: Final = rf"\g<1>{MASK}"


def masked(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return headers with the values of cookies taken out: whoever has them is the client, to the server."""
    return tuple((name, _COOKIE.sub(_COVERED, value) if name == "set-cookie" else value) for name, value in headers)


def redacted_error(error: ConnectError, redact: Redact) -> ConnectError:
    """Return the error without secrets: itself, where it has none, else a copy; its cause might have them, and goes."""
    if isinstance(error, ConnectTimeout):
        return error  # its words are ours, and a secret may be one of them
    if isinstance(error, ConnectionRejected):
        headers = masked((name, redact(value)) for name, value in error.headers)
        body = redact(error.body)[:LONGEST_BODY]
        if (headers, body) == (error.headers, error.body):
            return error
        return ConnectionRejected(error.status, headers, body)
    reason = redact(error.reason)
    return error if reason == error.reason else ConnectError(reason)


def secrets_of(request: OpenRequest) -> Iterator[str]:
    """Give the values of its query, headers and subprotocols."""
    for piece in urlsplit(request.url).query.split("&"):
        name, _, value = piece.partition("=")
        if name != "vsn":
            yield from (value, unquote_plus(value))  # as it is sent, too
    for name, value in request.headers:
        if name.lower() not in _PUBLIC_HEADERS:
            yield value
            yield from value.split()
            yield from (piece.partition("=")[2].strip() for piece in value.split(";"))  # cookies
    for subprotocol in request.subprotocols:
        if subprotocol != "phoenix":
            encoded = subprotocol.rpartition(".")[2]
            yield from (subprotocol, encoded, base64.b64decode(encoded + "==").decode())
