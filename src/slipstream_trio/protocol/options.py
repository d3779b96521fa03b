"""What a connection was configured with, as far as it may be shown."""

from attrs import frozen

from .backoff import RECONNECT, REJOIN, Backoff

__all__ = ["Options"]


@frozen(kw_only=True)
class Options:
    """A connection's configuration without secrets, live objects and callables: safe to log, compare and record.

    Times are seconds, None means no limit.

    Attributes:
        url: the URL without query and user information.
        vsn: the version of the serializer that is asked for.
        serializer: the serializer's name.
        transport: the transport's name.
        connect_timeout: for the TCP connection, TLS and the upgrade together.
        join_timeout: for the reply to a join.
        push_timeout: for the reply to a push.
        leave_timeout: for a leave to be confirmed.
        close_timeout: for everything that happens when the block is left.
        heartbeat_interval: between heartbeats; None: none are sent.
        heartbeat_timeout: for the answer to a heartbeat.
        max_message_size: of a message from the server, in bytes.
        buffer: how many messages wait for a consumer.
        overflow: what happens when they are more.
        retry_first: whether a first connection that fails is retried.
        reconnect: how connections that ended are replaced.
        rejoin: how channels that crashed or were refused are joined again.
    """

    url: str
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
    max_message_size: int = 16 * 2**20
    buffer: int = 1024
    overflow: str = "raise"
    retry_first: bool = False
    reconnect: Backoff | None = RECONNECT
    rejoin: Backoff | None = REJOIN
