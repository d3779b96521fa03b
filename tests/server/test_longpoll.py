"""Long-polling, as the server for tests speaks it: request by request."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from tests.server.app import CHANNELS, connect, make_server
from trio.testing import MockClock

from slipstream_trio.testing.server import MemoryStream, Mount, PhoenixServer, Request

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "longpoll_exchange.json").read_text(encoding="utf-8"))
PATH = "/socket/longpoll?vsn=2.0.0"
NDJSON = (("content-type", "application/x-ndjson"),)


class Client:
    """Asks over one connection that stays open."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)
        self.headers: dict[str, str] = {}
        self.token: str | None = None

    async def ask(
        self, method: str = "GET", body: str = "", *, path: str = PATH, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[int, Any]:
        """Return the HTTP status and the body, decoded if it is JSON."""
        target = path if self.token is None else f"{path}&token={self.token}"
        fields = [("host", "any"), ("content-length", str(len(body.encode()))), *headers]
        asked = h11.Request(method=method, target=target, headers=fields)
        events = [asked, h11.Data(data=body.encode()), h11.EndOfMessage()]
        await self.stream.send_all(b"".join(self.http.send(event) or b"" for event in events))
        status, said = await self._answer()
        return status, json.loads(said) if said[:1] == b"{" else said.decode()

    async def _answer(self) -> tuple[int, bytes]:
        status, said = 0, b""
        while True:
            match self.http.next_event():
                case h11.NEED_DATA:
                    self.http.receive_data(await self.stream.receive_some())
                case h11.Response() as response:
                    status = response.status_code
                    self.headers = {name.decode(): value.decode() for name, value in response.headers}
                case h11.Data(data=data):
                    said += data
                case _:
                    if self.http.our_state is h11.DONE:
                        self.http.start_next_cycle()
                    return status, said

    async def open(self) -> None:
        status, said = await self.ask()
        assert (status, said["status"], said["messages"]) == (200, 410, [])
        self.token = said["token"]

    async def post(self, *frames: str) -> int:
        _, said = await self.ask("POST", "\n".join(frames), headers=NDJSON)
        status: int = said["status"]
        return status

    async def poll(self) -> tuple[int, list[str]]:
        _, said = await self.ask()
        assert said["token"] == self.token or said["status"] == 410
        return said["status"], said["messages"]


@asynccontextmanager
async def asking(server: PhoenixServer | None = None) -> AsyncIterator[tuple[Client, PhoenixServer]]:
    async with (server or make_server()).run() as running:
        yield Client(await running.open_stream()), running


async def test_it_answers_as_recorded(autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        for step in RECORDED:
            headers = NDJSON if step["method"] == "POST" else ()
            await trio.sleep(0.1)
            status, said = await client.ask(step["method"], step["body"] or "", headers=headers)
            recorded = json.loads(step["response"])
            if "messages" in recorded:  # in whatever order their keys are
                said["messages"], recorded["messages"] = (
                    [json.loads(message) for message in answer["messages"]] for answer in (said, recorded)
                )
                client.token = said["token"]
                recorded["token"] = client.token
            assert (status, said) == (step["http"], recorded)


async def test_a_poll_waits_for_messages_until_its_window_ends(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        started = trio.current_time()
        assert await client.poll() == (204, [])
        assert trio.current_time() - started == 10
        await client.post('["1","1","echo:1","phx_join",{}]')
        await client.poll()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.poll)
            await trio.sleep(3)
            started = trio.current_time()
            await server.broadcast("echo:1", "said", {})
        assert trio.current_time() == started


async def test_the_latest_poll_gets_what_comes(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        other = Client(await server.open_stream())
        other.token = client.token
        answers: dict[str, int] = {}

        async def poll(name: str, who: Client) -> None:
            answers[name] = (await who.poll())[0]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll, "first", client)
            await trio.sleep(1)
            nursery.start_soon(poll, "second", other)
            await trio.sleep(1)
            await server.connections[0].send_raw("[]")
        assert answers == {"first": 204, "second": 200}


async def test_a_session_that_is_not_polled_ends_and_the_next_poll_opens_another(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        await trio.sleep(14)
        assert len(server.sessions) == 1
        await trio.sleep(20)
        assert not server.sessions
        started = trio.current_time()
        assert await client.post("[]") == 410
        assert trio.current_time() - started == 2
        assert await client.poll() == (410, [])
        assert len(server.connections) == 1


async def test_a_token_that_no_server_signed_opens_a_session_at_once(autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        client.token = "s3cr3t"
        started = trio.current_time()
        assert await client.poll() == (410, [])
        assert trio.current_time() == started


async def test_the_token_may_come_in_a_header(autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        await client.open()
        token, client.token = client.token, None
        _, said = await client.ask(headers=[("x-phoenix-longpoll-token", str(token))])
        assert said["status"] == 204


async def test_a_hundred_frames_of_a_post_are_read(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        assert await client.post(*['[null,"1","phoenix","heartbeat",{}]'] * 101) == 200
        assert len(server.connections[0].received) == 100


async def test_binary_frames_are_posted_as_base64_and_have_no_form_in_answers(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        push = b"\x00\x01\x01\x06\x0712echo:1noreply\xff"
        assert await client.post('["1","1","echo:1","phx_join",{}]', b64encode(push).decode()) == 200
        await client.poll()
        assert server.connections[0].received[-1].payload == b"\xff"
        await server.connections[0].send_raw(b"\x02\x01\x01tetext")
        assert await client.poll() == (200, ["\x02\x01\x01tetext"])
        await server.connections[0].send_raw(b"\x02\x01\x01te\xff")
        assert (await client.ask())[0] == 500
        assert (await client.ask("POST", "no base64", headers=NDJSON))[0] == 500


async def test_other_bodies_are_one_frame(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        frame = '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}'
        await client.ask(path="/socket/longpoll?vsn=1.0.0")
        client.token = next(iter(server.sessions))
        assert (await client.ask("POST", frame))[1] == {"status": 200}
        status, (message,) = await client.poll()
        assert (status, json.loads(message)["event"]) == (200, "phx_reply")


async def test_a_post_waits_for_what_it_has_begun_for_a_window_at_most(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        started = trio.current_time()
        assert await client.post('["1","1","slowjoin:1","phx_join",{"ms":9000}]') == 200
        assert trio.current_time() - started == 9
        server.connections[0].pause_reading()
        assert await client.post('[null,"2","phoenix","heartbeat",{}]') == 408


async def test_a_frame_that_cannot_be_read_ends_the_session(autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        assert await client.post("[") == 200
        await trio.sleep(0.1)
        assert server.connections == ()
        assert await client.post("[]") == 410


@pytest.mark.parametrize("reason", ["bad", "reason"])
async def test_every_refusal_is_a_403_in_the_body(reason: str, autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        assert await client.ask(path=f"{PATH}&token={reason}") == (200, {"status": 403})
        assert await client.ask(path="/socket/longpoll?vsn=3.0.0") == (200, {"status": 403})


async def test_a_crash_of_connect_is_a_500(autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        status, _ = await client.ask(path=f"{PATH}&token=raise")
        assert status == 500


async def test_the_token_for_authentication_comes_in_a_header(autojump_clock: MockClock) -> None:
    seen: list[str | None] = []

    def note(request: Request) -> None:
        seen.append(request.auth_token)

    for taken in (True, False):
        async with asking(PhoenixServer({"/socket": Mount(connect=note, auth_token=taken)})) as (client, _):
            await client.ask(headers=[("x-phoenix-authtoken", "s3cr3t")])
    assert seen == ["s3cr3t", None]


async def test_browsers_of_other_origins_are_let_in(autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        await client.open()
        assert client.headers["access-control-allow-origin"] == "*"
        asked = [("access-control-request-headers", "content-type")]
        assert await client.ask("OPTIONS", headers=asked) == (200, "")
        assert client.headers["access-control-allow-headers"] == "content-type"
        assert client.headers["access-control-allow-methods"] == "get, post, options"
        assert (await client.ask("DELETE"))[0] == 400


@pytest.mark.parametrize(
    ("mount", "path"), [({"longpoll": False}, PATH), ({"websocket": False}, "/socket/websocket"), ({}, "/longpoll")]
)
async def test_what_is_not_served_is_not_found(mount: dict[str, Any], path: str, autojump_clock: MockClock) -> None:
    async with asking(PhoenixServer({"/socket": Mount(**mount)})) as (client, _):
        assert (await client.ask(path=path))[0] == 404


async def test_a_body_above_the_limit_is_refused(autojump_clock: MockClock) -> None:
    async with asking() as (client, _):
        await client.open()
        assert (await client.ask("POST", "x" * 8_000_001))[0] == 400


async def test_a_client_that_leaves_before_its_answer_costs_nothing(autojump_clock: MockClock) -> None:
    server = PhoenixServer({"/socket": Mount(connect=connect, channels=CHANNELS)})
    async with server.run():
        for sent in (
            b"POST /socket/longpoll HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx",
            b"GET /s",
            b"\x00\r\n\r\n",
        ):
            stream = await server.open_stream()
            await stream.send_all(sent)
            await stream.aclose()
        stream = await server.open_stream()
        await stream.send_all(b"GET /socket/longpoll?vsn=2.0.0&sleep_ms=9000 HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(1)
        await stream.aclose()
        await trio.sleep(60)
        assert server.connections == ()
        assert not server.errors


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_the_server_s_end_cuts_polls(end: str, autojump_clock: MockClock) -> None:
    async with asking() as (client, server):
        await client.open()
        async with trio.open_nursery() as nursery:

            async def poll() -> None:
                with pytest.raises((trio.BrokenResourceError, h11.RemoteProtocolError)):
                    await client.poll()

            nursery.start_soon(poll)
            await trio.sleep(1)
            await getattr(server, end)()
        assert server.connections == ()
        assert server.sessions == {}
