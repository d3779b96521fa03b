"""The secrets of a request, taken out of everything that servers and proxies say.

They like to repeat a request in their answers: a redirect shows the URL with its query, an error page the header that
it did not like, a close frame the token. Such texts go into exceptions, telemetry and recordings, so whatever was
secret in the request is taken out of them first, in all forms in which it may be repeated.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from ..errors import ConnectError, ConnectionRejected, ConnectTimeout
from ..telemetry.secrecy import MASK
from ..transport import OpenRequest

Redact = Callable[[str], str]
"""Takes the secrets of a request out of a text; also the beginning of one where the text is cut off."""

_SHORTEST: Final = 4
"""The fewest characters of a secret: a text whose every "1" is redacted would not be readable."""

_SHORTEST_INSIDE: Final = 8
"""Likewise of what is looked for within a longer word of base64."""

LONGEST_BODY: Final = 4096
"""Characters of a refusal's body that are kept; it is cut after its secrets were found, not in the middle of one."""

_PUBLIC_HEADERS: Final = frozenset({"origin", "traceparent", "tracestate", "user-agent"})
_CUT_OFF: Final = re.compile(r"\.\.\.|\u2026|\Z")
_COOKIE: Final = re.compile(r"(\s*[^=;]+=)[^;]*")


def masked(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return headers with the values of cookies taken out: whoever has them is the client, to the server."""
    return tuple((name, _masked(value) if name == "set-cookie" else value) for name, value in headers)


def _masked(cookie: str) -> str:
    found = _COOKIE.match(cookie)
    return MASK if found is None else f"{found[1]}{MASK}{cookie[found.end() :]}"


def redactor(request: OpenRequest) -> Redact:
    """Return a function that takes the values of a query, headers and subprotocols out of a text, as whole words."""
    secrets = {secret for secret in _secrets(request) if len(secret) >= _SHORTEST}
    # The longest first: one may be within another.
    forms = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
    inside = sorted({form for secret in secrets for form in _inside_base64(secret)})
    heads = {form[:_SHORTEST] for form in (*forms, *inside)}
    found: list[re.Pattern[str]] = []

    def redact(text: str) -> str:
        if not any(head in text for head in heads):  # as in nearly every text: the pattern is expensive to make
            return text
        found[:] = found or [_pattern(forms, inside)]
        pieces, start = [], 0
        for end in _CUT_OFF.finditer(found[0].sub(MASK, text)):
            pieces += [_without_beginning(end.string[start : end.start()], forms), end[0]]
            start = end.end()
        return "".join(pieces)

    return redact


def _pattern(forms: Iterable[str], inside: Iterable[str]) -> re.Pattern[str]:
    words = rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, forms))})(?![A-Za-z0-9])"
    blobs = "".join(rf"|[\w+/-]*{re.escape(form)}[\w+/=-]*" for form in inside)
    return re.compile(words + blobs)


def _without_beginning(text: str, forms: Iterable[str]) -> str:
    """Return a text that was cut off, without the beginning of a secret at its end."""
    begun = [size for form in forms for size in range(_SHORTEST, len(form)) if text.endswith(form[:size])]
    begun = [size for size in begun if not text[-size - 1 : -size].isalnum()]
    return text[: -max(begun)] + MASK if begun else text


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
            yield from (piece.partition("=")[2].strip() for piece in value.split(";"))  # cookies
    for subprotocol in request.subprotocols:
        if subprotocol != "phoenix":
            yield subprotocol
            encoded = subprotocol.rpartition(".")[2]
            yield encoded
            with suppress(ValueError):  # not a token of ours
                yield base64.b64decode(encoded + "==", altchars=b"-_" if {"-", "_"} & {*encoded} else None).decode()


def _forms(secret: str) -> Iterator[str]:
    """Give a text as it is, and as pages, JSON, URLs and base64 have it."""
    yield secret
    page = html.escape(secret)
    yield from (page, page.replace("&#x27;", "&#39;"), page.replace("&#x27;", "&apos;"), html.escape(page))
    for text in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield from (text, text.replace("/", r"\/"), json.dumps(text)[1:-1])
    for once in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        for text in (once, quote(once, safe="")):
            yield from (text, re.sub("%(?:25)?[0-9A-F]{2}", lambda found: found[0].lower(), text))
    yield from (encoded for each in _in_base64(secret.encode()) for encoded in (each, each.rstrip("=")))


def _in_base64(data: bytes) -> tuple[str, str]:
    return base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()


def _inside_base64(secret: str) -> Iterator[str]:
    """Give what is the same in every base64 of a longer text that has a text in it, at each of three places."""
    for before in range(3):
        data = bytes(before) + secret.encode()
        first, last = -(-before * 8 // 6), len(data) * 8 // 6
        yield from (each[first:last] for each in _in_base64(data) if last - first >= _SHORTEST_INSIDE)
