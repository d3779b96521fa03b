"""`slipstream bench`: a load whose latencies count from when it was due."""

import json
import re
import subprocess
from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.cli.support import ANSI, COMMAND, Terminal, run_command, served
from trio.testing import MockClock

from slipstream_trio import JoinError
from slipstream_trio.cli import main
from slipstream_trio.testing.server import Channel, Mount, Outcome, PhoenixServer, Refuse, Reply, Request

pytest.importorskip("hdrh", reason="needs the extra `cli`")

from slipstream_trio.cli.bench_command import _Table
from slipstream_trio.cli.bench_load import MOST_KINDS, Load
from slipstream_trio.cli.bench_result import Result, Second
from slipstream_trio.cli.output import Output

PLAN: dict[str, Any] = {
    "process": 0,
    "processes": 1,
    "connections": 2,
    "ramp": 1.0,
    "duration": 10.0,
    "timeout": 30.0,
    "topics": ["room:{connection}"],
    "join_payload": None,
    "event": "echo",
    "payload": {},
    "rate": 10,
}


class Stalls(Channel):
    """Answers at once, but for a stall of 5 s, once."""

    stalled = False

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        if not Stalls.stalled:
            Stalls.stalled = True
            await trio.sleep(5)
        return Reply(payload)


async def measured(server: PhoenixServer, stop_after: float | None = None, **plan: Any) -> Result:
    """Run a load in virtual time against a server in memory."""
    from slipstream_trio.transport.trio_websocket import TrioWebSocketConnector

    result = Result()
    connector = TrioWebSocketConnector(lambda _: server.open_stream())
    asked = {"url": "ws://server/socket/websocket", "transport": connector, "push_timeout": 30}
    load = Load({**PLAN, "connect": asked, **plan}, result.add)
    async with server.run(), trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        if stop_after is not None:
            await trio.sleep(stop_after)
            load.pushing.cancel()
    return result


def server_of(channel: type[Channel], **options: Any) -> PhoenixServer:
    return PhoenixServer({"/socket": Mount(channels={"room:*": channel}, **options)})


async def test_a_stall_counts_for_all_pushes_that_were_due_meanwhile(autojump_clock: MockClock) -> None:
    Stalls.stalled = False
    result = await measured(server_of(Stalls), connections=1)
    pushes = result.latencies["push"]
    assert result.counts["due"] == result.counts["replies"] == pushes.total_count == 100
    late = [5 - due / 10 for due in range(50)]
    assert pushes.get_value_at_percentile(100) / 1e6 == pytest.approx(5, rel=0.01)
    for share in (60, 75, 99):
        expected = sorted([*late, *[0.0] * 50])[share - 1]
        assert pushes.get_value_at_percentile(share) / 1e6 == pytest.approx(expected, abs=0.11)
    assert pushes.get_value_at_percentile(40) < 1000
    assert not result.errors


async def test_connections_are_opened_over_the_ramp_and_pushes_begin_after_it(autojump_clock: MockClock) -> None:
    result = await measured(server_of(Stalls), connections=10, ramp=10.0)
    opened = [second.open for _, second in sorted(result.seconds.items())]
    assert opened[:10] == sorted(opened[:10])
    assert opened[10] == 10
    due = [second.counts["due"] for _, second in sorted(result.seconds.items())]
    assert sum(due[:9]) == 0
    assert sum(due) == 100


async def test_pushes_begin_after_the_last_join_also_where_one_that_had_joined_has_failed(
    autojump_clock: MockClock,
) -> None:
    class Slow(Channel):
        async def join(self, payload: Any) -> Any:
            if self.topic == "room:1":
                server.connections[0].drop()
                await trio.sleep(5)

        async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
            return Reply(payload)

    requests = count(1)

    def refuse_the_third(_: Request) -> None:
        if next(requests) > 2:
            raise Refuse(403)

    server = server_of(Slow, connect=refuse_the_third)
    result = await measured(server, ramp=0.1)
    due = [second.counts["due"] for _, second in sorted(result.seconds.items())]
    assert (result.errors["connection: lost"], result.errors["push: ConnectionLost"]) == (1, 50)
    assert sum(due[:4]) == 0
    assert sum(due) == 100


async def test_it_ends_early_when_that_is_asked_for(autojump_clock: MockClock) -> None:
    result = await measured(server_of(Stalls), stop_after=5)
    assert 30 <= result.counts["replies"] <= 50


async def test_what_fails_is_counted_by_kind(autojump_clock: MockClock) -> None:
    class Fails(Channel):
        asked = 0

        async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
            if event == "count":
                Fails.asked += 1
                return Reply({"asked": Fails.asked}, status="error")
            return Reply({}, status="error") if event == "echo" else None

    result = await measured(server_of(Fails))
    assert result.errors == {"push: PushError: {}": 100}
    assert result.latencies["push"].total_count == 100, "an answer is an answer"
    result = await measured(server_of(Fails), topics=["shut:{connection}"])
    said = JoinError("shut:{connection}", {"reason": "unmatched topic"})
    assert result.errors == {f"client: JoinError: {said}": 2, "push: no channel is joined": 100}
    result = await measured(server_of(Fails), event="silence")
    assert result.errors["push: PushTimeout"] == 100
    result = await measured(server_of(Fails), event="count")
    assert len(result.errors) == MOST_KINDS + 1
    assert result.errors["push: PushError"] == 100 - MOST_KINDS

    def refuse(_: Request) -> None:
        raise Refuse(503)

    result = await measured(server_of(Fails, connect=refuse), stop_after=20)
    assert result.errors["connection: rejected"] > 2
    assert result.counts["replies"] == 0


def test_results_merge_as_if_they_were_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for number, latency in enumerate([1000, 3000]):
        second = Second(Counter(due=1, replies=1), open=2)
        errors = Counter({"push: PushTimeout": 1})
        result = Result([{"url": f"ws://{number}"}], {1_700_000_000: second}, errors=errors)
        for times in (second.latencies, result.latencies["push"], result.latencies["connect"]):
            times.record_value(latency)
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(result.to_json())
    whole, page = tmp_path / "whole.json", tmp_path / "whole.html"
    assert main(["bench", "merge", *map(str, paths), "--json", str(whole), "--html", str(page)]) == 0
    assert re.search(r"push +2 +1\.00 ms +3\.00 ms", capsys.readouterr().out)
    read = json.loads(whole.read_text())
    assert read["counts"] == {"due": 2, "replies": 2}
    assert read["seconds"]["1700000000"]["open"] == 4
    assert [plan["url"] for plan in read["plans"]] == ["ws://0", "ws://1"]
    assert main(["bench", "merge", str(whole)]) == 0, "merged results merge again"
    assert page.read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["merge"], "merge needs files"),
        (["merge", "nowhere.json"], "nowhere.json: No such file or directory"),
        (["merge", __file__], "not a result of `slipstream bench --json`"),
        (["ws://localhost/", "more"], "FILE is for merge"),
        (["ws://localhost/", "--json", "/nowhere/at/all.json"], "it cannot be written"),
    ],
)
def test_a_mistake_is_told_in_a_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) in (1, 2)
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert err.count("\n") == 1


def test_results_are_overwritten_by_force_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, both = tmp_path / "one.json", tmp_path / "both.json"
    one.write_text(Result().to_json())
    both.write_text("precious")
    assert main(["bench", "merge", str(one), "--json", str(both)]) == 1
    assert capsys.readouterr().err == f"slipstream: {both} exists: --force overwrites it\n"
    assert both.read_text() == "precious"
    assert main(["bench", "merge", str(one), "--json", str(both), "--force"]) == 3, "there is no connection in it"
    assert json.loads(both.read_text())["counts"] == {}


@pytest.mark.once
def test_processes_share_the_load_of_a_real_server(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    run = partial(subprocess.run, capture_output=True, text=True, check=False, timeout=120)
    with served() as listening:
        words = [
            "--processes",
            "2",
            "--connections",
            "4",
            "--duration",
            "2",
            "--rate",
            "20",
            "--topic",
            "lab:{connection}",
        ]
        url = listening.url("/socket/websocket?key=s3cret")
        done = run([*COMMAND, "bench", url, *words, "--auth-token", "t0ken", "--json", str(path)])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^push +40 ", done.stdout, re.MULTILINE)
    read = json.loads(path.read_text())
    assert (read["counts"]["due"], read["counts"]["replies"], read["errors"]) == (40, 40, {})
    assert not [secret for secret in ("s3cret", "t0ken") if secret in done.stdout + path.read_text()]


@pytest.mark.once
def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    with served() as listening:
        command = [*COMMAND, "bench", listening.url("/socket/websocket"), "--topic", "lab:1", "--duration", "30"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 1


@pytest.mark.once
def test_a_server_that_is_not_there_is_told_in_a_line() -> None:
    done = run_command("bench", "ws://127.0.0.1:1/socket/websocket")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("slipstream: no connection to 127.0.0.1 port 1: ")
    assert done.stderr.count("\n") == 1


SHUT = "the server refused the join of 'lab:shut': {'reason': 'shut', 'you_said': {'token': '[redacted]'}}"


@pytest.mark.once
@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--topic", "lab:{connection}", "--event", "nothing"], 1, "no push was answered (push: PushTimeout)"),
        (["--topic", "lab:shut"], 1, f"no push was answered (client: JoinError: {SHUT})"),
        (["--topic", "lab:shut", "--rate", "0"], 0, ""),
        (["--param", "token=refused"], 3, "no connection was ever open (client: ConnectionRejected: the server"),
    ],
)
def test_a_load_without_answers_fails_with_what_the_server_said(more: list[str], status: int, said: str) -> None:
    words = ["--duration", "0.1", "--timeout", "2", "--join-payload", '{"token": "s3cret"}', *more]
    with served() as listening:
        done = run_command("bench", listening.url("/socket/websocket"), *words)
    assert done.returncode == status
    assert done.stderr.startswith(f"slipstream: {said}") if said else done.stderr == ""
    assert "s3cret" not in done.stdout


@pytest.mark.parametrize(("columns", "last"), [(80, "errors"), (200, "messages"), (None, "messages"), (5, None)])
def test_the_table_has_the_columns_that_a_terminal_has_room_for(columns: int | None, last: str | None) -> None:
    terminal, result = Terminal(), Result(seconds={1_700_000_000: Second(Counter(due=1234567))})
    _Table(Output(terminal, width=columns, colour=True), result).show(last=True)
    head, row = ANSI.sub("", terminal.getvalue()).splitlines()
    assert next(reversed(head.split()), None) == last
    assert len(head) == len(row) < (columns or 200)
