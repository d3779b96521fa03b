"""Opens the stream that a transport runs over: TCP, by a proxy or straight, or a socket in the file system; and TLS."""

import math
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final

import trio

from ..errors import ConnectError, ConnectTimeout
from .base import OpenRequest, StreamOpener, address_of
from .proxy import ProxyServer, parse_proxy, proxy_from_environment, tunnel


async def open_stream(request: OpenRequest) -> trio.abc.Stream:
    """Open the connection that a URL asks for, TLS included; raises `ConnectError`, which names what failed."""
    address, proxy = address_of(request), proxy_for(request)
    place = f"{address.host} port {address.port}"
    if request.unix is not None:
        stream: trio.abc.Stream = await _reached(str(request.unix), trio.open_unix_socket, request.unix)
    elif proxy is None:
        stream = await _reached(place, trio.open_tcp_stream, address.host, address.port)
    else:
        stream = await _reached(str(proxy), trio.open_tcp_stream, proxy.host, proxy.port)
        if proxy.scheme == "https":
            stream = await _secured(stream, request, proxy.host, str(proxy))
        try:
            await tunnel(stream, proxy, address.host, address.port)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    return await _secured(stream, request, address.server_hostname, place) if address.encrypted else stream


def deadline_of(request: OpenRequest) -> float:
    """Return when the time for an opening that begins now is over, on Trio's clock."""
    return math.inf if request.connect_timeout is None else trio.current_time() + request.connect_timeout


async def opened(opener: StreamOpener, request: OpenRequest, deadline: float) -> trio.abc.Stream:
    """Open a stream by a function that may be the user's; raises `ConnectError`, also when the deadline has passed."""
    with trio.move_on_at(deadline):  # rather than fail_at: what is awaited may have a limit of its own
        try:
            return await opener(request)
        except ConnectError:
            raise
        except OSError as error:
            raise ConnectError(f"no connection: {error}") from error
        except Exception as error:
            raise ConnectError(f"no connection: open_stream raised {described(error)}") from error
    proxy = proxy_for(request) if opener is open_stream else None
    raise ConnectTimeout(request.connect_timeout or 0.0, awaited=f"{proxy}, or the server behind it" if proxy else None)


def proxy_for(request: OpenRequest) -> ProxyServer | None:
    """Return the proxy to use, or None; raises `ConnectError` for an invalid one."""
    if request.proxy is None or request.unix is not None:
        return None
    if request.proxy == "env":
        return proxy_from_environment(address_of(request))
    try:
        return parse_proxy(request.proxy)
    except ValueError as error:
        raise ConnectError(f"proxy: {error}") from None


@cache
def default_context() -> ssl.SSLContext:
    """Return the process's context: loading the system's authorities takes 50 ms, and 1 MiB that stays."""
    return ssl.create_default_context()


async def _reached(place: str, opener: Callable[..., Awaitable[trio.SocketStream]], *where: Any) -> trio.SocketStream:
    try:
        return await opener(*where)
    except (OSError, UnicodeError) as error:  # the latter: a name that DNS has no form for
        cause: BaseException = error
        while isinstance(cause.__cause__, BaseException):  # what is behind Trio's "all attempts failed"
            cause = cause.__cause__
            if isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
        why = str(cause)
        if isinstance(cause, ConnectionRefusedError):
            why = "connection refused, as nothing listens there; is the server running?"
        elif isinstance(cause, socket.gaierror):
            why = f"the host is unknown ({cause}); is the URL spelt right?"
        raise ConnectError(f"no connection to {place}: {why}") from cause.with_traceback(None)
    except Exception as error:  # of a resolver of the user's own
        raise ConnectError(f"no connection to {place}: {described(error)}") from error


async def _secured(stream: trio.abc.Stream, request: OpenRequest, name: str, place: str) -> trio.abc.Stream:
    """Return a stream with TLS on top of another, after the handshake; closes the other if that fails."""
    context = request.ssl_context or default_context()
    try:
        encrypted = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
        await encrypted.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if not isinstance(error, Exception):
            raise
        broken = isinstance(error, trio.BrokenResourceError)  # else it is of an SSL context of the user's own
        reason = explain_tls(error.__cause__ or error) if broken else described(error)
        cause = error.__cause__.with_traceback(None) if broken and error.__cause__ is not None else error
        raise ConnectError(f"TLS handshake with {place} failed: {reason}") from cause
    return encrypted


async def close_at_once(stream: trio.abc.Stream) -> None:
    """Close a stream that is of no use any more; one that cannot be closed is its maker's."""
    with suppress(Exception):
        await trio.aclose_forcefully(stream)


def described(error: BaseException) -> str:
    """Return the text of an exception of the user's code."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# TLS errors, with their meaning and the way out in one line, as OpenSSL's own text has neither

_TRUST: Final = "to trust its authority, pass an ssl_context that has it (load_verify_locations)"
_VERIFICATION: Final = {
    9: "check the clocks of both machines",
    10: "the server needs a new one",
    **dict.fromkeys((18, 19, 20, 21), _TRUST),
    **dict.fromkeys((62, 64), "connect to a name that it is for"),
}
"""By OpenSSL's verify codes (X509_V_ERR_…)."""

_CLIENT_CERTIFICATE: Final = "pass an ssl_context with a client certificate that the server accepts (load_cert_chain)"
_REFUSED: Final = re.compile("CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED|DECRYPT_ERROR")
"""Alerts by which servers refuse clients' certificates, or their absence."""

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})
_SOURCE: Final = re.compile(r" \(_ssl\.c:\d+\)")


def explain_tls(error: BaseException) -> str:
    """Return the cause of Trio's `BrokenResourceError`, an `SSLError` as a rule, and the way out, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _VERIFICATION.get(error.verify_code, "see ssl_context")
        return f"the server's certificate is not accepted: {error.verify_message.rstrip('.')}; {hint}"
    reason = getattr(error, "reason", None)
    if refused_certificate(error):
        return f"the server refused it ({reason}); {_CLIENT_CERTIFICATE}"
    if reason in _NO_TLS:
        return f"the server speaks no TLS there ({reason}); does the URL begin with ws:// rather than wss://?"
    if isinstance(error, ssl.SSLEOFError) or reason == "UNEXPECTED_EOF_WHILE_READING":
        return "the server hung up during the handshake"
    return _SOURCE.sub("", str(error)) or "it hung up"


def refused_certificate(error: BaseException | None) -> bool:
    """Whether an error says that the server refused the client's certificate, or wants one."""
    reason = getattr(error, "reason", None)
    return isinstance(reason, str) and "ALERT" in reason and bool(_REFUSED.search(reason))
