"""Plays the client's side of a recorded scenario against the server, and compares what comes back."""

import ast
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio
from tests.server.app import make_server
from tests.server.raw_client import RawClient
from tests.transcripts import TRANSCRIPTS, read_lines
from wsproto.events import Event, Ping, Pong

from slipstream_trio.testing.server import Flavour, PhoenixServer, Version
from slipstream_trio.testing.server.server import GRACE_PERIOD

SERVERS: dict[str, tuple[Flavour, Version]] = {
    "phoenix-1.7.24-bandit": ("bandit", "1.7.24"),
    "phoenix-1.8.12-bandit": ("bandit", "1.8.12"),
    "phoenix-1.8.12-cowboy": ("cowboy", "1.8.12"),
}

Line = dict[str, Any]
Step = tuple[float, Callable[[], Awaitable[object]]]
Logged = tuple[float, tuple[Any, ...]]
Opened = tuple[int | None, dict[str, str], str] | type[ConnectionRefusedError]
Refs = dict[str, str]

USER_AGENT = "Python/3.11 websockets/17.4"
PIPELINED_WITHIN = 1.0
"""Sends so close together, in milliseconds, were not spaced by anything but the client's own speed: one write."""
EARLIEST, LATEST = 0.36, 0.01
"""How much earlier than Phoenix, and how much later, an answer may come, in seconds: our time is virtual, so that
only sleeps and timeouts take any; theirs has code loading in it, and Cowboy's coarse timer."""


def scenarios() -> list[str]:
    return sorted(f"{path.parent.name}/{path.stem}" for path in TRANSCRIPTS.glob("*/*.jsonl"))


class Replay:
    def __init__(self, name: str) -> None:
        self.directory, self.scenario = name.split("/")
        self.lines: list[Line] = list(read_lines(TRANSCRIPTS / f"{name}.jsonl"))
        self.server = make_server(*SERVERS[self.directory])
        self.port = next(
            urlsplit(line["url"]).port for line in self.lines if line["dir"] == "open" and "status" in line
        )
        self.clients: dict[str, RawClient] = {}
        self.opened: list[Opened] = []

    async def run(self) -> None:
        """Play the client's side."""
        async with self.server.run(), trio.open_nursery() as nursery:
            self.nursery = nursery
            for at, act in self.script():
                await trio.sleep_until(at)
                await act()
            with trio.fail_after(30):
                for client in self.clients.values():
                    await client.over.wait()

    # What the client does

    def script(self) -> list[Step]:
        """Return (time in seconds, async function) in order."""
        steps = list(self.recorded_steps())
        if self.scenario in RECONSTRUCTED:
            steps += RECONSTRUCTED[self.scenario](self)
        return sorted(steps, key=lambda step: step[0])

    def recorded_steps(self) -> Iterator[Step]:
        previous = 0.0
        closed: set[str] = set()
        batch: list[str | bytes] = []
        for line, following in zip(self.lines, [*self.lines[1:], None], strict=True):
            at, conn = line["t_ms"], line.get("conn", "")
            if line["dir"] == "open":
                # The time noted is that of the answer; it was asked for when the step before was done.
                yield previous / 1000, partial(self.open, line)
            elif line["dir"] == "send" and conn not in closed:
                batch.append(sent_frame(line))
                if not (following and is_pipelined(line, following)):
                    yield at / 1000, partial(self.send, conn, batch)
                    batch = []
            elif line["dir"] == "close":
                closed.add(conn)
                if line["by"] == "client":
                    # In this scenario the connections are named for the codes that the client closed with.
                    code = int(conn) if self.scenario == "client_close_codes" else 1000
                    yield at / 1000, partial(self.close, conn, code)
            previous = at

    async def open(self, line: Line) -> None:
        url = urlsplit(line["url"])
        if url.port != self.port:
            self.opened.append(ConnectionRefusedError)  # another port, where nobody listens
            return
        try:
            stream = await self.server.open_stream()
        except ConnectionRefusedError:
            self.opened.append(ConnectionRefusedError)
            return
        client = RawClient(stream)
        target = f"{url.path}?{url.query}" if url.query else url.path
        await client.open(target, host=url.netloc, **self.client_options(line.get("conn", "")))
        self.opened.append((client.status, client.headers, client.body))
        if client.status == 101:
            self.clients[line.get("conn", "")] = client
            self.nursery.start_soon(client.read)

    def client_options(self, conn: str) -> dict[str, Any]:
        """Return what the client sent that the recording does not show, but its server's answers do."""
        match self.scenario:
            case "connect_params_seen_by_server":
                return {"headers": [("user-agent", "ua/1"), ("x-test", "v1"), ("x-other", "v2")]}
            case "auth_token_subprotocol":
                token = "base64url.bearer.phx.czNjcjN0IMO8"
                offered = ["phoenix", token] if conn == "plain" else ast.literal_eval(str(conn)) or []
                return {"headers": [("user-agent", USER_AGENT)], "subprotocols": offered}
            case "permessage_deflate":
                return {"deflate": conn != "none"}
        return {"headers": [("user-agent", USER_AGENT)]}

    async def send(self, conn: str, frames: list[str | bytes]) -> None:
        await self.clients[conn].send_all(*frames)

    async def close(self, conn: str, code: int) -> None:
        await self.clients[conn].close(code)

    def time_of(self, kind: str) -> float:
        return float(next(line["t_ms"] for line in self.lines if line["dir"] == kind)) / 1000


def is_pipelined(line: Line, following: Line) -> bool:
    return (
        following["dir"] == "send"
        and following.get("conn") == line.get("conn")
        and following["t_ms"] - line["t_ms"] < PIPELINED_WITHIN
    )


# What was sent, where the recording does not hold it


def sent_frame(line: Line) -> str | bytes:
    if "text" in line:
        return str(line["text"])
    if "b64" in line:
        return base64.b64decode(line["b64"])
    if "text_head" in line:
        return rebuilt(line["text_head"], line, end='"}]')
    return base64.b64decode(rebuilt(line["b64_head"], line, end="qw=="))


def rebuilt(head: str, line: Line, end: str) -> str:
    """Return the long value with this head: its last characters repeated, up to its known length and digest."""
    unit = head[-4:]  # three bytes in base64; and four times the same character
    fill = line["len"] - len(head) - len(end)
    value: str = head + (unit * (fill // 4 + 1))[:fill] + end
    assert digest(value) == line["sha256"], f"cannot rebuild {head!r}"
    return value


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def fragmented_message(replay: Replay) -> Iterable[Step]:
    text = json.dumps(["1", "50", "echo:fr", "echo", {"d": "é" * 50}], ensure_ascii=False)
    big = json.dumps(["1", "51", "echo:fr", "noreply", {"d": "x" * 9_000_000}])

    async def small() -> None:
        await replay.clients[""].send_fragments([text[i : i + 20] for i in range(0, len(text), 20)])

    async def large() -> None:
        await replay.clients[""].send_fragments([big[i : i + 1_000_000] for i in range(0, len(big), 1_000_000)])

    notes = [line["t_ms"] / 1000 for line in replay.lines if line["dir"] == "note"]
    return zip(notes, [small, large], strict=True)


def invalid_utf8_text(replay: Replay) -> Iterable[Step]:
    async def send() -> None:
        await replay.clients[""].send_raw(b"\x81\x82\x00\x00\x00\x00\xff\xfe")

    return [(replay.time_of("note"), send)]


def idle_timeout_kept_alive(replay: Replay) -> Iterable[Step]:
    beats = [line["t_ms"] / 1000 for line in replay.lines if line["dir"] == "send"]

    async def send(conn: str, event: Event) -> None:
        await replay.clients[conn].send_event(event)

    for at in beats:
        yield at, partial(send, "wsping", Ping())
        yield at, partial(send, "wspong", Pong())


def idle_timeout_server_traffic_only(replay: Replay) -> Iterable[Step]:
    for line in replay.lines:
        if line["dir"] == "recv" and '"tick"' in line["text"]:
            yield line["t_ms"] / 1000, partial(replay.server.broadcast, "echo:rx", "tick")


def server_ping(replay: Replay) -> Iterable[Step]:
    async def ping() -> None:
        await replay.clients[""].send_event(Ping(b"are you there"))

    return [(replay.time_of("note") - 0.005, ping)]


def server_stops(stop: Callable[[PhoenixServer], Awaitable[None]], replay: Replay) -> Iterable[Step]:
    """The server was told to stop shortly before the first connection ended, but for the grace it gave."""
    grace = GRACE_PERIOD if replay.server.web_server.stop_code is None else 0.0
    at = replay.time_of("close") - 0.001

    async def act() -> None:
        replay.nursery.start_soon(stop, replay.server)

    if replay.scenario == "server_graceful_stop_no_drainer":
        at -= grace
    return [(at, act)]


RECONSTRUCTED: dict[str, Callable[[Replay], Iterable[Step]]] = {
    "fragmented_message": fragmented_message,
    "invalid_utf8_text": invalid_utf8_text,
    "idle_timeout_kept_alive": idle_timeout_kept_alive,
    "idle_timeout_server_traffic_only": idle_timeout_server_traffic_only,
    "server_ping": server_ping,
    "server_graceful_stop": partial(server_stops, lambda server: server.stop()),
    "server_graceful_stop_no_drainer": partial(server_stops, lambda server: server.stop(drain=False)),
    "server_killed": partial(server_stops, lambda server: server.kill()),
}
"""What a client (or an operator) did that the recording tells in a note only: steps to add, by scenario."""


# The comparison


def differences(replay: Replay) -> list[str]:
    """Return how what came back differs from the recording, in sentences; [] if it does not."""
    found: list[str] = []
    opens = [line for line in replay.lines if line["dir"] == "open"]
    for line, got in zip(opens, replay.opened, strict=True):
        found += compare_open(line, got)
    refs: Refs = {}
    for conn, client in replay.clients.items():
        expected = [line for line in replay.lines if line["dir"] in {"recv", "close"} and line.get("conn", "") == conn]
        found += compare_conn(conn, expected, client.log, refs)
    return found


def compare_open(line: Line, got: Opened) -> list[str]:
    if "error" in line:
        return [] if isinstance(got, type) else [f"connected, but should not: {line['url']}"]
    if isinstance(got, type):
        return [f"not connected: {line['url']}"]
    random = {"sec-websocket-accept", "date"}
    expected = (line["status"], without(line["headers"], random), line.get("body", ""))
    answer = (got[0], without(got[1], random), got[2])
    return [] if expected == answer else [f"{line['url']}: {answer} instead of {expected}"]


def without(headers: dict[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def compare_conn(conn: str, expected: list[Line], log: list[Logged], refs: Refs) -> list[str]:
    mine = list(log)
    for i, line in enumerate(expected):
        if i >= len(mine):
            return [f"{conn}: {len(expected) - i} more expected: {line}"]
        if not matches(line, mine[i], refs):
            if not swapped(expected[i : i + 2], mine[i : i + 2], refs):
                return [f"{conn}: {mine[i]} instead of {line}"]
            mine[i : i + 2] = reversed(mine[i : i + 2])
            assert matches(line, mine[i], refs)
    return [f"{conn}: unexpected {extra}" for extra in mine[len(expected) :]]


def swapped(lines: list[Line], got: list[Logged], refs: Refs) -> bool:
    """Two frames which two processes of Phoenix send to one client, in an order that is anyone's guess.

    These are a channel's own reply or push, and a presence_diff that Phoenix broadcasts from a task. Both orders are
    in the recordings; nothing else may be swapped.
    """
    if len(lines) != 2 or len(got) != 2 or not all("text" in line for line in lines):
        return False
    events = {json.loads(line["text"])[3] for line in lines}
    if events not in ({"presence_diff", "phx_reply"}, {"presence_diff", "presence_state"}):
        return False
    trial = dict(refs)
    return matches(lines[0], got[1], trial) and matches(lines[1], got[0], trial)


def matches(line: Line, got: Logged, refs: Refs) -> bool:
    at, what = got
    if not -EARLIEST <= at - line["t_ms"] / 1000 <= LATEST or what[0] != line["dir"]:
        return False
    if line["dir"] == "close":
        return what[1:] == (line["code"], line["reason"], line["received_close_frame"], line["by"])
    frame = what[1]
    if line["opcode"] == "binary":
        if not isinstance(frame, bytes):
            return False
        if "b64" in line:
            return base64.b64decode(line["b64"]) == frame
        return is_long(line, base64.b64encode(frame).decode(), "b64_head")
    if not isinstance(frame, str):
        return False
    if "text_head" in line:
        return is_long(line, frame, "text_head")
    return line["text"] == frame or same_json(line["text"], frame, refs)


def is_long(line: Line, value: str, head: str) -> bool:
    return value.startswith(line[head]) and len(value) == line["len"] and digest(value) == line["sha256"]


def same_json(recorded: str, received: str, refs: Refs) -> bool:
    """Equal but for the order of keys, and for presence refs, which must differ consistently."""
    try:
        expected, got = json.loads(recorded), json.loads(received)
    except ValueError:
        return False
    trial = dict(refs)
    if not same_value(expected, got, trial) or len(set(trial.values())) != len(trial):
        return False
    refs.update(trial)
    return True


def same_value(expected: Any, got: Any, refs: Refs) -> bool:
    if type(expected) is not type(got):
        return False
    if isinstance(expected, list):
        pairs = zip(expected, got, strict=False)
        return len(expected) == len(got) and all(same_value(one, other, refs) for one, other in pairs)
    if isinstance(expected, dict):
        return expected.keys() == got.keys() and all(
            refs.setdefault(expected[key], got[key]) == got[key]
            if key in {"phx_ref", "phx_ref_prev"}
            else same_value(expected[key], got[key], refs)
            for key in expected
        )
    return bool(expected == got)
