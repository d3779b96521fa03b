"""A Phoenix-compatible server in the test process: real sockets or streams in memory, real time or virtual.

`Channel` and `PhoenixServer` show how it is used. It needs the extra `testing`.
"""

from ...errors.base import lacks

try:
    from .channel import Channel, JoinRefused, Outcome, Reply, Stop
    from .connection import Connection
    from .mount import Accept, ChannelFactory, Connect, Handler, Mount, Refuse, Request
    from .pipes import MemoryStream, memory_pipe
    from .presence import ChannelPresence
    from .server import Flavour, Listening, PhoenixServer, Version
except ImportError as _error:
    raise ImportError(lacks(__name__, _error, "testing"), name=_error.name) from None

__all__ = [
    "Accept", "Channel", "ChannelFactory", "ChannelPresence", "Connect", "Connection", "Flavour", "Handler",
    "JoinRefused", "Listening", "MemoryStream", "Mount", "Outcome", "PhoenixServer", "Refuse", "Reply", "Request",
    "Stop", "Version", "memory_pipe",
]  # fmt: skip
