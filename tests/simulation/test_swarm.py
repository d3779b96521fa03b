"""The library's own swarm: its guarantees hold in many worlds, whatever happens in them."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from slipstream_trio.testing.simulation import (
    FEATURES,
    Report,
    Run,
    Scenario,
    SimulatedClient,
    Simulation,
    Swarm,
    simulate,
    swarm,
)
from slipstream_trio.testing.simulation.__main__ import main, parse

SHORT: dict[str, Any] = {"steps": 4, "faults": 2}
CORPUS = [line for line in Path(__file__).with_name("seeds.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_what_is_guaranteed_holds(first: int) -> None:
    swarm(seeds=range(first, first + 25), given=SHORT).check()


@pytest.mark.parametrize("words", CORPUS)
def test_what_once_failed_holds(words: str) -> None:
    asked, given = parse(words.split())
    simulate(seed=asked.seed, given=given)
    report = simulate(seed=asked.seed, given=given)
    assert report.violations == ()
    assert report.command.endswith(words)


@pytest.mark.parametrize("kind", ["interrupt", "terminate", "exit"])
def test_what_is_guaranteed_holds_when_a_run_is_interrupted(kind: str) -> None:
    total = swarm(seeds=range(8), given={**SHORT, "interrupt": kind})
    total.check()
    assert total.faults[kind]


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("server", key_type=trustme.KeyType.RSA).configure_cert(server)
    authority.configure_trust(client)
    return server, client


def test_with_tls_a_seed_makes_one_run_too() -> None:
    given = {**SHORT, "features": ("tls", "reset", "node_crash")}
    first, second = (simulate(seed=6, given=given, tls=contexts) for _ in range(2))
    assert first.violations == ()
    assert first.digest == second.digest


def test_clients_may_have_another_transport() -> None:
    pytest.importorskip("websockets")
    swarm(seeds=range(4), given=SHORT, transport="websockets").check()


def deaf(run: Run) -> Any:
    """Find fault with every crash of a server."""
    yield "it crashed" if run.faults["node_crash"] else None


def test_a_failing_seed_is_made_smaller() -> None:
    [report] = swarm(seeds=[1], given={"features": tuple(FEATURES)[:-1]}, oracles=(deaf,)).failures
    assert (report.scenario.features, report.scenario.clients, report.scenario.nodes) == (("node_crash",), 1, 1)
    assert "deaf: it crashed" in str(report)
    assert "node_crash" in str(report)


async def hello(client: SimulatedClient) -> None:
    async with client.connect() as socket, socket.join("room:0") as channel:
        reply = await channel.push("echo", {"token": client.token()})
        client.log("answered", reply["token"])


async def careless(client: SimulatedClient) -> None:
    raise LookupError("a bug in the program")


def test_a_program_of_the_users_is_run(slipstream_swarm: Callable[..., Swarm]) -> None:
    assert slipstream_swarm(hello, seeds=range(3), given={"features": ()}).counts["pushes"] >= 3
    with pytest.raises(AssertionError, match="the program raised LookupError"):
        slipstream_swarm(careless, seeds=[0])


def test_seeds_are_run_by_several_processes() -> None:
    here: list[Report] = []
    swarm(seeds=range(3), given=SHORT, progress=here.append)
    there: list[Report] = []
    swarm(seeds=range(3), given=SHORT, progress=there.append, jobs=2)
    assert [report.digest for report in here] == [report.digest for report in there]


def test_the_command_runs_a_seed_with_its_history(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = Scenario(3, steps=2)
    assert main(scenario.arguments().split()) == 0
    report = simulate(
        seed=3, given={"clients": 2, "nodes": 2, "seconds": 60.0, "steps": 2, "faults": 6, "features": ()}
    )
    assert report.digest in capsys.readouterr().out


def test_the_command_runs_many_and_tells_of_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0-1", "--steps", "2", "--clients", "1"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert main(["--seeds", "1", "--steps", "1", "--clients", "1", "tests.simulation.test_swarm:careless"]) == 1
    assert "python -m slipstream_trio.testing.simulation tests.simulation.test_swarm:careless --seed 0" in (
        capsys.readouterr().out
    )


def test_a_simulation_is_one_object_too() -> None:
    simulation = Simulation(program=hello)
    assert simulation.run(simulation.draw(2, **SHORT)).scenario.seed == 2
