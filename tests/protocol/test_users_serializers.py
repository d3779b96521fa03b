"""A serializer of the user's, in the guard that names its failures; payloads that are kept; arguments of a push."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import Frame, Message, StdlibCodec, V1Serializer, V2Serializer
from slipstream_trio.protocol.message import check_topic, checked_push
from slipstream_trio.protocol.serializer import KeptPayload, guarded

MESSAGE = Message("1", "2", "room", "event", {"a": [1]})


class Own:
    """A serializer that does what a test says."""

    name = "own"
    vsn = "9.0.0"

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def encode(self, message: Message) -> Frame:
        frame: Frame = self._act()
        return frame

    def decode(self, frame: Frame) -> Message:
        message: Message = self._act()
        return message


def fail() -> None:
    raise ZeroDivisionError("mine")


def told(error: SerializationError) -> tuple[Any, ...]:
    return error.problem, error.path, error.topic, error.event, repr(error.__cause__)


@pytest.mark.parametrize("serializer", [V1Serializer(), V2Serializer(), V2Serializer(StdlibCodec())])
def test_the_librarys_own_needs_no_guard(serializer: V1Serializer | V2Serializer) -> None:
    assert guarded(serializer) is serializer


def test_one_of_the_users_and_one_with_a_codec_of_the_users_are_guarded() -> None:
    class OwnCodec(StdlibCodec):
        pass

    class Derived(V2Serializer):
        pass

    for serializer in (Own(fail), V2Serializer(OwnCodec()), Derived()):
        guard = guarded(serializer)
        assert guard is not serializer
        assert (guard.name, guard.vsn) == (serializer.name, serializer.vsn)


def test_one_without_a_version_has_none() -> None:
    class Plain:
        name = "plain"
        encode = decode = None

    assert guarded(Plain()).vsn == ""  # type: ignore[arg-type] # as a user's may be


@pytest.mark.parametrize(
    ("act", "problem", "cause"),
    [
        (fail, "the serializer 'own' failed: ZeroDivisionError('mine')", "ZeroDivisionError('mine')"),
        (lambda: 7, "the serializer 'own' returned int, not str or bytes", "None"),
    ],
)
def test_a_failure_to_encode_tells_of_which_message(act: Callable[[], Any], problem: str, cause: str) -> None:
    with pytest.raises(SerializationError) as raised:
        guarded(Own(act)).encode(MESSAGE)
    assert told(raised.value) == (problem, "", "room", "event", cause)


@pytest.mark.parametrize(
    ("act", "problem", "cause"),
    [
        (fail, "the serializer 'own' failed: ZeroDivisionError('mine')", "ZeroDivisionError('mine')"),
        (lambda: 7, "the serializer 'own' returned int, not Message", "None"),
    ],
)
def test_a_failure_to_decode_tells_why(act: Callable[[], Any], problem: str, cause: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        guarded(Own(act)).decode("frame")
    assert (raised.value.problem, repr(raised.value.__cause__)) == (problem, cause)


def test_what_goes_through_is_what_it_is() -> None:
    class Echo:
        name = vsn = "echo"

        def encode(self, message: Message) -> Frame:
            return repr(message)

        def decode(self, frame: Frame) -> Message:
            return MESSAGE._replace(payload=frame)

    guard = guarded(Echo())
    assert guard.encode(MESSAGE) == repr(MESSAGE)
    assert guard.decode("frame") == MESSAGE._replace(payload="frame")
    with pytest.raises(ProtocolError):
        guarded(Own(lambda: MESSAGE._replace(topic=1))).decode("frame")


@pytest.mark.parametrize("error", [SerializationError("its own"), ProtocolError("its own")])
def test_what_it_should_raise_passes(error: Exception) -> None:
    def act() -> None:
        raise error

    guard = guarded(Own(act))
    with pytest.raises(type(error)) as raised:
        guard.encode(MESSAGE) if isinstance(error, SerializationError) else guard.decode("frame")
    assert raised.value is error


@pytest.mark.parametrize("serializer", [V2Serializer(), Own(fail)])
@pytest.mark.parametrize("payload", [{"a": [1]}, [1], b"binary"])
def test_a_payload_is_kept_as_it_was(payload: Any, serializer: Any) -> None:
    kept = KeptPayload(MESSAGE._replace(payload=payload), serializer)
    before = payload if isinstance(payload, bytes) else type(payload)(payload)
    if isinstance(payload, list):
        payload.append(2)
    assert kept.value() == before
    assert isinstance(payload, bytes) or kept.value() is not kept.value()
    if isinstance(payload, list):
        payload.pop()


def test_a_payload_that_is_no_json_is_located() -> None:
    with pytest.raises(SerializationError) as raised:
        KeptPayload(MESSAGE._replace(payload={"a": {1}}), V2Serializer())
    assert (raised.value.path, raised.value.topic, raised.value.event) == ('payload["a"]', "room", "event")
    assert "set" in raised.value.problem
    assert raised.value.__suppress_context__


def test_a_payload_that_cannot_be_copied_tells_why() -> None:
    class Unique:
        def __deepcopy__(self, memo: Any) -> Any:
            raise ZeroDivisionError("mine")

    with pytest.raises(SerializationError) as raised:
        KeptPayload(MESSAGE._replace(payload=Unique()), Own(fail))
    problem = "a payload that waits is copied, and this one cannot be: ZeroDivisionError('mine')"
    assert told(raised.value) == (problem, "payload", "room", "event", "ZeroDivisionError('mine')")


class Refusing(V2Serializer):
    """Has a codec that raises something of its own."""

    class Codec(StdlibCodec):
        def encode(self, value: Any) -> str:
            raise ZeroDivisionError("mine")

    def __init__(self) -> None:
        super().__init__(self.Codec())


def test_what_a_codec_of_the_users_raises_is_told_as_what_cannot_be_copied() -> None:
    with pytest.raises(SerializationError, match="ZeroDivisionError") as raised:
        KeptPayload(MESSAGE, Refusing())
    assert told(raised.value)[1:] == ("payload", "room", "event", "ZeroDivisionError('mine')")


class Name(StrEnum):
    ROOM = "room"


@pytest.mark.parametrize(("wrong", "kind"), [(1, "int"), (Name.ROOM, "Name: use its value")])
def test_an_event_and_a_topic_are_strings(wrong: Any, kind: str) -> None:
    check_topic("room")
    with pytest.raises(SerializationError) as raised:
        checked_push(wrong, None)
    assert raised.value.problem == f"an event is a string, not {kind}"
    with pytest.raises(SerializationError) as raised:
        check_topic(wrong)
    assert raised.value.problem == f"a topic is a string, not {kind}"


def test_a_push_has_a_payload_and_no_event_of_the_protocol() -> None:
    assert checked_push("event", None) == {}
    assert checked_push("event", 0) == 0
    for buffer in (bytearray(b"x"), memoryview(b"x")):
        assert type(checked_push("event", buffer)) is bytes
    with pytest.raises(ValueError, match="'phx_leave' is an event of the protocol, which cannot be pushed"):
        checked_push("phx_leave", None)
