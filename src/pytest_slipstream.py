"""pytest's way into slipstream_trio: declares the fixtures and the marker, and imports nothing until they are used.

It stands outside of the package, as importing any module of a package imports the package. What is behind it is
`slipstream_trio.testing.plugin`.
"""

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from slipstream_trio.ids import IdSource
    from slipstream_trio.telemetry import Telemetry
    from slipstream_trio.testing.kit import FakeServer
    from slipstream_trio.testing.observed import ObservedTrace
    from slipstream_trio.testing.plugin import PhoenixServers
    from slipstream_trio.testing.simulation import Swarm

MARKER = "slipstream_verify"
FIXTURES = frozenset({"fake_server", "phoenix_server", "slipstream_swarm", "slipstream_telemetry", "slipstream_trace"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option of the configuration file."""
    text = "lines of history of its connections that the report of a failing test has (default: 40; 0: none)"
    parser.addini("slipstream_history", text, default="40")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and check the option."""
    text = "the records of all connections that the test opens have to keep the invariants of traces"
    config.addinivalue_line("markers", f"{MARKER}: {text}.")
    lines = config.getini("slipstream_history")
    if not lines.isdecimal():
        raise pytest.UsageError(f"slipstream_history: a whole number of lines, 0 for none; not {lines!r}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Bring in the plugin proper where tests use it, or have imported the library."""
    if "slipstream_trio" in sys.modules or any(map(_uses, session.items)):
        from slipstream_trio.testing.plugin import Observer

        lines = int(session.config.getini("slipstream_history"))
        session.config.pluginmanager.register(Observer(lines), "slipstream-observer")


def _uses(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARKER) is not None or not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.fixture
def slipstream_trace(request: pytest.FixtureRequest) -> "ObservedTrace":
    """All telemetry of the test's connections: `records`, `named`, `of`, `history`, `violations`, `verify`."""
    from slipstream_trio.testing.plugin import observed_by

    return observed_by(request.node)


@pytest.fixture
def slipstream_ids() -> "IdSource":
    """Where `slipstream_telemetry` has its ids from: the same ones in every run. Override it for others."""
    from slipstream_trio.testing.deterministic import SequentialIds

    return SequentialIds()


@pytest.fixture
def slipstream_telemetry(request: pytest.FixtureRequest, slipstream_ids: "IdSource") -> "Telemetry":
    """A bus of the test's own, with deterministic ids: pass it to `connect` as `telemetry`."""
    from slipstream_trio.testing.plugin import make_telemetry

    return make_telemetry(request.node, slipstream_ids)


@pytest.fixture
def slipstream_swarm() -> "Callable[..., Swarm]":
    """Call it as `testing.simulation.swarm`; it fails if a run breaks a guarantee."""
    from slipstream_trio.testing.simulation import swarm

    def checked(*args: "Any", **options: "Any") -> "Swarm":
        total = swarm(*args, **options)
        total.check()
        return total

    return checked


@pytest.fixture
def phoenix_server(request: pytest.FixtureRequest) -> "PhoenixServers":
    """Call it with channels, as {"room:*": Room}, for a Phoenix-compatible server to `run` or `serve`."""
    from slipstream_trio.testing.plugin import PhoenixServers, servers_of

    return PhoenixServers(servers_of(request.node))


@pytest.fixture
def fake_server(request: pytest.FixtureRequest) -> "FakeServer":
    """A server that the test drives step by step: `async with fake_server as server`."""
    from slipstream_trio.testing.kit import FakeServer
    from slipstream_trio.testing.plugin import servers_of

    server = FakeServer()
    servers_of(request.node).append(server)
    return server
