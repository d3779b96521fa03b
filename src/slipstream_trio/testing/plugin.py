"""The pytest plugin: its hooks and fixtures, for test runs that use this library.

pytest itself loads `pytest_slipstream`, which declares the fixtures and the marker, and imports this module when they
are used, or where tests have imported the library. Other sessions pay nothing for it.
"""

from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

import pytest

from ..ids import IdSource
from ..telemetry import Telemetry
from ..trace import Violation
from .kit import FakeServer
from .observed import ObservedTrace, describe
from .server import ChannelFactory, Mount, PhoenixServer

__all__ = ["Observer", "PhoenixServers", "make_telemetry", "observed_by", "servers_of"]

MARKER: Final = "slipstream_verify"
_TRACE: Final = pytest.StashKey[ObservedTrace]()
_SERVERS: Final = pytest.StashKey[list[FakeServer | PhoenixServer]]()
_TOLD: Final = pytest.StashKey[int]()
_RECORDS_A_LINE: Final = 4
"""How many records to keep for each line of history: most lines tell a start and a stop."""


class PhoenixServers:
    """The fixture `phoenix_server`: makes servers, and remembers them for the report of a failure.

    Call it with channels by topic, `phoenix_server({"room:*": Room})`; `run` or `serve` the server that it returns.
    """

    def __init__(self, made: "list[FakeServer | PhoenixServer]") -> None:
        self._made = made

    def __call__(self, channels: Mapping[str, ChannelFactory] | None = None, **mount: Any) -> PhoenixServer:
        """Return a server that has one socket at "/socket"; `run` or `serve` it in the test.

        Parameters:
            channels: channels by topic, see `Mount`.
            mount: further options of `Mount`, such as `connect`.
        """
        server = PhoenixServer({"/socket": Mount(channels=channels or {}, **mount)})
        self._made.append(server)
        return server


def observed_by(item: pytest.Item) -> ObservedTrace:
    """Return the trace of a test's connections; raises RuntimeError if the plugin is switched off."""
    trace = item.stash.get(_TRACE, None)
    if trace is None:
        raise RuntimeError("this test is not observed: slipstream_trace has to be among its fixtures from the start")
    return trace


def servers_of(item: pytest.Item) -> "list[FakeServer | PhoenixServer]":
    """Return the servers that a test got from its fixtures, for them to add to."""
    return item.stash.setdefault(_SERVERS, [])


class Observer:
    """The hooks of a test run in which the library is used; a failure's report has `lines` lines of history."""

    def __init__(self, lines: int) -> None:
        self._lines = lines

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Listen while a test runs, its fixtures' beginning and end included."""
        keep = None if _wants_all(item) else self._lines * _RECORDS_A_LINE
        try:
            if keep == 0:
                return (yield)
            with ObservedTrace(keep) as trace:
                item.stash[_TRACE] = trace
                return (yield)
        finally:
            # pytest keeps its items to the end of the session; these are of no more use.
            item.stash[_SERVERS] = []
            if _TRACE in item.stash:
                del item.stash[_TRACE]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin anew, as a plugin may let a test that failed run again."""
        item.stash[_TOLD] = 0
        item.stash[_SERVERS] = []
        if (trace := item.stash.get(_TRACE, None)) is not None:
            trace.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a marked test whose connections break an invariant, if it does not fail by itself."""
        found: list[Violation] = []
        try:
            result = yield
        finally:
            found = _news(item, ended=False)
        _check_marked_in_time(item)
        _fail(found)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a marked test that has connections left when its fixtures have ended too."""
        result = yield
        _fail(_news(item, ended=True))
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the history to the report of a failure."""
        report = yield
        if report.failed:
            report.sections.extend(self._sections(item))
        return report

    def _sections(self, item: pytest.Item) -> Iterator[tuple[str, str]]:
        trace = item.stash.get(_TRACE, None)
        if trace is not None and len(trace) and self._lines:
            yield "slipstream: recent history", trace.history(self._lines)
        judged = _judged(item)
        if judged is not None and (found := judged.violations(ended=False)):
            yield "slipstream: broken invariants", describe(found)
        for server in item.stash.get(_SERVERS, []):
            if isinstance(server, FakeServer):
                yield "slipstream: what the fake server got", server.history()
            elif server.errors:
                told = [f"{type(error).__name__}: {error}" for error in server.errors]
                yield "slipstream: what crashed on the server", "\n".join(told)


def _wants_all(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARKER) is not None or "slipstream_trace" in getattr(item, "fixturenames", ())


def _judged(item: pytest.Item) -> ObservedTrace | None:
    """Return the trace of a marked test's connections; None if it is not marked, or was marked too late."""
    trace = item.stash.get(_TRACE, None)
    return trace if trace is not None and trace.complete and item.get_closest_marker(MARKER) else None


def _check_marked_in_time(item: pytest.Item) -> None:
    """Fail a test that was marked while it ran: its records were not kept."""
    if item.get_closest_marker(MARKER) and _judged(item) is None:
        pytest.fail(
            f"the marker {MARKER} came too late, as this test runs already: "
            "mark the test, its class or module, or do it in pytest_collection_modifyitems",
            pytrace=False,
        )


def _news(item: pytest.Item, *, ended: bool) -> list[Violation]:
    """Return the invariants that a marked test's connections break, without those that were told before."""
    trace = _judged(item)
    if trace is None:
        return []
    found = trace.violations(ended=ended)
    told, item.stash[_TOLD] = item.stash.get(_TOLD, 0), len(found)
    return found[told:]


def _fail(found: list[Violation]) -> None:
    if found:
        pytest.fail(describe(found), pytrace=False)


def make_telemetry(item: pytest.Item, ids: IdSource) -> Telemetry:
    """Return a bus for one test, whose records are in the test's trace as well."""
    bus = Telemetry(ids=ids)
    trace = item.stash.get(_TRACE, None)
    if trace is not None:
        trace.listen_to(bus)
    return bus
