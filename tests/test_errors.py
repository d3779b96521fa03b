"""The exceptions: facts as fields, one line as message, and safe to pickle and to log."""

import copy
import inspect
import pickle
from typing import Any

import pytest

from slipstream_trio import errors
from slipstream_trio.errors import (
    AlreadyJoined,
    CallTimeout,
    ChannelClosed,
    ClientBusy,
    ClientStopped,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    ConnectTimeout,
    ExportError,
    InternalError,
    JoinError,
    JoinTimeout,
    ProtocolError,
    PushError,
    PushTimeout,
    RecordingError,
    SerializationError,
    SlipstreamError,
    SlowConsumer,
)

HEADERS = (("content-type", "text/plain"), ("retry-after", "5"))

EXAMPLES: list[tuple[SlipstreamError, dict[str, Any], str]] = [
    (
        ConfigurationError("buffer", "must be at least 1, not 0"),
        {"option": "buffer", "problem": "must be at least 1, not 0"},
        "buffer: must be at least 1, not 0",
    ),
    (ConnectError("no route to host"), {"reason": "no route to host"}, "no route to host"),
    (
        ConnectTimeout(1.5),
        {"timeout": 1.5, "reason": "not connected within 1.5 s; see connect_timeout"},
        "not connected within 1.5 s; see connect_timeout",
    ),
    (
        ConnectionRejected(429, HEADERS, "Too many\nrequests"),
        {"status": 429, "headers": HEADERS, "body": "Too many\nrequests"},
        r"the server refused the connection with HTTP status 429: 'Too many\nrequests'",
    ),
    (
        ConnectionLost("closed_by_server", 1012),
        {"reason": "closed_by_server", "code": 1012, "sent": False},
        "the connection ended: closed_by_server (close code 1012)",
    ),
    (
        ConnectionLost("lost", sent=True),
        {"reason": "lost", "code": None, "sent": True},
        "the connection ended: lost",
    ),
    (
        JoinError("room", {"reason": "no\nway"}),
        {"topic": "room", "response": {"reason": "no\nway"}},
        r"the server refused to let 'room' be joined: {'reason': 'no\nway'}",
    ),
    (
        JoinTimeout("room", 2.5),
        {"topic": "room", "timeout": 2.5},
        "no answer to the join of 'room' within 2.5 s; see join_timeout",
    ),
    (
        AlreadyJoined("room"),
        {"topic": "room"},
        "this socket has already joined 'room': share that channel, or leave it first",
    ),
    (
        PushError("room", "new_msg", "error", {"why": "x"}),
        {"topic": "room", "event": "new_msg", "status": "error", "response": {"why": "x"}},
        "'new_msg' on 'room' was answered with status 'error': {'why': 'x'}",
    ),
    (
        PushTimeout("room", "new_msg", 2.5),
        {"topic": "room", "event": "new_msg", "timeout": 2.5},
        "no reply to 'new_msg' on 'room' within 2.5 s; use send() for events that the server does not answer",
    ),
    (
        ChannelClosed("room", "not_joined"),
        {"topic": "room", "reason": "not_joined"},
        "the channel 'room' is not joined: join it first",
    ),
    (
        ChannelClosed("room", "left"),
        {"topic": "room", "reason": "left"},
        "the channel 'room' is not joined: left",
    ),
    (
        SlowConsumer("room", 3),
        {"topic": "room", "dropped": 3},
        "3 messages of 'room' were dropped here: read faster, or raise `buffer`",
    ),
    (
        ClientBusy("Lobby", 1024),
        {"client": "Lobby", "waiting": 1024},
        "Lobby has 1024 casts and infos waiting: use call(), which waits, or raise `buffer`",
    ),
    (ClientStopped("Lobby"), {"client": "Lobby"}, "Lobby does not run (any more): run_client runs it"),
    (CallTimeout("Lobby", 2.5), {"client": "Lobby", "timeout": 2.5}, "Lobby did not answer a call within 2.5 s"),
    (SerializationError("not a JSON value"), {}, "not a JSON value"),
    (ProtocolError("not JSON"), {"problem": "not JSON"}, "not JSON"),
    (
        RecordingError("trace.jsonl", "is no recording"),
        {"path": "trace.jsonl", "problem": "is no recording"},
        "trace.jsonl: is no recording",
    ),
    (ExportError("nobody listens"), {}, "nobody listens"),
    (InternalError("a bug"), {}, "a bug"),
]

PARENTS: dict[type[Exception], type[Exception]] = {
    **{type(example): SlipstreamError for example, _, _ in EXAMPLES},
    SlipstreamError: Exception,
    ConnectionRejected: ConnectError,
    ConnectTimeout: ConnectError,
}

every = pytest.mark.parametrize(
    ("error", "fields", "message"), EXAMPLES, ids=[type(example).__name__ for example, _, _ in EXAMPLES]
)


@every
def test_an_error_has_its_facts_as_fields(error: SlipstreamError, fields: dict[str, Any], message: str) -> None:
    assert vars(error) == fields | ({"reason": message} if isinstance(error, ConnectionRejected) else {})


@every
def test_an_errors_message_is_one_line(error: SlipstreamError, fields: dict[str, Any], message: str) -> None:
    assert str(error) == message
    assert len(message.splitlines()) == 1


@every
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(
    error: SlipstreamError, fields: dict[str, Any], message: str, protocol: int
) -> None:
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == message
        assert again.args == error.args


def test_the_hierarchy() -> None:
    exported = {name: getattr(errors, name) for name in errors.__all__}
    assert {error: error.__bases__ for error in exported.values()} == {
        error: (parent,) for error, parent in PARENTS.items()
    }


def test_every_public_error_is_exported() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)


def test_no_error_has_a_place_for_secrets() -> None:
    parameters = {
        name for error in PARENTS if "__init__" in vars(error) for name in inspect.signature(error).parameters
    }
    told_by_the_server = {"status", "headers", "body", "response", "code"}
    told_by_the_library = {"option", "problem", "reason", "sent", "timeout", "dropped", "client", "waiting"}
    assert parameters <= {"topic", "event", "path"} | told_by_the_server | told_by_the_library


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "check the credentials"), (403, "check params, auth_token and vsn"), (404, "end in /websocket")],
)
def test_a_rejection_hints_at_its_usual_cause(status: int, hint: str) -> None:
    assert hint in str(ConnectionRejected(status))
    assert hint not in str(ConnectionRejected(500))


def test_a_rejection_shows_the_start_of_a_long_body_and_keeps_all_of_it() -> None:
    error = ConnectionRejected(500, body="x" * 5000)
    assert "x" * 200 in str(error)
    assert "x" * 201 not in str(error)
    assert error.body == "x" * 5000


def test_a_rejection_without_a_body_shows_none() -> None:
    assert str(ConnectionRejected(500)) == "the server refused the connection with HTTP status 500"
    assert ConnectionRejected(500).headers == ()


def test_a_rejections_headers_cannot_be_changed_from_outside() -> None:
    headers = [("retry-after", "5")]
    error = ConnectionRejected(429, headers)
    headers.clear()
    assert error.headers == (("retry-after", "5"),)


def test_every_error_is_caught_as_a_slipstream_error() -> None:
    for error, _, _ in EXAMPLES:
        with pytest.raises(SlipstreamError):
            raise error
