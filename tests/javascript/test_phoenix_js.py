"""The official JavaScript client, npm's `phoenix`, finds in the server what it expects of Phoenix."""

from typing import Any

import pytest
from tests.javascript.driver import missing, playing, told
from tests.server.app import CHANNELS, make_server

from slipstream_trio import Socket, connect
from slipstream_trio.testing.server import Channel, Mount, Outcome, PhoenixServer, Reply

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

OK: list[Any] = ["ok", {}]


@pytest.fixture(params=["websocket", "longpoll"])
def transport(request: pytest.FixtureRequest) -> Any:
    """Return each of the official client's transports, for what they have in common.

    Long-polling has neither heartbeats there nor close codes, brings no binary frames to the client, and has the
    second version of the protocol only.
    """
    return request.param


async def test_a_topic_is_joined(transport: str) -> None:
    heard = await told(make_server(), "join", transport=transport)
    assert heard["join echo:1"] == ["ok", {"params": {"name": "Ada"}}]
    assert heard["state"] == "joined"
    assert heard["socket closed"] == (1000 if transport == "websocket" else 1005)


async def test_pushes_get_replies_of_any_status_or_none(transport: str) -> None:
    heard = await told(make_server(), "replies", transport=transport)
    assert heard["ok"] == ["ok", {"a": [1, "ü", None]}]
    assert heard["bare"] == OK
    assert heard["error"] == ["error", {"reason": "no"}]
    assert heard["custom"] == ["custom", {"status": "custom"}]
    assert heard["timeout"] == ["timeout", {}]
    assert heard["later"] == ["ok", {"ms": 20}]


async def test_pushes_before_the_join_are_sent_after_it(transport: str) -> None:
    heard = await told(make_server(), "pushedBeforeJoined", transport=transport)
    assert heard["joined"] == OK
    assert heard["answered"] == [["ok", {"n": n}] for n in (1, 2, 3)]


async def test_joins_are_refused(transport: str) -> None:
    heard = await told(make_server(), "joinsRefused", transport=transport)
    assert heard["join crashjoin:1"] == ["error", {"reason": "join crashed"}]
    assert heard["join nowhere"] == ["error", {"reason": "unmatched topic"}]
    assert heard["state"] == "errored"
    assert heard["join auth:1"] == OK


async def test_a_join_that_times_out_is_tried_again(transport: str) -> None:
    heard = await told(make_server(), "joinTimesOut", transport=transport)
    assert heard["first"] == ["timeout", {}]
    assert heard["again"] == {"slept": 1}
    assert heard["state"] == "joined"


async def test_a_channel_that_crashes_is_joined_again(transport: str) -> None:
    heard = await told(make_server(), "crashAndRejoin", transport=transport)
    assert heard["channel failed"] == {"reason": "channel_crash"}
    assert heard["new ref"] is True
    assert heard["echo"] == ["ok", {"after": "crash"}]


async def test_a_channel_that_the_server_stops_is_closed(transport: str) -> None:
    heard = await told(make_server(), "serverStopsChannel", transport=transport)
    assert heard["reply"] == ["ok", {"reason": "normal"}]
    assert heard["state"] == "closed"


async def test_a_topic_is_left_and_joined_again(transport: str) -> None:
    heard = await told(make_server(), "leaveAndJoinAgain", transport=transport)
    assert heard["leave"] == OK
    assert "channel closed" in heard
    assert heard["state"] == "closed"
    assert heard["echo"] == ["ok", {"n": 2}]


async def test_a_topic_that_is_joined_twice_goes_to_the_second(transport: str) -> None:
    heard = await told(make_server(), "joinedTwice", transport=transport)
    assert "first closed" in heard
    assert heard["states"] == ["closed", "joined"]
    assert heard["echo"] == ["ok", {"n": 2}]


async def test_the_server_pushes(transport: str) -> None:
    heard = await told(make_server(), "serverPushes", transport=transport)
    assert heard["welcomes"] == [1, 2]
    assert heard["pushed"] == {"n": 1}


async def test_broadcasts_reach_all_or_the_others(transport: str) -> None:
    heard = await told(make_server(), "broadcasts", transport=transport)
    assert heard["to all"] == [{"n": 1}, {"n": 1}]
    assert heard["to the others"] == {"n": 2}
    assert "an echo of one's own" not in heard


async def test_binary_payloads_go_both_ways() -> None:
    data = [0, 1, 127, 128, 255]
    heard = await told(make_server(), "binary")
    assert heard["reply"] == ["ok", data]
    assert heard["error"] == ["error", data]
    assert heard["empty"] == ["ok", []]
    assert heard["push"] == data
    assert heard["broadcast"] == [data, data]


async def test_presence_tells_of_joins_updates_and_leaves(transport: str) -> None:
    server = make_server()
    async with server.serve() as listening, playing("presence", listening.url("/socket"), transport) as node:
        heard = await node.until("done")
    assert not [told for told in heard if told[0].endswith(" failed")], heard
    ada = [told for told in heard if told[0].startswith("ada:")]
    assert ada == [
        ["ada: join", ["ada", False]],
        ["ada: join", ["ada", True]],  # the diff, which came before the state
        ["ada: sync", [["ada", ["calm"]]]],
        ["ada: join", ["bob", False]],
        ["ada: sync", [["ada", ["calm"]], ["bob", ["glad"]]]],
        ["ada: join", ["bob", True]],
        ["ada: leave", ["bob", 1, 1]],
        ["ada: sync", [["ada", ["calm"]], ["bob", ["sad"]]]],
        ["ada: leave", ["bob", 0, 1]],
        ["ada: sync", [["ada", ["calm"]]]],
    ]
    assert ["bob: sync", [["ada", ["calm"]], ["bob", ["sad"]]]] in heard


async def test_heartbeats_are_answered() -> None:
    heard = await told(make_server(), "heartbeats")
    assert heard["beats"] == ["ok", "ok", "ok"]
    assert heard["ping"] is True


async def test_a_server_that_answers_no_heartbeat_is_left_for_a_new_connection() -> None:
    server = make_server()
    async with server.serve() as listening, playing("heartbeatUnanswered", listening.url("/socket")) as node:
        await node.until("joined")
        server.connections[0].pause_reading()
        heard = await node.until("done")
    assert ["joined", 2] in heard
    assert ["echo", ["ok", {"n": 1}]] in heard


def drop(server: PhoenixServer) -> None:
    server.connections[0].drop()


def restart(server: PhoenixServer) -> None:
    server.connections[0].close(1012)


def say_good_bye(server: PhoenixServer) -> None:
    server.connections[0].close(1000)


@pytest.mark.parametrize("lose", [drop, restart, say_good_bye])
async def test_a_connection_that_is_lost_is_replaced(lose: Any, transport: str) -> None:
    server = make_server(poll_window=0.5)
    async with server.serve() as listening, playing("reconnects", listening.url("/socket"), transport) as node:
        await node.until("ready")
        lose(server)
        await node.go_on()
        heard = await node.until("done")
    assert ["joined", 2] in heard
    assert ["echo", ["ok", {"after": "the loss"}]] in heard


async def test_a_server_that_was_restarted_is_found_again(transport: str) -> None:
    server = make_server(poll_window=0.5)
    async with server.serve() as listening, playing("reconnects", listening.url("/socket"), transport) as node:
        await node.until("ready")
        await server.stop()
        async with make_server().serve(port=listening.port):
            await node.go_on()
            heard = await node.until("done")
    assert ["socket closed", 1012 if transport == "websocket" else 1011] in heard
    assert ["joined", 2] in heard
    assert ["echo", ["ok", {"after": "the loss"}]] in heard


async def test_pushes_while_offline_are_sent_later(transport: str) -> None:
    heard = await told(make_server(poll_window=0.5), "pushesWhileOffline", transport=transport)
    assert heard["buffered"] == ["ok", {"while": "offline"}]


async def test_the_token_comes_by_subprotocol(transport: str) -> None:
    server = make_server()
    async with server.serve() as listening, playing("token", listening.url("/authsocket"), transport) as node:
        heard = await node.until("done")
    assert [value for what, value in heard if what == "token"] == [["ok", "s3cr3t"], ["ok", "who>>>"]]


async def test_parameters_are_asked_for(transport: str) -> None:
    heard = await told(make_server(), "params", transport=transport)
    assert heard["params"] == {"user_id": "u1", "nested": "a b&c=ü", "vsn": "2.0.0"}


async def test_a_refused_upgrade_is_tried_again(transport: str) -> None:
    heard = await told(make_server(), "refused", transport=transport)
    if transport == "websocket":
        assert "403" in heard["socket failed"]
    assert heard["join echo:1"] == OK


async def test_it_falls_back_to_polling_where_there_are_no_websockets() -> None:
    server = PhoenixServer({"/socket": Mount(channels=CHANNELS, websocket=False)})
    heard = await told(server, "fallsBack")
    assert heard["join echo:1"] == OK
    assert heard["polls"] is True


async def test_topics_may_be_long(transport: str) -> None:
    heard = await told(make_server(), "longTopic", transport=transport)
    assert heard["joined"] == OK
    assert heard["echo"] == ["ok", {"n": 1}]


async def test_the_first_version_of_the_protocol_is_spoken() -> None:
    heard = await told(make_server(), "firstVersion")
    assert heard["join echo:1"] == ["ok", {"params": {"n": 1}}]
    assert heard["echo"] == ["ok", {"n": 2}]
    assert heard["broadcast"] == {"n": 3}
    assert heard["leave"] == OK


async def test_a_socket_has_a_hundred_channels_and_no_more(transport: str) -> None:
    heard = await told(make_server(), "manyChannels", transport=transport)
    assert heard["joined"] == 100
    assert heard["refused"] == ["error", {"reason": "too many channels joined"}]
    assert heard["echoes"] is True


@pytest.mark.parametrize(
    ("transport", "path"),
    [("websocket", "/socket"), ("websocket", "/zsocket"), ("longpoll", "/socket")],
    ids=["plain", "compressed", "longpoll"],
)
async def test_payloads_may_be_large(transport: str, path: str) -> None:
    heard = await told(make_server(), "largePayloads", path, transport=transport)
    assert heard["text"] == ["ok", True]
    assert heard.get("binary", ["ok", True]) == ["ok", True]
    assert heard["burst"] is True


async def test_the_client_closes_with_a_code() -> None:
    server = make_server()
    async with server.serve() as listening, playing("disconnects", listening.url("/socket")) as node:
        await node.until("join echo:1")
        connection = server.connections[0]
        heard = await node.until("done")
        await connection.wait_closed()
    assert (connection.close_code, connection.closed_by) == (4001, "client")
    assert ["socket closed", 1000] in heard  # Bandit's answer to any code


async def test_the_server_closes_with_codes_and_the_client_comes_back() -> None:
    server = make_server()
    async with server.serve() as listening, playing("serverCloses", listening.url("/socket")) as node:
        heard = await node.until("done")
    assert [value for what, value in heard if what == "socket closed"] == [4002, 1001, 1011, 1012, 1000]


class Room(Channel):
    """Where the two clients meet."""

    async def join(self, payload: Any) -> Any:
        self.name = payload["name"]
        return {}

    async def after_join(self) -> None:
        self.presence.track(self.name)
        await self.push("presence_state", self.presence.list())

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        if event == "bytes":
            await self.broadcast("bytes", payload)
        else:
            await self.broadcast("said", {"by": self.name, "text": payload["text"]})
        return Reply()


async def test_both_clients_hear_and_see_each_other() -> None:
    server = PhoenixServer({"/socket": Mount(channels={"room:*": Room})})
    async with (
        server.serve() as listening,
        playing("together", listening.url("/socket")) as node,
        connect(listening.url("/socket/websocket")) as socket,
    ):
        heard = await meet(socket)
        told = await node.until("done")
    assert heard == [{"by": "js", "text": "hello from node"}, b"\x01\x02\x03"]
    assert ["present", ["js", "py"]] in told
    assert ["heard", ["js", "hello from node"]] in told
    assert ["heard", ["py", "hello from Python"]] in told
    assert ["bytes", [1, 2, 3]] in told
    assert ["alone", None] in told


async def meet(socket: Socket) -> list[Any]:
    heard: list[Any] = []
    async with socket.join("room:1", {"name": "py"}) as room, room.presence() as presence:
        while set(presence) != {"js", "py"}:
            await anext(presence)
        async for message in room:
            if message.event == "said" and message.payload["by"] == "js":
                await room.push("say", {"text": "hello from Python"})
            if message.event == "bytes" or message.payload.get("by") == "js":
                heard.append(message.payload)
            if len(heard) == 2:
                break
    return heard
