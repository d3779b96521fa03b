"""The cookies that a server sets, for the next request: sticky load balancers know a client by them."""

import re
from collections.abc import Iterable
from email.message import Message
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs

from .base import OpenRequest

if TYPE_CHECKING:
    from http.cookiejar import CookieJar


class Cookies:
    """The cookies of one socket, in a jar of the standard library's, whose rules hold: domain, path, age, `Secure`."""

    __slots__ = ("_jar",)

    def __init__(self, *, keeps: bool) -> None:
        self._jar: CookieJar | None = None
        if keeps:
            from http import cookiejar  # with what it imports 20 ms, which few need

            self._jar = cookiejar.CookieJar()

    def added_to(self, request: OpenRequest) -> OpenRequest:
        """Return the request with the cookies for it; of those that it has already, it keeps what has another name."""
        if self._jar is None:
            return request
        asked = _as_http(request)
        self._jar.add_cookie_header(asked)
        own = [value for name, value in request.headers if name.lower() == "cookie"]
        kept = asked.get_header("Cookie")
        if not kept:
            return request
        others = tuple(pair for pair in request.headers if pair[0].lower() != "cookie")
        cookies = {cookie.partition("=")[0]: cookie for value in (*own, kept) for cookie in value.split("; ")}
        return attrs.evolve(request, headers=(*others, ("Cookie", "; ".join(cookies.values()))))

    def keep(self, request: OpenRequest, headers: Iterable[tuple[str, str]]) -> None:
        """Keep what an answer sets, be it a refusal or a redirect."""
        if self._jar is not None:
            answer = Message()
            for name, value in headers:
                if name == "set-cookie":
                    answer["Set-Cookie"] = value
            as_http: Any = SimpleNamespace(info=lambda: answer)  # as much of an HTTP answer as a jar looks at
            self._jar.extract_cookies(as_http, _as_http(request))


def _as_http(request: OpenRequest) -> Any:
    from urllib.request import Request

    return Request(re.sub("^ws", "http", request.url))  # noqa: S310 - nothing opens it
