"""Every exception that the library raises on purpose.

All are `SlipstreamError`s. Each carries its facts as fields, and says in its message what happened, why, and what to do
next. Connect parameters, tokens, request headers, and payloads of pushes are secrets, and kept out of all
errors.
"""

from .base import (
    ConfigurationError,
    ExportError,
    InternalError,
    ProtocolError,
    RecordingError,
    SerializationError,
    SlipstreamError,
)  # fmt: skip
from .channel import (
    AlreadyJoined,
    CallTimeout,
    ChannelClosed,
    ClientBusy,
    ClientStopped,
    JoinError,
    JoinTimeout,
    PushError,
    PushTimeout,
    SlowConsumer,
)  # fmt: skip
from .connection import ConnectError, ConnectionLost, ConnectionRejected, ConnectTimeout, EndedBy

__all__ = [
    "AlreadyJoined", "CallTimeout", "ChannelClosed", "ClientBusy", "ClientStopped", "ConfigurationError",
    "ConnectError", "ConnectTimeout", "ConnectionLost", "ConnectionRejected", "EndedBy", "ExportError",
    "InternalError", "JoinError", "JoinTimeout", "ProtocolError", "PushError", "PushTimeout", "RecordingError",
    "SerializationError", "SlipstreamError", "SlowConsumer",
]  # fmt: skip
