"""The library's own swarm: its guarantees hold in many worlds, whatever happens in them."""

import signal
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from tests.simulation.visits import ALL, VISITS, contexts, rooms

from slipstream_trio.testing.server import Mount
from slipstream_trio.testing.simulation import (
    FEATURES,
    Report,
    Run,
    SimulatedClient,
    Simulation,
    Swarm,
    World,
)
from slipstream_trio.testing.simulation.__main__ import main, parse
from slipstream_trio.testing.simulation.oracles import Wrong

SHORT: dict[str, Any] = {"steps": 4, "faults": 2}
CORPUS = [line for line in Path(__file__).with_name("seeds.txt").read_text().splitlines() if not line.startswith("#")]


def drawn(first: int, last: int, simulation: Simulation = ALL, **given: Any) -> Swarm:
    return simulation.swarm(range(first, last), **SHORT, **given)


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_what_is_guaranteed_holds(first: int) -> None:
    drawn(first, first + 25).check()


@pytest.mark.parametrize("words", CORPUS)
def test_what_once_failed_holds(words: str) -> None:
    asked, given = parse(words.split())
    report = asked.simulation.run(asked.simulation.draw(asked.seed, **given))
    assert report.violations == ()
    assert report.command.endswith(words)


@pytest.mark.parametrize("kind", ["interrupt", "terminate", "exit", "quit"])
def test_what_is_guaranteed_holds_when_a_run_is_interrupted(kind: str) -> None:
    total = drawn(0, 8, VISITS, interrupt=kind)
    total.check()
    assert total.faults[kind] == 8


@pytest.mark.parametrize("kind", ["interrupt", "terminate", "exit", "quit"])
def test_a_run_is_interrupted_at_each_of_its_steps(kind: str) -> None:
    total = ALL.swarm([0], clients=1, steps=1, features=(), interrupt=kind, everywhere=True)
    total.check()
    assert total.faults[kind] == total.runs > 10


def test_a_run_is_interrupted_where_the_shell_ignores_that() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        report = HELLO.run(HELLO.draw(0, clients=1, features=(), interrupt="interrupt"))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert report.violations == ()
    assert report.faults["interrupt"] == 1


def test_with_tls_a_seed_makes_one_run_too() -> None:
    simulation = attrs.evolve(ALL, tls=contexts)
    scenario = simulation.draw(6, **SHORT, features=("tls", "reset", "node_crash"))
    first, second = simulation.run(scenario), simulation.run(scenario)
    assert first.violations == ()
    assert first.digest == second.digest
    assert first.digest != ALL.run(attrs.evolve(scenario, features=scenario.features[1:])).digest


@pytest.mark.parametrize("name", ["websockets", "longpoll"])
def test_clients_may_have_another_transport(name: str) -> None:
    pytest.importorskip({"websockets": "websockets", "longpoll": "h11"}[name])
    drawn(0, 8, attrs.evolve(ALL, transports=(name,))).check()


def crashes(run: Run) -> Iterator[str | None]:
    """Find fault with every crash of a server."""
    yield "it crashed" if run.faults["node_crash"] else None


def test_a_failing_seed_is_made_smaller() -> None:
    simulation = attrs.evolve(ALL, oracles=(crashes,))
    given: dict[str, Any] = {"features": ("node_crash", "latency"), "steps": 2, "clients": 2, "nodes": 2, "faults": 6}
    [report] = simulation.swarm([1], **given).failures
    assert (report.scenario.features, report.scenario.clients, report.scenario.nodes) == (("node_crash",), 1, 1)
    assert "crashes: it crashed" in str(report)
    assert "world: node_crash" in str(report)
    assert report.original == f"SIMULATION.run({simulation.draw(1, **given)!r})"
    assert report.original in str(report)


def crashes_or_resets(run: Run) -> Iterator[Wrong]:
    """Find fault with crashes of servers, and with other things."""
    yield "it crashed" if run.faults["node_crash"] else None
    yield "it was reset, 7 times" if run.faults["network: Reset"] else None


def test_what_is_made_smaller_stays_the_same_bug() -> None:
    given: dict[str, Any] = {"features": ("node_crash", "reset"), "steps": 12, "faults": 20}
    [report] = attrs.evolve(ALL, oracles=(crashes_or_resets,)).swarm([1], **given).failures
    assert report.scenario.features == ("node_crash",)


def second_message(run: Run) -> Iterator[Wrong]:
    """Find fault with the second message that comes."""
    yield from (("it came", note.at) for note in [*run.noted("got")][1:2])


def test_the_history_is_of_the_moment_and_shows_the_network() -> None:
    simulation = attrs.evolve(ALL, oracles=(second_message,))
    report = simulation.run(simulation.draw(0, steps=40, clients=1, features=("stall", "latency"), faults=40))
    assert report.violations[0].at is not None
    assert sum(": got " in line for line in report.history) >= 2
    assert float(report.history[-1].split()[0]) < report.seconds / 2
    assert any("network: Stall" in line for line in report.history)


async def hello(client: SimulatedClient) -> None:
    async with client.connect() as socket, socket.join("room:0") as channel:
        reply = await channel.push("echo", {"token": client.token()})
        client.log("answered", reply["token"])


async def careless(_: SimulatedClient) -> None:
    raise LookupError("a bug in the program")


HELLO = Simulation(program=hello, mounts=rooms)
CARELESS = Simulation(program=careless, mounts=rooms)


async def exits(_: SimulatedClient) -> None:
    raise SystemExit("a bug in the program")


def no_mounts(world: World) -> Mapping[str, Mount]:
    raise LookupError(f"a bug in the mounts of {world}")


def fails(_: Run) -> Iterator[Wrong]:
    yield None
    raise KeyError("a bug in the oracle")


@pytest.mark.parametrize(
    ("simulation", "told"),
    [
        (Simulation(program=exits, mounts=rooms), "SystemExit('a bug in the program') left the run"),
        (Simulation(program=hello, mounts=no_mounts), "LookupError("),
        (Simulation(program=hello, mounts=rooms, oracles=(fails,)), "fails: the oracle raised KeyError("),
    ],
)
def test_what_nobody_asked_for_is_told_with_its_seed(simulation: Simulation, told: str) -> None:
    [report] = simulation.swarm([3], steps=1, clients=1).failures
    assert told in str(report)
    assert "seed=3" in report.command


async def waits_for_what_will_not_come(client: SimulatedClient) -> None:
    async with client.connect() as socket, trio.open_nursery() as nursery:
        channel = socket.channel("room:1")
        follower = client.follower(channel)
        nursery.start_soon(follower.run)
        response = await channel.join()
        follower.start_at(response["next"])
        nursery.start_soon(follower.reach, response["next"] + 1000)
        await client.rest(1)
        await channel.leave()


def test_nobody_waits_for_the_messages_of_a_stream_that_has_ended() -> None:
    simulation = Simulation(program=waits_for_what_will_not_come, mounts=rooms)
    report = simulation.run(simulation.draw(0, **SHORT, features=()))
    assert report.violations == ()


def test_a_program_of_the_users_is_run(slipstream_swarm: Callable[..., Swarm]) -> None:
    assert slipstream_swarm(HELLO, seeds=range(3), features=()).counts["pushes"] >= 3
    with pytest.raises(AssertionError, match="the program raised LookupError"):
        slipstream_swarm(CARELESS, seeds=[0])


def test_a_seed_is_run_in_its_world() -> None:
    report = HELLO.run(HELLO.draw(4, clients=1, features=()))
    assert report.violations == ()
    assert any("answered" in line for line in report.history)


@pytest.mark.once
def test_seeds_are_run_by_several_processes() -> None:
    here: list[Report] = []
    HELLO.swarm(range(3), progress=here.append)
    there: list[Report] = []
    HELLO.swarm(range(3), progress=there.append, jobs=2)
    assert [report.digest for report in here] == [report.digest for report in there]


def test_the_command_runs_a_seed_with_its_history(capsys: pytest.CaptureFixture[str]) -> None:
    report = ALL.run(ALL.draw(1_234_567, **SHORT, seconds=59.123456789))
    words = report.command.split()[3:]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"digest {report.digest}" in printed
    assert report.history[-1] in printed


def test_the_command_runs_many_and_tells_of_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tests.simulation.visits:ALL", "--seeds", "0-1", "--steps", "2", "--clients", "1"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert main(["tests.simulation.test_swarm:CARELESS", "--seeds", "1", "--steps", "1", "--clients", "1"]) == 1
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.startswith(
        "python -m slipstream_trio.testing.simulation tests.simulation.test_swarm:CARELESS --seed 0"
    )
    assert main(command.split()[3:]) == 1
    assert command in capsys.readouterr().out
    assert main(["tests.simulation.visits:ALL", "--seeds", "9", "--steps", "1", "--busy-days", "0"]) == 0
    assert "1 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("tests.simulation.visits", "has no name: give a module and the name of a Simulation in it, such as shop:SHOP"),
        ("no_shop:SHOP", "cannot import 'no_shop': ModuleNotFoundError: No module named 'no_shop'; start the"),
        ("tests.simulation.visits:SHOP", "'SHOP' in 'tests.simulation.visits' is missing: it has VISITS, ALL"),
        ("tests.simulation.visits:visits", "'visits' in 'tests.simulation.visits' is of the type function, not Simul"),
        ("slipstream_trio.errors:SHOP", "is missing: write SHOP = Simulation(program=buy, mounts=mounts) in it"),
        ("tests.simulation.visits:ALL --features lightning", "not 'lightning'"),
        ("tests.simulation.visits:ALL --everywhere", "--everywhere needs --interrupt"),
        ("tests.simulation.visits:ALL --seeds few", "invalid number_or_range value: 'few'"),
    ],
)
def test_the_command_says_what_it_lacks(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_the_command_teaches_its_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert "SHOP = Simulation(program=buy, mounts=mounts)" in printed
    assert all(meaning in printed for meaning in FEATURES.values())


def test_functions_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(TypeError, match=r"program: give a function such as `async def buy\(client\)`"):
        Simulation(program=rooms, mounts=rooms)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"mounts: give a function such as `def mounts\(world\)`"):
        Simulation(program=hello, mounts=hello)  # type: ignore[arg-type]
    Simulation(program=partial(hello), mounts=rooms, name="shop:SHOP")


def test_features_have_to_be_known() -> None:
    assert "node_crash" in FEATURES
    with pytest.raises(ValueError, match="not 'lightning'"):
        ALL.draw(1, features=("lightning",))
