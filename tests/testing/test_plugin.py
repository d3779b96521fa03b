"""The pytest plugin, in test runs of its own."""

import pytest

# Imported here, as what an inner run imports first is forgotten at its end, and would be there twice.
import slipstream_trio.testing.kit
import slipstream_trio.testing.observed
import slipstream_trio.transport.trio_websocket  # noqa: F401

pytest_plugins = ["pytester"]

INI = """
[pytest]
trio_mode = true
filterwarnings = error
addopts = -p no:cacheprovider
"""

HEAD = """
import pytest
import trio
from trio.testing import MockClock
from slipstream_trio import connect
from slipstream_trio.telemetry import Telemetry, default_telemetry
from slipstream_trio.testing.server import Channel, Reply

class Room(Channel):
    async def handle_in(self, event, payload, ref):
        if event == "crash":
            raise RuntimeError("told to")
        return Reply(payload)

async def visit(server, fails=False, **options):
    async with server.run():
        transport = server.connector()
        async with connect("ws://x/socket/websocket", transport=transport, **options) as socket:
            async with socket.join("room:1", {"token": "s3cret"}) as channel:
                await channel.push("echo", {"n": 1})
                assert not fails, "told to fail"

def break_an_invariant(trace):
    stop = trace.named("connection", "connect", "stop")[0]
    default_telemetry.point(stop.name).emit(stop)
"""


@pytest.fixture(autouse=True)
def _inner_runs_warn_of_nothing(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI)


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    """Run the tests of a source in an inner run of pytest."""
    pytester.makepyfile(HEAD + source)
    return pytester.runpytest_inprocess()


def test_its_fixtures_serve_async_tests_and_plain_ones(pytester: pytest.Pytester) -> None:
    source = """
    async def test_async(phoenix_server, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))
        assert [push.outcome for push in slipstream_trace.named("push", "stop")] == ["ok"]
        assert len(slipstream_trace.connections) == 1

    def test_plain(phoenix_server, slipstream_trace):
        server = phoenix_server({"room:*": Room})
        for _ in range(2):
            trio.run(visit, server, clock=MockClock(autojump_threshold=0))
        first, second = slipstream_trace.connections
        of = [[each for each in slipstream_trace.records if each.origin.connection_id == id] for id in (first, second)]
        assert len(of[0]) == len(of[1]) == len(slipstream_trace.records) / 2
        slipstream_trace.verify()

    async def drive(fake_server):
        async with fake_server as server, connect(server.url, transport=server.connector()):
            connection = await server.accept()
        await connection.expect_disconnect(1000)

    async def test_fake_async(fake_server, autojump_clock):
        await drive(fake_server)

    def test_fake_plain(fake_server):
        trio.run(drive, fake_server, clock=MockClock(autojump_threshold=0))
    """
    run(pytester, dedented(source)).assert_outcomes(passed=4)


def test_a_bus_of_the_tests_own_has_the_same_ids_in_every_run(pytester: pytest.Pytester) -> None:
    source = """
    SEEN = []

    @pytest.mark.parametrize("turn", range(2))
    async def test_it(turn, phoenix_server, slipstream_telemetry, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}), telemetry=slipstream_telemetry)
        SEEN.append(slipstream_trace.connections)

    def test_they_are_the_same():
        assert len(SEEN[0]) == 1
        assert SEEN[0] == SEEN[1]
    """
    run(pytester, dedented(source)).assert_outcomes(passed=3)


def test_a_marked_test_fails_if_its_connections_break_an_invariant(pytester: pytest.Pytester) -> None:
    source = """
    pytestmark = pytest.mark.slipstream_verify

    async def test_sound(phoenix_server, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))

    async def test_broken(phoenix_server, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))
        break_an_invariant(slipstream_trace)

    def test_without_connections():
        pass
    """
    result = run(pytester, dedented(source))
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_broken*",
            "this test's connections break an invariant:",
            "  record *, connection *: invariant 2: slipstream connection connect stop after the end of the connection",
        ]
    )


def test_a_test_that_is_not_marked_does_not_fail_for_it(pytester: pytest.Pytester) -> None:
    source = """
    async def test_broken(phoenix_server, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))
        break_an_invariant(slipstream_trace)
        assert [violation.invariant for violation in slipstream_trace.violations()] == [2]
        with pytest.raises(AssertionError, match="break an invariant:\\n  record .*: invariant 2: "):
            slipstream_trace.verify()
        break_an_invariant(slipstream_trace)
        with pytest.raises(AssertionError, match="break invariants 2 times:"):
            slipstream_trace.verify()
    """
    run(pytester, dedented(source)).assert_outcomes(passed=1)


def test_a_connection_that_outlives_its_test_is_an_error_of_its_teardown(pytester: pytest.Pytester) -> None:
    source = """
    from slipstream_trio.telemetry import ConnectStart

    @pytest.mark.slipstream_verify
    async def test_leaking(phoenix_server, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))
        [start] = slipstream_trace.named("connection", "connect", "start")
        bus = Telemetry()
        slipstream_trace.listen_to(bus)
        import attrs
        origin = attrs.evolve(start.origin, connection_id="1" * 16, trace_id="2" * 32)
        state = attrs.evolve(start.state, connection_id="1" * 16, trace_id="2" * 32)
        bus.point(start.name).emit(attrs.evolve(start, origin=origin, state=state))
    """
    result = run(pytester, dedented(source))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*connection 1111111111111111: invariant 2: the connection has no connect stop"])


def test_connections_may_share_a_trace_that_was_given_to_them(pytester: pytest.Pytester) -> None:
    source = """
    TRACE = "ab" * 16
    PARENT = f"00-{TRACE}-{'cd' * 8}-01"

    async def twice(phoenix_server):
        for _ in range(2):
            await visit(phoenix_server({"room:*": Room}), trace_parent=PARENT)

    @pytest.mark.slipstream_verify
    async def test_shared(phoenix_server, slipstream_trace, autojump_clock):
        await twice(phoenix_server)
        assert {record.trace_id for record in slipstream_trace.named("handle", "start")} == {TRACE}
    """
    run(pytester, dedented(source)).assert_outcomes(passed=1)


def test_a_marked_test_that_fails_by_itself_shows_broken_invariants_as_well(pytester: pytest.Pytester) -> None:
    source = """
    @pytest.mark.slipstream_verify
    async def test_failing(phoenix_server, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))
        break_an_invariant(slipstream_trace)
        assert False, "by itself"
    """
    result = run(pytester, dedented(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*this test's connections break an invariant:", "*: invariant 2: *"])
    result.stdout.fnmatch_lines(["*AssertionError: by itself"])


@pytest.mark.once
def test_what_a_test_used_is_let_go_of_when_it_has_ended(pytester: pytest.Pytester) -> None:
    source = """
    import gc
    import weakref

    USED = []

    async def test_first(fake_server, slipstream_telemetry):
        USED.extend(map(weakref.ref, (fake_server, slipstream_telemetry)))

    async def test_second():
        gc.collect()
        assert [used() for used in USED] == [None, None]
    """
    run(pytester, dedented(source)).assert_outcomes(passed=2)


RUN_TWICE = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


@pytest.mark.once
def test_a_test_that_is_run_again_is_judged_by_its_last_run(pytester: pytest.Pytester) -> None:
    source = """
    RUNS = []

    @pytest.mark.slipstream_verify
    async def test_flaky(phoenix_server, slipstream_telemetry, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}), telemetry=slipstream_telemetry)
        RUNS.append(slipstream_trace.connections)
        assert RUNS == [["0000000000000002"]] * 2
    """
    pytester.makeconftest(RUN_TWICE)
    run(pytester, dedented(source)).assert_outcomes(passed=1)


@pytest.mark.once
def test_a_marker_that_comes_too_late_is_told_and_costs_no_other_test(pytester: pytest.Pytester) -> None:
    source = """
    @pytest.fixture(params=[False, True])
    def marked_late(request):
        request.applymarker(pytest.mark.slipstream_verify)
        return request.param

    async def test_late(phoenix_server, marked_late, autojump_clock):
        await visit(phoenix_server({"room:*": Room}), fails=marked_late)

    async def test_other():
        pass
    """
    result = run(pytester, dedented(source))
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["the marker slipstream_verify came too late, as this test runs already: *"])
    result.stdout.fnmatch_lines(["*AssertionError: told to fail*"])


def test_what_had_begun_before_the_test_is_not_judged(pytester: pytest.Pytester) -> None:
    source = """
    EARLIER = []

    async def test_first(phoenix_server, slipstream_trace, autojump_clock):
        await visit(phoenix_server({"room:*": Room}))
        EARLIER.extend(slipstream_trace.named("connection", "handle", "stop"))

    @pytest.mark.slipstream_verify
    def test_second():
        for record in EARLIER:
            default_telemetry.point(record.name).emit(record)
    """
    run(pytester, dedented(source)).assert_outcomes(passed=2)


def test_a_bus_that_is_listened_to_twice_is_heard_once(pytester: pytest.Pytester) -> None:
    source = """
    async def test_twice(phoenix_server, slipstream_telemetry, slipstream_trace, autojump_clock):
        for bus in (slipstream_telemetry, default_telemetry):
            slipstream_trace.listen_to(bus)
        await visit(phoenix_server({"room:*": Room}), telemetry=slipstream_telemetry)
        await visit(phoenix_server({"room:*": Room}))
        assert len(slipstream_trace.named("connection", "connect", "start")) == 2
        slipstream_trace.verify()
    """
    run(pytester, dedented(source)).assert_outcomes(passed=1)


def test_what_other_fixtures_do_at_their_beginning_and_end_is_seen(pytester: pytest.Pytester) -> None:
    source = """
    @pytest.fixture
    def visiting(phoenix_server):
        server = phoenix_server({"room:*": Room})
        trio.run(visit, server, clock=MockClock(autojump_threshold=0))
        yield
        [connect] = [record for record in SEEN[0].records if record.name[1:] == ("connection", "connect", "start")]
        trio.run(visit, server, clock=MockClock(autojump_threshold=0))
        default_telemetry.point(connect.name).emit(connect)

    SEEN = []

    @pytest.mark.slipstream_verify
    def test_it(visiting, slipstream_trace):
        SEEN.append(slipstream_trace)
        assert len(slipstream_trace.connections) == 1
    """
    result = run(pytester, dedented(source))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*invariant 2: *"])


def test_the_marker_is_told(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(
        ["@pytest.mark.slipstream_verify: the records of all connections that the test opens have *"]
    )


def dedented(source: str) -> str:
    """Return a source without the four spaces that it is indented by."""
    return "\n".join(line.removeprefix("    ") for line in source.splitlines())
