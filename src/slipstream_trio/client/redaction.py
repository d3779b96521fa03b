"""Keeps secrets out of what is told: servers and proxies like to repeat a request in their answers.

A redirect shows the URL with its query, an error page the header that it did not like. What the server said goes into
exceptions, telemetry and recordings, so what was secret in the request is taken out of it first.
"""

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ..errors import ConnectError, ConnectionRejected, ConnectTimeout
from ..telemetry.secrecy import MASK
from ..transport import OpenRequest

__all__ = ["Redact", "redacted_error", "redactor"]

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
