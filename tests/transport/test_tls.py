"""TLS: certificates that are not accepted on either side, and handshakes that end too early, or never."""

import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from socket import create_server
from typing import Any

import pytest
import trustme
from tests.client.support import Lab

from slipstream_trio import ConnectError, connect
from slipstream_trio.testing.faults import AtByte, Faults, Reset, Rule, Stall, Truncate, Vanish, faulty_network
from slipstream_trio.testing.server import Mount, PhoenixServer
from slipstream_trio.transport.network import explain_tls

PATH = "/socket/websocket"
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
EXPIRED: dict[str, Any] = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}
NOT_YET: dict[str, Any] = {"not_before": NOW + DAY}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """Return a server's context; with `clients`, it wants a certificate of theirs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(trusted: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


async def error_of(server: ssl.SSLContext, client: ssl.SSLContext | None, host: str = "localhost") -> str:
    """Connect, which fails; returns the error's line, the port left out."""
    async with PhoenixServer({"/socket": Mount()}).serve(ssl_context=server) as listening:
        with pytest.raises(ConnectError) as raised:
            async with connect(f"wss://{host}:{listening.port}{PATH}", ssl_context=client):
                pytest.fail("the block must not be entered")
    text = str(raised.value)
    assert "\n" not in text
    return text.replace(f" port {listening.port}", "")


NOT_ACCEPTED = "TLS handshake with localhost failed: the server's certificate is not accepted: "


@pytest.mark.parametrize(
    ("name", "dates", "text"),
    [
        ("localhost", EXPIRED, "certificate has expired; the server needs a new one"),
        ("localhost", NOT_YET, "certificate is not yet valid; check the clocks of both machines"),
        (
            "example.org",
            {},
            "Hostname mismatch, certificate is not valid for 'localhost'; connect to a name that it is for",
        ),
    ],
    ids=["expired", "not yet valid", "another name"],
)
async def test_a_certificate_that_is_not_accepted_says_why_and_what_to_do(
    name: str, dates: dict[str, Any], text: str, authority: trustme.CA
) -> None:
    certificate = authority.issue_cert(name, **dates)
    assert await error_of(server_context(certificate), client_context(authority)) == NOT_ACCEPTED + text


async def test_a_certificate_for_a_name_is_none_for_an_address(authority: trustme.CA) -> None:
    certificate = authority.issue_cert("localhost")
    said = await error_of(server_context(certificate), client_context(authority), "127.0.0.1")
    assert said.endswith(
        "IP address mismatch, certificate is not valid for '127.0.0.1'; connect to a name that it is for"
    )


@pytest.mark.parametrize("trusts", ["the system's authorities", "another authority"])
async def test_an_unknown_authority_says_how_to_trust_it(
    trusts: str, authority: trustme.CA, stranger: trustme.CA
) -> None:
    client = client_context(stranger) if trusts == "another authority" else None
    said = await error_of(server_context(authority.issue_cert("localhost")), client)
    assert said.startswith(NOT_ACCEPTED)
    assert said.endswith("; to trust its authority, pass an ssl_context that has it (load_verify_locations)")


async def test_a_server_that_wants_a_certificate_gets_it(authority: trustme.CA, stranger: trustme.CA) -> None:
    server = PhoenixServer({"/socket": Mount(channels={"lab:*": Lab})})
    wanted = server_context(authority.issue_cert("localhost"), stranger)
    mine = client_context(authority, stranger.issue_cert("client@example.org"))
    async with server.serve(ssl_context=wanted) as listening:
        async with connect(f"wss://localhost:{listening.port}{PATH}", ssl_context=mine) as socket:
            async with socket.join("lab:1") as channel:
                assert await channel.push("echo", 1) == 1


@pytest.mark.parametrize("given", ["none", "one of another authority", "an expired one"])
async def test_a_client_certificate_that_is_refused_is_hinted_at(
    given: str, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """The server speaks TLS 1.3 by Trio, which sends no alert: it hangs up, as if it were no WebSocket server."""
    certificate = {
        "none": None,
        "one of another authority": authority.issue_cert("client@example.org"),
        "an expired one": stranger.issue_cert("client@example.org", **EXPIRED),
    }[given]
    server = server_context(authority.issue_cert("localhost"), stranger)
    said = await error_of(server, client_context(authority, certificate))
    assert said.endswith("; or it wants a client certificate (see ssl_context)")


@contextmanager
def blocking_server(context: ssl.SSLContext) -> Iterator[int]:
    """Run a server by OpenSSL's own I/O, which sends alerts; it accepts one connection, and gives its port."""

    def serve() -> None:
        accepted, _ = listener.accept()
        with closing(accepted), suppress(OSError):
            context.wrap_socket(accepted, server_side=True).close()
        with closing(accepted), suppress(OSError):
            accepted.recv(100_000)

    with create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


async def test_a_client_certificate_that_is_wanted_by_an_alert_is_asked_for(
    authority: trustme.CA, stranger: trustme.CA
) -> None:
    wanted = server_context(authority.issue_cert("localhost"), stranger)
    wanted.maximum_version = ssl.TLSVersion.TLSv1_2  # which tells it within the handshake
    with blocking_server(wanted) as port, pytest.raises(ConnectError) as raised:
        async with connect(f"wss://localhost:{port}{PATH}", ssl_context=client_context(authority)):
            pytest.fail("the block must not be entered")
    assert str(raised.value).startswith(f"TLS handshake with localhost port {port} failed: the server refused it (")
    assert str(raised.value).endswith("a client certificate that the server accepts (load_cert_chain)")


async def test_tls_with_a_server_that_speaks_none_hints_at_the_scheme(authority: trustme.CA) -> None:
    async with PhoenixServer({"/socket": Mount()}).serve() as listening:
        with pytest.raises(ConnectError, match=r"speaks no TLS there .*ws:// rather than wss://"):
            async with connect(f"wss://localhost:{listening.port}{PATH}", ssl_context=client_context(authority)):
                pytest.fail("the block must not be entered")


@pytest.mark.parametrize("number", [0, 3, 500])
@pytest.mark.parametrize("fault", [Stall(both=True), Vanish(), Reset(), Truncate()], ids=repr)
async def test_a_handshake_that_is_disturbed_is_a_connect_error_in_time(
    fault: Any, number: int, authority: trustme.CA
) -> None:
    server = PhoenixServer({"/socket": Mount()})
    async with server.serve(ssl_context=server_context(authority.issue_cert("localhost"))) as listening:
        async with faulty_network(Faults(rules=[Rule(fault, AtByte(number))])) as network:
            proxy = await network.listen(listening.host, listening.port)
            url, mine = f"wss://localhost:{proxy.port}{PATH}", client_context(authority)
            patience = 0.05 if isinstance(fault, Stall | Vanish) else 10
            with pytest.raises(ConnectError) as raised:
                async with connect(url, ssl_context=mine, connect_timeout=patience):
                    pytest.fail("the block must not be entered")
            if patience == 10:  # else a busy machine may not have come so far in time
                assert [entry.byte for entry in network.log.entries] == [number]
    said = {
        Stall: "not connected within 0.05 s; see connect_timeout",
        Vanish: "not connected within 0.05 s; see connect_timeout",
        Reset: f"TLS handshake with localhost port {proxy.port} failed: ",
        Truncate: f"TLS handshake with localhost port {proxy.port} failed: the server hung up during the handshake",
    }
    assert str(raised.value).startswith(said[type(fault)])


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] something (_ssl.c:2580)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "the server refused it (TLSV13_ALERT_CERTIFICATE_REQUIRED); pass"),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), "the server refused it (TLSV1_ALERT_UNKNOWN_CA); pass"),
        (alert("TLSV1_ALERT_INTERNAL_ERROR"), "[SSL: TLSV1_ALERT_INTERNAL_ERROR] something"),
        (alert("WRONG_VERSION_NUMBER"), "the server speaks no TLS there (WRONG_VERSION_NUMBER)"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "the server hung up during the handshake"),
        (OSError(), "it hung up"),
        (ConnectionResetError(104, "Connection reset by peer"), "[Errno 104] Connection reset by peer"),
    ],
    ids=str,
)
def test_what_openssl_says_is_put_into_words(error: BaseException, text: str) -> None:
    assert explain_tls(error).startswith(text)
    assert "_ssl.c" not in explain_tls(error)
