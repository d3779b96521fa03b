"""pytest's way into slipstream_trio: the fixtures and the marker, which import nothing until they are used.

It stands outside of the package, as importing any module of a package imports the package.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from typing import Any

    from slipstream_trio.telemetry import Telemetry
    from slipstream_trio.testing.kit import FakeServer
    from slipstream_trio.testing.observed import ObservedTrace
    from slipstream_trio.testing.server import ChannelFactory, PhoenixServer
    from slipstream_trio.testing.simulation import Simulation, Swarm

MARKER = "slipstream_verify"
TRACE = "slipstream_trace"
_TOLD = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    text = "the records of all connections that the test opens have to keep the invariants of traces"
    config.addinivalue_line("markers", f"{MARKER}: {text}.")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the trace be the first fixture of a test that is marked or asks for it, so that it outlives the others."""
    for item in session.items:
        names = getattr(item, "fixturenames", None)
        if names is not None and (TRACE in names or item.get_closest_marker(MARKER)):
            names[:] = [TRACE, *(name for name in names if name != TRACE)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> "Generator[None, object, object]":
    """Fail a marked test whose connections break an invariant; if it fails by itself, its error tells that as well."""
    try:
        result = yield
    except BaseException as error:
        if (problem := _problem(item)) is not None:
            error.add_note(problem)
        raise
    if (problem := _problem(item)) is not None:
        pytest.fail(problem, pytrace=False)
    return result


def _problem(item: pytest.Item) -> str | None:
    """Return what is wrong with a marked test by the end of its call."""
    if item.get_closest_marker(MARKER) is None or not hasattr(item, "funcargs"):
        return None
    trace: ObservedTrace | None = item.funcargs.get(TRACE)
    if trace is None:
        return (
            f"the marker {MARKER} came too late, as this test runs already: "
            "mark the test, its class or module, or do it in pytest_collection_modifyitems"
        )
    from slipstream_trio.testing.observed import describe

    found = trace.violations(ended=False)
    item.stash[_TOLD] = len(found)
    return describe(found) if found else None


@pytest.fixture
def slipstream_trace(request: pytest.FixtureRequest) -> "Iterator[ObservedTrace]":
    """All telemetry of the test's connections: `records`, `named`, `of`, `violations`, `verify`."""
    from slipstream_trio.testing.observed import describe, observed

    item: pytest.Item = request.node
    item.stash[_TOLD] = 0
    with observed() as trace:
        yield trace
    if item.get_closest_marker(MARKER) and (found := trace.violations()[item.stash[_TOLD] :]):
        pytest.fail(describe(found), pytrace=False)


@pytest.fixture
def slipstream_telemetry(slipstream_trace: "ObservedTrace") -> "Telemetry":
    """A bus of the test's own, whose records are in the trace, with the same ids in every run: pass it to `connect`."""
    from slipstream_trio.telemetry import Telemetry
    from slipstream_trio.testing.deterministic import SequentialIds

    bus = Telemetry(ids=SequentialIds())
    slipstream_trace.listen_to(bus)
    return bus


@pytest.fixture
def slipstream_swarm() -> "Callable[..., Swarm]":
    """Call it with a `Simulation`, and what its `swarm` takes; it fails if a run breaks a guarantee."""

    def checked(simulation: "Simulation", *args: "Any", **options: "Any") -> "Swarm":
        total = simulation.swarm(*args, **options)
        total.check()
        return total

    return checked


@pytest.fixture
def phoenix_server() -> "Callable[..., PhoenixServer]":
    """Call it with channels, as {"room:*": Room}, and options of `Mount`, for a server to `run` or `serve`."""
    from slipstream_trio.testing.server import Mount, PhoenixServer

    def make(channels: "Mapping[str, ChannelFactory] | None" = None, **mount: "Any") -> PhoenixServer:
        return PhoenixServer({"/socket": Mount(channels=channels or {}, **mount)})

    return make


@pytest.fixture
def fake_server() -> "FakeServer":
    """A server that the test drives step by step: `async with fake_server as server`."""
    from slipstream_trio.testing.kit import FakeServer

    return FakeServer()
