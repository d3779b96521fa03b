"""Phoenix's frames, built and taken apart without the serializer, which is thus not tested against itself."""

import json
from typing import Any

from slipstream_trio.protocol import Frame, Message


def text(join_ref: Any, ref: Any, topic: Any, event: Any, payload: Any, *more: Any) -> str:
    """Return a V2 text frame."""
    return json.dumps([join_ref, ref, topic, event, payload, *more])


def text_v1(ref: Any, topic: Any, event: Any, payload: Any) -> str:
    """Return a V1 frame as the server sends it, without a join_ref."""
    return json.dumps({"event": event, "payload": payload, "ref": ref, "topic": topic})


def binary(kind: int, *strings: str, data: bytes = b"") -> bytes:
    """Return a binary frame: kind, lengths, strings, data."""
    fields = [string.encode() for string in strings]
    return bytes([kind, *map(len, fields)]) + b"".join(fields) + data


def binary_push(join_ref: str, topic: str, event: str, data: bytes) -> bytes:
    """Return a binary push as the server sends it, without a ref."""
    return binary(0, join_ref, topic, event, data=data)


def binary_reply(join_ref: str, ref: str, topic: str, status: str, data: bytes) -> bytes:
    """Return a binary reply as the server sends it."""
    return binary(1, join_ref, ref, topic, status, data=data)


def binary_broadcast(topic: str, event: str, data: bytes) -> bytes:
    """Return a binary broadcast as the server sends it."""
    return binary(2, topic, event, data=data)


def parse(frame: Frame) -> Message:
    """Return the message of a frame that a client sent."""
    if isinstance(frame, bytes):
        lengths = frame[1:5]
        assert frame[:1] == b"\x00"
        assert len(lengths) == 4
        strings, start = [], 5
        for length in lengths:
            strings.append(frame[start : start + length].decode())
            start += length
        assert start <= len(frame)
        join_ref, ref, topic, event = strings
        return Message(join_ref or None, ref or None, topic, event, frame[start:])
    value = json.loads(frame)
    if isinstance(value, dict):
        return Message(value.get("join_ref"), value["ref"], value["topic"], value["event"], value["payload"])
    return Message(*value)
