"""The options of `connect`, checked and fixed when they are given; the arguments of calls are checked as these are."""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from os import PathLike
from ssl import SSLContext
from types import NoneType
from typing import Any, Final, Literal, TypedDict, TypeVar, get_args
from urllib.parse import parse_qs, urlsplit

import attrs
from attrs import frozen

from ..errors import ConfigurationError
from ..errors.base import did_you_mean
from ..protocol import RECONNECT, REJOIN, Backoff, Disconnect, Options, Serializer, serializer_for, worth_retrying
from ..protocol.backoff import RETRY_AFTER_LIMIT
from ..telemetry import Telemetry, default_telemetry
from ..transport import Connector, find_connector
from ..transport.proxy import parse_proxy
from . import handshake
from .buffer import Overflow
from .handshake import Headers, OrCallable, Params

DEFAULT_VSN: Final = "2.0.0"
_HOST: Final = re.compile(r"[^\s/?#@\x00-\x20\x7f]+")
_VSN: Final = re.compile(r"[\w.+-]+", re.ASCII)


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
    cookies: bool
    unix: str | PathLike[str] | None
    server_hostname: str | None
    host: str | None
    max_header_size: int
    longpoll_fallback: float | None
    connect_timeout: float | None
    join_timeout: float | None
    push_timeout: float | None
    leave_timeout: float | None
    close_timeout: float | None
    heartbeat_interval: float | None
    heartbeat_timeout: float | None
    join_window: int | None
    max_message_size: int
    buffer: int
    buffer_bytes: int
    overflow: Overflow
    retry_first: bool
    reconnect: Backoff | None
    rejoin: Backoff | None
    rejoin_closed: bool
    should_reconnect: Callable[[Disconnect], bool]
    retry_after_limit: float | None
    trace_parent: OrCallable[str | None]
    telemetry: Telemetry


F = TypeVar("F", bound=Callable[..., Any])


# The arguments of calls


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a timeout: the option that `connect` was given for this operation."""

Timeout = float | Literal[Default.DEFAULT] | None


def checked_seconds(argument: str, value: float | None) -> float | None:
    """Return a call's timeout; raises `ConfigurationError`, which names the argument, as for options."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):
        raise ConfigurationError(argument, f"a number of seconds above 0, or None for no limit; not {value!r}")
    return value


def check_kind(argument: str, value: Any, *kinds: type, also: str = "") -> None:
    """Raise `ConfigurationError` for a value of none of these kinds, nor what is `also` possible."""
    if not isinstance(value, kinds):
        names = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
        raise ConfigurationError(argument, f"{names}{also}; not {type(value).__name__}")


def checked_size(argument: str, value: Any) -> int:
    """Return the most that there may be of something; raises `ConfigurationError` likewise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(argument, f"a whole number of at least 1, not {value!r}")
    return value


def checked_overflow(argument: str, value: Overflow) -> Overflow:
    """Return a policy for buffers; raises `ConfigurationError` likewise."""
    policies = get_args(Overflow)
    if value not in policies:
        raise ConfigurationError(argument, f"one of {', '.join(map(repr, policies))}; not {value!r}")
    return value


def chosen(timeout: Timeout, default: float | None) -> float | None:
    """Return the seconds that a call was given, or else the option's; raises `ConfigurationError` for a bad timeout."""
    return default if timeout is DEFAULT else checked_seconds("timeout", timeout)


# Validators. None shows a value that may be a secret. What they raise is told as a `ConfigurationError` of the option.
# A value that is the default is not checked.

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], object]


def _named(check: Callable[[str, Any], object]) -> Validator:
    return lambda _, attribute, value: check(attribute.name, value)


_seconds, _positive, _overflow = _named(checked_seconds), _named(checked_size), _named(checked_overflow)


def _kind(*kinds: type, ask: bool = False) -> Validator:
    also = ", or a function that returns it" if ask else ""
    return lambda _, attribute, value: (
        None if ask and callable(value) else check_kind(attribute.name, value, *kinds, also=also)
    )


def _function(_: object, __: object, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"a function; not {type(value).__name__}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ValueError("callbacks must be synchronous: a coroutine would count as true")


def _proxy(self: "Configuration", _: object, value: Any) -> None:
    if value != "env":
        parse_proxy(value)
        if self.unix is not None:
            raise ValueError("none leads to a socket in the file system: leave it out, or unix")


def _host(_: object, __: object, value: Any) -> None:
    if not _HOST.fullmatch(value):
        raise ValueError("the name of a host, without spaces and slashes")


def _given(check: Callable[[Any], object]) -> Validator:
    """Check a value as what a function returns is checked later."""
    return lambda _, __, value: None if callable(value) else check(value)


def _vsn(self: "Configuration", _: object, vsn: Any) -> None:
    own = getattr(self.serializer, "vsn", None)
    if own is None:
        serializer_for(vsn)
    elif vsn not in (DEFAULT_VSN, own):
        raise ValueError(f"that of the serializer is {own!r}: leave it out")


def _transport(_: object, __: object, transport: Any) -> None:
    if isinstance(transport, str):
        find_connector(transport)
    elif not callable(getattr(transport, "open", None)) or not isinstance(getattr(transport, "name", None), str):
        raise TypeError(f"a transport's name, or a Connector with a name; not {type(transport).__name__}")


def _compression(self: "Configuration", _: object, __: object) -> None:
    connector = self.chosen_connector()
    if not getattr(connector, "compresses", False):
        can = "only the transport 'websockets' compresses (pip install 'slipstream-trio[fast]')"
        raise ValueError(f"{can}; this is {connector.name!r}")


def _fallback(self: "Configuration", _: object, __: object) -> None:
    find_connector("longpoll")
    if self.transport == "longpoll":
        raise ValueError("leave it out: the transport is 'longpoll' from the start")


def _serializer(_: object, __: object, serializer: Any) -> None:
    able = all(callable(getattr(serializer, method, None)) for method in ("encode", "decode"))
    if not (able and isinstance(getattr(serializer, "name", None), str)):
        raise ValueError(f"a Serializer with a name, or None; not {type(serializer).__name__}")
    vsn = getattr(serializer, "vsn", None)
    if vsn is not None and (not isinstance(vsn, str) or not _VSN.fullmatch(vsn)):
        raise ValueError("its vsn is a version such as '3.0.0', or None for that of the option")


_checks: Final[list[tuple["attrs.Attribute[Any]", Validator]]] = []
"""The options' validators, apart from attrs: it would run all of them for every connection, also for defaults."""


def _take_checks(_: type, fields: list["attrs.Attribute[Any]"]) -> list["attrs.Attribute[Any]"]:
    _checks.extend((field, field.validator) for field in fields if field.validator is not None)
    return [field.evolve(validator=None) for field in fields]


@frozen(kw_only=True, field_transformer=_take_checks)
class Configuration:
    """Everything that `connect` can be told. Secrets are not in its `repr`.

    Times are seconds, None means no limit. An option that "may be a function" takes a sync or async function without
    arguments, which is called at every attempt to connect, within `connect_timeout`. Values are fixed when they are
    given: later edits of a dict change nothing.

    Attributes:
        url: ws, wss, http or https, used as it is: with Phoenix it ends in /websocket; may be a function.
        params: added to the query, nested as Plug reads them (a[b]=1, l[]=1); may be a function.
        headers: sent with the upgrade, whose own (Host, Upgrade, Sec-WebSocket-…) they cannot be; may be a function.
        auth_token: sent as a subprotocol, not in the URL (Phoenix 1.8); may be a function.
        vsn: "2.0.0" or "1.0.0", which chooses the serializer.
        serializer: one of your own, in place of the one that `vsn` chooses; its `vsn`, if any, is told to the server.
        transport: a transport's name, or a `Connector`; "auto" is "websockets", the fast one, where the extra `fast` is
            installed, else "trio_websocket"; `State.options` tells which.
        ssl_context: for wss and https; None: the system's certificate authorities.
        proxy: the URL of one (http, https, socks4, socks5, …), or "env" (HTTPS_PROXY, ALL_PROXY). Extra `proxy`.
        compression: whether to offer permessage-deflate; the transport "websockets" can do it.
        cookies: whether cookies set at an upgrade come back at the next, be it a refusal or a redirect that set them.
        unix: the path of a socket in the file system to connect to, in place of the URL's host and port.
        server_hostname: the name that TLS asks for, and the certificate has to be for, in place of the URL's host.
        host: the `Host` header, in place of the URL's host and port.
        max_header_size: of the head of the answer to the upgrade, in bytes.
        longpoll_fallback: the seconds within which the WebSocket has to be open. If it is not, or fails, the next
            attempt is made by long-polling (extra `longpoll`), over streams that `transport` opens; None: it is not.
        connect_timeout: for one attempt: the functions among the options, TCP, TLS and the upgrade together.
        join_timeout: for the reply to a join.
        push_timeout: for the reply to a push.
        leave_timeout: for a leave to be confirmed.
        close_timeout: for all that happens when the block is left; leaves are waited for within four fifths of it.
        heartbeat_interval: between heartbeats; None: none are sent (Phoenix hangs up after 60 s of silence).
        heartbeat_timeout: for the answer to a heartbeat, or progress in writing; by default as long as the interval.
        join_window: the most joins that may be unanswered at once; None: as the answers allow.
        max_message_size: of a message from the server, in bytes.
        buffer: the most messages that wait for a consumer.
        buffer_bytes: the most bytes that wait for all consumers of a socket: those of large frames, and 2.5 KiB for
            each message. When there are more, the consumers with the most lose messages, as `overflow` says.
        overflow: the policy for further messages: "raise" drops them, and tells the consumer by `SlowConsumer`;
            "drop_oldest" and "drop_newest" go on. All are counted, and in telemetry.
        retry_first: whether a first connection that fails is retried as later ones are, in place of raising.
        reconnect: the delays before reconnecting; None: a lost connection ends the block.
        rejoin: the delays before joining again a channel that crashed or was refused; None: it ends.
        rejoin_closed: whether a channel that the server closes (phx_close) is joined again likewise.
        should_reconnect: a synchronous function that decides, of a `Disconnect`, whether to reconnect; by default it
            does, unless the upgrade was answered with 301, 308, 401, 403 or 404.
        retry_after_limit: the most that a server's `retry-after` is obeyed; None: no limit.
        trace_parent: a W3C traceparent, to make connections share its trace; may be a function.
        telemetry: the bus; by default the process's.
    """

    url: OrCallable[str] = attrs.field(repr=lambda url: "a function" if callable(url) else repr(url.partition("?")[0]))
    params: OrCallable[Params] = attrs.field(
        factory=dict, repr=False, converter=handshake.fixed_params, validator=_kind(Mapping, ask=True)
    )
    headers: OrCallable[Headers] = attrs.field(
        factory=dict, repr=False, converter=handshake.fixed_headers, validator=_kind(Mapping, list, tuple, ask=True)
    )
    auth_token: OrCallable[str | None] = attrs.field(
        default=None, repr=False, validator=[_kind(str, NoneType, ask=True), _given(handshake.subprotocols)]
    )
    vsn: str = attrs.field(default=DEFAULT_VSN, validator=_vsn)
    serializer: Serializer | None = attrs.field(default=None, validator=_serializer)
    transport: str | Connector = attrs.field(default="auto", validator=_transport)
    ssl_context: SSLContext | None = attrs.field(default=None, validator=_kind(SSLContext, NoneType))
    proxy: str | None = attrs.field(default=None, repr=False, validator=[_kind(str, NoneType), _proxy])
    compression: bool = attrs.field(default=False, validator=[_kind(bool), _compression])
    cookies: bool = attrs.field(default=False, validator=_kind(bool))
    unix: str | PathLike[str] | None = attrs.field(default=None, validator=_kind(str, PathLike, NoneType))
    server_hostname: str | None = attrs.field(default=None, validator=[_kind(str, NoneType), _host])
    host: str | None = attrs.field(default=None, validator=[_kind(str, NoneType), _host])
    max_header_size: int = attrs.field(default=64 * 2**10, validator=_positive)
    longpoll_fallback: float | None = attrs.field(default=None, validator=[_seconds, _fallback])
    connect_timeout: float | None = attrs.field(default=10.0, validator=_seconds)
    join_timeout: float | None = attrs.field(default=10.0, validator=_seconds)
    push_timeout: float | None = attrs.field(default=10.0, validator=_seconds)
    leave_timeout: float | None = attrs.field(default=5.0, validator=_seconds)
    close_timeout: float | None = attrs.field(default=5.0, validator=_seconds)
    heartbeat_interval: float | None = attrs.field(default=30.0, validator=_seconds)
    heartbeat_timeout: float | None = attrs.field(
        default=attrs.Factory(lambda self: self.heartbeat_interval, takes_self=True), validator=_seconds
    )
    join_window: int | None = attrs.field(default=None, validator=_positive)
    max_message_size: int = attrs.field(default=16 * 2**20, validator=_positive)
    buffer: int = attrs.field(default=1024, validator=_positive)
    buffer_bytes: int = attrs.field(default=64 * 2**20, validator=_positive)
    overflow: Overflow = attrs.field(default="raise", validator=_overflow)
    retry_first: bool = attrs.field(default=False, validator=_kind(bool))
    reconnect: Backoff | None = attrs.field(default=RECONNECT, validator=_kind(Backoff, NoneType))
    rejoin: Backoff | None = attrs.field(default=REJOIN, validator=_kind(Backoff, NoneType))
    rejoin_closed: bool = attrs.field(default=False, validator=_kind(bool))
    should_reconnect: Callable[[Disconnect], bool] = attrs.field(default=worth_retrying, validator=_function)
    retry_after_limit: float | None = attrs.field(default=RETRY_AFTER_LIMIT, validator=_seconds)
    trace_parent: OrCallable[str | None] = attrs.field(
        default=None, validator=[_kind(str, NoneType, ask=True), _given(handshake.checked_parent)]
    )
    telemetry: Telemetry = attrs.field(default=default_telemetry, validator=_kind(Telemetry))

    def __attrs_post_init__(self) -> None:
        for field, check in _checks:
            value = getattr(self, field.name)
            if value is not field.default:
                try:
                    check(self, field, value)
                except (LookupError, TypeError, ValueError) as error:
                    raise ConfigurationError(field.name, str(error)) from None
        if not callable(self.url):
            self.checked_url(self.url)

    def checked_url(self, url: Any) -> str:
        """Return a URL that was given, or that the function given as `url` returned; raises `ConfigurationError`."""
        checked, own = handshake.checked_url(url), getattr(self.serializer, "vsn", None)
        for said in parse_qs(urlsplit(checked).query).get("vsn", ()):
            if said != self.chosen_vsn():
                advice = f"pass vsn={said!r} in its place" if own is None else f"that of the serializer is {own!r}"
                raise ConfigurationError("vsn", f"the URL says vsn={said}: {advice}")
        return checked

    def chosen_serializer(self) -> Serializer:
        """Return the serializer to use."""
        return self.serializer or serializer_for(self.vsn)

    def chosen_vsn(self) -> str:
        """Return the version of the protocol that the server is told."""
        return getattr(self.serializer, "vsn", None) or self.vsn

    def chosen_connector(self) -> Connector:
        """Return the connector to use."""
        return find_connector(self.transport) if isinstance(self.transport, str) else self.transport

    def options(self) -> Options:
        """Return the part of it that may be shown, for states and telemetry."""
        shown = {field.name: getattr(self, field.name) for field in attrs.fields(Options)}
        for name in ("params", "headers", "auth_token"):
            shown[name] = "function" if callable(shown[name]) else "value" if shown[name] else "absent"
        shown["url"] = None if callable(self.url) else self.url.partition("?")[0]
        shown["vsn"] = self.chosen_vsn()
        shown["serializer"] = self.chosen_serializer().name
        shown["transport"] = self.chosen_connector().name
        return Options(**shown)


def configure(url: OrCallable[str], options: ConnectOptions) -> Configuration:
    """Return the configuration of a call to `connect`; raises `ConfigurationError`, which names the option."""
    known = ConnectOptions.__annotations__
    for name in options:
        if name not in known:
            raise ConfigurationError(name, f"there is no such option{did_you_mean(name, known)}")
    return Configuration(url=url, **options)


def with_options(function: F) -> F:
    """Let a function's docstring tell of each option, from that of `Configuration`."""
    # Python's -OO leaves docstrings out, and from 3.13 on they are without indentation.
    _, name, options = inspect.cleandoc(Configuration.__doc__ or "").partition("    params: ")
    told = inspect.cleandoc(function.__doc__ or "")
    function.__doc__ = told.replace("    options: the fields of `Configuration`.", f"{name}{options}")
    return function
