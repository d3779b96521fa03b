"""What can be imported, and that all of it is documented."""

import copy
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, assert_type

import attrs
import pytest

import slipstream_trio
from slipstream_trio import Configuration, ConnectOptions, Message, errors, protocol, telemetry, testing, trace
from slipstream_trio.integrations import logging, supabase
from slipstream_trio.testing import faults, kit, observed, scripted, server, stateful, strategies
from slipstream_trio.trace import export_otlp, export_perfetto

NAMES = {
    slipstream_trio: """
        AlreadyJoined Backoff CallTimeout Caller Channel ChannelClosed ChannelPresence ChannelStatus Client ClientBusy
        ClientStopped Configuration ConfigurationError ConnectError ConnectOptions ConnectTimeout ConnectionLost
        ConnectionRejected DEFAULT Default Disconnect ExportError Gap InternalError JoinError JoinTimeout Message
        NO_REPLY NoReply Overflow PresenceChange ProtocolError PushError PushTimeout RecordingError Reply
        SerializationError SlipstreamError SlowConsumer Socket Status StatusChanges Stream Subscription connect
        protocol run_client telemetry trace
    """,
    telemetry: """
        BufferOverflowed ClientCallbackStart ClientCallbackStop ClientConnectStart ClientConnectStop
        ClientGaveUp ClientJoinStart ClientJoinStop ClientLeaveStart ClientLeaveStop ClientPushStart ClientPushStop
        ConnectStart ConnectStop EventName GapOpened HandleStart HandleStop Handler HandlerFailed
        ClientSendStart ClientSendStop LoopStalled
        MessageDiscarded Origin Outcome ReconnectScheduled Record RecordStream RejoinScheduled ReplyOrphaned
        SpanException SpanStart Telemetry attach attach_many default_telemetry detach list_handlers listen
        stream
    """,
    kit: """
        ANY Answer Disconnection ExpectationFailed FakeChannel FakeConnection FakeJoin FakeLeave FakePush FakeServer
        Including including mismatch
    """,
    trace: """
        Absent Checker Damage Difference Divergence End Entry Finding Flaw FlightRecorder Header MEANINGS Missing
        Progress Recorded Recording RecordingWarning Redacted ReplayStep Replayer SECRETS Unencodable Verifier
        Violation check diagnose differences ended_badly files_of flight_recorder follow read read_entries read_header
        record replay verify
    """,
}

MODULES = [
    slipstream_trio,
    protocol,
    telemetry,
    testing,
    faults,
    kit,
    observed,
    server,
    supabase,
    trace,
    export_otlp,
    export_perfetto,
    logging,
    scripted,
    stateful,
    strategies,
]


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__)
def test_the_public_names_are_these(module: ModuleType) -> None:
    assert sorted(module.__all__) == sorted(NAMES[module].split())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_everything_public_exists_and_is_named_once(module: ModuleType) -> None:
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)
        assert not name.startswith("_")


def documented(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Give all public functions, classes and methods of a module."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if inspect.isclass(thing):
            yield name, thing
            for member, value in vars(thing).items():
                inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if not member.startswith("_") and inspect.isfunction(inner):
                    yield f"{name}.{member}", inner
        elif inspect.isfunction(thing) or inspect.ismethod(thing):
            yield name, thing


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_everything_public_has_a_docstring(module: ModuleType) -> None:
    assert module.__doc__
    missing = [name for name, thing in documented(module) if not (thing.__doc__ or "").strip()]
    assert missing == []


def test_the_docstring_of_configuration_tells_every_option() -> None:
    text = Configuration.__doc__ or ""
    for name in ("url", *ConnectOptions.__annotations__):
        assert f"    {name}: " in text


@pytest.mark.parametrize("function", [slipstream_trio.connect, slipstream_trio.run_client])
def test_the_docstring_of_what_connects_tells_each_option_once(function: Any) -> None:
    for name in ConnectOptions.__annotations__:
        assert len(re.findall(rf"^ +{name}: ", function.__doc__, re.MULTILINE)) == 1


def test_the_docstrings_of_errors_tell_every_field() -> None:
    for name in slipstream_trio.__all__:
        error = getattr(slipstream_trio, name)
        if inspect.isclass(error) and issubclass(error, Exception) and "__init__" in vars(error):
            for parameter in inspect.signature(error).parameters:
                assert f"    {parameter}: " in (error.__doc__ or ""), f"{name}.{parameter}"


def test_every_error_is_a_slipstream_error() -> None:
    for name, thing in vars(errors).items():
        if inspect.isclass(thing) and issubclass(thing, Exception):
            assert issubclass(thing, slipstream_trio.SlipstreamError)
            assert name in slipstream_trio.__all__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (slipstream_trio.ConnectionLost("lost", 1006), "the connection ended: lost (close code 1006)"),
        (slipstream_trio.ConnectionLost("disconnected"), "the connection ended: disconnected"),
        (slipstream_trio.JoinError("room", {"reason": "no"}), "'room'"),
        (slipstream_trio.JoinTimeout("room", 3), "join_timeout"),
        (slipstream_trio.AlreadyJoined("room"), "leave it first"),
        (slipstream_trio.PushError("room", "event", "error", {}), "'error'"),
        (slipstream_trio.PushTimeout("room", "event", 3), "send()"),
        (slipstream_trio.ChannelClosed("room", "left"), "left"),
        (slipstream_trio.SlowConsumer("room", 5), "5 messages"),
        (slipstream_trio.ConnectionRejected(404), "/websocket"),
        (slipstream_trio.ConnectError("no"), "no"),
        (slipstream_trio.ConfigurationError("url", "is odd"), "url: is odd"),
        (slipstream_trio.ProtocolError("odd"), "odd"),
        (slipstream_trio.RecordingError("a.jsonl", "is odd"), "a.jsonl: is odd"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_read_as_sentences(error: Exception, text: str) -> None:
    assert text in str(error)
    assert isinstance(error, slipstream_trio.SlipstreamError)


def test_a_rejection_can_be_copied() -> None:
    error = slipstream_trio.ConnectionRejected(429, [("retry-after", "1")], "slow down")
    copied = copy.copy(error)
    assert (copied.status, copied.headers, copied.body) == (429, (("retry-after", "1"),), "slow down")
    assert str(copied) == str(error)


def test_records_and_configuration_are_frozen() -> None:
    for module in (telemetry, protocol):
        for name in module.__all__:
            thing = getattr(module, name)
            if attrs.has(thing):
                assert thing.__setattr__ is not object.__setattr__, name
    assert repr(slipstream_trio.DEFAULT) == "DEFAULT"


def test_a_message_is_a_tuple_that_type_checkers_show_by_its_name() -> None:
    message = Message("1", None, "room", "said", {"body": "hi"})
    assert_type(message, Message)
    assert_type(message.join_ref, str | None)
    assert_type(message.event, str)
    *_, event, payload = message
    assert (event, payload) == ("said", {"body": "hi"})
    # The checker fails here if it takes a message for a tuple, as which mypy would show it.
    shown: tuple[str | None, str | None, str, str, Any] = message  # type: ignore[assignment]
    assert isinstance(shown, tuple)
