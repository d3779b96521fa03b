"""The callback client: a class to subclass, whose methods are called as things happen."""

from .client import Client, run_client
from .runner import NO_REPLY, Caller, NoReply, Reply

__all__ = ["NO_REPLY", "Caller", "Client", "NoReply", "Reply", "run_client"]
