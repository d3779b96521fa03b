"""No parameter, token or header is ever told: not by repr, telemetry, logs, warnings, or exceptions.

What is joined with and pushed is a payload, and is in telemetry, as the records are there to show it; what a connection
is opened with is a secret, whatever it is. Where a server repeats it, it is taken out of what the server said.
"""

import base64
import html
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trio
import trustme
from tests.canaries import HEADER, PARAM, PLAIN, QUERY, TOKEN, URL, Given, Spy, later, texts, url, world
from tests.client.support import Scripted
from tests.transport.test_tls import client_context, server_context
from trio.testing import MockClock

from slipstream_trio import (
    Client,
    Configuration,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    ConnectTimeout,
    SlipstreamError,
    connect,
    run_client,
)
from slipstream_trio.telemetry import Record
from slipstream_trio.telemetry.secrecy import redactor
from slipstream_trio.testing.faults import AtFrame, Ignore, Reset, Rule, Stall
from slipstream_trio.testing.server import Mount, PhoenixServer, Refuse, Request
from slipstream_trio.trace import record as recording
from slipstream_trio.transport import OpenRequest

LONGEST_BODY = 4096
"""Characters of a refusal's body that are kept."""


@pytest.fixture
def spy(caplog: pytest.LogCaptureFixture) -> Iterator[Spy]:
    made = Spy()
    caplog.set_level(logging.DEBUG)
    yield made
    made.see_log(caplog.get_records("call"))
    assert len(made.seen) > 3, "it has seen something"
    assert made.leaks() == []


ASKED: dict[str, Callable[[Any], Any]] = {
    "values": lambda value: value,
    "callables": Given,
    "partials of async functions": lambda value: partial(later, value),
}


@pytest.fixture(params=ASKED)
def secrets(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options that are secret, in one of the forms that they may have."""
    return {name: ASKED[request.param](value) for name, value in PLAIN.items()}


async def test_of_a_connection_that_works(spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock) -> None:
    async with world(spy) as options:
        async with connect(url(), **secrets, **options) as socket:
            async with socket.join("lab:1", {"user": 1}) as channel, channel.subscribe("tick") as ticks:
                async with channel.presence() as presence:
                    await channel.push("echo", {"a": 1})
                    await channel.push("burst", {"count": 1})
                    spy.see("a message", await anext(ticks), await anext(aiter(channel)))
                    with pytest.raises(SlipstreamError) as raised:
                        await channel.push("fail", {"a": 1})
                    spy.see_error(raised.value)
                    spy.see("objects", socket, channel, ticks, presence, channel.stream(), socket.status_changes())
            spy.see("the state", socket.state, *texts(socket.state))
        spy.see("the socket afterwards", socket, socket.state)
        spy.see("the options", Configuration(url=url(), **secrets, **options))
    assert spy.records > 20


async def test_of_connections_that_are_replaced(spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock) -> None:
    rules = Rule(Reset(), AtFrame(3), connections=[1]), Rule(Stall(both=True), AtFrame(3), connections=[2])
    async with world(spy, *rules, Rule(Ignore(), connections=[3])) as options:
        async with connect(url(), **secrets, **options, heartbeat_interval=5, connect_timeout=3) as socket:
            async with socket.join("lab:1") as channel:
                while socket.generation < 3:
                    try:
                        await channel.push("echo", 1)
                    except SlipstreamError as error:
                        spy.see_error(error)
                assert await channel.push("echo", 1) == 1
    for value in secrets.values():
        assert not isinstance(value, Given) or value.asked == 4


def repeating(request: Request, status: int) -> None:
    """Refuse, and repeat everything that was said, as error pages and redirects do."""
    lines = [f"{name}: {value}" for name, value in request.headers]
    location = request.uri.replace("http:", "https:")
    body = f"<a href='{location}'>{request.params} {request.auth_token} {' '.join(lines)}</a>"
    raise Refuse(status, [("location", location), ("x-said", request.header("authorization") or "")], body)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
async def test_of_a_refusal_that_repeats_the_request(
    status: int, spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with world(spy, answer=lambda request: repeating(request, status)) as options:
        with pytest.raises(ConnectionRejected) as raised:
            async with connect(url(), **secrets, **options):
                pytest.fail("the block must not be entered")
    spy.see_error(raised.value)
    assert raised.value.status == status
    assert "[redacted]" in raised.value.body
    assert "[redacted]" in dict(raised.value.headers)["location"]


@pytest.mark.parametrize("place", range(LONGEST_BODY - 30, LONGEST_BODY, 7))
async def test_of_a_refusal_whose_body_is_cut_off_in_a_secret(place: int, spy: Spy, autojump_clock: MockClock) -> None:
    def refuse(_: Request) -> None:
        raise Refuse(500, body=f"{'x' * (place - 1)} {TOKEN} and more")

    async with world(spy, answer=refuse) as options:
        with pytest.raises(ConnectionRejected) as raised:
            async with connect(url(), auth_token=TOKEN, **options):
                pytest.fail("the block must not be entered")
    body = raised.value.body
    assert body == f"{'x' * (place - 1)} [redacted] and more"[:LONGEST_BODY]
    spy.see_error(raised.value)


REPEATED: dict[str, Callable[[str], str]] = {
    "a page": html.escape,
    "a page of Plug": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "a URL": partial(quote, safe=""),
    "a URL in lower case": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "a URL with everything escaped": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "a page with everything escaped": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "a form": quote_plus,
    "a URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 of more": lambda text: base64.b64encode(f"user:{text}:x".encode()).decode(),
    "base64 of still more": lambda text: base64.b64encode(f"me:{text}, and more".encode()).decode(),
    "a page of Go": lambda text: html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    "a page of PHP": lambda text: html.escape(text).replace("&#x27;", "&#039;"),
    "a page with slashes escaped": lambda text: html.escape(text).replace("/", "&#x2F;"),
    "a page with bare quotes": partial(html.escape, quote=False),
    "JSON in a page": lambda text: html.escape(json.dumps(text)),
    "JSON for pages": lambda text: re.sub("[<>&']", lambda found: f"\\u{ord(found[0]):04X}", json.dumps(text)),
    "a URL in mixed case": lambda text: re.sub("%(.)(.)", lambda found: f"%{found[1]}{found[2].lower()}", quote(text)),
    "a URL of JavaScript": partial(quote, safe="!'()*~-_."),
    "a URL of Elixir": partial(quote, safe=":/?#[]@!$&'()*+,;=~"),
    "a query in a URL": lambda text: quote(f"t={quote(text)}&x=1", safe=""),
    "a query in a URL in a URL": lambda text: quote(quote(f"t={text}&x=1", safe=""), safe=""),
    "JSON after a line": lambda text: json.dumps(f"bad\n{text}\nbad"),
    "a text that is cut off": lambda text: text[:9],
    "a text that is cut off in quotes": lambda text: f'"{text[:9]}"',
    "a text that is cut off in a page": lambda text: f"<b>{html.escape(text[:9])}</b>",
    "a text whose beginning is cut off": lambda text: f"...{text[-8:]}",
    "a text that is cut off by dots": lambda text: f"{text[:9]}... (is too long)",
}


@pytest.mark.parametrize("form", REPEATED)
@pytest.mark.parametrize("secret", ["canary/<\"'&é>+=? 0f3b9d", "canary0f3b9dPlain"])
async def test_of_a_secret_that_is_repeated_in_another_form(
    form: str, secret: str, spy: Spy, autojump_clock: MockClock
) -> None:
    repeated = REPEATED[form](secret)

    def refuse(_: Request) -> None:
        raise Refuse(403, [("x-said", "no")], f"the token {repeated}")

    async with world(spy, answer=refuse) as options:
        with pytest.raises(ConnectionRejected) as raised:
            async with connect(url(), params={"token": secret}, **options):
                pytest.fail("the block must not be entered")
    spy.see_error(raised.value)
    told = [text for _, text in spy.seen if "the token" in text]
    assert told
    assert not [text for text in told if "canary" in text or "Y2FuYXJ5" in text]
    assert not [text for text in told for piece in re.findall(r"[\w+/-]{8,}", repeated)[:1] if piece in text]


@pytest.mark.parametrize("secret", ["/abc&def ghi", "\\abc\\def", " spaces ", "canary0f3b9d"])
def test_a_text_made_to_be_slow_takes_no_time(secret: str) -> None:
    """With a pattern that looks at all the rest from each place, one of these would take a minute."""
    redact = redactor([secret])
    for piece in ("\\", "%", "%25", "&", "&amp;", "&#0", ".", "...", " ", "+", "/", "\\u002f", f"{secret[:7]} "):
        assert redact(f"{piece * (100_000 // len(piece))} the token {secret}").endswith("the token [redacted]")


@pytest.mark.parametrize("code", [1000, 1008, 4001])
async def test_of_a_close_frame_that_repeats_the_token(
    code: int, spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Its text has 123 bytes at most, so that the server cuts off what it repeats."""
    path, text = tmp_path / "trace.jsonl", f"bad token {TOKEN} of {HEADER}: {QUERY} {'x' * 44} {PARAM}"[:123]
    assert text.endswith(PARAM[:9])
    async with world(spy) as options:
        with recording(path, telemetry=spy.telemetry), pytest.raises(ConnectionLost) as raised:
            async with connect(url(), **secrets, **{**options, "reconnect": None}):
                [connection] = spy.server.connections
                connection.close(code, text)
                await trio.sleep_forever()
    spy.see_error(raised.value)
    spy.see("the recording", path.read_text())
    assert raised.value.message == f"bad token [redacted] of [redacted]: [redacted] {'x' * 44} [redacted]"
    assert '"bad token [redacted] of [redacted]: ' in path.read_text()


async def test_of_a_transport_whose_error_repeats_the_request(spy: Spy, autojump_clock: MockClock) -> None:
    class Repeats:
        name = "repeats"

        def open(self, request: OpenRequest, wake: Callable[[], None]) -> Any:
            self.request = request
            return self

        async def __aenter__(self) -> None:
            await trio.lowlevel.checkpoint()
            url, headers = self.request.url, self.request.headers
            raise ConnectError(f"cannot open {url} with {headers}") from ValueError(url)

        async def __aexit__(self, *_: object) -> None:
            pytest.fail("it was not entered")

    with pytest.raises(ConnectError, match="redacted") as raised:
        async with connect(url(), transport=Repeats(), telemetry=spy.telemetry, **PLAIN):
            pytest.fail("the block must not be entered")
    spy.see_error(raised.value)


@pytest.mark.parametrize("rule", [Rule(Ignore()), Rule(Reset(), AtFrame(1, into=0))], ids=["timeout", "reset"])
async def test_of_a_connection_that_fails(
    rule: Rule, spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with world(spy, rule) as options:
        with pytest.raises(SlipstreamError) as raised:
            async with connect(url(), **secrets, **{**options, "reconnect": None}) as socket:
                await socket.ping()
    spy.see_error(raised.value)


async def test_of_tls_that_fails(spy: Spy, secrets: dict[str, Any]) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    server = PhoenixServer({"/socket": Mount()})
    async with server.serve(ssl_context=server_context(authority.issue_cert("localhost"))) as listening:
        base = listening.url("/socket/websocket").replace("127.0.0.1", "localhost")
        with pytest.raises(ConnectError) as raised:
            async with connect(url(base), ssl_context=client_context(stranger), telemetry=spy.telemetry, **secrets):
                pytest.fail("the block must not be entered")
    spy.see_error(raised.value)


async def test_of_an_exception_in_the_block_and_in_a_handler(
    spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock
) -> None:
    def broken(record: Record) -> None:
        raise RuntimeError("a handler's")

    spy.telemetry.attach("broken", (), broken, prefix=True)
    async with world(spy) as options:
        with pytest.raises(RuntimeError) as raised:
            async with connect(url(), **secrets, **options) as socket, socket.join("lab:1"):
                raise RuntimeError("the block's")
    spy.see_error(raised.value)


async def test_of_a_client_by_callbacks(spy: Spy, secrets: dict[str, Any], autojump_clock: MockClock) -> None:
    class Lobby(Client):
        connected = 0

        async def handle_connect(self, socket: Any) -> None:
            self.connected += 1
            spy.see("the client", self, socket)
            await self.join("lab:1")

        async def handle_disconnect(self, reason: Exception) -> None:
            spy.see_error(reason)

        async def handle_join(self, channel: Any, response: Any) -> None:
            if self.connected == 2:
                raise RuntimeError("a callback's")
            await self.push("lab:1", "burst", {"count": 3})

    async with world(spy, Rule(Reset(), AtFrame(4), connections=[1])) as options:
        with pytest.raises(RuntimeError) as raised:
            await run_client(Lobby(), url(), **secrets, **options)
    spy.see_error(raised.value)


class _Refuses:
    def __iter__(self) -> Any:
        raise TypeError(f"not these: {HEADER}")


@pytest.mark.parametrize(
    "options",
    [
        {"url": f"ws://user:{PARAM}@server/socket"},
        {"url": f"ws://user:{PARAM}/x@server/socket"},
        {"url": f"ws://server/socket#{PARAM}"},
        {"url": f"ftp://server/socket?token={PARAM}"},
        {"url": f"ws://[{PARAM}/socket"},
        {"url": f"ws://server/socket?token={PARAM}&vsn=9"},
        {"params": PARAM},
        {"params": lambda: [PARAM]},
        {"params": {"token": {PARAM}}},
        {"params": {"token": f"{PARAM}\ud800"}},
        {"headers": PARAM},
        {"headers": {f"authorization: Bearer {HEADER}": "x"}},
        {"headers": {"authorization": f"Bearer {HEADER}\r\n"}},
        {"headers": {"authorization": f" Bearer {HEADER}"}},
        {"headers": {"authorization": f"{HEADER}☃"}},
        {"headers": [HEADER]},
        {"headers": [("authorization", HEADER, "x")]},
        {"headers": _Refuses},
        {"headers": lambda: {"authorization": HEADER.encode()}},
        {"auth_token": TOKEN.encode()},
        {"auth_token": lambda: [TOKEN]},
        {"auth_token": f"{TOKEN}\ud800"},
        {"proxy": f"http://user:{PARAM}/@proxy"},
        {"trace_parent": lambda: PARAM},
        {"nonsense": PARAM},
    ],
    ids=itertools.count(),
)
async def test_of_options_that_cannot_be_used(options: dict[str, Any], spy: Spy, autojump_clock: MockClock) -> None:
    async with world(spy) as given:
        address = options.pop("url", url())
        with pytest.raises(ConfigurationError) as raised:
            async with connect(address, **{**given, **options}):
                pytest.fail("the block must not be entered")
    spy.see_error(raised.value)


@pytest.mark.parametrize("query", [f"key={QUERY} with spaces", f"key={QUERY}é", f"key={QUERY}\r\nx: y"], ids=repr)
async def test_of_a_query_that_http_has_no_form_for(query: str, spy: Spy, autojump_clock: MockClock) -> None:
    async with world(spy, answer=lambda _: None) as given:
        try:
            async with connect(f"{URL}?{query}", **{**given, "reconnect": None}) as socket:
                await socket.ping()
        except SlipstreamError as error:
            spy.see_error(error)


async def refused(error: ConnectError, url: str, **options: Any) -> ConnectError:
    """Return what is raised where a transport raises this."""

    async def refuse(_: OpenRequest) -> None:
        raise error

    with pytest.raises(ConnectError) as raised:
        async with connect(url, transport=Scripted(opening=refuse), **options):
            pytest.fail("the block must not be entered")
    return raised.value


async def test_what_is_not_secret_stays(autojump_clock: MockClock) -> None:
    said = "vsn=2.0.0, phoenix, https://example.org, a=1, untrue1, "
    url = "ws://server/socket?vsn=2.0.0&a=1&flag=true1&token=abcd%2Fefgh"
    options: Any = {"headers": [("origin", "https://example.org"), ("x", "")], "auth_token": ""}
    told = await refused(ConnectionRejected(404, [("x-said", said)], f"{said}abcd/efgh, abcd%2Fefgh!"), url, **options)
    assert isinstance(told, ConnectionRejected)
    assert (told.status, dict(told.headers)) == (404, {"x-said": said})
    assert told.body == f"{said}[redacted], [redacted]!"


async def test_of_secrets_that_begin_alike_the_whole_one_goes(autojump_clock: MockClock) -> None:
    headers = [("x-short", "abcd"), ("x-long", "abcd-efgh"), ("x-longest", "abcd-efgh-ijkl")]
    told = await refused(ConnectionRejected(404, body="abcd-efgh-ijkl, abcd-efgh, abcd."), URL, headers=headers)
    assert isinstance(told, ConnectionRejected)
    assert told.body == "[redacted], [redacted], [redacted]."


async def test_of_a_header_that_is_repeated_all_of_it_a_word_and_a_cookie_go(autojump_clock: MockClock) -> None:
    headers = {"x-pin": "12 34 56", "authorization": "Bearer abcd-efgh", "cookie": "a=ijkl; b=mnop"}
    told = await refused(ConnectionRejected(404, body="12 34 56, abcd-efgh, ijkl, mnop!"), URL, headers=headers)
    assert isinstance(told, ConnectionRejected)
    assert told.body == "[redacted], [redacted], [redacted], [redacted]!"


@pytest.mark.parametrize(
    ("error", "query"),
    [
        (ConnectionRejected(404, [("server", "x")], "not found"), "token=abcdefgh"),
        (ConnectionRejected(404, body="a = 1, b = 2"), "vsn=2.0.0"),
        (ConnectError("nobody listens"), "token=abcdefgh"),
        (ConnectTimeout(10.0), "version=10.0"),
    ],
    ids=["refused", "refused, without secrets", "failed", "timeout"],
)
async def test_an_error_that_tells_no_secret_stays_as_it_is(
    error: ConnectError, query: str, autojump_clock: MockClock
) -> None:
    told = await refused(error, f"ws://server/socket?{query}")
    assert (type(told), str(told), vars(told)) == (type(error), str(error), vars(error))
