"""A connection's configuration, as far as it may be shown."""

from typing import Literal

from attrs import frozen

from .backoff import RECONNECT, REJOIN, RETRY_AFTER_LIMIT, Backoff

Given = Literal["absent", "value", "function"]
"""The form in which an option was given whose value is not shown."""


@frozen(kw_only=True)
class Options:
    """A connection's configuration without secrets, live objects and callables: safe to log, compare and record.

    Each field is the option of `connect` of this name, which `Configuration` describes, as far as it can be shown.

    Attributes:
        url: the URL without its query; None where a function gives it, which the transport's opening tells of.
        serializer: the serializer's name.
        transport: the transport's name.
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
