"""Recordings of several processes together: the diagnosis tells what none of them can tell alone."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.trace.laboratory import Laboratory, recorded

from slipstream_trio import connect
from slipstream_trio.cli import main
from slipstream_trio.protocol import Backoff
from slipstream_trio.telemetry import Telemetry
from slipstream_trio.trace import record

OPTIONS: dict[str, Any] = {"params": {"user": "7"}, "reconnect": Backoff((1.5,), jitter=0)}


def causes(capsys: pytest.CaptureFixture[str], *paths: Path) -> list[tuple[str, str, int]]:
    assert main(["trace", "diagnose", "--json", "--jobs", "1", *map(str, paths)]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    return [(each["cause"], each["blame"], each["count"]) for each in findings]


@pytest.mark.parametrize("evicts", [True, False])
def test_two_processes_of_one_user_that_evict_each_other_are_told_by_both_recordings(
    evicts: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"

    async def incident(lab: Laboratory) -> None:
        lab.evicts = evicts
        other = Telemetry(time_ns=lab.telemetry.time_ns, monotonic_ns=lab.telemetry.monotonic_ns)
        with record(two, telemetry=other):
            async with lab.desk(**OPTIONS):
                await trio.sleep(5)
                async with lab.desk(telemetry=other, **OPTIONS):
                    for _ in range(3):
                        await trio.sleep(7)
                        if not evicts:
                            lab.server.disconnect("7")
                    await trio.sleep(2)

    recorded(one, incident)
    alone = causes(capsys, one)
    assert [cause for cause, _, _ in alone] == ["disconnected_by_server"]
    together = causes(capsys, one, two)
    assert len(together) == 1
    cause, blame, count = together[0]
    assert (cause, blame) == (("evicted", "application") if evicts else ("disconnected_by_server", "server"))
    assert count > alone[0][2]


def test_idle_closes_of_two_recordings_are_one_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def incident(lab: Laboratory, idle: float) -> None:
        options: dict[str, Any] = {"transport": lab.connector, "telemetry": lab.telemetry, **OPTIONS}
        async with connect("ws://lab/socket/websocket", heartbeat_interval=None, **options) as socket:
            await socket.channel("room:1").join()
            for _ in range(3):
                await trio.sleep(idle)
                lab.connection.drop()
                await trio.sleep(2)

    paths = [
        recorded(tmp_path / f"{idle}.jsonl", partial(incident, idle=idle), {"timeout": None}) for idle in (19.5, 20.5)
    ]
    assert causes(capsys, *paths) == [("idle_close", "configuration", 6)]
