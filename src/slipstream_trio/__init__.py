"""A structured-concurrency client for Phoenix Channels on Trio, with telemetry of everything that happens.

`connect` opens a socket, `Socket.join` a channel. What happens on a connection can be seen with
`slipstream_trio.telemetry`; the errors are all `SlipstreamError`s.

A name is imported when it is first asked for: who reads recordings, or asks a command for its help, needs no client.
"""
# ruff: noqa: F403, F405 - all that the modules with a star export is public, and named in `__all__`

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from . import protocol, telemetry, trace
    from .client import *
    from .client.callbacks import *
    from .errors.base import *  # mypy cannot see through a star of a star
    from .errors.channel import *
    from .errors.connection import *
    from .protocol import Backoff, Disconnect, Message, PresenceChange

__all__ = [
    "DEFAULT",
    "NO_REPLY",
    "AlreadyJoined",
    "Backoff",
    "CallTimeout",
    "Caller",
    "Channel",
    "ChannelClosed",
    "ChannelPresence",
    "ChannelStatus",
    "Client",
    "ClientBusy",
    "ClientStopped",
    "Configuration",
    "ConfigurationError",
    "ConnectError",
    "ConnectOptions",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionRejected",
    "Default",
    "Disconnect",
    "ExportError",
    "Gap",
    "InternalError",
    "JoinError",
    "JoinTimeout",
    "Message",
    "NoReply",
    "Overflow",
    "PresenceChange",
    "ProtocolError",
    "PushError",
    "PushTimeout",
    "RecordingError",
    "Reply",
    "SerializationError",
    "SlipstreamError",
    "SlowConsumer",
    "Socket",
    "Status",
    "StatusChanges",
    "Stream",
    "Subscription",
    "connect",
    "protocol",
    "run_client",
    "telemetry",
    "trace",
]

_PLACES: Final = (".errors", ".protocol", ".client", ".client.callbacks")
"""The modules that the names are from, in the order of what they bring along."""


if not TYPE_CHECKING:  # which would take every name for one of the package

    def __getattr__(name: str) -> Any:
        if name in ("protocol", "telemetry", "trace"):
            return import_module(f".{name}", __name__)
        if name in __all__:
            found = next(module for place in _PLACES if name in (module := import_module(place, __name__)).__all__)
            return globals().setdefault(name, getattr(found, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
