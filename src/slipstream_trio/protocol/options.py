"""A connection's configuration, as far as it may be shown."""

from typing import Literal

from attrs import frozen

from .backoff import RECONNECT, REJOIN, RETRY_AFTER_LIMIT, Backoff

__all__ = ["Given", "Options"]

Given = Literal["absent", "value", "function"]
"""The form in which an option was given whose value is not shown."""


@frozen(kw_only=True)
class Options:
    """A connection's configuration without secrets, live objects and callables: safe to log, compare and record.

    Times are seconds, None means no limit.

    Attributes:
        url: the URL without its query; None where a function gives it, which the transport's opening tells of.
        vsn: the version of the serializer that is asked for.
        serializer: the serializer's name.
        transport: the transport's name.
        connect_timeout: for one attempt: the functions among the options, TCP, TLS and the upgrade together.
        join_timeout: for the reply to a join.
        push_timeout: for the reply to a push.
        leave_timeout: for a leave to be confirmed.
        close_timeout: for everything that happens when the block is left.
        heartbeat_interval: between heartbeats; None: none are sent.
        heartbeat_timeout: for the answer to a heartbeat.
        join_window: the most joins that may be unanswered at once; None: as the answers allow.
        max_message_size: of a message from the server, in bytes.
        buffer: the most messages that wait for a consumer.
        overflow: the policy for further messages.
        retry_first: whether a first connection that fails is retried.
        reconnect: how connections that ended are replaced.
        rejoin: how channels that crashed or were refused are joined again.
        retry_after_limit: the most that a server's `retry-after` is obeyed.
        params: how they were given, never what is in them; likewise `headers` and `auth_token`.
    """

    url: str | None
    vsn: str = "2.0.0"
    serializer: str = "v2"
    transport: str = "auto"
    connect_timeout: float | None = 10.0
    join_timeout: float | None = 10.0
    push_timeout: float | None = 10.0
    leave_timeout: float | None = 5.0
    close_timeout: float | None = 5.0
    heartbeat_interval: float | None = 30.0
    heartbeat_timeout: float | None = 30.0
    join_window: int | None = None
    max_message_size: int = 16 * 2**20
    buffer: int = 1024
    overflow: str = "raise"
    retry_first: bool = False
    reconnect: Backoff | None = RECONNECT
    rejoin: Backoff | None = REJOIN
    retry_after_limit: float | None = RETRY_AFTER_LIMIT
    params: Given = "absent"
    headers: Given = "absent"
    auth_token: Given = "absent"  # noqa: S105 - which tells nothing of it
