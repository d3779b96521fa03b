"""Opens the stream that a transport runs over: TCP or a socket in the file system, and TLS on top of it."""

import ssl
from functools import cache

import trio

from ..errors import ConnectError
from .address import Address, address_of
from .base import OpenRequest
from .tls import explain_tls

__all__ = ["described", "open_stream"]


async def open_stream(request: OpenRequest) -> trio.abc.Stream:
    """Open the connection that a URL asks for, TLS included.

    Raises:
        ConnectError: it cannot be opened; the sentence says which step failed.
    """
    address = address_of(request)
    stream = await _open_plain(request, address)
    if not address.encrypted:
        return stream
    return await secured(stream, request.ssl_context or default_context(), address)


@cache
def default_context() -> ssl.SSLContext:
    """Return the process's context: loading the system's authorities takes 50 ms, and 1 MiB that stays."""
    return ssl.create_default_context()


async def _open_plain(request: OpenRequest, address: Address) -> trio.abc.Stream:
    place = f"{address.host} port {address.port}" if request.unix is None else request.unix
    try:
        if request.unix is not None:
            return await trio.open_unix_socket(request.unix)
        return await trio.open_tcp_stream(address.host, address.port)
    except (OSError, UnicodeError) as error:  # the latter: a name that DNS has no form for
        raise ConnectError(f"no connection to {place}: {_reason(error)}") from error
    except Exception as error:  # of a resolver of the user's own
        raise ConnectError(f"no connection to {place}: {described(error)}") from error


async def secured(stream: trio.abc.Stream, context: ssl.SSLContext, address: Address) -> trio.abc.Stream:
    """Return a stream with TLS on top of another, after the handshake; closes the other if that fails."""
    place = f"{address.host} port {address.port}"
    try:
        encrypted = trio.SSLStream(stream, context, server_hostname=address.server_hostname, https_compatible=True)
        await encrypted.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.BrokenResourceError):
            reason = explain_tls(error.__cause__ or error)
            raise ConnectError(f"TLS handshake with {place} failed: {reason}") from error
        if isinstance(error, Exception):  # of an SSL context of the user's own
            raise ConnectError(f"TLS handshake with {place} failed: {described(error)}") from error
        raise
    return encrypted


def described(error: BaseException) -> str:
    """Return an exception of the user's code in words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _reason(error: BaseException) -> str:
    """The exception that is behind an OSError of Trio's "all attempts failed"."""
    while isinstance(error.__cause__, BaseException):
        error = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return str(error)
