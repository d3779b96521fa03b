"""Messages, and the frames that a server sends: good, odd and bad.

A good frame is what Phoenix sends. An odd one decodes too, but is unexpected: unknown refs, extra elements, payloads
of the wrong kind. A bad one is malformed: it is rejected, and the connection goes on.
"""

import json
from typing import Any

from hypothesis import strategies as st

from ...protocol import Frame, Message
from ...protocol.message import CLOSE, ERROR, REPLY
from ..server.wire import Wire
from .bad_frames import bad_frames
from .names import events, refs, statuses, topics
from .payloads import binary_payloads, json_payloads, json_values

__all__ = ["frames", "good_frames", "messages", "odd_frames"]

_TROUBLED_REPLIES: list[Any] = [
    *(None, {}, [], "ok", 5, True),
    *({"response": {}}, {"status": None}, {"status": 1}, {"status": ["ok"]}),
]
"""Payloads of a phx_reply without a status."""


def messages(
    *,
    topic: st.SearchStrategy[str] | None = None,
    event: st.SearchStrategy[str] | None = None,
    payload: st.SearchStrategy[Any] | None = None,
) -> st.SearchStrategy[Message]:
    """Messages of all kinds, with any join_ref, ref, topic, event and payload (JSON, or bytes).

    Parameters:
        topic: the topics; None: `topics()`.
        event: the events; None: `events(reserved=True)`.
        payload: the payloads; None: JSON values and bytes.
    """
    return st.builds(
        Message,
        st.none() | refs(),
        st.none() | refs(),
        topics() if topic is None else topic,
        events(reserved=True) if event is None else event,
        json_payloads() | json_values() | binary_payloads() if payload is None else payload,
    )


def good_frames(vsn: str = "2.0.0", *, topic: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Frame]:
    """Frames as Phoenix sends them: pushes, broadcasts, replies and ends of channels, in JSON and (vsn 2) in binary.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
        topic: the topics; None: `topics()`.
    """
    wire = Wire(vsn)
    binary = st.nothing() if vsn.startswith("1.") else binary_payloads()
    name = topics() if topic is None else topic
    pushed = json_payloads() | json_values() | binary
    return st.one_of(
        st.builds(Message, refs(), st.none(), name, events(), pushed).map(wire.encode),
        st.builds(wire.encode_broadcast, name, events(reserved=True), pushed),
        st.builds(wire.encode_reply, st.none() | refs(), refs(), name, statuses(), json_payloads() | binary),
        st.builds(_ending, refs(), name, st.sampled_from([CLOSE, ERROR])).map(wire.encode),
    )


def _ending(ref: str, topic: str, event: str) -> Message:
    return Message(ref, ref, topic, event, {"reason": "channel_crash"} if event == ERROR else {})


def odd_frames(vsn: str = "2.0.0", *, topic: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Frame]:
    """Unexpected frames that are valid.

    Replies without a status or to unknown refs, ends of unknown joins, payloads that are null, an array or text,
    duplicate keys, integers of 30 digits, extra elements, odd white space.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
        topic: the topics; None: `topics()`.
    """
    name = topics() if topic is None else topic
    troubled = st.builds(Message, st.none() | refs(), refs(), name, st.just(REPLY), st.sampled_from(_TROUBLED_REPLIES))
    unexpected = st.builds(Message, st.none() | refs(), st.none() | refs(), name, events(reserved=True), json_values())
    if vsn.startswith("1."):
        texts = _json_texts((troubled | unexpected).map(_as_object))
        return texts | unexpected.map(_with_duplicate_key_v1)
    more = st.lists(json_values(), max_size=2)
    texts = _json_texts(st.builds(lambda message, more: [*message, *more], troubled | unexpected, more))
    return texts | unexpected.map(_with_duplicate_key)


def _json_texts(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.builds(json.dumps, values, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))


def _as_object(message: Message) -> dict[str, Any]:
    return {"topic": message.topic, "event": message.event, "payload": message.payload, "ref": message.ref}


def _with_duplicate_key(message: Message) -> str:
    names = json.dumps(list(message[:4]))
    return f'{names[:-1]},{{"a":1,"a":123456789012345678901234567890}}]'


def _with_duplicate_key_v1(message: Message) -> str:
    whole = json.dumps(_as_object(message._replace(payload=10**29)))
    return f'{whole[:-1]},"event":{json.dumps(message.event)}}}'


def frames(vsn: str = "2.0.0", *, topic: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Frame]:
    """Frames of all kinds that a server may send, and a client must survive.

    Parameters:
        vsn: "2.0.0" or "1.0.0".
        topic: the topics of valid ones; None: `topics()`.
    """
    return good_frames(vsn, topic=topic) | odd_frames(vsn, topic=topic) | bad_frames(vsn)
