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
        {
            "timeout": 1.5,
            "option": None,
            "awaited": None,
            "limit": "connect_timeout",
            "reason": "not connected within 1.5 s; see connect_timeout",
        },
        "not connected within 1.5 s; see connect_timeout",
    ),
    (
        ConnectTimeout(1.5, awaited="the proxy", limit="longpoll_fallback"),
        {
            "timeout": 1.5,
            "option": None,
            "awaited": "the proxy",
            "limit": "longpoll_fallback",
            "reason": "not connected within 1.5 s, waiting for the proxy; see longpoll_fallback",
        },
        "not connected within 1.5 s, waiting for the proxy; see longpoll_fallback",
    ),
    (
        ConnectTimeout(1.5, "params"),
        {
            "timeout": 1.5,
            "option": "params",
            "awaited": None,
            "limit": "connect_timeout",
            "reason": "not connected within 1.5 s, as the function given as 'params' had not returned; "
            "see connect_timeout",
        },
        "not connected within 1.5 s, as the function given as 'params' had not returned; see connect_timeout",
    ),
    (
        ConnectionRejected(429, HEADERS, "Too many\nrequests"),
        {"status": 429, "headers": HEADERS, "body": "Too many\nrequests"},
        (
            r"the server refused the connection with HTTP status 429: 'Too many\nrequests'; "
            "too many connections or attempts: wait, as its retry-after says"
        ),
    ),
    (
        ConnectionLost("closed_by_server", 1012),
        {"reason": "closed_by_server", "code": 1012, "message": "", "ended_by": None, "sent": False},
        "the connection ended: closed_by_server (close code 1012); the server restarts",
    ),
    (
        ConnectionLost("closed_by_server", 4001, "token_expired", "server"),
        {"reason": "closed_by_server", "code": 4001, "message": "token_expired", "ended_by": "server", "sent": False},
        "the connection ended: closed_by_server (close code 4001: 'token_expired')",
    ),
    (
        ConnectionLost("lost", sent=True),
        {"reason": "lost", "code": None, "message": "", "ended_by": None, "sent": True},
        (
            "the connection ended: lost; no close frame came: the server went away, or the network or a proxy cut the "
            "line; the server may have received the push"
        ),
    ),
    (
        ConnectionLost("heartbeat_timeout", 1006, ended_by="network"),
        {"reason": "heartbeat_timeout", "code": 1006, "message": "", "ended_by": "network", "sent": False},
        (
            "the connection ended: heartbeat_timeout (close code 1006); "
            "the server or the network did not respond within heartbeat_timeout"
        ),
    ),
    (
        JoinError("room", {"reason": "no\nway"}),
        {"topic": "room", "response": {"reason": "no\nway"}},
        r"the server refused the join of 'room': {'reason': 'no\nway'}",
    ),
    (
        JoinTimeout("room", 2.5),
        {"topic": "room", "timeout": 2.5, "sent": None},
        "no answer to the join of 'room' within 2.5 s; see join_timeout",
    ),
    (
        JoinTimeout("room", 2.5, sent=False),
        {"topic": "room", "timeout": 2.5, "sent": False},
        (
            "the join of 'room' was not sent within 2.5 s, as the socket was not connected, other joins came first, or "
            "the function for its payload took too long; see join_timeout"
        ),
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
        {"topic": "room", "event": "new_msg", "timeout": 2.5, "sent": None, "waited": None, "awaited": None},
        "no reply to 'new_msg' on 'room' within 2.5 s; use send() for events that the server does not answer",
    ),
    (
        PushTimeout("room", "new_msg", 2.5, sent=True, waited=2.04),
        {"topic": "room", "event": "new_msg", "timeout": 2.5, "sent": True, "waited": 2.04, "awaited": None},
        (
            "no reply to 'new_msg' on 'room' within 2.5 s, of which it waited 2.04 s to be sent; "
            "use send() for events that the server does not answer"
        ),
    ),
    (
        PushTimeout("room", "new_msg", 2.5, sent=False, waited=2.5, awaited="connection"),
        {"topic": "room", "event": "new_msg", "timeout": 2.5, "sent": False, "waited": 2.5, "awaited": "connection"},
        (
            "'new_msg' on 'room' was not sent within 2.5 s, as the socket was not connected (socket.wait_connected() "
            "waits for that); see push_timeout"
        ),
    ),
    (
        ChannelClosed("room", "not_joined"),
        {"topic": "room", "reason": "not_joined", "event": None},
        "the channel 'room' is not joined: join it first",
    ),
    (
        ChannelClosed("room", "left"),
        {"topic": "room", "reason": "left", "event": None},
        "the channel 'room' is not joined: it was left; join it again to use it",
    ),
    (
        ChannelClosed("room", "crashed", "new_msg"),
        {"topic": "room", "reason": "crashed", "event": "new_msg"},
        (
            "'new_msg' was not answered: the channel 'room' is not joined: it crashed on the server (phx_error), whose "
            "log has the reason"
        ),
    ),
    (
        SlowConsumer("room", 3),
        {"topic": "room", "dropped": 3},
        "dropped 3 messages of 'room' here, as a buffer was full: read faster, or raise `buffer` or `buffer_bytes`",
    ),
    (
        SlowConsumer("room", 1),
        {"topic": "room", "dropped": 1},
        "dropped 1 message of 'room' here, as a buffer was full: read faster, or raise `buffer` or `buffer_bytes`",
    ),
    (
        ClientBusy("Lobby", 1024),
        {"client": "Lobby", "waiting": 1024},
        "Lobby has 1024 casts and infos waiting: use call(), which waits, or raise `buffer`",
    ),
    (ClientStopped("Lobby"), {"client": "Lobby"}, "Lobby does not run: it has ended, or run_client was not called yet"),
    (
        CallTimeout("Lobby", 2.5),
        {"client": "Lobby", "timeout": 2.5, "runs": True},
        "Lobby did not answer a call within 2.5 s; see the timeout of call()",
    ),
    (
        SerializationError("not a JSON value"),
        {"problem": "not a JSON value", "path": "", "topic": None, "event": None},
        "not a JSON value",
    ),
    (
        SerializationError("set is not a JSON type", 'payload["tags"][2]', "room", "new_msg"),
        {"problem": "set is not a JSON type", "path": 'payload["tags"][2]', "topic": "room", "event": "new_msg"},
        "at payload[\"tags\"][2]: set is not a JSON type (in 'new_msg' of 'room')",
    ),
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


def test_each_error_has_one_documented_parent() -> None:
    exported = [getattr(errors, name) for name in errors.__all__ if name != "EndedBy"]
    assert {error: error.__bases__ for error in exported} == {error: (parent,) for error, parent in PARENTS.items()}


def test_every_public_error_is_exported() -> None:
    modules = [module for module in vars(errors).values() if inspect.ismodule(module)]
    classes = {name for module in modules for name, value in vars(module).items() if _is_error(value)}
    assert classes == set(errors.__all__) - {"EndedBy"}


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def test_no_error_has_a_place_for_secrets() -> None:
    parameters = {
        name for error in PARENTS if "__init__" in vars(error) for name in inspect.signature(error).parameters
    }
    told_by_the_server = {"status", "headers", "body", "response", "code", "message"}
    told_by_the_library = {"option", "problem", "reason", "timeout", "dropped", "client", "waiting"}
    told_by_the_library |= {"sent", "waited", "awaited", "limit", "ended_by", "runs"}
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
    assert str(ConnectionRejected(418)) == "the server refused the connection with HTTP status 418"
    assert ConnectionRejected(418).headers == ()


def test_a_rejections_headers_cannot_be_changed_from_outside() -> None:
    headers = [("retry-after", "5")]
    error = ConnectionRejected(429, headers)
    headers.clear()
    assert error.headers == (("retry-after", "5"),)


def test_every_error_is_caught_as_a_slipstream_error() -> None:
    for error, _, _ in EXAMPLES:
        with pytest.raises(SlipstreamError):
            raise error


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_says_where_to(status: int) -> None:
    text = str(ConnectionRejected(status, [("location", "https://example.org/socket")]))
    assert text.endswith("; it redirects to 'https://example.org/socket': connect to that URL, if you trust it")
    assert "redirect" not in str(ConnectionRejected(status))
    assert "redirect" not in str(ConnectionRejected(200, [("location", "https://example.org/socket")]))


@pytest.mark.parametrize(
    ("awaited", "reason"),
    [
        (None, "it waited for a connection, a join, or room in the queue"),
        ("join", "the join of its channel was not answered"),
        ("room", "the queue of frames to send was full: the connection is slower than the pushes"),
    ],
)
def test_a_push_that_was_never_sent_says_what_it_waited_for(awaited: Any, reason: str) -> None:
    text = str(PushTimeout("room", "new_msg", 2.5, sent=False, awaited=awaited))
    assert text == f"'new_msg' on 'room' was not sent within 2.5 s, as {reason}; see push_timeout"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("leave_timeout", "it was left, though the server has not confirmed that in time"),
        ("leave_lost", "it was left, though the connection ended before the server had confirmed that"),
        ("closed", "the server closed it (phx_close)"),
        ("crashed", "it crashed on the server (phx_error), whose log has the reason"),
        ("replaced", "a newer join of its topic has replaced it"),
        ("join_refused", "the server refused its join"),
        ("join_timeout", "the server did not answer its join in time; see join_timeout"),
        ("payload_failed", "the function for the payload of its next join failed"),
        ("another", "another"),
    ],
)
def test_a_closed_channel_says_why(reason: str, text: str) -> None:
    assert str(ChannelClosed("room", reason)) == f"the channel 'room' is not joined: {text}"


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("message_too_big", "; a message from the server exceeds max_message_size"),
        ("protocol_error", "; the server, or a proxy, violated the WebSocket protocol"),
        ("another", ""),
    ],
)
def test_a_lost_connection_says_what_may_be_the_cause(reason: str, hint: str) -> None:
    assert str(ConnectionLost(reason)) == f"the connection ended: {reason}{hint}"
