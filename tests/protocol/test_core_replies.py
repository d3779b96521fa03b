"""Pushes and their replies: matched by ref, in any order, any number of times."""

from typing import Any

import pytest
from tests.protocol import wire
from tests.protocol.core import Core, only, sent

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    FrameReceived,
    JoinTopic,
    MessageDropped,
    PushMessage,
    ReplyReceived,
)


def test_a_push_takes_the_next_ref_and_the_joins_ref_as_join_ref() -> None:
    core = Core()
    join = core.joined()
    core.heartbeat()
    transition = core.feed(PushMessage("room", "new_msg", {"body": "hi"}))
    assert sent(transition) == (join, "3", "room", "new_msg", {"body": "hi"})
    assert transition.built_events == ()


def test_a_push_changes_nothing_in_the_state_but_the_ref() -> None:
    core = Core()
    core.joined("room")
    core.joined("left")
    core.leave("left")
    core.join("pending")
    core.heartbeat()
    before = core.state
    core.push()
    after = core.state
    changed = [name for name in before.__attrs_attrs__ if getattr(before, name.name) != getattr(after, name.name)]
    assert [attribute.name for attribute in changed] == ["current_ref"]
    assert after.current_ref == before.current_ref + 1


def test_a_push_of_bytes_is_a_binary_frame() -> None:
    core = Core()
    join = core.joined()
    (effect,) = core.feed(PushMessage("room", "ev", b"\x00\xff")).return_
    assert getattr(effect, "frame", None) == wire.binary(0, join, "2", "room", "ev", data=b"\x00\xff")


def test_a_push_while_the_join_is_pending_is_sent_with_the_joins_ref() -> None:
    core = Core()
    join = core.join()
    assert sent(core.feed(PushMessage("room", "ev", {}))).join_ref == join


@pytest.mark.parametrize("topic", ["other", "", "Room", "room "])
def test_a_push_on_a_topic_that_is_not_joined_raises_and_takes_no_ref(topic: str) -> None:
    core = Core()
    core.joined("room")
    before = core.state
    with pytest.raises(ProtocolError, match="not joined"):
        core.feed(PushMessage(topic, "ev", {}))
    assert core.state is before


@pytest.mark.parametrize("payload", [object(), {"a": {1}}, {1: "key"}, [float("nan")], ("tuple",), "\ud800"])
def test_a_payload_that_cannot_be_sent_takes_no_ref(payload: Any) -> None:
    core = Core()
    core.joined()
    before = core.state
    with pytest.raises(SerializationError):
        core.feed(PushMessage("room", "ev", payload))
    with pytest.raises(SerializationError):
        core.feed(JoinTopic(0.0, "other", payload, None))
    assert core.state is before
    assert core.push() == "2"


@pytest.mark.parametrize(("topic", "event"), [("t" * 256, "ev"), ("room", "e" * 256), ("ä" * 128, "ev")])
def test_a_binary_push_whose_topic_or_event_is_too_long_takes_no_ref(topic: str, event: str) -> None:
    core = Core()
    core.joined(topic)
    before = core.state
    with pytest.raises(SerializationError, match="at most 255 bytes, this one has 256"):
        core.feed(PushMessage(topic, event, b"data"))
    assert core.state is before
    assert core.push(topic, event, {"text": "frames have no limit"}) == "2"


@pytest.mark.parametrize("status", ["ok", "error", "custom", ""])
@pytest.mark.parametrize("response", [{}, {"why": "x"}, None, [1], "text"])
def test_a_reply_carries_its_status_and_response(status: str, response: Any) -> None:
    core = Core()
    join = core.joined()
    ref = core.push()
    payload = {"status": status, "response": response}
    event = only(core.receive_idle(join, ref, "room", "phx_reply", payload))
    assert event == ReplyReceived("room", ref, status, response)


def test_a_reply_without_a_response_has_none() -> None:
    core = Core()
    core.joined()
    ref = core.push()
    assert only(core.receive_idle(None, ref, "room", "phx_reply", {"status": "ok"})) == ReplyReceived(
        "room", ref, "ok", None
    )


@pytest.mark.parametrize("join_ref", ["1", None, "77"])
def test_a_reply_is_matched_by_ref_and_never_by_join_ref(join_ref: str | None) -> None:
    core = Core()
    core.joined()
    ref = core.push()
    payload = {"status": "error", "response": {"reason": "unmatched topic"}}
    event = only(core.receive_idle(join_ref, ref, "room", "phx_reply", payload))
    assert event == ReplyReceived("room", ref, "error", {"reason": "unmatched topic"})


def test_a_binary_reply_has_bytes_as_response() -> None:
    core = Core()
    join = core.joined()
    ref = core.push(payload=b"")
    frame = wire.binary_reply(join, ref, "room", "error", b"\x00\xff")
    assert only(core.feed_idle(FrameReceived(0.0, frame))) == ReplyReceived("room", ref, "error", b"\x00\xff")


def test_a_binary_reply_to_a_join_accepts_it() -> None:
    core = Core()
    ref = core.join()
    event = only(core.receive_frame(wire.binary_reply(ref, ref, "room", "ok", b"welcome")))
    assert getattr(event, "response", None) == b"welcome"
    assert core.state.join_deadlines == {}


def test_two_replies_to_one_push_are_two_replies() -> None:
    core = Core()
    core.joined()
    ref = core.push()
    first = core.receive_idle(None, ref, "room", "phx_reply", {"status": "ok", "response": {"n": 1}})
    second = core.receive_idle(None, ref, "room", "phx_reply", {"status": "ok", "response": {"n": 2}})
    assert only(first) == ReplyReceived("room", ref, "ok", {"n": 1})
    assert only(second) == ReplyReceived("room", ref, "ok", {"n": 2})


def test_replies_come_in_any_order() -> None:
    core = Core()
    core.joined()
    refs = [core.push() for _ in range(5)]
    assert refs == ["2", "3", "4", "5", "6"]
    for ref in [refs[3], refs[0], refs[4], refs[2], refs[1]]:
        assert only(core.reply(ref)) == ReplyReceived("room", ref, "ok", {})


@pytest.mark.parametrize("ref", ["999", "0", "", "01", " 1"])
def test_a_reply_to_an_unknown_ref_settles_nothing(ref: str) -> None:
    core = Core()
    core.join()
    core.heartbeat()
    reply = core.receive_idle("1", ref, "room", "phx_reply", {"status": "ok", "response": {}})
    assert only(reply) == ReplyReceived("room", ref, "ok", {})


def test_a_reply_after_the_end_of_the_channel_is_still_told() -> None:
    core = Core()
    join = core.joined()
    ref = core.push()
    core.receive(join, join, "room", "phx_error", {})
    event = only(core.receive_idle(join, ref, "room", "phx_reply", {"status": "ok", "response": {}}))
    assert event == ReplyReceived("room", ref, "ok", {})


def test_a_reply_with_a_null_ref_on_a_topic_that_is_not_joined_is_dropped() -> None:
    payload = {"status": "error", "response": {"reason": "unmatched topic"}}
    event = only(Core().receive_idle(None, None, "echo:never", "phx_reply", payload))
    assert isinstance(event, MessageDropped)


def test_v1_pushes_and_replies() -> None:
    core = Core(vsn="1.0.0")
    join = core.join()
    core.receive_frame(wire.text_v1(join, "room", "phx_reply", {"status": "ok", "response": {}}))
    message = sent(core.feed(PushMessage("room", "ev", {"a": 1})))
    assert message == (join, "2", "room", "ev", {"a": 1})
    payload = {"status": "ok", "response": {"a": 1}}
    reply = core.feed_idle(FrameReceived(0.0, wire.text_v1("2", "room", "phx_reply", payload)))
    assert only(reply) == ReplyReceived("room", "2", "ok", {"a": 1})


def test_v1_has_no_binary_pushes() -> None:
    core = Core(vsn="1.0.0")
    core.join()
    before = core.state
    with pytest.raises(SerializationError, match=r"vsn='2\.0\.0'"):
        core.feed(PushMessage("room", "ev", b"data"))
    assert core.state is before
