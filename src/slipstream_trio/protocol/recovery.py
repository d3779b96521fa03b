"""The former name of `backoff`, for scripts that import it from here."""

from .backoff import Backoff, Disconnect, reconnect_delay, rejoin_delay, retry_after, worth_retrying

__all__ = ["Backoff", "Disconnect", "reconnect_delay", "rejoin_delay", "retry_after", "worth_retrying"]
