"""A model of a Phoenix server on one connection, as far as its answers depend on it."""

from typing import Any

from attrs import define, field

from ...protocol import Frame, Message
from ...protocol.message import CLOSE, ERROR, JOIN, LEAVE
from ..server.wire import Wire

__all__ = ["ServerModel"]


@define
class ServerModel:
    """A server that a test drives: it answers in any order, also twice.

    Attributes:
        wire: the server's side of the serializer.
        requests: the client's messages that are not answered, in order of arrival.
        answered: those that are, in order of their answers.
        channels: topic to join_ref, of the joins that it has accepted and not ended.
        ended: topics and join_refs of those that it has ended.
    """

    wire: Wire
    requests: list[Message] = field(factory=list)
    answered: list[Message] = field(factory=list)
    channels: dict[str, str] = field(factory=dict)
    ended: list[tuple[str, str]] = field(factory=list)

    def receive(self, frame: Frame) -> Message:
        """Read a frame of the client's; returns its message, with None for the empty refs of a binary one."""
        message = self.wire.decode(frame)
        message = message._replace(join_ref=message.join_ref or None, ref=message.ref or None)
        self.requests.append(message)
        return message

    def answer(self, request: Message, status: str, response: Any) -> list[Frame]:
        """Answer a request, also again; returns the reply, and the frames behind it.

        A join that is accepted ends an older one of its topic, after the reply. A leave is followed by the end of its
        join.
        """
        ended: list[Frame] = []
        first = request in self.requests
        if first:
            self.requests.remove(request)
            self.answered.append(request)
        if first and request.event == JOIN and status == "ok":
            ended = self.end(request.topic, CLOSE) if request.topic in self.channels else []
            self.channels[request.topic] = str(request.join_ref)
        elif first and request.event == LEAVE and self.channels.get(request.topic) == request.join_ref:
            ended = self.end(request.topic, CLOSE)
        return [self.wire.encode_reply(request.join_ref, request.ref, request.topic, status, response), *ended]

    def end(self, topic: str, event: str) -> list[Frame]:
        """End a channel: with "phx_close", or with "phx_error" where it has crashed."""
        join_ref = self.channels.pop(topic)
        self.ended.append((topic, join_ref))
        payload = {"reason": "channel_crash"} if event == ERROR else {}
        return [self.wire.encode(Message(join_ref, join_ref, topic, event, payload))]

    def push(self, topic: str, event: str, payload: Any) -> list[Frame]:
        """Push from a channel to the client."""
        return [self.wire.encode(Message(self.channels[topic], None, topic, event, payload))]

    def broadcast(self, topic: str, event: str, payload: Any) -> list[Frame]:
        """Broadcast on a topic."""
        return [self.wire.encode_broadcast(topic, event, payload)]
