"""Traces: what the records of connections say when they are put together."""

from .verify import Verifier, Violation, verify

__all__ = ["Verifier", "Violation", "verify"]
