"""The application behind the recordings in `tests/fixtures/transcripts`, deduced from them."""

from collections.abc import Mapping
from typing import Any

import trio

from slipstream_trio.testing.server import (
    Accept,
    Channel,
    Flavour,
    JoinRefused,
    Mount,
    Outcome,
    PhoenixServer,
    Refuse,
    Reply,
    Request,
    Stop,
    Version,
)

ONLINE_AT = 1700000000


class EchoChannel(Channel):
    """Does whatever an event says."""

    async def join(self, payload: Any) -> Any:
        self.joined_with = payload
        return {"params": payload} if payload != {} else {}

    async def after_join(self) -> None:
        if isinstance(self.joined_with, dict):
            for i in range(self.joined_with.get("push_on_join", 0)):
                await self.push("welcome", {"i": i + 1})
            if "push_before_reply" in self.joined_with:
                await self.push("early")

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "echo" | "binary":
                return Reply(payload)
            case "noreply":
                return None
            case "ok_bare":
                return Reply()
            case "fail" | "binary_fail":
                return Reply(payload, status="error")
            case "fail_bare":
                return Reply(status="error")
            case "status":
                return Reply(payload, status=payload["status"])
            case "slow":
                self.spawn(self.reply_later, payload, ref)
                return None
            case "slow_block":
                await trio.sleep(payload["ms"] / 1000)
                return Reply(payload)
            case "crash":
                raise RuntimeError("told to crash")
            case "stop":
                return Stop(payload["reason"], Reply(payload))
        return await self.handle_pushing(event, payload, ref)

    async def handle_pushing(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "push_back":
                await self.push("pushed", payload)
                return None
            case "push_then_reply":
                await self.push("pushed", payload)
                return Reply(payload)
            case "binary_push":
                await self.push("binary_pushed", payload)
                return None
            case "double_reply":
                await self.reply(ref, {**payload, "n": 1})
                await self.reply(ref, {**payload, "n": 2})
                return None
            case "broadcast":
                await self.broadcast("broadcasted", payload)
                return Reply()
            case "broadcast_from":
                await self.broadcast_from("broadcasted_from", payload)
                return Reply()
            case "binary_broadcast":
                await self.broadcast("binary_broadcasted", payload)
                return None
            case "burst":
                for i in range(payload["n"]):
                    await self.push("tick", {"i": i + 1})
                return Reply(payload)
            case "binary_size":
                return Reply(b"\xab" * payload["n"])
            case "text_size":
                return Reply({"data": "x" * payload["n"]})
        return await self.handle_socket(event, payload)

    async def handle_socket(self, event: str, payload: Any) -> Outcome:
        match event:
            case "whoami":
                return Reply(self.whoami())
            case "close_socket":
                self.socket.close(payload["code"])
            case "kill_socket":
                self.socket.drop()
            case "crash_socket":
                self.socket.close(1011)
            case "drain_me":
                self.socket.close(1012)
            case "kick":
                self.socket.server.disconnect(str(self.socket.id))
            case "ping_me":
                await self.socket.ping()
            case "raw":
                await self.socket.send_raw(payload["text"])
            case "raw_binary":
                await self.socket.send_raw(payload)
            case _:
                raise NotImplementedError(event)
        return None

    async def reply_later(self, payload: Any, ref: Any) -> None:
        await trio.sleep(payload["ms"] / 1000)
        await self.reply(ref, payload)

    def whoami(self) -> dict[str, Any]:
        request = self.socket.request
        return {
            "auth_token": request.auth_token,
            "id": self.socket.id,
            "join_ref": self.join_ref,
            "params": dict(request.params),
            "uri": request.uri,
            "user_agent": request.header("user-agent"),
            "x_headers": {name: value for name, value in request.headers if name.startswith("x-")},
        }


class AuthChannel(EchoChannel):
    async def join(self, payload: Any) -> Any:
        if payload.get("token") != "good":
            raise JoinRefused({"reason": "unauthorized"})
        self.joined_with = payload
        return {}


class SlowJoinChannel(EchoChannel):
    async def join(self, payload: Any) -> Any:
        self.joined_with = payload
        await trio.sleep(payload["ms"] / 1000)
        return {"slept": payload["ms"]}


class CrashJoinChannel(Channel):
    async def join(self, payload: Any) -> Any:
        raise RuntimeError("told to crash")


class PresenceChannel(Channel):
    async def join(self, payload: Any) -> Any:
        self.joined_with = payload
        self.user = self.assigns["user_id"]
        return {}

    async def after_join(self) -> None:
        steps = [self.track, self.push_state]
        for step in reversed(steps) if self.joined_with.get("state_first") else steps:
            await step()

    async def track(self) -> None:
        self.presence.track(self.user, {**self.joined_with.get("meta", {}), "online_at": ONLINE_AT})

    async def push_state(self) -> None:
        await self.push("presence_state", self.presence.list())

    async def handle_in(self, event: str, payload: Any, ref: Any) -> Outcome:
        match event:
            case "track":
                self.presence.track(payload["key"], payload["meta"])
            case "update":
                self.presence.update(self.user, payload)
            case "untrack":
                self.presence.untrack(self.user)
            case "list":
                return Reply(self.presence.list())
        return Reply()


async def connect(request: Request) -> Accept:
    match request.params.get("token"):
        case "bad":
            raise Refuse
        case "reason":
            raise Refuse(429, [("retry-after", "1")], "Too many requests")
        case "raise":
            raise RuntimeError("told to crash")
    await trio.sleep(int(request.params.get("sleep_ms", 0)) / 1000)
    user_id = request.params.get("user_id")
    return Accept(user_id and f"user_socket:{user_id}", {"user_id": user_id})


CHANNELS: Mapping[str, type[Channel]] = {
    "echo:*": EchoChannel,
    "exact": EchoChannel,
    "auth:*": AuthChannel,
    "slowjoin:*": SlowJoinChannel,
    "crashjoin:*": CrashJoinChannel,
    "presence:*": PresenceChannel,
    "private:*": EchoChannel,
}


def make_server(
    flavour: Flavour = "bandit", version: Version = "1.8.12", *, poll_window: float = 10.0
) -> PhoenixServer:
    mounts = {
        "/socket": Mount(connect=connect, channels=CHANNELS, poll_window=poll_window),
        "/authsocket": Mount(channels=CHANNELS, auth_token=True),
        "/idle": Mount(connect=connect, channels=CHANNELS, timeout=3),
        "/zsocket": Mount(connect=connect, channels=CHANNELS, compress=True),
    }
    return PhoenixServer(mounts, flavour=flavour, version=version)
