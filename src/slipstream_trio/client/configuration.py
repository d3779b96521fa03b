"""The options of `connect`, checked when they are given."""

import difflib
import inspect
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Union, get_args
from urllib.parse import SplitResult, parse_qs, urlsplit

import attrs
from attrs import frozen

from ..errors import ConfigurationError
from ..protocol import (
    RECONNECT,
    REJOIN,
    Backoff,
    Disconnect,
    Options,
    Serializer,
    serializer_for,
    worth_retrying,
)
from ..telemetry import Telemetry, default_telemetry
from ..transport import Connector, find_connector
from .buffer import Overflow

__all__ = [
    "Configuration",
    "ConnectOptions",
    "checked_events",
    "checked_overflow",
    "checked_seconds",
    "checked_size",
    "configure",
]

T = TypeVar("T")
OrCallable: TypeAlias = Union[T, Callable[[], Union[T, Awaitable[T]]]]  # noqa: UP007 - `T | …` is no alias to mypy
"""A value, or a sync or async function that returns it, asked again for every connection."""

Params = Mapping[str, Any]
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

DEFAULT_TRANSPORT: Final = "trio_websocket"
DEFAULT_VSN: Final = "2.0.0"
_VSN: Final = re.compile(r"[\w.+-]+", re.ASCII)
_SCHEMES: Final = ("ws", "wss", "http", "https")
_NOT_IN_URLS: Final = re.compile(r"[^!-~]")


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of `connect`, told in `Configuration`."""

    params: OrCallable[Params]
    headers: OrCallable[Headers]
    auth_token: OrCallable[str | None]
    vsn: str
    serializer: Serializer | None
    transport: str | Connector
    ssl_context: SSLContext | None
    proxy: str | None
    compression: bool
    connect_timeout: float | None
    join_timeout: float | None
    push_timeout: float | None
    leave_timeout: float | None
    close_timeout: float | None
    heartbeat_interval: float | None
    heartbeat_timeout: float | None
    max_message_size: int
    buffer: int
    overflow: Overflow
    retry_first: bool
    reconnect: Backoff | None
    rejoin: Backoff | None
    should_reconnect: Callable[[Disconnect], bool]
    trace_parent: OrCallable[str | None]
    telemetry: Telemetry


# Validators. None shows a value that may be a secret.

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _url(_: Any, attribute: "attrs.Attribute[Any]", url: Any) -> None:
    problem = _problem_of_url(url)
    if problem:
        raise ConfigurationError(attribute.name, problem)


def _problem_of_url(url: Any) -> str | None:
    if not isinstance(url, str):
        return f"a string, not {type(url).__name__}"
    split = _split(url)
    if split is None:  # the error is not shown: what stands where the port should may be a password
        return "its host or port cannot be read; write it like ws://localhost:4000/socket/websocket"
    parts, port = split
    if parts.scheme not in _SCHEMES:
        return f"its scheme is one of {', '.join(_SCHEMES)}, not {parts.scheme!r}"
    if not parts.hostname or port == 0:
        return "it names no host, or port 0; write it like ws://localhost:4000/socket/websocket"
    if parts.username is not None or parts.fragment:
        return "it has user information or a fragment; put credentials into headers, params or auth_token"
    if _NOT_IN_URLS.search(parts.path + parts.query):  # which is not shown: the query may be a secret
        return "its path or query has a character that no URL has: percent-encode it, or put it into params"
    return None


def _split(url: str) -> tuple[SplitResult, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        return None


def _seconds(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    checked_seconds(attribute.name, value)


def checked_seconds(argument: str, value: Any) -> float | None:
    """Return a call's timeout; raises `ConfigurationError`, which names the argument, for what is none.

    The same is asked of it as of the options.
    """
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf
    ):
        raise ConfigurationError(argument, f"a number of seconds above 0, or None for no limit; not {value!r}")
    seconds: float | None = value
    return seconds


def checked_size(argument: str, value: Any) -> int:
    """Return how many of something there may be; raises `ConfigurationError` likewise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(argument, f"a whole number of at least 1, not {value!r}")
    return value


def checked_events(argument: str, value: Sequence[Any]) -> Sequence[str]:
    """Return names of events; raises `ConfigurationError` likewise."""
    for event in value:
        if not isinstance(event, str):
            raise ConfigurationError(argument, f"names, each a string; not {type(event).__name__}")
    return value


def checked_overflow(argument: str, value: Any) -> Overflow:
    """Return a policy for buffers; raises `ConfigurationError` likewise."""
    policies = get_args(Overflow)
    if value not in policies:
        raise ConfigurationError(argument, f"one of {', '.join(map(repr, policies))}; not {value!r}")
    policy: Overflow = value
    return policy


def _positive(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    checked_size(attribute.name, value)


def _kind(*kinds: type, ask: bool = False) -> Validator:
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)

    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kinds) and not (ask and callable(value)):
            also = ", or a function that returns it" if ask else ""
            raise ConfigurationError(attribute.name, f"{names}{also}; not {type(value).__name__}")

    return check


def _function(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not callable(value):
        raise ConfigurationError(attribute.name, f"a function; not {type(value).__name__}")
    if inspect.iscoroutinefunction(value):
        raise ConfigurationError(attribute.name, "a function that is not async: what it would return counts as true")


def _overflow(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    checked_overflow(attribute.name, value)


def _unsupported(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value:
        raise ConfigurationError(attribute.name, "the transport 'trio_websocket' has none: leave it out")


def _vsn(self: "Configuration", attribute: "attrs.Attribute[Any]", vsn: Any) -> None:
    own = getattr(self.serializer, "vsn", None)
    if own is None:
        try:
            serializer_for(str(vsn))
        except ValueError as error:
            raise ConfigurationError(attribute.name, str(error)) from None
    elif vsn not in (DEFAULT_VSN, own):
        raise ConfigurationError(attribute.name, f"that of the serializer is {own!r}: leave it out")
    chosen = own or vsn
    for said in parse_qs(urlsplit(self.url).query).get("vsn", [chosen]):
        if said != chosen:
            advice = f"pass vsn={said!r} in its place" if own is None else f"that of the serializer is {own!r}"
            raise ConfigurationError(attribute.name, f"the URL says vsn={said}: {advice}")


def _transport(_: Any, attribute: "attrs.Attribute[Any]", transport: Any) -> None:
    if isinstance(transport, str):
        try:
            _connector(transport)
        except LookupError as error:
            raise ConfigurationError(attribute.name, str(error)) from error
    elif not callable(getattr(transport, "open", None)) or not isinstance(getattr(transport, "name", None), str):
        raise ConfigurationError(
            attribute.name, f"a transport's name, or a Connector with a name; not {type(transport).__name__}"
        )


def _serializer(_: Any, attribute: "attrs.Attribute[Any]", serializer: Any) -> None:
    able = all(callable(getattr(serializer, method, None)) for method in ("encode", "decode"))
    if serializer is not None and not (able and isinstance(getattr(serializer, "name", None), str)):
        raise ConfigurationError(attribute.name, f"a Serializer with a name, or None; not {type(serializer).__name__}")
    vsn = getattr(serializer, "vsn", None)
    if vsn is not None and (not isinstance(vsn, str) or not _VSN.fullmatch(vsn)):
        raise ConfigurationError(attribute.name, "its vsn is a version such as '3.0.0', or None for that of the option")


@frozen(kw_only=True)
class Configuration:
    """Everything that `connect` can be told. Secrets are not in its `repr`.

    Times are seconds, None means no limit. What "may be a function" is a sync or async function without arguments, and
    is called again for every connection.

    Attributes:
        url: ws, wss, http or https, used as it is: with Phoenix it ends in /websocket.
        params: added to the query, nested as Plug reads them (a[b]=1, l[]=1); may be a function.
        headers: sent with the upgrade, whose own (Host, Upgrade, Sec-WebSocket-…) they cannot be; may be a function.
        auth_token: sent as a subprotocol, not in the URL (Phoenix 1.8); may be a function.
        vsn: "2.0.0" or "1.0.0", which chooses the serializer.
        serializer: one of your own, in place of that which `vsn` chooses; the server is told its `vsn`, if it has one.
        transport: "auto", a transport's name, or a `Connector`.
        ssl_context: for wss and https; None: the system's certificate authorities.
        proxy: refused; no transport that there is has one.
        compression: likewise.
        connect_timeout: for the TCP connection, TLS and the upgrade together.
        join_timeout: for the reply to a join.
        push_timeout: for the reply to a push.
        leave_timeout: for a leave to be confirmed.
        close_timeout: for everything that happens when the block is left: leaves are waited for within four fifths of
            it at most, so that there is time to close the connection properly.
        heartbeat_interval: between heartbeats; None: none are sent (Phoenix hangs up after 60 s of silence).
        heartbeat_timeout: for the answer to a heartbeat; by default as long as the interval.
        max_message_size: of a message from the server, in bytes.
        buffer: how many messages wait for a consumer.
        overflow: what happens when there are more: "raise" drops what comes, and tells the consumer by `SlowConsumer`;
            "drop_oldest" and "drop_newest" go on. All are counted, and in telemetry.
        retry_first: whether a first connection that fails is retried as later ones are, in place of raising.
        reconnect: the delays before reconnecting; None: a lost connection ends the block.
        rejoin: the delays before joining again a channel that crashed or was refused; None: it ends.
        should_reconnect: decides, of a `Disconnect`, whether to reconnect; by default all but 401, 403 and 404. It is
            not async.
        trace_parent: a W3C traceparent, to make connections share its trace; may be a function.
        telemetry: the bus; by default the process's.
    """

    url: str = attrs.field(validator=_url, repr=lambda url: repr(url.partition("?")[0]))
    params: OrCallable[Params] = attrs.field(factory=dict, repr=False, validator=_kind(Mapping, ask=True))
    headers: OrCallable[Headers] = attrs.field(
        factory=dict, repr=False, validator=_kind(Mapping, list, tuple, ask=True)
    )
    auth_token: OrCallable[str | None] = attrs.field(
        default=None, repr=False, validator=_kind(str, type(None), ask=True)
    )
    vsn: str = attrs.field(default=DEFAULT_VSN, validator=_vsn)
    serializer: Serializer | None = attrs.field(default=None, validator=_serializer)
    transport: str | Connector = attrs.field(default="auto", validator=_transport)
    ssl_context: SSLContext | None = attrs.field(default=None, validator=_kind(SSLContext, type(None)))
    proxy: str | None = attrs.field(default=None, repr=False, validator=_unsupported)
    compression: bool = attrs.field(default=False, validator=_unsupported)
    connect_timeout: float | None = attrs.field(default=10.0, validator=_seconds)
    join_timeout: float | None = attrs.field(default=10.0, validator=_seconds)
    push_timeout: float | None = attrs.field(default=10.0, validator=_seconds)
    leave_timeout: float | None = attrs.field(default=5.0, validator=_seconds)
    close_timeout: float | None = attrs.field(default=5.0, validator=_seconds)
    heartbeat_interval: float | None = attrs.field(default=30.0, validator=_seconds)
    heartbeat_timeout: float | None = attrs.field(
        default=attrs.Factory(lambda self: self.heartbeat_interval, takes_self=True), validator=_seconds
    )
    max_message_size: int = attrs.field(default=16 * 2**20, validator=_positive)
    buffer: int = attrs.field(default=1024, validator=_positive)
    overflow: Overflow = attrs.field(default="raise", validator=_overflow)
    retry_first: bool = attrs.field(default=False, validator=_kind(bool))
    reconnect: Backoff | None = attrs.field(default=RECONNECT, validator=_kind(Backoff, type(None)))
    rejoin: Backoff | None = attrs.field(default=REJOIN, validator=_kind(Backoff, type(None)))
    should_reconnect: Callable[[Disconnect], bool] = attrs.field(default=worth_retrying, validator=_function)
    trace_parent: OrCallable[str | None] = attrs.field(default=None, validator=_kind(str, type(None), ask=True))
    telemetry: Telemetry = attrs.field(default=default_telemetry, validator=_kind(Telemetry))

    def chosen_serializer(self) -> Serializer:
        """Return the serializer to use."""
        return self.serializer or serializer_for(self.vsn)

    def chosen_vsn(self) -> str:
        """Return the version of the protocol that the server is told."""
        return getattr(self.serializer, "vsn", None) or self.vsn

    def chosen_connector(self) -> Connector:
        """Return the connector to use."""
        return _connector(self.transport) if isinstance(self.transport, str) else self.transport

    def options(self) -> Options:
        """Return what may be shown of it: for states and telemetry."""
        return Options(
            url=self.url.partition("?")[0],
            vsn=self.chosen_vsn(),
            serializer=self.chosen_serializer().name,
            transport=self.chosen_connector().name,
            connect_timeout=self.connect_timeout,
            join_timeout=self.join_timeout,
            push_timeout=self.push_timeout,
            leave_timeout=self.leave_timeout,
            close_timeout=self.close_timeout,
            heartbeat_interval=self.heartbeat_interval,
            heartbeat_timeout=self.heartbeat_timeout,
            max_message_size=self.max_message_size,
            buffer=self.buffer,
            overflow=self.overflow,
            retry_first=self.retry_first,
            reconnect=self.reconnect,
            rejoin=self.rejoin,
        )


def configure(url: str, options: ConnectOptions) -> Configuration:
    """Return the configuration of a call to `connect`; raises `ConfigurationError`, which names the option."""
    known = ConnectOptions.__annotations__
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(name, f"there is no such option{hint}")
    return Configuration(url=url, **options)


def _connector(name: str) -> Connector:
    return find_connector(DEFAULT_TRANSPORT if name == "auto" else name)
