"""The client: `connect`, and what it gives."""

from .channel import DEFAULT, Channel, Default, Subscription
from .configuration import Configuration, ConnectOptions
from .connect import connect
from .membership import ChannelStatus
from .session import Status
from .socket import Socket

__all__ = [
    "DEFAULT",
    "Channel",
    "ChannelStatus",
    "Configuration",
    "ConnectOptions",
    "Default",
    "Socket",
    "Status",
    "Subscription",
    "connect",
]
