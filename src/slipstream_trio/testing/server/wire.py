"""The server's side of Phoenix's serializers: clients' frames to messages, messages to frames for clients.

Refs, and even topics and events, may be any JSON value here: Phoenix gives them back as they came.
"""

from typing import Any

from ...errors import ProtocolError
from ...protocol.codec import default_codec
from ...protocol.message import REPLY, Frame, Message
from ...protocol.serializer import BROADCAST, PUSH, REPLY_KIND, join_binary, split_binary


class Wire:
    """One version of the protocol, as a server speaks it.

    2.0.0 has arrays, and binary frames for payloads that are `bytes`. 1.0.0, which is whatever begins with "1.", has
    objects; it tells clients no join_ref, but reads one where a client sends it.
    """

    def __init__(self, vsn: str = "2.0.0") -> None:
        self.vsn: str = "1.0.0" if vsn.startswith("1.") else "2.0.0"
        self._codec = default_codec()

    def decode(self, frame: Frame) -> Message:
        """Return the message of a client's frame; raises `ProtocolError`."""
        if self.vsn == "1.0.0":
            # Invalid UTF-8 becomes lone surrogates, which a codec refuses.
            value = self._codec.decode(frame if isinstance(frame, str) else frame.decode(errors="surrogateescape"))
            if type(value) is not dict or not {"topic", "event", "payload", "ref"} <= value.keys():
                raise ProtocolError("not an object with topic, event, payload and ref")
            return Message(value.get("join_ref"), value["ref"], value["topic"], value["event"], value["payload"])
        if isinstance(frame, bytes):
            if len(frame) < 5 or frame[0] != PUSH:
                raise ProtocolError("not a binary push")
            (join_ref, ref, topic, event), payload = split_binary(frame, 4)
            return Message(join_ref, ref, topic, event, payload)
        value = self._codec.decode(frame)
        if type(value) is not list or len(value) < 5:
            raise ProtocolError("not an array of five")
        return Message(*value[:5])

    def encode(self, message: Message) -> Frame:
        """Return a message's frame, of a broadcast where join_ref is null; raises `SerializationError`."""
        join_ref, ref, topic, event, payload = message
        if self.vsn == "1.0.0":
            return self._codec.encode({"event": event, "payload": payload, "ref": ref, "topic": topic})
        match payload:
            case bytes() if join_ref is None:
                return join_binary(BROADCAST, {"topic": topic, "event": event}, payload)
            case bytes():
                return join_binary(PUSH, {"join_ref": self._ref(join_ref), "topic": topic, "event": event}, payload)
            case {"status": str(status), "response": bytes(response)} if event == REPLY:
                strings = {"join_ref": self._ref(join_ref), "ref": self._ref(ref), "topic": topic, "status": status}
                return join_binary(REPLY_KIND, strings, response)
        return self._codec.encode(list(message))

    def encode_reply(self, join_ref: Any, ref: Any, topic: Any, status: str, response: Any) -> Frame:
        """Return the frame of a reply; raises `SerializationError`."""
        return self.encode(Message(join_ref, ref, topic, REPLY, {"response": response, "status": status}))

    def _ref(self, ref: Any) -> str:
        """Binary frames have strings only: Phoenix makes a string of any ref, and an empty one of null."""
        if ref is None:
            return ""
        return ref if type(ref) is str else self._codec.encode(ref)


def wire_for(vsn: Any) -> Wire | None:
    """Return the serializer for a client's `vsn` parameter, or None where Phoenix answers with 403."""
    match vsn.split(".") if type(vsn) is str else ():
        case [("1" | "2"), "0", patch] if patch.isdecimal():
            return Wire(vsn)
    return None
