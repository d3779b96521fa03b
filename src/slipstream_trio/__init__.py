"""A structured-concurrency client for Phoenix Channels on Trio, with telemetry of everything that happens.

`connect` opens a socket, `Socket.join` a channel. What happens on a connection can be seen with
`slipstream_trio.telemetry`; the errors are all `SlipstreamError`s.
"""

from . import protocol, telemetry, trace
from .client import (
    DEFAULT,
    Channel,
    ChannelStatus,
    Configuration,
    ConnectOptions,
    Default,
    Socket,
    Status,
    Subscription,
    connect,
)
from .errors import (
    AlreadyJoined,
    ChannelClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectionRejected,
    InternalError,
    JoinError,
    JoinTimeout,
    ProtocolError,
    PushError,
    PushTimeout,
    SerializationError,
    SlipstreamError,
    SlowConsumer,
)
from .protocol import Message

__all__ = [
    "DEFAULT",
    "AlreadyJoined",
    "Channel",
    "ChannelClosed",
    "ChannelStatus",
    "Configuration",
    "ConfigurationError",
    "ConnectError",
    "ConnectOptions",
    "ConnectionLost",
    "ConnectionRejected",
    "Default",
    "InternalError",
    "JoinError",
    "JoinTimeout",
    "Message",
    "ProtocolError",
    "PushError",
    "PushTimeout",
    "SerializationError",
    "SlipstreamError",
    "SlowConsumer",
    "Socket",
    "Status",
    "Subscription",
    "connect",
    "protocol",
    "telemetry",
    "trace",
]
